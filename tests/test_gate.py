"""Who publishes: the model unless a rule leads beyond noise, in a segment too, and nobody on too little."""

import numpy as np
import pandas as pd
import pytest

from models.forecasters import Facts
from models.gate import as_published, blocks, decide, is_clear


def record(n=4000, seed=0, event="late", weeks=20, **skill):
    """Binary predictions whose forecasters see the true probability through noise of the given size."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.02, 0.6, n)
    out = pd.DataFrame({
        "event": event, "y": (rng.random(n) < truth) * 1.0, "evidence": rng.choice(["new", "known"], n, p=[0.3, 0.7]),
        "rhythm": rng.choice(["regular", "intermittent"], n),
        "as_of": pd.Timestamp("2025-01-06") + pd.to_timedelta(7 * rng.integers(0, weeks, n), unit="D"),
    })  # fmt: skip
    for name, noise in skill.items():
        out[f"p_{name}"] = np.clip(truth + rng.normal(0, noise, n), 0.01, 0.99)
    return out.assign(p=out["p_model"], matured_at=out["as_of"] + pd.Timedelta(days=14))


def test_the_model_publishes_where_it_is_better_and_the_best_rule_where_it_is_clearly_not():
    won = decide(record(model=0.05, days_to_promise=0.2, supplier_52w=0.3), "delay")
    assert (won.publishes["late"], won.best_rule["late"], won.refused_because) == ("model", "days_to_promise", None)
    lost = decide(record(model=0.3, days_to_promise=0.2, supplier_52w=0.1), "delay")
    assert (lost.publishes["late"], lost.best_rule["late"]) == ("supplier_52w", "supplier_52w")
    assert "the naive rule supplier_52w is clearly better" in lost.refused_because


def test_a_lead_of_one_good_stretch_is_no_reason_to_silence_the_model():
    pairs = record(model=0.1, days_to_promise=0.1, weeks=20)
    lucky = pairs["as_of"] < pairs["as_of"].min() + pd.Timedelta(weeks=4)
    pairs.loc[lucky, "p_days_to_promise"] = pairs.loc[lucky, "y"]
    decision = decide(pairs, "delay")
    assert (decision.publishes["late"], decision.best_rule["late"]) == ("model", "days_to_promise")


def test_a_segment_departs_only_beyond_noise():
    pairs = record(model=0.05, days_to_promise=0.2)
    assert set(decide(pairs, "delay").publishes) == {"late"}
    new = pairs["evidence"] == "new"
    pairs.loc[new, "p_model"] = 1 - pairs.loc[new, "p_model"]
    decision = decide(pairs, "delay")
    by = Facts("", decision.publishes).publisher("late", np.array(["new", "known"]))
    assert by.tolist() == ["days_to_promise", "model"]


def test_one_bad_week_is_no_reason_to_depart():
    pairs = record(model=0.05, days_to_promise=0.05, weeks=5)
    bad = (pairs["evidence"] == "new") & (pairs["as_of"] == pairs["as_of"].min())
    pairs.loc[bad, "p_model"] = 1 - pairs.loc[bad, "p_model"]
    assert "late/new" not in decide(pairs, "delay").publishes


def test_too_little_is_too_little():
    decision = decide(record(150, model=0.0, days_to_promise=0.4), "delay")
    assert decision.publishes == {"late": "days_to_promise"}
    assert "too little has matured" in decision.refused_because
    assert "windows" not in decision.refused_because
    rare = pd.concat([record(100, event=event, model=0.05, climatology=0.2) for event in ("down", "up")])
    assert "longer windows where products sell once a month" in decide(rare, "shift").refused_because
    assert "in which lines have reached a promised day" in decision.refused_because


@pytest.mark.parametrize(("y", "which"), [(0.0, "none"), (1.0, "all")])
def test_where_nothing_or_everything_came_true_it_says_so(y, which):
    decision = decide(record(400, model=0.0, days_to_promise=0.4).assign(y=y), "delay")
    assert decision.refused_because == f"{which} of 400 judged came true: there is nothing to tell apart"


def test_without_any_record_the_rules_publish():
    assert decide(pd.DataFrame({"event": [], "y": []}), "shift").publishes == {
        "down": "climatology", "up": "climatology"
    }  # fmt: skip


def test_drops_and_surges_are_decided_apart():
    good = record(event="down", model=0.05, climatology=0.2)
    bad = record(event="up", seed=1, model=0.3, climatology=0.1)
    decision = decide(pd.concat([good, bad], ignore_index=True), "shift")
    assert (decision.publishes["down"], decision.publishes["up"]) == ("model", "climatology")
    assert decision.refused_because is None  # it publishes the drops


def test_what_is_published_is_what_the_publishers_said():
    pairs = record(model=0.05, days_to_promise=0.2)
    said = as_published(pairs, {"late": "model", "late/new": "days_to_promise"})["p"]
    new = pairs["evidence"] == "new"
    np.testing.assert_array_equal(said[new], pairs.loc[new, "p_days_to_promise"])
    np.testing.assert_array_equal(said[~new], pairs.loc[~new, "p_model"])
    assert Facts("", {"late": "a", "late/new": "b"}).publisher("late", np.array(["new", "x"])).tolist() == ["b", "a"]


@pytest.mark.parametrize(("weeks", "sure"), [(40, True), (2, False)])
def test_rows_of_one_week_are_one(weeks, sure):
    rng = np.random.default_rng(0)
    week = np.repeat(np.arange(weeks), 100)
    difference = pd.Series(0.1 + rng.normal(0, 0.1, weeks)[week])
    assert is_clear(difference, week, among=9) == sure


@pytest.mark.parametrize("weeks", [4, 10, 40])
def test_the_best_of_nine_that_are_as_good_seldom_leads_clearly(weeks):
    rng = np.random.default_rng(weeks)
    week = np.arange(weeks)
    leads = [pd.DataFrame(rng.normal(0, 1, (weeks, 9))) for _ in range(400)]
    taken = [is_clear(each[each.mean().idxmax()], week, among=9) for each in leads]
    assert np.mean(taken) < 0.08  # at 1.64 standard errors it is 0.4 to 0.5


@pytest.mark.parametrize(("waited", "weeks", "lengths"), [(3, 20, 7), (30, 20, 4), (0, 20, 20), (5, 2, 2)])
def test_blocks_are_as_long_as_labels_are_waited_for_but_there_are_four(waited, weeks, lengths):
    as_of = pd.Timestamp("2025-01-06") + pd.to_timedelta(7 * np.arange(weeks).repeat(3), unit="D")
    pairs = pd.DataFrame({"as_of": as_of, "matured_at": as_of + pd.Timedelta(weeks=waited)})
    found = blocks(pairs)
    assert len(np.unique(found)) == lengths
    assert (np.diff(found) >= 0).all()
