"""Commands that keep it running: servers, deployments, triggers."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from pipelines.commands.common import HERE, Common, Day, Flag, settings_of
from pipelines.terminal import Answer, working

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.prefect_api import Api
    from pipelines.settings import Settings

Port = Annotated[int, Parameter(validator=Number(gte=1, lte=65535))]


def up(
    *,
    host: str = "127.0.0.1",
    prefect_port: Port = 4200,
    mlflow_port: Port = 5000,
    board_port: Port = 8080,
    database: str | None = None,
    common: Common = HERE,
) -> Answer:
    """Run Prefect, MLflow, the board and a worker on this machine until Ctrl-C; what ends is started again.

    Parameters
    ----------
    host
        Where to listen; anything but loopback needs BULLWHIP_AUTH=user:password in the environment.
    prefect_port
        Runs, schedules and logs.
    mlflow_port
        Models and their metrics.
    board_port
        The page for Monday.
    database
        A PostgreSQL URL: everything is kept there instead of in files of the workspace.
    """
    import sys

    from pipelines.services import Plan
    from pipelines.up import hide_password
    from pipelines.up import up as run_up

    if database and "@" in database:
        hide_password(sys.argv[1:])
    settings = settings_of(common, database=database)

    def ready(state: dict[str, Any]) -> None:
        from rich.console import Console

        _show_state(state, Console(stderr=True))

    plan = Plan(host, prefect_port, mlflow_port, board_port)
    said = run_up(settings, plan, ready=ready)
    return Answer(said, lambda screen: screen.print("Stopped; nothing is left running."))


def status(*, common: Common = HERE) -> Answer:
    """Say what `bullwhip up` runs, where, and how it is; exit code 6 when something is missing."""
    from pipelines import running

    settings_of(common)
    state = running.read(common.workspace)
    if state is None:
        return Answer({"running": False}, lambda _: None, 6, f"bullwhip up does not run for {common.workspace}")
    bad = [name for name, s in state["services"].items() if s["state"] != "ok"]
    complaint = f"not well: {', '.join(bad)}; see {running.folder(common.workspace) / 'logs'}" if bad else ""
    return Answer({"running": True} | state, lambda s: _show_state(state, s), 6 if bad else 0, complaint)


def _show_state(state: dict[str, Any], screen: "Console") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("service", "where", "state", "process", "restarts"):
        table.add_column(column)
    for name, service in state.get("services", {}).items():
        cells = (service["url"] or "runs what is due", service["state"], service["pid"] or "", service["restarts"])
        table.add_row(name, *map(str, cells))
    screen.print(table)


def deploy(*, common: Common = HERE) -> Answer:
    """Tell the running Prefect what to run when: create or update the deployments; twice is the same as once."""
    settings = settings_of(common)
    api = _api(settings)
    from pipelines.deploy import deploy as run_deploy

    with working("deploying"):
        result = run_deploy(settings, api)

    def show(screen: "Console") -> None:
        for name, said in result["deployments"].items():
            when = f"{said['schedule']} ({result['time_zone']})" if said["schedule"] else "when asked"
            screen.print(f"{name:<15} {said['status']:<10} {when}", highlight=False)

    return Answer(result, show)


def trigger(
    deployment: str,
    /,
    *,
    as_of: Day | None = None,
    key: str | None = None,
    wait: Annotated[bool, Flag] = False,
    timeout: Annotated[float, Parameter(validator=Number(gt=0))] = 3600.0,
    common: Common = HERE,
) -> Answer:
    """Ask a deployment for one run, such as score-weekly; with --wait the exit code is that of the work itself.

    Parameters
    ----------
    deployment
        score-weekly, train-monthly, backtest or monitor-daily.
    as_of
        The day it is about; left out, the Monday of this week.
    key
        A name for this request: the same name again is the same run.
    wait
        Return when the run has ended.
    timeout
        Seconds to wait, then exit code 124; the run itself goes on.
    """
    settings = settings_of(common)
    from pipelines.trigger import trigger as run_trigger

    with working(f"running {deployment}"):
        said = run_trigger(_api(settings), deployment, as_of=as_of, key=key, wait=wait, timeout=timeout)
    code = said.pop("code")
    return Answer(
        said, lambda s: s.print(f"{deployment} {said['name']}: {said['state']}. {said['message']}".rstrip()), code,
        f"{deployment} {said['name']}: {said['message']}" if code else "",
    )  # fmt: skip


def _api(settings: "Settings") -> "Api":
    """Return the Prefect server the environment names: that of `up`, which may be starting, or one of the user's."""
    import os

    from pipelines import running
    from pipelines.prefect_api import Api
    from pipelines.settings import Unreachable

    url = os.environ.get("PREFECT_API_URL")
    if not url:
        raise Unreachable("no Prefect server is known: start bullwhip up, or set PREFECT_API_URL")
    patience = 120.0 if url == running.variables(settings.workspace).get("PREFECT_API_URL") else 0.0
    return Api(url, os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get(running.AUTH, ""), patience=patience)
