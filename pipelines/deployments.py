"""The flows as Prefect's workers run them: plain, typed parameters; settings are read where the workspace is."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import WithJsonSchema

from features.contracts import ContractError
from pipelines import running
from pipelines.addresses import mask
from pipelines.environment import apply_environment
from pipelines.settings import Settings, UserError, load
from pipelines.warmup import refuse_unwritable

REPLAYED = timedelta(weeks=26)
Day = Annotated[date, WithJsonSchema({"type": "string", "format": "date", "pattern": r"^\d{4}-\d{2}-\d{2}$"})]
"""Servers check patterns before a run exists; the format alone they do not."""


@flow(name="score")
def score_weekly(workspace: Path, as_of: Day | None = None) -> State[Any]:
    """Publish the risk tables of a week; left out, it is the Monday the run was scheduled for and what was missed."""

    def work(settings: Settings, day: date) -> dict[str, Any]:
        from pipelines.catch_up import catch_up, missed_weeks
        from pipelines.clock import refuse_a_slow_clock
        from pipelines.score import score

        refuse_a_slow_clock(settings, datetime.now(UTC))
        if as_of:
            return score.fn(settings, as_of=day)
        return catch_up.fn(settings, missed_weeks(settings, day), as_of=day)

    return _carried_out(workspace, as_of, work)


@flow(name="train")
def train_monthly(
    workspace: Path, as_of: Day | None = None, tasks: list[Literal["delay", "shift"]] | None = None
) -> State[Any]:
    """Train on what was known before `as_of`, and promote what is better."""

    def work(settings: Settings, day: date) -> dict[str, Any]:
        from pipelines.train import train

        return train.fn(settings, as_of=day, tasks=tasks or settings.tasks)

    return _carried_out(workspace, as_of, work)


@flow(name="backtest")
def backtest_stretch(
    workspace: Path,
    task: Literal["delay", "shift"] = "delay",
    first: Day | None = None,
    last: Day | None = None,
    refit_days: int = 28,
) -> State[Any]:
    """Replay a stretch of the past; left out, it is the last half year."""

    def work(settings: Settings, day: date) -> dict[str, Any]:
        from pipelines.backtest import Question, backtest

        every = 7 if task == "shift" else settings.every_days
        until = last or day
        return backtest.fn(settings, Question(task, first or until - REPLAYED, until, every, refit_days))

    return _carried_out(workspace, last, work)


@flow(name="monitor")
def monitor_daily(workspace: Path, as_of: Day | None = None) -> State[Any]:
    """Say of every input, model and forecast whether it may be trusted, and take a failing champion back."""

    def work(settings: Settings, day: date) -> dict[str, Any]:
        from pipelines.monitor import monitor

        return monitor.fn(settings, as_of=day)

    return _carried_out(workspace, as_of, work)


def _carried_out(workspace: Path, as_of: date | None, work: Callable[[Settings, date], dict[str, Any]]) -> State[Any]:
    """Do the work of a flow, and say in its last state how it went, with the exit code the command would have had."""
    run_id = str(runtime.flow_run.id)
    try:
        settings = load(workspace, as_of=as_of)
        apply_environment(settings)
        refuse_unwritable(settings.workspace)
        with running.marked(settings.workspace, run_id, outlives_a_stop=True):
            result = work(settings, scheduled_day(settings, runtime.flow_run.scheduled_start_time))
            create_markdown_artifact(_links(settings, result), key="bullwhip-links", description="Where to look")
    except (UserError, ContractError) as error:
        return Failed(message=f"{mask(' '.join(str(error).split()))} (exit code {error.exit_code})")
    refused = [f"{name}: {why}" for name, why in _refusals(result).items()]
    code = " (exit code 4)" if refused else ""
    return Completed(message=("; ".join(refused) or str(result.get("status", "done")).capitalize()) + code)


def scheduled_day(settings: Settings, begins: datetime) -> date:
    """Return the day a run is about: that of its schedule where the schedule is made, however late it is."""
    there = begins.astimezone(ZoneInfo(settings.time_zone))
    return settings.as_of_on(date(there.year, there.month, there.day))


def _refusals(result: Mapping[str, Any]) -> dict[str, str]:
    tasks = result.get("tasks", {})
    return {name: t["refused_because"] for name, t in tasks.items() if t.get("refused_because")}


def _links(settings: Settings, result: Mapping[str, Any]) -> str:
    run_ids = {str(r.get("mlflow_run_id")) for r in (result, *result.get("tasks", {}).values()) if "mlflow_run_id" in r}
    lines = [f"- tables: `{settings.workspace.resolve() / 'tables'}`"]
    if board := running.url(settings.workspace, "board"):
        lines.insert(0, f"- [board]({board}/)")
    if mlflow := running.url(settings.workspace, "mlflow"):
        lines += [f"- [MLflow run {run_id}]({mlflow}/#/runs/{run_id})" for run_id in sorted(run_ids)]
    return "\n".join(lines)
