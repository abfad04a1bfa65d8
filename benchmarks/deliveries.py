"""Deliver a finished world the way source systems do: one file per table and week, and lines cancelled later again."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import duckdb

WEEK = timedelta(weeks=1)
WRONG = {  # what a faulty export says, by table
    "orders": "* REPLACE (quantity * 10 AS quantity)",
    "purchases": "* REPLACE (promised_on + 30 AS promised_on)",
    "receipts": "* REPLACE (received_on - 2 AS received_on)",
}


@dataclass
class Deliveries:
    """What has been delivered so far into the folder `data`, of the tables in the folder `everything`.

    The file of a week holds what became known in the seven days before it; the first one, all before. Lines of an
    earlier file that were cancelled in the week are delivered again, in that file.
    """

    everything: Path
    data: Path
    first: date
    con: duckdb.DuckDBPyConnection = field(default_factory=duckdb.connect)
    there: set[tuple[str, date]] = field(default_factory=set)
    doubled: set[tuple[str, date]] = field(default_factory=set)

    def __post_init__(self) -> None:
        for path in sorted(self.everything.glob("*.parquet")):
            self.con.execute(f"CREATE VIEW {path.stem} AS FROM '{path}'")

    def tables(self) -> list[str]:
        return sorted(path.stem for path in self.everything.glob("*.parquet"))

    def bring(self, table: str, day: date, *, wrong: bool = False, until: date | None = None) -> None:
        """Write the file of a week, as it stands on the day `until`, and those in which a line was cancelled since."""
        until, known = until or day, self._known_at(table)
        if known is None:
            return self._write(table, "", "*", self.first) if day == self.first else None
        self.there.add((table, day))
        since = "" if day == self.first else f"{known} >= DATE '{day - WEEK}' AND "
        self._write(table, f"WHERE {since}{known} < DATE '{day}'", self._cells(table, until, wrong=wrong), day)
        for earlier in self._cancelled(table, day) & self.there - {(table, day)}:
            self.bring(*earlier, until=until)
        return None

    def double(self, table: str, day: date) -> None:
        """Let the file of a week arrive under a second name too, now and whenever it is written again."""
        self.doubled.add((table, day))
        self.bring(table, day)

    def _known_at(self, table: str) -> str | None:
        names = self._columns(table)
        return next((name for name in ("known_at", "ordered_at") if name in names), None)

    def _columns(self, table: str) -> list[str]:
        return [row[0] for row in self.con.execute(f"DESCRIBE {table}").fetchall()]

    def _cells(self, table: str, until: date, *, wrong: bool) -> str:
        if wrong:
            return WRONG[table]
        if "cancelled_at" not in self._columns(table):
            return "*"
        return f"* REPLACE (CASE WHEN cancelled_at < DATE '{until}' THEN cancelled_at END AS cancelled_at)"

    def _cancelled(self, table: str, day: date) -> set[tuple[str, date]]:
        """Return the files with lines that were cancelled in the week before a day."""
        if "cancelled_at" not in self._columns(table):
            return set()
        rows: Iterable[tuple[date]] = self.con.execute(
            f"""SELECT DISTINCT greatest(DATE '{self.first}', CAST(date_trunc('week', ordered_at) AS DATE) + 7)
                FROM {table} WHERE cancelled_at >= DATE '{day - WEEK}' AND cancelled_at < DATE '{day}'"""
        ).fetchall()
        return {(table, row[0]) for row in rows}

    def _write(self, table: str, where: str, cells: str, day: date) -> None:
        folder = self.data / table
        folder.mkdir(parents=True, exist_ok=True)
        names = (f"{day}.parquet", f"{day} (1).parquet")[: 2 if (table, day) in self.doubled else 1]
        for name in names:
            self.con.execute(f"COPY (SELECT {cells} FROM {table} {where}) TO '{folder / name}' (FORMAT parquet)")
