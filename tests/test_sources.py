"""Parquet, CSV and SQL bring the same tables, and whatever cannot be read says so in words."""

import gzip
import sqlite3
from datetime import date, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from rich.console import Console

from features.contracts import TABLES, ContractError
from pipelines import sources
from pipelines.check import check, report
from pipelines.settings import Settings, Unreachable, UserError
from pipelines.sources import fingerprint, load, read
from tests.workspaces import SHARED

at = datetime.fromisoformat
NOW = at("2026-01-01")
HEAD = "order_line_id,product_id,site_id,ordered_at,quantity\n"
ROWS = "".join(f"o{i},soap,north,2025-01-{i % 28 + 1:02d} 08:00:00,{i}\n" for i in range(40))
WORLD = {
    "purchases": """SELECT 'L' || i AS po_line_id, 'S' || i % 3 AS supplier_id, i % 7 AS product_id, 'x' AS site_id,
        TIMESTAMP '2024-01-01 10:30:00.25' + INTERVAL (i) HOUR AS ordered_at,
        DATE '2024-01-10' + CAST(i // 24 AS INT) AS promised_on, CAST((i % 9 + 1) / 3 AS DOUBLE) AS quantity,
        CASE WHEN i % 17 = 0 THEN TIMESTAMP '2024-09-10 10:30:00' END AS cancelled_at, 'sea' AS ship_mode""",
    "receipts": """SELECT 'L' || i AS po_line_id, DATE '2024-02-12' + CAST(i // 24 AS INT) AS received_on,
        CASE WHEN i % 2 = 0 THEN 0.1 * (i % 9 + 1) ELSE CASE WHEN i % 31 = 0 THEN -1 END END AS quantity""",
    "orders": """SELECT i AS order_line_id, i % 7 AS product_id, 'x' AS site_id,
        TIMESTAMP '2024-01-01 10:30:00.123456' + INTERVAL (i) HOUR AS ordered_at,
        CAST(i % 9 * 1.5 AS DOUBLE) AS quantity,
        'a' || chr(10) || 'b, "q" é #' AS note""",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def bring(workspace, **more):
    con, verdicts = load(Settings(workspace=workspace, **more), now=NOW)
    return con, {v.table: v for v in verdicts}


def refused(workspace, **more):
    with pytest.raises((ContractError, UserError)) as error:
        bring(workspace, **more)
    return str(error.value)


def write(folder, name, form, query):
    with duckdb.connect() as con:
        data = con.sql(f"{query} FROM range(300) t(i)").to_arrow_table()
        if form == "duckdb":
            con.execute(f"ATTACH '{folder}/chain.db' AS file; CREATE TABLE file.{name} AS FROM data")
            return
        if form != "sqlite":
            con.execute(f"COPY (SELECT * FROM data) TO '{folder / name}.{form}'")
            return
        rows = [[_plain(v) for v in row.values()] for row in data.to_pylist()]
    with sqlite3.connect(folder / "chain.db") as database:
        database.execute(f"CREATE TABLE {name} ({', '.join(data.column_names)})")
        database.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(data.column_names))})", rows)
    database.close()


def _plain(value):
    return value.isoformat() if hasattr(value, "isoformat") else float(value) if hasattr(value, "as_tuple") else value


def test_parquet_csv_and_sql_hold_identical_tables(tmp_path):
    seen = {}
    for form in ("parquet", "csv", "sqlite", "duckdb"):
        folder = tmp_path / form / "data"
        folder.mkdir(parents=True)
        for name, query in WORLD.items():
            write(folder, name, form, query)
        data = f"{form}:///{folder}/chain.db" if form in ("sqlite", "duckdb") else "data"
        con, verdicts = bring(folder.parent, data=data, attributes=("ship_mode",))
        tables = {t.name: con.execute(f"FROM {t.name} ORDER BY ALL").fetchall() for t in TABLES}
        reasons = con.execute(
            "SELECT table_name, row_number, key, rtrim(reason, '.0') FROM quarantine ORDER BY ALL"
        ).fetchall()
        seen[form] = (tables, {v: verdicts[v].as_dict() for v in verdicts}, reasons, fingerprint(con))
        left = {row[0] for row in con.execute("SHOW TABLES").fetchall()}
        con.close()
        assert left == {"quarantine", *(t.name for t in TABLES)}
    assert len(seen["csv"][0]["orders"]) == 300
    assert seen["csv"][2], "some rows were meant to be bad"
    assert seen["parquet"] == seen["csv"] == seen["sqlite"] == seen["duckdb"]


