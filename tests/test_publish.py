"""What is published, what counts as the same, what is refused, and what readers get."""

import math
import os
from dataclasses import replace
from datetime import UTC, date, datetime

import duckdb
import pandas as pd
import pytest

from models.risk_columns import Column, Table, number, share, text
from models.risk_columns import count as whole
from pipelines.content import PublishError
from pipelines.publish import previous_week, publications, publish, read, release
from pipelines.settings import UserError

MONDAY = date(2026, 6, 1)
NEXT_MONDAY = date(2026, 6, 8)

# A `*` at the end of a name: the column may be left out
DELAYS = Table(
    "supplier_delay_risk", "", ("po_line_id",),
    (
        text("po_line_id", ""), share("p_*", ""), text("reason*", "", nullable=True), text("note*", "", nullable=True),
        whole("open_units*", "", "", nullable=True), number("days_late_p50*", "", "", nullable=True),
        Column("arrives_on*", "day", "", nullable=True), Column("seen_at*", "timestamp", "", nullable=True),
        Column("sole_source*", "boolean", "", nullable=True), text("grade*", "", ("a", "b")), whole("tier*", "", ""),
        number("unknown*", "", "", nullable=True), number("value*", "", ""), Column("due*", "day", ""),
    ),
)  # fmt: skip
SUPPLIERS = Table(
    "supplier_risk", "", ("supplier_id",),
    (text("supplier_id", ""), number("open_value*", "", ""), number("trend*", "", "", nullable=True),
     text("The*", ""), whole("late_lines*", "", "")),
)  # fmt: skip
CONTRACT = {table.name: table for table in (DELAYS, SUPPLIERS)}


def altered(table, **columns):
    """Return the contract with some columns of a table replaced."""
    kept = [columns.pop(c.name.rstrip("*"), c) for c in table.columns]
    assert not columns
    return CONTRACT | {table.name: replace(table, columns=tuple(kept))}


P_MAY_BE_NULL = altered(DELAYS, p_=share("p_*", "", nullable=True))


def lines(*p_late, **columns):
    """Return a supplier_delay_risk table of one line per probability."""
    ids = [f"L{n}" for n in range(len(p_late))]
    return pd.DataFrame({"po_line_id": ids, "p_late": pd.Series(p_late, dtype="float64"), **columns})


def suppliers(count):
    return pd.DataFrame({"supplier_id": [f"S{n}" for n in range(count)], "open_value": [1.5 * n for n in range(count)]})


def put(workspace, as_of=MONDAY, tables=None, **options):
    facts = {
        "model_versions": {"delay": "3"},
        "data_fingerprint": "d41d8c",
        "code_version": "0.1.0",
        "published_at": datetime(2026, 6, 1, 6, 30, tzinfo=UTC),
        "contract": CONTRACT,
    }
    return publish(workspace, tables or {"supplier_delay_risk": lines(0.2, 0.7)}, as_of=as_of, **facts | options)


def ask(workspace, sql):
    with duckdb.connect(str(workspace / "risk.duckdb"), read_only=True) as con:
        return con.sql(sql).fetchall()


def release_names(workspace):
    return sorted(path.name for path in (workspace / "releases").iterdir())


# What a publication leaves behind


def test_the_first_publication_makes_one_release_that_every_path_leads_to(tmp_path):
    done = put(tmp_path, tables={"supplier_delay_risk": lines(0.2, 0.7), "supplier_risk": suppliers(3)})

    assert (done.status, done.publication_id, done.revision) == ("published", "2026-06-01.r1", 1)
    assert done.rows == {"supplier_delay_risk": 2, "supplier_risk": 3}
    assert done.path == release(tmp_path) == tmp_path / "releases/0001"
    links = {name: os.readlink(tmp_path / name) for name in ("current", "risk.duckdb", "tables")}
    assert links == {"current": "releases/0001", "risk.duckdb": "current/risk.duckdb", "tables": "current/tables"}
    assert sorted(path.name for path in done.path.iterdir()) == ["risk.duckdb", "tables"]  # no .wal, no .tmp
    assert (tmp_path / "tables/supplier_risk/as_of=2026-06-01/supplier_risk.parquet").is_file()


