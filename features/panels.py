"""Turn facts into dense weekly panels, each fact counted in the step in which it became known."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import xarray as xr

from features.casting import quote
from features.threads import pieces, side_by_side, taken
from features.weeks import Grid

TILE_CELLS = 2_000_000  # cells of one measure held at once; blocks of entities beyond it
CHUNK = 1 << 16  # values put in their place at a time


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


def completions(terms: Terms) -> str:
    """SQL for the tables `got`, what came of each line and when it was known, and `complete`: when the receipts known
    until then first covered a line."""
    return f"""got AS (
  SELECT po_line_id, r.received_on, greatest(r.known_at, p.known_at) AS known_at,
         coalesce(r.quantity, p.quantity) AS units, p.quantity * (1 - {terms.short_tolerance} - 1e-12) AS needed
  FROM receipts r JOIN purchases p USING (po_line_id)),
known AS (
  SELECT po_line_id, known_at, needed, sum(units) OVER (PARTITION BY po_line_id ORDER BY known_at) AS total FROM got),
complete AS (SELECT po_line_id, min(known_at) AS complete_known_at FROM known WHERE total >= needed GROUP BY ALL)"""


# When a line `p` leaves the risk set, `d` being what completed it.
CLOSED_AT = """greatest(least(d.complete_known_at, p.cancelled_at),
  CASE WHEN p.cancelled_at IS NOT NULL THEN p.known_at END)"""


def write_line_history(con: duckdb.DuckDBPyConnection, terms: Terms, attributes: Sequence[str] = ()) -> None:
    """Make the tables `line_history` (one row per purchase line) and `promise_history` (one per promise).

    `complete_known_at` is when the receipts known until then first covered the line; `complete_on` is the business
    day C on which, by those receipts, it was covered. `closed_at` ends the line's time in the risk set. Nothing about
    a line counts before the line itself is known.
    """
    extra = "".join(f", p.{quote(name)} AS {quote(f'attribute_{name}')}" for name in attributes)
    con.execute(f"""
CREATE OR REPLACE TABLE line_history AS
WITH {completions(terms)},
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
       {CLOSED_AT} AS closed_at,
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


# What each kind of event counts: SQL over the line (`line_history`), or the event's own `amount`.
AMOUNT = "amount"
KINDS: Mapping[str, Mapping[str, str]] = {
    "ordered": {
        "ordered_lines": AMOUNT, "ordered_units": "quantity", "ordered_value": "quantity * coalesce(unit_cost, 0)",
        "costed_units": "CASE WHEN unit_cost IS NULL THEN 0 ELSE quantity END",
        "promised_lines": "CAST(promised_on IS NOT NULL AS INT)",
        "promised_days": "coalesce(promised_on - ordered_on, 0)",
    },
    "completed": {
        "completed_lines": AMOUNT, "lead_days": "complete_on - ordered_on",
        "lead_days_sq": "(complete_on - ordered_on) ** 2", "timed_lines": "CAST(promised_on IS NOT NULL AS INT)",
        "days_late": "coalesce(complete_on - promised_on, 0)",
    },
    "closed": {"closed_lines": AMOUNT},
    "received": {"receipts": AMOUNT},
    "pushed": {"pushes": AMOUNT},
    "pushed by days": {"push_days": AMOUNT},
    "pushed while open": {"open_pushes": AMOUNT},
    "matured": {"matured_lines": AMOUNT},
    "late": {"late_lines": AMOUNT},
    "overdue": {"overdue_lines": AMOUNT},
    "active": {"products": AMOUNT},
}  # fmt: skip
SUPPLY_MEASURES = tuple(m for measures in KINDS.values() for m in measures)


def write_line_events(con: duckdb.DuckDBPyConnection, grid: Grid, terms: Terms) -> None:
    """Make the table `line_events`: one row per thing that became known about a line, with its kind, step and amount.

    A promise that still stood when it fell due has *matured* `posting_lag_days` later, whatever its outcome. It
    counts as late then unless an on-time completion was known; one posted later takes the lateness back.
    """
    _write_due_promises(con, grid, terms)
    _write_active_products(con, grid)
    at = grid.sql_index
    pushes, closings = PUSHES.format(at("m.known_at")), PUSHES.format(at("h.closed_at"))
    received = at("greatest(r.known_at, h.known_at)")
    kinds = (
        ("ordered", "1", f"SELECT line, {at('known_at')} AS step FROM line_history"),
        ("completed", "1", f"SELECT line, {at('complete_known_at')} AS step FROM line_history WHERE step IS NOT NULL"),
        ("closed", "1", f"SELECT line, {at('closed_at')} AS step FROM line_history WHERE step IS NOT NULL"),
        ("received", "1", f"SELECT line, {received} AS step FROM receipts r JOIN line_history h USING (po_line_id)"),
        ("pushed", "1", pushes),
        ("pushed by days", "pushed_days", pushes),
        ("pushed while open", "1", f"{pushes} AND {STILL_OPEN}"),
        ("pushed while open", "-1", f"{closings} AND {STILL_OPEN} AND h.closed_at IS NOT NULL"),
        ("matured", "1", "SELECT * FROM due"),
        ("late", "1", "SELECT * FROM due WHERE NOT (on_time AND told <= step)"),
        ("late", "-1", "SELECT * REPLACE (told AS step) FROM due WHERE on_time AND told > step"),
        ("overdue", "1", "SELECT * REPLACE (passed AS step) FROM due WHERE ended > passed"),
        ("overdue", "-1", "SELECT * REPLACE (ended AS step) FROM due WHERE ended > passed"),
        ("active", "1", "SELECT * FROM active"),
        ("active", "-1", "SELECT * REPLACE (idle AS step) FROM active"),
    )
    every = " UNION ALL ".join(
        f"SELECT CAST('{kind}' AS {KIND}) AS kind, step, line, CAST({amount} AS FLOAT) AS amount FROM ({rows})"
        for kind, amount, rows in kinds
    )
    con.execute(f"CREATE OR REPLACE TABLE line_events AS {every}")


