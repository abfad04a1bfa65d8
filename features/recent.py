"""How long did the last lines of this supplier take, and would they have met this line's promise?"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import duckdb
import numpy as np
import pandas as pd

from features.core import Feature, ratio
from features.panels import codes_of, joint_key
from features.standing import entities_asked
from features.threads import pieces, side_by_side, taken
from features.weeks import Grid, holiday_dates, working_days

LAST = 20  # lines looked back on: enough for a share, few enough to be recent
CHUNK = 1 << 13  # rows looked up at once: their last lines stay in the processor's cache
PRIOR_LINES = 4.0  # lines that the chain's late share weighs against the last ones
HALF_LIFE = 4.0  # lines after which one counts half in a weighted mean
WEIGHTS = 0.5 ** (np.arange(LAST) / HALF_LIFE)


def recent_features(
    con: duckdb.DuckDBPyConnection, rows: pd.DataFrame, grid: Grid, *, country: str, prior: np.ndarray
) -> np.ndarray:
    """Return float32 [row, feature] of RECENT_FEATURES; `prior` is each row's late share to shrink towards."""
    lines, codes = _lines(con, grid, country), codes_of(con, KEYS)
    asked = {c: rows[c].to_numpy() for c in ASKED} | {"prior": prior, "ordered": _moment(rows)}
    out = np.full((len(rows), len(RECENT_FEATURES)), np.nan, np.float32)
    column = 0
    for level in RECENT_LEVELS:
        entity, _ = entities_asked(joint_key(codes, level.keys), asked["line"])
        _look_back(lines, entity, level.formulas, asked, grid, out[:, column : column + len(level.formulas)])
        column += len(level.formulas)
    return out


def _look_back(
    lines: pd.DataFrame, entity: np.ndarray, formulas: tuple[Feature, ...], rows: Mapping[str, np.ndarray],
    grid: Grid, out: np.ndarray,
) -> None:  # fmt: skip
    """Write into `out` [row, feature] what the last lines of each row's entity tell; `entity` is that of every line."""
    books = _Books(lines, entity, grid)
    mine = taken(entity, rows["line"])
    order = np.argsort(mine * np.int64(grid.size) + rows["step"], kind="stable")

    def work(part: slice) -> None:
        some = order[part]  # rows of one entity and day look back on the same lines, and are together here
        last = Last.of(books, {name: column[some] for name, column in rows.items()}, mine[some])
        for k, feature in enumerate(formulas):
            out[some, k] = feature.formula(last)

    side_by_side(work, pieces(len(mine), CHUNK))


def _moment(lines: pd.DataFrame) -> np.ndarray:
    """Day number of the order, its hour as a fraction."""
    return _day(lines, "ordered_on") + lines["ordered_hour"].to_numpy(float) / 24


def _day(lines: pd.DataFrame, column: str) -> np.ndarray:
    return _days(lines[column].to_numpy())


def _days(moments: np.ndarray) -> np.ndarray:
    given = moments.astype("datetime64[D]")
    return np.where(np.isnat(given), np.nan, given.astype(float))


def _lines(con: duckdb.DuckDBPyConnection, grid: Grid, country: str) -> pd.DataFrame:
    """Return the lines known, with the steps in which each and its completion became known."""
    lines = con.execute(
        f"SELECT line, known_at, complete_known_at AS done_at, {grid.sql_index('known_at')} "
        f"AS step, coalesce({grid.sql_index('complete_known_at')}, {grid.size}) AS done_step, ordered_on, "
        "ordered_hour, complete_on, promised_on FROM line_history ORDER BY line"
    ).df()
    begin, end = (lines[c].to_numpy().astype("datetime64[D]") for c in ("ordered_on", "complete_on"))
    came = ~np.isnat(end)
    return lines.assign(
        ordered=_moment(lines),
        completed=_day(lines, "complete_on"),
        work=np.where(came, working_days(begin, np.where(came, end, begin), holiday_dates(country)), np.nan),
        miss=_day(lines, "complete_on") - _day(lines, "promised_on"),
        ordered_day=_day(lines, "ordered_on"),
    )


