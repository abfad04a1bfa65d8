"""P(late): bounded, order-free, the same on any number of threads, kept as text, at the level that was seen last."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.base import clone

from models import calibration, delay
from models.arrivals import LONGEST
from models.blend import at_level, blend, choose_weight
from models.delay import KINDS, LEFT_OUT, DelayModel
from models.hazard import Times
from models.naive_rules import delay_rule_rows
from models.splits import calibration_split

nan = np.nan
CUT = np.datetime64("2025-06-02")


def lines(n, seed=0, late=0.3):
    """Snapshots of two years, due within five weeks: lateness follows the supplier's record and the ship mode."""
    rng = np.random.default_rng(seed)
    as_of = CUT - rng.integers(1, 104, n) * np.timedelta64(7, "D")
    due_in = rng.integers(0, 35, n)
    mode = rng.choice(["air", "sea", "road"], n)
    record = rng.normal(size=n)
    y = (rng.random(n) < expit(logit(late) + record + (mode == "sea"))).astype(float)
    X = pd.DataFrame(
        {
            "late_share": record,
            "days_to_promise": due_in * 1.0,
            "as_of_day": as_of.astype(float),
            "noise": rng.normal(size=n),
        },
        dtype=np.float32,
    )
    X.loc[rng.random(n) < 0.1, "late_share"] = nan
    X["attribute_mode"] = mode.astype(object)
    matured = as_of + due_in * np.timedelta64(1, "D")
    matured_lines = rng.integers(0, 40, n)
    X = X.assign(
        age_days=rng.uniform(0, 60, n), pushes=rng.poisson(0.2, n) * 1.0, chain_late_share_52w=0.3,
        supplier_product_last_outcome=rng.choice([0.0, 1.0, nan], n), supplier_matured_lines_52w=matured_lines,
        supplier_late_share_52w=(rng.binomial(matured_lines, 0.3) + 8 * 0.3) / (matured_lines + 8),
        site_supplier_matured_lines_52w=0.0,
    )  # fmt: skip
    X["site_supplier_late_share_52w"] = X["supplier_late_share_52w"]
    kept = matured <= CUT
    return X[kept].reset_index(drop=True), y[kept], as_of[kept], matured[kept]


def outcomes(X, y, as_of, matured):
    """What is known of the lines at the cut: the late ones come within four weeks of the promise, the others before."""
    rng = np.random.default_rng(8)
    due = X["days_to_promise"].to_numpy(float)
    done = np.where(y == 1, due + rng.integers(1, 29, len(X)), np.floor(rng.random(len(X)) * (due + 1)))
    watched = (CUT - as_of) / np.timedelta64(1, "D")
    known = np.where(done < watched, done, nan)
    return pd.DataFrame(
        {"as_of": as_of, "matured_on": matured, "y": y, "due_in": due, "completed_in": known, "watched": watched},
        index=X.index,
    )


def fit(X, y, as_of, matured, **params):
    quick = {"rounds": 40, "threads": 1, "params": {"learning_rate": 0.1, "min_data_in_leaf": 60}}
    return DelayModel(**(quick | params)).fit(X, outcomes(X, y, as_of, matured), cut=CUT)


@pytest.fixture(scope="module", params=KINDS)
def learnt(request):
    return fit(*lines(2500), kind=request.param)


def test_rows_are_probabilities_that_sum_to_one(learnt):
    P = learnt.predict_proba(lines(300, seed=1)[0])
    assert P.shape[1] == 2
    assert ((P >= 0) & (P <= 1)).all()
    np.testing.assert_allclose(P.sum(axis=1), 1)
    assert set(learnt.predict(lines(300, seed=1)[0])) <= set(learnt.classes_)


def test_it_finds_what_drives_lateness(learnt):
    X, y, *_ = lines(1500, seed=1)
    p = learnt.predict_proba(X)[:, 1]
    base = np.full(len(y), y.mean())
    assert ((p - y) ** 2).mean() < 0.95 * ((base - y) ** 2).mean()
    assert abs(p.mean() - y.mean()) < 0.06


