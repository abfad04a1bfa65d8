"""Laws of the calibrators: monotone, inside [0, 1], text round trip, blind to row order, and they repair."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from models import calibration as c
from models import metrics as m

LAWS = settings(max_examples=40, deadline=None)
BINARY = (c.Identity, c.Platt, c.Beta, c.Isotonic)
PARAMETRIC = (c.Platt, c.Beta)
each_binary = pytest.mark.parametrize("calibrator", BINARY, ids=lambda k: k.kind)


@st.composite
def rows(draw):
    """(p, y) of up to 60 rows, ends of the scale included."""
    p = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
    drawn = draw(st.lists(st.tuples(p, st.booleans()), max_size=60))
    return tuple(np.array([row[i] for row in drawn], dtype=float) for i in range(2))


@each_binary
@LAWS
@given(data=rows())
def test_the_map_is_monotone_and_bounded(calibrator, data):
    p, y = data
    out = calibrator().fit(p, y).transform(np.linspace(0, 1, 101))
    assert np.isfinite(out).all()
    assert (np.diff(out) >= -1e-12).all()
    assert out.min() >= 0
    assert out.max() <= 1


@each_binary
@LAWS
@given(data=rows())
def test_text_round_trip_changes_no_bit(calibrator, data):
    p, y = data
    fitted = calibrator().fit(p, y)
    again = c.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert type(again) is calibrator
    assert again.to_dict() == fitted.to_dict()
    assert np.array_equal(again.transform(p), fitted.transform(p))


@pytest.mark.parametrize("calibrator", PARAMETRIC, ids=lambda k: k.kind)
@LAWS
@given(data=rows(), seed=st.integers(0, 9))
def test_row_order_is_nothing(calibrator, data, seed):
    p, y = data
    order = np.random.default_rng(seed).permutation(len(p))
    shuffled = calibrator().fit(p[order], y[order])
    assert np.allclose(calibrator().fit(p, y).transform(p), shuffled.transform(p), atol=1e-6)


def distorted(n, *, seed=0, slope=2.0, shift=1.0):
    """Forecasts whose logit is slope·truth + shift, over 26 weeks."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-1.5, 1, n)
    y = (rng.random(n) < expit(z)).astype(float)
    return expit(slope * z + shift), y, np.sort(rng.integers(0, 26, n))


@pytest.mark.parametrize("calibrator", [c.Platt, c.Beta, c.Isotonic], ids=lambda k: k.kind)
def test_a_distorted_forecast_is_repaired_on_new_rows(calibrator):
    p, y, _ = distorted(8000)
    p_new, y_new, _ = distorted(8000, seed=1)
    repaired = calibrator().fit(p, y).transform(p_new)
    assert m.ece(y_new, repaired) < 0.02 < m.ece(y_new, p_new)
    assert m.brier(y_new, repaired) < m.brier(y_new, p_new)
    assert m.calibration_slope(y_new, repaired) == pytest.approx(1, abs=0.1)


def test_platt_undoes_the_distortion():
    fitted = c.Platt().fit(*distorted(40_000)[:2])
    assert (fitted.a_, fitted.c_) == pytest.approx((0.5, -0.5), abs=0.05)


def test_a_reversed_forecast_is_flattened_not_turned_round():
    p, y, _ = distorted(3000)
    for calibrator in PARAMETRIC:
        out = calibrator().fit(1 - p, y).transform([0.1, 0.9])
        assert out == pytest.approx([y.mean()] * 2, abs=0.01)


def test_isotonic_never_says_never():
    fitted = c.Isotonic().fit([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])
    assert fitted.transform([0, 1]).tolist() == pytest.approx([1 / 6, 5 / 6])


def test_logistic_agrees_with_scikit_learn():
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(400, 2)), rng.integers(1, 4, 400).astype(float)
    y = (rng.random(400) < expit(x @ [1.0, -2.0] + 0.5)).astype(float)
    ours = c.fit_logistic(np.column_stack([np.ones(400), x]), w * y, w)
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x, y, sample_weight=w)
    assert ours == pytest.approx(np.r_[theirs.intercept_, theirs.coef_[0]], abs=1e-5)


def test_missing_labels_are_refused():
    with pytest.raises(ValueError, match="matured"):
        c.Platt().fit([0.1, 0.2], [0, np.nan])
    with pytest.raises(ValueError, match="lengths differ"):
        c.Platt().fit([0.1, 0.2], [0])


