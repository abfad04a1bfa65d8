"""The kinds of naive rules: small forecasters of one line of common sense each, kept as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from scipy.special import expit, ndtr

from features.labels import CLASSES
from models.calibration import class_codes, fit_logistic, logit

DELAY = (0, 1)  # on time, late

PRIOR_ROWS = 20.0  # a cell with 20 rows believes itself as much as its parent
STRENGTHS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 2000.0)  # prior rows tried for a series' own record

WINDOW_EDGES = tuple(map(float, range(1, 8)))
SPREADS = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0)  # times a predictive distribution's own spread
SHARES = (0.25, 0.5, 0.75, 0.95)  # of it, the rest is climatology: no rule says 0 or 1


class Rule:
    """A small forecaster: `fit(rows)`, `predict(rows)`, `to_dict()`; `needs` names the columns it reads.

    A delay rule (classes 0, 1) predicts p_late with shape (n,); a shift rule predicts (n, 3) in the order of CLASSES.
    `rows` has the label `y` for fitting. Fitted on nothing, a rule gives every class the same probability; it never
    says 0 or 1.
    """

    kind: ClassVar[str]
    needs: tuple[str, ...]
    classes: tuple[Any, ...]

    def fit(self, rows: pd.DataFrame) -> Self:
        """Learn from matured rows."""
        _require(rows, (*self.needs, "y"), self)
        self._learn(rows, class_codes(rows["y"].to_numpy(), self.classes))
        return self

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        """Return probabilities in the order of rows."""
        _require(rows, self.needs, self)
        rates = self._rates(rows)
        return rates[:, 1] if self.classes == DELAY else rates

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted rule as JSON values."""
        return {"kind": self.kind, "classes": list(self.classes), **self._state()}

    def _learn(self, rows: pd.DataFrame, codes: np.ndarray) -> None:
        raise NotImplementedError

    def _rates(self, rows: pd.DataFrame) -> np.ndarray:
        raise NotImplementedError

    def _state(self) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def _from_state(cls, state: Mapping[str, Any]) -> Self:
        raise NotImplementedError


def _require(rows: pd.DataFrame, columns: Sequence[str], rule: Rule) -> None:
    missing = [c for c in columns if c not in rows]
    if missing:
        raise ValueError(
            f"the {rule.kind} rule needs {list(columns)}; missing {missing}: add them or leave the rule out"
        )


def _column(rows: pd.DataFrame, name: str) -> np.ndarray:
    return rows[name].to_numpy(dtype=float, na_value=np.nan)


class CellRates(Rule):
    """Class rates by cell of binned columns, each cell shrunk to the cell one column coarser: (n_c + m·parent)/(n + m).

    `columns` maps a column to its inner bin edges (x < e₁, e₁ ≤ x < e₂, …) or to a number of equal-mass bins learnt
    from the rows; missing values are a bin of their own. No column at all is climatology: the base rate of matured
    rows, with one row's worth of ignorance spread over the classes.
    """

    kind: ClassVar[str] = "cell_rates"

    def __init__(self, columns: Mapping[str, Sequence[float] | int], classes: tuple[Any, ...] = DELAY):
        self.columns = dict(columns)
        self.classes = classes
        self.needs = tuple(columns)

    def _learn(self, rows: pd.DataFrame, codes: np.ndarray) -> None:
        self.edges_ = {name: _edges(_column(rows, name), spec) for name, spec in self.columns.items()}
        shape = (*(len(e) + 2 for e in self.edges_.values()), len(self.classes))
        counts = np.zeros(shape)
        np.add.at(counts, (*self._bins(rows), codes), 1.0)
        k = len(self.classes)
        axes = tuple(range(len(shape) - 1))
        rates = (counts.sum(axis=axes) + 1 / k) / (len(codes) + 1)
        for depth in range(1, len(shape)):
            here = counts.sum(axis=axes[depth:])
            prior = rates[..., None, :]
            rates = (here + PRIOR_ROWS * prior) / (here.sum(axis=-1, keepdims=True) + PRIOR_ROWS)
        self.rates_ = rates

    def _bins(self, rows: pd.DataFrame) -> list[np.ndarray]:
        return [_bin(_column(rows, name), edges) for name, edges in self.edges_.items()]

    def _rates(self, rows: pd.DataFrame) -> np.ndarray:
        if not self.columns:
            return np.tile(self.rates_, (len(rows), 1))
        return self.rates_[tuple(self._bins(rows))]

    def _state(self) -> dict[str, Any]:
        return {"edges": {k: list(v) for k, v in self.edges_.items()}, "rates": self.rates_.tolist()}

    @classmethod
    def _from_state(cls, state: Mapping[str, Any]) -> Self:
        new = cls({k: tuple(v) for k, v in state["edges"].items()}, tuple(state["classes"]))
        new.edges_, new.rates_ = {k: tuple(v) for k, v in state["edges"].items()}, np.array(state["rates"])
        return new


