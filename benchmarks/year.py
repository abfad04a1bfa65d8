"""Live through a year of Mondays twice, once undisturbed and once with everything that goes wrong, and compare.

    python -m benchmarks.year [--weeks 52] [--folder FOLDER] [--write]

Both ways run `bullwhip train` and `bullwhip score` on a small simulated chain whose files come week by week.
Undisturbed, one process does it all. Disturbed, each command is a process of its own; some are killed with kill -9 at
a random moment and run again, and TROUBLES happen. People do about them what docs/operations.md says: after a file
that came late or was corrected, the weeks that were published without it are scored again, the oldest first; what was
not published, `bullwhip score` makes up for by itself.

With --folder it goes on where it was interrupted, or with more weeks than before. In the end the last revision of every
table of every Monday is compared, byte for byte, but for `publication_id`. One thing differs and must: the rows of
`health` that count refused rows, where a file came twice.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa

from benchmarks.deliveries import WEEK, Deliveries

END = date(2026, 6, 1)
TRAININGS = 12
SETTLED = 20  # scorings after which memory is held to be what it will be: by then blocks of every size were let go
KILLED = 0.4  # share of the commands that are killed; of those, the same share once more
SETTINGS = """as_of = {day}
history_weeks = 60
max_stale = 5

[params.delay]
rounds = 8

[params.shift]
rounds = 8
"""
NEEDED = ("pipelines.cli", "pipelines.catch_up", "pipelines.train", "pipelines.warmup", "pipelines.screen", "mlflow")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong with the files of a week, and how many Mondays later it is put right; 0 is within the week."""

    week: int
    kind: Literal["late", "wrong", "doubled", "down"]
    tables: tuple[str, ...] = ()
    mended: int = 0


TROUBLES = (
    Trouble(6, "late", ("receipts", "promises")),
    Trouble(11, "late", ("orders",), 1),  # too old: the week is not scored until they come
    Trouble(15, "doubled", ("orders", "receipts", "stock")),  # for good
    Trouble(20, "wrong", ("orders",)),
    Trouble(24, "down"),
    Trouble(25, "down"),
    Trouble(33, "late", ("receipts",), 1),  # the week is scored without them
    Trouble(41, "wrong", ("purchases",), 1),
)


# Processes ------------------------------------------------------------------------------------------------------------


class Worker:
    """A process with everything imported that runs commands until it is killed or closed."""

    def __init__(self, workspace: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        self.ours, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, str(workspace)), daemon=True)
        self.process.start()
        theirs.close()

    def call(self, words: Sequence[str], kill_after: float | None = None) -> dict[str, Any] | None:
        """Run a command and return what came of it; None when it was killed on the way."""
        self.ours.send(tuple(words))
        if kill_after is not None and not self.ours.poll(kill_after):
            self.process.kill()
            self.process.join()
            return None
        said: dict[str, Any] = self.ours.recv()
        return said

    def close(self) -> None:
        self.ours.close()
        self.process.join(20)
        self.process.kill()


def _serve(connection: Connection, workspace: str) -> None:
    from pipelines import cli

    me = psutil.Process()
    with contextlib.suppress(EOFError):
        while True:
            words, out, err = connection.recv(), io.StringIO(), io.StringIO()
            began, cpu = time.monotonic(), time.process_time()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = cli.run([*words, "--json", "--workspace", workspace])
            took = {"seconds": round(time.monotonic() - began, 2), "cpu": round(time.process_time() - cpu, 2)}
            memory = round(me.memory_info().rss / 1e6)
            document = json.loads(out.getvalue() or "{}")
            said = {"words": words, "code": code, "said": document | {"stderr": err.getvalue()[-2000:]}}
            connection.send(said | took | {"memory": memory, "process": me.pid})


# The two ways ---------------------------------------------------------------------------------------------------------


