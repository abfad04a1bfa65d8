"""The figures for planted shifts, and the cohort of received lines, held against tables made by hand."""

from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest

from benchmarks.detection import (
    NOT_FOUND,
    against_truth,
    alarm_levels,
    false_event_rate,
    received_only,
    summary,
    weeks_to_find,
)
from features.labels import delay_labels, late_as_known
from features.matrix import first_fact
from features.orders import open_lines
from features.panels import Terms, posting_lag_days, write_line_history
from features.weeks import Grid
from pipelines import sources
from pipelines.settings import load
from pipelines.simulate import simulate

PLANTED = pd.DataFrame({
    "product_id": ["rise", "fall", "unseen", "missed"], "site_id": "north",
    "starts_on": pd.to_datetime(["2024-01-08", "2024-01-08", "2024-01-08", "2024-01-15"]).date,
    "log_size": [0.26, -0.36, 0.26, 0.26],
})  # fmt: skip
LEVELS = {"up": 0.3, "down": 0.4}


def scores(text):
    head, *rows = [line.split() for line in text.strip().splitlines()]
    table = pd.DataFrame(rows, columns=head).assign(site_id="north")
    return table.assign(as_of=pd.to_datetime(table["as_of"])).astype({"p_up": float, "p_down": float})


SCORES = """
    product_id  as_of       p_up  p_down
    rise        2024-01-08  0.90  0.00
    rise        2024-01-15  0.30  0.60
    rise        2024-01-22  0.31  0.00
    rise        2024-01-29  0.90  0.00
    fall        2024-01-15  0.90  0.10
    fall        2024-01-22  0.10  0.40
    fall        2024-01-29  0.10  0.41
    missed      2024-01-22  0.10  0.90
    missed      2024-04-22  0.90  0.00
    other       2024-01-22  0.90  0.90
"""


def test_weeks_count_from_the_start_to_the_first_alarm_of_the_right_direction():
    found = weeks_to_find(scores(SCORES), PLANTED, LEVELS).set_index("product_id")["weeks"]
    assert found.to_dict() == {"rise": 2, "fall": 3, "missed": NOT_FOUND}


def test_a_median_takes_the_lost_for_late():
    table = summary(weeks_to_find(scores(SCORES), PLANTED, LEVELS))
    assert table.loc["all", "median_weeks"] == 3
    assert table.loc["up", "median_weeks"] == NOT_FOUND
    assert table["steps"].to_dict() == {"down": 1, "up": 2, "all": 3}
    assert table.loc["up", "found"] == 0.5


def test_several_windows_of_a_series_are_refused():
    twice = pd.concat([scores(SCORES)] * 2)
    with pytest.raises(ValueError, match="one window only"):
        weeks_to_find(twice, PLANTED, LEVELS)


def test_alarm_levels_are_passed_as_often_as_said():
    rng = np.random.default_rng(1)
    calm = pd.DataFrame({"p_up": rng.random(4_000), "p_down": rng.random(4_000) ** 2})
    levels = alarm_levels(calm, 0.05)
    for direction, level in levels.items():
        assert (calm[f"p_{direction}"] > level).mean() == pytest.approx(0.05, abs=0.001)


def test_false_events_are_counted_by_direction_without_the_unknown():
    assert false_event_rate([0, 1, 1, 2, 2, np.nan]) == {"down": 0.2, "up": 0.4, "windows": 5.0}
    assert np.isnan(false_event_rate([np.nan])["up"])


def test_the_cohort_of_received_lines_drops_the_worst_and_takes_early_ones():
    day = pd.to_datetime
    rows = pd.DataFrame({
        "line": ["kept", "late", "still_out", "early", "posted_later", "overdue"],
        "state": ["due_future"] * 5 + ["already_late"],
        "due_on": day(["2024-02-01", "2024-02-01", "2024-02-01", "2024-06-01", "2024-02-01", "2024-02-01"]),
        "completed_on": day(["2024-02-01", "2024-02-05", "2024-07-01", "2024-02-09", "2024-02-01", "2024-02-03"]),
        "completed_known_at": day(["2024-02-02", "2024-02-06", "2024-07-02", "2024-02-10", "2024-03-02", "2024-02-04"]),
    })  # fmt: skip
    place, y = received_only(rows, np.datetime64("2024-03-01"))
    assert dict(zip(rows["line"].iloc[place], y, strict=True)) == {"kept": 0, "late": 1, "early": 0}


def test_on_a_simulated_chain_received_lines_hide_most_of_the_lateness_and_matured_promises_do_not(tmp_path):
    simulate(tmp_path, scale=0.35, seed=3)
    con, _ = sources.load(load(tmp_path, environ={}), now=datetime(2026, 6, 2, tzinfo=UTC))
    with con:
        terms, cut = Terms(posting_lag_days=posting_lag_days(con, date(2026, 6, 1))), np.datetime64("2025-12-01")
        grid = Grid(first_fact(con, "purchases"), date(2026, 6, 1))
        last = np.flatnonzero((grid.days < cut) & (grid.days >= cut - np.timedelta64(13 * 7, "D")))
        write_line_history(con, terms)
        rows = open_lines(con, grid, terms, steps=last)
        rows = rows.assign(**delay_labels(con, rows, terms))
    truth = pd.read_parquet(tmp_path / "truth" / "p_late.parquet")
    truth = truth[pd.to_datetime(truth["as_of"]).isin(grid.days[last])]["p_late"].mean()
    matured = rows[(rows["matured_on"] <= pd.Timestamp(cut)) & rows["y_late"].notna()]
    honest, received = late_as_known(matured, cut).mean(), received_only(rows, cut)[1].mean()
    assert honest == pytest.approx(truth, rel=0.2)
    assert received < 0.75 * truth


def test_a_forecast_half_as_bold_as_the_truth_has_slope_two():
    truth = np.linspace(0.1, 0.9, 50)
    seen = against_truth(0.25 + truth / 2, truth)
    assert (seen["correlation"], seen["slope"]) == (pytest.approx(1), pytest.approx(2))
    assert np.isnan(against_truth([0.5, 0.5], [0.1, 0.9])["slope"])
