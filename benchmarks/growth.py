"""How the cost of each part of a run grows with orders, purchase lines, suppliers and weeks: four sizes of each."""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.chain import END, write_chain
from features.counts import weekly_counts
from features.matrix import delay_matrix, shift_matrix
from features.panels import write_line_events, write_line_history
from models import lessons
from models.risk_contract import SCHEMA_VERSION
from pipelines import publish
from pipelines.learn import prepare, training
from pipelines.registered import RegisteredModel
from pipelines.scored import RegisteredChampion, Scored, rounded, score_delays, score_shifts
from pipelines.settings import load
from pipelines.world import World, open_world, request

TIMES = (1, 2, 4, 8)
BY_HAND = "\n## A hundred million"  # where the part of the page begins that is written by hand
HEAD = """\
# How cost grows

Seconds of processor time per part, each chain in a process of its own: one of {base},
and the same with two, four and eight times as many of one thing, or of three at once. Models are fitted in one thread.
The exponent is the slope of log seconds on log size; it is far below 1 where a start counts most, or where a sample is
learnt from. MB are the peak of the process after the part. Each size was run once, beside other
work, by which seconds of processor swing. Made by `python -m benchmarks.growth`, {day}.
"""


@dataclass(frozen=True)
class Size:
    """How large a chain is."""

    orders: int = 500_000
    purchases: int = 50_000
    suppliers: int = 100
    weeks: int = 78

    def __str__(self) -> str:
        return (
            f"{self.orders:,} order lines, {self.purchases:,} purchase lines, {self.suppliers:,} suppliers, "
            f"{self.weeks:,} weeks"
        )

    def grown(self, things: tuple[str, ...], times: int) -> "Size":
        """Return a chain that has so many times as much of these things."""
        return replace(self, **{thing: times * getattr(self, thing) for thing in things})


AXES = {
    "order lines": ("orders",),
    "purchase lines": ("purchases",),
    "suppliers": ("suppliers",),
    "weeks, over which the same lines are spread and learnt from": ("weeks",),
    "order lines, purchase lines and suppliers together": ("orders", "purchases", "suppliers"),
}


def parts(folder: Path, weeks: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what a run consists of: names, and the work in its order."""
    (folder / "bullwhip.toml").write_text(
        f'as_of = {END}\ncountry = "DE"\nattributes = ["ship_mode"]\nhistory_weeks = {weeks}\n'
    )
    settings = load(folder)
    kept: dict[str, Any] = {}

    def keep(name: str, work: Callable[[], Any]) -> Callable[[], None]:
        return lambda: kept.update({name: work()})

    yield "the door: read, check, fingerprint", keep("world", lambda: open_world(settings, END))
    world: World = kept["world"]
    delay, shift = request(world, "delay"), request(world, "shift")
    last = {asked: np.array([asked.grid.size - 1]) for asked in (delay, shift)}
    today = np.datetime64(END, "D")

    def history() -> None:
        write_line_history(world.con, delay.terms, delay.attributes)
        write_line_events(world.con, delay.grid, delay.terms)

    yield "purchase lines: history and events", history
    yield "purchase lines: inputs of the open ones", lambda: delay_matrix(world.con, delay, last[delay])
    yield "orders: weekly counts", lambda: weekly_counts(world.con, shift.grid)
    yield "windows: inputs of the last week", lambda: shift_matrix(world.con, shift, last[shift])
    for task, asked, things in (("delay", delay, "purchase lines"), ("shift", shift, "windows")):
        yield (
            f"{things} to learn from: rows, proof, labels",
            keep(task, lambda t=task, a=asked: prepare(world, t, a, judged_from=today)),
        )
        yield (
            f"{things}: models and rules fitted",
            keep(task, lambda t=task: lessons.fit(kept[t], today, training(settings, threads=1))),
        )
    for task, score, things in (("delay", score_delays, "purchase lines"), ("shift", score_shifts, "windows")):
        champion = RegisteredChampion("1", kept[task], RegisteredModel("", "1", folder, {}, {}, ""))
        yield (
            f"{things}: scored, with proof and reasons",
            keep(f"{task} scored", lambda s=score, c=champion: s(world, c, None)),
        )
    yield "published", lambda: _publish(folder, kept["delay scored"], kept["shift scored"])
    world.__exit__(None)


def _publish(folder: Path, *scored: Scored) -> None:
    publish.publish(
        folder, rounded({part.name: part.table for part in scored}), as_of=END, model_versions={"delay": "1"},
        data_fingerprint="", code_version="", published_at=datetime.now(UTC), schema_version=SCHEMA_VERSION,
    )  # fmt: skip


Cost = tuple[float, float]  # processor seconds, peak MB


def measure(size: Size) -> dict[str, Cost]:
    """Return what each part costs for a chain of this size."""
    out = {}
    with tempfile.TemporaryDirectory(prefix="bullwhip-growth-") as scratch:
        write_chain(
            Path(scratch) / "data", orders=size.orders, purchases=size.purchases, weeks=size.weeks,
            suppliers=size.suppliers,
        )  # fmt: skip
        for name, work in parts(Path(scratch), size.weeks):
            began = time.process_time()
            work()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            out[name] = (time.process_time() - began, peak)
    return out


def main() -> int:
    """Measure four sizes of everything and write benchmarks/GROWTH.md."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    words.add_argument("--share", type=float, default=1.0, help="share of the order and purchase lines to start from")
    words.add_argument("--write", type=Path, default=Path(__file__).parent / "GROWTH.md")
    given = words.parse_args()
    start = Size()
    start = replace(
        start, orders=round(start.orders * given.share), purchases=max(round(start.purchases * given.share), 4_000)
    )
    found: dict[Size, dict[str, Cost]] = {}
    for things in AXES.values():
        for size in (start.grown(things, times) for times in TIMES):
            if size not in found:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    found[size] = pool.submit(measure, size).result()
                print(f"{size}: {found[size]}", file=sys.stderr, flush=True)
    before = given.write.read_text() if given.write.exists() else ""
    _, begins, kept = before.partition(BY_HAND)
    given.write.write_text(as_markdown(start, found) + begins + kept)
    print(given.write.read_text())
    return 0


def as_markdown(start: Size, found: dict[Size, dict[str, Cost]]) -> str:
    """Return a table per thing that grows: seconds of each part at its four sizes, the exponent, and MB at the last."""
    lines = [HEAD.format(base=start, day=f"{datetime.now(UTC):%Y-%m-%d}")]
    for axis, things in AXES.items():
        sizes = [start.grown(things, times) for times in TIMES]
        heads = [" + ".join(f"{getattr(size, thing):,}" for thing in things) for size in sizes]
        lines += [
            f"## {axis[0].upper()}{axis[1:]}", "", f"| part | {' | '.join(heads)} | exponent | MB at the last |",
            "|---" * (len(sizes) + 3) + "|",
        ]  # fmt: skip
        for name in found[start]:
            seconds = [found[size][name][0] for size in sizes]
            slope = np.polyfit(np.log(TIMES), np.log(np.maximum(seconds, 1e-2)), 1)[0]
            peak = found[sizes[-1]][name][1]
            lines.append(f"| {name} | {' | '.join(f'{s:.2f}' for s in seconds)} | {slope:.2f} | {peak:,.0f} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
