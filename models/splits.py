"""Cut time the way production lives it: fit on what had matured, calibrate on what came after."""

import numpy as np
from numpy.typing import ArrayLike


def _days(days: ArrayLike) -> np.ndarray:
    return np.asarray(days).astype("datetime64[D]")


def _day(day: ArrayLike) -> np.datetime64:
    return np.datetime64(str(_days(day)), "D")


def calibration_split(
    as_of: ArrayLike, matured_at: ArrayLike, *, cut: ArrayLike, weeks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (fit_idx, calibration_idx) of the rows matured by `cut`: calibrate on its last `weeks` weeks.

    With start = cut − weeks: fit on matured_at ≤ start, calibrate on as_of ≥ start and matured_at ≤ cut. Rows asked
    before start but matured after it are in neither (their labels overlap the calibration weeks). `weeks` must exceed
    the label's wait, or the calibration rows are only the quickest to mature.
    """
    as_of, matured_at, day = _days(as_of), _days(matured_at), _day(cut)
    start = day - np.timedelta64(7 * weeks, "D")
    fit = matured_at <= start
    return np.flatnonzero(fit), np.flatnonzero((as_of >= start) & (matured_at <= day) & ~fit)
