"""Replay a stretch of the past as production would have lived it, and say how every prediction turned out."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

from features.labels import CLASSES
from models import report
from models.backtest import WARM_UPS, Fold, binary, folds, play, warm_ups
from models.forecasters import Forecaster
from models.gate import squared_errors
from models.lessons import DAY, Lesson
from models.metrics import binary_report
from pipelines import pictures, tracking
from pipelines.files import replacing
from pipelines.fitting import fitting
from pipelines.learn import At, prepare, training
from pipelines.settings import Settings, UserError
from pipelines.steps import step, stoppable
from pipelines.train import TITLES, log_pictures, recipe
from pipelines.world import World, open_world, request

LIST_OWNER = {"delay": "procurement", "shift": "sales"}  # whose capacity the judged lists have


@dataclass(frozen=True, slots=True)
class Question:
    """What to replay: as-of days `first` to `last`, every `every_days`, retrained every `refit_days`."""

    task: str
    first: date
    last: date
    every_days: int
    refit_days: int = 28
    at: At = "snapshot"

    @property
    def days(self) -> np.ndarray:
        """The as-of days, oldest first: every one where lines are seen at their order, whenever that is."""
        step = 1 if self.at == "order" else self.every_days
        return np.arange(np.datetime64(self.first, "D"), np.datetime64(self.last, "D") + DAY, step * DAY)

    def refuse_what_cannot_be(self) -> None:
        """Raise UserError, in one line, for a question that has no answer."""
        if self.last < self.first:
            raise UserError(f"--from {self.first} lies after --to {self.last}; expected an earlier day")
        if self.task == "shift" and (self.every_days % 7 or self.refit_days % 7):
            raise UserError("demand is counted in weeks: --every and --refit are multiples of 7d for --task shift")
        if self.task == "shift" and self.at == "order":
            raise UserError("--at order is about purchase lines: expected --task delay")


@flow(name="backtest", validate_parameters=False)
@stoppable
def backtest(settings: Settings, asked: Question, *, file: Path | None = None) -> dict[str, Any]:
    """Go to each past as-of, retrain and score as production would have, and judge what has matured since.

    Folds that an earlier, interrupted run of the same question left behind are not played again. Returns what `bullwhip
    backtest --json` prints; `file` gets one row per prediction.
    """
    began = time.monotonic()
    asked.refuse_what_cannot_be()
    if file is not None and (file.is_dir() or file.suffix not in (".csv", ".parquet")):
        raise UserError(f"--predictions is {file}, expected a file name that ends in .parquet or .csv")
    with step(_known_world, "read")(settings, asked) as world:
        same = recipe(world, asked.task, [json.dumps(asdict(asked), default=str)])
        with tracking.run(
            settings, flow="backtest", flow_run_id=str(runtime.flow_run.id), as_of=asked.last,
            data_fingerprint=world.fingerprint, git_sha=tracking.git_sha(),
            params=settings.public() | {f"backtest.{k}": v for k, v in asdict(asked).items()}, same=same,
        ) as run:  # fmt: skip
            lesson, early = step(_lesson, "build rows")(world, asked)
            store = Store(settings.workspace / "backtests" / same[:16])
            judged, facts = _play_all(world, lesson, early, asked, store, run)
            result = _judge(judged, facts, asked, world, run)
            if file is not None:
                step(write_predictions, "write predictions")(judged, asked.task, file)
                result["predictions"] = str(file)
            run.log_dict(result, "result")
    create_markdown_artifact(_paragraph(result), key="bullwhip-backtest", description=f"Backtest of {asked.task}")
    return {**result, "seconds": round(time.monotonic() - began, 1)}


# The past -----------------------------------------------------------------------------------------------------------


def _known_world(settings: Settings, asked: Question) -> World:
    """Return the facts with the day until which outcomes are known: the last fact's, today at the latest."""
    world = open_world(settings, asked.last, hindsight=True)
    tables = ("purchases", "receipts") if asked.task == "delay" else ("orders",)
    newest = max((day for name in tables for (day,) in world.con.execute(
        f"SELECT CAST(max(known_at) AS DATE) FROM {name}").fetchall() if day), default=None)  # fmt: skip
    if newest is None or not world.has(asked.task):
        raise UserError(
            f"there is nothing to replay: no {'purchase lines' if asked.task == 'delay' else 'orders'} known before "
            f"{asked.last}"
        )
    known_until = min(newest + timedelta(days=1), max(datetime.now(UTC).date(), asked.last))
    if known_until <= asked.first:
        raise UserError(f"--from {asked.first}: the newest fact is of {newest}; expected an earlier day")
    return replace(world, as_of=known_until)


