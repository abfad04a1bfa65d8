"""bullwhip on the command line: every command loads its settings, does one thing and returns its answer."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from cyclopts import App, Parameter
from cyclopts.validators import Number

from pipelines import terminal
from pipelines.terminal import Answer, working

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.settings import Settings


def _version() -> str:
    from importlib.metadata import version

    return version("bullwhip")


app = App(
    name="bullwhip",
    help="Every Monday: which deliveries will be late, which demand will shift, how sure, what it costs, why.",
    version=_version,
    help_format="plaintext",  # Markdown would cost half of the time --help takes
    suppress_keyboard_interrupt=False,
)

Flag = Parameter(negative="")
Count = Annotated[int, Parameter(validator=Number(gte=0))]
Task = Literal["delay", "shift"]


def _days(_: object, tokens: Sequence[Any]) -> int:
    """Read a span of time such as 7d or 4w; a bare number is days."""
    text = str(tokens[0].value).strip().lower()
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("d", "w") else (text, "d")
    if not number.isdigit() or int(number) < 1:
        raise ValueError(f"{text!r} is no span of time; expected days or weeks such as 7d or 4w")
    return int(number) * (7 if unit == "w" else 1)


Days = Annotated[int, Parameter(converter=_days)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes."""

    workspace: Annotated[Path, Parameter(env_var="BULLWHIP_WORKSPACE")] = Path()
    "The folder that holds bullwhip.toml, the data and all results."
    json: Annotated[bool, Flag] = False
    "Print exactly one JSON document on stdout."


HERE = Common()


@app.command(sort_key=0)
def init(*, common: Common = HERE) -> Answer:
    """Make a workspace: a bullwhip.toml that explains every key, and a folder for the data."""
    from pipelines.settings import FILE, template

    written = _write_new(common.workspace / FILE, template())
    (common.workspace / "data").mkdir(parents=True, exist_ok=True)
    values = {"workspace": str(common.workspace.resolve()), "written": written}

    def show(screen: "Console") -> None:
        screen.print(f"{'Wrote' if written else 'Left as it is:'} {common.workspace / FILE}", soft_wrap=True)
        screen.print("Next: put the tables into data/ (or name a database in bullwhip.toml), then: bullwhip check")

    return Answer(values, show)


@app.command(sort_key=1)
def simulate(
    *, scale: str | None = None, seed: Count | None = None, end: date | None = None, common: Common = HERE
) -> Answer:
    """Write a synthetic supply chain whose truth is known, to try everything on.

    Parameters
    ----------
    scale
        Size of the chain: toy, demo, large, or so many times the demo.
    seed
        Another seed is another chain.
    end
        The day the world ends; predictions are made for it.
    """
    from pipelines.settings import FILE, UserError, template

    workspace = common.workspace
    if any((workspace / "data").glob("*")) and not (workspace / "truth").is_dir():
        raise UserError(f"{workspace / 'data'} holds tables that were not simulated; name another --workspace")
    result = _simulated(workspace, scale=_size(scale), seed=seed, end=end)
    until = date.fromisoformat(result["end"])
    text = template({"as_of": until, "country": result.get("country", "")})
    text = text.replace("\nas_of =", "\n# A simulated world stands still: this is the day it ends.\nas_of =")
    values = {"workspace": str(workspace.resolve()), "written": _write_new(workspace / FILE, text)} | result
    return Answer(values, lambda screen: _show_world(values, workspace, screen))


def _size(scale: str | None) -> str | float | None:
    """Return a named size or a multiple, refused in one line if there is no such size."""
    from pipelines.settings import UserError
    from pipelines.simulate import size_of

    if scale is None:
        return None
    size = float(scale) if scale.replace(".", "", 1).isdigit() else scale
    try:
        size_of(size)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    return size


def _simulated(workspace: Path, **given: Any) -> dict[str, Any]:
    from pipelines import simulate as simulator

    with working("simulating") as progress:
        return simulator.simulate(workspace, **{k: v for k, v in given.items() if v is not None}, progress=progress)


def _show_world(values: dict[str, Any], workspace: Path, screen: "Console") -> None:
    from pipelines import screen as screens
    from pipelines.settings import FILE, load

    screen.print(f"[bold]A simulated supply chain until {values['end']}[/], in {workspace / 'data'}", soft_wrap=True)
    counts = {k: v for k, v in values.get("counts", {}).items() if "windows" not in k}
    screens.facts({k.replace("_", " "): f"{v:>10,}" for k, v in counts.items()}, screen)
    stands = load(workspace, environ={}).as_of
    if not values["written"] and str(stands) != values["end"]:
        screen.print(f"[yellow]{workspace / FILE} was left as it is: its as_of is {stands}.[/]", soft_wrap=True)


