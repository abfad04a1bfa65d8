"""The naive rules a model must beat: which there are, and the facts they read."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from features.labels import CLASSES
from features.suppliers import late_counts
from models.rule_kinds import (
    WINDOW_EDGES,
    CellRates,
    LogisticSix,
    OddsProduct,
    Predictive,
    RecordRates,
    Rule,
    supplier_52w,
)

DAYS_EDGES = (1.0, 2.0, 3.0, 5.0, 8.0, 11.0, 15.0, 22.0, 29.0, 43.0, 64.0, 92.0)  # narrow where the promise is near


def site_supplier_52w() -> RecordRates:
    """Return the supplier's late share at this site over 52 weeks, shrunk to the supplier's own."""
    return RecordRates({1: "site_supplier_late_52w"}, "site_supplier_matured_52w", supplier_52w())


def series_climatology() -> RecordRates:
    """Return the series' past class shares, shrunk to those of its window."""
    return RecordRates({"down": "past_down", "up": "past_up"}, "past_n", CellRates({"window": WINDOW_EDGES}, CLASSES))


DELAY_RULES: Mapping[str, Callable[[], Rule]] = {
    "climatology": lambda: CellRates({}),
    "days_to_promise": lambda: CellRates({"days_to_promise": DAYS_EDGES}),
    "days_to_promise_age": lambda: CellRates({"days_to_promise": DAYS_EDGES, "age_days": 5}),
    "supplier_52w": supplier_52w,
    "site_supplier_52w": site_supplier_52w,
    "bucket_x_supplier_odds": lambda: OddsProduct(CellRates({"days_to_promise": DAYS_EDGES}), supplier_52w()),
    "pushed_before": lambda: CellRates({"pushes": (1, 2)}),
    "last_outcome": lambda: CellRates({"last_outcome": (0.5,)}),
    "logistic_6": LogisticSix,
}

SHIFT_RULES: Mapping[str, Callable[[], Rule]] = {
    "climatology": lambda: CellRates({"window": WINDOW_EDGES}, CLASSES),
    "series_climatology": series_climatology,
    "tracking_signal": lambda: CellRates({"window": WINDOW_EDGES, "tracking_signal": 10}, CLASSES),
    "last_z": lambda: CellRates({"window": WINDOW_EDGES, "last_z": 10}, CLASSES),
    "seasonal_naive": lambda: Predictive("naive_units", "naive_spread"),
    "auto_ets": lambda: Predictive("ets_units", "ets_spread"),
}
SHIFT_FACTS = tuple(dict.fromkeys(name for make in SHIFT_RULES.values() for name in make().needs))


def fit_rules(registry: Mapping[str, Callable[[], Rule]], rows: pd.DataFrame) -> dict[str, Rule]:
    """Return every rule of the registry, fitted on the same matured rows."""
    return {name: make().fit(rows) for name, make in registry.items()}


def predict_rules(rules: Mapping[str, Rule], rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the probabilities of every fitted rule, by name."""
    return {name: rule.predict(rows) for name, rule in rules.items()}


RULE_INPUTS = {
    "days_to_promise", "age_days", "pushes", "supplier_product_last_outcome", "chain_late_share_52w",
    "supplier_late_share_52w", "supplier_matured_lines_52w", "site_supplier_late_share_52w",
    "site_supplier_matured_lines_52w",
}  # fmt: skip


def delay_rule_rows(X: pd.DataFrame, y: np.ndarray | None = None) -> pd.DataFrame:
    """Return the facts that the naive rules read, out of the delay inputs; `y` is added for fitting."""
    supplier = late_counts(X, "supplier", "chain")
    lane = late_counts(X, "site_supplier", "supplier")
    rows = pd.DataFrame(
        {
            "days_to_promise": X["days_to_promise"].to_numpy(float), "age_days": X["age_days"].to_numpy(float),
            "pushes": X["pushes"].to_numpy(float),
            "last_outcome": np.rint(X["supplier_product_last_outcome"].to_numpy(float)),
            "supplier_matured_52w": supplier[0], "supplier_late_52w": supplier[1],
            "site_supplier_matured_52w": lane[0], "site_supplier_late_52w": lane[1],
        },
        index=X.index,
    )  # fmt: skip
    return rows if y is None else rows.assign(y=y.astype(int))
