"""Reasons in words: every feature can be told, each family once, and the parts add up to the score."""

import numpy as np
import pandas as pd
import pytest

from features.core import Feature
from features.orders import LINE_FEATURES
from features.recent import RECENT_FEATURES
from features.series import SERIES_FEATURES, WINDOW_FEATURES
from features.signals import AHEAD, AHEAD_CHANGE, LATELY_FEATURES, SIGNAL_FEATURES
from features.suppliers import LEVELS
from models.boosting import contributions
from models.delay import DelayModel
from models.explain import drivers, families, tell

nan = np.nan
SIGNALS = [
    f.at("signal_{odd name}", "signal {odd name}") for f in (*SIGNAL_FEATURES, AHEAD, *LATELY_FEATURES, AHEAD_CHANGE)
]
EVERY = {
    f.name: f
    for f in (
        *LINE_FEATURES, *(f for level in LEVELS for f in level.features), *SERIES_FEATURES, *RECENT_FEATURES,
        *WINDOW_FEATURES, *SIGNALS
    )
}  # fmt: skip


def feature(name, say="", unit="days", family=""):
    return Feature(name, lambda r: r, unit, "", say, family)


@pytest.mark.parametrize("name", EVERY)
def test_every_feature_can_be_told_at_every_value(name):
    for value in (0, 1, -3.2, 12.7, 1e6, np.float32(0.25)):
        for usual in (nan, 5.5, -0.001):
            words = tell(EVERY[name], value, usual)
            assert words
            if "odd" not in name:
                assert not set("{}") & set(words), words
            assert "nan" not in words
            assert "-0 " not in words
            assert ("usually" in words) <= (not np.isnan(usual)), words


@pytest.mark.parametrize(("say", "unit", "value", "usual", "words"), [
    ("due in {value}, usually {usual}", "days", 1.0, 14.0, "due in 1 day, usually 14 days"),
    ("due in {value}, usually {usual}", "days", 1.0, nan, "due in 1 day"),
    ("due in {value} or so, usually {usual}", "days", 14.04, 14.0, "due in 14 days or so, as usual"),
    ("{value} overdue", "share", 0.126, nan, "13 % overdue"),
    ("{value} overdue", "share", -0.001, nan, "0 % overdue"),
    ("on time {value}", "on-time share", 0.2, nan, "on time 80 %"),
    ("leaves {value:more} than usual", "days", -2.0, nan, "leaves 2 days less than usual"),
    ("leaves {value:more} than usual", "days", 1.0, nan, "leaves 1 day more than usual"),
    ("due {value:in}, usually {usual:in}", "days", -3.0, 1.0, "due 3 days ago, usually in 1 day"),
    ("due {value:in}", "days", 0.0, nan, "due today"),
    ("due {value:before} it, usually {usual:before} it", "days", -3.0, 0.0, "due 3 days after it, usually on it"),
    ("promise {value:moved}", "days", 12.0, nan, "promise pushed back by 12 days"),
    ("promise {value:moved}", "days", -1.0, nan, "promise pulled in by 1 day"),
    ("promise {value:moved}", "days", 0.0, nan, "promise not moved"),
    ("starts {value:ahead}", "weeks", 0.0, nan, "starts this week"),
    ("starts {value:ahead}", "weeks", 4.0, nan, "starts in 4 weeks"),
    ("{value:rose} in 4 weeks", "signal's unit", -0.26, nan, "fell by 0.3 in 4 weeks"),
    ("{value:rose} in 4 weeks", "signal's unit", 0.0002, nan, "did not move in 4 weeks"),
    ("{value:grew} of its level", "share", 0.12, nan, "rose by 12 % of its level"),
    ("{value:higher} than before", "signal's unit", -0.04, nan, "0.04 lower than before"),
    ("{value:rate}, usually {usual:rate}", "lines", 0.034, 0.05, "3.4 %, usually 5 %"),
    ("by {value:points}, not {usual:points}", "share", 0.14, 0.01, "by 14 percentage points, not 1 percentage point"),
    ("is {value:gap} the year's", "share", -0.05, nan, "is 5 percentage points below the year's"),
    ("pushed back {value:promises}, usually {usual}", "pushes", 0.67, 0.04, "pushed back 0.7 promises, usually 0.04"),
    ("pushed back {value:promises}", "pushes", 1.0, nan, "pushed back 1 promise"),
    ("sold for {value:to two years}", "weeks", 30.0, nan, "sold for 30 weeks"),
    ("sold for {value:to two years}", "weeks", 104.0, nan, "sold for two years or more"),
    ("after {value:date}", "day number", 20605, nan, "after 2026-06-01"),
    ("{value} open", "lines", 1, nan, "1 line open"),
    ("{value} the usual", "ratio", 1.04, nan, "1.04 × the usual"),
    ("{value} the usual", "ratio", 1.0, nan, "1.0 × the usual"),
    ("{value} the usual", "ratio", 2.33, nan, "2.3 × the usual"),
    ("{value} the usual", "ratio", 49.5, nan, "50 × the usual"),
    ("worth {value}", "money", 221_618.0, nan, "worth 222,000"),
    ("worth {value}", "money", 1_540.4, nan, "worth 1,540"),
    ("worth {value}", "money", 940.2, nan, "worth 940"),
    ("costs {value}", "money per unit", 1.8, nan, "costs 1.80"),
    ("ends {value:z} it", "standard deviations", -1.6, nan, "ends 1.6 usual swings below it"),
    ("pushed {value:times}", "pushes", 1, nan, "pushed once"),
    ("in {value:month}", "month", 12, nan, "in December"),
    ("class is {value}", "as given", 7.0, nan, "class is 7"),
    ("class is {value}", "as given", 7.25, nan, "class is 7.2"),
    ("class is {value}", "as given", 99.04, nan, "class is 99"),
    ("class is {value}", "as given", 0.012, nan, "class is 0.01"),
    ("class is {value}", "as given", 1234567.0, nan, "class is 1,234,567"),
    ("mode is {value}", "as given", "sea", nan, "mode is sea"),
    ("", "days", 3.0, nan, "x 3 days"),
], ids=str)  # fmt: skip
def test_values_are_told_as_a_planner_reads_them(say, unit, value, usual, words):
    assert tell(feature("x", say, unit), value, usual) == words
    if "money" in unit:  # with the amounts' currency where it is known
        verb, _, number = words.rpartition(" ")
        assert tell(feature("x", say, unit), value, usual, "EUR") == f"{verb} EUR {number}"