KIND = f"ENUM({', '.join(map(repr, KINDS))})"
PUSHES = """SELECT line, m.pushed_days, {} AS step
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
SELECT line, greatest({on(f"{due} + {terms.posting_lag_days}")}, {at("m.known_at")}) AS step,
       coalesce(h.complete_on <= {due}, false) AS on_time, {at("h.complete_known_at")} AS told,
       greatest({on(f"{due} + 1")}, {at("m.known_at")}) AS passed,
       coalesce(least({at("h.closed_at")}, {at("m.until")}), {grid.size}) AS ended
FROM promise_history m JOIN line_history h USING (line)
WHERE (m.until IS NULL OR m.until >= CAST({due} + 1 AS TIMESTAMP))
  AND NOT (h.buyer_cancelled AND h.cancelled_at < CAST({due} + 1 AS TIMESTAMP)
           AND (h.complete_known_at IS NULL OR h.complete_known_at > h.cancelled_at))""")


def _write_active_products(con: duckdb.DuckDBPyConnection, grid: Grid) -> None:
    """Make `active`: each stretch of a product's time among those ordered of a supplier in the last 26 weeks.

    A line of theirs stands for the two; the stretch says nothing of its site.
    """
    con.execute(f"""
CREATE OR REPLACE TEMP TABLE active AS
SELECT line, step, least(coalesce(lead(step) OVER (PARTITION BY supplier_id, product_id ORDER BY step), {grid.size}),
                         step + {grid.steps(26)}) AS idle
FROM (SELECT supplier_id, product_id, {grid.sql_index("known_at")} AS step, min(line) AS line
      FROM line_history GROUP BY ALL)""")


@dataclass(frozen=True, slots=True, eq=False)
class Book:
    """All that became known about purchase lines, as arrays: `line_events` read once for every level.

    `codes` numbers, per key column, each line's value from 0; `events` holds per kind the lines, the steps and per
    measure the amounts.
    """

    codes: Mapping[str, np.ndarray]
    events: Mapping[str, tuple[np.ndarray, np.ndarray, Mapping[str, np.ndarray]]]

    def key(self, columns: Sequence[str]) -> np.ndarray:
        """Return one number per line that tells its values of these columns apart."""
        return joint_key(self.codes, columns)


def joint_key(codes: Mapping[str, np.ndarray], columns: Sequence[str]) -> np.ndarray:
    """Return one number per line that tells its values of these columns apart, out of the codes of each."""
    if len(columns) == 1:
        return codes[columns[0]]
    out = np.zeros(len(next(iter(codes.values()))), np.int64)
    for column in columns:
        out = out * (int(codes[column].max(initial=0)) + 1) + codes[column]
    return out


