"""Build inputs a partition of suppliers, or of products, at a time: the same bytes for any number of them."""

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import duckdb
import numpy as np
import pandas as pd

from features.casting import quote, text
from features.contracts import PURCHASES, TABLES, Table
from features.core import Feature
from features.counts import COUNTED_FOR, weekly_counts
from features.cut import OF_LINES, OF_SERIES, Cut
from features.demand import SERIES, numbered_series
from features.exact import Shared
from features.exact import added as all_added
from features.matrix import (
    Across,
    Matrix,
    Request,
    attributes_as_numbers,
    line_inputs_of,
    lines_matrix,
    shift_matrix,
    window_inputs_of,
    write_lines,
)
from features.standing import added, shared_counts
from features.weeks import Grid
from pipelines.engines import Engine
from pipelines.settings import UserError

R = TypeVar("R")
PART = "partition_number"  # as a column, and in the names of folders
LINES_AT_ONCE = 2_000_000  # purchase lines: inputs of two days take some three gigabytes to build
SERIES_AT_ONCE = 40_000  # series whose inputs, at 36 KB each, take about 1.5 gigabytes to build

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
    """Return what `delay_matrix`, or with `at` "order" `order_matrix`, does, in any order of rows."""
    with _parts(con, OF_LINES, request, steps, how) as parts:
        counts = added(how.engine.map(count, [(part,) for part in parts]))
        across = Across(counts, attributes_as_numbers(con, request))
        found = how.engine.map(build, [(part, at, across) for part in parts])
    return _together(found, line_inputs_of(con, request))


def partitioned_windows(con: duckdb.DuckDBPyConnection, request: Request, steps: np.ndarray, *, how: How) -> Matrix:
    """Return what `shift_matrix` does, in any order of rows and with numbers of series that only their partition knows.

    Partitions are gone through again for each thing that series share, with what is known of it so far.
    """
    answers: list[Shared] = []
    with _parts(con, OF_SERIES, request, steps, how) as parts:
        how.engine.map(count_weeks, [(part,) for part in parts])
        while True:
            found: list[Any] = how.engine.map(build_windows, [(part, tuple(answers)) for part in parts])
            built = [made for made in found if isinstance(made, tuple)]
            if built:
                return _together(built, window_inputs_of(con, request))
            answers.append(all_added(found))


def _together(found: Sequence[Tables], features: tuple[Feature, ...]) -> Matrix:
    rows, X = (pd.concat(_filled(tables), ignore_index=True) for tables in zip(*found, strict=True))
    return Matrix(rows, X, features)


@contextmanager
def _parts(
    con: duckdb.DuckDBPyConnection, cut: Cut, request: Request, steps: np.ndarray, how: How
) -> Iterator[list[Part]]:
    """Write the facts and hand out the partitions that have any, the first where none has."""
    _tidy(how.scratch)
    with TemporaryDirectory(prefix="partitions-", dir=how.scratch) as name:
        folder = Path(name).resolve()
        write_facts(con, cut, folder, how.partitions, request.attributes)
        asked = tuple(int(step) for step in steps)
        there = [k for k in range(how.partitions) if (folder / cut.tables[0].name / f"{PART}={k}").exists()] or [0]
        yield [Part(folder, k, cut, request, asked, how.engine.threads) for k in there]


def _tidy(scratch: Path) -> None:
    """Make the folder, and remove what runs that were killed more than a day ago have left in it."""
    scratch.mkdir(parents=True, exist_ok=True)
    for left in scratch.glob("partitions-*"):
        if left.stat().st_mtime < time.time() - 86_400:
            shutil.rmtree(left, ignore_errors=True)


def _filled(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Return the tables with rows, or one without: its columns may be of any type."""
    return [table for table in tables if len(table)] or list(tables[:1])


def in_order(con: duckdb.DuckDBPyConnection, matrix: Matrix) -> Matrix:
    """Return the rows sorted by line, then as-of, with the numbers of lines that `line_history` of all has."""
    rows = _numbered(con, matrix, "line", ("po_line_id",), "line_history")
    return replace(matrix, rows=rows).take(np.lexsort((rows["step"], rows["line"])))


def windows_in_order(con: duckdb.DuckDBPyConnection, matrix: Matrix, grid: Grid) -> Matrix:
    """Return the rows sorted by window, as-of and series, with the numbers that series have among all."""
    rows = _numbered(con, matrix, "entity", SERIES, f"({numbered_series(grid)})")
    return replace(matrix, rows=rows).take(np.lexsort((rows["entity"], rows["step"], rows["window"])))


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
def _draft(file: Path) -> Iterator[Path]:
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
    with _draft(part.file) as draft, duckdb.connect(draft, config={"threads": part.threads}) as con:
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


def count_weeks(part: Part) -> None:
    """Make the tables of the partition's series and count their weeks."""
    series, cells = _in_tables(part, lambda con: weekly_counts(con, part.request.grid))
    with _draft(part.file.with_suffix(".npz")) as draft:
        names = {key: series[key].to_numpy(str) for key in COUNTED_FOR}
        np.savez(draft, allow_pickle=False, **cells, **names)


class Unanswered(Exception):
    """What is shared is not known yet; `mine` is what this partition adds to it."""

    def __init__(self, mine: Shared) -> None:
        super().__init__()
        self.mine = mine


def build_windows(part: Part, answers: Sequence[Shared]) -> Tables | dict[str, Any]:
    """Return rows and inputs of the partition's series, or what they add to the first thing not among `answers`."""
    told = iter(answers)

    def ask(mine: Shared) -> Shared:
        for answer in told:
            return answer
        raise Unanswered(mine)

    with np.load(part.file.with_suffix(".npz")) as kept, part.open() as con:
        series = pd.DataFrame({key: kept[key].astype(object) for key in COUNTED_FOR})
        request, steps = part.request, np.array(part.steps, int)
        try:
            made, _ = shift_matrix(con, request, steps, ask=ask, counted=lambda *_: (series, kept))
        except Unanswered as asked:
            return dict(asked.mine)
    return made.rows, made.X
