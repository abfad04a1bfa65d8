"""A coarse piece of a flow: a Prefect task that is named, never cached, and runs where it is called."""

import traceback
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from prefect import task
from prefect.cache_policies import NO_CACHE

P = ParamSpec("P")
R = TypeVar("R")


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
