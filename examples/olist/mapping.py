"""Map the files of the Olist marketplace data set to bullwhip's input tables."""

from pathlib import Path

import duckdb

FILES = ("orders", "order_items", "products", "sellers", "customers")

TABLES = {
    # Seller leg: the seller promises to hand the parcel to the carrier by shipping_limit_date. A line exists once the
    # payment is approved. The destination (customer's state) is the site, the category is the product: single
    # products are far too sparse. Freight is quoted in the shop, so it is known when the order is placed.
    "purchases": """
        SELECT i.order_id || '-' || i.order_item_id AS po_line_id, i.seller_id AS supplier_id,
               coalesce(p.product_category_name, 'unknown') AS product_id, c.customer_state AS site_id,
               CAST(o.order_approved_at AS TIMESTAMP) AS ordered_at,
               CAST(CAST(i.shipping_limit_date AS TIMESTAMP) AS DATE) AS promised_on, CAST(1 AS DOUBLE) AS quantity,
               CAST(i.price AS DOUBLE) AS unit_cost,
               CAST(CAST(o.order_estimated_delivery_date AS TIMESTAMP) AS DATE) AS need_on,
               CAST(i.freight_value AS DOUBLE) AS freight_value
        FROM order_items i JOIN orders o USING (order_id) JOIN customers c USING (customer_id)
        LEFT JOIN products p USING (product_id) WHERE o.order_approved_at IS NOT NULL ORDER BY 1""",
    "receipts": """
        SELECT i.order_id || '-' || i.order_item_id AS po_line_id,
               CAST(CAST(o.order_delivered_carrier_date AS TIMESTAMP) AS DATE) AS received_on
        FROM order_items i JOIN orders o USING (order_id)
        WHERE o.order_delivered_carrier_date IS NOT NULL AND o.order_approved_at IS NOT NULL ORDER BY 1""",
    "orders": """
        SELECT i.order_id || '-' || i.order_item_id AS order_line_id,
               coalesce(p.product_category_name, 'unknown') AS product_id, c.customer_state AS site_id,
               CAST(o.order_purchase_timestamp AS TIMESTAMP) AS ordered_at, CAST(1 AS DOUBLE) AS quantity,
               CAST(i.price AS DOUBLE) AS unit_price
        FROM order_items i JOIN orders o USING (order_id) JOIN customers c USING (customer_id)
        LEFT JOIN products p USING (product_id) ORDER BY 1""",
    "suppliers": """
        SELECT seller_id AS supplier_id, left(seller_id, 8) || ', ' || seller_city AS name, seller_state AS region
        FROM sellers ORDER BY 1""",
    "products": """
        SELECT DISTINCT coalesce(product_category_name, 'unknown') AS product_id,
               replace(coalesce(product_category_name, 'unknown'), '_', ' ') AS name,
               coalesce(product_category_name, 'unknown') AS category FROM products ORDER BY 1""",
    "sites": """
        SELECT DISTINCT customer_state AS site_id, customer_state AS region FROM customers ORDER BY 1""",
}


def map_files(source: Path, out: Path) -> dict[str, int]:
    """Write the input tables as Parquet below `out`; return rows per table.

    `source` holds the publisher's `olist_<name>_dataset.csv` files, or the same columns as Parquet.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = {}
    with duckdb.connect() as con:
        for name in FILES:
            con.execute(f"CREATE VIEW {name} AS SELECT * FROM {_scan(source, name)}")
        for table, query in TABLES.items():
            con.execute(f"COPY ({query}) TO '{out / table}.parquet' (FORMAT parquet)")
            rows[table] = con.execute(f"SELECT count(*) FROM '{out / table}.parquet'").fetchone()[0]
    return rows


def _scan(source: Path, name: str) -> str:
    for ending, reader in ((".csv", "read_csv('{}', header = true)"), (".parquet", "read_parquet('{}')")):
        path = source / f"olist_{name}_dataset{ending}"
        if path.exists():
            return reader.format(path)
    raise SystemExit(f"bullwhip: no olist_{name}_dataset.csv (or .parquet) in {source}; name the folder with DATA=")
