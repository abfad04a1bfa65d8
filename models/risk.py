"""Turn scores into risk tables: money that adds up, tiers by capacity, ranks, and what to do first."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.ladder import RUNGS
from models.arrivals import LONGEST
from models.watchlist import DAY, last

KINDS = {"supplier": "supplier_id", "site": "site_id", "region": "region", "category": "category"}


@dataclass(frozen=True, slots=True)
class Names:
    """Display names by id, an id without a name stands for itself; and the currency that amounts are told in."""

    suppliers: Mapping[str, str]
    products: Mapping[str, str]
    sites: Mapping[str, str]
    currency: str = ""

    def of(self, kind: str, ids: pd.Series) -> pd.Series:
        known: Mapping[str, str] = getattr(self, kind)
        place, every = pd.factorize(ids, use_na_sentinel=False)  # few ids name many rows
        return pd.Series(pd.array([known.get(i, i) for i in every], dtype=str).take(place), index=ids.index)


def cents(amount: pd.Series | np.ndarray) -> pd.Series:
    """Round money to the cent, so that published rows add up to published totals."""
    return pd.Series(np.round(np.asarray(amount, float), 2), index=getattr(amount, "index", None))


def delay_risk(
    rows: pd.DataFrame, p_late: pd.Series, arrival: np.ndarray, told: pd.DataFrame, evidence: pd.Series, *,
    base_rate: float, published_by: pd.Series | np.ndarray, model_version: str, names: Names, last_week: pd.DataFrame,
) -> pd.DataFrame:  # fmt: skip
    """Return `supplier_delay_risk`: one row per open purchase line, largest value at risk first.

    `arrival` [row, 4] are days from the as-of to arrival at 10, 50, 80 and 90 %. p_late is 1 for a line already late
    and empty for one without a promise; neither has drivers, which explain a probability that was predicted. Value at
    risk is P(late) × open value.
    """
    due = rows["state"] == "due_future"
    p, value, stake = line_stakes(rows, p_late)
    table = _open_lines(rows, names).assign(
        open_value=value, p_late=p, p_late_last_week=last(rows["po_line_id"], last_week, "p_late"), base_rate=base_rate,
        **_arrivals(rows, arrival), value_at_risk=stake, **told.where(due, ""),
        evidence_n=evidence.fillna(0).astype(int), published_by=published_by, model_version=model_version,
    )  # fmt: skip
    return _ranked(table, ["value_at_risk", "p_late"])


def line_stakes(rows: pd.DataFrame, p_late: pd.Series | np.ndarray) -> tuple[np.ndarray, pd.Series, pd.Series]:
    """Return p as published, the open value and the value at risk of open lines whose predicted P(late) is given."""
    p = np.select([rows["state"] == "due_future", rows["state"] == "already_late"], [p_late, 1.0], np.nan)
    value = cents(rows["open_units"] * rows["unit_cost"])
    return p, value, cents(p * value)


def _open_lines(rows: pd.DataFrame, names: Names) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row_id": rows["po_line_id"], "po_line_id": rows["po_line_id"], "supplier_id": rows["supplier_id"],
            "supplier_name": names.of("suppliers", rows["supplier_id"]), "product_id": rows["product_id"],
            "product_name": names.of("products", rows["product_id"]), "site_id": rows["site_id"],
            "category": rows["category"], "region": rows["region"], "state": rows["state"],
            "ordered_on": rows["ordered_on"], "first_promised_on": rows["first_promised_on"],
            "promised_on": rows["promised_on"], "need_on": rows["need_on"],
            "pushes": rows["pushes"].astype(int), "open_units": rows["open_units"],
        }
    )  # fmt: skip


def _arrivals(rows: pd.DataFrame, arrival: np.ndarray) -> dict[str, pd.Series]:
    """Return arrival dates and days late; both are missing where the curve ends before a promise further ahead."""
    due_in = (rows["due_on"] - rows["as_of"]) / DAY
    out = {}
    for k, level in enumerate((10, 50, 80, 90)):
        days = pd.Series(arrival[:, k], index=rows.index, dtype=float)
        days = days.mask((days >= LONGEST) & (due_in > LONGEST))
        out[f"arrival_p{level}"] = rows["as_of"] + pd.to_timedelta(days, unit="D")
        out[f"days_late_p{level}"] = days - due_in
    return out


def shift_risk(
    rows: pd.DataFrame, p: pd.DataFrame, units: np.ndarray, told: pd.DataFrame, *, base_rates: Mapping[str, float],
    published_by: pd.Series | np.ndarray, model_version: str, names: Names, last_week: pd.DataFrame,
) -> pd.DataFrame:  # fmt: skip
    """Return `demand_shift_risk`: one row per product, site and window, largest value at risk first.

    Value at risk is P(up) × units between baseline and P90 plus P(down) × units between P10 and baseline, at the mean
    price. A window counts as a surge from `up_at_units` on, as a drop down to `down_at_units`.
    """
    table = _windows(rows, names)
    table = table.assign(
        p_up=p["p_up"], p_down=p["p_down"], p_up_last_week=last(table["row_id"], last_week, "p_up"),
        p_down_last_week=last(table["row_id"], last_week, "p_down"), base_rate_up=base_rates["up"],
        base_rate_down=base_rates["down"], baseline_units=rows["baseline_units"], noise_units=rows["noise_units"],
        down_at_units=rows["down_at_units"], up_at_units=rows["up_at_units"], units_p10=units[:, 0],
        units_p50=units[:, 1], units_p90=units[:, 2], moved_share=rows["moved_share"], moved_z=rows["moved_z"],
        unit_price=rows["unit_price"],
        value_at_risk=window_stakes(rows, p, units), **told,
        evidence_n=rows["past_n"].astype(int), published_by=published_by, model_version=model_version,
    )  # fmt: skip
    return _ranked(table, ["value_at_risk"])


def window_stakes(rows: pd.DataFrame, p: pd.DataFrame, units: np.ndarray) -> pd.Series:
    """Return the value at risk of windows whose p_up, p_down and units' quantiles are given."""
    above = np.maximum(units[:, 2] - rows["baseline_units"], 0)
    below = np.maximum(rows["baseline_units"] - units[:, 0], 0)
    return cents((p["p_up"] * above + p["p_down"] * below) * rows["unit_price"])


