"""Say in words why a row scored as it did: its strongest families of features, each with its direction."""

import calendar
import string
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from features.core import Feature

DRIVERS = 3
RAISES, LOWERS = "▲", "▼"


def number(value: float, digits: int = 0) -> str:
    return f"{round(value, digits) + 0.0:,.{digits}f}"  # −0.0 + 0.0 is 0.0


def share(value: float) -> str:
    return f"{number(100 * value)} %"


def plain(value: float) -> str:
    """Return a number without a unit: one digit where it is small, of a tiny one the first that counts."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 0.095 else 2 if size >= 0.0095 else 3
    return number(value, 0 if round(value, digits) == round(value) else digits)


def times(value: float) -> str:
    """Return a ratio, finer near 1, where one digit would say nothing."""
    return f"{number(value, 0 if abs(value) >= 10 else 2 if 0.005 <= abs(value - 1) < 0.095 else 1)} ×"


def amount(value: float) -> str:
    """Return money in three figures, below a hundred with its cents."""
    if abs(value) < 100:
        return number(value, 2)
    return number(round(value, 2 - int(np.log10(abs(value)))))


def counted(value: float, word: str) -> str:
    """Return "3 days", "1 day", "0.4 days"; one digit only where it tells something."""
    text = number(value, 1 if abs(value) < 10 and abs(value - round(value)) >= 0.05 else 0)
    return f"{text} {word if text in ('1', '-1') else word + 's'}"


def signed(value: float, more: str, less: str, unit: str = "day") -> str:
    return f"{counted(abs(value), unit)} {more if value > 0 else less}"


UNITS: Mapping[str, Callable[[float], str]] = {
    "share": share,
    "on-time share": lambda v: share(1 - v),
    "ratio": times,
    "days": lambda v: counted(v, "day"),
    "weeks": lambda v: counted(v, "week"),
    "lines": lambda v: counted(v, "line"),
    "products": lambda v: counted(v, "product"),
    "money": amount,
    "money per unit": amount,
    "standard deviations": lambda v: number(v, 1),
}
MONEY = ("money", "money per unit")
FORMS: Mapping[str, Callable[[float], str]] = {
    "outcome": lambda v: "late" if v >= 0.5 else "on time",
    "shorter": lambda v: signed(v, "longer", "shorter"),
    "earlier": lambda v: signed(v, "earlier", "later"),
    "after": lambda v: signed(v, "after", "before") if round(v) else "on",
    "before": lambda v: signed(v, "before", "after") if round(v) else "on",
    "in": lambda v: (f"in {counted(v, 'day')}" if v > 0 else f"{counted(-v, 'day')} ago") if round(v) else "today",
    "ahead": lambda v: f"in {counted(v, 'week')}" if round(v) else "this week",
    "date": lambda v: f"{np.datetime64(round(v), 'D')}",
    "more": lambda v: signed(v, "more", "less"),
    "moved": lambda v: (
        f"{'pushed back' if v > 0 else 'pulled in'} by {counted(abs(v), 'day')}" if round(v) else "not moved"
    ),
    "rose": lambda v: "did not move" if plain(v) == "0" else f"{'rose' if v > 0 else 'fell'} by {plain(abs(v))}",
    "grew": lambda v: f"{'rose' if v >= 0 else 'fell'} by {share(abs(v))}",
    "higher": lambda v: f"{plain(abs(v))} {'higher' if v > 0 else 'lower'}",
    "rate": lambda v: f"{plain(100 * v)} %",
    "promises": lambda v: f"{plain(v)} {'promise' if plain(v) == '1' else 'promises'}",
    "points": lambda v: counted(100 * v, "percentage point"),
    "gap": lambda v: signed(100 * v, "above", "below", "percentage point"),
    "to two years": lambda v: "two years or more" if v >= 104 else counted(v, "week"),
    "times": lambda v: "once" if round(v) == 1 else f"{v:.0f} times",
    "weekday": lambda v: calendar.day_name[int(v) % 7],
    "hour": lambda v: f"{int(v) % 24}:00",
    "month": lambda v: calendar.month_name[int(v) if 1 <= v <= 12 else 1],
    "working": lambda v: counted(v, "working day"),
    "holidays": lambda v: counted(v, "public holiday"),
    "z": lambda v: signed(v, "above", "below", "usual swing"),
}


@cache
def _pieces(say: str) -> tuple[tuple[str, str | None, str | None], ...]:
    """Return a sentence as words, each with the field after them and its form: parsed once, told a thousand times."""
    return tuple((words, field, form) for words, field, form, _ in string.Formatter().parse(say))


def _told(value: Any, unit: str, form: str | None, currency: str) -> str:
    """Return `{value}` by the feature's unit and `{value:form}` by a named form; text is told as it is."""
    if isinstance(value, str):
        return value
    if form and form in FORMS:
        return FORMS[form](value)
    return f"{currency} " * (unit in MONEY and currency != "") + UNITS.get(unit, plain)(value)


def tell(feature: Feature, value: Any, usual: float, currency: str = "") -> str:
    """Return the value in a planner's words, next to what is usual; that is left out where it is not known."""
    return _sentence(feature, usual, currency)(value)


