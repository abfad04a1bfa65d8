"""How long did the last lines of this supplier take, and would they have met this line's promise?"""

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, eq=False)
class Last:
    """The last completed lines [row, nth last] of each row's entity as known at its as-of, NaN where there are fewer.

    `lead` and `work` are days and working days from order to completion, `miss` days from promise to completion,
    `after` days from this line's order to theirs, `ago` days from their completion to this row's as-of. `rows` holds
    the rows themselves, with `prior`, the late share of the chain. `shipped` and `waited` are, of the last lines
    ordered, completed or not: how many came, and the working days they have waited, older lines counting less.
    """

    rows: pd.DataFrame
    lead: np.ndarray
    work: np.ndarray
    miss: np.ndarray
    after: np.ndarray
    ago: np.ndarray
    shipped: np.ndarray
    waited: np.ndarray


def recent_features(
    con: duckdb.DuckDBPyConnection, rows: pd.DataFrame, grid: Grid, *, country: str, prior: np.ndarray
) -> np.ndarray:
    """Return float32 [row, feature] of RECENT_FEATURES; `prior` is each row's late share to shrink towards."""
    lines, codes = _lines(con, grid, country), codes_of(con, KEYS)
    asked = rows[list(ASKED)].assign(prior=prior, ordered=_moment(rows))
    out = np.full((len(rows), len(RECENT_FEATURES)), np.nan, np.float32)
    column = 0
    for level in RECENT_LEVELS:
        entity, _ = entities_asked(joint_key(codes, level.keys), asked["line"].to_numpy())
        _look_back(lines, entity, level.formulas, asked, grid, out[:, column : column + len(level.formulas)])
        column += len(level.formulas)
    return out


def _look_back(
    lines: pd.DataFrame, entity: np.ndarray, formulas: tuple[Feature, ...], rows: pd.DataFrame, grid: Grid,
    out: np.ndarray,
) -> None:  # fmt: skip
    """Write into `out` [row, feature] what the last lines of each row's entity tell; `entity` is that of every line."""
    mine = taken(entity, rows["line"].to_numpy())
    came = (entity >= 0) & (lines["done_step"].to_numpy() < grid.size)
    done = _Book(lines, entity, came, ("done_at", "completed", "ordered"), "done_step", grid)
    known = _Book(lines, entity, entity >= 0, ("known_at",), "step", grid)

    def work(part: slice) -> None:
        view = _view(done, known, rows.iloc[part], mine[part])
        for k, feature in enumerate(formulas):
            out[part, k] = feature.formula(view)

    side_by_side(work, pieces(len(rows), CHUNK))


def _moment(lines: pd.DataFrame) -> np.ndarray:
    """Day number of the order, its hour as a fraction."""
    return _day(lines, "ordered_on") + lines["ordered_hour"].to_numpy(float) / 24


def _day(lines: pd.DataFrame, column: str) -> np.ndarray:
    given = lines[column].to_numpy().astype("datetime64[D]")
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
        ordered_day=begin,
    )


