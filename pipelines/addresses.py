"""Addresses that settings hold, some of them secrets: what they may look like, and what of them may be shown."""

import re
from typing import Annotated

from pydantic import AfterValidator, Secret

MAIL_SERVER = r"smtps?://([^\s/@]*@)?([^\s/?#@:\[\]]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?/?(\?tls=(starttls|implicit|none))?"
WEBHOOK = r"https://[^\s/]+/?[^\s]*|http://(localhost|127\.0\.0\.1)[:/][^\s]*"
MAIL = r"[^\s@,;<>\"]+@[^\s@,;<>\"]+"


def mask(text: str) -> str:
    """Hide what a URL must not show: the password before the host, and secrets among its parameters."""
    text = re.sub(r"(://[^:/@\s]*):.*@", r"\1:***@", text)
    return re.sub(r"(?i)([?&][^=&]*(?:pass|pwd|token|secret|key|odbc_connect)[^=&]*)=[^&\s]*", r"\1=***", text)


class ServerURL(Secret[str]):
    """The address of a server; str() and repr() never show its password."""

    def _display(self) -> str:
        return mask(self.get_secret_value())


class WebhookURL(Secret[str]):
    """An address that is itself the secret: whoever knows it may post. str() and repr() show its host."""

    def _display(self) -> str:
        address = self.get_secret_value()
        return re.sub(r"^(\w+://)(?:.*@)?([^/?#]*).*$", r"\1\2/***", address, flags=re.DOTALL) if address else ""


def _like(pattern: str, what: str) -> AfterValidator:
    """Return a check that an address is empty or looks like the pattern."""

    def check(value: str | Secret[str]) -> str | Secret[str]:
        text = value if isinstance(value, str) else value.get_secret_value()
        if text and not re.fullmatch(pattern, text):
            raise ValueError(f"not the address of {what}")
        return value

    return AfterValidator(check)


MailAddress = Annotated[str, _like(MAIL, "a mailbox")]
MailServer = Annotated[ServerURL, _like(MAIL_SERVER, "a mail server")]
Webhook = Annotated[WebhookURL, _like(WEBHOOK, "a webhook")]
