"""What `bullwhip up` runs for a workspace: a file it keeps while it lives, and everybody else reads."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.files import replacing, sole

FOLDER = "up"
MARKS = Path("mlflow", "running")
AUTH = "BULLWHIP_AUTH"
"""The environment variable that holds user:password of all servers; it is never written anywhere."""


def folder(workspace: Path) -> Path:
    """Return where `up` keeps its state and its logs."""
    return workspace / FOLDER


def held(workspace: Path) -> contextlib.AbstractContextManager[bool]:
    """Be the only `up` of a workspace; gives False when there is one. The lock goes with the process."""
    return sole(folder(workspace) / "lock")


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock on a file."""
    try:
        import fcntl

        with path.open("r+b") as handle:  # never makes the file it asks about
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
    except (OSError, ImportError):
        return False


@contextlib.contextmanager
def marked(workspace: Path, name: str, *, outlives_a_stop: bool = False) -> Iterator[None]:
    """Leave a mark that says a run is alive for as long as this process is; it stays when the process is killed.

    With `outlives_a_stop` also when it is told to stop: it may be gone before anybody has heard of that.
    """
    import fcntl

    path = workspace / MARKS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        try:
            yield
        except BaseException as error:
            if isinstance(error, Exception) or not outlives_a_stop:
                path.unlink(missing_ok=True)
            raise
        path.unlink(missing_ok=True)


def left_behind(workspace: Path) -> list[Path]:
    """Return the marks of processes that are gone."""
    return [path for path in sorted((workspace / MARKS).glob("*")) if not is_locked(path)]


def write(workspace: Path, state: Mapping[str, Any]) -> None:
    """Replace the state file, whole."""
    with replacing(folder(workspace) / "state.json") as fresh:
        fresh.write_text(json.dumps(state, indent=1))


def read(workspace: Path) -> dict[str, Any] | None:
    """Return what `up` runs in a workspace, None when it does not run."""
    if not is_locked(folder(workspace) / "lock"):
        return None
    try:
        return dict(json.loads((folder(workspace) / "state.json").read_text()))
    except (OSError, ValueError):
        return None


def url(workspace: Path, service: str) -> str | None:
    """Return the address of a service that `up` runs here."""
    state = read(workspace) or {}
    found = state.get("services", {}).get(service, {}).get("url")
    return str(found) if found else None


def credentials() -> tuple[str, str] | None:
    """Return user and password of the servers, None when none are set."""
    given = os.environ.get(AUTH, "")
    user, colon, password = given.partition(":")
    return (user, password) if colon else None


def variables(workspace: Path) -> dict[str, str]:
    """Return what clients of the running servers need in their environment, nothing when `up` does not run."""
    state = read(workspace)
    if state is None or "prefect" not in state.get("services", {}):
        return {}
    out = {"PREFECT_API_URL": f"{state['services']['prefect']['url']}/api"}
    given = credentials()
    if state.get("auth") and given:
        out |= {"PREFECT_API_AUTH_STRING": ":".join(given)}
        out |= {"MLFLOW_TRACKING_USERNAME": given[0], "MLFLOW_TRACKING_PASSWORD": given[1]}
    return out
