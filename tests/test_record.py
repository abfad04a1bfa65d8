"""What was published before, held by hand against what became of it."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from features.labels import ShiftTerms
from features.panels import Terms, write_line_history
from models.forecasters import Facts
from models.record import published_record

AS_OF = pd.Timestamp("2024-03-04")
PURCHASES = """
    po_line_id  supplier_id  product_id  site_id  ordered_at  promised_on  quantity  cancelled_at      cancelled_by
    kept        acme         soap        north    2024-01-02  2024-02-01   10        -                 -
    late        acme         soap        north    2024-01-02  2024-02-01   10        -                 -
    never       acme         soap        north    2024-01-02  2024-02-01   10        -                 -
    unposted    acme         soap        north    2024-01-02  2024-02-20   10        -                 -
    immature    acme         soap        north    2024-01-02  2024-03-03   10        -                 -
    gone        acme         soap        north    2024-01-02  2024-02-01   10        2024-01-31T09:00  -
    gone_after  acme         soap        north    2024-01-02  2024-02-01   10        2024-02-09T09:00  -
    dropped     acme         soap        north    2024-01-02  2024-02-01   10        2024-01-31T09:00  supplier
    later_gone  acme         soap        north    2024-01-02  2024-02-20   10        2024-03-09T09:00  -
"""
RECEIPTS = """
    po_line_id  received_on  known_at
    kept        2024-02-01   2024-02-02
    late        2024-02-02   2024-02-03
    unposted    2024-02-19   2024-03-04
    immature    2024-02-28   2024-02-29
    gone_after  2024-02-10   2024-02-11
"""


def forecaster(record=(), **facts):
    return SimpleNamespace(facts=Facts("2024-01-01", record=list(record), **facts))


def published(**columns):
    """Rows as published on 2024-01-08, one per line."""
    table = pd.DataFrame(columns)
    given = {"state": "due_future", "base_rate": 0.25, "as_of": pd.Timestamp("2024-01-08"), "p_late": 0.35}
    for name, value in given.items():
        if name not in table:
            table[name] = value
    return table


def delays(lines, promised="2024-02-01", **more):
    return published(po_line_id=lines, promised_on=pd.Timestamp(promised), **more)


def judged(con, table, terms=Terms(posting_lag_days=1)):  # noqa: B008
    write_line_history(con, terms)
    return published_record(con, AS_OF, {"delay": forecaster(terms=terms)}, {"supplier_delay_risk": table})


@pytest.mark.parametrize(("line", "promised", "came_true"), [
    ("kept", "2024-02-01", 0.0),
    ("late", "2024-02-01", 1.0),
    ("late", "2024-02-02", 0.0),  # held against the promise that stood when it was published
    ("never", "2024-02-01", 1.0),
    ("unposted", "2024-02-20", 1.0),  # its receipt was not known yet
    ("gone_after", "2024-02-01", 1.0),
    ("dropped", "2024-02-01", 1.0),
    ("later_gone", "2024-02-20", 1.0),  # that its buyer cancels it is not known yet
])  # fmt: skip
def test_a_warning_comes_true_when_the_line_was_not_complete_by_its_promise(facts, line, promised, came_true):
    record = judged(facts(purchases=PURCHASES, receipts=RECEIPTS), delays([line], promised))
    assert record["came_true_share"].tolist() == [came_true]
    assert record["scored"].tolist() == [1]


@pytest.mark.parametrize(("line", "more"), [
    ("immature", {"promised": "2024-03-03"}),  # promise + posting lag = as-of would do; tolerance and lag are later
    ("gone", {}),
    ("kept", {"state": "already_late"}),
    ("kept", {"p_late": np.nan}),
    ("unknown", {}),
])  # fmt: skip
def test_what_cannot_be_judged_is_left_out(facts, line, more):
    terms = Terms(tolerance_days=1, posting_lag_days=1)
    assert len(judged(facts(purchases=PURCHASES, receipts=RECEIPTS), delays([line], **more), terms)) == 0


def test_tenths_of_probability_are_counted_with_their_skill(facts):
    table = delays(["kept", "late", "never", "gone"], p_late=[0.3, 0.35, 0.81, 0.81])
    record = judged(facts(purchases=PURCHASES, receipts=RECEIPTS), table).set_index("row_id")
    assert record.index.tolist() == ["delay|published|0.3", "delay|published|0.8"]
    low, high = (record.loc[row] for row in record.index)
    assert (low["scored"], low["expected_share"], low["came_true_share"]) == (2, pytest.approx(0.325), 0.5)
    mine, base = (0.3**2 + 0.65**2) / 2, (0.25**2 + 0.75**2) / 2
    assert low["skill_over_rule"] == pytest.approx(1 - mine / base)
    assert high["skill_over_rule"] == pytest.approx(1 - 0.19**2 / 0.75**2)
    assert low["first_day"] == low["last_day"] == pd.Timestamp("2024-01-08")


ORDERS = """
    order_line_id  product_id  site_id  ordered_at        quantity  cancelled_at      known_at
    before         soap        north    2024-01-07T23:59  100       -                 2024-01-07T23:59
    first          soap        north    2024-01-08T00:00  10        -                 2024-01-08T00:00
    elsewhere      soap        south    2024-01-09T00:00  100       -                 2024-01-09T00:00
    last           soap        north    2024-02-04T23:59  5         -                 2024-02-04T23:59
    after          soap        north    2024-02-05T00:00  100       -                 2024-02-05T00:00
    in_time        soap        north    2024-01-15T00:00  40        2024-02-04T12:00  2024-01-15T00:00
    in_the_lag     soap        north    2024-01-15T00:00  20        2024-02-05T12:00  2024-01-15T00:00
    too_late       soap        north    2024-01-15T00:00  3         2024-02-06T00:00  2024-01-15T00:00
    posted_late    soap        north    2024-01-16T00:00  500       -                 2024-03-05T00:00