def _lesson(world: World, asked: Question) -> tuple[Lesson, list[Fold]]:
    """Return the rows of the whole stretch and of the history before it, and the folds that warm the gate up."""
    count, weeks = WARM_UPS[asked.task]
    days = asked.days
    own = 1 if asked.at == "order" else math.gcd(world.settings.every_days, asked.every_days)
    grid = request(
        world, asked.task, last=days[-1].astype(object), first_cut=asked.first, reach_weeks=count * weeks,
        step_days=own,
    )  # fmt: skip
    reach = math.ceil((grid.grid.as_of - asked.first).days / 7) + count * weeks
    lesson = prepare(
        world, asked.task, grid, judged_from=days[0], at=asked.at, reach_weeks=reach, ets=True, whole_from=asked.first
    )
    known = np.unique(lesson.rows["as_of"].to_numpy().astype("datetime64[D]"))
    return lesson, warm_ups(asked.task, days[0], known, grid.windows)


@dataclass(frozen=True, slots=True)
class Store:
    """The folder that keeps the predictions of every finished fold of one question."""

    folder: Path

    def read(self, fold: Fold) -> pd.DataFrame | None:
        """Return the fold's predictions, None if it was never finished."""
        path = self._file(fold)
        return pd.read_parquet(path) if path.exists() else None

    def has(self, fold: Fold) -> bool:
        """Whether the fold was finished."""
        return self._file(fold).exists()

    def write(self, fold: Fold, table: pd.DataFrame) -> None:
        """Keep the fold's predictions, whole or not at all."""
        with replacing(self._file(fold)) as draft:
            table.to_parquet(draft, index=False)

    def _file(self, fold: Fold) -> Path:
        return self.folder / f"fold-{fold.cut}.parquet"


