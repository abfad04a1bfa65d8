"""Will an open purchase line miss the promise in force, and when will it come? Calibrated on later matured weeks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin

from models import boosting, calibration, usual
from models.arrivals import tied_to
from models.blend import at_level, blend, choose_weight, level_loss, level_shift
from models.boosting import Encoder, Growing, canonical_order, day_numbers
from models.hazard import PERIOD_INPUTS, ROUNDS, Evaluated, Hazard, Times
from models.naive_rules import RULE_INPUTS, delay_rule_rows
from models.rounds import Grow, choose_rounds, mean, round_counts
from models.rule_kinds import LogisticSix, rule_from_dict
from models.splits import calibration_split

DIRECT_SHARE = 2 / 3  # of the hazard's rounds: who was late is said by fewer rows

LATER_ROWS = 20_000  # of the calibration weeks: enough to choose and to calibrate by, and quick to predict
KINDS = ("hazard", "direct", "blend")
DIRECT: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.055,
    "num_leaves": 8,
    "min_data_in_leaf": 200,  # snapshots of one line resemble each other: 200 rows are some 50 lines
    "feature_fraction": 0.2,  # supplier, lane and item shares tell the same story; each tree is given a fifth of it
    "bagging_fraction": 0.5,  # halves the spread between seeds at no cost in skill
    "bagging_freq": 1,
    "lambda_l2": 30.0,
}
# Inputs the trees are not given. They are the same for very many rows of a day, so trees learn days by heart with them:
# without them the Brier score fell from 0.1316 to 0.1284 on two later quarters of a marketplace, and on a simulated
# chain from 0.1884 to 0.1824. What they say of a row reaches it through the priors of its supplier's shares.
LEFT_OUT = ("chain_", "category_", "region_", "order_month", "promise_month", "as_of_day")


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Encoded rows with their outcomes, aligned, and what the hazard's trees said of them where that is kept.

    Their inputs are the rows `place` of `cells`, or all of them: models learn from a part of what there is to learn
    from, and the rest need not be copied.
    """

    cells: np.ndarray
    place: np.ndarray | None
    times: Times
    facts: pd.DataFrame | None
    late: np.ndarray
    completed_in: np.ndarray
    watched: np.ndarray
    as_of: np.ndarray
    matured_on: np.ndarray
    evaluated: list[Evaluated] | None = None

    @property
    def block(self) -> np.ndarray:
        return self.cells if self.place is None else self.cells[self.place]

    def first(self, n: int) -> np.ndarray:
        """Return the inputs of the first n rows."""
        return self.cells[:n] if self.place is None else self.cells[self.place[:n]]

    def take(self, index: np.ndarray) -> "_Rows":
        facts = None if self.facts is None else self.facts.iloc[index]
        others = (self.late, self.completed_in, self.watched, self.as_of, self.matured_on)
        place = index if self.place is None else self.place[index]
        return _Rows(self.cells, place, self.times.take(index), facts, *(a[index] for a in others))

    def alone(self) -> "_Rows":
        """Return the same rows with inputs of their own."""
        return replace(self, cells=self.block, place=None)

    def at(self, start: np.datetime64, cut: np.datetime64) -> "_Rows":
        """Return the rows asked before `start` as they stood then: less was watched, less had completed."""
        mine = self.take(np.flatnonzero(self.as_of < start))
        begun, whole = ((day_numbers(day) - day_numbers(mine.as_of)).astype(float) for day in (start, cut))
        lag = np.min(whole - mine.watched, initial=np.inf)  # of lines that nobody cancelled: the posting lag
        watched = np.minimum(mine.watched, begun - (lag if np.isfinite(lag) else 0.0))
        known = mine.completed_in < watched
        return replace(mine, watched=watched, completed_in=np.where(known, mine.completed_in, np.nan))


Asked = _Rows


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """What was learnt from one set of rows: the hazard, the direct trees, or both."""

    hazard: Hazard | None
    trees: lgb.Booster | None
    threads: int

    def predict(self, rows: _Rows) -> np.ndarray:
        """Return P(late) by all trees."""
        said = []
        if self.hazard is not None:
            said += self.hazard.late_by(rows.block, rows.times, (None,), rows.evaluated)
        if self.trees is not None:
            said += _told(self.trees, rows, (None,), self.threads)
        return mean(said)


def _told(trees: lgb.Booster, rows: _Rows, counts: Sequence[int | None], threads: int) -> list[np.ndarray]:
    """Return P(late) by the first trees, so many as each of `counts` says; None means all."""
    return [boosting.said_by_trees(trees, rows.block, rounds=n, threads=threads) for n in counts]


