"""Services that are kept alive, and what is left when whoever keeps them is killed."""

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from pipelines import board_server, running, supervisor
from pipelines.services import Plan, Service, refuse_open_doors, refuse_taken_ports
from pipelines.settings import UserError

SLEEPER = "import time; print('awake', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
PARENT = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""


def service(name, code, **more):
    return Service(name, (sys.executable, "-c", code), dict(os.environ), **more)


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def until(true, seconds=30):
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


@pytest.fixture
def supervise(tmp_path):
    """Build a supervisor that has ended, with all it started, when the test has."""
    made = []

    def build(*services, secret=()):
        shown, states = io.StringIO(), []
        made.append(supervisor.Supervisor(services, supervisor.Log(tmp_path / "logs", secret, shown), states.append))
        return made[-1], shown, states

    yield build
    for each in made:
        each.stop()
        each.log.close()


def test_a_service_that_dies_is_started_again_after_growing_pauses(supervise):
    sup, shown, states = supervise(service("short", "raise SystemExit(3)"))
    child = sup.children["short"]
    until(lambda: sup.tick() or child.restarts == 2)
    assert child.not_before - time.monotonic() > 1  # after 1 s, 2 s
    assert "short ended with 3; it starts again in 1 s" in shown.getvalue()
    assert "starts again in 2 s" in shown.getvalue()
    assert states[-1]["short"]["restarts"] == 2


def test_one_that_waits_for_another_starts_when_that_is_well(supervise):
    sup, _, _ = supervise(
        service("first", SLEEPER, health="http://127.0.0.1:9/"), service("second", SLEEPER, after="first")
    )
    sup.tick()
    assert sup.children["first"].alive
    assert sup.children["second"].process is None
    sup.children["first"].healthy = True
    sup._look_after(sup.children["second"], ask=False)
    assert sup.children["second"].alive


def test_a_killed_service_takes_its_children_with_it(supervise):
    sup, _, _ = supervise(service("parent", PARENT))
    sup.tick()
    child = sup.children["parent"]
    grandchild = int(until(lambda: child.last_words))
    os.kill(child.process.pid, signal.SIGKILL)
    until(lambda: sup.tick() or child.restarts == 1)
    until(lambda: not alive(grandchild))


def test_what_ignores_being_asked_is_ended_within_ten_seconds(supervise, monkeypatch):
    monkeypatch.setattr(supervisor, "END_WITHIN", 0.5)
    sup, _, _ = supervise(service("deaf", STUBBORN), service("kind", SLEEPER))
    sup.tick()
    pids = [c.process.pid for c in sup.children.values()]
    until(lambda: all(c.last_words for c in sup.children.values()))
    began = time.monotonic()
    sup.stop()
    assert time.monotonic() - began < 10
    assert not any(map(alive, pids))


@pytest.mark.parametrize("was_well", [True, False])
def test_a_service_that_is_silent_says_where_it_stands_and_is_started_anew(supervise, monkeypatch, was_well):
    monkeypatch.setattr(supervisor, "SILENT", 0.1)
    monkeypatch.setattr(supervisor, "START_WITHIN", 0.1)
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    sup, shown, _ = supervise(service("mute", SLEEPER, health="http://127.0.0.1:9/"))
    sup.tick()
    child = sup.children["mute"]
    until(lambda: child.last_words)
    child.was_healthy, child.well_at, child.started = was_well, time.monotonic(), time.monotonic()
    before = child.may_take_to_start
    until(lambda: sup.tick() or child.restarts == 1)
    assert "mute does not answer" in shown.getvalue()
    until(lambda: 'File "<string>", line 1 in <module>' in shown.getvalue())
    assert child.may_take_to_start == 2 * before


def test_who_is_told_to_stop_while_a_service_is_silent_does_not_end_it_twice(supervise, monkeypatch):
    monkeypatch.setattr(supervisor, "SILENT", 0.0)
    sup, shown, _ = supervise(service("mute", SLEEPER, health="http://127.0.0.1:9/"))
    sup.tick()
    child = sup.children["mute"]
    child.was_healthy = True
    sup.stopping.set()
    sup._look_after(child, ask=True)
    assert child.alive
    sup.stop()
    assert "does not answer" not in shown.getvalue()


def test_lines_are_prefixed_kept_and_without_secrets(supervise, tmp_path):
    sup, shown, _ = supervise(service("chatty", "print('password hunter2 100 %', flush=True)"), secret=("hunter2",))
    until(lambda: sup.tick() or "password" in shown.getvalue())
    assert "chatty  | password *** 100 %\n" in shown.getvalue()
    assert "password *** 100 %" in (tmp_path / "logs" / "chatty.log").read_text()
    assert "secret" not in repr(Service("quiet", (), {"PASSWORD": "secret"}))


