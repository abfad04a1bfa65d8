"""Why is this week's value at risk another than last week's? Per row, split into parts that sum to the change."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from models.watchlist import DAY, amount, candidates, subjects

RISKS = ("supplier_delay_risk", "demand_shift_risk")
STEPS = ("model", "time", "promise", "data", "signals")
"""In this order one more thing is that of this week; what each step moves is its part."""
PARTS = ("new", "closed", *STEPS)
IN_WORDS = {
    "new": "new", "closed": "closed", "model": "model or late facts", "time": "time passed",
    "promise": "promise moved", "data": "data arrived", "signals": "signals",
}  # fmt: skip
COLUMNS = {
    "row_id": "str", "risk": "str", "kind": "str", "supplier_name": "str", "product_name": "str", "site_id": "str",
    "status": "str", "value_last_week": float, "value_this_week": float, "change": float,
    **{f"part_{part}": float for part in PARTS}, "p_last_week": float, "p_this_week": float, "left_list": bool,
    "reason": "str",
}  # fmt: skip
AS_BEFORE = "as last week"
TOLD_OF = ("state", "ordered_on", "promised_on", "open_units")  # of a line, when its change is put in words


@dataclass(frozen=True, slots=True, eq=False)
class Week:
    """What was published of one week: its risk tables and watchlist by name, those it had."""

    as_of: pd.Timestamp
    tables: Mapping[str, pd.DataFrame]

    def of(self, name: str) -> pd.DataFrame:
        """Return one of its tables, an empty frame if the week had none of that name."""
        return self.tables.get(name, pd.DataFrame())


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What the words of a change are made of.

    `rescored` has, per risk, the value at risk by row_id in a world of last week with what `model`, `time`, `promise`
    and `data` name brought up to this week, one after the other. `ended` says of purchase lines, by po_line_id, when
    they were completed or cancelled. `versions` are the models' of both weeks, by risk.
    """

    rescored: Mapping[str, pd.DataFrame]
    ended: pd.DataFrame
    versions: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    currency: str = ""


def weekly_change(then: Week | None, now: Week, told: Told) -> pd.DataFrame:
    """Return `weekly_change`: one row per row of either week, the largest change first; empty without a week before.

    A row of both weeks is split by STEPS. Where it is missing in a world between, that step moves nothing and the next
    one says what is left, so that parts sum to the change in any case. A row of this week alone is new as a whole, one
    of last week alone closed as a whole. A value that is not known (no cost, no promise) counts as nothing in a change.
    A risk that last week did not publish at all has no rows here.
    """
    parts = [
        _rows(then, now, told, risk) for risk in RISKS if then and risk in then.tables and risk in now.tables
    ]  # fmt: skip
    filled = [part for part in parts if len(part)]
    if not filled or then is None:
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    table = _with_left(pd.concat(filled, ignore_index=True), then, now, told.currency)
    size = table["change"].abs()
    order = table.assign(size=size).sort_values(["size", "risk", "row_id"], ascending=[False, False, True]).index
    return table.loc[order, list(COLUMNS)].astype(COLUMNS).reset_index(drop=True)


def _rows(then: Week, now: Week, told: Told, risk: str) -> pd.DataFrame:
    before, after = (week.of(risk).set_index("row_id") for week in (then, now))
    index = after.index.append(before.index.difference(after.index))
    both = pd.DataFrame({"then": index.isin(before.index), "now": index.isin(after.index)}, index)
    values = {name: t["value_at_risk"].reindex(index).astype(float) for name, t in (("then", before), ("now", after))}
    chain = [_cents(values["then"])]
    rescored = told.rescored.get(risk, pd.DataFrame())
    for step in STEPS[:-1]:
        chain.append(_world(rescored, step, index, chain[-1], _cents(values["now"])))
    chain.append(_cents(values["now"]))
    out = pd.DataFrame({f"part_{step}": chain[k + 1] - chain[k] for k, step in enumerate(STEPS)}, index)
    stays = both["then"] & both["now"]
    out = out.where(stays, 0)
    out["part_new"], out["part_closed"] = chain[-1].where(~both["then"], 0), -chain[0].where(~both["now"], 0)
    out["change"] = chain[-1] - chain[0]
    out /= 100
    out["status"] = np.select([stays, both["now"]], ["stays", "new"], "closed")
    for week, there in (("then", "last"), ("now", "this")):
        out[f"value_{there}_week"] = values[week].where(both[week], 0.0)
    tell = _tell_lines if risk == RISKS[0] else _tell_windows
    out = tell(out.assign(risk=risk), before.reindex(index), after.reindex(index), then, now, told)
    return out.rename_axis("row_id").reset_index()