def test_fingerprint_ignores_the_order_of_rows_but_no_value(folder):
    digests = []
    for rows in (ROWS, "".join(reversed(ROWS.splitlines(True))), ROWS.replace("39\n", "38\n"), ROWS + ROWS[:36]):
        (folder / "orders.csv").write_text(HEAD + rows)
        for threads in (1, 2):
            con, _ = bring(folder.parent, threads=threads)
            digests.append(fingerprint(con))
            con.close()
    assert digests[0] == digests[1] == digests[2] == digests[3] == digests[6]
    assert digests[4] == digests[5] != digests[0]


def test_tables_larger_than_their_memory_spill_to_disk(folder):
    line = "'order ' || i AS order_line_id, i % 99 AS product_id, 'x' AS site_id, 1 AS quantity"
    moment = "TIMESTAMP '2024-01-01 10:30:00' + INTERVAL (i) SECOND AS ordered_at"
    duckdb.execute(f"COPY (SELECT {line}, {moment} FROM range(800000) t(i)) TO '{folder}/orders.parquet'")
    con, verdicts = bring(folder.parent, memory="60MB", threads=1)
    spilt = con.execute("SELECT sum(size) FROM duckdb_temporary_files()").fetchall()[0][0]
    con.close()
    assert verdicts["orders"].rows == 800_000
    assert spilt > 0
    with pytest.raises(ValueError, match="memory"):
        Settings(workspace=folder.parent, memory="a lot")


def test_much_input_is_kept_in_a_file_that_goes_with_the_connection_and_holds_the_same(folder, monkeypatch):
    line = "'order ' || i AS order_line_id, i % 99 AS product_id, 'x' AS site_id, 1 AS quantity"
    moment = "TIMESTAMP '2024-01-01 10:30:00' + INTERVAL (i) SECOND AS ordered_at"
    duckdb.execute(f"COPY (SELECT {line}, {moment} FROM range(300000) t(i)) TO '{folder}/orders.parquet'")
    plain, _ = bring(folder.parent)
    monkeypatch.setattr(sources, "LARGE", 100_000)
    filed, _ = bring(folder.parent)
    room = "SELECT sum(memory_usage_bytes) FROM duckdb_memory() WHERE tag = 'IN_MEMORY_TABLE'"
    assert filed.execute(room).fetchall()[0][0] < plain.execute(room).fetchall()[0][0] / 2
    assert fingerprint(plain) == fingerprint(filed)
    assert len(list((folder.parent / "scratch").iterdir())) == 1
    plain.close()
    filed.close()
    del filed
    assert not list((folder.parent / "scratch").iterdir())


# Where tables are found


def test_a_folder_of_parquet_parts_is_one_table_whatever_its_path(tmp_path):
    folder = tmp_path / "as_of=2024 [x]*'?" / "data"
    (folder / "Orders").mkdir(parents=True)
    (folder / "orders.csv").write_text(HEAD + ROWS)
    rows = pd.read_csv(folder / "orders.csv")
    (folder / "orders.csv").unlink()
    rows[:30].to_parquet(folder / "Orders" / "a.parquet")
    rows[30:].to_parquet(folder / "Orders" / "b.parquet")
    con, verdicts = bring(folder.parent)
    assert verdicts["orders"].kept == 40
    assert "as_of" not in {row[0] for row in con.execute("DESCRIBE orders").fetchall()}
    con.close()


