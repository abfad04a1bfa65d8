"""What demand would be without a shift: plan or seasonal baseline, and the noise to hold a deviation against."""

from collections.abc import Sequence
from dataclasses import dataclass

import bottleneck as bn
import numpy as np

from features.core import group_sum, moving_sum, ratio

WINDOWS = ((0, 4), (4, 4), (8, 5))  # (lead, length) in weeks after the as-of
SEASON_WEIGHT = 0.7  # how much of last year's movement is believed; the rest is that year's own accidents
INTERMITTENT = 1.32  # mean weeks between weeks with demand, Syntetos & Boylan (2005)


@dataclass(frozen=True, slots=True)
class Outlook:
    """Baselines of every series at every origin, and what past ones were off by; arrays [as_of, series].

    Per window: `units` Σb, `noise` σ, `error` the latest matured D as known at the row (baseline made lead + length
    weeks earlier), `z` that error over the noise of its own origin. `dispersion` is φ, `interval` the mean weeks
    between weeks with demand.
    """

    level: np.ndarray
    interval: np.ndarray
    dispersion: np.ndarray
    units: tuple[np.ndarray, ...]
    noise: tuple[np.ndarray, ...]
    error: tuple[np.ndarray, ...]
    z: tuple[np.ndarray, ...]


def outlook(
    units: np.ndarray,
    category: np.ndarray,
    plan: Sequence[np.ndarray | None] = (None, None, None),
    *,
    oldest: int = 0,
) -> Outlook:
    """Return the outlook of weekly `units` [as_of, series]; `category` numbers each series' category from 0.

    `plan` gives, per window, the plan in force at each origin, NaN where there is none. Noise is worked out for the
    last year before origin number `oldest` and later; what is older is missing.
    """
    oldest = max(oldest - 52 - max(map(sum, WINDOWS)), 0)
    interval = demand_interval(units)
    base = level(units, interval)
    season = season_index(units, category)
    parts = [_window(units, base, season[k][:, category], plan[k], k) for k in range(len(WINDOWS))]
    phi = [over_dispersion(error, made, category) for _, error, made in parts]
    noise = [_noise(parts[k][1], parts[k][0], phi[k], category, oldest) for k in range(len(WINDOWS))]
    z = [parts[k][1] / np.maximum(_back(noise[k], sum(WINDOWS[k])), 1e-9) for k in range(len(WINDOWS))]
    return Outlook(
        base, interval, phi[0], tuple(p[0] for p in parts), tuple(noise), tuple(p[1] for p in parts), tuple(z)
    )


def _back(x: np.ndarray, n: int) -> np.ndarray:
    out = np.full(x.shape, np.nan)
    out[n:] = x[:-n]
    return out


def demand_interval(units: np.ndarray) -> np.ndarray:
    """Mean weeks between weeks with demand, over the last 52 weeks since the series' first demand."""
    on = (units > 0).astype(float)
    seen = np.cumsum(np.maximum.accumulate(on, axis=0), axis=0)
    hits = bn.move_sum(on, window=min(52, len(on)), min_count=1, axis=0)
    return ratio(np.minimum(seen, 52), hits)


def level(units: np.ndarray, interval: np.ndarray) -> np.ndarray:
    """Robust recent weekly level: 13 weeks without their largest and smallest, 26 whole weeks where intermittent."""
    n = min(13, len(units))
    seen = np.cumsum(np.maximum.accumulate(units > 0, axis=0), axis=0)
    since = np.where(seen > 0, units, np.nan)  # weeks before the first demand say nothing of its level
    top, low = (move(since, window=n, min_count=1, axis=0) for move in (bn.move_max, bn.move_min))
    short = np.minimum(seen, 13)
    trimmed = ratio(moving_sum(units, 13) - top - low, short - 2)
    plain = ratio(moving_sum(units, 26), np.minimum(seen, 26))
    regular = (interval < INTERMITTENT) & (short >= 8)
    return np.where(regular, np.maximum(trimmed, 0), plain)


