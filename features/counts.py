"""Count order lines per series and step, in one reading and by number instead of by name."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import duckdb
import numpy as np
import pandas as pd

from features.threads import pieces, side_by_side
from features.weeks import Grid

LINES = 4_000_000  # order lines read at a time
TABLE = 1 << 26  # possible pairs of product and site that get a place each in a table of numbers
PIECE = 1 << 16  # lines of whole steps that are sorted at a time: they stay in the processor's cache
COUNTED = ("units", "value", "priced_units", "lines", "customers", "largest", "customer_squares")
RARE = ("cancelled_units", "ahead_units", "asked_units", "wait_unit_days")
MEASURES = (*COUNTED, "units_squared", *RARE)
FRACTION = 2.0**-24  # units and values are whole multiples of it: their sums, up to 500 million, know no order
NUMBERED = """orders JOIN product_id_numbers p USING (product_id) JOIN site_id_numbers s USING (site_id)"""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers things go by: the series' pairs of product and site, in order, and how many pairs there may be."""

    pairs: np.ndarray
    every: int
    sites: int
    customers: int

    @property
    def pair(self) -> str:
        """SQL for a line's pair."""
        return f"CAST(p.n * {self.sites}::BIGINT + s.n AS {'INTEGER' if self.every < 1 << 31 else 'BIGINT'}) AS pair"

    def series(self, pair: np.ndarray) -> np.ndarray:
        """Return the number of the pairs' series."""
        if self.every > TABLE:
            return np.searchsorted(self.pairs, pair)
        table = np.zeros(self.every, np.int32)
        table[self.pairs] = np.arange(len(self.pairs))
        return table[pair]


def weekly_counts(con: duckdb.DuckDBPyConnection, grid: Grid) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return the series with their category and region, sorted, and per measure its count [step, series].

    Orders, cancellations and backlog count in the step in which they became known. Units ordered for a later day are
    ahead from the step they are known in until that day or their cancellation. A line without a customer is one of its
    own.
    """
    with series_of(con, grid) as (numbers, series):
        parts: dict[str, list[np.ndarray]] = {measure: [] for measure in MEASURES}
        for measure, cells in counts_of(con, numbers, grid):
            parts[measure].append(cells)
    return series, {m: _joined(parts.pop(m)) for m in MEASURES}


def _joined(cells: list[np.ndarray]) -> np.ndarray:
    return cells[0] if len(cells) == 1 else np.concatenate(cells)


@contextmanager
def series_of(con: duckdb.DuckDBPyConnection, grid: Grid) -> Iterator[tuple[Numbers, pd.DataFrame]]:
    """Hand out the series, sorted, with their category and region, and the numbers that `counts_of` goes by."""
    try:
        yield _number(con, grid)
    finally:
        for key in KEYS:
            con.execute(f"DROP TABLE IF EXISTS {key}_numbers")


def counts_of(con: duckdb.DuckDBPyConnection, numbers: Numbers, grid: Grid) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each measure's counts [step, series], the steps of each in their order: a stretch of them at a time."""
    series = len(numbers.pairs)
    for begin, end in _stretches(con, grid):
        cells = {measure: np.zeros((end - begin) * series) for measure in COUNTED}
        _count(_read(con, grid, numbers, begin, end), cells, numbers, end - begin)
        cells["units_squared"] = np.square(cells["units"])
        yield from ((measure, found.reshape(end - begin, series)) for measure, found in cells.items())
    yield from ((measure, found.reshape(grid.size, series)) for measure, found in _rare(con, numbers, grid))


KEYS = ("product_id", "site_id", "customer_id")
COUNTED_FOR = ("product_id", "site_id", "category", "region")  # of each series


