"""What is known of purchase lines, counted in the step in which it became known."""

from datetime import date, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from features.panels import (
    SUPPLY_MEASURES,
    Terms,
    posting_lag_days,
    read_book,
    supply_panels,
    write_line_events,
    write_line_history,
)
from features.weeks import Grid

LINE = """
    po_line_id  supplier_id  product_id  site_id  ordered_at  promised_on  quantity
    l1          acme         soap        north    2024-01-01  2024-01-10   10
"""
TERMS = Terms()
GRID = Grid(date(2024, 1, 8), date(2024, 2, 12))  # as-of days 8, 15, 22, 29 January, 5 and 12 February


def line(con, terms=TERMS):
    write_line_history(con, terms)
    return con.execute("SELECT * FROM line_history").df().iloc[0]


def panel(con, terms=TERMS, keys=("supplier_id",), grid=GRID):
    write_line_history(con, terms)
    write_line_events(con, grid, terms)
    ((_, found),) = blocks(con, keys, grid)
    return found


def blocks(con, keys, grid=GRID):
    """Panels of SUPPLY_MEASURES by block of entities, which are sorted by their first key."""
    lines = con.execute("SELECT * FROM line_history ORDER BY line").df()
    entity, names = pd.factorize(lines[keys[0]], sort=True) if keys else (np.zeros(len(lines), int), [""])
    return list(supply_panels(read_book(con, grid), entity, len(names), grid))


def weekly(con, measure, terms=TERMS):
    return panel(con, terms)[measure].values[:, 0].astype(int).tolist()


COMPLETION = {
    "the whole line": ("""
        po_line_id  received_on  quantity
        l1          2024-01-09   -
    """, 0.0, "2024-01-09", "2024-01-09 23:59:59.999999"),
    "two parts": ("""
        po_line_id  received_on  quantity
        l1          2024-01-09   4
        l1          2024-01-11   6
    """, 0.0, "2024-01-11", "2024-01-11 23:59:59.999999"),
    "a part": ("""
        po_line_id  received_on  quantity
        l1          2024-01-09   9
    """, 0.0, None, None),
    "a part within the short tolerance": ("""
        po_line_id  received_on  quantity
        l1          2024-01-09   9
    """, 0.1, "2024-01-09", "2024-01-09 23:59:59.999999"),
    "tenths that do not add up exactly": ("""
        po_line_id  received_on  quantity
        l1          2024-01-09   3.3
        l1          2024-01-10   3.3
        l1          2024-01-11   3.4
    """, 0.0, "2024-01-11", "2024-01-11 23:59:59.999999"),
    "too much": ("""
        po_line_id  received_on  quantity
        l1          2024-01-09   99
        l1          2024-01-12   99
    """, 0.0, "2024-01-09", "2024-01-09 23:59:59.999999"),
    "posted late": ("""
        po_line_id  received_on  quantity  known_at
        l1          2024-01-09   10        2024-01-20T08:00
    """, 0.0, "2024-01-09", "2024-01-20 08:00:00"),
    "the earlier part posted last": ("""
        po_line_id  received_on  quantity  known_at
        l1          2024-01-12   6         2024-01-12T08:00
        l1          2024-01-09   4         2024-01-15T08:00
    """, 0.0, "2024-01-12", "2024-01-15 08:00:00"),
    "posted before its line": ("""
        po_line_id  received_on  quantity  known_at
        l1          2024-01-01   10        2023-12-31T12:00
    """, 0.0, "2024-01-01", "2024-01-01 00:00:00"),
}  # fmt: skip


@pytest.mark.parametrize(("receipts", "short", "on", "known"), COMPLETION.values(), ids=COMPLETION)
def test_a_line_is_complete_on_the_business_day_that_covers_it(facts, receipts, short, on, known):
    found = line(facts(purchases=LINE, receipts=receipts), Terms(short_tolerance=short))
    expected = [pd.Timestamp(day) if day else pd.NaT for day in (on, known)]
    assert [str(found.complete_on), str(found.complete_known_at)] == [str(day) for day in expected]


