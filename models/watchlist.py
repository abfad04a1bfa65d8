"""Choose what each function works on this week: the largest risks that can still be prevented, as many as fit."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

DAY = pd.Timedelta(days=1)
MEDIUM, UNLIKELY = 0.3, 0.05  # from here on a risk is medium; below there even a telephone call is too much
LEVELS = ((0.6, "high"), (MEDIUM, "medium"), (0.0, "low"))
FEW = 8  # matured promises below which a supplier's record says little
MANY_DAYS = 60  # beyond it a number of days late would sound surer than anybody is
KEPT = (
    "row_id", "supplier_id", "product_id", "site_id", "value_at_risk", "driver_1", "driver_2", "driver_3", "evidence_n",
    "published_by", "model_version",
)  # fmt: skip
MADE = ("kind", "what", "p", "level", "impact", "owner", "next_step", "act_by", "stake")


def watchlist(
    delays: pd.DataFrame | None, shifts: pd.DataFrame | None, capacity: Mapping[str, int], last_week: pd.DataFrame,
    as_of: pd.Timestamp, currency: str,
) -> pd.DataFrame:  # fmt: skip
    """Return `watchlist`: what each function can still act on, as many rows as it can work on in three weeks.

    Tier 1 holds a function's top K rows by value at risk, tier 2 the next 2 K. A row that was among last week's top K
    stays in tier 1 for a week while it is among the top 1.5 K (hysteresis). Lines that are late already, due today, or
    worth nothing are not listed: nothing can be prevented there any more, or nothing is at stake. A line without a cost
    ranks as if a unit cost what the middle line's does; where no line has one, by P(late) × open units. A series shows
    its worst window.
    """
    rows = candidates(delays, shifts, as_of, currency)
    rows = rows[(rows["stake"] > 0) & (rows["act_by"] >= as_of)]
    rows = rows.sort_values(["stake", "row_id"], ascending=[False, True]).reset_index(drop=True)
    place = rows.groupby("owner").cumcount() + 1
    most = rows["owner"].map(dict(capacity)).astype(float).fillna(0)
    stays = subjects(rows).isin(_top(last_week, capacity)) & (place <= 1.5 * most)
    rows = rows.assign(tier=np.where((place <= most) | stays, 1, 2))[place <= 3 * most]
    rows = _since_last_week(rows.sort_values(["tier", "stake", "row_id"], ascending=[True, False, True]), last_week)
    rows.insert(0, "rank", np.arange(1, len(rows) + 1))
    return rows.drop(columns="stake")


def candidates(
    delays: pd.DataFrame | None, shifts: pd.DataFrame | None, as_of: pd.Timestamp, currency: str
) -> pd.DataFrame:
    """Return every line that is not due yet and every series by its worst window, with owner, stake and act_by."""
    parts = [] if delays is None else [_delay_watch(delays, as_of, currency)]
    parts += [] if shifts is None else [_shift_watch(shifts, as_of)]
    filled = [part for part in parts if len(part)] or parts or [pd.DataFrame(columns=[*KEPT, *MADE])]
    return pd.concat(filled, ignore_index=True)


def level(p: pd.Series) -> np.ndarray:
    """Return the word for a probability: high from 60 %, medium from 30 %, low below."""
    return np.select([p >= floor for floor, _ in LEVELS[:-1]], [word for _, word in LEVELS[:-1]], LEVELS[-1][1])


# Against last week --------------------------------------------------------------------------------------------------


def last(keys: pd.Series, last_week: pd.DataFrame, column: str) -> pd.Series:
    """Return last week's value of `column` for the rows named by `keys`, missing for rows that were not there."""
    if not len(last_week) or column not in last_week:
        return pd.Series(np.nan, index=keys.index)
    return keys.map(last_week.set_index("row_id")[column].to_dict()).astype(float)


def said_of(published_by: pd.Series, up: pd.Series) -> pd.Series:
    """Return who gave the probability of a surge where `up`, of a drop elsewhere."""
    ways = published_by.astype("str").str.extract(r"^surges: (?P<up>.*), drops: (?P<down>.*)$")
    return ways["up"].where(up, ways["down"]).fillna(published_by).astype("str")


