"""Let customers order: expected demand per series and week, and the order lines it turns into."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.simulate.catalogue import Catalogue, season
from pipelines.simulate.clock import DAY_US, NEVER, holiday_days
from pipelines.simulate.shifts import Shifts, log_factor
from pipelines.simulate.tables import day_array, moment_array, moments, names_of, numbered
from pipelines.simulate.world import World

UNITS_SPREAD = 0.3  # sd of log units of one order line
UNITS_MEAN = float(np.exp(UNITS_SPREAD**2 / 2))
DISCOUNTS = np.array([0.10, 0.15, 0.20, 0.25, 0.30])
CUSTOMERS = 180
WEEKDAYS = np.cumsum([0.20, 0.20, 0.19, 0.19, 0.17, 0.03, 0.02])


@dataclass(frozen=True, slots=True)
class Demand:
    """Everything about demand but single orders; arrays are [series, week] unless said otherwise."""

    usual_units: NDArray[np.float64]  # noise-free mean without planted shifts
    expected_units: NDArray[np.float64]  # … with them
    promotion: NDArray[np.float64]  # discount depth
    by_product: NDArray[np.bool_]  # the promotion runs at every site
    price: NDArray[np.float64]  # [product, week] list price
    lines: NDArray[np.int64]  # order lines drawn, until the end
    hints: NDArray[np.int8]
    variance: NDArray[np.float64]  # of the weekly units by chance alone: of counts, bursts and sizes


def make_demand(world: World, catalogue: Catalogue, shifts: Shifts, seed: np.random.SeedSequence) -> Demand:
    rng = np.random.default_rng(seed)
    series, weeks = catalogue.series, world.clock.weeks
    promotion, by_product = _promotions(rng, catalogue, weeks)
    price = _prices(rng, world, catalogue)
    factor = _trend_and_season(rng, world, catalogue) * _lift(promotion)
    factor *= (price / price[:, :1])[series.product] ** -0.6
    factor *= np.arange(weeks)[None, :] >= series.first_week[:, None]
    usual = factor * series.lines_per_week[:, None]
    expected = usual * np.exp(log_factor(shifts, len(usual), weeks))
    until = world.clock.end_week + 1
    wild = rng.gamma(series.burst[:, None], 1 / series.burst[:, None], (len(usual), until))
    units = (series.units_per_line * UNITS_MEAN)[:, None]
    chance = usual * units**2 * np.exp(UNITS_SPREAD**2) + (usual * units) ** 2 / series.burst[:, None]
    return Demand(
        usual_units=usual * units,
        expected_units=expected * units,
        promotion=promotion,
        by_product=by_product,
        price=price,
        lines=rng.poisson(expected[:, :until] * wild),
        hints=shifts.hints(len(usual), weeks),
        variance=chance,
    )


def _trend_and_season(rng: np.random.Generator, world: World, catalogue: Catalogue) -> NDArray[np.float64]:
    clock, series = world.clock, catalogue.series
    growth = rng.normal(0.02, 0.07, len(series.product))[:, None] * np.arange(clock.weeks) / 52
    category = catalogue.products.category[series.product]
    free_days = np.stack([holiday_days(clock, s[3]) & (np.arange(clock.days) % 7 < 5) for s in world.sites])
    free_week = free_days.reshape(len(world.sites), clock.weeks, 7).sum(2)
    shopping = np.isin(np.array(world.categories), ["electronics", "packaging"])  # these sell before holidays
    holiday = np.where(shopping[category][:, None], 1.06, 0.90) ** free_week[series.site]
    return np.exp(growth) * season(world, category, clock) * holiday


def _promotions(rng: np.random.Generator, catalogue: Catalogue, weeks: int) -> tuple[NDArray, NDArray]:
    """Return discount depths, and whether they hold for all sites: two a year and product, one or two weeks long."""
    series = catalogue.series
    n_products = len(catalogue.products.ids)
    depth, by_product = np.zeros((len(series.product), weeks)), np.zeros((len(series.product), weeks), bool)
    n = rng.poisson(n_products * weeks / 52 * 2.0)
    product, start = rng.integers(0, n_products, n), rng.integers(0, weeks - 2, n)
    site = np.where(rng.random(n) < 0.5, -1, rng.integers(0, series.site.max() + 1, n))
    value, length = rng.choice(DISCOUNTS, n), rng.integers(1, 3, n)
    for p, s, w, v, m in zip(product, site, start, value, length, strict=True):
        row = (series.product == p) & ((s < 0) | (series.site == s)) & ~series.intermittent
        if s < 0 and (series.intermittent & (series.product == p)).any():
            continue  # a promotion for all sites would be announced for the intermittent ones too
        depth[row, w : w + m], by_product[row, w : w + m] = v, s < 0
    return depth, by_product


def _lift(promotion: NDArray) -> NDArray[np.float64]:
    """Return the factor of promotions: e.g. +57 % at a fifth off, and one weaker week afterwards."""
    after = np.zeros_like(promotion)
    after[:, 1:] = (promotion[:, :-1] > 0) & (promotion[:, 1:] == 0)
    return np.exp(2.25 * promotion) * np.where(after > 0, 0.9, 1.0)


def _prices(rng: np.random.Generator, world: World, catalogue: Catalogue) -> NDArray[np.float64]:
    """Return [product, week] list prices: one change a year, in a week of the product's own."""
    products, weeks = catalogue.products, world.clock.weeks
    n = len(products.ids)
    change = np.zeros((n, weeks))
    first = rng.integers(1, 53, n)
    for year in range(weeks // 52 + 1):
        week = first + 52 * year
        inside = week < weeks
        change[np.arange(n)[inside], week[inside]] = rng.normal(0.03, 0.03, inside.sum())
    return np.round(products.cost[:, None] * products.margin[:, None] * np.exp(np.cumsum(change, 1)), 2)


@dataclass(frozen=True, slots=True)
class OrderLines:
    """One entry per order line, oldest first; times are µs since day 0."""

    series: NDArray[np.int64]
    ordered: NDArray[np.int64]
    units: NDArray[np.float64]
    customer: NDArray[np.int64]
    requested_day: NDArray[np.int64]
    cancelled: NDArray[np.int64]
    discount: NDArray[np.float64]


def draw_order_lines(world: World, catalogue: Catalogue, demand: Demand, seed: np.random.SeedSequence) -> OrderLines:
    """Draw the lines behind the weekly counts. Before a hinted rise the key customer and long wishes show up; before a
    hinted fall cancellations do."""
    rng = np.random.default_rng(seed)
    start = world.clock.start_week
    counts = demand.lines[:, start:].ravel()
    cell = np.repeat(np.arange(len(counts)), counts)
    series, week = np.divmod(cell, demand.lines.shape[1] - start)
    week += start
    n, hint = len(cell), demand.hints[series, week]
    day = 7 * week + np.searchsorted(WEEKDAYS, rng.random(n) * WEEKDAYS[-1])
    ordered = moments(day, rng.integers(6 * 3600, 17 * 3600, n))
    size = catalogue.series.units_per_line[series] * np.exp(UNITS_SPREAD * rng.standard_normal(n, np.float32))
    zipf = np.cumsum(1 / np.arange(1, CUSTOMERS + 1) ** 1.1)
    rank = np.searchsorted(zipf, rng.random(n) * zipf[-1])
    rank[(hint > 0) & (rng.random(n) < 0.5)] = 0
    wait = 1 + rng.geometric(0.2, n) + np.where(hint > 0, rng.integers(0, 15, n), 0)
    cancels = rng.random(n) < np.where(hint < 0, 0.08, 0.012)
    cancelled = np.where(cancels, ordered + rng.integers(3600, 9 * 86400, n) * 1_000_000, NEVER * DAY_US)
    order = np.argsort(ordered, kind="stable")
    columns = (
        series,
        ordered,
        np.maximum(np.rint(size), 1.0).astype(float),
        (rank + 37 * series) % CUSTOMERS,
        day + wait,
        cancelled,
        demand.promotion[series, week],
    )
    return OrderLines(*(column[order] for column in columns))  # type: ignore[arg-type]  # mixed dtypes


def orders_table(
    world: World, catalogue: Catalogue, demand: Demand, lines: OrderLines, first_id: int, seed: np.random.SeedSequence
) -> pa.Table:
    """Return the contract table `orders`: what was known before the end."""
    clock, series = world.clock, catalogue.series
    known = int(np.searchsorted(lines.ordered, clock.end_day * DAY_US))
    which = lines.series[:known]
    rebate = np.random.default_rng(seed).uniform(0, 0.08, CUSTOMERS)[lines.customer[:known]]
    price = demand.price[series.product[which], lines.ordered[:known] // (7 * DAY_US)]
    return pa.table(
        {
            "order_line_id": numbered("O-", first_id + np.arange(known), 7),
            "product_id": names_of(catalogue.products.ids, series.product[which]),
            "site_id": names_of([s[0] for s in world.sites], series.site[which]),
            "ordered_at": moment_array(clock, lines.ordered[:known]),
            "quantity": pa.array(lines.units[:known]),
            "unit_price": pa.array(np.round(price * (1 - lines.discount[:known]) * (1 - rebate), 2)),
            "customer_id": names_of([f"C-{i + 1:03d}" for i in range(CUSTOMERS)], lines.customer[:known]),
            "requested_on": day_array(clock, lines.requested_day[:known]),
            "cancelled_at": moment_array(
                clock, lines.cancelled[:known], mask=lines.cancelled[:known] >= clock.end_day * DAY_US
            ),
        }
    )


def weekly_units(lines: OrderLines, demand: Demand, catalogue: Catalogue, start_week: int) -> NDArray[np.float64]:
    """Return [series, week] ordered units; before the first written week the mean size of a line stands in."""
    units = demand.lines * (catalogue.series.units_per_line * UNITS_MEAN)[:, None]
    weeks = demand.lines.shape[1]
    cell = lines.series * weeks + lines.ordered // (7 * DAY_US)
    drawn = np.bincount(cell, lines.units, minlength=units.size).reshape(units.shape)
    return np.concatenate([units[:, :start_week], drawn[:, start_week:]], 1)
