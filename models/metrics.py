"""How good are the probabilities? Proper scores, calibration, ranking and their block-bootstrap intervals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from models.calibration import P_FLOOR, fit_logistic, logit

# Every metric takes an optional weight with one meaning: weight 3 is the row seen three times. Inputs on which a metric
# says nothing (no rows, no positives, one forecast value, a missing y or p) give nan, never an error or a warning.

ECE_BINS = 15


@dataclass(frozen=True, slots=True, eq=False)
class Ladder:
    """All a metric of (y, p) needs: the distinct forecasts, ascending, with the weight and the positive weight on each.

    Seen through it, rows of equal p are one step, so no metric depends on row order or on how ties are broken.
    """

    p: np.ndarray
    total: np.ndarray
    positive: np.ndarray

    @property
    def negative(self) -> np.ndarray:
        return self.total - self.positive


def ladders(y: ArrayLike, p: ArrayLike) -> Callable[[np.ndarray], Ladder]:
    """Return the function from row weights to the ladder of (y, p); the sort is paid once."""
    y, p = np.asarray(y, dtype=float), np.asarray(p, dtype=float)
    if y.shape != p.shape or y.ndim != 1:
        raise ValueError(f"y has shape {y.shape} and p {p.shape}; give two 1-d arrays of one length")
    if not (np.isfinite(y).all() and np.isfinite(p).all()):
        return lambda _: Ladder(np.empty(0), np.empty(0), np.empty(0))
    steps, step = np.unique(p, return_inverse=True)

    def weigh(weight: np.ndarray) -> Ladder:
        total = np.bincount(step, weight, minlength=len(steps))
        return Ladder(steps, total, np.bincount(step, weight * y, minlength=len(steps)))

    return weigh


def _ladder(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None) -> Ladder:
    return ladders(y, p)(_weights(weight, len(np.asarray(y))))


def _weights(weight: ArrayLike | None, n: int) -> np.ndarray:
    weight = np.ones(n) if weight is None else np.asarray(weight, dtype=float)
    if len(weight) != n:
        raise ValueError(f"weight has {len(weight)} entries for {n} rows; give one per row")
    return weight


def _ratio(above: Any, below: Any) -> float:
    return float(above / below) if below > 0 else float("nan")


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """Return Σ a·b on one thread: BLAS splits long dot products and waited 8 ms for a busy core, this takes 0.03 ms."""
    return float(np.einsum("i,i->", a, b))


# Formulas over one ladder -------------------------------------------------------------------------------------------


def _prevalence(s: Ladder) -> float:
    return _ratio(s.positive.sum(), s.total.sum())


def _brier(s: Ladder) -> float:
    return _ratio(dot(s.positive, (1 - s.p) ** 2) + dot(s.negative, s.p**2), s.total.sum())


def _log_loss(s: Ladder) -> float:
    p = np.clip(s.p, P_FLOOR, 1 - P_FLOOR)
    return _ratio(-dot(s.positive, np.log(p)) - dot(s.negative, np.log1p(-p)), s.total.sum())


def _ece(s: Ladder) -> float:
    mass = s.total.sum()
    if not mass > 0:
        return float("nan")
    middle = (np.cumsum(s.total) - s.total / 2) / mass
    bin_of = np.minimum((ECE_BINS * middle).astype(int), ECE_BINS - 1)
    return float(np.abs(np.bincount(bin_of, s.positive - s.p * s.total)).sum() / mass)


def _pr_auc(s: Ladder) -> float:
    hits, flagged = np.cumsum(s.positive[::-1]), np.cumsum(s.total[::-1])
    precision = np.divide(hits, flagged, out=np.zeros(len(hits)), where=flagged > 0)
    return _ratio(dot(s.positive[::-1], precision), s.positive.sum())


def _roc_auc(s: Ladder) -> float:
    negative = s.negative
    below = np.cumsum(negative) - negative / 2
    return _ratio(dot(s.positive, below), s.positive.sum() * negative.sum())


def _line(s: Ladder, start: np.ndarray | None = None) -> np.ndarray:
    """Return (intercept, slope) of the logistic regression of y on logit p."""
    nothing = np.full(2, np.nan)
    kept = s.total > 0
    x, total, positive = logit(s.p[kept]), s.total[kept], s.positive[kept]
    late, on_time = x[positive > 0], x[total - positive > 1e-12 * total]
    if not len(late) or not len(on_time) or x[-1] - x[0] < 1e-9:
        return nothing
    if late.min() >= on_time.max() or late.max() <= on_time.min():
        return nothing
    return fit_logistic(np.column_stack([np.ones(len(x)), x]), positive, total, start=start)


# Public metrics -----------------------------------------------------------------------------------------------------


def prevalence(y: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the share of positives: the PR-AUC of a forecaster that knows nothing."""
    return _prevalence(_ladder(y, np.zeros(len(np.asarray(y))), weight))


