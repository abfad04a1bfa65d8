"""Map the invoices of a British wholesaler (UCI Online Retail) to bullwhip's input tables."""

from pathlib import Path

import duckdb

FILE = "online_retail.parquet"

# Codes of products are five digits and perhaps letters, or those of the shop's own range; POST, DOT, M, C2, BANK
# CHARGES and the like are services and bookings. Spelling varies in case. A row without price and without customer is
# a stock correction, not demand. Other rows pass as they are: the door says what it cannot take.
LINES = """
    SELECT InvoiceNo || '-' || row_number() OVER (PARTITION BY InvoiceNo ORDER BY upper(StockCode), InvoiceDate,
             Quantity, UnitPrice, Description) AS order_line_id,
           upper(StockCode) AS product_id, CASE WHEN Country = 'United Kingdom' THEN 'UK' ELSE 'abroad' END AS site_id,
           InvoiceDate AS ordered_at, CAST(Quantity AS DOUBLE) AS quantity, nullif(UnitPrice, 0) AS unit_price,
           CAST(CAST(CustomerID AS BIGINT) AS VARCHAR) AS customer_id, InvoiceNo LIKE 'C%' AS cancels
    FROM invoices
    WHERE regexp_full_match(upper(StockCode), '[0-9]{5}[A-Z]{0,2}|DCGS.+')
      AND NOT (UnitPrice = 0 AND CustomerID IS NULL)"""

# A cancellation is a later invoice (C…): it is known when it is written, and never before. It cancels the latest
# earlier line of the same customer and product that has the same quantity; returns of a part, or of something bought
# before the file begins, match nothing and leave demand as it was.
CANCELLED = """
    WITH numbered AS (
      SELECT l.*, abs(quantity) AS size, sum(CASE WHEN cancels THEN -1 ELSE 1 END) OVER (
        PARTITION BY customer_id, product_id, site_id, abs(quantity) ORDER BY ordered_at, cancels, order_line_id
        ) AS depth
      FROM lines l WHERE customer_id IS NOT NULL AND (quantity > 0) <> cancels),
    sales AS (SELECT * FROM numbered WHERE NOT cancels),
    returns AS (SELECT * FROM numbered WHERE cancels)
    SELECT s.order_line_id, min(r.ordered_at) AS cancelled_at FROM sales s JOIN returns r
      ON r.customer_id = s.customer_id AND r.product_id = s.product_id AND r.site_id = s.site_id AND r.size = s.size
     AND r.depth = s.depth - 1 AND r.ordered_at >= s.ordered_at
    GROUP BY 1"""

ORDERS = """
    SELECT order_line_id, product_id, site_id, ordered_at, quantity, unit_price, customer_id, cancelled_at
    FROM lines LEFT JOIN cancelled USING (order_line_id) WHERE NOT cancels ORDER BY 1"""
PRODUCTS = """
    SELECT product_id, mode(trim(Description)) AS name
    FROM (SELECT *, upper(StockCode) AS product_id FROM invoices WHERE UnitPrice > 0 AND InvoiceNo NOT LIKE 'C%')
    WHERE product_id IN (SELECT product_id FROM lines WHERE NOT cancels) GROUP BY 1 ORDER BY 1"""
SITES = "SELECT DISTINCT site_id, site_id AS region FROM lines ORDER BY 1"


def map_files(source: Path, out: Path) -> dict[str, int]:
    """Write the input tables as Parquet below `out`; return rows per table."""
    out.mkdir(parents=True, exist_ok=True)
    rows = {}
    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW invoices AS FROM read_parquet('{source / FILE}')")
        con.execute(f"CREATE TABLE lines AS {LINES}")
        con.execute(f"CREATE TABLE cancelled AS {CANCELLED}")
        for table, query in (("orders", ORDERS), ("products", PRODUCTS), ("sites", SITES)):
            con.execute(f"COPY ({query}) TO '{out / table}.parquet' (FORMAT parquet)")
            rows[table] = con.execute(f"SELECT count(*) FROM '{out / table}.parquet'").fetchone()[0]
    return rows
