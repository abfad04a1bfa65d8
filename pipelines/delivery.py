"""Send the digest of a publication once to everybody who asked for it, whatever is killed when.

`digest/sent.json` says of every publication and receiver what came of it. "sending" is written before a receiver is
spoken to and its answer after, so a run finds out where another was killed. What follows:

- a receiver that took the digest never gets it again;
- one that was being spoken to when a run was killed is "in doubt": no run sends to it again, a person can;
- one that refused, or did not answer in time, is tried again by the next run of the same week. If it took the digest
  without an answer it has it twice; a mail then has the same Message-ID.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.addresses import WebhookURL
from pipelines.digest import Digest, digest
from pipelines.digest_forms import mail, slack, teams, written
from pipelines.files import replacing, sole
from pipelines.publish import Publication
from pipelines.receivers import SECONDS, WAITS, Undelivered, persistently, post, send_mail
from pipelines.settings import Settings, UserError

Send = Callable[[Digest], list[str]]
SENT, SENDING, FAILED = "sent", "sending", "not delivered"


def hand_out(settings: Settings, publication: Publication) -> dict[str, Any]:
    """Write `digest/<as_of>.md`, and send the digest where it has not been sent unless a later week is published.

    Returns the file, what came of each receiver, and a line for each that has to be told.
    """
    found = digest(settings, publication.as_of)
    path = write(settings, found)
    try:
        outcome = deliver(settings, found) if found.latest else {}
    except (UserError, OSError) as error:  # the week is out, whatever became of its digest
        return {"file": str(path), "receivers": {}, "warnings": [f"digest not sent: {error}"]}
    return {"file": str(path), "receivers": outcome, "warnings": told(outcome)}


def send_by_hand(settings: Settings, found: Digest) -> dict[str, dict[str, str]]:
    """Send a digest because a person says so, an older week's or one in doubt, too; refuse where nobody is named."""
    if not receivers(settings):
        raise UserError("nobody is named to send to; set mail_to, slack_webhook or teams_webhook in bullwhip.toml")
    return deliver(settings, found, by_hand=True)


def write(settings: Settings, found: Digest) -> Path:
    """Write the digest as Markdown into the workspace and return the file."""
    path = settings.workspace / "digest" / f"{found.as_of}.md"
    with replacing(path) as fresh:
        fresh.write_text(written(found, "md"), encoding="utf-8")
    return path


def deliver(
    settings: Settings,
    found: Digest,
    *,
    by_hand: bool = False,
    waits: Sequence[float] = WAITS,
    seconds: float = SECONDS,
) -> dict[str, dict[str, str]]:
    """Send the digest to every receiver that has not got it, and return by receiver its state and what there is to say.

    `by_hand` sends to those in doubt, too. A receiver that fails is part of the answer, never an error.
    """
    wanted = receivers(settings, seconds)
    if not wanted:
        return {}
    folder = settings.workspace / "digest"
    with sole(folder / ".lock") as free:
        if not free:
            return {name: {"state": FAILED, "why": "another run is sending"} for name in wanted}
        ledger = Ledger(folder / "sent.json", found.publication_id)
        return {name: _once(ledger, name, send, found, by_hand, waits) for name, send in wanted.items()}


def receivers(settings: Settings, seconds: float = SECONDS) -> dict[str, Send]:
    """Return by name what is set up to get the digest."""
    found: dict[str, Send] = {}
    if settings.mail_to or settings.smtp.get_secret_value():
        found["mail"] = partial(_mailed, settings, seconds)
    for name, webhook, form in (("slack", settings.slack_webhook, slack), ("teams", settings.teams_webhook, teams)):
        if webhook.get_secret_value():
            found[name] = partial(_posted, webhook, form, seconds)
    return found


def _posted(webhook: WebhookURL, form: Callable[[Digest], dict[str, Any]], seconds: float, found: Digest) -> list[str]:
    post(webhook, form(found), seconds=seconds)
    return []


def _mailed(settings: Settings, seconds: float, found: Digest) -> list[str]:
    missing = [k for k in ("mail_to", "mail_from", "smtp") if not settings.public()[k]]
    if missing:
        raise Undelivered(f"the setting {' and '.join(missing)} is missing")
    domain = settings.mail_from.partition("@")[2]
    return send_mail(settings.smtp, mail(found, settings.mail_from, settings.mail_to, domain), seconds=seconds)


def _once(
    ledger: "Ledger", name: str, send: Send, found: Digest, by_hand: bool, waits: Sequence[float]
) -> dict[str, str]:
    """Send to one receiver unless it has the digest or may have it."""
    before = ledger.state(name)
    if before == SENT:
        return {"state": SENT, "why": "by an earlier run"}
    if before == SENDING and not by_hand:
        return {"state": "in doubt", "why": "a run was killed while sending; to send again: bullwhip digest --send"}
    ledger.note(name, SENDING)
    try:
        refused = persistently(lambda: send(found), waits)
    except Undelivered as failed:
        ledger.note(name, FAILED)
        return {"state": FAILED, "why": f"{failed}; the next run of the week tries again"}
    ledger.note(name, SENT)
    return {"state": SENT, "why": f"but its server refused {', '.join(refused)}" if refused else ""}


class Ledger:
    """What came of sending one publication, kept in a file that is replaced as a whole with every note."""

    def __init__(self, path: Path, publication_id: str) -> None:
        self.path, self.publication_id = path, publication_id
        try:
            known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            self.known: dict[str, dict[str, dict[str, str]]] = {k: dict(v) for k, v in known.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} cannot be read ({type(error).__name__}), so nobody knows what was sent; mend or delete it"
            ) from None

    def state(self, receiver: str) -> str:
        return self.known.get(self.publication_id, {}).get(receiver, {}).get("state", "")

    def note(self, receiver: str, state: str) -> None:
        told = {"state": state, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        self.known.setdefault(self.publication_id, {})[receiver] = told
        with replacing(self.path) as fresh:
            fresh.write_text(json.dumps(self.known, indent=1), encoding="utf-8")


def told(outcome: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for every receiver that did not get the digest, or not for all."""
    lines = [f"digest to {name}: {said['state']}, {said['why']}" for name, said in outcome.items() if said["why"]]
    return [line for line in lines if not line.endswith("by an earlier run")]
