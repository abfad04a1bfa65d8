"""`bullwhip up` as a team uses it: real servers, a real worker, real kills, one correct publication in the end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import psycopg
import pytest

from pipelines import mlflow_store, publish, running
from pipelines.settings import load

MONDAY = "2026-06-01"
CLI = (sys.executable, "-m", "pipelines.cli")
PATIENCE = 240.0  # seconds; a busy machine takes long


class Team:
    """One `up` in a workspace, and the words to speak to it."""

    def __init__(self, workspace, log, **environ):
        self.workspace, self.log, self.process = Path(workspace), log, None
        outside = ("PREFECT_", "MLFLOW_TRACKING", "BULLWHIP_")
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(outside)} | {"OMP_NUM_THREADS": "1"}
        self.environ |= environ
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            self.ports = [each.getsockname()[1] for each in sockets]

    def call(self, *words, **environ):
        done = subprocess.run([*CLI, *words, "--json", "--workspace", str(self.workspace)], capture_output=True,
                              text=True, check=False, env=self.environ | environ, timeout=PATIENCE)  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout), done.stderr

    def start(self):
        names = zip(("prefect", "mlflow", "board"), self.ports, strict=True)
        options = [word for name, port in names for word in (f"--{name}-port", str(port))]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen([*CLI, "up", "--workspace", str(self.workspace), *options],
                                            env=self.environ, stdout=out, stderr=out)  # fmt: skip
        self.until(lambda: self.well(), "up is not well")

    def well(self):
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        state = running.read(self.workspace) or {}
        return len(state.get("services", {})) == 4 and {s["state"] for s in state["services"].values()} == {"ok"}

    def until(self, true, what, seconds=PATIENCE):
        deadline = time.monotonic() + seconds
        while not (found := true()):
            assert time.monotonic() < deadline, f"{what}\n{self.log.read_text()[-3000:]}"
            time.sleep(0.1)
        return found

    def left(self):
        """Every process that names the workspace."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            try:
                words = " ".join([*(process.info["cmdline"] or ()), *process.environ().values()])
            except psutil.Error:
                continue
            if str(self.workspace) in words and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return [p for p in found if p.pid != os.getpid()]

    def rest(self, path, body):
        request = Request(f"http://127.0.0.1:{self.ports[0]}/api{path}", json.dumps(body).encode(),
                          {"Content-Type": "application/json"})  # fmt: skip
        for patience in (1, 2, 4, 8, None):
            try:
                with urlopen(request, timeout=60) as answer:
                    return answer.status, json.loads(answer.read())
            except HTTPError as error:  # Prefect's sqlite is locked now and then: its own clients ask again as well
                if error.code != 503 or patience is None:
                    raise
                error.close()
                time.sleep(patience)
        return None

    def flow_runs(self, *states):
        return self.rest("/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": states}}}})[1]

    def flow_process(self):
        return next((p for p in self.left() if "prefect.engine" in (p.info["cmdline"] or ())), None)


@contextmanager
def served(team):
    """`up` runs, and the flows are deployed."""
    team.start()
    code, said, _ = team.call("deploy")
    assert code == 0, said
    yield team
    if team.process.poll() is None:
        team.process.terminate()
        team.process.wait(timeout=60)
    for process in team.left():
        process.kill()


@pytest.fixture(scope="module")
def team(trained, tmp_path_factory):
    """A trained workspace with all its databases in files."""
    folder = tmp_path_factory.mktemp("team")
    with served(Team(shutil.copytree(trained[0], folder / "workspace", symlinks=True), folder / "up.log")) as team:
        yield team


