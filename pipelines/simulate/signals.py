"""Publish what the world lets on: freight, demand climate, search interest, noise, and planned events."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.simulate import chains
from pipelines.simulate.catalogue import Catalogue
from pipelines.simulate.clock import DAY, DAY_US, MONTH, holiday_days
from pipelines.simulate.demand import Demand
from pipelines.simulate.names import REGIONS
from pipelines.simulate.tables import day_array, moment_array, names_of
from pipelines.simulate.world import World

INTEREST_LEAD, CLIMATE_LEAD = 4, 6  # weeks by which search interest and pmi run ahead of a wave of demand
HOUR_US = 3_600_000_000
Rows = tuple[str, list[str], NDArray, NDArray, NDArray, NDArray, str]
"""One signal: name, scopes, which scope, day, µs at which it is known, value, kind."""


def signals_table(world: World, rows: list[Rows]) -> pa.Table:
    """Return the contract table `signals`, cut at the end."""
    parts = []
    for signal, scopes, which, day, known, value, kind in rows:
        order = np.lexsort((which, day, known))
        sel = order[(known[order] < world.clock.end_day * DAY_US) & (day[order] >= 7 * world.clock.start_week)]
        parts.append(
            pa.table(
                {
                    "signal": pa.array([signal] * len(sel), pa.string()),
                    "scope": names_of(scopes, which[sel]),
                    "observed_on": day_array(world.clock, day[sel]),
                    "known_at": moment_array(world.clock, known[sel]),
                    "value": pa.array(value[sel].astype(float)),
                    "kind": pa.array([kind] * len(sel), pa.string()),
                }
            )
        )
    return pa.concat_tables(parts).combine_chunks()


def world_signals(world: World) -> list[Rows]:
    """Return the signals every partition of a world shares."""
    rng = np.random.default_rng(world.seed)
    weekly = [_freight(rng, world), _interest(rng, world), _sentiment(rng, world)]
    return [*weekly, *_pmi(rng, world), _holidays(world)]


def _weekly(signal: str, scopes: list[str], value: NDArray) -> Rows:
    """Return values [scope, week] as published on the Saturday of their week."""
    which, week = (x.ravel() for x in np.indices(value.shape))
    known = (7 * week + 5) * DAY_US + 6 * HOUR_US
    return signal, scopes, which, 7 * week, known, np.round(value.ravel(), 2), "observed"


def _wander(rng: np.random.Generator, shape: tuple[int, int], stay: float) -> NDArray[np.float64]:
    """Return noise of unit variance that forgets at the rate `stay`."""
    noise = rng.standard_normal(shape)
    for week in range(1, shape[1]):
        noise[:, week] = stay * noise[:, week - 1] + np.sqrt(1 - stay**2) * noise[:, week]
    return noise


def _freight(rng: np.random.Generator, world: World) -> Rows:
    value = 100 + chains.FREIGHT[world.shocks] + 3.0 * _wander(rng, world.shocks.shape, 0.7)
    return _weekly("freight_index", [f"region:{r}" for r in REGIONS], value)


def wave_level(world: World, category: int = -1, site: int = -1) -> NDArray[np.float64]:
    """Return per week the summed logs of the waves over this category or site, as if every series followed at once."""
    waves, weeks = world.waves, np.arange(world.clock.weeks)
    chosen = (waves.category == category) if site < 0 else (waves.site == site)
    age = weeks[None, :] - waves.start[chosen, None]
    inside = (age >= 0) & (age < waves.length[chosen, None])
    return (waves.log_size[chosen, None] * inside).sum(0)


def _ahead(level: NDArray, weeks: int) -> NDArray:
    return np.concatenate([level[weeks:], np.repeat(level[-1], weeks)])


def _interest(rng: np.random.Generator, world: World) -> Rows:
    """Search interest per category runs ahead of its waves of demand; now and then it rises for nothing."""
    levels = np.stack([_ahead(wave_level(world, category=c), INTEREST_LEAD) for c in range(len(world.categories))])
    false_alarms = np.zeros_like(levels)
    for c, start in zip(*np.nonzero(rng.random(levels.shape) < 1 / 120), strict=True):
        false_alarms[c, start : start + 6] += rng.choice([-0.5, 0.5])
    value = 100 * np.exp(0.6 * levels + 0.5 * false_alarms + 0.07 * _wander(rng, levels.shape, 0.4))
    return _weekly("search_interest", [f"category:{c}" for c in world.categories], value)


def _sentiment(rng: np.random.Generator, world: World) -> Rows:
    return _weekly("sentiment", ["*"], 10 * _wander(rng, (1, world.clock.weeks), 0.85))


def _pmi(rng: np.random.Generator, world: World) -> list[Rows]:
    """Return the monthly climate per region in two vintages: a noisy first print, and a revision that knows better.

    The month's print comes early in the next month. The revision a month later has seen how demand and shocks went on:
    used as if it had been known at once it is a leak.
    """
    weeks = world.clock.weeks
    demand = np.zeros((len(REGIONS), weeks))
    for j, region in enumerate(world.site_region()):
        demand[region] += wave_level(world, site=j)
    level = np.stack([_ahead(row, CLIMATE_LEAD) for row in demand]) - 0.5 * chains.SEVERITY[world.shocks]
    monday = np.datetime64(world.clock.day_zero) + 7 * np.arange(weeks) * DAY
    month = monday.astype("datetime64[M]")
    months = np.unique(month)[:-2]
    in_month = month[None, :] == months[:, None]
    in_next = month[None, :] == months[:, None] + MONTH
    now, following = (level @ x.T / x.sum(1) for x in (in_month, in_next))
    first = 50 + 5 * now + 2.0 * rng.standard_normal(now.shape)
    revised = 50 + 5 * now + 4 * following + 0.4 * rng.standard_normal(now.shape)
    return [_vintage(world, months, first, 1), _vintage(world, months, revised, 2)]


def _vintage(world: World, months: NDArray, value: NDArray, later: int) -> Rows:
    which, m = (x.ravel() for x in np.indices(value.shape))
    zero = np.datetime64(world.clock.day_zero)
    day, release = ((x.astype("datetime64[D]") - zero).astype(int) for x in (months, months + later * MONTH))
    known = (release[m] + 2) * DAY_US + 9 * HOUR_US
    return "pmi", [f"region:{r}" for r in REGIONS], which, day[m], known, np.round(value.ravel(), 1), "observed"


def _holidays(world: World) -> Rows:
    """Return the number of public holidays on weekdays per site and week, known most of a year ahead."""
    clock = world.clock
    free = np.stack([holiday_days(clock, s[3]) & (np.arange(clock.days) % 7 < 5) for s in world.sites])
    count = free.reshape(len(world.sites), clock.weeks, 7).sum(2)
    which, week = np.nonzero(count)
    known = (7 * week - 300) * DAY_US
    return "holiday", [f"site:{s[0]}" for s in world.sites], which, 7 * week, known, count[which, week], "calendar"


def catalogue_signals(world: World, catalogue: Catalogue, demand: Demand, seed: np.random.SeedSequence) -> list[Rows]:
    """Return what is published about this catalogue: suppliers' backlogs, promotions, new list prices."""
    rng = np.random.default_rng(seed)
    return [_backlog(rng, catalogue), *_promotions(rng, world, catalogue, demand), _prices(rng, catalogue, demand)]


