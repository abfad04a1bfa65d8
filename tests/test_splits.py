"""Laws of the splits: nothing is learnt from the future, every matured row is judged at most once."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.splits import calibration_split, walk_forward

LAWS = settings(max_examples=150, deadline=None)
START = np.datetime64("2023-01-02")


@st.composite
def histories(draw):
    """(as_of, matured_at) of weekly rows; some mature long after, some never."""
    rows = draw(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 120), st.integers(0, 9)), max_size=60))
    as_of = START + np.array([7 * week for week, _, _ in rows], dtype="timedelta64[D]")
    matured_at = as_of + np.array([wait for _, wait, _ in rows], dtype="timedelta64[D]")
    matured_at[np.array([never == 0 for *_, never in rows], dtype=bool)] = np.datetime64("NaT")
    return as_of, matured_at


@LAWS
@given(
    data=histories(),
    weeks=st.integers(0, 100),
    folds=st.integers(1, 5),
    fold_weeks=st.integers(1, 20),
    least=st.integers(0, 9),
)
def test_walk_forward_never_looks_ahead(data, weeks, folds, fold_weeks, least):
    as_of, matured_at = data
    end = START + np.timedelta64(7 * weeks, "D")
    made = walk_forward(as_of, matured_at, end=end, folds=folds, fold_weeks=fold_weeks, min_train_rows=least)
    tested = np.concatenate([f.test_idx for f in made]) if made else np.empty(0, dtype=int)
    assert len(made) <= folds
    assert len(np.unique(tested)) == len(tested)
    assert (matured_at[tested] <= end).all()
    for f in made:
        assert (matured_at[f.train_idx] <= f.cut).all()
        assert (as_of[f.test_idx] >= f.cut).all()
        assert (as_of[f.test_idx] < f.test_end).all()
        assert f.test_end <= end
        assert not set(f.train_idx) & set(f.test_idx)
        assert len(f.train_idx) >= max(least, 1)
        assert len(f.test_idx)


@LAWS
@given(data=histories(), fold_weeks=st.integers(1, 10))
def test_every_matured_row_of_the_test_span_is_tested_and_every_known_one_trained_on(data, fold_weeks):
    as_of, matured_at = data
    end = START + np.timedelta64(7 * 90, "D")
    made = walk_forward(as_of, matured_at, end=end, folds=2, fold_weeks=fold_weeks, min_train_rows=1)
    for f in made:
        assert set(f.train_idx) == set(np.flatnonzero(matured_at <= f.cut))
        span = (as_of >= f.cut) & (as_of < f.test_end) & (matured_at > f.cut) & (matured_at <= end)
        assert set(np.flatnonzero(span)) == set(f.test_idx)


def test_folds_worked_by_hand():
    as_of = START + 7 * np.arange(12).astype("timedelta64[D]")
    made = walk_forward(as_of, as_of + np.timedelta64(14, "D"), end=as_of[-1], folds=2, fold_weeks=4, min_train_rows=1)
    assert [str(f.cut) for f in made] == ["2023-01-23", "2023-02-20"]
    assert [f.train_idx.tolist() for f in made] == [[0, 1], [0, 1, 2, 3, 4, 5]]
    assert [f.test_idx.tolist() for f in made] == [[3, 4, 5, 6], [7, 8, 9]]


def test_a_short_history_gives_fewer_folds_and_none_an_empty_tuple():
    as_of = np.repeat(START + 7 * np.arange(20).astype("timedelta64[D]"), 10)
    matured_at = as_of + np.timedelta64(7, "D")
    assert len(walk_forward(as_of, matured_at, end=as_of[-1], folds=3, fold_weeks=4, min_train_rows=100)) == 2
    assert walk_forward(as_of, matured_at, end=as_of[-1], folds=3, fold_weeks=13) == ()
    assert walk_forward(as_of[:0], matured_at[:0], end="2024-01-01") == ()


@LAWS
@given(data=histories(), weeks=st.integers(0, 40), cut=st.integers(0, 100))
def test_calibration_rows_are_asked_after_everything_fitted_was_known(data, weeks, cut):
    as_of, matured_at = data
    cut = START + np.timedelta64(7 * cut, "D")
    start = cut - np.timedelta64(7 * weeks, "D")
    fit, calibration = calibration_split(as_of, matured_at, cut=cut, weeks=weeks)
    assert (matured_at[fit] <= start).all()
    assert (as_of[calibration] >= start).all()
    assert (matured_at[calibration] <= cut).all()
    assert not set(fit) & set(calibration)
