"""Track a flow run as one MLflow run, which ends as the flow does, whatever ends it."""

import contextlib
import re
import subprocess
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version as installed_version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from pipelines import running
from pipelines.mlflow_store import Store, open_store, reaching
from pipelines.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Run:
    """One MLflow run; every call writes at once, so a killed process keeps what it logged."""

    store: Store
    run_id: str
    code: str

    def log_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Log all numbers in few requests; None is left out, NaN is kept."""
        now = int(time.time() * 1000)
        rows = [Metric(_name(k), float(v), now, 0) for k, v in metrics.items() if v is not None]
        for start in range(0, len(rows), 1000):
            self.store.client.log_batch(self.run_id, metrics=rows[start : start + 1000])

    def log_figure(self, figure: "Figure", name: str) -> None:
        """Log a picture as pictures/<name>.png."""
        self.store.client.log_figure(self.run_id, figure, f"pictures/{name}.png", save_kwargs={"dpi": 150})

    def log_table(self, frame: pd.DataFrame, name: str) -> None:
        """Log a table as tables/<name>.csv, which MLflow's page shows as a table."""
        self.log_text(frame.to_csv(index=False), f"tables/{name}.csv")

    def log_dict(self, values: Mapping[str, Any], name: str) -> None:
        """Log plain values as <name>.json."""
        self.store.client.log_dict(self.run_id, dict(values), f"{name}.json")

    def log_text(self, text: str, name: str) -> None:
        """Log a text file under its own name."""
        self.store.client.log_text(self.run_id, text, name)

    def tag(self, **tags: object) -> None:
        """Set tags, for example what a flow decided."""
        self.store.client.log_batch(self.run_id, tags=[RunTag(k, str(v)) for k, v in tags.items()])


@contextlib.contextmanager
def run(
    settings: Settings,
    *,
    flow: Literal["train", "score", "backtest", "tune", "monitor"],
    flow_run_id: str,
    as_of: date,
    data_fingerprint: str,
    git_sha: str,
    params: Mapping[str, object],
    same: str = "",
) -> Iterator[Run]:
    """Yield the one MLflow run of a flow run: new, or the one a killed process left behind.

    Work that another flow run resumes names itself with `same`: its earlier run goes on. It ends FINISHED, FAILED after
    an exception and KILLED after Ctrl-C or SIGTERM; after kill -9 the next run of the workspace says so.
    """
    store = open_store(settings)
    _close_left_behind(settings.workspace, store)
    tags = {"prefect.flow_run_id": flow_run_id, "flow": flow, "as_of": as_of.isoformat(), "data_hash": data_fingerprint}
    source = {"git_sha": git_sha, "mlflow.source.name": f"bullwhip {flow}", "mlflow.source.type": "JOB"}
    with reaching(store.uri):
        known = f"tags.same = '{same}'" if same else f"tags.`prefect.flow_run_id` = '{flow_run_id}'"
        run_id = _found_or_created(store, known, f"{flow} {as_of}", tags | source | ({"same": same} if same else {}))
        _log_params(store, run_id, params)
    with running.marked(settings.workspace, f"{flow_run_id}.{run_id}"), _ended(store, run_id):
        yield Run(store, run_id, git_sha)


@contextlib.contextmanager
def child(run: Run, name: str, **tags: object) -> Iterator[Run]:
    """Yield a run below `run`, the same one for the same name; it ends as `run` does."""
    store = run.store
    with reaching(store.uri):
        known = f"tags.`mlflow.parentRunId` = '{run.run_id}' AND tags.part = '{name}'"
        given = {"mlflow.parentRunId": run.run_id, "part": name} | {k: str(v) for k, v in tags.items()}
        run_id = _found_or_created(store, known, name, given)
    with _ended(store, run_id):
        yield Run(store, run_id, run.code)


def tags_of(settings: Settings, publication_id: str) -> dict[str, str]:
    """Return the tags of the run that published what is called so; none where no run says it did."""
    store = open_store(settings)
    with reaching(store.uri):
        found = store.client.search_runs([store.experiment_id], f"tags.publication_id = '{publication_id}'")
    wrote = [run.data.tags for run in found if run.data.tags.get("status") in ("published", "revised")]
    return dict(wrote[-1]) if wrote else {}


def git_sha() -> str:
    """Return the commit of this code, marked when it was changed since; the package version outside a repository."""
    here = Path(__file__)
    try:
        _git(here, "ls-files", "--error-unmatch", here.name)  # else: some other repository around our installation
        changed = "-changed" if _git(here, "status", "--porcelain", "-uno") else ""
        return _git(here, "rev-parse", "HEAD") + changed
    except (OSError, subprocess.SubprocessError):
        return f"bullwhip {installed_version('bullwhip')}"


def _git(here: Path, *words: str) -> str:
    command = ["git", "-C", str(here.parent), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _name(text: str) -> str:
    return re.sub(r"[^\w\-./: ]", "_", text, flags=re.ASCII)[:250]


def _close_left_behind(workspace: Path, store: Store) -> None:
    """Call the runs KILLED whose process was."""
    for mark in running.left_behind(workspace):
        run_id = mark.name.partition(".")[2]
        with contextlib.suppress(MlflowException):
            if run_id and store.client.get_run(run_id).info.status == "RUNNING":
                store.client.set_terminated(run_id, "KILLED")
        if run_id:
            mark.unlink(missing_ok=True)


def _found_or_created(store: Store, known: str, name: str, tags: dict[str, str]) -> str:
    found = store.client.search_runs([store.experiment_id], known, max_results=1)
    if not found:
        return store.client.create_run(store.experiment_id, tags=tags, run_name=name).info.run_id
    run_id = found[0].info.run_id
    store.client.update_run(run_id, status="RUNNING")
    return run_id


def _log_params(store: Store, run_id: str, params: Mapping[str, object]) -> None:
    known = store.client.get_run(run_id).data.params  # a resumed run keeps its own: MLflow forbids changing them
    rows = [Param(_name(k), str(v)[:6000]) for k, v in params.items() if _name(k) not in known]
    for start in range(0, len(rows), 100):
        store.client.log_batch(run_id, params=rows[start : start + 100])


def _let_go(frames: TracebackType | None, *, whole: bool) -> None:
    """Let go of what interrupted frames hold: a call to MLflow that was broken off would keep sqlite's lock.

    What a frame was about to use when it was broken off is let go of only with the frame itself: the `whole` traceback,
    which nobody reads of a command that was told to stop.
    """
    traceback.clear_frames(frames)
    while whole and frames is not None:
        frames.tb_next, frames = None, frames.tb_next


@contextlib.contextmanager
def _ended(store: Store, run_id: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        killed = not isinstance(error, Exception)  # Ctrl-C, SIGTERM, Prefect's own TerminationSignal
        _let_go(error.__traceback__, whole=killed)
        with contextlib.suppress(Exception):  # the first error is the one to hear about
            store.client.set_terminated(run_id, "KILLED" if killed else "FAILED")
        with reaching(store.uri):
            raise
    with reaching(store.uri):
        store.client.set_terminated(run_id, "FINISHED")