def _edges(x: np.ndarray, spec: Sequence[float] | int) -> tuple[float, ...]:
    if not isinstance(spec, int):
        return tuple(map(float, spec))
    x = x[np.isfinite(x)]
    cuts = np.quantile(x, np.arange(1, spec) / spec) if len(x) else np.empty(0)
    return tuple(np.unique(cuts).tolist())


def _bin(x: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    return np.where(np.isnan(x), len(edges) + 1, np.digitize(x, edges))


class RecordRates(Rule):
    """A series' own matured record, shrunk to a coarser rule: (n_c + m·parent)/(n + m).

    `counts` names the columns of n_c for every class but the one left out, `total` that of n: facts known at each row's
    as_of, so the record needs no fitting; the parent and m (the prior rows, by log loss over STRENGTHS) do. A series
    without a record gets the parent.
    """

    kind: ClassVar[str] = "record_rates"

    def __init__(self, counts: Mapping[Any, str], total: str, parent: Rule):
        self.counts = dict(counts)
        self.total = total
        self.parent = parent
        self.classes = parent.classes
        self.needs = tuple(dict.fromkeys((*parent.needs, *counts.values(), total)))

    def _learn(self, rows: pd.DataFrame, codes: np.ndarray) -> None:
        self.parent._learn(rows, codes)
        prior, record = self.parent._rates(rows), self._record(rows)
        at = np.arange(len(codes))
        came, expected, n = record[at, codes], prior[at, codes], record.sum(axis=1)
        losses = [-np.log((came + m * expected) / (n + m)).sum() for m in STRENGTHS]
        self.prior_rows_ = STRENGTHS[int(np.argmin(losses))] if len(codes) else PRIOR_ROWS

    def _record(self, rows: pd.DataFrame) -> np.ndarray:
        """Return counts (n, classes), the left-out class filled up to the total; missing counts are no record."""
        known = {c: _count(rows, name) for c, name in self.counts.items()}
        rest = _count(rows, self.total) - sum(known.values())
        if (rest < 0).any():
            raise ValueError(f"{list(self.counts.values())} add up to more than {self.total}; expected parts of it")
        return np.column_stack([known.get(c, rest) for c in self.classes])

    def _rates(self, rows: pd.DataFrame) -> np.ndarray:
        return _shrunk(self._record(rows), self.parent._rates(rows), self.prior_rows_)

    def _state(self) -> dict[str, Any]:
        counts = [[c, name] for c, name in self.counts.items()]
        return {"counts": counts, "total": self.total, "parent": self.parent.to_dict(), "prior_rows": self.prior_rows_}

    @classmethod
    def _from_state(cls, state: Mapping[str, Any]) -> Self:
        new = cls(dict(state["counts"]), state["total"], rule_from_dict(state["parent"]))
        new.prior_rows_ = state["prior_rows"]
        return new


def _count(rows: pd.DataFrame, name: str) -> np.ndarray:
    """Return whole numbers, missing as 0. A share in their place would make a feeble rule, and the model look good."""
    x = np.nan_to_num(_column(rows, name), nan=0.0)
    whole = np.rint(x)
    if (whole < 0).any() or (np.abs(x - whole) > 0.01).any():
        strange = x[(whole < 0) | (np.abs(x - whole) > 0.01)][0]
        raise ValueError(f"{name} holds {strange:g}; expected a count of matured rows, not a share")
    return whole


def _shrunk(record: np.ndarray, prior: np.ndarray, prior_rows: float) -> np.ndarray:
    return (record + prior_rows * prior) / (record.sum(axis=1, keepdims=True) + prior_rows)


class Predictive(Rule):
    """A forecast with its spread, read off at the thresholds: P(down) = Φ((down − m)/s), P(up) = Φ((m − up)/s).

    `mean` and `spread` name columns of facts known at each row's as_of. Fitting stretches the spread by one factor and
    mixes in climatology, by log loss; a row without forecast gets climatology.
    """

    kind: ClassVar[str] = "predictive"

    def __init__(self, mean: str, spread: str):
        self.mean, self.spread = mean, spread
        self.climatology = CellRates({"window": WINDOW_EDGES}, CLASSES)
        self.classes = CLASSES
        self.needs = (mean, spread, "down_at_units", "up_at_units", "window")

    def _learn(self, rows: pd.DataFrame, codes: np.ndarray) -> None:
        self.climatology._learn(rows, codes)
        at, losses = np.arange(len(codes)), {}
        usual = self.climatology._rates(rows)[at, codes]
        for stretch in SPREADS:
            told = self._told(rows, stretch)[at, codes]
            for share in SHARES:
                p = np.where(np.isnan(told), usual, share * told + (1 - share) * usual)
                losses[stretch, share] = -np.log(np.maximum(p, 1e-9)).sum()
        self.stretch_, self.share_ = min(losses, key=lambda k: losses[k]) if len(codes) else (1.0, SHARES[0])

    def _told(self, rows: pd.DataFrame, stretch: float) -> np.ndarray:
        mean, spread = _column(rows, self.mean), np.maximum(_column(rows, self.spread), 1e-6) * stretch
        down_at = _column(rows, "down_at_units")
        down = np.where(down_at < 0, 0.0, ndtr((down_at - mean) / spread))
        up = ndtr((mean - _column(rows, "up_at_units")) / spread)
        return np.column_stack([down, 1 - down - up, up])

    def _rates(self, rows: pd.DataFrame) -> np.ndarray:
        told, usual = self._told(rows, self.stretch_), self.climatology._rates(rows)
        unknown = np.isnan(told).any(axis=1, keepdims=True)
        return np.where(unknown, usual, self.share_ * told + (1 - self.share_) * usual)

    def _state(self) -> dict[str, Any]:
        fitted = {"stretch": self.stretch_, "share": self.share_, "climatology": self.climatology.to_dict()}
        return {"mean": self.mean, "spread": self.spread, **fitted}

    @classmethod
    def _from_state(cls, state: Mapping[str, Any]) -> Self:
        new = cls(state["mean"], state["spread"])
        new.stretch_, new.share_ = state["stretch"], state["share"]
        new.climatology = CellRates._from_state(state["climatology"])
        return new


class OddsProduct(Rule):
    """logit p = logit p_a + logit p_b − logit p_base: two rules combined as if independent given the outcome."""

    kind: ClassVar[str] = "odds_product"

    def __init__(self, first: Rule, second: Rule):
        self.first, self.second, self.base = first, second, CellRates({})
        self.classes = DELAY
        self.needs = tuple(dict.fromkeys((*first.needs, *second.needs)))

    def _learn(self, rows: pd.DataFrame, codes: np.ndarray) -> None:
        for rule in (self.first, self.second, self.base):
            rule._learn(rows, codes)

    def _rates(self, rows: pd.DataFrame) -> np.ndarray:
        first, second, base = (logit(rule._rates(rows)[:, 1]) for rule in (self.first, self.second, self.base))
        late = expit(first + second - base)
        return np.column_stack([1 - late, late])

    def _state(self) -> dict[str, Any]:
        return {"first": self.first.to_dict(), "second": self.second.to_dict(), "base": self.base.to_dict()}

    @classmethod
    def _from_state(cls, state: Mapping[str, Any]) -> Self:
        new = cls(rule_from_dict(state["first"]), rule_from_dict(state["second"]))
        new.base = CellRates._from_state(state["base"])
        return new


def supplier_52w() -> RecordRates:
    """Return the supplier's late share over 52 weeks, shrunk to the base rate."""
    return RecordRates({1: "supplier_late_52w"}, "supplier_matured_52w", CellRates({}))


class LogisticSix(Rule):
    """Logistic regression on six standardised inputs: what an afternoon's model would know.

    log1p days to promise, log1p age, log1p promised lead (age + days to promise), log1p pushes, logit of the supplier's
    shrunk 52-week rate, last outcome. A missing input stands at its mean; a unit normal prior holds each coefficient.
    """

    kind: ClassVar[str] = "logistic_6"

    def __init__(self) -> None:
        self.supplier = supplier_52w()
        self.classes = DELAY
        self.needs = ("days_to_promise", "age_days", "pushes", "last_outcome", *self.supplier.needs)

    def _inputs(self, rows: pd.DataFrame) -> np.ndarray:
        days, age, pushes = (np.maximum(_column(rows, c), 0.0) for c in ("days_to_promise", "age_days", "pushes"))
        supplier = logit(self.supplier._rates(rows)[:, 1])
        logs = (np.log1p(x) for x in (days, age, days + age, pushes))
        return np.column_stack([*logs, supplier, _column(rows, "last_outcome")])

    def _learn(self, rows: pd.DataFrame, codes: np.ndarray) -> None:
        self.supplier._learn(rows, codes)
        x = self._inputs(rows)
        seen = np.isfinite(x)
        mass = np.maximum(seen.sum(axis=0), 1e-12)
        self.mean_ = (seen * np.nan_to_num(x)).sum(axis=0) / mass
        spread = np.sqrt((seen * np.nan_to_num(x - self.mean_) ** 2).sum(axis=0) / mass)
        self.spread_ = np.where(spread > 1e-9, spread, 1.0)
        precision = np.r_[1e-6, np.ones(x.shape[1])]
        beta = fit_logistic(self._design(x), codes, np.ones(len(codes)), prior_precision=precision)
        self.beta_ = np.nan_to_num(beta)

    def _design(self, x: np.ndarray) -> np.ndarray:
        return np.column_stack([np.ones(len(x)), np.nan_to_num((x - self.mean_) / self.spread_)])

    def _rates(self, rows: pd.DataFrame) -> np.ndarray:
        late = np.clip(expit(self._design(self._inputs(rows)) @ self.beta_), 1e-6, 1 - 1e-6)
        return np.column_stack([1 - late, late])

    def _state(self) -> dict[str, Any]:
        fitted = {"mean": self.mean_.tolist(), "spread": self.spread_.tolist(), "beta": self.beta_.tolist()}
        return {"supplier": self.supplier.to_dict(), **fitted}

    @classmethod
    def _from_state(cls, state: Mapping[str, Any]) -> Self:
        new = cls()
        new.supplier = RecordRates._from_state(state["supplier"])
        new.mean_, new.spread_, new.beta_ = (np.array(state[k]) for k in ("mean", "spread", "beta"))
        return new


def rule_from_dict(state: Mapping[str, Any]) -> Any:
    """Return the rule whose `to_dict` gave this state."""
    kinds: dict[str, type[Rule]] = {c.kind: c for c in (CellRates, RecordRates, OddsProduct, LogisticSix, Predictive)}
    if state.get("kind") not in kinds:
        raise ValueError(f"unknown rule kind {state.get('kind')!r}; expected one of {sorted(kinds)}")
    return kinds[state["kind"]]._from_state(state)
