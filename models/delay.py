"""Will an open purchase line miss the promise in force? P(late), calibrated on later matured weeks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin

from models import calibration
from models.baselines import RULE_INPUTS, LogisticSix, delay_rule_rows, rule_from_dict
from models.blend import at_level, blend, choose_weight, level_shift
from models.boosting import Encoder, canonical_order, day_numbers, train
from models.hazard import ArrivalModel, tied_to
from models.splits import calibration_split

PARAMS: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 16,
    "min_data_in_leaf": 100,  # snapshots of one line resemble each other: 100 rows are some 25 lines
    "feature_fraction": 0.4,  # supplier, lane and item shares tell the same story; each tree hears less than half of it
    "bagging_fraction": 0.5,  # halves the spread between seeds at no cost in skill
    "bagging_freq": 1,
    "lambda_l2": 8.0,
}
ROUNDS = 220
# Inputs the trees do not hear. They are the same for very many rows of a day, so trees learn days by heart with them:
# without them the Brier score fell from 0.1316 to 0.1284 on two later quarters of a marketplace, and on a simulated
# chain from 0.1884 to 0.1824. What they say of a row reaches it through the priors of its supplier's shares.
UNHEARD = ("chain_", "category_", "region_", "order_month", "promise_month")

# "Change nothing" is not among the maps: Platt's begins there, pulled by its prior. It moved the slope on later
# quarters of three simulated chains from 0.96–1.25 to 0.96–1.10 at a lower Brier score, a marketplace's hardly.
SHAPE_MAPS = (calibration.Platt(), calibration.Beta(), calibration.Isotonic())


class DelayModel(ClassifierMixin, BaseEstimator):
    """P(C > P(s) + L | line open and due at s): LightGBM on open-line snapshots, then a calibration map.

    `fit` needs each row's as_of and matured_on. A first booster learns from rows matured before the last
    `calibration_weeks`, its calibration map from the rows of those weeks; the booster that is kept is trained on all
    rows and inherits the map. More than `max_rows` rows are thinned at random: they are snapshots of the same lines,
    and 60,000 taught as much as 180,000. The map corrects the shape of the forecasts, not their level: the first
    booster is moved to the level of its calibration weeks beforehand, and what the map then moves the kept booster's
    mean over those weeks by is taken back, since it has seen them and a level corrected twice is wrong once. With too
    few rows to calibrate the map is the identity. The same weeks decide how far the trees lean on a six-input logistic
    regression, which drifts less (`models.blend`). n rows without one late line do not prove "never": P is held inside
    [1/(n + 2), 1 − 1/(n + 2)]; learnt from no row at all it is ½.
    """

    def __init__(
        self, *, params: Mapping[str, Any] | None = None, rounds: int = ROUNDS, calibration_weeks: int = 13,
        max_rows: int = 60_000, seed: int = 7, threads: int = 0,
    ):  # fmt: skip
        self.params = params
        self.rounds = rounds
        self.calibration_weeks = calibration_weeks
        self.max_rows = max_rows
        self.seed = seed
        self.threads = threads

    def fit(self, X: pd.DataFrame, outcomes: pd.DataFrame, *, cut: Any) -> Self:
        """Learn from rows matured by `cut`; X [row, feature], outcomes as `delay_outcomes` gives them."""
        self.arrival_ = ArrivalModel(seed=self.seed, threads=self.threads).fit(
            X, due_in=outcomes["due_in"], completed_in=outcomes["completed_in"], watched=outcomes["watched"]
        )
        known = np.flatnonzero(outcomes["y"].notna())
        X, outcomes = X.iloc[known], outcomes.iloc[known]
        outcome = outcomes["y"].to_numpy(np.float64)
        asked, matured = outcomes["as_of"].to_numpy(), outcomes["matured_on"].to_numpy()
        self.classes_ = np.array([0, 1])
        self.encoder_ = Encoder().fit(X[[name for name in X if not name.startswith(UNHEARD)]])
        block = self.encoder_.transform(X)
        order = canonical_order(block, outcome, day_numbers(asked), day_numbers(matured))
        block, late, asked, matured = block[order], outcome[order], asked[order], matured[order]
        self.base_rate_ = float(late.mean()) if len(late) else 0.5
        self.edge_ = 1 / (len(late) + 2)
        self.usual_ = pd.Series(medians(block), self.encoder_.columns_, dtype=float)
        facts = delay_rule_rows(X.iloc[order]) if set(X) >= RULE_INPUTS else None
        self.weight_, self.steady_, self.offset_ = 1.0, None, 0.0
        before, since = calibration_split(asked, matured, cut=cut, weeks=self.calibration_weeks)
        self.calibrator_: Any = calibration.Identity().fit([0.5], [0])
        if len(before) >= 200 and len(since) >= 100 and 0 < late[before].sum() < len(before):
            self._calibrate(block, facts, late, asked.astype("datetime64[W]"), before, since)
        self.booster_ = self._train(block, late)
        if self.weight_ < 1 and facts is not None:
            self.steady_ = LogisticSix().fit(facts.assign(y=late.astype(int)))
        if self.calibrator_.kind != "identity":
            raw = self._raw(block[since], None if facts is None else facts.iloc[since])
            self.offset_ = level_shift(self.calibrator_.transform(raw), float(raw.mean()))
        return self

    def _raw(self, block: np.ndarray, facts: pd.DataFrame | None) -> np.ndarray:
        trees = np.asarray(self.booster_.predict(block, num_threads=self.threads))
        return trees if self.steady_ is None else blend(trees, self.steady_.predict(facts), self.weight_)

    def _calibrate(
        self, block: np.ndarray, facts: pd.DataFrame | None, late: np.ndarray, weeks: np.ndarray, before: np.ndarray,
        since: np.ndarray,
    ) -> None:  # fmt: skip
        """Choose the map and the weight of the regression on the weeks `since`, by models of the rows `before`."""
        first = self._train(block[before], late[before])
        guess = np.asarray(first.predict(block[since], num_threads=self.threads))
        if facts is not None:
            steady = LogisticSix().fit(facts.iloc[before].assign(y=late[before].astype(int)))
            other = steady.predict(facts.iloc[since])
            self.weight_ = choose_weight(guess, other, late[since])
            guess = blend(guess, other, self.weight_)
        enough = np.bincount(late[since].astype(int), minlength=2).min() >= calibration.MIN_EACH_CLASS
        level = at_level(guess, late[since].mean())
        self.calibrator_ = calibration.choose(level, late[since], weeks[since], SHAPE_MAPS if enough else None)

    def _train(self, block: np.ndarray, y: np.ndarray) -> lgb.Booster:
        block, y = block[: self.max_rows], y[: self.max_rows]
        small = max(min(PARAMS["min_data_in_leaf"], len(y) // 40), 2)
        params = {**PARAMS, "min_data_in_leaf": small, **(self.params or {})}
        return train(
            block, y, params, rounds=self.rounds, seed=self.seed, threads=self.threads,
            categorical=self.encoder_.categorical,
        )  # fmt: skip

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        """Return P(on time), P(late) [row, 2]."""
        raw = self._raw(self.encoder_.transform(X), None if self.steady_ is None else delay_rule_rows(X))
        late = self.calibrator_.transform(raw)
        if self.offset_:
            late = expit(calibration.logit(late) + self.offset_)
        late = np.clip(late, self.edge_, 1 - self.edge_)
        return np.column_stack([1 - late, late])

    def survival(self, X: pd.DataFrame, p_late: np.ndarray | None = None) -> np.ndarray:
        """Return S at the end of days 0 … LONGEST − 1 [row, day], with S(due) = p_late for lines not yet due."""
        due_in = X["days_to_promise"].to_numpy(float)
        p = self.predict_proba(X)[:, 1] if p_late is None else p_late
        return tied_to(self.arrival_.survival(X, due_in), due_in, np.where(due_in >= 0, p, np.nan))

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        """Return 1 where late is likelier than on time."""
        return (self.predict_proba(X)[:, 1] > 0.5).astype(int)

    def save(self, folder: Path) -> None:
        """Write the model as text and JSON into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.booster_.save_model(folder / "model.lgb")
        self.arrival_.save(folder / "arrival")
        state = {
            "params": self.get_params(), "encoder": self.encoder_.to_dict(), "calibrator": self.calibrator_.to_dict(),
            "base_rate": self.base_rate_, "edge": self.edge_, "offset": self.offset_,
            "weight": self.weight_, "steady": None if self.steady_ is None else self.steady_.to_dict(),
            "usual": [None if np.isnan(v) else v for v in self.usual_],
        }  # fmt: skip
        (folder / "model.json").write_text(json.dumps(state))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; scores are identical."""
        state = json.loads((folder / "model.json").read_text())
        new = cls(**state["params"])
        new.classes_ = np.array([0, 1])
        new.booster_ = lgb.Booster(model_file=folder / "model.lgb")
        new.arrival_ = ArrivalModel.load(folder / "arrival")
        new.encoder_ = Encoder.from_dict(state["encoder"])
        new.calibrator_ = calibration.from_dict(state["calibrator"])
        new.weight_, new.steady_ = state["weight"], state["steady"] and rule_from_dict(state["steady"])
        new.base_rate_, new.edge_, new.offset_ = state["base_rate"], state["edge"], state["offset"]
        new.usual_ = pd.Series(state["usual"], new.encoder_.columns_, dtype=float)
        return new


def medians(block: np.ndarray) -> np.ndarray:
    """Return each column's median over a sample of rows, NaN for a column without values."""
    sample = block[:: max(len(block) // 20_000, 1)]
    if not len(sample):
        return np.full(block.shape[1], np.nan)
    empty = np.isnan(sample).all(axis=0)
    return np.where(empty, np.nan, np.nanmedian(np.where(empty, 0.0, sample), axis=0))
