"""The contract of the risk tables is whole, and what is written from it says the same."""

from pathlib import Path

import pytest
import yaml

from models.record import READS
from models.risk_columns import KIND_ABOUT, Column, Table, share
from models.risk_contract import ADDED, BY_NAME, PUBLICATIONS, TABLES
from pipelines.ledger import Line

EVERY = (*TABLES, PUBLICATIONS)
COLUMNS = [pytest.param(t, c, id=f"{t.name}.{c.name}") for t in EVERY for c in t.columns]


@pytest.mark.parametrize("table", EVERY, ids=lambda t: t.name)
def test_a_table_is_described_once_and_has_a_key_that_is_never_missing(table):
    names = [c.name for c in table.columns]
    assert len(names) == len(set(names))
    assert not {c.name for c in ADDED} & set(names) or table is PUBLICATIONS
    assert table.about.endswith((".", "?"))
    for key in table.key:
        assert table.column(key) is not None
        assert not table.column(key).nullable


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_column_says_what_it_means(table, column):
    assert column.about.endswith(".")
    assert column.kind in KIND_ABOUT
    assert bool(column.unit) == (column.kind in ("integer", "number"))
    assert column.nullable or not column.many  # another week may do without it
    assert not column.one_of or column.kind == "text"
    assert table.column(column.name) is column


def test_a_name_that_stands_for_many_is_found_and_an_own_name_comes_first():
    table = Table("t", "", (), (share("p_*", ""), Column("p_own", "text", "")))
    assert [table.column(name) and table.column(name).kind for name in ("p_rule", "p_own", "q")] == [
        "number",
        "text",
        None,
    ]
    assert table.needed == ("p_own",)


def test_what_the_track_record_reads_is_published():
    for name, columns in READS.items():
        assert all(BY_NAME[name].column(column) for column in columns)


def test_the_ledger_is_as_the_contract_says():
    assert list(Line.__dataclass_fields__) == [c.name for c in PUBLICATIONS.columns]


# The fields that the Open Data Contract Standard 3.2 names, as far as we use them
ROOT = {"apiVersion", "kind", "id", "name", "version", "status", "domain", "dataProduct", "description", "schema"}
OBJECT = {
    "name", "physicalName", "physicalType", "logicalType", "description", "dataGranularityDescription", "properties",
}  # fmt: skip
PROPERTY = {
    "name", "description", "logicalType", "physicalType", "primaryKey", "primaryKeyPosition", "required",
    "logicalTypeOptions", "enum", "customProperties",
}  # fmt: skip


def test_the_data_contract_uses_the_fields_of_the_standard():
    written = Path(__file__).parents[1] / "docs/contracts/risk.odcs.yaml"
    contract = yaml.safe_load(written.read_text(encoding="utf-8"))
    assert (contract["apiVersion"], contract["kind"]) == ("v3.2.0", "DataContract")
    assert set(contract) == ROOT
    assert set(contract["description"]) == {"purpose", "usage", "limitations"}
    assert [table["name"] for table in contract["schema"]] == [table.name for table in EVERY]
    for table in contract["schema"]:
        assert set(table) == OBJECT
        keys = [p["primaryKeyPosition"] for p in table["properties"] if p.get("primaryKey")]
        assert sorted(keys) == [*range(1, len(keys) + 1)]
        for column in table["properties"]:
            assert set(column) <= PROPERTY
            assert column["logicalType"] in {"string", "integer", "number", "boolean", "date", "timestamp"}
            assert set(column.get("logicalTypeOptions", {})) <= {"minimum", "maximum"}
            assert all(set(value) == {"value"} for value in column.get("enum", []))
            assert all(set(more) == {"property", "value"} for more in column.get("customProperties", []))
