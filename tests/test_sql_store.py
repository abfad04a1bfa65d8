"""What is published into a database reads back as from the workspace, and only views are for readers."""

from datetime import UTC, date, datetime, timedelta
from itertools import chain

import pandas as pd
import psycopg
import pytest
import sqlalchemy as sa

from models import risk_contract
from models.risk_columns import Column, Table, count, money, share, text
from models.risk_contract import PUBLICATIONS
from pipelines import postgres as postgres_module
from pipelines import publish as publishing
from pipelines.content import PublishError
from pipelines.publish import history, previous_week, publications, publish, read
from pipelines.release_store import ReleaseStore
from pipelines.releases import PublishConflict
from pipelines.settings import DataSource, Unreachable, UserError
from pipelines.sql_store import SqlStore
from pipelines.stores import store_of

MONDAY = date(2026, 6, 1)
NEXT_MONDAY = date(2026, 6, 8)
NOON = datetime(2026, 5, 31, 12, tzinfo=UTC)
DELAYS = Table(
    "supplier_delay_risk", "Which deliveries will be late.", ("row_id",),
    (
        text("row_id", "The row."), share("p_*", "A probability, 100 % at most.", nullable=True),
        text("state*", "Where it's at.", ("due", "late")), count("units*", "", "units", nullable=True),
        Column("due_on*", "day", "", nullable=True), Column("seen_at*", "timestamp", "", nullable=True),
        Column("sole*", "boolean", "", nullable=True), money("value_at_risk*", "", nullable=True),
    ),
)  # fmt: skip
SUPPLIERS = Table("supplier_risk", "", ("row_id",), (text("row_id", ""), count("open_lines*", "", "lines")))
CONTRACT = {table.name: table for table in (DELAYS, SUPPLIERS)}


def delays(*p_late, **columns):
    ids = [f"L{n}" for n in range(len(p_late))]
    return {"supplier_delay_risk": pd.DataFrame({"row_id": ids, "p_late": pd.Series(p_late, dtype=float), **columns})}


def suppliers(n):
    return {"supplier_risk": pd.DataFrame({"row_id": [f"S{k}" for k in range(n)], "open_lines": range(n)})}


EVERYTHING = delays(
    0.25, None,
    state=["due", "late"], units=pd.array([3, None], dtype="Int64"), due_on=pd.to_datetime(["2026-06-04", None]),
    seen_at=pd.to_datetime(["2026-06-01 07:30:00.125", None]), sole=pd.array([True, None], dtype="boolean"),
    value_at_risk=[0.1 + 0.2, None], p_up=[1.0, 0.0],
)["supplier_delay_risk"].assign(row_id=["a,\"b\"\n'c' %s", ""])  # fmt: skip


def put(target, tables=None, as_of=MONDAY, **options):
    facts = {"model_versions": {"delay": "3"}, "data_fingerprint": "d4", "code_version": "0.1.0"}
    at = datetime(2026, 6, 1, 6, 30, tzinfo=UTC)
    options = {"contract": CONTRACT} | options
    return publish(target, tables or delays(0.2, 0.7), as_of=as_of, published_at=at, **facts, **options)


@pytest.fixture(params=["folder", "sqlite", "postgres"])
def target(request, tmp_path):
    if request.param == "postgres":
        return DataSource(request.getfixturevalue("postgres"))
    return tmp_path if request.param == "folder" else DataSource(f"sqlite:///{tmp_path}/risk.db")


@pytest.fixture
def database(postgres):
    return DataSource(postgres)


def ask(target, query, **role):
    """Return what the owner of a database, or another role, gets for a query."""
    url = sa.make_url(target.get_secret_value())
    who = {"user": url.username, "password": url.password} | role
    with psycopg.connect(dbname=url.database, **url.query, **who) as con:
        done = con.execute(query)
        return done.fetchall() if done.description else []


