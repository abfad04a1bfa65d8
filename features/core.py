"""A feature is a named formula over a panel, or over the rows of a snapshot."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
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


def names(features: Iterable[Feature]) -> list[str]:
    return [f.name for f in features]


def steps(panel: xr.DataArray, weeks: float) -> int:
    """Panel rows that make `weeks` weeks."""
    return max(round(weeks * 7 / panel.attrs["step_days"]), 1)


def over(x: xr.DataArray, values: np.ndarray) -> xr.DataArray:
    """Return `values` with the dims, coordinates and step of `x`."""
    return x.copy(data=values)


def past_sum(x: xr.DataArray, weeks: float) -> xr.DataArray:
    """Sum of the last `weeks` weeks, the row's own included; shorter at the start of the panel.

    Differences of a float64 running total: exact for counts below 2^53, and zero where rounding leaves a residue.
    """
    return over(x, moving_sum(x.values, steps(x, weeks)))


def past_mean(x: xr.DataArray, weeks: float) -> xr.DataArray:
    """Mean per step over the last `weeks` weeks, counted from the entity's first non-zero step at the earliest."""
    seen = np.cumsum(np.maximum.accumulate(x.values != 0, axis=0), axis=0)
    return over(x, ratio(past_sum(x, weeks).values, np.minimum(seen, steps(x, weeks))))


def past(move: Callable[..., np.ndarray], x: xr.DataArray, weeks: float, at_least: int = 1) -> xr.DataArray:
    """Apply a bottleneck moving window (`move_max`, `move_std`, …) over the last `weeks` weeks."""
    n = min(steps(x, weeks), len(x))
    if at_least > n:  # as in a longer panel's first rows: how long a panel is must not show
        return over(x, np.full(x.shape, np.nan))
    return over(x, move(x.values, window=n, min_count=at_least, axis=0))


def ago(x: xr.DataArray, weeks: float) -> xr.DataArray:
    """The value `weeks` weeks earlier; missing where the panel does not reach back."""
    n = steps(x, weeks)
    out = np.full(x.shape, np.nan)
    out[n:] = x.values[:-n]
    return over(x, out)


def moving_sum(x: np.ndarray, n: int) -> np.ndarray:
    """Sum of the last n rows, missing values left out; residues of rounding are zero."""
    total = np.nancumsum(x, axis=0, dtype=np.float64)
    out = total.copy()
    out[n:] -= total[:-n]
    out[np.abs(out) < 1e-9 * np.maximum(np.abs(total), 1)] = 0
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
    return over(x, np.cumsum(x.values, axis=0, dtype=np.float64))


def latest(x: xr.DataArray) -> xr.DataArray:
    """The last value that was not missing."""
    return over(x, bn.push(x.values.astype(np.float64), axis=0))


def weeks_since(x: xr.DataArray) -> xr.DataArray:
    """Weeks since the last step with something in it; 0 in that step, missing before the first."""
    row = np.arange(len(x), dtype=np.float64)[:, None]
    last = bn.push(np.where(x.values > 0, row, np.nan), axis=0)
    return over(x, (row - last) * x.attrs["step_days"] / 7)


def share(part: xr.DataArray, whole: xr.DataArray) -> xr.DataArray:
    """part / whole, missing where there is no whole."""
    return over(part, ratio(part.values, whole.values))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Elementwise part / whole as float64, NaN where whole is not positive."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
