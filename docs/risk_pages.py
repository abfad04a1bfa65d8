"""Write what is published, from its contract: a page for people and a data contract for catalogues."""

from collections.abc import Iterator
from typing import Any

import yaml

from models.risk_columns import KIND_ABOUT, Column, Table
from models.risk_contract import ADDED, PUBLICATIONS, SCHEMA_VERSION, TABLES
from pipelines.content import SQL_TYPE, TYPES

SOURCE = "models/risk_contract.py"
HEAD = f"<!-- Written by `make docs` from {SOURCE}. Edit that file, not this one. -->\n"

INTRODUCTION = """# Risk tables

What bullwhip publishes. `<table>_current` is the latest week, `<table>_week` every week as it stands, `<table>_history`
every revision that ever was, `publications` the ledger. A week is published whole or not at all; the row that leads a
week is the revision with the newest data, of equals the last one.

A table that does not hold to what stands here is refused before anything is written: a column too few or too many, a
key twice, a value outside its limits, NaN or NULL where the column does not allow it.
[contracts/risk.odcs.yaml](contracts/risk.odcs.yaml) says the same in the Open Data Contract Standard.
"""


def risk() -> str:
    """Return docs/risk.md: every published table and column."""
    kinds = [f"| {kind} | {about} |" for kind, about in KIND_ABOUT.items()]
    return "\n".join(
        [
            HEAD, INTRODUCTION, "| table | one row per | about |", "|---|---|---|",
            *(f"| [`{t.name}`](#{t.name}) | {_key(t)} | {t.about} |" for t in (*TABLES, PUBLICATIONS)), "",
            "## Kinds of values", "", "| kind | what it is |", "|---|---|", *kinds, "",
            "## In every table", "", *_columns(ADDED), "",
            *(line for t in (*TABLES, PUBLICATIONS) for line in _table(t)),
        ]
    ).rstrip() + "\n"  # fmt: skip


def _key(table: Table) -> str:
    return ", ".join(f"`{k}`" for k in table.key)


def _table(table: Table) -> Iterator[str]:
    yield from (
        f"## {table.name}",
        "",
        table.about,
        "",
        f"One row per {_key(table)}.",
        "",
        *_columns(table.columns),
        "",
    )


def _columns(columns: tuple[Column, ...]) -> Iterator[str]:
    yield from ("| column | kind | unit | NULL | allowed | meaning |", "|---|---|---|---|---|---|")
    for c in columns:
        name = f"`{c.name}`".replace("*", "<rule>")
        yield f"| {name} | {c.kind} | {c.unit} | {'yes' if c.nullable else 'no'} | {_allowed(c)} | {c.about} |"


def _allowed(c: Column) -> str:
    if c.one_of:
        return ", ".join(c.one_of)
    low, high = c.minimum, c.maximum
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    return f"from {low:g}" if low is not None else f"up to {high:g}" if high is not None else ""


# Open Data Contract Standard ------------------------------------------------------------------------------------------

LOGICAL = {
    "text": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "day": "date",
    "timestamp": "timestamp",
}


def contract() -> str:
    """Return docs/contracts/risk.odcs.yaml: the tables in the Open Data Contract Standard 3.2."""
    document = {
        "apiVersion": "v3.2.0",
        "kind": "DataContract",
        "id": "bullwhip-risk",
        "name": "bullwhip risk tables",
        "version": f"{SCHEMA_VERSION}.0.0",
        "status": "active",
        "domain": "supply chain",
        "dataProduct": "bullwhip",
        "description": {
            "purpose": "Which supplier deliveries will be late and which demand will shift, every week.",
            "usage": "Read <table>_current for the latest week, <table>_week for every week as it stands.",
            "limitations": "Probabilities are of what was known before as_of; a corrected week is a new revision.",
        },
        "schema": [*map(_object, TABLES), _object(PUBLICATIONS)],
    }
    said = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
    return f"# Written by `make docs` from {SOURCE}. Edit that file, not this one.\n{said}"


def _object(table: Table) -> dict[str, Any]:
    ledger = table is PUBLICATIONS
    key = table.key if ledger else ("publication_id", *table.key)
    columns = table.columns if ledger else (*ADDED, *table.columns)
    return {
        "name": table.name,
        "physicalName": table.name if ledger else f"{table.name}_history",
        "physicalType": "view",
        "logicalType": "object",
        "description": table.about,
        "dataGranularityDescription": f"One row per {', '.join(key)}",
        "properties": [_property(c, key) for c in columns],
    }


def _property(c: Column, key: tuple[str, ...]) -> dict[str, Any]:
    out: dict[str, Any] = {"name": c.name, "description": c.about, "logicalType": LOGICAL[c.kind]}
    out["physicalType"] = "DATE" if c.name == "as_of" else SQL_TYPE[TYPES[c.kind]]
    if c.name in key:
        out |= {"primaryKey": True, "primaryKeyPosition": key.index(c.name) + 1}
    out["required"] = not c.nullable
    if limits := {k: v for k, v in (("minimum", c.minimum), ("maximum", c.maximum)) if v is not None}:
        out["logicalTypeOptions"] = limits
    if c.one_of:
        out["enum"] = [{"value": value} for value in c.one_of]
    said = {"unit": c.unit, "pattern": "the * stands for the name of a rule" if c.many else ""}
    if more := [{"property": name, "value": value} for name, value in said.items() if value]:
        out["customProperties"] = more
    return out
