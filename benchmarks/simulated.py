"""What forecasts are worth on simulated chains, whose true probabilities and shifts are known."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from benchmarks import biased, detection
from benchmarks.page import Row
from benchmarks.replays import replay
from models import metrics
from pipelines.learn import prepare
from pipelines.settings import load
from pipelines.world import open_world, request

SEEDS = (101, 102, 103, 104, 105)  # chains that nothing was tuned on
UNTIL = date(2026, 6, 1)  # when they end
LATEST = (UNTIL - timedelta(weeks=24), UNTIL - timedelta(weeks=1))
EARLIER = (UNTIL - timedelta(weeks=52), UNTIL - timedelta(weeks=14))  # windows of a quarter have ended since

SIMULATED = """\
as_of = 2026-06-01
country = "DE"
attributes = ["ship_mode"]
threads = 1
"""


def _simulated(scratch: Path, seed: int, shifts: str | float = "usual", busy: float = 1.0) -> Path:
    from pipelines.simulate import simulate

    workspace = scratch / f"simulated-{seed}-{shifts}-{busy:g}"
    if not (workspace / "bullwhip.toml").exists():
        simulate(workspace, scale="demo", seed=seed, end=UNTIL, shifts=shifts, busy=busy)
        (workspace / "bullwhip.toml").write_text(SIMULATED)
    return workspace


def seeded(_: Path, scratch: Path, seed: int) -> Iterator[Row]:
    """A chain whose true probabilities are known: how p_late follows them."""
    workspace = _simulated(scratch, seed)
    yield from _follows_truth(
        workspace, f"simulator, seed {seed}", replay(workspace, "delay", *LATEST, "--refit", "12w")[1]
    )


def _follows_truth(workspace: Path, name: str, p: pd.DataFrame) -> Iterator[Row]:
    truth = pd.read_parquet(workspace / "truth" / "p_late.parquet")
    known = p[p["label"].notna()]
    both = known.merge(truth.assign(as_of=pd.to_datetime(truth["as_of"])), on=["po_line_id", "as_of"])
    correlation, slope = _follows(name, both)
    yield replace(correlation, least=0.7, most=1.0)
    yield replace(slope, least=0.9, most=1.1)


def _follows(name: str, both: pd.DataFrame) -> tuple[Row, Row]:
    """Return how p goes with the true probability, and its slope on what came true."""
    y, p, truth = (both[c].to_numpy(float) for c in ("label", "p", "p_late"))

    def figures(weight: np.ndarray) -> dict[str, float]:
        (a, ab), (_, b) = np.cov(p, truth, aweights=weight)
        return {"correlation": ab / np.sqrt(a * b), "slope": metrics.calibration_slope(y, p, weight)}

    weeks = both["as_of"].to_numpy().astype("datetime64[W]")
    between = metrics.block_bootstrap(figures, weeks, both["supplier_id"], n=100)
    found, note = figures(np.ones(len(y))), f"mean p {p.mean():.3f}, share late {y.mean():.3f}, {len(y):,} judged"
    return (
        Row(name, "correlation with the true p", float(found["correlation"]), between["correlation"]),
        Row(name, "slope", float(found["slope"]), between["slope"], note=note),
    )


def first(_: Path, scratch: Path) -> Iterator[Row]:
    """The first chain, a model of a biased cohort on it, and what signals buy as they come and twice as late."""
    workspace = _simulated(scratch, SEEDS[0])
    said, p = replay(workspace, "delay", *LATEST, "--refit", "12w")
    yield from _follows_truth(workspace, f"simulator, seed {SEEDS[0]}", p)
    both = biased.received_only(workspace, UNTIL)
    name = f"simulator, seed {SEEDS[0]}, trained on received lines only (must fail)"
    yield from _follows(name, both)
    yield Row(name, "mean p less share late", float(both["p"].mean() - both["label"].mean()), most=-0.03)
    now = _skill_with_signals("as they come", said, p)
    late = _skill_with_signals(
        "twice as late", *replay(_late_signals(workspace, scratch), "delay", *LATEST, "--refit", "12w")
    )
    yield from (now, late)
    yield Row("simulator, signals", "skill lost when every lag doubles", now.value - late.value, most=0.03)


def _skill_with_signals(how: str, said: Mapping[str, Any], p: pd.DataFrame) -> Row:
    known = p[p["label"].notna()]
    skill = metrics.brier_skill(known["label"], known["p"], known["p_climatology"])
    note = f"kept: {', '.join(s['signal'] for s in said['signals'] if s['kept'])}"
    return Row("simulator, signals", f"delay: Brier skill with signals {how}", skill, note=note)


def _late_signals(workspace: Path, scratch: Path) -> Path:
    """Return a workspace whose signals are known twice as long after their period as they were."""
    other = scratch / f"{workspace.name}-later"
    (other / "data").mkdir(parents=True, exist_ok=True)
    for path in (workspace / "data").glob("*.parquet"):
        if path.stem == "signals":
            later = "CASE WHEN kind = 'observed' THEN known_at + (known_at - observed_on) ELSE known_at END"
            query = f"SELECT * REPLACE ({later} AS known_at) FROM '{path}'"
            duckdb.sql(f"COPY ({query}) TO '{other / 'data' / path.name}' (FORMAT parquet)")
        elif not (other / "data" / path.name).exists():
            (other / "data" / path.name).symlink_to(path)
    (other / "bullwhip.toml").write_text(SIMULATED)
    return other


def planted(_: Path, scratch: Path, busy: float = 1.0) -> Iterator[Row]:
    """Planted steps of 30 %: how soon they are found, on as many orders as usual or `busy` times as many.

    By moved_z, which is published to tell it, and by the probability of a surge or drop.
    """
    steps = _simulated(scratch, SEEDS[0], 0.3, busy)
    p = replay(steps, "shift", *EARLIER, "--refit", "13w")[1]
    moved = pd.read_parquet(steps / "truth" / "planted.parquet")
    first = p[p["window"] == 0]
    z = first["moved_z"].fillna(0.0)  # nothing known is no alarm
    name = "simulator, planted ±30 %" + (f", {busy:g} times the orders" if busy != 1 else "")
    yield from _weeks_to_find(f"{name}, by moved_z", first.assign(p_up=z, p_down=-z), moved)
    yield from _weeks_to_find(f"{name}, by p_up and p_down", first, moved)


def _weeks_to_find(name: str, scores: pd.DataFrame, moved: pd.DataFrame) -> Iterator[Row]:
    keys = ["product_id", "site_id"]
    calm = scores.merge(moved[keys], how="left", indicator=True, on=keys)
    levels = detection.alarm_levels(calm[calm["_merge"] == "left_only"])
    begun = moved[pd.to_datetime(moved["starts_on"]) >= pd.Timestamp(EARLIER[0])]
    found = detection.summary(detection.weeks_to_find(scores, begun, levels))
    for direction in ("up", "down", "all"):
        note = f"{int(found.loc[direction, 'steps'])} steps, {found.loc[direction, 'found']:.0%} within 13 weeks"
        asked = 2.0 if direction == "all" else math.inf
        yield Row(
            name,
            f"median weeks to find, {direction}",
            float(found.loc[direction, "median_weeks"]),
            most=asked,
            note=note,
        )


def calm(_: Path, scratch: Path) -> Iterator[Row]:
    """A world without shifts: how many of its windows are labelled as shifts. That takes no model: none is fitted."""
    settings = load(_simulated(scratch, SEEDS[0], "none"))
    begin, end = EARLIER
    with open_world(settings, UNTIL) as world:
        asked = request(world, "shift", first_cut=begin)
        lesson = prepare(world, "shift", asked, judged_from=np.datetime64(begin, "D"), reach_weeks=52)
    y = lesson.outcomes(lesson.known_until)["y"][lesson.rows["as_of"].between(pd.Timestamp(begin), pd.Timestamp(end))]
    rates = detection.false_event_rate(y)
    for direction in ("down", "up"):
        yield Row(
            "simulator, no shifts", f"false events, {direction}", rates[direction], most=detection.NOMINAL,
            note=f"{int(rates['windows']):,} windows",
        )  # fmt: skip
