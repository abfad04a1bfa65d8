"""Mix the trees with a six-input logistic regression, which is steadier, by a weight chosen on later weeks."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from models.calibration import logit

WEIGHTS = (1.0, 0.75, 0.5)  # share of the trees: they hold at least half


def blend(trees: np.ndarray, steady: np.ndarray, weight: float) -> np.ndarray:
    """Return the weighted mean of two probabilities on the logit scale."""
    return expit(weight * logit(trees) + (1 - weight) * logit(steady))


def choose_weight(trees: np.ndarray, steady: np.ndarray, y: np.ndarray) -> float:
    """Return the share of the trees with the lowest log loss on later weeks, both forecasts moved to their level."""
    level = float(y.mean())
    parts = at_level(trees, level), at_level(steady, level)
    return WEIGHTS[int(np.argmin([level_loss(blend(*parts, weight), y) for weight in WEIGHTS]))]


def level_loss(p: np.ndarray, y: np.ndarray) -> float:
    """Return the mean log loss of p moved to the level of y: what is compared is the order, not the level."""
    p = np.clip(at_level(p, float(y.mean())), 1e-6, 1 - 1e-6)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))


def at_level(p: np.ndarray, mean: float) -> np.ndarray:
    """Return p moved by one constant on the logit scale so that its mean is `mean`."""
    return expit(logit(p) + level_shift(p, mean)) if 0 < mean < 1 else p


def level_shift(p: np.ndarray, mean: float) -> float:
    """Return the constant that, added to the logits of p, moves their mean to one inside (0, 1)."""
    raw = logit(p)
    return float(brentq(lambda shift: expit(raw + shift).mean() - mean, -30, 30))
