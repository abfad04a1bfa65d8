"""One thing happens in a week of the simulator's toy world, and its part of the change moves and no other."""

from dataclasses import replace
from datetime import date

import duckdb
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from features.as_known import as_known
from features.contracts import TABLES
from features.labels import ShiftTerms
from features.matrix import delay_matrix, shift_matrix
from models.change import PARTS, RISKS, Told, Week, weekly_change
from models.forecasters import DelayForecaster, Facts, ShiftForecaster
from pipelines.change import line_values, rescored, week_before, window_values
from pipelines.settings import load
from pipelines.world import World, judgeable, request_of, scorable

THEN, NOW = date(2026, 5, 18), date(2026, 5, 25)


class AnyDelay:
    """A model that hears a line's clock, its promise, its supplier's standing and a signal."""

    def __init__(self, bias=0.0):
        self.bias = bias

    def asked(self, X):
        return X

    def late(self, X):
        heard = X.reindex(columns=["days_to_promise", "pushes", "supplier_late_share_52w", "supplier_silence",
                                   "supplier_ordered_lines_4w", "signal_freight_index_level"])  # fmt: skip
        return expit(self.bias + np.nan_to_num(heard.to_numpy(float)) @ [-0.03, 0.5, 1.0, 0.01, 0.02, 0.01])


class AnyShift:
    """A model that hears recent demand, the window and a signal."""

    lean_ = None

    def predict_proba(self, X, facts=None):  # noqa: ARG002
        up = 0.5 * expit(np.nan_to_num(X["units_1w_to_level"]) + np.nan_to_num(X["holidays"]) / 9
                         + np.nan_to_num(X["signal_search_interest_level"]) / 50)  # fmt: skip
        return np.column_stack([np.full(len(X), 0.1), 0.9 - up, up])

    def predict_units(self, X, baseline, noise):  # noqa: ARG002
        return np.asarray(baseline)[:, None] + np.asarray(noise)[:, None] * [-1.0, 0.0, 1.0]


DELAY = DelayForecaster(AnyDelay(), {}, Facts(cut=str(THEN)))
SHIFT = ShiftForecaster(AnyShift(), {}, Facts(cut=str(THEN), shift_terms=ShiftTerms()))


@pytest.fixture(scope="module")
def past(toy):
    """What was known of the toy world at THEN, as tables that a test copies and adds to."""
    frames = {}
    with as_known(toy, {table.name: THEN for table in TABLES}) as con:
        for table in TABLES:
            frames[table.name] = con.sql(f"FROM {table.name}").to_arrow_table()
    return frames


@pytest.fixture
def facts_then(past, tmp_path):
    """A world as of NOW in which nothing has been heard since THEN."""
    con = duckdb.connect()
    for name, frame in past.items():
        con.register("frame", frame)
        con.execute(f"CREATE TABLE {name} AS FROM frame")
        con.unregister("frame")
    yield World([con], (), load(tmp_path, environ={}), NOW, "")
    con.close()


def rows_of(world, forecaster, last=None):
    asked = request_of(world, forecaster, last=last)
    steps = np.array([asked.grid.size - 1])
    if forecaster.task == "delay":
        return delay_matrix(world.con, asked, steps)
    return judgeable(shift_matrix(world.con, asked, steps)[0], forecaster.facts.shift_terms)


def published(world, forecaster, day=NOW):
    """The columns of a risk table that a change is made of."""
    matrix = rows_of(world, forecaster, day)
    rows = matrix.rows
    if forecaster.task == "delay":
        value = line_values(forecaster, matrix)
        told = {"supplier_name": rows["supplier_id"], "product_name": rows["product_id"], "p_late": 0.5}
        kept = rows[["site_id", "state", "promised_on", "ordered_on", "open_units", "pushes"]]
    else:
        value = window_values(forecaster, matrix)
        told, kept = {"product_name": rows["product_id"], "p_up": 0.5, "p_down": 0.1}, rows[["site_id"]]
    return kept.assign(row_id=value.index, value_at_risk=value.to_numpy(), model_version="1", **told)


