"""What is trained, registered and scored: a task's models, its naive rules and which of them publishes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from features.labels import ShiftTerms
from features.panels import Terms
from models.baselines import DELAY_RULES, SHIFT_RULES, Rule, delay_rule_rows, fit_rules, rule_from_dict
from models.delay import DelayModel
from models.shift import ShiftModel

MODEL = "model"
FORMAT = 2  # of a saved forecaster; goes up when a folder written before can no longer be read


class OtherFormat(Exception):
    """A forecaster was saved by a version of bullwhip whose format this one does not read."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Where a forecaster comes from: learnt at `cut`, and what publishes its probabilities ("model" or a rule)."""

    cut: str
    publishes: str = MODEL
    terms: Terms = field(default_factory=Terms)
    shift_terms: ShiftTerms = field(default_factory=ShiftTerms)
    record: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class DelayForecaster:
    """P(late) from the model or the rule that publishes, and the arrival curve that agrees with it."""

    task: ClassVar[str] = "delay"
    model: DelayModel
    rules: Mapping[str, Rule]
    facts: Facts

    def predict(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return column p_late per row of inputs."""
        if self.facts.publishes == MODEL:
            return pd.DataFrame({"p_late": self.model.predict_proba(X)[:, 1]}, index=X.index)
        p = self.rules[self.facts.publishes].predict(delay_rule_rows(X))
        return pd.DataFrame({"p_late": p}, index=X.index)

    def survival(self, X: pd.DataFrame, p_late: np.ndarray) -> np.ndarray:
        """Return P(C > s + d) [row, day], equal to `p_late` at the promise where that is known."""
        return self.model.survival(X, p_late)

    def save(self, folder: Path) -> None:
        """Write text and JSON below `folder`."""
        self.model.save(folder / "model")
        _save_facts(folder, self.task, self.facts, self.rules)

    @classmethod
    def load(cls, folder: Path) -> "DelayForecaster":
        """Read what `save` wrote."""
        facts, rules = _load_facts(folder)
        return cls(DelayModel.load(folder / "model"), rules, facts)


@dataclass(frozen=True, slots=True, eq=False)
class ShiftForecaster:
    """P(down), P(steady), P(up) from the model or the rule that publishes, and the units' quantiles."""

    task: ClassVar[str] = "shift"
    model: ShiftModel
    rules: Mapping[str, Rule]
    facts: Facts

    def predict(self, X: pd.DataFrame, rows: pd.DataFrame | None = None) -> pd.DataFrame:
        """Return p_down, p_steady, p_up per row of inputs; a publishing rule reads `rows`, the windows' facts."""
        if self.facts.publishes == MODEL:
            p = self.model.predict_proba(X)
        elif rows is None:
            raise ValueError(f"the rule {self.facts.publishes} publishes; it needs the windows' facts as `rows`")
        else:
            p = self.rules[self.facts.publishes].predict(rows)
        return pd.DataFrame(p, columns=["p_down", "p_steady", "p_up"], index=X.index)

    def save(self, folder: Path) -> None:
        """Write text and JSON below `folder`."""
        self.model.save(folder / "model")
        _save_facts(folder, self.task, self.facts, self.rules)

    @classmethod
    def load(cls, folder: Path) -> "ShiftForecaster":
        """Read what `save` wrote."""
        facts, rules = _load_facts(folder)
        return cls(ShiftModel.load(folder / "model"), rules, facts)


def load(folder: Path) -> DelayForecaster | ShiftForecaster:
    """Read a forecaster of either task from its folder."""
    task = json.loads((folder / "forecaster.json").read_text())["task"]
    return DelayForecaster.load(folder) if task == "delay" else ShiftForecaster.load(folder)


def shift_rule_rows(rows: pd.DataFrame, y: np.ndarray | None = None) -> pd.DataFrame:
    """Return the facts that the shift task's naive rules read; `y` (0 down, 1 steady, 2 up) is added for fitting."""
    facts = rows[["product_id", "site_id", "window", "past_up", "past_down", "past_n", "last_z", "tracking_signal"]]
    return facts if y is None else facts.assign(y=np.array(["down", "steady", "up"])[y.astype(int)])


def fit_delay_rules(X: pd.DataFrame, y: np.ndarray) -> dict[str, Rule]:
    return fit_rules(DELAY_RULES, delay_rule_rows(X, y))


def fit_shift_rules(rows: pd.DataFrame, y: np.ndarray) -> dict[str, Rule]:
    return fit_rules(SHIFT_RULES, shift_rule_rows(rows, y))


def _save_facts(folder: Path, task: str, facts: Facts, rules: Mapping[str, Rule]) -> None:
    state = {
        "format": FORMAT,
        "task": task,
        "facts": asdict(facts),
        "rules": {name: rule.to_dict() for name, rule in rules.items()},
    }
    (folder / "forecaster.json").write_text(json.dumps(state, indent=1))


def _load_facts(folder: Path) -> tuple[Facts, dict[str, Rule]]:
    state = json.loads((folder / "forecaster.json").read_text())
    if state.get("format") != FORMAT:
        raise OtherFormat(
            f"it is in format {state.get('format')}, this version of bullwhip reads {FORMAT}; train again"
        )
    facts = state["facts"] | {
        "terms": Terms(**state["facts"]["terms"]), "shift_terms": ShiftTerms(**state["facts"]["shift_terms"])
    }  # fmt: skip
    return Facts(**facts), {name: rule_from_dict(rule) for name, rule in state["rules"].items()}
