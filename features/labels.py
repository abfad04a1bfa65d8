"""The only file that may look ahead: what became of the open lines and of the demand after each as-of."""

import duckdb
import numpy as np
import pandas as pd

from features.panels import Terms

NEVER = np.datetime64("NaT", "D")


def delay_labels(con: duckdb.DuckDBPyConnection, rows: pd.DataFrame, terms: Terms) -> pd.DataFrame:
    """Return y_late, matured_on and completed_on of snapshot rows (DEFINITIONS 1), aligned with `rows`.

    `y_late` is 1 when the line was not complete by the promise in force at the row's as-of, with tolerance; NaN for
    rows that are not due_future and for lines that the buyer cancelled before that promise. `matured_on` is promise +
    tolerance + posting lag, whatever the outcome: the label may be used at a cut T if and only if matured_on ≤ T. The
    outcome is read from receipts known by then, so a receipt posted later still does not turn the label around.
    """
    outcome = con.execute(
        "SELECT complete_on, complete_known_at, cancelled_at, buyer_cancelled FROM line_history ORDER BY line"
    ).df()
    mine = outcome.take(rows["line"].to_numpy()).reset_index(drop=True)
    due = rows["due_on"].to_numpy().astype("datetime64[D]")
    matured = due + np.timedelta64(terms.posting_lag_days, "D")
    complete = mine["complete_on"].to_numpy().astype("datetime64[D]")
    cancelled = mine["cancelled_at"].to_numpy().astype("datetime64[D]")
    gone = mine["buyer_cancelled"].to_numpy() & (cancelled <= due) & ~(complete <= due)
    late = np.where(complete <= due, 0.0, 1.0)
    judged = (rows["state"] == "due_future").to_numpy() & ~gone
    return pd.DataFrame(
        {
            "y_late": np.where(judged, late, np.nan),
            "matured_on": np.where(judged, matured, NEVER).astype("datetime64[D]").astype("datetime64[s]"),
            "completed_on": complete.astype("datetime64[s]"),
            "completed_known_at": mine["complete_known_at"].to_numpy(),
            "cancelled_on": cancelled.astype("datetime64[s]"),
        },
        index=rows.index,
    )