def subjects(rows: pd.DataFrame) -> pd.Series:
    """Return what a row is about, whichever window of a series it shows."""
    series = "shift|" + rows["product_id"].astype(str) + "|" + rows["site_id"].astype(str)
    return series.where(rows["kind"] != "supplier delay", "delay|" + rows["row_id"].astype(str))


def _top(last_week: pd.DataFrame, capacity: Mapping[str, int]) -> list[str]:
    """Return last week's tier 1 by rank alone: rows that were only kept from the week before are not kept again."""
    if not len(last_week):
        return []
    first = last_week[last_week["tier"] == 1].sort_values("rank")
    most = first["owner"].map(dict(capacity)).astype(float).fillna(0)
    return list(subjects(first[first.groupby("owner").cumcount() < most]))


def _since_last_week(rows: pd.DataFrame, last_week: pd.DataFrame) -> pd.DataFrame:
    """Add last week's probability and value of the same risk, and what has changed in words."""
    rows = rows.reset_index(drop=True)
    if not len(last_week):
        return rows.assign(p_last_week=np.nan, value_at_risk_last_week=np.nan, change="")
    then = last_week.assign(subject=subjects(last_week)).drop_duplicates("subject").set_index("subject")
    then = then[["row_id", "kind", "p", "value_at_risk"]].reindex(subjects(rows)).reset_index(drop=True)
    same = (then["row_id"] == rows["row_id"]) & (then["kind"] == rows["kind"])
    before = then[["p", "value_at_risk"]].astype(float).where(same)
    words = [_change(*facts) for facts in zip(rows["kind"], then["kind"], same, rows["p"], before["p"], strict=True)]
    change = pd.Series(words, dtype=object)
    return rows.assign(p_last_week=before["p"], value_at_risk_last_week=before["value_at_risk"], change=change)


def _change(kind: str, kind_then: object, same: bool, p: float, p_then: float) -> str:
    if not isinstance(kind_then, str):
        return "new on the list"
    if kind != kind_then:
        return f"was a {kind_then} last week"
    if not same:
        return "other weeks than last week"
    points = _percent(p) - _percent(p_then)
    return f"{points:+d} point{'s' * (abs(points) != 1)} since last week" if points else "as last week"


def _percent(p: float) -> int:
    """Return whole percents as they are shown on the board, so that two of them and their difference agree."""
    return math.floor(round(10_000 * p) / 100 + 0.5)


# Late deliveries ----------------------------------------------------------------------------------------------------


def _delay_watch(delays: pd.DataFrame, as_of: pd.Timestamp, currency: str) -> pd.DataFrame:
    unit_cost = (delays["open_value"] / delays["open_units"]).median()
    due = delays[delays["state"] == "due_future"]
    soon = (due["promised_on"] - as_of) / DAY <= 7
    step = np.select(
        [due["p_late"] < UNLIKELY, soon & (due["p_late"] < MEDIUM), soon, due["pushes"] >= 2, due["evidence_n"] < FEW,
         due["p_late"] < MEDIUM],
        ["Most likely on time: see that the confirmed date still stands, nothing more",
         "Ask the supplier whether it is on its way",
         "Call the supplier today; arrange an express or part delivery",
         "The promise has moved before: get a firm date in writing and prepare a substitute",
         "Few past deliveries to judge by: ask for a written confirmation and a progress report",
         "Ask the supplier to confirm the date"],
        "Ask the supplier to confirm the date; look for a second source",
    )  # fmt: skip
    guess = due["p_late"] * due["open_units"] * (1.0 if np.isnan(unit_cost) else unit_cost)
    return due[list(KEPT)].assign(
        kind="supplier delay", what=due["supplier_name"] + ": " + due["product_name"], p=due["p_late"],
        level=level(due["p_late"]), impact=_delay_impact(due, as_of, currency),
        owner=np.where(soon, "logistics", "procurement"), next_step=step,
        act_by=np.minimum(due["promised_on"] - DAY, as_of + 7 * DAY), stake=due["value_at_risk"].fillna(guess),
    )  # fmt: skip


