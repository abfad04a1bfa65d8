"""Track runs and register models in MLflow: the only place that talks to it."""

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import sqlite3
import subprocess
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.error import HTTPError, URLError
from urllib.request import urlopen
from uuid import uuid4

import mlflow
import pandas as pd
import sqlalchemy
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import save_model
from requests import RequestException

from models.tenure import FOREVER, Decided, What, champion_of, with_decision
from pipelines import running
from pipelines.registered import RegisteredModel
from pipelines.settings import Settings, Unreachable, UserError, mask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPERIMENT = "bullwhip"
REGISTRY = {"delay": "bullwhip-supplier-delay", "shift": "bullwhip-demand-shift"}
SECONDS_TO_ANSWER = 5
OUR_MISTAKES = {"BAD_REQUEST", "INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"}
"""What a store answers when it is well and we asked something wrong."""
REQUIREMENTS = ("lightgbm", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy", "xarray")
"""What serving needs besides this package, which is left out: nobody may offer pip another one of that name."""


@dataclass(frozen=True, slots=True)
class Store:
    """A tracking store that has answered, with our experiment in it."""

    client: MlflowClient
    uri: str
    experiment_id: str


@dataclass(frozen=True, slots=True)
class Run:
    """One MLflow run; every call writes at once, so a killed process keeps what it logged."""

    store: Store
    run_id: str
    code: str

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        """Log all numbers in few requests; None is left out, NaN is kept."""
        now = int(time.time() * 1000)
        rows = [Metric(_name(k), float(v), now, step) for k, v in metrics.items() if v is not None]
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


def open_store(settings: Settings) -> Store:
    """Return the store, created and migrated on first use; Unreachable within seconds if a server does not answer."""
    uri = settings.tracking_uri
    ours = uri.startswith("sqlite") and uri == settings.tracking_store
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # 2026-11: INFO for each migrated table, no signature wanted
    _expect_answer(uri)
    with _reaching(uri), _locked(settings.workspace / "mlflow"):
        if ours:
            _create_whole(Path(uri.removeprefix("sqlite:///")))
        client = _point_at(uri)
        artifacts = (settings.workspace / "mlflow" / "artifacts").resolve()
        if ours:
            _follow_moved_folder(uri, artifacts)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:  # a server decides itself where its artifacts are
            location = None if uri.startswith("http") else str(artifacts)
            return Store(client, uri, client.create_experiment(EXPERIMENT, artifact_location=location))
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        return Store(client, uri, experiment.experiment_id)


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
    with _reaching(store.uri):
        known = f"tags.same = '{same}'" if same else f"tags.`prefect.flow_run_id` = '{flow_run_id}'"
        run_id = _found_or_created(store, known, f"{flow} {as_of}", tags | source | ({"same": same} if same else {}))
        _log_params(store, run_id, params)
    with running.marked(settings.workspace, f"{flow_run_id}.{run_id}"), _ended(store, run_id):
        yield Run(store, run_id, git_sha)


@contextlib.contextmanager
def child(run: Run, name: str, **tags: object) -> Iterator[Run]:
    """Yield a run below `run`, the same one for the same name; it ends as `run` does."""
    store = run.store
    with _reaching(store.uri):
        known = f"tags.`mlflow.parentRunId` = '{run.run_id}' AND tags.part = '{name}'"
        given = {"mlflow.parentRunId": run.run_id, "part": name} | {k: str(v) for k, v in tags.items()}
        run_id = _found_or_created(store, known, name, given)
    with _ended(store, run_id):
        yield Run(store, run_id, run.code)


def register(
    run: Run, *, name: str, folder: Path, alias: str = "challenger", tags: Mapping[str, object] | None = None
) -> str:
    """Register a folder of text, JSON and Parquet files as the next version of a model, loadable without pickles.

    The same files from the same run, as after a resumed flow, are the same version.
    """
    client, digest = run.store.client, _digest(folder)
    with _reaching(run.store.uri):
        for known in client.search_model_versions(f"name = '{name}' AND run_id = '{run.run_id}'"):
            if known.tags.get("digest") == digest:
                return str(known.version)
        _register_name(client, name)
        model = _logged(run, name, folder)
        version = client.create_model_version(
            name,
            source=model.artifact_location,
            run_id=run.run_id,
            tags={"git_sha": run.code, "digest": digest} | {k: str(v) for k, v in (tags or {}).items()},
            model_id=model.model_id,
        ).version
        client.set_registered_model_alias(name, alias, str(version))
    return str(version)


def decide(settings: Settings, name: str, version: str, what: What, *, since: date, because: str) -> None:
    """Promote a version from the day `since` on, or take it back for good, and keep when and why.

    The alias `champion` follows to the version that scores the days to come.
    """
    store = open_store(settings)
    with _reaching(store.uri):
        tags = dict(store.client.get_model_version(name, version).tags)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for tag, value in with_decision(tags, Decided(what, since.isoformat(), now, because)).items():
            store.client.set_model_version_tag(name, version, tag, value)
        known = _versions(store, name)
        chosen, aliases = champion_of(known), {a: v["version"] for v in known for a in v["aliases"]}
        if chosen is None:
            store.client.delete_registered_model_alias(name, "champion")
        elif aliases.get("champion") != chosen["version"]:
            store.client.set_registered_model_alias(name, "champion", chosen["version"])
        if aliases.get("challenger") == version:
            store.client.delete_registered_model_alias(name, "challenger")


def champion(settings: Settings, name: str, as_of: date = FOREVER) -> RegisteredModel | None:
    """Return the version that scores a day, or None when none was promoted by then that had not learnt from later."""
    store = open_store(settings)
    with _reaching(store.uri):
        found = champion_of(_versions(store, name), as_of)
        return _with_files(settings, store, name, found["version"]) if found else None


def registered(settings: Settings, name: str, version: str) -> RegisteredModel:
    """Return a version with its files; UserError where there is none of that number or alias."""
    store = open_store(settings)
    with _reaching(store.uri):
        known = _versions(store, name)
        found = next((v for v in known if version == v["version"] or version in v["aliases"]), None)
        if found is None:
            there = ", ".join([v["version"] for v in known] + sorted(a for v in known for a in v["aliases"])) or "none"
            raise UserError(f"{name} has no version {version!r}; there are {there}")
        return _with_files(settings, store, name, found["version"])


def _with_files(settings: Settings, store: Store, name: str, version: str) -> RegisteredModel:
    whole = store.client.get_model_version(name, version)
    run_id = whole.run_id or ""
    metrics = store.client.get_run(run_id).data.metrics if run_id else {}
    folder = _local_folder(settings, store, whole)
    return RegisteredModel(name, version, folder, dict(whole.tags), dict(metrics), run_id)


def tags_of(settings: Settings, publication_id: str) -> dict[str, str]:
    """Return the tags of the run that published what is called so; none where no run says it did."""
    store = open_store(settings)
    with _reaching(store.uri):
        found = store.client.search_runs([store.experiment_id], f"tags.publication_id = '{publication_id}'")
    wrote = [run.data.tags for run in found if run.data.tags.get("status") in ("published", "revised")]
    return dict(wrote[-1]) if wrote else {}


def versions(settings: Settings, name: str) -> list[dict[str, Any]]:
    """Return every version of a model, newest first: version, aliases, tags, run_id, created_at."""
    store = open_store(settings)
    with _reaching(store.uri):
        return _versions(store, name)


def _versions(store: Store, name: str) -> list[dict[str, Any]]:
    if not store.client.search_registered_models(f"name = '{name}'"):
        return []
    aliases = store.client.get_registered_model(name).aliases
    return [
        {
            "version": str(v.version),
            "aliases": sorted(a for a, at in aliases.items() if str(at) == str(v.version)),
            "tags": dict(v.tags),
            "run_id": v.run_id,
            "created_at": datetime.fromtimestamp(v.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        }
        for v in sorted(store.client.search_model_versions(f"name = '{name}'"), key=lambda v: -int(v.version))
    ]


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


def _digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    parts = (f"{p.relative_to(folder).as_posix()} {hashlib.sha256(p.read_bytes()).hexdigest()}\n" for p in files)
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _name(text: str) -> str:
    return re.sub(r"[^\w\-./: ]", "_", text, flags=re.ASCII)[:250]


def _expect_answer(uri: str) -> None:
    """Ask once, briefly: MLflow itself would try again for minutes."""
    try:
        if uri.startswith(("http://", "https://")):
            plain = re.sub("//.*@", "//", uri).rstrip("/")
            with contextlib.suppress(HTTPError), urlopen(f"{plain}/health", timeout=SECONDS_TO_ANSWER):
                pass
        elif uri.startswith(("postgresql", "mysql")):
            brief = {"connect_timeout": SECONDS_TO_ANSWER}
            sqlalchemy.create_engine(uri, connect_args=brief, poolclass=sqlalchemy.NullPool).connect().close()
    except (URLError, OSError, ValueError, sqlalchemy.exc.SQLAlchemyError) as error:
        _raise_unreachable(uri, error)
    except ImportError as error:
        raise UserError(f"the MLflow store {mask(uri)} needs a driver that is not installed: {error}") from error


def _raise_unreachable(uri: str, error: Exception) -> None:
    if getattr(error, "error_code", None) in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        wanted = f"set {running.AUTH}=user:password (or MLFLOW_TRACKING_USERNAME and _PASSWORD) as the server has it"
        raise Unreachable(f"the MLflow server {mask(uri)} wants another password: {wanted}") from error
    first_line = mask(str(error).strip().partition("\n")[0])[:200]
    raise Unreachable(
        f"the MLflow store {mask(uri)} does not answer: {first_line}; start it, or correct or unset MLFLOW_TRACKING_URI"
    ) from error


@contextlib.contextmanager
def _reaching(uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError, RequestException, ConnectionError, TimeoutError) as error:
        if getattr(error, "error_code", None) in OUR_MISTAKES:
            raise
        _raise_unreachable(uri, error)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time create or migrate the store: two at once break it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _point_at(uri: str) -> MlflowClient:
    """Return a client; MLflow's globals follow, since its registry reads them, but not our environment."""
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    registry = before["MLFLOW_REGISTRY_URI"] or uri
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(registry)
    for name, value in before.items():  # else the next workspace of this process would inherit this one's store
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return MlflowClient(uri, registry)


def _create_whole(file: Path) -> None:
    """Create the store beside its place and move it there, whole.

    MLflow migrates an empty SQLite file step by step, each for good: killed on the way, it would never start again.
    """
    if file.exists():
        return
    for left in file.parent.glob("unfinished-*"):
        left.unlink()
    unfinished = file.with_name(f"unfinished-{uuid4().hex}.db")  # MLflow remembers every name it has migrated
    _point_at(f"sqlite:///{unfinished.as_posix()}").search_experiments(max_results=1)
    unfinished.rename(file)


def _follow_moved_folder(uri: str, artifacts: Path) -> None:
    """Correct the absolute paths MLflow keeps, when the workspace was moved, copied or mounted elsewhere."""
    places = (
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
        ("model_versions", "source"),
        ("model_versions", "storage_location"),
        ("experiments", "artifact_location"),
    )
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection, connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
            return
        row = connection.execute("SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
        if row is None or row[0] == str(artifacts):
            return
        for table, column in places:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column} || '/', 1, ?) = ?",
                (str(artifacts), len(row[0]) + 1, len(row[0]) + 1, f"{row[0]}/"),
            )


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


