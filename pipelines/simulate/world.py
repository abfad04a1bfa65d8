"""Hold what all parts of a simulated world share: time, places, regional shocks and waves of demand."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipelines.simulate import chains
from pipelines.simulate.clock import Clock, open_days
from pipelines.simulate.names import CATEGORIES, REGIONS, SITES


@dataclass(frozen=True, slots=True)
class Waves:
    """Shifts of demand that sweep over one category or one site; every array has one entry per wave.

    `category` or `site` is −1 where the wave does not care. Site j feels a wave `delay[:, j]` weeks after it starts.
    """

    category: NDArray[np.int64]
    site: NDArray[np.int64]
    start: NDArray[np.int64]
    log_size: NDArray[np.float64]
    length: NDArray[np.int64]
    delay: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class World:
    clock: Clock
    categories: tuple[str, ...]
    sites: tuple[tuple[str, str, str, str, float, float], ...]
    shocks: NDArray[np.int8]  # [region, week]
    waves: Waves
    site_open: NDArray[np.bool_]  # [site, day]
    seed: np.random.SeedSequence

    def site_region(self) -> NDArray[np.int64]:
        return np.array([REGIONS.index(site[2]) for site in self.sites])


def make_world(clock: Clock, n_categories: int, n_sites: int, seed: np.random.SeedSequence) -> World:
    shock_seed, wave_seed, signal_seed = seed.spawn(3)
    rng = np.random.default_rng(shock_seed)
    regions = len(REGIONS)
    shocks = chains.walk(rng, np.repeat(chains.SHOCKS[None], regions, 0), np.zeros(regions, int), clock.weeks)
    return World(
        clock=clock,
        categories=tuple(CATEGORIES)[:n_categories],
        sites=SITES[:n_sites],
        shocks=shocks,
        waves=_waves(np.random.default_rng(wave_seed), clock, n_categories, n_sites),
        site_open=np.stack([open_days(clock, site[3]) for site in SITES[:n_sites]]),
        seed=signal_seed,
    )


def becalmed(world: World) -> World:
    """Return the world without its waves of demand; all else is as it was."""
    none, sites = np.empty(0, np.int64), world.waves.delay.shape[1]
    still = Waves(none, none, none, np.empty(0), none, np.empty((0, sites), np.int64))
    return replace(world, waves=still)


def _waves(rng: np.random.Generator, clock: Clock, n_categories: int, n_sites: int) -> Waves:
    """Draw waves per category (mean gap 110 weeks) and per site (160 weeks): a third are surges of 3 to 6 weeks."""
    category_waves = [(c, -1, w) for c in range(n_categories) for w in _starts(rng, 110, clock.weeks)]
    site_waves = [(-1, s, w) for s in range(n_sites) for w in _starts(rng, 160, clock.weeks)]
    category, site, start = np.array(category_waves + site_waves).reshape(-1, 3).T
    n = len(start)
    surge = rng.random(n) < 0.3
    upward = surge | (rng.random(n) < 0.4)
    size = rng.uniform(np.log(2.0), np.log(3.2), n)
    return Waves(
        category=category,
        site=site,
        start=start,
        log_size=np.where(upward, size, -size),
        length=np.where(surge, rng.integers(3, 7, n), rng.integers(14, 36, n)),
        delay=np.argsort(rng.random((n, n_sites)), axis=1) * 2,
    )


def _starts(rng: np.random.Generator, gap: int, weeks: int) -> list[int]:
    gaps = rng.integers(gap // 2, gap + gap // 2 + 1, 2 * weeks // gap + 3)
    starts = np.cumsum(gaps) - rng.integers(0, gap)
    return [int(w) for w in starts if 0 <= w < weeks]
