"""Move quantiles of a window's deviation to where later weeks fell, each kind of window by itself."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd

from features.demand import is_intermittent
from models.calibration import ConformalShift

OWN_ROWS = 300.0  # rows of a kind that weigh as much as all rows together


def kinds(X: pd.DataFrame) -> np.ndarray:
    """Return a number per row: its window's lead and length, and whether its series is intermittent."""
    out = np.zeros(len(X), int)
    for name in ("lead_weeks", "length_weeks"):
        if name in X:
            out = 100 * out + np.nan_to_num(X[name].to_numpy(float)).astype(int)
    return 2 * out + (is_intermittent(X["interval"].to_numpy(float)) if "interval" in X else 0)


class Bands:
    """q′_τ = q_τ + δ_τ,kind in standard deviations: conformal shifts per kind of window, shrunk to those of all rows.

    Rows come out non-decreasing.
    """

    def __init__(self, levels: tuple[float, ...]):
        self.levels = levels

    def fit(self, Q: np.ndarray, z: np.ndarray, kind: np.ndarray) -> Self:
        """Learn from quantiles Q [row, level] of deviations that were then z."""
        told = np.isfinite(z)
        Q, z, kind = Q[told], z[told], kind[told]
        self.all_ = np.array(self._shifts(Q, z))
        self.own_: dict[int, list[float]] = {}
        for k in np.unique(kind):
            mine = kind == k
            trust = mine.sum() / (mine.sum() + OWN_ROWS)
            own = np.array(self._shifts(Q[mine], z[mine]))
            self.own_[int(k)] = (trust * own + (1 - trust) * self.all_).tolist()
        return self

    def _shifts(self, Q: np.ndarray, z: np.ndarray) -> list[float]:
        return ConformalShift(self.levels).fit(Q, z, np.ones(len(z))).shifts_

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
