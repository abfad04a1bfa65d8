"""Kill what `bullwhip up` runs at random moments, and see that every Monday is published once all the same.

    python -m benchmarks.chaos --workspace simulated --tries 20 [--postgres]

The workspace is copied and trained as of the first of so many Mondays. Each try triggers one Monday and kills one thing
with kill -9: the flow, the worker, the Prefect server, MLflow, all of `up`, in turn, with --postgres the database too.
In the end the same Mondays are scored in another copy where nothing is killed, on files: their tables must be the same.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import psutil

CLI = (sys.executable, "-m", "pipelines.cli")
VICTIMS = ("flow", "worker", "prefect", "mlflow", "up")


@dataclass
class Bench:
    """One `up` on a copy of a workspace, and the words to speak to it."""

    workspace: Path
    environ: dict[str, str]
    ports: tuple[int, ...]
    process: subprocess.Popen[bytes] | None = None

    def call(self, *words: str) -> tuple[int, dict]:
        done = subprocess.run([*CLI, *words, "--json", "--workspace", str(self.workspace)], env=self.environ,
                              capture_output=True, text=True, check=False)  # fmt: skip
        return done.returncode, json.loads(done.stdout or "{}")

    def start(self) -> None:
        options = [w for n, p in zip(("prefect", "mlflow", "board"), self.ports, strict=True)
                   for w in (f"--{n}-port", str(p))]  # fmt: skip
        with (self.workspace.parent / "up.log").open("ab") as log:
            self.process = subprocess.Popen([*CLI, "up", "--workspace", str(self.workspace), *options],
                                            env=self.environ, stdout=log, stderr=log)  # fmt: skip
        self.wait_until_well()

    def wait_until_well(self, seconds: float = 900) -> None:
        deadline = time.monotonic() + seconds
        while self.call("status")[0]:
            assert time.monotonic() < deadline, "up is not well"
            time.sleep(3)  # each question is a process, which takes from what is waited for

    def ours(self) -> list[psutil.Process]:
        """Every process whose command or environment names the workspace, but those of this program."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline", "environ"]):
            words = " ".join(process.info["cmdline"] or ()) + " ".join((process.info["environ"] or {}).values())
            if process.pid != os.getpid() and str(self.workspace) in words:
                found.append(process)
        return found

    def pid(self, victim: str) -> int | None:
        if victim == "up":
            return self.process.pid if self.process else None
        if victim == "flow":
            return next((p.pid for p in self.ours() if "prefect.engine" in (p.info["cmdline"] or ())), None)
        return self.call("status")[1].get("services", {}).get(victim, {}).get("pid")


def attempt(bench: Bench, victim: str, day: date, longest: float) -> dict:
    """Trigger a Monday, kill the victim somewhere on the way, and wait for the publication."""
    began = time.monotonic()
    code, said = bench.call("trigger", "score-weekly", "--as-of", str(day), "--key", f"chaos {day}")
    assert code == 0, said
    after = random.uniform(0, longest)
    time.sleep(after)
    pid = bench.pid(victim)
    while victim == "flow" and pid is None and time.monotonic() - began < 120:
        pid = bench.pid(victim)
    killed = False
    if victim == "postgres":
        killed = kill_postgres(bench)
    elif pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed = True
    if victim == "up":
        bench.process.wait()
        time.sleep(10)
        left = [p.pid for p in bench.ours() if p.status() != psutil.STATUS_ZOMBIE and "postgres" not in p.name()]
        assert not left, f"orphans after kill -9 of up: {left}"
        bench.start()
    code, said = bench.call("trigger", "score-weekly", "--as-of", str(day), "--key", f"chaos {day}", "--wait",
                            "--timeout", "600")  # fmt: skip
    bench.wait_until_well()
    return {"victim": victim, "as_of": str(day), "killed": killed, "after": round(after, 1), "code": code,
            "state": said.get("state"), "seconds": round(time.monotonic() - began, 1)}  # fmt: skip


def verdict(bench: Bench, days: list[date]) -> dict:
    """Say what is there in the end: publications per Monday, runs and locks left over."""
    from pipelines import mlflow_store, publish, running
    from pipelines.prefect_api import Api
    from pipelines.settings import load

    ledger = publish.publications(load(bench.workspace, environ=bench.environ).target)
    per_day = ledger[ledger["as_of"].dt.date.isin(days)].groupby("as_of").size()
    api = Api(f"http://127.0.0.1:{bench.ports[0]}/api")
    states = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
    running_runs = api.post("/flow_runs/filter", {"flow_runs": states})
    store = mlflow_store.open_store(load(bench.workspace, environ=bench.environ))
    open_runs = store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'")
    return {
        "mondays": len(days), "published": len(per_day), "published_twice": int((per_day > 1).sum()),
        "prefect_runs_left": len(running_runs), "mlflow_runs_left": len(open_runs),
        "publish_lock_held": running.is_locked(bench.workspace / ".publish.lock"),
        "marks_left": len(running.left_behind(bench.workspace)),
    }  # fmt: skip