def codes_of(con: duckdb.DuckDBPyConnection, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Number the different values of each of these columns of `line_history` from 0, line by line."""
    lines = con.sql(f"SELECT {', '.join(columns)} FROM line_history ORDER BY line").to_arrow_table()
    return {name: _codes(lines[name]) for name in columns}


LINE_KEYS = ("supplier_id", "product_id", "site_id", "category", "region")


def read_book(con: duckdb.DuckDBPyConnection, grid: Grid) -> Book:
    """Read what happened before the grid's end, from `line_events` and `line_history`."""
    own = {m: sql for measures in KINDS.values() for m, sql in measures.items() if sql != AMOUNT}
    told = ", ".join(f"CAST({sql} AS DOUBLE) AS {m}" for m, sql in own.items())
    lines = con.sql(f"SELECT {', '.join(LINE_KEYS)}, {told} FROM line_history ORDER BY line").to_arrow_table()
    codes = {name: _codes(lines[name]) for name in LINE_KEYS}
    of_line = {m: lines[m].to_numpy() for m in own}
    events = {}
    for kind, measures in KINDS.items():
        line, step, amount = con.execute(
            f"SELECT line, step, amount FROM line_events WHERE kind = '{kind}' AND step < {grid.size}"
        ).fetchnumpy().values()  # fmt: skip
        line, step = np.asarray(line, np.int32), np.asarray(step, np.int32)
        values = {m: of_line[m][line] if m in own else np.asarray(amount, float) for m in measures}
        events[kind] = (line, step, values)
    return Book(codes, events)


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Number the different values of a column from 0."""
    if not len(column):
        return np.zeros(0, np.int32)
    return column.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)


def supply_panels(
    book: Book, entity: np.ndarray, entities: int, grid: Grid, *, by_site: bool = False,
    measures: Set[str] = frozenset(SUPPLY_MEASURES),
) -> Iterator[tuple[slice, xr.Dataset]]:  # fmt: skip
    """Yield dense panels (as_of, entity) of the measures over blocks of entities, with the block's place.

    `entity` numbers each line's entity from 0 to `entities` − 1, −1 for none that is asked for. Entities told apart
    `by_site` have no products of their own.
    """
    width = max(min(TILE_CELLS // grid.size, entities), 1)
    wanted = {
        kind: (line, step, {m: value for m, value in values.items() if m in measures})
        for kind, (line, step, values) in book.events.items() if not measures.isdisjoint(values)
    }  # fmt: skip
    sorted_events = {kind: _by_block(*event, entity, width, entities) for kind, event in wanted.items()}
    for number, first in enumerate(range(0, entities, width)):
        block = slice(first, min(first + width, entities))
        panel = xr.Dataset(attrs={"step_days": grid.step_days})
        for kind, (edges, mine, step, values) in sorted_events.items():
            rows = slice(*edges[number : number + 2])
            place = (mine[rows] - np.int64(first)) * grid.size + step[rows]
            nothing = by_site and kind == "active"
            amounts = {m: np.zeros(0) if nothing else value[rows] for m, value in values.items()}
            cells = sums(place[:0] if nothing else place, amounts, (block.stop - block.start) * grid.size)
            for measure, found in cells.items():
                panel[measure] = over_steps(found.reshape(-1, grid.size).T, grid)
        yield block, panel


def sums(place: np.ndarray, values: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Add every measure's values up per place, measures side by side."""
    out: dict[str, np.ndarray] = {}

    def work(which: slice) -> None:
        for measure in list(values)[which]:
            out[measure] = np.bincount(place, values[measure], size)

    side_by_side(work, pieces(len(values), 1))
    return {measure: out[measure] for measure in values}


def _by_block(
    line: np.ndarray, step: np.ndarray, values: Mapping[str, np.ndarray], entity: np.ndarray, width: int, entities: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Mapping[str, np.ndarray]]:
    """Return the events of asked entities sorted by block, with where each block begins."""
    mine = taken(entity, line)
    if width >= entities and not (mine < 0).any():
        return np.array([0, len(mine)]), mine, step, values
    block = mine // width
    order = np.argsort(block, kind="stable") if width < entities else np.arange(len(line))
    order = order[mine[order] >= 0]
    edges = np.searchsorted(block[order], np.arange(-(-entities // width) + 1))
    return edges, mine[order], step[order], {m: v[order] for m, v in values.items()}


def dense(
    steps: np.ndarray, entity: np.ndarray, values: Mapping[str, np.ndarray], entities: int, grid: Grid
) -> xr.Dataset:
    """Return a panel (as_of, entity) of values given per step and entity, added where given twice; zero where none is.

    In memory the weeks of an entity stand one after the other: formulas work along them.
    """
    panel = xr.Dataset(attrs={"step_days": grid.step_days})
    cells = _given_once(steps, entity, values, entities, grid)
    if cells is None:
        place = entity.astype(np.int64) * grid.size + steps
        cells = sums(place, values, entities * grid.size)
    for measure, value in cells.items():
        panel[measure] = over_steps(value.reshape(entities, grid.size).T, grid)
    return panel


def _given_once(
    steps: np.ndarray, entity: np.ndarray, values: Mapping[str, np.ndarray], entities: int, grid: Grid
) -> dict[str, np.ndarray] | None:
    """Return the cells of values that are sorted by entity and step, each given once; None where they are not."""
    cells = {measure: np.zeros(entities * grid.size) for measure in values}
    sorted_pieces = []

    def work(rows: slice) -> None:
        since = max(rows.start - 1, 0)
        place = entity[since : rows.stop] * np.int64(grid.size) + steps[since : rows.stop]
        if not (place[1:] > place[:-1]).all():
            return
        place = place[rows.start - since :]
        gapless = int(place[-1]) - int(place[0]) == len(place) - 1
        where = slice(int(place[0]), int(place[-1]) + 1) if gapless else place
        for measure, value in values.items():
            cells[measure][where] = value[rows]
        sorted_pieces.append(rows)

    cut = list(pieces(len(steps), CHUNK))
    side_by_side(work, cut[:1])
    if sorted_pieces:
        side_by_side(work, cut[1:])
    return cells if len(sorted_pieces) == len(cut) else None


def over_steps(values: np.ndarray, grid: Grid) -> xr.Variable:
    """Return [as_of, entity] values as a variable of a panel on this grid; unlike a DataArray it asks for no Dask."""
    return xr.Variable(("as_of", "entity"), values, {"step_days": grid.step_days}, fastpath=True)
