"""What does each external signal buy? Its out-of-time skill with and without, and which ones are worth keeping."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, ndtri

from features.signals import signal_of
from models.boosting import Encoder, canonical_order, day_numbers, said_by_trees, train
from models.calibration import Platt, logit
from models.metrics import block_bootstrap, dot
from models.splits import calibration_split

TEST_WEEKS = 52
BLOCK_WEEKS = 4  # windows of neighbouring weeks share their demand, and a signal moves slowly
LEAST_TRAIN, LEAST_TEST, LEAST_POSITIVES = 500, 200, 20
LEARN_ROWS, TEST_ROWS = 40_000, 20_000
SURE = 0.9  # chance that a signal which is noise is dropped, however many events it is tried on
CLEAR = 0.01  # skill in both halves that is kept whatever the noise: few products make wide intervals
LEAST = 0.002  # skill below which a signal is not worth its trouble, however sure
# The forecast without signals is given all other inputs. What a signal adds to it is a few shallow trees over the
# signal's own inputs, learnt from rows the first has not seen. So little can be learnt by heart, and a signal that says
# nothing changes next to nothing, instead of as much as two forests differ by chance.
PLAIN: dict[str, Any] = {
    "objective": "binary", "learning_rate": 0.1, "num_leaves": 15, "min_data_in_leaf": 100, "lambda_l2": 20.0,
}  # fmt: skip
ADDED: dict[str, Any] = {
    "objective": "binary", "learning_rate": 0.05, "num_leaves": 4, "min_data_in_leaf": 400, "lambda_l2": 50.0,
}  # fmt: skip
PLAIN_ROUNDS, ADDED_ROUNDS = 60, 40


def signals_of(columns: Any) -> dict[str, list[str]]:
    """Return the columns of every external signal among the inputs, by signal."""
    found: dict[str, list[str]] = {}
    for column in columns:
        if (signal := signal_of(column)) is not None:
            found.setdefault(signal, []).append(column)
    return found


def worth_of_signals(
    X: pd.DataFrame, happened: Mapping[str, np.ndarray], then: pd.DataFrame, entity: np.ndarray, *, cut: Any, seed: int,
    threads: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return per signal the skill it added in the last weeks before `cut`, learnt from rows matured before them.

    `happened` is 0 or 1 per event and row, NaN where unknown at the cut. For every event a light forecast without any
    signal is held against the same with this signal added: `skill` is 1 − Brier with/Brier without, with a 95 %
    interval by block bootstrap over weeks and entities. A signal is `kept` where it pays for some event by LEAST, and
    by more than noise or by CLEAR, in the earlier and in the later half of those weeks, where it is known ahead, or
    where too little has matured to tell.
    """
    signals = signals_of(X.columns)
    if not signals:
        return []
    trials = {event: _Trial.of(X, y, then, entity, cut, seed, threads) for event, y in happened.items()}
    margin = float(ndtri(SURE ** (1 / len(trials))))
    bill = []
    for signal, columns in sorted(signals.items()):
        bought = {event: trial.bought(X[columns], margin) for event, trial in trials.items() if trial is not None}
        planned = any(column.endswith("_ahead") for column in columns)  # a plan is no rumour: it is billed and stays
        kept = planned or not bought or any(found["pays"] for found in bought.values())
        bill.append({"signal": signal, "kept": kept, "events": bought})
    return bill


def dropped(bill: list[dict[str, Any]], columns: Any) -> list[str]:
    """Return the columns of the signals that are not kept."""
    signals = signals_of(columns)
    return [column for entry in bill if not entry["kept"] for column in signals.get(entry["signal"], [])]


