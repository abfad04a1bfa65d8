"""Read what a board is made of: the published tables of one week and of the twelve weeks up to it, nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pandas as pd

from pipelines import publish
from pipelines.settings import Settings, UserError

WEEKS = 12
WHOLE = (
    "supplier_delay_risk", "demand_shift_risk", "supplier_risk", "watchlist", "track_record", "weekly_change", "health",
)  # fmt: skip
PAST: Mapping[str, tuple[str, ...]] = {
    "supplier_delay_risk": ("row_id", "state", "supplier_id", "p_late", "value_at_risk"),
    "demand_shift_risk": ("row_id", "p_up", "p_down", "value_at_risk"),
    "supplier_risk": ("entity_kind", "entity_id", "value_at_risk"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Week:
    """One published week and what was published before it.

    A table that was not published is not in `tables`; `before` holds the weeks before this one with their as_of, of
    every revision the latest, and `last` the whole tables of the latest of them.
    """

    as_of: date
    currency: str
    publication: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    before: Mapping[str, pd.DataFrame]
    last: Mapping[str, pd.DataFrame]

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of this week, an empty frame where it was not published."""
        return self.tables.get(name, pd.DataFrame())

    @property
    def last_as_of(self) -> date | None:
        """The day of the publication before this one, where there was one in these twelve weeks."""
        days = [frame["as_of"].max() for frame in self.before.values() if len(frame)]
        return max(days).date() if days else None


def read_week(settings: Settings, as_of: date | None = None) -> Week:
    """Return a published week, the latest unless told which; UserError where it was never published."""
    ledger = publish.publications(settings.workspace)
    found = _publication(ledger, as_of)
    day = found["as_of"]
    tables = {
        name: publish.read(settings.workspace, name, as_of=day, revision=found["revision"])
        for name in WHOLE
        if name in found["rows"]
    }
    since = day - timedelta(weeks=WEEKS - 1)
    before = {name: publish.history(settings.workspace, name, since, day, columns) for name, columns in PAST.items()}
    earlier = [d for d in _days(ledger) if since <= d < day]
    last = _last_tables(settings, ledger, max(earlier)) if earlier else {}
    return Week(day, settings.currency, found, tables, before, last)


def latest_day(settings: Settings) -> date:
    """Return the day of the latest published week."""
    return max(_days(publish.publications(settings.workspace)))


def _days(ledger: pd.DataFrame) -> list[date]:
    return [pd.Timestamp(day).date() for day in ledger["as_of"].unique()]


def _publication(ledger: pd.DataFrame, as_of: date | None) -> dict[str, Any]:
    known = pd.to_datetime(ledger["as_of"])
    mine = ledger[known == (pd.Timestamp(as_of) if as_of else known.max())]
    if not len(mine):
        there = ", ".join(str(day) for day in _days(ledger)[-10:])
        raise UserError(f"the week of {as_of} was never published; there are {there}")
    newest = mine.sort_values("revision").iloc[-1].to_dict()
    return {**newest, "as_of": pd.Timestamp(newest["as_of"]).date(), "revision": int(newest["revision"])}


def _last_tables(settings: Settings, ledger: pd.DataFrame, day: date) -> dict[str, pd.DataFrame]:
    published = _publication(ledger, day)["rows"]
    risks = ("supplier_delay_risk", "demand_shift_risk")
    return {name: publish.read(settings.workspace, name, as_of=day) for name in risks if name in published}
