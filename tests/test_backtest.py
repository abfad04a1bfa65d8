"""Walking forward: nothing is learnt before it is known, and what is counted can be counted again by hand."""

import numpy as np
import pandas as pd
import pytest

from features.labels import late_as_known
from features.panels import Terms
from models import backtest
from models.backtest import best_rule, delay_walk, judge, quantile_scores, record, shift_walk, stacked
from models.metrics import binary_report
from models.shift import ShiftModel

nan = np.nan
END = np.datetime64("2025-06-02")
WEEK = np.timedelta64(7, "D")


class Spy:
    """A model that remembers what it was taught and says the mean."""

    seen: list

    def fit(self, X, y, *, cut, as_of=None, matured_on=None, deviation=None):
        outcomes, y = (None, y) if deviation is not None else (y, y["y"].to_numpy())
        type(self).seen.append({
            "X": X, "y": y, "as_of": as_of, "matured_on": matured_on, "cut": cut, "deviation": deviation,
            "outcomes": outcomes,
        })  # fmt: skip
        self.p = float(np.nanmean(y == (1 if deviation is None else 2)))
        self.shift = deviation is not None
        return self

    def predict_proba(self, X):
        if self.shift:
            return np.tile([0.1, 0.9 - self.p, self.p], (len(X), 1))
        return np.tile([1 - self.p, self.p], (len(X), 1))

    def predict_units(self, X, baseline, noise):  # noqa: ARG002
        return np.asarray(baseline)[:, None] + np.asarray(noise)[:, None] * np.array([-1.0, 0.0, 1.0])


@pytest.fixture
def spy():
    return type("Fresh", (Spy,), {"seen": []})


def delay_facts(n=2500, seed=0):
    rng = np.random.default_rng(seed)
    as_of = END - rng.integers(0, 100, n) * WEEK
    due = as_of + rng.integers(0, 30, n) * np.timedelta64(1, "D")
    y = (rng.random(n) < 0.3) * 1.0
    told = due + rng.integers(-5, 60, n) * np.timedelta64(1, "D")
    rows = pd.DataFrame({
        "po_line_id": [f"l{k}" for k in range(n)], "supplier_id": rng.choice(list("abc"), n),
        "as_of": as_of.astype("datetime64[s]"), "due_on": due.astype("datetime64[s]"),
        "left_on": np.datetime64("NaT", "s"),
        "completed_on": np.where(y == 0, due, np.datetime64("NaT")).astype("datetime64[s]"),
        "y_late": np.where(rng.random(n) < 0.05, nan, y),
        "matured_on": (due + 2 * np.timedelta64(1, "D")).astype("datetime64[s]"),
        "completed_known_at": np.where(y == 0, told, np.datetime64("NaT")).astype("datetime64[us]"),
    })  # fmt: skip
    levels = ("chain", "supplier", "site_supplier")
    X = pd.DataFrame({f"{level}_late_share_52w": 0.3 for level in levels}, index=rows.index)
    X = X.assign(
        days_to_promise=(due - as_of).astype(float), age_days=5.0, pushes=rng.poisson(0.2, n) * 1.0,
        supplier_product_last_outcome=nan, supplier_matured_lines_52w=10.0, site_supplier_matured_lines_52w=0.0,
    )  # fmt: skip
    return rows, X


def shift_facts(n=2500, seed=0):
    rng = np.random.default_rng(seed)
    window = rng.integers(0, 3, n)
    as_of = END - rng.integers(0, 110, n) * WEEK
    actual = rng.normal(100, 20, n)
    rows = pd.DataFrame({
        "product_id": rng.choice(list("abc"), n), "site_id": "north", "window": window,
        "as_of": as_of.astype("datetime64[s]"), "actual_units": actual, "baseline_units": 100.0, "noise_units": 20.0,
        "matured_on": (as_of + np.array([4, 8, 13])[window] * WEEK).astype("datetime64[s]"),
        "past_up": 1.0, "past_down": 1.0, "past_n": 12.0, "last_z": rng.normal(size=n),
        "tracking_signal": rng.normal(size=n),
    })  # fmt: skip
    y = np.where(rng.random(n) < 0.1, nan, 1.0 + (actual > 125) - (actual < 75))
    return rows, rows[["last_z"]].astype(np.float32), y