class _Book:
    """Lines sorted by entity, then by when they became known, to be asked for the last ones known at a step."""

    def __init__(
        self, lines: pd.DataFrame, entity: np.ndarray, among: np.ndarray, by: tuple[str, ...], step: str, grid: Grid
    ):
        """Take the lines `among` all, which are in their own order, sorted by entity and the columns `by`."""
        mine = np.flatnonzero(among)
        keys = [lines[c].to_numpy()[mine] for c in reversed(by)]
        self.lines, self.order = lines, mine[np.lexsort((*keys, entity[mine]))]
        self.entity, self.size = entity[self.order].astype(np.int64), grid.size + 1
        self.key = self.entity * self.size + np.minimum(lines[step].to_numpy(np.int64)[self.order], grid.size)

    def upto(self, entity: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Return the place after the last line of each entity that is known at its step."""
        return np.searchsorted(self.key, entity * self.size + step, side="right")

    def last(self, entity: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the places [entity, nth last] of the last lines, and whether there is one."""
        place = self.upto(entity, step)[:, None] - 1 - np.arange(LAST)
        there = place >= np.searchsorted(self.entity, entity)[:, None]
        return np.where(there, place, 0), there

    def read(self, column: str, place: np.ndarray, there: np.ndarray) -> np.ndarray:
        if not len(self.order):
            return np.full(place.shape, np.nan)
        return np.where(there, self.lines[column].to_numpy()[self.order[place]], np.nan)


@dataclass(frozen=True, eq=False)
class _Books:
    """The lines of some entities as they were completed and as they became known, sorted once they are asked for."""

    lines: pd.DataFrame
    entity: np.ndarray
    grid: Grid

    @cached_property
    def done(self) -> _Book:
        came = (self.entity >= 0) & (self.lines["done_step"].to_numpy() < self.grid.size)
        return _Book(self.lines, self.entity, came, ("done_at", "completed", "ordered"), "done_step", self.grid)

    @cached_property
    def known(self) -> _Book:
        return _Book(self.lines, self.entity, self.entity >= 0, ("known_at",), "step", self.grid)

    @cached_property
    def place(self) -> np.ndarray:
        """Where each line stands among the known ones; 0 for lines of others."""
        out = np.zeros(len(self.lines), np.int64)
        out[self.known.order] = np.arange(len(self.known.order))
        return out


@dataclass(frozen=True, eq=False)
class Last:
    """What the last completed lines [entity, nth last] were as known at an as-of, NaN where there are fewer.

    An entity is a supplier, or an item of one, on a day. `rows`, with `prior`, the late share of the chain, are open
    lines of theirs: each of the entity `number`.
    """

    books: _Books
    rows: Mapping[str, np.ndarray]
    number: np.ndarray
    entity: np.ndarray
    step: np.ndarray
    as_of: np.ndarray

    @classmethod
    def of(cls, books: _Books, rows: Mapping[str, np.ndarray], entity: np.ndarray) -> "Last":
        """Take rows of which those of one entity and day stand together."""
        step = rows["step"].astype(np.int64)
        begins = (np.diff(entity, prepend=-1) != 0) | (np.diff(step, prepend=-1) != 0)
        own = entity[begins].astype(np.int64)
        return cls(books, rows, np.cumsum(begins) - 1, own, step[begins], _days(rows["as_of"])[begins])

    def each(self, x: np.ndarray) -> np.ndarray:
        """Return for each row what x says of its entity."""
        return x.take(self.number, axis=0)

    @cached_property
    def _done(self) -> tuple[np.ndarray, np.ndarray]:
        return self.books.done.last(self.entity, self.step)

    @cached_property
    def completed(self) -> np.ndarray:
        return self.books.done.read("completed", *self._done)

    @cached_property
    def ordered(self) -> np.ndarray:
        """Day of the order, its hour as a fraction."""
        return self.books.done.read("ordered", *self._done)

    @cached_property
    def lead(self) -> np.ndarray:
        """Days from order to completion."""
        return self.completed - np.floor(self.ordered)

    @cached_property
    def work(self) -> np.ndarray:
        """Working days from order to completion."""
        return self.books.done.read("work", *self._done)

    @cached_property
    def miss(self) -> np.ndarray:
        """Days from promise to completion."""
        return self.books.done.read("miss", *self._done)

    @cached_property
    def ago(self) -> np.ndarray:
        """Days from completion to the as-of."""
        return self.as_of[:, None] - self.completed

    def paces(self) -> tuple[np.ndarray, np.ndarray]:
        """Return per row, of the last lines ordered but itself, completed or not, how many came, and the working days
        they have waited, older lines counting less."""
        known = self.books.known
        place, there = known.last(self.entity, self.step)
        came = there & (known.read("done_step", place, there) <= self.step[:, None])
        # an open line has waited the working days of its age: five of seven, the exact count is not worth its time
        so_far = (self.as_of[:, None] - known.read("ordered_day", place, there)) * 5 / 7
        waited = np.where(came, known.read("work", place, there), so_far)
        own = self.each(known.upto(self.entity, self.step)) - 1 - self.books.place[self.rows["line"]]
        shipped = WEIGHTS * came
        waited = WEIGHTS * np.where(there, np.maximum(waited, 0) + 0.5, 0)
        return self._but(own, shipped), self._but(own, waited)

    def _but(self, own: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return per row the sum of its entity's x, without the `own`-th."""
        total = self.each(x.sum(axis=1))
        among = np.flatnonzero((own >= 0) & (own < LAST))
        others = x[self.number[among]]
        others[np.arange(len(among)), own[among]] = 0.0
        total[among] = others.sum(axis=1)
        return total


# Formulas -----------------------------------------------------------------------------------------------------------


def _weighted(x: np.ndarray) -> np.ndarray:
    weight = np.where(np.isnan(x), 0.0, WEIGHTS)
    return ratio((weight * np.nan_to_num(x)).sum(axis=1), weight.sum(axis=1))


def _quantile(x: np.ndarray, q: float) -> np.ndarray:
    """Return the row's quantile, the nearest value below it; NaN without a value."""
    n = (~np.isnan(x)).sum(axis=1)
    at = np.floor(q * np.maximum(n - 1, 0)).astype(int)
    return np.take_along_axis(np.sort(x, axis=1), at[:, None], axis=1)[:, 0]  # NaN sorts last


def _over_promise(last: Last, *, still_open: bool) -> np.ndarray:
    promised, work = last.rows["promised_work"], last.each(last.work)
    longer = work > promised[:, None]
    if still_open:
        among = work >= last.rows["age_work"][:, None]
        longer, n = longer & among, among.sum(axis=1)
    else:
        n = last.each((~np.isnan(last.work)).sum(axis=1))
    share = (longer.sum(axis=1) + PRIOR_LINES * last.rows["prior"]) / (n + PRIOR_LINES)
    return np.where(np.isnan(promised), np.nan, share)


def _overtaken(last: Last) -> np.ndarray:
    after = last.each(last.ordered) - last.rows["ordered"][:, None]
    return np.where(np.isnan(after[:, 0]), np.nan, (after > 0).sum(axis=1))


def _pace(last: Last) -> np.ndarray:
    shipped, waited = last.paces()
    return (shipped + 1) / (waited + 4)


def _gap_ratio(last: Last) -> np.ndarray:
    n = (~np.isnan(last.ago)).sum(axis=1)
    oldest = np.take_along_axis(last.ago, np.maximum(n - 1, 0)[:, None], axis=1)[:, 0]
    return ratio(last.ago[:, 0], ratio(oldest - last.ago[:, 0], n - 1) + 1)


WORK = Feature(
    "recent_working_days", lambda v: v.each(_weighted(v.work)), "days",
    f"Mean working days from order to completion of the last {LAST} lines completed, the latest counting most.",
    "its last lines took {value:working}, usually {usual:working}", "lead time",
)  # fmt: skip
OVER = Feature(
    "over_promise_share", lambda v: _over_promise(v, still_open=False), "share",
    f"Share of the last {LAST} lines completed that took more working days than this line's promise gives, shrunk "
    f"towards the chain's late share by {PRIOR_LINES:g} lines.",
    "{value} of its last lines took longer than is promised here, usually {usual}", "promise",
)  # fmt: skip
RECENT = (
    WORK,
    Feature(
        "recent_lead_days", lambda v: v.each(_weighted(v.lead)), "days",
        f"Mean days from order to completion of the last {LAST} lines completed, the latest counting most.",
        "its last lines took {value} from order to delivery, usually {usual}", "lead time",
    ),
    Feature(
        "recent_working_days_p50", lambda v: v.each(_quantile(v.work, 0.5)), "days",
        f"Median working days from order to completion of the last {LAST} lines completed.",
        "half of its last lines took {value:working}, usually {usual:working}", "lead time",
    ),
    Feature(
        "recent_working_days_p90", lambda v: v.each(_quantile(v.work, 0.9)), "days",
        f"Working days from order to completion within which nine of ten of the last {LAST} lines completed came.",
        "nine in ten of its last lines took {value:working}, usually {usual:working}", "lead time",
    ),
    Feature(
        "recent_days_late", lambda v: v.each(_weighted(v.miss)), "days",
        f"Mean days from promise to completion of the last {LAST} lines completed, the latest counting most.",
        "its last lines came {value:after} the promise, usually {usual:after}", "lead time",
    ),
    Feature(
        "pace", _pace, "lines per working day",
        f"Lines completed per working day waited, of the last {LAST} lines ordered, completed or not; the latest count "
        "most.",
        "completes {value:rate} of its open lines per working day, usually {usual:rate}", "lead time",
    ),
    OVER,
    Feature(
        "over_promise_open_share", lambda v: _over_promise(v, still_open=True), "share",
        f"The same among those of the last {LAST} lines that took at least the time for which this line is open.",
        "of its last lines that took this long already, {value} took longer than is promised here, usually {usual}",
        "promise",
    ),
    Feature(
        "overtaken_by", _overtaken, "lines",
        f"Lines ordered later than this one among the last {LAST} completed.",
        "overtaken by {value} ordered later", "overtaken",
    ),
    Feature(
        "days_since_completion", lambda v: v.each(v.ago[:, 0]), "days", "Days since a line was last completed.",
        "completed nothing for {value}, usually {usual}", "recency",
    ),
    Feature(
        "silence", lambda v: v.each(_gap_ratio(v)), "ratio",
        f"Days since a line was last completed against the mean gap of the last {LAST}, plus a day.",
        "the time since its last delivery is {value} its usual gap", "recency",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RecentLevel:
    """Whose last lines: the columns that name the entity, and the formulas."""

    name: str
    of: str
    keys: tuple[str, ...]
    formulas: tuple[Feature, ...]

    @property
    def features(self) -> tuple[Feature, ...]:
        return tuple(f.at(self.name, self.of) for f in self.formulas)


RECENT_LEVELS = (
    RecentLevel("supplier", "supplier", ("supplier_id",), RECENT),
    RecentLevel("supplier_product", "this item at this supplier", ("supplier_id", "product_id"), (WORK, OVER)),
)
KEYS = ("supplier_id", "product_id")
ASKED = ("line", "step", "as_of", "ordered_on", "ordered_hour", "promised_work", "age_work")  # what is read of a row
RECENT_FEATURES = tuple(f for level in RECENT_LEVELS for f in level.features)