@dataclass
class Way:
    """A workspace, the files it has got so far, and what every command took."""

    workspace: Path
    files: Deliveries
    days: list[date]
    lasting: bool
    chance: random.Random
    done: list[dict[str, Any]] = field(default_factory=list)
    before: list[dict[str, Any]] = field(default_factory=list)
    published: set[date] = field(default_factory=set)
    worker: Worker | None = None

    def __post_init__(self) -> None:
        if self.log.exists():
            self.before = [json.loads(line) for line in self.log.read_text().splitlines()]

    @property
    def log(self) -> Path:
        """The commands that have ended, one a line."""
        return self.workspace / "commands.jsonl"

    def today(self, day: date) -> None:
        (self.workspace / "bullwhip.toml").write_text(SETTINGS.format(day=day))

    def run(self, *words: str, codes: Sequence[int] = (0,)) -> dict[str, Any]:
        """Run a command to its end, however often it is killed before; what ended in an earlier attempt is not run."""
        said = self.before.pop(0) if self.before else self._to_its_end(words, codes)
        assert tuple(said["words"]) == words, f"{self.log} is of another plan: {said['words']}, expected {words}"
        self.done.append(said)
        self.published |= {date.fromisoformat(day) for day in said["published"]}
        return said

    def _to_its_end(self, words: Sequence[str], codes: Sequence[int]) -> dict[str, Any]:
        killed = 0
        while (said := self._try(words)) is None:
            killed += 1
        assert said["code"] in codes, said
        out = said.pop("said")
        weeks = [out, *out.get("caught_up", ())] if words[0] == "score" and said["code"] == 0 else []
        said |= {"status": out.get("status"), "published": [week["as_of"] for week in weeks], "killed": killed}
        with self.log.open("a") as log:
            log.write(json.dumps(said) + "\n")
        print(self.workspace.name, json.dumps(said), flush=True)
        return said

    def _try(self, words: Sequence[str]) -> dict[str, Any] | None:
        usual = [said["seconds"] for said in self.done if said["words"][0] == words[0]][-5:]
        doomed = not self.lasting and self.chance.random() < KILLED
        after = self.chance.uniform(0, min(usual, default=20.0)) if doomed else None
        self.worker = self.worker or Worker(self.workspace)
        said = self.worker.call(words, after)
        if said is None or not self.lasting:
            self.worker.close()
            self.worker = None
        return said


def undisturbed(way: Way) -> None:
    """Every file comes on its day, and every week is scored on its Monday, all by one process."""
    for day in way.days:
        for table in way.files.tables():
            way.files.bring(table, day)
        way.today(day)
        if day in to_train(way.days):
            way.run("train", codes=(0, 4))
        way.run("score")


def disturbed(way: Way, troubles: Sequence[Trouble] = TROUBLES) -> None:
    """Files come late, twice or wrong, the machine is away for two weeks, and processes are killed."""
    open_ones: list[Trouble] = []
    for week, day in enumerate(way.days):
        now = [trouble for trouble in troubles if trouble.week == week]
        _mend(way, [t for t in open_ones if t.week + t.mended == week], day)
        _deliver(way, now, day)
        open_ones += [t for t in now if t.kind in ("late", "wrong")]
        way.today(day)
        if any(t.kind == "down" for t in now):
            continue
        if day in to_train(way.days):
            way.run("train", codes=(0, 4))
        way.run("score", codes=(0, 3) if now else (0,))
        _mend(way, [t for t in now if t in open_ones and not t.mended], day)


def _deliver(way: Way, troubles: Sequence[Trouble], day: date) -> None:
    what = {table: trouble.kind for trouble in troubles for table in trouble.tables}
    for table in way.files.tables():
        if what.get(table) == "doubled":
            way.files.double(table, day)
        elif what.get(table) != "late":
            way.files.bring(table, day, wrong=what.get(table) == "wrong")


