"""Where the model has no skill the rule is what is said; where it has, the model is."""

import json

import numpy as np
import pandas as pd
import pytest

from features.labels import CLASSES
from models.leaning import NO_EVIDENCE, TRUST, Lean, Term, choose_shares, choose_trust, fit_shift_rules, towards


def facts(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"window": rng.integers(0, 2, n), "last_z": rng.normal(size=n)})


def outcomes(skill, n=3000, seed=1):
    """Classes, and a model that knows them as well as `skill` says."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    p = 1 / (1 + np.exp(-(2 * risk - 3)))
    y = np.where(rng.random(n) < p, 2.0, 1.0)
    said = 1 / (1 + np.exp(-(2 * (skill * risk + (1 - skill) * rng.normal(size=n)) - 3)))
    return y, np.column_stack([np.full(n, 0.01), 0.99 - said * 0.98, said * 0.98])


def shares(skill):
    rows = facts()
    y, P = outcomes(skill)
    told = {name: rule.predict(rows) for name, rule in fit_shift_rules(rows, y).items()}
    return choose_shares(P, told, y, rows["window"].to_numpy())


def test_a_model_with_skill_speaks_and_one_without_is_silent():
    assert shares(1.0)["up"][-1][0] == 1
    assert shares(0.0)["up"][-1][0] <= 0.25
    assert set(shares(1.0)["up"]) == {-1, 0, 1}
    assert set(shares(1.0)["down"]) == {-1}  # nothing dropped: all windows together


def test_every_window_says_who_publishes_it():
    shares = {-1: NO_EVIDENCE, 0: (1.0, "last_z"), 1: (0.0, "last_z")}
    said = Lean({"up": shares, "down": shares}, {}).said_by("up", pd.Series([0, 1, 2, 1]))
    assert said.tolist() == ["model", "last_z", "model and climatology", "last_z"]


def test_the_rule_alone_gives_the_rules_numbers_and_rows_sum_to_one():
    rows, (y, P) = facts(), outcomes(0.5)
    rules = fit_shift_rules(rows, y)
    lean = Lean({"down": {-1: (1.0, "last_z")}, "up": {-1: (0.0, "last_z"), 1: (0.5, "climatology")}}, rules)
    said, rule = lean.apply(P, rows), rules["last_z"].predict(rows)
    first = (rows["window"] == 0).to_numpy()
    np.testing.assert_allclose(said[first, 2], rule[first, 2])
    usual = rules["climatology"].predict(rows)
    np.testing.assert_allclose(said[~first, 2], (0.5 * P + 0.5 * usual)[~first, 2])
    np.testing.assert_allclose(said[:, 0], P[:, 0])
    np.testing.assert_allclose(said.sum(axis=1), 1)
    again = Lean.from_dict(json.loads(json.dumps(lean.to_dict())))
    np.testing.assert_array_equal(again.apply(P, rows), said)


def test_two_directions_never_exceed_one():
    rows = facts(10)
    rules = fit_shift_rules(rows, np.full(10, 2.0))
    P = np.tile([0.9, 0.05, 0.05], (10, 1))
    said = Lean({"down": {-1: (1.0, "climatology")}, "up": {-1: (0.0, "climatology")}}, rules).apply(P, rows)
    assert (said >= 0).all()
    np.testing.assert_allclose(said.sum(axis=1), 1)


def terms(*boldness, n=4000):
    """Later weeks in which the model's surges are so many times as far from what is usual as they should be."""
    rng = np.random.default_rng(3)
    out = []
    for bold in boldness:
        usual = np.full(n, 0.1)
        true = 1 / (1 + np.exp(-(np.log(0.1 / 0.9) + 1.5 * rng.normal(size=n))))
        y = np.where(rng.random(n) < true, 2.0, 1.0)
        up = towards(true, usual, bold)
        P, told = (np.column_stack([np.full(n, 0.01), 0.99 - p, p]) for p in (up, usual))
        out.append(Term(P, {"climatology": told}, y, np.zeros(n, int)))
    return out


ALONE = {direction: {-1: (1.0, "climatology")} for direction in ("down", "up")}


def test_forecasts_are_believed_as_far_as_later_weeks_confirm_them():
    assert choose_trust(terms(1.0, 1.0), ALONE)["up"] == pytest.approx(1, abs=0.1)
    bold = choose_trust(terms(2.0, 2.0), ALONE)
    assert 0.45 < bold["up"] < 0.65
    assert bold["down"] == TRUST  # nothing dropped: no evidence
    assert choose_trust(terms(0.5, 0.5), ALONE)["up"] > 1
    apart = choose_trust(terms(1.0, 4.0), ALONE)["up"]
    assert apart < choose_trust(terms(1.0, 1.0), ALONE)["up"] - 0.2  # what holds in one term only is not believed


def test_trust_moves_towards_the_usual_and_is_kept():
    rows, (y, P) = facts(), outcomes(0.5)
    rules = fit_shift_rules(rows, y)
    lean = Lean(ALONE, rules, {"up": 0.5})
    said, usual = lean.apply(P, rows)[:, 2], rules["climatology"].predict(rows)[:, 2]
    odds = [np.log(p / (1 - p)) for p in (P[:, 2], usual, said)]
    np.testing.assert_allclose(odds[2], (odds[0] + odds[1]) / 2, rtol=1e-6)
    again = Lean.from_dict(json.loads(json.dumps(lean.to_dict())))
    np.testing.assert_array_equal(again.apply(P, rows)[:, 2], said)


def test_rules_need_their_facts():
    rows = facts(50)
    rules = fit_shift_rules(rows, np.ones(50))
    assert set(rules) == {"climatology", "last_z"}
    assert set(fit_shift_rules(rows, np.ones(50), without=["last_z"])) == {"climatology"}
    assert rules["climatology"].classes == CLASSES
