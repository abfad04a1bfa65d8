"""Turn facts into dense weekly panels, each fact counted in the step in which it became known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd
import xarray as xr

from features.weeks import Grid

TILE_CELLS = 24_000_000  # cells of one measure held at once; blocks of entities beyond it


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
        "SELECT quantile_cont(epoch(known_at - CAST(received_on AS TIMESTAMP)) / 86400, 0.95) FROM receipts WHERE known_at < ?",
        [as_of],
    ).fetchone()[0]  # type: ignore[index]
    return max(int(np.ceil(lag or 1)), 1)


def write_line_history(con: duckdb.DuckDBPyConnection, terms: Terms, attributes: Sequence[str] = ()) -> None:
    """Make the tables `line_history` (one row per purchase line) and `promise_history` (one per promise).

    `complete_known_at` is when the receipts known until then first covered the line; `complete_on` is the business
    day C on which, by those receipts, it was covered. `closed_at` ends the line's time in the risk set.
    """
    extra = "".join(f', p."{name}"' for name in attributes)
    con.execute(f"""
CREATE OR REPLACE TABLE line_history AS
WITH got AS (
  SELECT r.po_line_id, r.received_on, r.known_at, p.quantity * (1 - {terms.short_tolerance}) - 1e-9 AS needed,
         sum(coalesce(r.quantity, p.quantity)) OVER known AS known_total, coalesce(r.quantity, p.quantity) AS quantity
  FROM receipts r JOIN purchases p USING (po_line_id)
  WINDOW known AS (PARTITION BY r.po_line_id ORDER BY r.known_at RANGE UNBOUNDED PRECEDING)),
complete AS (SELECT po_line_id, min(known_at) AS complete_known_at FROM got WHERE known_total >= needed GROUP BY 1),
covered AS (
  SELECT g.po_line_id, g.received_on, c.complete_known_at, g.needed,
         sum(g.quantity) OVER (PARTITION BY g.po_line_id ORDER BY g.received_on RANGE UNBOUNDED PRECEDING) AS total
  FROM got g JOIN complete c USING (po_line_id) WHERE g.known_at <= c.complete_known_at),
done AS (SELECT po_line_id, any_value(complete_known_at) AS complete_known_at, min(received_on) AS complete_on
         FROM covered WHERE total >= needed GROUP BY 1)
SELECT CAST(row_number() OVER (ORDER BY p.po_line_id) - 1 AS INTEGER) AS line, p.po_line_id,
       p.supplier_id, p.product_id, p.site_id, coalesce(i.category, '') AS category, coalesce(s.region, '') AS region,
       coalesce(l.region, '') AS site_region, p.known_at, CAST(p.ordered_at AS DATE) AS ordered_on, p.promised_on,
       p.quantity, p.unit_cost, p.requested_on, p.need_on, p.cancelled_at, d.complete_on, d.complete_known_at,
       least(d.complete_known_at, p.cancelled_at) AS closed_at,
       p.cancelled_at IS NOT NULL AND coalesce(p.cancelled_by, '') <> 'supplier' AS buyer_cancelled{extra}
FROM purchases p LEFT JOIN done d USING (po_line_id)
LEFT JOIN suppliers s ON s.supplier_id = p.supplier_id
LEFT JOIN products i ON i.product_id = p.product_id
LEFT JOIN sites l ON l.site_id = p.site_id""")
    con.execute("""
CREATE OR REPLACE TABLE promise_history AS
SELECT line, known_at, promised_on, lead(known_at) OVER later AS until, row_number() OVER later - 1 AS nth,
       promised_on - lag(promised_on) OVER later AS pushed_days
FROM (
  SELECT line, known_at, promised_on FROM line_history WHERE promised_on IS NOT NULL
  UNION ALL
  SELECT h.line, greatest(m.known_at, h.known_at), m.promised_on
  FROM promises m JOIN line_history h USING (po_line_id) WHERE m.promised_on IS DISTINCT FROM h.promised_on OR m.known_at > h.known_at)
