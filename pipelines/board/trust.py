"""Say how far the week can be trusted: from the table `health`, or what the ledger knows where there is none."""

from typing import Any

import pandas as pd

from pipelines.board.reading import Week
from pipelines.board.wording import cap, long_day, plural, readable

TITLES = {
    "act": "Do not act on these numbers before this is put right",
    "watch": "Read these numbers with some care",
}


def trust(week: Week) -> dict[str, Any]:
    """Return the state (ok, watch, act, unknown), the words of the header, and what is not as it should be."""
    health = week.table("health")
    if not len(health):
        return {"state": "unknown", "fresh": _from_ledger(week), "title": "", "items": []}
    wrong = health[health["verdict"] != "ok"].sort_values(["verdict", "row_id"])
    state = "act" if (wrong["verdict"] == "act").any() else "watch" if len(wrong) else "ok"
    return {
        "state": state, "fresh": f"{_data_to(health)}{_checks(len(health), wrong)}", "title": TITLES.get(state, ""),
        "items": [_item(row) for row in wrong.to_dict("records")],
    }  # fmt: skip


def _from_ledger(week: Week) -> str:
    known = week.publication.get("data_time")
    said, at = ("Data to", known) if known is not None else ("Published", week.publication["published_at"])
    return f"{said} {_moment(pd.Timestamp(at))}"


def _moment(at: pd.Timestamp) -> str:
    return f"{long_day(at)}, {at:%H:%M} UTC"


def _data_to(health: pd.DataFrame) -> str:
    known = pd.to_datetime(health.loc[health["area"] == "input", "last_known_at"]).max()
    return "" if pd.isna(known) else f"Data to {_moment(known)}, "


def _checks(count: int, wrong: pd.DataFrame) -> str:
    if not len(wrong):
        return f"all {count} checks passed" if count > 1 else "1 check passed"
    return f"{len(wrong)} of {plural(count, 'check')} not passed"


def _item(row: dict[str, Any]) -> dict[str, str]:
    return {
        "row_id": row["row_id"], "verdict": row["verdict"], "subject": cap(readable(row["subject"])),
        "reason": cap(readable(row["reason"])),
    }  # fmt: skip
