"""When will an open line arrive? A discrete-time hazard of completion, learnt from every line, received or not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np
import pandas as pd
from scipy.special import expit

from features.threads import side_by_side
from features.weeks import holiday_dates
from models.arrivals import LEAST_LOG, LONGEST, QUANTILES, days_by_bucket
from models.boosting import Growing, said_by_trees, save
from models.shared_trees import shared

TAIL = np.array([1, 2, 4, 8, 14, 21, 35, 60, 90, 130, 180, 260, 366])  # buckets where the quantiles leave wide gaps
BUCKETS = 24  # quantiles of the waits that were seen: narrow buckets where lines arrive
AT_ONCE = 5_000  # rows whose buckets are laid out at the same time

PARAMS: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.06,
    "num_leaves": 12,
    "min_data_in_leaf": 300,  # the buckets of one line share its inputs: 300 are some 60 lines
    "feature_fraction": 0.3,
    "bagging_fraction": 0.6,
    "bagging_freq": 1,
    "lambda_l2": 50.0,
}
ROUNDS = 420


@dataclass(frozen=True, slots=True, eq=False)
class Times:
    """Where each row stands in time: its as-of as a day number, its age and the days to its promise; NaN unknown."""

    as_of: np.ndarray
    age: np.ndarray
    due: np.ndarray

    @classmethod
    def of(cls, X: pd.DataFrame) -> "Times":
        """Read the inputs of the same meaning; an input that X lacks is missing."""
        names = ("as_of_day", "age_days", "days_to_promise")
        return cls(*(X[n].to_numpy(float) if n in X else np.full(len(X), np.nan) for n in names))

    def take(self, index: Any) -> "Times":
        return Times(self.as_of[index], self.age[index], self.due[index])

    def alike(self) -> Iterator[np.ndarray]:
        """Yield the numbers of some rows at a time, all of them once, those of equal times together."""
        order = np.lexsort((self.age, self.as_of, self.due))
        return (order[part] for part in _parts(len(order)))

    def distinct(self) -> tuple["Times", np.ndarray]:
        """Return the different times there are, and the number of each row's."""
        every = np.nan_to_num(np.column_stack([self.as_of, self.age, self.due]), nan=-1e9)
        _, first, mine = np.unique(every, axis=0, return_index=True, return_inverse=True)
        return self.take(first), mine.ravel()


class Calendar:
    """Count working days between day numbers, NaN where either is unknown."""

    def __init__(self, country: str):
        self.first = np.datetime64("1990-01-01", "D")
        days = np.arange(self.first, np.datetime64("2061-01-01", "D"))
        self.total = np.r_[0, np.cumsum(np.is_busday(days, holidays=holiday_dates(country)))].astype(np.float32)

    def before(self, day: np.ndarray) -> np.ndarray:
        """Working days from the calendar's first day up to, not including, each day."""
        place = np.nan_to_num(day - self.first.astype(float)).clip(0, len(self.total) - 1).astype(np.int64)
        return np.where(np.isnan(day), np.nan, self.total[place])


# What a bucket of days tells, next to the row's own inputs: its place among the days ahead, after the order, and
# before the promise, each in days and in working days, and its weekday where it is one day.
PERIOD_INPUTS = (
    "ahead", "length", "before_due", "before_due_end", "age", "weekday", "working", "working_ahead",
    "working_before_due", "working_age",
)  # fmt: skip


