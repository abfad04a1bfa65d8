"""Run what a team needs on one machine until told to stop: Prefect, MLflow, the board, a worker."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines import keeper, running
from pipelines.services import Plan, refuse_open_doors, refuse_taken_ports, secret_words, services
from pipelines.settings import Settings, Unreachable, UserError
from pipelines.supervisor import Log, Supervisor, state_writer
from pipelines.warmup import prepare_database

TRIES = 3  # a service that ends so often before all are well keeps nobody waiting any longer


def up(settings: Settings, plan: Plan, *, ready: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Serve until SIGTERM or Ctrl-C; `ready` is called once, when every service answers.

    Raises UserError for what the caller can put right: open doors, taken ports, a workspace or a database that cannot
    be had.
    """
    refuse_open_doors(plan, running.credentials())
    with _alone(settings.workspace):
        planned = services(settings, plan)
        refuse_taken_ports(planned, plan.host)
        prepare_database(settings)
        log = Log(running.folder(settings.workspace) / "logs", secret_words(settings), sys.stderr)
        facts = {"host": plan.host, "auth": running.credentials() is not None, "database": str(settings.database),
                 "started": datetime.now(UTC).isoformat(timespec="seconds")}  # fmt: skip
        supervisor = Supervisor(planned, log, state_writer(settings.workspace, **facts))
        with _until_told(supervisor.stopping):
            _run(supervisor, settings, ready)
    return {"stopped": True, "restarts": {c.service.name: c.restarts for c in supervisor.children.values()}}


def _run(supervisor: Supervisor, settings: Settings, ready: Callable[[dict[str, Any]], None]) -> None:
    try:
        while not supervisor.ready and not supervisor.stopping.is_set():
            supervisor.tick()
            supervisor.stopping.wait(0.2)
            _refuse_what_never_starts(supervisor)
        if not supervisor.stopping.is_set():
            ready(running.read(settings.workspace) or {})
            api = supervisor.children["prefect"].service.url + "/api"
            chores = (api, settings.workspace, supervisor.log, supervisor.stopping)
            threading.Thread(target=keeper.keep, args=chores, daemon=True).start()
    except BaseException:
        supervisor.stop()
        raise
    supervisor.run()


def _refuse_what_never_starts(supervisor: Supervisor) -> None:
    for child in supervisor.children.values():
        if child.in_a_row >= TRIES:
            raise Unreachable(
                f"{child.service.name} does not start: {child.last_words[:300]}; see {supervisor.log.folder}"
            )


@contextlib.contextmanager
def _alone(workspace: Path) -> Iterator[None]:
    try:
        with running.held(workspace) as mine:
            if not mine:
                other = (running.read(workspace) or {}).get("pid", "unknown")
                raise UserError(f"bullwhip up runs already for {workspace}, process {other}; see bullwhip status")
            (running.folder(workspace) / "state.json").unlink(missing_ok=True)
            for name in ("board", "mlflow", "prefect"):
                (workspace / name).mkdir(exist_ok=True)
            # 2026-11: Prefect asks whether the process in its lock still lives, and numbers come again in a container
            (workspace / "prefect" / "concurrency_leases" / "expirations.lock").unlink(missing_ok=True)
            yield
    except OSError as error:
        if error.filename and str(error.filename).startswith(str(workspace)):
            raise UserError(
                f"{error.filename} cannot be written: {error.strerror}; free space or give this user the right"
            ) from error
        raise


@contextlib.contextmanager
def _until_told(stopping: threading.Event) -> Iterator[None]:
    before = {s: signal.signal(s, lambda *_: stopping.set()) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for what, handler in before.items():
            signal.signal(what, handler)


def hide_password(argv: list[str]) -> None:
    """Begin again with the database in the environment: as an option, `ps` would show it to everybody."""
    for place, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == "--database" and (equals or place + 1 < len(argv)):
            rest = argv[:place] + argv[place + (1 if equals else 2) :]
            os.environ["BULLWHIP_DATABASE"] = value if equals else argv[place + 1]
            os.execv(sys.executable, [sys.executable, "-m", "pipelines.cli", *rest])
