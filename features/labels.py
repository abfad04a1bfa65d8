"""The only file that may look ahead: what became of the open lines and of the demand after each as-of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from scipy import stats

from features.baseline import WINDOWS, Windows
from features.demand import is_intermittent, scatter
from features.panels import Terms
from features.weeks import Grid

NEVER = np.datetime64("NaT", "D")


def delay_labels(con: duckdb.DuckDBPyConnection, rows: pd.DataFrame, terms: Terms) -> pd.DataFrame:
    """Return y_late, matured_on, completed_on and left_on of snapshot rows (DEFINITIONS 1), aligned with `rows`.

    `y_late` is 1 when the line was not complete by the promise in force at the row's as-of, with tolerance; NaN for
    rows that are not due_future and for lines that the buyer cancelled before that promise. `matured_on` is promise +
    tolerance + posting lag, whatever the outcome: the label may be used at a cut T if and only if matured_on ≤ T.
    Outcomes are read from every receipt in `con`; `completed_known_at` tells which were known at an earlier cut.
    `left_on` is when the line left the risk set otherwise: its buyer cancelled it. One that its supplier cancelled
    stays, since it never comes.
    """
    outcome = con.execute(
        "SELECT complete_on, complete_known_at, cancelled_at, buyer_cancelled FROM line_history ORDER BY line"
    ).df()
    mine = outcome.take(rows["line"].to_numpy()).reset_index(drop=True)
    due = rows["due_on"].to_numpy().astype("datetime64[D]")
    matured = due + np.timedelta64(terms.posting_lag_days, "D")
    complete = mine["complete_on"].to_numpy().astype("datetime64[D]")
    cancelled = mine["cancelled_at"].to_numpy().astype("datetime64[D]")
    left = np.where(mine["buyer_cancelled"].to_numpy(), cancelled, NEVER)
    had = (mine["complete_known_at"] <= rows["known_at"].reset_index(drop=True)).to_numpy()  # in before it was ordered
    gone = had | ((left <= due) & ~(complete <= due))
    left = np.where(had, rows["as_of"].to_numpy().astype("datetime64[D]"), left)
    late = np.where(complete <= due, 0.0, 1.0)
    judged = (rows["state"] == "due_future").to_numpy() & ~gone
    return pd.DataFrame(
        {
            "y_late": np.where(judged, late, np.nan),
            "matured_on": np.where(judged, matured, NEVER).astype("datetime64[D]").astype("datetime64[s]"),
            "completed_on": complete.astype("datetime64[s]"),
            "completed_known_at": mine["complete_known_at"].to_numpy(),
            "left_on": left.astype("datetime64[D]").astype("datetime64[s]"),
        },
        index=rows.index,
    )


def late_as_known(rows: pd.DataFrame, cut: np.datetime64) -> np.ndarray:
    """Return y_late of labelled rows as it stood at `cut`: a completion that was posted later still counted as late."""
    told = rows["completed_known_at"].to_numpy().astype("datetime64[us]") < cut.astype("datetime64[us]")
    y = rows["y_late"].to_numpy(float)
    return np.where((y == 0) & ~told, 1.0, y)


def delay_outcomes(rows: pd.DataFrame, cut: np.datetime64, terms: Terms) -> pd.DataFrame:
    """Return what was known at `cut` of labelled rows (`delay_labels`), aligned with them.

    `y` is 1 late, 0 not, NaN for rows that are not judged or have not matured by the cut. `due_in` and `completed_in`
    are days from the as-of to the promise in force, with tolerance, and to completion, NaN where there is none or it
    was not known. For `watched` days after the as-of it is known whether the line was complete; what came by then was
    posted by the cut. It ends when a buyer cancels, and is negative for rows asked too late to tell anything.
    """
    as_of, day = rows["as_of"].to_numpy().astype("datetime64[D]"), cut.astype("datetime64[D]")

    def since(moment: np.ndarray) -> np.ndarray:
        moment = moment.astype("datetime64[D]")
        return np.where(np.isnat(moment), np.nan, (moment - as_of) / np.timedelta64(1, "D"))

    told = rows["completed_known_at"].to_numpy().astype("datetime64[us]") < day.astype("datetime64[us]")
    matured = rows["matured_on"].to_numpy().astype("datetime64[D]") <= day
    left = rows["left_on"].to_numpy().astype("datetime64[D]")
    watched = since(np.full(len(rows), day)) - terms.posting_lag_days
    return pd.DataFrame(
        {
            "as_of": rows["as_of"],
            "matured_on": rows["matured_on"].where(matured),  # later ones tell who will cancel
            "y": np.where(matured, late_as_known(rows, day), np.nan),
            "due_in": since(rows["due_on"].to_numpy()),
            "completed_in": np.where(told, since(rows["completed_on"].to_numpy()), np.nan),
            "watched": np.fmin(watched, since(np.where(left < day, left, NEVER))),
        },
        index=rows.index,
    )


Z_STAR = 1.64
EVENT_RATES = (0.03, 0.10)  # of windows that drop, and of those that surge: rarer teaches nothing, more is no news
Z_RANGE = (0.8, 6.0)
FEWEST = 200  # windows to choose z* on


@dataclass(frozen=True, slots=True)
class ShiftTerms:
    """What counts as a demand shift (DEFINITIONS 2); `chosen` picks `v_min`, in money, and both z* on history.

    `windows` are (lead, length) in weeks; `planned_in_baseline` says whether what a calendar tells ahead is expected;
    demand is counted in pieces of `piece` units (`features.demand.piece_of`).
    """

    z_down: float = Z_STAR
    z_up: float = Z_STAR
    share: float = 0.20
    v_min: float = 0.0
    tail: float = 0.05
    entry_lag_days: int = 0
    windows: Windows = WINDOWS
    planned_in_baseline: bool = True
    piece: float = 1.0


CLASSES = ("down", "steady", "up")


def entry_lag_days(con: duckdb.DuckDBPyConnection, as_of: object) -> int:
    """Days by which 95 % of the orders known before `as_of` had been entered."""
    lag = con.execute(
        "SELECT quantile_cont(epoch(known_at - ordered_at) / 86400, 0.95) FROM orders WHERE known_at < ?", [as_of]
    ).fetchall()[0][0]
    return max(int(np.ceil(round(lag or 0, 6))), 0)


def shift_outcomes(con: duckdb.DuckDBPyConnection, grid: Grid, rows: pd.DataFrame, terms: ShiftTerms) -> pd.DataFrame:
    """Return actual_units, stock_out and matured_on of series windows, aligned with `rows`.

    Demand counts in the week it was ordered, net of lines cancelled before the label matures: at the window's end plus
    the entry lag. A window has a stock-out when at any time in it the latest count of stock was zero or less.
    """
    lag = terms.entry_lag_days
    first = (rows["step"] + rows["lead_weeks"]).to_numpy()
    last = first + rows["length_weeks"].to_numpy()
    entity, series = _numbered(rows)
    weeks = _Weeks(grid, series, int(last.max(initial=grid.size)))

    def window_total(weekly: np.ndarray) -> np.ndarray:
        total = np.concatenate([np.zeros((1, weekly.shape[1])), np.cumsum(weekly, axis=0)])
        return total[last, entity] - total[first, entity]

    length = int(rows["length_weeks"].max()) if len(rows) else 0
    units, *gone = _weekly_units(con, weeks, [7 * back + lag for back in range(1, length + 1)])
    actual = window_total(units)
    for back, lost in enumerate(gone, start=1):  # weeks from order to window's end
        actual -= np.where(last - back >= first, lost[last - back, entity], 0)
    ends = rows["as_of"] + pd.to_timedelta(7 * (rows["lead_weeks"] + rows["length_weeks"]) + lag, unit="D")
    empty = window_total(_weekly_stock_outs(con, weeks)) > 0
    return pd.DataFrame({"actual_units": actual, "stock_out": empty, "matured_on": ends}, index=rows.index)


@dataclass(frozen=True, slots=True)
class _Weeks:
    """`size` weeks of some series; week w begins at the grid's as-of number w."""

    grid: Grid
    series: pd.DataFrame
    size: int

    def sql(self, moment: str) -> str:
        """SQL for the week a moment lies in."""
        start = f"TIMESTAMP '{self.grid.start} 00:00:00'"
        return f"CAST(floor((epoch({moment}) - epoch({start})) / 604800) AS INTEGER)"


