"""Find the bad rows that only comparison shows (duplicates, orphans, contradictions) and set every bad row aside."""

from collections.abc import Mapping

import duckdb
import numpy as np
import pandas as pd

from features.casting import quote, text
from features.contracts import Table

TWICE = "duplicate row"
HARMLESS = (TWICE, "receipt for an unknown purchase line", "promise for an unknown purchase line")
"""Reasons that leave a purchase line judgeable: nothing about it is in doubt."""
CONTRADICTION = "duplicate key"
SAID = "CASE WHEN f.shows = '' THEN f.rule ELSE f.rule || ': ' || f.shows END"


def part(name: str) -> str:
    """Return the name of the typed table that still holds its bad rows; row N of the source has rowid N − 1."""
    return quote(f"__staged_{name}")


def open_quarantine(con: duckdb.DuckDBPyConnection) -> None:
    """Create the empty `quarantine`, and the list of everything found wrong with any row."""
    con.execute(
        """CREATE TABLE quarantine
           (table_name VARCHAR, row_number BIGINT, key VARCHAR, reason VARCHAR, row_json VARCHAR)"""
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE __found (table_name VARCHAR, row BIGINT, rule VARCHAR, shows VARCHAR, step INT)"
    )


def find_own(con: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Note what staging found wrong with single rows."""
    con.execute(
        f"""INSERT INTO __found SELECT {text(table.name)}, rowid, unnest(__bad.rules), unnest(__bad.shows), 1
            FROM {part(table.name)} WHERE __bad IS NOT NULL"""
    )


def find_unsplit(con: duckdb.DuckDBPyConnection, table: Table, source: str) -> tuple[int, int | None]:
    """Set aside the lines of text files that did not split into cells; return their number.

    The second value is the first line whose open quote swallowed the lines after it, if there is one.
    """
    rejects, scans = f"{source}_rejects", f"{source}_scans"
    if not con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = ?", [rejects]).fetchall()[0][0]:
        return 0, None
    name = text(table.name)
    files = f"""SELECT scan_id, file_id, CASE WHEN max(file_id) OVER () > 0 THEN parse_filename(file_path) || ', '
                ELSE '' END AS file FROM {quote(scans)}"""
    lines = f"""SELECT CAST(line AS BIGINT) AS line, any_value(csv_line) AS line_text,
                -row_number() OVER (ORDER BY file_id, line) AS row,
                any_value(file) || 'line ' || line || ': ' || any_value(error_message) AS says,
                CASE WHEN says LIKE '%nvalid unicode%' THEN 'line is no UTF-8 text'
                     ELSE 'line cannot be split into cells' END AS rule
                FROM {quote(rejects)} JOIN ({files}) USING (scan_id, file_id) GROUP BY file_id, line"""
    con.execute(f"INSERT INTO __found SELECT {name}, row, rule, says, 1 FROM ({lines})")
    con.execute(
        f"""INSERT INTO quarantine SELECT {name}, NULL, '', rule || ': ' || says,
            CAST(json_object('line', line_text) AS VARCHAR) FROM ({lines}) ORDER BY row DESC"""
    )
    counted = (
        f"SELECT count(*), min(line) FILTER (contains(trim(line_text, chr(13) || chr(10)), chr(10))) FROM ({lines})"
    )
    return con.execute(counted).fetchall()[0]


def find_duplicates(con: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Note equal rows but the first, and rows that say something else under the same key.

    Of contradicting rows the first known stays (then the first by row order), unless `all_versions_fall`: which
    version of a purchase line is true decides whether it was late, so none is believed.
    """
    staged = part(table.name)
    names = [row[0] for row in con.execute(f"DESCRIBE {staged}").fetchall() if row[0] != "__bad"]
    keys = ", ".join(map(quote, table.key))
    filled = " AND ".join(f"{quote(k)} IS NOT NULL" for k in table.key if not table.column(k).nullable)
    filled += "" if table.all_versions_fall else " AND __bad IS NULL"
    first = "known_at, r" if "known_at" in names else "r"
    content = ", ".join(f"{text(n)}, CAST({quote(n)} AS VARCHAR)" for n in names)
    more = ", known_at" if "known_at" in names and "known_at" not in table.key else ""
    hashed = _column(con, f"SELECT hash({keys}) FROM {staged} WHERE {filled}", np.uint64)
    hashed.sort()  # grouping takes twice as long and eight times the memory
    twice = np.unique(hashed[1:][hashed[1:] == hashed[:-1]])
    con.register("twice", pd.DataFrame({"h": twice}))
    con.execute("CREATE OR REPLACE TEMP TABLE __twice AS FROM twice")
    con.unregister("twice")
    if not len(twice):
        return
    con.execute(
        f"""INSERT INTO __found
            WITH candidates AS (
                SELECT rowid AS r, {keys}{more}, concat(json_object({content}), __bad.row_json) AS content
                FROM {staged} WHERE {filled} AND hash({keys}) IN (SELECT h FROM __twice)),
            first AS (SELECT *, first_value(content) OVER w AS first_content, first_value(r) OVER w AS first_row,
                      min(r) OVER (PARTITION BY {keys}, content) AS same_row
                      FROM candidates WINDOW w AS (PARTITION BY {keys} ORDER BY {first})),
            other AS (SELECT *, min(CASE WHEN content <> first_content THEN r END) OVER (PARTITION BY {keys})
                      AS other_row FROM first)
            SELECT {text(table.name)}, r,
                   CASE WHEN r <> same_row THEN '{TWICE}' ELSE '{CONTRADICTION}' END,
                   CASE WHEN r <> same_row THEN 'same as row ' || (same_row + 1)
                        WHEN content <> first_content THEN 'differs from row ' || (first_row + 1)
                        ELSE 'differs from row ' || (other_row + 1) END, 2
            FROM other
            WHERE r <> same_row OR content <> first_content OR ({table.all_versions_fall} AND other_row IS NOT NULL)"""
    )


def _column(con: duckdb.DuckDBPyConnection, query: str, dtype: type) -> np.ndarray:
    """Return the one column that a query gives, written once: very many rows are not held twice."""
    out = np.empty(con.execute(f"SELECT count(*) FROM ({query})").fetchall()[0][0], dtype)
    begin = 0
    for batch in con.sql(query).to_arrow_reader(1 << 20):
        out[begin : begin + batch.num_rows] = batch.column(0).to_numpy()
        begin += batch.num_rows
    return out


def find_links(con: duckdb.DuckDBPyConnection, tables: Mapping[str, Table]) -> None:
    """Note what receipts, promises and purchase lines reveal about each other.

    A line whose receipt is in quarantine would look as if it never came, so it goes too, and so do the other rows
    that belong to it.
    """
    if "purchases" not in tables:
        return
    lines = part("purchases")
    for name in (t.name for t in tables.values() if t.line):
        con.execute(
            f"""INSERT INTO __found SELECT '{name}', s.rowid, '{name.removesuffix("s")} for an unknown purchase line',
                '''' || s.po_line_id || '''', 3 FROM {part(name)} s ANTI JOIN {lines} p USING (po_line_id)
                WHERE s.po_line_id IS NOT NULL"""
        )
    if "receipts" in tables:
        _receipts_reveal(con, lines)
    for name in (t.name for t in tables.values() if t.line):
        con.execute(
            f"""INSERT INTO __found SELECT '{name}', s.rowid, 'its line was quarantined', any_value(b.why), 6
                FROM {part(name)} s JOIN ({_bad_lines("purchases")}) b USING (po_line_id)
                WHERE s.rowid NOT IN (SELECT row FROM __found WHERE table_name = '{name}') GROUP BY s.rowid"""
        )


def _receipts_reveal(con: duckdb.DuckDBPyConnection, lines: str) -> None:
    receipts = part("receipts")
    con.execute(
        f"""INSERT INTO __found SELECT DISTINCT 'receipts', r.rowid, 'received before ordered',
            'received_on ' || r.received_on || ', ordered_at ' || CAST(p.ordered_at AS DATE), 4
            FROM {receipts} r JOIN {lines} p USING (po_line_id) WHERE r.received_on < CAST(p.ordered_at AS DATE)"""
    )
    con.execute(
        f"""INSERT INTO __found SELECT 'purchases', p.rowid, 'its receipt was quarantined', any_value(b.why), 5
            FROM {lines} p JOIN ({_bad_lines("receipts")}) b USING (po_line_id) GROUP BY p.rowid"""
    )


def _bad_lines(name: str) -> str:
    """Return SQL for the lines that rows of this table put in doubt, and why."""
    harmless = ", ".join(map(text, HARMLESS))
    return f"""SELECT s.po_line_id, min({SAID}) AS why
               FROM __found f JOIN {part(name)} s ON s.rowid = f.row WHERE f.table_name = '{name}'
               AND f.rule NOT IN ({harmless}) AND s.po_line_id IS NOT NULL GROUP BY s.po_line_id"""


def count_reasons(con: duckdb.DuckDBPyConnection, name: str) -> tuple[int, dict[str, int]]:
    """Return how many rows are bad, and how many for each reason, commonest first; a row may have several."""
    bad = con.execute("SELECT count(DISTINCT row) FROM __found WHERE table_name = ?", [name]).fetchall()[0][0]
    reasons = con.execute(
        "SELECT rule, count(*) AS n FROM __found WHERE table_name = ? GROUP BY rule ORDER BY n DESC, rule", [name]
    ).fetchall()
    return bad, dict(reasons)


def set_aside(con: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Copy the bad rows of a staged table to `quarantine` and delete them from it."""
    staged, name = part(table.name), text(table.name)
    names = [row[0] for row in con.execute(f"DESCRIBE {staged}").fetchall() if row[0] != "__bad"]
    row = ", ".join(f"{text(n)}, CAST(s.{quote(n)} AS VARCHAR)" for n in names)
    key = ", ".join(f"s.{quote(k)}" for k in table.key)
    con.execute(
        f"""INSERT INTO quarantine
            SELECT {name}, s.rowid + 1, concat_ws(' | ', {key}), f.reason,
                   coalesce(s.__bad.row_json, CAST(json_object({row}) AS VARCHAR))
            FROM {staged} s JOIN (
                SELECT row, string_agg({SAID}, '; ' ORDER BY step, rule) AS reason
                FROM __found f WHERE table_name = {name} GROUP BY row) f ON s.rowid = f.row
            ORDER BY s.rowid"""
    )
    con.execute(f"DELETE FROM {staged} WHERE rowid IN (SELECT row FROM __found WHERE table_name = {name})")
    con.execute(f"ALTER TABLE {staged} DROP COLUMN __bad")
