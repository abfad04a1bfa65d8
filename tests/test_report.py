"""Reports agree with counts made by hand."""

import numpy as np
import pandas as pd
import pytest

from models import report
from models.metrics import binary_report

nan = np.nan


def pairs(n=600, seed=0, event="late"):
    rng = np.random.default_rng(seed)
    p = rng.uniform(0, 1, n)
    return pd.DataFrame({
        "event": event, "as_of": pd.Timestamp("2025-01-06") + pd.to_timedelta(7 * rng.integers(0, 10, n), unit="D"),
        "supplier_id": rng.choice(list("abcd"), n), "po_line_id": [f"l{k % 200}" for k in range(n)], "p": p,
        "y": (rng.random(n) < p) * 1.0, "p_model": p, "p_climatology": 0.5,
        "p_noisy": np.clip(p + rng.normal(0, 0.2, n), 0.01, 0.99),
        "evidence": rng.choice(["new", "thin", "known"], n),
        "days_to_promise": rng.integers(0, 70, n) * 1.0, "value": rng.uniform(1, 100, n),
        "region": rng.choice(["", "N"], n),
    })  # fmt: skip


def test_the_judge_agrees_with_the_metrics_taken_directly():
    table = report.judge(pairs(), "supplier_id", seed=7, n=20)
    assert set(table.index) == {"model", "climatology", "noisy"}
    for name, column in (("model", "p"), ("noisy", "p_noisy")):
        expected = binary_report(pairs()["y"], pairs()[column])
        for metric in ("brier", "pr_auc", "roc_auc", "log_loss", "ece"):
            assert table.loc[name, metric] == pytest.approx(expected[metric])
    assert report.best_rule(table) == "noisy"
    said = report.as_dict(table)
    low, high = said["intervals"]["bss_noisy"]
    assert low < said["metrics"]["bss_noisy"] < high
    assert set(said["rules"]) == {"climatology", "noisy"}


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_where_all_had_one_outcome_there_is_no_skill(outcome):
    """Rules that are as good as certain of it have a Brier score of next to nothing: skills of −281,630,010 %."""
    mine = pairs().assign(y=outcome, p_climatology=np.abs(outcome - 1e-9))
    said = report.as_dict(report.judge(mine, "supplier_id", seed=7, n=20))
    skills = {k: v for k, v in said["metrics"].items() if k.startswith("bss_")}
    assert set(skills) == {"bss_climatology", "bss_noisy"}
    assert set(skills.values()) == {said["rules"]["noisy"]["bss_climatology"]} == {None}
    assert said["intervals"]["bss_noisy"] == [None, None]
    for part in (*report.by_segment(mine, "delay"), *report.by_week(mine)):
        assert part["bss_best_rule"] is part["bss_climatology"] is None
        assert part["bss_best_rule_interval"] == [None, None]


def test_segments_split_every_row_once_and_name_their_best_rule():
    mine = pairs(4000)
    found = report.by_segment(mine, "delay")
    for name in report.SEGMENTS["delay"]:
        parts = [part for part in found if part["segment"] == name]
        small = len(mine) - sum(part["n"] for part in parts)
        assert 0 <= small < report.LEAST * 3, name
    one = next(part for part in found if (part["segment"], part["value"]) == ("days_to_promise", "2–3 days"))
    part = mine[mine["days_to_promise"].between(2, 3)]
    assert one["n"] == len(part)
    known = next(part for part in found if part["value"] == "thin")
    part = mine[mine["evidence"] == "thin"]
    assert (known["n"], known["positives"]) == (len(part), part["y"].sum())
    scores = {rule: ((part[f"p_{rule}"] - part["y"]) ** 2).mean() for rule in ("climatology", "noisy")}
    assert known["best_rule"] == min(scores, key=scores.get)
    assert known["bss_climatology"] == pytest.approx(1 - ((part["p"] - part["y"]) ** 2).mean() / scores["climatology"])
    assert known["bss_best_rule_interval"][0] < known["bss_best_rule"] < known["bss_best_rule_interval"][1]


def test_windows_are_told_by_their_weeks_as_the_watchlist_does():
    mine = pairs(60, event="up").assign(
        lead_weeks=4, length_weeks=4, rhythm="regular", age_weeks=60, stake=1.0, product_id="p"
    )
    (horizon,) = [part["value"] for part in report.by_segment(mine, "shift") if part["segment"] == "horizon"]
    assert horizon == "weeks 5–8"


def test_weeks_are_told_one_by_one():
    found = report.by_week(pairs())
    assert [part["week"] for part in found] == sorted({str(day.date()) for day in pairs()["as_of"]})
    assert sum(part["n"] for part in found) == 600


LISTED = pd.DataFrame({
    "event": "late", "as_of": pd.to_datetime(["2025-01-06"] * 3 + ["2025-01-13"] * 3),
    "po_line_id": ["a", "b", "c", "a", "b", "d"], "p": [0.9, 0.5, 0.1, 0.2, 0.9, 0.8], "y": [1.0, 1, 0, 1, 1, 0],
    "value": [10.0, 10, 10, 10, 10, nan], "days_to_promise": [9.0, 12, 9, 2, 5, 3],
})  # fmt: skip


def test_the_list_holds_the_largest_expected_value_of_each_day():
    assert report.on_list(LISTED, 1).tolist() == [True, False, False, False, True, False]
    said = report.lists(LISTED, 1)["late"]
    assert said["precision"] == 1
    assert said["value_captured"] == pytest.approx(20 / 40)
    assert said["churn"] == 1  # b took a's place
    assert report.lists(LISTED, 2)["late"]["churn"] == 0


def test_only_the_run_of_lists_that_reaches_the_event_warns():
    days = report.lead_times(LISTED, np.array([True, False, False, False, True, False]))
    assert sorted(days) == [0, 5]  # a was on the first list only; b on the last
    assert sorted(report.lead_times(LISTED, np.ones(6, bool))) == [9, 12]


def test_the_capture_curve_begins_at_nothing_and_ends_at_all():
    curve = report.capture_curve(pairs(), "p", np.linspace(0, 1, 11))
    assert (curve[0], curve[-1]) == (0, pytest.approx(1))
    assert (np.diff(curve) >= 0).all()
    assert curve[5] > 0.6  # better than chance


def test_arrivals_count_lines_that_never_came_as_not_arrived():
    table = pd.DataFrame({
        "label": [0.0, 1, 1, nan], "arrived_in": [3.0, 9, nan, 1], "arrival_in_p10": 1.0, "arrival_in_p50": 4.0,
        "arrival_in_p80": 9.0, "arrival_in_p90": 9.0,
    })  # fmt: skip
    said = report.arrivals(table)
    assert (said["n"], said["arrived_by_p50"]) == (3, pytest.approx(1 / 3))
    assert said["coverage_80"] == pytest.approx(2 / 3)


def test_units_are_held_against_the_naive_quantiles():
    table = pd.DataFrame({
        "label": [0.0, 1, nan], "actual_units": [5.0, 20, nan],
        **{f"units_p{q}": u for q, u in ((10, 4), (50, 8), (90, 12))},
        **{f"naive_units_p{q}": u for q, u in ((10, 0), (50, 10), (90, 30))},
    })  # fmt: skip
    said = report.units(table)
    assert (said["n"], said["coverage"], said["naive_coverage"], said["crossings"]) == (2, 0.5, 1.0, 0)
    assert said["width_to_naive"] == pytest.approx(8 / 30)