class _Book:
    """Lines sorted by entity, then by when they became known, to be asked for the last ones known at a step."""

    def __init__(
        self, lines: pd.DataFrame, entity: np.ndarray, among: np.ndarray, by: tuple[str, ...], step: str, grid: Grid
    ):
        """Take the lines `among` all, which are in their own order, sorted by entity and the columns `by`."""
        mine = np.flatnonzero(among)
        keys = [lines[c].to_numpy()[mine] for c in reversed(by)]
        order = mine[np.lexsort((*keys, entity[mine]))]
        self.columns = {c: lines[c].to_numpy(float)[order] for c in ("ordered", "completed", "work", "miss")}
        self.columns |= {c: lines[c].to_numpy(float)[order] for c in ("done_step", "line")}
        self.columns["ordered_day"] = _day(lines, "ordered_day")[order]
        self.entity, self.size = entity[order].astype(np.int64), grid.size + 1
        self.key = self.entity * self.size + np.minimum(lines[step].to_numpy(np.int64)[order], grid.size)

    def last(self, rows: pd.DataFrame, entity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the places [row, nth last] of the last lines, and whether there is one."""
        newest = np.searchsorted(self.key, entity * self.size + rows["step"].to_numpy(np.int64), side="right")
        place = newest[:, None] - 1 - np.arange(LAST)
        there = place >= np.searchsorted(self.entity, entity)[:, None]
        return np.where(there, place, 0), there

    def read(self, column: str, place: np.ndarray, there: np.ndarray) -> np.ndarray:
        values = self.columns[column]
        return np.where(there, values[place], np.nan) if len(values) else np.full(place.shape, np.nan)


def _view(done: _Book, known: _Book, rows: pd.DataFrame, entity: np.ndarray) -> Last:
    at = done.last(rows, entity)
    completed, ordered = done.read("completed", *at), done.read("ordered", *at)
    as_of = _day(rows, "as_of")[:, None]
    shipped, waited = _pace(known, rows, entity)
    return Last(
        rows,
        lead=completed - np.floor(ordered),
        work=done.read("work", *at),
        miss=done.read("miss", *at),
        after=ordered - rows["ordered"].to_numpy(float)[:, None],
        ago=as_of - completed,
        shipped=shipped,
        waited=waited,
    )


def _pace(known: _Book, rows: pd.DataFrame, entity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    place, there = known.last(rows, entity)
    there &= known.read("line", place, there) != rows["line"].to_numpy()[:, None]
    came = there & (known.read("done_step", place, there) <= rows["step"].to_numpy()[:, None])
    # an open line has waited the working days of its age: five of seven, since the exact count is not worth its time
    so_far = (_day(rows, "as_of")[:, None] - known.read("ordered_day", place, there)) * 5 / 7
    waited = np.where(came, known.read("work", place, there), so_far)
    return (WEIGHTS * came).sum(axis=1), (WEIGHTS * np.where(there, np.maximum(waited, 0) + 0.5, 0)).sum(axis=1)


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
    promised = last.rows["promised_work"].to_numpy(float)
    among = ~np.isnan(last.work)
    if still_open:
        among &= last.work >= last.rows["age_work"].to_numpy(float)[:, None]
    longer = ((last.work > promised[:, None]) & among).sum(axis=1)
    share = (longer + PRIOR_LINES * last.rows["prior"].to_numpy(float)) / (among.sum(axis=1) + PRIOR_LINES)
    return np.where(np.isnan(promised), np.nan, share)


def _overtaken(last: Last) -> np.ndarray:
    return np.where(np.isnan(last.after[:, 0]), np.nan, (last.after > 0).sum(axis=1))


def _gap_ratio(last: Last) -> np.ndarray:
    n = (~np.isnan(last.ago)).sum(axis=1)
    oldest = np.take_along_axis(last.ago, np.maximum(n - 1, 0)[:, None], axis=1)[:, 0]
    return ratio(last.ago[:, 0], ratio(oldest - last.ago[:, 0], n - 1) + 1)


WORK = Feature(
    "recent_working_days", lambda v: _weighted(v.work), "days",
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
        "recent_lead_days", lambda v: _weighted(v.lead), "days",
        f"Mean days from order to completion of the last {LAST} lines completed, the latest counting most.",
        "its last lines took {value} from order to delivery, usually {usual}", "lead time",
    ),
    Feature(
        "recent_working_days_p50", lambda v: _quantile(v.work, 0.5), "days",
        f"Median working days from order to completion of the last {LAST} lines completed.",
        "half of its last lines took {value:working}, usually {usual:working}", "lead time",
    ),
    Feature(
        "recent_working_days_p90", lambda v: _quantile(v.work, 0.9), "days",
        f"Working days from order to completion within which nine of ten of the last {LAST} lines completed came.",
        "nine in ten of its last lines took {value:working}, usually {usual:working}", "lead time",
    ),
    Feature(
        "recent_days_late", lambda v: _weighted(v.miss), "days",
        f"Mean days from promise to completion of the last {LAST} lines completed, the latest counting most.",
        "its last lines came {value:after} the promise, usually {usual:after}", "lead time",
    ),
    Feature(
        "pace", lambda v: (v.shipped + 1) / (v.waited + 4), "lines per working day",
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
        "days_since_completion", lambda v: v.ago[:, 0], "days", "Days since a line was last completed.",
        "completed nothing for {value}, usually {usual}", "recency",
    ),
    Feature(
        "silence", _gap_ratio, "ratio",
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