def buckets(due: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, first day and day after the last of every bucket, ahead of each as-of.

    Buckets are those of the grid, cut in two after the promise, so that S at the promise needs no interpolation.
    """
    after = np.clip(np.where(np.isnan(due), 0, due + 1), 0, grid[-1])
    edges = np.sort(np.column_stack([np.broadcast_to(grid, (len(due), len(grid))), after]), axis=1)
    row, k = np.nonzero(edges[:, 1:] > edges[:, :-1])
    return row, edges[row, k], edges[row, k + 1]


def choose_grid(completed_in: np.ndarray) -> np.ndarray:
    """Return bucket edges 0 … LONGEST, narrow where lines were seen to arrive."""
    seen = np.clip(completed_in[~np.isnan(completed_in)], 0, LONGEST - 1)
    cuts = np.quantile(seen, np.linspace(0, 0.995, BUCKETS)) + 1 if len(seen) else np.empty(0)
    return np.unique(np.r_[0, np.round(cuts), TAIL])


class Hazard:
    """S(d) = P(C > s + d | line open at s) = Π over buckets up to d of 1 − h_b(x).

    h_b is one LightGBM on person-period rows: for each snapshot one row per bucket until completion, cancellation or
    the cut (right-censored, so immature lines teach too), with the bucket's place in time as further inputs (Singer &
    Willett 1993; Suresh et al. 2022). Inside a bucket of days the hazard is the same on each of them.
    """

    def __init__(
        self, *, country: str = "", params: Mapping[str, Any] | None = None, rounds: int = ROUNDS,
        max_rows: int = 60_000, max_periods: int = 130_000, seed: int = 7, threads: int = 0,
    ):  # fmt: skip
        self.calendar = Calendar(country)
        self.params, self.rounds, self.seed, self.threads = params, rounds, seed, threads
        self.max_rows, self.max_periods = max_rows, max_periods

    def fit(
        self, block: np.ndarray, times: Times, completed_in: np.ndarray, watched: np.ndarray,
        categorical: Sequence[int] = (),
    ) -> Self:  # fmt: skip
        """Learn from the first `max_rows` rows, which are in canonical order; more than `max_periods` are thinned.

        `completed_in`: days from the as-of to completion, NaN where unknown. `watched`: days after the as-of for which
        it is known whether the line was complete.
        """
        return self.grow(self.begin(block, times, completed_in, watched, categorical), self.rounds)

    def begin(
        self, block: np.ndarray, times: Times, completed_in: np.ndarray, watched: np.ndarray,
        categorical: Sequence[int] = (),
    ) -> Growing:  # fmt: skip
        """Return the trees of `fit` before any has grown."""
        self.grid_ = choose_grid(completed_in)
        few = slice(0, self.max_rows)
        row, begin, end, hit = person_periods(times.due[few], completed_in[few], watched[few], self.grid_)
        kept, weight = thinned(hit, self.max_periods, self.seed)
        row, begin, end, hit = (a[kept] for a in (row, begin, end, hit))
        inputs = self._inputs(block, times, row, begin, end)
        if not len(row):  # nothing was ever watched for a day: nothing is known to arrive
            inputs, hit, weight = np.full((1, inputs.shape[1]), np.nan, np.float32), np.zeros(1), np.ones(1)
        small = max(min(PARAMS["min_data_in_leaf"], len(row) // 40), 2)
        return Growing(
            inputs, hit.astype(float), {**PARAMS, "min_data_in_leaf": small, **(self.params or {})},
            seed=self.seed, threads=self.threads, categorical=categorical, weight=weight,
        )  # fmt: skip

    def grow(self, trees: Growing, rounds: int) -> Self:
        """Keep the first so many of the trees that have begun."""
        self.booster_ = trees.upto(rounds)
        self._prepare()
        return self

    def _prepare(self) -> None:
        self._trees = shared(self.booster_, self.booster_.num_feature() - len(PERIOD_INPUTS))

    def _inputs(
        self, block: np.ndarray, times: Times, row: np.ndarray, begin: np.ndarray, end: np.ndarray
    ) -> np.ndarray:
        return np.column_stack([block[row], self._places(times, row, begin, end)])

    def _places(self, times: Times, row: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return PERIOD_INPUTS, float32 [bucket, input]."""
        as_of, age, due = times.as_of[row], times.age[row], times.due[row]
        work = self.calendar.before
        first = work(as_of + begin)
        weekday = np.where(end - begin == 1, (as_of + begin + 3) % 7, np.nan)  # day 0, 1970-01-01, was a Thursday
        places = (
            begin, end - begin, begin - due, end - 1 - due, age + begin, weekday, work(as_of + end) - first,
            first - work(as_of), work(as_of + due + 1) - first, first - work(as_of - age),
        )  # fmt: skip
        return np.column_stack(places).astype(np.float32)

    def _log_kept(self, block: np.ndarray, ahead: "_Ahead", counts: Sequence[int | None] = (None,)) -> list[np.ndarray]:
        """Return log(1 − h) [row, bucket] by the first trees, so many as `counts` says, rising; None means all.

        What lies `ahead` of a row depends on its times alone, which many rows share. It is 0 where a bucket is empty.
        """
        places, empty = self._places_of(ahead), (ahead.end <= ahead.begin)[ahead.kind]
        if self._trees is not None:
            raw = self._trees.raw(block, places, ahead.kind, counts)
        else:
            row, bucket = np.nonzero(~empty)
            inputs, raw = np.column_stack([block[row], places[ahead.kind[row], bucket]]), []
            for count in counts:
                raw.append(np.zeros(empty.shape))
                raw[-1][row, bucket] = self._predicted(inputs, count)
        out = [np.log1p(-np.clip(expit(mine), 1e-6, 1 - 1e-6)) for mine in raw]
        for mine in out:
            mine[empty] = 0.0
        return out

    def _places_of(self, ahead: "_Ahead") -> np.ndarray:
        """Return PERIOD_INPUTS [kind, bucket, input]; those of an empty bucket mean nothing."""
        kind = np.repeat(np.arange(len(ahead.begin)), ahead.begin.shape[1])
        places = self._places(ahead.times, kind, ahead.begin.ravel(), ahead.end.ravel())
        return places.reshape(*ahead.begin.shape, len(PERIOD_INPUTS))

    def _predicted(self, inputs: np.ndarray, count: int | None) -> np.ndarray:
        if not len(inputs):
            return np.zeros(0)
        return said_by_trees(self.booster_, inputs, rounds=count, raw=True, threads=self.threads)

    def late(self, block: np.ndarray, times: Times) -> np.ndarray:
        """Return S at the promise, 1 where it has passed, NaN without one."""
        return self.late_by(block, times, (None,))[0]

    def late_by(
        self, block: np.ndarray, times: Times, counts: Sequence[int | None], evaluated: "list[Evaluated] | None" = None
    ) -> list[np.ndarray]:
        """Return what `late` would be with the first trees alone, for each rising count of them.

        What all trees say of the buckets until the promise is added to `evaluated`, where it is given.
        """
        out = [np.where(np.isnan(times.due), np.nan, 0.0) for _ in counts]

        def work(part: np.ndarray) -> None:
            ahead = _Ahead.of(times.take(part), self.grid_, until_due=True)
            told = self._log_kept(block[part], ahead, counts)
            for mine, kept in zip(out, told, strict=True):
                mine[part] += np.cumsum(kept, axis=1)[:, -1] if kept.size else 0.0  # one after the other
            if evaluated is not None:
                evaluated.append(Evaluated(part, ahead, told[-1]))

        side_by_side(work, times.alike())
        return [np.exp(np.maximum(mine, LEAST_LOG)) for mine in out]

    def survival(self, block: np.ndarray, times: Times) -> np.ndarray:
        """Return S at the end of days 0 … LONGEST − 1 [row, day], never rising."""
        out = np.empty((len(block), LONGEST))

        def work(part: np.ndarray) -> None:
            ahead = _Ahead.of(times.take(part), self.grid_)
            out[part] = ahead.drawn(self._log_kept(block[part], ahead)[0])

        side_by_side(work, times.alike())
        return out

    def arrivals(self, block: np.ndarray, times: Times, p_late: np.ndarray, evaluated: "list[Evaluated]") -> np.ndarray:
        """Return the days [row, level of QUANTILES] by which rows have arrived, their curves tied to `p_late`.

        `evaluated` is what `late_by` left of the same rows; where it is empty, the trees are evaluated first.
        """
        if not evaluated:
            self.late_by(block, times, (None,), evaluated)
        out = np.empty((len(block), len(QUANTILES)))

        def work(mine: Evaluated) -> None:
            at, p = times.take(mine.part), p_late[mine.part]
            rest = _Ahead.of(at, self.grid_, after_due=True)
            kept = np.hstack([mine.kept, self._log_kept(block[mine.part], rest)[0]])
            ahead = mine.ahead.then(rest)
            begin, end = ahead.begin[ahead.kind], ahead.end[ahead.kind]
            out[mine.part] = days_by_bucket(kept, begin, end, at.due, p, lambda few: ahead.take(few).drawn(kept[few]))

        side_by_side(work, evaluated)
        return out

    def busiest(self, block: np.ndarray, times: Times) -> np.ndarray:
        """Return the booster's inputs [row, input] of the bucket that decides most: the likeliest to see the line come.

        Of the buckets up to the promise, or of all where it has passed or there is none.
        """
        out = np.empty((len(block), block.shape[1] + len(PERIOD_INPUTS)), np.float32)
        for part in _parts(len(block)):
            at = times.take(part)
            row, begin, end = buckets(at.due, self.grid_)
            due = (end <= at.due[row] + 1) | ~(at.due[row] >= 0)
            row, begin, end = row[due], begin[due], end[due]
            inputs = self._inputs(block[part], at, row, begin, end)
            chance = np.log1p(-np.clip(expit(self._predicted(inputs, None)), 1e-6, 1 - 1e-6))
            order = np.lexsort((begin, chance, row))  # the lowest log first: the highest hazard
            out[part] = inputs[order[np.r_[True, np.diff(row[order]) > 0]]] if len(row) else inputs
        return out

    def to_dict(self) -> dict[str, Any]:
        return {"grid": self.grid_.tolist()}

    def save(self, file: Path) -> None:
        """Write the trees as text."""
        save(self.booster_, file)

    def load(self, file: Path, state: Mapping[str, Any]) -> Self:
        """Read the trees, and what `to_dict` told of the buckets."""
        self.booster_, self.grid_ = lgb.Booster(model_file=file), np.array(state["grid"])
        self._prepare()
        return self


