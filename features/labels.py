"""The only file that may look ahead: what became of the open lines and of the demand after each as-of."""

from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd
from scipy import stats

from features.baseline import WINDOWS
from features.demand import Demand, is_intermittent
from features.panels import Terms

NEVER = np.datetime64("NaT", "D")


def delay_labels(con: duckdb.DuckDBPyConnection, rows: pd.DataFrame, terms: Terms) -> pd.DataFrame:
    """Return y_late, matured_on and completed_on of snapshot rows (DEFINITIONS 1), aligned with `rows`.

    `y_late` is 1 when the line was not complete by the promise in force at the row's as-of, with tolerance; NaN for
    rows that are not due_future and for lines that the buyer cancelled before that promise. `matured_on` is promise +
    tolerance + posting lag, whatever the outcome: the label may be used at a cut T if and only if matured_on ≤ T. The
    outcome is read from receipts known by then, so a receipt posted later still does not turn the label around.
    """
    outcome = con.execute(
        "SELECT complete_on, complete_known_at, cancelled_at, buyer_cancelled FROM line_history ORDER BY line"
    ).df()
    mine = outcome.take(rows["line"].to_numpy()).reset_index(drop=True)
    due = rows["due_on"].to_numpy().astype("datetime64[D]")
    matured = due + np.timedelta64(terms.posting_lag_days, "D")
    complete = mine["complete_on"].to_numpy().astype("datetime64[D]")
    cancelled = mine["cancelled_at"].to_numpy().astype("datetime64[D]")
    gone = mine["buyer_cancelled"].to_numpy() & (cancelled <= due) & ~(complete <= due)
    late = np.where(complete <= due, 0.0, 1.0)
    judged = (rows["state"] == "due_future").to_numpy() & ~gone
    return pd.DataFrame(
        {
            "y_late": np.where(judged, late, np.nan),
            "matured_on": np.where(judged, matured, NEVER).astype("datetime64[D]").astype("datetime64[s]"),
            "completed_on": complete.astype("datetime64[s]"),
            "completed_known_at": mine["complete_known_at"].to_numpy(),
            "cancelled_on": cancelled.astype("datetime64[s]"),
        },
        index=rows.index,
    )


@dataclass(frozen=True, slots=True)
class ShiftTerms:
    """What counts as a demand shift (DEFINITIONS 2); `v_min` is money and is chosen on history with `least_value`."""

    z_star: float = 1.64
    share: float = 0.20
    v_min: float = 0.0
    tail: float = 0.05
    entry_lag_days: int = 0


CLASSES = ("down", "steady", "up")


def entry_lag_days(con: duckdb.DuckDBPyConnection, as_of: object) -> int:
    """Days by which 95 % of the orders known before `as_of` had been entered."""
    lag = con.execute(
        "SELECT quantile_cont(epoch(known_at - ordered_at) / 86400, 0.95) FROM orders WHERE known_at < ?", [as_of]
    ).fetchone()[0]  # type: ignore[index]
    return max(int(np.ceil(round(lag or 0, 6))), 0)


def shift_outcomes(con: duckdb.DuckDBPyConnection, data: Demand, rows: pd.DataFrame, terms: ShiftTerms) -> pd.DataFrame:
    """Return actual_units, stock_out and matured_on of series windows, aligned with `rows`.

    Demand counts in the week it was ordered, net of lines cancelled by the day the label matures: the window's end plus
    the entry lag.
    """
    lag = terms.entry_lag_days
    horizon = max(lead + length for lead, length in WINDOWS)
    actual = _weekly_actuals(con, data, horizon, lag)
    out_of_stock = _weekly_stock_outs(con, data, horizon)
    step, entity = rows["step"].to_numpy(), rows["entity"].to_numpy()
    first, last = step + rows["lead_weeks"].to_numpy(), step + (rows["lead_weeks"] + rows["length_weeks"]).to_numpy()

    def window_total(weekly: np.ndarray) -> np.ndarray:
        total = np.concatenate([np.zeros((1, weekly.shape[1])), np.cumsum(weekly, axis=0)])
        return total[last, entity] - total[first, entity]

    ends = rows["as_of"] + pd.to_timedelta(7 * (rows["lead_weeks"] + rows["length_weeks"]) + lag, unit="D")
    return pd.DataFrame(
        {"actual_units": window_total(actual), "stock_out": window_total(out_of_stock) > 0, "matured_on": ends},
        index=rows.index,
    )