WINDOW later AS (PARTITION BY line ORDER BY known_at, promised_on)""")


SUPPLY_MEASURES = (
    "ordered_lines", "ordered_units", "ordered_value", "promised_lines", "promised_days", "closed_lines", "completed_lines",
    "lead_days", "lead_days_sq", "days_late", "receipts", "pushes", "push_days", "matured_lines", "late_lines",
    "overdue_lines", "products",
)  # fmt: skip


def write_line_events(con: duckdb.DuckDBPyConnection, grid: Grid, terms: Terms) -> None:
    """Make the table `line_events`: one row per thing that became known about a line, with its step and measures.

    A promise that still stood when it fell due has *matured* `posting_lag_days` later, whatever its outcome. It
    counts as late then unless an on-time completion was known; one posted later takes the lateness back.
    """
    at, on = grid.sql_index, grid.sql_index_of_day
    due = f"(m.promised_on + {terms.tolerance_days})"
    kinds: tuple[tuple[dict[str, str], str], ...] = (
        (
            {
                "ordered_lines": "1",
                "ordered_units": "quantity",
                "ordered_value": "quantity * coalesce(unit_cost, 0)",
                "promised_lines": "CAST(promised_on IS NOT NULL AS INT)",
                "promised_days": "coalesce(promised_on - ordered_on, 0)",
            },
            f"SELECT *, {at('known_at')} AS step FROM line_history",
        ),
        ({"closed_lines": "1"}, f"SELECT *, {at('closed_at')} AS step FROM line_history WHERE closed_at IS NOT NULL"),
        (
            {
                "completed_lines": "1",
                "lead_days": "complete_on - ordered_on",
                "lead_days_sq": "(complete_on - ordered_on) ** 2",
                "days_late": "coalesce(complete_on - promised_on, 0)",
            },
            f"SELECT *, {at('complete_known_at')} AS step FROM line_history WHERE complete_known_at IS NOT NULL",
        ),
        (
            {"receipts": "1"},
            f"SELECT h.*, {at('r.known_at')} AS step FROM receipts r JOIN line_history h USING (po_line_id)",
        ),
        (
            {"pushes": "1", "push_days": "pushed_days"},
            f"SELECT h.*, m.pushed_days, {at('m.known_at')} AS step "
            "FROM promise_history m JOIN line_history h USING (line) WHERE m.pushed_days > 0",
        ),
        ({"matured_lines": "1"}, "SELECT * FROM due"),
        ({"late_lines": "1"}, "SELECT * FROM due WHERE NOT (on_time AND told <= step)"),
        ({"late_lines": "-1"}, "SELECT * REPLACE (told AS step) FROM due WHERE on_time AND told > step"),
        ({"overdue_lines": "1"}, "SELECT * REPLACE (over AS step) FROM due WHERE ended > over"),
        ({"overdue_lines": "-1"}, "SELECT * REPLACE (ended AS step) FROM due WHERE ended > over"),
        ({"products": "1"}, "SELECT * FROM active"),
        ({"products": "-1"}, "SELECT * REPLACE (idle AS step) FROM active"),
    )
    con.execute(f"""
CREATE OR REPLACE TEMP TABLE due AS
SELECT h.*, greatest({on(f"{due} + {terms.posting_lag_days}")}, {at("m.known_at")}) AS step,
       coalesce(h.complete_on <= {due}, false) AS on_time, {at("h.complete_known_at")} AS told,
       greatest({on(f"{due} + 1")}, {at("m.known_at")}) AS over,
       coalesce(least({at("h.closed_at")}, {at("m.until")}), {grid.size}) AS ended
FROM promise_history m JOIN line_history h USING (line)
WHERE (m.until IS NULL OR m.until >= CAST({due} + 1 AS TIMESTAMP))
  AND NOT (h.buyer_cancelled AND h.cancelled_at < CAST({due} + 1 AS TIMESTAMP) AND (h.complete_known_at IS NULL OR h.complete_known_at > h.cancelled_at));
CREATE OR REPLACE TEMP TABLE active AS
SELECT *, least(coalesce(lead(step) OVER (PARTITION BY supplier_id, product_id ORDER BY step), {grid.size}),
                step + {grid.steps(26)}) AS idle
FROM (SELECT any_value(COLUMNS(h.* EXCLUDE (supplier_id, product_id))), supplier_id, product_id, {at("known_at")} AS step
      FROM line_history h GROUP BY ALL)""")
    con.execute(f"CREATE OR REPLACE TABLE line_events AS {' UNION ALL '.join(_event_sql(*kind) for kind in kinds)}")


def _event_sql(measures: dict[str, str], rows: str) -> str:
    columns = ", ".join(f"CAST({measures.get(m, '0')} AS DOUBLE) AS {m}" for m in SUPPLY_MEASURES)
    return f"SELECT step, supplier_id, product_id, site_id, category, region, {columns} FROM ({rows})"


def counts(
    con: duckdb.DuckDBPyConnection, events: str, keys: Sequence[str], measures: Sequence[str], grid: Grid
) -> pd.DataFrame:
    """Return the sums of `measures` per step and entity, entities sorted by `keys`."""
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
        yield (
            block,
            _dense(steps[rows], sorted_entity[rows] - first, {m: v[rows] for m, v in values.items()}, block, grid),
        )


def _dense(
    steps: np.ndarray, entity: np.ndarray, values: dict[str, np.ndarray], block: slice, grid: Grid
) -> xr.Dataset:
    variables = {}
    for measure, value in values.items():
        dense = np.zeros((grid.size, block.stop - block.start))
        np.add.at(dense, (steps, entity), value)
        variables[measure] = xr.DataArray(dense, dims=("as_of", "entity"), attrs={"step_days": grid.step_days})
    return xr.Dataset(
        variables, coords={"as_of": grid.days.astype("datetime64[ns]")}, attrs={"step_days": grid.step_days}
    )
