"""Follow rows, suppliers and totals through the weeks published before."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
import pandas as pd

from models.change import RISKS
from models.watchlist import LEVELS
from pipelines.board.reading import WEEKS, Week
from pipelines.board.rows import cents

HIGH = LEVELS[0][0]


def week_days(week: Week) -> list[date]:
    """Return the as-of days of the curves, oldest first: a day per week, this one last."""
    return [week.as_of - timedelta(weeks=WEEKS - 1 - k) for k in range(WEEKS)]


def row_history(week: Week, rows: pd.DataFrame) -> np.ndarray:
    """Return [row, week] the probability in percent that was published for the same row, −1 where it was not.

    A demand window is followed in the direction it is ranked for now.
    """
    out = np.full((len(rows), WEEKS), -1, dtype=np.int16)
    if not len(rows):
        return out
    out[:, -1] = _percent(rows["p"].to_numpy(float) / 10_000)
    place = {day: k for k, day in enumerate(week_days(week))}
    for table, kind, column in (
        ("supplier_delay_risk", None, "p_late"),
        ("demand_shift_risk", "surge", "p_up"),
        ("demand_shift_risk", "drop", "p_down"),
    ):
        mine = (rows["table"] == table) & ((rows["kind"] == kind) if kind else True)
        _fill(out, np.flatnonzero(mine), pd.Index(rows.loc[mine, "row_id"]), week.before.get(table), column, place)
    return out


def _fill(
    out: np.ndarray, where: np.ndarray, ids: pd.Index, past: pd.DataFrame | None, column: str, place: Mapping[date, int]
) -> None:
    if past is None or not len(past) or not len(where):
        return
    at = ids.get_indexer(pd.Index(past["row_id"]))
    weeks = pd.to_datetime(past["as_of"]).map({pd.Timestamp(day): k for day, k in place.items()})
    p = past[column].to_numpy(float)
    told = (at >= 0) & weeks.notna().to_numpy() & ~np.isnan(p)
    out[where[at[told]], weeks[told].astype(int)] = _percent(p[told])


def _percent(p: np.ndarray) -> np.ndarray:
    return np.floor(p * 100 + 0.5).astype(np.int16)


def supplier_history(week: Week) -> dict[str, list[int | None]]:
    """Return per supplier its value at risk in cents of every week, None where it had no row."""
    now = week.table("supplier_risk")
    if not len(now):
        return {}
    past = week.before.get("supplier_risk", pd.DataFrame())
    this = now.assign(as_of=pd.Timestamp(week.as_of))
    every = pd.concat([past, this[["as_of", "entity_kind", "entity_id", "value_at_risk"]]]) if len(past) else this
    every = every[every["entity_kind"] == "supplier"]
    day = pd.to_datetime(every["as_of"]).dt.date
    table = every.assign(day=day, cents=cents(every["value_at_risk"]).astype(float)).pivot_table(
        index="entity_id", columns="day", values="cents", aggfunc="sum"
    )
    table = table.reindex(columns=week_days(week)).astype(object)
    return {str(k): list(v) for k, v in table.where(table.notna(), None).T.to_dict("list").items()}


def measures(tables: Mapping[str, pd.DataFrame]) -> dict[str, int]:
    """Return what the tiles follow, of one week's tables and of what can still be prevented.

    Cents in rows of high risk, their number, and the suppliers behind them; the deliveries expected late and the rows.
    """
    delays, shifts = (tables.get(name, pd.DataFrame()) for name in RISKS)
    due = delays[delays["state"] == "due_future"] if len(delays) else delays
    high = due[due["p_late"] >= HIGH] if len(due) else due
    p = shifts[["p_up", "p_down"]].max(axis=1) if len(shifts) else pd.Series(dtype=float)
    risky = shifts[(p >= HIGH) & ~(shifts["value_at_risk"] <= 0)] if len(shifts) else shifts
    high = high[~(high["value_at_risk"] <= 0)] if len(high) else high
    return {
        "high_value": _total(high) + _total(risky), "high_rows": len(high) + len(risky),
        "suppliers": int(high["supplier_id"].nunique()) if len(high) else 0,
        "expected_late": round(float(due["p_late"].sum())) if len(due) else 0,
        "preventable": _total(due) + _total(shifts),
    }  # fmt: skip


def _total(table: pd.DataFrame) -> int:
    return int(cents(table["value_at_risk"]).sum()) if len(table) else 0


def measured(week: Week) -> list[dict[str, int] | None]:
    """Return `measures` of every week, None of one that was not published."""
    by_day: dict[date, dict[str, pd.DataFrame]] = {week.as_of: {name: week.table(name) for name in RISKS}}
    for name in RISKS:
        past = week.before.get(name, pd.DataFrame())
        if len(past):
            for day, part in past.groupby(pd.to_datetime(past["as_of"])):
                by_day.setdefault(pd.Timestamp(str(day)).date(), {})[name] = part
    return [measures(by_day[day]) if day in by_day else None for day in week_days(week)]


def points(values: Sequence[float | None], width: float, height: float, least_span: float = 0.0) -> str:
    """Return the points of a curve through the values that are there, on a scale of their own, for an SVG."""
    there = [(k, v) for k, v in enumerate(values) if v is not None]
    if len(there) < 2:
        return ""
    low, high = min(v for _, v in there), max(v for _, v in there)
    span = max(high - low, least_span) or 1.0
    low -= (span - (high - low)) / 2
    step = width / (len(values) - 1)
    return " ".join(f"{k * step:.1f},{height - (v - low) / span * height:.1f}" for k, v in there)
