"""Naive rules: worked by hand, bounded, order-free, saved as text, and none reads more than it says."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.labels import CLASSES
from models import metrics as m
from models import naive_rules, rule_kinds

LAWS = settings(max_examples=15, deadline=None)
ALL_RULES = {
    **{f"delay-{k}": v for k, v in naive_rules.DELAY_RULES.items()},
    **{f"shift-{k}": v for k, v in naive_rules.SHIFT_RULES.items()},
}
each_rule = pytest.mark.parametrize("name", ALL_RULES)


def delay_rows(n, *, seed=0):
    """Lines of 20 suppliers: late more often near the promise, after a push and from bad suppliers."""
    rng = np.random.default_rng(seed)
    supplier = rng.integers(0, 20, n)
    bad = np.random.default_rng(99).normal(0, 1, 20)[supplier]
    days, pushes = rng.integers(0, 60, n).astype(float), rng.poisson(0.3, n)
    p = 1 / (1 + np.exp(-(-1.5 + bad + 0.8 * pushes - days / 40)))
    matured = rng.poisson(30, n)
    late_rate = 1 / (1 + np.exp(1.5 - bad))
    site_matured = rng.binomial(matured, 0.3)
    return pd.DataFrame({
        "supplier_id": [f"s{i}" for i in supplier], "days_to_promise": days, "age_days": rng.uniform(0, 90, n),
        "pushes": pushes, "y": (rng.random(n) < p).astype(int),
        "last_outcome": np.where(rng.random(n) < 0.2, np.nan, rng.random(n) < late_rate),
        "supplier_matured_52w": matured, "supplier_late_52w": rng.binomial(matured, late_rate),
        "site_supplier_matured_52w": site_matured, "site_supplier_late_52w": rng.binomial(site_matured, late_rate),
    })  # fmt: skip


def shift_rows(n, *, seed=0):
    """Series whose class follows the last z."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1, n)
    past = rng.poisson(12, n)
    up = rng.binomial(past, 0.15)
    return pd.DataFrame({
        "window": rng.integers(0, 3, n), "last_z": np.where(rng.random(n) < 0.1, np.nan, z),
        "tracking_signal": z + rng.normal(0, 2, n), "past_n": past, "past_up": up,
        "past_down": rng.binomial(past - up, 0.1), "down_at_units": np.where(rng.random(n) < 0.1, -1.0, 80.0),
        "up_at_units": 120.0, "naive_units": 100 + 15 * z, "naive_spread": np.where(rng.random(n) < 0.1, np.nan, 20.0),
        "ets_units": 100 + 10 * z, "ets_spread": 15.0,
        "y": np.array(CLASSES)[1 + (z + rng.normal(0, 1, n) > 1.5) - (z + rng.normal(0, 1, n) < -1.5)],
    })  # fmt: skip


def rows_of(name, n, **kw):
    return delay_rows(n, **kw) if name.startswith("delay") else shift_rows(n, **kw)


@each_rule
@pytest.mark.parametrize("n", [0, 1, 3, 400])
def test_probabilities_are_never_sure_and_survive_text(name, n):
    new = rows_of(name, 200, seed=1)
    fitted = ALL_RULES[name]().fit(rows_of(name, n))
    p = fitted.predict(new)
    assert p.shape == ((200,) if name.startswith("delay") else (200, 3))
    assert (p > 0).all()
    assert (p < 1).all()
    if p.ndim == 2:
        assert np.allclose(p.sum(axis=1), 1)
    state = json.loads(json.dumps(fitted.to_dict()))
    again = rule_kinds.rule_from_dict(state)
    assert np.array_equal(again.predict(new), p)
    assert again.to_dict() == state
    assert fitted.predict(new.iloc[:0]).shape[0] == 0


@each_rule
@LAWS
@given(seed=st.integers(0, 99))
def test_row_order_does_not_matter(name, seed):
    rows, new = rows_of(name, 150, seed=seed), rows_of(name, 50, seed=seed + 1)
    shuffled = rows.sample(frac=1, random_state=seed)
    assert np.allclose(ALL_RULES[name]().fit(rows).predict(new), ALL_RULES[name]().fit(shuffled).predict(new))


@each_rule
def test_a_rule_reads_only_the_columns_it_names(name):
    rows, new = rows_of(name, 300), rows_of(name, 50, seed=1)
    needs = list(ALL_RULES[name]().needs)
    few = ALL_RULES[name]().fit(rows[[*needs, "y"]]).predict(new[needs])
    assert np.array_equal(ALL_RULES[name]().fit(rows).predict(new), few)
    if needs:
        with pytest.raises(ValueError, match=needs[0]):
            ALL_RULES[name]().fit(rows.drop(columns=needs[0]))


