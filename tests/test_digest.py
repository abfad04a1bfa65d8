"""A digest says what the tables say, to the cent, and names from outside are text in every form of it."""

import json
import re
from dataclasses import replace
from datetime import date, datetime
from email import message_from_bytes, policy
from html.parser import HTMLParser

import pandas as pd
import pytest

from models import risk
from pipelines.digest import board, compose
from pipelines.digest_forms import HEADER, headline, mail, slack, teams, written
from pipelines.published import Published
from pipelines.settings import Settings

EVIL = [
    '<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "[click](https://evil.example)", "<!channel> <@U1>",
    "<https://evil.example|bank>", "**bold** _it_ `code`", "www.evil.example a@evil.example", "line\nSubject: other",
    "{{ 7*7 }}{% raw %}", "\u202eevil\u202c\x07", "# head", "- list", "1. list", "x" * 4_000, "<at>all</at>",
]  # fmt: skip
DELAYS = pd.DataFrame({"state": ["due_future", "due_future", "already_late"], "value_at_risk": [100.10, 200.20, 50.05]})
SHIFTS = pd.DataFrame({"value_at_risk": [0.1] * 10 + [1_000_000.0]})
HEALTH = pd.DataFrame(
    {"row_id": list("abc"), "area": "data", "subject": ["orders", EVIL[0], "receipts"],
     "verdict": ["ok", "watch", "act"], "reason": ["fine", "a day old", "9 days old"]}
)  # fmt: skip


def watchlist(names):
    n = len(names)
    return pd.DataFrame(
        {"rank": range(1, n + 1), "row_id": names, "what": names, "kind": "supplier delay", "p": 0.66, "level": "high",
         "impact": names, "value_at_risk": [1234.5, *[float("nan")] * (n - 1)][:n], "driver_1": names, "driver_2": "",
         "next_step": names, "owner": "sales", "act_by": pd.Timestamp("2026-06-04"), "change": names}
    )  # fmt: skip


def found(names=("Acme",), **changed):
    tables = {"supplier_delay_risk": DELAYS, "demand_shift_risk": SHIFTS, "watchlist": watchlist(list(names))}
    facts = {
        "publication_id": "2026-06-01.r2", "as_of": date(2026, 6, 1), "revision": 2,
        "published_at": datetime.fromisoformat("2026-06-01"), "model_versions": {}, "rows": {}, "tables": tables,
        "before": None, "latest": True,
    }  # fmt: skip
    return Published(**facts | changed)


def said(names=("Acme",), then=None, **changed):
    settings = Settings(workspace="w", board_url="https://intranet.example/risks/")
    return compose(settings, found(names, **changed), then or {})


def every_text(value):
    """Return all texts of a JSON value."""
    if isinstance(value, dict):
        return [t for v in value.values() for t in every_text(v)]
    return (
        [t for v in value for t in every_text(v)]
        if isinstance(value, list)
        else [value]
        if isinstance(value, str)
        else []
    )


@pytest.mark.parametrize("form", ["md", "html", "slack", "teams"])
def test_totals_are_those_of_the_tables_to_the_cent(form):
    d = said()
    of_tables = risk.totals({"supplier_delay_risk": DELAYS, "demand_shift_risk": SHIFTS})
    assert d.totals == {"preventable": 1_000_301.30, **of_tables}
    assert round(d.totals["late_deliveries"] + d.totals["demand_shifts"], 2) == d.totals["preventable"]
    text = written(d, form)
    for amount in ("EUR 1,000,301.30", "EUR 300.30", "EUR 1,000,001.00", "EUR 50.05"):
        assert amount in text, form
    assert "EUR 1,234.50" in text


@pytest.mark.parametrize("form", ["md", "html", "slack", "teams"])
def test_the_change_is_told_when_there_was_a_week_before(form):
    then = {"supplier_delay_risk": DELAYS.assign(value_at_risk=[1.0, 2.0, 3.0]), "demand_shift_risk": SHIFTS.head(0)}
    text = written(said(then=then, before=date(2026, 5, 25)), form)
    assert "EUR +1,000,298.30" in text
    assert "Mon 25 May 2026" in text
    assert "EUR +" not in written(said(), form)


@pytest.mark.parametrize("form", ["md", "html", "slack", "teams"])
def test_what_is_not_in_order_is_told_worst_first(form):
    tables = {**found().tables, "health": HEALTH}
    text = written(said(tables=tables), form)
    assert 0 < text.index("9 days old") < text.index("a day old")
    assert "fine" not in text


