"""Tables are held to their contracts: what good ones become, what is refused and how, and no row is ever lost."""

import json
import re
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from docs.generate import main as generate_docs
from features.contracts import TABLES, ContractError
from features.contracts import table as contract
from features.door import hold
from tests.sheets import NOW, ORDERS, PURCHASES, RECEIPTS, at, cells, held, put, reasons, refused

# What was known when a day began


def test_what_became_known_later_is_not_there_and_puts_nothing_in_doubt(con):
    purchases = """
        po_line_id  supplier_id  product_id  site_id  ordered_at  promised_on  quantity  known_at    cancelled_at
        l1          acme         soap        north    2024-01-01  2024-01-10   10        -           2024-01-20
        l2          acme         rope        north    2024-01-02  2024-01-12   20        -           2024-01-19
        l1          acme         soap        north    2024-01-01  2024-01-10   11        2024-01-20  -
        l3          acme         soap        north    2024-01-21  2024-02-10   10        -           -
        l4          acme         soap        north    2024-01-03  2024-02-10   10        2024-1-5    -
    """
    receipts = """
        po_line_id  received_on  quantity  known_at
        l2          2024-01-19   5         2024-01-19 18:00
        l1          2023-12-01   10        2024-01-20
        l2          2024-01-22   5         -
    """
    sources = {"purchases": put(con, "purchases", purchases), "receipts": put(con, "receipts", receipts)}
    day = date(2024, 1, 20)
    then = {v.table: v for v in hold(con, sources, now=at(str(day)), max_quarantined=1.0, known_before=day)}
    assert (then["purchases"].rows, then["receipts"].rows) == (3, 1)
    assert reasons(con, "purchases") == {5: "known_at is not an ISO date (YYYY-MM-DD): '2024-1-5'"}
    assert cells(con, "purchases", "po_line_id, quantity, CAST(cancelled_at AS VARCHAR)") == [
        ("l1", 10, None), ("l2", 20, "2024-01-19 00:00:00"),
    ]  # fmt: skip
    assert cells(con, "receipts", "po_line_id, quantity") == [("l2", 5)]
    hold(con, sources, now=NOW, max_quarantined=1.0)
    assert set(reasons(con, "purchases")) == {1, 3, 5}  # with hindsight nobody knows which l1 is true


def test_before_the_first_row_a_table_is_empty_without_an_error(con):
    sources = {"orders": put(con, "orders", ORDERS)}
    (orders,) = hold(con, sources, now=NOW, known_before=date(2023, 1, 1))
    assert (orders.rows, orders.errors) == (0, ())


# What good tables become


def test_good_tables_are_typed_complete_and_untouched(con):
    verdicts = held(con, orders=ORDERS, purchases=PURCHASES, receipts=RECEIPTS, share=0.0)
    assert all(not v.breaches and not v.quarantined for v in verdicts.values())
    assert cells(con, "orders", "order_line_id, ordered_at, quantity, known_at") == [
        ("o1", at("2024-01-01 08:00"), 5.0, at("2024-01-01 08:00")),
        ("o2", at("2024-01-02 09:00"), 0.0, at("2024-01-02 09:00")),
        ("o3", at("2024-01-11 10:00"), 2.5, at("2024-01-11 10:00")),
    ]
    assert cells(con, "receipts", "po_line_id, received_on, quantity, known_at", "1, 2") == [
        ("l1", date(2024, 1, 9), 4.0, at("2024-01-09 23:59:59.999999")),
        ("l1", date(2024, 1, 10), 6.0, at("2024-01-10 23:59:59.999999")),
        ("l2", date(2024, 1, 20), 20.0, at("2024-01-20 23:59:59.999999")),
    ]
    assert cells(con, "purchases", "promised_on, cancelled_at, known_at", "known_at")[2] == (
        None,
        None,
        at("2024-01-03"),
    )


