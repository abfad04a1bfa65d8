"""Publish the risk tables of one week, whole or not at all.

A publication is a copy of the current release with one more week in it, made current by one swap (see releases.py).
In `risk.duckdb`, `<table>_history` holds every revision, `<table>_week` the latest of every week, `<table>_current` the
latest of the latest week, and `publications` the ledger. `tables/` holds what `<table>_week` holds, as Parquet.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import releases
from pipelines.releases import PublishConflict as PublishConflict
from pipelines.releases import TargetError as TargetError
from pipelines.settings import UserError

TABLES = ("supplier_delay_risk", "demand_shift_risk", "supplier_risk", "watchlist", "rule_forecasts", "track_record")
ADDED = ("publication_id", "as_of", "schema_version")
ANY_NULLABLE: Mapping[str, Collection[str]] = MappingProxyType({})

SQL_TYPE = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
}
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


class PublishError(UserError):
    """The tables handed in break the contract of the risk tables."""

    exit_code = 3


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
    workspace: Path,
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
    nullable: Mapping[str, Collection[str]] = ANY_NULLABLE,
) -> Publication:
    """Publish one week: all its tables become visible at once, or nothing does.

    The same content for the same week again is `unchanged`, other content is its next revision (`revised`), and an
    older `as_of` fills history without moving `*_current`. NULL is None or pandas NA; NaN is refused, except in the
    columns that `nullable` names per table, where it becomes NULL. `published_at` without a time zone is UTC.
    """
    day = as_of.date() if isinstance(as_of, datetime) else as_of
    content = {name: _checked(name, frame, nullable.get(name, ())) for name, frame in tables.items()}
    if not content:
        raise PublishError(f"no table to publish for {day}; hand in at least one of {', '.join(TABLES)}")
    digest = _digest(content, day, schema_version)
    facts = {
        "model_versions": json.dumps(dict(model_versions), sort_keys=True),
        "data_fingerprint": data_fingerprint,
        "code_version": code_version,
        "schema_version": schema_version,
        "published_at": published_at.astimezone(UTC).replace(tzinfo=None) if published_at.tzinfo else published_at,
    }
    with releases.plainly(workspace, "publish to"):
        if dry_run:
            plan = _plan(workspace, content, day, digest)
            told = {"published": "would publish", "revised": "would revise"}
            return replace(plan, status=told.get(plan.status, plan.status))
        with releases.lock(workspace, wait_seconds):
            plan = _plan(workspace, content, day, digest)
            if plan.status != "unchanged":
                with releases.next_release(workspace, without=_folder(day)) as folder:
                    _write(folder, plan, content, facts)
            return plan


def release(workspace: Path) -> Path:
    """Return the folder of the current release. Read several files through it to see them all of one publication."""
    current = releases.current(workspace)
    if current is None:
        raise UserError(f"nothing published yet in {workspace}, run bullwhip score")
    return current


def read(workspace: Path, table: str, *, as_of: date | None = None, revision: int | None = None) -> pd.DataFrame:
    """Return one table as published: of the latest week and its latest revision, unless told which."""
    with _database(workspace) as con:
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


def previous_week(workspace: Path, table: str, as_of: date) -> pd.DataFrame:
    """Return the table of the latest week strictly before `as_of`; an empty frame when there was none."""
    if releases.current(workspace) is None:
        return pd.DataFrame()
    with _database(workspace) as con:
        before = con.execute(
            "SELECT publication_id FROM publications WHERE as_of < $1 ORDER BY as_of DESC, revision DESC LIMIT 1",
            [as_of],
        ).fetchall()
        if not _history(con, table):
            return pd.DataFrame()
        return _rows(con, table, before[0][0] if before else None)


def history(workspace: Path, table: str, since: date, before: date, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Return the latest revision of every week with since ≤ as_of < before; an empty frame when there was none.

    `columns` are read besides as_of, where they were published; all are when none is named.
    """
    if releases.current(workspace) is None:
        return pd.DataFrame()
    with _database(workspace) as con:
        if not (known := _history(con, table)):
            return pd.DataFrame()
        wanted = ", ".join(["as_of", *(_quoted(c) for c in columns if c in known)]) if columns else "*"
        return con.execute(f"SELECT {wanted} FROM {table}_week WHERE as_of >= $1 AND as_of < $2", [since, before]).df()


def publications(workspace: Path) -> pd.DataFrame:
    """Return the ledger, one row per publication, oldest week first; `rows` and `model_versions` hold dicts."""
    with _database(workspace) as con:
        ledger = con.execute("SELECT * FROM publications ORDER BY as_of, revision").df()
    return ledger.assign(**{name: ledger[name].map(json.loads) for name in ("rows", "model_versions")})


# What is handed in: one Arrow table of few types per frame, and the digest of its content


