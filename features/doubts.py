"""Warn of what no rule refuses and is probably wrong all the same."""

from collections.abc import Iterator, Mapping

import duckdb

from features.casting import ZONED, quote
from features.contracts import Table
from features.quarantine import part

LONG_GAP, MANY_ORDERS = 4, 5  # weeks without any order more than usual, and orders a week that make them strange
FAR_OUT, FEW = 1000, 10  # times the mean of a product's other lines, and lines below which nobody knows
MOST, RARE = 0.5, 0.01  # of all units, by a product of that share of the lines
ALMOST, QUIET, OFTEN = 0.9, 91, 0.02  # of a line that is all but complete, days since, share of lines that is strange
MONTHLY = 25  # days between two values from which a signal is about a whole month
IDS = ("supplier_id", "product_id", "site_id")
CURRENCIES = ("currency", "currency_code", "waers", "waehrung", "währung")

Doubt = tuple[str, int, str]
"""The column, how many of them, and what to say."""


def doubts(
    con: duckdb.DuckDBPyConnection, table: Table, ready: Mapping[str, Table], short_tolerance: float = 0.0
) -> Iterator[Doubt]:
    """Say what is strange about the good rows of a staged table, next to those of the other tables."""
    yield from unknown_ids(con, table, ready)
    yield from look_alikes(con, table, ready)
    if table.name in ("orders", "purchases"):
        yield from far_out(con, table)
    match table.name:
        case "orders":
            yield from small_units(con, table)
            yield from outweighing(con, table)
            yield from long_gap(con, table)
        case "purchases":
            yield from no_promise(con, table)
        case "receipts" if "purchases" in ready:
            yield from other_units(con)
            yield from never_whole(con, short_tolerance)
        case "signals":
            yield from known_at_once(con)


def unknown_ids(con: duckdb.DuckDBPyConnection, table: Table, ready: Mapping[str, Table]) -> Iterator[Doubt]:
    """Ids that the list of suppliers, products or sites does not have."""
    for c in table.columns:
        if c.refers_to not in ready:
            continue
        name, other = quote(c.name), quote(ready[c.refers_to].key[0])
        ids = con.execute(
            f"""SELECT DISTINCT {name} AS id FROM {part(table.name)} s WHERE {name} IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM {part(c.refers_to)} m WHERE m.{other} = s.{name}) ORDER BY id"""
        ).fetchall()
        if ids:
            few = ", ".join(repr(i[0]) for i in ids[:5]) + (", …" if len(ids) > 5 else "")
            yield c.name, len(ids), f"{len(ids):,} not listed in {c.refers_to}: {few}; the rows are kept"


def look_alikes(con: duckdb.DuckDBPyConnection, table: Table, ready: Mapping[str, Table]) -> Iterator[Doubt]:
    """Ids that differ only in capitals, blanks or leading zeros; said once, of the first table with the column."""
    for name in IDS:
        among = [t.name for t in ready.values() if name in (c.name for c in t.columns)]
        if not among or table.name != among[0]:
            continue
        ids = " UNION ".join(f"SELECT DISTINCT {name} AS id FROM {part(other)}" for other in among)
        alike = con.execute(
            f"""SELECT min(id), max(id), count(*) OVER () FROM ({ids}) WHERE id IS NOT NULL
                GROUP BY regexp_replace(lower(regexp_replace(id, '\\s+', '', 'g')), '^0+([0-9]+)$', '\\1')
                HAVING count(*) > 1 ORDER BY 1 LIMIT 1"""
        ).fetchall()
        for one, other, count in alike:
            message = f"{one[:40]!r} and {other[:40]!r} differ only in capitals, blanks or leading zeros"
            more = f", and so do {count - 1:,} more" if count > 1 else ""
            where = f" (of {', '.join(among)})" if len(among) > 1 else ""
            yield name, count, f"{message}{more}{where}: they count as different; write each id in one way"


