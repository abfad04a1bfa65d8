"""Hold the tables of a week to the risk contract, as Arrow columns of few types, and take their digest."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from models.risk_columns import Column, Kind, Table
from models.risk_contract import ADDED, BY_NAME
from pipelines.settings import UserError

TYPES: Mapping[Kind, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "day": pa.timestamp("us"),
    "timestamp": pa.timestamp("us"),
}
SQL_TYPE = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.timestamp("us"): "TIMESTAMP",
}
IN_WORDS: Mapping[Kind, str] = {
    "text": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "day": "a day",
    "timestamp": "a moment",
}
RESERVED = tuple(c.name for c in ADDED)


class PublishError(UserError):
    """The tables handed in break the contract of the risk tables."""

    exit_code = 3


def checked(name: str, frame: pd.DataFrame, contract: Mapping[str, Table] = BY_NAME) -> pa.Table:
    """Return the frame as typed columns, or say which column or value breaks the contract; NaN counts as NULL."""
    if name not in contract:
        raise PublishError(f"{name} is not a risk table; expected {', '.join(contract)}")
    table, names = contract[name], [str(column) for column in frame.columns]
    folded = [column.lower() for column in names]
    if twice := sorted({column for column in folded if folded.count(column) > 1}):
        raise PublishError(f"{name} has columns of the same name (case does not count): {', '.join(twice)}")
    if reserved := [column for column in RESERVED if column in folded]:
        raise PublishError(f"{name} brings {', '.join(reserved)}, which publishing adds itself; hand it in without")
    if missing := [column for column in table.needed if column not in names]:
        raise PublishError(f"{name} comes without {', '.join(missing)}, which its contract needs; add the column")
    if unknown := [column for column in names if table.column(column) is None]:
        remedy = "leave it out or describe it in models/risk_contract.py"
        raise PublishError(f"{name} brings {', '.join(unknown)}, which its contract does not know; {remedy}")
    named = frame.set_axis(names, axis="columns")
    columns = {column: _column(table, named, column) for column in names}
    _refuse_doubles(table, named)
    return pa.table(columns)


def _column(table: Table, frame: pd.DataFrame, name: str) -> pa.Array:
    rule, values = table.column(name), frame[name]
    assert rule is not None
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values = values.dt.tz_convert(None)
    try:
        # from_pandas would turn NaN into NULL unseen; without it, dates and texts in object columns do not convert
        column = pa.array(values, from_pandas=True)
        if pa.types.is_floating(column.type):
            column = pa.array(values, from_pandas=False)
        column = _typed(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column, rule)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise PublishError(f"{table.name}.{name} ({values.dtype}) is not {_expected(rule)}: {reason}") from error
    if rule.kind == "number":
        if rule.nullable:
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
        _refuse(table, frame, name, pc.invert(pc.is_finite(column)), "NaN or infinite")
    if not rule.nullable:
        _refuse(table, frame, name, column.is_null(), "NULL")
    _refuse(table, frame, name, _not_allowed(column, rule), f"not {_expected(rule)}")
    return column


def _typed(column: pa.Array, rule: Column) -> pa.Array:
    """Return the column in the type of its contract; numbers may widen, nothing else changes what it is."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind, wanted = column.type, TYPES[rule.kind]
    fits = {
        "text": pa.types.is_string(kind) or pa.types.is_large_string(kind),
        "integer": pa.types.is_integer(kind),
        "number": pa.types.is_floating(kind) or pa.types.is_integer(kind),
        "boolean": pa.types.is_boolean(kind),
        "day": pa.types.is_timestamp(kind) or pa.types.is_date(kind),
        "timestamp": pa.types.is_timestamp(kind) or pa.types.is_date(kind),
    }[rule.kind]
    if not fits and kind != pa.null() and len(column):
        raise pa.ArrowTypeError(f"it came as {str(kind).removeprefix('large_')}")
    if not fits:
        return pa.nulls(len(column), wanted)
    return column.cast(wanted, safe=not pa.types.is_timestamp(kind))