def test_csv_parts_in_folders_by_month_are_one_table_and_name_the_file_of_a_bad_line(folder):
    for month, rows in {
        "2025-01": ROWS,
        "2025-02": ROWS.replace("o", "p") + "p50,soap\n",
        "2025-03": "o51,a,b\n",
    }.items():
        (folder / "orders" / month).mkdir(parents=True)
        (folder / "orders" / month / f"{month}.csv").write_text(HEAD + rows)
    (folder / "orders" / "_temporary").mkdir()
    (folder / "orders" / "_temporary" / "draft.csv").write_text("half a file")
    con, verdicts = bring(folder.parent)
    assert (verdicts["orders"].rows, verdicts["orders"].kept) == (82, 80)
    aside = [row[0] for row in con.execute("SELECT reason FROM quarantine").fetchall()]
    assert ["2025-02.csv, line 42" in aside[0], "2025-03.csv, line 2" in aside[1]] == [True, True]
    con.close()
    (folder / "orders" / "2025-03" / "more.csv").write_text(HEAD.replace("quantity", "qty"))
    said = "more.csv begins with another header than 2025-01.csv: only one of them has 'quantity'"
    assert said in refused(folder.parent)
    (folder / "orders" / "2025-03" / "more.csv").rename(folder / "orders" / "more.parquet")
    assert "orders/ holds both Parquet and CSV files" in refused(folder.parent)


@pytest.mark.parametrize("name", ["Orders.CSV", "orders.csv.gz"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_of_any_delimiter_with_a_byte_order_mark(folder, name, delimiter):
    content = ("\ufeff" + HEAD + ROWS + 'o99,"so""ap\r\n#",north,2025-01-01,\n').replace(",", delimiter).encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    con, verdicts = bring(folder.parent)
    assert (verdicts["orders"].rows, verdicts["orders"].reasons) == (41, {"quantity is empty": 1})
    con.close()


def test_csv_lines_that_do_not_split_are_set_aside(folder):
    bad = "o50,soap,north\no51,a,b,2025-01-01,1,2\no52,M\xfcll,x,2025-01-01,1\n"
    (folder / "orders.csv").write_bytes((HEAD + ROWS + bad + ROWS.replace("o", "p")).encode("latin-1"))
    con, verdicts = bring(folder.parent)
    v = verdicts["orders"]
    assert (v.rows, v.kept, v.quarantined, v.reasons) == (
        83,
        80,
        3,
        {"line cannot be split into cells": 2, "line is no UTF-8 text": 1},
    )
    reasons = [row[0] for row in con.execute("SELECT reason FROM quarantine").fetchall()]
    assert "line cannot be split into cells: line 42: Expected Number of Columns: 5 Found: 3" in reasons
    con.close()


def test_the_views_that_the_documentation_shows_map_an_extract(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    views = page.partition("```sql\n")[2].partition("```")[0].replace("/erp/", f"{tmp_path}/")
    head = "Order;Position;Vendor no.;Material;Plant;Ordered;Confirmed;Quantity\n"
    for month, line in {
        "01": "7;10;Müller;0042;N;31.01.2024;09.02.2024;1.234,5\n",
        "02": "8;10;M;1;N;01.02.2024;;2,0\n",
    }.items():
        (tmp_path / f"purchases_{month}.csv").write_bytes((head + line).encode("latin-1"))
    (tmp_path / "receipts.csv").write_text("Order;Position;Posted;Quantity\n7;10;45324;1234.5\n")
    with duckdb.connect(tmp_path / "chain.duckdb") as file:
        file.execute(views)
    con, verdicts = bring(tmp_path, data=f"duckdb:///{tmp_path}/chain.duckdb")
    row = con.execute("SELECT po_line_id, supplier_id, product_id, promised_on, quantity FROM purchases").fetchall()[0]
    assert row == ("7-10", "Müller", "0042", date(2024, 2, 9), 1234.5)
    assert con.execute("SELECT received_on FROM receipts").fetchall() == [(date(2024, 2, 2),)]
    assert [v.quarantined for v in verdicts.values()] == [0, 0]
    con.close()


def test_a_file_that_came_twice_stops_nothing(folder):
    (folder / "orders.csv").write_text(HEAD + ROWS + ROWS)
    con, verdicts = bring(folder.parent)
    assert (verdicts["orders"].kept, verdicts["orders"].reasons) == (40, {"duplicate row": 40})
    con.close()


# What cannot be read


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"orders.csv": b""}, "orders: orders.csv is empty (0 bytes)"),
        ({"orders.parquet": b""}, "orders: orders.parquet is empty (0 bytes)"),
        ({"orders.parquet": b"PAR1 and no more"}, "orders: cannot be read: "),
        ({"orders.csv": HEAD.encode()}, "orders: the table has its columns but no rows"),
        ({"orders.csv": bytes(range(256))}, "orders.csv does not begin with a line of UTF-8 text"),
        ({"orders.csv": (HEAD + ROWS).encode("utf-16")}, "orders.csv does not begin with a line of UTF-8 text"),
        ({"orders.csv": b"a,b,a\n1,2,3\n"}, "orders.csv has two columns named 'a'"),
        ({"orders.csv.gz": b"no gzip at all"}, "orders.csv.gz is cut off or no gzip file"),
        (
            {"orders.csv": (HEAD + 'o1,"soap,n,2025-01-01,1\n' + ROWS).encode()},
            "a quote opened in line 2 is not closed",
        ),
        (
            {"orders.csv": HEAD.encode(), "orders.parquet": b"x"},
            "several files for one table: orders.csv, orders.parquet",
        ),
        ({"order.csv": (HEAD + ROWS).encode()}, "orders: found order.csv, expected orders.parquet or orders.csv"),
        ({"orders.xlsx": b"PK"}, "orders: found orders.xlsx, expected orders.parquet or orders.csv"),
        ({"sales.csv": b"a\n1\n"}, "has the name of a table (sales.csv); name them orders.csv for demand shifts"),
        (
            {"orders.csv": (HEAD + "o1,M\xfcller,n,2025-01-01,1\n").encode("latin-1")},
            "line is no UTF-8 text in 1 row, such as line 2: Invalid",
        ),
        (
            {"orders.csv": (HEAD + ROWS).replace("\n", "\r").encode()},
            "orders.csv ends its lines with a carriage return",
        ),
        ({}, "orders: the table is missing, and so are purchases and receipts; found none of the tables"),
    ],
)
def test_what_cannot_be_read_is_named(folder, files, said):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    complaint = refused(folder.parent)
    assert said in complaint
    assert "row -" not in complaint