def test_every_delay_rule_but_climatology_finds_the_signal_it_looks_for():
    rules = naive_rules.fit_rules(naive_rules.DELAY_RULES, delay_rows(4000))
    new = delay_rows(4000, seed=1)
    p = naive_rules.predict_rules(rules, new)
    skill = {name: m.brier_skill(new["y"], q, p["climatology"]) for name, q in p.items()}
    assert list(p) == list(naive_rules.DELAY_RULES)
    assert all(s > 0 for name, s in skill.items() if name != "climatology"), skill
    assert skill["logistic_6"] > max(skill["days_to_promise"], skill["pushed_before"], skill["last_outcome"])
    assert skill["bucket_x_supplier_odds"] > max(skill["days_to_promise"], skill["supplier_52w"])


def test_last_z_beats_climatology_where_shifts_follow_it():
    rules = naive_rules.fit_rules(naive_rules.SHIFT_RULES, shift_rows(4000))
    new = shift_rows(4000, seed=1)
    p = naive_rules.predict_rules(rules, new)
    up = (new["y"] == "up").to_numpy(float)
    assert m.brier_skill(up, p["last_z"][:, 2], p["climatology"][:, 2]) > 0.02
    assert abs(m.brier_skill(up, p["series_climatology"][:, 2], p["climatology"][:, 2])) < 0.01


# by hand ------------------------------------------------------------------------------------------------------------


def test_climatology_is_the_base_rate_with_one_row_of_ignorance():
    fitted = naive_rules.DELAY_RULES["climatology"]().fit(pd.DataFrame({"y": [1, 0, 0]}))
    assert fitted.predict(pd.DataFrame(index=range(2))).tolist() == pytest.approx([1.5 / 4] * 2)


def test_a_cell_believes_itself_as_far_as_its_rows_go():
    rows = pd.DataFrame({"pushes": [0] * 60 + [1] * 20, "y": [0] * 60 + [1] * 20})
    fitted = naive_rules.DELAY_RULES["pushed_before"]().fit(rows)
    base = 20.5 / 81
    unseen = fitted.predict(pd.DataFrame({"pushes": [0, 1, 7, math.nan]}))
    assert unseen.tolist() == pytest.approx([20 * base / 80, (20 + 20 * base) / 40, base, base])


def test_a_narrow_cell_falls_back_on_the_wider_one():
    rows = pd.DataFrame({"days_to_promise": [0.0] * 40 + [50.0] * 40, "age_days": 1.0, "y": [1] * 40 + [0] * 40})
    wide, narrow = (naive_rules.DELAY_RULES[k]().fit(rows) for k in ("days_to_promise", "days_to_promise_age"))
    asked = pd.DataFrame({"days_to_promise": [0.0, 50.0], "age_days": [math.nan, math.nan]})
    assert narrow.predict(asked).tolist() == pytest.approx(wide.predict(asked).tolist())


def test_a_supplier_without_a_record_gets_the_base_rate_and_one_with_a_long_record_its_own():
    fitted = naive_rules.DELAY_RULES["supplier_52w"]().fit(delay_rows(2000))
    base = naive_rules.DELAY_RULES["climatology"]().fit(delay_rows(2000)).predict(pd.DataFrame(index=[0]))[0]
    asked = pd.DataFrame({"supplier_matured_52w": [0, math.nan, 1e6], "supplier_late_52w": [0, math.nan, 9e5]})
    assert fitted.predict(asked).tolist() == pytest.approx([base, base, 0.9], abs=1e-3)


def test_the_prior_is_strong_when_records_say_nothing_and_weak_when_they_say_all():
    rng = np.random.default_rng(0)
    n, rate = 3000, rng.choice([0.02, 0.9], 3000)
    record = pd.DataFrame({"supplier_matured_52w": 20, "supplier_late_52w": rng.binomial(20, rate)})
    telling = rule_kinds.supplier_52w().fit(record.assign(y=(rng.random(n) < rate).astype(int)))
    idle = rule_kinds.supplier_52w().fit(record.assign(y=(rng.random(n) < 0.4).astype(int)))
    assert telling.prior_rows_ <= 5
    assert idle.prior_rows_ >= 500


def test_labels_that_have_not_matured_are_refused():
    with pytest.raises(ValueError, match="matured"):
        naive_rules.DELAY_RULES["climatology"]().fit(pd.DataFrame({"y": [1.0, math.nan]}))


@pytest.mark.parametrize(("late", "complaint"), [(0.25, "not a share"), (-1, "not a share"), (9, "parts of it")])
def test_a_share_in_place_of_a_count_is_refused(late, complaint):
    rows = pd.DataFrame({"supplier_matured_52w": [8.0, 8.0], "supplier_late_52w": [2.0, late], "y": [0, 1]})
    with pytest.raises(ValueError, match=complaint):
        rule_kinds.supplier_52w().fit(rows)


def test_unknown_rule_is_named():
    with pytest.raises(ValueError, match="oracle"):
        rule_kinds.rule_from_dict({"kind": "oracle"})
