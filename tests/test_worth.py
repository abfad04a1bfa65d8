"""A signal is kept for what it buys out of time, and noise buys nothing."""

import numpy as np
import pandas as pd
import pytest

from features.signals import signal_of
from models.worth import _Trial, dropped, signals_of, worth_of_signals

CUT = np.datetime64("2025-06-02")


def facts(n=12_000, seed=0, weeks=150):
    """Rows whose outcome depends on an input and on one of three signals, each one value a week."""
    rng = np.random.default_rng(seed)
    week = rng.integers(1, weeks, n)
    true, noise, still = rng.normal(size=weeks), rng.normal(size=weeks), np.ones(weeks)
    x = rng.normal(size=n)
    y = rng.random(n) < 1 / (1 + np.exp(1.5 - x - 0.8 * true[week]))
    as_of = CUT - week * np.timedelta64(7, "D")
    X = pd.DataFrame({
        "age": x, "signal_true_lead_level": true[week], "signal_noise_change_4w": noise[week],
        "signal_still_level": still[week], "attribute_mode": rng.choice(["air", "sea"], n),
    })  # fmt: skip
    then = pd.DataFrame({"as_of": as_of.astype("datetime64[s]"), "matured_on": as_of.astype("datetime64[s]")})
    return X, {"late": y * 1.0}, then, rng.choice(list("abcdefgh"), n)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_leading_signal_is_kept_and_the_others_are_not(seed):
    X, y, then, entity = facts(seed=seed)
    bill = worth_of_signals(X, y, then, entity, cut=CUT, seed=7, threads=1)
    assert {entry["signal"]: entry["kept"] for entry in bill} == {"true_lead": True, "noise": False, "still": False}
    assert dropped(bill, X.columns) == ["signal_noise_change_4w", "signal_still_level"]
    true = bill[-1]["events"]["late"]
    assert true["interval"][0] < true["skill"] < true["interval"][1]
    assert true["skill"] == pytest.approx(1 - true["brier_with"] / true["brier_without"])


def test_what_is_known_ahead_is_billed_and_stays():
    X, y, then, entity = facts(6000)
    X = X.rename(columns={"signal_noise_change_4w": "signal_noise_ahead"})
    bill = {entry["signal"]: entry for entry in worth_of_signals(X, y, then, entity, cut=CUT, seed=7, threads=1)}
    assert bill["noise"]["kept"]
    assert not bill["noise"]["events"]["late"]["pays"]


def test_the_order_of_rows_does_not_matter():
    X, y, then, entity = facts(4000)
    order = np.random.default_rng(1).permutation(len(X))
    one = worth_of_signals(X, y, then, entity, cut=CUT, seed=7, threads=1)
    other = worth_of_signals(
        X.iloc[order], {"late": y["late"][order]}, then.iloc[order], entity[order], cut=CUT, seed=7, threads=1
    )
    for a, b in zip(one, other, strict=True):
        assert a["events"]["late"]["skill"] == pytest.approx(b["events"]["late"]["skill"], abs=1e-9)


def test_what_has_not_matured_at_the_cut_is_not_asked():
    X, y, then, entity = facts(6000)
    late = (then["as_of"] > pd.Timestamp("2025-01-01")).to_numpy()
    hidden = {"late": np.where(late, np.nan, y["late"])}
    scrambled = X.assign(**{c: X[c].where(~late, 99.0) for c in X if c != "attribute_mode"})
    cut = np.datetime64("2025-01-01")
    one, other = (
        worth_of_signals(inputs, hidden, then, entity, cut=cut, seed=7, threads=1) for inputs in (X, scrambled)
    )
    assert one == other


def test_too_little_keeps_everything():
    X, y, then, entity = facts(300)
    bill = worth_of_signals(X, y, then, entity, cut=CUT, seed=7, threads=1)
    assert all(entry["kept"] for entry in bill)
    assert dropped(bill, X.columns) == []
    assert worth_of_signals(X[["age"]], y, then, entity, cut=CUT, seed=7, threads=1) == []


def test_a_column_knows_its_signal():
    assert signal_of("signal_freight_index_change_13w") == "freight_index"
    assert signal_of("signal_age_age_days") == "age"
    assert signal_of("age_days") is None
    assert signals_of(["signal_a_level", "signal_a_z_52w", "x"]) == {"a": ["signal_a_level", "signal_a_z_52w"]}


@pytest.mark.parametrize(("gain", "pays"), [(0.001, False), (0.005, True)])
def test_a_gain_that_is_sure_but_tiny_is_not_worth_a_signal(gain, pays):
    n = 4000
    y = np.random.default_rng(0).random(n) < 0.3
    none = np.zeros(0)
    weeks = np.datetime64("2025-01-06", "W") + np.repeat(np.arange(40), n // 40) * np.timedelta64(1, "W")
    trial = _Trial(y * 1.0, none, np.arange(n), none, none, weeks, np.arange(n) % 20, 7, 1)
    without = np.full(n, 0.3)
    better = y + (without - y) * np.sqrt(1 - gain)
    found = trial._skill(better, without, 1.28)
    assert found["skill"] == pytest.approx(gain)
    assert found["pays"] == pays
