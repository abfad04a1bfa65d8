"""Keep tests apart from the user's environment and from each other."""

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from uuid import uuid4

import hypothesis
import pytest

from pipelines import settings as settings_module
from pipelines import terminal
from pipelines.environment import environment
from pipelines.settings import Settings, load

for _name, _value in environment(Settings(workspace=tempfile.gettempdir())).items():
    os.environ.setdefault(_name, _value)  # before anything imports prefect or mlflow
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="bullwhip-test-prefect-")
os.environ["PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW"] = "ignore"  # the server outlives the tests of flows
os.environ["PREFECT_SERVER_EPHEMERAL_ENABLED"] = "false"  # a unit test that reaches for an API fails at once

pytest.register_assert_rewrite("tests.sheets", "tests.workspaces")
hypothesis.settings.register_profile("patient", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("patient")

terminal.Ending()


def pytest_configure(config):
    # 2026-11: MLflow 3.17.2 warns of its own type hints while it is imported
    config.addinivalue_line("filterwarnings", "ignore:.*Any type hint is inferred as AnyType:UserWarning")


LONGEST = (  # only one of the first three needs `trained`, for which others would wait
    "test_replay", "test_training", "test_truth", "test_scoring", "test_operations", "test_stops", "test_up",
    "test_tune", "test_partitions",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: files run side by side, and one that begins last keeps all waiting."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in list(os.environ):
        if name.startswith(settings_module.PREFIX) or name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def migrated_mlflow(tmp_path_factory):
    """A workspace whose MLflow store is migrated: copying its mlflow folder saves the seconds of the first use."""
    from pipelines import mlflow_store

    workspace = tmp_path_factory.mktemp("migrated")
    outside = os.environ.pop("MLFLOW_TRACKING_URI", None)
    mlflow_store.open_store(load(workspace, environ={}))
    if outside is not None:
        os.environ["MLFLOW_TRACKING_URI"] = outside
    return workspace / "mlflow"


@pytest.fixture
def workspace(tmp_path, migrated_mlflow):
    """An empty workspace with a migrated MLflow store of its own."""
    shutil.copytree(migrated_mlflow, tmp_path / "workspace" / "mlflow")
    return tmp_path / "workspace"


@pytest.fixture
def con():
    """An empty database."""
    import duckdb

    with duckdb.connect() as con:
        yield con


@pytest.fixture
def facts():
    """Build a connection with every contract table from aligned ASCII tables (`-` is NULL); the others are empty."""
    import duckdb

    from features.contracts import TABLES

    with duckdb.connect() as con:

        def build(**given):
            for table in TABLES:
                _make(con, table, given.pop(table.name, "-"))
            assert not given, f"no such tables: {sorted(given)}"
            return con

        yield build


def _make(con, table, text):
    from features.door import TYPES

    head, *rows = [line.split() for line in text.strip().splitlines()]
    columns = {c.name: TYPES[c.kind] for c in table.columns}
    columns |= {name: "VARCHAR" for name in head if name not in columns and name != "-"}
    typed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
    con.execute(f"CREATE OR REPLACE TABLE {table.name} ({typed})")
    if rows:
        marks = ", ".join("?" * len(head))
        cells = [[None if cell == "-" else cell for cell in row] for row in rows]
        con.executemany(f"INSERT INTO {table.name} ({', '.join(head)}) VALUES ({marks})", cells)
    for c in table.columns:
        if c.default:
            con.execute(f"UPDATE {table.name} SET {c.name} = {c.default} WHERE {c.name} IS NULL")


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """The simulator's toy world behind its door, with what was known until 2026-06-01."""
    from datetime import UTC, datetime

    from pipelines import sources
    from pipelines.simulate import simulate

    folder = tmp_path_factory.mktemp("toy")
    simulate(folder, scale="toy")
    con, _ = sources.load(load(folder, environ={}), now=datetime(2026, 6, 2, tzinfo=UTC))
    yield con
    con.close()


@pytest.fixture(scope="session")
def slow_toy(tmp_path_factory):
    """Another toy world, in which some orders and receipts are entered late, with a plan and an attribute `note`.

    What was known until 2026-06-01.
    """
    from datetime import UTC, datetime

    from pipelines import sources
    from pipelines.simulate import simulate

    folder = tmp_path_factory.mktemp("slow_toy")
    simulate(folder, scale="toy", seed=11)
    con, _ = sources.load(load(folder, environ={}), now=datetime(2026, 6, 2, tzinfo=UTC))
    con.execute("""
        ALTER TABLE purchases ADD COLUMN note VARCHAR;
        UPDATE purchases SET note = CASE WHEN hash(po_line_id) % 3 = 0 THEN 'EUR' ELSE 'USD' END;
        UPDATE orders SET known_at = known_at + INTERVAL 9 DAY WHERE hash(order_line_id) % 4 = 0;
        UPDATE receipts SET known_at = known_at + INTERVAL 20 DAY WHERE hash(po_line_id) % 25 = 0;
        DELETE FROM orders WHERE known_at >= '2026-06-01'; DELETE FROM receipts WHERE known_at >= '2026-06-01';
        INSERT INTO plan BY NAME SELECT product_id, site_id, week, week - to_days(7 * 13) AS known_at,
            100.0 + hash(product_id, week) % 50 AS quantity FROM (SELECT DISTINCT product_id, site_id,
            CAST(date_trunc('week', ordered_at) AS DATE) AS week FROM orders) WHERE hash(product_id) % 2 = 0""")
    yield con
    con.close()


@pytest.fixture(scope="session")
def prefect_server():
    """A Prefect server for flows that run in this process; it takes seconds, so there is one."""
    from prefect.settings import get_current_settings, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120), temporary_settings() as now:
        assert now is get_current_settings()
        now.flows.heartbeat_frequency = None  # a second per flow; whoever runs bullwhip as a process has it
        yield


@pytest.fixture(scope="session")
def postgres_server():
    """The URL of a private PostgreSQL server, on a socket in a folder of its own.

    It refuses to run as root, and tests do run as root in containers: then it is another user's.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (found[-1] if found else None)
    if initdb is None:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is not installed, and CI must run these tests; install postgresql")
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="bullwhip-pg-"))
    nobody = pwd.getpwnam("nobody")
    other = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    (folder / "password").write_text("hu-sh+hush")
    folder.chmod(0o755)
    for path in (folder, folder / "password") if other else ():
        shutil.chown(path, nobody.pw_uid)

    def call(program, *arguments):
        command = [Path(initdb).with_name(program), "-D", folder / "data", *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, **other)

    call("initdb", "-U", "bullwhip", "-A", "scram-sha-256", f"--pwfile={folder}/password", "--no-sync", "-E", "UTF8")
    # tests kill publishers, never the machine: what the disk does is not asked
    options = f"-k {folder} -c listen_addresses= -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
    call("pg_ctl", "-w", "-o", options, "-l", folder / "log", "start")
    yield f"postgresql+psycopg://bullwhip:hu-sh+hush@/postgres?host={folder}"
    call("pg_ctl", "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server):
    """The URL, with its password, of an empty schema in a PostgreSQL database."""
    import psycopg

    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_server.replace("+psycopg", ""), autocommit=True) as con:
        con.execute(f"CREATE SCHEMA {name}")
    return f"{postgres_server}&options=-csearch_path%3D{name}"


@pytest.fixture(scope="session")
def risk_week():
    """Make the risk tables of one week by the code that makes published ones, from drawn facts.

    The same line or product has the same id, supplier and size every week; probabilities differ by `draw`.
    """
    from tests.drawn import risk_week

    return risk_week


@pytest.fixture(scope="session")
def board_week(risk_week):
    """Make a Week as the board reads it: `weeks` published Mondays to 2026-06-01, the older ones like the last."""

    def make(*, weeks=3, currency="EUR", tables=None, **drawn):
        from datetime import date

        import pandas as pd

        from pipelines.board.reading import PAST, Week

        monday = pd.Timestamp("2026-06-01")
        last = risk_week(monday - pd.Timedelta(weeks=1), **drawn) if weeks > 1 else {}
        now = risk_week(monday, draw=1, last=last, **drawn) | (tables or {})
        earlier = [monday - pd.Timedelta(weeks=k) for k in range(1, weeks)]
        before = {
            name: pd.concat([last[name].assign(as_of=day)[list(columns)] for day in earlier], ignore_index=True)
            for name, columns in PAST.items()
            if name in last
        }
        ledger = {
            "publication_id": "2026-06-01.r1", "schema_version": "1", "model_versions": {"delay": "3", "shift": "3"},
            "published_at": pd.Timestamp("2026-06-01 06:12"), "rows": {name: len(t) for name, t in now.items()},
        }  # fmt: skip
        return Week(date(2026, 6, 1), currency, ledger, now, before, last)

    return make


@pytest.fixture(scope="session")
def large_week(board_week):
    """Twenty thousand rows and twelve weeks: it takes seconds, so there is one."""
    return board_week(weeks=12, lines=10_100, series=3_400)


@pytest.fixture
def webhook():
    """Return a maker of receivers: `with webhook(500, 200) as hook` has hook.url, and in hook.came what was posted."""
    from tests.receiver import Webhook

    return Webhook


@pytest.fixture(scope="session")
def world(tmp_path_factory, migrated_mlflow):
    """The smallest simulated world, not trained yet."""
    from pipelines.simulate import simulate

    folder = tmp_path_factory.mktemp("world")
    simulate(folder, scale="toy")
    shutil.copytree(migrated_mlflow, folder / "mlflow")
    (folder / "bullwhip.toml").write_text("as_of = 2026-06-01\n")
    return folder


@pytest.fixture
def fresh(world, tmp_path):
    """A world of one's own, not trained yet."""
    return Path(shutil.copytree(world, tmp_path / "fresh"))


@pytest.fixture(scope="session")
def trained(world, tmp_path_factory, prefect_server):  # noqa: ARG001
    """A workspace trained once, two weeks before the world's end, and what that said.

    It takes a minute, so there is one for all processes that run tests, of which each has a copy.
    """
    import fcntl

    from tests.workspaces import EARLIER, bullwhip

    mine = tmp_path_factory.mktemp("trained") / "workspace"
    base = tmp_path_factory.getbasetemp()
    first = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "first"
    first.mkdir(exist_ok=True)
    with open(first / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (first / "said.json").exists():
            shutil.rmtree(first / "workspace", ignore_errors=True)  # of a process that ended in the middle
            shutil.copytree(world, first / "workspace")
            code, said, _ = bullwhip(first / "workspace", "train", "--as-of", str(EARLIER))
            assert code in (0, 4), said
            (first / "said.json").write_text(json.dumps([code, said]))
        shutil.copytree(first / "workspace", mine, symlinks=True)
        return mine, *json.loads((first / "said.json").read_text())


@pytest.fixture
def quick(monkeypatch):
    """Few trees; how many."""
    from tests.workspaces import learn_quickly

    return learn_quickly(monkeypatch)
