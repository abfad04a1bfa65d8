"""Leaks in labels, splits and whatever is learnt, planted one by one: laws catch each; what is in use keeps them."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from features import prover
from features.contracts import TABLES
from features.labels import ShiftTerms, delay_labels, late_as_known, least_value, shift_labels, shift_outcomes
from features.matrix import DELAY_KEY, SHIFT_KEY, Matrix, Request, first_fact, shift_matrix
from features.orders import open_lines
from features.panels import Terms, posting_lag_days, write_line_history
from features.prover import LeakError, prove_learnt_in_time
from features.weeks import Grid
from models import calibration
from models.delay import DelayModel
from models.lessons import Lesson
from models.rule_kinds import CellRates
from models.splits import calibration_split

AS_OF = date(2026, 6, 1)


def ask(con, task):
    terms = Terms(posting_lag_days=posting_lag_days(con, AS_OF))
    return Request(Grid(first_fact(con, {"delay": "purchases", "shift": "orders"}[task]), AS_OF), terms, "DE")


# Leaks in labels: what was not known by the cut, or a cohort that depends on how it ended ----------------------------


def delay_at(con, request, cut, label):
    """Return the labels that may be learnt at as-of number `cut`, by line and as-of."""
    past = request.until(cut)
    write_line_history(con, past.terms)
    rows = open_lines(con, past.grid, past.terms, steps=np.arange(8, cut))
    rows = rows.assign(**delay_labels(con, rows, past.terms))
    y = label(rows, np.datetime64(past.grid.as_of))
    return y.set_axis(pd.MultiIndex.from_frame(rows[list(DELAY_KEY)])).dropna().sort_index()


def matured(rows, cut, y):
    return y.where(rows["matured_on"] <= pd.Timestamp(cut))


def honest_delay(rows, cut):
    return matured(rows, cut, pd.Series(late_as_known(rows, cut), rows.index))


DELAY_LABELS = {
    "a receipt posted after the cut": lambda rows, cut: matured(rows, cut, rows["y_late"]),
    "promises that had not matured": lambda rows, cut: rows["y_late"].where(rows["as_of"] < pd.Timestamp(cut)),
    "a label as soon as the promise has passed": lambda rows, cut: rows["y_late"].where(
        rows["due_on"] < pd.Timestamp(cut)),
}  # fmt: skip


def same_labels(con, request, back, label, at):
    """Hold the labels of each cut against those of worlds in which nothing later has happened, or something else."""
    for cut in (request.grid.size - weeks for weeks in back):
        expected = at(con, request, cut, label)
        assert len(expected) > 50
        for how in ("deleted", "scrambled"):
            with prover._world(con, request.grid.days[cut].astype(object), how) as then:
                pd.testing.assert_series_equal(at(then, request, cut, label), expected, check_names=False)


@pytest.mark.parametrize("back", [3, 20, 47])
def test_labels_are_those_of_their_day(slow_toy, back):
    for task, at, label in (("delay", delay_at, honest_delay), ("shift", shift_at, honest_shift)):
        request = ask(slow_toy, task)
        same_labels(slow_toy, request, (back,), label, at)


@pytest.mark.parametrize("name", DELAY_LABELS)
def test_a_late_label_of_later_knowledge_is_caught(slow_toy, name):
    request = ask(slow_toy, "delay")
    with pytest.raises(AssertionError):
        same_labels(slow_toy, request, (20, 26, 33, 40, 47), DELAY_LABELS[name], delay_at)


def whole_cohort(rows, cut, chosen):
    """Every promise that had matured must be there, however it ended: cancelled in time alone leaves."""
    asked = (rows["matured_on"] <= pd.Timestamp(cut)) & rows["y_late"].notna()
    assert (chosen(rows, cut).notna() == asked).all()


COHORTS = {
    "lines received by the cut": lambda rows, cut: rows["y_late"].where(rows["completed_known_at"] < pd.Timestamp(cut)),
    "lines more than ten days late left out": lambda rows, cut: honest_delay(rows, cut).where(
        ~(rows["completed_on"] > rows["due_on"] + pd.Timedelta(days=10))),
    "early receipts of lines not due yet": lambda rows, cut: honest_delay(rows, cut).fillna(
        rows["y_late"].where(rows["completed_known_at"] < pd.Timestamp(cut))),
}  # fmt: skip


@pytest.mark.parametrize("name", ["honest", *COHORTS])
def test_a_cohort_chosen_by_outcome_is_caught(slow_toy, name):
    request = ask(slow_toy, "delay")
    cut = request.grid.size - 20
    write_line_history(slow_toy, request.terms)
    rows = open_lines(slow_toy, request.grid, request.terms, steps=np.arange(8, cut))
    rows, day = rows.assign(**delay_labels(slow_toy, rows, request.terms)), request.grid.days[cut]
    if name == "honest":
        whole_cohort(rows, day, honest_delay)
    else:
        with pytest.raises(AssertionError):
            whole_cohort(rows, day, COHORTS[name])


TERMS = ShiftTerms(entry_lag_days=9)


def shift_at(con, request, cut, label):
    past = request.until(cut)
    windows, data = shift_matrix(con, past, np.arange(20, cut, 4))
    rows = windows.rows.assign(**shift_outcomes(con, data.grid, windows.rows, TERMS))
    y = label(rows, past.grid.as_of)
    return y.set_axis(pd.MultiIndex.from_frame(rows[list(SHIFT_KEY)])).dropna().sort_index()


def honest_shift(rows, cut):
    return matured(rows, cut, pd.Series(shift_labels(rows, TERMS), rows.index))


def test_a_window_that_was_not_over_is_caught(slow_toy):
    request = ask(slow_toy, "shift")

    def early(rows, cut):
        return pd.Series(shift_labels(rows, TERMS), rows.index).where(rows["as_of"] < pd.Timestamp(cut))

    with pytest.raises(AssertionError):
        same_labels(slow_toy, request, (20,), early, shift_at)


def netted_at(con, request, cut, label):
    """Label with every order that was ever cancelled already taken out."""
    ((home,),) = con.execute("SELECT current_schema()").fetchall()
    con.execute("CREATE SCHEMA netted")
    for table in TABLES:
        gone = "REPLACE (CASE WHEN cancelled_at IS NULL THEN quantity ELSE 0 END AS quantity)"
        columns = f"* {gone}" if table.name == "orders" else "*"
        con.execute(f"CREATE VIEW netted.{table.name} AS SELECT {columns} FROM {home}.{table.name}")
    con.execute("SET schema = 'netted'")
    try:
        return shift_at(con, request, cut, label)
    finally:
        con.execute(f"SET schema = '{home}'; DROP SCHEMA netted CASCADE")


def test_a_label_net_of_cancellations_after_it_matured_is_caught(slow_toy):
    request = ask(slow_toy, "shift")

    def units(rows, cut):
        return matured(rows, cut, rows["actual_units"])

    same_labels(slow_toy, request, (20,), units, shift_at)
    with pytest.raises(AssertionError):
        same_labels(slow_toy, request, (20, 30, 41), units, netted_at)


# Leaks in splits: the same promise, or its twin, on both sides; calibration on what was fitted -----------------------


@pytest.fixture(scope="module")
def snapshots(slow_toy):
    request = ask(slow_toy, "delay")
    write_line_history(slow_toy, request.terms)
    rows = open_lines(slow_toy, request.grid, request.terms, steps=np.arange(8, request.grid.size))
    rows = rows.assign(**delay_labels(slow_toy, rows, request.terms))
    rows = rows[rows["y_late"].notna()].reset_index(drop=True)
    twins = rows[rows["line"] % 3 == 0].assign(po_line_id=lambda r: r["po_line_id"] + "-copy")
    return pd.concat([rows, twins], ignore_index=True)


def honest_split(rows, cut, weeks):
    end = cut + np.timedelta64(7 * weeks, "D")
    lesson = Lesson("delay", Matrix(rows, rows[["line"]], ()), Terms(), ShiftTerms(), end)
    known, ahead = lesson.outcomes(cut)["y"], lesson.between(cut, end)
    judged = lesson.outcomes(end)["y"].notna().to_numpy()
    return np.flatnonzero(known.notna()), ahead[judged[ahead]]


def at_random(rows, cut, weeks):  # noqa: ARG001
    order = np.random.default_rng(5).permutation(len(rows))
    return order[: len(order) // 2], order[len(order) // 2 :]


def by_line(rows, cut, weeks):  # noqa: ARG001
    mine = pd.util.hash_array(rows["po_line_id"].to_numpy(object)) % 2 == 0
    return np.flatnonzero(mine), np.flatnonzero(~mine)


def without_gap(rows, cut, weeks):  # noqa: ARG001
    before = (rows["as_of"] < pd.Timestamp(cut)).to_numpy()
    return np.flatnonzero(before), np.flatnonzero(~before)


def no_promise_twice(rows, cut, train, test):  # noqa: ARG001
    """The same promise of a line is on one side; a copy of a line under another id goes with it."""
    for key in (["po_line_id", "due_on"], ["supplier_id", "product_id", "site_id", "ordered_on", "quantity", "due_on"]):
        sides = [set(map(tuple, rows.iloc[side][key].itertuples(index=False))) for side in (train, test)]
        assert not sides[0] & sides[1], key


def learnt_before_asked(rows, cut, train, test):
    assert (rows["matured_on"].iloc[train] <= pd.Timestamp(cut)).all()
    assert (rows["as_of"].iloc[test] >= pd.Timestamp(cut)).all()


SPLITS = {
    "snapshots split at random": (at_random, no_promise_twice),
    "copies of one order on both sides": (by_line, no_promise_twice),
    "no gap between learning and judging": (without_gap, no_promise_twice),
    "rows that had not matured are learnt from": (without_gap, learnt_before_asked),
    "lines split at random over time": (by_line, learnt_before_asked),
}


@pytest.mark.parametrize("weeks", [4, 13, 26])
def test_the_split_in_use_keeps_every_law(snapshots, weeks):
    cut = np.datetime64(AS_OF) - np.timedelta64(7 * weeks, "D")
    train, test = honest_split(snapshots, cut, weeks)
    assert min(len(train), len(test)) > 20
    for law in (no_promise_twice, learnt_before_asked):
        law(snapshots, cut, train, test)


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_that_lets_the_future_in_is_caught(snapshots, name):
    split, law = SPLITS[name]
    cut = np.datetime64(AS_OF - timedelta(weeks=13))
    with pytest.raises(AssertionError):
        law(snapshots, cut, *split(snapshots, cut, 13))


def test_calibration_weeks_are_neither_fitted_on_nor_judged(snapshots):
    cut = np.datetime64(AS_OF - timedelta(weeks=13))
    fitted, weeks = calibration_split(snapshots["as_of"], snapshots["matured_on"], cut=cut, weeks=13)
    assert min(len(fitted), len(weeks)) > 50
    no_promise_twice(snapshots, cut, fitted, weeks)
    assert (snapshots["matured_on"].iloc[np.r_[fitted, weeks]] <= pd.Timestamp(cut)).all()
    with pytest.raises(AssertionError):
        no_promise_twice(snapshots, cut, *at_random(snapshots, cut, 13))


# Leaks in what is learnt: scaling, encoding, calibration, thresholds, selection --------------------------------------

CUT = np.datetime64("2025-01-06")


def past(rows):
    return rows[rows["matured_on"] <= pd.Timestamp(CUT)]


@pytest.fixture(scope="module")
def lessons():
    """Rows of two years whose late rate, sizes and best input all change after the cut."""
    rng = np.random.default_rng(2)
    n = 4_000
    as_of = np.datetime64("2023-06-05") + 7 * rng.integers(0, 104, n).astype("timedelta64[D]")
    x, other = rng.normal(size=n), rng.normal(size=n)
    later = as_of >= CUT
    chance = 1 / (1 + np.exp(1 - np.where(later, 2 * other + 1, 2 * x)))
    rows = pd.DataFrame({
        "as_of": as_of, "matured_on": as_of + rng.integers(7, 30, n).astype("timedelta64[D]"), "x": x + later,
        "other": other, "group": rng.integers(0, 9, n), "p": np.clip(chance + rng.normal(0, 0.1, n), 0.01, 0.99),
        "y": (rng.random(n) < chance) * 1.0, "actual_units": rng.gamma(2, 20, n) * (1 + later), "baseline_units": 40.0,
        "unit_price": 2.0,
    })  # fmt: skip
    return rows.sort_values("as_of").reset_index(drop=True)


def encoding(rows):
    return rows.groupby("group")["y"].mean().reindex(range(9)).tolist()


def scaling(rows):
    return [rows["x"].mean(), rows["x"].std(), rows["x"].median()]


def rates(rows):
    return CellRates({"x": 5}).fit(rows.assign(y=rows["y"].astype(int))).to_dict()


def mapped(rows):
    return calibration.Platt().fit(rows["p"], rows["y"]).to_dict()


def calibrated(rows):
    weeks = calibration_split(rows["as_of"], rows["matured_on"], cut=CUT, weeks=13)[1]
    return mapped(rows.iloc[weeks])


def chosen_map(rows):
    weeks = rows["as_of"].to_numpy().astype("datetime64[W]")
    return calibration.choose(rows["p"], rows["y"], weeks).transform(np.linspace(0.05, 0.95, 9))


def flag_from(rows):
    """Return the p from which on flags pay, the capacity and the best input: what a hand would tune."""
    steps = np.linspace(0.1, 0.9, 17)
    return [steps[np.argmax([((rows["p"] >= s) == rows["y"]).mean() for s in steps])], np.sum(rows["p"] > 0.8)]


def best_input(rows):
    return [abs(np.corrcoef(rows[c], rows["y"])[0, 1]) for c in ("x", "other", "p")]


def model(rows, cut=CUT):
    then = rows[["as_of", "matured_on"]].assign(
        y=rows["y"].where(rows["matured_on"] <= pd.Timestamp(cut)), due_in=7.0, completed_in=np.nan, watched=0.0
    )
    X = rows[["x", "other", "p"]].astype(np.float32).assign(days_to_promise=7.0)
    kept = DelayModel(rounds=6, threads=1).fit(X, then, cut=cut)
    grid = np.linspace(-2, 2, 25, dtype=np.float32)
    asked = pd.DataFrame({"x": grid, "other": grid[::-1], "p": np.abs(grid) / 3, "days_to_promise": grid * 0 + 7})
    return kept.predict_proba(asked)[:, 1]


LEARNT = {
    "target encoding": encoding, "scaling and imputation": scaling, "a rule's rates": rates,
    "the calibration map": mapped, "the choice of a calibration": chosen_map, "V_min": least_value,
    "threshold and capacity": flag_from, "the choice of inputs": best_input,
}  # fmt: skip


@pytest.mark.parametrize("name", LEARNT)
def test_what_is_learnt_on_all_rows_is_caught(lessons, name):
    with pytest.raises(LeakError, match=f"{name} is learnt from the future"):
        prove_learnt_in_time(LEARNT[name], lessons, CUT, name)
    assert prove_learnt_in_time(lambda rows: LEARNT[name](past(rows)), lessons, CUT, name) > 0


def test_calibration_and_model_in_use_learn_in_time(lessons):
    assert prove_learnt_in_time(calibrated, lessons, CUT, "the calibration map") > 0
    assert prove_learnt_in_time(model, lessons, CUT, "the model") == 25
    with pytest.raises(LeakError, match="the model is learnt"):
        prove_learnt_in_time(lambda rows: model(rows, CUT + np.timedelta64(364, "D")), lessons, CUT, "the model")
