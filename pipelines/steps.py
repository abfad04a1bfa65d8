"""A coarse piece of a flow: a Prefect task that is named, never cached, and runs where it is called."""

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from prefect import task
from prefect.cache_policies import NO_CACHE

P = ParamSpec("P")
R = TypeVar("R")


def step(work: Callable[P, R], name: str) -> Callable[P, R]:
    """Return `work` as a task under `name`. Retries belong to what reaches out: a broken table heals by no waiting."""
    return cast(Callable[P, R], task(name=name, cache_policy=NO_CACHE)(work))


def side_by_side(work: Mapping[str, tuple[Callable[..., R], str, tuple[Any, ...]]]) -> dict[str, R]:
    """Run pieces of a flow at the same time, each (work, task name, arguments), and return what each gave."""
    given = {key: task(name=name, cache_policy=NO_CACHE)(do).submit(*args) for key, (do, name, args) in work.items()}
    return {key: future.result() for key, future in given.items()}
