"""Say numbers, days and names on the board in one way; js/wording.js says the same of the same rows."""

import math
import re
from datetime import date

from models.watchlist import MANY_DAYS

SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£", "JPY": "¥", "INR": "₹", "KRW": "₩"}
SCALES = ((10**9, "bn", 2), (10**6, "M", 2), (10**3, "k", 1), (1, "", 0))
KINDS = {"late": "Late delivery", "overdue": "Already late", "surge": "Demand surge", "drop": "Demand drop"}
LEVELS = {"high": "High", "medium": "Medium", "low": "Low", "past": "Late"}
SHAPES = {"high": "◆", "medium": "▲", "low": "●", "past": "■"}
WATCH = ("Watch", "Not on this week's list")
PAST = ("Too late to prevent", "Chase the delivery; plan with the likely date")
RULES = {
    "bucket_x_supplier_odds": "the rate by days to the promise and supplier",
    "climatology": "the usual rate",
    "days_to_promise": "the rate by days to the promise",
    "days_to_promise_age": "the rate by days to the promise and age of the order",
    "last_outcome": "what came of the last order",
    "last_z": "what demand did last time",
    "logistic_6": "a simple formula of six facts",
    "pushed_before": "whether the promise moved before",
    "seasonal_naive": "the same weeks of last year",
    "series_climatology": "the usual rate of the product",
    "site_supplier_52w": "the supplier's rate at the site in a year",
    "supplier_52w": "the supplier's rate in a year",
    "tracking_signal": "the running error of the forecast",
}
_RULE = re.compile(r"\b(" + "|".join(sorted(RULES, key=len, reverse=True)) + r")\b")


def symbol(currency: str) -> str:
    """Return what stands before an amount: € for EUR, the code and a space for a currency without a sign of its own."""
    return SYMBOLS.get(currency, f"{currency}\N{NO-BREAK SPACE}")


def money(cents: int, sign: str) -> str:
    """Return an amount in about three figures: €940, €9.9k, €136k, €7.30M."""
    amount = abs(cents) / 100
    unit, letter, most = next((u, n, m) for u, n, m in SCALES if amount >= 0.9995 * u or u == 1)
    places = most
    while places and _rounded(amount / unit, places) >= 10 ** (most - places + 1):
        places -= 1
    return f"{'−' if cents < 0 else ''}{sign}{_rounded(amount / unit, places):.{places}f}{letter}"


def exact(cents: int, sign: str) -> str:
    """Return an amount to the cent."""
    return f"{'−' if cents < 0 else ''}{sign}{abs(cents) // 100:,}.{abs(cents) % 100:02d}"


def _rounded(amount: float, places: int) -> float:
    return math.floor(amount * 10**places + 0.5) / 10**places


def share(basis_points: int) -> str:
    """Return a probability of so many hundredths of a percent; never 0 % or 100 % where it is not quite."""
    if 0 < basis_points < 50:
        return "<1%"
    if 9950 < basis_points < 10000:
        return ">99%"
    return f"{percent(basis_points)}%"


def percent(basis_points: int) -> int:
    return math.floor(basis_points / 100 + 0.5)


def units(count: int) -> str:
    return f"{'−' if count < 0 else ''}{abs(count):,}"


def day(value: date, as_of: date) -> str:
    return f"{value.day} {value:%b}" + ("" if value.year == as_of.year else f" {value.year}")


def long_day(value: date) -> str:
    return f"{value:%a} {value.day} {value:%B %Y}"


def plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def delay_impact(low: int | None, mid: int | None, high: int | None) -> tuple[str, str]:
    """Return how late a delivery is likely to come, and from when to when in eight cases of ten."""
    if mid is None:
        return "Date open", "too far ahead to tell"
    big = "on time" if mid == 0 else f"{_days(abs(mid))} {'late' if mid > 0 else 'early'}"
    if low is None or high is None:
        return big, ""
    if low < 0 < high:
        return big, f"likely {_many(-low)} early to {_many(high)} late"
    if high <= 0 and low < 0:
        return big, f"likely {_many(-low)} early to {'on time' if high == 0 else f'{_many(-high)} early'}"
    if low > MANY_DAYS:
        return big, "likely months late"
    return big, f"likely {low} to {_many(high)}" if low < high else f"likely {_many(high)}"


def _days(count: int) -> str:
    return f"{_many(count)} {'day' if count == 1 else 'days'}"


def _many(count: int) -> str:
    return f"over {MANY_DAYS}" if count > MANY_DAYS else str(count)


def shift_impact(low: int, mid: int, high: int, usual: int) -> tuple[str, str, str]:
    """Return the units that are expected, their likely range, and what is usual."""
    return f"{units(mid)} unit{'s' * (mid != 1)}", f"likely {units(low)} to {units(high)}", f"usually {units(usual)}"


def readable(text: str) -> str:
    """Return published words without the underscores of column names."""
    return text.replace("_", " ")


def speaker(published_by: str) -> str:
    """Return who gave a probability, rules by what they look at."""
    return _RULE.sub(lambda found: RULES[found[1]], published_by)


def no_why(kind: str, published_by: str) -> str:
    """Say why a row has no reasons."""
    if kind == "overdue":
        return "The promised day has passed"
    if published_by.startswith("model"):
        return "Not among the rows explained"
    return f"By a simple rule: {published_by}"


def whole(number: float) -> int:
    """Round halves up, as the page's script does."""
    return math.floor(number + 0.5)


def cap(text: str) -> str:
    return text[:1].upper() + text[1:]
