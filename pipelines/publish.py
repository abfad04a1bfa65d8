"""Publish the risk tables of one week, whole or not at all, and read back what was published.

A target is a workspace (DuckDB and Parquet, see release_store.py) or the URL of a database (see sql_store.py). In
both, `<table>_history` holds every revision, `<table>_week` the one of every week that counts, `<table>_current` that
of the latest week, and `publications` the ledger.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa

from models.risk_columns import Table
from models.risk_contract import BY_NAME
from pipelines import releases
from pipelines.content import RESERVED, SQL_TYPE, PublishError, checked, digest
from pipelines.ledger import Line, Target, leading, line_of, nothing_published
from pipelines.releases import PublishConflict
from pipelines.settings import UserError
from pipelines.stores import Reader, as_frame, published_tables, store_of

TABLES = tuple(BY_NAME)


@dataclass(frozen=True, slots=True)
class Publication:
    """What a call to `publish` came to.

    `path` is the release folder that holds it, in a workspace. `leads` is false for a revision that came while one of
    newer data was published: it is in history, and readers see the other. A dry run says in `changes` what it would
    do to the week's tables.
    """

    status: str
    publication_id: str
    as_of: date
    revision: int
    digest: str
    rows: Mapping[str, int]
    path: Path | None
    leads: bool = True
    changes: Mapping[str, "Change"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """Rows of a table that a publication adds to, takes from and alters in what readers see of its week."""

    added: int
    removed: int
    changed: int


def publish(
    target: Target,
    tables: Mapping[str, pd.DataFrame],
    *,
    as_of: date,
    model_versions: Mapping[str, str],
    data_fingerprint: str,
    code_version: str,
    schema_version: str = "1",
    published_at: datetime,
    data_time: datetime | None = None,
    wait_seconds: float = 30.0,
    dry_run: bool = False,
    contract: Mapping[str, Table] = BY_NAME,
) -> Publication:
    """Publish one week: all its tables become visible at once, or nothing does.

    The same content for the same week again is `unchanged`, other content is its next revision (`revised`), and an
    older `as_of` fills history without moving `*_current`. Every table must hold to the `contract`: its columns and no
    others, unique keys, allowed values, and NULL (NaN, None, pandas NA) only where it says so. `data_time` is when the
    newest fact behind the tables became known: PublishConflict where the week is already out with newer data. A time
    without a time zone is UTC.
    """
    day = as_of.date() if isinstance(as_of, datetime) else as_of
    content = {name: checked(name, frame, contract) for name, frame in tables.items()}
    if not content:
        raise PublishError(f"no table to publish for {day}; hand in at least one of {', '.join(contract)}")
    line = Line(
        publication_id="", as_of=day, revision=0, status="", digest=digest(content, day, schema_version, contract),
        rows=json.dumps({name: table.num_rows for name, table in content.items()}, sort_keys=True),
        model_versions=json.dumps(dict(model_versions), sort_keys=True), data_fingerprint=data_fingerprint,
        data_time=_utc(data_time), code_version=code_version, schema_version=schema_version,
        published_at=_utc(published_at),
    )  # fmt: skip
    store = store_of(target)
    with store.reading() as reader:
        before = reader.ledger()
        if dry_run:
            planned = _plan(reader, content, line, before)
            changes = {name: _change(reader, before, contract[name], table, day) for name, table in content.items()}
            told = {"published": "would publish", "revised": "would revise"}
            path = reader.path if planned.status == "unchanged" else store.path_after()
            done = _outcome(planned, content, path, before)
            return replace(done, status=told.get(planned.status, planned.status), changes=changes)
    with store.publishing(wait_seconds) as writer:
        planned, path = _plan(writer, content, line, before), writer.path
        ledger = writer.ledger()
        if planned.status != "unchanged":
            shown = leading([*ledger, planned], day)
            assert shown is not None
            path = writer.write(planned, _fitting(writer, content), contract, shown)
        return _outcome(planned, content, path, ledger)


def read(target: Target, table: str, *, as_of: date | None = None, revision: int | None = None) -> pd.DataFrame:
    """Return one table as published: of the latest week and the revision that counts, unless told which."""
    with store_of(target).reading() as reader:
        line = line_of(reader.ledger(), target, as_of, revision)
        if not reader.kinds(table):
            raise UserError(f"{table} was never published; there are {', '.join(published_tables(reader))}")
        return as_frame(reader.rows(table, [line.publication_id]))


def previous_week(target: Target, table: str, as_of: date) -> pd.DataFrame:
    """Return the table of the latest week strictly before `as_of`; an empty frame when there was none."""
    with store_of(target).reading() as reader:
        ledger = [line for line in reader.ledger() if line.as_of < as_of]
        if not reader.kinds(table):
            return pd.DataFrame()
        before = leading(ledger, ledger[-1].as_of) if ledger else None
        return as_frame(reader.rows(table, [before.publication_id] if before else []))


def history(target: Target, table: str, since: date, before: date, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Return the revision that counts of every week with since ≤ as_of < before; an empty frame when there was none.

    `columns` are read besides as_of, where they were published; all are when none is named.
    """
    with store_of(target).reading() as reader:
        if not (known := reader.kinds(table)):
            return pd.DataFrame()
        ledger = [line for line in reader.ledger() if since <= line.as_of < before]
        weeks = [leading(ledger, day) for day in sorted({line.as_of for line in ledger})]
        wanted = ["as_of", *(c for c in columns if c in known)] if columns else []
        return as_frame(reader.rows(table, [line.publication_id for line in weeks if line], wanted))


