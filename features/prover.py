"""Prove that no feature read the future: rebuild sampled rows without it, and with it scrambled, and compare."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date

import duckdb
import numpy as np
import pandas as pd

from features.contracts import TABLES, Table
from features.matrix import Matrix, Request

SCRAMBLES = {
    "number": "{c} * (0.1 + 9.9 * {u}) + {u}",
    "date": "{c} + CAST(floor(120 * {u}) - 60 AS INTEGER)",
    "timestamp": "{c} + to_days(CAST(floor(60 * {u}) AS INTEGER))",
    "text": "reverse({c})",
}


class LeakError(Exception):
    """A feature of a past as-of changed with facts that were not known then; the message names it."""


Build = Callable[[duckdb.DuckDBPyConnection, Request, np.ndarray], Matrix]


def prove_no_leak(
    con: duckdb.DuckDBPyConnection,
    build: Build,
    request: Request,
    whole: Matrix,
    key: Sequence[str],
    steps: Sequence[int],
) -> dict[str, int]:
    """Rebuild the rows at the as-of days numbered `steps` and hold every input against `whole`.

    Twice per as-of: with every fact of known_at ≥ as_of deleted, and with those facts scrambled. Raises LeakError
    naming the first feature that differs, or the rows that came or went. Returns how much was compared.
    """
    compared = {"as_of_days": 0, "rows": 0, "cells": 0}
    for step in steps:
        past = request.until(step)
        expected = whole.take(np.flatnonzero(whole.rows["step"].to_numpy() == step))
        for how in ("deleted", "scrambled"):
            with _world(con, request.grid.days[step].astype(object), how) as proof:
                _compare(expected, build(proof, past, np.array([past.grid.size - 1])), key, how)
            compared["cells"] += expected.X.size
        compared["as_of_days"] += 1
        compared["rows"] += len(expected.rows)
    return compared


def _compare(expected: Matrix, found: Matrix, key: Sequence[str], how: str) -> None:
    left, right = (pd.MultiIndex.from_frame(m.rows[list(key)]) for m in (expected, found))
    if len(left) != len(right) or not left.isin(right).all():
        raise LeakError(
            f"with facts known at or after the as-of {how}, {len(right)} rows came out instead of {len(left)}: "
            "which rows there are depends on the future; find the table whose known_at is too early"
        )
    place = right.get_indexer(left)
    for name in expected.X.columns:
        a = expected.X[name].to_numpy()
        b = found.X[name].to_numpy()[place] if name in found.X else np.full(len(a), np.nan, np.float32)
        differs = _differs(a, b)
        if differs.any():
            row = int(np.flatnonzero(differs)[0])
            raise LeakError(
                f"feature {name} reads the future: with facts known at or after the as-of {how}, {int(differs.sum())} of "
                f"{len(a)} rows change (row {left[row]}: {a[row]} became {b[row]}); count it by known_at"
            )


def _differs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype == object or b.dtype == object:
        return ~((a == b) | (pd.isna(a) & pd.isna(b)))
    return ~np.isclose(a.astype(float), b.astype(float), rtol=1e-4, atol=1e-5, equal_nan=True)


@contextmanager
def _world(con: duckdb.DuckDBPyConnection, as_of: date, how: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection in which every contract table shows the facts of before `as_of`, the rest deleted or scrambled."""
    home = con.execute("SELECT current_schema()").fetchone()[0]  # type: ignore[index]
    proof = con.cursor()
    proof.execute("DROP SCHEMA IF EXISTS proof CASCADE")
    proof.execute("CREATE SCHEMA proof")
    try:
        for table in TABLES:
            proof.execute(f"CREATE VIEW proof.{table.name} AS {_view(con, table, home, as_of, how)}")
        proof.execute("SET schema = 'proof'")
        yield proof
    finally:
        proof.execute(f"SET schema = '{home}'")
        proof.execute("DROP SCHEMA proof CASCADE")
        proof.close()


def _view(con: duckdb.DuckDBPyConnection, table: Table, home: str, as_of: date, how: str) -> str:
    names = {column.name for column in table.columns}
    if "known_at" not in names:
        return f"SELECT * FROM {home}.{table.name}"
    moment = f"TIMESTAMP '{as_of} 00:00:00'"
    late_cells = {c.known_from: [] for c in table.columns if c.known_from != "known_at"}
    for column in table.columns:
        if column.known_from != "known_at":
            late_cells[column.known_from].append(column.name)
    hidden = [
        f"CASE WHEN {source} < {moment} THEN {name} END AS {name}"
        for source, cells in late_cells.items()
        for name in cells
    ]
    past = f"SELECT * {'REPLACE (' + ', '.join(hidden) + ')' if hidden else ''} FROM {home}.{table.name} WHERE known_at < {moment}"
    if how == "deleted":
        return past
    keep = {"known_at", *table.key, *(c.name for c in table.columns if c.kind == "id")}
    changed = []
    for n, column in enumerate(table.columns):
        if column.name not in keep or (column.name in table.key and column.kind == "date"):
            u = f"(hash({table.key[0]}, {n}, known_at) % 10007 / 10007.0)"
            value = SCRAMBLES[column.kind].format(c=f"{home}.{table.name}.{column.name}", u=u)
            changed.append(f"CAST({value} AS {_type(con, home, table.name, column.name)}) AS {column.name}")
    moved = f"SELECT * REPLACE ({', '.join(changed)}) FROM {home}.{table.name} WHERE known_at >= {moment}"
    return f"{past} UNION ALL BY NAME {moved}"


def _type(con: duckdb.DuckDBPyConnection, schema: str, table: str, column: str) -> str:
    return con.execute(
        "SELECT data_type FROM information_schema.columns WHERE table_schema = ? AND table_name = ? AND column_name = ?",
        [schema, table, column],
    ).fetchone()[0]  # type: ignore[index]