class DelayModel(ClassifierMixin, BaseEstimator):
    """P(C > P(s) + L | line open and due at s), and the curve P(C > s + d) that agrees with it.

    `kind` says how: "hazard", the discrete-time hazard of completion read off at the promise, which learns from every
    line, received or not; "direct", trees that learn who was late; "blend", the mean of both on the logit scale.
    Whatever the kind, the curve is the hazard's, bent to meet P(late) at the promise.

    A first model learns from what was known before the last `calibration_weeks`, or more where labels are waited for
    longer. The rows that have matured since choose the number of trees, the calibration map, and how far the model
    leans on a six-input logistic regression, which drifts less (`models.blend`). The model that is kept learns from all
    rows and takes these choices over.

    The map corrects the shape of the forecasts, not their level: the kept model has seen the calibration weeks, so its
    level is right, and correcting it again would make it wrong. Hence the first model is moved to the level of those
    weeks before the map is learnt, and what the map then moves the kept model's mean over them by is taken back. With
    too few rows to calibrate the map is the identity.

    n rows without one late line do not prove "never": P is held inside [1/(n + 2), 1 − 1/(n + 2)]; learnt from no
    judged row at all it is ½.
    """

    def __init__(
        self, *, kind: str = "blend", country: str = "", params: Mapping[str, Any] | None = None, rounds: int = ROUNDS,
        calibration_weeks: int = 13, max_rows: int = 60_000, max_periods: int = 130_000, seed: int = 7,
        threads: int = 0,
    ):  # fmt: skip
        self.kind = kind
        self.country = country
        self.params = params
        self.rounds = rounds
        self.calibration_weeks = calibration_weeks
        self.max_rows = max_rows
        self.max_periods = max_periods
        self.seed = seed
        self.threads = threads

    def fit(self, X: pd.DataFrame, outcomes: pd.DataFrame, *, cut: Any) -> Self:
        """Learn from rows X and what was known of them at `cut`: `features.labels.delay_outcomes`, aligned."""
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; expected one of {KINDS}")
        self.classes_ = np.array([0, 1])
        self.encoder_ = Encoder().fit(X, [name for name in X if not name.startswith(LEFT_OUT)])
        rows = self._rows(X, outcomes)
        judged = rows.take(np.flatnonzero(~np.isnan(rows.late)))
        n = len(judged.late)
        self.base_rate_, self.edge_ = float(judged.late.mean()) if n else 0.5, 1 / (n + 2)
        self.usual_ = usual.usual(rows.take(usual.sampled(len(rows.late))).block, self.encoder_.columns_)
        self.weight_, self.steady_, self.offset_ = 1.0, None, 0.0
        self.rounds_ = {part: counts[-1] for part, counts in self._round_counts().items()}
        self.calibrator_: Any = calibration.Identity().fit([0.5], [0])
        since = self._calibrate(rows, judged, np.datetime64(cut, "D"))
        self.parts_ = self._learn(rows, judged)
        if self.weight_ < 1 and judged.facts is not None:
            self.steady_ = LogisticSix().fit(judged.facts.assign(y=judged.late.astype(int)))
        if self.calibrator_.kind != "identity":
            raw = self._raw(since)
            self.offset_ = level_shift(self.calibrator_.transform(raw), float(raw.mean()))
        return self

    def _rows(self, X: pd.DataFrame, outcomes: pd.DataFrame) -> _Rows:
        """Return the rows in an order that depends on their content alone."""
        block, times = self.encoder_.transform(X), Times.of(X)
        asked, matured = (outcomes[c].to_numpy().astype("datetime64[D]") for c in ("as_of", "matured_on"))
        late, done, watched = (outcomes[c].to_numpy(float) for c in ("y", "completed_in", "watched"))
        order = canonical_order(
            block, times.as_of, times.age, times.due, late, done, watched, day_numbers(asked), day_numbers(matured)
        )
        facts = delay_rule_rows(X) if set(X) >= RULE_INPUTS else None
        return _Rows(block, None, times, facts, late, done, watched, asked, matured).take(order)

    def _learn(self, rows: _Rows, judged: _Rows) -> _Parts:
        """Learn from all `rows` when each came, and from `judged` ones whether it was late."""
        hazard, trees = self._hazard(rows)
        direct = None if self.kind == "hazard" else self._direct(judged).upto(self.rounds_["direct"])
        return _Parts(hazard.grow(trees, self.rounds_["hazard"]), direct, self.threads)

    def _hazard(self, rows: _Rows) -> tuple[Hazard, Growing]:
        hazard = Hazard(
            country=self.country, params=self.params, max_rows=self.max_rows, max_periods=self.max_periods,
            seed=self.seed, threads=self.threads,
        )  # fmt: skip
        first, categorical = rows.first(self.max_rows), self.encoder_.categorical
        return hazard, hazard.begin(first, rows.times, rows.completed_in, rows.watched, categorical)

    def _direct(self, judged: _Rows) -> Growing:
        block, late = judged.first(self.max_rows), judged.late[: self.max_rows]
        small = max(min(DIRECT["min_data_in_leaf"], len(late) // 40), 2)
        params = {**DIRECT, "min_data_in_leaf": small, **(self.params or {})}
        return Growing(block, late, params, seed=self.seed, threads=self.threads, categorical=self.encoder_.categorical)

    def _growing(self, rows: _Rows, judged: _Rows, later: _Rows) -> dict[str, Grow]:
        """Return the parts whose probability is published, to grow and say what becomes of `later` rows."""
        parts: dict[str, Grow] = {}
        if self.kind != "direct":
            hazard, begun = self._hazard(rows)
            parts["hazard"] = lambda n: hazard.grow(begun, n[-1]).late_by(later.block, later.times, n)
        if self.kind != "hazard":
            trees = self._direct(judged)
            parts["direct"] = lambda n: _told(trees.upto(n[-1]), later, n, self.threads)
        return parts

    def _published(self, parts: _Parts) -> _Parts:
        """Return the parts whose probability is published; the hazard's curve is drawn whatever the kind."""
        return replace(parts, hazard=None) if self.kind == "direct" else parts

    def _calibrate(self, rows: _Rows, judged: _Rows, cut: np.datetime64) -> _Rows:
        """Choose the map and the weight of the regression on the latest weeks, by models of what was known before."""
        weeks = self._weeks_to_calibrate(judged, cut)
        before, since = calibration_split(judged.as_of, judged.matured_on, cut=cut, weeks=weeks)
        past, later = judged.take(before), judged.take(since[:LATER_ROWS]).alone()
        if len(before) < 200 or len(since) < 100 or not 0 < past.late.sum() < len(before):
            return later
        first = self._growing(rows.at(cut - np.timedelta64(7 * weeks, "D"), cut), past, later)
        counts = {part: self._round_counts()[part] for part in first}
        chosen, guess = choose_rounds(first, counts, lambda p: level_loss(p, later.late))
        self.rounds_ |= chosen
        if judged.facts is not None:
            steady = LogisticSix().fit(past.facts.assign(y=past.late.astype(int)))  # type: ignore[union-attr]
            other = steady.predict(later.facts)
            self.weight_ = choose_weight(guess, other, later.late)
            guess = blend(guess, other, self.weight_)
        level = at_level(guess, later.late.mean())
        self.calibrator_ = calibration.choose(level, later.late, later.as_of.astype("datetime64[W]"))
        return later

    def _weeks_to_calibrate(self, judged: _Rows, cut: np.datetime64) -> int:
        """Twice as long as nine in ten rows wait for their label, so that not only the quickest are there, but no more
        than a third of the history."""
        if not len(judged.late):
            return self.calibration_weeks
        wait = np.quantile(day_numbers(judged.matured_on) - day_numbers(judged.as_of), 0.9)
        history = int(day_numbers(cut)) - int(day_numbers(judged.as_of).min())
        return max(self.calibration_weeks, min(round(2 * wait / 7), history // 21))

    def _round_counts(self) -> dict[str, list[int]]:
        """Return the rising numbers of trees that are tried for each part."""
        return {"hazard": round_counts(self.rounds), "direct": round_counts(self.rounds * DIRECT_SHARE)}

    def _raw(self, rows: _Rows) -> np.ndarray:
        guess = self._published(self.parts_).predict(rows)
        return guess if self.steady_ is None else blend(guess, self.steady_.predict(rows.facts), self.weight_)

    def asked(self, X: pd.DataFrame) -> Asked:
        """Return rows of inputs as the model reads them, for `late` and then `arrivals`."""
        facts = None if self.steady_ is None else delay_rule_rows(X)
        none = np.empty(0)
        return _Rows(self.encoder_.transform(X), None, Times.of(X), facts, none, none, none, none, none, [])

    def late(self, rows: Asked) -> np.ndarray:
        """Return P(late) of rows `asked`."""
        raw = self._raw(rows)
        late = self.calibrator_.transform(np.nan_to_num(raw, nan=self.base_rate_))
        if self.offset_:
            late = expit(calibration.logit(late) + self.offset_)
        late = np.where(np.isnan(raw), self.base_rate_, late)
        return np.clip(late, self.edge_, 1 - self.edge_)

    def arrivals(self, rows: Asked, p_late: np.ndarray) -> np.ndarray:
        """Return the days to arrival [row, level of QUANTILES] of rows `asked`, whose curves are tied to `p_late`."""
        assert self.parts_.hazard is not None
        return self.parts_.hazard.arrivals(rows.block, rows.times, p_late, rows.evaluated or [])

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        """Return P(on time), P(late) [row, 2]; the base rate where a line has no promise to miss."""
        late = self.late(self.asked(X))
        return np.column_stack([1 - late, late])

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        """Return 1 where late is likelier than on time."""
        return (self.predict_proba(X)[:, 1] > 0.5).astype(int)

    def survival(self, X: pd.DataFrame, p_late: np.ndarray | None = None) -> np.ndarray:
        """Return P(C > s + d) for d = 0 … LONGEST − 1 [row, day], never rising.

        At the promise it is P(late): the model's, or the `p_late` that is published instead, NaN for rows whose curve
        is left as it is. P(miss the need date) is the value at its day.
        """
        times = Times.of(X)
        p = self.predict_proba(X)[:, 1] if p_late is None else np.asarray(p_late, float)
        return tied_to(self.parts_.hazard.survival(self.encoder_.transform(X), times), times.due, p)  # type: ignore[union-attr]

    @property
    def booster_(self) -> lgb.Booster:
        """The trees that are explained: the direct ones if there are any, whose inputs are the rows' alone."""
        trees = self.parts_.trees
        return self.parts_.hazard.booster_ if trees is None else trees  # type: ignore[union-attr]

    def contributions(self, X: pd.DataFrame) -> np.ndarray:
        """Return SHAP values [row, encoder's column] of the log-odds of being late.

        A hazard is explained in the bucket in which the line is likeliest to come: what raises the chance there lowers
        that of being late. What the bucket's place in time adds is the time that is left.
        """
        block = self.encoder_.transform(X)
        if self.parts_.trees is not None:
            return boosting.contributions(self.parts_.trees, block, self.threads)[:, :-1]
        hazard = self.parts_.hazard
        assert hazard is not None
        shap = -boosting.contributions(hazard.booster_, hazard.busiest(block, Times.of(X)), self.threads)[:, :-1]
        own, place = np.split(shap, [block.shape[1]], axis=1)
        if "days_to_promise" in self.encoder_.columns_ and place.shape[1] == len(PERIOD_INPUTS):
            own[:, self.encoder_.columns_.index("days_to_promise")] += place.sum(axis=1)
        return own

    def save(self, folder: Path) -> None:
        """Write the model as text and JSON into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        assert self.parts_.hazard is not None
        self.parts_.hazard.save(folder / "hazard.lgb")
        if self.parts_.trees is not None:
            boosting.save(self.parts_.trees, folder / "direct.lgb")
        state = {
            "params": self.get_params(), "encoder": self.encoder_.to_dict(), "calibrator": self.calibrator_.to_dict(),
            "base_rate": self.base_rate_, "edge": self.edge_, "offset": self.offset_, "weight": self.weight_,
            "steady": self.steady_ and self.steady_.to_dict(), "hazard": self.parts_.hazard.to_dict(),
            **usual.to_dict(self.usual_),
        }  # fmt: skip
        (folder / "model.json").write_text(json.dumps(state))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; predictions are identical."""
        state = json.loads((folder / "model.json").read_text())
        new = cls(**state["params"])
        new.classes_ = np.array([0, 1])
        new.encoder_ = Encoder.from_dict(state["encoder"])
        new.calibrator_ = calibration.from_dict(state["calibrator"])
        new.weight_, new.steady_ = state["weight"], state["steady"] and rule_from_dict(state["steady"])
        new.base_rate_, new.edge_, new.offset_ = state["base_rate"], state["edge"], state["offset"]
        new.usual_ = usual.from_dict(state, new.encoder_.columns_)
        hazard = Hazard(country=new.country, threads=new.threads).load(folder / "hazard.lgb", state["hazard"])
        trees = None if new.kind == "hazard" else lgb.Booster(model_file=folder / "direct.lgb")
        new.parts_ = _Parts(hazard, trees, new.threads)
        return new
