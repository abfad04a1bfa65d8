"""Choose how many trees the parts of a model have, and grow only as many as it takes to tell."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from models.blend import blend

# How far the trees learn: chains with few lines are learnt by heart after a tenth of them, regular ones use them all.
ROUND_SHARES = (0.05, 0.1, 0.2, 0.35, 0.65, 1.0)
AT_FIRST = 4  # numbers of trees that are tried before looking where the best one is

Grow = Callable[[Sequence[int]], list[np.ndarray]]
"""Given rising numbers of trees, the forecasts of a part by its first so many trees; missing ones are grown."""


def round_counts(most: float) -> list[int]:
    """Return the rising numbers of trees that are tried."""
    return sorted({max(round(most * share), 1) for share in ROUND_SHARES})


def choose_rounds(
    parts: Mapping[str, Grow], counts: Mapping[str, Sequence[int]], loss: Callable[[np.ndarray], float]
) -> tuple[dict[str, int], np.ndarray]:
    """Return how many trees of each part make the mean of the parts with the lowest loss, and that mean.

    Together, since a mean is steadier than its parts: alone, each would stop too early. Every pair of `counts` is tried
    that has been grown, and a part grows on only while its best number is its largest.
    """
    said = {part: grow(counts[part][:AT_FIRST]) for part, grow in parts.items()}
    losses: dict[tuple[int, ...], float] = {}
    while True:
        tried = list(product(*(range(len(each)) for each in said.values())))
        losses |= {at: loss(_mean_of(said, at)) for at in tried if at not in losses}
        best = min(tried, key=lambda at: losses[at])
        more = [part for part, k in zip(said, best, strict=True) if len(said[part]) == k + 1 < len(counts[part])]
        if not more:
            chosen = {part: counts[part][k] for part, k in zip(said, best, strict=True)}
            return chosen, _mean_of(said, best)
        for part in more:
            said[part] += parts[part]([counts[part][len(said[part])]])


def _mean_of(said: Mapping[str, Sequence[np.ndarray]], at: Sequence[int]) -> np.ndarray:
    return mean([each[k] for each, k in zip(said.values(), at, strict=True)])


def mean(each: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of one or two forecasts on the logit scale."""
    return each[0] if len(each) == 1 else blend(each[0], each[1], 0.5)
