"""Invent suppliers, products and where they are stocked: the master data, and the hidden traits behind them."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipelines.simulate import chains
from pipelines.simulate.clock import Clock, open_days
from pipelines.simulate.names import CATEGORIES, DESKS, PLACES, REGIONS, product_name, supplier_names
from pipelines.simulate.world import World

MODES = ("sea", "road", "air")
SEA, ROAD, AIR = range(3)
EXPOSURE = np.array([0.55, 0.40, 0.15])  # share of the pace a disrupted region takes from each mode
NEAR = ({"west-europe", "east-europe"}, {"north-america", "latin-america"}, {"east-asia", "south-asia"})
AGREED_DAYS = 1.4 * 7 / 5  # calendar days agreed for one usual working day
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Suppliers:
    """One entry per supplier; a working day of a supplier in trouble is worth less than a day (see delivery.py)."""

    ids: list[str]
    names: list[str]
    category: Ints
    region: Ints
    place: list[tuple[str, str, float, float]]
    open: NDArray[np.bool_]  # [supplier, day]
    regime: NDArray[np.int8]  # [supplier, week]
    temperament: Ints  # which chain of chains.REGIMES
    worst: Floats  # share of the pace lost in the bad regime
    fragility: Floats  # multiplies what a disrupted region takes
    spread: Floats  # sd of log lead time
    slack: Floats  # quoted over usual lead time, − 1
    aware: Floats  # how much of its present trouble goes into a quote
    candour: Floats  # how often it announces a delay it expects
    mishap: Floats  # multiplies the share of lines that run into trouble
    usual_days: Floats  # [supplier, site, mode] working days from order to receipt when all is well
    main_mode: Ints  # [supplier, site]


@dataclass(frozen=True, slots=True)
class Products:
    ids: list[str]
    names: list[str]
    category: Ints
    complexity: Floats  # multiplies the lead time, not the quote
    cost: Floats
    margin: Floats
    main: Ints
    second: Ints


@dataclass(frozen=True, slots=True)
class Series:
    """One entry per product stocked at a site."""

    product: Ints
    site: Ints
    first_week: Ints
    lines_per_week: Floats
    units_per_line: Floats
    intermittent: NDArray[np.bool_]
    burst: Floats  # shape of the gamma that makes weekly counts wilder than Poisson


@dataclass(frozen=True, slots=True)
class Catalogue:
    suppliers: Suppliers
    products: Products
    series: Series


def make_catalogue(
    world: World, n_suppliers: int, n_products: int, first: tuple[int, int], seed: np.random.SeedSequence
) -> Catalogue:
    """Return suppliers numbered from first[0] and products numbered from first[1]."""
    rng = np.random.default_rng(seed)
    suppliers = _suppliers(rng, world, n_suppliers, first[0])
    products = _products(rng, world, suppliers, n_products, first[1])
    return Catalogue(suppliers, products, _series(rng, world, n_products))


def busier(catalogue: Catalogue, times: float) -> Catalogue:
    """Return the catalogue with customers ordering so many times as often."""
    series = replace(catalogue.series, lines_per_week=catalogue.series.lines_per_week * times)
    return replace(catalogue, series=series)


def _suppliers(rng: np.random.Generator, world: World, n: int, first: int) -> Suppliers:
    clock = world.clock
    category = np.arange(n) % len(world.categories)
    region = rng.permutation(np.arange(n) % len(REGIONS))
    place = [PLACES[REGIONS[r]][rng.integers(len(PLACES[REGIONS[r]]))] for r in region]
    temperament = rng.choice(3, n, p=[0.35, 0.4, 0.25])
    calendars = {country: open_days(clock, country) for country in sorted({p[0] for p in place})}
    usual_days, main_mode = _lead_times(rng, world, region)
    return Suppliers(
        ids=[f"S-{first + i:03d}" for i in range(n)],
        names=supplier_names(rng, [world.categories[c] for c in category], part=first // n),
        category=category,
        region=region,
        place=place,
        open=np.stack([calendars[p[0]] for p in place]),
        regime=chains.walk(rng, chains.REGIMES[temperament], np.zeros(n, int), clock.weeks),
        temperament=temperament,
        worst=rng.uniform(0.30, 0.42, n),
        fragility=rng.uniform(0.8, 1.2, n),
        spread=rng.uniform(0.10, 0.20, n),
        slack=rng.uniform(0.28, 0.68, n),
        aware=rng.uniform(0.0, 0.45, n),
        candour=rng.uniform(0.45, 0.95, n),
        mishap=rng.uniform(0.4, 1.6, n),
        usual_days=usual_days,
        main_mode=main_mode,
    )


def _lead_times(rng: np.random.Generator, world: World, region: Ints) -> tuple[Floats, Ints]:
    """Return usual working days [supplier, site, mode] and the usual mode [supplier, site]: sea between continents."""
    making = rng.uniform(4, 12, len(region))
    usual, mode = np.empty((len(region), len(world.sites), 3)), np.empty((len(region), len(world.sites)), int)
    for s, r in enumerate(region):
        for j, site in enumerate(world.sites):
            pair = {REGIONS[r], site[2]}
            near = any(pair <= group for group in NEAR)
            road = 3 if len(pair) == 1 else 6
            transit = (road + 4, road, 2) if near else (rng.integers(18, 26), 20, 5)
            usual[s, j] = making[s] + np.array(transit)
            mode[s, j] = ROAD if near else SEA
    return usual, mode


def _products(rng: np.random.Generator, world: World, suppliers: Suppliers, n: int, first: int) -> Products:
    category = np.arange(n) % len(world.categories)
    offers = [np.flatnonzero(suppliers.category == c) for c in range(len(world.categories))]
    pairs = np.array([rng.permutation(offers[c])[[0, -1]] for c in category])
    return Products(
        ids=[f"P-{first + i:04d}" for i in range(n)],
        names=[product_name(rng, world.categories[c]) for c in category],
        category=category,
        complexity=np.exp(rng.normal(0, 0.05, n)),
        cost=np.round(np.exp(rng.normal(2.6, 1.1, n)) + 0.4, 2),
        margin=rng.uniform(1.25, 2.1, n),
        main=pairs[:, 0],
        second=pairs[:, 1],
    )


def _series(rng: np.random.Generator, world: World, n_products: int) -> Series:
    stocked = rng.random((n_products, len(world.sites))) < 0.42
    stocked[np.arange(n_products), rng.integers(0, len(world.sites), n_products)] = True
    product, site = np.nonzero(stocked)
    n = len(product)
    intermittent = rng.random(n) < 0.25
    frequent = np.clip(np.exp(rng.normal(1.65, 0.45, n)), 2.5, 14.0)
    is_new = rng.random(n) < 0.08
    pack = np.clip(np.exp(rng.normal(2.6, 0.6, len(world.categories))), 5, 80)  # one category, one pack size
    return Series(
        product=product,
        site=site,
        first_week=np.where(is_new, world.clock.start_week + rng.integers(10, world.clock.history_weeks - 10, n), 0),
        lines_per_week=np.where(intermittent, rng.uniform(0.15, 0.6, n), frequent),
        units_per_line=pack[product % len(world.categories)] * np.exp(rng.normal(0, 0.25, n)),
        intermittent=intermittent,
        burst=rng.uniform(20, 60, n),
    )


def supplier_table(world: World, suppliers: Suppliers) -> dict[str, list]:
    usual = np.take_along_axis(suppliers.usual_days, suppliers.main_mode[:, :, None], 2)[:, :, 0]
    return {
        "supplier_id": suppliers.ids,
        "name": suppliers.names,
        "region": [REGIONS[r] for r in suppliers.region],
        "country": [p[0] for p in suppliers.place],
        "city": [p[1] for p in suppliers.place],
        "category": [world.categories[c] for c in suppliers.category],
        "latitude": [p[2] for p in suppliers.place],
        "longitude": [p[3] for p in suppliers.place],
        "lead_time_days": np.round(AGREED_DAYS * usual.mean(1)).tolist(),
    }


def product_table(world: World, products: Products) -> dict[str, list]:
    return {
        "product_id": products.ids,
        "name": products.names,
        "category": [world.categories[c] for c in products.category],
        "owner": [DESKS[c % len(DESKS)] for c in products.category],
    }


def site_table(world: World) -> dict[str, list]:
    columns = ("site_id", "name", "region", "country", "latitude", "longitude")
    return {name: list(values) for name, values in zip(columns, zip(*world.sites, strict=True), strict=True)}


def season(world: World, category: Ints, clock: Clock) -> Floats:
    """Return [row, week] yearly factors with mean about one."""
    amplitude, peak = np.array([CATEGORIES[world.categories[c]][3] for c in category]).T
    angle = 2 * np.pi * (clock.year_share()[None, :] - peak[:, None])
    return np.exp(amplitude[:, None] * (np.cos(angle) + 0.25 * np.cos(2 * angle)))
