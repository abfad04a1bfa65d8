"""Run the warehouses: watch stock, forecast, reorder up to a level, and so turn demand into purchase lines."""

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.simulate import delivery
from pipelines.simulate.catalogue import AGREED_DAYS, AIR, MODES, Catalogue
from pipelines.simulate.clock import DAY_US, NEVER
from pipelines.simulate.delivery import Pace
from pipelines.simulate.tables import day_array, moment_array, moments, names_of, numbered
from pipelines.simulate.world import World

SMOOTHING = 0.18  # weight of the last week in the demand forecast; what makes orders swing more than demand
RECENT_WEEKS, USUAL_WEEKS = 4, 26  # a supplier's queue: lines of the recent weeks against its usual


@dataclass(frozen=True, slots=True)
class Lines:
    """One entry per purchase line, oldest first. Days and µs count from day 0; NEVER: it does not happen."""

    supplier: NDArray[np.int64]
    series: NDArray[np.int64]
    site: NDArray[np.int64]
    mode: NDArray[np.int64]
    row: NDArray[np.int64]  # of Pace.elapsed
    order_day: NDArray[np.int64]
    ordered: NDArray[np.int64]
    units: NDArray[np.float64]
    promised: NDArray[np.int64]  # first confirmed
    requested: NDArray[np.int64]
    need: NDArray[np.int64]
    surge: NDArray[np.float64]  # the supplier's recent orders over its usual, at order time
    median_log: NDArray[np.float64]
    trouble: NDArray[np.bool_]
    trouble_share: NDArray[np.float64]  # its probability at order time
    done: NDArray[np.int64]
    part_day: NDArray[np.int64]
    part_units: NDArray[np.float64]
    buyer_cancels: NDArray[np.int64]  # day


@dataclass
class _Shelf:
    """What changes from week to week; arrays are per series."""

    on_hand: NDArray[np.float64]
    on_order: NDArray[np.float64]
    forecast: NDArray[np.float64]
    arriving: NDArray[np.float64]  # [series, week] units on their way in
    closing: NDArray[np.float64]  # [series, week] units that leave the order book
    queue: NDArray[np.float64]  # [supplier, week] lines placed


