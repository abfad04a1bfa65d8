"""Laws of the splits: nothing is learnt from the future, every matured row is judged at most once."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.splits import calibration_split

LAWS = settings(max_examples=150, deadline=None)
START = np.datetime64("2023-01-02")


@st.composite
def histories(draw):
    """(as_of, matured_at) of weekly rows; some mature long after, some never."""
    rows = draw(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 120), st.integers(0, 9)), max_size=60))
    as_of = START + np.array([7 * week for week, _, _ in rows], dtype="timedelta64[D]")
    matured_at = as_of + np.array([wait for _, wait, _ in rows], dtype="timedelta64[D]")
    matured_at[np.array([never == 0 for *_, never in rows], dtype=bool)] = np.datetime64("NaT", "D")
    return as_of, matured_at


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