@contextlib.contextmanager
def _ended(store: Store, run_id: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        killed = not isinstance(error, Exception)  # Ctrl-C, SIGTERM, Prefect's own TerminationSignal
        traceback.clear_frames(error.__traceback__)  # a call to MLflow that was interrupted would keep its lock
        with contextlib.suppress(Exception):  # the first error is the one to hear about
            store.client.set_terminated(run_id, "KILLED" if killed else "FAILED")
        with _reaching(store.uri):
            raise
    with _reaching(store.uri):
        store.client.set_terminated(run_id, "FINISHED")


def _logged(run: Run, name: str, folder: Path) -> LoggedModel:
    """Log the folder as a models-from-code pyfunc; listing the requirements saves MLflow 5 s of guessing."""
    client = run.store.client
    model = client.create_logged_model(
        run.store.experiment_id, name=name, source_run_id=run.run_id, model_type="pyfunc"
    )
    with tempfile.TemporaryDirectory(prefix="bullwhip-model-") as scratch:
        save_model(
            f"{scratch}/packed",
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"model": str(folder)},
            pip_requirements=[f"{package}=={installed_version(package)}" for package in REQUIREMENTS],
            mlflow_model=Model(model_id=model.model_id, run_id=run.run_id),
        )
        client.log_model_artifacts(model.model_id, f"{scratch}/packed")
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run.run_id, [LoggedModelOutput(model_id=model.model_id, step=0)])
    return model


def _register_name(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _local_folder(settings: Settings, store: Store, found: ModelVersion) -> Path:
    """Return the registered files: in place when they are on this disk, else fetched once per version."""
    source = store.client.get_model_version_download_uri(found.name, str(found.version))
    packed = Path(source.removeprefix("file://"))
    if not packed.is_dir():
        packed = settings.workspace / "mlflow" / "fetched" / found.name / f"{found.version}-{found.creation_timestamp}"
    if not packed.is_dir():
        packed.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=packed.parent) as scratch:
            download_artifacts(artifact_uri=source, dst_path=scratch, tracking_uri=store.uri)
            (next(p for p in Path(scratch).rglob("MLmodel")).parent).rename(packed)
    return packed / Model.load(str(packed)).flavors["python_function"]["artifacts"]["model"]["path"]
