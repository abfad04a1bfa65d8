"""What is known ahead of a week, a promotion or a price, and what it has done to demand so far."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bottleneck as bn
import duckdb
import numpy as np
import pandas as pd

from features.core import ratio
from features.exact import NOBODY, Others, as_numbers, exact_sums, group_totals
from features.noise import Groups
from features.signals import KEYS, Series, match
from features.weeks import Grid

SPREADS = (1.0, 0.5, 0.1)  # prior deviation of an effect per usual change: category from none, product, series
FILTER = 13  # weeks whose mean a week is held against while effects are learnt
REFIT = 4  # weeks between two fits
MOST = 3.0  # logs; a week's effect beyond it is not believed
SETTLED = 8  # weeks a signal's scopes must have been known for, on average, before it can be a price
PRICED = 0.5  # share of weeks with a value from which a positive signal is a price, which stands until changed


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """One calendar signal: vintages sorted by scope, week, period and moment, and where each series reads them.

    `week` counts from the grid's start (week w begins at as-of number w), `step` is the first as-of at which the
    vintage is known. `places` [shape, series] is the scope that names a series, general shapes first, −1 for none.
    """

    name: str
    scope: np.ndarray
    week: np.ndarray
    period: np.ndarray
    step: np.ndarray
    value: np.ndarray
    places: np.ndarray
    scopes: int
    size: int

    def weeks(self, ahead: int) -> Iterator[np.ndarray]:
        """Yield [as_of, series], as known then, the week just ended and each of `ahead` weeks after it.

        A signal is a price while its values are all positive and there for most weeks: then its logarithm, which
        stands until the next value, missing before the first. Else it is an event, 0 in weeks without one.
        """
        priced, undecided = (x[:, None] for x in self._priced())
        standing = np.full((self.size, self.places.shape[1]), np.nan)
        for a in range(ahead + 1):
            told = self._told(a)
            before = bn.push(told, axis=0) if a == 0 else standing
            standing = np.where(np.isnan(told), before, told)
            logs = np.log(np.where(standing > 0, standing, 1.0))
            price = np.where(np.isnan(standing) | undecided, np.nan, logs)
            yield np.where(priced | undecided, price, np.nan_to_num(told))

    def _told(self, a: int) -> np.ndarray:
        """Value [as_of, series] of the a-th week from the as-of, of the most specific scope that has one."""
        row = self.week + 1 - a  # the as-of from which that week is the a-th
        there = np.flatnonzero((row >= np.maximum(self.step, 0)) & (row < self.size))
        key = (self.scope[there], self.week[there], self.period[there])
        last = np.ones(len(there), bool)
        last[:-1] = np.any([x[1:] != x[:-1] for x in key], axis=0)
        mine = there[last]
        total, count = np.zeros((2, self.size, self.scopes + 1))
        np.add.at(total, (row[mine], self.scope[mine]), self.value[mine])
        np.add.at(count, (row[mine], self.scope[mine]), 1)
        cells = ratio(total, count)
        out = np.full((self.size, self.places.shape[1]), np.nan)
        for place in self.places:
            own = cells[:, place]
            out = np.where(np.isnan(own), out, own)
        return out

    def _priced(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether the signal reads as a price at each as-of: nothing but positive, in most weeks since it began.

        In its first weeks a promotion may look like one: what is positive and in most weeks is undecided until then.
        """
        known = np.clip(np.maximum(self.step, self.week + 1), 0, self.size)
        told = pd.DataFrame({"scope": self.scope, "week": self.week, "known": known})
        lowest = np.full(self.size + 1, np.inf)
        np.minimum.at(lowest, known, self.value)
        first = (told.groupby(keys)["known"].min().to_numpy() for keys in (["scope", "week"], ["scope"]))
        filled, begun = (np.cumsum(np.bincount(row, minlength=self.size + 1)) for row in first)
        weeks = np.cumsum(begun)  # of all scopes, since each began
        likely = (np.minimum.accumulate(lowest) > 0) & (ratio(filled, weeks) >= PRICED)
        settled = ratio(weeks, begun) >= SETTLED
        return (likely & settled)[: self.size], (likely & ~settled)[: self.size]


def together(events: Sequence[Event], ahead: int) -> Iterator[np.ndarray]:
    """Yield [as_of, series, event] of the week just ended and of each of `ahead` weeks after it."""
    for week in zip(*(event.weeks(ahead) for event in events), strict=True):
        yield np.stack(week, axis=2)


