"""Tell the week in a headline, a few sentences and three tiles."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pandas as pd

from models.risk import totals
from pipelines.board.reading import Week
from pipelines.board.trends import measured, measures, points
from pipelines.board.wording import day, exact, money, plural, whole

KEY_SUPPLIERS = 5
AMOUNTS = {
    "late_deliveries": "Late deliveries", "demand_shifts": "Demand shifts", "already_late": "Late already",
}  # fmt: skip


def amounts(week: Week) -> dict[str, int]:
    """Return value at risk in cents per kind of row: the sums of the published tables."""
    return {name: round(amount * 100) for name, amount in totals(week.tables).items()}


def preventable(sums: dict[str, int]) -> int:
    return sums.get("late_deliveries", 0) + sums.get("demand_shifts", 0)


def has_money(rows: pd.DataFrame) -> bool:
    return bool(rows["value"].notna().any()) if len(rows) else False


def last_week(week: Week) -> str:
    """Return what the publication before this one is called."""
    before = week.last_as_of
    if before is None:
        return ""
    return "last week" if week.as_of - before == timedelta(weeks=1) else day(before, week.as_of)


def headline(week: Week, rows: pd.DataFrame, sign: str) -> dict[str, str]:
    """Return the number that is stressed and the sentence that follows it."""
    now = measures(week.tables)
    if not len(rows):
        return {"number": "Nothing", "rest": "is at risk this week"}
    if not has_money(rows):
        late = now["expected_late"]
        rest = f"late {'delivery is' if late == 1 else 'deliveries are'} expected{_than(week, 'expected_late', str)}"
        return {"number": f"{late:,}", "rest": rest}
    verb = "is at risk and preventable"
    amount = money(preventable(amounts(week)), sign)
    return {"number": amount, "rest": verb + _than(week, "preventable", lambda cents: money(cents, sign))}


def _than(week: Week, name: str, say: Callable[[int], str]) -> str:
    if not week.last:
        return ""
    change = measures(week.tables)[name] - measures(week.last)[name]
    if not change:
        return f", as much as {last_week(week)}"
    return f", {say(abs(change))} {'more' if change > 0 else 'less'} than {last_week(week)}"


def sentences(week: Week, rows: pd.DataFrame, sign: str) -> list[str]:
    """Return what the headline is made of, how much is certain, and where it is."""
    if not len(rows):
        return ["No open delivery and no demand window of this week carries a value."]
    high = rows[rows["level"] == "high"]
    new = int(high["p_before"].isna().sum()) if week.last else 0
    told = f"{plural(len(high), 'row is', 'rows are')} at high risk{f', {new:,} of them new' if new else ''}."
    return [text for text in (_made_of(week, rows, sign), told, _where(rows)) if text]


def _made_of(week: Week, rows: pd.DataFrame, sign: str) -> str:
    if not has_money(rows):
        return "No line has a unit cost and no product a price, so nothing is counted in money."
    sums = {name: amount for name, amount in amounts(week).items() if amount}
    parts = {"late_deliveries": "late deliveries", "demand_shifts": "demand shifts"}
    words = " and ".join(f"{money(sums[name], sign)} in {what}" for name, what in parts.items() if name in sums)
    late = f"Another {money(sums['already_late'], sign)} is late already." if "already_late" in sums else ""
    return " ".join(filter(None, (f"{words[:1].upper()}{words[1:]}." if words else "", late)))


def _where(rows: pd.DataFrame) -> str:
    """Say how the value of deliveries is shared among suppliers, where few hold much of it."""
    due = rows[(rows["kind"] == "late") & rows["value"].notna()]
    held = due.groupby(["supplier_id", "supplier"])["value"].sum().sort_values(ascending=False, kind="stable")
    if len(held) <= KEY_SUPPLIERS or not held.sum():
        return ""
    part = whole(100 * held.head(KEY_SUPPLIERS).sum() / held.sum())
    return (
        f"{part}% of the value in deliveries sits with {KEY_SUPPLIERS} of {len(held)} suppliers, "
        f"led by {held.index[0][1]}."
    )


def part(every: pd.DataFrame, carried: pd.DataFrame, sign: str) -> str:
    """Say which of the rows the page carries and where the others are; nothing where it carries all."""
    if len(carried) == len(every):
        return ""
    held, whole_sum = (int(rows["value"].sum()) for rows in (carried, every))
    worth = f", {money(held, sign)} of {money(whole_sum, sign)}" if whole_sum else ""
    return (
        f"This page carries {len(carried):,} of {len(every):,} risks{worth}: all that somebody is asked to act on, and "
        "of each kind those of the largest value. What stands above is about all of them; tabs, search, filters, their "
        "counts, panels and Save as CSV are about those of the page. All are in the published tables, which"
    )


def to_the_cent(week: Week, sign: str) -> list[dict[str, Any]]:
    """Return the sums of the published tables to the cent."""
    sums = amounts(week)
    lines = [(words, sums[name], False) for name, words in AMOUNTS.items() if name in sums]
    if len(lines) == len(AMOUNTS):
        lines.insert(2, ("Can still be prevented", preventable(sums), True))
    return [{"words": words, "amount": exact(amount, sign), "sum": is_sum} for words, amount, is_sum in lines]


def tiles(week: Week, rows: pd.DataFrame, sign: str) -> list[dict[str, str]]:
    """Return three numbers with their change and their curve of twelve weeks."""
    curve = measured(week)
    asked: list[tuple[str, str, Callable[[int], str]]] = [
        ("Deliveries expected late", "expected_late", "{:,}".format),
        ("High-risk rows", "high_rows", "{:,}".format),
        ("Suppliers with high risk", "suppliers", "{:,}".format),
    ]
    if has_money(rows):
        asked[0] = ("Value in high-risk rows", "high_value", lambda cents: money(cents, sign))
    last = measures(week.last) if week.last else None
    return [
        _tile(
            [None if one is None else one[name] for one in curve],
            last[name] if last else None,
            last_week(week),
            words,
            say,
        )
        for words, name, say in asked
    ]


def _tile(
    values: Sequence[int | None], last: int | None, before: str, words: str, say: Callable[[int], str]
) -> dict[str, str]:
    now = values[-1] or 0
    moved = "" if last is None else f"{'up' if now > last else 'down'} {say(abs(now - last))} on {before}"
    return {
        "words": words, "value": say(now), "moved": f"as {before}" if now == last else moved,
        "curve": points(values, 150, 26, least_span=1),
    }  # fmt: skip