def test_every_contract_table_exists_with_every_column_and_type(con):
    held(con, orders=ORDERS)
    types = {"id": "VARCHAR", "text": "VARCHAR", "date": "DATE", "timestamp": "TIMESTAMP", "number": "DOUBLE"}
    for t in TABLES:
        there = {row[0]: row[1] for row in con.execute(f"DESCRIBE {t.name}").fetchall()}
        assert there == {c.name: types[c.kind] for c in t.columns}


def test_verdict_counts_weeks_entities_and_latency(con):
    receipts = (
        "po_line_id  received_on  known_at\nl1  2024-01-09  2024-01-10 12:00:00\nl2  2024-01-20  2024-01-23 00:00:00"
    )
    said = held(con, purchases=PURCHASES, receipts=receipts)["receipts"].as_dict()
    assert json.loads(json.dumps(said)) == said
    assert (said["first_day"], said["last_day"], said["weeks"]) == ("2024-01-09", "2024-01-20", 2)
    assert (said["known_at_latency_p50_days"], said["known_at_latency_p95_days"]) == (1.5, 3.0)
    assert held(con, orders=ORDERS)["orders"].entities == {"product_id": 2, "site_id": 2}


def test_whole_number_ids_are_the_same_id_in_every_type(con):
    for kind in ("BIGINT", "DOUBLE", "DECIMAL(10, 2)", "VARCHAR"):
        sheet = ORDERS.replace("soap", "17850").replace("rope", "17851")
        held(con, orders=put(con, "orders", sheet, product_id=kind))
        assert cells(con, "orders", "DISTINCT product_id") == [("17850",), ("17851",)]


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2024-01-31", at("2024-01-31")),
        ("2024-01-31 08:30:00", at("2024-01-31 08:30")),
        ("2024-01-31T08:30:00Z", at("2024-01-31 08:30")),
        ("2024-01-31T08:30:00+02:00", at("2024-01-31 06:30")),
        ("2024-01-31 08:30+02", at("2024-01-31 06:30")),
        ("2024-01-31 08:30:00.123456-05:00", at("2024-01-31 13:30:00.123456")),
        ("2024-01-31 08:30:00.0000000 +02:00", at("2024-01-31 06:30")),
        ("2024-01-31 08:30:00 UTC", at("2024-01-31 08:30")),
        ("2024-01-31T08:30:00 Europe/Berlin", at("2024-01-31 07:30")),
    ],
)
def test_moments_are_read_as_utc(con, written, utc):
    held(con, orders=ORDERS.replace("2024-01-11 10:00:00", written))
    assert cells(con, "orders", "ordered_at", "1 DESC")[0] == (utc,)


def test_half_days_are_refused_and_not_taken_for_the_morning(con):
    held(con, orders=ORDERS.replace("2024-01-11 10:00:00", "2024-01-11 10:00:00 PM"), max_quarantined=1)
    assert reasons(con, "orders") == {3: "ordered_at is not an ISO date (YYYY-MM-DD): '2024-01-11 10:00:00 PM'"}


def test_zoned_columns_become_utc_and_dates_keep_their_day(con):
    con.execute("SET TimeZone = 'America/New_York'")
    raw = put(con, "orders", ORDERS, ordered_at="TIMESTAMPTZ")
    held(con, orders=raw)
    assert con.execute("SELECT count(*) FROM orders").fetchall() == [(3,)]
    held(con, purchases=PURCHASES.replace("2024-01-10 ", "2024-01-10T23:00:00-08:00 "), receipts=RECEIPTS)
    assert cells(con, "purchases", "promised_on")[0] == (date(2024, 1, 10),)


def test_a_zoned_now_is_turned_into_utc(con):
    late = datetime.fromisoformat("2024-01-11T11:30:00+02:00")
    held(con, orders=ORDERS, now=late)
    assert reasons(con, "orders") == {3: "ordered_at is in the future: 2024-01-11 10:00:00"}
    held(con, orders=ORDERS, now=datetime(2024, 1, 11, 10, tzinfo=UTC))
    assert reasons(con, "orders") == {}