def _mend(way: Way, troubles: Sequence[Trouble], today: date) -> None:
    """Bring the right files, and score the weeks again that were published without them, the oldest first."""
    for trouble in troubles:
        since = way.days[trouble.week]
        for table in trouble.tables:
            way.files.bring(table, since, until=today - WEEK if trouble.mended else today)
        for day in sorted(d for d in way.published if d >= since):
            said = way.run("score", "--as-of", str(day))
            assert said["status"] == "revised", said


def to_train(days: Sequence[date]) -> list[date]:
    """Return the Mondays on which models are trained, about every month."""
    return [days[k * 52 // TRAININGS] for k in range(TRAININGS) if k * 52 // TRAININGS < len(days)]


# What came of it ------------------------------------------------------------------------------------------------------


def compare(one: Path, other: Path, doubled: Sequence[str]) -> dict[str, Any]:
    """Hold the last revision of every table of every week of two workspaces against each other."""
    from pipelines import publish
    from pipelines.published import published

    ledgers = [publish.publications(w).sort_values("revision").groupby("as_of").last() for w in (one, other)]
    told = ["model_versions", "data_fingerprint", "data_time", "schema_version", "rows"]
    pd.testing.assert_index_equal(ledgers[0].index, ledgers[1].index)
    facts = int((ledgers[0][told] != ledgers[1][told]).any(axis=1).sum())
    counts, apart, tables, size = {f"input|{table}|refused" for table in doubled}, 0, [], 0
    for day in ledgers[0].index:
        weeks = [published(w, day.date()).tables for w in (one, other)]
        for name in weeks[0]:
            a, b = (week[name].drop(columns="publication_id") for week in weeks)
            if name == "health":
                apart += sum(one != two for one, two in zip(_rows(a, counts), _rows(b, counts), strict=True))
                a, b = (t[~t["row_id"].isin(counts)].reset_index(drop=True) for t in (a, b))
            size += len(said := _bytes(a))
            if said != _bytes(b):
                tables.append(f"{name} {day:%Y-%m-%d}")
    return {
        "mondays": len(ledgers[0]), "revisions": [int(ledger["revision"].sum()) for ledger in ledgers],
        "bytes_compared": size, "ledger_lines_that_differ": facts, "tables_that_differ": tables,
        "health_rows_of_refused_rows_that_differ": apart,
    }  # fmt: skip


def _rows(health: pd.DataFrame, wanted: set[str]) -> list[str]:
    """Return what the rows of refused rows say, each as one text."""
    rows = health[health["row_id"].isin(wanted)].sort_values("row_id")
    return [str(row) for row in rows.to_dict("records")]


def _bytes(table: pd.DataFrame) -> bytes:
    held = pa.Table.from_pandas(table, preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, held.schema) as writer:
        writer.write_table(held)
    return bytes(sink.getvalue())


def costs(done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what scorings and trainings took, and the memory of weeks early and late in the year."""
    out: dict[str, Any] = {}
    for what in ("score", "train"):
        of_kind = pd.DataFrame([d for d in done if d["words"][0] == what])
        out[what] = {"runs": len(of_kind)} | {
            f"{name}_{how}": round(float(getattr(of_kind[name], how)()), 1)
            for name in ("seconds", "cpu", "memory") for how in ("median", "max")
        }  # fmt: skip
    memory = [d["memory"] for d in done if d["words"][0] == "score"]
    lasting = memory[SETTLED:] if len({d["process"] for d in done}) == 1 else []
    slope = float(np.polyfit(range(len(lasting)), lasting, 1)[0]) if len(lasting) > 1 else None
    by = {k: memory[k - 1] for k in (1, 2, 5, 10, 20, 30, 40, 52) if k <= len(memory)}
    return out | {"memory_by_scoring": by, "memory_per_scoring": slope}


# The program ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def prefect_server(folder: Path) -> Iterator[None]:
    """A Prefect server for all processes; its own deaths are what benchmarks.chaos is about."""
    from pipelines.environment import environment
    from pipelines.settings import Settings

    named = environment(Settings(workspace=folder)) | {"PREFECT_HOME": str(folder / "prefect")}
    os.environ.update(named)
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    server.start(timeout=120)
    os.environ["PREFECT_API_URL"] = server.api_url
    multiprocessing.set_forkserver_preload(list(NEEDED))
    try:
        yield
    finally:
        server.stop()


def live(folder: Path, weeks: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Simulate a chain, live through the weeks both ways and return what came of it."""
    from pipelines.simulate import simulate

    if not (folder / "world").exists():
        simulate(folder / "world", scale="toy", end=END, seed=seed)
    days = [END - (51 - k) * timedelta(weeks=1) for k in range(weeks)]
    ways, out = [], {}
    with prefect_server(folder):
        for name, course in (("undisturbed", undisturbed), ("disturbed", disturbed)):
            workspace = folder / name
            (workspace / "data").mkdir(parents=True, exist_ok=True)
            files = Deliveries(folder / "world" / "data", workspace / "data", days[0])
            way = Way(workspace, files, days, course is undisturbed, random.Random(seed + len(days)))
            course(way)
            if way.worker:
                way.worker.close()
            ways.append(way)
            out[name] = {"kills": sum(said["killed"] for said in way.done), **costs(way.done)}
            say(json.dumps({name: out[name]}))
    doubled = sorted({table for table, _ in ways[1].files.doubled})
    return out | compare(ways[0].workspace, ways[1].workspace, doubled)


def as_markdown(came: dict[str, Any]) -> str:
    """Return what came of it as a page."""
    facts = {
        "Mondays": came["mondays"],
        "commands killed with -9": came["disturbed"]["kills"],
        "revisions, undisturbed and disturbed": " and ".join(map(str, came["revisions"])),
        "bytes of tables compared": f"{came['bytes_compared']:,}",
        "tables that differ": ", ".join(came["tables_that_differ"]) or "none",
        "lines of the ledger that differ": came["ledger_lines_that_differ"],
        "rows of `health` that count refused rows and differ": came["health_rows_of_refused_rows_that_differ"],
    }
    memory = ", ".join(f"{mb} after {n}" for n, mb in came["undisturbed"]["memory_by_scoring"].items())
    columns = ("way", "command", "runs", "CPU s", "at most", "wall s", "at most", "MB", "at most")
    lines = ["# A year of Mondays, undisturbed and disturbed", "", "From `python -m benchmarks.year --write`.", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += [f"- MB of the undisturbed way by number of scorings: {memory}{_growth(came)}", ""]
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for way, what in ((way, what) for way in ("undisturbed", "disturbed") for what in ("score", "train")):
        of = came[way][what]
        cells = (of[f"{name}_{how}"] for name in ("cpu", "seconds", "memory") for how in ("median", "max"))
        lines.append(f"| {way} | {what} | {of['runs']} | {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", "Medians. CPU is what a command cost, wall what it took beside other work.", ""])


def _growth(came: dict[str, Any]) -> str:
    slope = came["undisturbed"]["memory_per_scoring"]
    return "" if slope is None else f"; {slope:+.2f} MB per scoring from number {SETTLED + 1} on, all by one process"


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m benchmarks.year", description=__doc__)
    asked.add_argument("--weeks", type=int, default=52, choices=range(2, 53), metavar="2-52")
    asked.add_argument("--seed", type=int, default=7)
    asked.add_argument("--folder", type=Path, help="where to keep both workspaces; a temporary one if left out")
    asked.add_argument("--write", action="store_true", help="keep the result in benchmarks/YEAR.md")
    given = asked.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bullwhip-year-")))
        folder.mkdir(parents=True, exist_ok=True)
        came = live(folder.resolve(), given.weeks, given.seed, lambda line: print(line, flush=True))
    print(json.dumps(came, indent=1))
    if given.write:
        Path(__file__).with_name("YEAR.md").write_text(as_markdown(came))
    return 1 if came["tables_that_differ"] or came["ledger_lines_that_differ"] else 0


if __name__ == "__main__":
    sys.exit(main())