def digests(workspace: Path, environ: dict[str, str], days: list[date]) -> dict[date, str]:
    """Return by Monday the digest of its published tables: of all they hold but ids and times."""
    from pipelines import publish
    from pipelines.settings import load

    ledger = publish.publications(load(workspace, environ=environ).target)
    latest = ledger.sort_values("revision").groupby(ledger["as_of"].dt.date)["digest"].last()
    return {day: latest[day] for day in days if day in latest}


def undisturbed(workspace: Path, days: list[date]) -> dict[date, str]:
    """Train and score the same Mondays, one command after the other, and return their digests."""
    environ = {k: v for k, v in os.environ.items() if k != "BULLWHIP_DATABASE"}
    for words in (["train", "--as-of", str(days[0])], *(["score", "--as-of", str(day)] for day in days)):
        done = subprocess.run([*CLI, *words, "--json", "--workspace", str(workspace)], env=environ, check=False,
                              stdout=subprocess.DEVNULL)  # fmt: skip
        assert done.returncode in (0, 4), words
    return digests(workspace, environ, days)


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[dict[str, str]]:
    """A PostgreSQL of our own that comes back when it is killed, and what names it."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    folder.mkdir(parents=True)
    as_user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups") if os.getuid() == 0 else ()
    if as_user:
        shutil.chown(folder, "postgres", "postgres")
    port = free_ports(1)[0]
    subprocess.run([*as_user, binaries / "initdb", "-D", folder / "data", "-A", "trust", "-U", "chaos"],
                   check=True, capture_output=True)  # fmt: skip
    command = [*as_user, binaries / "postgres", "-D", folder / "data", "-p", str(port), "-k", folder,
               "-c", "max_connections=200"]  # fmt: skip
    loop = f"while :; do {' '.join(map(str, command))}; sleep 1; done >{folder}/../postgres.log 2>&1"
    keeper = subprocess.Popen(["sh", "-c", loop], start_new_session=True)
    try:
        yield {"BULLWHIP_DATABASE": f"postgresql://chaos@127.0.0.1:{port}/postgres", "CHAOS_POSTGRES": str(folder)}
    finally:
        os.killpg(keeper.pid, signal.SIGKILL)


def kill_postgres(bench: Bench) -> bool:
    pid = int((Path(bench.environ["CHAOS_POSTGRES"]) / "data" / "postmaster.pid").read_text().split()[0])
    children = psutil.Process(pid).children()
    for process in (psutil.Process(pid), *children):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return True


def free_ports(n: int) -> tuple[int, ...]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return tuple(s.getsockname()[1] for s in sockets)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--workspace", type=Path, required=True)
    asked.add_argument("--tries", type=int, default=20)
    asked.add_argument("--last", type=date.fromisoformat, default=date(2026, 6, 1), help="the last Monday")
    asked.add_argument("--longest", type=float, default=25.0, help="seconds after the trigger within which to kill")
    asked.add_argument("--postgres", action="store_true")
    asked.add_argument("--victims", nargs="*", choices=(*VICTIMS, "postgres"), help="what to kill, in turn")
    asked.add_argument("--seed", type=int, default=7)
    given = asked.parse_args()
    random.seed(given.seed)
    folder = Path(tempfile.mkdtemp(prefix="bullwhip-chaos-"))
    folder.chmod(0o755)  # PostgreSQL runs as another user where we are root
    workspace = Path(shutil.copytree(given.workspace, folder / "workspace", symlinks=True))
    shutil.rmtree(workspace / "up", ignore_errors=True)
    calm = Path(shutil.copytree(workspace, folder / "calm", symlinks=True))
    with contextlib.ExitStack() as stack:
        named = stack.enter_context(postgres(folder / "postgres")) if given.postgres else {}
        bench = Bench(workspace, os.environ | named, free_ports(3))
        victims = given.victims or (*VICTIMS, *(("postgres",) if given.postgres else ()))
        days = [given.last - timedelta(weeks=k) for k in reversed(range(given.tries))]
        bench.start()
        assert bench.call("train", "--as-of", str(days[0]))[0] in (0, 4)
        assert bench.call("deploy")[0] == 0
        try:
            for k, day in enumerate(days):
                print(json.dumps(attempt(bench, victims[k % len(victims)], day, given.longest)), flush=True)
            time.sleep(15)
            print(json.dumps(verdict(bench, days)), flush=True)
            found = digests(bench.workspace, bench.environ, days)
        finally:
            bench.process.terminate()
            began = time.monotonic()
            bench.process.wait(timeout=30)
            left = [p.pid for p in bench.ours() if p.status() != psutil.STATUS_ZOMBIE and "postgres" not in p.name()]
            print(json.dumps({"stopped_in": round(time.monotonic() - began, 1), "left": left}), flush=True)
        expected = undisturbed(calm, days)
        other = [str(day) for day in days if found.get(day) != expected[day]]
        print(json.dumps({"mondays_compared": len(days), "other_tables": other}), flush=True)


if __name__ == "__main__":
    main()
