"""A bad row is set aside with its reason and takes along what it puts in doubt."""

import json

import pytest

from tests.sheets import ORDERS, PURCHASES, RECEIPTS, cells, held, reasons


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("o3 ", "- ", "order_line_id is empty"),
        ("rope", "''", None),
        ("2.5", "-2", "quantity is negative: -2"),
        ("2.5", "nan", "quantity is NaN or infinite: nan"),
        ("2.5", "-inf", "quantity is NaN or infinite: -inf; quantity is negative: -inf"),
        ("2.5", "2,5", "quantity is not a number: '2,5'"),
        ("2.5", "1_000", "quantity is not a number: '1_000'"),
        ("2024-01-11 10:00:00", "31/01/2024", "ordered_at is not an ISO date (YYYY-MM-DD): '31/01/2024'"),
        ("2024-01-11 10:00:00", "2024-02-30", "ordered_at is not an ISO date (YYYY-MM-DD): '2024-02-30'"),
        ("2024-01-11 10:00:00", "20240111", "ordered_at is not an ISO date (YYYY-MM-DD): '20240111'"),
        ("2024-01-11 10:00:00", "infinity", "ordered_at is not an ISO date (YYYY-MM-DD): 'infinity'"),
        ("2024-01-11 10:00:00", "0024-01-11", "ordered_at is before 1990: 0024-01-11 00:00:00"),
        ("2024-01-11 10:00:00", "2025-01-11", "ordered_at is in the future: 2025-01-11 00:00:00"),
        ("o3 ", "o1 ", "duplicate key: differs from row 1"),
    ],
)  # fmt: skip
def test_a_bad_order_is_set_aside_with_its_reason(con, old, new, reason):
    verdict = held(con, orders=ORDERS.replace(old, new))["orders"]
    assert reasons(con, "orders") == ({3: reason} if reason else {})
    assert verdict.reasons == ({r.partition(": ")[0]: 1 for r in reason.split("; ")} if reason else {})


@pytest.mark.parametrize(
    ("known_at", "reason"),
    [
        ("2024-06-02", "known in the future: 2024-06-02 00:00:00"),
        ("2024-01-10", "known before ordered_at: known_at 2024-01-10 00:00:00, ordered_at 2024-01-11 10:00:00"),
        ("2024-01-11 09:00:00", None),
        ("soon", "known_at is not an ISO date (YYYY-MM-DD): 'soon'"),
        ("-", None),
    ],
)
def test_known_at_of_an_order(con, known_at, reason):
    sheet = ORDERS.replace("quantity", "quantity  known_at").replace("5\n    o2", "5  2024-01-01\n    o2")
    sheet = sheet.replace("  0\n", "  0  2024-01-02\n").replace("2.5", f"2.5  {known_at}")
    held(con, orders=sheet)
    assert reasons(con, "orders") == ({3: reason} if reason else {})


def test_the_row_is_kept_as_it_came(con):
    held(con, orders=ORDERS.replace("2.5", "-2").replace("2024-01-11 10:00:00", "31/01/2024"))
    ((number, key, row),) = con.execute("SELECT row_number, key, row_json FROM quarantine").fetchall()
    assert (number, key) == (3, "o3")
    assert json.loads(row) == {
        "order_line_id": "o3", "product_id": "rope", "site_id": "south", "ordered_at": "31/01/2024", "quantity": "-2",
    }  # fmt: skip


def test_of_equal_rows_one_stays_and_of_different_ones_the_first_known(con):
    sheet = ORDERS + "    o1             soap        north    2024-01-01 08:00:00  5\n"
    sheet += "    o3             rope        south    2024-01-10 10:00:00  7\n"
    held(con, orders=sheet)
    assert reasons(con, "orders") == {4: "duplicate row: same as row 1", 3: "duplicate key: differs from row 5"}


