"""A lesson is a task's rows with what became of them, readable as it stood at any earlier cut."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from features.labels import ShiftTerms, delay_outcomes
from features.matrix import Matrix
from features.panels import Terms
from models.delay import DelayModel
from models.forecasters import (
    EVENTS,
    DelayForecaster,
    Facts,
    Forecaster,
    ShiftForecaster,
    fit_delay_rules,
    fit_shift_rules,
    shift_rule_rows,
    usual_deviations,
)
from models.leaning import DIRECTIONS
from models.shift import ShiftModel
from models.worth import dropped, worth_of_signals

DAY = np.timedelta64(1, "D")
KEYS = {
    "delay": ("po_line_id", "as_of", "supplier_id", "product_id", "site_id"),
    "shift": ("product_id", "site_id", "window", "lead_weeks", "length_weeks", "as_of"),
}


@dataclass(frozen=True, slots=True)
class Training:
    """How models are fitted: the start of every random choice, threads, how many days back a lesson reaches, parameters
    per task that differ from the models' own (`rounds` among them), and whose holidays are no working days."""

    seed: int = 7
    threads: int = 0
    history_days: int = 156 * 7
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    country: str = ""

    def of(self, task: str) -> dict[str, Any]:
        """Return what a task's model is made with."""
        params = dict(self.params.get(task, {}))
        rounds = {"rounds": int(params.pop("rounds"))} if "rounds" in params else {}
        place = {"country": self.country} if task == "delay" else {}
        given = {"params": params} if params else {}
        return {"seed": self.seed, "threads": self.threads, **place, **rounds, **given}


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """One task's rows, or a sample of them, and everything that became of them until `known_until`.

    The rows of `matrix` have the columns of `delay_labels`, or those of `shift_outcomes` and the label `y_shift`.
    `terms` and `shift_terms` say what counts as late or as a shift; they are chosen before the first row that is
    judged. `share` is the share of all rows that are there to learn from: those that are `sampled`. Others may be there
    to be judged.
    """

    task: str
    matrix: Matrix
    terms: Terms
    shift_terms: ShiftTerms
    known_until: np.datetime64
    share: float = 1.0

    @property
    def rows(self) -> pd.DataFrame:
        return self.matrix.rows

    @property
    def events(self) -> tuple[str, ...]:
        return EVENTS[self.task]

    def outcomes(self, cut: np.datetime64) -> pd.DataFrame:
        """Return as_of, matured_on and y of every row as known at `cut`, NaN where unknown, and what models learn from.

        y is 1 late, 0 on time; or 0 down, 1 steady, 2 up. For delays see `delay_outcomes`; for shifts `deviation` is
        (Y − Σb)/σ.
        """
        rows = self.rows
        if self.task == "delay":
            return delay_outcomes(rows, cut, self.terms)
        matured = (rows["matured_on"] <= pd.Timestamp(cut)).to_numpy()
        deviation = (rows["actual_units"] - rows["baseline_units"]) / rows["noise_units"]
        return pd.DataFrame(
            {
                "y": rows["y_shift"].where(matured),
                "as_of": rows["as_of"], "matured_on": rows["matured_on"], "deviation": deviation.where(matured),
            },
            index=rows.index,
        )  # fmt: skip

    def between(self, first: np.datetime64, end: np.datetime64) -> np.ndarray:
        """Return the places of rows with first ≤ as_of < end."""
        as_of = self.rows["as_of"].to_numpy().astype("datetime64[D]")
        return np.flatnonzero((as_of >= first) & (as_of < end))


def happened(y: np.ndarray, event: str) -> np.ndarray:
    """Return 1 where the event came true, 0 where not, NaN where unknown, from a task's y."""
    return np.where(np.isnan(y), np.nan, y if event == "late" else (y == DIRECTIONS[event]) * 1.0)


def fits(lesson: Lesson, cuts: Sequence[np.datetime64], training: Training) -> Iterator[Forecaster]:
    """Fit a forecaster at each cut, one after the other, each when it is asked for."""
    return (fit(lesson, cut, training) for cut in cuts)


def fit(lesson: Lesson, cut: np.datetime64, training: Training) -> Forecaster:
    """Fit a task's model and naive rules on what was known at `cut` of the rows before it.

    External signals that bought nothing in the weeks before the cut are not among the model's inputs. Nobody has
    decided yet who publishes: the model does.
    """
    seen = lesson.between(cut - training.history_days * DAY, cut)
    if lesson.share < 1:
        seen = seen[lesson.rows["sampled"].to_numpy()[seen]]
    X, rows, then = lesson.matrix.X.iloc[seen], lesson.rows.iloc[seen], lesson.outcomes(cut).iloc[seen]
    came = {event: happened(then["y"].to_numpy(float), event) for event in lesson.events}
    entity = rows[KEYS[lesson.task][2 if lesson.task == "delay" else 0]].to_numpy()
    bill = worth_of_signals(X, came, then, entity, cut=cut, seed=training.seed, threads=training.threads)
    X = X.drop(columns=dropped(bill, X.columns))
    said = Facts(str(cut), terms=lesson.terms, shift_terms=lesson.shift_terms, signals=bill)
    known = np.flatnonzero(then["y"].notna())
    y = then["y"].to_numpy()[known]
    if lesson.task == "delay":
        late = DelayModel(**training.of("delay")).fit(X, then, cut=cut)
        return DelayForecaster(late, fit_delay_rules(X.iloc[known], y, then["as_of"].iloc[known], cut), said)
    matured = np.flatnonzero(then["deviation"].notna())
    learnt = then.iloc[matured]
    shift = ShiftModel(**training.of("shift")).fit(
        X.iloc[matured], learnt["y"], deviation=learnt["deviation"], as_of=learnt["as_of"],
        matured_on=learnt["matured_on"], cut=cut, facts=shift_rule_rows(rows.iloc[matured]),
        noise=rows["noise_units"].iloc[matured],
    )  # fmt: skip
    rules = fit_shift_rules(rows.iloc[known], y, then["as_of"].iloc[known], cut)
    return ShiftForecaster(shift, rules, said, usual_deviations(rows["window"].iloc[matured], learnt["deviation"]))
