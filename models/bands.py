"""Move quantiles of a window's deviation to where later weeks fell, each kind of window by itself."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd

from features.demand import is_intermittent

OWN_ROWS = 300.0  # rows of a kind that weigh as much as all rows together
LEAST_ROWS = 30  # fewer move nothing


def kinds(X: pd.DataFrame) -> np.ndarray:
    """Return a number per row: its window's lead and length, and whether its series is intermittent."""
    out = np.zeros(len(X), int)
    for name in ("lead_weeks", "length_weeks"):
        if name in X:
            out = 100 * out + np.nan_to_num(X[name].to_numpy(float)).astype(int)
    return 2 * out + (is_intermittent(X["interval"].to_numpy(float)) if "interval" in X else 0)


class Bands:
    """q′_τ = q_τ + δ_τ,kind in standard deviations: `conformal_shifts` per kind of window, shrunk to those of all rows.

    Rows are then sorted, which removes crossings and never raises the pinball loss (Chernozhukov, Fernández-Val &
    Galichon 2010).
    """

    def __init__(self, levels: tuple[float, ...]):
        self.levels = levels

    def fit(self, Q: np.ndarray, z: np.ndarray, kind: np.ndarray) -> Self:
        """Learn from quantiles Q [row, level] of deviations that were then z."""
        told = np.isfinite(z)
        Q, z, kind = Q[told], z[told], kind[told]
        self.all_ = conformal_shifts(Q, z, self.levels)
        self.own_: dict[int, list[float]] = {}
        for k in np.unique(kind):
            mine = kind == k
            trust = mine.sum() / (mine.sum() + OWN_ROWS)
            own = conformal_shifts(Q[mine], z[mine], self.levels)
            self.own_[int(k)] = (trust * own + (1 - trust) * self.all_).tolist()
        return self

    def transform(self, Q: np.ndarray, kind: np.ndarray) -> np.ndarray:
        """Return moved quantiles [row, level], never crossing."""
        moved = np.array(Q, float)
        for k in np.unique(kind):
            moved[kind == k] += self.own_.get(int(k), self.all_)
        return np.sort(moved, axis=1)

    def to_dict(self) -> dict[str, Any]:
        return {"levels": list(self.levels), "all": self.all_.tolist(), "own": [[k, v] for k, v in self.own_.items()]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        new = cls(tuple(state["levels"]))
        new.all_, new.own_ = np.array(state["all"]), {int(k): list(v) for k, v in state["own"]}
        return new


def conformal_shifts(Q: np.ndarray, z: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Return δ_τ per level: the τ-quantile of z − q_τ (Romano, Patterson & Candès 2019), 0 with fewer than LEAST_ROWS.

    Of n rows the k-th smallest stands at k/(n + 1), so a new exchangeable row falls below q_τ + δ_τ with probability τ.
    """
    off = (z[:, None] - Q)[np.isfinite(Q).all(axis=1)]
    if len(off) < LEAST_ROWS:
        return np.zeros(len(levels))
    place = np.arange(1, len(off) + 1) / (len(off) + 1)
    return np.array([np.interp(level, place, np.sort(x)) for x, level in zip(off.T, levels, strict=True)])