def _cents(value: pd.Series) -> pd.Series:
    """Whole cents: parts of whole numbers sum to their change exactly."""
    return (value.fillna(0.0) * 100).round().astype("int64")


def _world(rescored: pd.DataFrame, step: str, index: pd.Index, before: pd.Series, published: pd.Series) -> pd.Series:
    """Return the cents of every row in the world of a step, those before it where the row is not in that world."""
    if step not in rescored:
        return published  # nothing that comes after has moved anything
    known = rescored[step].dropna()
    found = known.reindex(index)
    return _cents(found).where(found.notna(), before)


# Words --------------------------------------------------------------------------------------------------------------


def largest_part(row: Mapping[str, Any]) -> str:
    """Return the name of the part that did most to move a row the way it went, "" where its value is as it was."""
    way = np.sign(row["change"])
    size, _, part = max((way * row[f"part_{part}"], -k, part) for k, part in enumerate(PARTS))
    return part if size >= 0.005 else ""


def _day(moment: Any, beside: pd.Timestamp) -> str:
    day = pd.Timestamp(moment)
    return f"{day.day} {day:%b}" if day.year == beside.year else f"{day.day} {day:%b %Y}"


def _tell_lines(
    out: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame, then: Week, now: Week, told: Told
) -> pd.DataFrame:
    gone = (out["status"] == "closed").to_numpy()
    names = {c: np.where(gone, before[c], after[c]) for c in ("supplier_name", "product_name", "site_id")}
    out = out.assign(
        kind="supplier delay", **names, p_last_week=before["p_late"].astype(float),
        p_this_week=after["p_late"].astype(float),
    )  # fmt: skip
    ended = told.ended.reindex(out.index)
    facts = (out.to_dict("records"), *(t[list(TOLD_OF)].to_dict("records") for t in (before, after)))
    words = [
        _line_words(row, was, is_, end, then, now, told.versions.get(RISKS[0], ("", "")))
        for row, was, is_, end in zip(*facts, ended.to_dict("records"), strict=True)
    ]
    return out.assign(reason=words)


def _line_words(
    row: Mapping[str, Any], was: Mapping[str, Any], is_: Mapping[str, Any], end: Mapping[str, Any], then: Week,
    now: Week, versions: tuple[str, str],
) -> str:  # fmt: skip
    day = now.as_of
    if row["status"] == "new":
        return f"new: ordered on {_day(is_['ordered_on'], day)}"
    if row["status"] == "closed":
        for column, verb in (("complete_on", "received"), ("cancelled_at", "cancelled")):
            if pd.notna(end.get(column)):
                return f"{verb} on {_day(end[column], day)}"
        return "no longer among the open lines"
    if is_["state"] == "already_late" and was["state"] == "due_future":
        return f"already late now: promised {_day(is_['promised_on'], day)}"
    part, days = largest_part(row), round((day - then.as_of) / DAY)
    if part == "promise":
        return _promise_words(was, is_, day)
    if part == "data" and was["open_units"] != is_["open_units"]:
        came, left = amount(was["open_units"] - is_["open_units"]), amount(is_["open_units"])
        return f"{came} came in, {left.partition(' ')[0]} still open"
    passed = {
        "due_future": f"{days} days nearer to the promise of {_day(is_['promised_on'], day)}"
        if pd.notna(is_["promised_on"]) else "",
        "already_late": f"{days} more days late", "no_promise": f"{days} more days open",
    }  # fmt: skip
    return {
        "": AS_BEFORE, "model": _model_words(*versions), "time": passed[is_["state"]],
        "data": "what was ordered and received since", "signals": "external signals",
    }[part]  # fmt: skip


def _promise_words(was: Mapping[str, Any], is_: Mapping[str, Any], day: pd.Timestamp) -> str:
    if pd.isna(was["promised_on"]):
        return f"first promise: {_day(is_['promised_on'], day)}"
    if was["promised_on"] == is_["promised_on"]:
        return "its supplier moved promises of other lines"
    return f"promise moved from {_day(was['promised_on'], day)} to {_day(is_['promised_on'], day)}"


def _model_words(was: str, is_: str) -> str:
    if was != is_:
        return f"model version {is_} instead of {was}"
    return "facts of earlier weeks that arrived late, or new code"


