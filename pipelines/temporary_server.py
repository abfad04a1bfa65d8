"""A Prefect server for as long as this process lives, where no other is known: begun before Prefect is imported.

Prefect would start one itself, but only after it has loaded its server in our process too, which takes seconds.
"""

import atexit
import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

if TYPE_CHECKING:
    from fastapi import FastAPI

URL = "PREFECT_API_URL"
SECONDS_TO_START = 120  # a fresh home takes up to 19 s on a quiet machine
SECONDS_TO_END = 5
OFF = ("0", "false", "no", "off")
OWN = {
    "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "0",  # it lives as long as one command, and watches nobody
}  # fmt: skip


def begin(environ: Mapping[str, str] = os.environ) -> str | None:
    """Start the server and return its address, which is from now on in the environment; None where Prefect finds one.

    It listens at once, so that whoever asks early waits and is answered. It ends with this process, however that ends.
    """
    if "prefect" in sys.modules or is_told_where(environ, Path()):
        return None
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(listening.fileno())], stdin=subprocess.PIPE,
            pass_fds=(listening.fileno(),), env={**environ, **OWN},
        )  # fmt: skip
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
    atexit.register(_end, server)
    os.environ[URL] = url
    return url


def is_told_where(environ: Mapping[str, str], here: Path) -> bool:
    """Whether Prefect has been told of a server, or of having none, by any of the ways it reads settings."""
    if environ.get(URL) or environ.get("PREFECT_PROFILE"):
        return True
    if environ.get("PREFECT_SERVER_EPHEMERAL_ENABLED", "").lower() in OFF:
        return True
    files = (Path(environ.get("PREFECT_HOME", "~/.prefect")).expanduser() / "profiles.toml", here / "prefect.toml")
    project = here / "pyproject.toml"
    return (
        any(file.exists() for file in files)
        or ((here / ".env").is_file() and "PREFECT" in (here / ".env").read_text(errors="replace").upper())
        or (project.is_file() and "[tool.prefect" in project.read_text(errors="replace"))
    )


def wait(url: str) -> None:
    """Return when the server answers; OSError when it has ended or takes too long."""
    urlopen(f"{url}/health", timeout=SECONDS_TO_START).close()


def _end(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:  # its database is safe: what was answered is written
        server.kill()
        server.wait()


def _app() -> "FastAPI":
    """Return Prefect's server; what it imports is no garbage, and looking for some took a sixth of the time."""
    gc.disable()
    from prefect.server.api.server import create_app

    app = create_app()
    gc.freeze()
    gc.enable()
    return app


def _serve(descriptor: int) -> None:
    import uvicorn

    def end_with_parent() -> None:
        sys.stdin.buffer.read()  # until whoever holds the other end is gone
        server.should_exit = True

    config = uvicorn.Config(_app, factory=True, log_level="error", lifespan="on", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    threading.Thread(target=end_with_parent, daemon=True).start()
    server.run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
