"""Models in MLflow's registry: their files, and which version scores which day, since when and why."""

import hashlib
import tempfile
from collections.abc import Mapping
from datetime import UTC, date, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import save_model

from models.tenure import FOREVER, Decided, What, champion_of, with_decision
from pipelines.mlflow_store import Store, open_store, reaching
from pipelines.registered import RegisteredModel
from pipelines.settings import Settings, UserError
from pipelines.tracking import Run

REGISTRY = {"delay": "bullwhip-supplier-delay", "shift": "bullwhip-demand-shift"}
REQUIREMENTS = ("lightgbm", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy", "xarray")
"""What serving needs besides this package, which is left out: nobody may offer pip another one of that name."""


def register(run: Run, *, name: str, folder: Path, tags: Mapping[str, object] | None = None) -> str:
    """Register a folder of text, JSON and Parquet files as the next version of a model, and the challenger.

    The same files from the same run, as after a resumed flow, are the same version.
    """
    client, digest = run.store.client, _digest(folder)
    with reaching(run.store.uri):
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
        client.set_registered_model_alias(name, "challenger", str(version))
    return str(version)


def decide(settings: Settings, name: str, version: str, what: What, *, since: date, because: str) -> None:
    """Promote a version from the day `since` on, or take it back for good, and keep when and why.

    The alias `champion` follows to the version that scores the days to come.
    """
    store = open_store(settings)
    with reaching(store.uri):
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
    with reaching(store.uri):
        found = champion_of(_versions(store, name), as_of)
        return _with_files(settings, store, name, found["version"]) if found else None


def registered(settings: Settings, name: str, version: str) -> RegisteredModel:
    """Return a version with its files; UserError where there is none of that number or alias."""
    store = open_store(settings)
    with reaching(store.uri):
        known = _versions(store, name)
        found = next((v for v in known if version == v["version"] or version in v["aliases"]), None)
        if found is None:
            there = ", ".join([v["version"] for v in known] + sorted(a for v in known for a in v["aliases"])) or "none"
            how = "; bullwhip train --challenger makes one" if version == "challenger" else ""
            raise UserError(f"{name} has no version {version!r}; there are {there}{how}")
        return _with_files(settings, store, name, found["version"])


def _with_files(settings: Settings, store: Store, name: str, version: str) -> RegisteredModel:
    whole = store.client.get_model_version(name, version)
    run_id = whole.run_id or ""
    metrics = store.client.get_run(run_id).data.metrics if run_id else {}
    folder = _local_folder(settings, store, whole)
    return RegisteredModel(name, version, folder, dict(whole.tags), dict(metrics), run_id)


def versions(settings: Settings, name: str) -> list[dict[str, Any]]:
    """Return every version of a model, newest first: version, aliases, tags, run_id, created_at."""
    store = open_store(settings)
    with reaching(store.uri):
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


def _digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    parts = (f"{p.relative_to(folder).as_posix()} {hashlib.sha256(p.read_bytes()).hexdigest()}\n" for p in files)
    return hashlib.sha256("".join(parts).encode()).hexdigest()


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
