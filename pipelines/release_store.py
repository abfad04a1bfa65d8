"""Keep publications in the workspace: DuckDB and Parquet, one release after the other (see releases.py)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa

from features.casting import quote, text
from models.risk_columns import Table
from pipelines import releases
from pipelines.content import SQL_TYPE
from pipelines.ledger import VIEWS, Line

LEDGER = """
    CREATE TABLE IF NOT EXISTS publications (
        publication_id VARCHAR PRIMARY KEY, as_of DATE NOT NULL, revision INTEGER NOT NULL, status VARCHAR NOT NULL,
        digest VARCHAR NOT NULL, rows VARCHAR NOT NULL, model_versions VARCHAR NOT NULL,
        data_fingerprint VARCHAR NOT NULL, data_time TIMESTAMP, code_version VARCHAR NOT NULL,
        schema_version VARCHAR NOT NULL, published_at TIMESTAMP NOT NULL);
    ALTER TABLE publications ADD COLUMN IF NOT EXISTS data_time TIMESTAMP
"""


@dataclass(frozen=True, slots=True)
class ReleaseStore:
    """The releases of a workspace."""

    workspace: Path

    @contextmanager
    def reading(self) -> Iterator["ReleaseReader"]:
        with releases.plainly(self.workspace, "read"), self._open() as reader:
            yield reader

    @contextmanager
    def publishing(self, wait_seconds: float) -> Iterator["ReleaseWriter"]:
        with (
            releases.plainly(self.workspace, "publish to"),
            releases.lock(self.workspace, wait_seconds),
            self._open() as reader,
        ):
            yield ReleaseWriter(reader.con, reader.path, self.workspace)

    def path_after(self) -> Path:
        return releases.path_after(self.workspace, releases.current(self.workspace))

    @contextmanager
    def _open(self) -> Iterator["ReleaseReader"]:
        path = releases.current(self.workspace)
        database = str(path / "risk.duckdb") if path else ":memory:"
        with duckdb.connect(database, read_only=path is not None) as con:
            yield ReleaseReader(con, path)


@dataclass(frozen=True, slots=True)
class ReleaseReader:
    """The release that was the current one when it was opened; an empty database before the first."""

    con: duckdb.DuckDBPyConnection
    path: Path | None

    def ledger(self) -> list[Line]:
        if self.path is None:
            return []
        rows = self.con.sql("SELECT * FROM publications ORDER BY as_of, revision").to_arrow_table().to_pylist()
        return [Line.of(row) for row in rows]

    def kinds(self, table: str) -> dict[str, str]:
        return _kinds(self.con, table)

    def fixed(self, table: str, column: str) -> bool:
        return self.con.execute(f"SELECT count({quote(column)}) FROM {table}_history").fetchall() != [(0,)]

    def rows(self, table: str, publication_ids: Sequence[str], columns: Sequence[str] = ()) -> pa.Table:
        wanted = ", ".join(map(quote, columns)) or "*"
        marks = ", ".join("?" for _ in publication_ids) or "NULL"
        return self.con.sql(
            f"SELECT {wanted} FROM {table}_history WHERE publication_id IN ({marks}) ORDER BY rowid",
            params=[*publication_ids],
        ).to_arrow_table()


@dataclass(frozen=True, slots=True)
class ReleaseWriter(ReleaseReader):
    """The holder of the workspace's lock."""

    workspace: Path

    def write(
        self,
        line: Line,
        content: Mapping[str, pa.Table],
        contract: Mapping[str, Table],  # noqa: ARG002  (DuckDB takes the types of the content)
        shown: Line,
    ) -> Path | None:
        after = releases.path_after(self.workspace, self.path)
        with releases.next_release(self.workspace, without=_folder(line.as_of)) as folder:
            _write(folder, line, content, shown)
        return after


def _write(folder: Path, line: Line, content: Mapping[str, pa.Table], shown: Line) -> None:
    """Write the week into the database, then from there into Parquet, so both hold the same columns and rows."""
    with duckdb.connect(str(folder / "risk.duckdb")) as con:
        _record(con, line, content)
        for name in json.loads(shown.rows):
            week = folder / "tables" / name / _folder(line.as_of)
            week.mkdir(parents=True)
            # as_of is the name of the folder: pandas and pyarrow refuse a column that is in both
            rows = f"SELECT * EXCLUDE (as_of) FROM {name}_history WHERE publication_id = $1 ORDER BY rowid"
            target = text(str(week / f"{name}.parquet"))
            con.execute(f"COPY ({rows}) TO {target} (FORMAT parquet, COMPRESSION zstd)", [shown.publication_id])


def _record(con: duckdb.DuckDBPyConnection, line: Line, content: Mapping[str, pa.Table]) -> None:
    """Write the rows of every table and the line of the ledger in one transaction."""
    known = {name: _kinds(con, name) for name in content}
    con.begin()
    con.execute(LEDGER)
    for name, table in content.items():
        _append(con, name, table, known[name], [line.publication_id, line.as_of, line.schema_version])
    tables = con.execute("SELECT table_name FROM duckdb_tables() WHERE table_name LIKE '%\\_history' ESCAPE '\\'")
    for (name,) in tables.fetchall():
        for view, where in VIEWS.items():
            named = quote(name.removesuffix("history") + view)
            con.execute(f"CREATE OR REPLACE VIEW {named} AS SELECT * FROM {quote(name)} {where}")
    values = asdict(line)
    con.execute(
        f"INSERT INTO publications ({', '.join(values)}) VALUES ({', '.join('?' for _ in values)})", [*values.values()]
    )
    con.commit()
    con.execute("CHECKPOINT")


def _append(
    con: duckdb.DuckDBPyConnection, table: str, content: pa.Table, known: Mapping[str, str], added: list
) -> None:
    """Append the rows to the history of their table, which gains the columns it did not have."""
    con.register("incoming", content)
    rows = "SELECT $1 AS publication_id, CAST($2 AS DATE) AS as_of, $3 AS schema_version, * FROM incoming"
    if not known:
        con.execute(f"CREATE TABLE {table}_history AS {rows}", added)
    else:
        for field in content.schema:
            name, kind = quote(field.name), SQL_TYPE[field.type]
            if (was := known.get(field.name.lower())) is None:
                con.execute(f"ALTER TABLE {table}_history ADD {name} {kind}")
            elif was != kind:  # it has no value yet
                con.execute(f"ALTER TABLE {table}_history ALTER {name} TYPE {kind}")
        con.execute(f"INSERT INTO {table}_history BY NAME {rows}", added)
    con.unregister("incoming")


def _kinds(con: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    try:
        described = con.execute(f"DESCRIBE {quote(table + '_history')}").fetchall()
    except duckdb.CatalogException:  # asking duckdb_columns() instead takes 25 ms a connection
        return {}
    return {name.lower(): kind for name, kind, *_ in described}


def _folder(as_of: date) -> str:
    return f"as_of={as_of.isoformat()}"
