"""Work features out tile by tile, side by side, straight into the rows that ask for them."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import xarray as xr

from features.core import Feature, Tile
from features.threads import pieces, side_by_side

TILE = 2048  # entities worked on at a time: what a formula reads and writes then stays in the processor's cache
WIDER = 4  # times as many where few days are asked for: a formula then reads and adds up, and writes hardly anything
FEW = 8  # days
BLOCK = 1 << 24  # values of all features that are kept at once to take rows from
CHUNK = 1 << 14  # rows taken at a time: enough work for two threads not to wait for the interpreter


def fill(panel: xr.Dataset, features: Sequence[Feature], rows: slice = slice(None)) -> list[np.ndarray]:
    """Return the features tile by tile, float32 [feature, as_of, entity], of the as-of days `rows`.

    The values are those over the whole panel. Only the days asked for are worked out, but for what has to be added up
    since the panel's first day. Tiles stay apart: memory is written once, where it has just been handed out.
    """
    begin, end, _ = rows.indices(panel.sizes["as_of"])
    shape = (len(features), max(end - begin, 0))
    whole = np.empty((panel.sizes["entity"], math.prod(shape)), np.float32)  # one stretch of memory
    cut = list(_blocks(len(whole), shape[1]))
    out = {b.start: whole[b].reshape(*shape, b.stop - b.start) for b in cut}

    def work(block: slice) -> None:
        tile = Tile(panel, block)
        for k, feature in enumerate(features):
            feature.formula(tile).write(begin, end, out[block.start][k])

    side_by_side(work, cut)
    return [*out.values()]


def _blocks(entities: int, days: int) -> Iterator[slice]:
    """Cut the entities into tiles in which all of `days` are worked out."""
    return pieces(entities, TILE if days > FEW else TILE * WIDER)


def gather(
    panel: xr.Dataset, features: Sequence[Feature], steps: Sequence[np.ndarray], entity: np.ndarray, out: np.ndarray
) -> None:
    """Write into `out` [row, feature] each feature's value of the row's `entity` at the row's step.

    `steps` holds, per feature, the number of every row's as-of.
    """
    if not len(entity):
        return
    for same in _runs(steps):
        asked = steps[same.start]
        begin, end = int(asked.min()), int(asked.max()) + 1
        cells = panel.sizes["entity"] * (end - begin)
        if 3 * len(entity) > cells and cells * len(features[same]) <= BLOCK:
            found = worked_out(panel, features[same], begin, end)
            write_rows([lambda rows, of=found, at=asked: of(entity[rows], at[rows])], out[:, same])  # type: ignore[misc]
        else:
            _gather_by_tile(panel, features[same], asked, entity, out[:, same], (begin, end))


def _runs(steps: Sequence[np.ndarray]) -> Iterator[slice]:
    """Yield the stretches of features that are read at the same steps."""
    edges = [0, *(k for k in range(1, len(steps)) if steps[k] is not steps[k - 1]), len(steps)]
    yield from (slice(*edge) for edge in pairwise(edges))


def _rows_of(tile: Tile, features: Sequence[Feature], begin: int, end: int, entities: int) -> np.ndarray:
    """Return the tile's values as float32 [as_of, entity, feature]."""
    found = np.empty((len(features), end - begin, entities), np.float32)
    for k, feature in enumerate(features):
        feature.formula(tile).write(begin, end, found[k])
    return found.transpose(1, 2, 0)


Part = Callable[[slice], np.ndarray]  # what some rows have: one number each, or float32 [row, number]


def write_rows(parts: Sequence[Part], out: np.ndarray) -> None:
    """Write the parts next to each other into the rows of `out`, some rows at a time: memory is gone through once."""

    def work(rows: slice) -> None:
        for some in pieces(rows.stop - rows.start, CHUNK):
            mine = slice(rows.start + some.start, rows.start + some.stop)
            column = 0
            for part in parts:
                found = part(mine)
                if found.ndim == 1:
                    out[mine, column] = found
                    column += 1
                else:
                    last = column + found.shape[1]
                    _whole(out[mine, column:last])[...] = _whole(found)
                    column = last

    side_by_side(work, pieces(len(out), 16 * CHUNK))


def _whole(rows: np.ndarray) -> np.ndarray:
    """Return float32 rows as one thing each: numpy copies such faster."""
    return rows.view(f"V{4 * rows.shape[1]}")[:, 0]


def taker(table: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return what takes rows out of a float32 table by their numbers."""
    source, width = _whole(np.ascontiguousarray(table)), table.shape[1]
    return lambda place: source.take(place, mode="clip").view(np.float32).reshape(len(place), width)


def worked_out(
    panel: xr.Dataset, features: Sequence[Feature], begin: int, end: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Work out the features of the as-of days from `begin` to `end`; return what takes rows by entity and step.

    An entity's days stand one after the other: rows of one line are near each other.
    """
    cells = np.empty((panel.sizes["entity"], end - begin, len(features)), np.float32)

    def work(block: slice) -> None:
        cells[block] = _rows_of(Tile(panel, block), features, begin, end, block.stop - block.start).transpose(1, 0, 2)

    side_by_side(work, _blocks(len(cells), end - begin))
    rows = taker(cells.reshape(-1, len(features)))

    def take(entity: np.ndarray, step: np.ndarray) -> np.ndarray:
        place = np.multiply(entity, end - begin, dtype=np.intp)
        place += step
        place -= begin
        return rows(place)

    return take


def _gather_by_tile(
    panel: xr.Dataset, features: Sequence[Feature], step: np.ndarray, entity: np.ndarray, out: np.ndarray,
    days: tuple[int, int],
) -> None:  # fmt: skip
    """Take each tile's rows while its values are in the cache."""
    begin, end = days
    entities = panel.sizes["entity"]
    tile_of = (entity // TILE).astype(np.uint16 if entities < TILE << 16 else np.int64)  # short numbers sort fastest
    order = np.argsort(tile_of, kind="stable")
    edges = np.searchsorted(tile_of[order], np.arange(-(-entities // TILE) + 1))

    def work(block: slice) -> None:
        mine = order[slice(*edges[block.start // TILE :][:2])]
        if not len(mine):
            return
        tile, wide = Tile(panel, block), block.stop - block.start
        place = (step[mine] - begin) * np.int64(wide) + (entity[mine] - block.start)
        if 3 * len(mine) < wide * (end - begin):
            for k, feature in enumerate(features):
                out[mine, k] = feature.formula(tile).at(begin, end).ravel()[place]
        else:
            out[mine] = np.ascontiguousarray(_rows_of(tile, features, begin, end, wide)).reshape(-1, len(features))[
                place
            ]

    side_by_side(work, pieces(entities, TILE))
