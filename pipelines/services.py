"""Which servers a team needs on one machine, as commands with what they must find in the environment."""

import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines import running
from pipelines.board_server import LOOPBACK
from pipelines.environment import environment
from pipelines.settings import Settings, UserError

POOL = "bullwhip"
KEPT_DAYS = 90  # finished runs are forgotten after that; what they published stays


@dataclass(frozen=True, slots=True)
class Service:
    """One process to keep alive: what starts it, where it listens, what answers when it is well, whom it waits for."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str] = field(repr=False)
    port: int = 0
    url: str = ""
    health: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the servers of a workspace shall listen."""

    host: str = "127.0.0.1"
    prefect_port: int = 4200
    mlflow_port: int = 5000
    board_port: int = 8080

    @property
    def local(self) -> str:
        """The address at which this machine itself reaches what listens on `host`."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)

    def url(self, port: int) -> str:
        """Return the address of a port, for clients on this machine."""
        return f"http://[{self.local}]:{port}" if ":" in self.local else f"http://{self.local}:{port}"


def refuse_open_doors(plan: Plan, login: tuple[str, str] | None) -> None:
    """Raise UserError for servers without a password that others than this machine could reach."""
    if login and (len(login[1]) < 12 or not re.fullmatch(r"[\w.@-]+", login[0])):
        raise UserError(f"{running.AUTH} is too weak or not user:password; expected 12 or more characters of password")
    if plan.host not in LOOPBACK and not login:
        raise UserError(
            f"--host {plan.host} is open to the network: set {running.AUTH}=user:password in the environment, with 12 "
            f"or more characters of password"
        )


def services(settings: Settings, plan: Plan) -> tuple[Service, ...]:
    """Return what to run, in the order it starts."""
    shared, home = _environ(settings, plan), str(settings.workspace.resolve())
    python = (sys.executable, "-m")
    prefect, mlflow, board = (plan.url(p) for p in (plan.prefect_port, plan.mlflow_port, plan.board_port))
    uvicorn = ("uvicorn", "--factory", "prefect.server.api.server:create_app", "--log-level", "warning")
    listen = ("--host", plan.host, "--port")
    hosts = ("--allowed-hosts", "*") if plan.host not in LOOPBACK else ()  # there the password guards
    worker = ("prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", socket.gethostname())
    return (
        Service("prefect", (*python, *uvicorn, *listen, str(plan.prefect_port), "--timeout-keep-alive", "5"),
                shared | _server_of_prefect(), plan.prefect_port, prefect, f"{prefect}/api/health"),
        Service("mlflow", (*python, "pipelines.tracking_server", home, *listen, str(plan.mlflow_port), *hosts,
                          "--uvicorn-opts", "--no-access-log"),
                {k: v for k, v in shared.items() if k != "MLFLOW_TRACKING_URI"}
                | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, plan.mlflow_port, mlflow, f"{mlflow}/health"),
        Service("board", (*python, "pipelines.board_server", f"{home}/board", plan.host, str(plan.board_port)),
                shared, plan.board_port, board, f"{board}/-/health"),
        Service("worker", (*python, *worker, "--install-policy", "never"), shared, after="prefect"),
    )  # fmt: skip


def _environ(settings: Settings, plan: Plan) -> dict[str, str]:
    """Return the whole environment of the servers and of the flows the worker starts."""
    database = settings.database.get_secret_value()
    out = environment(settings) | dict(os.environ) | {
        "PREFECT_API_URL": f"{plan.url(plan.prefect_port)}/api",
        "MLFLOW_TRACKING_URI": plan.url(plan.mlflow_port),
        "PREFECT_CLIENT_MAX_RETRIES": "7",  # with pauses of 1, 2, 4 … s a server may be away for two minutes
        "PREFECT_WORKER_QUERY_SECONDS": "5",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "6",
        "PREFECT_HOME": str((settings.workspace / "prefect").resolve()),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",  # one that has to be ended for its silence says where it stood
        "PYTHONPATH": os.pathsep.join(filter(None, (_code(), os.environ.get("PYTHONPATH")))),
    }  # fmt: skip
    if database:
        out["BULLWHIP_DATABASE"] = database
    if login := running.credentials():
        out |= {"PREFECT_API_AUTH_STRING": ":".join(login), "PREFECT_SERVER_API_AUTH_STRING": ":".join(login),
                "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true", "MLFLOW_TRACKING_USERNAME": login[0],
                "MLFLOW_TRACKING_PASSWORD": login[1]}  # fmt: skip
    return out


def _code() -> str:
    """Return the folder this package was imported from, which the servers' python shall import it from too."""
    return str(Path(__file__).resolve().parents[1])


def _server_of_prefect() -> dict[str, str]:
    return {
        "PREFECT__SERVER_FINAL": "1",
        "PREFECT_SERVER_UI_API_URL": "/api",
        # 2026-11: leases kept in memory die with the server, and what they held stays taken for ever
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(KEPT_DAYS * 86400),
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "30",
    }


def refuse_taken_ports(planned: tuple[Service, ...], host: str) -> None:
    """Raise UserError, naming who listens there, when a port is taken."""
    for service in planned:
        if not service.port:
            continue
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, service.port))
            except OSError as error:
                raise UserError(
                    f"port {service.port} for {service.name} cannot be had: {error.strerror}"
                    f"{_holder(service.port)}; choose another: --{service.name}-port"
                ) from None


def _holder(port: int) -> str:
    """Return who listens on a port, as far as Linux tells this user."""
    rows = [line.split() for path in ("/proc/net/tcp", "/proc/net/tcp6") for line in _lines(path)[1:]]
    inodes = {f"socket:[{r[9]}]" for r in rows if r[3] == "0A" and int(r[1].rpartition(":")[2], 16) == port}
    for link in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        try:
            if os.readlink(link) in inodes:
                pid = link.parts[2]
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                return f", process {pid} ({name}) has it"
        except OSError:
            continue
    return ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return [""]


def secret_words(settings: Settings) -> tuple[str, ...]:
    """Return what no log may show."""
    from urllib.parse import unquote, urlsplit

    login = running.credentials()
    urls = (settings.database.get_secret_value(), settings.data_url or "")
    found = [urlsplit(u).password or "" for u in urls] + ([login[1]] if login else [])
    return tuple(word for w in found for word in {w, unquote(w)} if word)