def test_extra_columns_are_kept(con):
    held(con, purchases=PURCHASES.replace("quantity", "quantity  ship_mode").replace("0\n", "0  sea\n"),
         receipts=RECEIPTS, attributes=("ship_mode",))  # fmt: skip
    assert cells(con, "purchases", "DISTINCT ship_mode") == [("sea",)]


@pytest.mark.parametrize(
    ("written", "held_as"),
    [
        (" a b\t", "a b"),
        ("!", "!"),
        ("\r\na", "a"),
        ("a ", "a"),
        ("é", "é"),
        ("\x01", "\x01"),
        ("0", "0"),
        (" \t ", None),
    ],
)
def test_outer_blanks_go(con, written, held_as):
    put(con, "orders", ORDERS)
    con.execute("CREATE OR REPLACE TABLE raw AS SELECT * REPLACE ($1 AS site_id) FROM text_orders", [written])
    con.execute("CREATE OR REPLACE VIEW raw_orders AS FROM raw")
    held(con, orders="raw_orders")
    assert cells(con, "orders", "DISTINCT site_id") == ([(held_as,)] if held_as else [])


def test_extra_columns_may_have_any_name(con):
    names = ["row", "rule", "shows", "reason", "rowid", "key", "r", "f", "s", "h", "content", "order", 'odd "name"']
    bad = {"purchases": PURCHASES.replace("  20\n", "  -2\n"), "receipts": RECEIPTS + "l9  2024-01-09  4\n"}
    for name, sheet in bad.items():
        extra = ", ".join(f"'x' AS \"{n.replace(chr(34), chr(34) * 2)}\"" for n in names)
        con.execute(f"CREATE OR REPLACE TABLE raw_{name} AS SELECT *, {extra} FROM {put(con, 'odd_' + name, sheet)}")
    held(con, purchases="raw_purchases", receipts="raw_receipts")
    assert set(reasons(con, "receipts")) == {3, 4}
    kept = [row[0] for row in con.execute("DESCRIBE receipts").fetchall()]
    assert kept[5:] == [n + "_" * (n == "rowid") for n in names]


def test_an_empty_column_of_any_type_counts_as_absent(con):
    sheet = ORDERS.replace("quantity", "quantity  cancelled_at").replace("\n    o", "\n    o").replace("5\n", "5  -\n")
    sheet = sheet.replace("  0\n", "  0  -\n")
    held(con, orders=put(con, "orders", sheet, cancelled_at="INTEGER"))
    assert cells(con, "orders", "DISTINCT cancelled_at") == [(None,)]


# What is odd but fine


def test_one_supplier_one_week_all_on_time_and_all_zero_are_fine(con):
    purchases = "\n".join(PURCHASES.splitlines()[:3])
    receipts = "\n".join(RECEIPTS.splitlines()[:4])
    orders = ORDERS.replace(" 5\n", " 0\n").replace("2.5", "0").replace("2024-01-11", "2024-01-03")
    verdicts = held(con, orders=orders, purchases=purchases, receipts=receipts, share=0.0)
    assert all(not v.breaches and not v.quarantined for v in verdicts.values())
    assert verdicts["orders"].weeks == 1
    assert verdicts["purchases"].entities["supplier_id"] == 1


def test_weekly_totals_are_known_when_their_week_ends(con):
    weekly = re.sub(
        r"2024-01-(\d\d) \d\d:00:00",
        lambda m: {"01": "2024-01-01", "02": "2024-01-08", "11": "2024-01-08"}[m[1]],
        ORDERS,
    )
    verdict = held(con, orders=weekly)["orders"]
    assert "look like weekly totals" in verdict.breaches[0].message
    assert verdict.breaches[0].severity == "warning"
    assert cells(con, "orders", "known_at")[0] == (at("2024-01-07 23:59:59.999999"),)
    assert held(con, orders=weekly.replace("rope        south", "soap        north"))["orders"].breaches == ()


