"""Did the warnings come true? What was published before, held against what is known now."""

from collections.abc import Mapping
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from models.forecasters import Forecaster

COLUMNS = {
    "task": "str", "source": "str", "p_from": float, "p_to": float, "scored": int, "expected_share": float,
    "came_true_share": float, "rule": "str", "skill_over_rule": float, "first_day": "datetime64[s]",
    "last_day": "datetime64[s]", "model_version": "str",
}  # fmt: skip


def published_record(
    con: duckdb.DuckDBPyConnection, as_of: pd.Timestamp, forecasters: Mapping[str, Forecaster],
    history: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:  # fmt: skip
    """Return `track_record`: by task and tenth of probability, how many rows were scored and how many came true.

    Two sources side by side: `walk_forward`, the champion's own judgement before it was let in, and `published`, every
    earlier publication's rows whose label has matured by `as_of`, held against receipts and orders known by then.
    """
    parts = [pd.DataFrame(f.facts.record).assign(source="walk_forward") for f in forecasters.values() if f.facts.record]
    for task, judge in (("delay", _judged_delays), ("shift", _judged_shifts)):
        table = history.get({"delay": "supplier_delay_risk", "shift": "demand_shift_risk"}[task])
        if task in forecasters and table is not None and len(table):
            judged = judge(con, as_of, table, forecasters[task])
            parts.append(_by_tenth(judged, task).assign(source="published"))
    parts = [p for p in parts if len(p)]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))
    table["model_version"] = "" if "model_version" not in table else table["model_version"].fillna("")
    table = table[list(COLUMNS)].astype(COLUMNS)
    row_id = [f"{row.task}|{row.source}|{row.p_from:.1f}" for row in table.itertuples()]
    table.insert(0, "row_id", pd.Series(row_id, dtype=str))
    return table.sort_values(["task", "source", "p_from"]).reset_index(drop=True)


