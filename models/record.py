"""Did the warnings come true? Judge what was published by what is known now, and count it by bins of probability."""

from collections.abc import Iterable, Mapping
from math import fsum
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from features.panels import Terms, write_line_history

TASKS = {"late": "delay", "down": "shift", "up": "shift"}
KINDS = {"late": "supplier delay", "down": "demand drop", "up": "demand surge"}  # what the watchlist calls the events
RECORD_WEEKS = 39  # published weeks that the record looks back on: three quarters, the longest window inside
ALL = "all"  # the bin of every row: not to be added to the tenths
READS: Mapping[str, tuple[str, ...]] = {
    "rule_forecasts": (),  # every column: one per rule
    "supplier_delay_risk": ("row_id", "po_line_id", "p_late", "open_value", "arrival_p10", "arrival_p90"),
    "demand_shift_risk": (
        "row_id", "product_id", "site_id", "window_begin", "window_end", "p_up", "p_down", "up_at_units",
        "down_at_units", "baseline_units", "unit_price", "units_p10", "units_p90",
    ),
    "watchlist": ("row_id", "kind"),
}  # fmt: skip
"""The published tables that the record is made of, and the columns of them that it reads, `as_of` besides."""

FIRST = {
    "task": "str", "event": "str", "source": "str", "bin": "str", "p_from": float, "p_to": float, "scored": int,
    "expected_share": float, "came_true_share": float, "brier": float, "rule": "str", "skill_over_rule": float,
}  # fmt: skip
LAST = {
    "hits": "Int64", "false_alarms": "Int64", "misses": "Int64", "value_hit": float, "value_missed": float,
    "first_day": "datetime64[s]", "last_day": "datetime64[s]", "model_version": "str",
}  # fmt: skip


def track_record(
    con: duckdb.DuckDBPyConnection, as_of: pd.Timestamp, history: Mapping[str, pd.DataFrame],
    walked: Iterable[Mapping[str, Any]], *, short_tolerance: float = 0.0,
) -> pd.DataFrame:  # fmt: skip
    """Return `track_record`: per task, event, source and bin, how many rows were scored and what came of them.

    Two sources side by side: `published`, the latest revision of every release of the RECORD_WEEKS before `as_of`,
    each judged once its label has matured, by facts known before `as_of`; and `walk_forward`, the rows `walked` that
    `by_bin` made of the champions' own judgement. The same facts, published tables and `walked` give the same table,
    in whatever order their rows come. Writes `line_history` in `con`.
    """
    return record_of(judged_forecasts(con, as_of, history, short_tolerance=short_tolerance), walked)