@pytest.mark.parametrize(
    ("cancelled", "by", "received", "closed", "buyer"),
    [
        ("-", "-", "-", None, False),
        ("2024-01-05T10:00", "-", "-", "2024-01-05 10:00", True),  # not said by whom: the buyer
        ("2024-01-05T10:00", "buyer", "-", "2024-01-05 10:00", True),
        ("2024-01-05T10:00", "supplier", "-", "2024-01-05 10:00", False),
        ("2024-01-12T10:00", "buyer", "2024-01-09", "2024-01-09 23:59:59.999999", True),
        ("-", "-", "2024-01-09", "2024-01-09 23:59:59.999999", False),
    ],
)
def test_a_line_is_closed_by_completion_or_cancellation(facts, cancelled, by, received, closed, buyer):
    purchases = f"""
        po_line_id  supplier_id  product_id  site_id  ordered_at  promised_on  quantity  cancelled_at  cancelled_by
        l1          acme         soap        north    2024-01-01  2024-01-10   10        {cancelled}   {by}
    """
    receipts = f"po_line_id received_on\nl1 {received}" if received != "-" else "-"
    found = line(facts(purchases=purchases, receipts=receipts))
    assert found.closed_at == pd.Timestamp(closed) if closed else pd.isna(found.closed_at)
    assert found.buyer_cancelled == buyer


def test_promises_replace_each_other_in_the_order_in_which_they_became_known(facts):
    promises = """
        po_line_id  known_at          promised_on
        l1          2024-01-08T09:00  2024-01-20
        l1          2024-01-05T09:00  2024-01-15
        l1          2024-01-18T09:00  2024-01-17
        l1          2023-12-20T09:00  2024-01-30
        l1          2023-12-21T09:00  2024-01-12
    """
    con = facts(purchases=LINE, promises=promises)
    write_line_history(con, Terms())
    found = con.execute("SELECT strftime(promised_on, '%d'), pushed_days FROM promise_history ORDER BY nth").fetchall()
    # those sent before the line itself was known count from then on, in their own order
    assert found == [("10", None), ("30", 20), ("12", -18), ("15", 3), ("20", 5), ("17", -3)]


MANY = """
    po_line_id  supplier_id  product_id  site_id  ordered_at        promised_on  quantity  unit_cost
    l1          acme         soap        north    2024-01-02T10:00  2024-01-10   10        2
    l2          acme         rope        north    2024-01-08T00:00  2024-01-18   20        -
    l3          acme         soap        south    2024-01-09T10:00  -            30        3
"""


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("ordered_lines", [1, 2, 0, 0, 0, 0]),  # l2 became known at an as-of, so it counts in the step after
        ("ordered_units", [10, 50, 0, 0, 0, 0]),
        ("ordered_value", [20, 90, 0, 0, 0, 0]),
        ("costed_units", [10, 30, 0, 0, 0, 0]),
        ("promised_lines", [1, 1, 0, 0, 0, 0]),
        ("promised_days", [8, 10, 0, 0, 0, 0]),
        ("receipts", [0, 1, 0, 2, 0, 0]),
        ("completed_lines", [0, 0, 0, 2, 0, 0]),
        ("timed_lines", [0, 0, 0, 1, 0, 0]),
        ("lead_days", [0, 0, 0, 37, 0, 0]),
        ("days_late", [0, 0, 0, 12, 0, 0]),
        ("closed_lines", [0, 0, 0, 2, 0, 0]),
        ("pushes", [0, 0, 1, 0, 0, 0]),
        ("push_days", [0, 0, 7, 0, 0, 0]),
        ("matured_lines", [0, 1, 0, 1, 0, 0]),
        ("late_lines", [0, 1, 0, 1, 0, 0]),
        ("overdue_lines", [0, 1, 0, 0, 0, 0]),
        ("products", [1, 1, 0, 0, 0, 0]),
    ],
)
def test_things_count_in_the_step_in_which_they_became_known(facts, measure, expected):
    receipts = """
        po_line_id  received_on  quantity
        l1          2024-01-09   4
        l1          2024-01-22   6
        l3          2024-01-26   -
    """
    promises = """
        po_line_id  known_at          promised_on
        l2          2024-01-15T00:00  2024-01-25
    """
    con = facts(purchases=MANY, receipts=receipts, promises=promises)
    assert weekly(con, measure)[:6] == expected


LATE = {
    "on time": ("2024-01-10", "2024-01-10T20:00", [0, 0, 0, 0, 0, 0]),
    "a day late": ("2024-01-11", "2024-01-11T20:00", [0, 1, 0, 0, 0, 0]),
    "on time, posted after it was asked for": ("2024-01-10", "2024-01-24T20:00", [0, 1, 0, -1, 0, 0]),
    "on time, posted at the very as-of": ("2024-01-10", "2024-01-15T00:00", [0, 1, -1, 0, 0, 0]),
}


