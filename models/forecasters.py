"""What is trained, registered and scored: a task's models, its naive rules and which of them publishes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from features.demand import is_intermittent
from features.labels import ShiftTerms
from features.panels import Terms
from models import leaning
from models.delay import Asked, DelayModel
from models.naive_rules import DELAY_RULES, SHIFT_FACTS, SHIFT_RULES, delay_rule_rows, fit_rules, predict_rules
from models.rule_kinds import DELAY, Rule, rule_from_dict
from models.shift import ShiftModel

MODEL = "model"
EVENTS = {"delay": ("late",), "shift": ("down", "up")}
FORMAT = 2  # of a saved forecaster; goes up when a folder written before can no longer be read
NEW, THIN, KNOWN = "new", "thin", "known"  # how much a supplier has shown: nothing, fewer than 8 promises, more
CLIMATOLOGY_WEEKS = 52  # the base rate is that of the last year: levels drift


class OtherFormat(Exception):
    """A forecaster was saved by a version of bullwhip whose format this one does not read."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Where a forecaster comes from: learnt at `cut`, and who publishes.

    `publishes` names the model or a rule per event ("late"; "down", "up"), and per event and segment ("late/new") where
    another one did better there. `signals` is what each external signal was worth (`models.worth`).
    """

    cut: str
    publishes: Mapping[str, str] = field(default_factory=dict)
    terms: Terms = field(default_factory=Terms)
    shift_terms: ShiftTerms = field(default_factory=ShiftTerms)
    record: list[dict[str, Any]] = field(default_factory=list)
    signals: list[dict[str, Any]] = field(default_factory=list)

    def publisher(self, event: str, segments: np.ndarray) -> np.ndarray:
        """Return who publishes the event for rows of these segments."""
        default = self.publishes.get(event, MODEL)
        return np.array([self.publishes.get(f"{event}/{segment}", default) for segment in segments], dtype=object)


class LineForecasts(dict[str, pd.DataFrame]):
    """Forecasts of lines per event, with the rows as the model was `asked` about them: no tree is evaluated twice."""

    def __init__(self, said: Mapping[str, pd.DataFrame], asked: Asked):
        super().__init__(said)
        self.asked = asked


@dataclass(frozen=True, slots=True, eq=False)
class DelayForecaster:
    """P(late) from the model or the rule that publishes, and the arrival curve that agrees with it."""

    task: ClassVar[str] = "delay"
    model: DelayModel
    rules: Mapping[str, Rule]
    facts: Facts

    def forecasts(self, X: pd.DataFrame, rows: pd.DataFrame | None = None) -> dict[str, pd.DataFrame]:  # noqa: ARG002
        """Return P(late) by the model and by every rule; all of them read X alone."""
        asked = self.model.asked(X)
        given = {MODEL: self.model.late(asked), **predict_rules(self.rules, delay_rule_rows(X))}
        return LineForecasts({"late": pd.DataFrame(given, index=X.index)}, asked)

    def predict(
        self, X: pd.DataFrame, rows: pd.DataFrame | None = None, *, said: Mapping[str, pd.DataFrame] | None = None
    ) -> pd.DataFrame:
        """Return p_late and published_by per row of inputs; `said` are their `forecasts` where they are there."""
        return published(self.facts, said or self.forecasts(X, rows), {"late": evidence(X)})

    def survival(self, X: pd.DataFrame, p_late: np.ndarray) -> np.ndarray:
        """Return P(C > s + d) [row, day], equal to `p_late` at the promise where that is known."""
        return self.model.survival(X, p_late)

    def arrivals(
        self, X: pd.DataFrame, p_late: np.ndarray, *, said: Mapping[str, pd.DataFrame] | None = None
    ) -> np.ndarray:
        """Return the days to arrival [row, level of QUANTILES] that the curves say; `said` are the `forecasts` of X."""
        asked = said.asked if isinstance(said, LineForecasts) else self.model.asked(X)
        return self.model.arrivals(asked, np.asarray(p_late, float))

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
    """P(down), P(steady), P(up) from the model or the rule that publishes, and the units' quantiles.

    `usual_z` are the quantiles of (Y − Σb)/σ of each window over matured rows: what a naive planner would add.
    """

    task: ClassVar[str] = "shift"
    model: ShiftModel
    rules: Mapping[str, Rule]
    facts: Facts
    usual_z: Mapping[str, list[float]] = field(default_factory=dict)

    def forecasts(self, X: pd.DataFrame, rows: pd.DataFrame | None = None) -> dict[str, pd.DataFrame]:
        """Return P(down) and P(up) by the model and by every rule; rules read `rows`, the windows' facts."""
        facts = None if rows is None else shift_rule_rows(rows)
        given = {MODEL: self.model.predict_proba(X, facts)}
        if facts is not None:
            given |= predict_rules(self.rules, facts)
        return {
            event: pd.DataFrame({name: p[:, k] for name, p in given.items()}, index=X.index)
            for event, k in leaning.DIRECTIONS.items()
        }

    def predict(
        self, X: pd.DataFrame, rows: pd.DataFrame | None = None, *, said: Mapping[str, pd.DataFrame] | None = None
    ) -> pd.DataFrame:
        """Return p_down, p_steady, p_up and published_by_down, published_by_up per row of inputs.

        `said` are their `forecasts` where they are there.
        """
        if rows is None and set(self.facts.publishes.values()) - {MODEL}:
            raise ValueError("a naive rule publishes; it needs the windows' facts as `rows`")
        segment = np.full(len(X), "") if rows is None else rhythm(rows)
        out = published(self.facts, said or self.forecasts(X, rows), {"down": segment, "up": segment})
        if rows is not None and self.model.lean_ is not None:
            for event in EVENTS["shift"]:
                by = out[f"published_by_{event}"]
                out[f"published_by_{event}"] = by.where(by != MODEL, self.model.lean_.said_by(event, rows["window"]))
        total = np.maximum(out["p_down"] + out["p_up"], 1.0)  # two forecasters may claim more than all
        out = out.assign(p_down=out["p_down"] / total, p_up=out["p_up"] / total)
        out.insert(1, "p_steady", (1 - out["p_down"] - out["p_up"]).clip(lower=0.0))
        return out

    def naive_units(self, rows: pd.DataFrame) -> np.ndarray:
        """Return P10, P50, P90 of each window's units as baseline + σ × what was usual: the quantiles to beat."""
        z = np.array([self.usual_z.get(str(window), [np.nan] * 3) for window in rows["window"]]).reshape(-1, 3)
        units = rows[["baseline_units"]].to_numpy(float) + rows[["noise_units"]].to_numpy(float) * z
        return np.maximum(units, 0)

    def save(self, folder: Path) -> None:
        """Write text and JSON below `folder`."""
        self.model.save(folder / "model")
        _save_facts(folder, self.task, self.facts, self.rules)
        (folder / "usual_z.json").write_text(json.dumps(dict(self.usual_z)))

    @classmethod
    def load(cls, folder: Path) -> "ShiftForecaster":
        """Read what `save` wrote."""
        facts, rules = _load_facts(folder)
        usual_z = json.loads((folder / "usual_z.json").read_text())
        return cls(ShiftModel.load(folder / "model"), rules, facts, usual_z)


