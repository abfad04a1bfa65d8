"""What a smaller sample of snapshots to learn from costs in skill."""

import argparse
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from features.cut import OF_LINES, OF_SERIES, few
from features.matrix import Matrix
from features.sampling import in_sample
from models import lessons
from models.backtest import Fold, binary, play
from models.lessons import DAY, KEYS, Lesson
from pipelines.learn import prepare, training
from pipelines.settings import load
from pipelines.world import open_world, request


def whole_lesson(workspace: Path, task: str, first: date, last: date) -> Lesson:
    """Return every row until `last`, with what was known of them then; none is left out."""
    with open_world(load(workspace, as_of=last, max_snapshots=10**9), last) as world:
        cut = np.datetime64(first, "D")
        return prepare(world, task, request(world, task, first_cut=first), judged_from=cut, whole_from=first)


def skills(lesson: Lesson, workspace: Path, first: date, share: float, seed: int) -> tuple[int, int, dict[str, float]]:
    """Return rows learnt from, predictions judged, and the model's Brier skill over climatology per event.

    One forecaster is fitted at `first` on a share of the rows before it, and scores every row since.
    """
    rows, cut = lesson.rows, np.datetime64(first, "D")
    days = rows["as_of"].to_numpy().astype("datetime64[D]")
    key = pd.util.hash_pandas_object(rows[list(KEYS[lesson.task])[:1]].astype(object), index=False).to_numpy()
    if lesson.task == "shift":  # a series is a product at a site
        key = key ^ pd.util.hash_pandas_object(rows["site_id"].astype(object), index=False).to_numpy()
    inside = in_sample(key, days, share)
    part = replace(lesson, matrix=replace(lesson.matrix, rows=rows.assign(sampled=inside)), share=min(share, 0.999999))
    fold = Fold(cut, np.unique(days[days >= cut]), judged=False)  # without arrival curves, which are not judged here
    forecaster = lessons.fit(part, cut, training(load(workspace, seed=seed), 0))
    pairs = binary(play(part, fold, [], forecaster), lesson.task)
    found = {}
    for event, mine in pairs.groupby("event"):
        model, rule = (((mine[p] - mine["y"]) ** 2).mean() for p in ("p_model", "p_climatology"))
        found[str(event)] = float(1 - model / rule)
    return int((inside & (days < cut)).sum()), len(pairs), found


def of_some(workspace: Path, whole: Lesson, first: date, last: date, share: float, day: date) -> Lesson:
    """Return a lesson of the rows before `first` that a world of some suppliers or products has, and all since then."""
    name, cut = whole.task, np.datetime64(first, "D")
    with open_world(load(workspace, as_of=last, max_snapshots=10**9), last) as world:
        of = OF_LINES if name == "delay" else OF_SERIES
        unit = "count(*)" if name == "delay" else "count(DISTINCT (product_id, site_id))"
        ((there,),) = world.con.execute(f"SELECT {unit} FROM {of.tables[0].name}").fetchall()
        with few(world.con, of, round(there * share), day, by_series=name == "shift") as seen:
            assert seen
            small = replace(world, connection=[seen])
            asked = request(world, name, first_cut=first)
            some = prepare(small, name, asked, judged_from=cut, whole_from=first)
    before = some.matrix.take(some.between(np.datetime64("0", "D"), cut))
    since = whole.matrix.take(whole.between(cut, np.datetime64(last, "D") + DAY))
    rows = pd.concat([before.rows, since.rows], ignore_index=True)
    return replace(whole, matrix=Matrix(rows, pd.concat([before.X, since.X], ignore_index=True), before.features))


def main() -> int:
    """Print a row per share of the snapshots: how many were learnt from, and the skill of every seed."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.sampled", description=__doc__)
    words.add_argument("workspace", type=Path)
    words.add_argument("--task", choices=("delay", "shift"), default="delay")
    words.add_argument("--from", dest="first", type=date.fromisoformat, required=True)
    words.add_argument("--to", dest="last", type=date.fromisoformat, required=True)
    words.add_argument("--share", type=float, nargs="+", default=[1.0, 0.5, 0.25, 0.125])
    words.add_argument("--seeds", type=int, nargs="+", default=[7, 8])
    words.add_argument(
        "--some",
        type=date.fromisoformat,
        nargs="*",
        default=[],
        metavar="DAY",
        help="leave out whole suppliers or products, those that these days choose, instead of snapshots",
    )
    given = words.parse_args()
    lesson = whole_lesson(given.workspace, given.task, given.first, given.last)
    print("| snapshots learnt from | judged | Brier skill over climatology, per seed |\n|---|---|---|")
    for share in given.share:
        found = [skills(lesson, given.workspace, given.first, share, seed) for seed in given.seeds]
        said = "; ".join(", ".join(f"{event} {skill:.4f}" for event, skill in one[2].items()) for one in found)
        print(f"| {found[0][0]:,} | {found[0][1]:,} | {said} |", flush=True)
        for day in given.some if share < 1 else ():
            some = of_some(given.workspace, lesson, given.first, given.last, share, day)
            rows, judged, skill = skills(some, given.workspace, given.first, 1.0, given.seeds[0])
            said = ", ".join(f"{event} {value:.4f}" for event, value in skill.items())
            print(f"| {rows:,} of whole entities, {day} | {judged:,} | {said} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
