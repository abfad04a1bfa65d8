"""Write files so that a reader sees the old one or the new one, never half of either, and keep others from a folder."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Hand out a path beside `path` to write to; it takes the place of `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield fresh
        with open(fresh, "rb") as written:
            os.fsync(written.fileno())
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def sole(path: Path) -> Iterator[bool]:
    """Say whether nobody else holds the lock on a file, and hold it if so; a killed holder lets go."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def scratch_folder(scratch: Path, prefix: str) -> Path:
    """Make a folder for one run, and remove those that runs killed more than a day ago have left."""
    scratch.mkdir(parents=True, exist_ok=True)
    for left in scratch.glob(f"{prefix}*"):
        if left.stat().st_mtime < time.time() - 86_400:
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=scratch)).resolve()