def publications(target: Target) -> pd.DataFrame:
    """Return the ledger, one row per publication, oldest week first; `rows` and `model_versions` hold dicts."""
    with store_of(target).reading() as reader:
        line_of(lines := reader.ledger(), target)
    ledger = pd.DataFrame([asdict(line) for line in lines])
    days = {name: pd.to_datetime(ledger[name]) for name in ("as_of", "data_time", "published_at")}
    return ledger.assign(**days, **{name: ledger[name].map(json.loads) for name in ("rows", "model_versions")})


def again(
    source: Target, target: Target, as_of: date, *, published_at: datetime, dry_run: bool = False,
    contract: Mapping[str, Table] = BY_NAME,
) -> Publication:  # fmt: skip
    """Publish a week that one target holds into another, to move or to restore it; the same content is `unchanged`."""
    with store_of(source).reading() as reader:
        line = line_of(reader.ledger(), source, as_of)
        found = {name: reader.rows(name, [line.publication_id]) for name in json.loads(line.rows)}
    frames = {name: _as_handed_in(table, contract.get(name)) for name, table in found.items()}
    return publish(
        target, frames, as_of=line.as_of, model_versions=json.loads(line.model_versions),
        data_fingerprint=line.data_fingerprint, code_version=line.code_version, schema_version=line.schema_version,
        published_at=published_at, data_time=line.data_time, dry_run=dry_run, contract=contract,
    )  # fmt: skip


def _as_handed_in(rows: pa.Table, contract: Table | None) -> pd.DataFrame:
    """Return published rows without what publishing adds, and without columns that only other weeks fill."""
    needed = contract.needed if contract else ()
    mine = [c for c in rows.column_names if c not in RESERVED]
    filled = [c for c in mine if c in needed or not rows.num_rows or rows[c].null_count < rows.num_rows]
    return rows.select(filled).to_pandas(types_mapper=pd.ArrowDtype)


def grant_reader(target: Target, role: str) -> None:
    """Let a role of the target's database read what is published, and nothing else."""
    if isinstance(target, Path):
        raise UserError(
            f"{target} is a folder: who may read it is for its file system to say; roles are for PostgreSQL"
        )
    from pipelines.sql_store import SqlStore

    SqlStore(target).grant_reader(role)


def summary(done: Publication) -> dict[str, Any]:
    """Return what commands print of a publication; `changes` only of a dry run."""
    said = {
        "status": done.status, "publication_id": done.publication_id, "as_of": done.as_of, "revision": done.revision,
        "leads": done.leads, "rows": dict(done.rows),
    }  # fmt: skip
    return said | ({"changes": {name: asdict(c) for name, c in done.changes.items()}} if done.changes else {})


def release(workspace: Path) -> Path:
    """Return the folder of the current release. Read several files through it to see them all of one publication."""
    current = releases.current(workspace)
    if current is None:
        raise nothing_published(workspace)
    return current


