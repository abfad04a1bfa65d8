"""The MLflow store of a workspace: reached within seconds or not at all, made whole, and found again after a move."""

import contextlib
import fcntl
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen
from uuid import uuid4

import mlflow
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from requests import RequestException

from pipelines import running
from pipelines.addresses import mask
from pipelines.settings import Settings, Unreachable, UserError

EXPERIMENT = "bullwhip"
SECONDS_TO_ANSWER = 5
OUR_MISTAKES = {"BAD_REQUEST", "INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"}
"""What a store answers when it is well and we asked something wrong."""


@dataclass(frozen=True, slots=True)
class Store:
    """A tracking store that has answered, with our experiment in it."""

    client: MlflowClient
    uri: str
    experiment_id: str


def open_store(settings: Settings) -> Store:
    """Return the store, created and migrated on first use; Unreachable within seconds if a server does not answer."""
    uri = settings.tracking_uri
    ours = uri.startswith("sqlite") and uri == settings.tracking_store
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # 2026-11: INFO for each migrated table, no signature wanted
    _expect_answer(uri)
    with reaching(uri), _locked(settings.workspace / "mlflow"):
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
def reaching(uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError, RequestException, ConnectionError, TimeoutError) as error:
        if getattr(error, "error_code", None) in OUR_MISTAKES:
            raise
        _raise_unreachable(uri, error)


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
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time create or migrate the store: two at once break it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _point_at(uri: str) -> MlflowClient:
    """Return a client; MLflow's globals follow, since its registry reads them, but not our environment."""
    before = {name: os.environ.get(name, "") for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    registry = before["MLFLOW_REGISTRY_URI"] or uri
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(registry)
    for name, value in before.items():  # else the next workspace of this process would inherit this one's store
        os.environ[name] = value  # never taken away: a thread that reads the environment would stumble over that
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