def _windows(rows: pd.DataFrame, names: Names) -> pd.DataFrame:
    dated = window_dates(rows)
    return pd.DataFrame(
        {
            "row_id": dated["row_id"],
            "product_id": rows["product_id"], "product_name": names.of("products", rows["product_id"]),
            "site_id": rows["site_id"], "site_name": names.of("sites", rows["site_id"]), "category": rows["category"],
            "window": rows["window"].astype(int), "window_begin": dated["window_begin"],
            "window_end": dated["window_end"],
        }
    )  # fmt: skip


def window_dates(rows: pd.DataFrame) -> pd.DataFrame:
    """Return row_id, window_begin and window_end (its last day) of series windows."""
    begin = rows["as_of"] + pd.to_timedelta(7 * rows["lead_weeks"], unit="D")
    return pd.DataFrame(
        {
            "row_id": rows["product_id"] + "|" + rows["site_id"] + "|w" + rows["window"].astype(str),
            "window_begin": begin,
            "window_end": begin + pd.to_timedelta(7 * rows["length_weeks"] - 1, unit="D"),
        }
    )


def rule_forecasts(
    row_id: pd.Series, event: str, due_on: pd.Series, matures_on: pd.Series, rules: Mapping[str, np.ndarray], *,
    model_version: str,
) -> pd.DataFrame:  # fmt: skip
    """Return `rule_forecasts` of one event (late, up, down): what each naive rule said of the rows that will be judged.

    The event happens, or does not, by `due_on`; its label may be read from `matures_on` on. One row per risk row and
    event, so that the skill of what was published can be computed later from published tables.
    """
    said = {f"p_{name}": np.asarray(p, float) for name, p in rules.items()}
    table = pd.DataFrame({"row_id": row_id, "due_on": due_on, "matures_on": matures_on, **said})
    table.insert(1, "event", pd.Series(event, index=table.index, dtype=str))
    return table.assign(model_version=pd.Series(model_version, index=table.index, dtype=str)).reset_index(drop=True)


