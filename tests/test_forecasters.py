"""What is registered and scored: saved as text and read back, and the rule that publishes gives the rule's numbers."""

import json

import numpy as np
import pandas as pd
import pytest

from features.labels import ShiftTerms
from features.panels import Terms
from features.suppliers import PRIOR_LINES
from models.delay import DelayModel
from models.forecasters import (
    DelayForecaster,
    Facts,
    ShiftForecaster,
    delay_rule_rows,
    fit_delay_rules,
    fit_shift_rules,
    load,
    shift_rule_rows,
)
from models.shift import ShiftModel

nan = np.nan
CUT = np.datetime64("2025-06-02")
SHARES = ("supplier", "site_supplier")


def delay_inputs(n, seed=0):
    """Inputs with shares shrunk as the features shrink them, beside the counts they were made from."""
    rng = np.random.default_rng(seed)
    counts = {level: rng.integers(0, 30, n) for level in SHARES}
    late = {level: rng.binomial(counts[level], 0.3) for level in SHARES}
    X = pd.DataFrame({
        "days_to_promise": rng.integers(0, 40, n), "age_days": rng.integers(0, 60, n), "pushes": rng.poisson(0.3, n),
        "supplier_product_last_outcome": rng.choice([0.0, 1.0, nan], n),
        "chain_late_share_52w": rng.uniform(0.1, 0.3, n),
    }, dtype=np.float64)  # fmt: skip
    for level, prior in (("supplier", "chain"), ("site_supplier", "supplier")):
        share = (late[level] + PRIOR_LINES * X[f"{prior}_late_share_52w"]) / (counts[level] + PRIOR_LINES)
        X = X.assign(**{f"{level}_late_share_52w": share, f"{level}_matured_lines_52w": counts[level] * 1.0})
    return X.astype(np.float32), counts, late


def shift_windows(n, seed=0):
    rng = np.random.default_rng(seed)
    past = rng.poisson(12, n)
    return pd.DataFrame({
        "product_id": "p", "site_id": "s", "window": rng.integers(0, 3, n), "past_n": past * 1.0,
        "past_up": rng.binomial(past, 0.2) * 1.0, "past_down": rng.binomial(past, 0.1) * 0.5 // 1, "extra": 1,
        "last_z": rng.normal(size=n), "tracking_signal": rng.normal(size=n),
    })  # fmt: skip


@pytest.fixture(scope="module")
def delay():
    rng = np.random.default_rng(1)
    X, *_ = delay_inputs(700)
    y = (rng.random(700) < 0.3) * 1.0
    as_of = CUT - rng.integers(6, 60, 700) * np.timedelta64(7, "D")
    outcomes = pd.DataFrame(
        {"as_of": as_of, "matured_on": as_of, "y": y, "completed_in": np.where(y > 0, nan, 5.0), "watched": y + 40}
    )
    model = DelayModel(kind="blend", rounds=5, threads=1).fit(X, outcomes, cut=CUT)
    record = [{"task": "delay", "p_from": 0.1, "skill_over_rule": None}]
    facts = Facts("2025-06-02", terms=Terms(1, 0.05, 3), record=record)
    return DelayForecaster(model, fit_delay_rules(X, y), facts)


@pytest.fixture(scope="module")
def shift():
    rng = np.random.default_rng(1)
    rows = shift_windows(700)
    X = rows[["last_z", "tracking_signal"]].astype(np.float32)
    y = rng.choice([0.0, 1.0, 2.0], 700, p=[0.1, 0.7, 0.2])
    as_of = CUT - rng.integers(6, 60, 700) * np.timedelta64(7, "D")
    model = ShiftModel(rounds=5, quantile_rounds=5, threads=1)
    model.fit(X, y, deviation=rng.normal(size=700), as_of=as_of, matured_on=as_of, cut=CUT)
    facts = Facts("2025-06-02", shift_terms=ShiftTerms(v_min=120.0, entry_lag_days=2))
    return ShiftForecaster(model, fit_shift_rules(rows, y), facts)


def with_publisher(forecaster, name):
    parts = {k: getattr(forecaster, k) for k in forecaster.__dataclass_fields__ if k not in ("task", "facts")}
    facts = {k: getattr(forecaster.facts, k) for k in Facts.__dataclass_fields__}
    return type(forecaster)(**parts, facts=Facts(**facts | {"publishes": name}))