def test_every_row_carries_its_publication_in_the_first_columns(tmp_path):
    put(tmp_path)
    expected = [("2026-06-01.r1", MONDAY, "1", "L0", 0.2), ("2026-06-01.r1", MONDAY, "1", "L1", 0.7)]
    for view in ("history", "week", "current"):
        assert ask(tmp_path, f"FROM supplier_delay_risk_{view}") == expected
    assert list(read(tmp_path, "supplier_delay_risk")) == [
        "publication_id", "as_of", "schema_version", "po_line_id", "p_late",
    ]  # fmt: skip


def test_parquet_folders_open_in_pandas_and_duckdb_with_the_week_as_a_column(tmp_path):
    put(tmp_path)
    put(tmp_path, NEXT_MONDAY, {"supplier_delay_risk": lines(0.9)})
    folder = tmp_path / "tables/supplier_delay_risk"

    frame = pd.read_parquet(folder)
    assert frame["as_of"].astype(str).tolist() == ["2026-06-01", "2026-06-01", "2026-06-08"]
    assert duckdb.sql(f"SELECT as_of, p_late FROM '{folder}/as_of=*/*.parquet' ORDER BY ALL").fetchall() == [
        (MONDAY, 0.2), (MONDAY, 0.7), (NEXT_MONDAY, 0.9),
    ]  # fmt: skip


def test_the_ledger_says_what_when_and_from_what(tmp_path):
    in_utc = datetime(2026, 6, 1, 8, 30, tzinfo=UTC)
    facts_until = datetime(2026, 5, 31, 21, tzinfo=UTC)
    done = put(tmp_path, published_at=in_utc.astimezone(), data_time=facts_until, schema_version="2")
    (row,) = publications(tmp_path).to_dict("records")
    assert row == {
        "publication_id": "2026-06-01.r1",
        "as_of": pd.Timestamp(MONDAY),
        "revision": 1,
        "status": "published",
        "digest": done.digest,
        "rows": {"supplier_delay_risk": 2},
        "model_versions": {"delay": "3"},
        "data_fingerprint": "d41d8c",
        "data_time": pd.Timestamp("2026-05-31 21:00"),
        "code_version": "0.1.0",
        "schema_version": "2",
        "published_at": pd.Timestamp("2026-06-01 08:30"),
    }


def test_types_survive_and_null_stays_null(tmp_path):
    midnight = datetime(2026, 6, 1, tzinfo=UTC).replace(tzinfo=None)
    frame = lines(0.2, 0.7).assign(
        reason=["price", None],
        open_units=pd.array([4, pd.NA], dtype="Int64"),
        days_late_p50=pd.array([1.5, None], dtype="Float64"),
        arrives_on=[date(2026, 7, 1), None],
        seen_at=pd.to_datetime(["2026-06-01 02:00", None]).tz_localize("Europe/Berlin"),
        sole_source=pd.array([True, None], dtype="boolean"),
        grade=pd.Series(["a", "b"], dtype="category"),
        tier=pd.Series([1, 2], dtype="int8"),
        unknown=[None, None],
    )
    put(tmp_path, tables={"supplier_delay_risk": frame})
    assert ask(
        tmp_path, "SELECT * EXCLUDE (publication_id, as_of, schema_version) FROM supplier_delay_risk_current"
    ) == [
        ("L0", 0.2, "price", 4, 1.5, datetime(2026, 7, 1), midnight, True, "a", 1, None),  # noqa: DTZ001
        ("L1", 0.7, None, None, None, None, None, None, "b", 2, None),
    ]


def test_an_empty_table_is_published_as_empty(tmp_path):
    put(tmp_path, tables={"supplier_delay_risk": lines(), "supplier_risk": suppliers(1)})
    assert read(tmp_path, "supplier_delay_risk").empty
    assert len(pd.read_parquet(tmp_path / "tables/supplier_delay_risk")) == 0
    put(tmp_path, NEXT_MONDAY)
    assert len(read(tmp_path, "supplier_delay_risk")) == 2


