"""Turn facts into dense weekly panels, each fact counted in the step in which it became known."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd
import xarray as xr

from features.casting import quote
from features.weeks import Grid

TILE_CELLS = 2_000_000  # cells of one measure held at once; blocks of entities beyond it


@dataclass(frozen=True, slots=True)
class Terms:
    """What "late" and "complete" mean in this run (DEFINITIONS 1).

    `posting_lag_days` is g: the 95th percentile of receipt known_at − received_on, at least one day. It is measured
    once a run and handed on, so that every row of the run, old or new, is judged with the same allowance.
    """

    tolerance_days: int = 0
    short_tolerance: float = 0.0
    posting_lag_days: int = 1


def posting_lag_days(con: duckdb.DuckDBPyConnection, as_of: object) -> int:
    """Measure g on the receipts known before `as_of`, in whole days, at least one."""
    lag = con.execute(
        "SELECT quantile_cont(epoch(known_at - CAST(received_on AS TIMESTAMP)) / 86400, 0.95) "
        "FROM receipts WHERE known_at < ?",
        [as_of],
    ).fetchall()[0][0]
    return max(int(np.ceil(lag or 1)), 1)


def write_line_history(con: duckdb.DuckDBPyConnection, terms: Terms, attributes: Sequence[str] = ()) -> None:
    """Make the tables `line_history` (one row per purchase line) and `promise_history` (one per promise).

    `complete_known_at` is when the receipts known until then first covered the line; `complete_on` is the business
    day C on which, by those receipts, it was covered. `closed_at` ends the line's time in the risk set. Nothing about
    a line counts before the line itself is known.
    """
    extra = "".join(f", p.{quote(name)} AS {quote(f'attribute_{name}')}" for name in attributes)
    con.execute(f"""
CREATE OR REPLACE TABLE line_history AS
WITH got AS (
  SELECT po_line_id, r.received_on, greatest(r.known_at, p.known_at) AS known_at,
         coalesce(r.quantity, p.quantity) AS units, p.quantity * (1 - {terms.short_tolerance} - 1e-12) AS needed
  FROM receipts r JOIN purchases p USING (po_line_id)),
known AS (
  SELECT po_line_id, known_at, needed, sum(units) OVER (PARTITION BY po_line_id ORDER BY known_at) AS total FROM got),
complete AS (SELECT po_line_id, min(known_at) AS complete_known_at FROM known WHERE total >= needed GROUP BY ALL),
covered AS (
  SELECT po_line_id, received_on, complete_known_at, needed,
         sum(units) OVER (PARTITION BY po_line_id ORDER BY received_on) AS total
  FROM got JOIN complete USING (po_line_id) WHERE known_at <= complete_known_at),
done AS (
  SELECT po_line_id, complete_known_at, min(received_on) AS complete_on FROM covered WHERE total >= needed GROUP BY ALL)
SELECT CAST(row_number() OVER (ORDER BY p.po_line_id) - 1 AS INTEGER) AS line, p.po_line_id,
       p.supplier_id, p.product_id, p.site_id, coalesce(i.category, '') AS category, coalesce(s.region, '') AS region,
       coalesce(l.region, '') AS site_region, p.known_at, CAST(p.ordered_at AS DATE) AS ordered_on,
       date_part('epoch', p.ordered_at) % 86400 / 3600 AS ordered_hour, p.promised_on,
       p.quantity, p.unit_cost, p.requested_on, p.need_on, p.cancelled_at, d.complete_on, d.complete_known_at,
       greatest(least(d.complete_known_at, p.cancelled_at), CASE WHEN p.cancelled_at IS NOT NULL THEN p.known_at END)
         AS closed_at,
       p.cancelled_at IS NOT NULL AND coalesce(p.cancelled_by, '') <> 'supplier' AS buyer_cancelled{extra}
FROM purchases p LEFT JOIN done d USING (po_line_id)
LEFT JOIN suppliers s ON s.supplier_id = p.supplier_id
LEFT JOIN products i ON i.product_id = p.product_id
LEFT JOIN sites l ON l.site_id = p.site_id""")
    con.execute("""
CREATE OR REPLACE TABLE promise_history AS
SELECT line, known_at, promised_on, lead(known_at) OVER told AS until, row_number() OVER told - 1 AS nth,
       promised_on - lag(promised_on) OVER told AS pushed_days