def _not_allowed(column: pa.Array, rule: Column) -> pa.Array:
    bad = pa.array(np.zeros(len(column), bool))
    if rule.one_of:
        bad = pc.or_(bad, pc.invert(pc.is_in(column, pa.array(rule.one_of))))
        bad = pc.and_(bad, column.is_valid())
    if rule.minimum is not None:
        bad = pc.or_(bad, pc.less(column, rule.minimum))
    if rule.maximum is not None:
        bad = pc.or_(bad, pc.greater(column, rule.maximum))
    if rule.kind == "day":
        bad = pc.or_(bad, pc.not_equal(column, pc.floor_temporal(column, unit="day")))
    return bad


def _expected(rule: Column) -> str:
    if rule.one_of:
        return f"one of {', '.join(rule.one_of)}"
    kind, low, high = IN_WORDS[rule.kind], rule.minimum, rule.maximum
    if low is not None and high is not None:
        return f"{kind} in [{low:g}, {high:g}]"
    return kind + (f" from {low:g}" if low is not None else f" up to {high:g}" if high is not None else "")


def _refuse(table: Table, frame: pd.DataFrame, name: str, bad: pa.Array, what: str) -> None:
    """Raise, naming the first bad row by its key, when `bad` is true anywhere."""
    where = np.flatnonzero(bad.fill_null(False).to_numpy(zero_copy_only=False))
    if not len(where):
        return
    first = frame.iloc[int(where[0])]
    row = ", ".join(f"{key}={first[key]}" for key in table.key or frame.columns[:1])
    raise PublishError(
        f"{table.name}.{name} is {what} in {len(where)} of {len(frame)} rows, first {first[name]} at {row};"
        " nothing was published"
    )


def _refuse_doubles(table: Table, frame: pd.DataFrame) -> None:
    if table.key and (again := frame.duplicated(list(table.key))).any():
        first = frame[again].iloc[0]
        row = ", ".join(f"{key}={first[key]}" for key in table.key)
        raise PublishError(f"{table.name} has {again.sum()} rows whose key another row has, first {row}")


def digest(
    tables: Mapping[str, pa.Table], as_of: date, schema_version: str, contract: Mapping[str, Table] = BY_NAME
) -> str:
    """Return the sha256 of the content: order of rows and columns does not count, nor does a column without a value."""
    content = hashlib.sha256(json.dumps([as_of.isoformat(), schema_version]).encode())
    for name, table in sorted(tables.items()):
        filled = sorted(c for c in table.column_names if table[c].null_count < table.num_rows)
        kinds = [[c, SQL_TYPE[table[c].type]] for c in filled]
        content.update(json.dumps([name, table.num_rows, kinds]).encode())
        key = contract[name].key if name in contract else ()
        if filled:
            for column in _in_canonical_order(table.select(filled), key or filled):
                content.update(np.asarray(column.is_null()).tobytes())
                for block in _bytes(column):
                    content.update(block)
    return content.hexdigest()


def _in_canonical_order(table: pa.Table, key: Sequence[str]) -> Iterator[pa.ChunkedArray]:
    """Yield the columns with their rows sorted by the key; what equals another value has its bytes."""
    order = pc.sort_indices(table, [(name, "ascending") for name in key])
    sorted_already = bool((np.diff(order.to_numpy().astype(np.int64)) > 0).all())
    for column in table.columns:
        if column.type == pa.float64():
            column = pc.add(column, 0.0)  # −0.0 equals 0.0, its bytes do not
        yield column if sorted_already else column.take(order)


def _bytes(column: pa.ChunkedArray) -> Iterator[bytes | memoryview]:
    """Yield the values of a column as bytes that do not depend on how it is cut into chunks."""
    if column.type == pa.string():
        texts = column.cast(pa.large_string()).fill_null("").combine_chunks()
        edges = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
        yield np.diff(edges).astype("<i8").tobytes()
        yield memoryview(texts.buffers()[2] or b"")[edges[0] : edges[-1]]
    elif column.type == pa.float64():
        yield np.asarray(column.fill_null(0.0)).astype("<f8").tobytes()
    else:
        yield np.asarray(column.cast(pa.int64()).fill_null(0)).astype("<i8").tobytes()
