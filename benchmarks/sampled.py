"""What a smaller sample of snapshots to learn from costs in skill, and saves in time and memory."""

import argparse
import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from models.backtest import binary, folds, play
from pipelines.learn import prepare, training
from pipelines.settings import load
from pipelines.world import open_world, request


def measure(workspace: Path, task: str, first: date, last: date, most: int, seed: int) -> dict[str, float]:
    """Return the model's Brier skill over climatology in [first, last], when it learnt from `most` snapshots.

    The days that are judged are whole whatever the sample, so every size is held against the same rows.
    """
    settings, began = load(workspace, max_snapshots=most, seed=seed, as_of=last), time.monotonic()
    with open_world(settings, last) as world:
        cut = np.datetime64(first, "D")
        asked = request(world, task, first_cut=first)
        lesson = prepare(world, task, asked, judged_from=cut, whole_from=first)
    days = asked.grid.days[asked.grid.days >= cut]
    how, made = training(settings, settings.threads), []
    for fold in folds(days[:-1], 28):
        made.append(play(lesson, fold, [], how))
    pairs = binary(pd.concat(made, ignore_index=True), task)
    model, rule = (((pairs[p] - pairs["y"]) ** 2).mean() for p in ("p_model", "p_climatology"))
    learnt = (lesson.rows["as_of"] < pd.Timestamp(first)).sum()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"learnt": learnt, "judged": len(pairs), "skill": 1 - model / rule, "seconds": time.monotonic() - began,
            "MB": peak}  # fmt: skip


def main() -> int:
    """Print a row per sample: how many snapshots before the first judged day, and the skill of every seed."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.sampled", description=__doc__)
    words.add_argument("workspace", type=Path)
    words.add_argument("--task", choices=("delay", "shift"), default="delay")
    words.add_argument("--from", dest="first", type=date.fromisoformat, required=True)
    words.add_argument("--to", dest="last", type=date.fromisoformat, required=True)
    words.add_argument("--most", type=int, nargs="+", default=[10**9, 200_000, 100_000, 50_000])
    words.add_argument("--seeds", type=int, nargs="+", default=[7, 8])
    given = words.parse_args()
    print("| snapshots learnt from | judged | Brier skill per seed | seconds | peak MB |\n|---|---|---|---|---|")
    for most in given.most:
        found = []
        for seed in given.seeds:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                found.append(
                    pool.submit(measure, given.workspace, given.task, given.first, given.last, most, seed).result()
                )
        one, skills = found[0], ", ".join(f"{f['skill']:.4f}" for f in found)
        print(
            f"| {one['learnt']:,} | {one['judged']:,} | {skills} | {one['seconds']:.0f} | {one['MB']:,.0f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
