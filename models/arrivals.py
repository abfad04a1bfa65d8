"""On which day is a line expected? Read off buckets of days; daily curves are made only where rounding decides."""

from collections.abc import Callable

import numpy as np

LONGEST = 366  # days ahead that the curve is drawn; a line not expected by then has this as its day
LEAST_LOG = -600.0  # S stays a number that can be divided by
QUANTILES = (0.1, 0.5, 0.8, 0.9)
CLOSE = 1e-11  # of a logarithm: far more than rounding moves it, far less than a day does
NEVER, SURE = 1e-9, 1 - 1e-9  # between them P(late) is held before a curve is bent to it


def tied_to(survival: np.ndarray, due_in: np.ndarray, p_late: np.ndarray) -> np.ndarray:
    """Return the curves bent so that S(due) = p_late where that is known; the shape before and after is kept.

    Before the due day S becomes S^a with a = log p_late / log S(due), after it S is scaled by p_late / S(due).
    """
    known = ~np.isnan(p_late) & (due_in >= 0) & (due_in < survival.shape[1])
    bent = survival.copy()
    S, day, p = survival[known], due_in[known].astype(int)[:, None], np.clip(p_late[known], NEVER, SURE)[:, None]
    at_due = np.clip(np.take_along_axis(S, day, axis=1), np.exp(LEAST_LOG), 1 - 1e-12)
    days = np.arange(survival.shape[1])
    before, after = np.maximum(S ** (np.log(p) / np.log(at_due)), p), np.minimum(S * (p / at_due), p)
    curve = np.where(days < day, before, after)
    np.put_along_axis(curve, day, p, axis=1)
    bent[known] = np.minimum.accumulate(curve, axis=1)
    return bent


def arrival_days(survival: np.ndarray) -> np.ndarray:
    """Return, per row and level of QUANTILES, the first day by whose end the line has arrived with that probability."""
    return np.column_stack([(survival > 1 - q).sum(axis=1) for q in QUANTILES]).astype(float)


def days_by_bucket(
    kept: np.ndarray, begin: np.ndarray, end: np.ndarray, due: np.ndarray, p_late: np.ndarray,
    draw: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:  # fmt: skip
    """Return the `arrival_days` of curves `tied_to` p_late [row, level], without drawing them.

    `kept` [row, bucket] is log(1 − h), 0 where a bucket is empty; log S falls by the same every day of a bucket, so the
    day is found by a division in logarithms. `draw` gives the curves of rows whose day that leaves open.
    """
    known = ~np.isnan(p_late) & (due >= 0) & (due < LONGEST)
    log_s, day = np.cumsum(kept, axis=1), np.where(known, due, -1.0)
    until_due = np.where(end <= day[:, None] + 1, kept, 0.0).sum(axis=1)
    at_due, p = np.maximum(until_due, LEAST_LOG), np.clip(np.where(known, p_late, 0.5), NEVER, SURE)
    out, open_ = np.empty((len(kept), len(QUANTILES))), np.zeros(len(kept), bool)
    for k, q in enumerate(QUANTILES):
        late = np.log1p(-q)  # S falls below 1 − q where its logarithm, bent back, falls below this
        before = known & (p <= 1 - q)
        bent = np.where(before, late * at_due / np.log(p), late + at_due - np.log(p))
        found, close = _first_day(log_s, kept, begin, end, np.where(known, bent, late))
        out[:, k] = np.where(before, np.minimum(found, due), found)
        open_ |= close & ~(before & (found > due))
    if open_.any():
        rows = np.flatnonzero(open_)
        out[rows] = arrival_days(tied_to(draw(rows), due[rows], p_late[rows]))
    return out


def _first_day(
    log_s: np.ndarray, kept: np.ndarray, begin: np.ndarray, end: np.ndarray, least: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first day by whose end log S has fallen to `least`, LONGEST without one, and whether that is close."""
    slack = CLOSE * (1 + np.abs(least))
    fallen = log_s <= (least + slack)[:, None]
    bucket = np.where(fallen[:, -1], fallen.argmax(axis=1), kept.shape[1] - 1)
    row = np.arange(len(kept))
    first, length = begin[row, bucket], end[row, bucket] - begin[row, bucket]
    daily = kept[row, bucket] / np.maximum(length, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        days = (least - (log_s[row, bucket] - kept[row, bucket])) / daily
        close = ~(np.abs(days - np.rint(days)) * -daily > slack)
    found = np.where(fallen[:, -1], first + np.maximum(np.ceil(days), 1) - 1, LONGEST)
    drawn_to = least < LEAST_LOG + 1  # the curve is flat there
    return found, (close & fallen[:, -1]) | (drawn_to & fallen[:, -1])