def far_out(con: duckdb.DuckDBPyConnection, table: Table) -> Iterator[Doubt]:
    """Lines so large next to the others of their product that one typing error is most of what is at stake."""
    found = con.execute(
        f"""SELECT product_id, largest, largest / others, line, count(*) OVER ()
            FROM (SELECT product_id, max(quantity) AS largest, arg_max({table.key[0]}, quantity) AS line,
                         (sum(quantity) - largest) / (count(*) - 1) AS others
                  FROM {part(table.name)} GROUP BY product_id HAVING count(*) > {FEW})
            WHERE largest > {FAR_OUT} * others AND others > 0 ORDER BY 3 DESC LIMIT 1"""
    ).fetchall()
    for product, largest, times, line, count in found:
        message = (
            f"line {line!r} is for {largest:,.12g} of product {product!r}, {times:,.0f} times the mean of its other "
        )
        more = f"; {count - 1:,} more products have such a line" if count > 1 else ""
        yield "quantity", count, f"{message}lines{more}; put it right if it is a typing error"


def outweighing(con: duckdb.DuckDBPyConnection, table: Table) -> Iterator[Doubt]:
    """A product of few lines and most units: test rows, or grams among tonnes; its category's season would be its."""
    found = con.execute(
        f"""SELECT product_id, n, units / sum(units) OVER () AS share, sum(n) OVER () AS lines
            FROM (SELECT product_id, count(*) AS n, sum(quantity) AS units FROM {part(table.name)} GROUP BY product_id)
            QUALIFY share > {MOST} AND n < {RARE} * lines"""
    ).fetchall()
    for product, n, share, lines in found:
        message = (
            f"{n:,} of {lines:,} lines, those of product {product!r}, are for {share:.0%} of all units; leave them "
        )
        yield "quantity", n, message + "out if they are tests, bring the unit of the others if they are in another one"


def small_units(con: duckdb.DuckDBPyConnection, table: Table) -> Iterator[Doubt]:
    """Orders in units so large that most are a fraction of one: texts for people are in whole units."""
    orders = part(table.name)
    rows, small = con.execute(
        f"SELECT count(*), count(*) FILTER (quantity < 0.5) FROM {orders} WHERE quantity > 0"
    ).fetchall()[0]
    if not rows or 2 * small < rows:  # a median has to hold them all
        return
    half = con.execute(f"SELECT median(quantity) FROM {orders} WHERE quantity > 0").fetchall()[0][0]
    if half < 0.5:
        message = f"half of the orders are for less than {half:.2g} units: tables keep fractions, but board and texts "
        yield "quantity", rows, message + "say whole units; give smaller ones, such as kilograms for tonnes"


def no_promise(con: duckdb.DuckDBPyConnection, table: Table) -> Iterator[Doubt]:
    """Purchases none of which has a promise: nothing could ever be judged late."""
    rows, promised = con.execute(f"SELECT count(*), count(promised_on) FROM {part(table.name)}").fetchall()[0]
    if rows and not promised:
        message = "not one line has a promised day, so none can be late; bring the day first confirmed, or the day "
        yield "promised_on", rows, message + "ordered plus the agreed lead time"


def long_gap(con: duckdb.DuckDBPyConnection, table: Table) -> Iterator[Doubt]:
    """Weeks without any order in a chain that has many in others: an export may be missing.

    They are more than lie between two weeks with orders as a rule, which are three where all is booked at month's end.
    """
    week, before, usual, rows, weeks = con.execute(
        f"""SELECT arg_max(week, empty), max(empty), median(empty), sum(n), count(*) FROM (
                SELECT week, n, date_diff('week', lag(week) OVER (ORDER BY week), week) - 1 AS empty FROM (
                    SELECT date_trunc('week', ordered_at) AS week, count(*) AS n FROM {part(table.name)}
                    WHERE ordered_at IS NOT NULL GROUP BY week))"""
    ).fetchall()[0]
    if before and before >= LONG_GAP + usual and rows >= MANY_ORDERS * weeks:
        message = f"no order in the {before} weeks before {week:%Y-%m-%d}: that counts as no demand; "
        yield "ordered_at", 0, message + "bring what is missing if there was any"


def other_units(con: duckdb.DuckDBPyConnection) -> Iterator[Doubt]:
    """Receipts in another unit than their lines: in cartons no line of pieces ever arrives in full."""
    lines, little, much = con.execute(
        f"""SELECT count(*), count(*) FILTER (got < 0.5 * quantity), count(*) FILTER (got > 2 * quantity)
            FROM (SELECT po_line_id, sum(quantity) AS got FROM {part("receipts")} GROUP BY ALL HAVING got IS NOT NULL)
            JOIN {part("purchases")} USING (po_line_id)"""
    ).fetchall()[0]
    if 2 * max(little, much) > lines:
        came = "less than half" if little > much else "more than twice"
        message = f"of most lines came {came} of what was ordered ({max(little, much):,} of {lines:,}); "
        yield "quantity", max(little, much), message + "if receipts count in another unit, bring that of the order"


