"""Show the input tables as they could be read at some moment of the past, each at a moment of its own."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import date

import duckdb

from features.casting import quote
from features.contracts import TABLES, Table

View = Callable[[Table, str], str]
"""SQL for what a table shall show, given the table and the name under which all of it can be read."""


@contextmanager
def as_known(con: duckdb.DuckDBPyConnection, before: Mapping[str, date]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection in which every contract table shows the facts known before its day in `before`.

    Tables that `before` does not name, and those without a history, are shown whole.
    """

    def view(table: Table, source: str) -> str:
        return known_before(table, source, before[table.name]) if table.name in before else f"SELECT * FROM {source}"

    with showing(con, view) as seen:
        yield seen


@contextmanager
def showing(
    con: duckdb.DuckDBPyConnection, view: View, *, copied: Collection[Table] = ()
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection of its own in which every contract table is what `view` says; what it makes is dropped.

    Those `copied` are read once, others whenever they are asked for.
    """
    home = con.execute("SELECT current_schema()").fetchall()[0][0]
    seen = con.cursor()
    schema = f"seen_{id(seen)}"  # of its own: two may be open side by side
    seen.execute(f"CREATE SCHEMA {schema}")
    try:
        for table in TABLES:
            kind = "TABLE" if table in copied else "VIEW"
            seen.execute(f"CREATE {kind} {schema}.{table.name} AS {view(table, f'{home}.{table.name}')}")
        seen.execute(f"SET schema = '{schema}'")
        yield seen
    finally:
        seen.execute(f"SET schema = '{home}'")
        seen.execute(f"DROP SCHEMA {schema} CASCADE")
        seen.close()


def known_before(table: Table, source: str, day: date, otherwise: Mapping[str, str] | None = None) -> str:
    """Return SQL for the table as it could be read before `day`: rows known by then, later cells of theirs empty.

    `otherwise` is SQL per column for what a cell that was not known yet shows instead.
    """
    if not table.has_history:
        return f"SELECT * FROM {source}"
    moment, later = moment_of(day), otherwise or {}
    hidden = {
        c.name: f"CASE WHEN {c.known_from} < {moment} THEN {c.name} ELSE {later.get(c.name, 'NULL')} END"
        for c in table.columns
        if c.known_from != "known_at"
    }
    return f"SELECT * {replaced(hidden)} FROM {source} WHERE known_at < {moment}"


def moment_of(day: date) -> str:
    return f"TIMESTAMP '{day} 00:00:00'"


def replaced(columns: Mapping[str, str]) -> str:
    return f"REPLACE ({', '.join(f'{value} AS {name}' for name, value in columns.items())})" if columns else ""


def census(con: duckdb.DuckDBPyConnection, day: date) -> dict[str, list]:
    """Return how many facts of each table were known before `day`, and a digest of them, whatever their order.

    Two censuses of one day tell which tables have got facts of that time since. DuckDB's own row hash is used: a new
    version of DuckDB may give another digest.
    """
    out = {}
    for table in TABLES:
        columns = sorted(row[0] for row in con.execute(f"DESCRIBE {table.name}").fetchall())
        known = known_before(table, table.name, day)
        row = f"hash({', '.join(map(quote, columns))})"
        count, mixed, total = con.execute(
            f"SELECT count(*), bit_xor({row}), sum(CAST({row} AS HUGEINT)) FROM ({known})"
        ).fetchall()[0]
        out[table.name] = [count, f"{(mixed or 0) ^ (int(total or 0) % 2**64):016x}"]
    return out


def arrived(con: duckdb.DuckDBPyConnection, table: Table, begin: date, end: date, only: str = "true") -> bool:
    """Whether the table has facts that became known in [begin, end), cells that are known later than their row too."""
    if not table.has_history:
        return False
    moments = sorted({c.known_from for c in table.columns})
    inside = " OR ".join(f"({m} >= {moment_of(begin)} AND {m} < {moment_of(end)})" for m in moments)
    return bool(con.execute(f"SELECT 1 FROM {table.name} WHERE ({inside}) AND {only} LIMIT 1").fetchall())