def schema(target):
    return sa.make_url(target.get_secret_value()).query["options"].removeprefix("-csearch_path=")


# The same from every store


def test_every_store_gives_back_the_same_frames(target, tmp_path):
    tables = {"supplier_delay_risk": EVERYTHING, **suppliers(3)}
    done = [put(place, tables) for place in (target, tmp_path / "other")]
    assert done[0].digest == done[1].digest
    for name in tables:
        found, expected = (read(place, name) for place in (target, tmp_path / "other"))
        pd.testing.assert_frame_equal(found, expected)
    assert list(found)[:3] == ["publication_id", "as_of", "schema_version"]
    assert put(target, tables).status == "unchanged"


def test_weeks_and_revisions_are_kept_apart_in_every_store(target):
    weeks = [(MONDAY, 1), (NEXT_MONDAY, 2), (NEXT_MONDAY, 3), (date(2026, 6, 15), 4)]
    done = [put(target, suppliers(n), day).publication_id for day, n in weeks]
    assert done == ["2026-06-01.r1", "2026-06-08.r1", "2026-06-08.r2", "2026-06-15.r1"]
    assert publications(target)["publication_id"].tolist() == done
    assert len(read(target, "supplier_risk")) == 4
    assert [len(read(target, "supplier_risk", as_of=NEXT_MONDAY, revision=r)) for r in (None, 1, 2)] == [3, 2, 3]
    days = (MONDAY, NEXT_MONDAY, date(2026, 6, 15), date(2026, 6, 16))
    assert [len(previous_week(target, "supplier_risk", day)) for day in days] == [0, 1, 3, 4]
    found = history(target, "supplier_risk", NEXT_MONDAY, date(2026, 6, 16), ["row_id", "nothing"])
    assert (list(found), len(found)) == (["as_of", "row_id"], 7)
    put(target, delays(0.1), date(2026, 6, 15))
    assert read(target, "supplier_risk").empty  # the revision left the table out
    with pytest.raises(UserError, match=r"2026-06-22 was never published in .*; there are 2026-06-01\.r1"):
        read(target, "supplier_risk", as_of=date(2026, 6, 22))


def test_columns_come_and_stay_and_keep_their_type_in_every_store(target):
    put(target, delays(0.2))
    put(target, delays(0.2, p_rule=[0.5], units=[1]), NEXT_MONDAY)
    weeks = history(target, "supplier_delay_risk", MONDAY, date(2027, 1, 1))
    assert weeks["p_rule"].isna().tolist() == [True, False]
    put(target, delays(0.3), date(2026, 6, 15))
    assert read(target, "supplier_delay_risk")["p_rule"].isna().all()
    in_words = Table("supplier_delay_risk", "", ("row_id",), (*DELAYS.columns[:2], text("units", "")))
    with pytest.raises(PublishError, match=r"units came as VARCHAR but was published as BIGINT before"):
        put(target, delays(0.2, units=["one"]), contract={"supplier_delay_risk": in_words})


def test_nothing_is_there_before_the_first_publication(target):
    assert previous_week(target, "watchlist", MONDAY).empty
    assert history(target, "watchlist", MONDAY, NEXT_MONDAY).empty
    for reading in (lambda: read(target, "watchlist"), lambda: publications(target)):
        with pytest.raises(UserError, match=r"nothing published yet in .*, run bullwhip score"):
            reading()


def test_a_dry_run_counts_what_readers_would_see_change(target):
    assert put(target, dry_run=True).changes["supplier_delay_risk"] == publishing.Change(2, 0, 0)
    put(target, delays(0.1, 0.2, 0.3))
    told = put(target, {**delays(0.1, 0.25, p_up=[None, None]), **suppliers(2)}, dry_run=True)
    assert (told.status, told.publication_id) == ("would revise", "2026-06-01.r2")
    assert told.changes == {
        "supplier_delay_risk": publishing.Change(0, 1, 1), "supplier_risk": publishing.Change(2, 0, 0),
    }  # fmt: skip
    assert len(publications(target)) == 1


