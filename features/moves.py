"""How far a series' last weeks stand from the year before them: its promotions and what its category did taken out."""

from dataclasses import dataclass

import bottleneck as bn
import numpy as np

from features.core import back

WEEKS = 2  # the last ones: one alone is mostly chance, four are told of late
YEAR = 52  # weeks that tell where a series stood, and how far such last weeks have strayed from there
FEWEST = 13  # of them, before anything is told
FLOOR = 0.3  # of a usual week, added before logarithms are taken: without, a week of few orders has no lower end
LEAST = 0.04  # a spread below it, in logs, is not believed
MOST = 1.0  # logs; a gap beyond it, the series' or its category's, counts as no more


@dataclass(frozen=True, slots=True)
class Move:
    """`share` that the last WEEKS stand above (or below, negative) the mean of the year before them, and `z`: that over
    the spread such gaps had in the year before. Arrays [as_of, series], missing where too little is known."""

    share: np.ndarray
    z: np.ndarray


def move(cleared: np.ndarray, others: np.ndarray, told: np.ndarray) -> Move:
    """Return how weekly units [as_of, series], freed of what promotions added, have moved; missing but where `told`.

    `others` are the units of all other series of the category, freed alike: a move that they share is no move. A series
    that moved for good stays moved until the year looked back on has caught up.
    """
    shared = _logs(others)
    gap = np.nan_to_num(shared - back(_mean(shared), 1))
    own = _logs(cleared) - np.clip(gap, -MOST, MOST)
    recent = bn.move_mean(own, window=min(WEEKS, len(own)), axis=0)
    size = recent - back(_mean(own), WEEKS)
    held = np.clip(size, -MOST, MOST)
    spread = np.sqrt(np.maximum(back(_mean(held**2), WEEKS), LEAST**2))
    share = np.maximum((1 + FLOOR) * np.expm1(size), -1.0)
    return Move(np.where(told, share, np.nan), np.where(told, held / spread, np.nan))


def _logs(units: np.ndarray) -> np.ndarray:
    usual = bn.move_mean(units, window=min(26, len(units)), min_count=1, axis=0)
    soft = np.maximum(units, 0) + FLOOR * usual
    return np.log(soft, out=np.full(soft.shape, np.nan), where=soft > 1e-6)


def _mean(x: np.ndarray) -> np.ndarray:
    if len(x) < FEWEST:
        return np.full(x.shape, np.nan)
    return np.asarray(bn.move_mean(x, window=min(YEAR, len(x)), min_count=FEWEST, axis=0))