def never_whole(con: duckdb.DuckDBPyConnection, short_tolerance: float) -> Iterator[Doubt]:
    """Lines of which all but a little came and then nothing: weights and broken packs, closed where they were kept."""
    lines, short, lacking = con.execute(
        f"""SELECT count(*), count(*) FILTER (short), quantile_cont(1 - got / quantity, 0.95) FILTER (short) FROM (
                SELECT quantity, got, cancelled_at IS NULL AND last < max(last) OVER () - {QUIET} AND
                       got >= {ALMOST} * quantity AND got < quantity * (1 - {short_tolerance} - 1e-12) AS short
                FROM (SELECT po_line_id, sum(quantity) AS got, max(received_on) AS last FROM {part("receipts")}
                      GROUP BY ALL HAVING count(quantity) = count(*))
                JOIN {part("purchases")} USING (po_line_id))"""
    ).fetchall()[0]
    if short >= FEW and short > OFTEN * lines:
        message = (
            f"{short:,} of {lines:,} lines got {ALMOST:.0%} or more, but not all, and nothing for {QUIET // 7} weeks "
        )
        message += "since: each counts as open, and as late; bring cancelled_at where the rest will not come, or set "
        yield "quantity", short, f"{message}short_tolerance (95 % of them lack at most {lacking:.1%})"


def known_at_once(con: duckdb.DuckDBPyConnection) -> Iterator[Doubt]:
    """Monthly signals known when their month begins: what was published later would be read too early."""
    found = con.execute(
        f"""SELECT signal FROM (
                SELECT signal, scope, observed_on, min(known_at) AS first_known,
                       observed_on - lag(observed_on) OVER (PARTITION BY signal, scope ORDER BY observed_on) AS gap
                FROM {part("signals")} WHERE kind = 'observed' GROUP BY signal, scope, observed_on)
            GROUP BY signal HAVING median(gap) >= {MONTHLY}
            AND 2 * count(*) FILTER (first_known < observed_on + INTERVAL 2 DAY) > count(*) ORDER BY signal"""
    ).fetchall()
    if found:
        few = ", ".join(repr(row[0]) for row in found[:5]) + (", …" if len(found) > 5 else "")
        message = f"{few}: a value for a month, known on its first day; if it is about the whole month, known_at is "
        yield "known_at", len(found), message + "the day it was published"


def currencies(con: duckdb.DuckDBPyConnection, table: Table, source: str, raw: Mapping[str, str]) -> Iterator[Doubt]:
    """A column beside the contract's that names several currencies: all money counts as one."""
    for name in raw if table.name in ("orders", "purchases") else ():
        if name.casefold() not in CURRENCIES:
            continue
        cell = f"upper(trim(CAST({quote(name)} AS VARCHAR)))"
        held = con.execute(f"SELECT DISTINCT {cell} AS c FROM {quote(source)} WHERE {cell} <> '' ORDER BY c").fetchall()
        if len(held) > 1:
            few = ", ".join(c for (c,) in held[:5]) + (", …" if len(held) > 5 else "")
            yield (
                name,
                len(held),
                f"{few}: all money counts as being in one currency; bring it in the settings' currency",
            )


def days_of_moments(
    con: duckdb.DuckDBPyConnection, table: Table, source: str, raw: Mapping[str, str]
) -> Iterator[Doubt]:
    """Days that come as moments with a time zone: at midnight of Berlin it is still the day before in UTC."""
    for c in table.columns:
        if c.kind != "date" or raw.get(c.name) not in ZONED:
            continue
        cell = f"({quote(c.name)} AT TIME ZONE 'UTC')"
        filled, off, example = con.execute(
            f"""SELECT count({cell}), count(*) FILTER (CAST({cell} AS TIME) <> TIME '00:00'), any_value({cell}) FILTER (
                CAST({cell} AS TIME) <> TIME '00:00') FROM {quote(source)}"""
        ).fetchall()[0]
        if 2 * off > filled:
            message = (
                f"the column holds moments with a time zone, such as {example:%Y-%m-%d %H:%M} UTC, and of each the "
            )
            yield c.name, off, message + "day in UTC is taken; bring the day at the site, as a date without a time zone"
