"""Ask a deployment for one run, and wait for what came of it."""

import re
import time
from datetime import date
from typing import Any

from pipelines.deploy import DEPLOYMENTS
from pipelines.keeper import UNREACHABLE
from pipelines.prefect_api import Api, Rejected
from pipelines.settings import UserError

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
ASK_EVERY = 1.0  # seconds
SETTLED = 20.0  # seconds a run must have been dead: until then it may be begun again


class TimedOut(UserError):
    """The run goes on, but nobody waits for it any longer."""

    exit_code = 124


def trigger(api: Api, name: str, *, as_of: date | None, key: str | None, wait: bool, timeout: float) -> dict[str, Any]:
    """Create a run of a deployment, the same one for the same key; with `wait`, return when it has ended.

    The answer holds the exit code the command itself would have had. Raises TimedOut after `timeout` seconds.
    """
    flow = next((d.flow for d in DEPLOYMENTS if d.name == name), None)
    if flow is None:
        raise UserError(f"there is no deployment {name!r}; expected one of {', '.join(d.name for d in DEPLOYMENTS)}")
    try:
        deployment = api.get(f"/deployments/name/{flow}/{name}")
    except Rejected as error:
        if error.status != 404:
            raise
        raise UserError(f"{name} is not deployed at {api.url}; run bullwhip deploy") from None
    day = {} if as_of is None else {("last" if flow == "backtest" else "as_of"): as_of.isoformat()}
    body: dict[str, Any] = {"parameters": deployment["parameters"] | day} | ({"idempotency_key": key} if key else {})
    run = api.post(f"/deployments/{deployment['id']}/create_flow_run", body)
    return _waited(api, run, timeout) if wait else _told(run)


def _waited(api: Api, run: dict[str, Any], timeout: float) -> dict[str, Any]:
    deadline, crashed = time.monotonic() + timeout, 0.0
    while True:
        now = time.monotonic()
        state = run["state"]["type"]
        dead = state == "CRASHED" or UNREACHABLE in (run["state"].get("message") or "")
        crashed = (crashed or now) if dead else 0.0
        if state in FINAL and (not crashed or now - crashed > SETTLED):
            return _told(run)
        if now >= deadline:
            raise TimedOut(f"{run['name']} is {run['state']['name']} after {timeout:g} s; it goes on: {api.url}")
        time.sleep(min(ASK_EVERY, deadline - now))
        run = api.get(f"/flow_runs/{run['id']}")


def _told(run: dict[str, Any]) -> dict[str, Any]:
    state, message = run["state"], run["state"].get("message") or ""
    known = re.search(r"\(exit code (\d+)\)$", message)
    code = int(known[1]) if known else 0 if state["type"] not in ("FAILED", "CRASHED", "CANCELLED") else 1
    return {
        "flow_run_id": run["id"], "name": run["name"], "state": state["name"], "message": message,
        "parameters": run["parameters"], "code": code,
    }  # fmt: skip
