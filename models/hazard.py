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

# First day of each bucket after the as-of, and the day after its last. Buckets beyond 65 days are wide, but a promise
# that far ahead still has its own: one hazard from there on would spread such a line evenly over the year.
BEGIN = np.array([0, 1, 2, 3, 4, 5, 8, 11, 16, 21, 31, 46, 66, 91, 131, 181, 261])
END = np.append(BEGIN[1:], 366)
LONGEST = int(END[-1])  # days ahead that the curve is drawn; a line not expected by then has this as its day
LEAST_LOG = -600.0  # S stays a number that can be divided by
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
    inputs (Singer & Willett 1993; Suresh et al. 2022). Inside a bucket its hazard is the same every day.
    """

    def __init__(
        self, *, params: Mapping[str, Any] | None = None, rounds: int = 90, max_rows: int = 8_000, seed: int = 7,
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
        if not len(row):  # nothing was ever watched for a day: nothing is known to arrive
            inputs, hit = np.full((1, inputs.shape[1]), np.nan, np.float32), np.zeros(1)
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
        return np.exp(np.maximum(np.cumsum(np.repeat(daily, END - BEGIN, axis=1), axis=1), LEAST_LOG))

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
    """Return (row, bucket, completed in it) for every bucket that was watched whole, up to that of the completion.

    A bucket watched in part is left out whatever came of it: to keep it for the lines that completed and drop it for
    those that did not would make arrivals look likelier than they are. A completion found to lie before the as-of,
    because its receipt was posted late, falls into the first bucket.
    """
    done = np.where(np.isnan(completed_in), np.inf, np.maximum(completed_in, 0))
    row, bucket = np.nonzero((done[:, None] >= BEGIN) & (watched[:, None] >= END))
    return row, bucket, done[row] < END[bucket]


def tied_to(survival: np.ndarray, due_in: np.ndarray, p_late: np.ndarray) -> np.ndarray:
    """Return the curves bent so that S(due) = p_late where that is known; the shape before and after is kept.

    Before the due day S becomes S^a with a = log p_late / log S(due), after it S is scaled by p_late / S(due).
    """
    known = ~np.isnan(p_late) & (due_in >= 0) & (due_in < survival.shape[1])
    bent = survival.copy()
    S, day, p = survival[known], due_in[known].astype(int)[:, None], np.clip(p_late[known], 1e-9, 1 - 1e-9)[:, None]
    at_due = np.clip(np.take_along_axis(S, day, axis=1), np.exp(LEAST_LOG), 1 - 1e-12)
    days = np.arange(survival.shape[1])
    before, after = np.maximum(S ** (np.log(p) / np.log(at_due)), p), np.minimum(S * (p / at_due), p)
    curve = np.where(days < day, before, after)
    np.put_along_axis(curve, day, p, axis=1)
    bent[known] = np.minimum.accumulate(curve, axis=1)
    return bent


def arrival_days(survival: np.ndarray, levels: tuple[float, ...] = QUANTILES) -> np.ndarray:
    """Return, per row and level, the first day by whose end the line has arrived with that probability."""
    return np.column_stack([(survival > 1 - q).sum(axis=1) for q in levels]).astype(float)