def _ranked(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return the rows by falling numbers, missing ones last, those that tie by row_id, with their rank."""
    row_id = table["row_id"].reset_index(drop=True)
    order = np.arange(len(row_id)) if row_id.is_monotonic_increasing else row_id.sort_values(kind="stable").index
    falling = [-table[c].to_numpy(float)[order] for c in reversed(by)]
    ordered = table.take(np.asarray(order)[np.lexsort(falling)])
    return ordered.reset_index(drop=True).assign(rank=np.arange(1, len(table) + 1))


def supplier_risk(
    delays: pd.DataFrame, lines: pd.DataFrame, recent: pd.DataFrame, *, model_version: str
) -> pd.DataFrame:
    """Return `supplier_risk`: open lines, money and on-time ladder per supplier, site, region and category.

    `lines` are the matured lines of 13 weeks with a column per rung, `recent` those of 4 weeks. The roll-ups of each
    kind add up to the totals of `delays`: lines without a region or category are a row of their own ("no region"),
    unless none has one. Money is missing where lines are counted but no cost of theirs is known.
    """
    parts = []
    for kind, column in KINDS.items():
        if kind in ("region", "category") and not (delays[column] != "").any():
            continue
        part = _open_by(delays, column).join(_ladder(lines, recent, column)).reset_index(names="entity_id")
        part["entity_id"] = part["entity_id"].astype(str).replace("", f"no {kind}")
        parts.append(part.assign(row_id=kind + "|" + part["entity_id"], entity_kind=kind))
    table = pd.concat(parts, ignore_index=True)
    table["matured_lines_13w"] = table["matured_lines_13w"].fillna(0).astype(int)
    table["trend"] = table["on_time_4w"] - table["on_time_promised"]
    table["model_version"] = model_version
    place = table["entity_kind"].map({kind: k for k, kind in enumerate(KINDS)}).astype(int)
    first = ["row_id", "entity_kind", "entity_id"]
    ordered = table.assign(place=place).sort_values(
        ["place", "value_at_risk", "row_id"], ascending=[True, False, True]
    )[[*first, *(c for c in table if c not in first)]]  # fmt: skip
    return ordered.reset_index(drop=True)


def _open_by(delays: pd.DataFrame, column: str) -> pd.DataFrame:
    """Count and add up the open lines by one column; p of lines already late is known and not expected."""
    late = delays["state"] == "already_late"
    groups = delays.assign(
        overdue=late * 1, overdue_value=delays["open_value"].where(late), expected=delays["p_late"].where(~late, 0.0)
    ).groupby(column)
    overdue = groups["overdue"].sum()
    money = {c: cents(groups[c].sum(min_count=1)) for c in ("open_value", "overdue_value", "value_at_risk")}
    return pd.DataFrame(
        {
            "open_lines": groups.size(), "open_value": money["open_value"], "overdue_lines": overdue,
            "overdue_value": money["overdue_value"].mask(overdue == 0, 0.0),
            "expected_late_lines": groups["expected"].sum(), "value_at_risk": money["value_at_risk"],
        }
    )  # fmt: skip


def _ladder(lines: pd.DataFrame, recent: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the mean of every rung by one column, missing where no line can be held against it."""
    rungs = lines.astype(dict.fromkeys(RUNGS, float)).groupby(column)
    return rungs[list(RUNGS)].mean().assign(
        matured_lines_13w=rungs.size(),
        on_time_4w=recent.astype({"on_time_promised": float}).groupby(column)["on_time_promised"].mean(),
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
