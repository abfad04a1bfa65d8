"""Cut time the way production lives it: train on what had matured, test on what came after."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

MIN_TRAIN_ROWS = 200  # fewer rows train noise; the fold is left out instead


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One retraining: rows known at `cut` to learn from, rows of [test_start, test_end) to be judged on.

    Indices are positions in the arrays that were handed in, ascending.
    """

    cut: np.datetime64
    test_start: np.datetime64
    test_end: np.datetime64
    train_idx: np.ndarray
    test_idx: np.ndarray


def _days(days: ArrayLike) -> np.ndarray:
    return np.asarray(days).astype("datetime64[D]")


def _day(day: ArrayLike) -> np.datetime64:
    return np.datetime64(str(_days(day)), "D")


def walk_forward(
    as_of: ArrayLike,
    matured_at: ArrayLike,
    *,
    end: ArrayLike,
    folds: int = 3,
    fold_weeks: int = 13,
    min_train_rows: int = MIN_TRAIN_ROWS,
) -> tuple[Fold, ...]:
    """Return up to `folds` folds, oldest first, whose tests tile the last folds × fold_weeks weeks before `end`.

    Train: every row matured by the cut, whatever its outcome (matured_at ≤ cut; the label's wait is the purge gap).
    Test: as_of in [cut, next cut) and matured by `end`. A row that never matures (NaT) is in neither. Folds with fewer
    than `min_train_rows` train rows or without a test row are left out, so a short history gives fewer, or none.
    """
    as_of, matured_at, last = _days(as_of), _days(matured_at), _day(end)
    step = np.timedelta64(7 * fold_weeks, "D")
    cuts = [last - step * back for back in range(folds, 0, -1)]
    made = (_fold(as_of, matured_at, cut, cut + step, last) for cut in cuts)
    return tuple(f for f in made if len(f.train_idx) >= max(min_train_rows, 1) and len(f.test_idx))


def _fold(
    as_of: np.ndarray, matured_at: np.ndarray, cut: np.datetime64, next_cut: np.datetime64, end: np.datetime64
) -> Fold:
    train = matured_at <= cut
    test = (cut <= as_of) & (as_of < next_cut) & (matured_at <= end)
    return Fold(cut, cut, next_cut, np.flatnonzero(train), np.flatnonzero(test & ~train))


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