@pytest.mark.parametrize(("received", "known", "late"), LATE.values(), ids=LATE)
def test_a_lateness_is_taken_back_when_an_on_time_receipt_is_posted(facts, received, known, late):
    con = facts(purchases=LINE, receipts=f"po_line_id received_on known_at\nl1 {received} {known}")
    assert weekly(con, "late_lines") == late
    assert weekly(con, "matured_lines") == [0, 1, 0, 0, 0, 0]  # whatever the outcome


@pytest.mark.parametrize(
    ("tolerance", "lag", "step"), [(0, 1, 1), (4, 1, 1), (5, 1, 2), (0, 5, 1), (0, 6, 2), (2, 10, 2)]
)
def test_a_promise_matures_at_promise_plus_tolerance_plus_lag(facts, tolerance, lag, step):
    matured = weekly(facts(purchases=LINE), "matured_lines", Terms(tolerance_days=tolerance, posting_lag_days=lag))
    assert matured == [int(k == step) for k in range(6)]


@pytest.mark.parametrize(
    ("cancelled", "by", "matured"),
    [
        ("2024-01-10T23:59", "buyer", 0),
        ("2024-01-11T00:00", "buyer", 1),  # after the promise: late
        ("2024-01-05T10:00", "supplier", 1),
    ],
)
def test_who_cancels_when_decides_whether_a_promise_matures(facts, cancelled, by, matured):
    purchases = f"""
        po_line_id  supplier_id  product_id  site_id  ordered_at  promised_on  quantity  cancelled_at  cancelled_by
        l1          acme         soap        north    2024-01-01  2024-01-10   10        {cancelled}   {by}
    """
    con = facts(purchases=purchases)
    assert sum(weekly(con, "matured_lines")) == sum(weekly(con, "late_lines")) == matured


