"""Turn scores into risk tables: money that adds up, tiers by capacity, ranks, and what to do first."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.ladder import RUNGS

SCHEMA_VERSION = "1"
LEVELS = ((0.6, "high"), (0.3, "medium"), (0.0, "low"))
WINDOW_NAMES = ("next 4 weeks", "weeks 5 to 8", "weeks 9 to 13")
DAY = pd.Timedelta(days=1)

NULLABLE: Mapping[str, set[str]] = {
    "supplier_delay_risk": {
        "p_late", "p_late_last_week", "open_value", "value_at_risk", "days_late_p10", "days_late_p50", "days_late_p80",
        "days_late_p90",
    },
    "demand_shift_risk": {"p_up_last_week", "p_down_last_week"},
    "supplier_risk": {*RUNGS, "on_time_4w", "trend", "open_value", "overdue_value", "value_at_risk"},
    "watchlist": {"value_at_risk_last_week", "p_last_week"},
    "track_record": {"skill_over_rule"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Names:
    """Display names by id; an id without a name stands for itself."""

    suppliers: Mapping[str, str]
    products: Mapping[str, str]
    sites: Mapping[str, str]

    def of(self, kind: str, ids: pd.Series) -> pd.Series:
        return ids.map(getattr(self, kind)).fillna(ids).astype(str)


def cents(amount: pd.Series | np.ndarray) -> pd.Series:
    """Round money to the cent, so that published rows add up to published totals."""
    return pd.Series(np.round(np.asarray(amount, float), 2), index=getattr(amount, "index", None))


def delay_risk(
    rows: pd.DataFrame, p_late: pd.Series, arrival: np.ndarray, told: pd.DataFrame, evidence: pd.Series, *,
    base_rate: float, published_by: str, model_version: str, names: Names, last_week: pd.DataFrame,
) -> pd.DataFrame:  # fmt: skip
    """Return `supplier_delay_risk`: one row per open purchase line, largest value at risk first.

    `arrival` [row, 4] are days from the as-of to arrival at 10, 50, 80 and 90 %. p_late is 1 for a line already late
    and empty for one without a promise. Value at risk is P(late) × open value.
    """
    p = np.select([rows["state"] == "due_future", rows["state"] == "already_late"], [p_late, 1.0], np.nan)
    value = cents(rows["open_units"] * rows["unit_cost"])
    due = (rows["due_on"] - rows["as_of"]) / DAY
    table = pd.DataFrame(
        {
            "row_id": rows["po_line_id"], "po_line_id": rows["po_line_id"], "supplier_id": rows["supplier_id"],
            "supplier_name": names.of("suppliers", rows["supplier_id"]), "product_id": rows["product_id"],
            "product_name": names.of("products", rows["product_id"]), "site_id": rows["site_id"],
            "category": rows["category"], "region": rows["region"], "state": rows["state"],
            "ordered_on": rows["ordered_on"], "first_promised_on": rows["first_promised_on"],
            "promised_on": rows["promised_on"], "need_on": rows["need_on"],
            "pushes": rows["pushes"].astype(int), "open_units": rows["open_units"], "open_value": value, "p_late": p,
            "p_late_last_week": _last(rows["po_line_id"], last_week, "p_late"), "base_rate": base_rate,
        }
    )  # fmt: skip
    for k, level in enumerate((10, 50, 80, 90)):
        table[f"arrival_p{level}"] = rows["as_of"] + pd.to_timedelta(arrival[:, k], unit="D")
        table[f"days_late_p{level}"] = np.where(due.isna(), np.nan, arrival[:, k] - due)
    table["value_at_risk"] = cents(p * value)
    table = pd.concat([table, told], axis=1).assign(
        evidence_n=evidence.fillna(0).astype(int), published_by=published_by, model_version=model_version
    )
    return _ranked(table, ["value_at_risk", "p_late"])


def shift_risk(
    rows: pd.DataFrame, p: pd.DataFrame, units: np.ndarray, told: pd.DataFrame, *, base_rates: Mapping[str, float],
    published_by: str, model_version: str, names: Names, last_week: pd.DataFrame,
) -> pd.DataFrame:  # fmt: skip
    """Return `demand_shift_risk`: one row per product, site and window, largest value at risk first.

    Value at risk is P(up) × units between baseline and P90 plus P(down) × units between P10 and baseline, at the mean
    price. A window counts as a surge from `up_at_units` on, as a drop down to `down_at_units`.
    """
    begin = rows["as_of"] + pd.to_timedelta(7 * rows["lead_weeks"], unit="D")
    above = np.maximum(units[:, 2] - rows["baseline_units"], 0)
    below = np.maximum(rows["baseline_units"] - units[:, 0], 0)
    key = rows["product_id"] + "|" + rows["site_id"] + "|w" + rows["window"].astype(str)
    table = pd.DataFrame(
        {
            "row_id": key, "product_id": rows["product_id"], "product_name": names.of("products", rows["product_id"]),
            "site_id": rows["site_id"], "site_name": names.of("sites", rows["site_id"]), "category": rows["category"],
            "window": rows["window"].astype(int), "window_begin": begin,
            "window_end": begin + pd.to_timedelta(7 * rows["length_weeks"] - 1, unit="D"), "p_up": p["p_up"],
            "p_down": p["p_down"], "p_up_last_week": _last(key, last_week, "p_up"),
            "p_down_last_week": _last(key, last_week, "p_down"), "base_rate_up": base_rates["up"],
            "base_rate_down": base_rates["down"], "baseline_units": rows["baseline_units"],
            "noise_units": rows["noise_units"],
            "down_at_units": rows["down_at_units"], "up_at_units": rows["up_at_units"], "units_p10": units[:, 0],
            "units_p50": units[:, 1], "units_p90": units[:, 2], "unit_price": rows["unit_price"],
            "value_at_risk": cents((p["p_up"] * above + p["p_down"] * below) * rows["unit_price"]),
        }
    )  # fmt: skip
    evidence = rows["past_n"].astype(int)
    table = pd.concat([table, told], axis=1).assign(
        evidence_n=evidence, published_by=published_by, model_version=model_version
    )
    return _ranked(table, ["value_at_risk", "row_id"])


def _ranked(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    ordered = table.sort_values([*by, "row_id"], ascending=[False] * len(by) + [True], na_position="last")
    return ordered.reset_index(drop=True).assign(rank=np.arange(1, len(table) + 1))


def _last(keys: pd.Series, last_week: pd.DataFrame, column: str) -> pd.Series:
    if not len(last_week) or column not in last_week:
        return pd.Series(np.nan, index=keys.index)
    return keys.map(last_week.set_index("row_id")[column].to_dict()).astype(float)


def supplier_risk(
    delays: pd.DataFrame, lines: pd.DataFrame, recent: pd.DataFrame, *, model_version: str
) -> pd.DataFrame:
    """Return `supplier_risk`: open lines, money and on-time ladder per supplier, site, region and category.

    `lines` are the matured lines of 13 weeks with a column per rung, `recent` those of 4 weeks. Each roll-up adds up
    to the same totals as the rows of `delays`.
    """
    parts = []
    for kind, column in (
        ("supplier", "supplier_id"),
        ("site", "site_id"),
        ("region", "region"),
        ("category", "category"),
    ):
        groups = delays.groupby(column, dropna=False)
        late = delays["state"] == "already_late"
        part = pd.DataFrame(
            {
                "open_lines": groups.size(), "open_value": cents(groups["open_value"].sum(min_count=1)),
                "overdue_lines": late.groupby(delays[column]).sum(),
                "overdue_value": cents(delays["open_value"].where(late).groupby(delays[column]).sum()),
                "expected_late_lines": delays["p_late"].where(~late).groupby(delays[column]).sum(),
                "value_at_risk": cents(groups["value_at_risk"].sum(min_count=1)),
            }
        )  # fmt: skip
        ladder = lines.groupby(column)[list(RUNGS)].mean() if len(lines) else pd.DataFrame(columns=list(RUNGS))
        ladder["matured_lines_13w"] = lines.groupby(column).size() if len(lines) else pd.Series(dtype=float)
        ladder["on_time_4w"] = (
            recent.groupby(column)["on_time_promised"].mean() if len(recent) else pd.Series(dtype=float)
        )
        part = part.join(ladder).reset_index(names="entity_id").assign(entity_kind=kind)
        parts.append(part[part["entity_id"] != ""])
    table = pd.concat(parts, ignore_index=True)
    table[[*RUNGS, "on_time_4w"]] = table[[*RUNGS, "on_time_4w"]].astype(float)
    table["matured_lines_13w"] = table["matured_lines_13w"].fillna(0).astype(int)
    table["trend"] = table["on_time_4w"] - table["on_time_promised"]
    table["row_id"] = table["entity_kind"] + "|" + table["entity_id"]
    table["model_version"] = model_version
    first = ["row_id", "entity_kind", "entity_id"]
    table = table[[*first, *(c for c in table if c not in first)]]
    order = {"supplier": 0, "site": 1, "region": 2, "category": 3}
    return table.sort_values(
        ["entity_kind", "value_at_risk", "row_id"], ascending=[True, False, True],
        key=lambda c: c.map(order) if c.name == "entity_kind" else c,
    ).reset_index(drop=True)  # fmt: skip


def level(p: pd.Series) -> np.ndarray:
    """Return the word for a probability: high from 60 %, medium from 30 %, low below."""
    return np.select([p >= floor for floor, _ in LEVELS[:-1]], [word for _, word in LEVELS[:-1]], LEVELS[-1][1])


def watchlist(
    delays: pd.DataFrame | None, shifts: pd.DataFrame | None, capacity: Mapping[str, int], last_week: pd.DataFrame,
    as_of: pd.Timestamp, currency: str,
) -> pd.DataFrame:  # fmt: skip
    """Return `watchlist`: what each function can still act on, as many rows as it can work on in three weeks.

    Tier 1 holds a function's top K rows by value at risk, tier 2 the next 2 K. A row of last week's tier 1 stays until
    it falls below 1.5 K (hysteresis). Lines that are late already, due today, or without money are not listed: nothing
    can be prevented there any more, or nothing is at stake. A series shows its worst window.
    """
    parts = [] if delays is None else [_delay_watch(delays, as_of, currency)]
    parts += [] if shifts is None else [_shift_watch(shifts, as_of)]
    rows = pd.concat(parts, ignore_index=True)
    rows = rows[(rows["value_at_risk"] > 0) & (rows["act_by"] >= as_of)]
    rows = rows.sort_values(["value_at_risk", "row_id"], ascending=[False, True]).reset_index(drop=True)
    place = rows.groupby("owner").cumcount() + 1
    most = rows["owner"].map(dict(capacity)).fillna(0)
    before = rows["row_id"].map(last_week.set_index("row_id")["tier"].to_dict() if len(last_week) else {})
    first = (place <= most) | ((before == 1) & (place <= 1.5 * most))
    rows = rows.assign(tier=np.where(first, 1, 2))[place <= 3 * most]
    rows["p_last_week"] = _last(rows["row_id"], last_week, "p")
    rows["value_at_risk_last_week"] = _last(rows["row_id"], last_week, "value_at_risk")
    rows["change"] = [
        _change(now, then, bool(len(last_week))) for now, then in zip(rows["p"], rows["p_last_week"], strict=True)
    ]
    rows = rows.sort_values(["tier", "value_at_risk", "row_id"], ascending=[True, False, True]).reset_index(drop=True)
    rows.insert(0, "rank", np.arange(1, len(rows) + 1))
    return rows


def _change(now: float, then: float, any_last_week: bool) -> str:
    if np.isnan(then):
        return "new on the list" if any_last_week else ""
    points = round(100 * (now - then))
    return f"{points:+d} points since last week" if points else "as last week"


WATCHED = ("row_id", "supplier_id", "product_id", "site_id", "value_at_risk", "driver_1", "driver_2", "driver_3",
           "evidence_n", "published_by", "model_version")  # fmt: skip


def _delay_watch(delays: pd.DataFrame, as_of: pd.Timestamp, currency: str) -> pd.DataFrame:
    due = delays[delays["state"] == "due_future"]
    soon = (due["promised_on"] - as_of) / DAY <= 7
    late = due["days_late_p50"].clip(lower=0), due["days_late_p90"].clip(lower=0)
    impact = [
        f"promised {promised:%d %b}, likely {_range(a, b)}; {currency} {value:,.0f} open"
        for promised, a, b, value in zip(due["promised_on"], *late, due["open_value"].fillna(0), strict=True)
    ]
    step = np.select(
        [due["pushes"] >= 2, soon, due["evidence_n"] < 8],
        ["Promise slipped before: get a firm date in writing, prepare a substitute",
         "Call the supplier today; arrange express or part delivery",
         "Little history: ask for an order confirmation and a progress report"],
        "Ask the supplier to confirm the date; check a second source",
    )  # fmt: skip
    return due[list(WATCHED)].assign(
        kind="supplier delay", what=due["supplier_name"] + ": " + due["product_name"], p=due["p_late"],
        level=level(due["p_late"]), impact=impact, owner=np.where(soon, "logistics", "procurement"), next_step=step,
        act_by=np.minimum(due["promised_on"] - DAY, as_of + 7 * DAY),
    )  # fmt: skip


def _range(middle: float, high: float) -> str:
    if high < 1:
        return "on time"
    return f"{middle:.0f} to {high:.0f} days late" if middle < high else f"{high:.0f} days late"


def _shift_watch(shifts: pd.DataFrame, as_of: pd.Timestamp) -> pd.DataFrame:
    worst = shifts.drop_duplicates(["product_id", "site_id"])
    up = worst["p_up"] >= worst["p_down"]
    p = worst[["p_up", "p_down"]].max(axis=1)
    impact = [
        f"{WINDOW_NAMES[window]}: likely {low:,.0f} to {high:,.0f} units instead of {base:,.0f}"
        for window, low, high, base in zip(
            worst["window"], worst["units_p10"], worst["units_p90"], worst["baseline_units"], strict=True
        )
    ]
    return worst.assign(supplier_id=None)[list(WATCHED)].assign(
        kind=np.where(up, "demand surge", "demand drop"), what=worst["product_name"] + " at " + worst["site_name"], p=p,
        level=level(p), impact=impact, owner=np.where(up, "manufacturing", "sales"),
        next_step=np.where(up, "Raise the plan or move stock; secure supply for the window",
                           "Hold back replenishment; ask customers what changed"),
        act_by=np.maximum(worst["window_begin"] - 7 * DAY, as_of),
    )  # fmt: skip


def totals(tables: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Return value at risk per kind of row, to the cent: the sums of the published rows."""
    out = {}
    if "supplier_delay_risk" in tables:
        delays = tables["supplier_delay_risk"]
        for state in ("due_future", "already_late"):
            mine = delays.loc[delays["state"] == state, "value_at_risk"]
            out["late_deliveries" if state == "due_future" else "already_late"] = round(float(mine.sum()), 2)
    if "demand_shift_risk" in tables:
        out["demand_shifts"] = round(float(tables["demand_shift_risk"]["value_at_risk"].sum()), 2)
    return out