def brier(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return mean (p − y)² (Brier 1950)."""
    return _brier(_ladder(y, p, weight))


def brier_skill(y: ArrayLike, p: ArrayLike, ref: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return BSS = 1 − BS/BS_ref: 0 is no better than the reference forecast `ref`, 1 is perfect."""
    return _skill(brier(y, p, weight), brier(y, ref, weight))


def brier_skills(y: ArrayLike, p: ArrayLike, ref: ArrayLike) -> Callable[[np.ndarray], float]:
    """Return the function from row weights to `brier_skill`; what does not depend on them is paid once."""
    mine, theirs = ladders(y, p), ladders(y, ref)
    return lambda weight: _skill(_brier(mine(weight)), _brier(theirs(weight)))


def _skill(score: float, reference: float) -> float:
    return 1 - _ratio(score, reference)


def log_loss(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return mean −ln(probability given to what happened), p held inside [1e-6, 1 − 1e-6]."""
    return _log_loss(_ladder(y, p, weight))


def ece(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the expected calibration error Σ_b share_b·|mean y − mean p| over equal-mass bins (Naeini et al. 2015).

    Equal forecasts share one bin, so a forecaster of few values has few bins. Noise alone gives about
    √(2·bins·p(1 − p)/(π·n)), never 0: compare forecasters on the same rows only.
    """
    return _ece(_ladder(y, p, weight))


def calibration_line(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> tuple[float, float]:
    """Return (intercept, slope) of the unpenalised logistic regression of y on logit p (Cox 1958).

    (0, 1) is calibrated; a slope below 1 says the forecasts are too extreme. One class, one forecast value or perfect
    separation give nan.
    """
    intercept, slope = _line(_ladder(y, p, weight))
    return float(intercept), float(slope)


def calibration_slope(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the slope of `calibration_line`."""
    return calibration_line(y, p, weight)[1]


def pr_auc(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return average precision Σ (R_k − R_{k−1})·P_k over distinct thresholds, without interpolation."""
    return _pr_auc(_ladder(y, p, weight))


def lift(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return PR-AUC over prevalence."""
    steps = _ladder(y, p, weight)
    return _ratio(_pr_auc(steps), _prevalence(steps))


def roc_auc(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the probability that a positive outranks a negative, ties counting half."""
    return _roc_auc(_ladder(y, p, weight))


def _mean(x: np.ndarray, weight: ArrayLike | None) -> float:
    weight = _weights(weight, len(x))
    return _ratio(dot(weight, x), weight.sum())


def pinball(y: ArrayLike, q: ArrayLike, level: float, weight: ArrayLike | None = None) -> float:
    """Return mean max(level·(y − q), (level − 1)·(y − q)) (Koenker & Bassett 1978), in the unit of y."""
    off = np.asarray(y, dtype=float) - np.asarray(q, dtype=float)
    return _mean(np.maximum(level * off, (level - 1) * off), weight)


def coverage(y: ArrayLike, low: ArrayLike, high: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the share of rows with low ≤ y ≤ high."""
    y, low, high = (np.asarray(x, dtype=float) for x in (y, low, high))
    inside = np.where(np.isfinite(y) & np.isfinite(low) & np.isfinite(high), (low <= y) & (y <= high), np.nan)
    return _mean(inside, weight)


def interval_width(low: ArrayLike, high: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return mean high − low, in the unit of the quantiles."""
    return _mean(np.asarray(high, dtype=float) - np.asarray(low, dtype=float), weight)


def crossings(quantiles: ArrayLike) -> int:
    """Return the number of rows of (n, levels) whose quantiles decrease somewhere."""
    return int((np.diff(np.asarray(quantiles, dtype=float), axis=1) < 0).any(axis=1).sum())


# Reports ------------------------------------------------------------------------------------------------------------


def _report(s: Ladder) -> dict[str, float]:
    ap, rate = _pr_auc(s), _prevalence(s)
    return {
        "pr_auc": ap,
        "prevalence": rate,
        "lift": _ratio(ap, rate),
        "brier": _brier(s),
        "log_loss": _log_loss(s),
        "ece": _ece(s),
        "slope": float(_line(s)[1]),
        "roc_auc": _roc_auc(s),
    }


def binary_report(y: ArrayLike, p: ArrayLike) -> dict[str, float]:
    """Return every metric of a probability forecast by name, with the number of rows (n) and of positives."""
    y = np.asarray(y, dtype=float)
    return {**_report(_ladder(y, p, None)), "n": len(y), "positives": int((y == 1).sum())}


def quantile_report(
    y: ArrayLike, quantiles: ArrayLike, levels: tuple[float, ...] = (0.1, 0.5, 0.9)
) -> dict[str, float]:
    """Return mean pinball loss, coverage and width of the outermost band, and crossings, of quantiles (n, levels)."""
    q = np.asarray(quantiles, dtype=float)
    losses = [pinball(y, q[:, i], level) for i, level in enumerate(levels)]
    return {
        "pinball": float(np.mean(losses)),
        "coverage": coverage(y, q[:, 0], q[:, -1]),
        "nominal": levels[-1] - levels[0],
        "width": interval_width(q[:, 0], q[:, -1]),
        "crossings": crossings(q),
        "n": len(q),
    }


# Intervals ----------------------------------------------------------------------------------------------------------


def block_bootstrap(
    statistics: Callable[[np.ndarray], Mapping[str, float]],
    weeks: ArrayLike,
    entities: ArrayLike,
    *,
    n: int = 200,
    seed: int = 7,
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of every statistic, by name, under resampling of weeks and of entities.

    `statistics` maps row weights to values. Each replicate draws the weeks with replacement and, independently, the
    entities; a row weighs week count × entity count: the pigeonhole bootstrap (Owen 2007). It keeps both dependences,
    among lines of one supplier and of one week, which resampling week × supplier cells would break; it errs on the
    wide side. One week and one entity, or a statistic that is nan in half of the replicates: (nan, nan).
    """
    week, n_weeks = _codes(weeks)
    entity, n_entities = _codes(entities)
    if n_weeks < 2 and n_entities < 2:
        return dict.fromkeys(statistics(np.ones(len(week))), (float("nan"), float("nan")))
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(n):
        week_count = rng.multinomial(n_weeks, np.full(n_weeks, 1 / n_weeks))
        entity_count = rng.multinomial(n_entities, np.full(n_entities, 1 / n_entities))
        draws.append(dict(statistics(1.0 * week_count[week] * entity_count[entity])))
    return {name: _middle_95([draw[name] for draw in draws]) for name in draws[0]}


def _codes(labels: ArrayLike) -> tuple[np.ndarray, int]:
    codes, known = pd.factorize(np.asarray(labels), sort=True, use_na_sentinel=False)
    return codes, len(known)


def _middle_95(values: list[float]) -> tuple[float, float]:
    finite = np.array([v for v in values if np.isfinite(v)])
    if len(finite) * 2 < len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def compare(
    y: ArrayLike,
    p: ArrayLike,
    rules: Mapping[str, ArrayLike],
    weeks: ArrayLike,
    entities: ArrayLike,
    *,
    seed: int = 7,
    n: int = 200,
) -> pd.DataFrame:
    """Return one row per forecaster (`model`, then the rules) with every metric and skill, and intervals.

    Columns: those of `binary_report`, `bss_<rule>` (climatology among the rules: it must be the one knowable at the
    time), and `<metric>_lo`, `<metric>_hi`. All forecasters share each replicate, so differences are paired. ECE and
    prevalence carry no interval: resampling adds to ECE the very noise it measures.
    """
    y = np.asarray(y, dtype=float)
    once = np.ones(len(y))
    weigh = {name: ladders(y, q) for name, q in {"model": p, **rules}.items()}
    whole = {name: f(once) for name, f in weigh.items()}
    counts = {"n": len(y), "positives": int((y == 1).sum())}
    table = pd.DataFrame({name: {**_report(s), **counts} for name, s in whole.items()}).T
    table = table.astype({"n": int, "positives": int})
    lines = {name: _line(s) for name, s in whole.items()}

    def statistics(w: np.ndarray) -> dict[str, float]:
        return _paired({name: f(w) for name, f in weigh.items()}, tuple(rules), lines)

    for key, value in statistics(once).items():
        name, metric = key.split("\t")
        table.loc[name, metric] = value
    for key, (low, high) in block_bootstrap(statistics, weeks, entities, n=n, seed=seed).items():
        name, metric = key.split("\t")
        table.loc[name, [f"{metric}_lo", f"{metric}_hi"]] = low, high
    return table.rename_axis("forecaster")


def _paired(
    steps: Mapping[str, Ladder], references: tuple[str, ...], lines: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Return `forecaster\\tmetric` → value for one weighting of the rows."""
    scores = {name: _brier(s) for name, s in steps.items()}
    values: dict[str, float] = {}
    for name, s in steps.items():
        start = lines[name] if np.isfinite(lines[name]).all() else None
        ap = _pr_auc(s)
        found = {"pr_auc": ap, "lift": _ratio(ap, _prevalence(s)), "roc_auc": _roc_auc(s), "brier": scores[name]}
        found |= {"log_loss": _log_loss(s), "slope": float(_line(s, start)[1])}
        found |= {f"bss_{rule}": _skill(scores[name], scores[rule]) for rule in references}
        values |= {f"{name}\t{metric}": value for metric, value in found.items()}
    return values