def test_a_promise_replaced_before_it_fell_due_does_not_mature(facts):
    con = facts(purchases=LINE, promises="po_line_id known_at promised_on\nl1 2024-01-10T23:00 2024-01-24")
    assert weekly(con, "matured_lines") == [0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize(("latency", "days"), [(0, 1), (1, 1), (30, 2), (24 * 5, 5)])
def test_the_posting_lag_is_measured_in_whole_days(facts, latency, days):
    known = datetime.fromisoformat("2024-01-09") + timedelta(hours=latency)
    con = facts(purchases=LINE, receipts=f"po_line_id received_on known_at\nl1 2024-01-09 {known.isoformat()}")
    assert posting_lag_days(con, date(2024, 2, 1)) == days
    assert posting_lag_days(con, date(2024, 1, 1)) == 1  # nothing known yet


# The same counts, line by line in plain Python


def random_world(seed):
    """Lines, promises and receipts with all that can be odd: late entry, midnights, corrections, cancellations."""
    rng = np.random.default_rng(seed)
    start = datetime.fromisoformat("2024-01-01")

    def moment(low, high):
        return start + timedelta(days=int(rng.integers(low, high)), hours=int(rng.choice([0, 0, 9, 23])))

    lines, promises, receipts = [], [], []
    for n in range(14):
        ordered = moment(0, 25)
        known = ordered + timedelta(days=int(rng.choice([0, 0, 0, 3, 12])))
        promised = None if rng.random() < 0.15 else (ordered + timedelta(days=int(rng.integers(1, 25)))).date()
        cancelled = moment(26, 60) if rng.random() < 0.3 else None
        by = rng.choice(["buyer", "supplier"]) if cancelled else None
        lines.append((f"l{n}", f"s{n % 2}", ordered, promised, 10.0, cancelled, by, known))
        for _ in range(rng.integers(0, 3)):
            sent = moment(0, 45) + timedelta(minutes=len(promises))
            promises.append((f"l{n}", sent, (sent + timedelta(days=int(rng.integers(-3, 20)))).date()))
        for k in range(rng.integers(0, 3)):
            day = (ordered + timedelta(days=int(rng.integers(0, 40)))).date()
            told = datetime.combine(day, datetime.min.time()) + timedelta(hours=int(rng.choice([20, 24, 200])))
            receipts.append((f"l{n}", day, f"r{k}", float(rng.choice([5, 10])), told))
    return lines, promises, receipts


def fill(con, lines, promises, receipts):
    columns = "po_line_id, supplier_id, ordered_at, promised_on, quantity, cancelled_at, cancelled_by, known_at"
    con.executemany(
        f"INSERT INTO purchases ({columns}, product_id, site_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'p', 'n')", lines
    )
    if promises:
        con.executemany("INSERT INTO promises (po_line_id, known_at, promised_on) VALUES (?, ?, ?)", promises)
    if receipts:
        con.executemany(
            "INSERT INTO receipts (po_line_id, received_on, receipt_id, quantity, known_at) VALUES (?, ?, ?, ?, ?)",
            receipts,
        )


def midnight(day):
    return datetime.combine(day, datetime.min.time())


def recount(world, supplier, as_of, terms):
    """Open, overdue, matured and late lines of a supplier by what was known before `as_of`, straight from the words."""
    lines, promises, receipts = world
    start = datetime.fromisoformat("1990-01-01")
    seen = {"open": 0, "overdue": 0, "pushes": 0, "matured": 0, "late": 0}
    s = midnight(as_of)
    for po, owner, _, first, quantity, cancelled, by, known in lines:
        if owner != supplier or known >= s:
            continue
        got = sorted((max(told, known), day, units) for p, day, _, units, told in receipts if p == po)
        complete_on = complete_known = None
        for told in sorted({g[0] for g in got if g[0] < s}):
            posted = sorted((day, units) for t, day, units in got if t <= told)
            if sum(units for _, units in posted) >= quantity:
                complete_known = told
                complete_on = next(
                    day for day, _ in posted if sum(u for d, u in posted if d <= day) >= quantity
                )  # fmt: skip
                break
        gone = max(cancelled, known) if cancelled and cancelled < s else None
        is_open = complete_known is None and gone is None
        versions = [(known, start, first)] if first else []
        versions += [(max(t, known), t, day) for p, t, day in promises if p == po and t < s]
        versions.sort(key=lambda v: v[:2])
        seen["open"] += is_open
        if is_open and versions:
            seen["overdue"] += versions[-1][2] + timedelta(days=terms.tolerance_days) < as_of
            seen["pushes"] += sum(after[2] > before[2] for before, after in pairwise(versions))
        for k, (_, _, day) in enumerate(versions):
            due = day + timedelta(days=terms.tolerance_days)
            after = midnight(due) + timedelta(days=1)
            replaced = k + 1 < len(versions) and versions[k + 1][0] < after
            left = (
                gone and by == "buyer" and cancelled < after and (complete_known is None or complete_known > cancelled)
            )
            if due + timedelta(days=terms.posting_lag_days) > as_of or replaced or left:
                continue
            seen["matured"] += 1
            seen["late"] += complete_on is None or complete_on > due
    return seen


@pytest.mark.parametrize("seed", range(15))
def test_running_counts_are_those_of_a_recount_line_by_line(facts, seed):
    terms = Terms(tolerance_days=seed % 3, posting_lag_days=1 + seed % 4)
    grid = Grid(date(2023, 12, 30), date(2024, 3, 4), (7, 1, 10)[seed % 3])
    con, world = facts(), random_world(seed)
    fill(con, *world)
    found = panel(con, terms, grid=grid).cumsum("as_of")
    for n, as_of in enumerate(grid.days.astype(object)):
        for entity, supplier in enumerate(("s0", "s1")):
            row = found.isel(as_of=n, entity=entity)
            assert recount(world, supplier, as_of, terms) == {
                "open": row.ordered_lines - row.closed_lines,
                "overdue": row.overdue_lines,
                "pushes": row.open_pushes,
                "matured": row.matured_lines,
                "late": row.late_lines,
            }, (supplier, as_of)


def test_blocks_of_entities_together_are_the_whole(facts, monkeypatch):
    con = facts(purchases=MANY)
    whole = panel(con, keys=("product_id",))
    monkeypatch.setattr("features.panels.TILE_CELLS", 1)
    parts = [part for _, part in blocks(con, ("product_id",))]
    assert len(parts) == 2
    for measure in SUPPLY_MEASURES:
        np.testing.assert_array_equal(np.hstack([p[measure].values for p in parts]), whole[measure].values)


def test_without_lines_there_is_nothing_to_count(facts):
    con = facts()
    write_line_history(con, Terms())
    write_line_events(con, GRID, Terms())
    ((_, found),) = blocks(con, ())
    assert not any(found[measure].values.any() for measure in SUPPLY_MEASURES)