def test_logs_turn_over_and_a_full_disk_stops_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "FILE_SIZE", 1000)
    log = supervisor.Log(tmp_path, (), io.StringIO())
    for k in range(100):
        log.say("loud", f"{k} {'x' * 100}")
    assert sum(p.stat().st_size for p in tmp_path.glob("loud.log*")) < 5000
    assert len(list(tmp_path.glob("loud.log*"))) > 1
    (tmp_path / "full.log").symlink_to("/dev/full")
    log.say("full", "nobody can write this")
    assert "nobody can write this" in log.shown.getvalue()
    log.close()


def test_kill_9_of_the_supervisor_leaves_nothing_behind(tmp_path):
    code = textwrap.dedent(f"""
        import os, sys
        from pathlib import Path
        from pipelines import supervisor
        from pipelines.services import Service
        parent = Service("parent", (sys.executable, "-c", {PARENT!r}), dict(os.environ))
        log = supervisor.Log(Path({str(tmp_path)!r}), (), sys.stdout)
        supervisor.Supervisor([parent], log, lambda s: print("state", s["parent"]["pid"], flush=True)).run()
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = set()
    while len(pids) < 2:
        words = process.stdout.readline().split()
        pids |= {int(words[-1])} if words[-1].isdigit() else set()
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: not any(map(alive, pids)), seconds=15)


# Doors ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "login", "words"), [
    ("0.0.0.0", None, "set BULLWHIP_AUTH=user:password"),
    ("192.168.1.5", None, "open to the network"),
    ("127.0.0.1", ("me", "short"), "12 or more characters"),
    ("0.0.0.0", ("me you", "long enough to do"), "expected 12 or more"),
])  # fmt: skip
def test_servers_without_a_good_password_stay_at_home(host, login, words):
    with pytest.raises(UserError, match=words):
        refuse_open_doors(Plan(host), login)
    refuse_open_doors(Plan(), None)
    refuse_open_doors(Plan("0.0.0.0"), ("me", "long enough to do"))


def test_a_taken_port_is_named_with_who_has_it():
    with board_server.serve(Path(), "127.0.0.1", 0, None) as taken:
        port = taken.server_address[1]
        mine = Service("mlflow", (), {}, port=port)
        with pytest.raises(UserError, match=rf"port {port} for mlflow cannot be had: .*--mlflow-port") as error:
            refuse_taken_ports((mine,), "127.0.0.1")
        if sys.platform == "linux":
            assert f"process {os.getpid()}" in str(error.value)
        assert "\n" not in str(error.value)
    refuse_taken_ports((mine,), "127.0.0.1")


def test_only_one_up_lives_in_a_workspace(tmp_path):
    with running.held(tmp_path) as mine, running.held(tmp_path) as another:
        assert (mine, another) == (True, False)
        running.write(tmp_path, {"services": {"mlflow": {"url": "http://127.0.0.1:5"}}})
        assert running.url(tmp_path, "mlflow") == "http://127.0.0.1:5"
    assert running.read(tmp_path) is None
    assert running.url(tmp_path, "mlflow") is None


# The board's server ---------------------------------------------------------------------------------------------------


@pytest.fixture
def board(tmp_path):
    """A folder, and its server's address with and without a password."""
    folder = tmp_path / "board"
    (folder / "weeks").mkdir(parents=True)
    (folder / "weeks" / "a.html").write_text("a week")
    (folder / ".hidden").write_text("no")
    (tmp_path / "secret.txt").write_text("no")
    (folder / "out.txt").symlink_to(tmp_path / "secret.txt")
    servers = [board_server.serve(folder, "127.0.0.1", 0, login) for login in (None, ("me", "a long password"))]
    for each in servers:
        threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield folder, *(f"http://127.0.0.1:{each.server_address[1]}" for each in servers)
    for each in servers:
        each.shutdown()
        each.server_close()


def fetch(url, **headers):
    try:
        with urlopen(Request(url, headers=headers), timeout=5) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


def test_the_board_s_server_shows_the_board_and_nothing_else(board):
    folder, url, _ = board
    assert "No board is published yet" in fetch(f"{url}/")[1]
    (folder / "index.html").write_text("this week")
    assert fetch(f"{url}/")[1] == "this week"
    assert fetch(f"{url}/weeks/a.html")[1] == "a week"
    for path in ("/weeks/", "/weeks", "/.hidden", "/out.txt", "/../secret.txt", "/%2e%2e/secret.txt", "//etc/passwd"):
        assert fetch(url + path)[0] == 404, path
    headers = fetch(f"{url}/")[2]
    assert {"X-Content-Type-Options", "Content-Security-Policy", "X-Frame-Options"} <= set(headers)
    assert fetch(f"{url}/", Host="evil.example")[0] == 421


def test_the_board_s_server_asks_for_its_password(board):
    _, _, url = board
    status, body, headers = fetch(f"{url}/weeks/a.html")
    assert (status, body) == (401, "")
    assert "Basic" in headers["WWW-Authenticate"]
    assert fetch(f"{url}/weeks/a.html", Authorization="Basic bWU6YSBsb25nIHBhc3N3b3Jk")[1] == "a week"
    assert fetch(f"{url}/-/health")[0] == 200
