"""The board as a text: numbers add up to the published tables, words are plain, and no name can do harm."""

import base64
import hashlib
import json
import re
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models.risk import totals
from pipelines import board, publish
from pipelines.board import rows as made_rows
from pipelines.board import story, wording
from pipelines.board.changes import changes, movers, split
from pipelines.board.page import page
from pipelines.board.payload import MARKS, safe_json
from pipelines.board.record import track_records, wilson
from pipelines.board.rows import board_rows, carried
from pipelines.board.trends import points, row_history, supplier_history
from pipelines.board.trust import trust
from pipelines.settings import Settings, UserError

HOSTILE = "<script>alert(1)</script>"
PART = ("new", "closed", "model", "time", "promise", "data", "signals")


def data_of(html):
    """Return what the page hands to its script."""
    return json.loads(html.split('id="data">')[1].split("</script>")[0])


def values_of(data):
    """Return value at risk per row in cents, as the script puts it together."""
    drops = [drop for drop in data["columns"].get("value", []) if drop is not None]
    return list(-np.cumsum(drops))


class Seen(HTMLParser):
    """The elements and attributes a browser would make, and the text a person would read."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text, self.inside = [], [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.inside = tag

    def handle_data(self, text):
        if self.inside not in ("script", "style"):
            self.text.append(text)


@pytest.fixture(scope="module")
def week(board_week):
    return board_week(weeks=4)


@pytest.fixture(scope="module")
def html(week):
    return page(week)


@pytest.mark.parametrize(
    ("cents", "said"),
    [
        (0, "€0"), (49, "€0"), (94_000, "€940"), (99_949, "€999"), (99_950, "€1.0k"), (990_000, "€9.9k"),
        (999_499, "€10k"), (13_600_000, "€136k"), (99_950_000, "€1.00M"), (730_000_000, "€7.30M"),
        (1_234_500_000, "€12.3M"), (12_345_000_000, "€123M"), (123_000_000_000, "€1.23bn"), (-5_900_000, "−€59k"),
    ],
)  # fmt: skip
def test_money_has_about_three_figures(cents, said):
    assert wording.money(cents, "€") == said


@pytest.mark.parametrize(("currency", "said"), [("EUR", "€136k"), ("USD", "$136k"), ("CHF", "CHF\xa0136k")])
def test_the_currency_is_a_sign_or_a_code(currency, said):
    assert wording.money(13_600_000, wording.symbol(currency)) == said


@pytest.mark.parametrize(
    ("p", "said"), [(0, "0%"), (1, "<1%"), (50, "1%"), (3450, "35%"), (9950, "100%"), (9951, ">99%"), (10_000, "100%")]
)
def test_a_probability_is_in_percent_and_never_quite_sure(p, said):
    assert wording.share(p) == said


@pytest.mark.parametrize(
    ("days", "said"),
    [
        ((8, 13, 19), ("13 days late", "likely 8 to 19")), ((0, 1, 3), ("1 day late", "likely 0 to 3")),
        ((-17, 7, 44), ("7 days late", "likely 17 early to 44 late")),
        ((-9, -3, -1), ("3 days early", "likely 9 early to 1 early")),
        ((-9, -3, 0), ("3 days early", "likely 9 early to on time")), ((0, 0, 0), ("on time", "likely 0")),
        ((5, 70, 90), ("over 60 days late", "likely 5 to over 60")),
        ((349, 900, 1003), ("over 60 days late", "likely months late")),
        ((4, None, None), ("Date open", "too far ahead to tell")),
        ((2, 4, None), ("4 days late", "")),
    ],
)  # fmt: skip
def test_how_late_is_said_in_days(days, said):
    assert wording.delay_impact(*days) == said


@pytest.mark.parametrize(
    ("share", "n", "interval"),
    [(0.5, 10, (0.2366, 0.7634)), (0.0, 10, (0.0, 0.2775)), (1.0, 10, (0.7225, 1.0)), (0.74, 214, (0.6773, 0.7944))],
)
def test_the_interval_of_a_share_is_wilsons(share, n, interval):
    assert wilson(share, n) == pytest.approx(interval, abs=5e-4)


def test_a_curve_fills_its_box_and_leaves_out_weeks_without_a_value():
    assert points([None, 0, 50, None, 100], 40, 20) == "10.0,20.0 20.0,10.0 40.0,0.0"
    assert points([None, 3], 40, 20) == ""
    assert points([10, 12], 40, 20, least_span=10) == "0.0,12.0 40.0,8.0", "little noise is drawn small, in the middle"


def test_rows_are_every_risk_of_some_value_largest_first(week):
    rows = board_rows(week)
    delays, shifts = (week.table(name) for name in ("supplier_delay_risk", "demand_shift_risk"))
    assert len(rows) == (delays["value_at_risk"] > 0).sum() + (shifts["value_at_risk"] > 0).sum()
    past = rows["kind"] == "overdue"
    assert past.any()
    assert past.is_monotonic_increasing, "what can still be prevented comes first"
    assert all(part["value"].is_monotonic_decreasing for _, part in rows.groupby(past))
    assert set(rows["kind"]) == {"late", "overdue", "surge", "drop"}
    up = shifts.set_index("row_id").eval("p_up >= p_down")
    assert ((rows["kind"] == "surge") == rows["row_id"].map(up).fillna(False).astype(bool)).all()
    assert rows["owner"].notna().sum() == len(week.table("watchlist"))


@pytest.mark.parametrize("drawn", [{}, {"lines": 0}, {"series": 0}, {"weeks": 1}], ids=str)
def test_money_on_the_board_equals_the_tables_to_the_cent(board_week, drawn):
    week = board_week(**drawn)
    html = page(week)
    sums = totals(week.tables)
    assert sum(values_of(data_of(html))) == round(100 * sum(sums.values()))
    for amount in sums.values():
        assert f"€{amount:,.2f}" in html
    if len(sums) == 3:
        assert f"€{sums['late_deliveries'] + sums['demand_shifts']:,.2f}" in html


def test_the_script_can_put_every_row_together_again(week, html):
    data, rows = data_of(html), board_rows(week)
    columns, things = data["columns"], data["things"]
    assert values_of(data) == rows["value"].tolist()
    for name in ("p", "p_before", "of", "when", "low", "mid", "high", "usual", "evidence_n"):
        assert columns[name] == [None if pd.isna(v) else v for v in rows[name].tolist()]
    far = rows["moved"].dropna()
    assert data["moved"] == {str(k): v for k, v in far.items()} != {}
    for name in ("product", "site"):
        places = [MARKS.index(c) for c in columns[name]] if isinstance(columns[name], str) else columns[name]
        assert [things[name][k][0] for k in places] == rows[f"{name}_id"].tolist()
    windows = [MARKS.index(c) - 1 for c in columns["window"]]
    ids = rows["product_id"] + "|" + rows["site_id"] + "|w" + pd.Series(windows).astype(str)
    assert [i or ids[k] for k, i in enumerate(columns["row_id"])] == rows["row_id"].tolist()
    reasons = [data["texts"][k] if k >= 0 else "" for k in columns["driver_1"]]
    assert reasons == rows["driver_1"][: len(reasons)].tolist()
    assert not any(rows["driver_1"][len(reasons) :])


def test_a_page_of_very_many_rows_carries_the_largest_of_each_kind_and_says_so(week, html, monkeypatch):
    monkeypatch.setattr(made_rows, "MOST", 60)
    every = board_rows(week)
    rows, cut = carried(every), page(week)
    assert len(rows) == 60 < len(every)
    assert rows["row_id"].tolist() == [i for i in every["row_id"] if i in set(rows["row_id"])], "in the same order"
    assert set(every.loc[every["owner"].notna(), "row_id"]) <= set(rows["row_id"])
    for kind, mine in rows[rows["owner"].isna()].groupby("kind"):
        others = every[(every["kind"] == kind) & every["owner"].isna()]
        assert mine["row_id"].tolist() == others["row_id"].head(len(mine)).tolist()
    assert values_of(data_of(cut)) == rows["value"].tolist()
    held, whole = (wording.money(int(part["value"].sum()), "€") for part in (rows, every))
    said, before = (" ".join(" ".join(Seen(text).text).split()) for text in (cut, html))
    assert f"This page carries 60 of {len(every)} risks, {held} of {whole}" in said
    assert "This page carries" not in before
    headline = said.split("Search")[0]
    assert headline == before.split("Search")[0], "what stands above is about all rows"


def test_a_row_is_followed_through_the_weeks_in_its_direction(week):
    rows = board_rows(week)
    history = row_history(week, rows)
    last = week.last["demand_shift_risk"].set_index("row_id")
    for kind, column in (("surge", "p_up"), ("drop", "p_down")):
        mine = rows[rows["kind"] == kind]
        p = np.floor(100 * last[column].reindex(mine["row_id"]).to_numpy() + 0.5)
        assert (history[mine.index, -2] == p).all()
    assert (history[:, :8] == -1).all(), "weeks that were not published"
    curves = data_of(page(week))["columns"]["history"]
    assert [" " if p < 0 else MARKS[p] for p in history.ravel()] == list(curves)


def test_a_shift_names_who_spoke_of_its_direction(board_week):
    shifts = board_week().table("demand_shift_risk").assign(published_by="surges: model, drops: seasonal_naive")
    rows = board_rows(board_week(tables={"demand_shift_risk": shifts})).query("window >= 0")
    spoke = {"surge": "model", "drop": "the same weeks of last year"}
    assert set(rows["kind"]) == set(spoke)
    assert (rows["published_by"] == rows["kind"].map(spoke)).all()


def test_a_supplier_is_followed_in_cents(week):
    now = week.table("supplier_risk").query("entity_kind == 'supplier'").set_index("entity_id")["value_at_risk"]
    told = supplier_history(week)
    assert {k: v[-1] for k, v in told.items()} == {k: round(100 * v) for k, v in now.items()}
    assert all(v[:8] == [None] * 8 and None not in v[8:] for v in told.values())


# What is missing ----------------------------------------------------------------------------------------------------


def test_the_first_week_says_nothing_of_a_change(board_week):
    html = page(board_week(weeks=1))
    told = " ".join(Seen(html).text)
    assert "last week" not in told
    assert "Moved most" not in told


def test_without_money_the_board_counts_deliveries(board_week):
    week = board_week(series=0, cost=False)
    told = " ".join(" ".join(Seen(page(week)).text).split())
    due = week.table("supplier_delay_risk").query("state == 'due_future'")
    assert f"{round(due['p_late'].sum())} late deliveries are expected" in told
    assert "no cost known" in told
    assert "€" not in told
    rows = board_rows(week)
    assert len(rows) == len(week.table("supplier_delay_risk"))
    assert all(part["stake"].is_monotonic_decreasing for _, part in rows.groupby(rows["kind"] == "overdue"))


def test_a_row_off_the_list_is_not_said_to_need_nothing():
    """Its series may be on the list with other weeks, whatever the chance of these."""
    assert made_rows.step_of({"owner": None, "kind": "drop"}) == ("Watch", "Not on this week's list")


def test_an_empty_week_is_good_news(board_week):
    week = board_week(weeks=1)
    empty = {name: table.head(0) for name, table in week.tables.items()}
    told = " ".join(Seen(page(replace(week, tables=empty))).text)
    assert "Nothing" in told
    assert "No open delivery and no demand window" in told
    assert "Nothing" in " ".join(Seen(page(replace(week, tables={}))).text)


def test_a_line_without_a_promise_is_counted_not_ranked(board_week):
    week = board_week(series=0)
    delays = week.table("supplier_delay_risk").copy()
    lost = delays.index[:3]
    delays.loc[lost, "state"] = "no_promise"
    delays.loc[lost, ["p_late", "value_at_risk"]] = np.nan
    week = replace(week, tables={**week.tables, "supplier_delay_risk": delays})
    assert not set(delays.loc[lost, "row_id"]) & set(board_rows(week)["row_id"])
    assert "3 open lines without a promised day" in page(week)


# The change, trust, the record ----------------------------------------------------------------------------------------


def told_change(week):
    """A table weekly_change in which the first row moved for two reasons and another one closed."""
    first = week.table("supplier_delay_risk").iloc[0]
    rows = [(first["row_id"], "stays", 100.0, 160.25, {"time": 50.0, "promise": 10.25}, "promise_moved by 5 days"),
            ("PO-gone", "closed", 900.0, 0.0, {"closed": -900.0}, "received 28 May")]  # fmt: skip
    return pd.DataFrame(
        [
            {"row_id": name, "risk": "supplier_delay_risk", "status": status, "value_last_week": then,
             "value_this_week": now, "change": now - then, "reason": reason,
             **{f"part_{part}": parts.get(part, 0.0) for part in PART}}
            for name, status, then, now, parts, reason in rows
        ]
    )  # fmt: skip


def test_a_published_change_is_told_in_parts_that_sum(board_week):
    week = board_week()
    week = replace(week, tables={**week.tables, "weekly_change": told_change(week)})
    assert [(p["words"], p["amount"]) for p in split(week, "€")] == [
        ("Closed", "−€900"), ("Time passed", "+€50"), ("Promises moved", "+€10"),
        ("Together, with what is late already", "−€840"),
    ]  # fmt: skip
    moved = movers(week, changes(week), "€", set(board_rows(week)["row_id"]))
    assert [(m["row_id"], m["amount"], m["open"]) for m in moved] == [
        ("PO-gone", "−€900", False), (week.table("supplier_delay_risk")["row_id"].iloc[0], "+€60", True)
    ]  # fmt: skip
    html = page(week)
    assert "received 28 May" in html
    assert list(data_of(html)["reasons"].values()) == ["promise moved by 5 days"]


def test_without_a_published_change_the_board_compares_two_weeks(week):
    changed = changes(week)
    now, then = (sum(100 * t[name]["value_at_risk"].sum() for name in ("supplier_delay_risk", "demand_shift_risk"))
                 for t in (week.tables, week.last))  # fmt: skip
    assert changed["change"].sum() == pytest.approx(now - then, abs=0.5)
    assert split(week, "€") == []
    assert len(movers(week, changed, "€", set())) == 6


@pytest.mark.parametrize(
    ("verdicts", "state", "said"),
    [
        (["ok", "ok"], "ok", "Data to Sun 31 May 2026, 23:40 UTC, all 2 checks passed"),
        (["ok", "watch"], "watch", "1 of 2 checks not passed"),
        (["act", "watch"], "act", "2 of 2 checks not passed"),
    ],
)
def test_the_board_says_whether_to_trust_it(board_week, verdicts, state, said):
    known = pd.Timestamp("2026-05-31 23:40")
    health = pd.DataFrame({
        "row_id": ["input|orders", "model|delay"], "area": ["input", "model"], "subject": ["orders", "delay_model"],
        "verdict": verdicts, "reason": ["orders are 9 days old", "slope is off"], "last_known_at": [known, pd.NaT],
    })  # fmt: skip
    week = board_week(weeks=1, lines=20, series=5, tables={"health": health})
    found = trust(week)
    assert found["state"] == state
    assert said in found["fresh"]
    html = page(week)
    assert ("Do not act on these numbers" in html) == (state == "act")
    assert ("Orders are 9 days old" in html) == (verdicts[0] != "ok")


def test_without_health_the_board_says_what_the_ledger_knows(week):
    assert trust(week)["fresh"] == "Published Mon 1 June 2026, 06:12 UTC"
    known = {**week.publication, "data_time": pd.Timestamp("2026-05-31 23:40")}
    assert trust(replace(week, publication=known))["fresh"] == "Data to Sun 31 May 2026, 23:40 UTC"


def record_of(source, came=0.74):
    shown = {"hits": 120, "misses": 80, "false_alarms": 40, "value_hit": 6e6, "value_missed": 2e6}
    if source == "walk_forward":
        shown = dict.fromkeys(shown)
    common = {"task": "delay", "event": "late", "source": source, "rule": "supplier_52w", "skill_over_rule": 0.142,
              "first_day": pd.Timestamp("2026-03-02"), "last_day": pd.Timestamp("2026-05-18"), **shown}  # fmt: skip
    bins = [("0.7", 0.7, 0.8, 214, 0.75, came), ("0.9", 0.9, 1.0, 4, 0.94, 1.0), ("all", 0.0, 1.0, 218, 0.76, 0.745)]
    return [{**common, "row_id": f"delay|late|{source}|{b}", "bin": b, "p_from": low, "p_to": high, "scored": n,
             "expected_share": p, "came_true_share": share} for b, low, high, n, p, share in bins]  # fmt: skip


def test_the_track_record_prefers_what_was_published():
    (told,) = track_records(pd.DataFrame(record_of("published") + record_of("walk_forward", came=0.1)), "€")
    assert not told["replayed"]
    assert [(b["said"], b["rows"], b["came_true"], b["between"]) for b in told["bins"]] == [
        ("70 to 80%", "214", "74%", "68–79%"), ("90 to 100%", "4", "100%", "51–100%")
    ]  # fmt: skip
    assert told["example"]["said"] == "70 to 80%", "four rows are too few for a sentence"
    rule = "the supplier's rate in a year"
    assert told["skill"] == f"Its error was 14% smaller than that of the best simple rule, {rule}."
    assert told["caught"] == (
        "The weekly list named 120 of 200 that came late, €6.00M of €8.00M; of its 160 warnings 40 did not come true."
    )


def test_a_record_of_replayed_weeks_is_told_as_such(board_week):
    week = board_week(weeks=1, lines=20, series=5, tables={"track_record": pd.DataFrame(record_of("walk_forward"))})
    told = " ".join(" ".join(Seen(page(week)).text).split())
    assert "Nothing published has come due yet" in told
    assert "The weekly list named" not in told


def test_the_headline_tells_the_change(week):
    said = story.headline(week, board_rows(week), "€")
    now, last = (totals(t)["late_deliveries"] + totals(t)["demand_shifts"] for t in (week.tables, week.last))
    change = wording.money(round(100 * abs(now - last)), "€")
    assert said["number"] == wording.money(round(100 * now), "€")
    assert said["rest"] == f"is at risk and preventable, {change} {'more' if now > last else 'less'} than last week"
    older = {name: table.assign(as_of=pd.Timestamp("2026-05-11")) for name, table in week.before.items()}
    assert story.last_week(replace(week, before=older)) == "11 May"


# Safe, whatever the names ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(board_week):
    names = {f"P-{k:04d}": f'=cmd|"/c calc"!A{k}\u2028' for k in range(40)}
    return board_week(suppliers={f"S-{k:03d}": HOSTILE for k in range(8)}, names=names)


def test_a_hostile_name_is_text(hostile):
    html = page(hostile)
    assert HOSTILE not in html
    assert "\u2028" not in html.split('id="data">')[1]
    seen = Seen(html)
    assert seen.tags.count("script") == 2
    assert HOSTILE in "".join(seen.text)
    assert HOSTILE in {name for _, name in data_of(html)["things"]["supplier"]}


@given(st.text())
@hypothesis_settings(max_examples=60, deadline=None)
def test_json_in_the_page_is_the_same_text_again_and_ends_nothing(text):
    told = safe_json({"name": text})
    assert json.loads(told) == {"name": text}
    assert not set(told) & set("<>&\u2028\u2029")


def test_nothing_runs_but_our_script_and_nothing_loads(html):
    seen = Seen(html)
    policy = next(value for name, value in seen.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag, rule in (("script>", "script-src"), ("style>", "style-src")):
        text = re.findall(rf"<{tag}(.*?)</{tag}", html, re.DOTALL)[-1]
        made = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{rule} 'sha256-{made}'" in policy
    names = {name for name, _ in seen.attributes}
    assert not [n for n in names if n.startswith("on") or n in ("style", "src")]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", html)


def test_the_same_tables_give_the_same_page(week, html):
    assert page(week) == html


# Files and the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path):
    return Settings(workspace=tmp_path)


def put_out(settings, tables, day):
    return publish.publish(
        settings.workspace, tables, as_of=day, model_versions={"delay": "3"}, data_fingerprint="f", code_version="c",
        published_at=datetime(2026, 6, 1, 6, tzinfo=UTC),
    )  # fmt: skip


def test_index_is_the_latest_week_and_an_older_one_does_not_take_over(settings, risk_week):
    monday, before, folder = date(2026, 6, 1), date(2026, 5, 25), settings.workspace / "board"
    put_out(settings, risk_week(monday), monday)
    assert board.write(settings) == folder / "2026-06-01.html"
    first = (folder / "index.html").read_text()
    assert first == (folder / "2026-06-01.html").read_text()
    put_out(settings, risk_week(before, draw=2), before)
    board.write(settings, before)
    assert "Week of Mon 25 May 2026" in (folder / "2026-05-25.html").read_text()
    assert "Week of Mon 1 June 2026" in (folder / "index.html").read_text()
    assert "last week" not in first
    assert "than last week" in (folder / "index.html").read_text(), "the older week is now the one before"
    assert sorted(p.name for p in folder.iterdir()) == ["2026-05-25.html", "2026-06-01.html", "index.html"]


def test_a_missing_page_is_made_again_and_a_right_one_is_left(settings, risk_week):
    monday = date(2026, 6, 1)
    put_out(settings, risk_week(monday, lines=20, series=4), monday)
    path = board.write(settings)
    made = path.stat().st_mtime_ns, path.stat().st_ino
    (path.parent / "index.html").unlink()
    assert board.write(settings) == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == made
    assert (path.parent / "index.html").read_bytes() == path.read_bytes()


def test_a_revision_is_what_the_page_shows(settings, risk_week):
    monday = date(2026, 6, 1)
    put_out(settings, risk_week(monday, lines=20, series=4), monday)
    put_out(settings, risk_week(monday, lines=20, series=4, draw=5), monday)
    assert "2026-06-01.r2" in board.write(settings).read_text()


def test_a_week_that_was_never_published_is_refused(settings, risk_week):
    put_out(settings, risk_week(date(2026, 6, 1), lines=9, series=3), date(2026, 6, 1))
    with pytest.raises(UserError, match=r"2020-01-06 was never published in .*; there are 2026-06-01"):
        board.write(settings, date(2020, 1, 6))


def test_the_command_says_where_the_page_is(settings, risk_week, capsys):
    from pipelines import cli

    put_out(settings, risk_week(date(2026, 6, 1), lines=9, series=3), date(2026, 6, 1))
    assert cli.run(["board", "--week", "2026-06-01", "--json", "--workspace", str(settings.workspace)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert Path(said["path"]) == settings.workspace / "board" / "2026-06-01.html"
    assert Path(said["current"]).exists()
    assert cli.run(["board", "--week", "2026-05-25", "--json", "--workspace", str(settings.workspace)]) == 2


def test_twenty_thousand_rows_take_a_second(large_week):
    seconds = []
    for _ in range(3):
        began = time.process_time()
        html = page(large_week)
        seconds.append(time.process_time() - began)
    assert data_of(html)["n"] > 20_000
    assert len(html.encode()) < 1_900_000
    assert min(seconds) < 1.0, f"processor seconds, the best of {seconds}"


def test_daily_releases_are_followed_week_by_week(week):
    daily = {name: pd.concat([t.assign(as_of=t["as_of"] + timedelta(days=k)) for k in range(5)])
             for name, t in week.before.items()}  # fmt: skip
    assert (row_history(replace(week, before=daily), board_rows(week))[:, -4:] >= 0).all()
