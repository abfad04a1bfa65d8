"""Build the inputs of purchase lines a partition of suppliers at a time: the same bytes for any number of them."""

import os
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pandas as pd

from features.casting import quote, text
from features.contracts import PROMISES, PURCHASES, RECEIPTS, TABLES, Table
from features.matrix import Across, Matrix, Request, attributes_as_numbers, line_inputs_of, lines_matrix, write_lines
from features.standing import added, shared_counts
from pipelines.engines import Engine
from pipelines.settings import UserError

CUT = (PURCHASES, RECEIPTS, PROMISES)
WHOLE = tuple(table for table in TABLES if table.name in ("suppliers", "products", "sites", "signals"))
PART = "partition_number"  # as a column, and in the names of folders
LINES_AT_ONCE = 1_000_000  # purchase lines whose inputs, of one day, take about a gigabyte to build


@dataclass(frozen=True, slots=True)
class Part:
    """Partition `number` of the facts written to `folder`, what is asked of it, and threads to read it with."""

    folder: Path
    number: int
    request: Request
    steps: tuple[int, ...]
    at: str
    threads: int

    @property
    def file(self) -> Path:
        return self.folder / f"lines-{self.number}.duckdb"


def partitions_for(con: duckdb.DuckDBPyConnection, engine: Engine) -> int:
    """Return how many partitions keep one small enough, and every worker of a cluster busy."""
    lines = con.execute("SELECT count(*) FROM purchases").fetchall()[0][0]
    return max(-(-lines // LINES_AT_ONCE), 4 * engine.slots if engine.slots > 1 else 1)


def partitioned(
    con: duckdb.DuckDBPyConnection, request: Request, steps: np.ndarray, *, at: str, engine: Engine, partitions: int,
    scratch: Path,
) -> Matrix:  # fmt: skip
    """Return what `delay_matrix`, or with `at` "order" `order_matrix`, does, in any order of rows.

    The facts of every partition are written below `scratch`, a folder that all workers of the engine can reach.
    """
    _tidy(scratch)
    with TemporaryDirectory(prefix="partitions-", dir=scratch) as name:
        folder = Path(name).resolve()
        write_facts(con, folder, partitions, request.attributes)
        asked = tuple(int(step) for step in steps)
        parts = [Part(folder, k, request, asked, at, engine.threads) for k in _with_lines(folder, partitions)]
        counts = added(engine.map(count, [(part,) for part in parts]))
        across = Across(counts, attributes_as_numbers(con, request))
        found = engine.map(build, [(part, across) for part in parts])
    features = line_inputs_of(con, request)
    rows, X = (pd.concat(_filled(tables), ignore_index=True) for tables in zip(*found, strict=True))
    return Matrix(rows, X, features)


def _tidy(scratch: Path) -> None:
    """Make the folder, and remove what runs that were killed more than a day ago have left in it."""
    scratch.mkdir(parents=True, exist_ok=True)
    for left in scratch.glob("partitions-*"):
        if left.stat().st_mtime < time.time() - 86_400:
            shutil.rmtree(left, ignore_errors=True)


def _with_lines(folder: Path, partitions: int) -> list[int]:
    """Return the numbers of the partitions that have lines, the first where none has."""
    return [k for k in range(partitions) if (folder / PURCHASES.name / f"{PART}={k}").exists()] or [0]


def _filled(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Return the tables with rows, or one without: its columns may be of any type."""
    return [table for table in tables if len(table)] or list(tables[:1])


def in_order(con: duckdb.DuckDBPyConnection, matrix: Matrix) -> Matrix:
    """Return the rows sorted by line, then as-of, with the numbers of lines that `line_history` of all has."""
    con.register("asked_lines", matrix.rows[["po_line_id"]].assign(nth=np.arange(len(matrix.rows))))
    line = con.execute(
        "SELECT line FROM asked_lines JOIN line_history USING (po_line_id) ORDER BY nth"
    ).fetchnumpy()["line"]  # fmt: skip
    con.unregister("asked_lines")
    rows = matrix.rows.assign(line=np.asarray(line, np.int32))
    return replace(matrix, rows=rows).take(np.lexsort((rows["step"], rows["line"])))


# What a worker does -------------------------------------------------------------------------------------------------


def write_facts(con: duckdb.DuckDBPyConnection, folder: Path, partitions: int, attributes: Sequence[str] = ()) -> None:
    """Write the facts of purchase lines below `folder` as Parquet, those of a supplier all in one partition."""
    part = f"CAST(hash(supplier_id) % {partitions} AS INTEGER) AS {PART}"
    for table in CUT:
        columns = [
            f"f.{quote(c)}" for c in dict.fromkeys((*_columns(table), *(attributes if table is PURCHASES else ())))
        ]
        source = "purchases f" if table is PURCHASES else f"{table.name} f JOIN purchases p USING (po_line_id)"
        query = f"SELECT {', '.join(columns)}, {part} FROM {source}"
        con.execute(f"COPY ({query}) TO {text(str(folder / table.name))} (FORMAT parquet, PARTITION_BY ({PART}))")
        _copy(con, f"SELECT * EXCLUDE ({PART}) FROM ({query}) LIMIT 0", folder / f"{table.name}.parquet")
    for table in WHOLE:
        _copy(
            con, f"SELECT {', '.join(map(quote, _columns(table)))} FROM {table.name}", folder / f"{table.name}.parquet"
        )


def _columns(table: Table) -> list[str]:
    return [c.name for c in table.columns]


def _copy(con: duckdb.DuckDBPyConnection, query: str, file: Path) -> None:
    con.execute(f"COPY ({query}) TO {text(str(file))} (FORMAT parquet)")


def count(part: Part) -> pd.DataFrame:
    """Make the partition's tables in a file of its own, whole or not at all; return `shared_counts` of its lines."""
    if not part.folder.exists():
        raise UserError(f"a worker does not see {part.folder}; `scratch` must be a folder that all workers reach")
    draft = part.folder / f".{part.file.name}.{uuid.uuid4().hex}"  # a lost worker's half is in nobody's way
    try:
        with duckdb.connect(draft, config={"threads": part.threads}) as con:
            for table in (*CUT, *WHOLE):
                files = [part.folder / f"{table.name}.parquet"]
                files += sorted((part.folder / table.name / f"{PART}={part.number}").glob("*.parquet"))
                listed = ", ".join(text(str(f)) for f in files)
                con.execute(
                    f"CREATE TABLE {table.name} AS SELECT * FROM read_parquet([{listed}], hive_partitioning = false)"
                )
            write_lines(con, part.request)
            counts = shared_counts(con, part.request.grid)
        os.replace(draft, part.file)
    finally:
        draft.unlink(missing_ok=True)
    return counts


def build(part: Part, across: Across) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows and inputs of the partition's lines."""
    with duckdb.connect(part.file, read_only=True, config={"threads": part.threads}) as con:
        made = lines_matrix(con, part.request, np.array(part.steps, int), at=part.at, across=across)
    return made.rows, made.X
