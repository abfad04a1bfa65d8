"""How far demand strays from its baseline by chance: a series' own record, shrunk towards its category's line."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import bottleneck as bn
import numpy as np
import pandas as pd

from features.core import ratio
from features.exact import NOBODY, Kept, Others, Shared, as_numbers, column_sums, exact_sums
from features.threads import pieces, side_by_side

SLOPE = 0.75  # of log σ on log Σb where a category is too small to show its own; 0.5 is pure chance, 1 pure percentages
FEWEST = 8  # matured errors before a series has a record, and series before a category has a line
MAD_VARIANCE = 1.35  # variance of log(1.4826·MAD) of n independent errors is about 1.35/n
TILE = 1_024
BIN = 17  # bits of a float32 that are dropped to put it into a bin: bins are 1/64 wide, by their power of two


@dataclass(frozen=True, slots=True)
class Groups:
    """The numbers, from 0, of each series' category, of `categories` that there are anywhere, and product."""

    category: np.ndarray
    product: np.ndarray
    categories: int


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """Errors of windows of `length` weeks as they matured, the baselines they were held against, and today's ones.

    Arrays [as_of, series], in pieces (`features.demand.piece_of`).
    """

    error: np.ndarray
    made: np.ndarray
    now: np.ndarray
    length: int


Noise = tuple[np.ndarray, np.ndarray]


def noise(pasts: Sequence[Past], groups: Groups, *, oldest: int, others: Others = NOBODY) -> list[Noise]:
    """Return φ [as_of, series] of each kind of window, and σ [as_of, series] by its record, missing before `oldest`.

    φ is what `over_dispersion` makes of the category. The record is 1.4826·MAD of matured errors, 52 origins, at least
    8, each stated at today's baseline along the category's line log σ = c0 + c1·log Σb, and shrunk towards that line by
    how little so few overlapping errors can tell; a series without record stands on the line.
    """
    records = [others.once(f"record {k}", partial(_records, past, oldest)) for k, past in enumerate(pasts)]
    made = partial(_of_categories, len(pasts), (len(pasts[0].error), groups.categories))
    told = others.told("records", lambda: _record_sums(pasts, records, groups), made)
    slopes = [told[f"slope {k}"][:, groups.category] for k in range(len(pasts))]
    scaled = []
    for k, past in enumerate(pasts):
        work = partial(_scaled_records, past, records.pop(0), slopes[k], oldest)
        scaled.append(others.once(f"scaled {k}", work)["scaled"])
        del work  # its record is of all series in all weeks, as what follows is
    centres = others.told("centres", lambda: {f"centre {k}": _centre_sums(x, groups) for k, x in enumerate(scaled)})
    out = []
    for k, past in enumerate(pasts):
        line, spread = _centre(centres[f"centre {k}"])
        sigma = _sigma(past, scaled[k], line[:, groups.category], spread, slopes[k], oldest)
        out.append((told[f"phi {k}"][:, groups.category], sigma))
    return out


def _record_sums(pasts: Sequence[Past], records: Sequence[Kept], groups: Groups) -> Shared:
    out: dict[str, Any] = {}
    for k, (past, record) in enumerate(zip(pasts, records, strict=True)):
        out[f"squares {k}"] = _squares(past, groups.category)
        out[f"slope {k}"] = _slope_sums(record["raw"], record["usual"], groups)
    return out


def _of_categories(kinds: int, shape: tuple[int, int], sums: Shared) -> Shared:
    """Return φ and the slope of every category, which are little next to the errors counted for them."""
    phi = {f"phi {k}": over_dispersion(sums[f"squares {k}"], shape) for k in range(kinds)}
    return phi | {f"slope {k}": category_slopes(sums[f"slope {k}"]) for k in range(kinds)}


def _squares(past: Past, category: np.ndarray) -> pd.Series:
    """Return how many squared errors over their baselines there are per category, week and bin."""
    labels, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for week, (error, made) in enumerate(zip(past.error, past.made, strict=True)):
        squared = (error**2 / np.maximum(made, 1)).astype(np.float32)
        there = ~np.isnan(squared)
        bins = squared[there].view(np.int32).astype(np.int64) >> BIN
        cell = category[there] * np.int64(len(past.error)) + week
        label, count = np.unique(cell << (32 - BIN) | bins, return_counts=True)
        labels.append(label)
        counts.append(count)
    label, count = np.concatenate(labels), np.concatenate(counts)
    order = np.argsort(label)
    return pd.Series(count[order], label[order])