def _checked(table: str, frame: pd.DataFrame, nullable: Collection[str]) -> pa.Table:
    """Return the frame as Arrow columns of the six published types, or say which value breaks the contract."""
    if table not in TABLES:
        raise PublishError(f"{table} is not a risk table; expected {', '.join(TABLES)}")
    names = [str(name) for name in frame.columns]
    folded = [name.lower() for name in names]
    if twice := sorted({name for name in folded if folded.count(name) > 1}):
        raise PublishError(f"{table} has columns of the same name (case does not count): {', '.join(twice)}")
    if reserved := [name for name in ADDED if name in folded]:
        raise PublishError(f"{table} brings {', '.join(reserved)}, which publishing adds itself; hand it in without")
    if not names:
        raise PublishError(f"{table} has no columns; hand in an empty table with its columns, or leave it out")
    named = frame.set_axis(names, axis="columns")
    return pa.table({name: _column(table, named, name, name in nullable) for name in names})


def _column(table: str, frame: pd.DataFrame, name: str, nullable: bool) -> pa.Array:
    values = frame[name]
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values = values.dt.tz_convert(None)
    try:
        # from_pandas would turn NaN into NULL unseen; without it, dates and texts in object columns do not convert
        column = pa.array(values, from_pandas=True)
        if pa.types.is_floating(column.type):
            column = pa.array(values, from_pandas=False)
        column = _narrowed(column)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise PublishError(f"{table}.{name} ({values.dtype}) is not text, number, boolean or date: {reason}") from error
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if column.type == pa.float64():
        if nullable:
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
        _refuse(table, frame, name, pc.invert(pc.is_finite(column)), "NaN or infinite")
    if name.startswith("p_") and column.type != pa.null():
        if column.type not in (pa.float64(), pa.int64()):
            raise PublishError(
                f"{table}.{name} is {SQL_TYPE[column.type]}; a column named p_… is a probability in [0, 1]"
            )
        _refuse(table, frame, name, pc.or_(pc.less(column, 0), pc.greater(column, 1)), "outside [0, 1]")
    return column


def _narrowed(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _narrowed(column.dictionary_decode())
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us"), safe=False)
    for is_kind, target in (
        (pa.types.is_integer, pa.int64()),
        (pa.types.is_floating, pa.float64()),
        (pa.types.is_large_string, pa.string()),
        (pa.types.is_date, pa.date32()),
    ):
        if is_kind(kind):
            return column.cast(target)
    if kind not in SQL_TYPE and kind != pa.null():
        raise pa.ArrowTypeError(f"it came as {kind}")
    return column


def _refuse(table: str, frame: pd.DataFrame, name: str, bad: pa.Array, what: str) -> None:
    """Raise, naming the first bad row by its id columns, when `bad` is true anywhere."""
    where = np.flatnonzero(bad.fill_null(False).to_numpy(zero_copy_only=False))
    if not len(where):
        return
    keys = [key for key in frame.columns if str(key).endswith("_id")][:3] or list(frame.columns[:1])
    first = frame.iloc[int(where[0])]
    row = ", ".join(f"{key}={first[key]}" for key in keys)
    value = first[name]
    raise PublishError(
        f"{table}.{name} is {what} in {len(where)} of {len(frame)} rows, first {value} at {row}; nothing was published"
    )


def _digest(tables: Mapping[str, pa.Table], as_of: date, schema_version: str) -> str:
    """Return the sha256 of the content: order of rows and columns does not count, nor does a column without a value."""
    content = hashlib.sha256(json.dumps([as_of.isoformat(), schema_version]).encode())
    for name, table in sorted(tables.items()):
        filled = sorted(c for c in table.column_names if table[c].null_count < table.num_rows)
        kinds = [[c, SQL_TYPE[table[c].type]] for c in filled]
        content.update(json.dumps([name, table.num_rows, kinds]).encode())
        if filled:
            for column in _in_canonical_order(table.select(filled)).columns:
                content.update(np.asarray(column.is_null()).tobytes())
                content.update(_bytes(column))
    return content.hexdigest()


def _in_canonical_order(table: pa.Table) -> pa.Table:
    for at, field in enumerate(table.schema):
        if field.type == pa.float64():
            table = table.set_column(at, field.name, pc.add(table[at], 0.0))  # −0.0 equals 0.0, its bytes do not
    return table.sort_by([(name, "ascending") for name in table.column_names])


def _bytes(column: pa.ChunkedArray) -> bytes:
    if column.type == pa.string():
        return json.dumps(column.fill_null("").to_pylist()).encode()
    if column.type == pa.float64():
        return np.asarray(column.fill_null(0.0)).astype("<f8").tobytes()
    if column.type == pa.date32():
        column = column.cast(pa.int32())
    return np.asarray(column.cast(pa.int64()).fill_null(0)).astype("<i8").tobytes()


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
    kinds = {f.name: SQL_TYPE.get(f.type) for f in content.schema}
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
    typed = [(f.name, pa.string() if f.type == pa.null() else f.type) for f in content.schema]
    content = content.cast(pa.schema(typed))
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
