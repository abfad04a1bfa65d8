"""Build lines' inputs a partition of suppliers at a time: the same bytes for any number of them."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import duckdb
import numpy as np
import pandas as pd

from features.casting import quote, text
from features.contracts import PURCHASES, TABLES, Table
from features.core import Feature
from features.cut import OF_LINES, Cut
from features.matrix import (
    Across,
    Matrix,
    Request,
    attributes_as_numbers,
    line_inputs_of,
    lines_matrix,
    write_lines,
)
from features.standing import added, shared_counts
from pipelines.engines import Engine
from pipelines.files import scratch_folder
from pipelines.settings import UserError

R = TypeVar("R")
PART = "partition_number"  # as a column, and in the names of folders
LINES_AT_ONCE = 2_000_000  # purchase lines: inputs of two days take some three gigabytes to build
SERIES_AT_ONCE = 6_000  # series whose inputs, at 36 KB each, take a quarter of a gigabyte to build

Tables = tuple[pd.DataFrame, pd.DataFrame]  # rows and inputs


@dataclass(frozen=True, slots=True)
class Part:
    """Partition `number` of the facts written to `folder`, what is asked of it, and threads to read it with."""

    folder: Path
    number: int
    cut: Cut
    request: Request
    steps: tuple[int, ...]
    threads: int

    @property
    def file(self) -> Path:
        return self.folder / f"facts-{self.number}.duckdb"

    def open(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(self.file, read_only=True, config={"threads": self.threads})


@dataclass(frozen=True, slots=True)
class How:
    """On which engine, in how many partitions, and below which folder, one that all workers of the engine reach."""

    engine: Engine
    partitions: int
    scratch: Path


def partitions_for(con: duckdb.DuckDBPyConnection, engine: Engine, task: str = "delay") -> int:
    """Return how many partitions keep one small enough, and every worker of a cluster busy."""
    there, at_once = ("purchases", LINES_AT_ONCE) if task == "delay" else (
        "(SELECT DISTINCT product_id, site_id FROM orders)", SERIES_AT_ONCE
    )  # fmt: skip
    found = con.execute(f"SELECT count(*) FROM {there}").fetchall()[0][0]
    return max(-(-found // at_once), 4 * engine.slots if engine.slots > 1 else 1)


def partitioned(con: duckdb.DuckDBPyConnection, request: Request, steps: np.ndarray, *, at: str, how: How) -> Matrix:
    """Return what `delay_matrix`, or with `at` "order" `order_matrix`, does, in any order of rows.

    Like them it makes `line_history` of all lines in `con`; what else they make stays with the partitions.
    """
    with _parts(con, OF_LINES, request, steps, how) as parts:
        counts = added(how.engine.map(count, [(part,) for part in parts]))
        across = Across(counts, attributes_as_numbers(con, request))
        found = how.engine.map(build, [(part, at, across) for part in parts])
        _gather_history(con, parts)
    return together(found, line_inputs_of(con, request))


def together(found: Sequence[Tables], features: tuple[Feature, ...]) -> Matrix:
    """Return the rows and inputs of all partitions, one after the other."""
    rows, X = (pd.concat(_filled(tables), ignore_index=True) for tables in zip(*found, strict=True))
    return Matrix(rows, X, features)


@contextmanager
def _parts(
    con: duckdb.DuckDBPyConnection, cut: Cut, request: Request, steps: np.ndarray, how: How
) -> Iterator[list[Part]]:
    """Write the facts and hand out the partitions that have any, the first where none has."""
    with scratch(how.scratch) as folder:
        write_facts(con, cut, folder, how.partitions, request.attributes)
        asked = tuple(int(step) for step in steps)
        there = [k for k in range(how.partitions) if (folder / cut.tables[0].name / f"{PART}={k}").exists()] or [0]
        yield [Part(folder, k, cut, request, asked, how.engine.threads) for k in there]


@contextmanager
def scratch(below: Path) -> Iterator[Path]:
    """Hand out a folder for the parts of a run, which goes with the block."""
    folder = scratch_folder(below, "partitions-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _filled(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Return the tables with rows, or one without: its columns may be of any type."""
    return [table for table in tables if len(table)] or list(tables[:1])


def _gather_history(con: duckdb.DuckDBPyConnection, parts: Sequence[Part]) -> None:
    """Make `line_history` of all lines out of those of the partitions, its lines numbered as among all."""
    names = [f"{part.folder.name}_{part.number}".replace("-", "_") for part in parts]  # every connection sees them
    for part, name in zip(parts, names, strict=True):
        con.execute(f"ATTACH {text(str(part.file))} AS {quote(name)} (READ_ONLY)")
    every = " UNION ALL ".join(f"SELECT * EXCLUDE (line) FROM {quote(name)}.line_history" for name in names)
    con.execute(
        "CREATE OR REPLACE TABLE line_history AS SELECT "
        f"CAST(row_number() OVER (ORDER BY po_line_id) - 1 AS INTEGER) AS line, * FROM ({every})"
    )
    for name in names:
        con.execute(f"DETACH {quote(name)}")


