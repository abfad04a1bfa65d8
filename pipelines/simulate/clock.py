"""Count simulated time in days and weeks, and know which of them are working days where."""

from dataclasses import dataclass
from datetime import date
from functools import cache

import holidays
import numpy as np
from numpy.typing import NDArray

DAY_US = 86_400_000_000
DAY, MONTH = np.timedelta64(1, "D"), np.timedelta64(1, "M")
WARM_UP_WEEKS = 26  # simulated before the first fact is written, so that stock, queues and forecasts have settled
AFTER_WEEKS = 40  # simulated after the end, for the truth alone
NEVER = 1_000_000  # a day index later than every simulated day


@dataclass(frozen=True, slots=True)
class Clock:
    """The time axis: day 0 is a Monday, week w is the days 7w … 7w+6, facts known before `end_day` are written."""

    day_zero: date
    history_weeks: int
    end_day: int

    @property
    def start_week(self) -> int:
        return WARM_UP_WEEKS

    @property
    def end_week(self) -> int:
        """The week the first unknown day lies in."""
        return self.end_day // 7

    @property
    def weeks(self) -> int:
        return self.end_week + AFTER_WEEKS

    @property
    def days(self) -> int:
        return 7 * self.weeks

    @property
    def epoch_days(self) -> int:
        return (self.day_zero - date(1970, 1, 1)).days

    def year_share(self) -> NDArray[np.float64]:
        """Return the position of every week in its year, in [0, 1)."""
        thursdays = np.datetime64(self.day_zero) + (7 * np.arange(self.weeks) + 3) * DAY
        years = thursdays.astype("datetime64[Y]")
        return (thursdays - years.astype("datetime64[D]")).astype(float) / 366.0

    def years(self) -> range:
        last = np.datetime64(self.day_zero) + self.days * DAY
        return range(self.day_zero.year, int(str(last)[:4]) + 1)

    def index(self, day: date) -> int:
        return (day - self.day_zero).days


def clock_until(end: date, history_weeks: int) -> Clock:
    monday = end.toordinal() - end.weekday() - 7 * (WARM_UP_WEEKS + history_weeks)
    return Clock(date.fromordinal(monday), history_weeks, end.toordinal() - monday)


def holiday_days(clock: Clock, country: str) -> NDArray[np.bool_]:
    """Return for every day whether it is a public holiday in this country."""
    closed = np.zeros(clock.days, bool)
    for day in _holidays(country, clock.years()):
        if 0 <= clock.index(day) < clock.days:
            closed[clock.index(day)] = True
    return closed


def open_days(clock: Clock, country: str) -> NDArray[np.bool_]:
    """Return for every day whether people work: no weekends, holidays or long closures (New Year in Asia, August)."""
    weekday = np.arange(clock.days) % 7
    return (weekday < 5) & ~holiday_days(clock, country) & ~_long_closure(clock, country)


def _long_closure(clock: Clock, country: str) -> NDArray[np.bool_]:
    closed = np.zeros(clock.days, bool)
    for day, name in _holidays(country, clock.years()).items():
        if country in ("CN", "VN", "TW") and "Lunar New Year" in name.replace("Chinese", "Lunar") and "Eve" not in name:
            start = clock.index(day)
            closed[max(start - 4, 0) : max(start + 9, 0)] = True
    if country in ("IT", "ES"):
        for year in clock.years():
            start = clock.index(date(year, 8, 8))
            closed[max(start, 0) : max(start + 16, 0)] = True
    return closed


@cache
def _holidays(country: str, years: range) -> dict[date, str]:
    language = "en_US" if country in ("CN", "VN", "TW") else None
    return dict(holidays.country_holidays(country, years=years, language=language))


class Running:
    """A running sum per row and day that never falls, and can be asked when it first reaches a level."""

    def __init__(self, daily: NDArray):
        self.total = np.cumsum(daily, axis=1)
        self.step = float(np.ceil(self.total.max())) + 2  # lays rows end to end, so that one search serves them all
        self.flat = (self.total + self.step * np.arange(len(self.total))[:, None]).ravel()

    def __getitem__(self, where: tuple) -> NDArray:
        return self.total[where]

    def first_reaching(self, row: NDArray, target: NDArray) -> NDArray[np.int64]:
        """Return per row the first day with total ≥ target, NEVER if there is none."""
        reachable = target <= self.total[row, -1]
        found = np.searchsorted(self.flat, self.step * row + np.where(reachable, target, 0.0))
        return np.where(reachable, found - row * self.total.shape[1], NEVER)
