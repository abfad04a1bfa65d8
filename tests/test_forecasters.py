"""What is registered and scored: saved as text and read back, and the rule that publishes gives the rule's numbers."""

import json
from dataclasses import replace

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
    evidence,
    fit_delay_rules,
    fit_shift_rules,
    load,
    shift_rule_rows,
    usual_deviations,
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
        "product_id": "p", "site_id": "s", "window": rng.integers(0, 3, n),
        "interval": rng.choice([1.0, 3.0], n), "past_n": past * 1.0,
        "past_up": rng.binomial(past, 0.2) * 1.0, "past_down": rng.binomial(past, 0.1) * 0.5 // 1, "extra": 1,
        "last_z": rng.normal(size=n), "tracking_signal": rng.normal(size=n), "naive_units": rng.normal(100, 20, n),
        "naive_spread": 20.0, "down_at_units": 75.0, "up_at_units": 125.0,
    })  # fmt: skip


def windows(rows):
    return rows.assign(baseline_units=100.0, noise_units=10.0)


@pytest.fixture(scope="module")
def delay():
    rng = np.random.default_rng(1)
    X, *_ = delay_inputs(700)
    y = (rng.random(700) < 0.3) * 1.0
    as_of = pd.Series(CUT - rng.integers(6, 60, 700) * np.timedelta64(7, "D")).astype("datetime64[s]")
    outcomes = pd.DataFrame({
        "y": y, "as_of": as_of, "matured_on": as_of, "due_in": X["days_to_promise"].astype(float),
        "completed_in": np.where(y > 0, nan, 5.0), "watched": y + 40,
    })  # fmt: skip
    model = DelayModel(rounds=5, threads=1).fit(X, outcomes, cut=CUT)
    record = [{"event": "late", "p_from": 0.1, "skill_over_rule": None}]
    facts = Facts("2025-06-02", terms=Terms(1, 0.05, 3), record=record)
    return DelayForecaster(model, fit_delay_rules(X, y, as_of, CUT), facts)


@pytest.fixture(scope="module")
def shift():
    rng = np.random.default_rng(1)
    rows = shift_windows(700)
    X = rows[["last_z", "tracking_signal"]].astype(np.float32)
    y = rng.choice([0.0, 1.0, 2.0], 700, p=[0.1, 0.7, 0.2])
    as_of = pd.Series(CUT - rng.integers(6, 60, 700) * np.timedelta64(7, "D")).astype("datetime64[s]")
    model = ShiftModel(rounds=5, quantile_rounds=5, threads=1)
    z = pd.Series(rng.normal(size=700))
    model.fit(X, y, deviation=z, as_of=as_of, matured_on=as_of, cut=CUT, facts=shift_rule_rows(rows))
    facts = Facts("2025-06-02", shift_terms=ShiftTerms(v_min=120.0, entry_lag_days=2, windows=((0, 2),)))
    return ShiftForecaster(model, fit_shift_rules(rows, y, as_of, CUT), facts, usual_deviations(rows["window"], z))


def with_publisher(forecaster, name):
    parts = {k: getattr(forecaster, k) for k in forecaster.__dataclass_fields__ if k not in ("task", "facts")}
    facts = {k: getattr(forecaster.facts, k) for k in Facts.__dataclass_fields__}
    return type(forecaster)(**parts, facts=Facts(**facts | {"publishes": dict.fromkeys(("late", "down", "up"), name)}))


def test_a_delay_forecaster_is_text_and_comes_back_the_same(delay, tmp_path):
    delay.save(tmp_path)
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".lgb", ".json"}
    again = load(tmp_path)
    X, *_ = delay_inputs(100, seed=3)
    assert isinstance(again, DelayForecaster)
    assert again.facts == delay.facts
    pd.testing.assert_frame_equal(again.predict(X), delay.predict(X))
    np.testing.assert_array_equal(again.model.survival(X), delay.model.survival(X))
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
    pd.testing.assert_frame_equal(again.predict(X, rows), shift.predict(X, rows))
    np.testing.assert_array_equal(again.naive_units(windows(rows)), shift.naive_units(windows(rows)))
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
        found = with_publisher(shift, name).predict(X, rows)[["p_down", "p_steady", "p_up"]]
        np.testing.assert_allclose(found, rule.predict(rows), atol=1e-12)
        np.testing.assert_allclose(found.sum(axis=1), 1)


def test_drops_and_surges_may_be_published_by_different_forecasters(shift):
    rows = shift_windows(100, seed=3)
    X = rows[["last_z", "tracking_signal"]].astype(np.float32)
    facts = replace(shift.facts, publishes={"down": "model", "up": "climatology", "up/intermittent": "last_z"})
    found = replace(shift, facts=facts).predict(X, rows)
    said = shift.forecasts(X, rows)
    now_and_then = (rows["interval"] > 1.32).to_numpy()
    up = np.where(now_and_then, said["up"]["last_z"], said["up"]["climatology"])
    total = np.maximum(said["down"]["model"] + up, 1)
    np.testing.assert_allclose(found["p_up"], up / total)
    np.testing.assert_allclose(found["p_down"], said["down"]["model"] / total)
    assert (found["published_by_up"] == np.where(now_and_then, "last_z", "climatology")).all()
    assert (found[["p_down", "p_steady", "p_up"]] >= 0).all(axis=None)


def test_a_supplier_s_evidence_is_what_fell_due_within_a_year():
    X = pd.DataFrame({"supplier_matured_lines_52w": [nan, 0.0, 1, 7, 8, 500]})
    assert evidence(X).tolist() == ["new", "new", "thin", "thin", "known", "known"]


def test_climatology_is_the_rate_of_the_last_year():
    X, *_ = delay_inputs(1000)
    as_of = pd.Series(CUT - np.arange(1000) % 104 * np.timedelta64(7, "D")).astype("datetime64[s]")
    recent = (np.arange(1000) % 104 <= 52).astype(float)  # late within the year, on time before
    rule = fit_delay_rules(X, recent, as_of, CUT)["climatology"]
    assert rule.predict(delay_rule_rows(X))[0] > 0.99


def test_a_shift_rule_that_publishes_asks_for_the_windows_facts(shift):
    with pytest.raises(ValueError, match="a naive rule publishes; it needs the windows' facts"):
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


def test_rules_read_the_facts_that_are_there():
    rows = shift_rule_rows(shift_windows(3))
    assert "extra" not in rows
    as_of = pd.Series([pd.Timestamp(CUT)] * 3)
    assert "auto_ets" not in fit_shift_rules(shift_windows(3), np.array([0.0, 1.0, 2.0]), as_of, CUT)
