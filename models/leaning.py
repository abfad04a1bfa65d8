"""Lean on a naive rule where later weeks do not show the model to be better, and believe no more than they confirm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit

from models.calibration import logit
from models.naive_rules import SHIFT_RULES, fit_rules
from models.rule_kinds import Rule, rule_from_dict

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of the model that are tried
DIRECTIONS = {"down": 0, "up": 2}
ENOUGH = 10  # events of a direction below which a window is judged together with all others
JUDGED_ONLY = ("auto_ets",)  # rules whose facts a backtest has and a release has not
USUAL = "climatology"
NO_EVIDENCE = (0.5, USUAL)
TRUST, TRUST_WEIGHT = 0.8, 0.2  # how far a forecast is believed before any evidence, and what it takes to be moved
MOST_TRUST = 1.5

Shares = Mapping[int, tuple[float, str]]
Told = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class Lean:
    """p = w·model + (1 − w)·rule for each direction and window; `shares` holds (w, rule), window −1 all others.

    Then logit p′ = a·logit p + (1 − a)·logit(climatology), a the `trust` of a direction.
    """

    shares: Mapping[str, Shares]
    rules: Mapping[str, Rule]
    trust: Mapping[str, float] = field(default_factory=dict)

    def apply(self, P: np.ndarray, facts: pd.DataFrame) -> np.ndarray:
        """Return probabilities [row, 3] after leaning; rows sum to 1."""
        window = facts["window"].to_numpy(int)
        told = {name: rule.predict(facts) for name, rule in self.rules.items() if self._reads(name)}
        out = np.array(P, float)
        for direction, k in DIRECTIONS.items():
            out[:, k] = leant(P, told, window, self.shares[direction], k)
            if direction in self.trust:
                out[:, k] = towards(out[:, k], told[USUAL][:, k], self.trust[direction])
        both = np.maximum(out[:, 0] + out[:, 2], 1.0)
        out[:, [0, 2]] /= both[:, None]
        out[:, 1] = 1 - out[:, 0] - out[:, 2]
        return out

    def said_by(self, direction: str, window: pd.Series) -> np.ndarray:
        """Return per row who says a direction of its window: "model", a rule, or "model and" the rule it leans on."""
        shares = self.shares[direction]
        words = {}
        for w in window.unique():
            weight, rule = shares.get(int(w), shares[-1])
            words[w] = "model" if weight == 1 else rule if weight == 0 else f"model and {rule}"
        return window.map(words).to_numpy(str)

    def _reads(self, name: str) -> bool:
        if name == USUAL and self.trust:
            return True
        return any(name == rule and weight < 1 for of in self.shares.values() for weight, rule in of.values())

    def to_dict(self) -> dict[str, Any]:
        shares = {d: [[w, *share] for w, share in of.items()] for d, of in self.shares.items()}
        rules = {n: rule.to_dict() for n, rule in self.rules.items() if self._reads(n)}
        return {"shares": shares, "rules": rules, "trust": dict(self.trust)}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Lean":
        shares = {d: {int(w): (weight, rule) for w, weight, rule in of} for d, of in state["shares"].items()}
        return cls(
            shares, {name: rule_from_dict(rule) for name, rule in state["rules"].items()}, state.get("trust", {})
        )


def leant(P: np.ndarray, told: Told, window: np.ndarray, shares: Shares, k: int) -> np.ndarray:
    """Return the probability of class `k` after leaning on what the rules said, each window by its share."""
    out = np.array(P[:, k], float)
    for w in np.unique(window):
        weight, name = shares.get(int(w), shares[-1])
        if weight < 1:
            mine = window == w
            out[mine] = weight * P[mine, k] + (1 - weight) * told[name][mine, k]
    return out


def towards(p: np.ndarray, usual: np.ndarray, trust: float) -> np.ndarray:
    """Return p moved on the logit scale to where it is only `trust` times as far from what is usual."""
    return np.asarray(expit(trust * logit(p) + (1 - trust) * logit(usual)))


def fit_shift_rules(facts: pd.DataFrame, y: np.ndarray, *, without: Sequence[str] = ()) -> dict[str, Rule]:
    """Return every shift rule whose facts are there, fitted on windows of class `y` (0 down, 1 steady, 2 up)."""
    there = {
        name: make for name, make in SHIFT_RULES.items() if name not in without and set(make().needs) <= set(facts)
    }
    return fit_rules(there, facts.assign(y=y.astype(int)))


def choose_shares(
    P: np.ndarray, told: Mapping[str, np.ndarray], y: np.ndarray, window: np.ndarray
) -> dict[str, dict[int, tuple[float, str]]]:
    """Return, per direction and window, the share of the model and the rule with the lowest log loss on later weeks.

    `P` and `told` are what the model and the rules said of windows of class `y` that neither had seen. The rule is
    the best one by itself; windows with few events take what is best for all together.
    """
    out = {}
    for direction, k in DIRECTIONS.items():
        hit = (y == k) * 1.0
        columns = {name: p[:, k] for name, p in told.items()}
        shares = {-1: _best(P[:, k], columns, hit)}
        for w in np.unique(window):
            mine = window == w
            if hit[mine].sum() >= ENOUGH:
                shares[int(w)] = _best(P[mine, k], {name: p[mine] for name, p in columns.items()}, hit[mine])
        out[direction] = shares
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """What the model and the rules said of some later weeks' windows, of class `y`, that neither had seen."""

    P: np.ndarray
    told: Told
    y: np.ndarray
    window: np.ndarray


def choose_trust(terms: Sequence[Term], shares: Mapping[str, Shares]) -> dict[str, float]:
    """Return per direction how far forecasts may be from what is usual, by log loss over that of climatology.

    Every term counts as much as any other, whatever its rows: what holds in one season and not in another is not to be
    believed. A quadratic penalty pulls to TRUST, since tomorrow's weeks are like neither.
    """
    out = {}
    for direction, k in DIRECTIONS.items():
        parts = [
            (leant(t.P, t.told, t.window, shares[direction], k), t.told[USUAL][:, k], (t.y == k) * 1.0) for t in terms
        ]
        out[direction] = _trust([(p, usual, hit) for p, usual, hit in parts if hit.sum() >= ENOUGH])
    return out


def _trust(parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float:
    usually = [_log_loss(usual, hit) for _, usual, hit in parts]

    def loss(trust: float) -> float:
        ratios = [
            _log_loss(towards(p, usual, trust), hit) / before
            for (p, usual, hit), before in zip(parts, usually, strict=True)
        ]
        return float(np.mean(ratios)) + TRUST_WEIGHT * (trust - TRUST) ** 2

    return float(minimize_scalar(loss, bounds=(0, MOST_TRUST), method="bounded").x) if parts else TRUST


def _best(p: np.ndarray, told: Mapping[str, np.ndarray], hit: np.ndarray) -> tuple[float, str]:
    rule = min(told, key=lambda name: _log_loss(told[name], hit))
    losses = [_log_loss(weight * p + (1 - weight) * told[rule], hit) for weight in WEIGHTS]
    return WEIGHTS[int(np.argmin(losses))], rule


def _log_loss(p: np.ndarray, hit: np.ndarray) -> float:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return float(-(hit * np.log(p) + (1 - hit) * np.log1p(-p)).mean())