@dataclass(frozen=True, slots=True, eq=False)
class _Ahead:
    """The buckets of days ahead of some rows: `begin` and `end` [kind, bucket] of each of the different `times`, equal
    where there is no more, and the `kind` of every row."""

    times: Times
    begin: np.ndarray
    end: np.ndarray
    kind: np.ndarray

    @classmethod
    def of(cls, times: Times, grid: np.ndarray, *, until_due: bool = False, after_due: bool = False) -> "_Ahead":
        kinds, mine = times.distinct()
        kind, begin, end = buckets(kinds.due, grid)
        if until_due or after_due:
            asked = (end <= kinds.due[kind] + 1) == until_due
            kind, begin, end = kind[asked], begin[asked], end[asked]
        count = np.bincount(kind, minlength=len(kinds.due))
        nth = np.arange(len(kind)) - (np.cumsum(count) - count)[kind]
        dense = np.zeros((2, len(count), int(count.max(initial=0))))
        dense[:, kind, nth] = begin, end
        return cls(kinds, dense[0], dense[1], mine)

    def then(self, rest: "_Ahead") -> "_Ahead":
        """Return the buckets of both, ahead of the same rows."""
        begin, end = np.hstack([self.begin, rest.begin]), np.hstack([self.end, rest.end])
        return _Ahead(self.times, begin, end, self.kind)

    def take(self, index: np.ndarray) -> "_Ahead":
        return _Ahead(self.times, self.begin, self.end, self.kind[index])

    def drawn(self, kept: np.ndarray) -> np.ndarray:
        """Return S [row, day] out of log(1 − h) [row, bucket]; the buckets of a row tile all days."""
        length = (self.end - self.begin).astype(np.int64)[self.kind]
        daily = kept / np.maximum(length, 1)
        days = np.repeat(daily.ravel(), length.ravel()).reshape(-1, LONGEST)
        return np.exp(np.maximum(np.cumsum(days, axis=1), LEAST_LOG))


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """What all trees say of the buckets until the promise, log(1 − h) [row, bucket], of the rows numbered `part`."""

    part: np.ndarray
    ahead: _Ahead
    kept: np.ndarray