def test_the_order_of_rows_does_not_matter(learnt):
    X, *rest = lines(2500)
    shuffle = np.random.default_rng(5).permutation(len(X))
    told = outcomes(X, *rest)
    other = clone(learnt).fit(X.iloc[shuffle], told.iloc[shuffle], cut=CUT)
    assert other.calibrator_.to_dict() == learnt.calibrator_.to_dict()
    np.testing.assert_array_equal(other.predict_proba(X), learnt.predict_proba(X))


def test_more_threads_change_nothing(learnt):
    other = fit(*lines(2500), kind=learnt.kind, threads=2)
    X = lines(500, seed=1)[0]
    np.testing.assert_array_equal(other.predict_proba(X), learnt.predict_proba(X))


def test_a_saved_model_is_text_and_scores_the_same(learnt, tmp_path):
    X = lines(500, seed=1)[0]
    learnt.save(tmp_path / "model")
    assert {p.suffix for p in (tmp_path / "model").iterdir()} == {".lgb", ".json"}
    for file in (tmp_path / "model").iterdir():
        file.read_text()
    json.loads((tmp_path / "model" / "model.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    again = DelayModel.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(X), learnt.predict_proba(X))
    np.testing.assert_array_equal(again.survival(X), learnt.survival(X))
    np.testing.assert_array_equal(again.contributions(X[:5]), learnt.contributions(X[:5]))
    assert again.get_params() == learnt.get_params()
    assert again.base_rate_ == learnt.base_rate_
    pd.testing.assert_frame_equal(again.usual_, learnt.usual_)
    known = learnt.usual_.dropna()
    assert len(known)
    assert ((known["low"] <= known["median"]) & (known["median"] <= known["high"])).all()


def test_text_columns_tell_and_unseen_values_are_no_error(learnt):
    X = pd.concat([lines(50)[0].iloc[:1]] * 4, ignore_index=True)
    p = learnt.predict_proba(X.assign(attribute_mode=["sea", "air", "zeppelin", None]))[:, 1]
    assert p[0] > p[1]
    assert p[2] == p[3]


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_lines_that_all_ended_alike_prove_neither_never_nor_always(outcome):
    X, y, *days = lines(900)
    p = fit(X, np.full(len(y), outcome), *days, rounds=80).predict_proba(X)[:, 1]
    assert np.abs(p - outcome).mean() < 0.15
    assert np.abs(p - outcome).min() >= 1 / (len(y) + 2) - 1e-12


@pytest.mark.parametrize("n", [0, 1, 5, 60])
def test_it_learns_what_little_there_is(n):
    X, y, *days = (a[:n] for a in lines(400))
    model = fit(X, y, *days)
    P = model.predict_proba(lines(20, seed=1)[0])
    assert ((P > 0) & (P < 1)).all()
    assert model.calibrator_.kind == "identity"
    if n == 0:
        assert (P == 0.5).all()
        assert model.base_rate_ == 0.5
    assert model.predict_proba(X.iloc[:0]).shape == (0, 2)


def test_a_level_is_not_corrected_twice(monkeypatch):
    """A level that rises in the calibration weeks is in the kept booster already: its map must not raise it again."""
    monkeypatch.setattr(calibration, "BINARY_CANDIDATES", (calibration.Platt(),))
    X, y, as_of, matured = lines(6000)
    recent = as_of >= CUT - np.timedelta64(13 * 7, "D")
    rng = np.random.default_rng(3)
    y = np.where(recent, np.maximum(y, rng.random(len(y)) < 0.3), y)
    model = fit(X, y, as_of, matured, kind="hazard")
    assert y[recent].mean() - y[~recent].mean() > 0.15
    assert model.calibrator_.kind != "identity"
    raw = model.parts_.hazard.late(model.encoder_.transform(X[recent]), Times.of(X[recent]))
    if model.steady_ is not None:
        raw = blend(raw, model.steady_.predict(delay_rule_rows(X[recent])), model.weight_)
    assert model.predict_proba(X[recent])[:, 1].mean() == pytest.approx(raw.mean(), abs=1e-3)


def test_calibration_looks_back_further_where_labels_are_waited_for_longer(monkeypatch):
    asked = []

    def split(*days, cut, weeks):
        asked.append(weeks)
        return calibration_split(*days, cut=cut, weeks=weeks)

    monkeypatch.setattr(delay, "calibration_split", split)
    X, y, as_of, matured = lines(1500)
    fit(X, y, as_of, matured, kind="direct", rounds=3)
    slow = as_of + 4 * (matured - as_of)
    kept = slow <= CUT
    fit(X[kept].reset_index(drop=True), y[kept], as_of[kept], slow[kept], kind="direct", rounds=3)
    usual, longer = asked
    assert usual == 13
    assert 26 < longer <= 104 // 3


def test_a_part_that_learns_noise_grows_fewer_trees():
    X, y, *days = lines(3000)
    noise = np.random.default_rng(1).permutation(y)
    greedy = {"lambda_l2": 0.0, "num_leaves": 60, "learning_rate": 0.3}
    whole = fit(X, y, *days, rounds=60, params={"learning_rate": 0.01}).rounds_
    short = fit(X, noise, *days, rounds=60, params=greedy).rounds_
    assert whole == {"hazard": 60, "direct": 40}
    assert short["direct"] < 40


def test_it_leans_on_the_regression_where_that_knows_more(tmp_path):
    """Lateness follows the supplier's record alone, plainly: the regression is right and the trees are noisy."""
    X, _, *days = lines(1500)
    rng = np.random.default_rng(0)
    share = np.clip(rng.beta(1, 2, len(X)), 0.02, 0.98)
    X = X.assign(supplier_matured_lines_52w=400.0, supplier_late_share_52w=(np.rint(400 * share) + 2.4) / 408)
    y = (rng.random(len(X)) < share) * 1.0
    model = fit(X, y, *days, kind="direct", rounds=150, params={"lambda_l2": 0.0, "num_leaves": 60})
    assert model.weight_ < 1
    model.save(tmp_path)
    np.testing.assert_array_equal(DelayModel.load(tmp_path).predict_proba(X), model.predict_proba(X))
    alone = fit(X.drop(columns="pushes"), y, *days, rounds=3)
    assert alone.weight_ == 1  # without what the regression reads the trees stand alone
    assert alone.steady_ is None


def test_the_curve_only_falls_and_meets_the_probability_at_the_promise(learnt):
    X = lines(200, seed=1)[0]
    X.loc[:9, "days_to_promise"] = [nan, -1, -200, nan, 500, 366, 365, 0, 1, 2]
    survival, p = learnt.survival(X), learnt.predict_proba(X)[:, 1]
    assert survival.shape == (len(X), LONGEST)
    assert (np.diff(survival, axis=1) <= 0).all()
    due = X["days_to_promise"].to_numpy(float)
    ahead = np.flatnonzero((due >= 0) & (due < LONGEST))
    np.testing.assert_allclose(survival[ahead, due[ahead].astype(int)], p[ahead])
    np.testing.assert_allclose(learnt.survival(X, np.full(len(X), 0.3))[ahead, due[ahead].astype(int)], 0.3)
    if learnt.kind == "hazard":
        assert p[0] == p[3] == pytest.approx(learnt.base_rate_)  # no promise to miss


def test_reasons_are_one_number_per_input_and_point_the_right_way(learnt):
    X = lines(400, seed=1)[0]
    shap = learnt.contributions(X)
    assert shap.shape == (len(X), len(learnt.encoder_.columns_))
    told = shap[:, learnt.encoder_.columns_.index("late_share")]
    known = X["late_share"].notna().to_numpy()
    assert np.corrcoef(told[known], X["late_share"][known])[0, 1] > 0.5


def test_lines_that_have_not_come_yet_teach_too():
    """Of recent lines nothing is judged yet, but they come at half the pace: the hazard sees it, the trees cannot."""
    rng = np.random.default_rng(4)
    n = 4000
    as_of = CUT - rng.integers(8, 200, n) * np.timedelta64(1, "D")
    new = as_of > CUT - np.timedelta64(60, "D")
    X = pd.DataFrame({"days_to_promise": np.full(n, 70.0), "new": new * 1.0}, dtype=np.float32)
    done, watched = rng.geometric(np.where(new, 0.01, 0.04)) - 1.0, (CUT - as_of) / np.timedelta64(1, "D")
    matured = as_of + np.timedelta64(70, "D")
    y = np.where(matured <= CUT, done > 70, nan)
    known = pd.DataFrame(
        {"as_of": as_of, "matured_on": matured, "y": y, "completed_in": np.where(done < watched, done, nan),
         "watched": watched}
    )  # fmt: skip
    assert not (new & ~np.isnan(y)).any()
    later = X[new][:1]
    p = {kind: fit_on(X, known, kind).predict_proba(later)[0, 1] for kind in ("hazard", "direct")}
    assert p["hazard"] > 2 * p["direct"]


def fit_on(X, known, kind):
    params = {"learning_rate": 0.1, "min_data_in_leaf": 60}
    return DelayModel(kind=kind, rounds=60, threads=1, params=params).fit(X, known, cut=CUT)


def test_an_unknown_kind_is_refused_in_a_sentence():
    X, y, *days = lines(60)
    with pytest.raises(ValueError, match="expected one of"):
        fit(X, y, *days, kind="magic")


def test_the_trees_do_not_hear_what_is_the_same_for_a_whole_day(learnt):
    assert "attribute_mode" in learnt.encoder_.columns_
    assert not [name for name in learnt.encoder_.columns_ if name.startswith(LEFT_OUT)]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), weight=st.sampled_from([0.0, 0.3, 1.0]))
