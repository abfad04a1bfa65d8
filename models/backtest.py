"""Replay the past as production would live it: retrain at each cut, let the gate decide, score what came after."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from features.baseline import WINDOWS, Windows
from models import lessons
from models.arrivals import QUANTILES
from models.forecasters import (
    EVENTS,
    MODEL,
    DelayForecaster,
    Forecaster,
    ShiftForecaster,
    evidence,
    rhythm,
    with_facts,
)
from models.gate import decide
from models.lessons import DAY, Lesson, happened
from models.record import RECORD_WEEKS

WARM_UPS = {"delay": (2, 12), "shift": (2, 13)}  # retrainings before the first that is judged, and weeks between them
LEARN_WEEKS = 2  # in which windows must have ended before a retraining: there would hardly be one to learn from


@dataclass(frozen=True, slots=True)
class Fold:
    """One retraining at `cut`; its forecaster scores the as-of days `days`, all before the next cut.

    A warm-up fold is never judged: it gives the gate of the folds after it something to judge by.
    """

    cut: np.datetime64
    days: np.ndarray = field(repr=False)
    judged: bool = True


def folds(days: np.ndarray, refit_days: int) -> list[Fold]:
    """Cut the as-of days to be judged into retrainings every `refit_days`, the first on the first day."""
    days = np.unique(days.astype("datetime64[D]"))
    if not len(days):
        return []
    cuts = np.arange(days[0], days[-1] + DAY, refit_days * DAY)
    made = [Fold(cut, days[(days >= cut) & (days < cut + refit_days * DAY)]) for cut in cuts]
    return [fold for fold in made if len(fold.days)]


def warm_ups(task: str, first: np.datetime64, days: np.ndarray, windows: Windows = WINDOWS) -> list[Fold]:
    """Return the folds before `first` on whose predictions, once matured, the gate decides; `days` are all as-of days.

    Days without enough history before them make no fold.
    """
    count, weeks = WARM_UPS[task]
    longest = max(lead + length for lead, length in windows)
    step, least = 7 * weeks * DAY, 7 * (LEARN_WEEKS + longest) * DAY * (task == "shift")
    cuts = [first - back * step for back in range(count, 0, -1)]
    made = [Fold(cut, days[(days >= cut) & (days < cut + step)], judged=False) for cut in cuts]
    return [fold for fold in made if len(fold.days) and (days < fold.cut - least).any()]


def replay(lesson: Lesson, given: Sequence[Fold], fitted: Iterable[Forecaster]) -> list[pd.DataFrame]:
    """Return the predictions of every fold, as production would have published them, by the forecasters of the cuts."""
    made: list[pd.DataFrame] = []
    for fold, forecaster in zip(given, fitted, strict=False):
        made.append(play(lesson, fold, made, forecaster))
    return made


def play(lesson: Lesson, fold: Fold, made: Sequence[pd.DataFrame], forecaster: Forecaster) -> pd.DataFrame:
    """Return the predictions of one fold; its `attrs` say who published and what the signals were worth.

    The forecaster has learnt from what had matured at the cut, and the gate chooses who publishes from those of the
    earlier folds' predictions `made` that had matured by then.
    """
    decision = decide(matured_record(lesson, made, fold.cut), lesson.task)
    forecaster = with_facts(forecaster, publishes=decision.publishes)
    places = np.flatnonzero(np.isin(lesson.rows["as_of"].to_numpy().astype("datetime64[D]"), fold.days))
    table = predictions(forecaster, lesson, places, curves=fold.judged).assign(cut=pd.Timestamp(fold.cut))
    table.attrs = {"publishes": dict(decision.publishes), "signals": forecaster.facts.signals}
    return table


def predictions(forecaster: Forecaster, lesson: Lesson, places: np.ndarray, *, curves: bool = True) -> pd.DataFrame:
    """Return one row per scored row: keys, label, what is published, and what the model and every rule would have said.

    `place` is the row's place in the lesson. Columns p… are published; p_model… and p_<rule>… are what each said alone
    (with the event for shifts: p_up_climatology). The label is what is known in the end: NaN where nothing is.
    Arrival quantiles are left out without `curves`: they take longer than everything else together.
    """
    X, rows = lesson.matrix.X.iloc[places], lesson.rows.iloc[places]
    out = rows[list(lessons.KEYS[lesson.task])].reset_index(drop=True)
    end = lesson.outcomes(lesson.known_until).iloc[places]
    out = out.assign(place=places, label=end["y"].to_numpy(), matured_at=end["matured_on"].to_numpy())
    forecasts = forecaster.forecasts(X, rows)
    said = forecaster.predict(X, rows, said=forecasts)
    if lesson.task == "delay":
        due = (rows["state"] == "due_future").to_numpy()
        said = said.rename(columns={"p_late": "p"}).assign(p=lambda t: t["p"].where(due))
    out = pd.concat([out, said.reset_index(drop=True)], axis=1)
    for event, each in forecasts.items():
        stem = "p" if event == "late" else f"p_{event}"
        out = out.assign(**{f"{stem}_{name}": each[name].to_numpy() for name in each})
    if isinstance(forecaster, DelayForecaster):
        more = [_line_facts(X, rows, end)]
        if curves:
            more.append(_arrivals(forecaster.arrivals(X, out["p"].to_numpy(), said=forecasts)))
    else:
        more = [_units(forecaster, X, rows, end)]
    return pd.concat([out, *more], axis=1)


def _arrivals(quantiles: np.ndarray) -> pd.DataFrame:
    """Arrival quantiles in days after the as-of."""
    return pd.DataFrame({f"arrival_in_p{round(100 * q)}": quantiles[:, k] for k, q in enumerate(QUANTILES)})


def _line_facts(X: pd.DataFrame, rows: pd.DataFrame, end: pd.DataFrame) -> pd.DataFrame:
    """The days it took, what was at stake, and the row's segments."""
    return pd.DataFrame(
        {
            "arrived_in": end["completed_in"].to_numpy(), "days_to_promise": end["due_in"].to_numpy(),
            "value": (rows["open_units"] * rows["unit_cost"]).to_numpy(float),
            "state": rows["state"].to_numpy(), "evidence": evidence(X), "region": rows["region"].to_numpy(),
            "category": rows["category"].to_numpy(),
        }
    )  # fmt: skip


