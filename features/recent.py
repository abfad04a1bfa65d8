"""How long did the last lines of this supplier take, and would they have met this line's promise?"""

from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd

from features.core import Feature, ratio
from features.orders import days
from features.standing import number
from features.weeks import Grid, holiday_dates, working_days

LAST = 20  # completed lines looked back on: enough for a share, few enough to be recent
CHUNK = 100_000  # rows looked up at once
PRIOR_LINES = 4.0  # lines that the chain's late share weighs against the last ones
HALF_LIFE = 4.0  # lines after which one counts half in the weighted mean


@dataclass(frozen=True, slots=True, eq=False)
class Last:
    """The last completed lines [row, nth last] of each row's entity as known at its as-of, NaN where there are fewer.

    `lead` and `work` are days and working days from order to completion, `after` days from this line's order to
    theirs, `miss` days from promise to completion, `came` days from their completion to this row's as-of. `rows` holds
    the rows themselves, with `prior`, the late share of the chain.
    """

    rows: pd.DataFrame
    lead: np.ndarray
    work: np.ndarray
    after: np.ndarray
    miss: np.ndarray
    came: np.ndarray


def completed_lines(con: duckdb.DuckDBPyConnection, grid: Grid, country: str) -> pd.DataFrame:
    """Return the lines known complete, oldest knowledge first, with the step in which each became known."""
    lines = con.execute(
        f"SELECT supplier_id, product_id, site_id, {grid.sql_index('complete_known_at')} AS step, ordered_on, "
        "ordered_hour, complete_on, promised_on FROM line_history WHERE complete_known_at IS NOT NULL "
        f"AND complete_known_at < DATE '{grid.as_of}' ORDER BY complete_known_at, complete_on, ordered_on, line"
    ).df()
    begin, end = (lines[c].to_numpy().astype("datetime64[D]") for c in ("ordered_on", "complete_on"))
    return lines.assign(
        lead=days(lines, "complete_on", "ordered_on"),
        work=working_days(begin, end, holiday_dates(country)).astype(float),
        ordered=begin.astype(float) + lines["ordered_hour"].to_numpy(float) / 24,
        miss=days(lines, "complete_on", "promised_on"),
        completed=end.astype(float),
    )


def _last(done: pd.DataFrame, rows: pd.DataFrame, entity: np.ndarray, mine: np.ndarray, grid: Grid) -> Last:
    """Look up the last lines of `rows`, of entities `mine`; `done` is sorted by `entity`, then knowledge."""
    key = entity * (grid.size + 1) + done["step"].to_numpy(np.int64)
    newest = np.searchsorted(key, mine * (grid.size + 1) + rows["step"].to_numpy(np.int64), side="right")
    place = newest[:, None] - 1 - np.arange(LAST)
    there = place >= np.searchsorted(entity, mine)[:, None]
    place = np.where(there, place, 0)

    def of(column: str) -> np.ndarray:
        values = done[column].to_numpy(float) if len(done) else np.full(1, np.nan)
        return np.where(there, values[place], np.nan)

    as_of = rows["as_of"].to_numpy().astype("datetime64[D]").astype(float)
    ordered = rows["ordered_on"].to_numpy().astype("datetime64[D]").astype(float) + rows["ordered_hour"].to_numpy() / 24
    return Last(
        rows, of("lead"), of("work"), of("ordered") - ordered[:, None], of("miss"), as_of[:, None] - of("completed")
    )


def recent_features(
    con: duckdb.DuckDBPyConnection, rows: pd.DataFrame, grid: Grid, *, country: str, prior: np.ndarray
) -> np.ndarray:
    """Return float32 [row, feature] of RECENT_FEATURES."""
    done = completed_lines(con, grid, country)
    out = np.full((len(rows), len(RECENT_FEATURES)), np.nan, np.float32)
    rows = rows.assign(prior=prior)
    column = 0
    for level in RECENT_LEVELS:
        asked, mine, _ = number(done, rows, level.keys)
        order = np.argsort(asked, kind="stable")
        order = order[asked[order] >= 0]
        sorted_done, sorted_entity = done.take(order), asked[order]
        for first in range(0, len(rows), CHUNK):
            part = slice(first, first + CHUNK)
            view = _last(sorted_done, rows.iloc[part], sorted_entity, mine[part], grid)
            for k, feature in enumerate(level.formulas):
                out[part, column + k] = feature.formula(view)
        column += len(level.formulas)
    return out