def _delay_impact(due: pd.DataFrame, as_of: pd.Timestamp, currency: str) -> list[str]:
    return [
        f"promised {promised:{'%d %b' if promised.year == as_of.year else '%d %b %Y'}}, {days_late(low, high)}; "
        + (f"{amount(units)} open" if np.isnan(value) else f"{currency} {value:,.0f} open")
        for promised, low, high, value, units in zip(
            due["promised_on"], due["days_late_p10"], due["days_late_p90"], due["open_value"], due["open_units"],
            strict=True,
        )
    ]  # fmt: skip


def amount(units: float) -> str:
    """Return "1 unit", "1,200 units", "0.35 units": of few tonnes their fraction is told."""
    told = f"{units:,.0f}" if units >= 10 or float(units).is_integer() else f"{units:.2g}"
    return f"{told} unit{'s' * (told != '1')}"


def days_late(low: float, high: float) -> str:
    """Return from when to when a line is likely to come, in eight cases of ten (P10 to P90)."""
    if np.isnan(low) or np.isnan(high):
        return "arrival too far ahead to tell"
    begin, end = round(low), round(high)
    if begin > MANY_DAYS:
        return "likely months late"
    if end < 0:
        return f"likely {_days(-end)} early" if begin == end else f"likely {_many(-begin)} to {_days(-end)} early"
    late = f"{_days(end)} late" if end else "on time"
    if begin < 0:
        return f"likely {_days(-begin)} early to {late}"
    return f"likely {late}" if begin == end else f"likely {begin} to {late}" if begin else f"likely up to {late}"


def _many(days: int) -> str:
    return f"over {MANY_DAYS}" if days > MANY_DAYS else str(days)


def _days(days: int) -> str:
    return f"{_many(days)} {'day' if days == 1 else 'days'}"


# Demand shifts ------------------------------------------------------------------------------------------------------


def _shift_watch(shifts: pd.DataFrame, as_of: pd.Timestamp) -> pd.DataFrame:
    worst = shifts.drop_duplicates(["product_id", "site_id"])
    up, near = worst["p_up"] >= worst["p_down"], worst["window_begin"] <= as_of
    p = worst[["p_up", "p_down"]].max(axis=1)
    impact = [
        f"{weeks_of(begin, end, as_of)}: likely {low:,.0f} to {high:,.0f} units instead of {base:,.0f}"
        for begin, end, low, high, base in zip(
            worst["window_begin"], worst["window_end"], worst["units_p10"], worst["units_p90"],
            worst["baseline_units"], strict=True,
        )
    ]  # fmt: skip
    step = np.select(
        [(p < MEDIUM) & up, p < MEDIUM, up & near, up, near],
        ["Unlikely but costly: see that stock and capacity could follow; leave the plan as it is",
         "Unlikely but costly: ask the largest customers about these weeks; leave the plan as it is",
         "Move stock here or speed up open orders; tell customers early if it will not do",
         "Raise the plan and order ahead for these weeks",
         "Hold back replenishment; ask customers what changed"],
        "Lower the plan; delay orders that are not confirmed yet",
    )  # fmt: skip
    return worst.assign(supplier_id=None, published_by=said_of(worst["published_by"], up))[list(KEPT)].assign(
        kind=np.where(up, "demand surge", "demand drop"), what=worst["product_name"] + " at " + worst["site_name"], p=p,
        level=level(p), impact=impact, owner=np.where(up, "manufacturing", "sales"), next_step=step,
        act_by=np.maximum(worst["window_begin"] - 7 * DAY, as_of), stake=worst["value_at_risk"],
    )  # fmt: skip


def weeks_of(begin: pd.Timestamp, end: pd.Timestamp, as_of: pd.Timestamp) -> str:
    """Return which weeks from the as-of a window covers, given its first and last day, such as weeks 5 to 8."""
    lead, last_week = (begin - as_of).days // 7, (end + DAY - as_of).days // 7
    if lead == 0:
        return "next week" if last_week == 1 else f"next {last_week} weeks"
    return f"week {last_week}" if last_week == lead + 1 else f"weeks {lead + 1} to {last_week}"