def over_dispersion(squares: pd.Series, shape: tuple[int, int]) -> np.ndarray:
    """φ [as_of, category]: variance over mean of the category's matured errors, at least 1.

    Robust through the median of squares: that of a χ²₁ variable is 0.455, so median(D²/Σb)/0.455 estimates φ while
    shifts stay in the tail. `squares` counts them per category, week and bin; each bin stands for its middle.
    """
    weeks, categories = shape
    cell, bins = np.divmod(squares.index.to_numpy(np.int64), 1 << (32 - BIN))
    value = (bins << BIN | 1 << (BIN - 1)).astype(np.int32).view(np.float32).astype(float)
    upto = np.cumsum(squares.to_numpy(np.int64))
    per_week = np.full(categories * weeks, np.nan)
    some, first = np.unique(cell, return_index=True)
    if len(some):
        before = np.concatenate([[0], upto])[first]
        count = upto[np.append(first[1:], len(upto)) - 1] - before
        low, high = (np.searchsorted(upto, before + nth, side="right") for nth in ((count - 1) // 2, count // 2))
        per_week[some] = 0.5 * (value[low] + value[high])
    medians = np.ascontiguousarray(per_week.reshape(categories, weeks).T)
    smooth = bn.move_mean(medians, window=min(52, weeks), min_count=1, axis=0) / 0.455
    return np.maximum(np.nan_to_num(smooth, nan=1.0), 1.0)


def _log_size(made: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.nan_to_num(made), 1))


def _matured(past: Past) -> np.ndarray:
    """Return how many errors of the last 52 origins are known at each as-of."""
    known = (~np.isnan(past.error)).astype(float)
    return np.asarray(bn.move_sum(known, window=min(52, len(known)), min_count=1, axis=0)).astype(int)


def _records(past: Past, oldest: int) -> Kept:
    """Return `raw`, the log of 1.4826·MAD, and `usual`, the mean log Σb, of each as-of's matured errors.

    NaN with fewer than FEWEST.
    """
    raw, usual = np.full((2, *past.error.shape), np.nan)
    count, size = _matured(past), np.where(np.isnan(past.error), 0, _log_size(past.made))

    def work(some: slice) -> None:
        error = np.ascontiguousarray(past.error[:, some].T)
        for t in range(oldest, len(raw)):
            then, n = slice(max(t - 51, 0), t + 1), count[t, some]
            told = n >= FEWEST
            raw[t, some] = np.where(told, log_mad(error[:, then], n), np.nan)
            usual[t, some] = np.where(told, column_sums(size[then, some]) / np.maximum(n, 1), np.nan)

    side_by_side(work, pieces(raw.shape[1], TILE))
    return {"raw": raw, "usual": usual}


def _scaled_records(past: Past, record: Kept, slope: np.ndarray, oldest: int) -> Kept:
    """Return the records with each error stated at the series' usual size, less the category's slope up to there."""
    usual, count = record["usual"], _matured(past)
    out = np.full(usual.shape, np.nan)

    def work(some: slice) -> None:
        error, made = (np.ascontiguousarray(x[:, some].T) for x in (past.error, past.made))
        size = _log_size(made)
        for t in range(oldest, len(out)):
            then, mine, line = slice(max(t - 51, 0), t + 1), usual[t, some], slope[t, some]
            scale = mine[:, None] - size[:, then]
            scale *= line[:, None]
            scaled = np.exp(scale, out=scale)
            scaled *= error[:, then]
            out[t, some] = log_mad(scaled, count[t, some]) - line * mine

    side_by_side(work, pieces(past.error.shape[1], TILE))
    return {"scaled": out}


def _sigma(
    past: Past, mine: np.ndarray, line: np.ndarray, spread: np.ndarray, slope: np.ndarray, oldest: int
) -> np.ndarray:
    """Return each series' record shrunk to its category's line, at the size of today's baseline."""
    matured, today = _matured(past), _log_size(past.now)
    out = np.full(mine.shape, np.nan)
    for t in range(oldest, len(out)):
        several = np.maximum(matured[t], 1)
        uncertain = MAD_VARIANCE * past.length / several  # neighbouring windows share all but one week
        told = ~np.isnan(mine[t])
        trust = np.where(told, spread[t] / (spread[t] + uncertain), 0.0)
        out[t] = np.exp(trust * np.where(told, mine[t], 0.0) + (1 - trust) * line[t] + slope[t] * today[t])
    return out


def log_mad(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Log of 1.4826·median absolute deviation of every row, of which so many numbers are known; NaN of none."""
    ordered = np.sort(x, axis=1)  # NaN comes last; three times as fast as selection here
    away = np.subtract(x, _middle(ordered, known)[:, None], out=ordered)
    np.abs(away, out=away).sort(axis=1)
    return np.log(1.4826 * np.maximum(_middle(away, known), 1e-3))


def _middle(ordered: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Median of the numbers that are known, the first so many of every row."""
    row, last = np.arange(len(ordered)), ordered.shape[1] - 1
    return 0.5 * (ordered[row, np.maximum(known - 1, 0) // 2] + ordered[row, np.minimum(known // 2, last)])


# What series share --------------------------------------------------------------------------------------------------


def _sums_of(groups: Groups, known: np.ndarray, *values: np.ndarray) -> np.ndarray:
    """Return the exact sums [quantum, value, as_of, category] of where values are known, and of the values there."""
    parts = (known * 1.0, *(np.where(known, value, 0.0) for value in values))
    return np.stack([exact_sums(part, groups.category, groups.categories) for part in parts], axis=1)


def _slope_sums(y: np.ndarray, x: np.ndarray, groups: Groups) -> np.ndarray:
    return _sums_of(groups, ~np.isnan(y), x, y, x * x, x * y)


def category_slopes(sums: np.ndarray) -> np.ndarray:
    """Slope c1 [as_of, category] of log σ on log Σb, within [0.5, 1]; shrunk to SLOPE where few tell."""
    n, sx, sy, sxx, sxy = as_numbers(sums)
    n1 = np.maximum(n, 1)
    across, along = sxx - sx**2 / n1, sxy - sx * sy / n1
    return np.clip((along + FEWEST * SLOPE) / (across + FEWEST), 0.5, 1.0)


def _centre_sums(mine: np.ndarray, groups: Groups) -> np.ndarray:
    return _sums_of(groups, ~np.isnan(mine), mine, mine * mine)


def _centre(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each category's mean of log records [as_of, category], few shrunk to that of all, and how they truly
    spread around it [as_of]; missing where there is no record at all."""
    n, total, squares = as_numbers(sums)
    everyone = ratio(total.sum(axis=1), n.sum(axis=1))
    line = (total + FEWEST * everyone[:, None]) / (n + FEWEST)
    gap = (squares - 2 * line * total + line**2 * n).sum(axis=1)
    return line, np.clip(ratio(gap, n.sum(axis=1)) - 0.1, 0.02, 1.0)
