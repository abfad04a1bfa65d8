"""Laws of the metrics: bounds, weight = repetition, row order, agreement with scikit-learn, silence on empty input."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from models import metrics as m

LAWS = settings(max_examples=40, deadline=None)
OF_Y_P = {
    "prevalence": lambda y, _, w=None: m.prevalence(y, w),
    "brier": m.brier,
    "brier_skill": lambda y, p, w=None: m.brier_skill(y, p, np.full(len(p), 0.3), w),
    "log_loss": m.log_loss,
    "ece": m.ece,
    "slope": m.calibration_slope,
    "intercept": lambda y, p, w=None: m.calibration_line(y, p, w)[0],
    "pr_auc": m.pr_auc,
    "lift": m.lift,
    "roc_auc": m.roc_auc,
    "pinball": lambda y, p, w=None: m.pinball(y, p, 0.9, w),
    "coverage": lambda y, p, w=None: m.coverage(y, p - 0.5, p + 0.3, w),
    "interval_width": lambda _, p, w=None: m.interval_width(p, p**0.5, w),
}
UNIT = ("prevalence", "brier", "ece", "pr_auc", "roc_auc", "coverage")
each_metric = pytest.mark.parametrize("metric", OF_Y_P.values(), ids=OF_Y_P.keys())


@st.composite
def forecasts(draw, min_size=0):
    """Rows of (y, p, weight): p on a coarse grid so that ties are common, whole weights including 0."""
    grid = st.sampled_from([0.0, 0.05, 0.2, 0.25, 0.5, 0.8, 0.999, 1.0])
    rows = draw(st.lists(st.tuples(st.booleans(), grid, st.integers(0, 3)), min_size=min_size, max_size=40))
    y, p, w = (np.array([row[i] for row in rows], dtype=float) for i in range(3))
    return y, p, w


def same(a, b):
    return a == pytest.approx(b, rel=1e-6, abs=1e-9, nan_ok=True)


@each_metric
@LAWS
@given(data=forecasts())
def test_weight_three_is_the_row_seen_three_times(metric, data):
    y, p, w = data
    times = w.astype(int)
    assert same(metric(y, p, w), metric(np.repeat(y, times), np.repeat(p, times)))


@each_metric
@LAWS
@given(data=forecasts(), seed=st.integers(0, 9))
def test_row_order_does_not_matter(metric, data, seed):
    y, p, w = data
    order = np.random.default_rng(seed).permutation(len(y))
    assert same(metric(y, p, w), metric(y[order], p[order], w[order]))


@pytest.mark.parametrize("name", UNIT)
@LAWS
@given(data=forecasts())
def test_shares_stay_between_nought_and_one(name, data):
    value = OF_Y_P[name](*data)
    assert math.isnan(value) or -1e-12 <= value <= 1 + 1e-12


@LAWS
@given(data=forecasts(min_size=2))
def test_scikit_learn_agrees(data):
    y, p, w = data
    if 0 < y @ w < w.sum():
        inside = np.clip(p, 1e-6, 1 - 1e-6)
        assert same(m.brier(y, p, w), np.average((p - y) ** 2, weights=w))
        assert same(m.log_loss(y, p, w), sk.log_loss(y, inside, sample_weight=w))
        assert same(m.pr_auc(y, p, w), sk.average_precision_score(y, p, sample_weight=w))
        assert same(m.roc_auc(y, p, w), sk.roc_auc_score(y, p, sample_weight=w))


@each_metric
@pytest.mark.parametrize(
    "y", [[], [0.0, 0.0], [1.0, 1.0], [0.0, math.nan]], ids=["none", "no late", "all late", "missing"]
)
def test_degenerate_input_is_quiet(metric, y):
    value = metric(np.array(y), np.full(len(y), 0.3))
    assert isinstance(value, float)
    assert not math.isinf(value)


@pytest.mark.parametrize(
    ("y", "p", "silent"),
    [
        ([], [], {"pr_auc", "brier", "ece", "roc_auc", "slope", "lift", "prevalence", "log_loss"}),
        ([0, 0, 0], [0.1, 0.2, 0.3], {"pr_auc", "roc_auc", "slope", "lift"}),
        ([1, 1, 1], [0.1, 0.2, 0.3], {"roc_auc", "slope"}),
        ([0, 1, 0], [0.3, 0.3, 0.3], {"slope"}),
        ([0, 0, 1], [0.1, 0.2, 0.3], {"slope"}),
    ],
    ids=["empty", "no positives", "all positives", "constant forecast", "separable"],
)
def test_a_metric_that_says_nothing_is_nan(y, p, silent):
    report = m.binary_report(np.array(y, dtype=float), np.array(p, dtype=float))
    assert {name for name, value in report.items() if math.isnan(value)} == silent
    assert report["n"] == len(y)
    assert report["positives"] == sum(y)


def test_report_keys_are_the_agreed_ones():
    agreed = ["pr_auc", "prevalence", "lift", "brier", "log_loss", "ece", "slope", "roc_auc", "n", "positives"]
    assert list(m.binary_report([0, 1], [0.2, 0.8])) == agreed


def test_metrics_worked_by_hand():
    y, p = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1])
    assert same(m.brier(y, p), (0.01 + 0.64 + 0.09 + 0.01) / 4)
    assert same(m.pr_auc(y, p), (1 + 2 / 3) / 2)
    assert same(m.roc_auc(y, p), 3 / 4)
    assert same(m.lift(y, p), (1 + 2 / 3) / 2 / 0.5)
    assert same(m.ece(y, p), (0.1 + 0.8 + 0.3 + 0.1) / 4)
    assert same(m.brier_skill(y, p, np.full(4, 0.5)), 1 - 0.1875 / 0.25)
    assert same(m.pinball([10.0, 0.0], [8.0, 4.0], 0.9), (0.9 * 2 + 0.1 * 4) / 2)
    assert m.crossings([[1, 2, 3], [1, 3, 2], [2, 2, 2]]) == 1


def test_quantile_report_of_a_known_band():
    y, q = np.arange(10.0), np.tile([0.5, 4.5, 8.5], (10, 1))
    report = m.quantile_report(y, q)
    assert same(report["coverage"], 0.8)
    assert same(report["nominal"], 0.8)
    assert same(report["width"], 8.0)
    assert report["crossings"] == 0


def world(n=6000, seed=0):
    """Calibrated forecasts over 40 weeks and 60 suppliers."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 6, n)
    return (rng.random(n) < p).astype(float), p, rng.integers(0, 40, n), rng.integers(0, 60, n)


