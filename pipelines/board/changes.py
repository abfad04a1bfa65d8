"""Tell what changed since the week before: from `weekly_change` where it was published, else as a plain difference."""

from collections.abc import Set
from typing import Any

import pandas as pd

from models.change import RISKS
from pipelines.board.reading import Week
from pipelines.board.rows import cents
from pipelines.board.wording import money, readable

MOVERS = 6
PARTS = {
    "part_new": "New risks", "part_closed": "Closed", "part_promise": "Promises moved",
    "part_data": "Receipts and orders that came in", "part_time": "Time passed", "part_signals": "Outside signals",
    "part_model": "Another model, or facts that came late",
}  # fmt: skip
STATUS = {"new": "new this week", "closed": "no longer open"}


def changes(week: Week) -> pd.DataFrame:
    """Return per risk row of this week or the last: table, status, cents then and now, change and reason in words."""
    told = week.table("weekly_change")
    if len(told):
        return _told(told)
    now, then = (pd.concat([_values(tables.get(name), name) for name in RISKS]) for tables in (week.tables, week.last))
    if not len(then):
        return pd.DataFrame(columns=["row_id", "table", "status", "before", "now", "change", "reason"])
    both = now.merge(then, on=["table", "row_id"], how="outer", suffixes=("", "_then"), indicator=True)
    status = both["_merge"].astype(str).map({"left_only": "new", "right_only": "closed", "both": "stays"})
    both = both.assign(status=status, now=both["value"].fillna(0), before=both["value_then"].fillna(0))
    return both.assign(change=both["now"] - both["before"], reason=status.map(STATUS).fillna(""))


def _told(told: pd.DataFrame) -> pd.DataFrame:
    money_columns = {"before": "value_last_week", "now": "value_this_week", "change": "change"}
    return told.assign(
        table=told["risk"], reason=told["reason"].fillna("").map(readable),
        **{name: cents(told[column].fillna(0)) for name, column in money_columns.items()},
    )  # fmt: skip


def _values(table: pd.DataFrame | None, name: str) -> pd.DataFrame:
    if table is None or not len(table):
        return pd.DataFrame({"row_id": pd.Series(dtype=str), "table": pd.Series(dtype=str), "value": []})
    return table[["row_id"]].assign(table=name, value=cents(table["value_at_risk"]))


def split(week: Week, sign: str) -> list[dict[str, str]]:
    """Return the parts of the whole change, larger first, and their sum; nothing where they were not published."""
    told = week.table("weekly_change")
    if not len(told):
        return []
    sums = {words: int(cents(told[part].fillna(0)).sum()) for part, words in PARTS.items() if part in told}
    parts = sorted((p for p in sums.items() if p[1]), key=lambda p: -abs(p[1]))
    whole = int(cents(told["change"].fillna(0)).sum())
    return [_part(words, amount, sign) for words, amount in (*parts, ("Together, with what is late already", whole))]


def _part(words: str, amount: int, sign: str) -> dict[str, str]:
    return {"words": words, "amount": signed(amount, sign), "class": "up" if amount > 0 else "down"}


def movers(week: Week, changed: pd.DataFrame, sign: str, carried: Set[str]) -> list[dict[str, Any]]:
    """Return the rows whose value moved most, with what they are called and why they moved.

    Those still on the page, whose rows it has `carried`, are "open".
    """
    if not len(changed):
        return []
    moved = changed[changed["change"].fillna(0) != 0]
    top = moved.assign(size=moved["change"].abs()).sort_values(["size", "row_id"], ascending=[False, True]).head(MOVERS)
    names = _names(week, set(top["row_id"]))
    return [
        {
            "row_id": row["row_id"], "open": row["row_id"] in carried, "reason": row["reason"],
            "title": names.get((row["table"], row["row_id"]), row["row_id"]), **_part("", row["change"], sign),
        }
        for row in top.to_dict("records")
    ]  # fmt: skip


def _names(week: Week, wanted: set[str]) -> dict[tuple[str, str], str]:
    """Return what rows of this week or the last are called."""
    out = {}
    for tables in (week.last, week.tables):
        for name in RISKS:
            table = tables.get(name)
            if table is None:
                continue
            first, second = ("supplier_name", "product_name") if name == RISKS[0] else ("product_name", "site_name")
            for row in table[table["row_id"].isin(wanted)].to_dict("records"):
                out[name, row["row_id"]] = f"{row[first]}, {row[second]}"
    return out


def signed(amount: int, sign: str) -> str:
    return f"{'+' if amount > 0 else ''}{money(amount, sign)}"