# The same week again


def test_the_same_content_again_is_unchanged_and_makes_no_release(tmp_path):
    table = lines(0.2, 0.7, tier=[1, 2], note=[None, None])
    first = put(tmp_path, tables={"supplier_delay_risk": table})
    for again in (table, table[::-1], table[["tier", "po_line_id", "p_late"]], table.astype({"tier": "Int64"})):
        done = put(tmp_path, tables={"supplier_delay_risk": again}, code_version="0.2.0")
        assert (done.status, done.publication_id, done.path) == ("unchanged", first.publication_id, first.path)
    assert release_names(tmp_path) == ["0001"]
    assert len(publications(tmp_path)) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"supplier_delay_risk": lines(0.2, math.nextafter(0.7, 1))},
        {"supplier_delay_risk": lines(0.2, None)},
        {"supplier_delay_risk": lines(0.2, 0.7, 0.7)},
        {"supplier_delay_risk": lines(0.2, 0.7), "supplier_risk": suppliers(0)},
        {"supplier_delay_risk": lines(0.7, 0.2)},
    ],
    ids=["one bit", "null", "one row more", "one table more", "swapped"],
)
def test_other_content_is_the_next_revision_and_history_keeps_both(tmp_path, other):
    put(tmp_path)
    done = put(tmp_path, tables=other, contract=P_MAY_BE_NULL)

    assert (done.status, done.publication_id) == ("revised", "2026-06-01.r2")
    count = done.rows["supplier_delay_risk"]
    in_history = "SELECT publication_id, count(*) FROM supplier_delay_risk_history GROUP BY ALL ORDER BY ALL"
    assert ask(tmp_path, in_history) == [("2026-06-01.r1", 2), ("2026-06-01.r2", count)]
    for view in ("week", "current"):
        assert ask(tmp_path, f"SELECT DISTINCT publication_id FROM supplier_delay_risk_{view}") == [("2026-06-01.r2",)]
    assert set(pd.read_parquet(tmp_path / "tables/supplier_delay_risk")["publication_id"]) == {"2026-06-01.r2"}
    assert len(read(tmp_path, "supplier_delay_risk", as_of=MONDAY, revision=1)) == 2


def test_going_back_to_the_first_content_is_a_third_revision(tmp_path):
    first, other = {"supplier_risk": suppliers(1)}, {"supplier_risk": suppliers(2)}
    assert [put(tmp_path, tables=t).status for t in (first, other, first)] == ["published", "revised", "revised"]
    assert publications(tmp_path)["revision"].tolist() == [1, 2, 3]


def test_a_table_left_out_of_a_revision_leaves_the_week_with_it(tmp_path):
    put(tmp_path, tables={"supplier_delay_risk": lines(0.2), "supplier_risk": suppliers(1)})
    put(tmp_path, tables={"supplier_delay_risk": lines(0.3)})
    assert ask(tmp_path, "FROM supplier_risk_current") == ask(tmp_path, "FROM supplier_risk_week") == []
    assert read(tmp_path, "supplier_risk").empty
    assert not list((tmp_path / "tables/supplier_risk").glob("*/*.parquet"))


def test_a_week_filled_in_later_goes_to_history_and_current_stays(tmp_path):
    put(tmp_path, NEXT_MONDAY, {"supplier_risk": suppliers(2)})
    done = put(tmp_path, MONDAY, {"supplier_risk": suppliers(5)})
    assert done.status == "published"
    assert ask(tmp_path, "SELECT count(*) FROM supplier_risk_current") == [(2,)]
    assert ask(tmp_path, "SELECT count(*) FROM supplier_risk_week") == [(7,)]
    assert len(read(tmp_path, "supplier_risk")) == 2
    assert len(read(tmp_path, "supplier_risk", as_of=MONDAY)) == 5


