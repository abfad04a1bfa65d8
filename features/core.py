"""A feature is a named formula over a panel, or over the rows of a snapshot."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import bottleneck as bn
import numpy as np
import xarray as xr


@dataclass(frozen=True, slots=True)
class Feature:
    """One model input: its column name, its formula, its unit and its meaning.

    A panel formula sees dims (as_of, entity), oldest as-of first. The row at `as_of` holds only what was known
    before it, so a formula may use that row and earlier ones, never a negative shift. A row formula sees a table
    of snapshots and may use only columns of the same row. `say` is how a planner reads the value; features of
    one `family` tell one story, of which a row shows the strongest part.
    """

    name: str
    formula: Callable[[Any], Any]
    unit: str
    about: str
    say: str = ""
    family: str = ""

    def at(self, level: str, of: str) -> "Feature":
        """Return the same feature for another level, say `supplier_product`: prefixed name, meaning in words."""
        words = of.replace("{", "{{").replace("}", "}}")  # `say` is a format string, names from outside are not
        return replace(
            self,
            name=f"{level}_{self.name}",
            about=f"{of}: {self.about[0].lower()}{self.about[1:]}",
            say=f"{words}: {self.say}" if self.say else "",
            family=f"{level} {self.family or self.name}",
        )


def build(panel: xr.Dataset, features: Sequence[Feature]) -> xr.Dataset:
    """Return one variable per feature, each with the panel's dims."""
    return xr.Dataset({f.name: f.formula(panel) for f in features}, attrs=panel.attrs)


TILE = 1024  # entities worked on at a time: what a formula reads and writes then stays in the processor's cache


def by_tile(
    panel: xr.Dataset, features: Sequence[Feature], use: Callable[[slice, int, np.ndarray], None], *, threads: int = 1
) -> None:
    """Hand every feature's values [as_of, entity] to `use`, with the block of entities and the feature's number.

    A formula sees a block of entities at a time. Its values are the same as over the whole panel.
    """
    entities = panel.sizes["entity"]

    def work(first: int) -> None:
        block = slice(first, min(first + TILE, entities))
        tile = _tile(panel, block)
        for k, feature in enumerate(features):
            use(block, k, feature.formula(tile).values)

    if threads == 1 or entities <= TILE:
        for first in range(0, entities, TILE):
            work(first)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(0, entities, TILE)))


def fill(panel: xr.Dataset, features: Sequence[Feature], rows: slice = slice(None), *, threads: int = 1) -> np.ndarray:
    """Return float32 [feature, entity, as_of] of the as-of days `rows`."""
    size = len(range(*rows.indices(panel.sizes["as_of"])))
    out = np.empty((len(features), panel.sizes["entity"], size), np.float32)

    def use(block: slice, k: int, values: np.ndarray) -> None:
        out[k, block] = values[rows].T

    by_tile(panel, features, use, threads=threads)
    return out


