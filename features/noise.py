"""How far demand strays from its baseline by chance: a series' own record, shrunk towards its category's line."""

import bottleneck as bn
import numpy as np

from features.core import group_sum

SLOPE = 0.75  # of log σ on log Σb where a category is too small to show its own; 0.5 is pure chance, 1 pure percentages
FEWEST = 8  # matured errors before a series has a record, and series before a category has a line
MAD_VARIANCE = 1.35  # variance of log(1.4826·MAD) of n independent errors is about 1.35/n


def over_dispersion(error: np.ndarray, made: np.ndarray, category: np.ndarray) -> np.ndarray:
    """φ: variance over mean of the category's matured errors, at least 1; robust through the median of squares.

    The median of a χ²₁ variable is 0.455, so median(D²/Σb)/0.455 estimates φ while shifts stay in the tail.
    """
    squared = error**2 / np.maximum(made, 1)
    per_week = np.full((len(error), category.max(initial=0) + 1), np.nan)
    for c in np.unique(category):
        per_week[:, c] = bn.nanmedian(squared[:, category == c], axis=1)
    smooth = bn.move_mean(per_week, window=min(52, len(error)), min_count=1, axis=0) / 0.455
    return np.maximum(np.nan_to_num(smooth, nan=1.0), 1.0)[:, category]


def noise(
    error: np.ndarray, made: np.ndarray, now: np.ndarray, phi: np.ndarray, category: np.ndarray, *, oldest: int,
    length: int,
) -> np.ndarray:  # fmt: skip
    """σ [as_of, series] of a window with baseline `now`: the larger of the record and √(φ·max(Σb, 1)).

    The record is 1.4826·MAD of matured errors (`error`, held against the baselines `made`), 52 origins, at least 8,
    each stated at today's baseline along the category's line log σ = c0 + c1·log Σb, and shrunk towards that line by
    how little so few overlapping errors can tell; a series without record stands on the line. Missing before `oldest`.
    """
    floor = np.sqrt(phi * np.maximum(np.nan_to_num(now), 1))
    sigma = np.full(error.shape, np.nan)
    size, today = (np.log(np.maximum(np.nan_to_num(b), 1)) for b in (made, now))
    for t in range(oldest, len(error)):
        first = max(t - 51, 0)
        sigma[t] = _one_day(error[first : t + 1], size[first : t + 1], today[t], category, length)
    return np.fmax(sigma, floor)


def _one_day(error: np.ndarray, size: np.ndarray, today: np.ndarray, category: np.ndarray, length: int) -> np.ndarray:
    count = (~np.isnan(error)).sum(axis=0)
    told = count >= FEWEST
    if not told.any():
        return np.full(error.shape[1], np.nan)
    usual = np.where(told, np.where(np.isnan(error), 0, size).sum(axis=0) / np.maximum(count, 1), np.nan)
    raw = np.full(len(told), np.nan)
    raw[told] = log_mad(error[:, told])
    slope = category_slope(raw, usual, category)
    scaled = error * np.exp(slope * (np.where(told, usual, 0) - size))  # each error as if at the series' usual size
    mine = np.full(len(told), np.nan)
    mine[told] = log_mad(scaled[:, told]) - (slope * usual)[told]
    line, spread = _centre(mine, category)
    uncertain = MAD_VARIANCE * length / np.maximum(count, 1)  # neighbouring windows share all but one week
    trust = np.where(told, spread / (spread + uncertain), 0.0)
    return np.exp(trust * np.where(told, mine, 0.0) + (1 - trust) * line + slope * today)


def log_mad(x: np.ndarray) -> np.ndarray:
    """Log of 1.4826·median absolute deviation of every column."""
    mine = np.ascontiguousarray(x.T)
    return np.log(1.4826 * np.maximum(_median(np.abs(mine - _median(mine)[:, None])), 1e-3))


def _median(x: np.ndarray) -> np.ndarray:
    """Median of every row without its missing values: by sorting, which is three times as fast as selection here."""
    ordered = np.sort(x, axis=1)  # NaN comes last
    n, row = (~np.isnan(ordered)).sum(axis=1), np.arange(len(x))
    return 0.5 * (ordered[row, np.maximum(n - 1, 0) // 2] + ordered[row, np.minimum(n // 2, x.shape[1] - 1)])


def category_slope(y: np.ndarray, x: np.ndarray, category: np.ndarray) -> np.ndarray:
    """Slope c1 [series] of log σ on log Σb in the series' category, within [0.5, 1]; shrunk to SLOPE where few tell."""
    ok = ~(np.isnan(y) | np.isnan(x))
    y, x = np.where(ok, y, 0.0), np.where(ok, x, 0.0)
    n, sx, sy, sxx, sxy = (group_sum(p[None], category)[0] for p in (ok * 1.0, x, y, x * x, x * y))
    n1 = np.maximum(n, 1)
    across, along = sxx - sx**2 / n1, sxy - sx * sy / n1
    slope = (along + FEWEST * SLOPE) / (across + FEWEST)
    return np.clip(slope, 0.5, 1.0)[category]


def _centre(mine: np.ndarray, category: np.ndarray) -> tuple[np.ndarray, float]:
    """Return each series' category's mean of log records, few shrunk to that of all, and how they truly spread."""
    ok = ~np.isnan(mine)
    y = np.where(ok, mine, 0.0)
    everyone = y.sum() / ok.sum()
    n, total = (group_sum(p[None], category)[0] for p in (ok * 1.0, y))
    line = ((total + FEWEST * everyone) / (n + FEWEST))[category]
    gap = np.where(ok, y - line, 0.0)
    return line, float(np.clip((gap**2).sum() / ok.sum() - 0.1, 0.02, 1.0))
