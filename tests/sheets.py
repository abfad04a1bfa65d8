"""Small input tables written as text, held to their contracts."""

import re
from datetime import datetime

import pytest

from features.contracts import ContractError
from features.door import hold

at = datetime.fromisoformat
NOW = at("2024-06-01 12:00")

ORDERS = """
    order_line_id  product_id  site_id  ordered_at           quantity
    o1             soap        north    2024-01-01 08:00:00  5
    o2             soap        north    2024-01-02 09:00:00  0
    o3             rope        south    2024-01-11 10:00:00  2.5
"""
PURCHASES = """
    po_line_id  supplier_id  product_id  site_id  ordered_at  promised_on  quantity
    l1          acme         soap        north    2024-01-01  2024-01-10   10
    l2          acme         rope        north    2024-01-02  2024-01-12   20
    l3          bolt         rope        south    2024-01-03  -            30
"""
RECEIPTS = """
    po_line_id  received_on  quantity
    l1          2024-01-09   4
    l1          2024-01-10   6
    l2          2024-01-20   -
"""


def put(con, name, ascii_table, **types):
    """Register an ASCII table as text, `-` as NULL; `types` casts columns as a Parquet file would bring them."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in ascii_table.strip().splitlines()]
    head, *rows = lines
    con.execute(f"CREATE OR REPLACE TABLE text_{name} ({', '.join(f'{c} VARCHAR' for c in head)})")
    if rows:
        con.executemany(
            f"INSERT INTO text_{name} VALUES ({', '.join('?' * len(head))})",
            [[None if v == "-" else v for v in r] for r in rows],
        )
    columns = ", ".join(f"CAST({c} AS {types[c]}) AS {c}" if c in types else c for c in head)
    con.execute(f"CREATE OR REPLACE VIEW raw_{name} AS SELECT {columns} FROM text_{name}")
    return f"raw_{name}"


def held(con, *, share=1.0, attributes=(), short_tolerance=0.0, now=NOW, **tables):
    """Hold ASCII tables to their contracts; rows that are lost fail any test."""
    sources = {n: put(con, n, t) if isinstance(t, str) and "\n" in t else t for n, t in tables.items()}
    try:
        verdicts = hold(
            con, sources, now=now, max_quarantined=share, attributes=attributes, short_tolerance=short_tolerance
        )
    except ContractError as error:
        add_up(con, error.verdicts)
        raise
    add_up(con, verdicts)
    return {v.table: v for v in verdicts}


def add_up(con, verdicts):
    aside = dict(con.execute("SELECT table_name, count(*) FROM quarantine GROUP BY ALL").fetchall())
    for v in verdicts:
        assert v.rows == v.kept + v.quarantined
        assert v.quarantined == aside.get(v.table, 0)
        if not v.rows:
            continue
        assert v.rows == con.execute(f"SELECT count(*) FROM raw_{v.table}").fetchall()[0][0]
        if (
            not v.errors
            and con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = ?", [v.table]).fetchall()[0][0]
        ):
            assert v.kept == con.execute(f"SELECT count(*) FROM {v.table}").fetchall()[0][0]


def reasons(con, table):
    """Return {row number: reason} of the rows set aside."""
    return dict(
        con.execute("SELECT row_number, reason FROM quarantine WHERE table_name = ? ORDER BY 1", [table]).fetchall()
    )


def refused(con, **tables):
    with pytest.raises(ContractError) as error:
        held(con, **tables)
    return str(error.value)


def cells(con, table, columns, order="1"):
    return con.execute(f"SELECT {columns} FROM {table} ORDER BY {order}").fetchall()
