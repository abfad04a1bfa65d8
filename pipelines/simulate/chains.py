"""Draw the hidden states that make lines late: how suppliers are doing, what has hit regions, what may follow."""

import numpy as np
from numpy.typing import NDArray

# A supplier is good, strained or bad; a chain per temperament: stable, average, fragile. Stays last weeks to months.
REGIMES = np.array(
    [
        [[0.992, 0.005, 0.003], [0.050, 0.930, 0.020], [0.020, 0.025, 0.955]],
        [[0.984, 0.010, 0.006], [0.035, 0.940, 0.025], [0.020, 0.020, 0.960]],
        [[0.968, 0.020, 0.012], [0.030, 0.940, 0.030], [0.015, 0.020, 0.965]],
    ]
)
STRAIN = np.array([0.0, 0.5, 1.0])  # share of the supplier's own worst slowdown

# A region is calm, brews for one to four weeks (every length as likely; some alarms are false), is disrupted, recovers.
CALM, DISRUPTED, RECOVERING = 0, 5, 6
SHOCKS = np.zeros((7, 7))
SHOCKS[CALM, [CALM, 1]] = 39 / 40, 1 / 40
for _i in range(1, 5):
    SHOCKS[_i, DISRUPTED] = 0.96 / (5 - _i)
    SHOCKS[_i, CALM] = 0.04
    SHOCKS[_i, _i + 1] += 0.96 - 0.96 / (5 - _i)
SHOCKS[DISRUPTED, [DISRUPTED, RECOVERING]] = 6 / 7, 1 / 7
SHOCKS[RECOVERING, [RECOVERING, CALM]] = 2 / 3, 1 / 3
SEVERITY = np.array([0, 0, 0, 0, 0, 1.0, 0.45])
FREIGHT = np.array([0, 9, 17, 25, 32, 38, 16.0])  # points of the freight index above calm


def walk(rng: np.random.Generator, chain: NDArray, start: NDArray, weeks: int) -> NDArray[np.int8]:
    """Return [walker, week] states; chain[walker] is its transition matrix, the first week is the start state."""
    steps, everyone = np.cumsum(chain, axis=-1), np.arange(len(start))
    states = np.empty((len(start), weeks), np.int8)
    states[:, 0] = start
    for week in range(1, weeks):
        states[:, week] = _step(steps[everyone, states[:, week - 1]], rng.random(len(start)))
    return states


def futures(rng: np.random.Generator, chains: NDArray, paths: int, weeks: int) -> NDArray[np.int8]:
    """Return [week, chain × start state, path]: `paths` (a power of two) continuations of every state of every chain.

    Plain random paths would say badly how often something rare follows. Here the paths, sorted by state, take their
    dice from a shifted van der Corput sequence, so that of every group of paths close to the right share moves on
    (array-RQMC: L'Ecuyer, Lécot, Tuffin 2008).
    """
    kinds, n = chains.shape[:2]
    steps = np.cumsum(np.repeat(chains, n, 0), axis=-1)
    rows = np.arange(kinds * n)[:, None]
    states = np.empty((weeks, kinds * n, paths), np.int8)
    states[0] = np.tile(np.arange(n), kinds)[:, None]
    for week in range(1, weeks):
        order = np.argsort(states[week - 1], axis=1, kind="stable")
        dice = np.empty(order.shape)
        dice[rows, order] = (_van_der_corput(paths) + rng.random((kinds * n, 1))) % 1.0
        states[week] = _step(steps[rows, states[week - 1]], dice)
    return states[:, rows, rng.permuted(np.tile(np.arange(paths), (kinds * n, 1)), axis=1)]


def _step(steps: NDArray, dice: NDArray) -> NDArray:
    return np.minimum((dice[..., None] >= steps).sum(-1), steps.shape[-1] - 1)


def _van_der_corput(n: int) -> NDArray[np.float64]:
    """Return 0, 1/2, 1/4, 3/4, 1/8 …: any stretch of it is spread evenly over [0, 1)."""
    points = np.zeros(n)
    for bit in range(n.bit_length() - 1):
        points += ((np.arange(n) >> bit) & 1) / 2 ** (bit + 1)
    return points
