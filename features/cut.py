"""Cut facts by supplier or by product: all that is known of one stays together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

import duckdb

from features.as_known import showing
from features.contracts import ORDERS, PLAN, PROMISES, PURCHASES, RECEIPTS, STOCK, Table


@dataclass(frozen=True, slots=True)
class Cut:
    """Which tables are cut by the column `by`, all facts of one value into one part; each part has the others whole."""

    by: str
    tables: tuple[Table, ...]
    whole: tuple[str, ...]

    def rows(self, table: Table, source: str, purchases: str) -> str:
        """SQL for what to read of a table, the column to cut by among it or beside it."""
        own = self.by in {c.name for c in table.columns}
        return f"{source} f" + ("" if own else f" JOIN {purchases} p USING (po_line_id)")


OF_LINES = Cut("supplier_id", (PURCHASES, RECEIPTS, PROMISES), ("suppliers", "products", "sites", "signals"))
OF_SERIES = Cut("product_id", (ORDERS, STOCK, PLAN), ("products", "sites", "signals"))


@contextmanager
def few(
    con: duckdb.DuckDBPyConnection, cut: Cut, most: int, day: date, *, by_series: bool = False
) -> Iterator[duckdb.DuckDBPyConnection | None]:
    """Yield a connection that shows some suppliers or products alone; None where all have at most `most` lines.

    They are drawn by a hash that differs from `day` to `day`, until they have `most` lines together, or with
    `by_series` so many series. One that has more by itself is drawn only where all smaller ones do not have enough.
    """
    lines = cut.tables[0].name
    there = f"(SELECT DISTINCT {cut.by}, site_id FROM {lines})" if by_series else lines
    if con.execute(f"SELECT count(*) <= {most} FROM {there}").fetchall()[0][0]:
        yield None
        return
    home = con.execute("SELECT current_schema()").fetchall()[0][0]
    chosen = f"{home}.few_by_{cut.by}"
    con.execute(
        f"CREATE OR REPLACE TABLE {chosen} AS SELECT {cut.by} FROM (SELECT {cut.by}, sum(count(*)) OVER "
        f"(ORDER BY greatest(count(*), {most}), hash({cut.by} || '{day}'), {cut.by}) - count(*) AS before "
        f"FROM {there} GROUP BY {cut.by}) WHERE before < {most}"
    )

    def view(table: Table, source: str) -> str:
        if table not in cut.tables:
            return f"SELECT * FROM {source}"
        return f"SELECT f.* FROM {cut.rows(table, source, f'{home}.purchases')} SEMI JOIN {chosen} USING ({cut.by})"

    with showing(con, view, copied=cut.tables) as seen:
        con.execute(f"DROP TABLE {chosen}")
        yield seen
