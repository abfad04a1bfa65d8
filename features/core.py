"""A feature is a named formula over a panel, or over the rows of a snapshot."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import bottleneck as bn
import numpy as np
import xarray as xr


@dataclass(frozen=True, slots=True)
class Feature:
    """One model input: its column name, its formula, its unit and its meaning.

    A panel formula sees a Tile: measures with dims (as_of, entity), oldest as-of first. The row at `as_of` holds only
    what was known before it, so a formula may use that row and earlier ones, never a negative shift. A row formula
    sees a table of snapshots and may use only columns of the same row. `say` is how a planner reads the value;
    features of one `family` tell one story, of which a row shows the strongest part.
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


def names(features: Iterable[Feature]) -> list[str]:
    return [f.name for f in features]


class Cells:
    """A number per as-of and entity, worked out for the as-of days somebody asks for and for no others.

    `at(begin, end)` gives float64 [as_of, entity] of the rows from `begin` to `end`, to be read only. Asked for one row
    or for all, a row has the same bits: running totals are taken from the first row on, whoever asks.
    """

    __slots__ = ("_write", "at", "known", "size", "step_days")

    def __init__(
        self, at: Callable[[int, int], np.ndarray], size: int, step_days: int,
        write: Callable[[int, int, np.ndarray], Any] | None = None,
    ) -> None:  # fmt: skip
        self.at, self.size, self.step_days, self._write = at, size, step_days, write
        self.known: dict[str, Any] = {}

    def write(self, begin: int, end: int, out: np.ndarray) -> None:
        """Write the rows from `begin` to `end` into `out`, of float64 or float32."""
        if self._write is None:
            out[...] = self.at(begin, end)
        else:
            self._write(begin, end, out)

    @property
    def values(self) -> np.ndarray:
        """All rows."""
        return self.at(0, self.size)

    def once(self, name: str, work: Callable[["Cells"], Any]) -> Any:
        """Return `work` of these cells, done the first time it is asked for."""
        if name not in self.known:
            self.known[name] = work(self)
        return self.known[name]

    def whole(self, name: str, work: Callable[[np.ndarray], np.ndarray]) -> "Cells":
        """Return cells that can only be worked out for all rows at once, kept under a name."""
        return Cells(lambda begin, end: self.once(name, lambda x: work(x.values))[begin:end], self.size, self.step_days)

    def __add__(self, other: "Cells | float") -> "Cells":
        return each(np.add, self, other)

    def __sub__(self, other: "Cells | float") -> "Cells":
        return each(np.subtract, self, other)

    def __rsub__(self, other: float) -> "Cells":
        return each(np.subtract, other, self)

    def __mul__(self, other: "Cells | float") -> "Cells":
        return each(np.multiply, self, other)

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other: "Cells | float") -> "Cells":
        return each(np.divide, self, other)

    def __gt__(self, other: "Cells | float") -> "Cells":
        return each(np.greater, self, other)

    def clip(self, least: "Cells | float", most: "Cells | float") -> "Cells":
        return each(np.clip, self, least, most)

    def where(self, condition: "Cells") -> "Cells":
        """Return the same cells, missing where the condition does not hold."""
        return each(lambda x, holds: np.where(holds, x, np.nan), self, condition)


def given(values: np.ndarray, step_days: int) -> Cells:
    """Return [as_of, entity] values as cells."""
    return Cells(lambda begin, end: values[begin:end], len(values), step_days)


def each(work: Callable[..., np.ndarray], *parts: Cells | float) -> Cells:
    """Return cells whose value is `work` of the same cell of every part."""
    x = next(part for part in parts if isinstance(part, Cells))

    def at(begin: int, end: int) -> np.ndarray:
        return work(*(part.at(begin, end) if isinstance(part, Cells) else part for part in parts))

    return Cells(at, x.size, x.step_days)


class Tile:
    """Some entities' measures, each read when a formula asks for it: `tile["net"]`, or `tile.net`."""

    def __init__(self, panel: xr.Dataset, block: slice = slice(None)) -> None:
        self._panel, self._block = panel, block
        self._cells: dict[str, Cells] = {}

    def __getitem__(self, measure: str) -> Cells:
        if measure not in self._cells:
            x = np.asarray(self._panel.variables[measure].values[:, self._block], float)
            if x.strides[1] != x.itemsize:  # each day's numbers stand together
                x = np.ascontiguousarray(x)
            self._cells[measure] = given(x, self._panel.attrs["step_days"])
        return self._cells[measure]

    def __getattr__(self, measure: str) -> Cells:
        try:
            return self[measure]
        except KeyError:
            raise AttributeError(measure) from None


class _Asked(Tile):
    """A tile of nothing that notes which measures a formula asks for."""

    def __init__(self) -> None:
        self.measures: set[str] = set()

    def __getitem__(self, measure: str) -> Cells:
        self.measures.add(measure)
        return given(np.empty((0, 0)), 7)


