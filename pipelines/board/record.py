"""Tell the track record in words, dots and a table."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from models.record import ALL
from pipelines.board.wording import RULES, cap, day, money, plural, readable, whole

EVENTS = {"late": "Late deliveries", "up": "Demand surges", "down": "Demand drops"}
HAPPENED = {"late": "came late", "up": "surged", "down": "dropped"}
ENOUGH = 30  # rows in a bin before a sentence rests on it
Z = 1.959964  # two-sided 95 %


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of n rows (Wilson's score interval): inside [0, 1], never empty."""
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def track_records(record: pd.DataFrame, sign: str) -> list[dict[str, Any]]:
    """Return what the page tells per event: of published rows where some have matured, else of the walk-forward."""
    if not len(record):
        return []
    return [_told(part, event, sign) for event in EVENTS if len(part := _of(record, event))]


def _of(record: pd.DataFrame, event: str) -> pd.DataFrame:
    mine = record[record["event"] == event]
    published = mine[mine["source"] == "published"]
    return published if len(published) else mine


def _told(part: pd.DataFrame, event: str, sign: str) -> dict[str, Any]:
    whole_row = part[part["bin"] == ALL].iloc[0].to_dict()
    bins = [_bin(row) for row in part[part["bin"] != ALL].sort_values("p_from").to_dict("records")]
    return {
        "event": event, "title": EVENTS[event], "happened": HAPPENED[event], "bins": bins,
        "row_id": whole_row["row_id"], "scored": f"{whole_row['scored']:,}", "example": _example(bins),
        "replayed": part["source"].iloc[0] != "published", "skill": _skill(whole_row),
        "caught": _caught(whole_row, event, sign),
        "from_to": f"{day(whole_row['first_day'], whole_row['last_day'])} to "
        f"{day(whole_row['last_day'], whole_row['last_day'])} {whole_row['last_day'].year}",
    }  # fmt: skip


def _bin(row: Mapping[str, Any]) -> dict[str, Any]:
    low, high = wilson(row["came_true_share"], row["scored"])
    return {
        "row_id": row["row_id"], "said": f"{row['p_from']:.0%} to {row['p_to']:.0%}".replace("% to", " to"),
        "scored": row["scored"], "rows": f"{row['scored']:,}", "expected": row["expected_share"],
        "came": row["came_true_share"], "came_true": f"{whole(100 * row['came_true_share'])}%",
        "low": low, "high": high,        "between": f"{whole(100 * low)}–{whole(100 * high)}%",
    }  # fmt: skip


def _example(bins: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the highest bin that enough rows fell into."""
    return next((b for b in reversed(bins) if b["scored"] >= ENOUGH), None)


def _skill(row: Mapping[str, Any]) -> str:
    skill = row["skill_over_rule"]
    if pd.isna(skill) or not row["rule"]:
        return ""
    rule = RULES.get(row["rule"], readable(row["rule"]))
    points = whole(100 * abs(skill))
    if not points:
        return f"Its error was that of the best simple rule, {rule}."
    return f"Its error was {points}% {'smaller' if skill > 0 else 'larger'} than that of the best simple rule, {rule}."


def _caught(row: Mapping[str, Any], event: str, sign: str) -> str:
    if pd.isna(row["hits"]):
        return ""
    hits, misses, false = (int(row[name]) for name in ("hits", "misses", "false_alarms"))
    worth = ""
    if not pd.isna(row["value_hit"]) and not pd.isna(row["value_missed"]):
        caught, every = (round(100 * v) for v in (row["value_hit"], row["value_hit"] + row["value_missed"]))
        worth = f", {money(caught, sign)} of {money(every, sign)}"
    return (
        f"The weekly list named {hits:,} of {hits + misses:,} that {HAPPENED[event]}{worth}; "
        f"of its {plural(hits + false, 'warning')} {false:,} did not come true."
    )


def model_words(versions: Mapping[str, str]) -> str:
    """Return the models' versions as the header says them."""
    named = {"delay": "delivery", "shift": "demand"}
    if len(set(versions.values())) == 1:
        return f"Model v{next(iter(versions.values()))}"
    return "Models: " + ", ".join(_versions(versions, named)) if versions else ""


def _versions(versions: Mapping[str, str], named: Mapping[str, str]) -> Iterator[str]:
    for task, version in sorted(versions.items()):
        yield f"{named.get(task, task)} v{version}"


def dots(bins: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return where the dots of a chart stand and how far their intervals reach."""
    size, left, top = 200.0, 34.0, 8.0
    return [
        {
            "x": f"{left + size * b['expected']:.1f}", "y": f"{top + size * 0.72 * (1 - b['came']):.1f}",
            "y1": f"{top + size * 0.72 * (1 - b['high']):.1f}", "y2": f"{top + size * 0.72 * (1 - b['low']):.1f}",
            "r": "4.2" if b["scored"] >= ENOUGH else "2.6",
            "about": cap(f"said {b['said']}, {b['rows']} rows, {b['came_true']} came true"),
        }
        for b in bins
    ]  # fmt: skip
