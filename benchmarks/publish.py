"""How long does PostgreSQL take to publish a million rows, next to a bare COPY of the same rows and their index?

`python -m benchmarks.publish` starts a private server, or uses `--url` (an empty schema of yours). All ways take turns
in the same run, from the same frame, and their medians are compared: `published` is all of bullwhip's publishing;
`bare CSV` turns the frame into CSV with Arrow and sends that; `bare rows` hands every row to psycopg. Both bare ways
write into a table without checks, comments or views and then build the same primary key.
"""

import argparse
import io
import os
import pwd
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.csv as csv
import sqlalchemy as sa

from models.risk_contract import RULE_FORECASTS
from pipelines.content import checked
from pipelines.publish import publish
from pipelines.settings import DataSource

ROWS, ROUNDS = 1_000_000, 5
RULES = 8


def table(rows: int, seed: int = 7) -> pd.DataFrame:
    """Return `rule_forecasts` of so many rows."""
    dice = np.random.default_rng(seed)
    said = {f"p_rule_{k}": dice.random(rows).round(6) for k in range(RULES)}
    due = pd.Timestamp("2026-06-01") + pd.to_timedelta(dice.integers(0, 90, rows), unit="D")
    return pd.DataFrame(
        {"row_id": [f"PO-{n:08d}" for n in range(rows)], "event": "late", "due_on": due,
         "matures_on": due + pd.Timedelta(days=5), **said, "model_version": "3"}
    )  # fmt: skip


@contextmanager
def server() -> Iterator[str]:
    """Run a private PostgreSQL server with its own settings (fsync on) and hand out its URL."""
    initdb = shutil.which("initdb") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))
    folder, nobody = Path(tempfile.mkdtemp(prefix="bullwhip-bench-")), pwd.getpwnam("nobody")
    other = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    folder.chmod(0o755)
    if other:
        shutil.chown(folder, nobody.pw_uid)

    def call(program: str, *arguments: str) -> None:
        command = [str(Path(initdb).with_name(program)), "-D", f"{folder}/data", *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, **other)  # type: ignore[call-overload]

    call("initdb", "-U", "bullwhip", "-A", "trust", "-E", "UTF8")
    options = f"-k {folder} -c listen_addresses= -c max_wal_size=8GB"
    call("pg_ctl", "-w", "-o", options, "-l", f"{folder}/log", "start")
    try:
        yield f"postgresql+psycopg://bullwhip@/postgres?host={folder}"
    finally:
        call("pg_ctl", "-m", "fast", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def bare(con: psycopg.Connection, frame: pd.DataFrame, send: Callable[[psycopg.Copy, pa.Table], None]) -> float:
    """Return the seconds from a frame to a copied table with its primary key, in one transaction."""
    kinds = {pa.string(): "text", pa.float64(): "float8", pa.timestamp("us"): "timestamp", pa.int64(): "bigint"}
    columns = ", ".join(f'"{f.name}" {kinds[f.type]}' for f in checked("rule_forecasts", frame[:1]).schema)
    added = "publication_id text, as_of date, schema_version text, row_number bigint"
    con.execute("DROP TABLE IF EXISTS bare_rows")
    con.execute(f"CREATE TABLE bare_rows ({added}, {columns})")
    con.commit()
    began, n = time.perf_counter(), len(frame)
    rows = pa.Table.from_pandas(frame, preserve_index=False)
    constant = {"publication_id": pa.repeat("2026-06-01.r1", n), "as_of": pa.repeat(pa.scalar(date(2026, 6, 1)), n),
                "schema_version": pa.repeat("1", n), "row_number": pa.array(np.arange(n))}  # fmt: skip
    whole = pa.table({**constant, **{c: rows[c] for c in rows.column_names}})
    with con.cursor().copy("COPY bare_rows FROM STDIN" + (" (FORMAT csv)" if send is as_csv else "")) as stream:
        send(stream, whole)
    con.execute(f"ALTER TABLE bare_rows ADD PRIMARY KEY (publication_id, {', '.join(RULE_FORECASTS.key)})")
    con.commit()
    return time.perf_counter() - began


def as_csv(stream: psycopg.Copy, rows: pa.Table) -> None:
    for batch in rows.to_batches(32_768):
        block = io.BytesIO()
        csv.write_csv(batch, block, csv.WriteOptions(include_header=False))
        stream.write(block.getbuffer())


def row_by_row(stream: psycopg.Copy, rows: pa.Table) -> None:
    for batch in rows.to_batches(32_768):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            stream.write_row(row)


def measure(url: str, rows: int, rounds: int) -> None:
    """Print what each round took, then the medians and how they compare."""
    place = sa.make_url(url)
    seconds: dict[str, list[float]] = {"bare CSV": [], "bare rows": [], "published": []}
    who = {
        "dbname": place.database,
        "user": place.username,
        "password": place.password,
        "host": place.host,
        **place.query,
    }
    with psycopg.connect(**{name: value for name, value in who.items() if value}) as con:  # type: ignore[arg-type]
        for k in range(rounds):
            frame = table(rows, seed=k)
            seconds["bare CSV"].append(bare(con, frame, as_csv))
            seconds["bare rows"].append(bare(con, frame, row_by_row))
            began = time.perf_counter()
            publish(
                DataSource(url), {"rule_forecasts": frame}, as_of=date(2026, 6, 1) + timedelta(weeks=k),
                model_versions={}, data_fingerprint="", code_version="", published_at=datetime.now(UTC),
            )  # fmt: skip
            seconds["published"].append(time.perf_counter() - began)
            last = ", ".join(f"{name} {values[-1]:.1f} s" for name, values in seconds.items())
            print(f"round {k + 1}: {last}", flush=True)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {name: median["published"] / median[name] for name in ("bare CSV", "bare rows")}
    print(f"{rows:,} rows, medians of {rounds}: " + ", ".join(f"{name} {s:.1f} s" for name, s in median.items()))
    print("published takes " + ", ".join(f"{ratio:.2f} times {name}" for name, ratio in ratios.items()))


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    asked.add_argument("--url", help="an empty schema of a PostgreSQL server; left out, a private one is started")
    asked.add_argument("--rows", type=int, default=ROWS)
    asked.add_argument("--rounds", type=int, default=ROUNDS)
    given = asked.parse_args()
    if given.url:
        measure(given.url, given.rows, given.rounds)
        return
    with server() as url:
        measure(url, given.rows, given.rounds)


if __name__ == "__main__":
    main()
