"""Say a row in the words its cells show; js/wording.js says the same."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from pipelines.board.rows import WHY, step_of
from pipelines.board.trends import points
from pipelines.board.wording import (
    KINDS,
    LEVELS,
    SHAPES,
    day,
    delay_impact,
    money,
    no_why,
    percent,
    share,
    shift_impact,
    units,
)

SPARK = (72.0, 20.0)  # the box a curve is drawn in
LEAST_SPAN = 10.0  # points of probability that fill it at least, so that noise looks like noise


def row_view(row: Mapping[str, Any], curve: Sequence[int], as_of: date, sign: str, before: str) -> dict[str, Any]:
    """Return the texts of one row of the table, and the geometry of its bar and curve."""
    owner, step = step_of(dict(row))
    big, *small = _impact(row)
    known = [None if p < 0 else float(p) for p in curve]
    return {
        "row_id": row["row_id"], "title": row["supplier"] or row["product"], "of_what": _of_what(row),
        "when": _when(row, as_of), "p": share(row["p"]), "width": row["p"] / 100, "level": row["level"],
        "level_word": f"{SHAPES[row['level']]} {LEVELS[row['level']]}", "change": _change(row, before),
        "curve": points(known, *SPARK, least_span=LEAST_SPAN), "end": _end(known), "big": big, "small": small,
        "value": "no cost known" if row["value"] is None else money(row["value"], sign), "of": _of(row, sign),
        "why": [_reason(row[name]) for name in WHY if row[name]], "no_why": no_why(row["kind"], row["published_by"]),
        "owner": owner, "step": step, "by": _by(row, as_of),
    }  # fmt: skip


def _impact(row: Mapping[str, Any]) -> tuple[str, ...]:
    if row["window"] < 0:
        return delay_impact(row["low"], row["mid"], row["high"])
    return shift_impact(row["low"], row["mid"], row["high"], row["usual"])


def _of_what(row: Mapping[str, Any]) -> str:
    return f"{row['product']}, {row['site']}" if row["window"] < 0 else row["site"]


def _when(row: Mapping[str, Any], as_of: date) -> str:
    begin, end = (day(as_of + timedelta(days=row[name]), as_of) for name in ("when", "till"))
    if row["kind"] == "late":
        return f"{KINDS['late']}, due {begin}"
    if row["kind"] == "overdue":
        return f"{KINDS['overdue']}, was due {begin}"
    return f"{KINDS[row['kind']]}, {begin} to {end}"


def _change(row: Mapping[str, Any], before: str) -> dict[str, str]:
    """Return the change in points since the week before: mark, amount, and the words after it."""
    if not before or row["kind"] == "overdue":
        return {"class": "", "amount": "", "words": ""}
    if row["p_before"] is None:
        return {"class": "new", "amount": "new", "words": ""}
    moved = percent(row["p"]) - percent(row["p_before"])
    if not moved:
        return {"class": "", "amount": "", "words": "no change"}
    mark, name = ("↑", "up") if moved > 0 else ("↓", "down")
    amount = f"{mark} {abs(moved)} {'pt' if abs(moved) == 1 else 'pts'}"
    return {"class": name, "amount": amount, "words": f"on {before}"}


def _end(known: Sequence[float | None]) -> dict[str, str]:
    last = points(known, *SPARK, least_span=LEAST_SPAN).rsplit(" ", 1)[-1]
    x, _, y = last.partition(",")
    return {"x": x, "y": y}


def _of(row: Mapping[str, Any], sign: str) -> str:
    if row["of"] is None:
        return f"{units(row['usual'])} units {'open' if row['window'] < 0 else 'usual'}"
    return f"{'of' if row['window'] < 0 else 'usual'} {money(row['of'], sign)}"


def _reason(driver: str) -> dict[str, str]:
    """Split a published driver into its direction and its words."""
    mark, _, words = driver.partition(" ")
    return {"class": "dn" if mark == "▼" else "", "words": words if mark in "▲▼" else driver}


def _by(row: Mapping[str, Any], as_of: date) -> str:
    if row["act_by"] is None:
        return ""
    return f"by {day(as_of + timedelta(days=row['act_by']), as_of)}{', when time allows' if row['tier'] == 2 else ''}"
