"""Will demand leave its baseline? P(down, steady, up) and the P10/P50/P90 of a window's units."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from models import calibration, usual
from models.bands import Bands, kinds
from models.boosting import Encoder, canonical_order, day_numbers, said_by_trees, save, train_each
from models.leaning import (
    DIRECTIONS,
    JUDGED_ONLY,
    NO_EVIDENCE,
    Lean,
    Term,
    choose_shares,
    choose_trust,
    fit_shift_rules,
)
from models.naive_rules import predict_rules
from models.rule_kinds import Rule
from models.splits import calibration_split

LEVELS = (0.1, 0.5, 0.9)
# Maps that move the level of a class are left out: the kept booster has seen the calibration weeks itself, and shifts
# come in seasons, so half a year's level corrected once more made both directions worse (skill of drops 0.13 → 0.05).
SHAPE_MAPS = (calibration.MultiCalibrator("none"), calibration.MultiCalibrator("temperature"))
LATER_ROWS = 20_000  # of a term: enough to calibrate by, and quick to predict
TERMS = 2  # terms of `calibration_weeks` on which calibration looks back: one alone is one season
WEIGHTS = (0.05, 20.0)  # of a window, the least and the most, in mean weights
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
    With the windows' `facts` each direction leans on the best naive rule as far as those weeks ask for, so that where
    the model has no skill the rule is what is said; `lean_.said_by` tells which.
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
        self, X: pd.DataFrame, y: ArrayLike, *, deviation: ArrayLike, as_of: ArrayLike, matured_on: ArrayLike, cut: Any,
        facts: pd.DataFrame | None = None, noise: ArrayLike | None = None,
    ) -> Self:  # fmt: skip
        """Learn from windows matured by `cut`: y 0 down, 1 steady, 2 up, NaN unknown; `deviation` (Y − Σb)/σ.

        `facts` is what the naive rules read of the same windows; without it nothing leans on a rule. `noise` is σ in
        units, by whose root windows count for the quantiles: bands are of units, and a large series has more of them.
        """
        past = self._past(X, y, deviation, as_of, matured_on, facts, noise)
        self.usual_ = usual.usual(past.block, self.encoder_.columns_)
        self.base_rates_ = _rates(past.y)
        seen = self._hindsight(past, cut)
        known = [part.known() for part in seen]
        self.class_map_: Any = _class_map(known)
        shares, trust = _lean(known, self.class_map_)
        self.bands_ = Bands(LEVELS).fit(*_of(seen, "quantiles", "z", "kind"))
        self.lean_ = None if facts is None else Lean(shares, _fit_known(past), trust)
        self.booster_ = self._train_classes(past)
        self.quantile_boosters_ = self._train_quantiles(past)
        return self

    def _past(
        self, X: pd.DataFrame, y: ArrayLike, deviation: ArrayLike, as_of: ArrayLike, matured_on: ArrayLike,
        facts: pd.DataFrame | None, noise: ArrayLike | None,
    ) -> "Past":  # fmt: skip
        label, z = np.asarray(y, float), np.clip(np.asarray(deviation, float), -MAX_Z, MAX_Z)
        weight = np.ones(len(z)) if noise is None else _weights(np.asarray(noise, float))
        self.encoder_ = Encoder().fit(X)
        block, asked, matured = self.encoder_.transform(X), np.asarray(as_of), np.asarray(matured_on)
        order = canonical_order(block, label, z, day_numbers(asked), day_numbers(matured), then=weight)
        return Past(block, label, z, weight, asked, matured, kinds(X), facts).at(order)

    def _hindsight(self, past: "Past", cut: Any) -> list["Hindsight"]:
        """Return what models fitted only on what had matured before would have said of the TERMS last terms."""
        weeks = self._weeks_to_calibrate(past, cut)
        out = []
        for term in range(TERMS):
            end = np.datetime64(str(np.asarray(cut).astype("datetime64[D]"))) - np.timedelta64(7 * weeks * term, "D")
            early, late = calibration_split(past.as_of, past.matured, cut=end, weeks=weeks)
            if len(early) >= 200 and len(late) >= 100:
                out.append(self._said(past.at(early), past.at(late[:LATER_ROWS])))
        return out

    def _weeks_to_calibrate(self, past: "Past", cut: Any) -> int:
        """A third of a short history, but longer than the longest wait for a label."""
        if not len(past.y):
            return self.calibration_weeks
        asked, matured = day_numbers(past.as_of), day_numbers(past.matured)
        history, wait = (int(day_numbers(cut)) - asked.min()) // 7, (matured - asked).max() // 7
        return int(min(self.calibration_weeks, max(history // 3, wait + 4)))

    def _said(self, early: "Past", late: "Past") -> "Hindsight":
        P = _predict_classes(self._train_classes(early), late.block, self.threads)
        quantiles = self._raw_quantiles(self._train_quantiles(early), late.block)
        told = {} if late.facts is None else predict_rules(_fit_known(early), late.facts)
        window = late.kind if late.facts is None else late.facts["window"].to_numpy(int)
        return Hindsight(P, quantiles, told, late.y, late.z, late.as_of.astype("datetime64[W]"), late.kind, window)

    def _train_classes(self, past: "Past") -> lgb.Booster:
        keep = np.flatnonzero(~np.isnan(past.y))[: self.max_rows]
        return self._train(past.block[keep], past.y[keep], [{**PARAMS, **(self.params or {})}], self.rounds)[0]

    def _train_quantiles(self, past: "Past") -> list[lgb.Booster]:
        keep = np.flatnonzero(~np.isnan(past.z))[: self.max_rows // 2]
        each = [{**QUANTILE_PARAMS, "alpha": level} for level in LEVELS]
        return self._train(past.block[keep], past.z[keep], each, self.quantile_rounds, past.weight[keep])

    def _train(
        self, block: np.ndarray, y: np.ndarray, each: list[dict[str, Any]], rounds: int,
        weight: np.ndarray | None = None,
    ) -> list[lgb.Booster]:  # fmt: skip
        small = max(min(each[0]["min_data_in_leaf"], len(y) // 40), 2)
        return train_each(
            block, y, [{**params, "min_data_in_leaf": small} for params in each], rounds=rounds, seed=self.seed,
            threads=self.threads, categorical=self.encoder_.categorical, weight=weight,
        )  # fmt: skip

    def _raw_quantiles(self, boosters: list[lgb.Booster], block: np.ndarray) -> np.ndarray:
        columns = [said_by_trees(b, block, threads=self.threads) for b in boosters]
        return np.sort(np.column_stack(columns), axis=1)

    def predict_proba(self, X: pd.DataFrame, facts: pd.DataFrame | None = None) -> np.ndarray:
        """Return P(down), P(steady), P(up) [row, 3]; rows sum to 1. Without the windows' `facts` nothing leans."""
        raw = _predict_classes(self.booster_, self.encoder_.transform(X), self.threads)
        P = np.asarray(self.class_map_.transform(raw))
        return P if facts is None or self.lean_ is None else self.lean_.apply(P, facts)

    def predict_units(self, X: pd.DataFrame, baseline: ArrayLike, noise: ArrayLike) -> np.ndarray:
        """Return P10, P50, P90 of the window's units [row, 3], never negative, never crossing."""
        block = self.encoder_.transform(X)
        z = self.bands_.transform(self._raw_quantiles(self.quantile_boosters_, block), kinds(X))
        units = np.asarray(baseline, float)[:, None] + np.asarray(noise, float)[:, None] * z
        return np.maximum.accumulate(np.maximum(units, 0), axis=1)

    def save(self, folder: Path) -> None:
        """Write the model as text and JSON into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        save(self.booster_, folder / "model.lgb")
        for level, booster in zip(LEVELS, self.quantile_boosters_, strict=True):
            save(booster, folder / f"quantile_{round(level * 100)}.lgb")
        state = {
            "params": self.get_params(), "encoder": self.encoder_.to_dict(), "class_map": self.class_map_.to_dict(),
            "bands": self.bands_.to_dict(), "lean": self.lean_.to_dict() if self.lean_ else None,
            "base_rates": self.base_rates_, **usual.to_dict(self.usual_),
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
        new.bands_ = Bands.from_dict(state["bands"])
        new.lean_ = Lean.from_dict(state["lean"]) if state["lean"] else None
        new.usual_ = usual.from_dict(state, new.encoder_.columns_)
        new.base_rates_ = state["base_rates"]
        return new


def _predict_classes(booster: lgb.Booster, block: np.ndarray, threads: int) -> np.ndarray:
    return said_by_trees(booster, block, threads=threads).reshape(len(block), 3)


def _fit_known(past: "Past") -> dict[str, Rule]:
    known = ~np.isnan(past.y)
    assert past.facts is not None
    return fit_shift_rules(past.facts[known], past.y[known], without=JUDGED_ONLY)


def _weights(noise: np.ndarray) -> np.ndarray:
    """Return the root of each window's σ over their mean, 1 on average but for the outermost."""
    root = np.sqrt(np.nan_to_num(noise))
    return np.clip(root / max(root.mean(), 1e-9), *WEIGHTS).astype(np.float32) if len(root) else root