def test_no_line_is_learnt_from_before_its_label_has_matured(spy):
    rows, X = delay_facts()
    walk = delay_walk(rows, X, end=END, make=spy, terms=Terms(), folds=3, fold_weeks=8)
    assert [t["cut"] for t in spy.seen] == [END - 24 * WEEK, END - 16 * WEEK, END - 8 * WEEK]
    for taught in spy.seen:
        cut = taught["cut"]
        ready = (rows["matured_on"].to_numpy() <= cut) & rows["y_late"].notna().to_numpy()
        told = taught["outcomes"].index[taught["outcomes"]["y"].notna()]
        assert told.tolist() == np.flatnonzero(ready).tolist()  # all of it, whatever the outcome
        asked = np.flatnonzero(rows["as_of"].to_numpy() < cut)
        assert taught["X"].index.tolist() == taught["outcomes"].index.tolist() == asked.tolist()
        assert (taught["outcomes"]["watched"] <= (pd.Timestamp(cut) - rows["as_of"].iloc[asked]).dt.days - 1).all()
        judged = walk[walk["fold"] == str(cut)]
        assert (judged["as_of"] >= pd.Timestamp(cut)).all()
        assert (judged["as_of"] < pd.Timestamp(cut + 8 * WEEK)).all()
        assert (judged["matured_on"] <= pd.Timestamp(END)).all()
    assert walk["po_line_id"].is_unique
    assert walk["y"].notna().all()


def test_labels_are_those_known_at_the_cut_but_outcomes_judge(spy):
    rows, X = delay_facts()
    walk = delay_walk(rows, X, end=END, make=spy, terms=Terms(), folds=2, fold_weeks=10)
    changed = 0
    for taught in spy.seen:
        known = taught["outcomes"]["y"].dropna()
        mine = rows.loc[known.index]
        told = mine["completed_known_at"].to_numpy() < taught["cut"].astype("datetime64[us]")
        expected = np.where((mine["y_late"] == 0) & told, 0, 1)
        np.testing.assert_array_equal(known, expected)
        np.testing.assert_array_equal(known, late_as_known(mine, taught["cut"]))
        changed += (expected != mine["y_late"]).sum()
    assert changed > 0
    np.testing.assert_array_equal(walk["y"], rows.set_index("po_line_id").loc[walk["po_line_id"], "y_late"])


def test_no_window_is_learnt_from_before_it_has_matured(spy):
    rows, X, y = shift_facts()
    walk = shift_walk(rows, X, y, end=END, make=spy, folds=2, fold_weeks=13)
    for taught in spy.seen:
        ready = np.flatnonzero(rows["matured_on"].to_numpy() <= taught["cut"])
        assert taught["X"].index.tolist() == ready.tolist()
        np.testing.assert_array_equal(taught["y"], y[ready])  # windows of unknown class still teach units
        np.testing.assert_allclose(taught["deviation"], (rows["actual_units"].to_numpy()[ready] - 100) / 20)
    assert walk["y"].notna().all()
    assert (walk["as_of"] >= pd.Timestamp(END - 26 * WEEK)).all()
    np.testing.assert_allclose(walk["units_p90"], 120)


@pytest.mark.parametrize("weeks", [0, 3])
def test_where_nothing_has_matured_the_walk_is_empty(spy, weeks):
    rows, X = delay_facts(300)
    rows["matured_on"] = pd.Timestamp(END) + weeks * pd.Timedelta(weeks=1) + pd.Timedelta(days=1)
    assert len(delay_walk(rows, X, end=END, make=spy, terms=Terms())) == 0
    windows, inputs, y = shift_facts(300)
    windows["matured_on"] = rows["matured_on"]
    assert len(shift_walk(windows, inputs, y, end=END, make=spy)) == 0
    assert spy.seen == []


def test_series_of_which_no_window_can_be_judged_are_walked_past(spy):
    """Slow movers alone: every window is shorter than two of their demand intervals."""
    rows, X, y = shift_facts()
    assert len(shift_walk(rows, X, np.full(len(y), nan), end=END, make=spy)) == 0


