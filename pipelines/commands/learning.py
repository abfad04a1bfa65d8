"""Commands for those who train models: train, replay, tune, compare, promote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from pipelines.commands.common import HERE, Common, Count, Day, Days, Flag, Task, day_of, settings_of, warming_up
from pipelines.terminal import Answer, working


def train(
    *,
    task: Annotated[tuple[Task, ...] | None, Flag] = None,
    as_of: Day | None = None,
    dry_run: Annotated[bool, Flag] = False,
    challenger: Annotated[bool, Flag] = False,
    common: Common = HERE,
) -> Answer:
    """Train, compare with the naive rules and the model in use, and promote what is better.

    Parameters
    ----------
    task
        Only this task; may be repeated.
    as_of
        Learn only from what was known before this day; left out: Monday of this week.
    dry_run
        Train and compare, but register and promote nothing.
    challenger
        Register the model but leave the one in use, whatever the gate says; bullwhip promote changes that.
    """
    settings = settings_of(common, tasks=task, as_of=as_of)
    ready = warming_up(settings)
    from pipelines.train import train as run_training

    day = day_of(settings)
    with working(f"training on what was known before {day}"):
        ready()
        result = run_training(settings, as_of=day, tasks=settings.tasks, dry_run=dry_run, challenger=challenger)
    from pipelines import screen as screens

    refused = [
        f"{k}: {v['refused_because']}{_hint(k, v)}"
        for k, v in screens.per_task(result).items()
        if v.get("refused_because")
    ]
    return Answer(dict(result), lambda s: screens.trained(result, s), 4 if refused else 0, "; ".join(refused))


def _hint(task: str, result: Mapping[str, Any]) -> str:
    """Return what to do where no label has matured: the data ended long before this week, or nothing is promised."""
    rows = result.get("rows")
    none = isinstance(rows, Mapping) and rows.get("matured") == 0
    ended = "; where the data ended earlier, name the day after its newest fact: --as-of"
    return ended + ("; lines without promised_on are never judged" if task == "delay" else "") if none else ""


def backtest(
    *,
    task: Task,
    first: Annotated[Day, Parameter(name="--from")],
    last: Annotated[Day, Parameter(name="--to")],
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
        Write one row per prediction to this file, .parquet or .csv.
    """
    settings = settings_of(common)
    ready = warming_up(settings)
    from pipelines.backtest import Question
    from pipelines.backtest import backtest as run_backtest

    usual = 7 if task == "shift" else 1 if at == "order" else settings.every_days
    asked = Question(task, first, last, every or usual, refit, at)
    with working(f"replaying {first} to {last}"):
        ready()
        result = run_backtest(settings, asked, file=predictions)
    from pipelines import screen as screens

    return Answer(dict(result), lambda s: screens.backtested(result, s))


def tune(
    *,
    task: Task,
    minutes: Annotated[float, Parameter(validator=Number(gt=0))] = 10.0,
    trials: Count | None = None,
    as_of: Day | None = None,
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
        Learn only from what was known before this day; left out: Monday of this week.
    write
        Put what was found into bullwhip.toml.
    """
    settings = settings_of(common, as_of=as_of)
    ready = warming_up(settings)
    from pipelines.tune import tune as run_tuning
    from pipelines.tune import write_params

    day = day_of(settings)
    with working(f"tuning {task} on what was known before {day}"):
        ready()
        result = dict(run_tuning(settings, task, as_of=day, minutes=minutes, trials=trials))
    result["written"] = str(write_params(settings, task, result["params"])) if write and result["params"] else None
    from pipelines import screen as screens

    return Answer(result, lambda s: screens.tuned(result, s))


def compare(
    a: str = "champion",
    b: str = "challenger",
    /,
    *,
    task: Annotated[tuple[Task, ...] | None, Flag] = None,
    as_of: Day | None = None,
    common: Common = HERE,
) -> Answer:
    """Put two versions side by side: skill, calibration, the lists they would publish, speed.

    Parameters
    ----------
    a
        A version's number or alias.
    b
        The other one.
    task
        Only this task; may be repeated; left out: every task that has both versions.
    as_of
        The day whose open rows make the lists; left out: Monday of this week.
    """
    settings = settings_of(common, as_of=as_of)
    from pipelines.compare import compare as run_comparison
    from pipelines.compare import listed

    day = day_of(settings)
    with working(f"comparing {a} and {b}"):
        known = {
            t: {name for v in listed(settings, t, as_of=day) for name in (v["version"], *v["aliases"])}
            for t in settings.tasks
        }
        both, trained = ([t for t, names in known.items() if wanted(names)] for wanted in ({a, b}.issubset, bool))
        asked = task or both or trained or settings.tasks
        found = [run_comparison(settings, t, a, b, as_of=day) for t in asked]
    from pipelines import screen_models as screens

    return Answer({"as_of": day, "tasks": found}, lambda s: screens.compared(found, s))


def models(*, task: Annotated[tuple[Task, ...] | None, Flag] = None, common: Common = HERE) -> Answer:
    """List every trained version: what it learnt from, what it is worth, and what was decided about it, and why.

    Parameters
    ----------
    task
        Only this task; may be repeated.
    """
    settings = settings_of(common)
    from pipelines import screen_models as screens
    from pipelines.compare import listed

    day = day_of(settings)
    known = [version for t in task or settings.tasks for version in listed(settings, t, as_of=day)]
    return Answer({"as_of": day, "models": known}, lambda s: screens.listed(known, s))


def promote(version: str, /, *, task: Task, reason: str, as_of: Day | None = None, common: Common = HERE) -> Answer:
    """Let a version score from now on; the reason is kept.

    Parameters
    ----------
    version
        Its number, or challenger.
    task
        Whose model it is.
    reason
        Why.
    as_of
        The day from which it scores; left out: Monday of this week.
    """
    settings = settings_of(common, as_of=as_of)
    from pipelines import screen_models as screens
    from pipelines.compare import promote as run_promotion

    day = day_of(settings)
    result = run_promotion(settings, task, version, as_of=day, because=reason)
    return Answer(result, lambda s: screens.decided(result, s))


def rollback(*, task: Task, reason: str, as_of: Day | None = None, common: Common = HERE) -> Answer:
    """Take the champion back for good: the one before it scores again; the reason is kept.

    Parameters
    ----------
    task
        Whose model it is.
    reason
        Why.
    as_of
        The day whose champion is meant; left out: Monday of this week.
    """
    settings = settings_of(common, as_of=as_of)
    from pipelines import screen_models as screens
    from pipelines.compare import rollback as run_rollback

    day = day_of(settings)
    result = run_rollback(settings, task, as_of=day, because=reason)
    return Answer(result, lambda s: screens.decided(result, s))