def _number(con: duckdb.DuckDBPyConnection, grid: Grid) -> tuple[Numbers, pd.DataFrame]:
    """Number products, sites and customers in the order of their names; return the numbers and the series."""
    size: list[int] = []
    for key in KEYS:
        con.execute(
            f"""CREATE OR REPLACE TEMP TABLE {key}_numbers AS
                SELECT {key}, CAST(row_number() OVER (ORDER BY {key}) - 1 AS INTEGER) AS n
                FROM (SELECT DISTINCT {key} FROM orders WHERE {key} IS NOT NULL)"""
        )
        size += con.execute(f"SELECT count(*) FROM {key}_numbers").fetchall()[0]
    products, sites, customers = size
    sites = max(sites, 1)
    numbers = Numbers(np.empty(0, np.int64), products * sites, sites, customers)
    found = con.execute(
        f"""SELECT pair, p.product_id, s.site_id, coalesce(i.category, '') AS category, coalesce(l.region, '') AS region
            FROM (SELECT DISTINCT {numbers.pair} FROM {NUMBERED} WHERE {_within(grid, 0, grid.size)})
            JOIN product_id_numbers p ON p.n = pair // {sites} JOIN site_id_numbers s ON s.n = pair % {sites}
            LEFT JOIN products i ON i.product_id = p.product_id LEFT JOIN sites l ON l.site_id = s.site_id
            ORDER BY pair"""
    ).df()
    return replace(numbers, pairs=found.pop("pair").to_numpy(np.int64)), found


def _within(grid: Grid, begin: int, end: int) -> str:
    """SQL for facts known in the steps from `begin` to `end`; it tells DuckDB which stretches of a file to skip."""
    since, until = (grid.start + timedelta(days=(step - 1) * grid.step_days) for step in (begin, end))
    return f"known_at < DATE '{until}'" + (f" AND known_at >= DATE '{since}'" if begin else "")


def _read(con: duckdb.DuckDBPyConnection, grid: Grid, numbers: Numbers, begin: int, end: int) -> dict[str, np.ndarray]:
    """Return the lines of the steps from `begin`, here number 0, to `end`, in the order DuckDB comes to them."""
    ((unpriced,),) = con.execute("SELECT count(*) - count(unit_price) FROM orders").fetchall()
    priced = _counted("CASE WHEN unit_price IS NOT NULL THEN quantity END")
    price = f"{priced} AS priced_units," if unpriced else ""
    found = con.sql(
        f"""SELECT {numbers.pair}, {grid.sql_index("known_at")} - {begin} AS step, coalesce(c.n, -1) AS customer,
                   {price} {_counted("quantity")} AS units, {_counted("quantity * unit_price")} AS value
            FROM {NUMBERED} LEFT JOIN customer_id_numbers c USING (customer_id)
            WHERE {_within(grid, begin, end)}"""
    ).to_arrow_table()
    return {name: found[name].to_numpy() for name in found.column_names}


def _counted(number: str) -> str:
    """SQL for a number to be added up, 0 where there is none."""
    return f"round(coalesce({number}, 0) / {FRACTION}::DOUBLE) * {FRACTION}::DOUBLE"


def _stretches(con: duckdb.DuckDBPyConnection, grid: Grid) -> Iterator[tuple[int, int]]:
    """Yield stretches of steps with about LINES lines each."""
    ((total,),) = con.execute("SELECT count(*) FROM orders").fetchall()
    if total <= LINES:
        yield 0, grid.size
        return
    found = con.execute(
        f"SELECT {grid.sql_index('known_at')} AS step, count(*) AS n FROM orders WHERE {_within(grid, 0, grid.size)} "
        "GROUP BY step"
    ).fetchnumpy()
    upto = np.cumsum(np.bincount(np.asarray(found["step"]), np.asarray(found["n"]), grid.size))
    begin = 0
    while begin < grid.size:
        before = upto[begin - 1] if begin else 0
        end = max(int(np.searchsorted(upto, before + LINES, side="right")), begin + 1)
        yield begin, min(end, grid.size)
        begin = end


def _count(lines: Mapping[str, np.ndarray], cells: Mapping[str, np.ndarray], numbers: Numbers, size: int) -> None:
    """Add the lines of whole steps up into the cells."""
    order = np.argsort(lines["step"].astype(np.uint16 if size < 1 << 16 else np.int64), kind="stable")
    ends = np.cumsum(np.bincount(lines["step"], minlength=size))  # of each step's lines
    wanted = [*range(PIECE, len(order), PIECE), *([len(order)] if len(order) else [])]
    edges = np.unique(ends[np.searchsorted(ends, wanted)])

    def work(which: slice) -> None:
        first = int(edges[which.start - 1]) if which.start else 0
        mine = order[first : int(edges[which.start])]
        _count_piece(lines, mine, cells, numbers)

    side_by_side(work, pieces(len(edges), 1))