@pytest.fixture
def team_in_postgres(world, postgres_server, tmp_path):
    """A workspace whose risk tables, MLflow and Prefect are in PostgreSQL, with a model of delays made quickly."""
    with psycopg.connect(postgres_server.replace("+psycopg", ""), autocommit=True) as con:
        con.execute("CREATE DATABASE team")
    database = postgres_server.replace("/postgres?", "/team?")
    folder = shutil.copytree(world, tmp_path / "workspace", ignore=shutil.ignore_patterns("mlflow"))
    few = "history_weeks = 60\ntasks = ['delay']\n[params.delay]\nrounds = 4\n"
    (folder / "bullwhip.toml").write_text(f"as_of = {MONDAY}\n{few}")
    with served(Team(folder, tmp_path / "up.log", BULLWHIP_DATABASE=database)) as team:
        assert team.call("train", "--as-of", "2026-05-18")[0] in (0, 4)
        yield team


def test_status_says_what_runs_where(team):
    code, said, _ = team.call("status")
    assert code == 0
    assert set(said["services"]) == {"prefect", "mlflow", "board", "worker"}
    for port in team.ports:
        assert any(s["url"] == f"http://127.0.0.1:{port}" for s in said["services"].values())
    logs = {p.stem for p in (team.workspace / "up" / "logs").iterdir()}
    assert "up" in logs
    assert "prefect is well" in team.log.read_text()


def test_a_second_up_and_taken_ports_are_refused_in_one_line(team, tmp_path):
    code, _, err = team.call("up")
    assert code == 2
    assert f"bullwhip up runs already for {team.workspace}, process {team.process.pid}" in err
    other = Team(tmp_path, team.log)
    code, _, err = other.call("up", "--prefect-port", str(team.ports[0]))
    assert code == 2
    assert f"port {team.ports[0]} for prefect cannot be had: Address already in use" in err
    assert err.count("\n") == 1


def test_deploying_again_changes_nothing_and_cron_makes_runs(team):
    assert {d["status"] for d in team.call("deploy")[1]["deployments"].values()} == {"unchanged"}
    cron_makes_runs(team)


def cron_makes_runs(team):
    began = time.monotonic()
    runs = team.until(lambda: team.flow_runs("SCHEDULED"), "cron made no runs", seconds=65)
    assert time.monotonic() - began < 65
    assert all(run["auto_scheduled"] for run in runs)


def test_a_week_that_is_triggered_by_command_and_by_rest_is_published_once(team):
    code, said, err = team.call("trigger", "score-weekly", "--wait", "--timeout", "200")
    assert (code, said["message"]) == (0, "Published"), err
    deployment = team.rest("/deployments/filter", {"deployments": {"name": {"any_": ["score-weekly"]}}})[1][0]
    path, body = f"/deployments/{deployment['id']}/create_flow_run", {"idempotency_key": "monday", "parameters": {}}
    first, again = team.rest(path, body), team.rest(path, body)
    assert (first[0], again[0]) == (201, 200)
    assert first[1]["id"] == again[1]["id"]
    code, said, _ = team.call("trigger", "score-weekly", "--key", "monday", "--wait", "--timeout", "200")
    assert (code, said["flow_run_id"], said["message"]) == (0, first[1]["id"], "Unchanged")
    ledger = publish.publications(team.workspace)
    assert ledger["as_of"].dt.date.astype(str).tolist() == [MONDAY]


def test_commands_of_the_workspace_use_the_running_servers(team):
    store = mlflow_store.open_store(load(team.workspace, environ={}))
    assert store.uri == f"http://127.0.0.1:{team.ports[1]}"
    names = {run.data.tags["flow"] for run in store.client.search_runs([store.experiment_id])}
    assert "score" in names
    artifacts = team.rest("/artifacts/filter", {"artifacts": {"key": {"any_": ["bullwhip-links"]}}})[1]
    assert f"http://127.0.0.1:{team.ports[2]}/" in artifacts[0]["data"]
    assert f"http://127.0.0.1:{team.ports[1]}/#/runs/" in artifacts[0]["data"]