def test_previous_week_is_the_latest_revision_of_the_latest_week_before(tmp_path):
    assert previous_week(tmp_path, "supplier_risk", MONDAY).empty
    for as_of, count in [(MONDAY, 1), (NEXT_MONDAY, 2), (NEXT_MONDAY, 3), (date(2026, 6, 15), 4)]:
        put(tmp_path, as_of, {"supplier_risk": suppliers(count)})
    weeks = [MONDAY, NEXT_MONDAY, date(2026, 6, 15), date(2026, 6, 16)]
    assert [len(previous_week(tmp_path, "supplier_risk", day)) for day in weeks] == [0, 1, 3, 4]
    assert previous_week(tmp_path, "watchlist", NEXT_MONDAY).empty


def test_a_dry_run_tells_and_changes_nothing(tmp_path):
    assert put(tmp_path, dry_run=True).status == "would publish"
    assert list(tmp_path.iterdir()) == []
    put(tmp_path)
    assert put(tmp_path, dry_run=True).status == "unchanged"
    told = put(tmp_path, tables={"supplier_delay_risk": lines(0.1)}, dry_run=True)
    assert (told.status, told.publication_id) == ("would revise", "2026-06-01.r2")
    assert release_names(tmp_path) == ["0001"]


# Columns come, go and may not change their type


def test_a_new_column_is_null_before_and_a_missing_one_null_after(tmp_path):
    put(tmp_path, tables={"supplier_risk": pd.DataFrame({"supplier_id": ["S0"], "trend": [0.5]})})
    put(tmp_path, NEXT_MONDAY, {"supplier_risk": pd.DataFrame({"supplier_id": ["S0"], 'The "Region"': ["BR"]})})
    weeks = ask(tmp_path, "SELECT as_of, COLUMNS('trend|Region') FROM supplier_risk_week ORDER BY as_of")
    assert weeks == [(MONDAY, 0.5, None), (NEXT_MONDAY, None, "BR")]
    last = pd.read_parquet(tmp_path / "tables/supplier_risk/as_of=2026-06-08/supplier_risk.parquet")
    assert {"trend", 'The "Region"'} <= set(last)


def test_a_changed_type_is_refused(tmp_path):
    put(tmp_path, tables={"supplier_risk": pd.DataFrame({"supplier_id": ["S0"], "late_lines": [3]})})
    changed = {"supplier_risk": pd.DataFrame({"supplier_id": ["S0"], "late_lines": ["three"]})}
    contract = altered(SUPPLIERS, late_lines=text("late_lines*", ""))
    for dry_run in (True, False):
        with pytest.raises(PublishError, match=r"supplier_risk\.late_lines came as VARCHAR but .* as BIGINT before"):
            put(tmp_path, NEXT_MONDAY, changed, dry_run=dry_run, contract=contract)
    assert release_names(tmp_path) == ["0001"]


def test_a_column_without_a_value_yet_takes_the_type_of_its_first_value(tmp_path):
    was_text = altered(SUPPLIERS, trend=text("trend*", "", nullable=True))
    for day, trend, contract in [(1, [None], was_text), (8, [0.5], CONTRACT), (15, [None], CONTRACT)]:
        frame = pd.DataFrame({"supplier_id": ["S0"], "trend": trend})
        put(tmp_path, date(2026, 6, day), {"supplier_risk": frame}, contract=contract)
    put(tmp_path, date(2026, 6, 22), {"supplier_risk": frame}, contract=was_text)
    assert ask(tmp_path, "SELECT trend FROM supplier_risk_week ORDER BY as_of") == [(None,), (0.5,), (None,), (None,)]
    assert ask(tmp_path, "SELECT DISTINCT typeof(trend) FROM supplier_risk_week") == [("DOUBLE",)]


