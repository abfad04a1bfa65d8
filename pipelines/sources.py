"""Bring Parquet, CSV and SQL tables to the door, hold them to their contracts, and keep what was refused."""

import csv
import difflib
import gzip
import hashlib
import io
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path

import duckdb

from features.casting import quote, text
from features.contracts import TABLES, Breach, ContractError, Verdict
from features.door import hold, unreadable
from pipelines import databases
from pipelines.files import replacing, scratch_folder
from pipelines.settings import Settings, UserError

SUFFIXES = (".parquet", ".csv", ".csv.gz")
LARGE = 64 << 20  # bytes of input from which tables are kept in a file: some six million order lines in Parquet
ROOM = "1GB"  # of memory for what is read of that file and worked on
NAMES = tuple(t.name for t in TABLES)


def load(
    settings: Settings, *, now: datetime, known_before: date | None = None
) -> tuple[duckdb.DuckDBPyConnection, tuple[Verdict, ...]]:
    """Read the tables that settings name and hold them to their contracts, in memory; very big ones in a file.

    With `known_before` as they stood when that day began: what became known later is not read.

    Refused rows go to `<workspace>/quarantine/<table>.parquet`, also when the input as a whole is refused with
    ContractError. Files of tables that are clean now are removed.
    """
    _refuse_unknown(settings.country)
    con = connect(settings)
    sources = read(settings.data.get_secret_value() if settings.data_url else str(settings.data_folder), con)
    try:
        verdicts = hold(
            con, sources, now=now, max_quarantined=settings.max_quarantined, attributes=settings.attributes,
            short_tolerance=settings.short_tolerance, known_before=known_before,
        )  # fmt: skip
    finally:
        write_quarantine(con, settings.workspace / "quarantine")
        for name in sources.values():
            con.execute(f"DROP {'TABLE' if settings.data_url else 'VIEW'} IF EXISTS {quote(name)}")
            for rest in ("rejects", "scans"):
                con.execute(f"DROP TABLE IF EXISTS {quote(f'{name}_{rest}')}")
    return con, verdicts


def _refuse_unknown(country: str) -> None:
    if country:
        import holidays  # takes a tenth of a second

        if country not in holidays.list_supported_countries():
            raise UserError(f"country is {country!r}, expected one whose holidays are known, such as 'DE', or ''")


