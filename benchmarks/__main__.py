"""Measure bullwhip next to its peers and write benchmarks/RESULTS.md and its picture."""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import duckdb

from benchmarks.contest import OURS, Measured, compare

HERE = Path(__file__).parent
MODULES = ("panels", "orders", "suppliers", "snapshots", "models")


def main() -> int:
    """Measure what is asked for; print the table, and keep it unless told not to."""
    words = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    words.add_argument("--only", nargs="*", choices=MODULES, default=MODULES, help="these stages")
    words.add_argument("--scale", type=float, default=1.0, help="share of the full size")
    words.add_argument("--rounds", type=int, default=5, help="rounds of each race")
    words.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    words.add_argument("--write", type=Path, default=HERE / "RESULTS.md", help="where the table goes")
    given = words.parse_args()
    duckdb.execute("SET enable_progress_bar = false")
    rows: list[Measured] = []
    for name in given.only:
        with tempfile.TemporaryDirectory(prefix=f"bullwhip-bench-{name}-") as scratch:
            sizes: dict[object, str] = {}  # stages of the same inputs have them made once
            for stage in import_module(f"benchmarks.{name}").STAGES:
                print(f"{stage.name} …", file=sys.stderr, flush=True)
                folder = Path(scratch)
                size = sizes.setdefault(stage.make, "") or stage.make(folder, given.scale)
                sizes[stage.make] = size
                rows += compare(stage, folder, size, given.rounds, memory=not given.no_memory)
                print(_line(rows[-1]), file=sys.stderr, flush=True)
    text = as_markdown(rows, given.scale, given.rounds)
    print(text)
    given.write.write_text(text)
    picture(rows, given.write.with_suffix(".png"))
    return 0


def as_markdown(rows: Sequence[Measured], scale: float, rounds: int) -> str:
    """Return the table with its machine, date and commit."""
    commit = subprocess.run(
        ["git", "-C", str(HERE), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    made = (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit or 'unknown'}, {os.cpu_count()} cores of {_machine()}, Python "
        f"{platform.python_version()}, load {os.getloadavg()[0]:.1f} at the end, {scale:g} of the full size, medians of"
        f" {rounds} rounds in which the contenders took turns in one process. In brackets: the smallest and largest "
        "ratio of a round. Memory is the peak of a process of its own, imports and inputs among it."
    )
    columns = ("stage", "size", "bullwhip s", "MB", "peer", "s", "MB", "ratio", "must be", "met")
    head = ["# How fast it is, next to its peers", "", made, "", f"| {' | '.join(columns)} |", "|---" * 10 + "|"]
    return "\n".join([*head, *map(_line, rows)]) + "\n"


def _line(row: Measured) -> str:
    sign, low, high = "≤" if row.at_most else "≥", min(row.ratios), max(row.ratios)
    asked = f"{sign} {row.target:g}" if row.target else ""
    met = ("yes" if row.met else "**no**") if row.target else ""
    return (
        f"| {row.stage} | {row.size} | {row.ours:.3g} | {row.peaks[0]:,.0f} | {row.peer} | {row.theirs:.3g} | "
        f"{row.peaks[1]:,.0f} | {row.ratio:.2f} [{low:.2f}, {high:.2f}] | {asked} | {met} |"
    )


def _machine() -> str:
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.exists() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def picture(rows: Sequence[Measured], path: Path) -> None:
    """Draw how many times each peer's time is ours, on a logarithmic scale."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if not row.at_most]
    if not shown:
        return
    figure = Figure(figsize=(9, 0.35 * len(shown) + 1.2), layout="constrained")
    axes = figure.subplots()
    place = range(len(shown))
    times = [row.ratio for row in shown]
    spread = [[t - min(r.ratios) for t, r in zip(times, shown, strict=True)],
              [max(r.ratios) - t for t, r in zip(times, shown, strict=True)]]  # fmt: skip
    axes.barh(place, times, xerr=spread, color="#4c78a8")
    axes.plot(
        [row.target or float("nan") for row in shown], place, "|", color="#e45756", markersize=14, label="must be"
    )
    axes.set_yticks(place, [f"{row.stage}: {row.peer}" for row in shown])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel(f"times slower than {OURS}")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