# choose -------------------------------------------------------------------------------------------------------------


def test_choose_leaves_a_calibrated_forecast_alone():
    kinds = [c.choose(*distorted(3000, seed=s, slope=1, shift=0)).kind for s in range(6)]
    assert kinds.count("identity") >= 5


def test_choose_repairs_a_distorted_one_with_the_simplest_map_that_does():
    kinds = [c.choose(*distorted(5000, seed=s)).kind for s in range(4)]
    assert set(kinds) <= {"platt", "beta"}
    assert kinds.count("platt") >= 3


def test_choose_bends_where_no_line_fits():
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    y = rng.random(20_000) < np.where(p < 0.5, 0.05, np.where(p < 0.9, 0.4, 0.45))
    assert c.choose(p, y, np.sort(rng.integers(0, 26, 20_000))).kind == "isotonic"


@pytest.mark.parametrize("late", [0, 5])
def test_choose_changes_nothing_on_thin_data(late):
    y = np.r_[np.ones(late), np.zeros(500)]
    assert c.choose(np.full(len(y), 0.4), y, np.arange(len(y)) % 20).kind == "identity"


def test_choose_takes_no_more_than_platt_on_little_data():
    p, y, weeks = distorted(5000)
    few = np.flatnonzero(y)[:40]
    kept = np.sort(np.r_[few, np.flatnonzero(y == 0)])
    assert c.choose(p[kept], y[kept], weeks[kept]).kind in {"identity", "platt"}


def test_choose_does_not_depend_on_row_order_or_touch_its_candidates():
    p, y, weeks = distorted(3000)
    order = np.random.default_rng(2).permutation(len(p))
    candidates = (c.Identity(), c.Platt())
    a, b = c.choose(p, y, weeks, candidates), c.choose(p[order], y[order], weeks[order], candidates)
    assert np.allclose(a.transform(p), b.transform(p))
    assert not hasattr(candidates[1], "a_")


def test_choose_on_nothing():
    assert c.choose([], [], []).kind == "identity"


# three classes ------------------------------------------------------------------------------------------------------


def three_classes(n, *, seed=0):
    """Overconfident rows of (down, steady, up) and what came true."""
    rng = np.random.default_rng(seed)
    z = rng.normal([0, 1.5, -0.5], 1, (n, 3))
    truth = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    y = (rng.random(n)[:, None] > truth.cumsum(axis=1)).sum(axis=1)
    sharp = np.exp(2 * z + [0.5, 0, 0])
    return sharp / sharp.sum(axis=1, keepdims=True), y, np.sort(rng.integers(0, 26, n))


@pytest.mark.parametrize("scaling", ["none", "temperature", "vector"])
def test_rows_of_classes_sum_to_one_and_survive_text(scaling):
    P, y, _ = three_classes(400)
    P[0] = [0, 0, 1]
    fitted = c.MultiCalibrator(scaling).fit(P, np.array(["down", "steady", "up"])[y])
    out = fitted.transform(P)
    assert np.allclose(out.sum(axis=1), 1, atol=1e-12)
    assert (out > 0).all()
    again = c.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert np.array_equal(again.transform(P), out)
    if scaling == "none":
        assert np.allclose(out, P, atol=1e-5)


def test_three_classes_are_repaired_on_new_rows():
    P, y, weeks = three_classes(9000, seed=2)
    P_new, y_new, _ = three_classes(6000, seed=1)
    out = c.choose(P, y, weeks).transform(P_new)
    for k in range(3):
        assert m.ece(y_new == k, out[:, k]) < 0.03 < m.ece(y_new == k, P_new[:, k])
        assert m.calibration_slope(y_new == k, out[:, k]) == pytest.approx(1, abs=0.1)


def test_an_absent_class_or_no_rows_do_not_break_the_map():
    P, y, _ = three_classes(200)
    for kept in (y == 1, np.zeros(200, dtype=bool)):
        out = c.MultiCalibrator().fit(P[kept], y[kept]).transform(P)
        assert np.isfinite(out).all()
    assert c.MultiCalibrator().fit(P, y).transform(P[:0]).shape == (0, 3)


def test_a_strange_class_is_refused():
    with pytest.raises(ValueError, match="sideways"):
        c.MultiCalibrator().fit([[0.2, 0.3, 0.5]], ["sideways"])


def test_unknown_kind_is_named():
    with pytest.raises(ValueError, match="spline"):
        c.from_dict({"kind": "spline"})