def test_a_good_row_is_not_the_duplicate_of_a_bad_one(con):
    held(con, orders=ORDERS.replace("o1 ", "o3 ").replace(" 5\n", " -5\n"))
    assert reasons(con, "orders") == {1: "quantity is negative: -5"}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("2024-01-12 ", "2024-01-01 ", "promised before ordered: promised_on 2024-01-01, ordered_at 2024-01-02"),
        ("2024-01-12 ", "9999-12-31 ", "promised_on is more than 5 years ahead: 9999-12-31"),
        ("  20\n", "  0\n", "quantity is not positive: 0"),
        ("l2 ", "l1 ", "duplicate key: differs from row 1"),
    ],
)
def test_a_bad_purchase_line_takes_its_receipts_and_promises_along(con, old, new, reason):
    promises = "po_line_id  known_at  promised_on\nl2  2024-01-05  2024-01-15\nl1  2024-01-05  2024-01-15"
    held(con, purchases=PURCHASES.replace(old, new), receipts=RECEIPTS, promises=promises)
    assert reasons(con, "purchases")[2] == reason
    if "duplicate" in reason:  # of contradicting lines none is believed
        assert set(reasons(con, "purchases")) == {1, 2}
        assert reasons(con, "receipts")[3] == "receipt for an unknown purchase line: 'l2'"
        assert reasons(con, "receipts")[1].startswith("its line was quarantined: duplicate key")
    else:
        assert reasons(con, "receipts") == {3: f"its line was quarantined: {reason}"}
        assert reasons(con, "promises") == {1: f"its line was quarantined: {reason}"}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("2024-01-10", "2023-12-31", "received before ordered: received_on 2023-12-31, ordered_at 2024-01-01"),
        ("2024-01-10", "10.01.2024", "received_on is not an ISO date (YYYY-MM-DD): '10.01.2024'"),
        ("2024-01-10", "2024-09-01", "received_on is in the future: 2024-09-01"),
        ("2024-01-10", "-", "received_on is empty"),
        ("  6\n", "  0\n", "quantity is not positive: 0"),
        ("2024-01-10", "2024-01-09", "duplicate key: differs from row 1"),
    ],
)
def test_a_bad_receipt_takes_its_line_along_so_that_it_never_looks_late(con, old, new, reason):
    held(con, purchases=PURCHASES, receipts=RECEIPTS.replace(old, new))
    assert reasons(con, "purchases") == {1: f"its receipt was quarantined: {reason}"}
    assert reasons(con, "receipts") == {
        1: f"its line was quarantined: its receipt was quarantined: {reason}", 2: reason,
    }  # fmt: skip
    assert cells(con, "purchases", "po_line_id") == [("l2",), ("l3",)]


def test_equal_and_unknown_receipts_put_no_line_in_doubt(con):
    held(con, purchases=PURCHASES, receipts=RECEIPTS + "    l1  2024-01-09  4\n    l9  2024-01-09  4\n")
    assert reasons(con, "purchases") == {}
    assert reasons(con, "receipts") == {
        4: "duplicate row: same as row 1", 5: "receipt for an unknown purchase line: 'l9'",
    }  # fmt: skip


def test_receipts_of_one_day_are_told_apart_by_their_id(con):
    sheet = "po_line_id  received_on  receipt_id  quantity\nl1  2024-01-09  a  5\nl1  2024-01-09  b  5"
    assert held(con, purchases=PURCHASES, receipts=sheet)["receipts"].kept == 2


@pytest.mark.parametrize(
    ("known_at", "kept"),
    [("2024-01-07", False), ("2024-01-08 09:00:00", False), ("2024-01-08 12:00:00", True), ("2024-01-09", True)],
)
def test_a_receipt_may_be_known_as_early_as_its_day_begins_anywhere(con, known_at, kept):
    receipts = f"po_line_id  received_on  known_at\nl1  2024-01-09  {known_at}"
    assert held(con, purchases=PURCHASES, receipts=receipts)["receipts"].kept == kept


@pytest.mark.parametrize(
    ("scope", "kind", "reason"),
    [
        ("*", "calendar", None),
        ("product:5&site:12", "forecast", None),
        ("region:BR", "observed", "known before observed_on: known_at 2024-05-01 00:00:00, observed_on 2024-06-03"),
        ("planet:earth", "calendar", "scope is not understood: 'planet:earth'"),
        ("*", "guess", "kind is not one of observed, forecast, calendar: 'guess'"),
    ],
)
def test_signals(con, scope, kind, reason):
    sheet = f"signal  scope  observed_on  known_at  value  kind\nprice  {scope}  2024-06-03  2024-05-01  1.5  {kind}"
    held(con, orders=ORDERS, signals=sheet)
    assert reasons(con, "signals") == ({1: reason} if reason else {})