def season_index(units: np.ndarray, category: np.ndarray) -> list[np.ndarray]:
    """Per window, the sum of weekly season factors [as_of, category].

    A factor is how the category moved, one and two years ago, from the 13 weeks before the same origin to the same
    target week (five weeks' mean), its logarithm damped. It is 1 until the category is known for two years.
    """
    total = group_sum(units, category)
    begun = np.cumsum(np.maximum.accumulate(total > 0, axis=0), axis=0)
    base = bn.move_mean(total, window=min(13, len(total)), min_count=1, axis=0)
    smooth = bn.move_mean(total, window=min(5, len(total)), min_count=1, axis=0)
    out = []
    for lead, length in WINDOWS:
        factors = [_season_factor(smooth, base, begun, ahead) for ahead in range(lead + 1, lead + length + 1)]
        out.append(np.sum(factors, axis=0))
    return out


def _season_factor(smooth: np.ndarray, base: np.ndarray, begun: np.ndarray, ahead: int) -> np.ndarray:
    logs = []
    for year in (52, 104):
        moved = ratio(_back(smooth, year - ahead - 2), _back(base, year))
        known = (begun >= year + 13) & (begun >= 104)
        logs.append(np.where(known & (moved > 0), np.log(np.where(moved > 0, moved, 1)), np.nan))
    unknown = np.isnan(logs).all(axis=0)
    mean = bn.nanmean(np.where(unknown, 0, logs), axis=0)
    return np.exp(SEASON_WEIGHT * np.clip(mean, np.log(0.3), np.log(3)))


def _window(
    units: np.ndarray, base: np.ndarray, season: np.ndarray, plan: np.ndarray | None, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Σb at each origin, the latest matured D and the Σb that it was held against."""
    lead, length = WINDOWS[k]
    made = base * season
    if plan is not None:
        made = np.where(np.isnan(plan), made, plan)
    actual = np.full(units.shape, np.nan)
    if len(units) >= length:
        actual = bn.move_sum(units, window=length, axis=0)
    then = _back(made, lead + length)
    return made, actual - then, then


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


def _noise(error: np.ndarray, made: np.ndarray, phi: np.ndarray, category: np.ndarray, oldest: int) -> np.ndarray:
    """σ: the larger of the series' own MAD (≥ 8 matured errors of 52 origins) and √(φ·max(Σb, 1)).

    Series without 8 errors borrow their category's line log σ = c0 + c1·log Σb.
    """
    floor = np.sqrt(phi * np.maximum(np.nan_to_num(made), 1))
    own = 1.4826 * moving_mad(error, 52, 8, oldest)
    sigma = np.fmax(own, floor)
    return np.where(np.isnan(own), np.fmax(_borrowed(sigma, own, made, category), floor), sigma)


def moving_mad(x: np.ndarray, window: int, at_least: int, oldest: int = 0) -> np.ndarray:
    """Median absolute deviation of the last `window` rows; NaN with fewer than `at_least` values or before `oldest`."""
    out = np.full(x.shape, np.nan)
    for t in range(oldest, len(x)):
        block = np.ascontiguousarray(x[max(t - window + 1, 0) : t + 1].T)
        enough = (~np.isnan(block)).sum(axis=1) >= at_least
        if enough.any():
            mine = block[enough]
            out[t, enough] = bn.nanmedian(np.abs(mine - bn.nanmedian(mine, axis=1)[:, None]), axis=1)
    return out


def _borrowed(sigma: np.ndarray, own: np.ndarray, made: np.ndarray, category: np.ndarray) -> np.ndarray:
    x = np.log(np.maximum(np.nan_to_num(made), 1))
    y = np.where(np.isnan(own), np.nan, np.log(np.maximum(sigma, 1e-9)))
    ok = ~np.isnan(y)
    y = np.nan_to_num(y)
    parts = (ok * 1.0, ok * x, ok * y, ok * x * x, ok * x * y)
    n, sx, sy, sxx, sxy = (group_sum(part, category) for part in parts)
    spread = n * sxx - sx**2
    slope = np.clip(
        np.divide(n * sxy - sx * sy, spread, out=np.full(n.shape, 0.5), where=(n >= 8) & (spread > 1e-6)), 0, 1
    )
    start = np.divide(sy - slope * sx, n, out=np.full(n.shape, np.nan), where=n > 0)
    return np.exp(start[:, category] + slope[:, category] * x)
