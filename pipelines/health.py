"""Look at inputs, champions and matured forecasts of a day, and say what may be trusted."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from features.contracts import Breach, ContractError
from features.contracts import table as contract
from features.freshness import Freshness, freshness, latency
from features.matrix import Matrix
from features.quarantine import TWICE
from models import health
from models.forecasters import EVENTS
from models.health import Finding, LastWeek
from models.record import judged_forecasts
from pipelines import publish
from pipelines.registered import RegisteredModel
from pipelines.world import World

RESTS_ON = {"delay": ("purchases", "receipts"), "shift": ("orders",)}
RECENT_WEEKS, LEAST_FACTS = 4, 50
INPUTS = "inputs.json"  # beside a registered model: where its inputs lay in training


def refuse_stale(world: World, tasks: Sequence[str] | None = None) -> None:
    """Raise ContractError where a table that a task (by default any of the settings') rests on has brought nothing new
    for too long: what is open as of then would be called late, and what was not sold a drop."""
    needed = {name for task in tasks or world.settings.tasks for name in RESTS_ON[task]}
    limit = world.settings.max_stale
    stale = [f for f in freshness(world.con, world.as_of) if f.table in needed and f.times > limit]
    if stale:
        raise ContractError(tuple(Breach("error", f.table, "known_at", 0, _too_old(f, limit)) for f in stale))


def _too_old(found: Freshness, limit: float) -> str:
    since = f"{found.last_known_at:%Y-%m-%d %H:%M}"
    return (
        f"nothing new since {since}, {found.days:.1f} days, while a new fact usually comes within "
        f"{found.usual_days:g} day{'s' * (found.usual_days != 1)};"
        f" at most {limit:g} times that may pass (max_stale): bring newer data, or choose an earlier day with --as-of"
    )


def inputs(world: World) -> list[Finding]:
    """Judge every input table: how fresh, how much was refused, whether facts come later than they used to."""
    found = [health.stale(f) for f in freshness(world.con, world.as_of)]
    found += [health.refused(v.table, v.rows, v.quarantined, v.reasons.get(TWICE, 0)) for v in world.verdicts if v.rows]
    for name in ("orders", "purchases", "receipts"):
        event = contract(name).event
        recent, n = latency(world.con, name, event, world.as_of, RECENT_WEEKS)
        if n >= LEAST_FACTS:
            found.append(health.slower(name, recent, latency(world.con, name, event, world.as_of, 52)[0]))
    return found


def champions(world: World, found: Mapping[str, RegisteredModel]) -> list[Finding]:
    """Judge the champion of every task: is there one, did it pass its gate, how long ago did it learn?"""
    out = []
    for task in world.settings.tasks:
        if not world.has(task):
            continue
        if task not in found:
            out.append(health.nobody(task, world.as_of))
            continue
        version, tags = found[task].version, found[task].tags
        why = json.loads(tags["result"]).get("refused_because") if "result" in tags else None
        out.append(health.gate(task, version, why))
        if cut := tags.get("cut"):
            weeks = (world.as_of - date.fromisoformat(cut)).days / 7
            out.append(health.age(task, version, weeks))
    return out


def drift(world: World, champion: RegisteredModel, task: str, matrix: Matrix, p: np.ndarray) -> list[Finding]:
    """Judge whether the rows that are scored look like those the champion learnt from; nothing is said without them."""
    learnt, walk = champion.folder / INPUTS, champion.folder / "walk_forward.parquet"
    if not learnt.exists() or not len(matrix.X):
        return []
    then = pd.read_parquet(walk)
    then = then.loc[then["event"].isin(EVENTS[task][-1:]), "p"].to_numpy(float) if len(then) else np.empty(0)
    moved = health.moved(p, then)
    return [health.drift(task, champion.version, matrix.X, json.loads(learnt.read_text()), moved, last_week(world))]


def forecasts(world: World, found: Mapping[str, RegisteredModel], judged: pd.DataFrame) -> list[Finding]:
    """Judge what the champions published, by what has come true: the `judged` forecasts of the track record."""
    last, seed = last_week(world), world.settings.seed
    return [
        finding for task, champion in found.items() for event in EVENTS[task]
        for finding in health.judged(event, champion.version, judged, last, seed=seed)
    ]  # fmt: skip


def judged(world: World, history: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return what came true of the published forecasts in `history` that have matured."""
    tolerance = world.settings.short_tolerance
    return judged_forecasts(world.con, pd.Timestamp(world.as_of), history, short_tolerance=tolerance)


def last_week(world: World) -> LastWeek:
    return LastWeek(publish.previous_week(world.settings.target, "health", world.as_of))


def counted(table: pd.DataFrame) -> dict[str, Any]:
    """Return how many verdicts of each kind there are, and the reasons of those that are not ok."""
    said = table[table["verdict"] != health.OK]
    return {
        "verdicts": {v: int((table["verdict"] == v).sum()) for v in (health.OK, health.WATCH, health.ACT)},
        "reasons": [f"{r.verdict}: {r.subject}: {r.reason}" for r in said.itertuples()],
    }  # fmt: skip
