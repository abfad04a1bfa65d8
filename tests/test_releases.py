"""Readers see the old week or the new one, whoever publishes, fails or is killed beside them."""

import errno
import json
import multiprocessing
import os
import pkgutil
import resource
import signal
import sys
import time
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import groupby
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import psycopg
import pytest
import sqlalchemy as sa

from models.risk_columns import Table, number, text
from pipelines import releases
from pipelines.publish import publications, publish, read
from pipelines.releases import PublishConflict, TargetError
from pipelines.settings import DataSource, UserError

MONDAY = date(2026, 6, 1)
NEXT_MONDAY = date(2026, 6, 8)
CONTRACT = {
    name: Table(name, "", ("supplier_id",), (text("supplier_id", ""), number("open_value", "", "")))
    for name in ("supplier_risk", "watchlist")
}
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["pipelines.publish", "pipelines.release_store", "pipelines.sql_store", "pytest"])


def rows(count):
    return pd.DataFrame({"supplier_id": [f"S{n}" for n in range(count)], "open_value": [1.5 * n for n in range(count)]})


def put(workspace, as_of=MONDAY, tables=None, **options):
    facts = {"model_versions": {"delay": "3"}, "data_fingerprint": "d41d8c", "code_version": "0.1.0"}
    at = datetime(2026, 6, 1, 6, 30, tzinfo=UTC)
    tables = tables or {"supplier_risk": rows(2)}
    return publish(workspace, tables, as_of=as_of, published_at=at, contract=CONTRACT, **facts, **options)


def ask(workspace, sql):
    with duckdb.connect(str(workspace / "risk.duckdb"), read_only=True) as con:
        return con.sql(sql).fetchall()


def release_names(workspace):
    return sorted(path.name for path in (workspace / "releases").iterdir())


def fail(number):
    def act(*_, **__):
        raise OSError(number, os.strerror(number))

    return act


# Workspaces that are not as expected