def parts(world, forecaster, happens="", before=None):
    """Publish THEN, let something happen, publish NOW; return the rows and the parts that moved."""
    risk = RISKS[0 if forecaster.task == "delay" else 1]
    then = published(world, before or forecaster, THEN)
    if happens:
        world.con.execute(happens)
    now = published(world, forecaster)
    steps = rescored(world, forecaster, scorable(world, forecaster, THEN))
    ended = pd.DataFrame(columns=["complete_on", "cancelled_at"])
    found = weekly_change(
        Week(pd.Timestamp(THEN), {risk: then}), Week(pd.Timestamp(NOW), {risk: now}), Told({risk: steps}, ended)
    )
    sums = found[[f"part_{part}" for part in PARTS]].sum(axis=1)
    assert np.allclose(sums, found["change"], rtol=0, atol=1e-9)
    assert found["change"].sum() == pytest.approx(now["value_at_risk"].sum() - then["value_at_risk"].sum())
    return found.set_index("row_id"), {part for part in PARTS if (found[f"part_{part}"] != 0).any()}


def a_line(world):
    """An open line of the last week that is promised well after NOW."""
    return world.con.execute(
        f"SELECT po_line_id FROM purchases p WHERE promised_on > DATE '{NOW}' + 20 AND cancelled_at IS NULL AND "
        "unit_cost > 0 AND po_line_id NOT IN (SELECT po_line_id FROM receipts) AND po_line_id NOT IN "
        "(SELECT po_line_id FROM promises) "
        "ORDER BY po_line_id LIMIT 1"
    ).fetchall()[0][0]


HEARD = "TIMESTAMP '2026-05-20 10:00:00'"
PROMISE = (
    f"INSERT INTO promises BY NAME SELECT '{{line}}' AS po_line_id, {HEARD} AS known_at, "
    "DATE '2026-07-30' AS promised_on"
)
RECEIPT = (
    "INSERT INTO receipts BY NAME SELECT '{line}' AS po_line_id, DATE '2026-05-19' AS received_on, "
    f"{{units}} AS quantity, {HEARD} AS known_at"
)
NEW_LINE = (
    f"INSERT INTO purchases SELECT * REPLACE ('new' AS po_line_id, {HEARD} AS ordered_at, {HEARD} AS known_at, "
    "DATE '2026-06-30' AS promised_on, NULL AS cancelled_at) FROM purchases WHERE po_line_id = '{line}'"
)
LATEST = "QUALIFY row_number() OVER (PARTITION BY scope ORDER BY known_at DESC) = 1"
FREIGHT = (
    f"INSERT INTO signals SELECT * REPLACE (value + 40 AS value, {HEARD} AS known_at, "
    f"DATE '2026-05-18' AS observed_on) FROM signals WHERE signal = 'freight_index' {LATEST}"
)


@pytest.mark.parametrize(
    ("happens", "moves"),
    [
        ("", {"time"}),
        (PROMISE, {"time", "promise"}),
        (RECEIPT.format(line="{line}", units=1), {"time", "data"}),
        (RECEIPT.format(line="{line}", units="NULL"), {"time", "data", "closed"}),
        (NEW_LINE, {"time", "data", "new"}),
        (FREIGHT, {"time", "signals"}),
    ],
    ids=["nothing but time", "a promise moved", "a part came in", "a line came in", "a new line", "a signal came"],
)
def test_of_lines_one_part_moves(facts_then, happens, moves):
    line = a_line(facts_then)
    found, moved = parts(facts_then, DELAY, happens.format(line=line))
    assert moved == moves
    if "promise" in moves:
        assert found.loc[line, "part_promise"] != 0
    if "closed" in moves:
        assert found.loc[line, ["status", "part_closed"]].tolist() == ["closed", found.loc[line, "change"]]
    if "new" in moves:
        assert found.loc["new", ["status", "part_new"]].tolist() == ["new", found.loc["new", "change"]]


def test_a_promise_moves_its_own_line_when_others_were_received_too(facts_then):
    line = a_line(facts_then)
    other = "SELECT min(po_line_id) FROM purchases WHERE po_line_id > '{line}' AND promised_on > DATE '2026-06-10'"
    receipt = RECEIPT.replace("'{line}'", f"({other})").format(line=line, units=1)
    found, moved = parts(facts_then, DELAY, f"{PROMISE.format(line=line)}; {receipt}")
    assert moved == {"time", "promise", "data"}
    assert found.index[found["part_promise"] != 0].tolist() == [line]


