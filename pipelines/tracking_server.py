"""Migrate the tracking store, then become MLflow's server: `python -m pipelines.tracking_server WORKSPACE …`."""

import os
import runpy
import secrets
import sys
from pathlib import Path

from pipelines import mlflow_store, running
from pipelines.settings import load

INI = """[mlflow]
default_permission = READ
database_uri = sqlite:///{file}
admin_username = {user}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""  # 2026-11: without the cache every request takes 0.3 s


def main() -> None:
    """Take the words after the workspace as options of `mlflow server`; its store comes through the environment."""
    workspace, *options = sys.argv[1:]
    settings = load(workspace)
    os.environ["MLFLOW_TRACKING_URI"] = settings.tracking_store  # not the server's own address, which is not there yet
    mlflow_store.open_store(settings)
    del os.environ["MLFLOW_TRACKING_URI"]
    os.environ["MLFLOW_BACKEND_STORE_URI"] = settings.tracking_store  # an option would show its password in `ps`
    artifacts = (settings.workspace / "mlflow" / "artifacts").resolve()
    words = ["server", "--artifacts-destination", str(artifacts), "--workers", "1", *options]
    if given := running.credentials():
        _prepare_login(running.folder(settings.workspace), *given)
        words += ["--app-name", "basic-auth"]
    sys.argv = ["mlflow", *words]
    runpy.run_module("mlflow", run_name="__main__")  # here, since importing it again would take seconds


def _prepare_login(folder: Path, user: str, password: str) -> None:
    """Make the one user anew at every start, so that a changed password holds."""
    users, ini = folder.resolve() / "mlflow-users.db", folder.resolve() / "mlflow-auth.ini"
    users.unlink(missing_ok=True)
    ini.write_text(INI.format(file=users, user=user))
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(ini)
    os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"] = password
    os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"] = secrets.token_hex(32)


if __name__ == "__main__":
    main()