def _halves(then: pd.DataFrame, y: np.ndarray, cut: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return places to learn from and to test on: a year, or a third of a shorter history."""
    known = np.flatnonzero(~np.isnan(y))
    if not len(known):
        return known, known
    as_of, matured = then["as_of"].to_numpy()[known], then["matured_on"].to_numpy()[known]
    reach = (np.datetime64(cut, "D") - as_of.min().astype("datetime64[D]")).astype(int) / 7
    early, late = calibration_split(as_of, matured, cut=cut, weeks=int(min(TEST_WEEKS, reach // 3)))
    return known[early], known[late]


def _enough(y: np.ndarray, early: np.ndarray, late: np.ndarray) -> bool:
    if len(early) < LEAST_TRAIN or len(late) < LEAST_TEST:
        return False
    return all(min(y[part].sum(), (1 - y[part]).sum()) >= LEAST_POSITIVES for part in (early, late))


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """One event's rows: places `learn` to teach what is added, places `test` to judge it, and the forecasts of both
    without signals, as logits."""

    y: np.ndarray
    learn: np.ndarray
    test: np.ndarray
    learn_score: np.ndarray
    test_score: np.ndarray
    weeks: np.ndarray
    entity: np.ndarray
    seed: int
    threads: int

    @classmethod
    def of(
        cls, X: pd.DataFrame, y: np.ndarray, then: pd.DataFrame, entity: np.ndarray, cut: Any, seed: int, threads: int
    ) -> "_Trial | None":
        """Return the trial, None where too little has matured."""
        early, late = _halves(then, y, cut)
        if not _enough(y, early, late):
            return None
        base = [c for c in X if signal_of(c) is None]
        early, late = (_sample(X, part, y, then, n) for part, n in ((early, LEARN_ROWS), (late, TEST_ROWS)))
        first, second = early[::2], early[1::2]
        encoder = Encoder().fit(X.iloc[first][base])
        booster = train(
            encoder.transform(X.iloc[first][base]), y[first], PLAIN, rounds=PLAIN_ROUNDS, seed=seed, threads=threads,
            categorical=encoder.categorical,
        )  # fmt: skip

        def said(part: np.ndarray) -> np.ndarray:
            return said_by_trees(booster, encoder.transform(X.iloc[part][base]), threads=threads)

        level = Platt().fit(said(second), y[second])  # else any signal would seem to pay by mending the level
        scores = [logit(level.transform(said(part))) for part in (second, late)]
        weeks = then["as_of"].to_numpy()[late].astype("datetime64[W]")
        return cls(y, second, late, scores[0], scores[1], weeks, entity[late], seed, threads)

    def bought(self, signal: pd.DataFrame, margin: float) -> dict[str, Any]:
        """Return what these inputs add to the forecast; they pay if that is more than `margin` standard errors."""
        encoder = Encoder().fit(signal.iloc[self.learn])
        booster = train(
            encoder.transform(signal.iloc[self.learn]), self.y[self.learn], ADDED, rounds=ADDED_ROUNDS, seed=self.seed,
            threads=self.threads, start=self.learn_score,
        )  # fmt: skip
        block = encoder.transform(signal.iloc[self.test])
        added = said_by_trees(booster, block, raw=True, threads=self.threads)
        return self._skill(expit(self.test_score + added), expit(self.test_score), margin)

    def _skill(self, with_it: np.ndarray, without: np.ndarray, margin: float) -> dict[str, Any]:
        y = self.y[self.test]
        mine, base = (with_it - y) ** 2, (without - y) ** 2
        later = self.weeks > np.median(self.weeks.astype(np.int64)).astype("datetime64[W]")

        def skill(weight: np.ndarray) -> dict[str, float]:
            below = dot(weight, base)
            return {"skill": 1 - dot(weight, mine) / below if below > 0 else np.nan}

        gained, *halves = (skill(weight)["skill"] for weight in (np.ones(len(y)), ~later * 1.0, later * 1.0))
        blocks = self.weeks.astype(np.int64) // BLOCK_WEEKS
        low, high = block_bootstrap(skill, blocks, self.entity, n=200, seed=7)["skill"]
        noise = (high - low) / 3.92
        known = bool(np.isfinite(noise))
        return {
            "skill": gained, "interval": [low, high] if known else [None, None], "n": len(y),
            "positives": int(y.sum()), "brier_without": float(base.mean()), "brier_with": float(mine.mean()),
            "pays": known and bool(gained > max(LEAST, min(margin * noise, CLEAR)) and min(halves) > 0),
        }  # fmt: skip


def _sample(X: pd.DataFrame, places: np.ndarray, y: np.ndarray, then: pd.DataFrame, n: int) -> np.ndarray:
    """Return n of the places that depend on what the rows hold, not on their order."""
    numbers = X.iloc[places].select_dtypes("number").to_numpy(np.float32)
    return places[canonical_order(numbers, y[places], day_numbers(then["as_of"].iloc[places]))[:n]]
