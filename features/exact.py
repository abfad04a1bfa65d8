"""Add numbers up exactly: a sum does not tell in which order, or in how many parts, it was made."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

QUANTA = (2.0**30, 1.0, 2.0**-30, 2.0**-60)  # a number is so many of each, as in Kulisch's accumulator (2013)

Shared = Mapping[str, Any]  # arrays of whole numbers, of the same shape everywhere, or pandas series of them by label
Kept = Mapping[str, np.ndarray]
Made = Callable[[Shared], Shared]


def as_added(sums: Shared) -> Shared:
    return sums


class Others(Protocol):
    """Access to the series of the other partitions. Work that asks them may be run again with each answer."""

    def told(self, name: str, mine: Callable[[], Shared], made: Made = as_added, /) -> Shared:
        """Return what `made` makes of the sums over all partitions; by default the sums themselves.

        `mine` returns what this partition adds, and is computed once. `made` is computed where the sums are collected,
        and only what it returns is sent to every partition.
        """

    def once(self, name: str, work: Callable[[], Kept], /) -> Kept:
        """Return what `work` makes of the series of this partition: computed the first time, read back afterwards."""


class Nobody:
    """There is one partition: the sums are its own, and nothing is computed twice."""

    def told(self, _name: str, mine: Callable[[], Shared], made: Made = as_added, /) -> Shared:
        return made(mine())

    def once(self, _name: str, work: Callable[[], Kept], /) -> Kept:
        return work()


NOBODY = Nobody()


def added(parts: Sequence[Shared]) -> Shared:
    """Return the sums of what every part of the series adds."""
    return {name: _added([part[name] for part in parts]) for name in parts[0]}


def _added(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], pd.Series):
        return pd.concat(parts).groupby(level=0).sum()
    return np.sum(parts, axis=0, dtype=np.int64)


def exact_sums(x: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Return, as whole multiples of QUANTA, the sums of the columns that share a group number.

    From x [row, column] to int64 [quantum, row, group]. A number below 2^60 loses less than 2^-60, and 2^33 of them do
    not overflow.
    """
    out = np.zeros((len(QUANTA), len(x), groups), np.int64)
    order = np.argsort(group, kind="stable")
    used, first = np.unique(group[order], return_index=True)
    for r, row in enumerate(x):
        if not row.any():
            continue
        left = row[order]
        for k, quantum in enumerate(QUANTA):
            some = np.rint(left / quantum)
            out[k, r, used] = np.add.reduceat(some.astype(np.int64), first)
            left = left - some * quantum
    return out


def as_numbers(sums: np.ndarray) -> np.ndarray:
    """Return whole multiples of QUANTA [quantum, …] as float64 […]."""
    out = sums[-1] * QUANTA[-1]
    for some, quantum in zip(sums[-2::-1], QUANTA[-2::-1], strict=True):
        out = out + some * quantum
    return out


def group_totals(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return for every column of x [row, column] the total of its group, all of which is here."""
    return as_numbers(exact_sums(x, group, int(group.max(initial=-1)) + 1))[:, group]


def column_sums(x: np.ndarray) -> np.ndarray:
    """Return the sum of every column, row upon row: left to itself numpy adds a lone column up in another order."""
    return x.sum(axis=0) if x.shape[1] != 1 or not len(x) else np.add.accumulate(x[:, 0])[-1:]
