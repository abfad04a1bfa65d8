"""Write the SQL that reads one raw table once: typed columns, and for every bad row its reasons and what came."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime

from features.contracts import EARLIEST, YEARS_AHEAD, Column, Rule, Table

EXPECTED = {
    "id": "text or whole numbers",
    "text": "text",
    "date": "a date, as text YYYY-MM-DD (2024-01-31)",
    "timestamp": "a timestamp, as text YYYY-MM-DD or YYYY-MM-DD HH:MM:SS in UTC or with its offset (2024-01-31T08:00Z)",
    "number": "a number, as text with a decimal point and without thousands separators (1234.5)",
}
UNREADABLE = {"date": "is not an ISO date (YYYY-MM-DD)", "number": "is not a number"}
UNREADABLE["timestamp"] = UNREADABLE["date"]
WHOLE = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
)
FRACTIONS = ("FLOAT", "DOUBLE", "DECIMAL")
ZONED = ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS")
MOMENTS = ("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", *ZONED)
ACCEPTED = {
    "id": (*WHOLE, *FRACTIONS, "UUID", "ENUM"),
    "text": (*WHOLE, *FRACTIONS, *MOMENTS, "UUID", "ENUM", "BOOLEAN", "TIME"),
    "date": MOMENTS,
    "timestamp": MOMENTS,
    "number": (*WHOLE, *FRACTIONS),
}


def quote(name: str) -> str:
    """Return the name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return the value as SQL text."""
    return "'" + value.replace("'", "''") + "'"


def own_name(extra: str) -> str:
    """Return the name an extra column gets: its own, unless DuckDB or the door needs it."""
    return f"{extra}_" if extra.casefold() in ("rowid", "__bad") else extra


def accepts(kind: str, raw: str) -> bool:
    """Say whether a column of this raw DuckDB type can hold values of this kind."""
    return raw in ("VARCHAR", '"NULL"') or (not raw.endswith("]") and raw.partition("(")[0] in ACCEPTED[kind])


def cleaned(column: Column, raw: str) -> str:
    """Return SQL for the cell as it came, NULL where it is empty."""
    name = quote(column.name)
    if raw == "VARCHAR":
        bare = f"{name} > '!' AND {name}[-1] > ' '"  # trimming every cell took two thirds of reading a table
        return f"CASE WHEN {bare} THEN {name} ELSE nullif(trim({name}, ' \t\r\n'), '') END"
    if column.kind in ("id", "text") and raw.partition("(")[0] in FRACTIONS:
        whole = f"WHEN {name} = trunc({name}) AND abs({name}) < 1e15 THEN CAST(CAST({name} AS BIGINT) AS VARCHAR)"
        empty = "" if raw.startswith("DECIMAL") else f"WHEN isnan({name}) THEN NULL"
        return f"CASE {empty} {whole} ELSE CAST({name} AS VARCHAR) END"
    return name


def typed(kind: str, cell: str, raw: str) -> str:
    """Return SQL that turns a cleaned cell into this kind, NULL where it cannot be read."""
    if kind in ("id", "text"):
        return f"CAST({cell} AS VARCHAR)"
    if kind == "number":
        return f"CASE WHEN NOT contains({cell}, '_') THEN TRY_CAST({cell} AS DOUBLE) END" if raw == "VARCHAR" else (
            f"CAST({cell} AS DOUBLE)"
        )  # fmt: skip
    if raw == "VARCHAR":
        return _moment(kind, cell)
    if raw in ZONED:
        cell = f"({cell} AT TIME ZONE 'UTC')"
    return f"TRY_CAST({cell} AS {'DATE' if kind == 'date' else 'TIMESTAMP'})"


def _moment(kind: str, cell: str) -> str:
    """Return SQL for ISO text. DuckDB reads an offset only as TIMESTAMPTZ; a date keeps the day that is written."""
    zoned = f"TRY_CAST(replace(replace({cell}, ' +', '+'), ' -', '-') AS TIMESTAMPTZ)"
    if kind == "date":
        read = f"CASE WHEN {zoned} IS NOT NULL THEN TRY_CAST(left({cell}, 10) AS DATE) END"
        read = f"CASE WHEN length({cell}) = 10 THEN TRY_CAST({cell} AS DATE) ELSE {read} END"
    else:
        rest = f"substr({cell}, 12)"  # without a zone nothing follows the time of day, not even a blank
        zone = " OR ".join(f"contains({rest}, '{sign}')" for sign in "+- ")
        read = f"CASE WHEN {zone} THEN {zoned} AT TIME ZONE 'UTC' ELSE TRY_CAST({cell} AS TIMESTAMP) END"
        read = f"CASE WHEN length({cell}) = 10 THEN TRY_CAST({cell} AS DATE) ELSE {read} END"
    return f"CASE WHEN {cell} LIKE '____-__-__%' THEN {read} END"


def cell_rules(column: Column, raw: str, now: datetime) -> tuple[Rule, ...]:
    """Return what may be wrong with one cell; `__c_<name>` is the cleaned cell, `<name>` the typed one."""
    name, cell = quote(column.name), quote(f"__c_{column.name}")
    rules = [] if column.nullable else [Rule(f"{column.name} is empty", f"{cell} IS NULL", "''")]
    shown = f"'''' || left(CAST({cell} AS VARCHAR), 60) || ''''"
    if raw == "VARCHAR" and column.kind in UNREADABLE:
        read = quote("__given_known_at") if column.name == "known_at" else name
        when = f"{cell} IS NOT NULL AND {read} IS NULL"
        rules.append(Rule(f"{column.name} {UNREADABLE[column.kind]}", when, shown))
    if column.kind == "number":
        rules += _number_rules(column, name, f"CAST({cell} AS VARCHAR)")
    if column.kind in ("date", "timestamp"):
        rules += _moment_rules(column, name, now)
    if column.one_of:
        among = ", ".join(map(text, column.one_of))
        rules.append(Rule(f"{column.name} is not one of {', '.join(column.one_of)}", f"{name} NOT IN ({among})", shown))
    return tuple(rules)


def _number_rules(column: Column, name: str, shown: str) -> list[Rule]:
    rules = [Rule(f"{column.name} is NaN or infinite", f"NOT isfinite({name})", shown)]
    if column.positive:
        rules.append(Rule(f"{column.name} is not positive", f"{name} <= 0", shown))
    if column.minimum is not None:
        says = "negative" if column.minimum == 0 else f"below {column.minimum:g}"
        rules.append(Rule(f"{column.name} is {says}", f"{name} < {column.minimum}", shown))
    if column.maximum is not None:
        when = f"{name} > {column.maximum} AND isfinite({name})"
        rules.append(Rule(f"{column.name} is above {column.maximum:g}", when, shown))
    return rules


def _moment_rules(column: Column, name: str, now: datetime) -> list[Rule]:
    shown, at = f"CAST({name} AS VARCHAR)", f"TIMESTAMP '{now}'"
    if column.name == "known_at":  # a default is worked out from the event, whose own rules speak
        name = quote("__given_known_at")
    rules = [Rule(f"{column.name} is before {EARLIEST.year}", f"{name} < DATE '{EARLIEST}'", shown)]
    if column.ahead:
        late = f"{name} > {at} + INTERVAL {YEARS_AHEAD} YEAR"
        return [*rules, Rule(f"{column.name} is more than {YEARS_AHEAD} years ahead", late, shown)]
    if column.name == "known_at":
        return [*rules, Rule("known in the future", f"{name} > {at}", shown)]
    slack = " + INTERVAL 1 DAY" if column.kind == "date" else ""  # a site's day may be ahead of UTC's
    return [*rules, Rule(f"{column.name} is in the future", f"{name} > {at}{slack}", shown)]


def stage_sql(
    table: Table, source: str, raw: Mapping[str, str], *, now: datetime, defaults: Mapping[str, str],
    known_before: date | None = None,
) -> str:  # fmt: skip
    """Return the SELECT of the whole table: contract columns, extra columns, and `__bad` (NULL in a good row).

    `raw` maps the columns of `source` to DuckDB types. `__bad` is STRUCT(rules, shows, row_json). Cells that became
    known on `known_before` or later are empty, before any rule sees them.
    """
    own = [c.name for c in table.columns]
    extras = [n for n in raw if n not in own]
    present = [c for c in table.columns if c.name in raw]
    clean = [f"{cleaned(c, raw[c.name])} AS {quote(f'__c_{c.name}')}" for c in present]
    clean += [f"NULL AS {quote(f'__c_{c.name}')}" for c in table.columns if c.name not in raw]
    cells = ", ".join([f"{quote(n)} AS {quote(f'__r_{n}')}" for n in raw] + clean)
    types = ", ".join(
        f"{typed(c.kind, quote(f'__c_{c.name}'), raw.get(c.name, 'VARCHAR'))} AS {quote(c.name)}" for c in table.columns
    )
    given = ", known_at AS __given_known_at" if "known_at" in own else ""
    filled = ", ".join(f"coalesce({quote(n)}, {sql}) AS {quote(n)}" for n, sql in defaults.items())
    rules = [r for c in table.columns for r in cell_rules(c, raw.get(c.name, ""), now)] + list(table.rules)
    rows = f"""SELECT *{f" REPLACE ({filled})" if filled else ""}{given}
               FROM (SELECT *, {types} FROM (SELECT {cells} FROM {quote(source)}))"""
    return f"""
        SELECT {", ".join(map(quote, own))}{"".join(f", {quote(f'__r_{n}')} AS {quote(own_name(n))}" for n in extras)},
               {_bad(rules, list(raw))} AS __bad
        FROM ({_known_before(known_before, table, rows)})"""


def _known_before(day: date | None, table: Table, rows: str) -> str:
    """Return the rows without the cells that became known on the day or later, such as a cancellation."""
    cells = [
        f"CASE WHEN {quote(c.known_from)} >= DATE '{day}' THEN NULL ELSE {name} END AS {name}"
        for c in table.columns if c.known_from != "known_at" for name in (quote(c.name), quote(f"__c_{c.name}"))
    ]  # fmt: skip
    return f"SELECT * REPLACE ({', '.join(cells)}) FROM ({rows})" if day and cells else rows


def _bad(rules: Sequence[Rule], raw: Sequence[str]) -> str:
    """Return SQL that is NULL for a good row; the costly parts are evaluated for bad rows alone."""
    names = ", ".join(f"CASE WHEN {r.when} THEN {text(r.reason)} END" for r in rules)
    shows = ", ".join(f"CASE WHEN {r.when} THEN coalesce({r.shows}, '') END" for r in rules)
    row = ", ".join(f"{text(n)}, CAST({quote(f'__r_{n}')} AS VARCHAR)" for n in raw)
    return f"""CASE WHEN {" OR ".join(f"({r.when})" for r in rules)} THEN struct_pack(
        rules := list_filter([{names}], lambda x: x IS NOT NULL),
        shows := list_filter([{shows}], lambda x: x IS NOT NULL),
        row_json := CAST(json_object({row}) AS VARCHAR)) END"""
