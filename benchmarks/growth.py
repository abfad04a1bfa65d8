"""How the cost of each part of a run grows with the number of lines: four sizes, a process each, and the exponents."""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.chain import END, write_chain
from features.counts import weekly_counts
from features.matrix import delay_matrix, shift_matrix
from features.panels import write_line_events, write_line_history
from pipelines.learn import prepare
from pipelines.settings import load
from pipelines.world import open_world, request

FULL_ORDERS, FULL_PURCHASES = 100_000_000, 10_000_000
HEAD = """\
# How cost grows

Seconds of processor time (all threads) per part, for chains of so many order and purchase lines over three years, each
size in a process of its own; memory is its peak after the part. The exponent is the slope of log seconds on log lines.
Made by `python -m benchmarks.growth`.
"""


def parts(folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what a run consists of before models: names, and the work in its order."""
    (folder / "bullwhip.toml").write_text(f'as_of = {END}\ncountry = "DE"\nattributes = ["ship_mode"]\n')
    settings = load(folder)
    kept: list[Any] = []
    yield "the door: read, check, fingerprint", lambda: kept.append(open_world(settings, END))
    world = kept[0]
    delay, shift = request(world, "delay"), request(world, "shift")
    last = {asked: np.array([asked.grid.size - 1]) for asked in (delay, shift)}
    today = np.datetime64(END, "D")

    def history() -> None:
        write_line_history(world.con, delay.terms, delay.attributes)
        write_line_events(world.con, delay.grid, delay.terms)

    yield "purchase lines: history and events", history
    yield "to score: inputs of the open lines", lambda: delay_matrix(world.con, delay, last[delay])
    yield "orders: weekly counts", lambda: weekly_counts(world.con, shift.grid)
    yield "to score: inputs of the windows", lambda: shift_matrix(world.con, shift, last[shift])
    yield "to train: lines, proven and labelled", lambda: prepare(world, "delay", delay, judged_from=today)
    yield "to train: windows, proven and labelled", lambda: prepare(world, "shift", shift, judged_from=today)
    world.__exit__(None)


def measure(share: float) -> dict[str, tuple[float, float]]:
    """Return processor seconds and peak MB per part for a chain of this share of the full size."""
    out = {}
    with tempfile.TemporaryDirectory(prefix="bullwhip-growth-") as scratch:
        write_chain(Path(scratch) / "data", orders=round(FULL_ORDERS * share), purchases=round(FULL_PURCHASES * share))
        for name, work in parts(Path(scratch)):
            began = time.process_time()
            work()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            out[name] = (time.process_time() - began, peak)
    return out


def main() -> int:
    """Measure four sizes and write benchmarks/GROWTH.md."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    words.add_argument("--share", type=float, default=0.1, help="share of the full size in the largest run")
    words.add_argument("--write", type=Path, default=Path(__file__).parent / "GROWTH.md")
    given = words.parse_args()
    shares = [given.share / 8, given.share / 4, given.share / 2, given.share]
    found = []
    for share in shares:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(measure, share).result())
        print(f"{share:g}: {found[-1]}", file=sys.stderr, flush=True)
    _, begins, kept = (given.write.read_text() if given.write.exists() else "").partition("\n## ")  # written by hand
    given.write.write_text(as_markdown(shares, found) + begins + kept)
    print(given.write.read_text())
    return 0


def as_markdown(shares: list[float], found: list[dict[str, tuple[float, float]]]) -> str:
    """Return a row per part: seconds and MB of each size, the exponent, and the largest size drawn on to the full."""
    sizes = [f"{FULL_ORDERS * s:,.0f} + {FULL_PURCHASES * s:,.0f}" for s in shares]
    lines = [HEAD, f"| part | {' | '.join(sizes)} | exponent | MB at the largest |", "|---" * (len(sizes) + 3) + "|"]
    for name in found[0]:
        seconds = [run[name][0] for run in found]
        slope = np.polyfit(np.log(shares), np.log(np.maximum(seconds, 1e-3)), 1)[0]
        lines.append(
            f"| {name} | {' | '.join(f'{s:.2f}' for s in seconds)} | {slope:.2f} | {found[-1][name][1]:,.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