def test_calibration_line_finds_the_distortion_that_was_put_in():
    y, p, *_ = world(40_000)
    assert m.calibration_slope(y, p) == pytest.approx(1, abs=0.06)
    sharper = 1 / (1 + np.exp(-(2 * np.log(p / (1 - p)) + 1)))
    intercept, slope = m.calibration_line(y, sharper)
    assert slope == pytest.approx(0.5, abs=0.04)
    assert intercept == pytest.approx(-0.5, abs=0.05)


def test_interval_holds_the_value_and_repeats_with_its_seed():
    y, p, weeks, suppliers = world()
    twice = [m.compare(y, p, {"climatology": np.full(len(y), 0.14)}, weeks, suppliers, n=60) for _ in range(2)]
    assert twice[0].equals(twice[1])
    for metric in ("pr_auc", "brier", "roc_auc", "slope", "log_loss", "bss_climatology"):
        low, value, high = twice[0].loc["model", [f"{metric}_lo", metric, f"{metric}_hi"]]
        assert low < value < high


def test_intervals_do_not_depend_on_row_order():
    y, p, weeks, suppliers = world(800)
    order = np.random.default_rng(1).permutation(len(y))
    rules = {"climatology": np.full(len(y), 0.14), "blunt": np.round(p, 1)}
    moved = {name: q[order] for name, q in rules.items()}
    a = m.compare(y, p, rules, weeks, suppliers, n=20)
    b = m.compare(y[order], p[order], moved, weeks[order], suppliers[order], n=20)
    assert np.allclose(a.to_numpy(float), b.to_numpy(float), equal_nan=True)


def test_blocks_widen_intervals_when_lines_of_a_supplier_share_a_fate():
    rng = np.random.default_rng(5)
    supplier, week = rng.integers(0, 30, 6000), rng.integers(0, 50, 6000)
    y = (rng.random(6000) < rng.beta(1, 3, 30)[supplier]).astype(float)

    def width(entities):
        low, high = m.block_bootstrap(lambda w: {"rate": m.prevalence(y, w)}, week, entities)["rate"]
        return high - low

    assert width(supplier) > 2 * width(np.arange(6000))


def test_rows_without_a_supplier_are_a_block_of_their_own():
    y, p, weeks, suppliers = world(600)
    named = np.array([f"s{s:02d}" for s in suppliers], dtype=object)
    gaps = np.where(suppliers == 59, None, named)
    both = [m.block_bootstrap(lambda w: {"brier": m.brier(y, p, w)}, weeks, e, n=20) for e in (named, gaps)]
    assert both[0] == both[1]


def test_compare_states_skill_against_every_rule():
    y, p, weeks, suppliers = world(1500)
    rules = {"climatology": np.full(len(y), y.mean()), "blunt": np.round(p, 1)}
    table = m.compare(y, p, rules, weeks, suppliers, n=10)
    assert list(table.index) == ["model", "climatology", "blunt"]
    assert same(table.loc["model", "bss_blunt"], m.brier_skill(y, p, rules["blunt"]))
    assert same(table.loc["blunt", "bss_climatology"], m.brier_skill(y, rules["blunt"], rules["climatology"]))
    for name, q in {"model": p, **rules}.items():
        expected = m.binary_report(y, q)
        assert same({k: table.loc[name, k] for k in expected}, expected)
    assert set(table["n"]) == {1500}


@pytest.mark.parametrize("n", [0, 1, 3])
def test_compare_is_quiet_on_next_to_nothing(n):
    y, p = np.zeros(n), np.full(n, 0.2)
    table = m.compare(y, p, {"climatology": p}, np.zeros(n), np.zeros(n))
    assert np.isnan(table.loc["model", "brier_lo"])
    assert table.loc["model", "n"] == n


def test_two_hundred_replicates_over_fifty_thousand_rows_are_quick():
    y, p, weeks, suppliers = world(50_000)
    begin = time.process_time()
    m.compare(y, p, {"climatology": np.full(len(y), 0.14), "blunt": np.round(p, 1)}, weeks, suppliers)
    assert time.process_time() - begin < 6  # 1.2 s measured; room for a busy machine


def test_lengths_that_differ_are_an_error():
    with pytest.raises(ValueError, match="one length"):
        m.brier([0, 1], [0.5])
    with pytest.raises(ValueError, match="one per row"):
        m.brier([0, 1], [0.5, 0.5], [1.0])
