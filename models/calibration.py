"""A probability of 0.3 should come true three times in ten: maps from raw scores to probabilities that do."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit, logsumexp
from sklearn.base import BaseEstimator, clone
from sklearn.isotonic import IsotonicRegression

P_FLOOR = 1e-6  # nothing is surer than one in a million: keeps logits and logarithms finite
PRIOR_ROWS = 1.0  # precision of the normal prior that pulls parametric maps towards "change nothing"
MIN_EACH_CLASS = 50  # below it a free-form map fits noise
MIN_EACH_CLASS_PLATT = 15  # below it even two parameters do


def logit(p: ArrayLike) -> np.ndarray:
    """Return ln(p / (1 − p)) with p held inside [P_FLOOR, 1 − P_FLOOR]."""
    inside = np.clip(np.asarray(p, dtype=float), P_FLOOR, 1 - P_FLOOR)
    return np.log(inside) - np.log1p(-inside)


def fit_logistic(
    design: np.ndarray,
    positive: np.ndarray,
    total: np.ndarray,
    *,
    prior_mean: ArrayLike = 0.0,
    prior_precision: ArrayLike = 0.0,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Return β maximising Σ positive·ln μ + (total − positive)·ln(1 − μ) − ½Σ precision·(β − mean)², μ = expit(Xβ).

    Newton's method with a step halved while it overshoots (McCullagh & Nelder 1989, 2.5). A problem without a finite
    or unique answer (one class only, perfect separation, collinear columns, all without prior) gives NaNs.
    """
    mean = np.broadcast_to(np.asarray(prior_mean, dtype=float), design.shape[1])
    precision = np.broadcast_to(np.asarray(prior_precision, dtype=float), design.shape[1])

    def slope_at(beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mu = expit(design @ beta)
        return design.T @ (total * mu - positive) + precision * (beta - mean), mu

    beta = np.array(mean if start is None else start, dtype=float)
    gradient, mu = slope_at(beta)
    for _ in range(60):
        hessian = (design.T * (total * mu * (1 - mu))) @ design + np.diag(precision)
        try:
            step = -np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:
            break
        before = abs(gradient @ step)
        if not np.isfinite(before):
            break
        if np.abs(step).max() < 1e-9 * (1 + np.abs(beta).max()):
            return beta + step
        for _ in range(30):
            gradient, mu = slope_at(beta + step)
            if gradient @ step <= 0.1 * before:
                break
            step, before = step / 2, before / 2
        beta = beta + step
    return np.full(design.shape[1], np.nan)


def _arrays(p: ArrayLike, y: ArrayLike, weight: ArrayLike | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    p, y = np.asarray(p, dtype=float), np.asarray(y, dtype=float)
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=float)
    if len(p) != len(y) or len(weight) != len(y):
        raise ValueError(f"lengths differ: p {len(p)}, y {len(y)}, weight {len(weight)}; give one of each per row")
    if not (np.isfinite(p).all() and np.isfinite(y).all() and np.isfinite(weight).all()):
        raise ValueError("p, y or weight holds a missing value; calibrate on matured, scored rows only")
    return p, y, weight


class KeptAsText(BaseEstimator):
    """Parameters and fitted numbers are plain attributes, so a calibrator is its dict: JSON keeps floats exactly."""

    kind: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the calibrator as JSON values."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}
        return {"kind": self.kind, **plain}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Return the calibrator that `to_dict` described."""
        new = cls()
        for name, value in state.items():
            if name != "kind":
                setattr(new, name, value)
        return new


class Identity(KeptAsText):
    """p′ = p."""

    kind: ClassVar[str] = "identity"

    def fit(self, p: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:  # noqa: ARG002
        """Learn nothing."""
        return self

    def transform(self, p: ArrayLike) -> np.ndarray:
        """Return p as it came."""
        return np.array(p, dtype=float)


class Platt(KeptAsText):
    """logit p′ = a·logit p + c with a ≥ 0 and the prior a ~ N(1, 1), c ~ N(0, 1).

    Platt (1999) with logit p as the score. The prior weighs as much as about four rows at p = ½; it replaces Platt's
    smoothed targets and keeps a handful of rows from saying "never" or "always".
    """

    kind: ClassVar[str] = "platt"

    def fit(self, p: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit a and c on matured rows."""
        p, y, weight = _arrays(p, y, sample_weight)
        self.a_, self.c_ = _monotone_logistic(logit(p)[:, None], y, weight)
        return self

    def transform(self, p: ArrayLike) -> np.ndarray:
        """Return calibrated probabilities, in the order of p."""
        return expit(self.a_ * logit(p) + self.c_)


class Beta(KeptAsText):
    """logit p′ = a·ln p − b·ln(1 − p) + c with a, b ≥ 0 and the prior a, b ~ N(1, 1), c ~ N(0, 1).

    Kull, Silva Filho & Flach (2017). It can bend the two ends by different amounts, and a = b = 1, c = 0 is the
    identity.
    """

    kind: ClassVar[str] = "beta"

    def fit(self, p: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit a, b and c on matured rows."""
        p, y, weight = _arrays(p, y, sample_weight)
        self.a_, self.b_, self.c_ = _monotone_logistic(self._design(p), y, weight)
        return self

    def transform(self, p: ArrayLike) -> np.ndarray:
        """Return calibrated probabilities, in the order of p."""
        return expit(self._design(p) @ np.array([self.a_, self.b_]) + self.c_)

    @staticmethod
    def _design(p: ArrayLike) -> np.ndarray:
        inside = np.clip(np.asarray(p, dtype=float), P_FLOOR, 1 - P_FLOOR)
        return np.column_stack([np.log(inside), -np.log1p(-inside)])


def _monotone_logistic(scores: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, ...]:
    """Return slopes ≥ 0 and the intercept of y on scores: a negative slope is dropped, the rest refitted."""
    design, kept = np.column_stack([scores, np.ones(len(y))]), np.ones(scores.shape[1] + 1, dtype=bool)
    beta, prior_mean = np.zeros(len(kept)), np.r_[np.ones(scores.shape[1]), 0.0]
    while True:
        beta[kept] = fit_logistic(
            design[:, kept], weight * y, weight, prior_mean=prior_mean[kept], prior_precision=PRIOR_ROWS
        )
        negative = kept & (beta < 0) & (np.arange(len(kept)) < scores.shape[1])
        if not negative.any():
            return tuple(float(b) for b in beta)
        kept[np.argmin(np.where(negative, beta, 0.0))] = False
        beta[~kept] = 0.0


class Isotonic(KeptAsText):
    """The non-decreasing step map nearest to y in squared error, linear between steps (Zadrozny & Elkan 2002).

    Ends are held inside [1/(n + 2), 1 − 1/(n + 2)]: n rows without one late line do not prove "never".
    """

    kind: ClassVar[str] = "isotonic"

    def fit(self, p: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the steps on matured rows."""
        p, y, weight = _arrays(p, y, sample_weight)
        kept = weight > 0
        if not kept.any():
            self.p_, self.to_ = [0.0, 1.0], [0.0, 1.0]
            return self
        end = 1 / (kept.sum() + 2)
        steps = IsotonicRegression(y_min=end, y_max=1 - end, out_of_bounds="clip")
        steps.fit(p[kept], y[kept], sample_weight=weight[kept])
        self.p_, self.to_ = steps.X_thresholds_.tolist(), steps.y_thresholds_.tolist()
        return self

    def transform(self, p: ArrayLike) -> np.ndarray:
        """Return calibrated probabilities; rows that share a step become ties."""
        return np.interp(np.asarray(p, dtype=float), self.p_, self.to_)


class MultiCalibrator(KeptAsText):
    """P′ = softmax(a_k·ln P_k + c_k) with a_k ≥ 0 and the prior a_k ~ N(1, 1), c_k ~ N(0, 1).

    Vector scaling (Guo et al. 2017); `scaling="temperature"` shares one a and leaves c at 0, `"none"` changes nothing.
    Columns of P follow `classes`; y holds class names or positions. Rows come out positive and summing to one.
    """

    kind: ClassVar[str] = "multi"

    def __init__(self, scaling: str = "vector", classes: Sequence[str] = ("down", "steady", "up")):
        self.scaling = scaling
        self.classes = classes

    def fit(self, P: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit a and c on matured rows by penalised likelihood (convex; L-BFGS-B)."""
        k, free = len(self.classes), {"none": 0, "temperature": 1, "vector": 2 * len(self.classes)}[self.scaling]
        logs, codes = _log_rows(P), class_codes(y, self.classes)
        weight = np.ones(len(codes)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        hit = np.eye(k)[codes]
        prior = np.r_[np.ones(k), np.zeros(k)] if free > 1 else np.ones(free)

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            a, c = self._expand(theta)
            z = logs * a + c
            log_q = z - logsumexp(z, axis=1, keepdims=True)
            off = weight[:, None] * (np.exp(log_q) - hit)
            by_slope, by_shift = (off * logs).sum(axis=0), off.sum(axis=0)
            gradient = np.r_[by_slope, by_shift] if free > 1 else by_slope.sum(keepdims=True)
            value = -(weight[:, None] * hit * log_q).sum() + PRIOR_ROWS / 2 * ((theta - prior) ** 2).sum()
            return value, gradient + PRIOR_ROWS * (theta - prior)

        theta = prior
        if free and len(codes):
            bounds = [(0, None)] * min(free, k) + [(None, None)] * (free - min(free, k))
            options = {"ftol": 1e-13, "gtol": 1e-8}
            theta = minimize(loss, prior, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
        a, c = self._expand(theta)
        self.a_, self.c_ = a.tolist(), c.tolist()
        return self

    def _expand(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        k = len(self.classes)
        if len(theta) > 1:
            return theta[:k], theta[k:]
        return np.full(k, theta[0] if len(theta) else 1.0), np.zeros(k)

    def transform(self, P: ArrayLike) -> np.ndarray:
        """Return calibrated rows (n, classes)."""
        z = _log_rows(P) * np.array(self.a_) + np.array(self.c_)
        q = np.exp(z - z.max(axis=1, keepdims=True, initial=-np.inf))
        return q / q.sum(axis=1, keepdims=True)


def _log_rows(P: ArrayLike) -> np.ndarray:
    return np.log(np.clip(np.asarray(P, dtype=float), P_FLOOR, 1.0))


def class_codes(y: ArrayLike, classes: Sequence[Any]) -> np.ndarray:
    """Return positions in `classes` of class names (or of positions, as they came); a stranger is an error."""
    y = np.asarray(y)
    y = y.astype(int) if y.dtype.kind == "b" else y
    known = range(len(classes)) if y.dtype.kind in "iuf" else list(classes)
    codes = pd.Index(known).get_indexer(pd.Index(y))
    if (codes < 0).any():
        raise ValueError(f"y holds {y[codes < 0][:3].tolist()}; expected one of {list(known)} in every matured row")
    return codes


class ConformalShift(KeptAsText):
    """q′_τ = q_τ + δ_τ·σ, rows then sorted, with δ_τ the τ-quantile of (y − q_τ)/σ on calibration rows.

    Conformalised quantiles (Romano, Patterson & Candès 2019) per level and scale-free; positions k/(n + 1), so a new
    exchangeable row falls below q′_τ with probability τ. Sorting removes crossings and never raises the pinball loss
    (Chernozhukov, Fernández-Val & Galichon 2010). Fewer than `min_rows` rows: δ = 0, only the sorting remains.
    """

    kind: ClassVar[str] = "conformal_shift"

    def __init__(self, levels: Sequence[float] = (0.1, 0.5, 0.9), min_rows: int = 30, floor: float | None = None):
        self.levels = levels
        self.min_rows = min_rows
        self.floor = floor

    def fit(self, Q: ArrayLike, y: ArrayLike, sigma: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit one δ per level from Q (n, levels), y and σ in one unit; rows with a missing value or σ ≤ 0 are out."""
        Q, y, sigma = (np.asarray(x, dtype=float) for x in (Q, y, sigma))
        weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        kept = np.isfinite(Q).all(axis=1) & np.isfinite(y) & np.isfinite(sigma) & (sigma > 0) & (weight > 0)
        self.shifts_ = [0.0] * len(self.levels)
        if kept.sum() >= self.min_rows:
            off = (y[kept, None] - Q[kept]) / sigma[kept, None]
            columns = zip(off.T, self.levels, strict=True)
            self.shifts_ = [_quantile_of_next(r, level, weight[kept]) for r, level in columns]
        return self

    def transform(self, Q: ArrayLike, sigma: ArrayLike) -> np.ndarray:
        """Return shifted quantiles (n, levels), non-decreasing along rows; where σ is missing they are only sorted."""
        scale = np.nan_to_num(np.asarray(sigma, dtype=float), nan=0.0)
        moved = np.sort(np.asarray(Q, dtype=float) + scale[:, None] * np.array(self.shifts_), axis=1)
        return moved if self.floor is None else np.maximum(moved, self.floor)


def _quantile_of_next(values: np.ndarray, level: float, weight: np.ndarray) -> float:
    """Return the value below which the next one falls with chance `level`: order statistic k stands at k/(n + 1)."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weight[order]) / weight.mean() / (len(values) + 1)
    return float(np.interp(level, share, values[order]))


CALIBRATORS = (Identity, Platt, Beta, Isotonic, MultiCalibrator, ConformalShift)


def from_dict(state: Mapping[str, Any]) -> Any:
    """Return the calibrator whose `to_dict` gave this state."""
    kinds: dict[str, Any] = {c.kind: c for c in CALIBRATORS}
    if state.get("kind") not in kinds:
        raise ValueError(f"unknown calibrator kind {state.get('kind')!r}; expected one of {sorted(kinds)}")
    return kinds[state["kind"]].from_dict(state)


BINARY_CANDIDATES = (Identity(), Platt(), Beta(), Isotonic())
MULTI_CANDIDATES = tuple(MultiCalibrator(scaling) for scaling in ("none", "temperature", "vector"))


def choose(
    p: ArrayLike,
    y: ArrayLike,
    weeks: ArrayLike,
    candidates: Sequence[Any] | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    folds: int = 4,
) -> Any:
    """Return the simplest candidate, fitted on every row, whose log loss on later weeks is within noise of the best.

    Candidates go from simple to free (default: identity, Platt, beta, isotonic). Each is fitted on earlier weeks and
    judged on the next run of weeks, `folds` times; "within noise" is one standard error of the paired difference,
    clustered by week. Thin data shortens the list: fewer than MIN_EACH_CLASS rows of the rarest class leave the first
    two, fewer than MIN_EACH_CLASS_PLATT only the first. p may be rows of class probabilities (MULTI_CANDIDATES).
    """
    p, weeks = np.asarray(p, dtype=float), np.asarray(weeks)
    multi = p.ndim == 2
    tried = tuple(candidates or (MULTI_CANDIDATES if multi else BINARY_CANDIDATES))
    y = class_codes(y, tried[0].classes if multi else (0, 1))
    rarest = np.bincount(y, minlength=p.shape[1] if multi else 2).min()
    tried = tried[:1] if rarest < MIN_EACH_CLASS_PLATT else tried[:2] if rarest < MIN_EACH_CLASS else tried
    winner = tried[0]
    if len(tried) > 1 and len(np.unique(weeks)) > folds:
        losses = losses_by_week(p, y, weeks, tried, sample_weight=sample_weight, folds=folds)
        winner = tried[_simplest_within_noise(losses)]
    return clone(winner).fit(p, y, sample_weight=sample_weight)


def losses_by_week(
    p: ArrayLike,
    y: ArrayLike,
    weeks: ArrayLike,
    candidates: Sequence[Any],
    *,
    sample_weight: ArrayLike | None = None,
    folds: int = 4,
) -> pd.DataFrame:
    """Return per later week the summed log loss of every candidate (columns 0, 1, …) and the summed weight (`weight`).

    Weeks are cut into folds + 1 equal runs; run k is judged by maps fitted on runs before it. y holds class positions.
    """
    p, y, weeks = np.asarray(p, dtype=float), np.asarray(y, dtype=int), np.asarray(weeks)
    weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    known, week = np.unique(weeks, return_inverse=True)
    run = (week * (folds + 1)) // max(len(known), 1)
    parts = []
    for k in range(1, folds + 1):
        past, now = run < k, run == k
        fitted = [clone(c).fit(p[past], y[past], sample_weight=weight[past]) for c in candidates]
        part = pd.DataFrame({i: weight[now] * _log_losses(c.transform(p[now]), y[now]) for i, c in enumerate(fitted)})
        parts.append(part.assign(weight=weight[now]).groupby(weeks[now]).sum())
    return pd.concat(parts)


def _log_losses(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    of_truth = p[np.arange(len(y)), y] if p.ndim == 2 else np.where(y == 1, p, 1 - p)
    return -np.log(np.clip(of_truth, P_FLOOR, 1.0))


def _simplest_within_noise(losses: pd.DataFrame) -> int:
    weight, sums = losses["weight"].to_numpy(), losses.drop(columns="weight").to_numpy()
    extra = sums - sums[:, [int(np.argmin(sums.sum(axis=0)))]]
    mean = extra.sum(axis=0) / weight.sum()
    spread = ((extra - weight[:, None] * mean) ** 2).sum(axis=0)
    weeks = len(losses)
    noise = np.sqrt(spread * weeks / max(weeks - 1, 1)) / weight.sum()
    return int(np.argmax(mean <= noise))