def test_orders_in_tonnes_are_told_to_come_in_kilograms(con):
    assert held(con, orders=ORDERS)["orders"].breaches == ()
    tonnes = ORDERS.replace("  5\n", "  0.005\n").replace("2.5", "0.0025")
    (breach,) = held(con, orders=tonnes)["orders"].breaches
    assert (breach.severity, breach.column) == ("warning", "quantity")
    assert "give smaller ones" in breach.message


@pytest.mark.parametrize(("empty", "told"), [(3, []), (4, ["no order in the 4 weeks before 2024-02-26"])])
def test_weeks_without_any_order_in_a_busy_chain_are_told(con, empty, told):
    days = [date(2024, 1, 1) + timedelta(days=d) for d in (*range(28), *range(28 + 7 * empty, 84))]
    rows = "".join(f"    o{i}  soap  north  {day} 08:00:00  1\n" for i, day in enumerate(days))
    found = held(con, orders=ORDERS.partition("\n    o1")[0] + "\n" + rows)["orders"].breaches
    assert [b.message.partition(":")[0] for b in found] == told


@pytest.mark.parametrize(("left_out", "told"), [(None, 0), (7, 1)])
def test_orders_booked_at_the_end_of_each_month_miss_no_weeks(con, left_out, told):
    ends = [date(2022 + m // 12, m % 12 + 1, 1) - timedelta(days=1) for m in range(1, 15) if m != left_out]
    rows = "".join(f"    o{i}-{n}  soap  north  {day} 08:00:00  1\n" for i, day in enumerate(ends) for n in range(9))
    found = held(con, orders=ORDERS.partition("\n    o1")[0] + "\n" + rows)["orders"].breaches
    assert [b.column for b in found] == ["ordered_at"] * told


def test_purchases_without_any_promise_are_told(con):
    assert held(con, purchases=PURCHASES, receipts=RECEIPTS)["purchases"].breaches == ()
    none = re.sub(r"2024-01-\d\d(?= +\d+\n)", "-", PURCHASES)
    (breach,) = held(con, purchases=none, receipts=RECEIPTS)["purchases"].breaches
    assert (breach.severity, breach.column) == ("warning", "promised_on")


@pytest.mark.parametrize(("got", "told"), [("1", "less than half"), ("50", "more than twice"), ("10", "")])
def test_receipts_in_another_unit_than_their_lines_are_told(con, got, told):
    receipts = re.sub(
        r"(l[12]) +(\S+) +[46-]\n", rf"\1  \2  {got}\n    ", RECEIPTS.replace("l1          2024-01-09   4\n", "")
    )
    found = held(con, purchases=PURCHASES.replace("  20\n", "  10\n"), receipts=receipts)["receipts"].breaches
    assert [told in b.message for b in found] == ([True] if told else [])


@pytest.mark.parametrize(("got", "short_tolerance", "cancelled", "told"), [
    (97, 0.0, "-", True), (97, 0.05, "-", False), (97, 0.0, "2023-03-01", False), (100, 0.0, "-", False),
    (60, 0.0, "-", False),
])  # fmt: skip
def test_lines_of_which_the_last_bit_never_comes_are_told(con, got, short_tolerance, cancelled, told):
    purchases = (
        PURCHASES.strip().partition("\n")[0]
        + "  cancelled_at\n"
        + "".join(f"l{i}  acme  soap  north  2023-01-02  2023-01-20  100  {cancelled}\n" for i in range(40))
    )
    receipts = "po_line_id  received_on  quantity\n" + "".join(
        f"l{i}  {'2023-01-20' if i else '2024-01-05'}  {got if i < 20 else 100}\n" for i in range(40)
    )
    found = held(con, purchases=purchases, receipts=receipts, short_tolerance=short_tolerance)["receipts"].breaches
    assert [b.message.partition(" got ")[0] for b in found] == ["19 of 40 lines"] * told
    if told:
        assert "95 % of them lack at most 3.0%" in found[0].message


def test_a_line_a_thousand_times_the_others_of_its_product_is_told(con):
    rows = "".join(
        f"    x{i}  soap  north  2024-01-0{i % 9 + 1}  {quantity}\n" for i, quantity in enumerate([2] * 11 + [5000])
    )
    found = held(con, orders=ORDERS.partition("\n    o1")[0] + "\n" + rows)["orders"].breaches
    (said,) = [b.message for b in found if b.column == "quantity"]
    assert said.startswith("line 'x11' is for 5,000 of product 'soap', 2,500 times the mean of its other lines; put it")


@pytest.mark.parametrize(("tests", "units", "told"), [(1, 99_999, True), (1, 99, False), (9, 99_999, False)])
def test_few_orders_that_hold_most_units_are_told(con, tests, units, told):
    rows = "".join(f"    x{i}  soap  north  2024-01-0{i % 9 + 1}  2\n" for i in range(200))
    rows += "".join(f"    t{i}  TEST  north  2024-01-02  {units}\n" for i in range(tests))
    found = held(con, orders=ORDERS.partition("\n    o1")[0] + "\n" + rows)["orders"].breaches
    assert [b.message[:50] for b in found] == ["1 of 201 lines, those of product 'TEST', are for 1"] * told


@pytest.mark.parametrize(("second", "told"), [("USD", True), ("eur", False), ("-", False)])
def test_a_column_of_several_currencies_is_told(con, second, told):
    head, *rows = PURCHASES.strip().splitlines()
    sheet = "\n".join([f"{head}  Currency", *(f"{r}  {c}" for r, c in zip(rows, ("EUR", second, "EUR"), strict=True))])
    found = held(con, purchases=sheet, receipts=RECEIPTS)["purchases"].breaches
    assert [b.column for b in found] == ["Currency"] * told


def test_ids_that_differ_in_writing_alone_are_told_across_tables(con):
    purchases = PURCHASES.replace("l2          acme", "l2          ACME ").replace("soap", "0042")
    verdicts = held(con, orders=ORDERS.replace("soap", "42"), purchases=purchases, receipts=RECEIPTS)
    said = [str(b) for v in verdicts.values() for b in v.breaches]
    assert [s.partition(":")[0] for s in said] == ["orders.product_id", "purchases.supplier_id"]
    assert "'0042' and '42' differ only in capitals, blanks or leading zeros (of orders, purchases)" in said[0]


def test_a_monthly_value_known_as_its_month_begins_is_told(con):
    signals = "signal  scope  observed_on  known_at  value\n" + "".join(
        f"{name}  *  2024-0{m}-01  2024-0{m + lag}-01  {m}\n"
        for name, lag in (("pmi", 1), ("oil", 0))
        for m in range(1, 5)
    )
    (breach,) = held(con, orders=ORDERS, signals=signals)["signals"].breaches
    assert (breach.column, breach.message[:6]) == ("known_at", "'oil':")


@pytest.mark.parametrize("kind", ["TIMESTAMPTZ", "TIMESTAMPTZ_NS"])
def test_days_that_come_as_midnights_of_another_zone_are_told(con, kind):
    con.execute("SET TimeZone = 'UTC'")
    berlin = re.sub(r"(2024-01-\d\d)(?= +\d+\n)", r"\1 23:00", PURCHASES)
    for purchases, told in ((PURCHASES, []), (berlin, [True])):
        source = put(con, "purchases", purchases, promised_on=kind, ordered_at=kind)
        found = held(con, purchases=source, receipts=RECEIPTS)["purchases"].breaches
        assert ["23:00 UTC, and of each the day in UTC" in b.message for b in found] == told
        assert cells(con, "purchases", "promised_on")[0] == (date(2024, 1, 10),)


def test_unknown_ids_are_named_and_their_rows_kept(con):
    verdicts = held(
        con, purchases=PURCHASES, receipts=RECEIPTS, suppliers="supplier_id  name\nacme  Acme Ltd", share=0.0
    )
    (breach,) = verdicts["purchases"].breaches
    assert (breach.severity, breach.column, breach.count) == ("warning", "supplier_id", 1)
    assert str(breach) == "purchases.supplier_id: 1 not listed in suppliers: 'bolt'; the rows are kept"
    assert verdicts["purchases"].kept == 3


def test_a_receipt_of_today_is_no_fact_of_the_future(con):
    held(con, purchases=PURCHASES, receipts=RECEIPTS, now=at("2024-01-20 09:00"))
    assert reasons(con, "receipts") == {}


# Errors of whole tables


def test_missing_columns_are_named_with_the_closest_that_came(con):
    said = refused(con, orders=ORDERS.replace("product_id", "prod_id"), purchases=PURCHASES.replace("promised_on", "x"))
    assert "orders.product_id: the column is missing; the closest column is 'prod_id'; rename it if it is meant" in said
    assert "purchases.promised_on: the column is missing; the columns are po_line_id, supplier_id" in said
    assert "receipts: the table is missing; purchases came without it" in said
    assert "(3 breaches)" in said


def test_a_column_in_another_case_is_named(con):
    said = refused(con, orders=ORDERS.replace("quantity", "Quantity"))
    assert "orders.quantity: the column is written 'Quantity'; please write 'quantity'" in said


def test_a_misspelt_optional_column_is_a_warning(con):
    verdict = held(
        con,
        orders=ORDERS.replace("quantity", "quantity  canceled_at")
        .replace("5\n", "5  -\n")
        .replace("  0\n", "  0  -\n"),
    )
    assert "'canceled_at' looks like it" in verdict["orders"].breaches[0].message


@pytest.mark.parametrize(
    ("column", "sql", "said"),
    [
        ("quantity", "true", "orders.quantity: the column is BOOLEAN (such as 'true'), expected a number"),
        ("quantity", "[1, 2]", "orders.quantity: the column is INTEGER[] (such as '[1, 2]'), expected a number"),
        (
            "ordered_at",
            "20240101",
            "orders.ordered_at: the column is INTEGER (such as '20240101'), expected a timestamp",
        ),
        (
            "product_id",
            "DATE '2024-01-01'",
            "orders.product_id: the column is DATE (such as '2024-01-01'), expected text",
        ),
        (
            "quantity",
            "'many'",
            "orders.quantity: not one of 3 values can be read, such as 'many' in row 1; expected a number",
        ),
        (
            "ordered_at",
            "'1.2.2024'",
            "not one of 3 values can be read, such as '1.2.2024' in row 1; expected a timestamp",
        ),
    ],
)
def test_a_column_of_another_type_says_what_came_and_what_was_expected(con, column, sql, said):
    put(con, "orders", ORDERS)
    con.execute(f"CREATE OR REPLACE VIEW raw_orders AS SELECT * REPLACE ({sql} AS {column}) FROM text_orders")
    assert said in refused(con, orders="raw_orders")


def test_too_many_bad_rows_show_both_ways_of_writing_dates(con):
    said = refused(con, orders=ORDERS.replace("2024-01-11 10:00:00", "31/01/2024"), share=0.1)
    assert "1 of 3 rows are bad (33%), at most 10% may be" in said
    assert (
        "such as '31/01/2024' in row 3, while others are written like '2024-01-02'; write every date as YYYY-MM-DD"
        in said
    )
    assert reasons(con, "orders").keys() == {3}, "the quarantine outlives the error"


def test_no_rows_no_tables_and_half_a_side(con):
    assert "orders: the table has its columns but no rows" in refused(con, orders=ORDERS.split("    o1")[0])
    assert "orders: the table is missing, and so are purchases and receipts; found bom" in refused(
        con, bom="parent_id  product_id  quantity_per\na  b  1"
    )
    assert "purchases: the table is missing; receipts came without it" in refused(con, receipts=RECEIPTS)


def test_receipts_that_find_no_line_are_shown_how_lines_are_written(con):
    said = refused(con, purchases=PURCHASES.replace("  l", "  00l"), receipts=RECEIPTS, share=0.1)
    assert (
        "receipt for an unknown purchase line in 3 rows, such as 'l1' in row 1, while purchases are written like"
        in said
    )
    assert "'00l1'" in said


def test_receipts_of_one_day_are_told_how_to_differ(con):
    said = refused(con, purchases=PURCHASES, receipts=RECEIPTS + "l2  2024-01-11  1\nl2  2024-01-11  2\n", share=0.1)
    assert "a receipt_id of their own" in said


def test_a_missing_attribute_is_named(con):
    said = refused(con, purchases=PURCHASES, receipts=RECEIPTS, attributes=("suplier_id",))
    assert (
        "purchases.suplier_id: settings name this attribute, but the column is missing; the closest column is" in said
    )


def test_after_an_error_no_table_is_left_and_the_next_try_starts_afresh(con):
    refused(con, orders=ORDERS.replace("2.5", "-2"), share=0.0)
    assert con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name IN ('orders', 'bom')").fetchall() == [
        (0,)
    ]
    held(con, orders=ORDERS, share=0.0)
    assert con.execute("SELECT count(*) FROM quarantine").fetchall() == [(0,)]


# Laws

JUNK = ("", " ", "-1", "0", "nan", "inf", "1e400", "31/01/2024", "2024-02-30", "9999-12-31", "0001-01-01", "2030-01-01",
        "2024-01-01", "2024-01-01T00:00:00+14:00", "o10", "l10", "'", '"', "; DROP TABLE orders", "ä€😀", None, "\x00",
        "x" * 300)  # fmt: skip
CELL = (st.sampled_from(["orders", "purchases", "receipts"]), st.integers(0, 11), st.integers(0, 6))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*CELL, st.sampled_from(JUNK)), max_size=12))
def test_whatever_the_dirt_every_row_is_kept_or_set_aside(con, dirt):
    tables = {"orders": ORDERS, "purchases": PURCHASES, "receipts": RECEIPTS}
    for name, sheet in tables.items():
        head, *rows = [re.split(r"\s{2,}", line.strip()) for line in sheet.strip().splitlines()]
        rows = [[r[0] + str(copy), *(None if v == "-" else v for v in r[1:])] for copy in range(4) for r in rows]
        for _, row, column, junk in (d for d in dirt if d[0] == name):
            rows[row][column % len(head)] = junk
        con.execute(f"CREATE OR REPLACE TABLE raw_{name} ({', '.join(f'{c} VARCHAR' for c in head)})")
        con.executemany(f"INSERT INTO raw_{name} VALUES ({', '.join('?' * len(head))})", rows)
    try:
        held(con, **{n: f"raw_{n}" for n in tables})
    except ContractError:
        return
    lost = "FROM raw_receipts r JOIN purchases p USING (po_line_id) ANTI JOIN receipts k USING (po_line_id)"
    assert con.execute(lost).fetchall() == [], "a line that was received looks never received"


def test_contracts_are_consistent():
    for t in TABLES:
        names = [c.name for c in t.columns]
        assert len(set(names)) == len(names)
        assert set(t.key) <= set(names)
        for c in t.columns:
            assert c.known_from in ("known_at", "cancelled_at")
            assert not c.refers_to or contract(c.refers_to).key
            assert c.about.endswith(".")


def test_the_reference_page_is_current(capsys):
    assert generate_docs(["--check"]) == 0, capsys.readouterr().err
