"""When will an open line arrive? A discrete-time hazard of completion, learnt from every line, received or not."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from models.boosting import Encoder, canonical_order, train

BEGIN = np.array([0, 1, 2, 3, 4, 5, 8, 11, 16, 21, 31, 46])  # first day of each bucket after the as-of
END = np.array([1, 2, 3, 4, 5, 8, 11, 16, 21, 31, 46, 66])  # day after its last
LONGEST = 366  # days ahead that the curve is drawn; a line not expected by then has this as its day
QUANTILES = (0.1, 0.5, 0.8, 0.9)

PARAMS: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.08,
    "num_leaves": 24,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
}


class ArrivalModel(BaseEstimator):
    """S(d) = P(C > s + d | line open at s) = Π over buckets up to d of 1 − h_b(x).

    h_b is one LightGBM on person-period rows: for each snapshot one row per bucket until completion, cancellation or
    the cut (right-censored, so immature lines teach too), with the bucket and its place relative to the promise as
    inputs (Singer & Willett 1993; Suresh et al. 2022). Beyond the last bucket its daily hazard goes on.
    """

    def __init__(
        self, *, params: Mapping[str, Any] | None = None, rounds: int = 90, max_rows: int = 12_000, seed: int = 7,
        threads: int = 0,
    ):  # fmt: skip
        self.params = params
        self.rounds = rounds
        self.max_rows = max_rows
        self.seed = seed
        self.threads = threads

    def fit(self, X: pd.DataFrame, *, due_in: ArrayLike, completed_in: ArrayLike, watched: ArrayLike) -> Self:
        """Learn from snapshots.

        `due_in`, `completed_in`: days from the as-of to the promise in force and to completion, NaN for none.
        `watched`: days after the as-of up to which it is known whether the line was complete; cancellation ends it.
        """
        self.encoder_ = Encoder().fit(X)
        block = self.encoder_.transform(X)
        days = [np.asarray(a, float) for a in (due_in, completed_in, watched)]
        keep = canonical_order(block, *days)[: self.max_rows]
        block, (due, done, seen) = block[keep], (a[keep] for a in days)
        row, bucket, hit = person_periods(done, seen)
        inputs = np.column_stack([block[row], self._place(bucket, due[row])]).astype(np.float32)
        small = max(min(PARAMS["min_data_in_leaf"], len(row) // 40), 2)
        self.booster_ = train(
            inputs, hit.astype(float), {**PARAMS, "min_data_in_leaf": small, **(self.params or {})},
            rounds=self.rounds, seed=self.seed, threads=self.threads, categorical=self.encoder_.categorical,
        )  # fmt: skip
        return self

    @staticmethod
    def _place(bucket: np.ndarray, due: np.ndarray) -> np.ndarray:
        return np.column_stack([bucket, BEGIN[bucket] - due, END[bucket] - due])

    def survival(self, X: pd.DataFrame, due_in: ArrayLike) -> np.ndarray:
        """Return S at the end of days 0 … LONGEST − 1 [row, day], never rising."""
        block, due = self.encoder_.transform(X), np.asarray(due_in, float)
        n = len(block)
        row, bucket = np.repeat(np.arange(n), len(BEGIN)), np.tile(np.arange(len(BEGIN)), n)
        inputs = np.column_stack([block[row], self._place(bucket, due[row])]).astype(np.float32)
        hazard = np.asarray(self.booster_.predict(inputs, num_threads=self.threads)).reshape(n, len(BEGIN))
        daily = np.log1p(-np.clip(hazard, 1e-6, 1 - 1e-6)) / (END - BEGIN)
        width = np.append(END - BEGIN, LONGEST - END[-1])
        spread = np.repeat(np.column_stack([daily, daily[:, -1]]), width, axis=1)
        return np.exp(np.cumsum(spread, axis=1))

    def save(self, folder: Path) -> None:
        """Write the model as text and JSON into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.booster_.save_model(folder / "model.lgb")
        state = {"params": self.get_params(), "encoder": self.encoder_.to_dict()}
        (folder / "model.json").write_text(json.dumps(state))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; curves are identical."""
        state = json.loads((folder / "model.json").read_text())
        new = cls(**state["params"])
        new.booster_ = lgb.Booster(model_file=folder / "model.lgb")
        new.encoder_ = Encoder.from_dict(state["encoder"])
        return new


def person_periods(completed_in: np.ndarray, watched: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (row, bucket, completed in it) for every bucket of every snapshot that was seen whole or ended it.

    A completion found to lie before the as-of, because its receipt was posted late, falls into the first bucket.
    """
    done = np.where(np.isnan(completed_in), np.inf, np.maximum(completed_in, 0))
    ended = done[:, None] < END
    seen_whole = watched[:, None] >= END
    before = done[:, None] >= BEGIN
    use = before & (ended & (done <= watched)[:, None] | seen_whole)
    row, bucket = np.nonzero(use)
    return row, bucket, ended[row, bucket]


def tied_to(survival: np.ndarray, due_in: np.ndarray, p_late: np.ndarray) -> np.ndarray:
    """Return the curves bent so that S(due) = p_late where that is known; the shape before and after is kept.

    Before the due day S becomes S^a with a = log p_late / log S(due), after it S is scaled by p_late / S(due).
    """
    known = ~np.isnan(p_late) & (due_in >= 0) & (due_in < survival.shape[1])
    day = np.where(known, due_in, 0).astype(int)
    at_due = np.clip(survival[np.arange(len(survival)), day], 1e-9, 1 - 1e-9)
    p = np.clip(p_late, 1e-9, 1 - 1e-9)
    power, scale = np.log(p) / np.log(at_due), p / at_due
    days = np.arange(survival.shape[1])
    bent = np.where(days <= day[:, None], survival ** power[:, None], survival * scale[:, None])
    return np.where(known[:, None], bent, survival)


def arrival_days(survival: np.ndarray, levels: tuple[float, ...] = QUANTILES) -> np.ndarray:
    """Return, per row and level, the first day by whose end the line has arrived with that probability."""
    return np.column_stack([(survival > 1 - q).sum(axis=1) for q in levels]).astype(float)
