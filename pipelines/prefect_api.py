"""Speak to Prefect's REST API with the standard library: in milliseconds, where importing its client takes a second."""

import base64
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from pipelines.settings import Unreachable, UserError


class Rejected(UserError):
    """The API understood, and said no."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


class WrongPassword(UserError):
    """The server is there and does not let us in."""

    exit_code = 6


class Api:
    """One server; `auth` is its user:password, `patience` for how long to ask again when it does not answer."""

    def __init__(self, url: str, auth: str = "", seconds: float = 15.0, patience: float = 0.0) -> None:
        self.url, self.seconds, self.client = url.rstrip("/"), seconds, uuid.uuid4().hex
        self.patience = patience
        self.headers = {"Content-Type": "application/json", "Prefect-Csrf-Client": self.client}
        if auth:
            self.headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"

    def get(self, path: str) -> Any:
        """Return what is there."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send values and return the answer."""
        return self._change("POST", path, body)

    def delete(self, path: str) -> None:
        """Take away what is there."""
        self._change("DELETE", path, None)

    def _change(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        """Ask for a change; a server that guards against forged requests gets the token it wants."""
        try:
            return self._ask(method, path, body)
        except Rejected as error:
            if error.status != 403:
                raise
        self.headers["Prefect-Csrf-Token"] = self.get(f"/csrf-token?client={self.client}")["token"]
        return self._ask(method, path, body)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return self._ask_once(method, path, body)
            except Unreachable:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)

    def _ask_once(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, self.headers, method=method)
        try:
            with urlopen(request, timeout=self.seconds) as answer:
                text = answer.read()
        except HTTPError as error:
            raise _explained(self.url, error) from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise Unreachable(
                f"the Prefect server {self.url} does not answer: {reason}; start it: bullwhip up"
            ) from None
        return json.loads(text) if text else None


def _explained(url: str, error: HTTPError) -> UserError:
    try:
        said = json.loads(error.read())
    except (ValueError, OSError):
        said = {}
    if error.code == 401:
        return WrongPassword(f"the Prefect server {url} wants a password: set BULLWHIP_AUTH=user:password as up has it")
    if error.code >= 500:
        return Unreachable(f"the Prefect server {url} cannot answer now: {error.code} {error.reason}; try again")
    detail = said.get("detail") or said.get("exception_detail") or said.get("exception_message") or error.reason
    return Rejected(error.code, detail if isinstance(detail, str) else json.dumps(detail))
