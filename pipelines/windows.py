"""Build windows' inputs some series at a time: the same bytes for any number of parts, and nothing worked out twice."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from features.casting import quote, text
from features.contracts import TABLES
from features.counts import COUNTED_FOR, MEASURES, counts_of, series_of
from features.cut import OF_SERIES
from features.exact import Kept, Made, Shared, as_added
from features.exact import added as all_added
from features.matrix import Matrix, Request, shift_matrix, window_inputs_of
from pipelines.partitions import How, Tables, draft, scratch, together

READ = (*OF_SERIES.whole, *(table.name for table in OF_SERIES.tables if table.name != "orders"))


@dataclass(frozen=True, slots=True)
class Some:
    """The series from `begin` to `end` of `every` whose weeks are counted in `folder`, and what is asked of them."""

    folder: Path
    number: int
    begin: int
    end: int
    every: int
    request: Request
    steps: tuple[int, ...]
    threads: int

    def open(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(self.folder / "facts.duckdb", read_only=True, config={"threads": self.threads})

    def series(self) -> pd.DataFrame:
        with np.load(self.folder / "series.npz") as kept:
            return pd.DataFrame({key: kept[key][self.begin : self.end].astype(object) for key in COUNTED_FOR})


class _Counts(Mapping[str, np.ndarray]):
    """The counts [step, series] of some series, each measure read when it is asked for."""

    def __init__(self, of: Some) -> None:
        self._of = of

    def __getitem__(self, measure: str) -> np.ndarray:
        some = self._of
        out = np.empty((some.request.grid.size, some.end - some.begin))
        with (some.folder / measure).open("rb", buffering=0) as file:
            for step, row in enumerate(out):
                file.seek(row.itemsize * (step * some.every + some.begin))
                file.readinto(row.data)
        return out

    def __iter__(self) -> Iterator[str]:
        return iter(MEASURES)

    def __len__(self) -> int:
        return len(MEASURES)


def partitioned_windows(con: duckdb.DuckDBPyConnection, request: Request, steps: np.ndarray, *, how: How) -> Matrix:
    """Return what `shift_matrix` does.

    Weeks are counted once, for all series. Partitions are gone through again for each thing that series share, with
    what is known of it so far and what was worked out before.
    """
    with scratch(how.scratch) as folder:
        parts = _write(con, request, steps, folder, how)
        answers: dict[str, Shared] = {}
        while True:
            found = how.engine.map(build_windows, [(part, answers) for part in parts])
            asked = [made for made in found if isinstance(made, Question)]
            if not asked:
                break
            answers |= {asked[0].name: asked[0].made(all_added([question.mine for question in asked]))}
    made = together([made for made in found if isinstance(made, tuple)], window_inputs_of(con, request))
    rows = made.rows
    return made.take(np.lexsort((rows["entity"], rows["step"], rows["window"])))


def _write(
    con: duckdb.DuckDBPyConnection, request: Request, steps: np.ndarray, folder: Path, how: How
) -> list[Some]:  # fmt: skip
    """Write the series, their counts and the other facts; return the parts, no product in two of them."""
    with series_of(con, request.grid) as (numbers, series), ExitStack() as files:
        np.savez(folder / "series.npz", allow_pickle=False, **{key: series[key].to_numpy(str) for key in COUNTED_FOR})
        file = {measure: files.enter_context((folder / measure).open("wb")) for measure in MEASURES}
        for measure, cells in counts_of(con, numbers, request.grid):
            file[measure].write(np.ascontiguousarray(cells).data)
    _write_facts(con, folder / "facts.duckdb")
    edges = _edges(series["product_id"].to_numpy(), how.partitions)
    asked, threads = tuple(int(step) for step in steps), how.engine.threads
    return [
        Some(folder, k, begin, end, len(series), request, asked, threads)
        for k, (begin, end) in enumerate(pairwise(edges))
    ]


def _write_facts(con: duckdb.DuckDBPyConnection, file: Path) -> None:
    name = f"facts_{file.parent.name.replace('-', '_')}"  # what is attached is seen by every connection
    con.execute(f"ATTACH {text(str(file))} AS {name}")
    for table in TABLES:
        if table.name in READ:
            columns = ", ".join(quote(c.name) for c in table.columns)
            con.execute(f"CREATE TABLE {name}.main.{table.name} AS SELECT {columns} FROM {table.name}")
    con.execute(f"DETACH {name}")


def _edges(product: np.ndarray, parts: int) -> list[int]:
    """Return where parts of about as many series each begin, each with a new product, and where the last one ends."""
    begins = np.flatnonzero(product[1:] != product[:-1]) + 1
    wanted = np.linspace(0, len(product), parts + 1)[1:-1]
    inner = begins[np.searchsorted(begins, wanted[wanted <= begins.max(initial=0)])]
    return [0, *map(int, np.unique(inner)), len(product)]


# What a worker does -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """Something shared that is not known yet, what a partition adds to it, and what is made of the sums."""

    name: str
    mine: Shared
    made: Made


class Unanswered(Exception):
    """What is shared is not known yet."""

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.question = question


class _Elsewhere:
    """What is known of the series of other partitions so far, and what was worked out of these before."""

    def __init__(self, part: Some, answers: Mapping[str, Shared]) -> None:
        self._part, self._answers = part, answers

    def told(self, name: str, mine: Callable[[], Shared], made: Made = as_added) -> Shared:
        if name not in self._answers:
            raise Unanswered(Question(name, mine(), made))
        return self._answers[name]

    def once(self, name: str, work: Callable[[], Kept]) -> Kept:
        file = self._part.folder / f"{name} {self._part.number}.npz"
        if file.exists():
            return np.load(file)
        made = work()
        with draft(file) as fresh:
            np.savez(fresh, allow_pickle=False, **made)
        return made


def build_windows(part: Some, answers: Mapping[str, Shared]) -> Tables | Question:
    """Return rows and inputs of the partition's series, or what they add to the first thing not among `answers`."""
    with part.open() as con:
        try:
            made, _ = shift_matrix(
                con, part.request, np.array(part.steps, int), others=_Elsewhere(part, answers),
                counted=lambda *_: (part.series(), _Counts(part)),
            )  # fmt: skip
        except Unanswered as stopped:
            return stopped.question
    return made.rows.assign(entity=made.rows["entity"] + part.begin), made.X
