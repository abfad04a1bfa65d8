"""When a line arrives: curves only fall, quantiles never cross, and a known hazard is found again."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hazard import BEGIN, END, LONGEST, QUANTILES, ArrivalModel, arrival_days, person_periods, tied_to

nan = np.nan
LAWS = settings(max_examples=30, deadline=None)


def snapshots(n, seed=0, daily=0.08):
    """Lines that complete each day with the same chance, watched for up to 120 days; due within 60, some without."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n)}, dtype=np.float32)
    due = np.where(rng.random(n) < 0.1, nan, rng.integers(-20, 60, n))
    done = rng.geometric(daily, n) - 1.0
    watched = rng.integers(0, 120, n).astype(float)
    return X, due, np.where(done < watched, done, nan), watched


def fit(X, due, done, watched, **params):
    model = ArrivalModel(**({"rounds": 20, "threads": 1} | params))
    return model.fit(X, due_in=due, completed_in=done, watched=watched)


@pytest.fixture(scope="module")
def learnt():
    return fit(*snapshots(3000), rounds=60)


def falls(survival):
    return (np.diff(survival, axis=1) <= 0).all() and (survival >= 0).all() and (survival <= 1).all()


def test_buckets_tile_the_days_ahead():
    assert BEGIN[0] == 0
    assert (BEGIN[1:] == END[:-1]).all()
    assert (END > BEGIN).all()
    assert END[-1] == LONGEST


@pytest.mark.parametrize("due", [5.0, 0.0, -40.0, 65.0, 364.0, 366.0, 5000.0, nan])
def test_a_curve_only_falls_wherever_the_promise_lies(learnt, due):
    X = snapshots(50, seed=1)[0]
    survival = learnt.survival(X, np.full(50, due))
    assert survival.shape == (50, LONGEST)
    assert falls(survival)


def test_a_known_hazard_is_found_again(learnt):
    X, due, *_ = snapshots(400, seed=1)
    survival = learnt.survival(X, due).mean(axis=0)
    for day in (0, 4, 10, 20):
        assert survival[day] == pytest.approx(0.92 ** (day + 1), abs=0.035)


def test_the_order_of_rows_and_threads_do_not_matter(learnt):
    X, *rest = snapshots(3000)
    shuffle = np.random.default_rng(4).permutation(len(X))
    other = fit(X.iloc[shuffle], *(a[shuffle] for a in rest), rounds=60, threads=2)
    np.testing.assert_array_equal(other.survival(X[:50], rest[0][:50]), learnt.survival(X[:50], rest[0][:50]))


def test_a_saved_model_is_text_and_draws_the_same_curves(learnt, tmp_path):
    learnt.save(tmp_path / "arrival")
    assert {p.suffix for p in (tmp_path / "arrival").iterdir()} == {".lgb", ".json"}
    X, due, *_ = snapshots(50, seed=1)
    np.testing.assert_array_equal(ArrivalModel.load(tmp_path / "arrival").survival(X, due), learnt.survival(X, due))


def test_where_nothing_was_watched_nothing_is_known_to_arrive():
    X, due, *_ = snapshots(30)
    model = fit(X, due, np.full(30, nan), np.zeros(30))
    survival = model.survival(X, due)
    assert (arrival_days(survival) == LONGEST).all()
    tied = arrival_days(tied_to(survival, np.full(30, 14.0), np.full(30, 0.3)))
    assert (tied[:, 2] == LONGEST).all()
    assert (tied[:, 1] <= 14).all()
    assert model.survival(X.iloc[:0], due[:0]).shape == (0, LONGEST)


# person-periods -----------------------------------------------------------------------------------------------------


def by_loop(done, watched):
    out = []
    for i, (c, w) in enumerate(zip(done, watched, strict=True)):
        c = np.inf if np.isnan(c) else max(c, 0)
        for b, (begin, end) in enumerate(zip(BEGIN, END, strict=True)):
            if c < begin or w < end:
                break
            out.append((i, b, c < end))
    return out


@LAWS
@given(st.lists(st.tuples(st.one_of(st.just(nan), st.integers(-5, 400)), st.integers(-10, 400)), max_size=20))
def test_person_periods_are_those_of_a_loop(lines):
    done, watched = (np.array([line[k] for line in lines], float) for k in (0, 1))
    row, bucket, hit = person_periods(done, watched)
    assert list(zip(row, bucket, hit, strict=True)) == by_loop(done, watched)


def test_a_line_teaches_until_it_completes_or_is_out_of_sight():
    done, watched = np.array([3.0, nan, nan, -2.0, 6.0]), np.array([40.0, 2.0, 0.0, 9.0, 7.0])
    row, bucket, hit = person_periods(done, watched)
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
    _, bucket, hit = person_periods(np.where(done < day, done, nan), np.full(n, day))
    daily = 0.02
    for b in np.unique(bucket):
        expected = 1 - (1 - daily) ** (END[b] - BEGIN[b])
        assert hit[bucket == b].mean() == pytest.approx(expected, abs=0.02)
    assert bucket.max() < np.searchsorted(BEGIN, 46)


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
    X = pd.DataFrame({"a": np.zeros(n)}, dtype=np.float32)
    due = rng.integers(0, 150, n).astype(float)
    done = np.maximum(due + rng.normal(0, 4, n).round(), 0)
    model = fit(X, due, done, np.full(n, 400.0), rounds=60)
    days = arrival_days(tied_to(model.survival(X[:1], [120.0]), np.array([120.0]), np.array([0.5])))
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
