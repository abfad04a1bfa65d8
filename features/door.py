"""Hold raw tables to their contracts: good rows typed, bad rows in quarantine with their reasons, nothing lost."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import duckdb

from features.casting import EXPECTED, accepts, cleaned, quote, stage_sql, typed
from features.contracts import ORDERS, TABLES, Breach, Column, ContractError, Table, Verdict
from features.doubts import currencies, days_of_moments, doubts
from features.quarantine import (
    TWICE,
    count_reasons,
    find_duplicates,
    find_links,
    find_own,
    find_unsplit,
    open_quarantine,
    part,
    set_aside,
)

TYPES = {"id": "VARCHAR", "text": "VARCHAR", "date": "DATE", "timestamp": "TIMESTAMP", "number": "DOUBLE"}
OURS = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.InternalException)

REMEDIES = {
    "is not an ISO date (YYYY-MM-DD)": "write every date as YYYY-MM-DD",
    "is not a number": "write 1234.5, without thousands separators or units",
    "no UTF-8 text": "save the file as CSV UTF-8",
    "quantity is negative": "leave returns and credit notes out",
    "quantity is not positive": "leave reversed receipts and what they reverse out",
    "promised before ordered": "leave promised_on empty where the order was entered after the fact",
    "duplicate key": "bring each once, as it stands now",
}
"""What to do about a reason, by the words it ends with."""
SAME_DAY = {"duplicate key": "give receipts of a line on one day a receipt_id of their own, or bring their sum"}
WEEKLY = (
    "the rows look like weekly totals (one per product, site and week, always the same weekday), so each counts as "
    "known when its week ends, ordered_at + 7 days; bring known_at if that is wrong"
)


@dataclass(slots=True)
class Seen:
    """What is known so far of one table on its way through the door."""

    table: Table
    source: str = ""
    raw: dict[str, str] = field(default_factory=dict)
    breaches: list[Breach] = field(default_factory=list)
    staged: str = ""
    rows: int = 0

    def error(self, column: str, count: int, message: str) -> None:
        self.breaches.append(Breach("error", self.table.name, column, count, message))

    def warn(self, column: str, count: int, message: str) -> None:
        self.breaches.append(Breach("warning", self.table.name, column, count, message))

    @property
    def broken(self) -> bool:
        return any(b.severity == "error" for b in self.breaches)


def hold(
    con: duckdb.DuckDBPyConnection,
    sources: Mapping[str, str],
    *,
    now: datetime,
    max_quarantined: float = 0.10,
    attributes: Sequence[str] = (),
    short_tolerance: float = 0.0,
    known_before: date | None = None,
) -> tuple[Verdict, ...]:
    """Create every contract table and `quarantine` in `con` from raw relations, and say what came of each table.

    `sources` maps table names to relations in `con`; lines their reader could not split into cells are taken from
    `<relation>_rejects` and `…_scans` where there are such (DuckDB's own). Facts that became known on `known_before` or
    later are not there yet: they are neither kept nor counted, and cannot put earlier ones in doubt. Sets the session's
    time zone to UTC. Raises ContractError with the breaches of all tables at once; then `con` has no contract table,
    but `quarantine`.
    """
    now = now.astimezone(UTC).replace(tzinfo=None) if now.tzinfo else now
    con.execute("SET TimeZone = 'UTC'")
    for name in ("quarantine", *(t.name for t in TABLES)):
        con.execute(f"DROP TABLE IF EXISTS {quote(name)}")
    seen = {t.name: Seen(t, sources.get(t.name, "")) for t in TABLES}
    present = [s for s in seen.values() if s.source]
    _require_a_side(seen)
    open_quarantine(con)
    for s in present:
        _inspect(con, s, attributes if s.table.name == "purchases" else ())
        if not s.broken:
            _stage(con, s, now, known_before)
    ready = {s.table.name: s.table for s in present if s.staged}
    for t in ready.values():
        find_own(con, t)
        find_duplicates(con, t)
    find_links(con, ready)
    for t in ready.values():
        set_aside(con, t)
    verdicts = tuple(
        _judge(con, s, ready, max_quarantined, short_tolerance) for s in seen.values() if s.source or s.breaches
    )
    errors = tuple(e for v in verdicts for e in v.errors)
    _close(con, ready, keep=not errors)
    if errors:
        raise ContractError(errors, verdicts)
    return verdicts


def _require_a_side(seen: Mapping[str, Seen]) -> None:
    """Purchases and receipts run the delay task, orders the shift task; neither is nothing to do."""
    orders, purchases, receipts = (seen[n] for n in ("orders", "purchases", "receipts"))
    if purchases.source and not receipts.source:
        receipts.error("", 0, "the table is missing; purchases came without it, and both are needed to judge delays")
    if receipts.source and not purchases.source:
        purchases.error("", 0, "the table is missing; receipts came without it, and both are needed to judge delays")
    if not (orders.source or purchases.source or receipts.source):
        came = ", ".join(n for n, s in seen.items() if s.source) or "none of the tables"
        needed = "bring orders for demand shifts, or purchases and receipts for late deliveries"
        orders.error("", 0, f"the table is missing, and so are purchases and receipts; found {came}; {needed}")


def _inspect(con: duckdb.DuckDBPyConnection, s: Seen, attributes: Sequence[str]) -> None:
    """Compare column names and types with the contract."""
    if s.source.casefold() in {t.name for t in TABLES}:
        raise ValueError(f"source {s.source!r} has the name of a contract table; give the raw relation another name")
    try:
        described = con.execute(f"DESCRIBE SELECT * FROM {quote(s.source)}").fetchall()
    except duckdb.Error as error:
        return s.error("", 0, unreadable(error))
    s.raw = {row[0]: row[1] for row in described}
    own = {c.name for c in s.table.columns}
    for c in s.table.columns:
        if c.name not in s.raw:
            _missing(s, c, own)
        elif not accepts(c.kind, s.raw[c.name]):
            _wrong_type(con, s, c)
    for name in attributes:
        if name not in s.raw:
            s.error(name, 0, f"settings name this attribute, but the column is missing{_near(name, s.raw)}")
    return None


def _missing(s: Seen, column: Column, own: set[str]) -> None:
    others = [n for n in s.raw if n not in own]
    same = next((n for n in others if n.casefold() == column.name), None)
    if same:
        s.error(column.name, 0, f"the column is written {same!r}; please write {column.name!r}")
    elif column.required:
        s.error(column.name, 0, f"the column is missing{_near(column.name, others) or _columns(s)}")
    elif near := difflib.get_close_matches(column.name, others, 1, 0.85):
        s.warn(column.name, 0, f"there is no such column, but {near[0]!r} looks like it; rename it if it is meant")


def _near(name: str, among: Sequence[str] | Mapping[str, str]) -> str:
    near = difflib.get_close_matches(name, among, 1, 0.6)
    return f"; the closest column is {near[0]!r}; rename it if it is meant" if near else ""


def _columns(s: Seen) -> str:
    """Return the columns that are there, once per table."""
    if any("the columns are" in b.message for b in s.breaches):
        return ""
    return f"; the columns are {', '.join([*s.raw][:20])}" + (", …" if len(s.raw) > 20 else "")


def _wrong_type(con: duckdb.DuckDBPyConnection, s: Seen, c: Column) -> None:
    """Report a column of another type; where all its cells are empty the type says nothing: it counts as absent."""
    name, came, source = quote(c.name), s.raw.pop(c.name), quote(s.source)
    found = con.execute(f"SELECT CAST({name} AS VARCHAR) FROM {source} WHERE {name} IS NOT NULL LIMIT 1").fetchall()
    if found:
        s.error(c.name, 0, f"the column is {came} (such as {found[0][0][:60]!r}), expected {EXPECTED[c.kind]}")
    else:
        without = f"__without_{c.name}_{s.table.name}"
        con.execute(f"CREATE OR REPLACE TEMP VIEW {quote(without)} AS SELECT * EXCLUDE ({name}) FROM {source}")
        s.source = without


def _stage(con: duckdb.DuckDBPyConnection, s: Seen, now: datetime, known_before: date | None) -> None:
    """Read the source once into a typed table beside its reasons."""
    defaults = {c.name: c.default for c in s.table.columns if c.default}
    try:
        if s.table is ORDERS and "known_at" not in s.raw and _weekly_totals(con, s):
            defaults["known_at"] = "ordered_at + INTERVAL 7 DAY - INTERVAL 1 MICROSECOND"
            s.warn("known_at", 0, WEEKLY)
        select = stage_sql(s.table, s.source, s.raw, now=now, defaults=defaults, known_before=known_before)
        _fill(con, s.table, select)
    except duckdb.Error as error:
        return s.error("", 0, unreadable(error))
    s.staged = part(s.table.name)
    if known_before and any(c.name == "known_at" for c in s.table.columns):
        con.execute(f"DELETE FROM {s.staged} WHERE known_at >= DATE '{known_before}'")  # the others keep their numbers
    s.rows = con.execute(f"SELECT count(*) FROM {s.staged}").fetchall()[0][0]
    unsplit, swallowed = find_unsplit(con, s.table, s.source)
    s.rows += unsplit
    if swallowed:
        s.error(
            "", 0, f"a quote opened in line {swallowed:,} is not closed; close it or double it inside a quoted cell"
        )
    if not s.rows and known_before and con.execute(f"SELECT 1 FROM {quote(s.source)} LIMIT 1").fetchall():
        s.warn("", 0, f"no row was known before {known_before}")
    elif not s.rows and not s.table.optional and not s.table.line:  # nothing received yet is a chain that begins
        s.error("", 0, f"the table has its columns but no rows, expected one row per {s.table.key[0]}")
    elif not s.rows:
        s.warn("", 0, "the table has no rows")
    return None


def _fill(con: duckdb.DuckDBPyConnection, table: Table, select: str) -> None:
    """Make the typed table. Keys differ from row to row: to look for a way to pack them would take a third of it."""
    key = table.key[0] if len(table.key) == 1 else ""
    columns = [
        f"{quote(row[0])} {row[1]}" + " USING COMPRESSION 'uncompressed'" * (row[0] == key)
        for row in con.execute(f"DESCRIBE {select}").fetchall()
    ]
    con.execute(f"CREATE OR REPLACE TABLE {part(table.name)} ({', '.join(columns)})")
    con.execute(f"INSERT INTO {part(table.name)} {select}")


def _weekly_totals(con: duckdb.DuckDBPyConnection, s: Seen) -> bool:
    """Say whether orders look like weekly totals: midnight of one weekday, one row per product, site and day."""
    raw, columns = s.raw, {c.name: c for c in s.table.columns}
    names = ("ordered_at", "product_id", "site_id")
    day, product, site = (typed(columns[n].kind, f"({cleaned(columns[n], raw[n])})", raw[n]) for n in names)
    source = quote(s.source)
    weekdays, midnight = con.execute(
        f"SELECT count(DISTINCT isodow(d)), bool_and(d = date_trunc('day', d)) FROM (SELECT {day} AS d FROM {source})"
    ).fetchall()[0]
    if weekdays != 1 or not midnight:
        return False
    return con.execute(
        f"""SELECT max(n) = 1 FROM (SELECT count(*) AS n
            FROM (SELECT {day} AS d, {product} AS p, {site} AS s FROM {source}) WHERE d IS NOT NULL GROUP BY d, p, s)"""
    ).fetchall()[0][0]


def unreadable(error: duckdb.Error) -> str:
    """Return one line for what DuckDB says of a source it cannot read; a slip in our own SQL is no reader's fault."""
    if isinstance(error, OURS):
        raise error
    said = str(error).partition("\nLINE ")[0]  # what follows is our own SQL
    return f"cannot be read: {' '.join(said.split())[:400]}"


def _judge(
    con: duckdb.DuckDBPyConnection, s: Seen, ready: Mapping[str, Table], max_quarantined: float, short_tolerance: float
) -> Verdict:
    """Count what was found, add the breaches that only counting shows, and measure what is kept."""
    name = s.table.name
    if not s.staged:
        return Verdict(name, breaches=tuple(s.breaches))
    bad, reasons = count_reasons(con, name)
    _never_readable(con, s, reasons)
    doubtful = bad - reasons.get(TWICE, 0)  # the second copy of a row puts nothing in doubt
    if s.rows and doubtful / s.rows > max_quarantined and not s.broken:
        s.error("", doubtful, _too_many(con, s, doubtful, reasons, max_quarantined))
    if not s.broken:
        for told in (days_of_moments, currencies):
            for doubt in told(con, s.table, s.source, s.raw):
                s.warn(*doubt)
        for doubt in doubts(con, s.table, ready, short_tolerance):
            s.warn(*doubt)
    facts = _measure(con, s) if s.rows > bad else {}
    return Verdict(name, s.rows, s.rows - bad, bad, tuple(s.breaches), reasons, **facts)


def _never_readable(con: duckdb.DuckDBPyConnection, s: Seen, reasons: Mapping[str, int]) -> None:
    """Report a text column of which not one cell could be read: that is a wrong column, not bad rows."""
    for c in s.table.columns:
        unread = sum(
            n for r, n in reasons.items() if r.startswith((f"{c.name} is not an ISO", f"{c.name} is not a num"))
        )
        if unread > 1 and con.execute(f"SELECT count({quote(c.name)}) = 0 FROM {s.staged}").fetchall()[0][0]:
            example = _example(con, s, f"{c.name} is not a")
            s.error(
                c.name,
                unread,
                f"not one of {unread:,} values can be read, such as {example}; expected {EXPECTED[c.kind]}",
            )


def _example(con: duckdb.DuckDBPyConnection, s: Seen, reason: str) -> str:
    """Return what came in the first such row; of a line that did not split into cells its text says which it is."""
    found = con.execute(
        "SELECT shows, row + 1 FROM __found WHERE table_name = ? AND starts_with(rule, ?) ORDER BY abs(row) LIMIT 1",
        [s.table.name, reason],
    ).fetchall()
    if not found:
        return ""
    shows, row = found[0]
    return f"{shows} in row {row:,}" if row > 0 else shows


def _too_many(con: duckdb.DuckDBPyConnection, s: Seen, bad: int, reasons: Mapping[str, int], allowed: float) -> str:
    """Name the share and the commonest reasons with an example each, and how dates and numbers are to be written."""
    named = []
    for reason, count in [(r, n) for r, n in reasons.items() if r != TWICE][:3]:
        example = f"{reason} in {count:,} row{'s' * (count > 1)}, such as {_example(con, s, reason)}"
        column = reason.partition(" ")[0]
        if " is not an ISO" in reason:
            good = con.execute(f"SELECT CAST(max({quote(column)}) AS VARCHAR) FROM {s.staged}").fetchall()[0][0]
            example += f", while others are written like {good[:10]!r}" if good else ""
        if reason.endswith("for an unknown purchase line"):
            ours = con.execute(f"SELECT min(po_line_id) FROM {part('purchases')}").fetchall()[0][0]
            example += f", while purchases are written like {ours[:40]!r}" if ours else ""
        remedies = REMEDIES | (SAME_DAY if s.table.name == "receipts" else {})
        example += next((f"; {remedy}" for end, remedy in remedies.items() if reason.endswith(end)), "")
        named.append(example)
    return (
        f"{bad:,} of {s.rows:,} rows are bad ({bad / s.rows:.0%}), at most {allowed:.0%} may be (max_quarantined): "
        + "; ".join(named)
    )


def _measure(con: duckdb.DuckDBPyConnection, s: Seen) -> dict[str, Any]:
    """Return days, weeks, entities and latencies of the good rows."""
    ids = [c.name for c in s.table.columns if c.name in ("supplier_id", "product_id", "site_id", "signal")]
    event = quote(s.table.event) if s.table.event else "CAST(NULL AS DATE)"
    first, last, weeks, *counts = con.execute(
        f"""SELECT CAST(min({event}) AS DATE), CAST(max({event}) AS DATE), count(DISTINCT date_trunc('week', {event}))
            {"".join(f", count(DISTINCT {quote(n)})" for n in ids)} FROM {s.staged}"""
    ).fetchall()[0]
    facts = {"first_day": first, "last_day": last, "weeks": weeks, "entities": dict(zip(ids, counts, strict=True))}
    if s.table.event in ("ordered_at", "received_on", "observed_on"):
        facts |= _latency(con, s.staged + (" WHERE kind = 'observed'" if s.table.event == "observed_on" else ""), event)
    return facts


def _latency(con: duckdb.DuckDBPyConnection, good: str, event: str) -> dict[str, float]:
    """Return how long after the event half and 95 % of the rows were known, in whole hours rounded up."""
    hours = con.execute(
        f"""SELECT ceil(epoch_us(known_at - CAST({event} AS TIMESTAMP)) / 3.6e9) AS hours, count(*) FROM {good}
            GROUP BY hours ORDER BY hours"""
    ).fetchall()
    total, passed = sum(n for _, n in hours), 0
    out: dict[str, float] = {}
    for h, n in hours:
        passed += n
        for name, share in (("p50", 0.5), ("p95", 0.95)):
            if passed >= share * total:
                out.setdefault(f"known_at_latency_{name}_hours", float(h))
    return out


def _close(con: duckdb.DuckDBPyConnection, ready: Mapping[str, Table], *, keep: bool) -> None:
    """Give the good rows their contract name and create the tables that did not come; after an error drop them all."""
    con.execute("DROP TABLE __found; DROP TABLE IF EXISTS __twice")
    for t in TABLES:
        if t.name in ready and not keep:
            con.execute(f"DROP TABLE {part(t.name)}")
        elif t.name in ready:
            con.execute(f"ALTER TABLE {part(t.name)} RENAME TO {quote(t.name)}")
        elif keep:
            columns = ", ".join(f"{quote(c.name)} {TYPES[c.kind]}" for c in t.columns)
            con.execute(f"CREATE TABLE {quote(t.name)} ({columns})")
    if keep:
        con.execute(
            """UPDATE receipts SET quantity = p.quantity FROM purchases p
               WHERE receipts.po_line_id = p.po_line_id AND receipts.quantity IS NULL"""
        )