def test_truncated_files_are_named(folder):
    write(folder, "orders", "parquet", WORLD["orders"])
    path = folder / "orders.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    assert "orders: cannot be read: " in (complaint := refused(folder.parent))
    assert "SELECT" not in complaint
    path.unlink()
    packed = gzip.compress(
        (HEAD + "".join(f"o{i},p{i * 7919},n,2025-01-01 08:00:00,{i}\n" for i in range(50_000))).encode()
    )
    (folder / "orders.csv.gz").write_bytes(packed[: len(packed) // 2])
    assert "orders" in refused(folder.parent)


def test_all_unreadable_files_are_named_at_once(folder):
    for name in ("orders", "purchases", "receipts"):
        (folder / f"{name}.csv").write_bytes(b"")
    assert "(3 breaches)" in refused(folder.parent)


def test_a_folder_that_is_not_there(tmp_path):
    assert "does not exist; expected a folder of <table>.parquet" in refused(tmp_path)
    (tmp_path / "data").write_text("")
    assert "is a file; expected a folder" in refused(tmp_path)


def test_a_country_without_known_holidays(folder):
    assert "country is 'ZZ', expected one whose holidays are known" in refused(folder.parent, country="ZZ")


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        ("sqlite:////nowhere/chain.db", Unreachable, "there is no database file /nowhere/chain.db"),
        ("duckdb:////nowhere/chain.db", Unreachable, "there is no DuckDB file /nowhere/chain.db"),
        (f"duckdb:///{__file__}", Unreachable, "cannot be read: IO Error"),
        ("nosuch://me:sesame@host/x", UserError, "needs a driver that is not installed"),
        ("postgresql://me:sesame@127.0.0.1:1/x", UserError, ""),
        ("sqlite://me:sesame@host/x", UserError, ""),
        ("://me:sesame@", UserError, "is not a database URL"),
    ],
)
def test_databases_that_do_not_answer(url, kind, said):
    with duckdb.connect() as con, pytest.raises(kind) as error:
        read(url, con)
    assert said in str(error.value)
    assert "sesame" not in str(error.value)
    assert error.value.exit_code == (6 if kind is Unreachable else error.value.exit_code)


