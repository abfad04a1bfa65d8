"""Replaying the past: nothing is learnt before it is known, and the gate decides on what had matured by then."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from features.labels import ShiftTerms, shift_labels
from features.matrix import Matrix
from features.panels import Terms
from models import backtest, lessons
from models.backtest import binary, folds, matured_record, play, warm_ups
from models.lessons import Lesson, Training, happened

nan = np.nan
END = np.datetime64("2025-06-02")
DAY, WEEK = np.timedelta64(1, "D"), np.timedelta64(7, "D")


class Spy:
    """A model that remembers what it was taught and says the mean."""

    seen: list

    def __init__(self, **_):
        pass

    def fit(self, X, outcomes, *, cut, **more):
        type(self).seen.append({"X": X, "outcomes": outcomes, "cut": cut, **more})
        y = outcomes["y"] if isinstance(outcomes, pd.DataFrame) else outcomes
        self.p = float(np.nanmean(y == (1 if isinstance(outcomes, pd.DataFrame) else 2)))
        return self

    def asked(self, X):
        return X

    def late(self, X):
        return np.full(len(X), self.p)

    def arrivals(self, X, p_late):  # noqa: ARG002
        return np.tile([36.0, 183.0, 292.0, 329.0], (len(X), 1))


class ShiftSpy(Spy):
    lean_ = None

    def predict_proba(self, X, facts=None):  # noqa: ARG002
        return np.tile([0.1, 0.9 - self.p, self.p], (len(X), 1))

    def predict_units(self, X, baseline, noise):  # noqa: ARG002
        return np.asarray(baseline)[:, None] + np.asarray(noise)[:, None] * np.array([-1.0, 0.0, 1.0])


@pytest.fixture
def spy(monkeypatch):
    Spy.seen = []
    monkeypatch.setattr(lessons, "DelayModel", Spy)
    monkeypatch.setattr(lessons, "ShiftModel", ShiftSpy)
    return Spy


def moments(days):
    return np.asarray(days).astype("datetime64[s]")


def delay_lesson(n=2500, seed=0):
    rng = np.random.default_rng(seed)
    as_of = END - rng.integers(0, 100, n) * WEEK
    due = as_of + rng.integers(0, 30, n) * DAY
    late = rng.random(n) < 0.3
    done = due + np.where(late, rng.integers(1, 60, n), -rng.integers(0, 5, n)) * DAY
    told = done + rng.integers(1, 30, n) * DAY
    rows = pd.DataFrame({
        "po_line_id": [f"l{k}" for k in range(n)], "supplier_id": rng.choice(list("abc"), n), "product_id": "p",
        "site_id": "s", "region": "", "category": "", "as_of": moments(as_of), "due_on": moments(due),
        "state": "due_future", "open_units": 2.0, "unit_cost": 10.0,
        "y_late": np.where(rng.random(n) < 0.05, nan, late),
        "matured_on": moments(due + 2 * DAY), "completed_on": moments(done), "left_on": moments(["NaT"] * n),
        "completed_known_at": told.astype("datetime64[us]"),
    })  # fmt: skip
    X = pd.DataFrame({f"{level}_late_share_52w": 0.3 for level in ("chain", "supplier", "site_supplier")}, rows.index)
    X = X.assign(
        days_to_promise=(due - as_of).astype(float), age_days=5.0, pushes=rng.poisson(0.2, n) * 1.0,
        supplier_product_last_outcome=nan, supplier_matured_lines_52w=10.0, site_supplier_matured_lines_52w=0.0,
    )  # fmt: skip
    return Lesson("delay", Matrix(rows, X, ()), Terms(), ShiftTerms(), END)


def shift_lesson(n=2500, seed=0, **columns):
    rng = np.random.default_rng(seed)
    window = rng.integers(0, 3, n)
    as_of = END - rng.integers(0, 110, n) * WEEK
    length = np.array([4, 4, 5])[window]
    rows = pd.DataFrame({
        "product_id": rng.choice(list("abc"), n), "site_id": "north", "region": "", "category": "", "window": window,
        "lead_weeks": np.array([0, 4, 8])[window], "length_weeks": length, "as_of": moments(as_of),
        "actual_units": rng.normal(100, 20, n), "baseline_units": 100.0, "noise_units": 12.0, "unit_price": 1.0,
        "stock_out": False, "interval": 1.0, "dispersion": 2.0,
        "matured_on": moments(as_of + np.array([4, 8, 13])[window] * WEEK), "past_up": 1.0, "past_down": 1.0,
        "past_n": 12.0, "last_z": rng.normal(size=n), "tracking_signal": rng.normal(size=n), "moved_z": 0.0,
    }).assign(**columns)  # fmt: skip
    rows = rows.assign(y_shift=shift_labels(rows, ShiftTerms()))
    X = rows[["last_z"]].astype(np.float32).assign(age_weeks=60.0)
    return Lesson("shift", Matrix(rows, X, ()), Terms(), ShiftTerms(), END)


LESSONS = {"delay": delay_lesson, "shift": shift_lesson}


def replay(lesson, given):
    return backtest.replay(lesson, given, lessons.fits(lesson, [fold.cut for fold in given], Training()))


def cuts_of(lesson, count=3, weeks=8):
    days = np.unique(lesson.rows["as_of"].to_numpy().astype("datetime64[D]"))
    return folds(days[days >= END - count * weeks * WEEK], weeks * 7)


def test_no_line_is_learnt_from_before_its_label_has_matured_but_open_ones_teach_arrival(spy):
    lesson = delay_lesson()
    given = cuts_of(lesson)
    table = pd.concat(replay(lesson, given))
    assert [taught["cut"] for taught in spy.seen] == [fold.cut for fold in given]
    rows = lesson.rows
    for taught in spy.seen:
        cut, then = taught["cut"], taught["outcomes"]
        assert then.index.tolist() == np.flatnonzero(rows["as_of"] < pd.Timestamp(cut)).tolist()
        ready = (rows["matured_on"] <= pd.Timestamp(cut)) & rows["y_late"].notna()
        assert then.index[then["y"].notna()].tolist() == np.flatnonzero(ready).tolist()  # whatever the outcome
        mine = rows.loc[then.index]
        told = mine["completed_known_at"] < pd.Timestamp(cut)
        assert (then["completed_in"].notna() == told).all()
        expected = np.where((mine["y_late"] == 0) & told, 0, 1)[then["y"].notna()]
        np.testing.assert_array_equal(then["y"].dropna(), expected)  # posted later: still counted as late then
    assert table["po_line_id"].is_unique
    end = lesson.outcomes(END)["y"]
    np.testing.assert_array_equal(table["label"], end.to_numpy()[table["place"]])
    assert (table.groupby("cut")["as_of"].min() >= table.groupby("cut")["as_of"].min().index).all()


def test_no_window_is_learnt_from_before_it_has_matured(spy):
    lesson = shift_lesson()
    table = pd.concat(replay(lesson, cuts_of(lesson)))
    rows = lesson.rows
    for taught in spy.seen:
        ready = np.flatnonzero(rows["matured_on"] <= pd.Timestamp(taught["cut"]))
        assert taught["X"].index.tolist() == ready.tolist()
        z = (rows["actual_units"].to_numpy()[ready] - 100) / 12
        np.testing.assert_allclose(taught["deviation"], z)
    assert table["label"].notna().sum() < len(table)  # the last windows are not over
    np.testing.assert_allclose(table["units_p90"], 112)


def test_a_lesson_reaches_back_no_further_than_a_history(spy):
    lesson = delay_lesson()
    lessons.fit(lesson, END, Training(history_days=70))
    assert spy.seen[0]["outcomes"]["as_of"].min() >= pd.Timestamp(END - 70 * DAY)


@pytest.mark.parametrize("task", LESSONS)
def test_the_gate_sees_what_had_matured_at_the_cut_as_it_was_known_then(spy, task):
    lesson = LESSONS[task]()
    given = cuts_of(lesson)
    made = replay(lesson, given)
    assert len(spy.seen) == len(given)
    for fold in given:
        earlier = [table for table, other in zip(made, given, strict=True) if other.cut < fold.cut]
        record = matured_record(lesson, earlier, fold.cut)
        if not earlier:
            assert not len(record)
            continue
        assert len(record)
        assert (record["matured_at"] <= pd.Timestamp(fold.cut)).all()
        then = lesson.outcomes(fold.cut)["y"].to_numpy()[record["place"].to_numpy(int)]
        for event, part in record.groupby("event"):
            np.testing.assert_array_equal(part["y"], happened(then[(record["event"] == event).to_numpy()], event))


@pytest.mark.usefixtures("spy")
def test_a_fold_is_the_same_whichever_other_folds_were_made_in_this_process():
    lesson = delay_lesson()
    given = cuts_of(lesson)
    made = replay(lesson, given)
    again = play(lesson, given[2], made[:2], lessons.fit(lesson, given[2].cut, Training()))
    pd.testing.assert_frame_equal(again, made[2])


@pytest.mark.usefixtures("spy")
def test_each_window_is_judged_once_for_a_drop_and_once_for_a_surge():
    lesson = shift_lesson()
    table = replay(lesson, cuts_of(lesson, 1))[0]
    pairs = binary(table, "shift")
    known = table[table["label"].notna()]
    for event, code in (("down", 0), ("up", 2)):
        part = pairs[pairs["event"] == event]
        np.testing.assert_array_equal(part["y"], known["label"] == code)
        np.testing.assert_array_equal(part["p"], known[f"p_{event}"])
        np.testing.assert_array_equal(part["p_last_z"], known[f"p_{event}_last_z"])
    assert len(pairs) == 2 * len(known)


@pytest.mark.usefixtures("spy")
def test_series_of_which_no_window_can_be_judged_are_predicted_all_the_same():
    """Slow movers alone: every window is shorter than two of their demand intervals."""
    lesson = shift_lesson(interval=6.0)
    table = pd.concat(replay(lesson, cuts_of(lesson)))
    assert len(table)
    assert table["label"].isna().all()
    assert not len(binary(table, "shift"))


def test_folds_tile_the_days_and_warm_ups_come_before_them():
    days = np.arange(np.datetime64("2025-01-06"), np.datetime64("2025-04-01"), WEEK)
    made = folds(days, 28)
    assert [str(fold.cut) for fold in made] == ["2025-01-06", "2025-02-03", "2025-03-03", "2025-03-31"]
    np.testing.assert_array_equal(np.concatenate([fold.days for fold in made]), days)
    history = np.arange(np.datetime64("2023-01-02"), np.datetime64("2025-04-01"), WEEK)
    early = warm_ups("delay", days[0], history)
    assert [str(fold.cut) for fold in early] == ["2024-07-22", "2024-10-14"]
    assert all((fold.days < days[0]).all() and not fold.judged for fold in early)
    assert warm_ups("delay", days[0], days) == []  # no history, no warm-up
    assert folds(days[:0], 28) == []
    assert isinstance(early[0].cut.astype(object), date)


def test_windows_are_not_foretold_before_any_has_matured():
    end = np.datetime64("2024-06-03")
    days = end - np.arange(38, 0, -1) * np.timedelta64(7, "D")
    (only,) = warm_ups("shift", end, days)
    assert only.cut == end - np.timedelta64(13 * 7, "D")
    begun = days[days >= end - np.timedelta64(18 * 7, "D")]
    assert warm_ups("shift", end, begun) == []
    assert len(warm_ups("shift", end, begun, ((0, 2),))) == 1  # short windows mature sooner
    assert len(warm_ups("shift", end, end - np.arange(60, 0, -1) * np.timedelta64(7, "D"))) == 2
