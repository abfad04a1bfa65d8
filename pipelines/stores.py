"""What publishing asks of the place that holds publications: the workspace, or a database."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Protocol

import duckdb
import pandas as pd
import pyarrow as pa

from models.risk_columns import Table
from models.risk_contract import BY_NAME
from pipelines.ledger import Line, Target


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
