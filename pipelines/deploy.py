"""Tell Prefect what runs when: deployments, their schedules, and what becomes of runs that fall silent."""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.prefect_api import Api, Rejected
from pipelines.services import POOL
from pipelines.settings import Settings, UserError

SILENCE = 90  # seconds without a heartbeat after which a run counts as dead
ZOMBIES = "bullwhip: a run that falls silent has crashed"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One flow under the name people call it by, with the setting that says when it runs."""

    name: str
    flow: str
    function: str
    schedule: str
    about: str


DEPLOYMENTS = (
    Deployment("score-weekly", "score", "score_weekly", "schedule_score", "Publish the week's risk tables."),
    Deployment("train-monthly", "train", "train_monthly", "schedule_train", "Train, judge, promote what is better."),
    Deployment("backtest", "backtest", "backtest_stretch", "schedule_backtest", "Replay a stretch of the past."),
    Deployment("monitor-daily", "monitor", "monitor_daily", "schedule_monitor", "Watch models and inputs."),
)


def available() -> tuple[Deployment, ...]:
    """Return the deployments whose flow is in this version."""
    from pipelines import deployments

    return tuple(d for d in DEPLOYMENTS if hasattr(deployments, d.function))


def deploy(settings: Settings, api: Api) -> dict[str, Any]:
    """Create or update everything; what is as wanted already is left alone, so that twice is the same as once."""
    _ensure_pool(api)
    done = {d.name: _ensure(api, settings, d) for d in available()}
    return {"deployments": done, "automation": _ensure_automation(api), "time_zone": settings.time_zone}


def _ensure(api: Api, settings: Settings, deployment: Deployment) -> dict[str, Any]:
    wanted = wanted_of(settings, deployment)
    cron = getattr(settings, deployment.schedule)
    said = {"flow": deployment.flow, "schedule": cron or None}
    try:
        known = api.get(f"/deployments/name/{deployment.flow}/{deployment.name}")
    except Rejected:
        known = None
    if known and known["version"] == wanted["version"]:
        return {"status": "unchanged", "id": known["id"], **said}
    flow_id = api.post("/flows/", {"name": deployment.flow})["id"]
    try:
        made = api.post("/deployments/", wanted | {"flow_id": flow_id})
    except Rejected as error:
        raise UserError(f"{deployment.schedule} = {cron!r} is refused by Prefect: {error}") from None
    return {"status": "updated" if known else "created", "id": made["id"], **said}


def wanted_of(settings: Settings, deployment: Deployment) -> dict[str, Any]:
    """Return what Prefect shall know of a deployment; its version is a digest of all of it."""
    from prefect.utilities.callables import parameter_schema

    from pipelines import deployments

    home, cron = str(settings.workspace.resolve()), getattr(settings, deployment.schedule)
    function = getattr(deployments, deployment.function)
    schedule = {"schedule": {"cron": cron, "timezone": settings.time_zone, "day_or": True}, "slug": "regular"}
    wanted: dict[str, Any] = {
        "name": deployment.name,
        "description": deployment.about,
        "tags": ["bullwhip"],
        "work_pool_name": POOL,
        "entrypoint": f"pipelines.deployments.{deployment.function}",
        "path": home,
        "parameters": {"workspace": home},
        "parameter_openapi_schema": parameter_schema(function).model_dump(mode="json"),
        "enforce_parameter_schema": True,
        "schedules": [schedule] if cron else [],
        # one at a time, and the next waits: a run is about its own day, so none may be dropped
        "concurrency_limit": 1,
        "concurrency_options": {"collision_strategy": "ENQUEUE"},
        "job_variables": {"command": f"{sys.executable} -m prefect.engine", "working_dir": home},
        "paused": False,
    }
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    return wanted | {"version": digest[:12]}


def _ensure_pool(api: Api) -> None:
    """Make the work pool, unless a worker has."""
    from prefect.workers.process import ProcessWorker

    try:
        api.get(f"/work_pools/{POOL}")
    except Rejected:
        template = ProcessWorker.get_default_base_job_template()
        try:
            api.post("/work_pools/", {"name": POOL, "type": "process", "base_job_template": template})
        except Rejected:
            api.get(f"/work_pools/{POOL}")  # the worker has made it in the meantime


def _ensure_automation(api: Api) -> dict[str, Any]:
    """Have the server call runs crashed that give no sign of life, wherever they ran."""
    wanted = automation()
    known = [a for a in api.post("/automations/filter", {"limit": 200}) if a["name"] == ZOMBIES]
    if known and known[0]["description"] == wanted["description"]:
        return {"status": "unchanged", "id": known[0]["id"]}
    for old in known:
        api.delete(f"/automations/{old['id']}")
    return {"status": "updated" if known else "created", "id": api.post("/automations/", wanted)["id"]}


def automation() -> dict[str, Any]:
    """Return the automation that finds the dead by their silence."""
    signs = ("heartbeat", "Running", "Retrying")
    ends = ("Completed", "Failed", "Cancelled", "Cancelling", "Crashed", "Paused", "Suspended", "AwaitingRetry")
    rules: Mapping[str, Any] = {
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "for_each": ["prefect.resource.id"],
            "after": sorted(f"prefect.flow-run.{s}" for s in signs),
            "expect": sorted(f"prefect.flow-run.{s}" for s in (*signs, *ends)),
            "threshold": 1,
            "within": SILENCE,
        },
        "actions": [
            {"type": "change-flow-run-state", "state": "CRASHED", "message": f"no sign of life for {SILENCE} s"}
        ],
    }
    digest = hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:12]
    about = f"Whatever killed it: the run ends, its place is free, bullwhip up begins it again. Version {digest}."
    return {"name": ZOMBIES, "description": about, "enabled": True, **rules}