@app.command(sort_key=2)
def check(*, common: Common = HERE) -> Answer:
    """Hold the input tables to their contract: rows, quarantined rows and why, days covered."""
    settings = _settings(common)
    from pipelines import check as checker

    with working("checking the tables"):
        outcome = checker.check(settings, now=datetime.now(UTC))

    def show(screen: "Console") -> None:
        if (report := checker.report(outcome)) is not None:
            screen.print(report)

    failed = "" if outcome.ok else f"the input failed its contract: {outcome.error}"
    return Answer(dict(outcome.as_dict()), show, 0 if outcome.ok else 3, failed)


@app.command(sort_key=3)
def train(
    *,
    task: Annotated[tuple[Task, ...] | None, Flag] = None,
    as_of: date | None = None,
    dry_run: Annotated[bool, Flag] = False,
    common: Common = HERE,
) -> Answer:
    """Train, compare with the naive rules and the model in use, and promote what is better.

    Parameters
    ----------
    task
        Only this task; may be repeated.
    as_of
        Learn only from what was known before this day.
    dry_run
        Train and compare, but register and promote nothing.
    """
    settings = _settings(common, tasks=task, as_of=as_of)
    ready = _warming_up(settings)
    from pipelines.train import train as run_training

    day = settings.as_of_on(datetime.now(UTC).date())
    with working(f"training on what was known before {day}"):
        ready()
        result = run_training(settings, as_of=day, tasks=settings.tasks, dry_run=dry_run)
    from pipelines import screen as screens

    refused = [f"{k}: {v['refused_because']}" for k, v in screens.per_task(result).items() if v.get("refused_because")]
    return Answer(dict(result), lambda s: screens.trained(result, s), 4 if refused else 0, "; ".join(refused))


@app.command(sort_key=4)
def score(*, as_of: date | None = None, dry_run: Annotated[bool, Flag] = False, common: Common = HERE) -> Answer:
    """Publish the risk tables of one week; the same week again changes nothing.

    Parameters
    ----------
    as_of
        The day predictions are made for.
    dry_run
        Say what would be published.
    """
    settings = _settings(common, as_of=as_of)
    ready = _warming_up(settings)
    from pipelines.score import score as run_scoring

    day = settings.as_of_on(datetime.now(UTC).date())
    with working(f"scoring {day}"):
        ready()
        result = run_scoring(settings, as_of=day, dry_run=dry_run)
    from pipelines import screen as screens

    return Answer(dict(result), lambda s: screens.scored(result, settings.currency, s))


@app.command(sort_key=5)
def show(*, table: str = "watchlist", top: Count = 10, as_of: date | None = None, common: Common = HERE) -> Answer:
    """Show the latest published week: what to worry about, and what to do first.

    Parameters
    ----------
    table
        supplier_delay_risk, demand_shift_risk, supplier_risk, watchlist, rule_forecasts or track_record.
    top
        How many rows; 0 for all.
    as_of
        An earlier week.
    """
    settings = _settings(common)
    from pipelines import publish
    from pipelines import screen as screens

    frame = publish.read(settings.workspace, table, as_of=as_of)
    rows = frame.head(top) if top else frame

    def shown(screen: "Console") -> None:
        if table == "watchlist":
            screens.watchlist(rows, len(frame), settings.currency, screen)
        else:
            screens.table(rows, table, len(frame), screen)

    return Answer({"table": table, "total_rows": len(frame), "rows": rows}, shown)


@app.command(sort_key=6)
def backtest(
    *,
    task: Task,
    first: Annotated[date, Parameter(name="--from")],
    last: Annotated[date, Parameter(name="--to")],
    every: Days | None = None,
    at: Literal["snapshot", "order"] = "snapshot",
    refit: Days = 28,
    predictions: Path | None = None,
    common: Common = HERE,
) -> Answer:
    """Replay the past: at each day see only what was known, retrain, score, and judge by what came of it.

    Parameters
    ----------
    task
        What to predict.
    first
        First day predictions are made for.
    last
        Last day predictions are made for.
    every
        Time between two days, such as 7d or 1w; the settings' every_days if left out.
    at
        snapshot: every open line on every day; order: every line once, when it is ordered.
    refit
        Time between two trainings, such as 4w.
    predictions
        Write one row per prediction to this file, Parquet or .csv.
    """
    settings = _settings(common)
    ready = _warming_up(settings)
    from pipelines.backtest import Question
    from pipelines.backtest import backtest as run_backtest

    usual = 7 if task == "shift" else 1 if at == "order" else settings.every_days
    asked = Question(task, first, last, every or usual, refit, at)
    with working(f"replaying {first} to {last}"):
        ready()
        result = run_backtest(settings, asked, file=predictions)
    from pipelines import screen as screens

    return Answer(dict(result), lambda s: screens.backtested(result, s))


