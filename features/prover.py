"""Prove that no feature read the future: rebuild rows with it deleted, or scrambled, or some of each, and compare."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from features.as_known import arrived, known_before, moment_of, replaced, showing
from features.contracts import TABLES, Column, Table
from features.matrix import Build, Matrix, Request

SCRAMBLES = {
    "number": "{c} * (0.1 + 9.9 * {u}) + {u}",
    "date": "{c} + CAST(floor(120 * {u}) - 60 AS INTEGER)",
    "timestamp": "{c} + to_days(CAST(floor(60 * {u}) AS INTEGER))",
    "text": "reverse({c})",
}

DELETED, SCRAMBLED, MIXED = "deleted", "scrambled", "deleted or scrambled"
"""What becomes of facts of known_at ≥ as_of in the world of a proof; MIXED deletes some and scrambles the others."""
NUMBERING = ("line", "entity", "step")  # places of rows in tables that the proof builds anew


class LeakError(Exception):
    """A feature of a past as-of changed with facts that were not known then; the message names it."""

    exit_code = 4  # a gate: nothing is trained or published from rows that saw the future


def prove_no_leak(
    con: duckdb.DuckDBPyConnection,
    build: Build,
    request: Request,
    whole: Matrix,
    key: Sequence[str],
    steps: Sequence[int],
    *,
    own_day: Sequence[str] = (),
    worlds: Sequence[str] = (DELETED, SCRAMBLED),
) -> dict[str, int]:
    """Rebuild the rows at the as-of days numbered `steps` and hold every input against `whole`.

    Once per as-of in each of the `worlds`: by default with every fact of known_at ≥ as_of deleted, and with those facts
    scrambled. Columns of `rows` are held against `whole` too, since baselines and values rest on them. Raises LeakError
    naming the first feature or column that differs, or the rows that came or went. Of the tables `own_day` the facts of
    the as-of day itself are kept: lines seen as they are ordered are told by their own record. Where the grid ends and
    nothing at all was known later, there is no future to read and nothing to rebuild. Returns how much was compared.
    """
    compared = {"as_of_days": 0, "rows": 0, "cells": 0}
    for step in steps:
        past = request.until(step)
        expected = whole.take(np.flatnonzero(whole.rows["step"].to_numpy() == step))
        future = step < request.grid.size - 1 or _known_later(con, request.grid.as_of, own_day)
        for how in worlds if future else ():
            with _world(con, request.grid.days[step].astype(object), how, own_day) as proof:
                _compare(expected, build(proof, past, np.array([past.grid.size - 1])), key, how)
            compared["cells"] += expected.X.size
        compared["as_of_days"] += 1
        compared["rows"] += len(expected.rows)
    return compared


def _known_later(con: duckdb.DuckDBPyConnection, as_of: date, own_day: Sequence[str]) -> bool:
    """Whether any fact, or any cell that is known later than its row, was known at or after the as-of."""
    return any(arrived(con, table, as_of + timedelta(days=int(table.name in own_day)), date.max) for table in TABLES)


def _compare(expected: Matrix, found: Matrix, key: Sequence[str], how: str) -> None:
    left, right = (pd.MultiIndex.from_frame(m.rows[list(key)]) for m in (expected, found))
    if extra := [*left.difference(right), *right.difference(left)]:
        raise LeakError(
            f"with facts known at or after the as-of {how}, {len(right)} rows came out instead of {len(left)} "
            f"(for example {extra[0]}): which rows there are depends on the future; find the table whose known_at is "
            "too early"
        )
    place = right.get_indexer(left)
    for kind, whole, rebuilt in (("feature", expected.X, found.X), ("column", expected.rows, found.rows)):
        for name in [c for c in whole if kind == "feature" or (c in rebuilt and c not in NUMBERING)]:
            a = whole[name].reset_index(drop=True)
            b = rebuilt[name].take(place).reset_index(drop=True) if name in rebuilt else pd.Series(np.nan, a.index)
            differs = np.flatnonzero(_differs(a, b))
            if len(differs):
                raise LeakError(
                    f"{kind} {name} reads the future: with facts known at or after the as-of {how}, {len(differs)} of "
                    f"{len(a)} rows change (row {left[differs[0]]}: {a[differs[0]]} became {b[differs[0]]}); count it "
                    "by known_at"
                )


def prove_learnt_in_time(learn: Callable[[pd.DataFrame], Any], rows: pd.DataFrame, cut: Any, what: str) -> int:
    """Learn again without the rows of `rows` whose `matured_on` is after `cut`, and with their numbers turned round.

    `learn` returns what it learnt as numbers, nested as they like: rates, bin edges, a calibration map, a threshold,
    probabilities of fixed rows. Scaling, encoding, calibration, selection and thresholds must all pass. Raises
    LeakError naming `what`; returns how many numbers were compared.
    """
    later = ~(rows["matured_on"] <= pd.Timestamp(cut)).to_numpy()
    turned = rows.copy()
    for name in rows.select_dtypes("number"):
        value = rows[name].to_numpy(float)
        turned[name] = np.where(later, np.nanmin(value) + np.nanmax(value) - value, value).astype(rows[name].dtype)
    expected = _flat(learn(rows))
    for how, other in (("deleted", rows[~later].reset_index(drop=True)), ("turned round", turned)):
        found = _flat(learn(other))
        if len(found) != len(expected) or not np.allclose(found, expected, rtol=1e-6, atol=1e-9, equal_nan=True):
            raise LeakError(
                f"{what} is learnt from the future: with {int(later.sum())} rows {how} that had not matured by {cut}, "
                "it comes out differently; learn it from matured rows only"
            )
    return len(expected)


def _flat(learnt: Any) -> np.ndarray:
    if isinstance(learnt, Mapping):
        learnt = [learnt[key] for key in sorted(learnt)]
    if isinstance(learnt, list | tuple):
        return np.concatenate([np.empty(0), *map(_flat, learnt)])
    return np.empty(0) if isinstance(learnt, str) or learnt is None else np.asarray(learnt, float).ravel()


def _differs(a: pd.Series, b: pd.Series) -> np.ndarray:
    numbers = [pd.api.types.is_numeric_dtype(x) for x in (a, b)]
    if any(numbers):  # an attribute is text only where some line, perhaps a later one, has a text
        x, y = (pd.to_numeric(c, errors="coerce").to_numpy(float) for c in (a, b))
        return ~np.isclose(x, y, rtol=1e-4, atol=1e-5, equal_nan=True)
    return ~((a == b) | (a.isna() & b.isna())).to_numpy(bool)


@contextmanager
def _world(
    con: duckdb.DuckDBPyConnection, as_of: date, how: str, own_day: Sequence[str] = ()
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection in which every contract table shows the facts known before `as_of`, others as `how` says."""

    def view(table: Table, source: str) -> str:
        return _view(con, table, source, as_of + timedelta(days=int(table.name in own_day)), how)

    with showing(con, view) as proof:
        yield proof


