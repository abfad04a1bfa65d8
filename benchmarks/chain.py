"""A synthetic chain of any size as Parquet, made by DuckDB in seconds: for speed, not for skill."""

from datetime import date, timedelta
from pathlib import Path

import duckdb

END = date(2026, 6, 1)
WEEKS, RECENT_DAYS = 156, 35
PER_SERIES, PER_SUPPLIER, PER_PRODUCT, SITES = 500, 2_000, 5_000, 10


def u(n: int) -> str:
    """SQL for a number in [0, 1) of row i, another one for every n."""
    return f"((hash(i, {n}) % 1000003) / 1000003.0)"


def write_orders(folder: Path, lines: int, row_group: int = 122_880, weeks: int = WEEKS) -> None:
    """Write `orders`: lines sorted by time, a tenth cancelled or asked for a later day, prices, customers."""
    products = max(lines // PER_PRODUCT, 4)
    _copy(
        folder / "orders.parquet",
        f"""SELECT 'o' || i AS order_line_id, 'p' || CAST(floor(pow({u(1)}, 1.5) * {products}) AS INT) AS product_id,
              's' || CAST(floor({u(2)} * {SITES}) AS INT) AS site_id, ordered_at,
              CAST(1 + floor(-8 * ln(1 - {u(3)})) AS DOUBLE) AS quantity, round(5 + 20 * {u(4)}, 2) AS unit_price,
              'c' || CAST(floor({u(5)} * 5000) AS INT) AS customer_id,
              CASE WHEN {u(6)} < 0.1 THEN CAST(ordered_at AS DATE) + CAST(floor(30 * {u(7)}) AS INT) END
                AS requested_on,
              CASE WHEN {u(8)} < 0.02 THEN ordered_at + to_days(CAST(1 + floor(10 * {u(9)}) AS INT)) END AS cancelled_at
            FROM (SELECT i, {_moment(lines, weeks=weeks)} AS ordered_at FROM range({lines}) t(i))""",
        row_group,
    )


def write_purchases(
    folder: Path, lines: int, recent: float = 0.0, weeks: int = WEEKS, suppliers: int | None = None
) -> None:
    """Write `purchases`, `receipts`, `promises` and the master data of both sides.

    A `recent` share of the lines is ordered in the last RECENT_DAYS, when most are still open, instead of evenly.
    """
    suppliers = suppliers or _suppliers(lines)
    lead = "(7 + 40 * ((hash(s) % 97) / 97.0))"
    late = f"{lead} * (0.75 + 0.35 * {u(14)}) * (CASE WHEN {u(15)} < 0.15 THEN 1.5 ELSE 1 END)"
    con = duckdb.connect()
    con.execute(
        f"""CREATE TABLE lines AS SELECT i, s, {_moment(lines, recent, weeks)} AS ordered_at,
              CAST(ceil({lead}) AS INT) AS lead, CAST(ceil({late}) AS INT) AS took
            FROM (SELECT i, CAST(floor(pow({u(11)}, 1.5) * {suppliers}) AS INT) AS s FROM range({lines}) t(i))"""
    )
    write = {
        "purchases": f"""SELECT 'l' || i AS po_line_id, 'v' || s AS supplier_id,
              'm' || ((s * 37 + CAST(floor({u(12)} * 20) AS INT)) % {suppliers * 4}) AS product_id,
              's' || CAST(floor({u(13)} * {SITES}) AS INT) AS site_id, ordered_at,
              CAST(ordered_at AS DATE) + lead AS promised_on, CAST(1 + floor(90 * {u(16)}) AS DOUBLE) AS quantity,
              round(1 + 50 * {u(17)}, 2) AS unit_cost, CAST(ordered_at AS DATE) + lead + 5 AS need_on,
              CASE WHEN {u(18)} < 0.3 THEN 'sea' WHEN {u(18)} < 0.5 THEN 'air' ELSE 'road' END AS ship_mode
            FROM lines""",
        "receipts": f"""SELECT 'l' || i AS po_line_id, CAST(ordered_at AS DATE) + took AS received_on
            FROM lines WHERE CAST(ordered_at AS DATE) + took < DATE '{END}'""",
        "promises": f"""SELECT 'l' || i AS po_line_id,
              ordered_at + to_days(CAST(floor(lead * {u(19)}) AS INT)) AS known_at,
              CAST(ordered_at AS DATE) + lead + CAST(1 + floor(10 * {u(20)}) AS INT) AS promised_on
            FROM lines WHERE {u(21)} < 0.15
              AND ordered_at + to_days(CAST(floor(lead * {u(19)}) AS INT)) < DATE '{END}'""",
        "suppliers": f"""SELECT 'v' || i AS supplier_id, 'Supplier ' || i AS name, 'r' || (i % 12) AS region
            FROM range({suppliers}) t(i)""",
        "sites": f"SELECT 's' || i AS site_id, 'Site ' || i AS name, 'r' || (i % 4) AS region FROM range({SITES}) t(i)",
    }
    for name, query in write.items():
        _copy(folder / f"{name}.parquet", query, con=con)


def write_products(folder: Path, orders: int, suppliers: int) -> None:
    sold, bought = max(orders // PER_PRODUCT, 4), suppliers * 4
    _copy(
        folder / "products.parquet",
        f"""SELECT 'p' || i AS product_id, 'Product ' || i AS name, 'k' || (i % 30) AS category FROM range({sold}) t(i)
            UNION ALL SELECT 'm' || i, 'Material ' || i, 'k' || (i % 30) FROM range({bought}) t(i)""",
    )


def write_chain(
    folder: Path, *, orders: int, purchases: int, recent: float = 0.0, weeks: int = WEEKS, suppliers: int | None = None
) -> None:
    """Write every table of a chain of these sizes, its lines spread over so many weeks."""
    folder.mkdir(parents=True, exist_ok=True)
    if orders:
        write_orders(folder, orders, weeks=weeks)
    if purchases:
        write_purchases(folder, purchases, recent, weeks, suppliers)
    write_products(folder, orders, suppliers or _suppliers(purchases))


def _suppliers(lines: int) -> int:
    return max(lines // PER_SUPPLIER, 5)


def _moment(lines: int, recent: float = 0.0, weeks: int = WEEKS) -> str:
    """SQL for the moment of row i, in working hours: spread evenly over the weeks, the last ones over recent days."""
    begin, older = END - timedelta(weeks=weeks), round(lines * (1 - recent))
    day = f"i * {weeks * 7}.0 / {max(older, 1)}"
    if recent:
        late = f"{weeks * 7} - (i - {older} + 1) * {RECENT_DAYS}.0 / {lines - older}"
        day = f"CASE WHEN i < {older} THEN {day} ELSE {late} END"
    return (
        f"TIMESTAMP '{begin} 08:00:00' + to_days(CAST(floor({day}) AS INTEGER))"
        f" + to_minutes(CAST(floor(600 * {u(10)}) AS INTEGER))"
    )


def _copy(path: Path, query: str, row_group: int = 122_880, con: duckdb.DuckDBPyConnection | None = None) -> None:
    (con or duckdb).execute(
        f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {row_group})"
    )