def _mean(x: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    weight = np.where(np.isnan(x), 0.0, 1.0 if weight is None else weight)
    return ratio((weight * np.nan_to_num(x)).sum(axis=1), weight.sum(axis=1))


def _quantile(x: np.ndarray, q: float) -> np.ndarray:
    """Return the row's quantile, the nearest value below; NaN without one."""
    n = (~np.isnan(x)).sum(axis=1)
    at = np.floor(q * np.maximum(n - 1, 0)).astype(int)
    return np.take_along_axis(np.sort(x, axis=1), at[:, None], axis=1)[:, 0]  # NaN sorts last


def _share(hit: np.ndarray, among: np.ndarray, prior: np.ndarray) -> np.ndarray:
    return ((hit & among).sum(axis=1) + PRIOR_LINES * prior) / (among.sum(axis=1) + PRIOR_LINES)


def _working(rows: pd.DataFrame, end: str) -> np.ndarray:
    """Working days from order to a day, by the same count as the lines' own."""
    return rows[end].to_numpy(float)


def _promised(last: Last) -> np.ndarray:
    return days(last.rows, "due_on", "ordered_on")[:, None]


def _over_promise(last: Last, given_age: bool) -> np.ndarray:
    known = ~np.isnan(last.lead) & ~np.isnan(_promised(last))
    if given_age:
        known &= last.lead >= days(last.rows, "as_of", "ordered_on")[:, None]
    return np.where(
        np.isnan(_promised(last)[:, 0]), np.nan,
        _share(last.lead > _promised(last), known, last.rows["prior"].to_numpy(float)),
    )

def _over_work(last: Last, given_age: bool) -> np.ndarray:
    p = last.rows["promised_work"].to_numpy(float)[:, None]
    known = ~np.isnan(last.work) & ~np.isnan(p)
    if given_age:
        known &= last.work >= last.rows["age_work"].to_numpy(float)[:, None]
    return np.where(
        np.isnan(p[:, 0]), np.nan,
        _share(last.work > p, known, last.rows["prior"].to_numpy(float)),
    )


WEIGHTS = 0.5 ** (np.arange(LAST) / HALF_LIFE)
RECENT = (
    Feature("recent_lead_days", lambda v: _mean(v.lead, WEIGHTS), "days", "About it.", "", "lead time"),
    Feature("recent_lead_mean", lambda v: _mean(v.lead), "days", "About it.", "", "lead time"),
    Feature("recent_lead_p50", lambda v: _quantile(v.lead, 0.5), "days", "About it.", "", "lead time"),
    Feature("recent_lead_p90", lambda v: _quantile(v.lead, 0.9), "days", "About it.", "", "lead time"),
    Feature("recent_work_p50", lambda v: _quantile(v.work, 0.5), "days", "About it.", "", "lead time"),
    Feature("recent_work_mean", lambda v: _mean(v.work, WEIGHTS), "days", "About it.", "", "lead time"),
    Feature("recent_work_p90", lambda v: _quantile(v.work, 0.9), "days", "About it.", "", "lead time"),
    Feature("last_lead", lambda v: v.lead[:, 0], "days", "About it.", "", "lead time"),
    Feature("recent_miss_days", lambda v: _mean(v.miss, WEIGHTS), "days", "About it.", "", "lead time"),
    Feature("recent_late_share", lambda v: _share(v.miss > 0, ~np.isnan(v.miss), v.rows["prior"].to_numpy(float)), "share", "About it.", "", "late share"),
    Feature("over_promise_share", lambda v: _over_promise(v, False), "share", "About it.", "", "lead time"),
    Feature("over_promise_open_share", lambda v: _over_promise(v, True), "share", "About it.", "", "lead time"),
    Feature("over_work_share", lambda v: _over_work(v, False), "share", "About it.", "", "lead time"),
    Feature("over_work_open_share", lambda v: _over_work(v, True), "share", "About it.", "", "lead time"),
    Feature("overtaken_by", lambda v: np.where(np.isnan(v.after[:,0]), np.nan, (v.after > 0).sum(axis=1)), "lines", "About it.", "", "overtaken"),
    Feature("days_since_receipt", lambda v: v.came[:, 0], "days", "About it.", "", "recency"),
    Feature("receipt_gap", lambda v: ratio(np.nanmax(np.nan_to_num(v.came), axis=1) - v.came[:, 0], (~np.isnan(v.came)).sum(axis=1) - 1), "days", "About it.", "", "recency"),
    Feature("recent_lines", lambda v: np.nan_to_num(((v.came <= 28)).sum(axis=1)), "lines", "About it.", "", "recency"),
    Feature("same_hour_lead", lambda v: _mean(np.where(np.abs((v.after - np.round(v.after))) < 0.125, v.work, np.nan)), "days", "About it.", "", "lead time"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RecentLevel:
    name: str
    of: str
    keys: tuple[str, ...]
    formulas: tuple[Feature, ...]


RECENT_LEVELS = (
    RecentLevel("supplier", "supplier", ("supplier_id",), RECENT),
    RecentLevel("site_supplier", "supplier into this site", ("site_id", "supplier_id"), RECENT),
    RecentLevel("supplier_product", "this item at this supplier", ("supplier_id", "product_id"), RECENT),
)
RECENT_FEATURES = tuple(f.at(level.name, level.of) for level in RECENT_LEVELS for f in level.formulas)