def _play_all(
    world: World, lesson: Lesson, early: list[Fold], asked: Question, store: Store, run: tracking.Run
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the predictions of all judged folds, and by cut who published and what signals were worth."""
    given = [*early, *folds(asked.days, asked.refit_days)]
    made: list[pd.DataFrame] = []
    judged: list[pd.DataFrame] = []
    facts = {}
    with fitting(world, lesson) as fits:
        missing = [fold.cut for fold in given if not store.has(fold)]
        fitted = fits(missing, training(world.settings, world.settings.threads))
        for fold in given:
            table = store.read(fold)
            if table is None:
                table = step(_play, f"fold {fold.cut}")(lesson, fold, made, fitted)
                store.write(fold, table)
            made.append(table)
            if fold.judged:
                facts[str(fold.cut)] = table.attrs
                judged.append(table)
                _log_fold(run, fold, binary(table, asked.task))
    whole = pd.concat(judged, ignore_index=True)
    whole.attrs = {}  # pandas copies them deeply with every selection
    return whole, facts


def _play(lesson: Lesson, fold: Fold, made: list[pd.DataFrame], fitted: Iterator[Forecaster]) -> pd.DataFrame:
    return play(lesson, fold, made, next(fitted))


def _log_fold(run: tracking.Run, fold: Fold, pairs: pd.DataFrame) -> None:
    with tracking.child(run, f"fold {fold.cut}", cut=fold.cut) as own:
        for event, part in pairs.groupby("event"):
            found = binary_report(part["y"], part["p"])
            rules = squared_errors(part).mean().add_prefix(f"{event}.brier.")
            own.log_metrics({f"{event}.{k}": v for k, v in found.items()} | rules.to_dict())


# The judgement ------------------------------------------------------------------------------------------------------


def _judge(
    table: pd.DataFrame, facts: Mapping[str, Any], asked: Question, world: World, run: tracking.Run
) -> dict[str, Any]:
    pairs = binary(table, asked.task)
    result: dict[str, Any] = {
        **{k: v for k, v in asdict(asked).items() if k not in ("first", "last")}, "from": asked.first, "to": asked.last,
        "known_until": world.as_of, "predicted": len(table), "n": len(pairs), "positives": int(pairs["y"].sum()),
        "folds": _folds(table, pairs, facts),
    }  # fmt: skip
    result["signals"] = result["folds"][-1]["signals"]
    result |= {"metrics": {}, "rules": {}, "intervals": {}, "segments": [], "weeks": [], "mlflow_run_id": run.run_id}
    if not len(pairs):
        return result | {"told": "nothing has matured yet: come back when the promises or windows are over"}
    entity, seed = report.ENTITY[asked.task], world.settings.seed
    result |= report.as_dict(report.judge(pairs, entity, seed=seed))
    events = dict(tuple(pairs.groupby("event")))
    if len(events) > 1:
        result["events"] = {e: report.as_dict(report.judge(part, entity, seed=seed)) for e, part in events.items()}
    result["model_alone"] = {
        str(event): report.numbers(pd.Series(binary_report(part["y"], part["p_model"])))
        for event, part in events.items()
    }
    result["published_by"] = _published_by(table)
    result["segments"], result["weeks"] = report.by_segment(pairs, asked.task), report.by_week(pairs)
    result["lists"] = report.lists(pairs, world.settings.capacity[LIST_OWNER[asked.task]])
    result["quantiles"] = report.arrivals(table) if asked.task == "delay" else report.units(table)
    _log(run, pairs, asked.task, result)
    return result


def _folds(table: pd.DataFrame, pairs: pd.DataFrame, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    matured = pairs.groupby("cut")["y"].agg(["size", "sum"]) if len(pairs) else pd.DataFrame(columns=["size", "sum"])
    return [
        {
            "cut": cut.date(), "predicted": int(n), "n": int(matured["size"].get(cut, 0)),
            "positives": int(matured["sum"].get(cut, 0)), **facts[str(cut.date())],
        }
        for cut, n in table.groupby("cut").size().items()
    ]  # fmt: skip


def _published_by(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    columns = [c for c in table if c.startswith("published_by")]
    names = {c: c.removeprefix("published_by").strip("_") or "late" for c in columns}
    return {names[c]: {str(k): int(v) for k, v in table[c].value_counts().items()} for c in columns}


def _log(run: tracking.Run, pairs: pd.DataFrame, task: str, result: Mapping[str, Any]) -> None:
    run.log_metrics({f"{task}.{k}": v for k, v in result["metrics"].items()})
    for event, found in result.get("events", {}).items():
        run.log_metrics({f"{task}.{event}.{k}": v for k, v in found["metrics"].items()})
    for name in ("segments", "weeks"):
        run.log_table(pd.DataFrame(result[name]), f"backtest_{name}")
    log_pictures(run, pairs, task, "backtest")
    for event, part in pairs.groupby("event"):
        name, title = (task if event == "late" else f"{task}_{event}"), f"{TITLES[str(event)]}, backtest"
        weeks = pd.DataFrame([w for w in result["weeks"] if w["event"] == event])
        run.log_figure(pictures.skill_over_time(weeks, title), f"{name}_skill_over_time")
        rule = str(squared_errors(part).mean().drop("model").idxmin())
        share = np.linspace(0, 1, 51)
        curves = pd.DataFrame(
            {"share": share}
            | {who: report.capture_curve(part, c, share) for who, c in (("published", "p"), (rule, f"p_{rule}"))}
        )
        run.log_table(curves, f"{name}_value_captured")
        run.log_figure(pictures.value_captured(curves, title), f"{name}_value_captured")
    if task == "delay":
        capacity = result["lists"]["late"]["capacity"]
        days = report.lead_times(pairs, report.on_list(pairs, capacity))
        run.log_table(pd.DataFrame({"warning_days": days}), "delay_warning_days")
        run.log_figure(pictures.lead_time(days, capacity, "Warning lead time, backtest"), "delay_warning_days")


def write_predictions(table: pd.DataFrame, task: str, file: Path) -> None:
    """Write one row per prediction, as CSV or as Parquet; the file appears whole or not at all.

    For delays `label` is 1 late, 0 on time and p is P(late); for shifts `label` is down, steady or up. It is empty
    where nothing is known yet.
    """
    out = table.drop(columns="place").sort_values(["as_of", *(c for c in table if c.endswith("_id"))], kind="stable")
    if task == "shift":
        words = out["label"].map(dict(enumerate(CLASSES)))
        out = out.assign(label=words)
    try:
        with replacing(file) as draft:
            out.to_csv(draft, index=False) if file.suffix == ".csv" else out.to_parquet(draft, index=False)
    except OSError as error:
        raise UserError(f"--predictions {file} cannot be written: {error.strerror}; name another file") from error


def _paragraph(result: Mapping[str, Any]) -> str:
    said = f"{result['predicted']:,} predictions of {result['from']} to {result['to']}, {result['n']:,} judged."
    m = result["metrics"]
    return said + (f" PR-AUC {m['pr_auc']:.3f} at {m['prevalence']:.1%}." if m.get("pr_auc") is not None else "")
