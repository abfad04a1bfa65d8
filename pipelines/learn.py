"""Learn one task from its history: rows, labels, a walk-forward judgement, and the forecaster fitted on all of it."""

import os
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from features.demand import Demand
from features.labels import (
    ShiftTerms,
    delay_labels,
    delay_outcomes,
    entry_lag_days,
    late_as_known,
    least_value,
    shift_labels,
    shift_outcomes,
)  # fmt: skip
from features.matrix import Matrix, Request
from models.backtest import best_rule, delay_walk, judge, record, shift_walk, stacked
from models.delay import DelayModel
from models.forecasters import DelayForecaster, Facts, ShiftForecaster, fit_delay_rules, fit_shift_rules
from models.shift import ShiftModel
from pipelines.settings import Settings
from pipelines.world import World, delay_rows, request, shift_rows, steps_to_learn_from

DELAY_FOLDS, DELAY_FOLD_WEEKS = 2, 12
SHIFT_FOLDS, SHIFT_FOLD_WEEKS = 2, 13


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """One task's rows with their labels, ready to learn from and to be judged on."""

    task: str
    matrix: Matrix
    y: np.ndarray
    asked: Request
    shift_terms: ShiftTerms

    @property
    def rows(self) -> pd.DataFrame:
        return self.matrix.rows


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What came of a lesson: predictions of past weeks, how they did, and the forecaster. `judged` is None where too
    little had matured to judge."""

    lesson: Lesson
    walk: pd.DataFrame
    judged: pd.DataFrame | None
    forecaster: DelayForecaster | ShiftForecaster
    seconds: float


def learn(world: World, name: str, threads: int) -> Learned:
    """Build a task's rows, judge its model next to the naive rules week by week, and fit it on everything."""
    began = time.monotonic()
    settings = world.settings.model_copy(update={"threads": threads})
    lesson = prepare(world.beside(), name)
    walk = walk_forward(settings, lesson)
    judged = judge(*binary(walk, name), seed=settings.seed) if len(walk) else None
    forecaster = fit(settings, lesson, _record(walk, judged, name))
    return Learned(lesson, walk, judged, forecaster, time.monotonic() - began)


def threads_each(settings: Settings, tasks: int) -> int:
    """Return how many threads a task may train with while `tasks` of them learn side by side."""
    return settings.threads or max((os.cpu_count() or 1) // max(tasks, 1), 1)


# Rows and labels ----------------------------------------------------------------------------------------------------


def prepare(world: World, name: str) -> Lesson:
    """Build a task's rows over the history, prove that none saw the future, and label them."""
    asked = request(world, name)
    steps = steps_to_learn_from(asked, world.settings.history_weeks)
    if name == "delay":
        matrix = delay_rows(world, asked, steps, proofs=2)
        labels = delay_labels(world.con, matrix.rows, asked.terms)
        rows = matrix.rows.assign(**labels)
        rows["y_late"] = late_as_known(rows, np.datetime64(world.as_of))
        return Lesson(name, replace(matrix, rows=rows), rows["y_late"].to_numpy(), asked, ShiftTerms())
    matrix, data = shift_rows(world, asked, steps, proofs=2)
    return _shift_lesson(world, matrix, data, asked)


def _shift_lesson(world: World, matrix: Matrix, data: Demand, asked: Request) -> Lesson:
    terms = ShiftTerms(entry_lag_days=entry_lag_days(world.con, world.as_of))
    rows = matrix.rows.assign(**shift_outcomes(world.con, data, matrix.rows, terms))
    seen = rows[rows["matured_on"] <= pd.Timestamp(world.as_of)]
    untouched = seen[
        seen["matured_on"] <= pd.Timestamp(world.as_of) - pd.Timedelta(weeks=SHIFT_FOLDS * SHIFT_FOLD_WEEKS)
    ]
    terms = replace(terms, v_min=least_value(untouched if len(untouched) else seen))  # never chosen on judged weeks
    y = np.where(rows["matured_on"] <= pd.Timestamp(world.as_of), shift_labels(rows, terms), np.nan)
    return Lesson("shift", replace(matrix, rows=rows), y, asked, terms)


# Judging and fitting ------------------------------------------------------------------------------------------------


def make_delay(settings: Settings) -> DelayModel:
    return DelayModel(country=settings.country, seed=settings.seed, threads=settings.threads)


def make_shift(settings: Settings) -> ShiftModel:
    return ShiftModel(seed=settings.seed, threads=settings.threads)


def walk_forward(settings: Settings, lesson: Lesson) -> pd.DataFrame:
    """Retrain at past cuts and predict what came after; empty when too little has matured."""
    end = np.datetime64(lesson.asked.grid.as_of)
    if lesson.task == "delay":
        return delay_walk(
            lesson.rows, lesson.matrix.X, end=end, make=lambda: make_delay(settings),
            terms=lesson.asked.terms, folds=DELAY_FOLDS, fold_weeks=DELAY_FOLD_WEEKS,
        )  # fmt: skip
    return shift_walk(
        lesson.rows, lesson.matrix.X, lesson.y, end=end, make=lambda: make_shift(settings), folds=SHIFT_FOLDS,
        fold_weeks=SHIFT_FOLD_WEEKS,
    )  # fmt: skip


def binary(walk: pd.DataFrame, name: str) -> tuple[pd.DataFrame, str]:
    """Return binary predictions and the column whose rows resemble each other."""
    return (walk, "supplier_id") if name == "delay" else (stacked(walk), "product_id")


def fit(settings: Settings, lesson: Lesson, track: list[dict[str, Any]]) -> DelayForecaster | ShiftForecaster:
    """Fit the task's models and rules on everything matured by the as-of."""
    cut = np.datetime64(lesson.asked.grid.as_of)
    facts = Facts(str(cut), terms=lesson.asked.terms, shift_terms=lesson.shift_terms, record=track)
    matured = lesson.rows["matured_on"].to_numpy().astype("datetime64[D]") <= cut
    if lesson.task == "delay":
        return _fit_delay(settings, lesson, facts, np.flatnonzero(matured & ~np.isnan(lesson.y)), cut)
    learn = np.flatnonzero(matured)
    rows, X, y = lesson.rows.iloc[learn], lesson.matrix.X.iloc[learn], lesson.y[learn]
    deviation = ((rows["actual_units"] - rows["baseline_units"]) / rows["noise_units"]).to_numpy()
    model = make_shift(settings).fit(
        X, y, deviation=deviation, as_of=rows["as_of"].to_numpy(), matured_on=rows["matured_on"].to_numpy(), cut=cut
    )
    known = ~np.isnan(y)
    return ShiftForecaster(model, fit_shift_rules(rows[known], y[known]), facts)


def _fit_delay(
    settings: Settings, lesson: Lesson, facts: Facts, learn: np.ndarray, cut: np.datetime64
) -> DelayForecaster:
    X = lesson.matrix.X
    model = make_delay(settings).fit(X, delay_outcomes(lesson.rows, cut, lesson.asked.terms), cut=cut)
    return DelayForecaster(model, fit_delay_rules(X.iloc[learn], lesson.y[learn]), facts)


def _record(walk: pd.DataFrame, judged: pd.DataFrame | None, name: str) -> list[dict[str, Any]]:
    return [] if judged is None else record(binary(walk, name)[0], best_rule(judged), name)