def _backlog(rng: np.random.Generator, catalogue: Catalogue) -> Rows:
    """Weeks of backlog as reported by three suppliers of four: how things stood a week earlier, roughly."""
    suppliers = catalogue.suppliers
    before = np.concatenate([suppliers.regime[:, :1], suppliers.regime[:, :-1]], axis=1)
    value = 4 * np.exp(0.8 * chains.STRAIN[before] + 0.28 * _wander(rng, before.shape, 0.4))
    signal, scopes, which, *rest, kind = _weekly("supplier_backlog", [f"supplier:{s}" for s in suppliers.ids], value)
    reports = (rng.random(len(suppliers.ids)) < 0.75)[which]
    day, known, weeks = (x[reports] for x in rest)
    return signal, scopes, which[reports], day, known, weeks, kind


def _promotions(rng: np.random.Generator, world: World, catalogue: Catalogue, demand: Demand) -> list[Rows]:
    """Return the discount depth of every promoted week, per product or per product and site."""
    series, ids = catalogue.series, catalogue.products.ids
    places = [f"product:{ids[p]}&site:{world.sites[s][0]}" for p, s in zip(series.product, series.site, strict=True)]
    row, week = np.nonzero((demand.promotion > 0) & ~demand.by_product)
    depth = demand.promotion[row, week]
    local: Rows = ("promotion", places, row, 7 * week, _announced(rng, week), depth, "calendar")
    everywhere = np.zeros((len(ids), demand.promotion.shape[1]))
    np.maximum.at(everywhere, series.product, demand.promotion * demand.by_product)
    product, week = np.nonzero(everywhere)
    everyone = [f"product:{p}" for p in ids]
    depth = everywhere[product, week]
    return [local, ("promotion", everyone, product, 7 * week, _announced(rng, week), depth, "calendar")]


def _prices(rng: np.random.Generator, catalogue: Catalogue, demand: Demand) -> Rows:
    """Return the list price from each week on in which it changes."""
    everyone = [f"product:{p}" for p in catalogue.products.ids]
    product, week = np.nonzero(np.diff(demand.price, axis=1))
    price = demand.price[product, week + 1]
    return "list_price", everyone, product, 7 * week + 7, _announced(rng, week + 1), price, "calendar"


def _announced(rng: np.random.Generator, week: NDArray) -> NDArray[np.int64]:
    """Return a working hour three to eight weeks before the Monday of each week."""
    day = 7 * (week - rng.integers(3, 9, len(week))) + rng.integers(0, 5, len(week))
    return day * DAY_US + rng.integers(8, 17, len(week)) * HOUR_US
