"""Put two versions of a model side by side: skill, calibration, the lists they would publish, and speed."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from features.matrix import Matrix
from models.comparison import common_pairs, list_changes, side_by_side
from models.forecasters import DelayForecaster, Forecaster, OtherFormat, load, publishers
from models.risk import window_dates
from models.tenure import PROMOTED, ROLLED_BACK, What, champion_of, decided
from pipelines import registry
from pipelines.registered import RegisteredModel
from pipelines.settings import Settings, UserError
from pipelines.world import NO_PROOF, World, judgeable, open_world, scorable


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """One of two versions: where it comes from, its forecaster and its own walk-forward."""

    found: RegisteredModel
    forecaster: Forecaster
    walk: pd.DataFrame


def compare(settings: Settings, task: str, a: str, b: str, *, as_of: date) -> dict[str, Any]:
    """Compare two versions, by number or alias, on the predictions both made before the outcome was known.

    The lists and the speed are those of the rows open as of the day. Returns what `bullwhip compare --json` prints of
    the task.
    """
    versions = {"a": _version(settings, task, a), "b": _version(settings, task, b)}
    pairs = common_pairs(versions["a"].walk, versions["b"].walk, task)
    with open_world(settings, as_of) as world:
        today = {m: _today(world, v.forecaster) for m, v in versions.items()} if world.has(task) else {}
    return {
        "task": task, **{m: _about(v) for m, v in versions.items()},
        "events": side_by_side(pairs, task, seed=settings.seed) if len(pairs) else [],
        "list": _list(today, max(settings.capacity.values())) if today else None,
        "seconds": {m: {"predict": round(seconds, 2), "rows": len(rows)} for m, (rows, seconds) in today.items()},
    }  # fmt: skip


def _version(settings: Settings, task: str, asked: str) -> Version:
    found = registry.registered(settings, registry.REGISTRY[task], asked)
    try:
        return Version(found, load(found.folder), pd.read_parquet(found.folder / "walk_forward.parquet"))
    except OtherFormat as error:
        raise UserError(f"{task} version {found.version} cannot be compared: {error}") from error


def _about(version: Version) -> dict[str, Any]:
    tags = version.found.tags
    columns = version.forecaster.model.encoder_.columns_
    return {
        "version": version.found.version, "cut": version.forecaster.facts.cut, "inputs": len(columns),
        "publishes": publishers(version.forecaster), "git_sha": tags.get("git_sha"),
        "seconds_to_learn": float(tags["seconds_to_learn"]) if "seconds_to_learn" in tags else None,
        "decisions": [f"{d.what} from {d.since}: {d.because}" for d in decided(tags)],
    }  # fmt: skip


def _today(world: World, forecaster: Forecaster) -> tuple[pd.DataFrame, float]:
    """Return row_id, p and stake of the rows open now, and the seconds that predicting took."""
    matrix = scorable(world, forecaster, proof=NO_PROOF).now
    if isinstance(forecaster, DelayForecaster):
        matrix = matrix.take(np.flatnonzero(matrix.rows["state"] == "due_future"))
    else:
        matrix = judgeable(matrix, forecaster.facts.shift_terms)
    began = time.perf_counter()
    said = forecaster.predict(matrix.X, matrix.rows)
    return _staked(matrix, said), time.perf_counter() - began


def _staked(matrix: Matrix, said: pd.DataFrame) -> pd.DataFrame:
    rows = matrix.rows
    if "p_late" in said:
        p, row_id, value = said["p_late"], rows["po_line_id"], rows["open_units"] * rows["unit_cost"]
    else:
        p, row_id = said[["p_up", "p_down"]].max(axis=1), window_dates(rows)["row_id"]
        value = rows["baseline_units"] * rows["unit_price"]
    return pd.DataFrame({"row_id": row_id, "p": p, "stake": p * value})


def _list(today: Mapping[str, tuple[pd.DataFrame, float]], k: int) -> dict[str, Any]:
    rows = today["a"][0].merge(today["b"][0], on="row_id", suffixes=("_a", "_b"))
    return list_changes(rows, k)


def listed(settings: Settings, task: str, *, as_of: date) -> list[dict[str, Any]]:
    """Return every version of a task's model, newest first: where it comes from, its skill and what was decided."""
    known = registry.versions(settings, registry.REGISTRY[task])
    now = champion_of(known, as_of)
    return [
        {
            "task": task, "version": v["version"], "champion": now is not None and v["version"] == now["version"],
            "aliases": v["aliases"], "cut": v["tags"].get("cut"), **_skill(v["tags"]),
            "publishes": v["tags"].get("publishes"),
            "decisions": [f"{d.what} from {d.since}: {d.because}" for d in decided(v["tags"])],
            "created_at": v["created_at"], "mlflow_run_id": v["run_id"],
        }
        for v in known
    ]  # fmt: skip


def _skill(tags: Mapping[str, str]) -> dict[str, Any]:
    said = json.loads(tags.get("result", "{}"))
    metrics, rule = said.get("metrics", {}), said.get("best_rule")
    return {
        "pr_auc": metrics.get("pr_auc"), "slope": metrics.get("slope"), "best_rule": rule,
        "skill_over_best_rule": metrics.get(f"bss_{rule}"), "refused_because": said.get("refused_because"),
    }  # fmt: skip


def promote(settings: Settings, task: str, version: str, *, as_of: date, because: str) -> dict[str, Any]:
    """Let a version score from the day on, and keep the reason; returns what scores before and after."""
    found = registry.registered(settings, registry.REGISTRY[task], version)
    cut = found.tags.get("cut", "")
    if cut > as_of.isoformat():
        raise UserError(f"{task} version {found.version} learnt from facts up to {cut}: it cannot score {as_of}")
    return _decide(settings, task, found.version, PROMOTED, as_of, because)


def rollback(settings: Settings, task: str, *, as_of: date, because: str) -> dict[str, Any]:
    """Take the champion of the day back for good: the last one before it scores again. UserError if there is none."""
    known = registry.versions(settings, registry.REGISTRY[task])
    now = champion_of(known, as_of)
    if now is None:
        raise UserError(f"no version of {task} is champion on {as_of}; nothing to roll back")
    if champion_of([v for v in known if v["version"] != now["version"]], as_of) is None:
        raise UserError(f"{task} version {now['version']} was never preceded by a champion; promote another first")
    return _decide(settings, task, now["version"], ROLLED_BACK, as_of, because)


def _decide(settings: Settings, task: str, version: str, what: What, as_of: date, because: str) -> dict[str, Any]:
    name = registry.REGISTRY[task]
    before = champion_of(registry.versions(settings, name), as_of)
    registry.decide(settings, name, version, what, since=as_of, because=because)
    after = champion_of(registry.versions(settings, name), as_of)
    return {
        "task": task, "version": version, "what": what, "as_of": as_of, "reason": because,
        "champion_before": before and before["version"], "champion": after and after["version"],
    }  # fmt: skip
