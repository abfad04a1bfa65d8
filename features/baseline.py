"""What demand would be without a shift: plan or seasonal baseline with what is known ahead, and its noise."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import bottleneck as bn
import numpy as np

from features.core import back, ratio, steps_since_first
from features.events import Effects, Event, learn_effects, together
from features.exact import NOBODY, Others, as_numbers, column_sums, exact_sums
from features.moves import Move, move
from features.noise import Groups, Past, noise

Windows = tuple[tuple[int, int], ...]
WINDOWS: Windows = ((0, 4), (4, 4), (8, 5))  # (lead, length) in weeks after the as-of, unless the settings say so
SEASON_WEIGHT = 0.7  # how much of last year's movement is believed; the rest is that year's own accidents
INTERMITTENT = 1.32  # mean weeks between weeks with demand, Syntetos & Boylan (2005)


@dataclass(frozen=True, slots=True)
class Outlook:
    """Baselines of every series at every origin, and what past ones were off by; arrays [as_of, series].

    Per window: `units` Σb, `noise` σ, `error` the latest matured D as known at the row (baseline made lead + length
    weeks earlier), `z` that error over the noise of its own origin, `planned` the log of what known events add to Σb,
    `naive` the seasonal naive forecast and the spread of its errors.
    `recent` is the log of what events had added to the last four weeks. `dispersion` is φ, `interval` the mean weeks
    between weeks with demand. `move` tells how far regular series' last weeks stand from the year before them.
    """

    windows: Windows
    level: np.ndarray
    interval: np.ndarray
    dispersion: np.ndarray
    recent: np.ndarray
    units: tuple[np.ndarray, ...]
    noise: tuple[np.ndarray, ...]
    error: tuple[np.ndarray, ...]
    z: tuple[np.ndarray, ...]
    planned: tuple[np.ndarray, ...]
    naive: tuple[tuple[np.ndarray, np.ndarray], ...]
    move: Move


def outlook(
    units: np.ndarray,
    groups: Groups,
    plan: Sequence[np.ndarray | None] | None = None,
    *,
    windows: Windows = WINDOWS,
    events: Sequence[Event] = (),
    oldest: int = 0,
    piece: float = 1.0,
    others: Others = NOBODY,
) -> Outlook:
    """Return the outlook of weekly `units` [as_of, series]; `others` gives the sums over series of other partitions.

    `plan` gives, per window, the plan in force at each origin, NaN where there is none. `events` are what is known
    ahead. Noise is computed from a year before origin number `oldest` on; earlier it is missing. It is that of counts
    of a `piece` of so many units.
    """
    oldest = max(oldest - 52 - max(map(sum, windows)), 0)
    interval = others.once("interval", lambda: {"interval": demand_interval(units)})["interval"]
    horizon = max(lead + length for lead, length in windows)
    told = together(events, horizon) if events else None
    effects = _effects(units, interval, groups, told, others)
    base = others.once("level", lambda: {"level": level(units, interval, effects)})["level"]
    cleared = _cleared(units, effects)
    sums = others.told("cleared", lambda: {"cleared": exact_sums(cleared, groups.category, groups.categories)})
    shared = as_numbers(sums["cleared"])
    factors = (factor[:, groups.category] for factor in seasons(shared, horizon))
    made, planned = _sums(base, factors, effects, told, windows)
    made = [
        m if p is None else np.where(np.isnan(p), m, p) for m, p in zip(made, plan or [None] * len(made), strict=True)
    ]
    then = [back(m, lead + length) for m, (lead, length) in zip(made, windows, strict=True)]
    error = [_total(units, length) - t for t, (_, length) in zip(then, windows, strict=True)]
    pasts = [
        Past(e / piece, t / piece, m / piece, length)
        for e, t, m, (_, length) in zip(error, then, made, windows, strict=True)
    ]
    found = noise(pasts, groups, oldest=oldest, others=others)
    sigma = [
        piece * np.fmax(s, np.sqrt(phi * np.maximum(np.nan_to_num(past.now), 1)))
        for (phi, s), past in zip(found, pasts, strict=True)
    ]
    z = [error[k] / np.maximum(back(sigma[k], sum(windows[k])), 1e-9) for k in range(len(windows))]
    recent = _recent(units, effects)
    return Outlook(
        windows, base, interval, found[0][0], recent, tuple(made), tuple(sigma), tuple(error), tuple(z), tuple(planned),
        tuple(seasonal_naive(units, lead, length) for lead, length in windows),
        move(cleared, shared[:, groups.category] - cleared, interval < INTERMITTENT),
    )  # fmt: skip


def _total(units: np.ndarray, length: int) -> np.ndarray:
    if len(units) < length:
        return np.full(units.shape, np.nan)
    return np.asarray(bn.move_sum(units, window=length, axis=0))


def seasonal_naive(units: np.ndarray, lead: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the same window a year ago, the last weeks where a year is not known, and how far off that has been.

    The spread is the root mean square of its matured errors, 52 origins, at least 8.
    """
    total = _total(units, length)
    seen = steps_since_first(units > 0)
    year_ago = back(total, 52 - lead - length) if lead + length < 52 else total
    made = np.where((seen >= 52) & ~np.isnan(year_ago), year_ago, total)
    error = total - back(made, lead + length)
    enough = min(52, len(units))
    if enough < 8:
        return made, np.full(units.shape, np.nan)
    return made, np.sqrt(np.maximum(bn.move_mean(error**2, window=enough, min_count=8, axis=0), 0))