def _tell_windows(
    out: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame, then: Week, now: Week, told: Told
) -> pd.DataFrame:
    gone = (out["status"] == "closed").to_numpy()
    names = {c: np.where(gone, before[c], after[c]) for c in ("product_name", "site_id")}
    up = np.where(gone, before["p_up"] >= before["p_down"], after["p_up"] >= after["p_down"])
    p = {
        name: table["p_up"].astype(float).where(up, table["p_down"].astype(float))
        for name, table in (("p_last_week", before), ("p_this_week", after))
    }
    days = round((now.as_of - then.as_of) / DAY)
    words = {
        "": AS_BEFORE, "new": "new: first orders, or demand again after a year without", "time": f"{days} days later",
        "closed": "no longer scored: a year without demand, or too rare for its weeks",
        "model": _model_words(*told.versions.get(RISKS[1], ("", ""))), "data": "what customers ordered since",
        "signals": "external signals", "promise": "promises of suppliers",
    }  # fmt: skip
    found = out.to_dict("records")
    parts = [row["status"] if row["status"] != "stays" else largest_part(row) for row in found]
    return out.assign(
        kind=np.where(up, "demand surge", "demand drop"), supplier_name="", **names, **p,
        reason=[words[part] for part in parts],
    )  # fmt: skip


# The list -----------------------------------------------------------------------------------------------------------


def _with_left(table: pd.DataFrame, then: Week, now: Week, currency: str) -> pd.DataFrame:
    """Say why rows of last week's watchlist are no longer on this week's."""
    was, is_ = then.of("watchlist"), now.of("watchlist")
    if not len(was):
        return table.assign(left_list=False)
    gone = was[~subjects(was).isin(subjects(is_) if len(is_) else [])]
    key = ["risk", "row_id"]
    gone = gone.assign(risk=np.where(gone["kind"] == "supplier delay", *RISKS))
    asked = pd.MultiIndex.from_frame(table[key])
    left = asked.isin(pd.MultiIndex.from_frame(gone[key]))
    could = candidates(now.tables.get(RISKS[0]), now.tables.get(RISKS[1]), now.as_of, currency)
    could = could.assign(subject=subjects(could)).drop_duplicates("subject").set_index("subject")
    floor = is_.groupby("owner")["value_at_risk"].min() if len(is_) else pd.Series(dtype=float)
    before = gone.assign(subject=subjects(gone)).set_index(key)
    words = table["reason"].astype(object).tolist()
    for place in np.flatnonzero(left):
        listed = before.loc[asked[place]]
        words[place] = f"left the list: {_why_left(table.iloc[place], listed, could, floor, now.as_of)}"
    return table.assign(left_list=left, reason=words)


def _why_left(row: pd.Series, listed: pd.Series, could: pd.DataFrame, floor: pd.Series, as_of: pd.Timestamp) -> str:
    told = str(row["reason"])
    if row["status"] == "closed" or told.startswith("already late now") or listed["subject"] not in could.index:
        return told
    mine = could.loc[listed["subject"]]
    if mine["act_by"] < as_of:
        return f"past the last day to act, {_day(mine['act_by'], as_of)}"
    if not mine["stake"] > 0:
        return "nothing at stake any more"
    if row["change"] < 0 and listed["value_at_risk"] >= floor.get(mine["owner"], 0.0):
        return f"risk fell: {told}"
    return "pushed out by larger ones"


def with_reasons(watchlist: pd.DataFrame, changes: pd.DataFrame) -> pd.DataFrame:
    """Return the watchlist with `change` also saying why, where something has changed."""
    if not len(changes) or not len(watchlist):
        return watchlist
    key = ["risk", "row_id"]
    why = changes.set_index(key)["reason"]
    risk = np.where(watchlist["kind"] == "supplier delay", *RISKS)
    asked = pd.MultiIndex.from_arrays([risk, watchlist["row_id"]])
    reasons = why.reindex(asked).fillna("").tolist()
    said = [
        f"{change}: {reason}" if reason not in ("", AS_BEFORE) and change.startswith(("new on", "+", "-")) else change
        for change, reason in zip(watchlist["change"], reasons, strict=True)
    ]
    return watchlist.assign(change=said)


def totals_of_change(changes: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return per risk the value of both weeks, the change and its parts, each to the cent: sums of the rows."""
    out = {}
    for risk in [risk for risk in RISKS if (changes["risk"] == risk).any()]:
        mine = changes[changes["risk"] == risk]
        out[risk] = {
            **{name: _sum(mine[name]) for name in ("value_last_week", "value_this_week", "change")},
            "parts": {part: _sum(mine[f"part_{part}"]) for part in PARTS},
            "rows": {str(k): int(n) for k, n in mine["status"].value_counts().sort_index().items()},
            "left_list": int(mine["left_list"].sum()),
        }
    return out


def _sum(amounts: Iterable[float]) -> float:
    return int(_cents(pd.Series(amounts)).sum()) / 100
