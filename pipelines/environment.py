"""What prefect, mlflow and OpenMP must find in the environment before they are imported."""

import os

from pipelines import running
from pipelines.settings import Settings


def environment(settings: Settings) -> dict[str, str]:
    """Return the variables of a workspace by name."""
    return {
        "OMP_WAIT_POLICY": "passive",  # training was 11 times faster with it on a machine with other load
        "PREFECT_HOME": str((settings.workspace / "prefect").resolve()),
        **_database_of_prefect(settings),
        **running.variables(settings.workspace),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # what is silent for 90 s is called crashed where `deploy` has been
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a fresh home takes up to 19 s, default 20
        "PREFECT_LOGGING_LEVEL": "INFO",  # what its pages show …
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",  # … and what stderr does
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # it draws on stderr once tqdm is there
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }


def _database_of_prefect(settings: Settings) -> dict[str, str]:
    if not (url := settings.database_url("asyncpg")):
        return {}
    path = "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_SEARCH_PATH"
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url, path: "prefect"}


def apply_environment(settings: Settings) -> None:
    """Set these variables for this process; what the user has set stays."""
    for name, value in environment(settings).items():
        os.environ.setdefault(name, value)
