"""What publishing asks of the place that holds publications: the workspace, or a database."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pandas as pd
import pyarrow as pa

from models.risk_contract import BY_NAME, Table
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
"""What `<table>_week` and `<table>_current` take from a table's history: `leading` below, as SQL."""


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


class Reader(Protocol):
    """One moment of a place that holds publications; `path` is the release that holds them, where files do."""

    @property
    def path(self) -> Path | None: ...

    def ledger(self) -> list[Line]:
        """Return every line, oldest week first; none where nothing was published."""

    def kinds(self, table: str) -> dict[str, str]:
        """Return the columns of a published table in lower case with their SQL types, none if it never was."""

    def fixed(self, table: str, column: str) -> bool:
        """Say whether the type of a published column cannot change any more."""

    def rows(self, table: str, publication_ids: Sequence[str], columns: Sequence[str] = ()) -> pa.Table:
        """Return rows of some publications in the order they were handed in."""


class Writer(Reader, Protocol):
    """The one publisher of the moment."""

    def write(
        self, line: Line, content: Mapping[str, pa.Table], contract: Mapping[str, Table], shown: Line
    ) -> Path | None:
        """Add a publication, all of it or nothing; `shown` is what readers see of its week from then on."""


class Store(Protocol):
    """A place that holds publications."""

    def reading(self) -> AbstractContextManager[Reader]: ...

    def publishing(self, wait_seconds: float) -> AbstractContextManager[Writer]:
        """Be the only publisher; PublishConflict when another one still is after `wait_seconds`."""

    def path_after(self) -> Path | None:
        """Return where the next publication will be, where files hold it."""


def store_of(target: Target) -> Store:
    """Return the place that holds the publications of a target."""
    if isinstance(target, Path):
        from pipelines.release_store import ReleaseStore

        return ReleaseStore(target)
    from pipelines.sql_store import SqlStore

    return SqlStore(target)


@contextmanager
def held(target: Target) -> Iterator[None]:
    """Keep the current release of a workspace open meanwhile: each reading of it takes 1 ms instead of 20.

    DuckDB opens a file once per process. A database's connection is not held, since a transaction would be with it.
    """
    with store_of(target).reading() if isinstance(target, Path) else nullcontext():
        yield


def published_tables(reader: Reader) -> list[str]:
    """Return the names of the tables that were published, in the order of the contract."""
    return [name for name in BY_NAME if reader.kinds(name)]


def as_frame(table: pa.Table) -> pd.DataFrame:
    """Return the same frame from every store: days and moments as datetime64, whole numbers with gaps as floats."""
    with _in_memory().cursor() as con:
        return con.from_arrow(table).df()


@cache
def _in_memory() -> duckdb.DuckDBPyConnection:
    """Return a database of nothing, opened once: that takes far longer than what it is used for."""
    return duckdb.connect()