def test_a_delay_forecaster_is_text_and_comes_back_the_same(delay, tmp_path):
    delay.save(tmp_path)
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".lgb", ".json"}
    again = load(tmp_path)
    X, *_ = delay_inputs(100, seed=3)
    assert isinstance(again, DelayForecaster)
    assert again.facts == delay.facts
    pd.testing.assert_frame_equal(again.predict(X), delay.predict(X))
    p = delay.predict(X)["p_late"].to_numpy()
    np.testing.assert_array_equal(again.survival(X, p), delay.survival(X, p))
    for name in delay.rules:
        pd.testing.assert_frame_equal(with_publisher(again, name).predict(X), with_publisher(delay, name).predict(X))


def test_a_shift_forecaster_is_text_and_comes_back_the_same(shift, tmp_path):
    shift.save(tmp_path)
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".lgb", ".json"}
    again = load(tmp_path)
    rows = shift_windows(100, seed=3)
    X = rows[["last_z", "tracking_signal"]].astype(np.float32)
    assert isinstance(again, ShiftForecaster)
    assert again.facts == shift.facts
    pd.testing.assert_frame_equal(again.predict(X), shift.predict(X))
    for name in shift.rules:
        pd.testing.assert_frame_equal(
            with_publisher(again, name).predict(X, rows), with_publisher(shift, name).predict(X, rows)
        )


def test_facts_are_json_without_surprises(delay, tmp_path):
    delay.save(tmp_path)
    said = json.loads((tmp_path / "forecaster.json").read_text(), parse_constant=pytest.fail)
    assert said["task"] == "delay"
    assert said["facts"]["terms"] == {"tolerance_days": 1, "short_tolerance": 0.05, "posting_lag_days": 3}


def test_the_delay_rule_that_publishes_gives_its_own_probabilities(delay):
    X, *_ = delay_inputs(100, seed=3)
    X.index = X.index + 50
    for name, rule in delay.rules.items():
        found = with_publisher(delay, name).predict(X)
        assert (found.index == X.index).all()
        np.testing.assert_array_equal(found["p_late"], rule.predict(delay_rule_rows(X)))
    np.testing.assert_array_equal(delay.predict(X)["p_late"], delay.model.predict_proba(X)[:, 1])


def test_the_shift_rule_that_publishes_gives_its_own_probabilities(shift):
    rows = shift_windows(100, seed=3)
    X = rows[["last_z", "tracking_signal"]].astype(np.float32)
    for name, rule in shift.rules.items():
        found = with_publisher(shift, name).predict(X, shift_rule_rows(rows))
        np.testing.assert_array_equal(found[["p_down", "p_steady", "p_up"]], rule.predict(rows))
        np.testing.assert_allclose(found.sum(axis=1), 1)


def test_a_shift_rule_that_publishes_asks_for_the_windows_facts(shift):
    with pytest.raises(ValueError, match="last_z publishes; it needs the windows' facts"):
        with_publisher(shift, "last_z").predict(pd.DataFrame({"last_z": [0.0], "tracking_signal": [0.0]}))


def test_the_rules_read_the_counts_that_the_shares_were_made_from():
    X, counts, late = delay_inputs(400)
    rows = delay_rule_rows(X, np.zeros(400))
    for level in SHARES:
        np.testing.assert_array_equal(rows[f"{level}_matured_52w"], counts[level])
        np.testing.assert_array_equal(rows[f"{level}_late_52w"], late[level])
    assert rows["y"].dtype.kind == "i"
    np.testing.assert_array_equal(rows["last_outcome"], X["supplier_product_last_outcome"])


def test_a_supplier_without_a_record_has_counts_of_nothing():
    X = delay_inputs(3)[0].assign(supplier_late_share_52w=nan, supplier_matured_lines_52w=nan)
    rows = delay_rule_rows(X)
    assert (rows[["supplier_matured_52w", "supplier_late_52w"]] == 0).all().all()


def test_shift_labels_are_words_for_the_rules():
    rows = shift_rule_rows(shift_windows(3), np.array([0.0, 1.0, 2.0]))
    assert rows["y"].tolist() == ["down", "steady", "up"]
    assert "extra" not in rows
