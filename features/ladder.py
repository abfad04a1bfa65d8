"""The on-time ladder: one population of lines, held against ever stricter promises (DEFINITIONS 1)."""

from datetime import date

import duckdb
import pandas as pd

from features.panels import Terms

RUNGS = ("on_time_tolerance", "on_time_promised", "on_time_requested", "in_full_requested", "with_cancellations")


def on_time_lines(con: duckdb.DuckDBPyConnection, as_of: date, terms: Terms, weeks: int = 13) -> pd.DataFrame:
    """Return the lines whose first promise matured in the last `weeks` weeks before `as_of`, a column 0/1 per rung.

    Only receipts known before `as_of` count. A rung that a line cannot be held against (no requested date, cancelled by
    its buyer before the promise) is missing, so a share over no line is "no data", never 100 %. `with_cancellations`
    counts cancelled lines as failed.
    """
    due = f"(h.promised_on + {terms.tolerance_days})"
    asked = f"{due} + {terms.posting_lag_days}"
    return con.execute(
        f"""
WITH got AS (
  SELECT h.line, sum(coalesce(r.quantity, h.quantity)) FILTER (r.received_on <= h.requested_on) AS by_requested
  FROM receipts r JOIN line_history h USING (po_line_id) WHERE r.known_at < $as_of GROUP BY ALL),
lines AS (
  SELECT h.*, {due} AS due, coalesce(h.complete_known_at < $as_of, false) AS done,
         coalesce(h.buyer_cancelled AND h.cancelled_at < CAST({due} + 1 AS TIMESTAMP), false) AS cancelled,
         coalesce(g.by_requested, 0) >= h.quantity * (1 - {terms.short_tolerance} - 1e-12) AS in_full,
         NOT cancelled OR done AS judged, judged AND h.requested_on IS NOT NULL AS judged_requested
  FROM line_history h LEFT JOIN got g USING (line)
  WHERE h.promised_on IS NOT NULL AND h.known_at < $as_of
    AND {asked} <= CAST($as_of AS DATE) AND {asked} > CAST($as_of AS DATE) - {7 * weeks})
SELECT supplier_id, product_id, site_id, category, region, promised_on,
  CASE WHEN judged THEN CAST(done AND complete_on <= due AS INT) END AS on_time_tolerance,
  CASE WHEN judged THEN CAST(done AND complete_on <= promised_on AS INT) END AS on_time_promised,
  CASE WHEN judged_requested THEN CAST(done AND complete_on <= requested_on AS INT) END AS on_time_requested,
  CASE WHEN judged_requested THEN CAST(in_full AS INT) END AS in_full_requested,
  CASE WHEN requested_on IS NOT NULL THEN CAST(NOT cancelled AND in_full AS INT) END AS with_cancellations
FROM lines""",
        {"as_of": as_of},
    ).df()
