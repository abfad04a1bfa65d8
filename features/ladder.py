"""The on-time ladder: one population of lines, held against ever stricter promises (DEFINITIONS 1)."""

from datetime import date

import duckdb
import pandas as pd

from features.panels import Terms

RUNGS = ("on_time_tolerance", "on_time_promised", "on_time_requested", "in_full_requested", "with_cancellations")


def on_time_lines(con: duckdb.DuckDBPyConnection, as_of: date, terms: Terms, weeks: int = 13) -> pd.DataFrame:
    """Return the lines whose first promise matured in the last `weeks` weeks before `as_of`, a column 0/1 per rung.

    Only receipts known before `as_of` count. A rung that a line cannot be held against (no requested date, cancelled by
    its buyer) is missing, so a share over no line is "no data", never 100 %. `with_cancellations` counts cancelled
    lines as failed.
    """
    due = f"h.promised_on + {terms.tolerance_days}"
    return con.execute(
        f"""
WITH got AS (
  SELECT h.line, sum(coalesce(r.quantity, h.quantity)) FILTER (r.received_on <= h.requested_on) AS by_requested
  FROM receipts r JOIN line_history h USING (po_line_id) WHERE r.known_at < $as_of GROUP BY ALL),
lines AS (
  SELECT h.*, coalesce(h.complete_known_at < $as_of, false) AS done,
         coalesce(h.buyer_cancelled AND h.cancelled_at < $as_of, false) AS gone, g.by_requested
  FROM line_history h LEFT JOIN got g USING (line)
  WHERE h.promised_on IS NOT NULL AND h.known_at < $as_of
    AND {due} + {terms.posting_lag_days} <= CAST($as_of AS DATE)
    AND {due} + {terms.posting_lag_days} > CAST($as_of AS DATE) - {7 * weeks})
SELECT supplier_id, product_id, site_id, category, region, promised_on,
  CASE WHEN NOT gone OR done THEN CAST(done AND complete_on <= promised_on + {terms.tolerance_days} AS INT) END AS on_time_tolerance,
  CASE WHEN NOT gone OR done THEN CAST(done AND complete_on <= promised_on AS INT) END AS on_time_promised,
  CASE WHEN (NOT gone OR done) AND requested_on IS NOT NULL THEN CAST(done AND complete_on <= requested_on AS INT) END AS on_time_requested,
  CASE WHEN (NOT gone OR done) AND requested_on IS NOT NULL
       THEN CAST(coalesce(by_requested, 0) >= quantity * (1 - {terms.short_tolerance}) - 1e-9 AS INT) END AS in_full_requested,
  CASE WHEN requested_on IS NOT NULL
       THEN CAST(NOT gone AND coalesce(by_requested, 0) >= quantity * (1 - {terms.short_tolerance}) - 1e-9 AS INT) END AS with_cancellations
FROM lines h""",
        {"as_of": as_of},
    ).df()