def _units(forecaster: ShiftForecaster, X: pd.DataFrame, rows: pd.DataFrame, end: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of the window's units, next to naive ones, what they were, what was at stake, and the segments."""
    units = forecaster.model.predict_units(X, rows["baseline_units"], rows["noise_units"])
    naive = forecaster.naive_units(rows)
    price, baseline = rows["unit_price"].to_numpy(float), rows["baseline_units"].to_numpy(float)
    actual = np.where(end["deviation"].notna(), rows["actual_units"], np.nan)
    return pd.DataFrame(
        {f"units_p{level}": units[:, k] for k, level in enumerate((10, 50, 90))}
        | {f"naive_units_p{level}": naive[:, k] for k, level in enumerate((10, 50, 90))}
        | {
            "actual_units": actual, "baseline_units": baseline, "noise_units": rows["noise_units"].to_numpy(),
            "value": np.abs(actual - baseline) * price,
            "stake": np.abs(units[:, [2, 0]] - baseline[:, None]).max(axis=1) * price,
            "rhythm": rhythm(rows), "age_weeks": X["age_weeks"].to_numpy(float), "region": rows["region"].to_numpy(),
            "category": rows["category"].to_numpy(), "moved_z": rows["moved_z"].to_numpy(float),
        }
    )  # fmt: skip


def matured_record(lesson: Lesson, made: Sequence[pd.DataFrame], cut: np.datetime64) -> pd.DataFrame:
    """Return the binary predictions of earlier folds whose labels were known at `cut`, with those labels."""
    if not made:
        return binary(pd.DataFrame(), lesson.task)
    table = pd.concat(made, ignore_index=True)
    table.attrs = {}
    table = table[table["as_of"] >= pd.Timestamp(cut) - pd.Timedelta(weeks=RECORD_WEEKS)]
    known = lesson.outcomes(cut)["y"].to_numpy()[table["place"].to_numpy()]
    return binary(table.assign(label=known), lesson.task)


def binary(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return predictions with a known label as yes-or-no ones: event, y, p, p_model, p_<rule>, value, segments, keys.

    A window is judged once for a drop and once for a surge.
    """
    if not len(table):
        return pd.DataFrame({"event": [], "y": [], "p": [], "p_model": []})
    known = table[table["label"].notna()]
    known.attrs = {}  # pandas copies them deeply with every selection
    parts = []
    for event in EVENTS[task]:
        stem = "p" if event == "late" else f"p_{event}"
        mine = {c: "p" + c[len(stem) :] for c in table if c == stem or c.startswith(f"{stem}_")}
        others = [c for c in table if not c.startswith("p_") and c not in ("p", "label")]
        y = happened(known["label"].to_numpy(float), event)
        part = known[others].assign(event=event, y=y, **{new: known[old] for old, new in mine.items()})
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def forecaster_names(pairs: pd.DataFrame) -> list[str]:
    """Return the naive rules that gave a forecast, in the order of the columns."""
    return [c[2:] for c in pairs if c.startswith("p_") and c[2:] != MODEL]
