"""One publication as its readers find it: its line of the ledger and its tables."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime

import pandas as pd

from models import risk
from models.risk_contract import BY_NAME
from pipelines.ledger import Target, line_of
from pipelines.settings import UserError
from pipelines.stores import as_frame, store_of


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
    return {"preventable": round(sum(ahead), 2), **said} if ahead else said


def published(target: Target, as_of: date | None = None, only: Collection[str] = ()) -> Published:
    """Read what readers see of a week, the latest week unless told which; `only` names the tables wanted.

    All is of one moment, whatever is published meanwhile.
    """
    with store_of(target).reading() as reader:
        ledger = reader.ledger()
        line = line_of(ledger, target, as_of)
        days = sorted({line.as_of for line in ledger})
        rows = json.loads(line.rows)
        if missing := [name for name in only if name not in rows]:
            raise UserError(f"{line.publication_id} has no table {missing[0]}; it has {', '.join(rows)}")
        names = [name for name in _in_order(rows) if not only or name in only]
        tables = {name: as_frame(reader.rows(name, [line.publication_id])) for name in names}
    return Published(
        publication_id=line.publication_id,
        as_of=line.as_of,
        revision=line.revision,
        published_at=line.published_at,
        model_versions=json.loads(line.model_versions),
        rows={name: rows[name] for name in names},
        tables=tables,
        before=max((day for day in days if day < line.as_of), default=None),
        latest=line.as_of == days[-1],
    )


def _in_order(names: Collection[str]) -> list[str]:
    """Return table names as publishing lists them, others after them."""
    return [*(n for n in BY_NAME if n in names), *sorted(n for n in names if n not in BY_NAME)]