def _sentence(feature: Feature, usual: float, currency: str) -> Callable[[Any], str]:
    """Return what tells a value of the feature: the words around it, what is usual among them, are made once."""
    say = feature.say or f"{feature.name} {{value}}"
    alone, *known = say.split(", usually")
    if not isinstance(usual, str) and np.isnan(usual):
        return _filled(feature, alone, usual, currency)
    whole = _filled(feature, say, usual, currency)
    if not known:
        return whole
    as_usual = _filled(feature, f"{alone}, as usual", usual, currency)
    form = next((form for _, field, form in _pieces(say) if field == "usual"), None)
    words = _told(usual, feature.unit, form, currency)
    return lambda value: (as_usual if _told(value, feature.unit, form, currency) == words else whole)(value)


def _filled(feature: Feature, say: str, usual: float, currency: str) -> Callable[[Any], str]:
    """Return what fills a value into `say`, where what is usual stands already."""
    parts, words = [""], []  # the words before, between and after the values
    for text, field, form in _pieces(say):
        parts[-1] += text
        if field == "usual":
            parts[-1] += _told(usual, feature.unit, form, currency)
        elif field:
            parts.append("")
            words.append(form)

    def told(value: Any) -> str:
        each = (
            _told(value, feature.unit, form, currency) + after for form, after in zip(words, parts[1:], strict=True)
        )
        return parts[0] + "".join(each)

    return told


def drivers(
    contributions: np.ndarray,
    X: pd.DataFrame,
    features: Sequence[Feature],
    usual: pd.Series,
    *,
    top: int = DRIVERS,
    currency: str = "",
) -> pd.DataFrame:
    """Return driver_1 … driver_n in words for every row, strongest first, "" where there are fewer.

    `contributions` [row, feature] add up to the raw score (SHAP). Members of a family are added, and the family is told
    through its strongest member that has a value; a family that says nothing is passed over.
    """
    families = [f.family or f.name for f in features]
    missing = X[[f.name for f in features]].isna().to_numpy()
    told_by, weight = _tellers(contributions, missing, families)
    order = np.argsort(-np.abs(weight), axis=1, kind="stable")[:, :top]
    out = np.full((len(X), top), "", dtype=object)
    added = np.take_along_axis(weight, order, axis=1)
    teller = np.where(added, np.take_along_axis(told_by, order, axis=1), -1)
    by_teller = np.argsort(teller, axis=None, kind="stable")
    edges = np.searchsorted(teller.ravel()[by_teller], np.arange(len(features) + 1))
    for feature, begin, end in zip(features, edges, edges[1:], strict=False):
        if begin < end:
            mine = by_teller[begin:end]
            say = _sentence(feature, usual.get(feature.name, np.nan), currency)
            row, nth = np.divmod(mine, order.shape[1])
            out[row, nth] = _arrows(added[row, nth]) + _each(say, X[feature.name].to_numpy()[row])
    return pd.DataFrame(out, columns=[f"driver_{n + 1}" for n in range(top)], index=X.index)


def _arrows(added: np.ndarray) -> np.ndarray:
    return np.where(added > 0, RAISES + " ", LOWERS + " ").astype(object)


def _each(say: Callable[[Any], str], values: np.ndarray) -> np.ndarray:
    """Return what is said of every value; the same value is told once."""
    different, place = np.unique(values, return_inverse=True)
    return np.array([say(value) for value in different], object)[place]


def _tellers(contributions: np.ndarray, missing: np.ndarray, families: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return which feature tells each row's family [row, family], and what the family adds, 0 where nothing tells it.

    It is the strongest of those members that have a value and pull as the family does.
    """
    kinds = sorted(set(families))
    told_by = np.zeros((len(contributions), len(kinds)), np.int64)
    weight = np.zeros(told_by.shape)
    for k, kind in enumerate(kinds):
        members = np.flatnonzero([family == kind for family in families])
        own = contributions[:, members]
        total = own.sum(axis=1)
        pull = np.where(missing[:, members], 0.0, own * np.sign(total)[:, None])
        best = pull.argmax(axis=1)
        told_by[:, k] = members[best]
        tells = (np.take_along_axis(pull, best[:, None], axis=1)[:, 0] > 0) & (np.abs(total) >= 1e-6)
        weight[:, k] = np.where(tells, total, 0.0)
    return told_by, weight


def families(
    contributions: np.ndarray, X: pd.DataFrame, features: Sequence[Feature], usual: pd.Series, currency: str = ""
) -> list[dict[str, Any]]:
    """Return every family of one row, strongest first: what it adds to the log-odds, its words, and its members.

    `contributions` [feature] are of the one row X. The words are those of the strongest member that pulls as the family
    does, "" where it has no value to tell.
    """
    kinds: dict[str, list[int]] = {}
    for k, feature in enumerate(features):
        kinds.setdefault(feature.family or feature.name, []).append(k)
    out = []
    for kind, members in kinds.items():
        total = float(contributions[members].sum())
        mine = sorted(members, key=lambda k: (-contributions[k] * np.sign(total), k))
        teller = next(
            (k for k in mine if contributions[k] * total > 0 and not pd.isna(X[features[k].name].iloc[0])), None
        )
        words = ""
        if teller is not None:
            name = features[teller].name
            words = tell(features[teller], X[name].iloc[0], usual.get(name, np.nan), currency)
        out.append({"family": kind, "contribution": total, "words": words, "inputs": [features[k].name for k in mine]})
    return sorted(out, key=lambda f: (-abs(f["contribution"]), f["family"]))
