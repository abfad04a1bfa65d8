"""Open purchase-order lines as they stood at each as-of, and what the line itself tells."""

from collections.abc import Sequence

import duckdb
import numpy as np
import pandas as pd

from features.core import Feature, ratio
from features.panels import CLOSED_AT, Terms, completions
from features.sampling import EVERY, Sample, in_sample, stretches
from features.threads import pieces, side_by_side
from features.tiles import write_rows
from features.weeks import Grid, closed_days, holiday_dates, working_days

ENDS = ["complete_on", "complete_known_at", "closed_at", "buyer_cancelled", "cancelled_at"]  # nobody knew them then
EDGES, HASHED = ["opens", "closes", "hashed"], "hash(po_line_id)"
LINES = 1 << 14  # lines whose snapshots are numbered at a time
CHUNK = 500_000  # lines whose snapshots are listed at once, before the sample is taken


def open_lines(
    con: duckdb.DuckDBPyConnection, grid: Grid, terms: Terms, *, steps: np.ndarray, country: str = "",
    sample: Sample = EVERY,
) -> pd.DataFrame:  # fmt: skip
    """Return one row per line and as-of at which the line is in the risk set R(s) (DEFINITIONS 1).

    `steps` picks as-of days by their index in the grid, `sample` what is left out of them. Every column is a fact of
    the line known before the row's as-of: `promised_on` is the promise then in force, `received_units` what had come
    in, `state` due_future, already_late or no_promise; `sampled` is there with a sample.
    """
    number, step = _snapshots(con, grid, np.unique(steps), sample)
    begins = np.diff(number, prepend=-1) > 0  # a line's snapshots stand together
    asked, line = number[begins], np.cumsum(begins, dtype=np.int32) - 1
    con.register("asked_lines", pd.DataFrame({"line": asked}))
    lines = _lines(con, grid, "line IN (SELECT line FROM asked_lines)")
    con.unregister("asked_lines")
    rows = lines.drop(columns=[*EDGES, "promised_on", *ENDS]).take(line).reset_index(drop=True)
    rows["step"], rows["as_of"] = step, grid.days[step].astype("datetime64[s]")
    rows["ordered_step"] = np.minimum(lines["opens"].to_numpy(np.int64)[line], step)
    rows["first_promised_on"] = lines["promised_on"].to_numpy()[line]
    rows = _marked(rows, lines["hashed"].to_numpy(np.uint64)[line], sample)
    return _add_state(_add_receipts(con, _add_promises(con, rows, grid), grid), terms, country)


def _snapshots(
    con: duckdb.DuckDBPyConnection, grid: Grid, steps: np.ndarray, sample: Sample
) -> tuple[np.ndarray, np.ndarray]:
    """Return line and step of every snapshot in the sample, sorted by line, then step."""
    opens, closes, key = _edges(con, grid)
    if sample.share >= 1:
        return stays(opens, closes, steps, grid.size)
    kept = [(np.empty(0, np.int64), steps[:0])]
    for first in range(0, len(opens), CHUNK):
        part = slice(first, first + CHUNK)
        line, step = stays(opens[part], closes[part], steps, grid.size)
        mine = sample.keeps(key[part][line], grid.days[step])
        kept.append((line[mine] + first, step[mine]))
    return np.concatenate([line for line, _ in kept]), np.concatenate([step for _, step in kept])


def count_open(con: duckdb.DuckDBPyConnection, grid: Grid, terms: Terms, steps: np.ndarray) -> int:
    """Return how many rows `open_lines` has when no sample is taken; needs no `line_history`."""
    lines = f"SELECT p.known_at, {CLOSED_AT} AS closed_at FROM purchases p LEFT JOIN complete d USING (po_line_id)"
    found = con.execute(f"WITH {completions(terms)} SELECT {_steps_of(grid)} FROM ({lines})").fetchnumpy()
    opens, closes = (np.asarray(found[edge], np.int64) for edge in ("opens", "closes"))
    return int(stretches(opens, closes, np.unique(steps), grid.size)[1].sum())