def in_order(con: duckdb.DuckDBPyConnection, matrix: Matrix) -> Matrix:
    """Return the rows sorted by line, then as-of, with the numbers of lines that `line_history` of all has."""
    rows = _numbered(con, matrix, "line", ("po_line_id",), "line_history")
    return replace(matrix, rows=rows).take(np.lexsort((rows["step"], rows["line"])))


def _numbered(
    con: duckdb.DuckDBPyConnection, matrix: Matrix, number: str, key: Sequence[str], source: str
) -> pd.DataFrame:
    """Return the rows with `number` as the `source` has it for their key."""
    con.register("asked", matrix.rows[list(key)].assign(nth=np.arange(len(matrix.rows))))
    query = f"SELECT {number} FROM asked JOIN {source} USING ({', '.join(key)}) ORDER BY nth"
    found = con.execute(query).fetchnumpy()[number]
    con.unregister("asked")
    return matrix.rows.assign(**{number: np.asarray(found, matrix.rows[number].dtype)})


# What a worker does -------------------------------------------------------------------------------------------------


def write_facts(
    con: duckdb.DuckDBPyConnection, cut: Cut, folder: Path, partitions: int, attributes: Sequence[str] = ()
) -> None:
    """Write the facts of a side below `folder` as Parquet, those of a supplier or product all in one partition."""
    part = f"CAST(hash({cut.by}) % {partitions} AS INTEGER) AS {PART}"
    for table in cut.tables:
        own = _columns(table)
        columns = [f"f.{quote(c)}" for c in dict.fromkeys((*own, *(attributes if table is PURCHASES else ())))]
        query = f"SELECT {', '.join(columns)}, {part} FROM {cut.rows(table, table.name, 'purchases')}"
        con.execute(f"COPY ({query}) TO {text(str(folder / table.name))} (FORMAT parquet, PARTITION_BY ({PART}))")
        _copy(con, f"SELECT * EXCLUDE ({PART}) FROM ({query}) LIMIT 0", folder / f"{table.name}.parquet")
    for table in _whole(cut):
        columns = [quote(c) for c in _columns(table)]
        _copy(con, f"SELECT {', '.join(columns)} FROM {table.name}", folder / f"{table.name}.parquet")


def _whole(cut: Cut) -> list[Table]:
    return [table for table in TABLES if table.name in cut.whole]


def _columns(table: Table) -> list[str]:
    return [c.name for c in table.columns]


def _copy(con: duckdb.DuckDBPyConnection, query: str, file: Path) -> None:
    con.execute(f"COPY ({query}) TO {text(str(file))} (FORMAT parquet)")


@contextmanager
def draft(file: Path) -> Iterator[Path]:
    """Hand out a name to write to, which becomes `file` when all is written: a lost worker's half is not in the way."""
    draft = file.with_name(f".{uuid.uuid4().hex}.{file.name}")
    try:
        yield draft
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def _in_tables(part: Part, work: Callable[[duckdb.DuckDBPyConnection], R]) -> R:
    """Make the partition's tables, and what `work` adds to them, in a file of its own; return what `work` does."""
    if not part.folder.exists():
        raise UserError(f"a worker does not see {part.folder}; `scratch` must be a folder that all workers reach")
    with draft(part.file) as fresh, duckdb.connect(fresh, config={"threads": part.threads}) as con:
        for table in (*part.cut.tables, *_whole(part.cut)):
            files = [part.folder / f"{table.name}.parquet"]
            files += sorted((part.folder / table.name / f"{PART}={part.number}").glob("*.parquet"))
            listed = ", ".join(text(str(f)) for f in files)
            con.execute(
                f"CREATE TABLE {table.name} AS SELECT * FROM read_parquet([{listed}], hive_partitioning = false)"
            )
        return work(con)


def count(part: Part) -> pd.DataFrame:
    """Make the tables of the partition's lines; return `shared_counts` of them."""

    def work(con: duckdb.DuckDBPyConnection) -> pd.DataFrame:
        write_lines(con, part.request)
        return shared_counts(con, part.request.grid)

    return _in_tables(part, work)


def build(part: Part, at: str, across: Across) -> Tables:
    """Return rows and inputs of the partition's lines."""
    with part.open() as con:
        made = lines_matrix(con, part.request, np.array(part.steps, int), at=at, across=across)
    return made.rows, made.X
