"""The forms of a digest: Markdown, a mail with a plain and an HTML part, a Slack message, a Teams card.

Names come from outside. Each form shows them as text: Markdown and HTML escape whatever is put in, Slack gets them in
rich text and Teams in text runs, neither of which knows links, mentions or markup.
"""

import json
import re
from datetime import UTC, date, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime
from functools import cache, partial
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipelines.digest import Digest, Risk

Form = Literal["md", "html", "slack", "teams"]
HEADER, FALLBACK = 150, 3_000  # characters Slack takes in a header, and as a text
PIECE, MOST_WARNINGS = 200, 10  # characters of a line of ours in a message, and how many warnings it tells
NAMED = {
    "late_deliveries": "late deliveries",
    "demand_shifts": "demand shifts",
    "already_late": "beside it, already late",
}
LINES = policy.SMTP.clone(max_line_length=200)  # a subject folded before its first word would begin with a blank
CARD = 20_000  # bytes; Teams refuses cards somewhere between 21 and 28 kB


def written(digest: Digest, form: Form) -> str:
    """Return the digest in one form as text; Slack's and Teams' are JSON."""
    if form in ("md", "html"):
        return _rendered(form, digest)
    return json.dumps(slack(digest) if form == "slack" else teams(digest), ensure_ascii=False, indent=2)


def headline(digest: Digest) -> str:
    """Return one line without names: the subject of the mail, the title of the messages."""
    again = f" (revision {digest.revision})" if digest.revision > 1 else ""
    return f"Risks of {digest.as_of}{again}: {amount(digest, digest.totals['preventable'])} at risk, still preventable"


def amount(digest: Digest, value: float | None) -> str:
    """Return money to the cent."""
    return "value not known" if value is None else f"{digest.currency} {value:,.2f}"


def day(value: date) -> str:
    return f"{value:%a} {value.day} {value:%b %Y}"


def mail(digest: Digest, sender: str, to: tuple[str, ...], domain: str) -> EmailMessage:
    """Return the mail; the same publication has the same Message-ID, by which mailboxes know a second copy."""
    message = EmailMessage(policy=LINES)
    message["Subject"], message["From"], message["To"] = headline(digest), sender, ", ".join(to)
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = f"<{digest.publication_id}.{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_rendered("txt", digest))
    message.add_alternative(_rendered("html", digest), subtype="html")
    return message


# Markdown and HTML


def _rendered(form: str, digest: Digest) -> str:
    template = _environment(form).get_template("digest.html.j2" if form == "html" else "digest.md.j2")
    return template.render(
        d=digest, day=day, amount=partial(amount, digest), change=partial(_signed, digest),
        address=partial(_link, form), totals=_totals(digest),
    )  # fmt: skip


@cache
def _environment(form: str) -> Environment:
    """Return an environment in which whatever a template puts in is escaped as the form needs it."""
    return Environment(
        loader=PackageLoader("pipelines", "digest_templates"),
        autoescape=form == "html",
        finalize=_markdown if form == "md" else None,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )


def _signed(digest: Digest, value: float) -> str:
    return f"{digest.currency} {value:+,.2f}"


def _link(form: str, url: str) -> Markup:
    return Markup(f"<{url}>" if form == "md" else url)