def _edges(con: duckdb.DuckDBPyConnection, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the steps at which every line enters and leaves the risk set, and its hash; unknown ones never enter."""
    found = con.execute(f"SELECT {_steps_of(grid)}, {HASHED} AS hashed FROM line_history ORDER BY line").fetchnumpy()
    opens, closes = (np.asarray(found[edge], np.int64) for edge in ("opens", "closes"))
    return opens, closes, np.asarray(found["hashed"], np.uint64)


def _steps_of(grid: Grid) -> str:
    """SQL for the steps at which a line enters and leaves the risk set; one that is unknown never enters."""
    known, closed = grid.sql_index("known_at"), grid.sql_index("closed_at")
    opens = f"CASE WHEN known_at < DATE '{grid.as_of}' THEN {known} ELSE {grid.size} END AS opens"
    return f"{opens}, coalesce({closed}, {grid.size}) AS closes"


def stays(opens: np.ndarray, closes: np.ndarray, steps: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of the line and the step of every snapshot: those of `steps` with opens ≤ step < closes."""
    begin, length = stretches(opens, closes, steps, size)
    last = np.cumsum(length)
    line, step = np.empty(int(last[-1:].sum()), np.int32), np.empty(int(last[-1:].sum()), steps.dtype)

    def work(lines: slice) -> None:
        times = length[lines]
        first = last[lines] - times  # each line's first snapshot
        rows = slice(int(first[0]), int(last[lines.stop - 1]))
        line[rows] = np.repeat(np.arange(lines.start, lines.stop, dtype=np.int32), times)
        step[rows] = steps[np.arange(rows.start, rows.stop) + np.repeat(begin[lines] - first, times)]

    side_by_side(work, pieces(len(opens), LINES))
    return line, step


# Lines that were complete when they became known, by receipts known before that day.
HAD_COME = """SELECT line FROM line_history h JOIN receipts r USING (po_line_id) WHERE complete_known_at <= h.known_at
GROUP BY line, h.known_at HAVING max(r.known_at) < date_trunc('day', h.known_at)"""


def new_lines(
    con: duckdb.DuckDBPyConnection, grid: Grid, terms: Terms, *, steps: np.ndarray, country: str = "",
    sample: Sample = EVERY,
) -> pd.DataFrame:  # fmt: skip
    """Return one row per line as it was ordered, with the columns of `open_lines`; the grid's steps are days.

    The as-of is the day on which the line became known. The line's own facts are those of its first record; all else
    was known before that day, and so were the receipts of lines that are left out because they had come by then.
    """
    if grid.step_days != 1:
        raise ValueError(f"lines are seen at their order on a grid of days; this one has steps of {grid.step_days}")
    lines = _lines(con, grid, f"known_at < DATE '{{}}' + 1 AND line NOT IN ({HAD_COME})")
    step = lines["opens"].to_numpy(np.int64) - 1
    asked = np.isin(step, steps) & sample.keeps(lines["hashed"].to_numpy(np.uint64), grid.days[step])
    lines, step = lines[asked], step[asked]
    rows = lines.drop(columns=[*EDGES, *ENDS]).reset_index(drop=True)
    rows["step"], rows["as_of"] = step, grid.days[step].astype("datetime64[s]")
    rows["ordered_step"], rows["first_promised_on"] = step, rows["promised_on"]
    told = rows["as_of"].where(rows["promised_on"].notna())
    rows = rows.assign(pushes=0.0, promise_known_on=told, received_units=0.0)
    rows = _marked(rows, lines["hashed"].to_numpy(np.uint64), sample)
    return _add_state(rows, terms, country)


def _marked(rows: pd.DataFrame, key: np.ndarray, sample: Sample) -> pd.DataFrame:
    """Add `sampled` where a sample is taken: what lies outside it is there to be judged, not to learn from."""
    if sample.share >= 1:
        return rows
    return rows.assign(sampled=in_sample(key, rows["as_of"].to_numpy(), sample.share))


def _lines(con: duckdb.DuckDBPyConnection, grid: Grid, known: str) -> pd.DataFrame:
    """Return the lines that are known, with the steps at which they enter and leave the risk set."""
    opens, closes = grid.sql_index("known_at"), grid.sql_index("closed_at")
    return con.execute(
        f"SELECT *, {opens} AS opens, coalesce({closes}, {grid.size}) AS closes, {HASHED} AS hashed "
        f"FROM line_history WHERE {known.format(grid.as_of)} ORDER BY line"
    ).df()


def _as_of_rows(events: pd.DataFrame, rows: pd.DataFrame, grid: Grid) -> np.ndarray:
    """Return, for each row, the place of its line's last event at or before its step, −1 without one.

    `events` is sorted by line, then time, with the step in which each became known.
    """
    key = events["line"].to_numpy(np.int64) * (grid.size + 1) + events["step"].to_numpy().clip(0, grid.size)
    asked = rows["line"].to_numpy(np.int64) * (grid.size + 1) + rows["step"].to_numpy()
    place = np.searchsorted(key, asked, side="right") - 1
    mine = (place >= 0) & (events["line"].to_numpy()[place] == rows["line"].to_numpy()) if len(events) else place >= 0
    return np.where(mine, place, -1)


def _add_promises(con: duckdb.DuckDBPyConnection, rows: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    events = con.execute(
        f"SELECT line, promised_on, {grid.sql_index('known_at')} AS step, CAST(known_at AS DATE) AS known_on, "
        "CAST(count(*) FILTER (pushed_days > 0) OVER (PARTITION BY line ORDER BY nth) AS DOUBLE) AS pushes "
        "FROM promise_history ORDER BY line, nth"
    ).df()
    place = _as_of_rows(events, rows, grid)
    known = place >= 0
    promised, told = np.full((2, len(rows)), np.datetime64("NaT", "s"), "datetime64[s]")
    pushes = np.zeros(len(rows))
    promised[known] = events["promised_on"].to_numpy().astype("datetime64[s]")[place[known]]
    pushes[known] = events["pushes"].to_numpy()[place[known]]
    told[known] = events["known_on"].to_numpy().astype("datetime64[s]")[place[known]]
    return rows.assign(promised_on=promised, pushes=pushes, promise_known_on=told)


def _add_receipts(con: duckdb.DuckDBPyConnection, rows: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    events = con.execute(
        f"SELECT h.line, {grid.sql_index('r.known_at')} AS step, "
        "sum(coalesce(r.quantity, h.quantity)) OVER (PARTITION BY h.line ORDER BY r.known_at, r.received_on) AS units "
        "FROM receipts r JOIN line_history h USING (po_line_id) ORDER BY h.line, r.known_at, r.received_on"
    ).df()
    place = _as_of_rows(events, rows, grid)
    units = np.where(place >= 0, events["units"].to_numpy()[place] if len(events) else 0.0, 0.0)
    return rows.assign(received_units=np.minimum(units, rows["quantity"].to_numpy()))


def _add_state(rows: pd.DataFrame, terms: Terms, country: str) -> pd.DataFrame:
    due = rows["promised_on"] + pd.to_timedelta(terms.tolerance_days, unit="D")
    state = np.select([rows["promised_on"].isna(), due >= rows["as_of"]], ["no_promise", "due_future"], "already_late")
    closed = holiday_dates(country)
    begin, ordered = (rows[c].to_numpy().astype("datetime64[D]") for c in ("as_of", "ordered_on"))
    end = due.fillna(rows["as_of"]).to_numpy().astype("datetime64[D]")
    known = rows["promised_on"].notna().to_numpy()
    return rows.assign(
        state=state,
        due_on=due,
        open_units=rows["quantity"] - rows["received_units"],
        working_days_left=np.where(known, working_days(begin, end, closed), np.nan),
        promised_work=np.where(known, working_days(ordered, end, closed), np.nan),
        age_work=working_days(ordered, begin, closed).astype(float),
        holidays_left=np.where(known, np.maximum(closed_days(begin, end, closed), 0), np.nan),
    )


def days(rows: pd.DataFrame, end: str, begin: str) -> np.ndarray:
    """Days from column `begin` to column `end` as float, NaN where either is missing."""
    return ((rows[end] - rows[begin]) / pd.Timedelta(days=1)).to_numpy(np.float64)


def _remaining(rows: pd.DataFrame, usual: str) -> np.ndarray:
    return days(rows, "due_on", "ordered_on") - rows[usual].to_numpy(np.float64)


LINE_FEATURES = (
    Feature(
        "age_days", lambda r: days(r, "as_of", "ordered_on"), "days", "Days since the line was ordered.",
        "ordered {value} ago, usually {usual}", "age",
    ),
    Feature(
        "days_to_promise", lambda r: days(r, "due_on", "as_of"), "days",
        "Days until the promise in force, with tolerance; negative once it has passed.",
        "due {value:in}, usually {usual:in}", "time left",
    ),
    Feature(
        "working_days_left", lambda r: r["working_days_left"], "days",
        "Working days until the promise in force, the calendar's holidays left out.",
        "{value:working} left until the promise, usually {usual:working}", "time left",
    ),
    Feature(
        "holidays_left", lambda r: r["holidays_left"], "days", "Public holidays before the promise in force.",
        "{value:holidays} before the promise", "time left",
    ),
    Feature(
        "promised_working_days", lambda r: r["promised_work"], "days",
        "Working days from order to the promise in force, the calendar's holidays left out.",
        "{value:working} from order to promise, usually {usual:working}", "promise",
    ),
    Feature(
        "age_share", lambda r: ratio(days(r, "as_of", "ordered_on"), days(r, "due_on", "ordered_on")), "share",
        "Share of the time from order to promise that has gone by.",
        "{value} of the time from order to promise is gone, usually {usual}", "time left",
    ),
    Feature(
        "promised_lead_days", lambda r: days(r, "first_promised_on", "ordered_on"), "days",
        "Days from order to first promise.", "promised {value} after the order, usually {usual}", "promise",
    ),
    Feature(
        "promised_lead_vs_supplier",
        lambda r: days(r, "first_promised_on", "ordered_on") - r["supplier_promised_days_52w"], "days",
        "Promised lead time less the supplier's mean promised lead time of 52 weeks.",
        "promised lead time {value:shorter} than usual at this supplier", "promise",
    ),
    Feature(
        "promised_lead_vs_item",
        lambda r: days(r, "first_promised_on", "ordered_on") - r["supplier_product_promised_days_52w"], "days",
        "Promised lead time less the mean promised lead time of this item at this supplier.",
        "promised lead time {value:shorter} than usual for this item", "promise",
    ),
    Feature(
        "slack_vs_supplier", lambda r: _remaining(r, "supplier_lead_days_13w"), "days",
        "Days from order to the promise in force, with tolerance, less the supplier's mean lead time of 13 weeks.",
        "the promise leaves {value:more} than the supplier takes on average", "promise",
    ),
    Feature(
        "slack_vs_item", lambda r: _remaining(r, "supplier_product_lead_days_52w"), "days",
        "Days from order to the promise in force, with tolerance, less the item's mean lead time at this supplier.",
        "the promise leaves {value:more} than the supplier takes on average for this item", "promise",
    ),
    Feature(
        "pushes", lambda r: r["pushes"], "pushes", "Times the promise of this line was pushed back.",
        "promise pushed back {value:times} so far", "pushed",
    ),
    Feature(
        "slip_days", lambda r: days(r, "promised_on", "first_promised_on"), "days",
        "Days from first promise to the promise in force.", "promise {value:moved} since it was first given", "pushed",
    ),
    Feature(
        "promise_age_days", lambda r: days(r, "as_of", "promise_known_on"), "days",
        "Days since the promise in force became known.", "promise confirmed {value} ago, usually {usual}", "pushed",
    ),
    Feature(
        "received_share", lambda r: ratio(r["received_units"], r["quantity"]), "share",
        "Share of the ordered quantity already received.", "{value} already received", "received",
    ),
    Feature(
        "units_vs_usual", lambda r: ratio(r["quantity"], r["supplier_product_line_units_52w"]), "ratio",
        "Ordered quantity against the mean line of this item at this supplier.",
        "the line is {value} the usual size", "size",
    ),
    Feature(
        "line_value", lambda r: r["quantity"] * r["unit_cost"], "money", "Value of the line at its unit cost.",
        "the line is worth {value}, usually {usual}", "size",
    ),
    Feature(
        "cost_vs_usual", lambda r: ratio(r["unit_cost"], r["supplier_product_unit_cost_52w"]), "ratio",
        "Unit cost against the mean cost of this item at this supplier.", "the price is {value} the usual", "price",
    ),
    Feature(
        "need_slack_days", lambda r: days(r, "need_on", "due_on"), "days",
        "Days from the promise in force, with tolerance, to the day the goods are needed.",
        "due {value:before} the day the goods are needed, usually {usual:before}", "need",
    ),
    Feature(
        "promised_vs_requested_days", lambda r: days(r, "first_promised_on", "requested_on"), "days",
        "First promise less the day the buyer asked for.", "promised {value:after} the day asked for", "need",
    ),
    Feature(
        "as_of_day", lambda r: r["as_of"].to_numpy().astype("datetime64[D]").astype(float), "day number",
        "The as-of itself, in days since 1970: it tells which weekdays and holidays lie ahead.",
        "the weekdays and holidays after {value:date}", "calendar",
    ),
    Feature(
        "order_hour", lambda r: np.floor(r["ordered_hour"].to_numpy(float)), "hour",
        "Hour of the day at which the line was ordered, as its timestamp says.", "ordered at {value:hour}", "calendar",
    ),
    Feature(
        "order_weekday", lambda r: r["ordered_on"].dt.day_of_week, "weekday", "Weekday of the order, Monday is 0.",
        "ordered on a {value:weekday}", "calendar",
    ),
    Feature(
        "promise_weekday", lambda r: r["promised_on"].dt.day_of_week, "weekday", "Weekday of the promise in force.",
        "promised for a {value:weekday}", "calendar",
    ),
    Feature(
        "order_month", lambda r: r["ordered_on"].dt.month, "month", "Month of the order.",
        "ordered in {value:month}", "calendar",
    ),
    Feature(
        "promise_month", lambda r: r["promised_on"].dt.month, "month", "Month of the promise in force.",
        "promised for {value:month}", "calendar",
    ),
)  # fmt: skip


def line_features(rows: pd.DataFrame, features: Sequence[Feature] = LINE_FEATURES) -> np.ndarray:
    """Return float32 [row, feature] of the line's own features; `rows` has the levels' features they lean on."""
    out = np.empty((len(rows), len(features)), np.float32)
    columns = [np.asarray(feature.formula(rows), np.float64).astype(np.float32) for feature in features]
    write_rows([column.__getitem__ for column in columns], out)
    return out