FROM (
  SELECT line, known_at, promised_on, NULL AS sent_at FROM line_history WHERE promised_on IS NOT NULL
  UNION ALL
  SELECT h.line, greatest(m.known_at, h.known_at), m.promised_on, m.known_at
  FROM promises m JOIN line_history h USING (po_line_id)
  WHERE m.promised_on IS DISTINCT FROM h.promised_on OR m.known_at > h.known_at)
WINDOW told AS (PARTITION BY line ORDER BY known_at, sent_at NULLS FIRST)""")


SUPPLY_MEASURES = (
    "ordered_lines", "ordered_units", "ordered_value", "costed_units", "promised_lines", "promised_days",
    "closed_lines", "completed_lines", "lead_days", "lead_days_sq", "timed_lines", "days_late", "receipts", "pushes",
    "push_days", "open_pushes", "matured_lines", "late_lines", "overdue_lines", "products",
)  # fmt: skip
ORDERED = {
    "ordered_lines": "1",
    "ordered_units": "quantity",
    "ordered_value": "quantity * coalesce(unit_cost, 0)",
    "costed_units": "CASE WHEN unit_cost IS NULL THEN 0 ELSE quantity END",
    "promised_lines": "CAST(promised_on IS NOT NULL AS INT)",
    "promised_days": "coalesce(promised_on - ordered_on, 0)",
}
COMPLETED = {
    "completed_lines": "1",
    "lead_days": "complete_on - ordered_on",
    "lead_days_sq": "(complete_on - ordered_on) ** 2",
    "timed_lines": "CAST(promised_on IS NOT NULL AS INT)",
    "days_late": "coalesce(complete_on - promised_on, 0)",
}


def write_line_events(con: duckdb.DuckDBPyConnection, grid: Grid, terms: Terms) -> None:
    """Make the table `line_events`: one row per thing that became known about a line, with its step and measures.

    A promise that still stood when it fell due has *matured* `posting_lag_days` later, whatever its outcome. It
    counts as late then unless an on-time completion was known; one posted later takes the lateness back.
    """
    _write_due_promises(con, grid, terms)
    _write_active_products(con, grid)
    at = grid.sql_index
    history = "SELECT *, {} AS step FROM line_history"
    received = at("greatest(r.known_at, h.known_at)")
    kinds: tuple[tuple[dict[str, str], str], ...] = (
        (ORDERED, history.format(at("known_at"))),
        (COMPLETED, history.format(at("complete_known_at")) + " WHERE complete_known_at IS NOT NULL"),
        ({"closed_lines": "1"}, history.format(at("closed_at")) + " WHERE closed_at IS NOT NULL"),
        ({"receipts": "1"}, f"SELECT h.*, {received} AS step FROM receipts r JOIN line_history h USING (po_line_id)"),
        ({"pushes": "1", "push_days": "pushed_days"}, PUSHES.format(at("m.known_at"))),
        ({"open_pushes": "1"}, f"{PUSHES.format(at('m.known_at'))} AND {STILL_OPEN}"),
        ({"open_pushes": "-1"}, f"{PUSHES.format(at('h.closed_at'))} AND {STILL_OPEN} AND h.closed_at IS NOT NULL"),
        ({"matured_lines": "1"}, "SELECT * FROM due"),
        ({"late_lines": "1"}, "SELECT * FROM due WHERE NOT (on_time AND told <= step)"),
        ({"late_lines": "-1"}, "SELECT * REPLACE (told AS step) FROM due WHERE on_time AND told > step"),
        ({"overdue_lines": "1"}, "SELECT * REPLACE (passed AS step) FROM due WHERE ended > passed"),
        ({"overdue_lines": "-1"}, "SELECT * REPLACE (ended AS step) FROM due WHERE ended > passed"),
        ({"products": "1"}, "SELECT * FROM active"),
        ({"products": "-1"}, "SELECT * REPLACE (idle AS step) FROM active"),
    )
    con.execute(f"CREATE OR REPLACE TABLE line_events AS {' UNION ALL '.join(_event_sql(*kind) for kind in kinds)}")


PUSHES = """SELECT h.*, m.pushed_days, {} AS step
FROM promise_history m JOIN line_history h USING (line) WHERE m.pushed_days > 0"""
STILL_OPEN = "(h.closed_at IS NULL OR m.known_at < h.closed_at)"


def _write_due_promises(con: duckdb.DuckDBPyConnection, grid: Grid, terms: Terms) -> None:
    """Make `due`: promises that still stood when they fell due, of lines that their buyer had not cancelled by then.

    `step` is when the outcome is asked for, `told` when completion became known; the line is overdue from `passed`
    until `ended`.
    """
    at, on = grid.sql_index, grid.sql_index_of_day
    due = f"(m.promised_on + {terms.tolerance_days})"
    con.execute(f"""