def _weekly_actuals(con: duckdb.DuckDBPyConnection, data: Demand, horizon: int, lag: int) -> np.ndarray:
    """Units ordered in each week after each as-of of the grid [week, series]; week w begins at as-of w."""
    found = con.execute(
        f"""SELECT product_id, site_id, CAST(floor((epoch(ordered_at) - epoch(TIMESTAMP '{data.grid.start} 00:00:00')) / 604800) AS INT)
                   AS week, sum(quantity) AS units
            FROM orders WHERE ordered_at >= TIMESTAMP '{data.grid.start} 00:00:00'
             AND (cancelled_at IS NULL OR cancelled_at > ordered_at + to_days({7 * horizon + lag})) GROUP BY ALL"""
    ).df()
    return _scatter(found, data, horizon, "units")


def _weekly_stock_outs(con: duckdb.DuckDBPyConnection, data: Demand, horizon: int) -> np.ndarray:
    found = con.execute(
        f"""SELECT product_id, site_id, CAST(floor((epoch(known_at) - epoch(TIMESTAMP '{data.grid.start} 00:00:00')) / 604800) AS INT)
                   AS week, 1 AS empty
            FROM stock WHERE on_hand <= 0 AND known_at >= TIMESTAMP '{data.grid.start} 00:00:00' GROUP BY ALL"""
    ).df()
    return _scatter(found, data, horizon, "empty")


def _scatter(found: pd.DataFrame, data: Demand, horizon: int, value: str) -> np.ndarray:
    dense = np.zeros((data.grid.size + horizon, len(data.series)))
    keys = ["product_id", "site_id"]
    entity = pd.MultiIndex.from_frame(data.series[keys]).get_indexer(pd.MultiIndex.from_frame(found[keys]))
    week = found["week"].to_numpy(int)
    mine = (entity >= 0) & (week < len(dense))
    dense[week[mine], entity[mine]] = found[value].to_numpy()[mine]
    return dense


def shift_labels(rows: pd.DataFrame, terms: ShiftTerms) -> np.ndarray:
    """Return 0 down, 1 steady, 2 up per row, NaN where unknown (DEFINITIONS 2).

    Unknown are windows of less than two demand intervals of an intermittent series, and a drop in a window with a
    stock-out, where sales are only a lower bound of demand.
    """
    baseline, actual = rows["baseline_units"].to_numpy(float), rows["actual_units"].to_numpy(float)
    gap = actual - baseline
    large = np.abs(gap) * rows["unit_price"].to_numpy(float) >= terms.v_min
    regular = large & (np.abs(gap) >= terms.z_star * rows["noise_units"]) & (np.abs(gap) >= terms.share * baseline)
    counted = is_intermittent(rows["interval"])
    low, high = tail_probabilities(actual, baseline, rows["dispersion"].to_numpy(float))
    up = np.where(counted, (high <= terms.tail) & (gap > 0), regular & (gap > 0))
    down = np.where(counted, (low <= terms.tail) & (gap < 0), regular & (gap < 0))
    unknown = (
        (counted & (rows["length_weeks"] < 2 * rows["interval"])) | (down & rows["stock_out"]) | np.isnan(baseline)
    )
    return np.where(unknown, np.nan, np.where(up, 2.0, np.where(down, 0.0, 1.0)))


def tail_probabilities(actual: np.ndarray, mean: np.ndarray, dispersion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return P(Y ≤ actual) and P(Y ≥ actual) of a negative binomial count with this mean and variance/mean."""
    phi, mean = np.maximum(dispersion, 1.001), np.maximum(np.nan_to_num(mean), 1e-6)
    law = stats.nbinom(mean / (phi - 1), 1 / phi)
    return law.cdf(np.floor(actual)), law.sf(np.ceil(actual) - 1)


def least_value(rows: pd.DataFrame, cover: float = 0.8) -> float:
    """V_min: the deviation, in money, at and above which the rows hold `cover` of all absolute deviation."""
    money = np.abs(rows["actual_units"] - rows["baseline_units"]).to_numpy(float) * rows["unit_price"].to_numpy(float)
    money = np.sort(money[~np.isnan(money)])[::-1]
    if not len(money) or money.sum() <= 0:
        return 0.0
    return float(money[np.searchsorted(np.cumsum(money), cover * money.sum())])