def demand_interval(units: np.ndarray) -> np.ndarray:
    """Mean weeks between weeks with demand, over the last 52 weeks since the series' first demand."""
    on = (units > 0).astype(float)
    seen = steps_since_first(on)
    hits = bn.move_sum(on, window=min(52, len(on)), min_count=1, axis=0)
    return ratio(np.minimum(seen, 52), hits)


def _effects(
    units: np.ndarray, interval: np.ndarray, groups: Groups, told: Iterator[np.ndarray] | None, others: Others
) -> Effects | None:
    """Learn what events do from the week just ended at every as-of, the first that `told` yields."""
    if told is None:
        return None
    past = next(told)
    beta = others.once(
        "beta", lambda: {"beta": learn_effects(units, past, groups, interval < INTERMITTENT, others)}
    )["beta"]  # fmt: skip
    return Effects(beta, past, bn.move_mean(past, window=min(52, len(past)), min_count=1, axis=0))


def _cleared(units: np.ndarray, effects: Effects | None) -> np.ndarray:
    """Weekly units without what events added, as learnt by the week's end."""
    if effects is None:
        return units
    return np.stack([units[t] * np.exp(-effects.of_past(t, 1)[0]) for t in range(len(units))])


def level(units: np.ndarray, interval: np.ndarray, effects: Effects | None = None) -> np.ndarray:
    """Robust recent weekly level: 13 weeks without their largest and smallest, 26 whole weeks where intermittent.

    What events added to those weeks, as learnt by the as-of, is taken off first.
    """
    seen = steps_since_first(units > 0)
    out = np.full(units.shape, np.nan)
    for t in range(len(units)):
        block = units[max(t - 25, 0) : t + 1]
        if effects is not None:
            block = block * np.exp(-effects.of_past(t, 26))
        out[t] = _one_level(block, seen[t], interval[t])
    return out


def _one_level(block: np.ndarray, seen: np.ndarray, interval: np.ndarray) -> np.ndarray:
    since = np.arange(len(block) - 1, -1, -1)[:, None] < seen  # weeks before the first demand say nothing of its level
    short = block[-13:]
    top = short.max(axis=0)
    low = np.where(since[-13:], short, np.inf).min(axis=0)
    n = np.minimum(seen, 13)
    regular = (interval < INTERMITTENT) & (n >= 8)
    trimmed = ratio(column_sums(short) - np.where(regular, top + low, 0), n - 2)
    return np.where(regular, np.maximum(trimmed, 0), ratio(column_sums(block), np.minimum(seen, 26)))


def seasons(total: np.ndarray, horizon: int) -> Iterator[np.ndarray]:
    """Yield, for each of `horizon` weeks after the as-of, its season factor [as_of, category].

    `total` are the category's weekly units. A factor is how they moved, one and two years ago, from the 13 weeks before
    the same origin to the same target week (five weeks' mean), its logarithm damped. It is 1 until they are known for
    two years.
    """
    begun = steps_since_first(total > 0)
    base = bn.move_mean(total, window=min(13, len(total)), min_count=1, axis=0)
    smooth = bn.move_mean(total, window=min(5, len(total)), min_count=1, axis=0)
    for ahead in range(1, horizon + 1):
        yield _season_factor(smooth, base, begun, ahead)


def _season_factor(smooth: np.ndarray, base: np.ndarray, begun: np.ndarray, ahead: int) -> np.ndarray:
    logs = []
    for year in (52, 104):
        moved = ratio(back(smooth, year - ahead - 2), back(base, year))
        known = (begun >= year + 13) & (begun >= 104)
        logs.append(np.where(known & (moved > 0), np.log(np.where(moved > 0, moved, 1)), np.nan))
    unknown = np.isnan(logs).all(axis=0)
    mean = bn.nanmean(np.where(unknown, 0, logs), axis=0)
    return np.exp(SEASON_WEIGHT * np.clip(mean, np.log(0.3), np.log(3)))


def _sums(
    base: np.ndarray, season: Iterator[np.ndarray], effects: Effects | None, told: Iterator[np.ndarray] | None,
    windows: Windows,
) -> tuple[list[np.ndarray], list[np.ndarray]]:  # fmt: skip
    """Return Σb of every window, and the log of what events add to it."""
    made = [np.zeros(base.shape) for _ in windows]
    plain = made if effects is None else [np.zeros(base.shape) for _ in windows]
    for ahead, factor in enumerate(season, start=1):
        week = usually = base * factor
        if effects is not None and told is not None:
            week = usually * np.exp(effects.of(next(told)))
        for k, (lead, length) in enumerate(windows):
            if lead < ahead <= lead + length:
                made[k] += week
                if effects is not None:
                    plain[k] += usually
    if effects is None:
        return made, [np.broadcast_to(0.0, base.shape)] * len(windows)
    return made, [np.log(np.where(p > 0, m, 1) / np.where(p > 0, p, 1)) for m, p in zip(made, plain, strict=True)]


def _recent(units: np.ndarray, effects: Effects | None) -> np.ndarray:
    if effects is None:
        return np.broadcast_to(0.0, units.shape)
    return np.stack([np.log(np.exp(effects.of_past(t, 4)).mean(axis=0)) for t in range(len(units))])