# The newest data wins


def test_older_data_is_refused_and_the_same_content_is_not(target):
    put(target, delays(0.2), data_time=NOON)
    assert put(target, delays(0.2), data_time=NOON - timedelta(hours=1)).status == "unchanged"
    for dry_run in (True, False):
        with pytest.raises(PublishConflict, match=r"2026-06-01 is out .* up to 2026-05-31 12:00:00 UTC, .* ends") as no:
            put(target, delays(0.3), data_time=NOON - timedelta(hours=1), dry_run=dry_run)
        assert no.value.exit_code == 5
    assert put(target, delays(0.3), data_time=NOON).status == "revised"
    assert put(target, delays(0.3), NEXT_MONDAY, data_time=NOON - timedelta(hours=1)).status == "published"


@pytest.mark.parametrize(("mine", "shown"), [(-1, 0.5), (0, 0.4), (1, 0.4)], ids=["older", "same", "newer"])
def test_of_two_at_once_both_are_kept_and_the_newest_data_is_shown(target, monkeypatch, mine, shown):
    put(target, delays(0.3), data_time=NOON - timedelta(days=1))
    store = ReleaseStore if isinstance(store_of(target), ReleaseStore) else SqlStore
    waiting = store.publishing

    def overtaken(self, wait_seconds):
        monkeypatch.setattr(store, "publishing", waiting)
        assert put(target, {**delays(0.5), **suppliers(1)}, data_time=NOON).publication_id == "2026-06-01.r2"
        return waiting(self, wait_seconds)

    monkeypatch.setattr(store, "publishing", overtaken)
    done = put(target, delays(0.4), data_time=NOON + timedelta(hours=mine))
    assert (done.status, done.revision, done.leads) == ("revised", 3, mine >= 0)
    assert read(target, "supplier_delay_risk")["p_late"].tolist() == [shown]
    if isinstance(target, DataSource):
        engine = sa.create_engine(target.get_secret_value(), poolclass=sa.pool.NullPool)
        with engine.connect() as con:
            for view in ("week", "current"):
                assert con.execute(sa.text(f"SELECT p_late FROM supplier_delay_risk_{view}")).scalars().all() == [shown]
    else:
        files = pd.read_parquet(target / "tables/supplier_delay_risk")
        assert files["p_late"].tolist() == [shown]
        assert (target / "tables/supplier_risk/as_of=2026-06-01").exists() == (mine < 0)
    revisions = [read(target, "supplier_delay_risk", as_of=MONDAY, revision=r)["p_late"].item() for r in (1, 2, 3)]
    assert revisions == [0.3, 0.5, 0.4]


# From one place to another


def test_a_week_moves_to_another_place_and_back_without_a_difference(target, tmp_path):
    here, late = tmp_path / "here", datetime(2026, 7, 1, tzinfo=UTC)
    tables = {"supplier_delay_risk": EVERYTHING, **suppliers(0)}
    put(here, tables, data_time=NOON)
    put(here, delays(0.5, p_other=[0.5]), NEXT_MONDAY)
    moved = [publishing.again(here, target, day, published_at=late, contract=CONTRACT) for day in (MONDAY, NEXT_MONDAY)]
    back = publishing.again(target, here, MONDAY, published_at=late, contract=CONTRACT)
    assert [m.status for m in (*moved, back)] == ["published", "published", "unchanged"]
    for name in tables:
        found, expected = (read(place, name, as_of=MONDAY) for place in (target, here))
        pd.testing.assert_frame_equal(found[list(expected)], expected)
    first, there = (publications(place).iloc[0] for place in (here, target))
    kept = ["digest", "data_time", "model_versions", "code_version", "data_fingerprint", "rows"]
    assert first[kept].to_dict() == there[kept].to_dict()


# In PostgreSQL


