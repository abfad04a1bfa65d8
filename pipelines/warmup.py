"""Start what takes seconds beside other work: Prefect's temporary server and MLflow's first migration."""

import contextlib
import gc
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

from pipelines import temporary_server
from pipelines.settings import SCHEMAS, Settings, UserError, load

ROOM = 4 << 20  # bytes a run writes at least


def refuse_unwritable(workspace: Path) -> None:
    """Raise UserError, in one line, where a run could not be written down: whatever met it first would blame itself."""
    try:
        with tempfile.TemporaryFile(dir=workspace, buffering=0) as probe:
            written = probe.write(bytes(ROOM))
    except OSError as error:
        why = error.strerror
    else:
        why = "No space left on device" if written < ROOM else ""
    if why:
        raise UserError(f"{workspace} cannot be written: {why}; free space or give this user the right")


def prepare_database(settings: Settings) -> None:
    """Make the schemas of `database`, where there is one; Unreachable, in one line, when it does not let us in."""
    if url := settings.database_url("psycopg"):
        from pipelines.databases import prepare

        prepare(url, SCHEMAS)


def warm_up(workspace: Path) -> Callable[[], None]:
    """Begin in the background, once, and return what waits for it.

    The environment must have been applied. What fails here is met again, and told, where it is used. In a process that
    has yet to import Prefect nothing is garbage until then, and looking for it took a tenth of the time.
    """
    if "prefect" not in sys.modules:
        gc.disable()
    begun, server = _begun(workspace.resolve())

    def ready() -> None:
        begun.join()
        if server:
            _without_heartbeats()
        if not gc.isenabled():
            gc.freeze()  # what is imported stays: nothing of it is looked at again
            gc.enable()

    return ready


def _without_heartbeats() -> None:
    """Give no signs of life to a server that watches nobody: to end their thread takes up to a second."""
    from prefect.settings import get_current_settings

    get_current_settings().flows.heartbeat_frequency = None


@cache
def _begun(workspace: Path) -> tuple[threading.Thread, str | None]:
    """Return what starts things, and the address of the temporary server that is among them, if one is."""
    server = temporary_server.begin()
    thread = threading.Thread(target=_start, args=(workspace, server), name="warm-up", daemon=True)
    thread.start()
    return thread, server


def _start(workspace: Path, server: str | None) -> None:
    with contextlib.suppress(Exception):
        from pipelines import mlflow_store

        mlflow_store.open_store(load(workspace))
    with contextlib.suppress(Exception):
        temporary_server.wait(server) if server else _start_prefects_own()


def _start_prefects_own() -> None:
    from prefect.settings import get_current_settings

    chosen = get_current_settings()
    if not chosen.api.url and chosen.server.ephemeral.enabled:  # else the user's own server, or none wanted
        from prefect.server.api.server import SubprocessASGIServer

        SubprocessASGIServer().start()
