"""What Prefect, MLflow and the command line add to a weekly scoring, next to the bare functions.

    python -m benchmarks.overhead --workspace demo [--rounds 3] [--write]

Both score the same week of a copy of the workspace, each run a process of its own: `bullwhip score`, and the functions
it is made of, called one after the other by a program that imports neither Prefect nor MLflow and is told where the
champions' files are. Both must come to the same bytes. CPU counts every process, Prefect's temporary server too.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from statistics import median
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
OURS, BARE = "bullwhip score", "bare functions"
CHAMPIONS = "champions.json"


# Who runs the pieces of a scoring: here, nobody -----------------------------------------------------------------------


def step(work: Callable[P, R], name: str) -> Callable[P, R]:  # noqa: ARG001  (nobody is told)
    return work


def side_by_side(work: Mapping[str, tuple[Callable[..., R], str, tuple[Any, ...]]]) -> dict[str, R]:
    with ThreadPoolExecutor(len(work)) as pool:
        given = {key: pool.submit(do, *args) for key, (do, _, args) in work.items()}
    return {key: future.result() for key, future in given.items()}


def score_bare(workspace: Path, as_of: date) -> str:
    """Publish a week by plain calls and return the digest of its tables."""
    from features.as_known import census
    from models.forecasters import load as load_forecaster
    from models.risk_contract import SCHEMA_VERSION
    from pipelines import health, publish, sources
    from pipelines.change import week_before
    from pipelines.handouts import hand_out
    from pipelines.registered import RegisteredModel
    from pipelines.scored import RegisteredChampion, risk_tables, rounded
    from pipelines.settings import load
    from pipelines.stores import held
    from pipelines.world import open_world

    settings = load(workspace)
    with open_world(settings, as_of) as world, held(settings.target):
        health.refuse_stale(world)
        champions = {}
        for task, known in json.loads((workspace / CHAMPIONS).read_text()).items():
            found = RegisteredModel(**known | {"folder": Path(known["folder"])})
            champions[task] = RegisteredChampion(found.version, load_forecaster(found.folder), found)
        tables = risk_tables(world, champions, week_before(settings.target, as_of), sys.modules[__name__])
        done = publish.publish(
            settings.target, rounded(tables), as_of=as_of, data_fingerprint=world.fingerprint, code_version="bare",
            model_versions={t: c.version for t, c in champions.items()}, schema_version=SCHEMA_VERSION,
            published_at=datetime.now(UTC), data_time=sources.data_time(world.con),
        )  # fmt: skip
        hand_out(settings, done, late=False)
        census(world.con, as_of)
    assert not {"prefect", "mlflow"} & set(sys.modules), "the bare functions import what they are held against"
    return done.digest


# Holding one against the other ----------------------------------------------------------------------------------------


def tell_champions(workspace: Path, as_of: date) -> None:
    """Write down which files the champions of a day are."""
    from pipelines import registry
    from pipelines.environment import apply_environment
    from pipelines.settings import load

    settings = load(workspace)
    apply_environment(settings)
    found = {task: registry.champion(settings, registry.REGISTRY[task], as_of) for task in settings.tasks}
    known = {task: asdict(champion) for task, champion in found.items() if champion}
    (workspace / CHAMPIONS).write_text(json.dumps(known, default=str))


def timed(command: list[str]) -> tuple[str, float, float]:
    """Run a command and return what it said, its wall seconds and the CPU seconds of it and all it waited for."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_WAIT_POLICY": "passive"}
    )
    assert process.stdout
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return said, time.monotonic() - began, used.ru_utime + used.ru_stime


def compare(workspace: Path, as_of: date, rounds: int) -> dict[str, dict[str, float]]:
    """Return wall and CPU seconds of both, medians of so many rounds after one that warms up."""
    here = [sys.executable, "-m", "benchmarks.overhead", "--workspace", str(workspace), "--as-of", str(as_of)]
    commands = {
        OURS: [sys.executable, "-m", "pipelines.cli", "score", "--json", "--workspace", str(workspace), "--as-of",
               str(as_of)],
        BARE: [*here, "--bare"],
    }  # fmt: skip
    subprocess.run([*here, "--champions"], check=True)
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            said, wall, cpu = timed(command)
            assert turn == 0 or name == BARE or json.loads(said)["status"] == "unchanged", said
            assert name == OURS or said.strip() == _digest(workspace, as_of), "not the same bytes"
            took[name] += [(wall, cpu)] if turn else []
    return {name: {"wall": median(w for w, _ in t), "cpu": median(c for _, c in t)} for name, t in took.items()}


def _digest(workspace: Path, as_of: date) -> str:
    from pipelines import publish

    ledger = publish.publications(workspace)
    return str(ledger.loc[ledger["as_of"].dt.date == as_of, "digest"].iloc[-1])


def as_markdown(took: Mapping[str, Mapping[str, float]], rounds: int) -> str:
    """Return what was measured as a page."""
    rows = [*took.items(), ("orchestration and tracking", {k: took[OURS][k] - took[BARE][k] for k in took[OURS]})]
    told = f"From `python -m benchmarks.overhead --write`, the demo: medians of {rounds}, {os.cpu_count()} cores."
    lines = ["# What orchestration and tracking cost a scoring", "", told, "", "| | wall s | CPU s |", "|---|---|---|"]
    lines += [f"| {name} | {of['wall']:.1f} | {of['cpu']:.1f} |" for name, of in rows]
    return "\n".join([*lines, ""])


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    asked.add_argument("--workspace", type=Path, required=True)
    asked.add_argument("--as-of", type=date.fromisoformat, help="the week; the latest published if left out")
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--write", action="store_true", help="keep the result in benchmarks/OVERHEAD.md")
    for part in ("--bare", "--champions"):
        asked.add_argument(part, action="store_true", help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.bare:
        print(score_bare(given.workspace.resolve(), given.as_of))
    elif given.champions:
        tell_champions(given.workspace.resolve(), given.as_of)
    else:
        from pipelines import publish

        as_of = given.as_of or publish.publications(given.workspace)["as_of"].max().date()
        with tempfile.TemporaryDirectory(prefix="bullwhip-overhead-") as folder:
            copy = Path(shutil.copytree(given.workspace, Path(folder) / "workspace", symlinks=True))
            page = as_markdown(compare(copy, as_of, given.rounds), given.rounds)
        print(page)
        if given.write:
            Path(__file__).with_name("OVERHEAD.md").write_text(page)


if __name__ == "__main__":
    main()
