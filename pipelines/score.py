"""Score everything open as of one day with the champions and publish the week, whole or not at all."""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

from features.as_known import census
from models import risk
from models.change import RISKS, Week, totals_of_change
from models.forecasters import OtherFormat, load
from models.risk_contract import SCHEMA_VERSION
from pipelines import health, publish, registry, sources, steps, tracking
from pipelines.change import week_before
from pipelines.handouts import hand_out
from pipelines.scored import RegisteredChampion, risk_tables, rounded
from pipelines.settings import GateRefused, Settings
from pipelines.steps import step, stoppable
from pipelines.stores import held
from pipelines.world import World, open_world


@flow(name="score", validate_parameters=False)
@stoppable
def score(settings: Settings, *, as_of: date, dry_run: bool = False, late: bool = False) -> dict[str, Any]:
    """Publish the risk tables as of one day. Running it again for the same day and facts changes nothing.

    Of a week that is caught up `late`, nobody is sent a digest. Returns what `bullwhip score --json` prints.
    """
    began = time.monotonic()
    with ExitStack() as facts:
        world = facts.enter_context(step(open_world, "read")(settings, as_of))
        with held(settings.target):
            health.refuse_stale(world)
            champions = step(find_champions, "find champions")(world)
            then = week_before(settings.target, as_of)
            with tracking.run(
                settings, flow="score", flow_run_id=str(runtime.flow_run.id), as_of=as_of,
                data_fingerprint=world.fingerprint, git_sha=tracking.git_sha(), params=settings.public(),
            ) as run:  # fmt: skip
                tables = risk_tables(world, champions, then, steps)
                release = step(put_out, "publish")(world, champions, tables, dry_run)
                result = _result(release, tables, champions, then)
                if dry_run:
                    result["value_at_risk_before"] = totals_before(settings, as_of)
                run.log_metrics(
                    {f"rows.{k}": v for k, v in result["rows"].items()}
                    | {f"value_at_risk.{k}": v for k, v in result["value_at_risk"].items()}
                )
                run.log_dict(result, "result")
                known = json.dumps(census(world.con, as_of))
                run.tag(publication_id=release.publication_id, status=release.status, facts_known=known)
                facts.close()  # what people open is made of what is published: there is room for it now
                result["handouts"] = {} if dry_run else step(hand_out, "hand out")(settings, release, late=late)
    create_markdown_artifact(
        _paragraph(result, settings.currency), key="bullwhip-score", description=f"Scores as of {as_of}"
    )
    return {**result, "mlflow_run_id": run.run_id, "seconds": round(time.monotonic() - began, 1)}


def find_champions(world: World) -> dict[str, RegisteredChampion]:
    """Return the champion of each task that has facts; GateRefused where no task has one."""
    found: dict[str, RegisteredChampion] = {}
    for task in world.settings.tasks:
        name = registry.REGISTRY[task]
        champion = registry.champion(world.settings, name, world.as_of) if world.has(task) else None
        if champion:
            try:
                found[task] = RegisteredChampion(champion.version, load(champion.folder), champion)
            except OtherFormat as error:
                raise GateRefused(
                    f"the champion of {task}, version {champion.version}, cannot be used: {error}"
                ) from error
    if not found:
        raise GateRefused(_why_nothing_scores(world))
    return found


def _why_nothing_scores(world: World) -> str:
    day, settings = world.as_of, world.settings
    known = {task: registry.versions(settings, registry.REGISTRY[task]) for task in settings.tasks}
    if not any(known.values()):
        return f"nothing to score with: no model is trained in {settings.workspace}; run bullwhip train first"
    cuts = {task: [str(v["tags"].get("cut", "")) for v in of_task] for task, of_task in known.items() if of_task}
    said = ", ".join(f"{task} was first trained as of {min(of_task)}" for task, of_task in cuts.items())
    if all(cut > str(day) for of_task in cuts.values() for cut in of_task):
        return f"no model of {day} or before: {said}, and hindsight does not count; run bullwhip train --as-of {day}"
    return f"no version is champion on {day}; run bullwhip promote, or bullwhip train --as-of {day}"


def put_out(
    world: World, champions: Mapping[str, RegisteredChampion], tables: Mapping[str, pd.DataFrame], dry_run: bool
) -> publish.Publication:
    """Publish the week, or say what would be."""
    return publish.publish(
        world.settings.target, rounded(tables), as_of=world.as_of,
        model_versions={t: c.version for t, c in champions.items()}, data_fingerprint=world.fingerprint,
        code_version=tracking.git_sha(), schema_version=SCHEMA_VERSION,
        published_at=datetime.now(UTC), data_time=sources.data_time(world.con), dry_run=dry_run,
    )  # fmt: skip


def _result(
    release: publish.Publication,
    tables: Mapping[str, pd.DataFrame],
    champions: Mapping[str, RegisteredChampion],
    then: Week | None,
) -> dict[str, Any]:
    models = {
        task: {"version": c.version, "publishes": c.publishes, "trained_to": c.forecaster.facts.cut}
        for task, c in champions.items()
    }
    return {
        **publish.summary(release), "value_at_risk": risk.totals(tables), "since": then and then.as_of.date(),
        "change": totals_of_change(tables["weekly_change"]), "models": models,
        "health": health.counted(tables["health"]),
    }  # fmt: skip


def totals_before(settings: Settings, as_of: date) -> dict[str, float]:
    """Return the value at risk that readers see of a week now, nothing where it is not out."""
    after = as_of + timedelta(days=1)
    found = {name: publish.history(settings.target, name, as_of, after) for name in RISKS}
    return risk.totals({name: table for name, table in found.items() if len(table)})


def _paragraph(result: Mapping[str, Any], currency: str) -> str:
    money = ", ".join(f"{k.replace('_', ' ')} {currency} {v:,.0f}" for k, v in result["value_at_risk"].items())
    said, rows = result["status"].capitalize(), sum(result["rows"].values())
    return f"{said} {result['publication_id']}: {rows:,} rows. At risk: {money}."
