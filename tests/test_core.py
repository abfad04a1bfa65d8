"""The windows every feature is made of, by table and by law."""

import bottleneck as bn
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from features import core
from features.core import Feature

nan = np.nan


def panel(*columns, step_days=7):
    return core.given(np.array(columns, float).T, step_days)


def column(x):
    return x.values[:, 0].tolist()


@pytest.mark.parametrize(
    ("formula", "given", "expected"),
    [
        (lambda x: core.past_sum(x, 2), [1, 2, 4, 8], [1, 3, 6, 12]),
        (lambda x: core.past_sum(x, 9), [1, 2, 4, 8], [1, 3, 7, 15]),
        (lambda x: core.past_sum(x, 2), [1, nan, 4, 8], [1, 1, 4, 12]),
        (lambda x: core.past_mean(x, 2), [0, 4, 2, 0, 0], [nan, 4, 3, 1, 0]),
        (lambda x: core.past_mean(x, 4), [0, 4, 2, 0, 0], [nan, 4, 3, 2, 1.5]),
        (lambda x: core.past(bn.move_max, x, 2), [1, 5, 2, 2], [1, 5, 5, 2]),
        (lambda x: core.past(bn.move_max, x, 99, 3), [1, 5, 2, 2], [nan, nan, 5, 5]),
        (lambda x: core.ago(x, 1), [1, 5, 2, 2], [nan, 1, 5, 2]),
        (lambda x: core.ago(x, 99), [1, 5, 2, 2], [nan] * 4),
        (core.running, [1, 2, -3, 4], [1, 3, 0, 4]),
        (core.latest, [nan, 3, nan, 4], [nan, 3, 3, 4]),
        (core.weeks_since, [0, 2, 0, 0, 1], [nan, 0, 1, 2, 0]),
        (lambda x: core.share(x, x - 1), [3, 1, 0], [1.5, nan, nan]),
    ],
)
def test_window(formula, given, expected):
    np.testing.assert_array_equal(column(formula(panel(given))), expected)


def test_windows_are_as_long_in_days_whatever_the_step():
    assert core.steps(panel([1], step_days=1), 4) == 28
    assert core.steps(panel([1], step_days=28), 1) == 1
    assert column(core.weeks_since(panel([1, 0, 0], step_days=14))) == [0, 2, 4]


def test_windows_leave_their_input_alone():
    x = panel([1, nan, 3])
    for formula in (core.past_sum, core.past_mean, core.ago):
        formula(x, 2)
    np.testing.assert_array_equal(column(x), [1, nan, 3])


def test_zero_stays_zero_after_large_numbers():
    x = panel([1e15, 0.1, 0.2, 0, 0, 0])
    assert column(core.past_sum(x, 2))[-2:] == [0, 0]


WINDOWS = st.integers(1, 6)
SERIES = arrays(float, st.tuples(st.integers(1, 8), st.integers(0, 3)), elements=st.integers(0, 50).map(float))


@settings(deadline=None)
@given(SERIES, WINDOWS)
def test_a_moving_sum_is_the_sum_of_its_rows(values, n):
    expected = [values[max(t - n + 1, 0) : t + 1].sum(axis=0) for t in range(len(values))]
    np.testing.assert_array_equal(core.moving_sum(values, n), np.array(expected).reshape(values.shape))


@given(SERIES, WINDOWS, st.integers(0, 7))
def test_no_window_sees_a_later_row(values, weeks, cut):
    whole, cut = core.given(values, 7), min(cut, len(values) - 1)
    part = core.given(values[: cut + 1], 7)
    for formula in (core.past_sum, core.past_mean, core.ago, lambda x, _: core.weeks_since(x)):
        np.testing.assert_array_equal(formula(whole, weeks).values[: cut + 1], formula(part, weeks).values)


@given(SERIES, WINDOWS, st.integers(0, 7))
def test_a_row_asked_for_alone_is_that_of_all_rows(values, weeks, row):
    row = min(row, len(values) - 1)
    panel = core.given(values, 7)
    for formula in FORMULAS:
        whole, alone = formula(panel, weeks).values, formula(core.given(values, 7), weeks).at(row, row + 1)
        np.testing.assert_array_equal(alone, whole[row : row + 1])
        formula(panel, weeks).write(0, row + 1, written := np.zeros((row + 1, values.shape[1]), np.float32))
        np.testing.assert_array_equal(written, whole[: row + 1].astype(np.float32))


FORMULAS = (
    core.past_sum, core.past_mean, core.ago, lambda x, n: core.past_std(x * 0.1, n, 2),
    lambda x, n: core.past(bn.move_max, x, n), lambda x, n: core.past(bn.move_mean, x, n), lambda x, _: core.running(x),
    lambda x, _: core.weeks_since(x), lambda x, _: core.latest(x.where(x > 3)),
    lambda x, n: core.ago(core.share(core.past_sum(x, n), core.past_mean(1 - x.clip(0, 3), 2)), n),
)  # fmt: skip


@given(SERIES, WINDOWS, st.integers(0, 2), st.booleans())
def test_a_moving_spread_is_that_of_its_rows(values, n, ddof, holes):
    n += 2
    values = np.where(holes & (values < 5), nan, values)
    frame = pd.DataFrame(values.T / 7).T
    expected = frame.rolling(n, min_periods=ddof + 1).std(ddof=ddof)
    found = core.past_std(core.given(frame.to_numpy(float).reshape(values.shape), 7), n, ddof + 1, ddof).values
    np.testing.assert_allclose(found, expected.to_numpy(float).reshape(values.shape), rtol=1e-7, atol=1e-7)


def test_the_spread_of_what_stands_still_is_zero():
    for level in (3.0, 1 / 3, 1e7 / 3):
        assert column(core.past_std(panel([level] * 9), 4, 2))[1:] == [0] * 8


def test_a_feature_at_a_level_says_whose_it_is():
    mine = Feature("late_share_4w", len, "share", "Missed promises.", "on time {value}", "late share")
    there = mine.at("site_supplier", "supplier into this site")
    assert (there.name, there.family) == ("site_supplier_late_share_4w", "site_supplier late share")
    assert there.about == "supplier into this site: missed promises."
    assert there.say == "supplier into this site: on time {value}"


def test_names_from_outside_cannot_break_a_saying():
    odd = Feature("level", len, "", "Level.", "stands at {value}").at("signal", 'signal {0!r} "€"')
    assert odd.say.format(value=3) == 'signal {0!r} "€": stands at 3'


@pytest.mark.parametrize("formula", [core.past_sum, core.past_mean, core.past_std])
def test_a_column_does_not_show_what_its_neighbours_are(formula):
    steady = np.where(np.arange(120) % 40 == 7, 1_000_001.0, 1_000_000.0)  # whole, large and nearly the same
    other = np.linspace(0.1, 3.3, 120)
    alone, beside = (column(formula(panel(steady, neighbour), 8)) for neighbour in (steady, other))
    np.testing.assert_array_equal(alone, beside)