# What is refused


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"supplier_delay_risk": lines(0.2, math.nan, math.nan)}, r"p_late is NaN .* 2 of 3 .* at po_line_id=L1"),
        ({"supplier_delay_risk": lines(0.2, value=[math.inf])}, r"value is NaN or infinite in 1 of 1 rows, first inf"),
        ({"supplier_delay_risk": lines(0.2, days_late_p50=[math.inf])}, r"days_late_p50 is NaN or infinite"),
        ({"supplier_delay_risk": lines(0.2, tier=pd.array([None], dtype="Int64"))}, r"tier is NULL in 1 of 1 rows"),
        ({"supplier_delay_risk": lines(0.2, value=[None])}, r"value is NULL in 1 of 1 rows"),
        ({"supplier_delay_risk": lines(0.2, 1.01)}, r"p_late is not a number in \[0, 1\] .* 1.01 at po_line_id=L1"),
        ({"supplier_delay_risk": lines(0.2, p_up=[-1])}, r"p_up is not a number in \[0, 1\]"),
        ({"supplier_delay_risk": lines(0.2, p_up=["high"])}, r"p_up \(str\) is not a number in .*it came as string"),
        ({"supplier_delay_risk": lines(0.2, tier=[-1])}, r"tier is not a whole number from 0 in 1 of 1"),
        ({"supplier_delay_risk": lines(0.2, tier=[1.0])}, r"tier \(float64\) is not a whole .*: it came as double"),
        ({"supplier_delay_risk": lines(0.2, grade=["c"])}, r"grade is not one of a, b in 1 of 1 rows, first c"),
        ({"supplier_delay_risk": lines(0.2, due=pd.to_datetime(["2026-06-01 05:00"]))}, r"due is not a day"),
        ({"supplier_delay_risk": lines(0.2, 0.3, note=pd.Series(["a", 1.5], dtype=object))}, r"note \(object\) is not"),
        ({"supplier_delay_risk": lines(0.2, note=[["a"]])}, r"note .* it came as list"),
        ({"supplier_delay_risk": lines(0.2, as_of=[MONDAY])}, r"brings as_of, which publishing adds itself"),
        ({"supplier_delay_risk": lines(0.2, P_LATE=[0.3])}, r"columns of the same name .*: p_late"),
        ({"supplier_delay_risk": lines(0.2, grde=["a"])}, r"brings grde, which its contract does not know"),
        ({"supplier_delay_risk": pd.DataFrame()}, r"comes without po_line_id, which its contract needs"),
        ({"supplier_delay_risk": pd.concat([lines(0.2)] * 3)}, r"2 rows whose key another row has, .* po_line_id=L0"),
        ({"suplier_risk": suppliers(1)}, r"suplier_risk is not a risk table; expected supplier_delay_risk"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:12],
)  # fmt: skip
def test_a_value_or_table_outside_the_contract_is_refused(tmp_path, tables, message):
    with pytest.raises(PublishError, match=message) as refusal:
        put(tmp_path, tables={"supplier_risk": suppliers(1)} | tables)
    assert refusal.value.exit_code == 3
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_nan_is_null_where_the_contract_says_so(tmp_path):
    put(tmp_path, tables={"supplier_delay_risk": lines(0.2, 0.3, days_late_p50=[math.nan, 1])})
    assert ask(tmp_path, "SELECT days_late_p50 FROM supplier_delay_risk_current") == [(None,), (1.0,)]


def test_no_table_at_all_is_refused(tmp_path):
    facts = {"model_versions": {}, "data_fingerprint": "", "code_version": "", "published_at": datetime.now(UTC)}
    with pytest.raises(PublishError, match="no table to publish for 2026-06-01"):
        publish(tmp_path, {}, as_of=MONDAY, **facts)


# Reading


def test_reading_before_anything_is_published_says_what_to_do(tmp_path):
    for reading in (lambda: read(tmp_path, "watchlist"), lambda: publications(tmp_path), lambda: release(tmp_path)):
        with pytest.raises(UserError, match=r"nothing published yet in .*, run bullwhip score"):
            reading()


def test_reading_what_was_never_published_names_what_was(tmp_path):
    put(tmp_path)
    with pytest.raises(UserError, match="watchlist was never published; there are supplier_delay_risk"):
        read(tmp_path, "watchlist")
    with pytest.raises(UserError, match=r"2026-06-08, revision 2 was never published in .*; there are 2026-06-01\.r1"):
        read(tmp_path, "supplier_delay_risk", as_of=NEXT_MONDAY, revision=2)