@pytest.mark.parametrize("form", ["md", "html", "slack", "teams"])
def test_a_task_alone_and_an_empty_list_have_a_digest_too(form):
    text = written(said(tables={"demand_shift_risk": SHIFTS, "watchlist": watchlist(["x"]).head(0)}), form)
    assert "EUR 1,000,001.00" in text
    assert "already late" not in text.lower()


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text, self.links = set(), [], []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [v for k, v in attrs if k in ("href", "src") or k.startswith("on")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_hostile_names_are_text_in_the_mail(evil):
    page = Page()
    page.feed(written(said([evil], tables={**found([evil]).tables, "health": HEALTH}), "html"))
    known = [
        "html",
        "head",
        "meta",
        "title",
        "body",
        "table",
        "tr",
        "td",
        "p",
        "h1",
        "h2",
        "span",
        "strong",
        "br",
        "div",
        "a",
    ]
    assert page.tags <= set(known)
    assert page.links == ["https://intranet.example/risks/2026-06-01.html"]
    visible = " ".join("".join(c if c.isprintable() else " " for c in evil).split())
    assert visible in " ".join("".join(page.text).split())
    assert "\u202e" not in "".join(page.text)


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_hostile_names_make_no_markdown(evil):
    lines = written(said([evil]), "md").splitlines()
    plain = re.compile(r"(?<!\\)(?:\\\\)*[<>`\[\]|]|(?<!\\)://|www\.")
    named = [line.replace("\\www", "") for line in lines if "intranet.example" not in line]
    assert [line for line in named if plain.search(line)] == []
    assert [line for line in lines if line.startswith("#")] == [lines[0], "## First things first: 1 of 1 risks"]
    assert [line for line in lines if re.match(r"\s+- ([-+]|\d+[.)])", line)] == []


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_messages_hold_names_where_nothing_is_read_into_them(evil):
    message = slack(said([evil]))
    assert {block["type"] for block in message["blocks"]} == {"header", "rich_text"}
    elements = [e for b in message["blocks"][1:] for part in b["elements"] for e in part["elements"]]
    flat = [e for part in elements for e in part.get("elements", [part])]
    assert {e["type"] for e in flat} == {"text", "link"}
    assert [e["url"] for e in flat if e["type"] == "link"] == ["https://intranet.example/risks/2026-06-01.html"]
    assert evil[:3] not in message["text"]
    (attached,) = teams(said([evil]))["attachments"]
    card = attached["content"]
    blocks = [b for item in card["body"] for b in item.get("items", [item])]
    assert {b["type"] for b in blocks} == {"RichTextBlock"}
    assert {run["type"] for b in blocks for run in b["inlines"]} == {"TextRun"}
    assert [a["url"] for a in card["actions"]] == ["https://intranet.example/risks/2026-06-01.html"]


def test_messages_keep_to_the_limits_of_their_receivers():
    long = said(["x" * 50_000 + str(i) for i in range(30)], tables={**found(["é" * 9_000] * 30).tables})
    message = slack(replace(long, currency="EUR"))
    assert len(message["blocks"]) <= 50
    assert len(message["blocks"][0]["text"]["text"]) <= HEADER
    assert len(message["text"]) <= 3_000
    assert max(map(len, every_text(message))) <= 3_000
    card = teams(long)
    assert len(json.dumps(card).encode()) <= 20_000
    assert card["type"] == "message"
    assert card["attachments"][0]["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert card["attachments"][0]["content"]["version"] == "1.4"
    left = 30 - sum("items" in part for part in card["attachments"][0]["content"]["body"])
    assert f"{left} more on the board" in json.dumps(card)


def test_the_mail_has_a_plain_and_an_html_part_and_a_subject_without_names():
    message = mail(said(EVIL), "b@x.example", ("c@x.example", "d@x.example"), "x.example")
    back = message_from_bytes(bytes(message), policy=policy.default)
    assert (
        back["Subject"]
        == headline(said())
        == "Risks of 2026-06-01 (revision 2): EUR 1,000,301.30 at risk, still preventable"
    )
    assert (back["To"], back["From"]) == ("c@x.example, d@x.example", "b@x.example")
    assert back["Message-ID"] == "<2026-06-01.r2.x.example>"
    assert [part.get_content_type() for part in back.iter_parts()] == ["text/plain", "text/html"]
    assert EVIL[0] in back.get_body(("plain",)).get_content()
    assert "EUR 1,000,301.30" in back.get_body(("html",)).get_content()


def test_the_board_is_linked_by_address_or_by_file(tmp_path):
    assert board(Settings(workspace=tmp_path), date(2026, 6, 1)) == str(tmp_path / "board" / "2026-06-01.html")
    d = replace(said(), board="/srv/board/2026-06-01.html")
    assert "actions" not in teams(d)["attachments"][0]["content"]
    assert "/srv/board/2026-06-01.html" in written(d, "slack")
    assert "href" not in written(d, "html")