class Warehouse:
    """Reviews every series once a week and orders when stock and orders together fall below the reorder level."""

    def __init__(self, world: World, catalogue: Catalogue, pace: Pace, units: NDArray, seed: np.random.SeedSequence):
        self.world, self.catalogue, self.pace, self.units = world, catalogue, pace, units
        self.rng = rng = np.random.default_rng(seed)
        n, weeks = len(units), units.shape[1]
        self.cover_weeks = rng.uniform(0.8, 3.5, n)
        self.review_day = rng.integers(0, 5, n)
        self.pack = np.maximum(np.round(catalogue.series.units_per_line / 4), 1.0)
        self.main = catalogue.products.main[catalogue.series.product]
        self.lead_weeks: NDArray[np.float64] = self._usual_days(self.main, self._main_mode(self.main)) * AGREED_DAYS / 7
        first = np.maximum(units[:, :8].mean(1), 1.0)
        self.shelf = _Shelf(
            on_hand=first * (self.lead_weeks + self.cover_weeks + rng.uniform(0, 3, n)),
            on_order=np.zeros(n),
            forecast=first.copy(),
            arriving=np.zeros((n, weeks)),
            closing=np.zeros((n, weeks)),
            queue=np.zeros((len(catalogue.suppliers.ids), weeks)),
        )

    def run(self) -> tuple[Lines, NDArray[np.float64]]:
        """Return all purchase lines and the stock [series, week] at the end of every week."""
        weeks = self.units.shape[1]
        stock, placed = np.empty_like(self.units), []
        for week in range(weeks):
            placed.append(self._review(week))
            shelf = self.shelf
            shelf.on_hand += shelf.arriving[:, week] - self.units[:, week]
            shelf.on_order = np.maximum(shelf.on_order - shelf.closing[:, week], 0.0)
            shelf.forecast += SMOOTHING * (self.units[:, week] - shelf.forecast)
            stock[:, week] = shelf.on_hand
        lines = {f.name: np.concatenate([getattr(p, f.name) for p in placed]) for f in fields(Lines)}
        order = np.argsort(lines["ordered"], kind="stable")
        return Lines(**{name: values[order] for name, values in lines.items()}), stock

    def _review(self, week: int) -> Lines:
        shelf = self.shelf
        position = shelf.on_hand + shelf.on_order
        safety = 1.3 * np.sqrt(shelf.forecast * self.catalogue.series.units_per_line * (self.lead_weeks + 1))
        level: NDArray[np.float64] = shelf.forecast * (self.lead_weeks + 1) + safety
        wants = (position < level) & (self.catalogue.series.first_week <= week + 4)
        series = np.flatnonzero(wants)
        units = level[series] + self.cover_weeks[series] * shelf.forecast[series] - position[series]
        units = np.maximum(np.ceil(units / self.pack[series]), 1.0) * self.pack[series]
        cover_days = np.clip(7 * shelf.on_hand[series] / np.maximum(shelf.forecast[series], 0.1), 3, 200)
        lines = self._place(week, series, units, cover_days)
        self._book(week, lines)
        return lines

    def _main_mode(self, supplier: NDArray, series: NDArray | slice = slice(None)) -> NDArray:
        site = self.catalogue.series.site[series]
        return self.catalogue.suppliers.main_mode[supplier, site]

    def _usual_days(self, supplier: NDArray, mode: NDArray, series: NDArray | slice = slice(None)) -> NDArray:
        site = self.catalogue.series.site[series]
        return self.catalogue.suppliers.usual_days[supplier, site, mode]

    def _place(self, week: int, series: NDArray, units: NDArray, cover_days: NDArray) -> Lines:
        rng, n, suppliers = self.rng, len(series), self.catalogue.suppliers
        product, site = self.catalogue.series.product[series], self.catalogue.series.site[series]
        supplier, mode, agreed = self._source(series, cover_days)
        day = 7 * week + self.review_day[series]
        surge = self._surge(week, supplier)
        usual = self._usual_days(supplier, mode, series)
        row = self.pace.row(supplier, site, mode)
        quote = self._quote(week, supplier, mode, usual, surge)
        promised = delivery.promise_day(self.pace, supplier, day, quote, rng.random(n) < 0.8)
        median_log = np.log(usual * self.catalogue.products.complexity[product])
        median_log += delivery.QUEUE_EFFECT * np.log(np.clip(surge, 1.0, 3.0))
        share = delivery.TROUBLE_SHARE[suppliers.regime[supplier, week]] * suppliers.mishap[supplier]
        return self._deliver(
            supplier=supplier,
            series=series,
            site=site,
            mode=mode,
            row=row,
            order_day=day,
            ordered=moments(day, rng.integers(7 * 3600, 16 * 3600, n)),
            units=units,
            promised=promised,
            requested=day + np.where(mode == AIR, agreed // 2, agreed),
            need=day + np.ceil(cover_days).astype(int),
            surge=surge,
            median_log=median_log,
            trouble_share=share,
        )

    def _source(self, series: NDArray, cover_days: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Choose supplier and mode, by air where stock runs out, and look up the agreed days of the usual mode."""
        n = len(series)
        second = self.rng.random(n) < 0.12
        product = self.catalogue.series.product[series]
        supplier = np.where(second, self.catalogue.products.second[product], self.main[series])
        usual_mode = self._main_mode(supplier, series)
        agreed = np.round(AGREED_DAYS * self._usual_days(supplier, usual_mode, series)).astype(int)
        by_air = self.rng.random(n) < np.where(cover_days < 0.5 * agreed, 0.45, 0.05)
        return supplier, np.where(by_air, AIR, usual_mode), agreed

    def _surge(self, week: int, supplier: NDArray) -> NDArray:
        """Count this week's lines into the suppliers' queues, then compare recent weeks with the usual ones."""
        queue = self.shelf.queue
        queue[:, week] += np.bincount(supplier, minlength=len(queue))
        recent = queue[:, max(week + 1 - RECENT_WEEKS, 0) : week + 1].sum(1)
        past = queue[:, max(week + 1 - RECENT_WEEKS - USUAL_WEEKS, 0) : max(week + 1 - RECENT_WEEKS, 1)]
        usual = past.mean(1) * RECENT_WEEKS
        return ((recent + 2) / (usual + 2))[supplier]

    def _quote(self, week: int, supplier: NDArray, mode: NDArray, usual: NDArray, surge: NDArray) -> NDArray:
        """Return the quoted working days: usual time and slack, and a part of the trouble the supplier is aware of."""
        s = self.catalogue.suppliers
        trouble = (
            1 / np.maximum(self.pace.weekly[supplier, mode, week], 0.5) * np.clip(surge, 1, 3) ** delivery.QUEUE_EFFECT
        )
        noise = np.exp(0.16 * self.rng.standard_normal(len(supplier)))
        return usual * (1 + s.slack[supplier]) * (1 + s.aware[supplier] * (trouble - 1)) * noise

    def _deliver(self, **line: NDArray) -> Lines:
        """Draw what will happen to the lines: trouble, completion, a first part, a cancellation by the buyer."""
        rng, n = self.rng, len(line["series"])
        spread = self.catalogue.suppliers.spread[line["supplier"]]
        trouble = rng.random(n) < line["trouble_share"]
        work = delivery.draw_work(rng, line["median_log"], spread, trouble)
        part_work = delivery.draw_part(rng, line["median_log"], trouble)
        done = delivery.completion_day(self.pace, line["row"], line["order_day"], work)
        part = delivery.completion_day(self.pace, line["row"], line["order_day"], part_work)
        days = np.maximum(line["promised"] - line["order_day"], 2)
        cancel = line["order_day"] + 1 + np.floor(rng.random(n) * (days - 1)).astype(int)
        cancels = (rng.random(n) < 0.02) & (cancel < done)
        cancel = np.where(cancels, cancel, NEVER)
        done = np.where(cancels, NEVER, done)
        part = np.where((part < done) & (part < cancel) & (line["units"] > 1), part, NEVER)
        part_units = np.clip(np.round(line["units"] * rng.uniform(0.3, 0.8, n)), 1, line["units"] - 1)
        return Lines(
            **line, trouble=trouble, done=done, part_day=part, part_units=part_units, buyer_cancels=cancel
        )  # fmt: skip

    def _book(self, week: int, lines: Lines) -> None:
        """Note what comes in when, and when the order book lets go of what never comes."""
        shelf, weeks = self.shelf, self.units.shape[1]
        shelf.on_order[lines.series] += lines.units
        part = np.where(lines.part_day < NEVER, lines.part_units, 0.0)
        given_up = np.minimum(lines.buyer_cancels, lines.promised + 35)
        closed = np.where(lines.done < NEVER, lines.done, given_up)
        for day, units, comes in (
            (lines.part_day, part, True),
            (closed, lines.units - part, lines.done < NEVER),
        ):
            sel = day // 7 < weeks
            at = (lines.series[sel], np.maximum(day[sel] // 7, week))
            np.add.at(shelf.closing, at, units[sel])
            np.add.at(shelf.arriving, at, (units * comes)[sel])


def purchases_table(
    world: World, catalogue: Catalogue, lines: Lines, ids: pa.Array, cancelled: NDArray, seed: np.random.SeedSequence
) -> pa.Table:
    """Return the contract table `purchases`: what was known before the end."""
    clock, product = world.clock, catalogue.series.product[lines.series]
    drift = np.exp(0.03 * (lines.order_day - 7 * clock.start_week) / 365)
    drift *= np.exp(0.04 * np.random.default_rng(seed).standard_normal(len(product)))
    return pa.table(
        {
            "po_line_id": ids,
            "supplier_id": names_of(catalogue.suppliers.ids, lines.supplier),
            "product_id": names_of(catalogue.products.ids, product),
            "site_id": names_of([s[0] for s in world.sites], lines.site),
            "ordered_at": moment_array(clock, lines.ordered),
            "promised_on": day_array(clock, lines.promised),
            "requested_on": day_array(clock, lines.requested),
            "need_on": day_array(clock, lines.need),
            "quantity": pa.array(lines.units),
            "unit_cost": pa.array(np.round(catalogue.products.cost[product] * drift, 2)),
            "ship_mode": names_of(MODES, lines.mode),
            "cancelled_at": moment_array(clock, cancelled, mask=cancelled >= clock.end_day * DAY_US),
        }
    )


def stock_table(world: World, catalogue: Catalogue, stock: NDArray) -> pa.Table:
    """Return the contract table `stock`: units on hand on Sunday evenings, before the week's Monday."""
    clock, series = world.clock, catalogue.series
    last = min(clock.end_week, stock.shape[1])
    weeks = np.arange(clock.start_week, last)
    there = series.first_week[:, None] <= weeks[None, :]
    which, week = np.nonzero(there)
    return pa.table(
        {
            "product_id": names_of(catalogue.products.ids, series.product[which]),
            "site_id": names_of([s[0] for s in world.sites], series.site[which]),
            "known_at": moment_array(clock, moments(7 * weeks[week] + 6, np.full(len(week), 20 * 3600))),
            "on_hand": pa.array(np.maximum(np.round(stock[which, weeks[week]]), 0.0)),
        }
    )


def line_ids(first: int, n: int) -> pa.Array:
    return numbered("PO-", first + np.arange(n), 7)