def gather(
    panel: xr.Dataset, features: Sequence[Feature], steps: Sequence[np.ndarray], entity: np.ndarray, out: np.ndarray
) -> None:
    """Write into `out` [row, feature] each feature's value of the row's `entity` at the row's step.

    `steps` holds, per feature, the number of every row's as-of.
    """
    size, entities = panel.sizes["as_of"], panel.sizes["entity"]
    tile_of = (entity // TILE).astype(np.uint16 if entities < TILE << 16 else np.int64)  # short numbers sort fastest
    order = np.argsort(tile_of, kind="stable")
    edges = np.searchsorted(tile_of[order], np.arange(-(-entities // TILE) + 1))
    for number, first in enumerate(range(0, entities, TILE)):
        mine = order[edges[number] : edges[number + 1]]
        if not len(mine):
            continue
        tile = _tile(panel, slice(first, min(first + TILE, entities)))
        place = (entity[mine] - first) * size
        for same_steps in _runs(steps):
            _gather_tile(tile, features[same_steps], place + steps[same_steps.start][mine], mine, out[:, same_steps])


def _runs(steps: Sequence[np.ndarray]) -> Iterator[slice]:
    """Yield the stretches of features that are read at the same steps."""
    edges = [0, *(k for k in range(1, len(steps)) if steps[k] is not steps[k - 1]), len(steps)]
    yield from (slice(*edge) for edge in pairwise(edges))


def _gather_tile(
    tile: xr.Dataset, features: Sequence[Feature], place: np.ndarray, mine: np.ndarray, out: np.ndarray
) -> None:
    """Write the values at `place` (entity × days + day) into the rows `mine`: all features of a row at once if many."""
    shape = (tile.sizes["entity"], tile.sizes["as_of"])
    if 3 * len(mine) < shape[0] * shape[1]:
        for k, feature in enumerate(features):
            out[mine, k] = feature.formula(tile).values.T.ravel()[place]
        return
    cells = np.empty((*shape, len(features)), np.float32)
    for k, feature in enumerate(features):
        cells[..., k] = feature.formula(tile).values.T
    out[mine] = cells.reshape(-1, len(features))[place]


Total = tuple[np.ndarray, np.ndarray | None]  # a running total, and below what a difference of it is but a residue


class Totals:
    """Running totals of a tile's arrays, each worked out once and kept as long as the tile."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[np.ndarray, Total]] = {}
        self.begun: dict[int, tuple[np.ndarray, tuple[np.ndarray, int]]] = {}

    def of(self, x: np.ndarray) -> Total:
        """Return the running total of x."""
        if id(x) not in self.known:
            self.known[id(x)] = (x, _total(x))
        return self.known[id(x)][1]

    def seen(self, x: np.ndarray) -> tuple[np.ndarray, int]:
        """Return for how many steps x has not been all zero, and the row from which on that is so everywhere."""
        if id(x) not in self.begun:
            seen = steps_since_first(x)
            self.begun[id(x)] = (x, (seen, len(x) - int(seen[-1:].min(initial=len(x)))))
        return self.begun[id(x)][1]


def _tile(panel: xr.Dataset, block: slice) -> xr.Dataset:
    """Return a block of entities, the weeks of each one after the other in memory: formulas work along them."""
    attrs = {**panel.attrs, "totals": Totals()}
    cells = {str(name): np.asfortranarray(x.values[:, block]) for name, x in panel.variables.items()}
    return xr.Dataset({name: (("as_of", "entity"), x, attrs) for name, x in cells.items()}, attrs=attrs)


def names(features: Iterable[Feature]) -> list[str]:
    return [f.name for f in features]


def steps(panel: xr.DataArray, weeks: float) -> int:
    """Panel rows that make `weeks` weeks."""
    return max(round(weeks * 7 / panel.attrs["step_days"]), 1)


def over(x: xr.DataArray, values: np.ndarray) -> xr.DataArray:
    """Return `values` with the dims, coordinates and step of `x`."""
    return x.copy(deep=False, data=values)


def past_sum(x: xr.DataArray, weeks: float) -> xr.DataArray:
    """Sum of the last `weeks` weeks, the row's own included; shorter at the start of the panel.

    Differences of a float64 running total: exact for counts below 2^53, and zero where rounding leaves a residue.
    """
    return over(x, _differences(*_totals(x).of(x.values), steps(x, weeks)))


def past_mean(x: xr.DataArray, weeks: float) -> xr.DataArray:
    """Mean per step over the last `weeks` weeks, counted from the entity's first non-zero step at the earliest."""
    n, totals = steps(x, weeks), _totals(x)
    out = _differences(*totals.of(x.values), n)
    seen, since = totals.seen(x.values)
    whole = min(since + n - 1, len(out))  # from here on every entity has been seen for n steps
    with np.errstate(invalid="ignore"):  # 0/0 where nothing was seen yet
        np.divide(out[:whole], np.minimum(seen[:whole], n), out=out[:whole])
    out[whole:] /= n
    return over(x, out)


def _totals(x: xr.DataArray) -> Totals:
    kept = x.attrs.get("totals")
    return kept if isinstance(kept, Totals) else Totals()


def steps_since_first(x: np.ndarray) -> np.ndarray:
    """Return, per row and column, the number of rows since the first that is not zero, that one counted."""
    some = (x != 0).T
    first = np.where(some.any(axis=1), some.argmax(axis=1), len(x)).astype(float)
    return np.maximum(np.arange(1.0, len(x) + 1) - first[:, None], 0.0).T


def past(move: Callable[..., np.ndarray], x: xr.DataArray, weeks: float, at_least: int = 1) -> xr.DataArray:
    """Apply a bottleneck moving window (`move_max`, `move_std`, …) over the last `weeks` weeks."""
    n = min(steps(x, weeks), len(x))
    if at_least > n:  # as in a longer panel's first rows: how long a panel is must not show
        return over(x, np.full(x.shape, np.nan))
    by_entity = np.ascontiguousarray(x.values.T)  # bottleneck walks along memory three to ten times faster than across
    return over(x, move(by_entity, window=n, min_count=at_least, axis=1).T)


def ago(x: xr.DataArray, weeks: float) -> xr.DataArray:
    """The value `weeks` weeks earlier; missing where the panel does not reach back."""
    n = steps(x, weeks)
    out = np.full_like(x.values, np.nan, dtype=float)
    out[n:] = x.values[:-n]
    return over(x, out)


def moving_sum(x: np.ndarray, n: int) -> np.ndarray:
    """Sum of the last n rows, missing values left out; residues of rounding are zero."""
    return _differences(*_total(x), n)


def accumulated(add: np.ufunc, x: np.ndarray, dtype: type | None = None) -> np.ndarray:
    """Return add.accumulate(x, axis=0), row upon row: numpy goes down one column after the other, 2 to 20 × slower."""
    out = x.astype(dtype or x.dtype)
    for before, row in pairwise(out):
        add(before, row, out=row)
    return out


def _total(x: np.ndarray) -> Total:
    """Return the running total, missing values left out; counts leave no residues."""
    missing = np.isnan(x)
    total = accumulated(np.add, np.where(missing, 0.0, x) if missing.any() else x, float)
    size = np.abs(total)
    exact = (size < 1e9).all() and (total == np.rint(total)).all()
    return total, None if exact else 1e-9 * np.maximum(size, 1)


def _differences(total: np.ndarray, residue: np.ndarray | None, n: int) -> np.ndarray:
    out = np.empty_like(total)
    out[:n] = total[:n]
    np.subtract(total[n:], total[:-n], out=out[n:])
    if residue is not None:
        np.copyto(out, 0.0, where=np.abs(out) < residue)
    return out


def group_sum(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sum the columns of x that share a group number; group numbers are 0 … n − 1, each of them used."""
    if not len(group):
        return np.zeros((len(x), 1))
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    return np.add.reduceat(x[:, order], starts, axis=1)


def running(x: xr.DataArray) -> xr.DataArray:
    """Total since the panel began: a stock out of its changes."""
    return over(x, accumulated(np.add, x.values, float))


def latest(x: xr.DataArray) -> xr.DataArray:
    """The last value that was not missing."""
    return over(x, pushed(x.values.astype(np.float64)))


def pushed(x: np.ndarray) -> np.ndarray:
    """Return x with every missing value replaced by the last one above it."""
    return bn.push(np.ascontiguousarray(x.T), axis=1).T


def weeks_since(x: xr.DataArray) -> xr.DataArray:
    """Weeks since the last step with something in it; 0 in that step, missing before the first."""
    row = np.arange(len(x), dtype=np.float64)[:, None]
    last = accumulated(np.fmax, np.where(x.values > 0, row, np.nan))
    return over(x, (row - last) * x.attrs["step_days"] / 7)


def share(part: xr.DataArray, whole: xr.DataArray) -> xr.DataArray:
    """part / whole, missing where there is no whole."""
    return over(part, ratio(part.values, whole.values))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Elementwise part / whole as float64, NaN where whole is not positive."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        out = np.asarray(part, float) / np.asarray(whole, float)
    positive = np.broadcast_to(np.asarray(whole) > 0, out.shape)
    return np.where(positive, out, np.nan)