X = pd.DataFrame({"a": [5.0], "b": [3.0], "c": [nan], "d": ["sea"]}, index=[7])
FOUR = [
    feature("a", "a {value}", family="one"), feature("b", "b {value}", family="one"), feature("c", "c {value}"),
    feature("d", "mode is {value}", "as given"),
]  # fmt: skip


def told(shap, top=3):
    return drivers(np.array([shap]), X, FOUR, pd.Series({"a": 2.0}), top=top).loc[7].tolist()


@pytest.mark.parametrize(("shap", "expected"), [
    ([0.5, 0.2, 0.0, -0.3], ["▲ a 5 days", "▼ mode is sea", ""]),
    ([0.2, 0.5, 0.0, 0.1], ["▲ b 3 days", "▲ mode is sea", ""]),  # the family's strongest member tells it
    ([0.5, -0.9, 0.0, 0.1], ["▼ b 3 days", "▲ mode is sea", ""]),  # its direction is that of the sum
    ([0.1, 0.0, 9.0, 0.0], ["▲ a 5 days", "", ""]),  # a missing value tells nothing
    ([0.0, 0.0, 0.0, 0.0], ["", "", ""]),
], ids=str)  # fmt: skip
def test_families_are_told_once_strongest_first_with_their_direction(shap, expected):
    assert told(shap) == expected


def test_no_more_drivers_than_asked_for():
    assert told([0.5, 0.2, 0.0, -0.3], top=1) == ["▲ a 5 days"]
    assert drivers(np.empty((0, 4)), X.iloc[:0], FOUR, pd.Series(dtype=float)).shape == (0, 3)
    assert drivers(np.array([[0.5]]), X.iloc[:1], FOUR[:1], pd.Series(dtype=float)).shape == (1, 3)  # or fewer families


def test_the_parts_of_a_score_add_up_to_it():
    rng = np.random.default_rng(0)
    n = 800
    X = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n)}, dtype=np.float32)
    X["attribute_mode"] = rng.choice(["air", "sea"], n).astype(object)
    y = (X["a"] + (X["attribute_mode"] == "sea") + rng.normal(size=n) > 0.5).to_numpy(float)
    as_of = np.datetime64("2025-01-06") - rng.integers(1, 50, n) * np.timedelta64(7, "D")
    outcomes = pd.DataFrame({"as_of": as_of, "matured_on": as_of, "y": y, "completed_in": nan, "watched": 0.0})
    model = DelayModel(kind="direct", rounds=15, threads=1).fit(X, outcomes, cut=np.datetime64("2025-01-06"))
    block = model.encoder_.transform(X)
    shap = contributions(model.booster_, block)
    np.testing.assert_array_equal(model.contributions(X), shap[:, :-1])
    np.testing.assert_allclose(shap.sum(axis=1), model.booster_.predict(block, raw_score=True), atol=1e-9)
    three = [feature("a", "a is {value}, usually {usual}"), feature("b"), feature("attribute_mode", "mode is {value}")]
    reasons = drivers(shap[:, :3], X, three, model.usual_["median"])
    assert (reasons["driver_1"] != "").all()
    sea = reasons[X["attribute_mode"] == "sea"].to_numpy().ravel()
    assert "▲ mode is sea" in sea
    assert "▼ mode is sea" not in sea


def test_families_of_one_row_add_up_and_are_told_by_the_member_that_pulls_along():
    features = [feature("a", "a is {value}", family="one"), feature("b", "b is {value}", family="one"), feature("c")]
    X = pd.DataFrame({"a": [1.0], "b": [2.0], "c": [np.nan]})
    found = families(np.array([0.5, -0.2, -0.9]), X, features, pd.Series(dtype=float))
    assert [(f["family"], round(f["contribution"], 6), f["words"], f["inputs"]) for f in found] == [
        ("c", -0.9, "", ["c"]), ("one", 0.3, "a is 1 day", ["a", "b"]),
    ]  # fmt: skip
