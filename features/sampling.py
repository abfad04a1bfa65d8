"""Choose the snapshots to learn from before their inputs are built, by a hash of key and day alone."""

from dataclasses import dataclass
from datetime import date

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # splitmix64, Steele et al. (2014): every bit of the input moves every other


def in_sample(key: np.ndarray, day: np.ndarray, share: float) -> np.ndarray:
    """Whether each snapshot is among the `share` of all that is kept; `key` is a 64-bit hash, `day` a day.

    What else there is makes no difference: neither order nor partitions nor other rows. A smaller share's sample is
    part of a larger one's.
    """
    number = day.astype("datetime64[D]").astype(np.int64).astype(np.uint64)
    with np.errstate(over="ignore"):
        x = key + number * GOLDEN
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) >> np.uint64(11) < np.uint64(round(share * 2**53))


@dataclass(frozen=True, slots=True)
class Sample:
    """A `share` of the snapshots of days before `until`, all of later days; nothing is left out unless asked."""

    share: float = 1.0
    until: date | None = None

    def keeps(self, key: np.ndarray, day: np.ndarray) -> np.ndarray:
        """Whether each snapshot is built."""
        kept = in_sample(key, day, self.share)
        return kept if self.until is None else kept | (day >= np.datetime64(self.until, "D"))


EVERY = Sample()


def share_for(most: int, there: int) -> float:
    """Return the share of `there` snapshots that leaves about `most`; all of them where they are no more."""
    return min(most / max(there, 1), 1.0)


def stretches(opens: np.ndarray, closes: np.ndarray, steps: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, per entity, the place in `steps` of the first with opens ≤ step < closes, and how many there are.

    `steps` are sorted numbers below `size`.
    """
    wanted = np.zeros(size + 1, np.int64)  # how many of the steps come before each
    wanted[1:] = np.cumsum(np.isin(np.arange(size), steps))
    begin, end = (wanted[edge.clip(0, size)] for edge in (opens, closes))
    return begin, np.maximum(end - begin, 0)
