"""Publish the risk tables of one week, whole or not at all.

A publication is a copy of the current release with one more week in it, made current by one swap (see releases.py).
In `risk.duckdb`, `<table>_history` holds every revision, `<table>_week` the latest of every week, `<table>_current` the
latest of the latest week, and `publications` the ledger. `tables/` holds what `<table>_week` holds, as Parquet.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa

from models.risk_contract import BY_NAME, Table
from pipelines import releases
from pipelines.content import SQL_TYPE, checked, digest
from pipelines.content import PublishError as PublishError
from pipelines.releases import PublishConflict as PublishConflict
from pipelines.releases import TargetError as TargetError
from pipelines.settings import UserError

TABLES = tuple(BY_NAME)

LEDGER = """
    CREATE TABLE IF NOT EXISTS publications (
        publication_id VARCHAR PRIMARY KEY, as_of DATE NOT NULL, revision INTEGER NOT NULL, status VARCHAR NOT NULL,
        digest VARCHAR NOT NULL, rows VARCHAR NOT NULL, model_versions VARCHAR NOT NULL,
        data_fingerprint VARCHAR NOT NULL, code_version VARCHAR NOT NULL, schema_version VARCHAR NOT NULL,
        published_at TIMESTAMP NOT NULL)
"""
VIEWS = """
    CREATE OR REPLACE VIEW {table}_week AS SELECT * FROM {table}_history WHERE publication_id IN
        (SELECT max_by(publication_id, revision) FROM publications GROUP BY as_of);
    CREATE OR REPLACE VIEW {table}_current AS SELECT * FROM {table}_history WHERE publication_id =
        (SELECT publication_id FROM publications ORDER BY as_of DESC, revision DESC LIMIT 1);
"""


@dataclass(frozen=True, slots=True)
class Publication:
    """What a call to `publish` came to; `path` is the release folder that holds it."""

    status: str
    publication_id: str
    as_of: date
    revision: int
    digest: str
    rows: Mapping[str, int]
    path: Path


def publish(
    target: Path,
    tables: Mapping[str, pd.DataFrame],
    *,
    as_of: date,
    model_versions: Mapping[str, str],
    data_fingerprint: str,
    code_version: str,
    schema_version: str = "1",
    published_at: datetime,
    wait_seconds: float = 30.0,
    dry_run: bool = False,
    contract: Mapping[str, Table] = BY_NAME,
) -> Publication:
    """Publish one week: all its tables become visible at once, or nothing does.

    The same content for the same week again is `unchanged`, other content is its next revision (`revised`), and an
    older `as_of` fills history without moving `*_current`. Every table must hold to the `contract`: its columns and no
    others, unique keys, allowed values, and NULL (NaN, None, pandas NA) only where it says so. `published_at` without a
    time zone is UTC.
    """
    day = as_of.date() if isinstance(as_of, datetime) else as_of
    content = {name: checked(name, frame, contract) for name, frame in tables.items()}
    if not content:
        raise PublishError(f"no table to publish for {day}; hand in at least one of {', '.join(contract)}")
    said = digest(content, day, schema_version)
    facts = {
        "model_versions": json.dumps(dict(model_versions), sort_keys=True),
        "data_fingerprint": data_fingerprint,
        "code_version": code_version,
        "schema_version": schema_version,
        "published_at": published_at.astimezone(UTC).replace(tzinfo=None) if published_at.tzinfo else published_at,
    }
    with releases.plainly(target, "publish to"):
        if dry_run:
            plan = _plan(target, content, day, said)
            told = {"published": "would publish", "revised": "would revise"}
            return replace(plan, status=told.get(plan.status, plan.status))
        with releases.lock(target, wait_seconds):
            plan = _plan(target, content, day, said)
            if plan.status != "unchanged":
                with releases.next_release(target, without=_folder(day)) as folder:
                    _write(folder, plan, content, facts)
            return plan


def release(workspace: Path) -> Path:
    """Return the folder of the current release. Read several files through it to see them all of one publication."""
    current = releases.current(workspace)
    if current is None:
        raise UserError(f"nothing published yet in {workspace}, run bullwhip score")
    return current


def read(target: Path, table: str, *, as_of: date | None = None, revision: int | None = None) -> pd.DataFrame:
    """Return one table as published: of the latest week and its latest revision, unless told which."""
    with _database(target) as con:
        wanted = con.execute(
            "SELECT publication_id FROM publications WHERE as_of = coalesce($1, (SELECT max(as_of) FROM publications))"
            " AND revision = coalesce($2, revision) ORDER BY revision DESC LIMIT 1",
            [as_of, revision],
        ).fetchall()
        if not wanted:
            known = con.execute("SELECT publication_id FROM publications ORDER BY as_of, revision").fetchall()
            asked = f"{as_of or 'the latest week'}" + (f", revision {revision}" if revision else "")
            raise UserError(f"{asked} was never published; there are {', '.join(line[0] for line in known[-10:])}")
        return _rows(con, table, wanted[0][0])


def previous_week(target: Path, table: str, as_of: date) -> pd.DataFrame:
    """Return the table of the latest week strictly before `as_of`; an empty frame when there was none."""
    if releases.current(target) is None:
        return pd.DataFrame()
    with _database(target) as con:
        before = con.execute(
            "SELECT publication_id FROM publications WHERE as_of < $1 ORDER BY as_of DESC, revision DESC LIMIT 1",
            [as_of],
        ).fetchall()
        if not _history(con, table):
            return pd.DataFrame()
        return _rows(con, table, before[0][0] if before else None)


def history(target: Path, table: str, since: date, before: date, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Return the latest revision of every week with since ≤ as_of < before; an empty frame when there was none.

    `columns` are read besides as_of, where they were published; all are when none is named.
    """
    if releases.current(target) is None:
        return pd.DataFrame()
    with _database(target) as con:
        if not (known := _history(con, table)):
            return pd.DataFrame()
        wanted = ", ".join(["as_of", *(_quoted(c) for c in columns if c in known)]) if columns else "*"
        return con.execute(f"SELECT {wanted} FROM {table}_week WHERE as_of >= $1 AND as_of < $2", [since, before]).df()


