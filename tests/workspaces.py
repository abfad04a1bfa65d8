"""What tests do with workspaces: run commands in them, change their tables, read what they published."""

import contextlib
import io
import json
import os
import subprocess
import sys
from datetime import date
from functools import partial
from pathlib import Path

import duckdb
import pandas as pd

from features.contracts import TABLES
from pipelines import cli, publish
from pipelines.settings import load

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("BULLWHIP_SHARED_DATA") or ROOT.parent / "shared" / "data")
"""Public data sets; tests that need one are left out where it is not there."""
MONDAY, EARLIER, NEXT = date(2026, 6, 1), date(2026, 5, 18), date(2026, 6, 8)


def bullwhip(workspace, *words):
    """Run a command on a workspace; returns what `run` does."""
    return run(*words, "--workspace", str(workspace))


def run(*words):
    """Run a command in this process; returns its exit code, its JSON document and what it said on stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run([*words, "--json"])
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return code, json.loads(out.getvalue()), err.getvalue()


def learn_quickly(patch, rounds=4, replicates=20):
    """Let `patch` have models learn few trees: for tests that look at what happens around them; returns how many.

    Inside a test it must be the test's own `monkeypatch`: patches of two that overlap are undone in the wrong order.
    """
    from models import lessons
    from models.delay import DelayModel
    from models.shift import ShiftModel
    from pipelines import learn

    patch.setattr(lessons, "DelayModel", partial(DelayModel, rounds=rounds))
    patch.setattr(lessons, "ShiftModel", partial(ShiftModel, rounds=rounds, quantile_rounds=rounds))
    patch.setattr(learn, "judge", partial(learn.judge, n=replicates))
    return rounds


def as_process(workspace, *words, **more):
    """Start a command as a process of its own, with this one's Prefect server."""
    from prefect.settings import PREFECT_API_URL

    environment = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value()}
    command = [sys.executable, "-m", "pipelines.cli", *words, "--workspace", str(workspace)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def settings(workspace):
    return load(workspace, environ={})


def change(workspace, table, query, source=None):
    """Replace a table by what a query over `old` gives; `source` is the workspace that `old` is taken from."""
    path = workspace / "data" / f"{table}.parquet"
    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW old AS FROM '{(source or workspace) / 'data' / path.name}'")
        con.execute(f"COPY ({query}) TO '{path}.new' (FORMAT parquet)")
    os.replace(f"{path}.new", path)


def forget_from(workspace, day):
    """Delete every fact that became known on or after a day."""
    moment = f"TIMESTAMP '{day} 00:00:00'"
    for table in TABLES:
        path = workspace / "data" / f"{table.name}.parquet"
        if not path.exists() or "known_at" not in [c.name for c in table.columns]:
            continue
        there = set(pd.read_parquet(path).columns)
        known_at = f"coalesce(known_at, {table.column('known_at').default or 'NULL'})"
        known_at = known_at if "known_at" in there else table.column("known_at").default
        later = [c for c in table.columns if c.known_from != "known_at" and c.name in there]
        cells = ", ".join(f"CASE WHEN {c.known_from} < {moment} THEN {c.name} END AS {c.name}" for c in later)
        change(workspace, table.name, f"SELECT * {f'REPLACE ({cells})' if cells else ''} FROM old "
               f"WHERE {known_at} < {moment}")  # fmt: skip


def tables_of(workspace, day=None, names=publish.TABLES):
    return {t: publish.read(workspace, t, as_of=day).drop(columns="publication_id") for t in names}