def record_of(judged: pd.DataFrame, walked: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return `track_record` of what `judged_forecasts` gave."""
    rows = [{**row, "source": "published"} for row in by_bin(judged)]
    rows += [{**row, "source": "walk_forward"} for row in walked if "event" in row]
    return _as_table(rows)


def _as_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    skills = sorted(c for c in table if c.startswith("skill_over_") and c != "skill_over_rule")
    kinds = FIRST | dict.fromkeys(skills, float) | LAST
    table = table.reindex(columns=list(kinds))
    table["task"] = table["event"].map(TASKS)
    table["model_version"] = table["model_version"].fillna("")
    table = table.astype(kinds).sort_values(["task", "event", "source", "bin"]).reset_index(drop=True)
    numbers = table.columns[[kind is float for kind in kinds.values()]]
    table[numbers] = table[numbers].round(6)  # as published: what is read back and what is made anew are the same
    row_id = table["task"] + "|" + table["event"] + "|" + table["source"] + "|" + table["bin"]
    table.insert(0, "row_id", row_id.astype("str"))
    return table


# Bins ---------------------------------------------------------------------------------------------------------------


def by_bin(judged: pd.DataFrame) -> list[dict[str, Any]]:
    """Return plain values per event and tenth of p, and per event over all of them (bin "all"), whatever the row order.

    `judged` has event (late, down, up), p, y (0 or 1), day and a column p_<rule> per naive rule, missing where the
    rule said nothing; of published rows also `flagged` (the watchlist showed them), `value` (what the event cost, if it
    came) and `model_version`. `skill_over_<rule>` is 1 − Brier/Brier of the rule on the rows it has a say on; `rule` is
    the one with the lowest Brier over all bins. A hit was flagged and came true, a false alarm was flagged and did
    not, a miss came true unflagged.
    """
    rules = sorted(c.removeprefix("p_") for c in judged if c.startswith("p_"))
    out = []
    for event, part in judged.groupby("event", sort=True):
        tenth = np.minimum((part["p"].to_numpy(float) * 10 + 1e-9).astype(int), 9)
        missed = _squared_errors(part, rules)
        best = _best_rule(missed, rules)
        out.append(_bin(part, missed, best) | {"event": str(event), "bin": ALL, "p_from": 0.0, "p_to": 1.0})
        for k in np.unique(tenth):
            edges = {"bin": f"{k / 10:.1f}", "p_from": k / 10, "p_to": (k + 1) / 10}
            of_bin = {name: errors[tenth == k] for name, errors in missed.items()}
            out.append(_bin(part[tenth == k], of_bin, best) | {"event": str(event), **edges})
    return out


def _squared_errors(part: pd.DataFrame, rules: list[str]) -> dict[str, np.ndarray]:
    """Return (p − y)² of every row by who said p: "" is the champion; missing where a rule said nothing."""
    y = part["y"].to_numpy(float)
    said = {"": part["p"], **{rule: part[f"p_{rule}"] for rule in rules}}
    return {name: (p.to_numpy(float) - y) ** 2 for name, p in said.items()}


def _best_rule(missed: Mapping[str, np.ndarray], rules: list[str]) -> str:
    """Return the rule of the lowest Brier score, the first by name of equals, "" without any."""
    scores = {rule: _brier(missed[rule]) for rule in rules}
    return min((rule for rule in rules if scores[rule] is not None), key=lambda rule: scores[rule] or 0.0, default="")


def _bin(part: pd.DataFrame, missed: Mapping[str, np.ndarray], best: str) -> dict[str, Any]:
    mine = missed[""]
    skills = {f"skill_over_{rule}": _skill(mine, errors) for rule, errors in missed.items() if rule}
    return {
        "scored": len(part), "expected_share": _mean(part["p"]), "came_true_share": _mean(part["y"]),
        "brier": _brier(mine), "rule": best, "skill_over_rule": skills.get(f"skill_over_{best}"),
        **skills, **_actions(part), "first_day": str(part["day"].min().date()),
        "last_day": str(part["day"].max().date()), "model_version": _versions(part),
    }  # fmt: skip


def _versions(part: pd.DataFrame) -> str:
    """Return the models that published these rows, the first one first."""
    if "model_version" not in part:
        return ""
    since = part.groupby("model_version")["day"].min().reset_index()
    return ", ".join(since.sort_values(["day", "model_version"])["model_version"])


def _mean(x: pd.Series | np.ndarray) -> float:
    return fsum(x.tolist()) / len(x)  # exact, so that the order of rows is not in it


def _brier(missed: np.ndarray) -> float | None:
    said = missed[~np.isnan(missed)]
    return _mean(said) if len(said) else None


def _skill(mine: np.ndarray, errors: np.ndarray) -> float | None:
    reference, own = _brier(errors), _brier(mine[~np.isnan(errors)])
    return 1 - own / reference if own is not None and reference else None


def _actions(part: pd.DataFrame) -> dict[str, Any]:
    """Count what the watchlist caught and missed, in rows and in money; nothing where no watchlist was."""
    if "flagged" not in part:
        return {}
    flagged, came = part["flagged"].to_numpy(bool), part["y"].to_numpy() == 1
    value = part["value"].where(part["y"] == 1)
    return {
        "hits": int((flagged & came).sum()), "false_alarms": int((flagged & ~came).sum()),
        "misses": int((~flagged & came).sum()), "value_hit": _money(value[flagged]),
        "value_missed": _money(value[~flagged]),
    }  # fmt: skip


def _money(value: pd.Series) -> float | None:
    known = value.dropna()
    return round(fsum(known.tolist()), 2) if len(known) else None


# What was published, held against what is known -----------------------------------------------------------------------


def judged_forecasts(
    con: duckdb.DuckDBPyConnection, as_of: pd.Timestamp, history: Mapping[str, pd.DataFrame], *,
    short_tolerance: float = 0.0,
) -> pd.DataFrame:  # fmt: skip
    """Return every published forecast that has matured by `as_of`: what `by_bin` reads, with row_id and as_of.

    `history` holds published tables (READS), one revision a week, each with its as_of.
    """
    tables = {name: _in_reach(history.get(name), as_of) for name in READS}
    said = tables["rule_forecasts"]
    if not len(said):
        return pd.DataFrame(columns=["event"])
    said = said[said["matures_on"] <= as_of]
    write_line_history(con, Terms(short_tolerance=short_tolerance))
    parts = []
    for events, name, judge in (
        (("late",), "supplier_delay_risk", _judged_delays), (("down", "up"), "demand_shift_risk", _judged_shifts),
    ):  # fmt: skip
        mine, risks = said[said["event"].isin(events)], tables[name]
        if len(mine) and len(risks):
            parts.append(judge(con, as_of, mine.merge(risks, on=["as_of", "row_id"])))
    judged = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["event"])
    return _flagged(judged, tables["watchlist"]) if len(judged) else judged


def _in_reach(table: pd.DataFrame | None, as_of: pd.Timestamp) -> pd.DataFrame:
    if table is None or not len(table):
        return pd.DataFrame()
    day = pd.to_datetime(table["as_of"])
    since = as_of - pd.Timedelta(weeks=RECORD_WEEKS)
    return table.assign(as_of=day)[(day >= since) & (day < as_of)].drop(columns="publication_id", errors="ignore")


def _flagged(judged: pd.DataFrame, watched: pd.DataFrame) -> pd.DataFrame:
    """Say of every judged row whether the watchlist of its week showed it, for the event it is about."""
    keys = ["as_of", "row_id", "kind"]
    asked = pd.MultiIndex.from_frame(judged.assign(kind=judged["event"].map(KINDS))[keys])
    shown = asked.isin(pd.MultiIndex.from_frame(watched[keys])) if len(watched) else np.zeros(len(judged), bool)
    return judged.assign(flagged=shown, day=judged["as_of"])


def _kept(forecasts: pd.DataFrame) -> list[str]:
    rules = [c for c in forecasts if c.startswith("p_") and c not in ("p_late", "p_up", "p_down")]
    return ["as_of", "row_id", "event", "model_version", *rules]


def _judged_delays(con: duckdb.DuckDBPyConnection, as_of: pd.Timestamp, said: pd.DataFrame) -> pd.DataFrame:
    lines = con.execute(
        "SELECT po_line_id, CASE WHEN complete_known_at < $1 THEN complete_on END AS complete_on, "
        "CASE WHEN buyer_cancelled AND cancelled_at < $1 THEN cancelled_at END AS left_at "
        "FROM line_history WHERE known_at < $1",
        [as_of],
    ).df()
    joined = said.merge(lines, on="po_line_id", how="inner")
    on_time = joined["complete_on"] <= joined["due_on"]
    left = (joined["left_at"].dt.normalize() <= joined["due_on"]) & ~on_time
    out = joined[_kept(said)].assign(p=joined["p_late"], y=(~on_time) * 1.0, value=joined["open_value"],
                                     inside=_arrived_inside(joined, as_of))  # fmt: skip
    return out[~left]


def _arrived_inside(rows: pd.DataFrame, as_of: pd.Timestamp) -> np.ndarray:
    """Return 1 for a line that came between arrival_p10 and arrival_p90, else 0; NaN while that may still happen."""
    if "arrival_p90" not in rows:
        return np.full(len(rows), np.nan)
    came, low, high = rows["complete_on"], rows["arrival_p10"], rows["arrival_p90"]
    known = high.notna() & (came.notna() | (high < as_of))
    return np.where(known, ((came >= low) & (came <= high)) * 1.0, np.nan)


def _judged_shifts(con: duckdb.DuckDBPyConnection, as_of: pd.Timestamp, said: pd.DataFrame) -> pd.DataFrame:
    """Judge each direction of each window; one that may have dropped for want of stock is left out of both."""
    once = said.drop_duplicates(["as_of", "row_id"]).reset_index(drop=True)
    units, stock_out = _window_facts(con, as_of, once)
    said = said.merge(once[["as_of", "row_id"]].assign(units=units, stock_out=stock_out), on=["as_of", "row_id"])
    up, down = said["units"] >= said["up_at_units"], said["units"] <= said["down_at_units"]
    surge = said["event"] == "up"
    out = said[_kept(said)].assign(
        p=said["p_up"].where(surge, said["p_down"]), y=up.where(surge, down) * 1.0,
        value=(said["units"] - said["baseline_units"]).abs() * said["unit_price"], inside=_sold_inside(said),
    )  # fmt: skip
    return out[~(down & said["stock_out"])]


def _sold_inside(said: pd.DataFrame) -> np.ndarray:
    """Return 1 for a window whose units came between units_p10 and units_p90, else 0; NaN where no band was said."""
    if "units_p90" not in said:
        return np.full(len(said), np.nan)
    inside = (said["units"] >= said["units_p10"]) & (said["units"] <= said["units_p90"])
    return np.where(said["units_p90"].notna(), inside * 1.0, np.nan)


def _window_facts(
    con: duckdb.DuckDBPyConnection, as_of: pd.Timestamp, said: pd.DataFrame
) -> tuple[pd.Series, pd.Series]:
    """Return every window's units, net of what was cancelled before its label matured, and whether stock ran out in it.

    Sales of a window with a stock-out are only a lower bound of demand: whether it dropped is not known.
    """
    windows = said[["product_id", "site_id", "window_begin"]].assign(
        place=np.arange(len(said)), over=said["window_end"] + pd.Timedelta(days=1), matured=said["matures_on"]
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
