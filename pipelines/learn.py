"""Learn one task from its history: rows, labels, a walk-forward judgement, and the forecaster fitted on all of it."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal

import numpy as np
import pandas as pd

from features.cut import OF_LINES, OF_SERIES, few
from features.demand import net_units
from features.labels import (
    ShiftTerms,
    chosen,
    delay_labels,
    entry_lag_days,
    shift_labels,
    shift_outcomes,
    shift_thresholds,
)
from features.matrix import Matrix, Request, most_snapshots
from features.sampling import Sample, share_for
from models.backtest import binary, replay, warm_ups
from models.ets import with_ets
from models.forecasters import Forecaster, with_facts
from models.gate import Decision, decide
from models.lessons import Lesson, Training
from models.record import by_bin
from models.report import ENTITY, judge
from pipelines.fitting import fitting
from pipelines.settings import Settings
from pipelines.world import TO_LEARN, World, delay_rows, request, shift_rows, steps_to_learn_from

At = Literal["snapshot", "order"]
PER_SNAPSHOT = {"delay": 2, "shift": 1 / 25}
"""Purchase lines, or series, to draw each snapshot from: a million, or 20,000, for half a million snapshots."""


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What came of a lesson: binary predictions of past weeks, how the model did on them, what the gate decided, and
    the forecaster. `judged` is None where too little had matured to judge."""

    lesson: Lesson
    walk: pd.DataFrame
    judged: pd.DataFrame | None
    decision: Decision
    forecaster: Forecaster
    seconds: float


def learn(world: World, name: str, threads: int) -> Learned:
    """Build a task's rows, judge its model next to the naive rules week by week, and fit it on everything."""
    began = time.monotonic()
    settings = world.settings
    here = world.beside()
    asked = request(here, name)
    cut = np.datetime64(world.as_of, "D")
    earlier = warm_ups(name, cut, asked.grid.days, asked.windows)
    lesson = prepare(here, name, asked, judged_from=earlier[0].cut if earlier else cut)
    with fitting(here, lesson) as fits:
        fitted = fits([*(fold.cut for fold in earlier), cut], training(settings, threads))
        walk = binary(_together(replay(lesson, earlier, fitted)), name)
        decision = decide(walk, name)
        alone = walk.assign(p=walk["p_model"]).drop(columns="p_model")
        judged = judge(alone, ENTITY[name], seed=settings.seed) if len(walk) else None
        record = by_bin(alone.assign(day=alone["as_of"])) if len(walk) else []
        forecaster = with_facts(next(fitted), publishes=decision.publishes, record=record)
    return Learned(lesson, walk, judged, decision, forecaster, time.monotonic() - began)


def training(settings: Settings, threads: int, params: Mapping[str, Mapping[str, Any]] | None = None) -> Training:
    """Return how models are fitted under these settings, or with other `params` per task."""
    chosen = params or {str(task): given for task, given in settings.params.items()}
    return Training(settings.seed, threads, settings.history_weeks * 7, chosen, settings.country)


def threads_each(settings: Settings, tasks: int) -> int:
    """Return how many threads a task may train with while `tasks` of them learn side by side."""
    return settings.threads or max((os.cpu_count() or 1) // max(tasks, 1), 1)


def _together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


# Rows and labels ----------------------------------------------------------------------------------------------------


def prepare(
    world: World,
    name: str,
    asked: Request,
    *,
    judged_from: np.datetime64,
    at: At = "snapshot",
    reach_weeks: int = 0,
    ets: bool = False,
    whole_from: date | None = None,
) -> Lesson:
    """Build a task's rows over the history, prove that none saw the future, and label them with what `world` knows.

    Where there are more rows than `max_snapshots` a sample of them is built, but all of days from `whole_from` on. The
    question (what counts as a shift) is fixed by what had matured at `judged_from`: never chosen on judged weeks.
    `reach_weeks` asks for rows further back than one history; `ets` adds what the AutoETS rule reads.
    """
    if whole_from is not None:
        return _prepared(world, name, asked, judged_from, at, reach_weeks, ets, whole_from)
    with enough(world, name) as some:
        return _prepared(some, name, asked, judged_from, at, reach_weeks, ets)


@contextmanager
def enough(world: World, name: str) -> Iterator[World]:
    """Hand out a world of as many suppliers, or products, as a sample of `max_snapshots` can be drawn from.

    Others would be worked out over the whole history only to be left out. All that is known of those chosen is there,
    and what suppliers or series share are ratios, means and medians, which so many tell.
    """
    most = round(world.settings.max_snapshots * PER_SNAPSHOT[name])
    cut = OF_LINES if name == "delay" else OF_SERIES
    with few(world.con, cut, most, world.as_of, by_series=name == "shift") as seen:
        yield replace(world, connection=[seen]) if seen else world


def _prepared(
    world: World, name: str, asked: Request, judged_from: np.datetime64, at: At, reach_weeks: int, ets: bool,
    whole_from: date | None = None,
) -> Lesson:  # fmt: skip
    known_until = np.datetime64(world.as_of, "D")
    steps = steps_to_learn_from(asked, world.settings.history_weeks + reach_weeks)
    there = most_snapshots(world.con, asked, steps, name, at)
    asked = replace(asked, sample=Sample(share_for(world.settings.max_snapshots, there), whole_from))
    if name == "delay":
        matrix = delay_rows(world, asked, steps, TO_LEARN, at=at)
        rows = matrix.rows.assign(**delay_labels(world.con, matrix.rows, asked.terms))
        return Lesson(name, replace(matrix, rows=rows), asked.terms, ShiftTerms(), known_until, asked.sample.share)
    lesson = _shift_lesson(world, shift_rows(world, asked, steps, TO_LEARN), asked, judged_from)
    if not ets:
        return lesson
    rows = with_ets(lesson.rows, net_units(world.con, asked.grid))
    return replace(lesson, matrix=replace(lesson.matrix, rows=rows))


def _shift_lesson(world: World, matrix: Matrix, asked: Request, judged_from: np.datetime64) -> Lesson:
    lag = entry_lag_days(world.con, judged_from.astype(object))
    terms = ShiftTerms(
        entry_lag_days=lag, windows=asked.windows, planned_in_baseline=asked.planned_in_baseline, piece=asked.piece
    )
    rows = matrix.rows.assign(**shift_outcomes(world.con, asked.grid, matrix.rows, terms))
    known_until = np.datetime64(world.as_of, "D")
    seen = rows[rows["matured_on"] <= pd.Timestamp(known_until)]
    untouched = seen[seen["matured_on"] <= pd.Timestamp(judged_from)]
    terms = chosen(untouched if len(untouched) else seen, terms)
    down_at, up_at = shift_thresholds(rows, terms)
    rows = rows.assign(y_shift=shift_labels(rows, terms), down_at_units=down_at, up_at_units=up_at)
    return Lesson("shift", replace(matrix, rows=rows), asked.terms, terms, known_until, asked.sample.share)