@app.command(sort_key=7)
def tune(
    *,
    task: Task,
    minutes: Annotated[float, Parameter(validator=Number(gt=0))] = 10.0,
    trials: Count | None = None,
    as_of: date | None = None,
    write: Annotated[bool, Flag] = False,
    common: Common = HERE,
) -> Answer:
    """Look for model parameters that do better walk-forward than the defaults; goes on where it was interrupted.

    Parameters
    ----------
    task
        Whose model to tune.
    minutes
        How long to look, at most one trial longer.
    trials
        At most so many trials.
    as_of
        Learn only from what was known before this day.
    write
        Put what was found into bullwhip.toml.
    """
    settings = _settings(common, as_of=as_of)
    ready = _warming_up(settings)
    from pipelines.tune import tune as run_tuning
    from pipelines.tune import write_params

    day = settings.as_of_on(datetime.now(UTC).date())
    with working(f"tuning {task} on what was known before {day}"):
        ready()
        result = dict(run_tuning(settings, task, as_of=day, minutes=minutes, trials=trials))
    result["written"] = str(write_params(settings, task, result["params"])) if write and result["params"] else None
    from pipelines import screen as screens

    return Answer(result, lambda s: screens.tuned(result, s))


@app.command(sort_key=8)
def demo(*, scale: str | None = None, seed: Count | None = None, common: Common = HERE) -> Answer:
    """See everything at once: simulate, check, train, score and show, then how to look around.

    Parameters
    ----------
    scale
        Size of the chain: toy, demo, large, or so many times the demo.
    seed
        Another seed is another chain.
    """
    steps: dict[str, Callable[[], Answer]] = {
        "check": lambda: check(common=common),
        "train": lambda: train(common=common),
        "score": lambda: score(common=common),
        "show": lambda: show(common=common),
    }
    if not any((common.workspace / "data").glob("*")):
        steps = {"simulate": lambda: simulate(scale=scale, seed=seed, common=common)} | steps
    common.workspace.mkdir(parents=True, exist_ok=True)
    _warming_up(_settings(common))
    said: dict[str, Any] = {}
    code, complaint = 0, ""
    for name, step in steps.items():
        answer = step()
        said[name] = answer.values
        if not common.json:
            terminal.show(answer, heading=name)
        code, complaint = max((code, complaint), (answer.exit_code, answer.complaint))
        if answer.exit_code == 3:
            break
    said["where"] = _where(_settings(common))
    return Answer(said, lambda screen: _show_where(said["where"], screen), code, complaint)


def _where(settings: "Settings") -> dict[str, str]:
    from pipelines.settings import mask

    home, programs = settings.workspace.resolve(), Path(sys.executable).parent
    return {
        "tables": f"{home / 'tables'} (Parquet) and {home / 'risk.duckdb'}",
        "models and metrics": f"{programs / 'mlflow'} ui --backend-store-uri {mask(settings.tracking_uri)}",
        "runs and logs": f"PREFECT_HOME={os.environ.get('PREFECT_HOME')} {programs / 'prefect'} server start",
    }


def _show_where(where: dict[str, str], screen: "Console") -> None:
    from pipelines import screen as screens

    screen.rule("look around", align="left", style="dim")
    screens.facts(where, screen)


def _settings(common: Common, **flags: Any) -> "Settings":
    """Return the settings, with the environment set that prefect and mlflow read when they are imported."""
    from pipelines.settings import UserError, apply_environment, load

    if not common.workspace.is_dir():
        raise UserError(
            f"there is no workspace {common.workspace}; make one: bullwhip init --workspace {common.workspace}"
        )
    settings = load(common.workspace, **flags)
    apply_environment(settings)
    return settings


def _warming_up(settings: "Settings") -> Callable[[], None]:
    from pipelines.warmup import warm_up

    return warm_up(settings.workspace)


def _write_new(path: Path, text: str) -> list[str]:
    """Write a file unless there is one, and say which files were written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return []
    return [str(path)]


def run(tokens: Sequence[str]) -> int:
    """Run one command in this process and return its exit code."""
    return terminal.run(app, tokens)


def _terminate(*_: object) -> NoReturn:
    raise SystemExit(143)


def main() -> NoReturn:
    """Run what the command line says, and leave with its exit code."""
    terminal.silence_the_end()
    signal.signal(signal.SIGTERM, _terminate)
    code = run(sys.argv[1:])
    terminal.close_stdout()
    sys.exit(code)


if __name__ == "__main__":
    main()