def test_the_contract_is_told_in_comments_keys_and_checks(database):
    put(database)
    about = "SELECT obj_description(%s::regclass), col_description(%s::regclass, 5)"
    for relation in ("rows", "history", "week", "current"):
        with_it = about.replace("%s", f"'supplier_delay_risk_{relation}'")
        (told,) = ask(database, with_it)
        assert told[0].startswith("Which deliveries will be late.")
        assert told[1] == "The row. Text; empty text means there is nothing to say."
    (told,) = ask(database, "SELECT obj_description('publications'::regclass)")
    assert told == ("The ledger: one row per publication.",)
    keys = f"""SELECT pg_get_constraintdef(oid) FROM pg_constraint
        WHERE contype = 'p' AND connamespace = '{schema(database)}'::regnamespace ORDER BY 1"""
    assert ask(database, keys) == [("PRIMARY KEY (publication_id)",), ("PRIMARY KEY (publication_id, row_id)",)]
    for row in (("x", -0.1), ("x", 1.1), ("x", "NaN"), (None, 0.5), ("L0", 0.5)):
        insert = "INSERT INTO supplier_delay_risk_rows VALUES ('2026-06-01.r1', '2026-06-01', '1', 9, {}, {})"
        with pytest.raises(psycopg.errors.IntegrityError):
            ask(database, insert.format(*("NULL" if v is None else f"'{v}'" for v in row)))


def test_a_changed_contract_changes_checks_and_comments_and_keeps_history(database):
    put(database, delays(0.2, state=["due"]))
    wider = Table("supplier_delay_risk", "Late ones.", ("row_id",), (*DELAYS.columns[:2], text("state", "", ("lost",))))
    put(database, delays(0.2, state=["lost"]), NEXT_MONDAY, contract={"supplier_delay_risk": wider})
    assert ask(database, "SELECT state FROM supplier_delay_risk_week ORDER BY as_of") == [("due",), ("lost",)]
    assert ask(database, "SELECT obj_description('supplier_delay_risk_week'::regclass)") == [("Late ones.",)]
    again = put(database, delays(0.3, state=["lost"]), NEXT_MONDAY, contract={"supplier_delay_risk": wider})
    assert again.status == "revised"


def test_the_real_contract_makes_every_table(database):
    tables = {
        table.name: pd.DataFrame({c.name: [] for c in table.columns if not c.many}) for table in risk_contract.TABLES
    }
    put(database, tables, contract=risk_contract.BY_NAME)
    names = [f"{t}_{view}" for t in tables for view in ("history", "week", "current")]
    there = {
        name for (name,) in ask(database, f"SELECT viewname FROM pg_views WHERE schemaname = '{schema(database)}'")
    }
    assert there == {"publications", *names}
    bare = ask(
        database,
        f"""SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid WHERE attnum > 0 AND relkind = 'v'
        AND relnamespace = '{schema(database)}'::regnamespace AND col_description(c.oid, attnum) IS NULL""",
    )
    assert bare == [(0,)]
    columns = ask(database, "SELECT attname FROM pg_attribute WHERE attrelid = 'publications'::regclass")
    assert set(chain(*columns)) == {c.name for c in PUBLICATIONS.columns}