def test_time_alone_makes_a_line_late(facts_then):
    facts_then.con.execute(f"UPDATE purchases SET promised_on = '2026-05-21' WHERE po_line_id = '{a_line(facts_then)}'")
    found, moved = parts(facts_then, DELAY)
    late = found[found["reason"].str.startswith("already late now")]
    assert moved == {"time"}
    assert len(late)
    assert (late["part_time"] > 0).all()


def test_another_model_moves_its_part(facts_then):
    before = DelayForecaster(AnyDelay(bias=-1.0), {}, DELAY.facts)
    _, moved = parts(facts_then, DELAY, before=before)
    assert moved == {"model", "time"}


def test_facts_that_arrive_late_for_last_week_are_the_models_part(facts_then):
    late = PROMISE.replace(HEARD, "TIMESTAMP '2026-05-15 10:00:00'").format(line=a_line(facts_then))
    _, moved = parts(facts_then, DELAY, late)
    assert moved == {"model", "time"}


ORDER = (
    f"INSERT INTO orders SELECT * REPLACE ('{{n}}' AS order_line_id, 400 AS quantity, {HEARD} AS ordered_at, "
    f"{HEARD} AS known_at, NULL AS cancelled_at, {{product}} AS product_id) FROM orders ORDER BY known_at DESC LIMIT 1"
)
INTEREST = FREIGHT.replace("freight_index", "search_interest")
PLANNED = (
    f"INSERT INTO signals SELECT * REPLACE ({HEARD} AS known_at, DATE '2026-06-08' AS observed_on) FROM signals "
    f"WHERE signal = 'promotion' {LATEST}"
)


@pytest.mark.parametrize(
    ("happens", "moves"),
    [
        ("", {"time"}),
        (ORDER.format(n="one more", product="product_id"), {"time", "data"}),
        (ORDER.format(n="one new", product="'P-new'"), {"time", "data", "new"}),
        (INTEREST, {"time", "signals"}),
        (PLANNED, {"time", "signals"}),
    ],
    ids=["nothing but time", "an order", "a new series", "a signal", "a promotion"],
)
def test_of_windows_one_part_moves(facts_then, happens, moves):
    assert parts(facts_then, SHIFT, happens)[1] == moves


def test_a_week_without_orders_yet_is_no_drop_of_demand(facts_then):
    """Orders as usual: what time does is small, since no week is taken for one in which nothing was sold."""
    usual = """INSERT INTO orders SELECT * REPLACE (order_line_id || '+' AS order_line_id,
        ordered_at + INTERVAL 7 DAY AS ordered_at, known_at + INTERVAL 7 DAY AS known_at) FROM orders
        WHERE known_at >= TIMESTAMP '2026-05-11'"""
    found, _ = parts(facts_then, SHIFT, usual)
    assert abs(found["part_time"].sum()) < 0.1 * found["value_last_week"].sum()


@pytest.mark.parametrize(
    ("forecaster", "happens"), [(DELAY, RECEIPT), (SHIFT, ORDER.format(n="one more", product="product_id"))],
    ids=["lines", "windows"],
)  # fmt: skip
def test_a_day_of_the_grid_is_read_from_it_and_another_one_is_built(facts_then, forecaster, happens):
    facts_then.con.execute(happens.format(line=a_line(facts_then), units=1))
    read = scorable(facts_then, forecaster, THEN)
    assert read.earlier is not None
    built = replace(read, earlier=None, ahead=None)
    found = [rescored(facts_then, forecaster, scored) for scored in (read, built)]
    assert len(found[0].columns) >= 3
    pd.testing.assert_frame_equal(*found, rtol=1e-6)
    midweek = scorable(facts_then, forecaster, date(2026, 5, 20))
    assert midweek.earlier is None
    assert len(rescored(facts_then, forecaster, midweek)) > 10


def test_nothing_published_is_no_week_before(tmp_path):
    assert week_before(tmp_path, NOW) is None