def _markdown(value: Any) -> Any:
    """Return text whose signs Markdown shows instead of obeying, and whose addresses do not become links."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = re.sub(r"([\\`*_\[\]<>|~&#!$@])", r"\\\1", value).replace("://", "\\://")
    text = re.sub(r"(?i)\bwww\.", lambda found: found[0][:-1] + "\\.", text)
    return re.sub(r"^(\d+)(?=[.)])|^(?=[-+])", r"\1\\", text)  # no list begins here


# Slack


def slack(digest: Digest) -> dict[str, Any]:
    """Return what a Slack incoming webhook takes: blocks, and a short text for notifications."""
    said = _totals(digest)
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(headline(digest), HEADER), "emoji": False}},
        _rich(*(_run(line + "\n") for line in said)),
    ]
    if digest.warnings:
        told = [_run(_cut(f"\n{w.verdict}: {w.subject}: {w.reason}", PIECE)) for w in digest.warnings[:MOST_WARNINGS]]
        blocks.append(_rich(_run("Before you trust it", bold=True), *told))
    entries = [_rich_part(*_slack_risk(digest, r)) for r in digest.top]
    if entries:
        blocks.append(
            {"type": "rich_text", "elements": [{"type": "rich_text_list", "style": "ordered", "elements": entries}]}
        )
    link = {"type": "link", "url": digest.board, "text": "Everything on the board"}
    blocks.append(
        _rich(link if digest.board_is_a_page else _run(_cut(f"Everything on the board: {digest.board}", PIECE)))
    )
    return {"text": _for_slack(_cut(" ".join((headline(digest) + ".", *said)), FALLBACK)), "blocks": blocks}


def _slack_risk(digest: Digest, risk: Risk) -> list[dict[str, Any]]:
    title, *rest = _lines(digest, risk)
    return [_run(title, bold=True), *(_run("\n" + line) for line in rest)]


def _run(text: str, *, bold: bool = False) -> dict[str, Any]:
    return {"type": "text", "text": text, **({"style": {"bold": True}} if bold else {})}


def _rich_part(*runs: dict[str, Any]) -> dict[str, Any]:
    return {"type": "rich_text_section", "elements": list(runs)}


def _rich(*runs: dict[str, Any]) -> dict[str, Any]:
    return {"type": "rich_text", "elements": [_rich_part(*runs)]}


def _for_slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# Teams


def teams(digest: Digest) -> dict[str, Any]:
    """Return what a Teams workflow ("when a Teams webhook request is received") takes: a message with one card.

    Version 1.4 is the newest that flows show. Risks that would make the card too large are left to the board.
    """
    for kept in range(len(digest.top), -1, -1):
        message = _card(digest, digest.top[:kept])
        if len(json.dumps(message).encode()) <= CARD:
            return message
    return message


def _card(digest: Digest, risks: tuple[Risk, ...]) -> dict[str, Any]:
    body = [_block(headline(digest), size="Large", weight="Bolder"), *(_block(line) for line in _totals(digest))]
    if digest.warnings:
        body.append(_block("Before you trust it", weight="Bolder", color="Attention"))
        told = digest.warnings[:MOST_WARNINGS]
        body += [_block(_cut(f"{w.verdict}: {w.subject}: {w.reason}", PIECE)) for w in told]
    for risk in risks:
        title, *rest = _lines(digest, risk)
        items = [_block(f"{risk.place}. {title}", weight="Bolder"), *(_block(line, spacing="None") for line in rest)]
        body.append({"type": "Container", "separator": True, "items": items})
    if len(risks) < digest.listed:
        body.append(_block(f"{digest.listed - len(risks):,} more on the board", isSubtle=True, separator=True))
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
        "msteams": {"width": "Full"}, "body": body,
    }  # fmt: skip
    if digest.board_is_a_page:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Everything on the board", "url": digest.board}]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _block(text: str, **looks: Any) -> dict[str, Any]:
    """Return a paragraph; a text run knows no Markdown, which a TextBlock would obey."""
    whole = {name: looks.pop(name) for name in [*looks] if name in ("spacing", "separator")}
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **looks}], **whole}


# What messages say


def _totals(digest: Digest) -> list[str]:
    """Return the lines under the headline."""
    said = {name: amount(digest, value) for name, value in digest.totals.items()}
    parts = [f"{words} {said[name]}" for name, words in NAMED.items() if name in said]
    told = ", ".join(parts)
    lines = [f"{told[:1].upper()}{told[1:]}."] if parts else []
    if digest.change is not None and digest.before is not None:
        lines.append(f"Since {day(digest.before)}: {_signed(digest, digest.change)}.")
    return lines


def _lines(digest: Digest, risk: Risk) -> list[str]:
    """Return a risk in four short lines, the first its title."""
    return [
        _cut(f"{risk.what}: {risk.chance}, {risk.level}; {amount(digest, risk.value)}", PIECE),
        _cut(risk.impact, PIECE),
        *([_cut("Why: " + risk.why[0], PIECE)] if risk.why else []),
        _cut(f"{risk.owner.capitalize()}, by {day(risk.act_by)}: {risk.next_step}", PIECE),
    ]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
