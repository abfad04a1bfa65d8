"""Steps are half-open and end at their as-of; working days leave out week-ends and holidays."""

from datetime import date, datetime

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.weeks import Grid, closed_days, holiday_dates, working_days

WEEKLY = Grid(date(2024, 1, 1), date(2024, 1, 29))
D = np.datetime64


def value(sql):
    with duckdb.connect() as con:
        return con.execute(f"SELECT {sql}").fetchone()[0]


def index(grid, moment):
    return value(grid.sql_index(f"TIMESTAMP {str(moment)!r}"))


@pytest.mark.parametrize(
    ("first", "as_of", "step_days", "days"),
    [
        ("2024-01-01", "2024-01-15", 7, ["2024-01-01", "2024-01-08", "2024-01-15"]),
        ("2024-01-02", "2024-01-15", 7, ["2024-01-08", "2024-01-15"]),
        ("2024-01-15", "2024-01-15", 7, ["2024-01-15"]),
        ("2025-01-01", "2024-01-15", 7, ["2024-01-15"]),
        ("2024-01-13", "2024-01-15", 1, ["2024-01-13", "2024-01-14", "2024-01-15"]),
        ("2024-01-01", "2024-02-01", 28, ["2024-01-04", "2024-02-01"]),
    ],
)
def test_a_grid_counts_back_from_its_as_of(first, as_of, step_days, days):
    grid = Grid(date.fromisoformat(first), date.fromisoformat(as_of), step_days)
    assert grid.days.astype(str).tolist() == days
    assert (grid.size, str(grid.start)) == (len(days), days[0])


@pytest.mark.parametrize(
    ("moment", "step"),
    [
        ("2023-12-31 23:59:59.999999", 0),
        ("2024-01-01 00:00:00", 1),  # known at the as-of itself: not before it, so it belongs to the next step
        ("2024-01-07 23:59:59.999999", 1),
        ("2024-01-08 00:00:00", 2),
        ("2024-01-08 00:00:00.000001", 2),
        ("2024-01-28 23:59:59.999999", 4),
        ("2024-01-29 00:00:00", 5),  # beyond the grid
        ("1990-01-01 12:00:00", 0),  # everything older counts in the first row
    ],
)
def test_a_fact_belongs_to_the_first_as_of_strictly_after_it(moment, step):
    assert index(WEEKLY, moment) == step


@settings(max_examples=40, deadline=None)
@given(st.datetimes(datetime.fromisoformat("2023-12-01"), datetime.fromisoformat("2024-03-01")), st.integers(1, 28))
def test_a_fact_is_counted_once_and_before_its_as_of(moment, step_days):
    grid = Grid(date(2024, 1, 1), date(2024, 2, 1), step_days)
    before = grid.days.astype("datetime64[us]") > np.datetime64(moment)
    found = index(grid, moment)
    assert found == np.argmax(before) if before.any() else found >= grid.size


@pytest.mark.parametrize(
    ("day", "step"), [("2023-12-31", 0), ("2024-01-01", 0), ("2024-01-02", 1), ("2024-01-08", 1), ("2024-01-29", 4)]
)
def test_a_day_is_over_at_the_first_as_of_on_or_after_it(day, step):
    assert value(WEEKLY.sql_index_of_day(f"DATE {day!r}")) == step


def test_missing_moments_have_no_step():
    assert value(WEEKLY.sql_index("NULL::TIMESTAMP")) is None
    assert value(WEEKLY.sql_index_of_day("NULL::DATE")) is None


@pytest.mark.parametrize(("weeks", "step_days", "steps"), [(4, 7, 4), (4, 1, 28), (1, 28, 1), (26, 14, 13)])
def test_weeks_are_turned_into_steps(weeks, step_days, steps):
    assert Grid(date(2024, 1, 1), date(2024, 2, 1), step_days).steps(weeks) == steps


@pytest.mark.parametrize(
    ("begin", "end", "country", "open_days", "holidays"),
    [
        ("2024-04-29", "2024-05-06", "", 5, 0),
        ("2024-04-29", "2024-05-06", "DE", 4, 1),  # 1 May
        ("2024-05-04", "2024-05-06", "DE", 0, 0),  # a week-end
        ("2024-05-06", "2024-05-06", "DE", 0, 0),
        ("2024-05-06", "2024-04-29", "", -5, 0),
    ],
)
def test_working_days_and_holidays(begin, end, country, open_days, holidays):
    closed = holiday_dates(country)
    assert working_days(D(begin), D(end), closed) == open_days
    assert closed_days(D(begin), D(end), closed) == holidays


def test_an_unknown_country_has_no_holidays():
    assert len(holiday_dates("??")) == len(holiday_dates("")) == 0
