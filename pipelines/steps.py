"""A coarse piece of a flow: a Prefect task that is named, never cached, and runs where it is called."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from prefect import task
from prefect.cache_policies import NO_CACHE

P = ParamSpec("P")
R = TypeVar("R")


def step(work: Callable[P, R], name: str) -> Callable[P, R]:
    """Return `work` as a task under `name`. Retries belong to what reaches out: a broken table heals by no waiting."""
    return cast(Callable[P, R], task(name=name, cache_policy=NO_CACHE)(work))