def _view(con: duckdb.DuckDBPyConnection, table: Table, source: str, day: date, how: str) -> str:
    """SQL for the table as it could be read before `day`, plus its later rows scrambled if `how` says so."""
    if how == DELETED or not table.has_history:
        return known_before(table, source, day)
    moment = moment_of(day)
    past = known_before(table, source, day, {c.name: _later(c, moment) for c in table.columns})
    types = {row[0]: row[1] for row in con.execute(f"DESCRIBE {source}").fetchall()}
    changed = {}
    for n, c in enumerate(table.columns):
        if c.name != "known_at" and c.kind != "id":
            changed[c.name] = _scrambled(c, n, table, types[c.name])
    later = f"known_at >= {moment}" + (f" AND hash({', '.join(table.key)}) % 2 = 0" if how == MIXED else "")
    return f"{past} UNION ALL BY NAME SELECT * {replaced(changed)} FROM {source} WHERE {later}"


def _scrambled(column: Column, n: int, table: Table, kind: str) -> str:
    u = f"(hash({table.key[0]}, {n}, known_at) % 10007 / 10007.0)"
    return f"CAST({SCRAMBLES[column.kind].format(c=column.name, u=u)} AS {kind})"


def _later(column: Column, moment: str) -> str:
    """SQL for a cell that becomes known only later: something it could still turn out to be."""
    if column.kind == "timestamp":
        return f"{moment} + to_days(CAST(hash(known_at) % 60 AS INTEGER))"
    return f"'{column.one_of[-1]}'" if column.one_of else "NULL"
