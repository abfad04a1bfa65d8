"""Say how long a purchase line takes: work to be done, and a pace that suffers with its supplier and its region.

A line ordered on day o is complete on the first day d with elapsed(o, d) ≥ work. Elapsed counts the working days after
o, each worth its pace in (0, 1]; work is log-normal with a median that grows with the supplier's queue. Some lines run
into trouble, which multiplies their work, and a few of those are never delivered.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from pipelines.simulate import chains
from pipelines.simulate.catalogue import EXPOSURE, MODES, Suppliers
from pipelines.simulate.clock import Running
from pipelines.simulate.world import World

QUEUE_EFFECT = 0.6  # twice the usual orders within four weeks: 52 % more work
TROUBLE_SHARE = np.array([0.05, 0.10, 0.16])  # by regime at order time
TROUBLE_LOG = 0.33  # adds to the log of work
NEVER_SHARE = 0.05  # of lines in trouble
PART_SHARE = (0.08, 0.35)  # lines that also come in parts: without and with trouble
PART_LOG, PART_SPREAD = -0.25, 0.25  # first part: work relative to the line's median

LAGS = np.array([0, 1, 2, 3, 4, 5, 7, 10])  # days from receipt to its record
LAG_SHARES = np.array([0.50, 0.27, 0.12, 0.04, 0.03, 0.02, 0.015, 0.005])
LONGER = np.array([LAG_SHARES[lag < LAGS].sum() for lag in range(LAGS.max())])  # P(lag > k days)


@dataclass(frozen=True, slots=True)
class Pace:
    """What a day is worth; rows of `elapsed` are supplier × site × mode, rows of `working` are supplier × site."""

    weekly: NDArray[np.float64]  # [supplier, mode, week]
    elapsed: Running  # [row, day] worth of the days so far
    working: Running  # [pair, day] days on which supplier and site work
    open: Running  # [supplier, day] days on which the supplier works
    n_sites: int

    def pair(self, supplier: NDArray, site: NDArray) -> NDArray[np.int64]:
        return supplier * self.n_sites + site

    def row(self, supplier: NDArray, site: NDArray, mode: NDArray) -> NDArray[np.int64]:
        return self.pair(supplier, site) * len(MODES) + mode


def make_pace(world: World, suppliers: Suppliers) -> Pace:
    clock = world.clock
    strain = suppliers.worst[:, None] * chains.STRAIN[suppliers.regime]
    taken = suppliers.fragility[:, None] * chains.SEVERITY[world.shocks[suppliers.region]]
    weekly = (1 - strain)[:, None, :] * (1 - EXPOSURE[None, :, None] * taken[:, None, :])
    both = suppliers.open[:, None, :] & world.site_open[None, :, :]
    daily = np.repeat(weekly, 7, axis=2)
    worth = np.where(both[:, :, None, :], daily[:, None, :, :], 0.0)
    return Pace(
        weekly=weekly,
        elapsed=Running(worth.reshape(-1, clock.days)),
        working=Running(both.reshape(-1, clock.days)),
        open=Running(suppliers.open),
        n_sites=len(world.sites),
    )


def completion_day(pace: Pace, row: NDArray, order_day: NDArray, work: NDArray) -> NDArray[np.int64]:
    return pace.elapsed.first_reaching(row, pace.elapsed[row, order_day] + work)


def promise_day(pace: Pace, supplier: NDArray, order_day: NDArray, working_days: NDArray, careful: NDArray) -> NDArray:
    """Return the day a quote means: careful suppliers count their own calendar, others five days a week.

    Both end on a day the supplier works.
    """
    counted = pace.open.first_reaching(supplier, pace.open[supplier, order_day] + np.ceil(working_days))
    naive = order_day + np.ceil(working_days * 7 / 5).astype(int)
    naive = next_open(pace, supplier, np.minimum(naive, pace.open.total.shape[1] - 1))
    return np.where(careful, counted, naive)


def next_open(pace: Pace, supplier: NDArray, day: NDArray) -> NDArray[np.int64]:
    """Return the same day if the supplier works on it, else its next working day."""
    return pace.open.first_reaching(supplier, pace.open[supplier, day - 1] + 1)


def still_open(elapsed: NDArray, median_log: NDArray, spread: NDArray, trouble: bool) -> NDArray:
    """Return P(work > elapsed) of a line without or with trouble."""
    z = (np.log(np.maximum(elapsed, 1e-9)) - median_log) / spread
    if not trouble:
        return ndtr(-z)
    return NEVER_SHARE + (1 - NEVER_SHARE) * ndtr(TROUBLE_LOG / spread - z)


def draw_work(rng: np.random.Generator, median_log: NDArray, spread: NDArray, trouble: NDArray) -> NDArray:
    n = len(median_log)
    work = np.exp(median_log + spread * rng.standard_normal(n) + TROUBLE_LOG * trouble)
    return np.where(trouble & (rng.random(n) < NEVER_SHARE), np.inf, work)


def draw_part(rng: np.random.Generator, median_log: NDArray, trouble: NDArray) -> NDArray:
    """Return the work behind a first partial delivery, infinite for lines that come whole."""
    n = len(median_log)
    work = np.exp(median_log + PART_LOG + PART_SPREAD * rng.standard_normal(n))
    return np.where(rng.random(n) < np.where(trouble, PART_SHARE[1], PART_SHARE[0]), work, np.inf)


def part_evidence(elapsed: NDArray, median_log: NDArray, part_seen: NDArray) -> NDArray:
    """Return the likelihood ratio trouble : no trouble of having seen, or not yet seen, a first part."""
    came = ndtr((np.log(np.maximum(elapsed, 1e-9)) - median_log - PART_LOG) / PART_SPREAD)
    unseen = (1 - PART_SHARE[1] * came) / (1 - PART_SHARE[0] * came)
    return np.where(part_seen, PART_SHARE[1] / PART_SHARE[0], unseen)


def draw_lag(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    return LAGS[np.minimum(np.searchsorted(np.cumsum(LAG_SHARES), rng.random(n)), len(LAGS) - 1)]
