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

from features.labels import CLASSES

P_FLOOR = 1e-6  # nothing is surer than one in a million: keeps logits and logarithms finite
PRIOR_ROWS = 1.0  # precision of the normal prior that pulls parametric maps towards "change nothing"
MIN_EACH_CLASS = 50  # below it a free-form map fits noise
MIN_EACH_CLASS_PLATT = 15  # below it even two parameters do
FOLDS = 4  # runs of later weeks on which candidates are judged


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


def _arrays(p: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    p, y = np.asarray(p, dtype=float), np.asarray(y, dtype=float)
    if len(p) != len(y):
        raise ValueError(f"lengths differ: p {len(p)}, y {len(y)}; give one of each per row")
    if not (np.isfinite(p).all() and np.isfinite(y).all()):
        raise ValueError("p or y holds a missing value; calibrate on matured, scored rows only")
    return p, y


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

    def fit(self, p: ArrayLike, y: ArrayLike) -> Self:  # noqa: ARG002
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

    def fit(self, p: ArrayLike, y: ArrayLike) -> Self:
        """Fit a and c on matured rows."""
        p, y = _arrays(p, y)
        self.a_, self.c_ = _monotone_logistic(logit(p)[:, None], y)
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

    def fit(self, p: ArrayLike, y: ArrayLike) -> Self:
        """Fit a, b and c on matured rows."""
        p, y = _arrays(p, y)
        self.a_, self.b_, self.c_ = _monotone_logistic(self._design(p), y)
        return self

    def transform(self, p: ArrayLike) -> np.ndarray:
        """Return calibrated probabilities, in the order of p."""
        return expit(self._design(p) @ np.array([self.a_, self.b_]) + self.c_)

    @staticmethod
    def _design(p: ArrayLike) -> np.ndarray:
        inside = np.clip(np.asarray(p, dtype=float), P_FLOOR, 1 - P_FLOOR)
        return np.column_stack([np.log(inside), -np.log1p(-inside)])


def _monotone_logistic(scores: np.ndarray, y: np.ndarray) -> tuple[float, ...]:
    """Return slopes ≥ 0 and the intercept of y on scores: a negative slope is dropped, the rest refitted."""
    design, kept = np.column_stack([scores, np.ones(len(y))]), np.ones(scores.shape[1] + 1, dtype=bool)
    beta, prior_mean = np.zeros(len(kept)), np.r_[np.ones(scores.shape[1]), 0.0]
    while True:
        beta[kept] = fit_logistic(
            design[:, kept], y, np.ones(len(y)), prior_mean=prior_mean[kept], prior_precision=PRIOR_ROWS
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

    def fit(self, p: ArrayLike, y: ArrayLike) -> Self:
        """Fit the steps on matured rows."""
        p, y = _arrays(p, y)
        if not len(y):
            self.p_, self.to_ = [0.0, 1.0], [0.0, 1.0]
            return self
        end = 1 / (len(y) + 2)
        steps = IsotonicRegression(y_min=end, y_max=1 - end, out_of_bounds="clip").fit(p, y)
        self.p_, self.to_ = steps.X_thresholds_.tolist(), steps.y_thresholds_.tolist()
        return self

    def transform(self, p: ArrayLike) -> np.ndarray:
        """Return calibrated probabilities; rows that share a step become ties."""
        return np.interp(np.asarray(p, dtype=float), self.p_, self.to_)


class MultiCalibrator(KeptAsText):
    """P′ = softmax(a_k·ln P_k + c_k) with a_k ≥ 0 and the prior a_k ~ N(1, 1), c_k ~ N(0, 1).

    Vector scaling (Guo et al. 2017); `scaling="temperature"` shares one a and leaves c at 0, `"none"` changes nothing.
    Columns of P follow CLASSES; y holds class names or positions. Rows come out positive and summing to one.
    """

    kind: ClassVar[str] = "multi"

    def __init__(self, scaling: str = "vector"):
        self.scaling = scaling

    def fit(self, P: ArrayLike, y: ArrayLike) -> Self:
        """Fit a and c on matured rows by penalised likelihood (convex; L-BFGS-B)."""
        k, free = len(CLASSES), {"none": 0, "temperature": 1, "vector": 2 * len(CLASSES)}[self.scaling]
        logs, codes = _log_rows(P), class_codes(y, CLASSES)
        hit = np.eye(k)[codes]
        prior = np.r_[np.ones(k), np.zeros(k)] if free > 1 else np.ones(free)

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            a, c = self._expand(theta)
            z = logs * a + c
            log_q = z - logsumexp(z, axis=1, keepdims=True)
            off = np.exp(log_q) - hit
            by_slope, by_shift = (off * logs).sum(axis=0), off.sum(axis=0)
            gradient = np.r_[by_slope, by_shift] if free > 1 else by_slope.sum(keepdims=True)
            value = -(hit * log_q).sum() + PRIOR_ROWS / 2 * ((theta - prior) ** 2).sum()
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
        k = len(CLASSES)
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


CALIBRATORS = (Identity, Platt, Beta, Isotonic, MultiCalibrator)


def from_dict(state: Mapping[str, Any]) -> Any:
    """Return the calibrator whose `to_dict` gave this state."""
    kinds: dict[str, Any] = {c.kind: c for c in CALIBRATORS}
    if state.get("kind") not in kinds:
        raise ValueError(f"unknown calibrator kind {state.get('kind')!r}; expected one of {sorted(kinds)}")
    return kinds[state["kind"]].from_dict(state)


BINARY_CANDIDATES = (Identity(), Platt(), Beta(), Isotonic())
MULTI_CANDIDATES = tuple(MultiCalibrator(scaling) for scaling in ("none", "temperature", "vector"))


def choose(p: ArrayLike, y: ArrayLike, weeks: ArrayLike, candidates: Sequence[Any] | None = None) -> Any:
    """Return the simplest candidate, fitted on every row, whose log loss on later weeks is within noise of the best.

    Candidates go from simple to free (default: identity, Platt, beta, isotonic). Each is fitted on earlier weeks and
    judged on the next run of weeks, FOLDS times; "within noise" is one standard error of the paired difference,
    clustered by week. Thin data shortens the list: fewer than MIN_EACH_CLASS rows of the rarest class leave the first
    two, fewer than MIN_EACH_CLASS_PLATT only the first. p may be rows of class probabilities (MULTI_CANDIDATES).
    """
    p, weeks = np.asarray(p, dtype=float), np.asarray(weeks)
    multi = p.ndim == 2
    tried = tuple(candidates or (MULTI_CANDIDATES if multi else BINARY_CANDIDATES))
    y = class_codes(y, CLASSES if multi else (0, 1))
    rarest = np.bincount(y, minlength=p.shape[1] if multi else 2).min()
    tried = tried[:1] if rarest < MIN_EACH_CLASS_PLATT else tried[:2] if rarest < MIN_EACH_CLASS else tried
    winner = tried[0]
    if len(tried) > 1 and len(np.unique(weeks)) > FOLDS:
        winner = tried[_simplest_within_noise(losses_by_week(p, y, weeks, tried))]
    return clone(winner).fit(p, y)


def losses_by_week(p: np.ndarray, y: np.ndarray, weeks: np.ndarray, candidates: Sequence[Any]) -> pd.DataFrame:
    """Return per later week the summed log loss of every candidate (columns 0, 1, …) and the number of `rows`.

    Weeks are cut into FOLDS + 1 equal runs; run k is judged by maps fitted on runs before it. y holds class positions.
    """
    known, week = np.unique(weeks, return_inverse=True)
    run = (week * (FOLDS + 1)) // max(len(known), 1)
    parts = []
    for k in range(1, FOLDS + 1):
        past, now = run < k, run == k
        fitted = [clone(c).fit(p[past], y[past]) for c in candidates]
        part = pd.DataFrame({i: _log_losses(c.transform(p[now]), y[now]) for i, c in enumerate(fitted)})
        parts.append(part.assign(rows=1.0).groupby(weeks[now]).sum())
    return pd.concat(parts)


def _log_losses(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    of_truth = p[np.arange(len(y)), y] if p.ndim == 2 else np.where(y == 1, p, 1 - p)
    return -np.log(np.clip(of_truth, P_FLOOR, 1.0))


def _simplest_within_noise(losses: pd.DataFrame) -> int:
    rows, sums = losses["rows"].to_numpy(), losses.drop(columns="rows").to_numpy()
    extra = sums - sums[:, [int(np.argmin(sums.sum(axis=0)))]]
    mean = extra.sum(axis=0) / rows.sum()
    spread = ((extra - rows[:, None] * mean) ** 2).sum(axis=0)
    weeks = len(losses)
    noise = np.sqrt(spread * weeks / max(weeks - 1, 1)) / rows.sum()
    return int(np.argmax(mean <= noise))