def publications(target: Path) -> pd.DataFrame:
    """Return the ledger, one row per publication, oldest week first; `rows` and `model_versions` hold dicts."""
    with _database(target) as con:
        ledger = con.execute("SELECT * FROM publications ORDER BY as_of, revision").df()
    return ledger.assign(**{name: ledger[name].map(json.loads) for name in ("rows", "model_versions")})


# Inside the database of a release


def _history(con: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Return the published columns of a risk table in lower case with their types, none when it never was published."""
    try:
        described = con.execute(f"DESCRIBE {_quoted(table + '_history')}").fetchall()
    except duckdb.CatalogException:  # asking duckdb_columns() instead takes 25 ms a connection
        return {}
    return {name.lower(): kind for name, kind, *_ in described}


def _rows(con: duckdb.DuckDBPyConnection, table: str, publication_id: str | None) -> pd.DataFrame:
    """Return the rows of one publication in the order they were handed in."""
    if not _history(con, table):
        known = [name for name in TABLES if _history(con, name)]
        raise UserError(f"{table} was never published; there are {', '.join(known)}")
    return con.execute(f"SELECT * FROM {table}_history WHERE publication_id = $1 ORDER BY rowid", [publication_id]).df()


def _unfit(known: Mapping[str, str], content: pa.Table) -> dict[str, str]:
    """Return the columns whose type is not that of history, with the published type."""
    kinds = {f.name: SQL_TYPE[f.type] for f in content.schema}
    return {name: known[name.lower()] for name, kind in kinds.items() if known.get(name.lower(), kind) != kind}


def _refuse_changed_types(con: duckdb.DuckDBPyConnection, table: str, content: pa.Table) -> None:
    for name, kind in _unfit(_history(con, table), content).items():
        if content[name].null_count < content.num_rows and _has_values(con, table, name):
            came = SQL_TYPE[content[name].type]
            raise PublishError(
                f"{table}.{name} came as {came} but was published as {kind} before; hand it in as {kind} or rename it"
            )


def _has_values(con: duckdb.DuckDBPyConnection, table: str, column: str) -> bool:
    return con.execute(f"SELECT count({_quoted(column)}) FROM {table}_history").fetchall() != [(0,)]


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _append(
    con: duckdb.DuckDBPyConnection, table: str, content: pa.Table, known: Mapping[str, str], added: list
) -> None:
    """Append the rows to the history of their table, which gains the columns it did not have."""
    for name in _unfit(known, content):
        if content[name].null_count == content.num_rows:
            content = content.drop_columns([name])  # nothing but NULL: the column keeps its type
        else:
            con.execute(f"ALTER TABLE {table}_history ALTER {_quoted(name)} TYPE {SQL_TYPE[content[name].type]}")
    con.register("incoming", content)
    rows = "SELECT $1 AS publication_id, CAST($2 AS DATE) AS as_of, $3 AS schema_version, * FROM incoming"
    if not known:
        con.execute(f"CREATE TABLE {table}_history AS {rows}", added)
    else:
        for field in content.schema:
            if field.name.lower() not in known:
                con.execute(f"ALTER TABLE {table}_history ADD {_quoted(field.name)} {SQL_TYPE[field.type]}")
        con.execute(f"INSERT INTO {table}_history BY NAME {rows}", added)
    con.unregister("incoming")


def _record(
    con: duckdb.DuckDBPyConnection, plan: Publication, content: Mapping[str, pa.Table], facts: Mapping[str, Any]
) -> None:
    """Write the rows of every table and the line of the ledger in one transaction."""
    known = {name: _history(con, name) for name in content}
    con.begin()
    con.execute(LEDGER)
    for name, table in content.items():
        _append(con, name, table, known[name], [plan.publication_id, plan.as_of, facts["schema_version"]])
        con.execute(VIEWS.format(table=name))
    line = {name: getattr(plan, name) for name in ("publication_id", "as_of", "revision", "status", "digest")}
    line |= {"rows": json.dumps(dict(plan.rows), sort_keys=True), **facts}
    con.execute(
        f"INSERT INTO publications ({', '.join(line)}) VALUES ({', '.join('?' for _ in line)})", list(line.values())
    )
    con.commit()
    con.execute("CHECKPOINT")


# What a publication comes to, and writing it


@contextmanager
def _database(workspace: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    database = release(workspace) / "risk.duckdb"
    with releases.plainly(workspace, "read"), duckdb.connect(str(database), read_only=True) as con:
        yield con


def _plan(workspace: Path, content: Mapping[str, pa.Table], as_of: date, digest: str) -> Publication:
    """Return what publishing this content would come to, or refuse; changes nothing."""
    status, revision, path = "published", 1, releases.path_after(workspace, current := releases.current(workspace))
    if current is not None:
        with _database(workspace) as con:
            for name, table in content.items():
                _refuse_changed_types(con, name, table)
            latest = "SELECT revision, digest FROM publications WHERE as_of = $1 ORDER BY revision DESC LIMIT 1"
            for known, known_digest in con.execute(latest, [as_of]).fetchall():
                if known_digest == digest:
                    status, revision, path = "unchanged", known, current
                else:
                    status, revision = "revised", known + 1
    return Publication(
        status=status,
        publication_id=f"{as_of.isoformat()}.r{revision}",
        as_of=as_of,
        revision=revision,
        digest=digest,
        rows=MappingProxyType({name: table.num_rows for name, table in content.items()}),
        path=path,
    )


def _write(folder: Path, plan: Publication, content: Mapping[str, pa.Table], facts: Mapping[str, Any]) -> None:
    """Write the week into the database, then from there into Parquet, so both hold the same columns and rows."""
    with duckdb.connect(str(folder / "risk.duckdb")) as con:
        _record(con, plan, content, facts)
        for name in content:
            week = folder / "tables" / name / _folder(plan.as_of)
            week.mkdir(parents=True)
            # as_of is the name of the folder: pandas and pyarrow refuse a column that is in both
            rows = f"SELECT * EXCLUDE (as_of) FROM {name}_history WHERE publication_id = $1 ORDER BY rowid"
            target = str(week / f"{name}.parquet").replace("'", "''")
            con.execute(f"COPY ({rows}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)", [plan.publication_id])


def _folder(as_of: date) -> str:
    return f"as_of={as_of.isoformat()}"
