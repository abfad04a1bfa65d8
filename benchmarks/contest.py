"""Let contenders do the same work in turns in one process; measure peak memory in a process for each."""

import gc
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

OURS = "bullwhip"


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody who can do a stage's work: `prepare` reads what the work starts from, untimed; `run` does it."""

    name: str
    prepare: Callable[[Path], Any]
    run: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """A piece of work, its contenders (bullwhip's own first) and what must be reached.

    `make(folder, scale)` writes the inputs and says how large they are. `targets` is, per peer, how many times our time
    the peer's must be at least; `at_most`, per reference, how many times the reference's time ours may be. `same` holds
    the answer of a peer against ours and returns the largest relative difference.
    """

    name: str
    make: Callable[[Path, float], str]
    contenders: tuple[Contender, ...]
    targets: Mapping[str, float]
    same: Callable[[Any, Any], float] | None = None
    at_most: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table: medians in seconds, the ratio of times round by round, peak memory in MB."""

    stage: str
    size: str
    peer: str
    ours: float
    theirs: float
    ratios: tuple[float, ...]
    target: float
    at_most: bool
    peaks: tuple[float, float] = (0.0, 0.0)
    note: str = ""

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool:
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


def race(stage: Stage, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return every contender's seconds per round; each round lets all run once, in turn, after one that warms up."""
    given = {c.name: c.prepare(folder) for c in stage.contenders}
    if stage.same is not None:
        own = stage.contenders[0].run(given[OURS])
        for c in stage.contenders[1:]:
            if (gap := stage.same(own, c.run(given[c.name]))) > 1e-3:
                raise AssertionError(f"{stage.name}: {c.name} and {OURS} differ by {gap:.2g}: not the same work")
        del own
    seconds: dict[str, list[float]] = {c.name: [] for c in stage.contenders}
    for _ in range(rounds):
        for c in stage.contenders:
            gc.collect()
            began = time.perf_counter()
            answer = c.run(given[c.name])
            seconds[c.name].append(time.perf_counter() - began)
            del answer
    return seconds


def compare(stage: Stage, folder: Path, size: str, rounds: int, *, memory: bool = True) -> list[Measured]:
    """Run the race on the inputs made in `folder` and return a line per peer."""
    peaks = {c.name: peak_memory(stage, c.name, folder) for c in stage.contenders} if memory else {}
    seconds = race(stage, folder, rounds)
    ours = seconds[OURS]
    out = []
    for name, theirs in seconds.items():
        if name != OURS:
            ratios = tuple(a / b if stage.at_most else b / a for a, b in zip(ours, theirs, strict=True))
            out.append(
                Measured(
                    stage.name, size, name, statistics.median(ours), statistics.median(theirs), ratios,
                    stage.targets.get(name, 0.0), stage.at_most, (peaks.get(OURS, 0.0), peaks.get(name, 0.0)),
                )
            )  # fmt: skip
    return out


def peak_memory(stage: Stage, contender: str, folder: Path) -> float:
    """Return the MB that one run takes at most in a fresh process, its imports and inputs among them."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, stage.make.__module__, stage.name, contender, folder).result()


def _peak(module: str, stage: str, contender: str, folder: Path) -> float:
    stages: Sequence[Stage] = import_module(module).STAGES
    mine = next(c for s in stages if s.name == stage for c in s.contenders if c.name == contender)
    given = mine.prepare(folder)
    mine.run(given)
    return _most_memory()


def _most_memory() -> float:
    """Return the MB this process held at most; Linux hands `ru_maxrss` down from the process that started it."""
    status = Path("/proc/self/status")
    told = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
    if "VmHWM" in told:
        return int(told["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
