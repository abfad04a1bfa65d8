"""Inputs, scores and a training on Dask, one worker of one thread next to two: what a second worker is worth."""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from benchmarks.chain import END, write_chain
from models import forecasters, lessons
from models.forecasters import Forecaster
from pipelines import engines
from pipelines.learn import learn, prepare, training
from pipelines.registered import RegisteredModel
from pipelines.scored import RegisteredChampion, score_delays, score_shifts
from pipelines.settings import Settings, load
from pipelines.world import NO_PROOF, World, delay_rows, open_world, request, request_of, shift_rows

R = TypeVar("R")
PURCHASES, ORDERS = 1_000_000, 10_000_000  # 572,380 lines of them open; 20,000 series
RECENT = 0.8  # share of the purchase lines that is ordered in the last weeks
TAUGHT = {"orders": 500_000, "purchases": 20_000}  # the chain that the forecasters have learnt from
PARTITIONS = 8
TASKS = {"delay": (delay_rows, score_delays), "shift": (shift_rows, score_shifts)}
START, LEARNT = "starting workers", "both tasks: learnt"
NAMES = {"delay": "lines", "shift": "windows"}


def settings_of(folder: Path) -> Settings:
    (folder / "bullwhip.toml").write_text(f'as_of = {END}\ncountry = "DE"\nattributes = ["ship_mode"]\n')
    return load(folder)


def teach(folder: Path) -> None:
    """Write a forecaster of each task, taught by a small chain, below `folder`."""
    write_chain(folder / "data", **TAUGHT)
    cut = np.datetime64(END, "D")
    with open_world(settings_of(folder), END) as world:
        for task in TASKS:
            rows = prepare(world, task, request(world, task), judged_from=cut)
            (folder / task).mkdir()
            lessons.fit(rows, cut, training(world.settings, 1)).save(folder / task)


class Clock:
    """Seconds of each piece of work, and how many of them were spent waiting for workers."""

    def __init__(self) -> None:
        self.waited = 0.0
        self.found: dict[str, tuple[float, float]] = {}

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        before, began = self.waited, time.perf_counter()
        yield
        waited = 0.0 if name == LEARNT else self.waited - before  # two tasks wait at the same time there
        self.found[name] = time.perf_counter() - began, waited

    def watching(self, engine: engines.Engine) -> engines.Engine:
        """Return the engine with its waiting clocked."""

        def watched(work: Callable[..., R], each: Sequence[tuple[Any, ...]]) -> list[R]:
            began = time.perf_counter()
            try:
                return engine.map(work, each)
            finally:
                self.waited += time.perf_counter() - began

        return replace(engine, map=watched)


class Watched(engines.Connection):
    """The engine of a run, clocked."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def to(self, settings: Settings) -> engines.Engine:
        return self._clock.watching(super().to(settings))


@contextmanager
def workers(world: World, number: int, clock: Clock) -> Iterator[World]:
    """Hand out the world with so many workers of one thread each, their start clocked."""
    cluster = {"engine": "dask", "threads": number, "partitions": PARTITIONS}
    settings = world.settings.model_copy(update=cluster)
    there = replace(world, settings=settings, workers=Watched(clock))
    try:
        with clock.timing(START):
            assert there.engine.slots == number
        yield there
    finally:
        there.workers.close()


def measure(world: World, taught: Mapping[str, Forecaster], number: int, scratch: Path) -> tuple[Clock, dict[str, Any]]:
    """Return the seconds of each part with so many workers, and the tables they made."""
    clock, tables = Clock(), {}
    with workers(world, number, clock) as there:
        for task, (rows_of, score) in TASKS.items():
            forecaster = taught[task]
            asked = request_of(there, forecaster)
            last = np.array([asked.grid.size - 1])
            champion = RegisteredChampion("1", forecaster, RegisteredModel("", "1", scratch, {}, {}, ""))
            with clock.timing(f"{NAMES[task]}: inputs"):
                found = rows_of(there, asked, last, NO_PROOF)
            with clock.timing(f"{NAMES[task]}: scores"):
                scored = score(there, champion, None)
            tables |= {f"{task} rows": found.rows, f"{task} inputs": found.X, task: scored.table}
            del found, scored
        with clock.timing(LEARNT), ThreadPoolExecutor(len(TASKS)) as pool:
            learnt = dict(zip(TASKS, pool.map(lambda task: learn(there, task, 1), TASKS), strict=True))
        tables |= {f"{task} walk-forward": one.walk for task, one in learnt.items()}
    return clock, tables


def same(mine: Mapping[str, pd.DataFrame], others: Mapping[str, pd.DataFrame]) -> None:
    """Raise AssertionError where two runs differ, inputs at all and scores by more than 1e-6."""
    for name, table in mine.items():
        exact = name not in TASKS
        pd.testing.assert_frame_equal(table, others[name], check_exact=exact, rtol=0, atol=0 if exact else 1e-6)


def as_markdown(found: Mapping[int, Sequence[Clock]]) -> str:
    """Return the table: medians with one worker and with two, their ratio, and what nobody but the asker did."""
    names = [name for name in found[1][0].found if name != LEARNT]
    parts = {name: [name] for name in names}
    parts |= {"inputs and scores": names[1:], "the same, with the start of workers": names, LEARNT: [LEARNT]}
    columns = ("part", "one worker, s", "two, s", "ratio", "of it workers', s", "ratio", "the asker's, s")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, of in parts.items():
        whole, waited = (
            {n: [sum(clock.found[part][k] for part in of) for clock in clocks] for n, clocks in found.items()}
            for k in (0, 1)
        )
        ratios = [a / b for a, b in zip(whole[1], whole[2], strict=True)]
        (a, b), (c, d) = ([statistics.median(each[n]) for n in (1, 2)] for each in (whole, waited))
        workers = f"{c:.1f}, {d:.1f} | {c / d:.2f}" if d else "|"
        lines.append(
            f"| {name} | {a:.1f} | {b:.1f} | {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] "
            f"| {workers} | {a - c:.1f}, {b - d:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure one worker and two in turns, hold their tables together, and print what came of it."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    words.add_argument("--scale", type=float, default=1.0, help="share of the full size")
    words.add_argument("--prepare", action="store_true", help="make the chains in --folder, and no more")
    words.add_argument("--rounds", type=int, default=1, help="rounds in which one worker and two take turns")
    words.add_argument("--folder", type=Path, help="where the chains are kept for the next time")
    given = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="bullwhip-bench-cluster-") as scratch:
        folder = given.folder or Path(scratch)
        large = folder / "large"
        if not large.exists():
            write_chain(
                large / "data", orders=round(ORDERS * given.scale), purchases=round(PURCHASES * given.scale),
                recent=RECENT,
            )  # fmt: skip
            teach(folder / "small")
        if given.prepare:
            return 0
        taught = {task: forecasters.load(folder / "small" / task) for task in TASKS}
        found: dict[int, list[Clock]] = {1: [], 2: []}
        with open_world(settings_of(large), END) as world:
            for _ in range(given.rounds):
                tables = {}
                for number, clocks in found.items():
                    clock, tables[number] = measure(world, taught, number, Path(scratch))
                    clocks.append(clock)
                    print(number, clock.found, file=sys.stderr, flush=True)
                same(tables[1], tables[2])
    print(as_markdown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
