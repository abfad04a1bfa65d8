"""Look up how every row's supplier, lane, item, category and region stood at the row's as-of."""

from collections.abc import Sequence

import duckdb
import numpy as np
import pandas as pd

from features.core import measures_of, names
from features.panels import Book, over_steps, read_book, supply_panels
from features.suppliers import LEVELS, Level
from features.threads import taken
from features.tiles import gather
from features.weeks import Grid

FIRST_PRIOR = 0.2  # late share of a chain of which nothing is known yet


def history(con: duckdb.DuckDBPyConnection, rows: pd.DataFrame, grid: Grid) -> tuple[np.ndarray, list[str]]:
    """Return each row's standing at every level, float32 [row, feature], and the features' names.

    `rows` has `step` (index of the row's as-of in the grid), `ordered_step` (that of the first as-of after the line was
    ordered) and the key columns of every level. `line_events` is in `con`.
    """
    every = [f for level in LEVELS for f in level.features]
    out = np.full((len(rows), len(every)), np.nan, np.float32)
    standing: dict[str, np.ndarray] = {}
    book, column = read_book(con, grid), 0
    for level in LEVELS:
        width = len(level.features)
        prior = standing.get(level.prior, np.full(len(rows), FIRST_PRIOR))
        look_up(book, level, rows, grid, prior, out[:, column : column + width])
        standing[level.name] = out[:, column + names(level.formulas).index("late_share_52w")]
        column += width
    return out, names(every)


def look_up(book: Book, level: Level, rows: pd.DataFrame, grid: Grid, prior: np.ndarray, out: np.ndarray) -> None:
    """Write into `out` [row, feature] how the entity of every row's line at this level stood at the row's as-of."""
    entity, entities = entities_asked(book.key(level.keys), rows["line"].to_numpy())
    row_entity = taken(entity, rows["line"].to_numpy())
    steps, ordered = rows["step"].to_numpy(), rows["ordered_step"].to_numpy()
    formulas = (*level.formulas, *level.when_ordered)
    read = measures_of(formulas)
    prior_of = np.zeros((entities, grid.size))  # a step without a row is never read
    if "prior" in read:
        prior_of.ravel()[row_entity * np.int64(grid.size) + steps] = prior
    for block, panel in supply_panels(book, entity, entities, grid, by_site="site_id" in level.keys, measures=read):
        panel["prior"] = over_steps(prior_of[block].T, grid)
        if block.stop - block.start == entities:
            at = [steps] * len(level.formulas) + [ordered] * len(level.when_ordered)
            gather(panel, formulas, at, row_entity, out)
            return
        mine = np.flatnonzero((row_entity >= block.start) & (row_entity < block.stop))
        at = [steps[mine]] * len(level.formulas) + [ordered[mine]] * len(level.when_ordered)
        part = np.empty((len(mine), len(at)), np.float32)
        gather(panel, formulas, at, row_entity[mine] - block.start, part)
        out[mine] = part


def entities_asked(key: np.ndarray, line: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the keys that the asked lines have 0 … n − 1 in their order: every line's number, −1 unasked, and n."""
    span = int(key.max(initial=-1)) + 1
    if span > 8 * len(key) + 1024:  # too many possible keys for a mark each
        key = np.unique(key, return_inverse=True)[1]
        span = int(key.max(initial=-1)) + 1
    used = np.zeros(span, bool)
    used[taken(key, line)] = True
    number_of = np.where(used, np.cumsum(used, dtype=np.int32) - 1, -1).astype(np.int32)
    return taken(number_of, key), int(used.sum())


def number(counted: pd.DataFrame, rows: pd.DataFrame, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray, int]:
    """Number the entities of `rows` 0 … n − 1, and those of `counted` alike, −1 where no row asks for them."""
    if not keys:
        return np.zeros(len(counted), np.int64), np.zeros(len(rows), np.int64), 1
    entities = pd.MultiIndex.from_frame(rows[list(keys)].drop_duplicates())
    asked, mine = (entities.get_indexer(pd.MultiIndex.from_frame(table[list(keys)])) for table in (counted, rows))
    return asked, mine, len(entities)
