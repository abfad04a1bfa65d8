"""Will demand leave its baseline? P(down, steady, up) and the P10/P50/P90 of a window's units."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from models import calibration
from models.boosting import Encoder, canonical_order, day_numbers, train
from models.delay import medians
from models.splits import calibration_split

LEVELS = (0.1, 0.5, 0.9)
# Maps that move the level of a class are left out: the kept booster has seen the calibration weeks itself, and shifts
# come in seasons, so half a year's level corrected once more made both directions worse (skill of drops 0.13 → 0.05).
SHAPE_MAPS = (calibration.MultiCalibrator("none"), calibration.MultiCalibrator("temperature"))
MAX_Z = 15.0  # deviations beyond it are typing errors or once-in-a-life orders; quantiles need not chase them

PARAMS: dict[str, Any] = {
    "objective": "multiclass",
    "num_class": 3,
    "learning_rate": 0.06,
    "num_leaves": 15,
    "min_data_in_leaf": 200,  # origins one week apart share most of their window: 200 rows are some 50 windows
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 20.0,
}
ROUNDS = 100
QUANTILE_PARAMS: dict[str, Any] = {**PARAMS, "objective": "quantile", "num_class": 1, "learning_rate": 0.08}
del QUANTILE_PARAMS["num_class"]


class ShiftModel(BaseEstimator):
    """Class probabilities of a window and quantiles of its units: Σb + σ·Q((Y − Σb)/σ | x).

    Classes come from one multiclass booster, quantiles from one booster each, made monotone. Both are calibrated on
    the last `calibration_weeks` of matured rows by boosters that had not seen them; kept boosters learn from all rows.
    """

    def __init__(
        self, *, params: Mapping[str, Any] | None = None, rounds: int = ROUNDS, quantile_rounds: int = 60,
        calibration_weeks: int = 26, max_rows: int = 50_000, seed: int = 7, threads: int = 0,
    ):  # fmt: skip
        self.params = params
        self.rounds = rounds
        self.quantile_rounds = quantile_rounds
        self.calibration_weeks = calibration_weeks
        self.max_rows = max_rows
        self.seed = seed
        self.threads = threads

    def fit(
        self, X: pd.DataFrame, y: ArrayLike, *, deviation: ArrayLike, as_of: ArrayLike, matured_on: ArrayLike, cut: Any
    ) -> Self:
        """Learn from windows matured by `cut`: y 0 down, 1 steady, 2 up, NaN unknown; `deviation` (Y − Σb)/σ."""
        label, z = np.asarray(y, float), np.clip(np.asarray(deviation, float), -MAX_Z, MAX_Z)
        asked, matured = np.asarray(as_of), np.asarray(matured_on)
        self.encoder_ = Encoder().fit(X)
        block = self.encoder_.transform(X)
        order = canonical_order(block, label, z, day_numbers(asked), day_numbers(matured))
        block, label, z, asked, matured = block[order], label[order], z[order], asked[order], matured[order]
        self.usual_ = pd.Series(medians(block), self.encoder_.columns_, dtype=float)
        self.base_rates_ = _rates(label)
        early, late = calibration_split(asked, matured, cut=cut, weeks=self.calibration_weeks)
        self.class_map_: Any = calibration.MultiCalibrator("none").fit(np.full((3, 3), 1 / 3), [0, 1, 2])
        self.quantile_map_ = calibration.ConformalShift(LEVELS)
        if len(early) >= 200 and len(late) >= 100:
            self._calibrate(block, label, z, asked, early, late)
        else:
            self.quantile_map_.fit(np.zeros((0, 3)), [], [])
        self.booster_ = self._train_classes(block, label)
        self.quantile_boosters_ = self._train_quantiles(block, z)
        return self

    def _calibrate(
        self, block: np.ndarray, y: np.ndarray, z: np.ndarray, as_of: np.ndarray, early: np.ndarray, late: np.ndarray
    ) -> None:
        known = late[~np.isnan(y[late])]
        first = self._train_classes(block[early], y[early])
        if len(known) >= 100:
            raw = _predict_classes(first, block[known], self.threads)
            weeks = as_of[known].astype("datetime64[W]")
            self.class_map_ = calibration.choose(raw, y[known].astype(int), weeks, SHAPE_MAPS)
        some = late[: self.max_rows]
        quantiles = self._raw_quantiles(self._train_quantiles(block[early], z[early]), block[some])
        self.quantile_map_.fit(quantiles, z[some], np.ones(len(some)))

    def _train_classes(self, block: np.ndarray, y: np.ndarray) -> lgb.Booster:
        known = np.flatnonzero(~np.isnan(y))
        keep = known[: self.max_rows]
        return self._train(block[keep], y[keep], {**PARAMS, **(self.params or {})}, self.rounds)

    def _train_quantiles(self, block: np.ndarray, z: np.ndarray) -> list[lgb.Booster]:
        keep = np.flatnonzero(~np.isnan(z))[: self.max_rows // 2]
        return [
            self._train(block[keep], z[keep], {**QUANTILE_PARAMS, "alpha": level}, self.quantile_rounds)
            for level in LEVELS
        ]

    def _train(self, block: np.ndarray, y: np.ndarray, params: Mapping[str, Any], rounds: int) -> lgb.Booster:
        small = max(min(params["min_data_in_leaf"], len(y) // 40), 2)
        return train(
            block, y, {**params, "min_data_in_leaf": small}, rounds=rounds, seed=self.seed, threads=self.threads,
            categorical=self.encoder_.categorical,
        )  # fmt: skip

    def _raw_quantiles(self, boosters: list[lgb.Booster], block: np.ndarray) -> np.ndarray:
        columns = [np.asarray(b.predict(block, num_threads=self.threads)) for b in boosters]
        return np.sort(np.column_stack(columns), axis=1)

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        """Return P(down), P(steady), P(up) [row, 3]; rows sum to 1."""
        raw = _predict_classes(self.booster_, self.encoder_.transform(X), self.threads)
        return np.asarray(self.class_map_.transform(raw))

    def predict_units(self, X: pd.DataFrame, baseline: ArrayLike, noise: ArrayLike) -> np.ndarray:
        """Return P10, P50, P90 of the window's units [row, 3], never negative, never crossing."""
        block = self.encoder_.transform(X)
        z = self.quantile_map_.transform(self._raw_quantiles(self.quantile_boosters_, block), np.ones(len(block)))
        units = np.asarray(baseline, float)[:, None] + np.asarray(noise, float)[:, None] * z
        return np.maximum.accumulate(np.maximum(units, 0), axis=1)

    def save(self, folder: Path) -> None:
        """Write the model as text and JSON into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.booster_.save_model(folder / "model.lgb")
        for level, booster in zip(LEVELS, self.quantile_boosters_, strict=True):
            booster.save_model(folder / f"quantile_{round(level * 100)}.lgb")
        state = {
            "params": self.get_params(), "encoder": self.encoder_.to_dict(), "class_map": self.class_map_.to_dict(),
            "quantile_map": self.quantile_map_.to_dict(),
            "usual": [None if np.isnan(v) else v for v in self.usual_], "base_rates": self.base_rates_,
        }  # fmt: skip
        (folder / "model.json").write_text(json.dumps(state))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; scores are identical."""
        state = json.loads((folder / "model.json").read_text())
        new = cls(**state["params"])
        new.booster_ = lgb.Booster(model_file=folder / "model.lgb")
        new.quantile_boosters_ = [lgb.Booster(model_file=folder / f"quantile_{round(q * 100)}.lgb") for q in LEVELS]
        new.encoder_ = Encoder.from_dict(state["encoder"])
        new.class_map_ = calibration.from_dict(state["class_map"])
        new.quantile_map_ = calibration.from_dict(state["quantile_map"])
        new.usual_ = pd.Series(state["usual"], new.encoder_.columns_, dtype=float)
        new.base_rates_ = state["base_rates"]
        return new


def _predict_classes(booster: lgb.Booster, block: np.ndarray, threads: int) -> np.ndarray:
    return np.asarray(booster.predict(block, num_threads=threads)).reshape(len(block), 3)


def _rates(y: np.ndarray) -> list[float]:
    counts = np.bincount(y[~np.isnan(y)].astype(int), minlength=3) + 1 / 3
    return list(map(float, counts / counts.sum()))