def test_a_blend_lies_between_its_parts(seed, weight):
    a, b = np.random.default_rng(seed).uniform(0.01, 0.99, (2, 30))
    mixed = blend(a, b, weight)
    assert (mixed >= np.minimum(a, b) - 1e-12).all()
    assert (mixed <= np.maximum(a, b) + 1e-12).all()
    np.testing.assert_allclose(blend(a, b, 1.0), a)


def test_the_better_forecast_weighs_more():
    rng = np.random.default_rng(0)
    good, bad = rng.uniform(0.05, 0.95, (2, 2000))
    y = (rng.random(2000) < good) * 1.0
    assert choose_weight(good, bad, y) == 1.0
    assert choose_weight(bad, good, y) == 0.5


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), mean=st.floats(0.01, 0.99))
def test_at_level_moves_the_mean_and_keeps_the_order(seed, mean):
    p = np.random.default_rng(seed).uniform(0.01, 0.99, 50)
    moved = at_level(p, mean)
    assert moved.mean() == pytest.approx(mean, abs=1e-6)
    assert (np.argsort(moved) == np.argsort(p)).all()
    np.testing.assert_allclose(np.ptp(logit(moved) - logit(p)), 0, atol=1e-6)


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_a_level_that_no_shift_reaches_changes_nothing(mean):
    p = np.array([0.2, 0.4])
    np.testing.assert_array_equal(at_level(p, mean), p)


def test_scikit_learn_can_clone_and_set_it():
    model = DelayModel(rounds=3, params={"num_leaves": 4})
    assert clone(model).get_params() == model.get_params()
    assert (
        model.set_params(rounds=5, seed=11).get_params() | {}
        == DelayModel(rounds=5, seed=11, params={"num_leaves": 4}).get_params()
    )


def test_more_rows_than_asked_for_are_thinned_but_counted():
    X, y, *days = lines(1500)
    model = fit(X, y, *days, max_rows=300)
    assert model.base_rate_ == pytest.approx(y.mean())
    assert np.isfinite(model.predict_proba(X)).all()
