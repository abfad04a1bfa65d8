"""Simulate one coherent supply chain whose truth is known: what sells, what is ordered, what comes late and why."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.simulate import chains, delivery, demand, promises, receipts, signals, stock
from pipelines.simulate import shifts as plant
from pipelines.simulate.catalogue import Catalogue, busier, make_catalogue, product_table, site_table, supplier_table
from pipelines.simulate.clock import DAY_US, clock_until
from pipelines.simulate.delivery import make_pace
from pipelines.simulate.names import CATEGORIES
from pipelines.simulate.stock import Lines
from pipelines.simulate.tables import forget, write
from pipelines.simulate.world import World, becalmed, make_world

DATA = ("orders", "purchases", "receipts", "promises", "signals", "stock", "suppliers", "products", "sites")
TRUTH = ("p_late", "shifts", "planted")
Tables = dict[tuple[str, str], pa.Table]
Seeds = Sequence[np.random.SeedSequence]
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
    shifts: str | float = "usual",
    busy: float = 1.0,
    progress: Callable[[str], None] | None = None,
) -> dict:
    """Write out/data/*.parquet, what was known before `end`, and out/truth/*, what no flow may read; return the counts.

    `shifts` says what is planted in demand: "usual", waves and single shifts; "none", nothing at all; a number such as
    0.3, one lasting step of ±30 % in each of half of the steady series and nothing else. With the latter two, truth/
    planted.parquet tells which series, from which Monday on and how large. Customers order `busy` times as often: in
    the usual world a series sells some five lines a week, among which nobody finds ±30 % in two weeks.

    The same arguments and library versions give the same bytes. A world of several parts is written part by part into
    folders (data/purchases/part-0000.parquet …), so memory stays that of one part.
    """
    size, step = size_of(scale), step_of(shifts)
    if not 0 < busy <= 100:
        raise ValueError(f"busy is {busy}; expected how many times as often customers order, above 0 and up to 100")
    clock = clock_until(end, 52 * size.years)
    seeds = np.random.SeedSequence(seed).spawn(size.parts + 1)
    world = make_world(clock, min(len(CATEGORIES), size.suppliers // 2), size.sites, seeds[0])
    world = world if step is None else becalmed(world)
    for folder, names in (("data", DATA), ("truth", TRUTH)):
        for name in names:
            forget(Path(out) / folder, name)
    counts: Counter[str] = Counter()
    for part in range(size.parts):
        tables, seen = _simulate_part(world, size, part, seeds[part + 1], step, busy)
        for (folder, name), table in tables.items():
            write(Path(out) / folder, name, table, part if size.parts > 1 else None)
        counts.update(seen)
        if progress:
            progress(f"part {part + 1} of {size.parts}: {counts['purchases']:,} purchase lines so far")
    summary = _summary(scale, seed, end, size, counts)
    summary |= ({} if step is None else {"shifts": shifts}) | ({} if busy == 1 else {"busy": busy})
    (Path(out) / "truth" / "world.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def step_of(shifts: str | float) -> float | None:
    """Return the size of the steps to plant, 0 for none at all; None where the usual shifts are."""
    if shifts in ("usual", "none"):
        return None if shifts == "usual" else 0.0
    if isinstance(shifts, str) or not 0 < shifts < 1:
        raise ValueError(f"shifts is {shifts!r}; expected usual, none, or the size of steps between 0 and 1, like 0.3")
    return shifts


def _simulate_part(
    world: World, size: Size, part: int, seed: np.random.SeedSequence, step: float | None, busy: float
) -> tuple[Tables, Counter[str]]:
    sell, buy = seed.spawn(2)
    first = (1 + part * size.suppliers, 1 + part * size.products)
    catalogue_seed, *seeds = sell.spawn(6)
    catalogue = busier(make_catalogue(world, size.suppliers, size.products, first, catalogue_seed), busy)
    first_id = 1 + part * ID_STEP
    tables, units = _sell(world, catalogue, seeds, first_id, step, shared_signals=part == 0)
    bought, counts = _buy(world, catalogue, units, buy.spawn(5), first_id)
    tables |= bought
    tables["data", "suppliers"] = pa.table(supplier_table(world, catalogue.suppliers))
    tables["data", "products"] = pa.table(product_table(world, catalogue.products))
    if part == 0:
        tables["data", "sites"] = pa.table(site_table(world))
    return tables, counts + _counts(tables)


def _sell(
    world: World, catalogue: Catalogue, seeds: Seeds, first_id: int, step: float | None, *, shared_signals: bool
) -> tuple[Tables, np.ndarray]:
    """Return what demand leaves behind, and the units ordered per series and week."""
    if step is None:
        planted = plant.plant_shifts(world, catalogue, seeds[0])
    else:
        planted = plant.plant_steps(world, catalogue, step, seeds[0])
    wanted = demand.make_demand(world, catalogue, planted, seeds[1])
    lines = demand.draw_order_lines(world, catalogue, wanted, seeds[2])
    rows = signals.world_signals(world) if shared_signals else []
    rows += signals.catalogue_signals(world, catalogue, wanted, seeds[3])
    tables = {
        ("data", "orders"): demand.orders_table(world, catalogue, wanted, lines, first_id, seeds[4]),
        ("data", "signals"): signals.signals_table(world, rows),
        ("truth", "shifts"): plant.shift_truth(world, catalogue, planted, wanted.usual_units, wanted.variance),
    }
    if step is not None:
        tables["truth", "planted"] = plant.planted_table(world, catalogue, planted)
    return tables, demand.weekly_units(lines, wanted, catalogue, world.clock.start_week)


def _buy(
    world: World, catalogue: Catalogue, units: np.ndarray, seeds: Seeds, first_id: int
) -> tuple[Tables, Counter[str]]:
    """Return what purchasing leaves behind, and how many lines came late."""
    pace = make_pace(world, catalogue.suppliers)
    all_lines, stock_weeks = stock.Warehouse(world, catalogue, pace, units, seeds[0]).run()
    lines = _known_lines(world, all_lines)
    records = receipts.draw_records(lines, seeds[1])
    book = promises.OrderBook(world, catalogue, pace, lines, records.done_day, seeds[2])
    pushes, late = book.run()
    cancelled = promises.cancellations(lines, book.promised, seeds[3])
    ids = stock.line_ids(first_id, len(lines.done))
    tables = {
        ("data", "purchases"): stock.purchases_table(world, catalogue, lines, ids, cancelled, seeds[4]),
        ("data", "receipts"): receipts.receipts_table(world, lines, records, ids, first_id),
        ("data", "promises"): receipts.promises_table(world, pushes, ids),
        ("data", "stock"): stock.stock_table(world, catalogue, stock_weeks),
        ("truth", "p_late"): receipts.late_table(world, late, lines, cancelled, ids),
    }
    return tables, _late_counts(lines, book.promised)


def _known_lines(world: World, lines: Lines) -> Lines:
    """Keep the lines placed in the weeks that are written."""
    start, end = 7 * world.clock.start_week * DAY_US, world.clock.end_day * DAY_US
    keep = (lines.ordered >= start) & (lines.ordered < end)
    return Lines(**{f.name: getattr(lines, f.name)[keep] for f in fields(Lines)})


def _counts(tables: Tables) -> Counter[str]:
    counts = Counter({name: table.num_rows for (folder, name), table in tables.items() if folder == "data"})
    kinds = tables["truth", "shifts"]["shift"].value_counts().to_pylist()
    counts.update({f"windows_{kind['values']}": kind["counts"] for kind in kinds})
    return counts


def _late_counts(lines: Lines, promised: np.ndarray) -> Counter[str]:
    """Count the lines the buyer did not cancel in time, and those of them that miss the last and the first promise."""
    judged = lines.buyer_cancels > promised
    return Counter(
        judged_lines=int(judged.sum()),
        late_lines=int((judged & (lines.done > promised)).sum()),
        late_against_first_promise=int((judged & (lines.done > lines.promised)).sum()),
    )


def _summary(scale: str | float, seed: int, end: date, size: Size, counts: Counter[str]) -> dict:
    return {
        "scale": scale,
        "seed": seed,
        "end": end.isoformat(),
        "size": asdict(size),
        "parameters": _parameters(),
        "late_share": round(counts["late_lines"] / max(counts["judged_lines"], 1), 4),
        "counts": dict(sorted(counts.items())),
    }


def _parameters() -> dict:
    """Return the laws of the simulated world that no seed changes."""
    return {
        "regime_chains_weekly": dict(zip(("stable", "average", "fragile"), chains.REGIMES.tolist(), strict=True)),
        "shock_chain_weekly": chains.SHOCKS.round(6).tolist(),
        "queue_effect": delivery.QUEUE_EFFECT,
        "trouble_share_by_regime": delivery.TROUBLE_SHARE.tolist(),
        "trouble_log_work": delivery.TROUBLE_LOG,
        "never_share_of_trouble": delivery.NEVER_SHARE,
        "recording_lag_days": delivery.LAGS.tolist(),
        "recording_lag_shares": delivery.LAG_SHARES.tolist(),
        "futures_per_state": promises.PATHS,
        "shift_ratio": plant.SHIFT_RATIO,
        "shift_windows": [list(window) for window in plant.WINDOWS],
    }