def _by_tenth(judged: pd.DataFrame, task: str) -> pd.DataFrame:
    """Count judged predictions (p, y, base, day) by tenth of p; skill is held against the base rate published then."""
    rows: list[dict[str, Any]] = []
    for k, part in judged.groupby(np.minimum((judged["p"] * 10 + 1e-9).astype(int), 9)):
        reference = ((part["base"] - part["y"]) ** 2).mean()
        rows.append(
            {
                "task": task, "p_from": int(k) / 10, "p_to": (int(k) + 1) / 10, "scored": len(part),
                "expected_share": part["p"].mean(), "came_true_share": part["y"].mean(), "rule": "climatology",
                "skill_over_rule": 1 - ((part["p"] - part["y"]) ** 2).mean() / reference if reference > 0 else np.nan,
                "first_day": part["day"].min(), "last_day": part["day"].max(),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _judged_delays(
    con: duckdb.DuckDBPyConnection,
    as_of: pd.Timestamp,
    table: pd.DataFrame,
    forecaster: Forecaster,
) -> pd.DataFrame:
    terms = forecaster.facts.terms
    due = table[(table["state"] == "due_future") & table["p_late"].notna()]
    limit = due["promised_on"] + pd.to_timedelta(terms.tolerance_days, unit="D")
    due = due.assign(limit=limit)[limit + pd.to_timedelta(terms.posting_lag_days, unit="D") <= as_of]
    lines = con.execute(
        "SELECT po_line_id, CASE WHEN complete_known_at < $1 THEN complete_on END AS complete_on, "
        "CASE WHEN buyer_cancelled AND cancelled_at < $1 THEN cancelled_at END AS left_at "
        "FROM line_history WHERE known_at < $1",
        [as_of],
    ).df()
    joined = due.merge(lines, on="po_line_id", how="inner")
    kept = joined["complete_on"] <= joined["limit"]
    left = (joined["left_at"].dt.normalize() <= joined["limit"]) & ~kept
    out = pd.DataFrame({"p": joined["p_late"], "y": (~kept) * 1.0, "base": joined["base_rate"], "day": joined["as_of"]})
    return out[~left]


def _judged_shifts(
    con: duckdb.DuckDBPyConnection,
    as_of: pd.Timestamp,
    table: pd.DataFrame,
    forecaster: Forecaster,
) -> pd.DataFrame:
    lag = pd.Timedelta(days=forecaster.facts.shift_terms.entry_lag_days + 1)
    ended = table[table["window_end"] + lag <= as_of].reset_index(drop=True)
    units, stock_out = _window_facts(con, as_of, ended, lag)
    up, down = units >= ended["up_at_units"], units <= ended["down_at_units"]
    parts = [
        pd.DataFrame({"p": ended[f"p_{d}"], "y": hit * 1.0, "base": ended[f"base_rate_{d}"], "day": ended["as_of"]})
        for d, hit in (("up", up), ("down", down))
    ]
    return pd.concat([part[~(down & stock_out)] for part in parts], ignore_index=True)


def _window_facts(
    con: duckdb.DuckDBPyConnection, as_of: pd.Timestamp, ended: pd.DataFrame, lag: pd.Timedelta
) -> tuple[pd.Series, pd.Series]:
    """Return every window's units, net of what was cancelled before its label matured, and whether stock ran out in it.

    Sales of a window with a stock-out are only a lower bound of demand: whether it dropped is not known.
    """
    windows = ended[["product_id", "site_id", "window_begin"]].assign(
        place=np.arange(len(ended)), over=ended["window_end"] + pd.Timedelta(days=1), matured=ended["window_end"] + lag
    )
    con.register("windows", windows)
    units = con.execute(
        """SELECT coalesce(sum(o.quantity), 0) AS units FROM windows w LEFT JOIN orders o
             ON o.product_id = w.product_id AND o.site_id = w.site_id AND o.known_at < $1
            AND o.ordered_at >= w.window_begin AND o.ordered_at < w.over
            AND (o.cancelled_at IS NULL OR o.cancelled_at >= w.matured)
           GROUP BY w.place ORDER BY w.place""",
        [as_of],
    ).df()["units"]
    empty = con.execute(
        """WITH counted AS (SELECT product_id, site_id, on_hand, known_at, lead(known_at) OVER (
                PARTITION BY product_id, site_id ORDER BY known_at) AS until FROM stock WHERE known_at < $1)
           SELECT count(s.on_hand) > 0 AS empty FROM windows w LEFT JOIN counted s
             ON s.product_id = w.product_id AND s.site_id = w.site_id AND s.on_hand <= 0
            AND s.known_at < w.over AND (s.until IS NULL OR s.until > w.window_begin)
           GROUP BY w.place ORDER BY w.place""",
        [as_of],
    ).df()["empty"]
    con.unregister("windows")
    return units, empty.astype(bool)


def by_bin(judged: pd.DataFrame) -> list[dict[str, Any]]:
    """Interim."""
    rows = []
    rules = [c for c in judged if c.startswith("p_")]
    best = min(rules, key=lambda c: ((judged[c] - judged["y"]) ** 2).mean())
    for k, part in judged.groupby(np.minimum((judged["p"] * 10 + 1e-9).astype(int), 9)):
        mine, ref = (((part[c] - part["y"]) ** 2).mean() for c in ("p", best))
        rows.append(
            {
                "task": "shift" if (part["event"] != "late").any() else "delay",
                "p_from": int(k) / 10,
                "p_to": (int(k) + 1) / 10,
                "scored": len(part),
                "expected_share": part["p"].mean(),
                "came_true_share": part["y"].mean(),
                "rule": best[2:],
                "skill_over_rule": float(1 - mine / ref) if ref > 0 else None,
                "first_day": str(part["day"].min().date()),
                "last_day": str(part["day"].max().date()),
            }
        )
    return rows