"""
UNITS = 10 + 5 + 3  # with a lag of one day


def shifts(**more):
    given = {
        "product_id": ["soap"], "site_id": "north", "window_begin": pd.Timestamp("2024-01-08"),
        "window_end": pd.Timestamp("2024-02-04"), "p_up": 0.25, "p_down": 0.55, "base_rate_up": 0.1,
        "base_rate_down": 0.1, "up_at_units": 100.0, "down_at_units": -1.0,
    }  # fmt: skip
    return published(**given | more)


def judged_shifts(con, table, as_of=AS_OF):
    one = forecaster(shift_terms=ShiftTerms(entry_lag_days=1))
    return published_record(con, as_of, {"shift": one}, {"demand_shift_risk": table}).set_index("p_from")


@pytest.mark.parametrize(("up_at", "down_at", "up", "down"), [
    (UNITS, 0, 1, 0), (UNITS + 0.5, UNITS - 0.5, 0, 0), (99, UNITS, 0, 1), (99, -1, 0, 0),
])  # fmt: skip
def test_a_window_counts_what_was_ordered_in_it_and_not_cancelled_before_it_matured(facts, up_at, down_at, up, down):
    record = judged_shifts(facts(orders=ORDERS), shifts(up_at_units=float(up_at), down_at_units=float(down_at)))
    assert record["came_true_share"].to_dict() == {0.2: up, 0.5: down}


def test_a_window_without_orders_sold_nothing(facts):
    record = judged_shifts(facts(orders=ORDERS), shifts(product_id=["salt"], down_at_units=0.0))
    assert record["came_true_share"].to_dict() == {0.2: 0, 0.5: 1}


def test_a_window_is_judged_once_its_entry_lag_is_over(facts):
    con = facts(orders=ORDERS)
    assert len(judged_shifts(con, shifts(), pd.Timestamp("2024-02-05"))) == 0
    assert len(judged_shifts(con, shifts(), pd.Timestamp("2024-02-06"))) == 2


STOCK = """
    product_id  site_id  known_at    on_hand
    soap        north    {empty}     0
    soap        north    {full}      50
"""


@pytest.mark.parametrize(("empty", "full", "known"), [
    ("2024-01-20", "2024-01-22", False), ("2024-01-01", "2024-01-09", False), ("2024-01-01", "2024-01-08", True),
    ("2024-02-05", "2024-02-09", True), ("2024-01-20", "2025-01-01", False),
])  # fmt: skip
def test_a_drop_in_a_window_without_stock_is_not_known(facts, empty, full, known):
    con = facts(orders=ORDERS, stock=STOCK.format(empty=empty, full=full))
    assert len(judged_shifts(con, shifts(down_at_units=50.0))) == (2 if known else 0)
    up = judged_shifts(con, shifts(up_at_units=5.0))
    assert up["came_true_share"].to_dict() == {0.2: 1, 0.5: 0}  # what sold is a lower bound


def test_the_judgement_before_the_champion_was_let_in_stands_beside(facts):
    walked = {
        "task": "delay", "p_from": 0.2, "p_to": 0.3, "scored": 40, "expected_share": 0.25, "came_true_share": 0.3,
        "rule": "logistic_6", "skill_over_rule": None, "first_day": "2023-06-05", "last_day": "2023-12-04",
    }  # fmt: skip
    con = facts(purchases=PURCHASES, receipts=RECEIPTS)
    write_line_history(con, Terms())
    history = {"supplier_delay_risk": delays(["kept"])}
    record = published_record(con, AS_OF, {"delay": forecaster([walked])}, history)
    assert record["source"].tolist() == ["published", "walk_forward"]
    assert record["row_id"].is_unique
    assert record["first_day"].tolist() == [pd.Timestamp("2024-01-08"), pd.Timestamp("2023-06-05")]


@pytest.mark.parametrize("history", [{}, {"supplier_delay_risk": pd.DataFrame()}], ids=["none", "empty"])
def test_without_history_the_record_is_empty_and_has_its_columns(facts, history):
    record = published_record(facts(), AS_OF, {"delay": forecaster()}, history)
    assert len(record) == 0
    assert {"row_id", "task", "scored", "came_true_share", "skill_over_rule"} <= set(record)
