"""Work on pieces of arrays side by side."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor


def threads() -> int:
    """How many threads to work with: OMP_NUM_THREADS where it is set, as it is in Dask's workers, else every core."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else len(os.sched_getaffinity(0))


def side_by_side(work: Callable[[slice], None], pieces: Iterable[slice]) -> None:
    """Do the work of every piece, in threads: numpy lets go of the interpreter while it computes."""
    every, most = list(pieces), threads()
    if min(len(every), most) <= 1:
        for piece in every:
            work(piece)
        return
    with ThreadPoolExecutor(most) as pool:
        list(pool.map(work, every))


def pieces(size: int, width: int) -> Iterator[slice]:
    """Cut 0 … size − 1 into stretches of `width`."""
    return (slice(first, min(first + width, size)) for first in range(0, size, width))