def connect(settings: Settings) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB in memory, or for very much input in a file of the scratch folder that goes when it is closed."""
    large = _is_large(settings)
    if large:
        folder = scratch_folder(scratch_of(settings), "facts-")
        con = duckdb.connect(folder / "facts.duckdb", config={"temp_directory": str(folder / "spill")})
        weakref.finalize(con, shutil.rmtree, folder, ignore_errors=True)
    else:
        spill = Path(tempfile.gettempdir()) / f"bullwhip-{os.getpid()}"
        con = duckdb.connect(config={"temp_directory": str(spill)})
    con.execute("SET enable_progress_bar = false")  # it would stop a run in the background that has a terminal
    if settings.threads:
        con.execute(f"SET threads = {settings.threads}")
    if memory := settings.memory or (ROOM if large else ""):
        con.execute(f"SET memory_limit = '{memory}'")
    return con


def scratch_of(settings: Settings) -> Path:
    """Return the folder for the parts of a run."""
    return Path(settings.scratch or settings.workspace / "scratch").expanduser()


def _is_large(settings: Settings) -> bool:
    """Whether the input is too much to be held in memory; of a database it is not known."""
    if settings.data_folder is None:
        return True
    return sum(f.stat().st_size for f in settings.data_folder.rglob("*") if f.is_file()) > LARGE


def read(data: str, con: duckdb.DuckDBPyConnection) -> Mapping[str, str]:
    """Register every input table found in a folder or database, raw, and return {table: relation in `con`}.

    Raises ContractError for files that cannot be read, UserError for a folder that is not there, Unreachable for a
    database that does not answer.
    """
    if "://" in data:
        return databases.read(data, con)
    folder = Path(data)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(
            f"data folder {folder} {what}; expected a folder of <table>.parquet or <table>.csv, or a database URL"
        )
    found, breaches = _find(folder)
    sources = {}
    for name, paths in found.items():
        try:
            sources[name] = _register(con, name, paths)
        except (ValueError, OSError, duckdb.Error) as error:
            said = unreadable(error) if isinstance(error, duckdb.Error) else _why(error)
            breaches.append(Breach("error", name, "", 0, said))
    if breaches:
        raise ContractError(tuple(breaches))
    return sources


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{Path(error.filename or '').name} cannot be opened: {error.strerror}"
    return str(error)


def _find(folder: Path) -> tuple[dict[str, list[Path]], list[Breach]]:
    """Return the files of each table, whatever the case of their names, and what is ambiguous or misnamed."""
    found: dict[str, list[Path]] = {}
    breaches: list[Breach] = []
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    for name in NAMES:
        here = [
            p
            for p in entries
            if p.name.casefold() in [name + s for s in SUFFIXES] or (p.is_dir() and p.name.casefold() == name)
        ]
        if len(here) > 1:
            names = ", ".join(p.name + "/" * p.is_dir() for p in here)
            breaches.append(Breach("error", name, "", 0, f"there are several files for one table: {names}; leave one"))
        elif here:
            found[name] = _parts(here[0]) if here[0].is_dir() else here
            if message := _of_one_form(here[0], found[name]):
                breaches.append(Breach("error", name, "", 0, message))
                del found[name]
        elif near := _misnamed(name, entries):
            message = f"found {near.name}, expected {name}.parquet or {name}.csv; rename or convert it, or move it away"
            breaches.append(Breach("error", name, "", 0, message))
    if entries and not found and not breaches:
        breaches.append(Breach("error", "orders", "", 0, _no_table(folder, entries)))
    return found, breaches


def _parts(folder: Path) -> list[Path]:
    """Return the files a table is cut into, in folders of this folder too; what begins with . or _ is another's."""
    inside = (p for p in folder.rglob("*") if not any(n[0] in "._" for n in p.relative_to(folder).parts))
    return sorted(p for p in inside if p.is_file() and p.name.casefold().endswith(SUFFIXES))


def _of_one_form(entry: Path, files: list[Path]) -> str:
    """Return what is wrong with the parts of a table, nothing if they can be read as one."""
    if not files:
        return (
            f"{entry.name}/ holds no *.parquet or *.csv file; fill it, or bring one file {entry.name}.csv in its place"
        )
    if len({_is_parquet(p) for p in files}) > 1:
        return f"{entry.name}/ holds both Parquet and CSV files; leave one form"
    return ""


def _is_parquet(path: Path) -> bool:
    return path.name.casefold().endswith(".parquet")


def _no_table(folder: Path, entries: list[Path]) -> str:
    few = ", ".join(p.name for p in entries[:5]) + (", …" if len(entries) > 5 else "")
    return (
        f"none of the files in {folder} has the name of a table ({few}); name them orders.csv for demand shifts, or"
        f" purchases.csv and receipts.csv for late deliveries; the tables are {', '.join(NAMES)}"
    )


def _misnamed(name: str, entries: list[Path]) -> Path | None:
    """Return a file that seems to be meant for this table, such as order.csv or orders.xlsx."""
    stems = {p.name.casefold().partition(".")[0]: p for p in entries if p.is_file()}
    stems = {stem: p for stem, p in stems.items() if stem not in NAMES or stem == name}
    near = difflib.get_close_matches(name, stems, 1, 0.85)
    return stems[near[0]] if near else None


def _register(con: duckdb.DuckDBPyConnection, name: str, paths: list[Path]) -> str:
    for path in paths:
        with path.open("rb") as file:
            if not file.read(1):
                raise ValueError(f"{path.name} is empty (0 bytes); expected at least a header and one row")
    if _is_parquet(paths[0]):
        scan = f"read_parquet([{_listed(paths)}], union_by_name = true, hive_partitioning = false)"
    else:
        scan = _csv(paths, f"raw_{name}")
    con.execute(f"CREATE OR REPLACE TEMP VIEW {quote('raw_' + name)} AS SELECT * FROM {scan}")
    return f"raw_{name}"


