"""Look for model parameters that do better walk-forward than the defaults, and go on where it was interrupted."""

import tomllib
import warnings
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow, runtime

from models.backtest import Fold, binary, play, warm_ups
from models.gate import squared_errors
from models.lessons import Lesson
from models.tuning import Choice, space
from pipelines import tracking
from pipelines.fitting import Fits, fitting
from pipelines.learn import prepare, training
from pipelines.settings import FILE, Settings, UserError
from pipelines.steps import step, stoppable
from pipelines.train import recipe
from pipelines.world import World, open_world, request

REFERENCE = "climatology"


@flow(name="tune", validate_parameters=False)
@stoppable
def tune(settings: Settings, task: str, *, as_of: date, minutes: float, trials: int | None = None) -> dict[str, Any]:
    """Try parameters for `minutes` and return the best, next to the defaults, which are the first to be tried.

    A trial retrains at the cuts at which training is judged, and is worth the Brier skill over climatology of what the
    models say of the weeks after each. Everything tried on the same facts, day, settings and code is remembered in the
    workspace, whoever interrupted it.
    """
    with step(open_world, "read")(settings, as_of) as world:
        if not world.has(task):
            raise UserError(f"there is nothing to tune {task} on: nothing was known before {as_of}")
        lesson, early = step(_lesson, "build rows")(world, task)
        if not early:
            raise UserError(
                f"there is too little history before {as_of} to tune {task} on; come back with a year of it"
            )
        same = recipe(world, task, ["tune"])
        with tracking.run(
            settings, flow="tune", flow_run_id=str(runtime.flow_run.id), as_of=as_of,
            data_fingerprint=world.fingerprint, git_sha=tracking.git_sha(), params=settings.public() | {"task": task},
            same=same,
        ) as run, fitting(world, lesson) as fits:  # fmt: skip
            return _search(settings, lesson, early, fits, same, run, minutes=minutes, trials=trials)


def _lesson(world: World, task: str) -> tuple[Lesson, list[Fold]]:
    cut = np.datetime64(world.as_of, "D")
    asked = request(world, task)
    early = warm_ups(task, cut, asked.grid.days, asked.windows)
    return prepare(world, task, asked, judged_from=early[0].cut if early else cut), early


def _search(
    settings: Settings, lesson: Lesson, early: list[Fold], fits: Fits, same: str, run: tracking.Run, *, minutes: float,
    trials: int | None,
) -> dict[str, Any]:  # fmt: skip
    import optuna  # a second; only here

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    task = lesson.task
    study = _study(settings.workspace / "tune" / f"{task}.log", f"{task}-{same[:16]}", settings.seed)
    known = len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE]))
    if not study.trials:
        study.enqueue_trial({choice.name: choice.default for choice in space(task)})

    def objective(trial: Any) -> float:
        params = {choice.name: _suggest(trial, choice) for choice in space(task)}
        skill = _skill(settings, lesson, early, fits, params, trial)
        with tracking.child(run, f"trial {trial.number}") as own:
            own.log_metrics({f"{task}.skill": skill, **{f"param.{k}": float(v) for k, v in params.items()}})
        return skill

    study.optimize(objective, timeout=60 * minutes, n_trials=trials, catch=())
    done = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    usual, best = done[0], study.best_trial
    result = {
        "task": task, "trials": len(done), "known_before": known, "skill": best.value, "skill_of_defaults": usual.value,
        "gain": best.value - usual.value, "params": _changed(task, best.params), "mlflow_run_id": run.run_id,
    }  # fmt: skip
    run.log_metrics({f"{task}.skill": best.value, f"{task}.skill_of_defaults": usual.value})
    run.log_dict(result, "result")
    return result


def _study(path: Path, name: str, seed: int) -> Any:
    """Open the study of this name in the journal, a text file that a killed process leaves whole."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))),
            study_name=name, direction="maximize", load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=8),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
        )  # fmt: skip


def _suggest(trial: Any, choice: Choice) -> float | int:
    if isinstance(choice.default, int):
        return int(trial.suggest_int(choice.name, int(choice.low), int(choice.high), log=choice.log))
    return float(trial.suggest_float(choice.name, choice.low, choice.high, log=choice.log))


def _skill(
    settings: Settings, lesson: Lesson, early: list[Fold], fits: Fits, params: Mapping[str, Any], trial: Any
) -> float:
    """Return the mean Brier skill over the folds and events; a trial far behind the others ends after a fold."""
    import optuna

    task = lesson.task
    how = training(settings, settings.threads, {task: _changed(task, params)})
    made: list[pd.DataFrame] = []
    skills: list[float] = []
    fitted = fits([fold.cut for fold in early], how)
    for n, fold in enumerate(early):
        made.append(play(lesson, fold, made, next(fitted)))
        pairs = binary(made[-1], task)
        for _, part in pairs.groupby("event"):
            scores = squared_errors(part).mean()
            if scores.get(REFERENCE, 0) > 0:
                skills.append(1 - scores["model"] / scores[REFERENCE])
        if not skills:
            continue
        trial.report(float(np.mean(skills)), n)
        if trial.should_prune():
            raise optuna.TrialPruned
    if not skills:
        raise UserError("nothing has matured after the earlier cuts: there is nothing to tune on yet")
    return float(np.mean(skills))


def _changed(task: str, params: Mapping[str, Any]) -> dict[str, Any]:
    usual = {choice.name: choice.default for choice in space(task)}
    return {k: v if isinstance(v, int) else round(v, 5) for k, v in params.items() if v != usual[k]}


def write_params(settings: Settings, task: str, params: Mapping[str, Any]) -> Path:
    """Add the parameters to bullwhip.toml as [params.<task>]; UserError where there are some already."""
    path = settings.workspace / FILE
    text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    if task in tomllib.loads(text).get("params", {}):
        raise UserError(f"{path} has [params.{task}] already; take it out or change it by hand")
    lines = [f"\n[params.{task}]", *(f"{k} = {v}" for k, v in params.items())]
    path.write_text(text.rstrip("\n") + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path
