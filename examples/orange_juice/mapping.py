"""Map the orange juice of Dominick's stores (bayesm) to bullwhip's input tables."""

from pathlib import Path

import duckdb

FILE = "orange_juice.parquet"
AHEAD_DAYS = 91  # how long before its week a promotion or a price is listed, in the variant that knows them ahead

# A store's weekly total of a brand is one order line: it is ordered on the first day of the week and known at its end.
# Week 40 began on 1990-06-14. `profit` is an outcome and stays out. price1 … price11 hold the prices of all brands in
# the same store and week; the brand's own is its demand's price.
WEEKLY = """
    SELECT CAST(store AS VARCHAR) AS site_id, CAST(brand AS VARCHAR) AS product_id, week,
           DATE '1990-06-14' + CAST(7 * (week - 40) AS INTEGER) AS first_day, exp(logmove) / 64 AS quantity, deal, feat,
           [price1, price2, price3, price4, price5, price6, price7, price8, price9, price10, price11][brand] AS price
    FROM sales"""
END_OF_WEEK = "CAST(first_day AS TIMESTAMP) + INTERVAL 7 DAY - INTERVAL 1 MICROSECOND"

ORDERS = f"""
    SELECT site_id || '-' || product_id || '-' || week AS order_line_id, product_id, site_id,
           CAST(first_day AS TIMESTAMP) AS ordered_at, quantity, price AS unit_price, {END_OF_WEEK} AS known_at
    FROM weekly ORDER BY 1"""
PRODUCTS = "SELECT DISTINCT product_id, 'brand ' || product_id AS name, 'juice' AS category FROM weekly ORDER BY 1"
SITES = "SELECT DISTINCT site_id, 'store ' || site_id AS name FROM weekly ORDER BY 1"


def signals(known_ahead: bool) -> str:
    """SQL for deals, features and prices: told at the end of their week, or listed AHEAD_DAYS before it."""
    kind = "calendar" if known_ahead else "observed"
    known = f"CAST(first_day AS TIMESTAMP) - INTERVAL {AHEAD_DAYS} DAY" if known_ahead else END_OF_WEEK
    one = f"""
        SELECT '{{name}}' AS signal, 'product:' || product_id || '&site:' || site_id AS scope, first_day AS observed_on,
               {known} AS known_at, CAST({{name}} AS DOUBLE) AS value, '{kind}' AS kind FROM weekly"""
    parts = (one.format(name=name) for name in ("deal", "feat", "price"))
    return " UNION ALL ".join(parts) + " ORDER BY 1, 2, 3"


def map_files(source: Path, out: Path, *, known_ahead: bool = False) -> dict[str, int]:
    """Write the input tables as Parquet below `out`; return rows per table.

    `known_ahead` says whether promotions and prices were listed before their week or only seen at its end.
    """
    out.mkdir(parents=True, exist_ok=True)
    tables = {"orders": ORDERS, "products": PRODUCTS, "sites": SITES, "signals": signals(known_ahead)}
    rows = {}
    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW sales AS FROM read_parquet('{source / FILE}')")
        con.execute(f"CREATE VIEW weekly AS {WEEKLY}")
        for table, query in tables.items():
            con.execute(f"COPY ({query}) TO '{out / table}.parquet' (FORMAT parquet)")
            rows[table] = con.execute(f"SELECT count(*) FROM '{out / table}.parquet'").fetchone()[0]
    return rows