def test_real_models_walk_too():
    rows, X, y = shift_facts(1500)
    walk = shift_walk(rows, X, y, end=END, make=lambda: ShiftModel(rounds=3, quantile_rounds=3, threads=1))
    p = walk[["p_down", "p_up"]]
    assert ((p >= 0) & (p <= 1)).all().all()
    scores = quantile_scores(walk)
    covered = walk["actual_units"].between(walk["units_p10"], walk["units_p90"]).mean()
    assert scores["coverage"] == pytest.approx(covered)
    assert scores["crossings"] == 0


def a_walk(n=400, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.uniform(0, 1, n)
    return pd.DataFrame({
        "as_of": pd.Timestamp("2025-01-06") + pd.to_timedelta(7 * rng.integers(0, 10, n), unit="D"),
        "supplier_id": rng.choice(list("abcd"), n), "fold": "f", "y": (rng.random(n) < p) * 1.0, "p": p,
        "p_climatology": 0.5, "p_noisy": np.clip(p + rng.normal(0, 0.2, n), 0.01, 0.99),
    })  # fmt: skip


def test_each_window_is_judged_once_for_a_drop_and_once_for_a_surge():
    rng = np.random.default_rng(0)
    P, Q = rng.dirichlet([1, 1, 1], 5), rng.dirichlet([1, 1, 1], 5)
    walk = pd.DataFrame({
        "product_id": list("abcde"), "site_id": "n", "window": 0, "as_of": pd.Timestamp("2025-01-06"), "fold": "f",
        "y": [0.0, 1.0, 2.0, 2.0, 0.0], "p_down": P[:, 0], "p_up": P[:, 2], "p_down_last_z": Q[:, 0],
        "p_up_last_z": Q[:, 2],
    })  # fmt: skip
    binary = stacked(walk)
    down, up = (binary[binary["direction"] == d] for d in ("down", "up"))
    assert (down["y"].tolist(), up["y"].tolist()) == ([1, 0, 0, 0, 1], [0, 0, 1, 1, 0])
    np.testing.assert_array_equal(down[["p", "p_last_z"]], np.column_stack([P[:, 0], Q[:, 0]]))
    np.testing.assert_array_equal(up[["p", "p_last_z"]], np.column_stack([P[:, 2], Q[:, 2]]))


def test_the_judge_agrees_with_the_metrics_taken_directly():
    walk = a_walk()
    table = judge(walk, "supplier_id", seed=7, n=20)
    assert set(table.index) == {"model", "climatology", "noisy"}
    for name, column in (("model", "p"), ("noisy", "p_noisy")):
        report = binary_report(walk["y"].to_numpy(), walk[column].to_numpy())
        for metric in ("brier", "pr_auc", "roc_auc", "log_loss", "ece"):
            assert table.loc[name, metric] == pytest.approx(report[metric])
    brier = ((walk["p"] - walk["y"]) ** 2).mean()
    assert table.loc["model", "brier"] == pytest.approx(brier)
    assert table.loc["model", "bss_climatology"] == pytest.approx(1 - brier / ((0.5 - walk["y"]) ** 2).mean())
    assert best_rule(table) == "noisy"


def test_the_record_counts_every_prediction_once_by_tenth():
    walk = a_walk()
    rows = pd.DataFrame(record(walk, "climatology", "delay"))
    assert rows["scored"].sum() == len(walk)
    for row in rows.to_dict("records"):
        part = walk[(walk["p"] >= row["p_from"]) & (walk["p"] < row["p_to"])]
        assert row["scored"] == len(part)
        assert row["came_true_share"] == pytest.approx(part["y"].mean())
        assert row["expected_share"] == pytest.approx(part["p"].mean())
        mine, base = ((part["p"] - part["y"]) ** 2).mean(), ((0.5 - part["y"]) ** 2).mean()
        assert row["skill_over_rule"] == pytest.approx(1 - mine / base)
        assert row["first_day"] == str(part["as_of"].min().date())


def test_a_sure_prediction_is_in_the_last_tenth():
    rows = record(a_walk(3).assign(p=1.0, p_climatology=1.0, y=1.0), "climatology", "delay")
    assert [(row["p_from"], row["p_to"], row["scored"]) for row in rows] == [(0.9, 1.0, 3)]
    assert rows[0]["skill_over_rule"] is None  # the rule was right: no skill to be had
    assert backtest.DIRECTIONS == {"down": 0, "up": 2}