@pytest.mark.parametrize("name", ["risk.duckdb", "tables", "current"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_of_somebody_else_is_overwritten(tmp_path, name, kind):
    theirs = tmp_path / name
    theirs.write_text("theirs") if kind == "file" else (theirs / "theirs").mkdir(parents=True)
    with pytest.raises(UserError, match=f"{name} is in the way"):
        put(tmp_path)
    assert list(tmp_path.iterdir()) == [theirs]
    assert theirs.read_text() == "theirs" if kind == "file" else (theirs / "theirs").is_dir()


def test_a_lost_or_bent_link_is_never_answered_by_starting_anew(tmp_path):
    for as_of in (MONDAY, NEXT_MONDAY):
        put(tmp_path, as_of)
    (tmp_path / "current").unlink()
    with pytest.raises(UserError, match="current is missing; name the current release again: ln -s releases/0002"):
        put(tmp_path)
    (tmp_path / "current").symlink_to("releases/0009")
    with pytest.raises(UserError, match="points to releases/0009, which is no release"):
        put(tmp_path)
    assert release_names(tmp_path) == ["0001", "0002"]


def test_a_lost_reader_link_is_placed_again(tmp_path):
    put(tmp_path)
    (tmp_path / "risk.duckdb").unlink()
    assert put(tmp_path).status == "unchanged"
    assert ask(tmp_path, "SELECT count(*) FROM publications") == [(1,)]


def test_a_workspace_can_move(tmp_path):
    put(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "the're")
    assert put(tmp_path / "the're", NEXT_MONDAY).status == "published"
    assert len(read(tmp_path / "the're", "supplier_risk", as_of=MONDAY)) == 2


def test_where_links_are_impossible_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "symlink", fail(errno.EPERM))
    with pytest.raises(UserError, match="cannot hold symbolic links"):
        put(tmp_path)


def test_where_file_locks_are_impossible_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(UserError, match="on Windows run it inside WSL"):
        put(tmp_path)


def test_where_files_cannot_be_shared_they_are_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", fail(errno.EPERM))
    for as_of in (MONDAY, NEXT_MONDAY):
        put(tmp_path, as_of)
    assert len(pd.read_parquet(tmp_path / "tables/supplier_risk")) == 4


def test_a_released_file_is_read_only_and_shared_with_the_next_release(tmp_path):
    put(tmp_path)
    put(tmp_path, NEXT_MONDAY)
    file = "tables/supplier_risk/as_of=2026-06-01/supplier_risk.parquet"
    first, second = ((tmp_path / f"releases/000{n}" / file).stat() for n in (1, 2))
    assert first.st_ino == second.st_ino
    assert not first.st_mode & 0o222
    assert not (tmp_path / "risk.duckdb").stat().st_mode & 0o222


# Failures on the way: nothing visible, nothing left over, one line


def as_it_was(workspace):
    return release_names(workspace) == ["0001"] and ask(workspace, "SELECT count(*) FROM publications") == [(1,)]


@pytest.mark.parametrize("step", ["replace", "fsync", "symlink"])
def test_a_failing_disk_leaves_the_workspace_as_it_was(tmp_path, monkeypatch, step):
    put(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail(errno.ENOSPC))
        with pytest.raises(TargetError, match="No space left on device") as refusal:
            put(tmp_path, NEXT_MONDAY)
    assert (refusal.value.exit_code, "\n" in str(refusal.value)) == (6, False)
    assert as_it_was(tmp_path)
    assert put(tmp_path, NEXT_MONDAY).status == "published"


def test_an_interrupted_publication_leaves_the_workspace_as_it_was(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    put(tmp_path)
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        put(tmp_path, NEXT_MONDAY)
    assert as_it_was(tmp_path)


def test_a_full_disk_under_the_database_is_one_line(tmp_path):
    put(tmp_path)
    outcome = run("publish_with_little_space", tmp_path)
    assert outcome[:2] == ("TargetError", 6)
    assert outcome[2].startswith(f"cannot publish to {tmp_path}: ")
    assert "\n" not in outcome[2]
    assert as_it_was(tmp_path)
    assert put(tmp_path, NEXT_MONDAY).status == "published"


def test_a_workspace_without_permission_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    outcome = run("publish_as_nobody", tmp_path)
    tmp_path.chmod(0o700)
    assert outcome[:2] == ("TargetError", 6)
    assert "Permission denied" in outcome[2]
    assert list(tmp_path.iterdir()) == []


# Several at once


def test_who_publishes_is_named_to_those_who_wait(tmp_path):
    with releases.lock(tmp_path, 0), pytest.raises(PublishConflict) as conflict:
        put(tmp_path, wait_seconds=0.1)
    assert conflict.value.exit_code == 5
    told = f"is being published by process {os.getpid()} since {datetime.now(UTC):%Y-%m-%d}"
    assert told in str(conflict.value)


@pytest.fixture(params=["folder", "postgres"])
def target(request, tmp_path):
    return tmp_path if request.param == "folder" else DataSource(request.getfixturevalue("postgres"))


@pytest.mark.parametrize(
    ("counts", "statuses"), [((3, 3), ["published", "unchanged"]), ((3, 4), ["published", "revised"])]
)
def test_two_publishers_take_turns(target, counts, statuses):
    both = [start("publish_suppliers", target, MONDAY, count) for count in counts]
    assert sorted(result(*child) for child in both) == statuses
    assert publications(target)["revision"].tolist() == [1, 2][: len(set(counts))]


def test_the_last_three_releases_stay_and_an_open_reader_is_never_cut_off(tmp_path):
    put(tmp_path)
    with duckdb.connect(str(tmp_path / "risk.duckdb"), read_only=True) as old:
        for week in range(1, 6):
            put(tmp_path, MONDAY + timedelta(weeks=week))
        assert release_names(tmp_path) == ["0004", "0005", "0006"]
        assert old.sql("SELECT count(*) FROM supplier_risk_history").fetchall() == [(2,)]
        assert ask(tmp_path, "SELECT count(*) FROM supplier_risk_history") == [(12,)]


# Killed at any moment


def assert_whole(workspace):
    """Assert that a reader sees one publication complete, in the database and in Parquet; return its id, if any."""
    if not (workspace / "current").exists():
        assert not (workspace / "risk.duckdb").exists()
        return None
    counts = "SELECT publication_id, count(*) FROM {} GROUP BY ALL ORDER BY ALL"
    with duckdb.connect(str(workspace / "risk.duckdb"), read_only=True) as con:
        ledger = con.sql("FROM publications ORDER BY as_of, revision").df()
        latest = ledger.iloc[-1]
        ((opened,),) = con.execute("SELECT path FROM duckdb_databases() WHERE NOT internal").fetchall()
        for table, count in json.loads(latest["rows"]).items():
            assert con.sql(counts.format(f"{table}_current")).fetchall() == [(latest["publication_id"], count)]
            weeks = con.sql(counts.format(f"{table}_week")).fetchall()
            assert len(weeks) == ledger["as_of"].nunique()
            files = f"{Path(opened).parent}/tables/{table}/*/*.parquet"
            assert con.sql(counts.format(f"'{files}'")).fetchall() == weeks
    return latest["publication_id"], len(ledger)


def week_of(step):
    """Return a week and its tables; from the fourth step on it corrects a week that was published before."""
    tables = {"supplier_risk": rows(step + 1), "watchlist": rows(2 * step + 3)}
    return MONDAY + timedelta(weeks=step % 3), tables


@pytest.mark.parametrize("before", [0, 1], ids=["fresh workspace", "second week"])
def test_killed_before_any_step_it_shows_the_old_week_or_the_new_one(tmp_path, before):
    for step in range(before):
        put(tmp_path, *week_of(step))
    old, states = assert_whole(tmp_path), []
    for call in range(1, 60):
        outcome = run("publish_until_call", tmp_path, before, call)
        states.append(assert_whole(tmp_path))
        if outcome is not None:
            break
    assert outcome == "unchanged"  # the attempt before was killed after the swap
    assert len(states) > 12
    assert set(states) == {old, (f"{week_of(before)[0]}.r1", before + 1)}
    assert release_names(tmp_path) == [f"{n + 1:04d}" for n in range(before + 1)]


POINTS = {
    "folder": (
        "pipelines.releases._copy", "pipelines.release_store._record", "os.replace",
        "pipelines.releases._point_current_at",
    ),
    "database": (
        "pipelines.postgres.lock", "psycopg.Copy.write", "pipelines.postgres.copy", "sqlalchemy.Connection.commit",
    ),
}  # fmt: skip
"""Where a publisher is killed, right before and right after; after the last one its week is out."""
STATUSES = ("published", "revised", "unchanged")


def test_killed_ten_times_at_four_points_nobody_sees_half_a_week_and_the_next_run_succeeds(target, tmp_path):
    put(target, *week_of(0))
    watcher, driver = start("watch", target, tmp_path / "stop"), start("publish_and_be_killed", target)
    seen = []
    keep_reading(target, driver[1].poll, seen)
    (tmp_path / "stop").touch()
    killed, statuses = result(*driver)
    reads, problems = result(*watcher)
    assert (problems, [s for s in seen if isinstance(s, str)]) == ([], [])
    assert killed == len(statuses) == 40
    assert [k for k, status in enumerate(statuses) if status == "unchanged"] == [31, 33, 35, 37, 39]
    assert len(publications(target)) == 41
    assert reads + len(seen) >= 200


def keep_reading(target, stopped, seen):
    """Append what a reader sees, or the problem as a string, until told to stop."""
    if isinstance(target, DataSource):
        with psycopg.connect(**libpq(target)) as con:
            con.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            while not stopped():
                time.sleep(0.03)
                seen.append(whole_in_postgres(con))
        return
    while not stopped():
        time.sleep(0.03)
        at = os.readlink(target / "current")
        try:
            seen.append(assert_whole(target))
        except Exception as problem:
            if int(os.readlink(target / "current")[-4:]) - int(at[-4:]) < releases.KEPT:
                seen.append(repr(problem))  # else the reader slept so long that its release is gone


def whole_in_postgres(con):
    """Return the current publication and how many there are, or the problem as a string."""
    with con.transaction():
        ledger = con.execute("SELECT as_of, publication_id, rows FROM publications ORDER BY as_of, revision").fetchall()
        weeks = [[*lines][-1] for _, lines in groupby(ledger, key=lambda line: line[0])]
        for table in CONTRACT:
            expected = {"history": ledger, "week": weeks, "current": weeks[-1:]}
            for view, lines in expected.items():
                counts = f"SELECT publication_id, count(*) FROM {table}_{view} GROUP BY 1"
                if dict(con.execute(counts).fetchall()) != {key: json.loads(rows)[table] for _, key, rows in lines}:
                    return f"{table}_{view} is not what the ledger says after {ledger[-1]}"
    return ledger[-1][1], len(ledger)


def libpq(target):
    url = sa.make_url(target.get_secret_value())
    return {"user": url.username, "password": url.password, "dbname": url.database, **url.query}


# What runs in other processes; the file is run there by its path because tests/ is no package


def start(name, *args):
    ours, theirs = FORK.Pipe()
    code = "runpy.run_path(file)['in_child'](name, args, pipe)"
    scope = {"file": __file__, "name": name, "args": args, "pipe": theirs}
    child = FORK.Process(target=exec, args=("import runpy; " + code, scope))
    child.start()
    theirs.close()
    return child, ours


def result(child, pipe):
    """Return what the child came to, None when it was killed."""
    answer = None
    try:
        while (told := pipe.recv()) is not None:
            answer = told
    except EOFError:
        pass
    child.join()
    return answer


def run(name, *args):
    return result(*start(name, *args))


def in_child(name, args, pipe):
    try:
        pipe.send(globals()[name](*args))
    except UserError as error:
        pipe.send((type(error).__name__, error.exit_code, str(error)))


def publish_suppliers(workspace, as_of, count):
    return put(workspace, as_of, {"supplier_risk": rows(count)}).status


def publish_and_be_killed(target):
    """Be killed at every point ten times, each time publish again; return how often that was and what came of it."""
    killed, statuses = 0, []
    points = POINTS["database" if isinstance(target, DataSource) else "folder"]
    for step in range(1, 10 * len(points) + 1):
        place, after = points[(step - 1) // 10], step % 2 == 0
        killed += forked(partial(publish_until, target, step, place, after)) == -signal.SIGKILL
        statuses.append(STATUSES[forked(lambda step=step: STATUSES.index(put(target, *week_of(step)).status))])
    return killed, statuses


def publish_until(target, step, place, after):
    owner, name = pkgutil.resolve_name(place.rpartition(".")[0]), place.rpartition(".")[2]
    real = getattr(owner, name)

    def deadly(*args, **options):
        if after:
            real(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, deadly)
    put(target, *week_of(step))


def forked(act):
    """Return the exit code of a copy of this process that does `act` and leaves with its number."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        os._exit(act() or 0)
    finally:
        os._exit(99)


def publish_until_call(workspace, step, call):
    """Publish, but be killed right before the given call that touches the disk."""
    calls = 0

    def deadly(real):
        def act(*args, **options):
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return act

    for name in ("fsync", "replace", "symlink", "link"):
        setattr(os, name, deadly(getattr(os, name)))
    return put(workspace, *week_of(step)).status


def publish_with_little_space(workspace):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
    noise = np.random.default_rng(7).random(500_000)
    return put(workspace, NEXT_MONDAY, {"supplier_risk": rows(len(noise)).assign(open_value=noise)}).status


def publish_as_nobody(workspace):
    if os.geteuid() == 0:
        os.setuid(65534)
    return put(workspace).status


def watch(target, stop):
    seen = []
    keep_reading(target, stop.exists, seen)
    return len(seen), [problem for problem in seen if isinstance(problem, str)]