def _count_piece(
    lines: Mapping[str, np.ndarray], mine: np.ndarray, cells: Mapping[str, np.ndarray], numbers: Numbers
) -> None:
    n = len(mine)
    step, pair, customer = (lines[name][mine] for name in ("step", "pair", "customer"))
    nobody = customer < 0
    if nobody.any():
        customer = np.where(nobody, numbers.customers + np.arange(n), customer)
    base = int(step.min())
    step -= base
    order = _sorted_by((customer, pair, step))
    cell = step[order] * np.int64(numbers.every) + pair[order]
    new_cell = _changes(cell)
    new_customer = new_cell | _changes(customer[order])
    first, first_of_customer = np.flatnonzero(new_cell), np.flatnonzero(new_customer)
    first_customer = np.flatnonzero(new_cell[first_of_customer])
    week, known = np.divmod(cell[first], numbers.every)
    place = (week + base) * len(numbers.pairs) + numbers.series(known)
    order = mine[order]
    units = lines["units"][order]
    bought = np.add.reduceat(units, first_of_customer)
    cells["units"][place] = np.add.reduceat(units, first)
    cells["largest"][place] = np.maximum.reduceat(units, first)
    cells["lines"][place] = np.diff(first, append=n)
    cells["customers"][place] = np.diff(first_customer, append=len(bought))
    cells["customer_squares"][place] = np.add.reduceat(_rounded(bought * bought), first_customer)
    cells["value"][place] = np.add.reduceat(lines["value"][order], first)
    priced = lines["priced_units"][order] if "priced_units" in lines else units
    cells["priced_units"][place] = np.add.reduceat(priced, first)


def _rounded(x: np.ndarray) -> np.ndarray:
    return np.rint(x / FRACTION) * FRACTION


def _sorted_by(keys: Sequence[np.ndarray]) -> np.ndarray:
    """Return the order by the last key, then the one before it …: 16 bits at a time, which numpy sorts in one go."""
    order: np.ndarray | None = None
    for key in keys:
        for low in range(0, int(key.max()).bit_length(), 16):
            digit = (key >> low).astype(np.uint16)
            order = (
                np.argsort(digit, kind="stable") if order is None else order[np.argsort(digit[order], kind="stable")]
            )
    return np.arange(len(keys[0])) if order is None else order


def _changes(x: np.ndarray) -> np.ndarray:
    """Return whether each value differs from the one before it; the first does."""
    out = np.ones(len(x), bool)
    np.not_equal(x[1:], x[:-1], out=out[1:])
    return out


def _rare(con: duckdb.DuckDBPyConnection, numbers: Numbers, grid: Grid) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the counts of what few lines have: a cancellation, or a day for which they were ordered."""
    known, cancelled = grid.sql_index("known_at"), grid.sql_index("greatest(cancelled_at, known_at)")
    gone = f"least({grid.sql_index_of_day('requested_on')}, CASE WHEN cancelled_at IS NOT NULL THEN {cancelled} END)"
    found = con.execute(
        f"""SELECT {numbers.pair}, {known} AS step, {_counted("quantity")} AS units,
                   requested_on IS NOT NULL AS asked, coalesce(requested_on > CAST(known_at AS DATE), false) AS waits,
                   coalesce(greatest(requested_on - CAST(ordered_at AS DATE), 0), 0) AS wait,
                   coalesce({gone}, {grid.size}) AS gone,
                   CASE WHEN cancelled_at IS NULL THEN {grid.size} ELSE {cancelled} END AS cancelled
            FROM {NUMBERED}
            WHERE (requested_on IS NOT NULL OR cancelled_at IS NOT NULL) AND {_within(grid, 0, grid.size)}"""
    ).fetchnumpy()
    x = {name: np.asarray(values) for name, values in found.items()}
    entity, series = numbers.series(x["pair"]), len(numbers.pairs)

    def total(step: np.ndarray, mine: np.ndarray, units: np.ndarray) -> np.ndarray:
        mine = mine & (step < grid.size)
        return np.bincount(step[mine] * np.int64(series) + entity[mine], units[mine], series * grid.size)

    yield "cancelled_units", total(x["cancelled"], np.ones(len(entity), bool), x["units"])
    yield "ahead_units", total(x["step"], x["waits"], x["units"]) - total(x["gone"], x["waits"], x["units"])
    yield "asked_units", total(x["step"], x["asked"], x["units"])
    yield "wait_unit_days", total(x["step"], x["asked"], x["units"] * x["wait"])
