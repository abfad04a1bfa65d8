"""Count time in as-of days: half-open steps that end at each as-of, and the working days between two dates."""

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache

import holidays
import numpy as np

DAY = np.timedelta64(1, "D")


@dataclass(frozen=True, slots=True)
class Grid:
    """The as-of days of a run: `as_of` and every `step_days` before it, back to `first`.

    A fact belongs to the first as-of strictly after the moment it became known, so the row at an as-of counts
    the facts of `[as_of − step_days, as_of)`.
    """

    first: date
    as_of: date
    step_days: int = 7

    @property
    def size(self) -> int:
        return max((self.as_of - self.first).days, 0) // self.step_days + 1

    @property
    def start(self) -> date:
        """The oldest as-of of the grid."""
        return self.as_of - timedelta(days=(self.size - 1) * self.step_days)

    @property
    def days(self) -> np.ndarray:
        """As-of days, oldest first, datetime64[D], shape (size,)."""
        return np.datetime64(self.start, "D") + np.arange(self.size) * self.step_days * DAY

    def steps(self, weeks: float) -> int:
        """How many steps make `weeks` weeks, at least one."""
        return max(round(weeks * 7 / self.step_days), 1)

    def sql_index(self, moment: str) -> str:
        """SQL for the index of the first as-of strictly after a timestamp; facts before the grid count at 0."""
        days = f"CAST({moment} AS DATE) - DATE '{self.start}'"
        index = f"greatest({days} + {self.step_days}, 0) // {self.step_days}"
        return f"CASE WHEN {moment} IS NULL THEN NULL ELSE CAST({index} AS INTEGER) END"

    def sql_index_of_day(self, day: str) -> str:
        """SQL for the index of the first as-of on or after a day."""
        index = f"ceil((CAST({day} AS DATE) - DATE '{self.start}') / {float(self.step_days)})"
        return f"CASE WHEN {day} IS NULL THEN NULL ELSE CAST(greatest({index}, 0) AS INTEGER) END"


YEARS = range(1990, 2061)  # one span for every run: a calendar cut at the run's own dates would differ between runs


@cache
def holiday_dates(country: str) -> np.ndarray:
    """Public holidays of a country (ISO code) as sorted datetime64[D]; none for an empty or unknown code."""
    if not country:
        return np.array([], "datetime64[D]")
    try:
        found = holidays.country_holidays(country, years=YEARS)
    except NotImplementedError:
        return np.array([], "datetime64[D]")
    return np.array(sorted(found), "datetime64[D]")


def working_days(begin: np.ndarray, end: np.ndarray, closed: np.ndarray) -> np.ndarray:
    """Working days in [begin, end), Monday to Friday without `closed`; negative when end lies before begin."""
    return np.busday_count(begin.astype("datetime64[D]"), end.astype("datetime64[D]"), holidays=closed)


def closed_days(begin: np.ndarray, end: np.ndarray, closed: np.ndarray) -> np.ndarray:
    """Holidays in [begin, end), whatever their weekday."""
    return np.searchsorted(closed, end) - np.searchsorted(closed, begin)
