"""Look up how every row's supplier, lane, item, category and region stood at the row's as-of."""

from collections.abc import Iterator, Sequence

import duckdb
import numpy as np
import pandas as pd
import xarray as xr

from features.core import measures_of, names
from features.panels import KINDS, Book, dense, over_steps, read_book, supply_panels
from features.suppliers import LEVELS, Level
from features.threads import taken
from features.tiles import gather
from features.weeks import Grid

FIRST_PRIOR = 0.2  # late share of a chain of which nothing is known yet
SHARED = tuple(level for level in LEVELS if "supplier_id" not in level.keys)  # of lines of many suppliers
INEXACT = ("ordered_units", "ordered_value", "costed_units")  # sums of fractions: they depend on their order
EXACT = tuple(m for measures in KINDS.values() for m in measures if m not in INEXACT)


def history(
    con: duckdb.DuckDBPyConnection, rows: pd.DataFrame, grid: Grid, shared: pd.DataFrame | None = None
) -> tuple[np.ndarray, list[str]]:
    """Return each row's standing at every level, float32 [row, feature], and the features' names.

    `rows` has `step` (index of the row's as-of in the grid), `ordered_step` (that of the first as-of after the line was
    ordered) and the key columns of every level. `line_events` is in `con`. Where `con` holds a part of the suppliers
    `shared` has the counts of all (`shared_counts`).
    """
    every = [f for level in LEVELS for f in level.features]
    out = np.empty((len(rows), len(every)), np.float32)
    standing: dict[str, np.ndarray] = {}
    book, column = read_book(con, grid), 0
    for level in LEVELS:
        width = len(level.features)
        prior = standing.get(level.prior, np.full(len(rows), FIRST_PRIOR))
        mine = out[:, column : column + width]
        if shared is not None and level in SHARED:
            look_up_shared(shared, level, rows, grid, prior, mine)
        else:
            look_up(book, level, rows, grid, prior, mine)
        standing[level.name] = out[:, column + names(level.formulas).index("late_share_52w")]
        column += width
    return out, names(every)


def look_up(book: Book, level: Level, rows: pd.DataFrame, grid: Grid, prior: np.ndarray, out: np.ndarray) -> None:
    """Write into `out` [row, feature] how the entity of every row's line at this level stood at the row's as-of."""
    entity, entities = entities_asked(book.key(level.keys), rows["line"].to_numpy())
    read = measures_of((*level.formulas, *level.when_ordered))
    panels = supply_panels(book, entity, entities, grid, by_site="site_id" in level.keys, measures=read)
    _gather(panels, level, rows, taken(entity, rows["line"].to_numpy()), entities, grid, prior, out)


def look_up_shared(
    shared: pd.DataFrame, level: Level, rows: pd.DataFrame, grid: Grid, prior: np.ndarray, out: np.ndarray
) -> None:
    """Write into `out` what `look_up` would with all suppliers at hand, from the counts of all."""
    (key,) = level.keys or ("",)
    mine = shared[shared["level"] == level.name]
    of_row = rows[key].to_numpy(object) if key else np.full(len(rows), "", object)
    entities = pd.Index(sorted({*mine["entity"], *of_row}), dtype=object)
    read = measures_of((*level.formulas, *level.when_ordered)) - {"prior"}
    values = {m: mine[m].to_numpy(float) for m in sorted(read)}
    panel = dense(mine["step"].to_numpy(), entities.get_indexer(mine["entity"]), values, len(entities), grid)
    every = iter([(slice(0, len(entities)), panel)])
    _gather(every, level, rows, entities.get_indexer(of_row), len(entities), grid, prior, out)


def shared_counts(con: duckdb.DuckDBPyConnection, grid: Grid) -> pd.DataFrame:
    """Return what `line_events` counts per SHARED level, entity and step: whole numbers, whose sums are exact.

    Those of parts of the suppliers add up to those of all (`added`).
    """
    level = "CASE grouping(region, category) WHEN 3 THEN 'chain' WHEN 1 THEN 'region' ELSE 'category' END AS level"
    sets = "GROUPING SETS ((step), (step, region), (step, category))"
    found = []
    for kind, measures in KINDS.items():
        sums = ", ".join(f"sum(CAST({sql} AS DOUBLE)) AS {m}" for m, sql in measures.items() if m in EXACT)
        query = f"""SELECT step, {level}, coalesce(region, category, '') AS entity, {sums}
                    FROM line_events JOIN line_history USING (line) WHERE kind = '{kind}' AND step < {grid.size}
                    GROUP BY {sets}"""
        found.append(con.execute(query).df())
    return added(found)


def added(counts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the sums of such counts per level, entity and step."""
    every = pd.concat([c.astype({"level": object, "entity": object}) for c in counts if len(c)] or counts[:1])
    sums = every.reindex(columns=["level", "entity", "step", *EXACT]).fillna(dict.fromkeys(EXACT, 0.0))
    return sums.groupby(["level", "entity", "step"], as_index=False).sum()


def _gather(
    panels: Iterator[tuple[slice, xr.Dataset]], level: Level, rows: pd.DataFrame, row_entity: np.ndarray, entities: int,
    grid: Grid, prior: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    steps, ordered = rows["step"].to_numpy(), rows["ordered_step"].to_numpy()
    formulas = (*level.formulas, *level.when_ordered)
    prior_of = np.zeros((entities, grid.size))  # a step without a row is never read
    if "prior" in measures_of(formulas):
        prior_of.ravel()[row_entity * np.int64(grid.size) + steps] = prior
    for block, panel in panels:
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
