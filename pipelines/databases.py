"""Copy input tables out of a DuckDB file or any database SQLAlchemy speaks to, without ever showing a password."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from features.casting import quote, text
from features.contracts import TABLES
from pipelines.addresses import mask
from pipelines.settings import Unreachable, UserError

CHUNK = 100_000


def read(url: str, con: duckdb.DuckDBPyConnection) -> Mapping[str, str]:
    """Copy the tables and views that have a contract name into `con`, and return {table: relation}."""
    if url.startswith("duckdb:"):
        return _from_file(make_url(url).database or "", con)
    engine = engine_of(url)
    place = engine.url
    _refuse_missing_file(place)
    try:
        with engine.connect() as connection:
            there = sa.inspect(connection)
            wanted = _wanted([*there.get_table_names(), *there.get_view_names()])
            return {name: _copy(connection, there_name, name, con) for name, there_name in wanted.items()}
    except sa.exc.SQLAlchemyError as error:
        raise Unreachable(f"database {mask(url)} does not answer: {without_password(error, place)}") from None
    finally:
        engine.dispose()


def _wanted(names: Sequence[str]) -> dict[str, str]:
    """Return {table: its name there} of the tables that are there, whatever their case."""
    by_case = {n.casefold(): n for n in sorted(names)}
    return {t.name: by_case[t.name] for t in TABLES if t.name in by_case}


def _from_file(path: str, con: duckdb.DuckDBPyConnection) -> Mapping[str, str]:
    """Copy the tables of a DuckDB file, which no driver is needed for and whose types stay."""
    if not Path(path).is_file():
        raise Unreachable(f"there is no DuckDB file {path}; a full path needs four slashes: duckdb:////…")
    try:
        con.execute(f"ATTACH {text(path)} AS there (READ_ONLY)")
        found = con.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_catalog = 'there' AND table_schema = 'main'"
        ).fetchall()
        wanted = _wanted([row[0] for row in found])
        for name, there_name in wanted.items():
            con.execute(f"CREATE OR REPLACE TABLE {quote(f'raw_{name}')} AS FROM there.main.{quote(there_name)}")
        con.execute("DETACH there")
    except duckdb.Error as error:
        raise Unreachable(f"DuckDB file {path} cannot be read: {' '.join(str(error).split())}") from None
    return {name: f"raw_{name}" for name in wanted}


def engine_of(url: str, wait_seconds: float = 30) -> sa.Engine:
    """Return an engine without a pool that waits this long for a lock; what SQL it runs is never logged."""
    try:
        place = make_url(url)
        if place.drivername in ("postgres", "postgresql"):
            place = place.set(drivername="postgresql+psycopg")
        options: dict[str, Any] = {}
        if place.get_backend_name() == "sqlite":
            options = {"timeout": wait_seconds, "isolation_level": None}  # we say ourselves when a transaction begins
        elif place.get_backend_name() == "postgresql" and "connect_timeout" not in place.query:
            options = {"connect_timeout": 10}
        return sa.create_engine(place, poolclass=NullPool, hide_parameters=True, connect_args=options)
    except (sa.exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise UserError(f"{mask(url)} needs a driver that is not installed: {error}") from None
    except sa.exc.ArgumentError:
        raise UserError(f"{mask(url)} is not a database URL; expected dialect+driver://user@host/name") from None


def _refuse_missing_file(place: URL) -> None:
    """SQLite would make a new, empty file where none is."""
    file = place.database if place.get_backend_name() == "sqlite" else None
    if file and file != ":memory:" and not Path(file).is_file():
        raise Unreachable(f"there is no database file {file}; a full path needs four slashes: sqlite:////…")


def without_password(error: Exception, place: URL) -> str:
    """Return what a database said, in one line that never shows the password of its URL."""
    cause = getattr(error, "orig", None) or error
    primary = getattr(getattr(cause, "diag", None), "message_primary", None)  # the rest may show rows
    said = mask(" ".join(str(primary or cause).split()))
    return said.replace(str(place.password), "***") if place.password else said


def _copy(connection: sa.Connection, there_name: str, name: str, con: duckdb.DuckDBPyConnection) -> str:
    target = f"raw_{name}"
    query = sa.select(sa.text("*")).select_from(sa.table(there_name))
    result = connection.execution_options(stream_results=True, max_row_buffer=CHUNK).execute(query)
    columns = list(result.keys())
    con.execute(f"CREATE OR REPLACE TABLE {quote(target)} ({', '.join(f'{quote(c)} VARCHAR' for c in columns)})")
    for rows in result.partitions(CHUNK):
        chunk = pa.table([_as_text(column) for column in zip(*rows, strict=True)], names=columns)
        con.register("__chunk", chunk)
        con.execute(f"INSERT INTO {quote(target)} SELECT * FROM __chunk")
        con.unregister("__chunk")
    return target


def _as_text(values: Sequence[Any]) -> pa.Array:
    """Return the cells as text that reads back as the same value; drivers mix types within a column."""
    return pa.array([v if v is None or v.__class__ is str else _cell(v) for v in values], type=pa.string())


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | Decimal) and value == value and -1e15 < value < 1e15 and value == int(value):
        return str(int(value))
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return value.isoformat(*" " * hasattr(value, "hour")) if hasattr(value, "isoformat") else str(value)


def prepare(url: str, schemas: Sequence[str]) -> None:
    """Make the schemas that are not there yet; Unreachable, in one line, when the database does not let us in."""
    place = make_url(url)
    engine = sa.create_engine(place, connect_args={"connect_timeout": 5}, poolclass=sa.NullPool)
    try:
        with engine.begin() as connection:
            there = sa.inspect(connection).get_schema_names()
            for schema in schemas:
                if schema not in there:
                    connection.execute(sa.schema.CreateSchema(schema, if_not_exists=True))
    except sa.exc.SQLAlchemyError as error:
        said = without_password(error, place)
        raise Unreachable(f"database {mask(url)} cannot be used: {said}; correct BULLWHIP_DATABASE") from None