def measures_of(features: Iterable[Feature]) -> set[str]:
    """Return the measures that the formulas read."""
    asked = _Asked()
    for feature in features:
        feature.formula(asked)
    return asked.measures


def steps(x: Cells, weeks: float) -> int:
    """Panel rows that make `weeks` weeks."""
    return max(round(weeks * 7 / x.step_days), 1)


def past_sum(x: Cells, weeks: float) -> Cells:
    """Sum of the last `weeks` weeks, the row's own included; shorter at the start of the panel.

    Differences of a float64 running total: exact for counts below 2^53, and zero where rounding leaves a residue.
    """
    n = steps(x, weeks)
    return Cells(lambda begin, end: _differences(x.once("total", _total_of), n, begin, end), x.size, x.step_days)


def past_mean(x: Cells, weeks: float) -> Cells:
    """Mean per step over the last `weeks` weeks, counted from the entity's first non-zero step at the earliest."""
    n = steps(x, weeks)

    def work(begin: int, end: int, out: np.ndarray | None = None) -> np.ndarray:
        sums = _differences(x.once("total", _total_of), n, begin, end)
        out = sums if out is None else out
        first, last = x.once("first", _first_of)
        whole = min(max(last + n - 1, begin), end) - begin  # from here on every entity has been seen for n steps
        if whole:
            seen = np.arange(begin + 1.0, begin + whole + 1)[:, None] - first
            with np.errstate(invalid="ignore"):  # 0/0 where nothing was seen yet
                np.divide(sums[:whole], seen.clip(0, n, out=seen), out=out[:whole], casting="same_kind")
        np.divide(sums[whole:], n, out=out[whole:], casting="same_kind")
        return out

    return Cells(work, x.size, x.step_days, work)


def past_std(x: Cells, weeks: float, at_least: int = 1, ddof: int = 0) -> Cells:
    """Standard deviation over the last `weeks` weeks, missing with fewer than `at_least` values.

    Out of running totals of the values and of their squares: exact for counts; otherwise zero where the spread is but
    a millionth of the level, which is what rounding may leave.
    """
    n = min(steps(x, weeks), x.size)

    def work(begin: int, end: int, out: np.ndarray | None = None) -> np.ndarray:
        squares, residue = x.once("squares", _squares_of)
        sums = _differences(x.once("total", _total_of), n, begin, end)
        spread = _differences((squares, None), n, begin, end)
        count = _counts(x, n, begin, end)
        spread *= count
        least = None if residue is None else np.maximum(1e-12 * spread, 1e-6 * count * residue[begin:end])
        spread -= np.square(sums, out=sums)
        if least is not None:
            np.copyto(spread, 0.0, where=spread < least)
        np.sqrt(spread, out=spread)
        out = spread if out is None else out
        few = np.flatnonzero((count < at_least).any(axis=1))
        with np.errstate(divide="ignore", invalid="ignore"):
            np.divide(spread, np.sqrt(count * (count - ddof).clip(0)), out=out, casting="same_kind")
        out[few] = np.where(count[few] < at_least, np.nan, out[few])
        return out

    return Cells(work, x.size, x.step_days, work)


def _counts(x: Cells, n: int, begin: int, end: int) -> np.ndarray:
    """Return how many values there are in the last n rows, as a column where that is so for all entities."""
    if not x.once("missing", _has_missing):
        return np.minimum(np.arange(begin + 1.0, end + 1), n)[:, None]
    return _differences(x.once("counted", lambda x: _total(1.0 - np.isnan(x.values))), n, begin, end)


def _has_missing(x: Cells) -> bool:
    return x.once("total", _total_of)[1] is not None and bool(np.isnan(x.values).any())


def _squares_of(x: Cells) -> "Total":
    exact = x.once("total", _total_of)[1] is None  # whole numbers have whole squares
    return _total(np.square(x.values), counts=exact)


def _total_of(x: Cells) -> "Total":
    return _total(x.values)


def _first_of(x: Cells) -> tuple[np.ndarray, int]:
    """Return every entity's first row that is not zero, the number of rows without one, and the last such row."""
    first = first_seen(x.values)
    return first, int(first.max(initial=0))


def first_seen(x: np.ndarray) -> np.ndarray:
    """Return, per column, the first row that is not zero as float, the number of rows without one."""
    if len(x) and (x[0] != 0).all():
        return np.zeros(x.shape[1])
    some = x != 0
    return np.where(some.any(axis=0), some.argmax(axis=0), float(len(x)))


def steps_since_first(x: np.ndarray) -> np.ndarray:
    """Return, per row and column, the number of rows since the first that is not zero, that one counted."""
    return np.maximum(np.arange(1.0, len(x) + 1)[:, None] - first_seen(x), 0.0)


