"""Look after what is published between two weeks: judge it by what has come true, and take a failing champion back."""

import time
from collections.abc import Mapping
from datetime import date
from typing import Any

import pandas as pd
from prefect import flow, runtime
from prefect.artifacts import create_table_artifact

from models.forecasters import EVENTS
from models.health import ACT, BY_SCORING, as_table, merged
from models.tenure import ROLLED_BACK, champion_of
from pipelines import health, publish, registry, tracking
from pipelines.registered import RegisteredModel
from pipelines.scored import past_releases
from pipelines.settings import Settings
from pipelines.steps import step, stoppable
from pipelines.world import World, open_world


@flow(name="monitor", validate_parameters=False)
@stoppable
def monitor(settings: Settings, *, as_of: date, dry_run: bool = False) -> dict[str, Any]:
    """Judge inputs, champions and matured forecasts as of a day, as scoring does, and publish nothing.

    A champion whose forecasts are worse than a naive rule's, beyond chance and two weeks running, is rolled back to the
    last one before it, unless this is a dry run. Returns what `bullwhip monitor --json` prints.
    """
    began = time.monotonic()
    with step(open_world, "read")(settings, as_of) as world, tracking.run(
        settings, flow="monitor", flow_run_id=str(runtime.flow_run.id), as_of=as_of,
        data_fingerprint=world.fingerprint, git_sha=tracking.git_sha(), params=settings.public(),
    ) as run:  # fmt: skip
        found = champions(world)
        table = step(judge, "judge")(world, found)
        rolled_back = [] if dry_run else take_back(settings, table, found, as_of)
        result = {"as_of": as_of, **health.counted(table), "rolled_back": rolled_back, "health": table}
        run.log_metrics({str(r.row_id): r.measured for r in table.itertuples()})
        run.log_table(table, "health")
        run.tag(**{f"verdicts.{verdict}": n for verdict, n in result["verdicts"].items()})
    create_table_artifact(
        [{k: str(row[k]) for k in ("verdict", "subject", "reason")} for row in table.to_dict("records")],
        key="bullwhip-health", description=f"May it be trusted? As of {as_of}",
    )  # fmt: skip
    return {**result, "mlflow_run_id": run.run_id, "seconds": round(time.monotonic() - began, 1)}


def champions(world: World) -> dict[str, RegisteredModel]:
    """Return the champion of the day of each task that has one."""
    settings = world.settings
    found = {task: registry.champion(settings, registry.REGISTRY[task], world.as_of) for task in settings.tasks}
    return {task: champion for task, champion in found.items() if champion is not None}


def judge(world: World, found: Mapping[str, RegisteredModel]) -> pd.DataFrame:
    """Return `health` as of now; what only scoring can see is that of the last week."""
    target = world.settings.target
    known = publish.previous_week(target, "health", world.as_of)
    seen = known[known["row_id"].str.endswith(BY_SCORING)][list(as_table([]))] if len(known) else as_table([])
    judged = health.judged(world, past_releases(target, world.as_of))
    rows = [*health.inputs(world), *health.champions(world, found), *health.forecasts(world, found, judged)]
    return merged([seen, as_table(rows)])


def take_back(
    settings: Settings, table: pd.DataFrame, found: Mapping[str, RegisteredModel], as_of: date
) -> list[dict[str, Any]]:
    """Roll champions back whose skill says act, where there is one before them; return what was done and why."""
    out = []
    reasons = table[table["verdict"] == ACT].set_index("row_id")["reason"]
    for task, champion in found.items():
        why = [reasons[row] for e in EVENTS[task] if (row := f"forecast|{e}|skill") in reasons]
        name = registry.REGISTRY[task]
        others = [v for v in registry.versions(settings, name) if v["version"] != champion.version]
        before = champion_of(others, as_of)
        if not why:
            continue
        if before is None:
            out.append({"task": task, "version": champion.version, "champion": champion.version, "reason":
                        f"{'; '.join(why)}: it scores on, since no champion was before it; train again"})  # fmt: skip
            continue
        because = f"monitoring: {'; '.join(why)}"
        registry.decide(settings, name, champion.version, ROLLED_BACK, since=as_of, because=because)
        out.append({"task": task, "version": champion.version, "champion": before["version"], "reason": because})
    return out