# What is kept of what was refused


def test_refused_rows_are_written_and_removed_when_they_are_clean(folder):
    kept = folder.parent / "quarantine" / "orders.parquet"
    (folder / "orders.csv").write_text(HEAD + ROWS.replace(",39\n", ",-39\n"))
    bring(folder.parent)[0].close()
    assert duckdb.read_parquet(str(kept)).fetchall()[0][:4] == ("orders", 40, "o39", "quantity is negative: -39")
    (folder / "orders.csv").write_text(HEAD + ROWS.replace(",3", ",-3"))
    assert "are bad" in refused(folder.parent)
    assert len(duckdb.read_parquet(str(kept)).fetchall()) == 11, "an error leaves the rows to look at"
    (folder / "orders.csv").write_text(HEAD + ROWS)
    bring(folder.parent)[0].close()
    assert list(kept.parent.iterdir()) == []


@pytest.mark.parametrize(("old", "new", "hint"), [
    ("order_line_id", "Beleg", True), (",39\n", ",-39\n", False),
])  # fmt: skip
def test_a_table_of_other_columns_is_shown_the_way_to_map_them(folder, old, new, hint):
    (folder / "orders.csv").write_text((HEAD + ROWS).replace(old, new))
    outcome = check(Settings(workspace=folder.parent, max_quarantined=0.0), now=NOW)
    assert not outcome.ok
    assert ("From what you have" in " ".join(printed(outcome).split())) == hint


def test_check_says_it_on_one_page(folder):
    (folder / "orders.csv").write_text(HEAD + ROWS.replace(",39\n", ",-39\n"))
    (folder / "products.csv").write_text("product_id\nrope\n")
    outcome = check(Settings(workspace=folder.parent), now=NOW)
    assert outcome.ok
    assert outcome.as_dict()["tables"]["orders"]["quarantined"] == 1
    page = printed(outcome)
    assert "quantity is negative" in page
    assert "product_id: 1 not listed in products: 'soap'; the rows are kept" in page
    assert "✓ The tables hold to their contract. 1 row is set aside" in page
    assert max(map(len, page.splitlines())) <= 100


def test_check_carries_breaches_instead_of_raising(folder):
    (folder / "orders.csv").write_text("order_line_id\n1\n")
    outcome = check(Settings(workspace=folder.parent), now=NOW)
    assert not outcome.ok
    assert outcome.as_dict()["tables"]["orders"]["breaches"][0]["column"] == "product_id"
    assert "✗ 4 breaches must be put right" in printed(outcome)
    (folder / "orders.csv").write_bytes(b"")
    assert "✗  orders.csv is empty (0 bytes)" in printed(check(Settings(workspace=folder.parent), now=NOW))


def printed(outcome):
    screen = Console(width=100, color_system=None)
    with screen.capture() as capture:
        screen.print(report(outcome))
    return capture.get()


def test_real_invoices_are_read_with_all_their_dirt(tmp_path):
    source = SHARED / "online_retail" / "online_retail.parquet"
    if not source.exists():
        pytest.skip("the shared open data is not on this machine")
    (tmp_path / "data").mkdir()
    duckdb.execute(
        f"""COPY (SELECT InvoiceNo || '-' || StockCode AS order_line_id, StockCode AS product_id, Country AS site_id,
            InvoiceDate AS ordered_at, Quantity AS quantity, UnitPrice AS unit_price, CustomerID AS customer_id
            FROM '{source}') TO '{tmp_path}/data/orders.parquet'"""
    )
    con, verdicts = bring(tmp_path)
    assert verdicts["orders"].rows == 541_909
    assert verdicts["orders"].reasons == {
        "quantity is negative": 10_624, "duplicate key": 5_302, "duplicate row": 5_233, "unit_price is negative": 2,
    }  # fmt: skip
    assert con.execute("SELECT count(*) FROM orders WHERE customer_id LIKE '%.%'").fetchall() == [(0,)]
    con.close()
