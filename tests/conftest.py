"""Keep tests apart from the user's environment and from each other."""

import os
import tempfile

import pytest

from pipelines import settings as settings_module
from pipelines.settings import Settings, environment, load

for _name, _value in environment(Settings(workspace=tempfile.gettempdir())).items():
    os.environ.setdefault(_name, _value)  # before anything imports prefect or mlflow
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="bullwhip-test-prefect-")
os.environ["PREFECT_SERVER_EPHEMERAL_ENABLED"] = "false"  # a unit test that reaches for an API fails at once


def pytest_configure(config):
    # 2026-11: MLflow 3.17.2 warns of its own type hints while it is imported
    config.addinivalue_line("filterwarnings", "ignore:.*Any type hint is inferred as AnyType:UserWarning")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in list(os.environ):
        if name.startswith(settings_module.PREFIX) or name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def migrated_mlflow(tmp_path_factory):
    """A workspace whose MLflow store is migrated: copying its mlflow folder saves the seconds of the first use."""
    from pipelines import tracking

    workspace = tmp_path_factory.mktemp("migrated")
    outside = os.environ.pop("MLFLOW_TRACKING_URI", None)
    tracking.open_store(load(workspace, environ={}))
    if outside is not None:
        os.environ["MLFLOW_TRACKING_URI"] = outside
    return workspace / "mlflow"


@pytest.fixture
def workspace(tmp_path, migrated_mlflow):
    """An empty workspace with a migrated MLflow store of its own."""
    import shutil

    shutil.copytree(migrated_mlflow, tmp_path / "workspace" / "mlflow")
    return tmp_path / "workspace"
