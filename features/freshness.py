"""How long has each input table brought nothing new, and how long is that usually?"""

from dataclasses import dataclass
from datetime import date, datetime

import duckdb

from features.contracts import TABLES

YEAR = 364  # days up to its newest fact from which the usual gap is learnt
LEAST_GAPS = 8  # fewer say nothing of what is usual
USUAL = 0.95  # the quantile of the gaps: a weekend is usual, one long outage is not


@dataclass(frozen=True, slots=True)
class Freshness:
    """One table, or one series of `signals`: when it last brought a fact, and its gaps in days.

    `usual_days` is None where too little is known of what is usual.
    """

    table: str
    series: str
    last_known_at: datetime
    days: float
    usual_days: float | None

    @property
    def times(self) -> float:
        """How many times its usual gap it has brought nothing."""
        return self.days / self.usual_days if self.usual_days else 0.0


def freshness(con: duckdb.DuckDBPyConnection, as_of: date) -> list[Freshness]:
    """Return how fresh every table with facts known before the day is; gaps are those between days with new facts."""
    found = []
    for table in TABLES:
        if not table.has_history:
            continue
        series = "signal" if table.name == "signals" else "''"
        rows = con.execute(
            f"""WITH days AS (SELECT {series} AS series, CAST(known_at AS DATE) AS day, max(known_at) AS last
                              FROM {table.name} WHERE known_at < $1 GROUP BY ALL),
                gaps AS (SELECT series, last, day - lag(day) OVER (PARTITION BY series ORDER BY day) AS gap,
                         day >= max(day) OVER (PARTITION BY series) - {YEAR} AS lately FROM days)
                SELECT series, max(last), count(gap) FILTER (lately), quantile_disc(gap, {USUAL}) FILTER (lately)
                FROM gaps GROUP BY series ORDER BY series""",
            [as_of],
        ).fetchall()
        for name, last, gaps, usual in rows:
            days = (datetime(as_of.year, as_of.month, as_of.day) - last).total_seconds() / 86400  # noqa: DTZ001
            found.append(Freshness(table.name, name, last, days, float(usual) if gaps >= LEAST_GAPS else None))
    return found


def latency(con: duckdb.DuckDBPyConnection, table: str, event: str, as_of: date, weeks: int) -> tuple[float, int]:
    """Return how many days after the event 95 % of the facts of the last weeks were known, and how many there were."""
    found = con.execute(
        f"""SELECT quantile_cont(epoch(known_at - CAST({event} AS TIMESTAMP)) / 86400, 0.95), count(*) FROM {table}
            WHERE known_at < $1 AND known_at >= $1 - {7 * weeks}""",
        [as_of],
    ).fetchall()[0]
    return float(found[0] or 0.0), found[1]
