"""Plant shifts of demand and keep the answer book: which windows of which series really differ."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.simulate.catalogue import Catalogue
from pipelines.simulate.tables import day_array, names_of
from pipelines.simulate.world import World

WINDOWS = ((0, 4), (4, 4), (8, 5))  # (lead weeks, length weeks)
SHIFT_RATIO = 1.35
Z_STAR = 1.64
NEW_WEEKS = 4  # a shift that began this many weeks before as_of, or longer ago, is no news
HINT_WEEKS = 5
JUDGED_WEEKS = 13  # within which a planted step should be found


@dataclass(frozen=True, slots=True)
class Shifts:
    """One entry per planted shift of one series. A hinted one shows in the orders of the weeks before it.

    `first` is the share of its whole size that it has in its first week.
    """

    series: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    log_size: NDArray[np.float64]
    hinted: NDArray[np.bool_]
    first: NDArray[np.float64]

    def profile(self, weeks: int) -> NDArray[np.float64]:
        """Return [shift, week] logs of the factor: a first week, the whole size, then a slow or quick fade."""
        age = np.arange(weeks)[None, :] - self.start[:, None]
        over = age - self.length[:, None] + 1
        fade = np.where(self.length >= 8, 10.0, 0.8)[:, None]
        shape = np.where(age < 0, 0.0, np.where(age == 0, self.first[:, None], 1.0)) * np.exp(
            -np.maximum(over, 0) / fade
        )
        return self.log_size[:, None] * shape

    def hints(self, n_series: int, weeks: int) -> NDArray[np.int8]:
        """Return [series, week]: +1 or −1 in the weeks before a hinted shift up or down, else 0."""
        out = np.zeros((n_series, weeks), np.int8)
        for back in range(1, HINT_WEEKS + 1):
            week = self.start - back
            sel = self.hinted & (week >= 0) & (week < weeks)
            out[self.series[sel], week[sel]] = np.sign(self.log_size[sel])
        return out


def plant_shifts(world: World, catalogue: Catalogue, seed: np.random.SeedSequence) -> Shifts:
    """Let about half of the series a wave passes follow it, each in its own week, and add shifts out of the blue."""
    rng = np.random.default_rng(seed)
    series, waves = catalogue.series, world.waves
    category = catalogue.products.category[series.product]
    touched = ((waves.category[:, None] == category) | (waves.site[:, None] == series.site)) & (
        rng.random((len(waves.start), len(category))) < np.where(waves.category >= 0, 0.6, 0.4)[:, None]
    )
    wave, member = np.nonzero(touched)
    follow = waves.start[wave] + waves.delay[wave, series.site[member]] + rng.integers(0, 4, len(wave))
    size = waves.log_size[wave] * rng.uniform(0.8, 1.2, len(wave))
    own = rng.poisson(world.clock.weeks / 300, len(category))
    alone = np.repeat(np.arange(len(category)), own)
    n = len(alone)
    return Shifts(
        series=np.concatenate([member, alone]),
        start=np.concatenate([follow, rng.integers(0, world.clock.weeks, n)]),
        length=np.concatenate([waves.length[wave], np.where(rng.random(n) < 0.4, 4, rng.integers(12, 40, n))]),
        log_size=np.concatenate([size, rng.choice([-1, 1], n) * rng.uniform(np.log(1.8), np.log(3.0), n)]),
        hinted=rng.random(len(member) + n) < 0.5,
        first=np.full(len(member) + n, 0.6),
    )


def plant_steps(world: World, catalogue: Catalogue, size: float, seed: np.random.SeedSequence) -> Shifts:
    """Let half of the series that sell steadily move once, for good, by the share `size`: as many up as down.

    Each begins in a week of its own with a year before it and JUDGED_WEEKS after it, at once and without a hint. A size
    of 0 moves none.
    """
    rng = np.random.default_rng(seed)
    series, clock = catalogue.series, world.clock
    old_enough = series.first_week <= clock.start_week
    steady = np.flatnonzero(~series.intermittent & old_enough)
    chosen = np.sort(rng.permutation(steady)[: len(steady) // 2 if size else 0])
    n = len(chosen)
    up = rng.permutation(np.arange(n) % 2 == 0)
    return Shifts(
        series=chosen,
        start=rng.integers(clock.start_week + 52, clock.end_week - JUDGED_WEEKS, n),
        length=np.full(n, clock.weeks),
        log_size=np.log(np.where(up, 1 + size, 1 - size)),
        hinted=np.zeros(n, bool),
        first=np.ones(n),
    )


def planted_table(world: World, catalogue: Catalogue, shifts: Shifts) -> pa.Table:
    """Return which series was planted a step, from which Monday on and how large: the log of its factor."""
    return pa.table(
        {
            "product_id": names_of(catalogue.products.ids, catalogue.series.product[shifts.series]),
            "site_id": names_of([s[0] for s in world.sites], catalogue.series.site[shifts.series]),
            "starts_on": day_array(world.clock, 7 * shifts.start),
            "log_size": pa.array(shifts.log_size),
        }
    )


def log_factor(shifts: Shifts, n_series: int, weeks: int) -> NDArray[np.float64]:
    """Return [series, week]: the log of all planted factors together."""
    total = np.zeros((n_series, weeks))
    np.add.at(total, shifts.series, shifts.profile(weeks))
    return total


def shift_truth(
    world: World, catalogue: Catalogue, shifts: Shifts, usual: NDArray[np.float64], variance: NDArray[np.float64]
) -> pa.Table:
    """Return the class of every series and window as of every Monday.

    `ratio` = Σ usual · (factor of the shifts that are news) / Σ usual, over the weeks of the window, all noise-free;
    up: above 1.35, down: below 1/1.35, and in both cases further from usual than Z_STAR standard deviations of what
    chance does to the window's units (`variance` [series, week]): what drowns in noise is no shift.
    `expected_units` holds every planted shift, old ones too.
    """
    clock = world.clock
    weeks = np.arange(clock.start_week, clock.end_week + 1)
    profile = shifts.profile(clock.weeks)
    everything = usual * np.exp(log_factor(shifts, len(usual), clock.weeks))
    old = np.zeros_like(usual)
    np.add.at(old, *_rows(shifts, profile, shifts.start < weeks[0] - NEW_WEEKS))
    parts = []
    for week in weeks:
        np.add.at(old, *_rows(shifts, profile, shifts.start == week - NEW_WEEKS))
        parts.append(_one_week(week, usual, everything, old, variance))
    there = np.array([catalogue.series.first_week <= week for week in weeks])
    return _table(world, catalogue, weeks, there, np.stack(parts))


def _rows(shifts: Shifts, profile: NDArray, chosen: NDArray) -> tuple[NDArray, NDArray]:
    return shifts.series[chosen], profile[chosen]


def _one_week(week: np.int64, usual: NDArray, everything: NDArray, old: NDArray, variance: NDArray) -> NDArray:
    """Return [4: usual, expected, news, variance; series; window]."""
    reach = slice(week, week + max(lead + length for lead, length in WINDOWS))
    base, full = usual[:, reach], everything[:, reach]
    news = np.where(base > 0, full * np.exp(-old[:, reach]), 0.0)
    spans = [slice(lead, lead + length) for lead, length in WINDOWS]
    return np.stack(
        [np.stack([x[:, span].sum(1) for span in spans], 1) for x in (base, full, news, variance[:, reach])]
    )


def _table(world: World, catalogue: Catalogue, weeks: NDArray, there: NDArray, sums: NDArray) -> pa.Table:
    usual, expected, news, variance = (sums[:, i][there].ravel() for i in range(4))
    ratio = np.divide(news, usual, out=np.ones_like(usual), where=usual > 0)
    week, series = (np.repeat(x, len(WINDOWS)) for x in np.nonzero(there))
    lead, length = np.tile(np.array(WINDOWS), (len(week) // len(WINDOWS), 1)).T
    clear = np.abs(news - usual) >= Z_STAR * np.sqrt(variance)
    kind = np.select([clear & (ratio > SHIFT_RATIO), clear & (ratio < 1 / SHIFT_RATIO)], [0, 1], 2)
    return pa.table(
        {
            "product_id": names_of(catalogue.products.ids, catalogue.series.product[series]),
            "site_id": names_of([s[0] for s in world.sites], catalogue.series.site[series]),
            "as_of": day_array(world.clock, 7 * weeks[week]),
            "lead_weeks": pa.array(lead.astype(np.int8)),
            "length_weeks": pa.array(length.astype(np.int8)),
            "shift": names_of(["up", "down", "steady"], kind),
            "ratio": pa.array(ratio),
            "expected_units": pa.array(expected),
            "usual_units": pa.array(usual),
        }
    )