CREATE OR REPLACE TEMP TABLE due AS
SELECT h.*, greatest({on(f"{due} + {terms.posting_lag_days}")}, {at("m.known_at")}) AS step,
       coalesce(h.complete_on <= {due}, false) AS on_time, {at("h.complete_known_at")} AS told,
       greatest({on(f"{due} + 1")}, {at("m.known_at")}) AS passed,
       coalesce(least({at("h.closed_at")}, {at("m.until")}), {grid.size}) AS ended
FROM promise_history m JOIN line_history h USING (line)
WHERE (m.until IS NULL OR m.until >= CAST({due} + 1 AS TIMESTAMP))
  AND NOT (h.buyer_cancelled AND h.cancelled_at < CAST({due} + 1 AS TIMESTAMP)
           AND (h.complete_known_at IS NULL OR h.complete_known_at > h.cancelled_at))""")


def _write_active_products(con: duckdb.DuckDBPyConnection, grid: Grid) -> None:
    """Make `active`: each stretch of a product's time among those ordered of a supplier in the last 26 weeks."""
    con.execute(f"""
CREATE OR REPLACE TEMP TABLE active AS
SELECT *, least(coalesce(lead(step) OVER (PARTITION BY supplier_id, product_id ORDER BY step), {grid.size}),
                step + {grid.steps(26)}) AS idle
FROM (SELECT DISTINCT supplier_id, product_id, '' AS site_id, category, region, {grid.sql_index("known_at")} AS step
      FROM line_history)""")


def _event_sql(measures: dict[str, str], rows: str) -> str:
    columns = ", ".join(f"CAST({measures.get(m, '0')} AS DOUBLE) AS {m}" for m in SUPPLY_MEASURES)
    return f"SELECT step, supplier_id, product_id, site_id, category, region, {columns} FROM ({rows})"


def counts(
    con: duckdb.DuckDBPyConnection, events: str, keys: Sequence[str], measures: Sequence[str], grid: Grid
) -> pd.DataFrame:
    """Return the sums of `measures` per step and entity named by `keys`; without keys everything is one entity."""
    sums = ", ".join(f"sum({m}) AS {m}" for m in measures)
    by = ", ".join(keys) or "''"
    key = ", ".join(keys) or "'' AS everything"
    return con.execute(f"SELECT step, {key}, {sums} FROM {events} WHERE step < {grid.size} GROUP BY step, {by}").df()


def tiles(
    counted: pd.DataFrame, entity: np.ndarray, entities: int, measures: Sequence[str], grid: Grid
) -> Iterator[tuple[slice, xr.Dataset]]:
    """Yield dense panels (as_of, entity) over blocks of entities, with the block's place among all entities.

    `entity` numbers the entity of every counted row from 0 to `entities` − 1.
    """
    width = max(min(TILE_CELLS // grid.size, entities), 1)
    order = np.argsort(entity, kind="stable")
    steps, sorted_entity = counted["step"].to_numpy()[order], entity[order]
    values = {m: counted[m].to_numpy(np.float64)[order] for m in measures}
    for first in range(0, entities, width):
        block = slice(first, min(first + width, entities))
        rows = slice(*np.searchsorted(sorted_entity, [block.start, block.stop]))
        mine = {m: v[rows] for m, v in values.items()}
        yield block, dense(steps[rows], sorted_entity[rows] - first, mine, block.stop - block.start, grid)


def dense(
    steps: np.ndarray, entity: np.ndarray, values: Mapping[str, np.ndarray], entities: int, grid: Grid
) -> xr.Dataset:
    """Return a panel (as_of, entity) of values given once per step and entity; zero where none is given.

    In memory the weeks of an entity stand one after the other: formulas work along them.
    """
    panel = xr.Dataset(attrs={"step_days": grid.step_days})
    place = entity.astype(np.int64) * grid.size + steps
    for measure, value in values.items():
        cells = np.zeros(entities * grid.size)
        cells[place] = value
        panel[measure] = over_steps(cells.reshape(entities, grid.size).T, grid)
    return panel


def over_steps(values: np.ndarray, grid: Grid) -> xr.DataArray:
    """Return [as_of, entity] values as a variable of a panel on this grid."""
    return xr.DataArray(values, dims=("as_of", "entity"), attrs={"step_days": grid.step_days})
