"""No feature changes when the future is deleted or scrambled, and the prover names every leak that is planted."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from features import demand, matrix, orders, panels, prover, recent, series, signals, standing, suppliers
from features.core import Feature, ago
from features.matrix import DELAY_KEY, SHIFT_KEY, Request, delay_matrix, first_fact, order_matrix, shift_matrix
from features.panels import Terms, posting_lag_days
from features.prover import LeakError, prove_no_leak
from features.weeks import Grid

AS_OF = date(2026, 6, 1)
DELAY = [f.name for f in (*orders.LINE_FEATURES, *matrix.HISTORY_FEATURES, *recent.RECENT_FEATURES)]
SHIFT = [f.name for f in (*series.SERIES_FEATURES, *series.WINDOW_FEATURES)]


def shift_rows(con, request, steps):
    return shift_matrix(con, request, steps)[0]


BUILDS = {"delay": (delay_matrix, DELAY_KEY), "shift": (shift_rows, SHIFT_KEY)}


@pytest.fixture(scope="module")
def asked(toy):
    terms = Terms(posting_lag_days=posting_lag_days(toy, AS_OF))
    attributes = ("currency",)
    toy.execute("ALTER TABLE purchases ADD COLUMN IF NOT EXISTS currency VARCHAR")
    toy.execute("UPDATE purchases SET currency = CASE WHEN hash(po_line_id) % 3 = 0 THEN 'EUR' ELSE 'USD' END")
    return {
        "delay": Request(Grid(first_fact(toy, "purchases"), AS_OF), terms, "DE", attributes),
        "shift": Request(Grid(first_fact(toy, "orders"), AS_OF), terms, "DE"),
    }


@pytest.fixture(scope="module")
def proven(toy, asked):
    """The whole matrix of each task, and its rows at some days rebuilt without the future and with it scrambled."""
    found = {}
    for task, (build, key) in BUILDS.items():
        request = asked[task]
        whole = build(toy, request, np.arange(request.grid.size))
        rebuilt = []
        for step in (request.grid.size // 3, request.grid.size - 30, request.grid.size - 2):
            expected = whole.take(np.flatnonzero(whole.rows["step"].to_numpy() == step))
            past = request.until(step)
            for how in ("deleted", "scrambled"):
                with prover._world(toy, past.grid.as_of, how) as proof:
                    other = build(proof, past, np.array([past.grid.size - 1]))
                place = other.rows.set_index(list(key)).index.get_indexer(expected.rows.set_index(list(key)).index)
                rebuilt.append((how, expected, other.take(place) if (place >= 0).all() else None))
        found[task] = (whole, rebuilt)
    return found


@pytest.mark.parametrize("task", BUILDS)
def test_the_same_rows_are_there_without_the_future(proven, task):
    for _, expected, found in proven[task][1]:
        assert found is not None
        assert len(found.rows) == len(expected.rows) > 0


@pytest.mark.parametrize(("task", "name"), [("delay", n) for n in DELAY] + [("shift", n) for n in SHIFT])
def test_no_feature_changes_when_the_future_is_deleted_or_scrambled(proven, task, name):
    for how, expected, found in proven[task][1]:
        np.testing.assert_allclose(
            found.X[name].to_numpy(), expected.X[name].to_numpy(), rtol=1e-4, atol=1e-5, err_msg=how
        )


@pytest.mark.parametrize("task", BUILDS)
def test_no_signal_or_attribute_changes_either(proven, task):
    names = set(proven[task][0].X) - set(DELAY) - set(SHIFT)
    assert len(names) > 5
    for how, expected, found in proven[task][1]:
        for name in names:
            other = found.X[name] if name in found.X else expected.X[name] * np.nan  # a signal nobody knew of yet
            assert not prover._differs(expected.X[name], other).any(), (how, name)


@pytest.mark.parametrize("task", BUILDS)
def test_every_feature_says_something_somewhere(proven, task):
    X = proven[task][0].X
    silent = {name for name in X if X[name].isna().all()}
    assert silent <= {"need_slack_days"}


@pytest.mark.parametrize("task", BUILDS)
def test_the_prover_finds_nothing_and_says_how_much_it_compared(toy, asked, proven, task):
    build, key = BUILDS[task]
    step = asked[task].grid.size - 5
    seen = prove_no_leak(toy, build, asked[task], proven[task][0], key, [step])
    assert seen["as_of_days"] == 1
    assert seen["cells"] == 2 * seen["rows"] * proven[task][0].X.shape[1] > 0
    assert toy.execute("SELECT current_schema()").fetchone() == ("main",)
    assert not toy.execute("SELECT 1 FROM duckdb_schemas() WHERE schema_name = 'proof'").fetchall()


# Lines as they are ordered


@pytest.fixture(scope="module")
def daily(asked):
    return replace(asked["delay"], grid=Grid(asked["delay"].grid.first, AS_OF, 1))


def order_days(whole, n=3):
    days = np.unique(whole.rows["step"].to_numpy())
    return days[np.linspace(len(days) // 3, len(days) - 5, n).astype(int)].tolist()


def test_lines_are_seen_at_their_order_without_anything_else_of_their_day(toy, daily):
    whole = order_matrix(toy, daily, np.arange(daily.grid.size))
    seen = prove_no_leak(toy, order_matrix, daily, whole, DELAY_KEY, order_days(whole), own_day=["purchases"])
    assert seen["rows"] > 0


def test_receipts_of_the_day_of_the_order_are_caught(toy, daily, monkeypatch):
    def a_day_early(con, grid, terms):
        panels.write_line_events(con, grid, terms)
        con.execute("UPDATE line_events SET step = greatest(step - 1, 0) WHERE kind = 'received'")

    monkeypatch.setattr(matrix, "write_line_events", a_day_early)
    whole = order_matrix(toy, daily, np.arange(daily.grid.size))
    with pytest.raises(LeakError, match="reads the future"):
        prove_no_leak(toy, order_matrix, daily, whole, DELAY_KEY, order_days(whole, 20), own_day=["purchases"])


# Planted leaks


def leak(con, request, build, key, back=30):
    """Build with the leak and return what the prover says of it, on either of two days: one may have been quiet."""
    whole = build(con, request, np.arange(request.grid.size))
    with pytest.raises(LeakError) as error:
        prove_no_leak(con, build, request, whole, key, [request.grid.size - back + more for more in (0, 4, 8, 12)])
    return str(error.value)


def add_line_feature(monkeypatch, name, formula):
    features = (*orders.LINE_FEATURES, Feature(name, formula, "", "A planted leak."))
    monkeypatch.setattr(matrix, "LINE_FEATURES", features)
    monkeypatch.setattr(matrix, "line_features", lambda rows: orders.line_features(rows, features))


def add_supplier_feature(monkeypatch, name, formula):
    planted = Feature(name, formula, "", "A planted leak.")
    levels = [replace(v, formulas=(*v.formulas, planted)) if v.name == "supplier" else v for v in suppliers.LEVELS]
    monkeypatch.setattr(standing, "LEVELS", tuple(levels))
    monkeypatch.setattr(matrix, "HISTORY_FEATURES", tuple(f for v in levels for f in v.features))


def test_a_negative_shift_is_caught(toy, asked, monkeypatch):
    def next_step(panel):
        return panel.late_lines.whole("next week", lambda late: np.roll(late, -1, axis=0))

    add_supplier_feature(monkeypatch, "late_next_week", next_step)
    assert "feature supplier_late_next_week reads the future" in leak(toy, asked["delay"], delay_matrix, DELAY_KEY)


def test_a_total_over_all_time_is_caught(toy, asked, monkeypatch):
    def ever(panel):
        return panel.late_lines.whole("all time", lambda late: np.broadcast_to(late.sum(axis=0), late.shape))

    add_supplier_feature(monkeypatch, "late_ever", ever)
    assert "feature supplier_late_ever reads the future" in leak(toy, asked["delay"], delay_matrix, DELAY_KEY)


@pytest.mark.parametrize("column", ["complete_on", "cancelled_at", "complete_known_at"])
def test_a_feature_that_reads_how_the_line_ended_is_caught(toy, asked, column):
    def with_outcome(con, request, steps):
        built = delay_matrix(con, request, steps)
        ends = con.execute(f"SELECT po_line_id, {column} IS NOT NULL AS ended FROM line_history").df()
        leaked = built.rows["po_line_id"].map(ends.set_index("po_line_id")["ended"]).astype(float)
        return replace(built, X=built.X.assign(ended=leaked))

    assert "feature ended reads the future" in leak(toy, asked["delay"], with_outcome, DELAY_KEY)


def test_a_promise_overwritten_by_its_later_value_is_caught(toy, asked, monkeypatch):
    history = panels.write_line_history

    def overwritten(con, *more):
        history(con, *more)
        con.execute("CREATE OR REPLACE TEMP TABLE last AS SELECT line, max_by(promised_on, nth) AS promised_on "
                    "FROM promise_history GROUP BY line")  # fmt: skip
        con.execute("UPDATE promise_history p SET promised_on = last.promised_on FROM last WHERE last.line = p.line")

    monkeypatch.setattr(matrix, "write_line_history", overwritten)
    assert "reads the future" in leak(toy, asked["delay"], delay_matrix, DELAY_KEY)


def test_receipts_counted_by_the_day_they_came_are_caught(toy, asked, monkeypatch):
    history = panels.write_line_history

    def by_event(con, *more):
        history(con, *more)
        con.execute("UPDATE line_history SET complete_known_at = complete_on, closed_at = complete_on")

    monkeypatch.setattr(matrix, "write_line_history", by_event)
    assert "which rows there are depends on the future" in leak(toy, asked["delay"], delay_matrix, DELAY_KEY)


def test_outcomes_asked_for_before_receipts_are_posted_are_caught(toy, asked, monkeypatch):
    def by_event(con, grid, terms):
        panels.write_line_events(con, grid, terms)
        con.execute("UPDATE line_events SET step = greatest(step - 1, 0) WHERE kind = 'completed'")

    monkeypatch.setattr(matrix, "write_line_events", by_event)
    assert "reads the future" in leak(toy, asked["delay"], delay_matrix, DELAY_KEY)


def test_orders_counted_by_event_time_are_caught(toy, asked, monkeypatch):
    toy.execute("CREATE OR REPLACE TEMP TABLE kept AS SELECT * FROM orders")
    toy.execute("UPDATE orders SET known_at = known_at + INTERVAL 9 DAY WHERE hash(order_line_id) % 4 = 0")
    count = demand.weekly_counts

    def by_event(con, grid):
        con.execute("CREATE OR REPLACE TEMP TABLE mine AS SELECT * REPLACE (ordered_at AS known_at) FROM orders")
        home = con.execute("SELECT current_schema()").fetchone()[0]
        con.execute("CREATE SCHEMA IF NOT EXISTS leaky; CREATE OR REPLACE TABLE leaky.orders AS FROM mine")
        for name in ("products", "sites"):
            con.execute(f"CREATE OR REPLACE TABLE leaky.{name} AS FROM {home}.{name}")
        con.execute("SET schema = 'leaky'")
        counted = count(con, grid)
        con.execute(f"SET schema = '{home}'; DROP SCHEMA leaky CASCADE")
        return counted

    monkeypatch.setattr(demand, "weekly_counts", by_event)
    try:
        assert "feature" in (said := leak(toy, asked["shift"], shift_rows, SHIFT_KEY))
        assert "reads the future" in said
    finally:
        toy.execute("CREATE OR REPLACE TABLE orders AS FROM kept; DROP TABLE kept")


def test_a_baseline_fitted_on_all_history_is_caught(toy, asked):
    def centred(con, request, steps):
        built, data = shift_matrix(con, request, steps)
        entity = built.rows["entity"].to_numpy()
        return replace(built, rows=built.rows.assign(baseline_units=data.panel.net.values.mean(axis=0)[entity]))

    assert "column baseline_units reads the future" in leak(toy, asked["shift"], centred, SHIFT_KEY)


def test_statistics_scaled_on_all_rows_are_caught(toy, asked):
    def scaled(con, request, steps):
        built = delay_matrix(con, request, steps)
        return replace(built, X=built.X.assign(age_days=built.X["age_days"] / built.X["age_days"].mean()))

    assert "feature age_days reads the future" in leak(toy, asked["delay"], scaled, DELAY_KEY)


def test_signals_read_by_the_period_they_are_about_are_caught(toy, asked, monkeypatch):
    monkeypatch.setattr(signals, "KNOWN_SQL", "CAST(observed_on AS TIMESTAMP)")
    assert "feature signal_" in leak(toy, asked["delay"], delay_matrix, DELAY_KEY)


def test_an_honest_look_back_is_not_taken_for_a_leak(toy, asked, monkeypatch):
    add_supplier_feature(monkeypatch, "late_before", lambda panel: ago(panel.late_lines, 3))
    add_line_feature(monkeypatch, "age_again", lambda rows: orders.days(rows, "as_of", "ordered_on") ** 0.5)
    request = asked["delay"]
    whole = delay_matrix(toy, request, np.arange(request.grid.size))
    assert {"supplier_late_before", "age_again"} <= set(whole.X)
    prove_no_leak(toy, delay_matrix, request, whole, DELAY_KEY, [request.grid.size - 30])