def past(move: Callable[..., np.ndarray], x: Cells, weeks: float, at_least: int = 1) -> Cells:
    """Apply a bottleneck moving window (`move_max`, `move_mean`, …) over the last `weeks` weeks."""
    n = min(steps(x, weeks), x.size)

    def at(begin: int, end: int) -> np.ndarray:
        since = max(begin - n + 1, 0) if move in (bn.move_max, bn.move_min) else 0  # others carry rounding along
        window = min(n, end - since)
        if at_least > window:  # as in a longer panel's first rows: how long a panel is must not show
            return np.full_like(x.at(begin, end), np.nan)
        by_entity = np.ascontiguousarray(x.at(since, end).T)  # bottleneck walks along memory many times faster
        return move(by_entity, window=window, min_count=at_least, axis=1)[:, begin - since :].T

    return Cells(at, x.size, x.step_days)


def ago(x: Cells, weeks: float) -> Cells:
    """The value `weeks` weeks earlier; missing where the panel does not reach back."""
    n = steps(x, weeks)

    def at(begin: int, end: int) -> np.ndarray:
        found = x.at(max(begin - n, 0), max(end - n, 0))
        none = end - begin - len(found)
        return np.concatenate([np.full((none, found.shape[1]), np.nan), found]) if none else found

    def write(begin: int, end: int, out: np.ndarray) -> None:
        none = min(max(n - begin, 0), len(out))
        out[:none] = np.nan
        x.write(max(begin - n, 0), max(end - n, 0), out[none:])

    return Cells(at, x.size, x.step_days, write)


def moving_sum(x: np.ndarray, n: int) -> np.ndarray:
    """Sum of the last n rows, missing values left out; residues of rounding are zero."""
    return _differences(_total(x), n, 0, len(x))


def accumulated(add: np.ufunc, x: np.ndarray, dtype: type | None = None) -> np.ndarray:
    """Return add.accumulate(x, axis=0), row upon row: numpy goes down one column after the other, 2 to 20 × slower."""
    out = np.empty(x.shape, dtype or x.dtype)
    out[:1] = x[:1]
    for before, row, after in zip(out, x[1:], out[1:], strict=False):
        add(before, row, out=after)
    return out


Total = tuple[np.ndarray, np.ndarray | None]  # a running total, and below what a difference of it is but a residue


def _total(x: np.ndarray, *, counts: bool = False) -> Total:
    """Return the running total, missing values left out; whole numbers, `counts` if it is known, leave no residues."""
    counts = counts or bool((np.rint(x) == x).all())  # missing values are none
    missing = None if counts else np.isnan(x)
    total = accumulated(np.add, x if missing is None or not missing.any() else np.where(missing, 0.0, x), float)
    ends = total[-1:] if counts and x.min(initial=0) >= 0 else total
    size = max(ends.max(initial=0), -ends.min(initial=0))
    return total, None if counts and size < 1e9 else 1e-9 * np.maximum(np.abs(total), 1)


def _differences(summed: Total, n: int, begin: int, end: int) -> np.ndarray:
    """Return the sums of the n rows up to each of the rows from `begin` to `end`."""
    total, residue = summed
    out = np.empty((end - begin, total.shape[1]))
    head = min(max(n - begin, 0), len(out))  # rows whose window reaches back to the first
    out[:head] = total[begin : begin + head]
    np.subtract(total[begin + head : end], total[max(begin + head - n, 0) : max(end - n, 0)], out=out[head:])
    if residue is not None:
        np.copyto(out, 0.0, where=np.abs(out) < residue[begin:end])
    return out


def back(x: np.ndarray, n: int) -> np.ndarray:
    """Return what x was n rows before, NaN where that was before it began."""
    out = np.full(x.shape, np.nan)
    out[n:] = x[:-n]
    return out


def running(x: Cells) -> Cells:
    """Total since the panel began: a stock out of its changes."""
    return Cells(lambda begin, end: x.once("total", _total_of)[0][begin:end], x.size, x.step_days)


def latest(x: Cells) -> Cells:
    """The last value that was not missing."""
    return x.whole("latest", pushed)


def pushed(x: np.ndarray) -> np.ndarray:
    """Return x with every missing value replaced by the last one above it."""
    return bn.push(np.ascontiguousarray(x.T), axis=1).T


def weeks_since(x: Cells) -> Cells:
    """Weeks since the last step with something in it; 0 in that step, missing before the first."""

    def work(values: np.ndarray) -> np.ndarray:
        row = np.arange(len(values), dtype=np.float64)[:, None]
        return (row - accumulated(np.fmax, np.where(values > 0, row, np.nan))) * x.step_days / 7

    return x.whole("weeks since", work)


def share(part: Cells, whole: Cells) -> Cells:
    """part / whole, missing where there is no whole."""
    return each(ratio, part, whole)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Elementwise part / whole as float64, NaN where whole is not positive."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        out = np.asarray(part, float) / np.asarray(whole, float)
    positive = np.broadcast_to(np.asarray(whole) > 0, out.shape)
    return np.where(positive, out, np.nan)
