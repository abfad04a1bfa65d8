"""Simulate one coherent supply chain whose truth is known: what sells, what is ordered, what comes late and why."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.simulate import demand, promises, receipts, shifts, signals, stock
from pipelines.simulate.catalogue import make_catalogue, product_table, site_table, supplier_table
from pipelines.simulate.clock import DAY_US, clock_until
from pipelines.simulate.delivery import make_pace
from pipelines.simulate.names import CATEGORIES
from pipelines.simulate.stock import Lines
from pipelines.simulate.tables import forget, write
from pipelines.simulate.world import World, make_world

DATA = ("orders", "purchases", "receipts", "promises", "signals", "stock", "suppliers", "products", "sites")
TRUTH = ("p_late", "shifts")
ID_STEP = 10_000_000  # ids of part n start at n times this


@dataclass(frozen=True, slots=True)
class Size:
    """How big a world is: so many parts of so many suppliers and products each, at shared sites."""

    suppliers: int
    products: int
    sites: int = 4
    years: int = 3
    parts: int = 1


SIZES = {"toy": Size(8, 20, sites=2, years=2), "demo": Size(60, 400), "large": Size(60, 400, parts=20)}


def size_of(scale: str | float) -> Size:
    """Return a named size, or that many times the demo; about 300 times is ten million purchase lines."""
    if isinstance(scale, str):
        if scale not in SIZES:
            raise ValueError(
                f"scale is {scale!r}; expected one of {', '.join(SIZES)} or a multiple of the demo, like 2.5"
            )
        return SIZES[scale]
    if not 0.1 <= scale <= 1000:
        raise ValueError(f"scale is {scale}; expected a multiple of the demo between 0.1 and 1000")
    parts = int(np.ceil(scale))
    return Size(round(60 * scale / parts), round(400 * scale / parts), parts=parts)


def simulate(
    out: Path,
    *,
    scale: str | float = "demo",
    seed: int = 7,
    end: date = date(2026, 6, 1),
    progress: Callable[[str], None] | None = None,
) -> dict:
    """Write out/data/*.parquet, what was known before `end`, and out/truth/*, what no flow may read; return the counts.

    The same seed, scale, end and library versions give the same bytes. A world of several parts is written part by
    part into folders (data/purchases/part-0000.parquet …), so memory stays that of one part.
    """
    size = size_of(scale)
    clock = clock_until(end, 52 * size.years)
    seeds = np.random.SeedSequence(seed).spawn(size.parts + 1)
    world = make_world(clock, min(len(CATEGORIES), size.suppliers // 2), size.sites, seeds[0])
    for folder, names in (("data", DATA), ("truth", TRUTH)):
        for name in names:
            forget(Path(out) / folder, name)
    counts: Counter[str] = Counter()
    for part in range(size.parts):
        tables, seen = _simulate_part(world, size, part, seeds[part + 1])
        for (folder, name), table in tables.items():
            write(Path(out) / folder, name, table, part if size.parts > 1 and name != "sites" else None)
        counts.update(seen)
        if progress:
            progress(f"part {part + 1} of {size.parts}: {counts['purchases']:,} purchase lines so far")
    summary = _summary(scale, seed, end, size, counts)
    (Path(out) / "truth" / "world.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def _simulate_part(
    world: World, size: Size, part: int, seed: np.random.SeedSequence
) -> tuple[dict[tuple[str, str], pa.Table], Counter[str]]:
    seeds = iter(seed.spawn(11))
    catalogue = make_catalogue(
        world, size.suppliers, size.products, (1 + part * size.suppliers, 1 + part * size.products), next(seeds)
    )
    planted = shifts.plant_shifts(world, catalogue, next(seeds))
    wanted = demand.make_demand(world, catalogue, planted, next(seeds))
    orders = demand.draw_order_lines(world, catalogue, wanted, next(seeds))
    pace = make_pace(world, catalogue.suppliers)
    units = demand.weekly_units(orders, wanted, catalogue, world.clock.start_week)
    all_lines, stock_weeks = stock.Warehouse(world, catalogue, pace, units, next(seeds)).run()
    lines = _known_lines(world, all_lines)
    records = receipts.draw_records(lines, next(seeds))
    book = promises.OrderBook(world, catalogue, pace, lines, records.done_day, next(seeds))
    pushes, late = book.run()
    cancelled = promises.supplier_cancellations(lines, book.promised, next(seeds))
    ids, first_id = stock.line_ids(1 + part * ID_STEP, len(lines.done)), 1 + part * ID_STEP
    events = signals.catalogue_signals(world, catalogue, wanted, next(seeds))
    events = events if part else [*signals.world_signals(world), *events]
    tables = {
        ("data", "orders"): demand.orders_table(world, catalogue, wanted, orders, first_id, next(seeds)),
        ("data", "purchases"): stock.purchases_table(world, catalogue, lines, ids, cancelled, next(seeds)),
        ("data", "receipts"): receipts.receipts_table(world, lines, records, ids, first_id),
        ("data", "promises"): receipts.promises_table(world, pushes, ids),
        ("data", "signals"): signals.signals_table(world, events),
        ("data", "stock"): stock.stock_table(world, catalogue, stock_weeks),
        ("data", "suppliers"): pa.table(supplier_table(world, catalogue.suppliers)),
        ("data", "products"): pa.table(product_table(world, catalogue.products)),
        ("data", "sites"): pa.table(site_table(world)),
        ("truth", "p_late"): receipts.late_table(world, late, lines, cancelled, ids),
        ("truth", "shifts"): shifts.shift_truth(world, catalogue, planted, wanted.usual_units),
    }
    return tables, _counts(tables, lines, book.promised)


def _known_lines(world: World, lines: Lines) -> Lines:
    """Keep the lines placed in the weeks that are written."""
    start, end = 7 * world.clock.start_week * DAY_US, world.clock.end_day * DAY_US
    keep = (lines.ordered >= start) & (lines.ordered < end)
    return Lines(**{f.name: getattr(lines, f.name)[keep] for f in fields(Lines)})


def _counts(tables: dict[tuple[str, str], pa.Table], lines: Lines, promised: np.ndarray) -> Counter[str]:
    counts = Counter({name: table.num_rows for (folder, name), table in tables.items() if folder == "data"})
    delivered_or_lost = lines.buyer_cancels > promised
    counts["judged_lines"] = int(delivered_or_lost.sum())
    counts["late_lines"] = int((delivered_or_lost & (lines.done > promised)).sum())
    counts["late_against_first_promise"] = int((delivered_or_lost & (lines.done > lines.promised)).sum())
    kinds = tables["truth", "shifts"]["shift"].value_counts().to_pylist()
    counts.update({f"windows_{kind['values']}": kind["counts"] for kind in kinds})
    return counts


def _summary(scale: str | float, seed: int, end: date, size: Size, counts: Counter[str]) -> dict:
    return {
        "scale": scale,
        "seed": seed,
        "end": end.isoformat(),
        "size": {f.name: getattr(size, f.name) for f in fields(Size)},
        "late_share": round(counts["late_lines"] / max(counts["judged_lines"], 1), 4),
        "counts": dict(sorted(counts.items())),
    }
