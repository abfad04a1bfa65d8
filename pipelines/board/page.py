"""Make the page of one week: a function from published tables to one HTML text that needs nothing else."""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from features.ladder import RUNGS
from models.change import RISKS
from pipelines.board import changes, record, story
from pipelines.board.payload import payload
from pipelines.board.reading import Week
from pipelines.board.rows import board_rows, carried, cents, records
from pipelines.board.trends import row_history, supplier_history, week_days
from pipelines.board.trust import trust
from pipelines.board.view import row_view
from pipelines.board.wording import day, long_day, symbol

HERE = Path(__file__).parent
SCRIPTS = ("wording", "data", "cells", "filters", "table", "panel", "csv", "start")
FIRST = 25  # rows that are in the HTML itself
REASONS = 1_000  # rows whose change is told in words, by size of the change


def page(week: Week) -> str:
    """Return the board of a week. The same published tables give the same text."""
    sign, every = symbol(week.currency), board_rows(week)
    rows, changed = carried(every), changes.changes(week)
    history = row_history(week, rows)
    before = story.last_week(week)
    shown = [row_view(row, history[k].tolist(), week.as_of, sign, before) for k, row in enumerate(records(rows, FIRST))]
    css, script = _asset("board.css"), "\n".join(_asset(f"js/{name}.js") for name in SCRIPTS)
    return _template().render(
        m=_meta(week, every, sign), part=story.part(every, rows, sign), rows=shown,
        tiles=story.tiles(week, every, sign), trust=trust(week), records=_charts(week, sign),
        split=changes.split(week, sign), movers=changes.movers(week, changed, sign, set(rows["row_id"])),
        cents=story.to_the_cent(week, sign) if story.has_money(every) else [], csp=_policy(css, script),
        css=Markup(css), js=Markup(script),
        data=Markup(payload(rows, history, _facts(week, rows, changed, sign, before))),
    )  # fmt: skip


def _meta(week: Week, rows: pd.DataFrame, sign: str) -> dict[str, Any]:
    delays = week.table("supplier_delay_risk")
    return {
        "as_of": week.as_of.isoformat(), "week": long_day(week.as_of), "before": story.last_week(week),
        "headline": story.headline(week, rows, sign), "sentences": story.sentences(week, rows, sign),
        "publication": week.publication["publication_id"], "schema": week.publication["schema_version"],
        "model": record.model_words(week.publication["model_versions"]), "rows": len(rows),
        "no_promise": int((delays["state"] == "no_promise").sum()) if len(delays) else 0,
        "tables": [name for name in RISKS if name in week.tables],
    }  # fmt: skip


def _charts(week: Week, sign: str) -> list[dict[str, Any]]:
    told = record.track_records(week.table("track_record"), sign)
    return [{**one, "dots": record.dots(one["bins"])} for one in told]


def _facts(week: Week, rows: pd.DataFrame, changed: pd.DataFrame, sign: str, before: str) -> dict[str, Any]:
    return {
        "as_of": week.as_of.isoformat(), "publication": week.publication["publication_id"], "sign": sign,
        "before": before, "weeks": [day(d, week.as_of) for d in week_days(week)],
        "tables": {"delivery": "supplier_delay_risk", "shift": "demand_shift_risk"}, "suppliers": _suppliers(week),
        "reasons": _reasons(rows, changed),
    }  # fmt: skip


def _suppliers(week: Week) -> dict[str, dict[str, Any]]:
    """Return per supplier its roll-up, on-time ladder (hundredths of a percent) and value at risk of every week."""
    table = week.table("supplier_risk")
    if not len(table):
        return {}
    mine, past = table[table["entity_kind"] == "supplier"], supplier_history(week)
    ladder = (mine[[*RUNGS, "on_time_4w"]].astype(float) * 10_000).round().astype("Int64").astype(object)
    money = mine[["open_value", "overdue_value", "value_at_risk"]].apply(cents).astype(object)
    money, ladder = money.where(money.notna(), None), ladder.where(ladder.notna(), None)
    counts = mine[["open_lines", "overdue_lines", "matured_lines_13w"]].to_dict("records")
    facts = zip(mine["entity_id"], counts, money.to_dict("records"), ladder.to_dict("records"), strict=True)
    return {
        str(name): {**count, **worth, "ladder": list(rungs.values()), "weeks": past.get(str(name), [])}
        for name, count, worth, rungs in facts
    }


def _reasons(rows: pd.DataFrame, changed: pd.DataFrame) -> dict[int, str]:
    """Return why a row moved, by its place, for the rows that moved most."""
    if not len(rows) or not len(changed):
        return {}
    told = changed[(changed["reason"] != "") & (changed["status"] == "stays")]
    most = told.assign(size=told["change"].abs()).nlargest(REASONS, "size")
    place = pd.Series(range(len(rows)), index=pd.MultiIndex.from_frame(rows[["table", "row_id"]]))
    keys = zip(most["table"], most["row_id"], most["reason"], strict=True)
    return {int(place[table, name]): reason for table, name, reason in keys if (table, name) in place.index}


def _policy(css: str, script: str) -> str:
    """Return a policy under which this style and this script run and nothing else does or loads."""
    style, code = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, script))
    allowed = f"style-src 'sha256-{style}'; script-src 'sha256-{code}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


@cache
def _asset(name: str) -> str:
    return "\n" + (HERE / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    made = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return made.get_template("board.html.j2")