def _parts(n: int) -> list[slice]:
    return [slice(first, first + AT_ONCE) for first in range(0, n, AT_ONCE)]


def person_periods(
    due: np.ndarray, completed_in: np.ndarray, watched: np.ndarray, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return row, first day, day after the last, completed in it, of every bucket that was watched whole, up to that
    of the completion.

    A bucket watched in part is left out whatever came of it: to keep it for the lines that completed and drop it for
    those that did not would make arrivals look likelier than they are. A completion found to lie before the as-of,
    because its receipt was posted late, falls into the first bucket.
    """
    done = np.where(np.isnan(completed_in), np.inf, np.maximum(completed_in, 0))
    found = [(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))]
    for part in _parts(len(due)):
        row, begin, end = buckets(due[part], grid)
        row = row + part.start
        kept = (done[row] >= begin) & (watched[row] >= end)
        found.append((row[kept], begin[kept], end[kept]))
    row, begin, end = (np.concatenate(a) for a in zip(*found, strict=True))
    return row, begin, end, done[row] < end


def thinned(hit: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of at most about `most` person-periods and their weights, which make up for those left out.

    All in which a line came are kept, and a random share of the many in which it did not, at least one in ten: what a
    line's waiting tells is told by few of its days.
    """
    hits = int(hit.sum())
    share = min(max((most - hits) / max(len(hit) - hits, 1), 0.1), 1.0)
    kept = np.flatnonzero(hit | (np.random.default_rng(seed).random(len(hit)) < share))
    return kept, np.where(hit[kept], 1.0, 1 / share)
