"""When a line arrives: curves only fall, quantiles never cross, and a known hazard is found again."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.arrivals import LONGEST, QUANTILES, arrival_days, tied_to
from models.hazard import (
    TAIL,
    Calendar,
    Hazard,
    Times,
    buckets,
    choose_grid,
    person_periods,
    thinned,
)

nan = np.nan
LAWS = settings(max_examples=30, deadline=None)
GRID = np.array([0, 1, 2, 3, 4, 5, 8, 11, 16, 21, 31, 46, 66, 91, 131, 181, 261, LONGEST])


def snapshots(n, seed=0, daily=0.08):
    """Lines that complete each day with the same chance, watched for up to 120 days; due within 60, some without."""
    rng = np.random.default_rng(seed)
    block = rng.normal(size=(n, 2)).astype(np.float32)
    due = np.where(rng.random(n) < 0.1, nan, rng.integers(-20, 60, n))
    times = Times(rng.integers(19_000, 19_400, n) * 1.0, rng.integers(0, 40, n) * 1.0, due)
    done = rng.geometric(daily, n) - 1.0
    watched = rng.integers(0, 120, n).astype(float)
    return block, times, np.where(done < watched, done, nan), watched


def fit(block, times, done, watched, **params):
    return Hazard(**({"rounds": 20, "threads": 1, "params": {"learning_rate": 0.08}} | params)).fit(
        block, times, done, watched
    )


@pytest.fixture(scope="module")
def learnt():
    return fit(*snapshots(3000), rounds=60)


def falls(survival):
    return (np.diff(survival, axis=1) <= 0).all() and (survival >= 0).all() and (survival <= 1).all()


@pytest.mark.parametrize("waits", [[], [nan], [0.0, 1.0], [1.0, 2.0, 2.0, 3.0], [180.0, 200.0, 240.0], [360.0, 9000.0]])
def test_the_grid_tiles_the_days_ahead_and_is_narrow_where_lines_arrive(waits):
    grid = choose_grid(np.array(waits))
    assert grid[0] == 0
    assert grid[-1] == LONGEST
    assert (np.diff(grid) >= 1).all()
    assert set(TAIL) <= set(grid)
    seen = np.clip([w for w in waits if not np.isnan(w)], 0, LONGEST - 1)
    if len(seen):
        assert np.diff(grid[(grid >= seen.min()) & (grid <= seen.max() + 1)]).max() <= 8


@LAWS
@given(st.lists(st.one_of(st.just(nan), st.integers(-30, 500)), max_size=20))
def test_buckets_tile_the_days_ahead_and_end_at_the_promise(due):
    row, begin, end = buckets(np.array(due, float), GRID)
    for i, day in enumerate(due):
        mine = row == i
        assert begin[mine][0] == 0
        assert end[mine][-1] == LONGEST
        assert (begin[mine][1:] == end[mine][:-1]).all()
        assert not 0 <= day < LONGEST or day + 1 in end[mine]


@pytest.mark.parametrize("due", [5.0, 0.0, -40.0, 65.0, 364.0, 366.0, 5000.0, nan])
def test_a_curve_only_falls_and_is_the_chance_to_be_late_at_the_promise(learnt, due):
    block, times, *_ = snapshots(50, seed=1)
    times = Times(times.as_of, times.age, np.full(50, due))
    survival, late = learnt.survival(block, times), learnt.late(block, times)
    assert survival.shape == (50, LONGEST)
    assert falls(survival)
    if np.isnan(due):
        assert np.isnan(late).all()
    else:
        expected = survival[:, int(min(due, LONGEST - 1))] if due >= 0 else 1.0
        np.testing.assert_allclose(late, expected, rtol=1e-6)


def test_a_known_hazard_is_found_again(learnt):
    block, times, *_ = snapshots(400, seed=1)
    survival = learnt.survival(block, times).mean(axis=0)
    for day in (0, 4, 10, 20):
        assert survival[day] == pytest.approx(0.92 ** (day + 1), abs=0.035)


def test_days_without_work_bring_nothing():
    """Nothing ever comes at a weekend: the curve learns it from the calendar, whatever the weekday of the as-of."""
    rng = np.random.default_rng(5)
    n = 4000
    as_of = rng.integers(19_000, 19_400, n)
    days = as_of[:, None] + np.arange(60)
    comes = (rng.random((n, 60)) < 0.25) & ((days + 3) % 7 < 5)
    times = Times(as_of * 1.0, np.zeros(n), np.full(n, 20.0))
    block = rng.normal(size=(n, 1)).astype(np.float32)
    model = fit(block, times, comes.argmax(axis=1) * 1.0, np.full(n, 60.0), rounds=80)
    survival = model.survival(block[:7], Times(np.arange(19_400.0, 19_407.0), np.zeros(7), np.full(7, 20.0)))
    hazard = 1 - survival[:, 1:4] / survival[:, :3]
    weekday = (np.arange(19_400, 19_407)[:, None] + np.arange(1, 4) + 3) % 7
    assert hazard[weekday >= 5].max() < 0.05
    assert hazard[weekday < 5].min() > 0.15


def test_threads_do_not_matter_and_a_saved_hazard_draws_the_same_curves(learnt, tmp_path):
    block, times, *_ = snapshots(50, seed=1)
    expected = learnt.survival(block, times)
    np.testing.assert_array_equal(fit(*snapshots(3000), rounds=60, threads=2).survival(block, times), expected)
    learnt.save(tmp_path / "hazard.lgb")
    again = Hazard(threads=1).load(tmp_path / "hazard.lgb", learnt.to_dict())
    np.testing.assert_array_equal(again.survival(block, times), expected)


def test_where_nothing_was_watched_nothing_is_known_to_arrive():
    block, times, *_ = snapshots(30)
    model = fit(block, times, np.full(30, nan), np.zeros(30))
    survival = model.survival(block, times)
    assert (arrival_days(survival) == LONGEST).all()
    tied = arrival_days(tied_to(survival, np.full(30, 14.0), np.full(30, 0.3)))
    assert (tied[:, 2] == LONGEST).all()
    assert (tied[:, 1] <= 14).all()
    assert model.survival(block[:0], times.take(slice(0))).shape == (0, LONGEST)
    assert model.late(block[:0], times.take(slice(0))).shape == (0,)


def test_the_calendar_counts_working_days():
    count = Calendar("DE").before
    day = {d: np.array([np.datetime64(d).astype("datetime64[D]").astype(float)]) for d in ("2024-12-23", "2024-12-30")}
    assert count(day["2024-12-30"]) - count(day["2024-12-23"]) == 3  # Christmas on a Wednesday and a Thursday
    assert Calendar("").before(day["2024-12-30"]) - Calendar("").before(day["2024-12-23"]) == 5
    assert np.isnan(count(np.array([nan]))).all()


# person-periods -----------------------------------------------------------------------------------------------------


def by_loop(due, done, watched):
    out = []
    for i, (p, c, w) in enumerate(zip(due, done, watched, strict=True)):
        c = np.inf if np.isnan(c) else max(c, 0)
        edges = sorted({*GRID.tolist(), *([p + 1] if 0 <= p < LONGEST else [])})
        for begin, end in pairwise(edges):
            if c < begin or w < end:
                break
            out.append((i, begin, end, c < end))
    return out


@LAWS
@given(
    st.lists(
        st.tuples(
            st.one_of(st.just(nan), st.integers(-5, 400)),
            st.one_of(st.just(nan), st.integers(-5, 400)),
            st.integers(-10, 400),
        ),
        max_size=20,
    )
)
def test_person_periods_are_those_of_a_loop(lines):
    due, done, watched = (np.array([line[k] for line in lines], float) for k in range(3))
    found = person_periods(due, done, watched, GRID)
    assert list(zip(*found, strict=True)) == by_loop(due, done, watched)


@pytest.mark.parametrize(("most", "left_out"), [(10**6, False), (4000, True)])
def test_thinned_periods_keep_every_arrival_and_weigh_as_much_as_all(most, left_out):
    hit = np.random.default_rng(0).random(10_000) < 0.1
    kept, weight = thinned(hit, most, seed=7)
    assert hit[kept].sum() == hit.sum()
    assert (len(kept) < len(hit)) == left_out
    assert len(kept) <= most * 1.05
    assert weight.sum() == pytest.approx(len(hit), rel=0.05)
    assert thinned(np.zeros(0, bool), 10, 7)[0].shape == (0,)


def test_a_line_teaches_until_it_completes_or_is_out_of_sight():
    done, watched = np.array([3.0, nan, nan, -2.0, 6.0]), np.array([40.0, 2.0, 0.0, 9.0, 7.0])
    row, bucket, _, hit = person_periods(np.full(5, nan), done, watched, GRID)
    assert bucket[row == 0].tolist() == [0, 1, 2, 3]
    assert hit[row == 0].tolist() == [False, False, False, True]
    assert bucket[row == 1].tolist() == [0, 1]
    assert not hit[row == 1].any()
    assert not (row == 2).any()
    assert hit[row == 3].tolist() == [True]  # posted late: it had come before the as-of
    assert bucket[row == 4].tolist() == [0, 1, 2, 3, 4]  # days 5 to 7 were watched in part only


def test_half_watched_buckets_do_not_make_arrivals_look_likelier():
    """Every line is watched up to the middle of a bucket; keeping only its arrivals would double their share."""
    rng = np.random.default_rng(0)
    n, day = 20_000, 55.0
    done = rng.geometric(0.02, n) - 1.0
    _, begin, end, hit = person_periods(np.full(n, nan), np.where(done < day, done, nan), np.full(n, day), GRID)
    daily = 0.02
    for b in np.unique(begin):
        length = end[begin == b][0] - b
        assert hit[begin == b].mean() == pytest.approx(1 - (1 - daily) ** length, abs=0.02)
    assert end.max() <= day


# tied to P(late) ----------------------------------------------------------------------------------------------------


def curves(n, seed, steep=1.0):
    rng = np.random.default_rng(seed)
    daily = rng.exponential(0.03 * steep, (n, LONGEST)) * rng.choice([0.01, 1, 20], (n, 1))
    return np.exp(np.maximum(-np.cumsum(daily, axis=1), -600))


@LAWS
@given(seed=st.integers(0, 999), steep=st.sampled_from([0.01, 1.0, 50.0]))
def test_a_tied_curve_meets_p_late_on_the_due_day_and_only_falls(seed, steep):
    rng = np.random.default_rng(seed)
    survival, due, p = (
        curves(30, seed, steep),
        rng.integers(0, LONGEST, 30).astype(float),
        rng.uniform(0.001, 0.999, 30),
    )
    tied = tied_to(survival, due, p)
    np.testing.assert_array_equal(tied[np.arange(30), due.astype(int)], p)
    assert falls(tied)
    np.testing.assert_allclose(tied_to(tied, due, p), tied, atol=1e-9)


@pytest.mark.parametrize(("due", "p"), [(nan, 0.2), (-3.0, 0.2), (LONGEST * 1.0, 0.2), (9.0, nan), (nan, nan)])
def test_a_curve_without_a_promise_ahead_or_without_p_stays_as_it_is(due, p):
    survival = curves(3, 0)
    np.testing.assert_array_equal(tied_to(survival, np.full(3, due), np.full(3, p)), survival)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_certainty_is_held_short_of_the_ends(p):
    tied = tied_to(curves(5, 0), np.full(5, 10.0), np.full(5, p))
    assert falls(tied)
    np.testing.assert_allclose(tied[:, 10], p, atol=1e-8)


def test_every_line_has_its_own_day():
    """A line due far ahead is expected around its promise, not evenly over the days before it."""
    rng = np.random.default_rng(2)
    n = 3000
    due = rng.integers(0, 150, n).astype(float)
    done = np.maximum(due + rng.normal(0, 4, n).round(), 0)
    block = np.zeros((n, 1), np.float32)
    model = fit(block, Times(np.full(n, 19_000.0), np.zeros(n), due), done, np.full(n, 400.0), rounds=150)
    asked = Times(np.array([19_000.0]), np.zeros(1), np.array([120.0]))
    days = arrival_days(tied_to(model.survival(block[:1], asked), asked.due, np.array([0.5])))
    assert days[0, 0] > 85
    assert days[0, 3] < 160


# quantiles ----------------------------------------------------------------------------------------------------------


@LAWS
@given(seed=st.integers(0, 999))
def test_quantiles_never_cross_and_are_the_first_day_that_reaches_them(seed):
    survival = curves(20, seed)
    days = arrival_days(survival)
    assert days.shape == (20, len(QUANTILES))
    assert (np.diff(days, axis=1) >= 0).all()
    for k, q in enumerate(QUANTILES):
        expected = [next((d for d in range(LONGEST) if s[d] <= 1 - q), LONGEST) for s in survival]
        assert days[:, k].tolist() == expected


@LAWS
@given(seed=st.integers(0, 9999), p=st.sampled_from([None, 0.1, 0.2, 0.5, 0.9, 0.0, 1.0, 1e-7, nan]))
def test_days_read_off_buckets_are_those_of_the_curves(learnt, seed, p):
    """Also where P(late) is the very level of a quantile, certain or unknown, and the promise is near, far or gone."""
    block, times, *_ = snapshots(40, seed)
    rng = np.random.default_rng(seed)
    due = np.where(rng.random(40) < 0.2, rng.choice([0, 1, 365, 366, 700, -1], 40), times.due)
    times, p = Times(times.as_of, times.age, due), rng.random(40) if p is None else np.full(40, p)
    expected = arrival_days(tied_to(learnt.survival(block, times), times.due, p))
    heard = []
    learnt.late_by(block, times, (None,), heard)
    for known in (heard, []):
        np.testing.assert_array_equal(learnt.arrivals(block, times, p, known), expected)


def test_curves_that_fall_to_nothing_or_hardly_at_all_have_their_days_too(learnt, monkeypatch):
    block, times, *_ = snapshots(60, 3)
    for raw in (-13.9, -5.0, 13.8):
        monkeypatch.setattr(learnt, "_trees", None)
        monkeypatch.setattr(learnt, "_predicted", lambda inputs, _, raw=raw: np.full(len(inputs), raw))
        p = np.linspace(0, 1, 60)
        expected = arrival_days(tied_to(learnt.survival(block, times), times.due, p))
        np.testing.assert_array_equal(learnt.arrivals(block, times, p, []), expected)
