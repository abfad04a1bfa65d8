"""Work on pieces of arrays side by side."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

P = TypeVar("P")


def threads(most: int = 0) -> int:
    """How many threads to work with: OMP_NUM_THREADS where it is set, as it is in Dask's workers, else every core; but
    `most` at most, where that is given."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    there = int(told) if told.isdigit() and int(told) else len(os.sched_getaffinity(0))
    return min(most, there) if most else there


def side_by_side(work: Callable[[P], None], pieces: Iterable[P]) -> None:
    """Do the work of every piece, in threads: numpy lets go of the interpreter while it computes."""
    every, most = list(pieces), threads()
    np.empty(3 << 20)  # once 24 MB were let go, glibc keeps freed memory instead of asking for each array's anew
    if min(len(every), most) <= 1:
        for piece in every:
            work(piece)
        return
    with ThreadPoolExecutor(most) as pool:
        list(pool.map(work, every))


def pieces(size: int, width: int) -> Iterator[slice]:
    """Cut 0 … size − 1 into stretches of `width`."""
    return (slice(first, min(first + width, size)) for first in range(0, size, width))


def taken(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return table[index]; every index is in the table."""
    out = np.empty(len(index), table.dtype)

    def work(rows: slice) -> None:
        np.take(table, index[rows], out=out[rows], mode="clip")

    side_by_side(work, pieces(len(index), 1 << 18))
    return out
