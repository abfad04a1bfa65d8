"""Read what a board is made of: the published tables of one week and of the twelve weeks up to it, nothing else."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

import pandas as pd

from models.change import RISKS
from pipelines.ledger import Line, leading, line_of
from pipelines.settings import Settings
from pipelines.stores import Reader, as_frame, store_of

WEEKS = 12
WHOLE = (*RISKS, "supplier_risk", "watchlist", "track_record", "weekly_change", "health")
PAST: Mapping[str, tuple[str, ...]] = {
    "supplier_delay_risk": ("as_of", "row_id", "state", "supplier_id", "p_late", "value_at_risk"),
    "demand_shift_risk": ("as_of", "row_id", "p_up", "p_down", "value_at_risk"),
    "supplier_risk": ("as_of", "entity_kind", "entity_id", "value_at_risk"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Week:
    """One published week and what was published before it.

    A table that was not published is not in `tables`; `before` holds the weeks before this one, of each the revision
    that counts, and `last` the whole risk tables of the latest of them. `publication` is the ledger's line.
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
        days = [pd.Timestamp(frame["as_of"].max()) for frame in self.before.values() if len(frame)]
        return max(days).date() if days else None


def read_week(settings: Settings, as_of: date | None = None) -> Week:
    """Return a published week, the latest unless told which, all of it as of one moment.

    Raises UserError where the week was never published.
    """
    with store_of(settings.target).reading() as reader:
        ledger = reader.ledger()
        line = line_of(ledger, settings.target, as_of)
        since = line.as_of - timedelta(weeks=WEEKS - 1)
        days = sorted({one.as_of for one in ledger if since <= one.as_of < line.as_of})
        past = [one for day in days if (one := leading(ledger, day))]
        return Week(
            as_of=line.as_of,
            currency=settings.currency,
            publication=asdict(line) | {name: json.loads(getattr(line, name)) for name in ("rows", "model_versions")},
            tables=_tables(reader, line, WHOLE),
            before={name: _rows(reader, name, past, columns) for name, columns in PAST.items() if reader.kinds(name)},
            last=_tables(reader, past[-1], RISKS) if past else {},
        )


def latest_day(settings: Settings) -> date:
    """Return the day of the latest published week; UserError where nothing was published."""
    with store_of(settings.target).reading() as reader:
        return line_of(reader.ledger(), settings.target).as_of


def _tables(reader: Reader, line: Line, names: Sequence[str]) -> dict[str, pd.DataFrame]:
    published = json.loads(line.rows)
    return {name: _rows(reader, name, [line]) for name in names if name in published}


def _rows(reader: Reader, name: str, lines: Sequence[Line], columns: Sequence[str] = ()) -> pd.DataFrame:
    return as_frame(reader.rows(name, [line.publication_id for line in lines], columns))
