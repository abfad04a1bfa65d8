"""Show the files of a board folder, and nothing else: `python -m pipelines.board_server FOLDER HOST PORT`."""

import base64
import hmac
import sys
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipelines import running

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Content-Security-Policy": "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
"""The page names its own scripts and styles by hash; this policy holds besides."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
EMPTY = b"<!doctype html><title>bullwhip</title><p>No board is published yet: run bullwhip score."


class Handler(SimpleHTTPRequestHandler):
    """Answers GET and HEAD with files below the folder; dot files, listings and links out of it do not exist."""

    server_version, sys_version, protocol_version = "bullwhip", "", "HTTP/1.1"

    def __init__(self, *args: object, folder: Path, hosts: tuple[str, ...], login: str, **kwargs: object) -> None:
        self.folder, self.hosts, self.login = folder.resolve(), hosts, login
        super().__init__(*args, directory=str(folder), **kwargs)  # type: ignore[arg-type]

    def send_head(self):
        """Send the head of an answer, and return the file whose content follows."""
        if urlsplit(self.path).path == "/-/health":
            return self._answer(HTTPStatus.OK, b"ok")
        if self.hosts and urlsplit(f"//{self.headers.get('Host', '')}").hostname not in self.hosts:
            return self._answer(HTTPStatus.MISDIRECTED_REQUEST, b"unknown host")
        if self.login and not hmac.compare_digest(self.headers.get("Authorization", ""), self.login):
            return self._answer(HTTPStatus.UNAUTHORIZED, b"", {"WWW-Authenticate": 'Basic realm="bullwhip"'})
        asked = (self.folder / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        if asked.is_dir() and (asked / "index.html").is_file():
            asked = (asked / "index.html").resolve()
        if asked == self.folder or (asked == self.folder / "index.html" and not asked.exists()):
            return self._answer(HTTPStatus.OK, EMPTY)
        inside = asked.is_relative_to(self.folder) and asked.is_file()
        if not inside or any(part.startswith(".") for part in asked.relative_to(self.folder).parts):
            return self._answer(HTTPStatus.NOT_FOUND, b"not found")
        return super().send_head()

    def _answer(self, status: HTTPStatus, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def end_headers(self) -> None:
        """Add what every answer carries."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say what went wrong, and nothing of what was read."""
        if len(args) > 1 and str(args[1]) >= "500":
            super().log_message(format, *args)


def serve(folder: Path, host: str, port: int, login: tuple[str, str] | None) -> ThreadingHTTPServer:
    """Return a server that listens; `serve_forever` runs it."""
    header = f"Basic {base64.b64encode(':'.join(login).encode()).decode()}" if login else ""
    hosts = LOOPBACK if host in LOOPBACK else ()  # a page elsewhere may not borrow a name for our loopback address
    handler = partial(Handler, folder=folder, hosts=hosts, login=header)
    ThreadingHTTPServer.daemon_threads = True
    return ThreadingHTTPServer((host, port), handler)


def main() -> None:
    """Serve until the process ends."""
    folder, host, port = sys.argv[1:]
    serve(Path(folder), host, int(port), running.credentials()).serve_forever()


if __name__ == "__main__":
    main()
