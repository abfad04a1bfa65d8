"""Hand a message to a mail server or a webhook, within seconds, and say without a secret why that failed."""

import contextlib
import http.client
import ipaddress
import json
import re
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from pipelines.addresses import ServerURL, WebhookURL

T = TypeVar("T")
SECONDS = 5.0  # what a receiver has for every answer
WAITS = (0.5, 2.0)  # between the attempts of one run
BUSY = (408, 425, 429, 500, 502, 503, 504)


class Undelivered(Exception):
    """A receiver did not take a message; `again` says whether trying again at once is safe and may help."""

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


def persistently(send: Callable[[], T], waits: Sequence[float] = WAITS) -> T:
    """Send, and again after each wait while the receiver surely has not taken it; raises the last Undelivered."""
    for wait in waits:
        try:
            return send()
        except Undelivered as failed:
            if not failed.again:
                raise
        time.sleep(wait)
    return send()


# Webhooks


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: a POST would arrive as a GET, and its answer would say nothing."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def post(webhook: WebhookURL, message: dict[str, Any], *, seconds: float = SECONDS) -> None:
    """Post a message as JSON; any 2xx answer means it was taken.

    A receiver that took the request and does not answer is not asked again at once: it may have the message.
    """
    request = urllib.request.Request(
        webhook.get_secret_value(), json.dumps(message).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.build_opener(_Straight).open(request, timeout=seconds):
            return
    except urllib.error.HTTPError as error:
        with error:
            raise Undelivered(f"it answered {error.code}{_why(error)}", again=error.code in BUSY) from None
    except urllib.error.URLError as error:  # before the request was out
        raise Undelivered(_plain(error.reason), again=not isinstance(error.reason, ssl.SSLError)) from None
    except (OSError, http.client.HTTPException) as error:
        raise Undelivered(f"{_plain(error)} after it was sent") from None


def _why(error: urllib.error.HTTPError) -> str:
    """Return a receiver's own word such as `invalid_blocks`; nothing longer, it might repeat the address."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        word = error.read(80).decode("utf-8", "replace").strip()
        return f" ({word})" if re.fullmatch(r"[a-z_]{1,40}", word) else ""
    return ""


def _plain(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    said = getattr(error, "strerror", None)
    return str(said) if said else type(error).__name__


# Mail


def send_mail(server: ServerURL, message: EmailMessage, *, seconds: float = SECONDS) -> list[str]:
    """Send a mail and return the recipients that the server refused while it took the mail for others.

    The password goes over an encrypted line only, except to this machine. A server that does not offer the encryption
    asked for gets nothing.
    """
    url = urlsplit(server.get_secret_value())
    host, near = url.hostname or "", _loopback(url.hostname or "")
    asked = parse_qs(url.query).get("tls", ["implicit" if url.scheme == "smtps" else "none" if near else "starttls"])
    if url.password and asked == ["none"] and not near:
        raise Undelivered("a password would go over an open line; leave out ?tls=none")
    try:
        with _connected(host, url.port, asked[0], seconds) as smtp:
            if url.username:
                smtp.login(unquote(url.username), unquote(url.password or ""))
            return [*smtp.send_message(message)]
    except smtplib.SMTPAuthenticationError as error:
        raise Undelivered(f"user or password refused ({error.smtp_code})") from None
    except smtplib.SMTPNotSupportedError:
        missing = "STARTTLS, or no way to log in over this line" if url.username else "STARTTLS"
        raise Undelivered(f"it does not offer {missing}") from None
    except smtplib.SMTPRecipientsRefused as error:
        codes = sorted({code for code, _ in error.recipients.values()})
        raise Undelivered(f"every recipient refused ({', '.join(map(str, codes))})") from None
    except smtplib.SMTPConnectError as error:
        raise Undelivered(f"it answered {error.smtp_code}", again=True) from None
    except smtplib.SMTPResponseException as error:
        raise Undelivered(f"it answered {error.smtp_code}", again=400 <= error.smtp_code < 500) from None
    except smtplib.SMTPServerDisconnected:
        raise Undelivered("it closed the line, or did not answer in time") from None
    except smtplib.SMTPException as error:
        raise Undelivered(type(error).__name__) from None
    except OSError as error:
        raise Undelivered(_plain(error), again=isinstance(error, ConnectionRefusedError)) from None


@contextlib.contextmanager
def _connected(host: str, port: int | None, tls: str, seconds: float) -> Any:
    """Hand out a connection; what goes wrong while it is closed no longer matters."""
    context = ssl.create_default_context()
    if tls == "implicit":
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(host, port or 465, timeout=seconds, context=context)
    else:
        smtp = smtplib.SMTP(host, port or (587 if tls == "starttls" else 25), timeout=seconds)
    try:
        if tls == "starttls":
            smtp.starttls(context=context)
        yield smtp
    finally:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            smtp.quit()
        smtp.close()


def _loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