def events(con: duckdb.DuckDBPyConnection, grid: Grid, series: pd.DataFrame, others: Others = NOBODY) -> list[Event]:
    """Return every calendar signal that names a series, here or elsewhere."""
    keys = {kind: [c for c in of if c in series] for kind, of in (KEYS | {"region": ("region",)}).items()}
    found = con.execute("SELECT DISTINCT signal FROM signals WHERE kind = 'calendar' ORDER BY 1").fetchall()
    told = [_event(con, name, grid, series, keys) for (name,) in found]
    if not told:
        return []
    named = others.told("named", lambda: {"named": np.array([len(event.places) for event in told], int)})["named"]
    return [event for event, places in zip(told, named, strict=True) if places]


def _event(
    con: duckdb.DuckDBPyConnection, name: str, grid: Grid, series: pd.DataFrame, keys: Mapping[str, Sequence[str]]
) -> Event:
    week = f"CAST(floor((observed_on - DATE '{grid.start}') / 7.0) AS INTEGER)"
    found = con.execute(
        f"""SELECT scope, {week} AS week, observed_on, {grid.sql_index("known_at")} AS step, value FROM signals
            WHERE signal = ? AND kind = 'calendar' AND {week} < {grid.size + 104}
            ORDER BY scope, observed_on, known_at""",
        [name],
    ).df()
    scopes = sorted(found["scope"].unique())
    return Event(
        name, pd.Index(scopes).get_indexer(found["scope"]), found["week"].to_numpy(int),
        found["observed_on"].to_numpy().astype("datetime64[D]").astype(np.int64), found["step"].to_numpy(int),
        found["value"].to_numpy(float), _places(scopes, series, keys), len(scopes), grid.size,
    )  # fmt: skip


