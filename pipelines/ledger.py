"""The ledger of what was published, and which revision of a week readers see, in Python and in SQL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pipelines.settings import DataSource, UserError

Target = Path | DataSource
"""A workspace, or the URL of a database."""

LEADING = """
    SELECT publication_id FROM (SELECT publication_id, row_number() OVER (
        PARTITION BY as_of ORDER BY data_time DESC NULLS LAST, revision DESC) AS place FROM publications) AS ranked
    WHERE place = 1"""
CURRENT = (
    "SELECT publication_id FROM publications ORDER BY as_of DESC, data_time DESC NULLS LAST, revision DESC LIMIT 1"
)
VIEWS = {"week": f"WHERE publication_id IN ({LEADING})", "current": f"WHERE publication_id = ({CURRENT})"}
"""What `<table>_week` and `<table>_current` take from a table's history: `leading` as SQL."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the ledger, as `PUBLICATIONS` in the risk contract describes it."""

    publication_id: str
    as_of: date
    revision: int
    status: str
    digest: str
    rows: str
    model_versions: str
    data_fingerprint: str
    data_time: datetime | None
    code_version: str
    schema_version: str
    published_at: datetime

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> "Line":
        """Return the line of a row; a ledger from before `data_time` was kept has none."""
        return cls(**{f.name: row.get(f.name) for f in fields(cls)})  # type: ignore[arg-type]


def leading(ledger: Iterable[Line], as_of: date) -> Line | None:
    """Return what readers see of a week: the revision with the newest data, of equals the last."""
    return max((line for line in ledger if line.as_of == as_of), key=_newest, default=None)


def line_of(ledger: Sequence[Line], target: Target, as_of: date | None = None, revision: int | None = None) -> Line:
    """Return what readers see of a week, the latest unless told which, or one revision; else UserError."""
    if not ledger:
        raise nothing_published(target)
    mine = [line for line in ledger if revision is None or line.revision == revision]
    if line := leading(mine, as_of or max(line.as_of for line in ledger)):
        return line
    asked = f"{as_of or 'the latest week'}" + (f", revision {revision}" if revision else "")
    known = "" if len(ledger) <= 10 else f"the latest of {len(ledger)}, "
    known += ", ".join(line.publication_id for line in ledger[-10:])
    raise UserError(f"{asked} was never published in {target}; there are {known}")


def nothing_published(target: Target) -> UserError:
    return UserError(f"nothing published yet in {target}, run bullwhip score")


def _newest(line: Line) -> tuple[datetime, int]:
    return line.data_time or datetime.min, line.revision  # noqa: DTZ901  (all are UTC without saying so)