def _numbered(rows: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the number of each row's series among those there are, and their products and sites."""
    product, products = pd.factorize(rows["product_id"])
    site, sites = pd.factorize(rows["site_id"])
    pair, pairs = pd.factorize(product * np.int64(max(len(sites), 1)) + site)
    of, at = np.divmod(pairs, max(len(sites), 1))
    return pair, pd.DataFrame({"product_id": products[of], "site_id": sites[at]})


def _weekly_units(con: duckdb.DuckDBPyConnection, weeks: _Weeks, cancelled_within: Sequence[int]) -> list[np.ndarray]:
    """Units ordered in each week [week, series], and those of them cancelled less than so many days after its begin."""
    week = weeks.sql("ordered_at")
    begin = f"TIMESTAMP '{weeks.grid.start} 00:00:00' + to_days(7 * {week}"
    lost = ", ".join(
        f"sum(quantity) FILTER (cancelled_at < {begin} + {days})) AS lost_{k}"
        for k, days in enumerate(cancelled_within)
    )
    con.register("asked_series", weeks.series.assign(nth=np.arange(len(weeks.series))))
    out = []
    for columns, known in (("sum(quantity) AS units", "true"), (lost, "cancelled_at IS NOT NULL")):
        found = con.execute(
            f"SELECT nth, {week} AS week, {columns} FROM orders JOIN asked_series USING (product_id, site_id) "
            f"WHERE {known} AND {week} BETWEEN 0 AND {weeks.size - 1} GROUP BY nth, week"
        ).fetchnumpy() if columns else {}  # fmt: skip
        for name in [name for name in found if name not in ("nth", "week")]:
            cells = np.zeros((weeks.size, len(weeks.series)))
            cells[found["week"], found["nth"]] = np.ma.filled(found[name], 0.0)
            out.append(cells)
    con.unregister("asked_series")
    return out


def _weekly_stock_outs(con: duckdb.DuckDBPyConnection, weeks: _Weeks) -> np.ndarray:
    """1 for weeks [week, series] in which, or in a part of which, the latest count of stock was zero or less."""
    size = weeks.size
    counted = f"""SELECT product_id, site_id, on_hand, {weeks.sql("known_at")} AS week,
      coalesce(lead(week) OVER (PARTITION BY product_id, site_id ORDER BY known_at) + 1, {size}) AS until FROM stock"""
    out = np.zeros((size + 1, len(weeks.series)))
    for edge, sign in (("week", 1.0), ("until", -1.0)):
        found = con.execute(
            f"SELECT product_id, site_id, greatest({edge}, 0) AS edge, {sign} * count(*) AS empty FROM ({counted}) "
            "WHERE on_hand <= 0 GROUP BY ALL"
        ).df()
        out += scatter(weeks.series, found, "edge", "empty", size + 1, 0.0)
    return (np.cumsum(out, axis=0)[:-1] > 0) * 1.0


def shift_labels(rows: pd.DataFrame, terms: ShiftTerms) -> np.ndarray:
    """Return 0 down, 1 steady, 2 up per row, NaN where unknown (DEFINITIONS 2).

    Unknown are windows of less than two demand intervals of an intermittent series, and a drop in a window with a
    stock-out, where sales are only a lower bound of demand.
    """
    baseline, actual = rows["baseline_units"].to_numpy(float), rows["actual_units"].to_numpy(float)
    gap = actual - baseline
    large = np.abs(gap) * rows["unit_price"].to_numpy(float) >= terms.v_min
    z_star = np.where(gap > 0, terms.z_up, terms.z_down)
    regular = large & (np.abs(gap) >= z_star * rows["noise_units"]) & (np.abs(gap) >= terms.share * baseline)
    counted = is_intermittent(rows["interval"])
    dispersion = rows["dispersion"].to_numpy(float)
    pieces = actual if terms.piece == 1 else np.round(actual / terms.piece, 6)  # 0.3 / 0.1 is no whole number
    low, high = _of_counted(tail_probabilities, counted, pieces, baseline / terms.piece, dispersion)
    up = np.where(counted, (high <= terms.tail) & (gap > 0), regular & (gap > 0))
    down = np.where(counted, (low <= terms.tail) & (gap < 0), regular & (gap < 0))
    unknown = (
        (counted & (rows["length_weeks"] < 2 * rows["interval"])) | (down & rows["stock_out"]) | np.isnan(baseline)
    )
    return np.where(unknown, np.nan, np.where(up, 2.0, np.where(down, 0.0, 1.0)))


def _of_counted(law: Callable[..., tuple[np.ndarray, ...]], counted: np.ndarray, *facts: np.ndarray) -> np.ndarray:
    """Return what a law of counts says, NaN for rows of regular series: it is slow and they do not ask it."""
    out = np.full((2, len(counted)), np.nan)
    out[:, counted] = law(*(fact[counted] for fact in facts))
    return out


def tail_probabilities(actual: np.ndarray, mean: np.ndarray, dispersion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return P(Y ≤ actual) and P(Y ≥ actual) of a negative binomial count with this mean and variance/mean."""
    law = _counts(mean, dispersion)
    return law.cdf(np.floor(actual)), law.sf(np.ceil(actual) - 1)


def _counts(mean: np.ndarray, dispersion: np.ndarray) -> Any:
    phi, mean = np.maximum(dispersion, 1.001), np.maximum(np.nan_to_num(mean), 1e-6)
    return stats.nbinom(mean / (phi - 1), 1 / phi)


def least_value(rows: pd.DataFrame, cover: float = 0.8) -> float:
    """V_min: the deviation, in money, at and above which the rows hold `cover` of all absolute deviation."""
    money = np.abs(rows["actual_units"] - rows["baseline_units"]).to_numpy(float) * rows["unit_price"].to_numpy(float)
    money = np.sort(money[~np.isnan(money)])[::-1]
    if not len(money) or money.sum() <= 0:
        return 0.0
    reached = np.cumsum(money)
    return float(money[np.searchsorted(reached, cover * reached[-1])])


def chosen(rows: pd.DataFrame, terms: ShiftTerms) -> ShiftTerms:
    """Return the terms with V_min and both z* as past windows ask for; `rows` must hold none that is to be judged.

    z* stays 1.64 where it lets EVENT_RATES of the regular windows of the last year through; else it goes as far as it
    must, within Z_RANGE. Too few windows choose nothing.
    """
    rows = rows[rows["as_of"] > rows["as_of"].max() - pd.Timedelta(weeks=52)]
    terms = replace(terms, v_min=least_value(rows))
    mine = rows[~is_intermittent(rows["interval"]) & ~np.isnan(rows["baseline_units"] + rows["actual_units"])]
    if len(mine) < FEWEST:
        return terms
    gap = (mine["actual_units"] - mine["baseline_units"]).to_numpy(float)
    least = np.maximum(terms.share * mine["baseline_units"], terms.v_min / np.maximum(mine["unit_price"], 1e-12))
    z = np.where(np.abs(gap) >= least, gap / mine["noise_units"].to_numpy(float), 0.0)
    return replace(terms, z_down=_z_star(-z), z_up=_z_star(z))


def _z_star(z: np.ndarray) -> float:
    rate = float((z >= Z_STAR).mean())
    low, high = EVENT_RATES
    if low <= rate <= high:
        return Z_STAR
    wanted = np.quantile(z, 1 - (high if rate > high else low))
    return float(np.clip(np.ceil(wanted * 100) / 100 if rate > high else np.floor(wanted * 100) / 100, *Z_RANGE))


def shift_thresholds(rows: pd.DataFrame, terms: ShiftTerms) -> tuple[np.ndarray, np.ndarray]:
    """Return the units at or below which a window is a drop, and at or above which it is a surge.

    NaN where the window is too short for an intermittent series. `shift_labels` says the same of actual units.
    """
    baseline = rows["baseline_units"].to_numpy(float)
    price = np.maximum(rows["unit_price"].to_numpy(float), 1e-12)
    noise = rows["noise_units"].to_numpy(float)
    least = np.maximum(terms.share * baseline, terms.v_min / price)

    def tails(mean: np.ndarray, dispersion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        law = _counts(mean, dispersion)
        return law.ppf(terms.tail) - 1, np.maximum(law.isf(terms.tail) + 1, np.floor(mean) + 1)

    counted = is_intermittent(rows["interval"])
    few, many = terms.piece * _of_counted(tails, counted, baseline / terms.piece, rows["dispersion"].to_numpy(float))
    short = counted & (rows["length_weeks"] < 2 * rows["interval"])
    down = np.where(counted, few, baseline - np.maximum(terms.z_down * noise, least))
    up = np.where(counted, many, baseline + np.maximum(terms.z_up * noise, least))
    return np.where(short, np.nan, np.where(down >= 0, down, -1.0)), np.where(short, np.nan, up)
