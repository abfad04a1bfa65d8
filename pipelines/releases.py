"""Swap releases of a workspace by one symbolic link, so that readers see the old one or the new one.

`releases/NNNN/` holds `risk.duckdb` and `tables/`; `current` points to one of them; the workspace's `risk.duckdb` and
`tables` point into `current`. A release never changes once `current` has named it, so readers need no lock.
"""

import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from pipelines.settings import UserError

KEPT = 3
"""Releases kept on disk, the current one among them; a reader may hold on to one for that many publications."""

SHARED = ("risk.duckdb", "tables")


class PublishConflict(UserError):
    """Somebody else is publishing into this workspace."""

    exit_code = 5


class TargetError(UserError):
    """The workspace cannot be written or read: disk full, no permission, gone."""

    exit_code = 6


def current(workspace: Path) -> Path | None:
    """Return the folder `current` points to, None before the first release; refuse a layout that is not ours."""
    link = workspace / "current"
    for path in (link, *(workspace / name for name in SHARED)):
        if os.path.lexists(path) and not path.is_symlink():
            raise UserError(f"{path} is in the way: publishing keeps a symbolic link there; move it elsewhere")
    if link.is_symlink():
        folder = workspace / os.readlink(link)
        if not re.fullmatch(r"\d{4,}", folder.name) or not (folder / "risk.duckdb").exists():
            raise UserError(f"{link} points to {os.readlink(link)}, which is no release; point it at one in releases/")
        return folder
    numbers = [folder.name for folder in _numbered(workspace)]
    if any(int(number) > 1 for number in numbers):  # 0001 alone is what a first publication leaves when it is killed
        raise UserError(f"{link} is missing; name the current release again: ln -s releases/{max(numbers)} {link}")
    return None


def path_after(workspace: Path, before: Path | None) -> Path:
    """Return where the release after `before` will be."""
    return workspace / "releases" / f"{int(before.name) + 1 if before else 1:04d}"


@contextmanager
def lock(workspace: Path, wait_seconds: float) -> Iterator[None]:
    """Be the only publisher of this workspace, with what a killed one left behind cleared away.

    Raises PublishConflict, naming the holder, after `wait_seconds`. The lock goes with the process that holds it.
    """
    try:
        import fcntl
    except ImportError:
        raise UserError("publishing needs the file locks of Linux or macOS; on Windows run it inside WSL") from None
    current(workspace)
    (workspace / "releases").mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_seconds
    with open(workspace / ".publish.lock", "a+") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise PublishConflict(_holder(workspace / ".publish.lock", wait_seconds)) from None
                time.sleep(0.05)
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        _sweep(workspace)
        _place_links(workspace)
        yield


@contextmanager
def next_release(workspace: Path, without: str) -> Iterator[Path]:
    """Hand out a copy of the current release, less the folders named `without`; make it the current one at the end.

    Needs the lock. An exception inside the block leaves the workspace as it was.
    """
    before = current(workspace)
    staging, path = workspace / "releases" / f".staging-{os.getpid()}", path_after(workspace, before)
    try:
        staging.mkdir()
        _copy(before, staging, without)
        yield staging
        _seal(staging)
        os.replace(staging, path)
        _sync(path.parent)
        _point_current_at(workspace, path)
    finally:
        _sweep(workspace)


@contextmanager
def plainly(workspace: Path, action: str) -> Iterator[None]:
    """Say in one line what disk or permissions refuse."""
    try:
        yield
    except (OSError, duckdb.IOException, duckdb.ConnectionException, duckdb.FatalException) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        hint = "free space or give access, then run it again"
        raise TargetError(f"cannot {action} {workspace}: {reason}; {hint}") from error


def _copy(before: Path | None, staging: Path, without: str) -> None:
    if before is None:
        (staging / "tables").mkdir()
        return
    shutil.copyfile(before / "risk.duckdb", staging / "risk.duckdb")
    shutil.copytree(before / "tables", staging / "tables", ignore=lambda *_: {without}, copy_function=_link)


def _link(source: str, target: str) -> None:
    """Share a released file with the next release; copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _seal(staging: Path) -> None:
    """Make what is new in the release durable and read-only."""
    for folder, _, names in os.walk(staging, topdown=False):
        for path in (Path(folder) / name for name in names):
            if path.stat().st_nlink == 1:  # a shared file was sealed by the release that wrote it
                path.chmod(path.stat().st_mode & ~0o222)
                _sync(path)
        _sync(Path(folder))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _point_current_at(workspace: Path, path: Path) -> None:
    fresh = workspace / ".current.new"
    fresh.unlink(missing_ok=True)
    _symlink(Path("releases") / path.name, fresh)
    os.replace(fresh, workspace / "current")
    _sync(workspace)


def _place_links(workspace: Path) -> None:
    """Make the links readers use; before the first release they point to nothing yet."""
    for name in SHARED:
        if not (workspace / name).is_symlink():
            _symlink(Path("current") / name, workspace / name)


def _symlink(target: Path, link: Path) -> None:
    try:
        os.symlink(target, link)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        remedy = "put the workspace on a file system that can"
        raise UserError(f"{link.parent} cannot hold symbolic links, which publishing needs; {remedy}") from error


def _numbered(workspace: Path) -> list[Path]:
    releases = workspace / "releases"
    return [f for f in releases.iterdir() if re.fullmatch(r"\d{4,}", f.name)] if releases.is_dir() else []


def _sweep(workspace: Path) -> None:
    """Delete what no reader can want: unfinished releases and those older than the last few. Needs the lock."""
    newest = current(workspace)
    number = int(newest.name) if newest else 0
    left_over = (workspace / "releases").glob(".staging-*")  # the holder of the lock has none but its own
    passed = (f for f in _numbered(workspace) if not number - KEPT < int(f.name) <= number)
    for folder in (*left_over, *passed):
        shutil.rmtree(folder, ignore_errors=True)


def _holder(path: Path, wait_seconds: float) -> str:
    since = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return (
        f"{path.parent} is being published by process {path.read_text().strip() or 'unknown'} since "
        f"{since:%Y-%m-%d %H:%M:%S} UTC; waited {wait_seconds:g} s, try again when it has finished"
    )
