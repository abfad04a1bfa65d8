"""A coarse piece of a flow: a Prefect task that is named, never cached, and runs where it is called."""

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.states import Crashed

P = ParamSpec("P")
R = TypeVar("R")

SECONDS_TO_STOP = 6.0  # between being told to stop and going, whatever other threads are at


def step(work: Callable[P, R], name: str) -> Callable[P, R]:
    """Return `work` as a task under `name`. Retries belong to what reaches out: a broken table heals by no waiting."""
    return cast(Callable[P, R], task(name=name, cache_policy=NO_CACHE)(_without_locals(work)))


def side_by_side(work: Mapping[str, tuple[Callable[..., R], str, tuple[Any, ...]]]) -> dict[str, R]:
    """Run pieces of a flow at the same time, each (work, task name, arguments), and return what each gave.

    All have ended when this returns or raises.
    """
    given = {
        key: task(name=name, cache_policy=NO_CACHE)(_without_locals(do)).submit(*args)
        for key, (do, name, args) in work.items()
    }
    for future in given.values():
        future.wait()
    return {key: future.result() for key, future in given.items()}


def _without_locals(work: Callable[P, R]) -> Callable[P, R]:
    """Let go of what functions held when an error left them: Prefect keeps the error until the process ends."""

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(*args, **kwargs)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            raise

    return run


def stoppable(work: Callable[P, R]) -> Callable[P, R]:
    """Return the body of a flow that, told to stop by Ctrl-C or SIGTERM, ends its process within seconds.

    Prefect would wait for the threads of its tasks, and a training takes minutes. The run is closed first.
    """

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(*args, **kwargs)
        except BaseException as error:
            if not isinstance(error, Exception):
                _leave_soon(130 if isinstance(error, KeyboardInterrupt) else 143, str(runtime.flow_run.id))
            raise

    return run


def _leave_soon(code: int, flow_run_id: str) -> None:
    watchdog = threading.Timer(SECONDS_TO_STOP, _leave, (code,))
    watchdog.daemon = True
    watchdog.start()
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run_id, Crashed(message="told to stop"), force=True)  # type: ignore[arg-type]


def _leave(code: int) -> None:
    loaded = sys.modules.get("prefect.server.api.server")  # only where Prefect has started a server of its own
    for server in list(loaded.SubprocessASGIServer._instances.values()) if loaded else ():
        if server.server_process is not None:
            server.server_process.kill()
    print(f"bullwhip: {'interrupted' if code == 130 else 'terminated'}", file=sys.stderr, flush=True)
    os._exit(code)