def test_parameters_that_are_wrong_start_nothing(team):
    deployment = team.rest("/deployments/filter", {"deployments": {"name": {"any_": ["score-weekly"]}}})[1][0]
    with pytest.raises(OSError, match=r"409|422"):
        team.rest(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": {"as_of": "soonish"}})


def test_sigterm_ends_everything_in_time(team):
    began = time.monotonic()
    team.process.terminate()
    assert team.process.wait(timeout=60) == 0
    assert time.monotonic() - began < (10 if os.getloadavg()[0] < 3 else 40)
    assert team.left() == []
    code, said, err = team.call("status")
    assert (code, said["running"]) == (6, False)
    assert "bullwhip up does not run" in err


def test_in_postgres_a_week_whose_worker_and_up_are_killed_is_published_once(team_in_postgres):
    team = team_in_postgres
    cron_makes_runs(team)
    code, said, err = team.call("trigger", "score-weekly", "--key", "monday")
    assert code == 0, err
    deployment = team.rest("/deployments/filter", {"deployments": {"name": {"any_": ["score-weekly"]}}})[1][0]
    body = {"idempotency_key": "monday", "parameters": {}}
    status, run = team.rest(f"/deployments/{deployment['id']}/create_flow_run", body)
    assert (status, run["id"]) == (200, said["flow_run_id"])
    team.until((team.workspace / running.MARKS / run["id"]).exists, "the flow does not begin")
    os.kill(running.read(team.workspace)["services"]["worker"]["pid"], signal.SIGKILL)
    team.until(lambda: not team.flow_process(), "the flow outlives its worker", seconds=30)
    team.process.kill()
    team.process.wait()
    team.until(lambda: not team.left(), "processes outlive up", seconds=20)
    assert running.read(team.workspace) is None
    team.start()
    code, said, err = team.call("trigger", "score-weekly", "--key", "monday", "--wait", "--timeout", "200")
    assert (code, said["state"], said["flow_run_id"]) == (0, "Completed", run["id"]), err
    settings = load(team.workspace, environ=team.environ)
    ledger = publish.publications(settings.target)
    assert list(zip(ledger["as_of"].dt.date.astype(str), ledger["revision"], strict=True)) == [(MONDAY, 1)]
    assert team.flow_runs("RUNNING", "PENDING") == []
    store = mlflow_store.open_store(settings)
    assert {run.info.status for run in store.client.search_runs([store.experiment_id])} == {"FINISHED"}
    assert not running.is_locked(team.workspace / ".publish.lock")
    assert not {"mlflow.db", "prefect.db", "risk.duckdb"} & {path.name for path in team.workspace.rglob("*")}


@pytest.mark.parametrize(
    ("words", "environ", "code", "line"),
    [
        (("trigger", "score-weekly"), {}, 6, "no Prefect server is known: start bullwhip up"),
        (("deploy",), {"PREFECT_API_URL": "http://127.0.0.1:9/api"}, 6, "http://127.0.0.1:9/api does not answer"),
        (("up", "--host", "0.0.0.0"), {}, 2, "set BULLWHIP_AUTH=user:password"),
        (("up",), {"BULLWHIP_AUTH": "me:short"}, 2, "12 or more characters"),
        (("up",), {"BULLWHIP_DATABASE": "postgresql://me:hunter2@127.0.0.1:9/x"}, 6, "me:***@127.0.0.1:9/x"),
        (("up", "--database", "postgresql://me:hunter2@127.0.0.1:9/x"), {}, 6, "me:***@127.0.0.1:9/x"),
        (("up", "--database", "mysql://h/x"), {}, 2, "expected a URL such as postgresql://"),
    ],
    ids=["nothing runs", "server down", "open door", "weak password", "database down", "password as option", "mysql"],
)
def test_what_cannot_be_is_one_line_with_its_exit_code(tmp_path, words, environ, code, line):
    got, said, err = Team(tmp_path, tmp_path / "log").call(*words, **environ)
    assert (got, said["exit_code"]) == (code, code)
    assert line in err
    assert "hunter2" not in err
    assert err.count("\n") == 1


def test_a_workspace_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "up").touch()
    code, _, err = Team(tmp_path, tmp_path / "log").call("up")
    assert code == 2
    assert f"{tmp_path / 'up'} cannot be written: File exists" in err
    assert err.count("\n") == 1