def _csv(paths: list[Path], relation: str) -> str:
    """Return the scan of a table's CSV files, every cell as text; lines that do not split into cells go to `…_rejects`.

    The header is read here: DuckDB's own sniffing takes a file with a few bad lines for one of a single column, and
    may take `#` for a comment.
    """
    delimiter, names = _header(paths[0])
    for path in paths[1:]:
        if (found := _header(path)) != (delimiter, names):
            differ = _differs(names, found[1])
            raise ValueError(f"{path.name} begins with another header than {paths[0].name}: {differ}; make them one")
    columns = ", ".join(f"{text(n)}: 'VARCHAR'" for n in names)
    return f"""read_csv([{_listed(paths)}], auto_detect = false, header = true, columns = {{{columns}}},
        delim = {text(delimiter)}, quote = '"', escape = '"', comment = '', skip = 0, hive_partitioning = false,
        store_rejects = true, rejects_table = {text(relation + "_rejects")},
        rejects_scan = {text(relation + "_scans")}, rejects_limit = 0)"""


def _differs(names: list[str], others: list[str]) -> str:
    only = [n for n in names if n not in others] + [n for n in others if n not in names]
    return (
        f"only one of them has {only[0]!r}" if only else "the same columns in another order or with another delimiter"
    )


def _header(path: Path) -> tuple[str, list[str]]:
    """Return the delimiter of a CSV file and the names of its columns."""
    opened = gzip.open if path.name.casefold().endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
            head = file.read(100_000)
    except (EOFError, gzip.BadGzipFile):
        raise ValueError(f"{path.name} is cut off or no gzip file; copy it again") from None
    first = head.partition("\n")[0]
    if "\r" in first[:-1]:
        raise ValueError(
            f"{path.name} ends its lines with a carriage return alone; save it as CSV UTF-8 with usual line ends"
        )
    if {"\0", "\N{REPLACEMENT CHARACTER}"} & set(first):
        raise ValueError(f"{path.name} does not begin with a line of UTF-8 text; save it as CSV UTF-8")
    delimiter = max(",;\t|", key=first.count)
    header = next(csv.reader(io.StringIO(head), delimiter=delimiter), [])
    names = [n.strip() or f"column_{i}" for i, n in enumerate(header)]
    if twice := [n for i, n in enumerate(names) if n.casefold() in map(str.casefold, names[:i])]:
        raise ValueError(f"{path.name} has two columns named {twice[0]!r}; rename one")
    return delimiter, names


def _listed(paths: list[Path]) -> str:
    return ", ".join(text(_escape(str(p.resolve()))) for p in paths)


def _escape(path: str) -> str:
    """Return the path with nothing left that DuckDB takes for a pattern."""
    return "".join(f"[{c}]" if c in "[*?" else c for c in path)


def write_quarantine(con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write refused rows to one Parquet file per table, each whole or not at all; remove those of clean tables."""
    counts = dict(con.execute("SELECT table_name, count(*) FROM quarantine GROUP BY ALL").fetchall())
    for name in NAMES:
        path = folder / f"{name}.parquet"
        if not counts.get(name):
            path.unlink(missing_ok=True)
            continue
        rows = f"FROM quarantine WHERE table_name = '{name}' ORDER BY row_number"
        with replacing(path) as draft:
            con.execute(f"COPY ({rows}) TO {text(str(draft))} (FORMAT parquet)")


def fingerprint(con: duckdb.DuckDBPyConnection) -> str:
    """Return a digest of what all contract tables hold, the same whatever the order of their rows.

    DuckDB's own row hash is used: a new version of DuckDB may give another digest.
    """
    digest = hashlib.sha256()
    for name in NAMES:
        columns = sorted(row[0] for row in con.execute(f"DESCRIBE {quote(name)}").fetchall())
        row = f"hash({', '.join(map(quote, columns))})"
        facts = con.execute(
            f"SELECT count(*), bit_xor({row}), sum(CAST({row} AS HUGEINT)) FROM {quote(name)}"
        ).fetchall()[0]
        digest.update(repr((name, columns, *map(str, facts))).encode())
    return digest.hexdigest()


def data_time(con: duckdb.DuckDBPyConnection) -> datetime | None:
    """Return when the newest of all facts became known, None without any."""
    dated = [t.name for t in TABLES if t.has_history]
    newest = ", ".join(f"(SELECT max(known_at) FROM {quote(name)})" for name in dated)
    return con.execute(f"SELECT greatest({newest})").fetchall()[0][0]