def test_a_reader_sees_the_views_and_nothing_else(database):
    role = f"reader_{schema(database)}"
    with pytest.raises(UserError, match="nothing published yet"):
        publishing.grant_reader(database, role)
    put(database)
    with pytest.raises(Unreachable, match="does not exist") as unknown:
        publishing.grant_reader(database, role)
    assert "\n" not in str(unknown.value)
    ask(database, f"CREATE ROLE {role} LOGIN PASSWORD 'read'")
    reader = {"user": role, "password": "read"}
    publishing.grant_reader(database, role)
    put(database, {**delays(0.2, p_new=[0.1]), **suppliers(1)}, NEXT_MONDAY)  # a column and a table more
    for name in ("supplier_delay_risk", "supplier_risk"):
        for view in ("history", "week", "current"):
            assert ask(database, f"SELECT * FROM {name}_{view}", **reader)
    forbidden = (
        "SELECT * FROM supplier_delay_risk_rows", "SELECT * FROM publication_ledger", "DELETE FROM publications",
        "INSERT INTO supplier_risk_history VALUES ('x')", "UPDATE supplier_risk_current SET open_lines = 0",
        "CREATE TABLE mine (x int)", "DROP VIEW publications", "TRUNCATE supplier_risk_rows",
    )  # fmt: skip
    for query in forbidden:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ask(database, query, **reader)
    theirs = sa.make_url(database.get_secret_value()).set(username=role, password="read")
    as_reader = DataSource(theirs.render_as_string(hide_password=False))
    assert len(publications(as_reader)) == 2
    assert len(read(as_reader, "supplier_risk")) == 1
    with pytest.raises(Unreachable, match="permission denied") as refusal:
        put(as_reader, delays(0.9))
    assert refusal.value.exit_code == 6


def test_rights_are_for_postgres(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        publishing.grant_reader(tmp_path, "x")
    with pytest.raises(UserError, match="is not PostgreSQL"):
        publishing.grant_reader(DataSource(f"sqlite:///{tmp_path}/x.db"), "x")


# Refusals in one line, without secrets


def test_who_publishes_keeps_others_waiting(target):
    with (
        store_of(target).publishing(1),
        pytest.raises(PublishConflict, match=r"being published by .*waited 0\.1 s") as no,
    ):
        put(target, wait_seconds=0.1)
    assert (no.value.exit_code, "\n" in str(no.value)) == (5, False)
    assert put(target).status == "published"


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"password": "s3cr-t"}, "password authentication failed"), ({"database": "nowhere"}, "does not exist"),
     ({"host": "/nowhere"}, "No such file")],
    ids=["password", "database", "server"],
)  # fmt: skip
def test_a_database_that_does_not_answer_is_one_line_without_the_password(database, change, reason):
    url = sa.make_url(database.get_secret_value())
    url = url.update_query_dict({"host": change.pop("host", url.query["host"])}).set(**change)
    for act in (put, publications):
        with pytest.raises(Unreachable, match=reason) as no:
            act(DataSource(url.render_as_string(hide_password=False)))
        assert no.value.exit_code == 6
        assert "\n" not in str(no.value)
        assert "://bullwhip:***@" in str(no.value)
        assert url.password not in str(no.value)


def test_a_failing_copy_leaves_nothing(database, monkeypatch):
    put(database)
    unfit = pd.DataFrame({"row_id": ["a", "b\0"], "open_lines": [1, 2]})
    monkeypatch.setattr(postgres_module, "AT_ONCE", 1)
    with pytest.raises(Unreachable, match="0x00"):
        put(database, {**delays(0.2), "supplier_risk": unfit}, NEXT_MONDAY)
    assert len(publications(database)) == 1
    assert ask(database, "SELECT to_regclass('supplier_risk_rows')") == [(None,)]
    assert put(database, suppliers(2), NEXT_MONDAY).status == "published"


def test_the_password_is_nowhere_in_the_database(database):
    put(database)
    secret = sa.make_url(database.get_secret_value()).password
    for (name,) in ask(database, f"SELECT tablename FROM pg_tables WHERE schemaname = '{schema(database)}'"):
        assert secret not in str(ask(database, f"SELECT * FROM {name}"))
    assert secret not in str(ask(database, "SELECT description FROM pg_description"))


@pytest.mark.parametrize("url", ["mystery://x", "no+such://user:pw@host/x", "://"])
def test_a_url_nobody_speaks_is_refused(url):
    with pytest.raises(UserError, match=r"needs a driver|is not a database URL") as no:
        put(DataSource(url))
    assert "pw" not in str(no.value)
