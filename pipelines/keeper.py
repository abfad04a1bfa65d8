"""Bring runs to an end that processes left behind when they were killed: what died is started again, some times."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines import running
from pipelines.prefect_api import Api
from pipelines.settings import UserError
from pipelines.supervisor import Log

EVERY = 5.0  # seconds
DEATHS = 5  # a run that died so often is left for a person
PENDING = timedelta(seconds=90)  # a run that takes longer to begin has lost its process
RECENT = timedelta(days=7)
UNREACHABLE = "(exit code 6)"  # how a flow says that something was away; see pipelines.deployments


def keep(url: str, workspace: Path, log: Log, stopping: threading.Event) -> None:
    """Look at the runs again and again; a server that is away is asked again later."""
    api, suspects = Api(url, ":".join(running.credentials() or ()), seconds=10), set[str]()
    while not stopping.wait(EVERY):
        try:
            for line in heal(api, workspace, datetime.now(UTC), suspects):
                log.say("keeper", line)
        except (UserError, OSError, KeyError, ValueError) as error:
            log.say("keeper", f"{type(error).__name__}: {error}")


def heal(api: Api, workspace: Path, now: datetime, suspects: set[str]) -> list[str]:
    """Call runs crashed whose process is gone, and start those again that crashed or could not reach something.

    A run is called crashed when it is found so twice: until then the worker may report it. `suspects` remembers. What
    was done is returned in words.
    """
    said = []
    for run in _runs(api, ["RUNNING", "PENDING", "CANCELLING"]):
        if not (why := _lost(run, workspace, now)):
            continue
        if run["id"] not in suspects:
            suspects.add(run["id"])
        else:
            suspects.discard(run["id"])
            _forget(workspace, run["id"])
            _set(api, run, {"type": "CRASHED", "name": "Crashed", "message": why})
            said.append(f"{run['name']}: {why}")
    for run in _runs(api, ["CRASHED", "FAILED"]):
        state = run["state"]
        fresh = now - _moment(state["timestamp"]) < RECENT
        away = state["type"] == "CRASHED" or UNREACHABLE in (state.get("message") or "")
        if not (run["deployment_id"] and fresh and away) or (deaths := _deaths(api, run)) >= DEATHS:
            continue
        _forget(workspace, run["id"])  # a mark of this attempt would have the next one called crashed
        again = now + timedelta(seconds=5 * 2**deaths)
        details = {"scheduled_time": again.isoformat()}
        _set(api, run, {"type": "SCHEDULED", "name": "AwaitingRetry", "state_details": details})
        said.append(f"{run['name']}: died {deaths} times, begins again at {again:%H:%M:%S}")
    return said


def _runs(api: Api, states: list[str]) -> list[dict[str, Any]]:
    wanted = {
        "flow_runs": {"state": {"type": {"any_": states}}},
        "sort": "EXPECTED_START_TIME_DESC",
        "limit": 100,
    }
    return list(api.post("/flow_runs/filter", wanted))


def _lost(run: dict[str, Any], workspace: Path, now: datetime) -> str:
    """Return why a run cannot be alive; empty when it may be."""
    marks = [m for m in (workspace / running.MARKS).glob(f"{run['id']}*") if not running.is_locked(m)]
    if marks:
        return "its process is gone"
    waiting = run["state"]["type"] == "PENDING" and now - _moment(run["state"]["timestamp"]) > PENDING
    return "its process never began" if waiting else ""


def _forget(workspace: Path, run_id: str) -> None:
    """Take a run's mark away; those of MLflow runs are left for pipelines.tracking."""
    (workspace / running.MARKS / run_id).unlink(missing_ok=True)


def _deaths(api: Api, run: dict[str, Any]) -> int:
    """Return how often a run has died so far."""
    states = api.get(f"/flow_run_states/?flow_run_id={run['id']}")
    return sum(s["type"] == "CRASHED" or UNREACHABLE in (s.get("message") or "") for s in states)


def _set(api: Api, run: dict[str, Any], state: dict[str, Any]) -> None:
    # never by force, which would leave the place of the run taken
    api.post(f"/flow_runs/{run['id']}/set_state", {"state": state})


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