def _places(scopes: Sequence[str], series: pd.DataFrame, keys: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Return [shape, series] the number of the scope of each shape that names a series, general shapes first."""
    shapes: dict[tuple[str, ...], list[str]] = {}
    for scope in scopes:
        kinds = () if scope == "*" else tuple(sorted(part.partition(":")[0] for part in scope.split("&")))
        shapes.setdefault(kinds, []).append(scope)
    rows, number = series.assign(step=0), {scope: n for n, scope in enumerate(scopes)}
    out = []
    for kinds in sorted(shapes, key=lambda kinds: (len(kinds), kinds)):
        if all(keys.get(kind) for kind in kinds):
            mine = shapes[kinds]
            found = match(Series("", mine, np.zeros(len(mine), int)), rows, keys)
            numbers = np.array([*(number[scope] for scope in mine), len(scopes)])
            if (found >= 0).any():
                out.append(numbers[found])
    return np.array(out, int).reshape(len(out), len(series))


# Effects ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """How events move a series' weekly demand: log-linear effects as learnt by each as-of.

    Arrays [as_of, series, event]: `beta` per unit of an event, `past` what the week just ended had, `usual` the mean
    of a year of it.
    """

    beta: np.ndarray
    past: np.ndarray
    usual: np.ndarray

    def of_past(self, row: int, weeks: int) -> np.ndarray:
        """Log effect [week, series], as learnt by as-of `row`, of the last `weeks` weeks, against their usual."""
        gap = np.nan_to_num(self.past[max(row - weeks + 1, 0) : row + 1] - self.usual[row])
        return np.clip(np.einsum("wse,se->ws", gap, self.beta[row]), -MOST, MOST)

    def of(self, week: np.ndarray) -> np.ndarray:
        """Log effect [as_of, series] of what is known at each as-of of one week ahead, against the usual."""
        gap = np.nan_to_num(week - self.usual)
        return np.clip(np.einsum("tse,tse->ts", gap, self.beta), -MOST, MOST)


def learn_effects(
    units: np.ndarray, past: np.ndarray, groups: Groups, regular: np.ndarray, others: Others = NOBODY
) -> np.ndarray:
    """Return beta [as_of, series, event]: what a unit of each event adds to the log of a week's demand.

    Ridge regressions on weeks of `regular` demand, each held against its series' FILTER weeks before: the category's
    effects lean on none, a product's on its category's, a series' on its product's. Refitted every REFIT weeks on all
    weeks up to then, and constant in between.
    """
    moves = _moves(units, past)  # a week's log units first, then its events
    use = regular & ~np.isnan(moves).any(axis=2)
    y, x = _against_others(moves, use, others)
    xx, xy, yy = _upto_refits(y, x)
    seen = np.cumsum(use.sum(axis=1))[::REFIT]
    told = others.told("effects", lambda: {
        "seen": seen,
        "yy": exact_sums(yy, np.zeros(len(groups.category), int), 1),
        "xx": _of_groups(xx, groups.category, groups.categories),
        "xy": _of_groups(xy, groups.category, groups.categories),
    })  # fmt: skip
    noise = as_numbers(told["yy"])[:, 0] / np.maximum(told["seen"], 1)
    of_category = [_as_groups(told[name], like) for name, like in (("xx", xx), ("xy", xy))]
    beta = np.zeros((len(seen), *x.shape[1:]))
    for r in np.flatnonzero(told["seen"]):
        mine = (xx[r], xy[r]), (of_category[0][r], of_category[1][r])
        beta[r] = _pooled(*mine, noise[r], told["seen"][r], groups)
    return np.repeat(beta, REFIT, axis=0)[: len(units)]


def _moves(units: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Return a week's log units and events [as_of, series, 1 + event], less the mean of the FILTER weeks before it."""
    usual = bn.move_mean(units, window=min(26, len(units)), min_count=1, axis=0)
    begun = np.maximum.accumulate(units > 0, axis=0)  # before its first demand a series moved nowhere
    logs = np.where(begun, np.log(units + 0.03 * usual + 1e-9), np.nan)
    events = (_less_mean(past[..., e]) for e in range(past.shape[2]))
    return np.stack([np.clip(_less_mean(logs), -2.5, 2.5), *events], axis=2)


def _against_others(moves: np.ndarray, use: np.ndarray, others: Others) -> tuple[np.ndarray, np.ndarray]:
    """Return log units and events less their mean over all series of the week, 0 where not used.

    What all of them share in a week, a holiday or the weather, cannot be told from that week's own accident.
    """
    kept = np.where(use[..., None], moves, 0.0)
    everyone = np.zeros(use.shape[1], int)
    told = others.told("moves", lambda: {
        "count": use.sum(axis=1),
        "moves": np.stack([exact_sums(kept[..., e], everyone, 1)[..., 0] for e in range(kept.shape[2])], axis=2),
    })  # fmt: skip
    count = told["count"][:, None]
    mean = np.where(count > 1, as_numbers(told["moves"]) / np.maximum(count, 1), 0.0)
    held = np.where(use[..., None], kept - mean[:, None], 0.0)
    return held[..., 0], held[..., 1:]


def _less_mean(x: np.ndarray) -> np.ndarray:
    out = np.full(x.shape, np.nan)
    if len(x) > FILTER:
        out[1:] = x[1:] - bn.move_mean(x, window=FILTER, min_count=8, axis=0)[:-1]
    return out


def _upto_refits(y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sums of xxᵀ [refit, series, event, event], xy [refit, series, event] and y² [refit, series] up to then."""
    weeks, series, n = x.shape
    refits = len(range(0, weeks, REFIT))
    out = np.empty((refits, series, n, n)), np.empty((refits, series, n)), np.empty((refits, series))
    xx, xy, yy = np.zeros((series, n, n)), np.zeros((series, n)), np.zeros(series)
    for t in range(weeks):
        xx += x[t][:, :, None] * x[t][:, None, :]
        xy += x[t] * y[t][:, None]
        yy += y[t] ** 2
        if t % REFIT == 0:
            for kept, now in zip(out, (xx, xy, yy), strict=True):
                kept[t // REFIT] = now
    return out


def _of_groups(x: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Return the exact sums [quantum, refit × event …, group] of x [refit, series, event …]."""
    flat = np.moveaxis(x, 1, -1).reshape(len(x) * math.prod(x.shape[2:]), x.shape[1])
    return exact_sums(flat, group, groups)


def _as_groups(sums: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return such sums as [refit, group, event …]."""
    return np.moveaxis(as_numbers(sums).reshape(len(like), *like.shape[2:], sums.shape[-1]), -1, 1)


def _pooled(
    mine: tuple[np.ndarray, np.ndarray], of_category: tuple[np.ndarray, np.ndarray], noise: float, seen: int,
    groups: Groups,
) -> np.ndarray:  # fmt: skip
    """Return each series' effects, shrunk to its product's, those to their category's and those to none.

    `mine` and `of_category` are the sums of xxᵀ and xy of each series and of each category.
    """
    unit = np.sqrt(np.maximum(np.einsum("cee->e", of_category[0]) / seen, 1e-12))  # a usual change of each event
    of_product = tuple(
        group_totals(x.reshape(len(x), math.prod(x.shape[1:])).T, groups.product).T.reshape(x.shape) for x in mine
    )
    levels: tuple[tuple[Any, Any], ...] = (
        (of_category, groups.category),
        (of_product, slice(None)),
        (mine, slice(None)),
    )
    prior = np.zeros(of_category[1].shape)
    for ((xx, xy), members), spread in zip(levels, SPREADS, strict=True):
        ridge = max(noise, 1e-3) / spread**2
        lean = xx / np.outer(unit, unit) + ridge * np.eye(len(unit))
        prior = np.linalg.solve(lean, (xy / unit + ridge * prior)[..., None])[..., 0][members]
    return prior / unit
