"""Map the DataCo order file to bullwhip's purchase side, honestly, or with the columns that give the answer away.

The file's delays are made by a random rule of the shipping mode: knowing the mode is all there is to know (ROC-AUC 0.72
at the order). It is therefore a good test of leaks: whatever ranks clearly better has read the answer. Its columns
`Delivery Status`, `Days for shipping (real)`, `Order Status` and `Late_delivery_risk` were written after the goods had
left. `--leaky` names them as attributes, and `bullwhip train` then says that the result is too good.
"""

import argparse
import sys
from pathlib import Path

import duckdb
import pandas as pd

HONEST = ("shipping_mode", "customer_segment")
GIVEAWAYS = ("delivery_status", "days_for_shipping_real", "order_status", "late_delivery_risk")

SETTINGS = """\
# DataCo: promises are at most four days ahead, so every day is a snapshot.
currency = "USD"
every_days = 1
history_weeks = 156
attributes = [{attributes}]
"""

# One row of the file is one order line. Who delivers is the market's warehouse, of which the file knows nothing more;
# a line is promised after its mode's scheduled days and counts as received when it was shipped. Cancellations and
# suspected fraud carry a shipping date like any other line and no time of their own, so they stay as they are.
LINES = """
    SELECT CAST("Order Item Id" AS VARCHAR) AS po_line_id, "Market" AS supplier_id, "Category Name" AS product_id,
           trim("Order Region") AS site_id, strptime("order date (DateOrders)", '%m/%d/%Y %H:%M') AS ordered_at,
           CAST(strptime("order date (DateOrders)", '%m/%d/%Y %H:%M') AS DATE)
             + CAST("Days for shipment (scheduled)" AS INTEGER) AS promised_on,
           CAST(strptime("shipping date (DateOrders)", '%m/%d/%Y %H:%M') AS DATE) AS received_on,
           CAST("Order Item Quantity" AS DOUBLE) AS quantity, CAST("Order Item Product Price" AS DOUBLE) AS unit_cost,
           "Shipping Mode" AS shipping_mode, "Customer Segment" AS customer_segment,
           "Delivery Status" AS delivery_status, "Days for shipping (real)" AS days_for_shipping_real,
           "Order Status" AS order_status, "Late_delivery_risk" AS late_delivery_risk
    FROM file"""
TABLES = {
    "purchases": "SELECT * EXCLUDE (received_on) FROM lines ORDER BY po_line_id",
    "receipts": "SELECT po_line_id, received_on FROM lines WHERE received_on IS NOT NULL ORDER BY po_line_id",
    "suppliers": "SELECT DISTINCT supplier_id, supplier_id || ' warehouse' AS name FROM lines ORDER BY 1",
    "products": "SELECT DISTINCT product_id, product_id AS name, product_id AS category FROM lines ORDER BY 1",
    "sites": "SELECT DISTINCT site_id, site_id AS name, site_id AS region FROM lines ORDER BY 1",
}


def map_file(source: Path, out: Path) -> dict[str, int]:
    """Write the input tables as Parquet below `out`; return their rows. `source` is the published CSV, or Parquet."""
    out.mkdir(parents=True, exist_ok=True)
    # the published CSV is Latin-1 with control characters, which DuckDB refuses
    file = (
        pd.read_parquet(source) if source.suffix == ".parquet" else pd.read_csv(source, dtype=str, encoding="latin-1")
    )
    rows = {}
    with duckdb.connect() as con:
        con.register("file", file)
        con.execute(f"CREATE TABLE lines AS {LINES}")
        for table, query in TABLES.items():
            con.execute(f"COPY ({query}) TO '{out / table}.parquet' (FORMAT parquet)")
            rows[table] = con.execute(f"SELECT count(*) FROM '{out / table}.parquet'").fetchall()[0][0]
    return rows


def settings(attributes: tuple[str, ...]) -> str:
    """Return the bullwhip.toml of a workspace whose model hears these attributes."""
    return SETTINGS.format(attributes=", ".join(f'"{name}"' for name in attributes))


def main() -> int:
    """Write a workspace; train it with `bullwhip train --task delay --as-of 2017-10-01 --workspace …`."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--data", type=Path, required=True, help="the publisher's file, CSV or Parquet")
    words.add_argument("--workspace", type=Path, default=Path("dataco"))
    words.add_argument("--leaky", action="store_true", help="name the columns that give the answer away as attributes")
    given = words.parse_args()
    if not given.data.is_file():
        print(f"bullwhip: no file {given.data}; name the DataCo order file with --data", file=sys.stderr)
        return 2
    rows = map_file(given.data, given.workspace / "data")
    attributes = (*HONEST, *GIVEAWAYS) if given.leaky else HONEST
    (given.workspace / "bullwhip.toml").write_text(settings(attributes))
    print("mapped: " + ", ".join(f"{n:,} {table}" for table, n in rows.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