def usual_deviations(window: pd.Series, deviation: pd.Series) -> dict[str, list[float]]:
    """Return P10, P50, P90 of matured (Y − Σb)/σ by window."""
    found = deviation.groupby(window.to_numpy()).quantile([0.1, 0.5, 0.9]).unstack()
    return {str(k): list(map(float, row)) for k, row in zip(found.index, found.to_numpy(), strict=True)}


Forecaster = DelayForecaster | ShiftForecaster


def with_facts(forecaster: Forecaster, **facts: Any) -> Forecaster:
    """Return the same forecaster with some of its facts changed: who publishes, or its record."""
    return replace(forecaster, facts=replace(forecaster.facts, **facts))


def published(facts: Facts, forecasts: Mapping[str, pd.DataFrame], segments: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return p_<event> and who published it per row: the model, or the rule that does better in the row's segment."""
    out = {}
    for event, given in forecasts.items():
        by = facts.publisher(event, segments[event])
        out[f"p_{event}"] = said_by(given, by)
        out["published_by" if event == "late" else f"published_by_{event}"] = by.astype(str)
    columns = sorted(out, key=lambda name: name.startswith("published"))
    return pd.DataFrame({name: out[name] for name in columns}, index=next(iter(forecasts.values())).index)


def said_by(given: pd.DataFrame, by: np.ndarray) -> np.ndarray:
    """Return from every row of forecasts, a column per forecaster, that of the forecaster named for the row."""
    place = given.columns.get_indexer(by)
    if len(by) and place.min() < 0:
        raise ValueError(f"{by[place < 0][0]} is to publish but gave no forecast; train again")
    return given.to_numpy()[np.arange(len(given)), place]


def publishers(forecaster: Forecaster) -> str:
    """Return who publishes in one line: "model", "days_to_promise", "down model, up climatology, late/new …"."""
    said = {**dict.fromkeys(EVENTS[forecaster.task], MODEL), **forecaster.facts.publishes}
    return next(iter(said.values())) if len(set(said.values())) == 1 else ", ".join(f"{k} {v}" for k, v in said.items())


def evidence(X: pd.DataFrame) -> np.ndarray:
    """Return how much each row's supplier has shown in a year: new, thin (fewer than 8 promises) or known."""
    n = X["supplier_matured_lines_52w"].fillna(0).to_numpy(float)
    return np.select([n < 1, n < 8], [NEW, THIN], KNOWN)


def rhythm(rows: pd.DataFrame) -> np.ndarray:
    """Return whether each row's series sells week by week or now and then."""
    return np.where(is_intermittent(rows["interval"]), "intermittent", "regular")


def load(folder: Path) -> Forecaster:
    """Read a forecaster of either task from its folder."""
    task = json.loads((folder / "forecaster.json").read_text())["task"]
    return DelayForecaster.load(folder) if task == "delay" else ShiftForecaster.load(folder)


def shift_rule_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the facts that the shift task's naive rules read, those of them that are there."""
    return rows[["product_id", "site_id", *(name for name in SHIFT_FACTS if name in rows)]]


def fit_delay_rules(X: pd.DataFrame, y: np.ndarray, as_of: pd.Series, cut: Any) -> dict[str, Rule]:
    """Return the naive rules fitted on matured rows; climatology is that of the last year before `cut`."""
    rows = delay_rule_rows(X, y)
    return _of_last_year(fit_rules(DELAY_RULES, rows), rows, as_of, cut)


def fit_shift_rules(rows: pd.DataFrame, y: np.ndarray, as_of: pd.Series, cut: Any) -> dict[str, Rule]:
    """Return the naive rules fitted on matured windows; climatology is that of the last year before `cut`."""
    facts = shift_rule_rows(rows)
    return _of_last_year(leaning.fit_shift_rules(facts, y), facts.assign(y=y.astype(int)), as_of, cut)


def _of_last_year(rules: dict[str, Rule], rows: pd.DataFrame, as_of: pd.Series, cut: Any) -> dict[str, Rule]:
    recent = (as_of >= pd.Timestamp(cut) - pd.Timedelta(weeks=CLIMATOLOGY_WEEKS)).to_numpy()
    if recent.any():
        registry = DELAY_RULES if rules["climatology"].classes == DELAY else SHIFT_RULES
        rules["climatology"] = registry["climatology"]().fit(rows[recent])
    return rules


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
        "terms": Terms(**state["facts"]["terms"]), "shift_terms": _shift_terms(state["facts"]["shift_terms"])
    }  # fmt: skip
    return Facts(**facts), {name: rule_from_dict(rule) for name, rule in state["rules"].items()}


def _shift_terms(state: Mapping[str, Any]) -> ShiftTerms:
    return ShiftTerms(**{**state, "windows": tuple((lead, length) for lead, length in state["windows"])})
