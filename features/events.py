"""What is known ahead of a week, a promotion or a price, and what it has done to demand so far."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import bottleneck as bn
import duckdb
import numpy as np
import pandas as pd

from features.core import group_sum, ratio
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


def events(con: duckdb.DuckDBPyConnection, grid: Grid, series: pd.DataFrame) -> list[Event]:
    """Return every calendar signal that names a series."""
    keys = {kind: [c for c in of if c in series] for kind, of in (KEYS | {"region": ("region",)}).items()}
    found = con.execute("SELECT DISTINCT signal FROM signals WHERE kind = 'calendar' ORDER BY 1").fetchall()
    told = (_event(con, name, grid, series, keys) for (name,) in found)
    return [event for event in told if event is not None]


def _event(
    con: duckdb.DuckDBPyConnection, name: str, grid: Grid, series: pd.DataFrame, keys: Mapping[str, Sequence[str]]
) -> Event | None:
    week = f"CAST(floor((observed_on - DATE '{grid.start}') / 7.0) AS INTEGER)"
    found = con.execute(
        f"""SELECT scope, {week} AS week, observed_on, {grid.sql_index("known_at")} AS step, value FROM signals
            WHERE signal = ? AND kind = 'calendar' AND {week} < {grid.size + 104}
            ORDER BY scope, observed_on, known_at""",
        [name],
    ).df()
    scopes = sorted(found["scope"].unique())
    places = _places(scopes, series, keys)
    if not len(places):
        return None
    return Event(
        name, pd.Index(scopes).get_indexer(found["scope"]), found["week"].to_numpy(int),
        found["observed_on"].to_numpy().astype("datetime64[D]").astype(np.int64), found["step"].to_numpy(int),
        found["value"].to_numpy(float), places, len(scopes), grid.size,
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
    units: np.ndarray, past: np.ndarray, product: np.ndarray, category: np.ndarray, regular: np.ndarray
) -> np.ndarray:
    """Return beta [as_of, series, event]: what a unit of each event adds to the log of a week's demand.

    Ridge regressions on weeks of `regular` demand, each held against its series' FILTER weeks before: the category's
    effects lean on none, a product's on its category's, a series' on its product's. Refitted every REFIT weeks on all
    weeks up to then, and constant in between.
    """
    y, x = _moves(units, past)
    use = regular & ~np.isnan(y) & ~np.isnan(x).any(axis=2)
    y, x = _against_others(y, use), np.stack([_against_others(e, use) for e in np.moveaxis(x, 2, 0)], axis=2)
    rows, series, n = x.shape
    beta = np.zeros_like(x)
    xx, xy, yy, seen = np.zeros((series, n, n)), np.zeros((series, n)), 0.0, 0.0
    now = np.zeros((series, n))
    for t in range(rows):
        xx += np.einsum("se,sf->sef", x[t], x[t])
        xy += x[t] * y[t][:, None]
        yy, seen = yy + (y[t] ** 2).sum(), seen + use[t].sum()
        if t % REFIT == 0 and seen:
            now = _pooled(xx, xy, yy / seen, seen, product, category)
        beta[t] = now
    return beta


def _moves(units: np.ndarray, past: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a week's log units and events, each less the mean of the FILTER weeks before it."""
    usual = bn.move_mean(units, window=min(26, len(units)), min_count=1, axis=0)
    begun = np.maximum.accumulate(units > 0, axis=0)  # before its first demand a series moved nowhere
    logs = np.where(begun, np.log(units + 0.03 * usual + 1e-9), np.nan)
    return np.clip(_less_mean(logs), -2.5, 2.5), np.stack(
        [_less_mean(past[..., e]) for e in range(past.shape[2])], axis=2
    )


def _against_others(x: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Return x less its mean over all series of the week, 0 where not used.

    What all of them share in a week, a holiday or the weather, cannot be told from that week's own accident.
    """
    kept = np.where(use, x, 0.0)
    count = use.sum(axis=1, keepdims=True)
    mean = np.where(count > 1, kept.sum(axis=1, keepdims=True) / np.maximum(count, 1), 0.0)
    return np.where(use, kept - mean, 0.0)


def _less_mean(x: np.ndarray) -> np.ndarray:
    out = np.full(x.shape, np.nan)
    if len(x) > FILTER:
        out[1:] = x[1:] - bn.move_mean(x, window=FILTER, min_count=8, axis=0)[:-1]
    return out


def _pooled(
    xx: np.ndarray, xy: np.ndarray, noise: float, seen: float, product: np.ndarray, category: np.ndarray
) -> np.ndarray:
    """Return each series' effects, shrunk to its product's, those to their category's and those to none."""
    unit = np.sqrt(np.maximum(np.einsum("see->e", xx) / seen, 1e-12))  # a usual change of each event
    xx, xy = xx / np.outer(unit, unit), xy / unit
    prior: np.ndarray = np.zeros(xy.shape)
    for group, spread in zip((category, product, None), SPREADS, strict=True):
        a, b = (xx, xy) if group is None else (_sums(xx, group), _sums(xy, group))
        ridge = max(noise, 1e-3) / spread**2
        lean = a + ridge * np.eye(xx.shape[1])
        prior = np.linalg.solve(lean, (b + ridge * prior)[..., None])[..., 0]
    return prior / unit


def _sums(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sum of each series' group [series, …]."""
    flat = x.reshape(len(x), -1).T
    return group_sum(flat, group)[:, group].T.reshape(x.shape)