def _rates(y: np.ndarray) -> list[float]:
    counts = np.bincount(y[~np.isnan(y)].astype(int), minlength=3) + 1 / 3
    return list(map(float, counts / counts.sum()))


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """Matured windows to learn from, all arrays by row."""

    block: np.ndarray
    y: np.ndarray
    z: np.ndarray
    weight: np.ndarray
    as_of: np.ndarray
    matured: np.ndarray
    kind: np.ndarray
    facts: pd.DataFrame | None

    def at(self, index: np.ndarray) -> "Past":
        facts = None if self.facts is None else self.facts.iloc[index].reset_index(drop=True)
        return Past(
            self.block[index], self.y[index], self.z[index], self.weight[index], self.as_of[index],
            self.matured[index], self.kind[index], facts,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Hindsight:
    """What was said of windows before anything of them was known, and what became of them, all by row."""

    P: np.ndarray
    quantiles: np.ndarray
    told: Mapping[str, np.ndarray]
    y: np.ndarray
    z: np.ndarray
    weeks: np.ndarray
    kind: np.ndarray
    window: np.ndarray

    def known(self) -> "Hindsight":
        """Return the windows whose class is known."""
        at = ~np.isnan(self.y)
        told = {name: p[at] for name, p in self.told.items()}
        arrays = (self.y, self.z, self.weeks, self.kind, self.window)
        return Hindsight(self.P[at], self.quantiles[at], told, *(x[at] for x in arrays))


def _of(seen: list[Hindsight], *names: str) -> list[np.ndarray]:
    empty = {"quantiles": np.zeros((0, len(LEVELS))), "P": np.zeros((0, 3))}
    return [np.concatenate([empty.get(n, np.zeros(0)), *(getattr(part, n) for part in seen)]) for n in names]


def _class_map(known: list[Hindsight]) -> Any:
    """Choose the map of class probabilities; the latest term alone tells today's shape."""
    if not known or len(known[0].y) < 100:
        return calibration.MultiCalibrator("none").fit(np.full((3, 3), 1 / 3), [0, 1, 2])
    return calibration.choose(known[0].P, known[0].y.astype(int), known[0].weeks, SHAPE_MAPS)


def _lean(known: list[Hindsight], class_map: Any) -> tuple[dict[str, dict[int, tuple[float, str]]], dict[str, float]]:
    """Choose how far each direction leans on a rule, by the latest term alone, and how far it is then believed.

    In older terms the model had too little to learn from to tell whether it is better than a rule.
    """
    if not known or len(known[0].y) < 100 or not known[0].told:
        return {direction: {-1: NO_EVIDENCE} for direction in DIRECTIONS}, {}
    terms = [Term(np.asarray(class_map.transform(part.P)), part.told, part.y, part.window) for part in known]
    shares = choose_shares(terms[0].P, terms[0].told, terms[0].y, terms[0].window)
    return shares, choose_trust(terms, shares)
