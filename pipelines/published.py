"""One publication as its readers find it: its line of the ledger and its tables."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import pandas as pd

from models import risk
from pipelines import publish
from pipelines.settings import UserError


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """A publication with its tables in memory, each as `publish.read` gives it."""

    publication_id: str
    as_of: date
    revision: int
    published_at: datetime
    model_versions: Mapping[str, str]
    rows: Mapping[str, int]
    tables: Mapping[str, pd.DataFrame]
    before: date | None
    latest: bool

    def totals(self) -> dict[str, float]:
        """Return value at risk by kind, and `preventable`: what is at stake in lines and windows still ahead."""
        return totals(self.tables)


def totals(tables: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Return the totals of the tables at hand, with `preventable`: late deliveries and demand shifts, to the cent."""
    said = risk.totals(tables)
    ahead = [said[name] for name in ("late_deliveries", "demand_shifts") if name in said]
    return {"preventable": round(sum(ahead), 2), **said}


def published(workspace: Path, as_of: date | None = None, only: Collection[str] = ()) -> Published:
    """Read the latest revision of a week, the latest week unless told which; `only` names the tables wanted.

    All tables are of that one revision, whatever is published meanwhile.
    """
    ledger = publish.publications(workspace)
    days = ledger["as_of"].dt.date
    latest = days.max()
    mine = ledger[days == (as_of or latest)]
    if mine.empty:
        known = ", ".join(str(day) for day in sorted(set(days))[-10:])
        raise UserError(f"the week of {as_of} was never published; there are {known}")
    line = mine.iloc[-1]
    day, revision = line["as_of"].date(), int(line["revision"])
    if missing := [name for name in only if name not in line["rows"]]:
        raise UserError(f"{line['publication_id']} has no table {missing[0]}; it has {', '.join(line['rows'])}")
    names = [name for name in _in_order(line["rows"]) if not only or name in only]
    return Published(
        publication_id=line["publication_id"],
        as_of=day,
        revision=revision,
        published_at=line["published_at"].to_pydatetime(),
        model_versions=line["model_versions"],
        rows={name: int(line["rows"][name]) for name in names},
        tables={name: publish.read(workspace, name, as_of=day, revision=revision) for name in names},
        before=max((d for d in days if d < day), default=None),
        latest=day == latest,
    )


def _in_order(names: Collection[str]) -> list[str]:
    """Return table names as publishing lists them, others after them."""
    return [*(n for n in publish.TABLES if n in names), *sorted(n for n in names if n not in publish.TABLES)]