def _utc(moment: datetime | None) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment and moment.tzinfo else moment  # type: ignore[return-value]


# What a publication comes to ------------------------------------------------------------------------------------------


def _plan(reader: Reader, content: Mapping[str, pa.Table], line: Line, before: Sequence[Line]) -> Line:
    """Return the line that publishing this content would write, or refuse; changes nothing.

    `before` is the ledger as it stood when the publisher came. Newer data in it refuses the line; newer data that was
    published meanwhile does not, both revisions are then in history.
    """
    for name, table in content.items():
        _refuse_changed_types(reader, name, table)
    ledger = reader.ledger()
    shown = leading(ledger, line.as_of)
    if shown is None:
        return replace(line, publication_id=f"{line.as_of}.r1", revision=1, status="published")
    if shown.digest == line.digest:
        return replace(shown, status="unchanged")
    if line.data_time and shown in before and (shown.data_time or line.data_time) > line.data_time:
        raise PublishConflict(
            f"{line.as_of} is out as {shown.publication_id} with data up to {shown.data_time:%Y-%m-%d %H:%M:%S} UTC,"
            f" this data ends {line.data_time:%Y-%m-%d %H:%M:%S} UTC; read the newer data, then publish again"
        )
    revision = 1 + max(known.revision for known in ledger if known.as_of == line.as_of)
    data_time = line.data_time or shown.data_time  # who does not know is as new as what is there
    identity = f"{line.as_of}.r{revision}"
    return replace(line, publication_id=identity, revision=revision, status="revised", data_time=data_time)


def _refuse_changed_types(reader: Reader, table: str, content: pa.Table) -> None:
    for name, kind in _unfit(reader, table, content).items():
        if content[name].null_count < content.num_rows and reader.fixed(table, name):
            came = SQL_TYPE[content[name].type]
            raise PublishError(
                f"{table}.{name} came as {came} but was published as {kind} before; hand it in as {kind} or rename it"
            )


def _unfit(reader: Reader, table: str, content: pa.Table) -> dict[str, str]:
    """Return the columns whose type is not the published one, with that."""
    kinds, known = {f.name: SQL_TYPE[f.type] for f in content.schema}, reader.kinds(table)
    return {name: known[name.lower()] for name, kind in kinds.items() if known.get(name.lower(), kind) != kind}


def _fitting(reader: Reader, content: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the content less columns that are nothing but NULL and were published under another type."""
    out = {}
    for name, table in content.items():
        empty = [c for c in _unfit(reader, name, table) if table[c].null_count == table.num_rows]
        out[name] = table.drop_columns(empty) if empty else table
    return out


def _outcome(line: Line, content: Mapping[str, pa.Table], path: Path | None, ledger: Sequence[Line]) -> Publication:
    shown = leading([*ledger, line], line.as_of)
    return Publication(
        status=line.status, publication_id=line.publication_id, as_of=line.as_of, revision=line.revision,
        digest=line.digest, rows=MappingProxyType({name: table.num_rows for name, table in content.items()}), path=path,
        leads=shown is not None and shown.publication_id == line.publication_id,
    )  # fmt: skip


def _change(reader: Reader, ledger: Sequence[Line], contract: Table, content: pa.Table, as_of: date) -> Change:
    """Compare the rows of a table, by its key, with what readers see of the week."""
    shown = leading(ledger, as_of)
    if shown is None or not reader.kinds(contract.name):
        return Change(content.num_rows, 0, 0)
    columns = [c for c in content.column_names if c.lower() in reader.kinds(contract.name)]
    key, wanted = ", ".join(contract.key), ", ".join(f'"{c}"' for c in columns)
    with duckdb.connect() as con:
        con.register("new", content.select(columns))
        con.register("old", reader.rows(contract.name, [shown.publication_id], columns))
        counts = con.execute(f"""SELECT
            (SELECT count(*) FROM new ANTI JOIN old USING ({key})),
            (SELECT count(*) FROM old ANTI JOIN new USING ({key})),
            (SELECT count(*) FROM (SELECT {wanted} FROM new EXCEPT SELECT {wanted} FROM old))""").fetchall()[0]
    return Change(counts[0], counts[1], counts[2] - counts[0])
