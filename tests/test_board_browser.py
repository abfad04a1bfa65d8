"""The board as people use it: in Chromium, from a file, wide, narrow, dark, on paper and without JavaScript."""

import csv
import io
import os
import re
from pathlib import Path

import pandas as pd
import pytest

from models.risk import totals
from pipelines.board.page import page as make_page
from pipelines.board.rows import board_rows

CHROMIUM = Path("/usr/bin/chromium")
ARGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
DESK, PHONE = {"width": 1440, "height": 1000}, {"width": 390, "height": 844}
HOSTILE = "<script>alert(1)</script>"
READY_SECONDS = 0.6

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists() and os.environ.get("CI") != "true", reason=f"{CHROMIUM} is not installed"
)


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Open a page as a new visitor; what its console says, and every dialog, fails the test at its end."""
    contexts, said = [], []

    def go(path, address="", **how):
        context = chromium.new_context(**({"viewport": DESK} | how))
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.goto(f"{path.as_uri()}{address}")
        return tab

    yield go
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("board")


@pytest.fixture(scope="module")
def week(board_week):
    long_name = "Vereinigte Feinmechanische Werkstätten Oberschwaben-Niederlausitz GmbH"
    return board_week(weeks=5, lines=150, series=60, suppliers={"S-001": long_name, "S-002": "Acme"})


@pytest.fixture(scope="module")
def board(week, folder):
    path = folder / "board.html"
    path.write_text(make_page(week))
    return path


def first_cells(tab, count=25):
    rows = tab.locator("#body tr").all()[:count]
    return [[" ".join(cell.split()) for cell in row.locator("td").all_inner_texts()] for row in rows]


def no_sideways_scroll(tab):
    return tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_the_script_says_of_a_row_what_the_html_says_without_it(board, visit):
    without = visit(board, java_script_enabled=False)
    bare = first_cells(without)
    assert len(bare) == 25
    assert bare == first_cells(visit(board))
    assert without.locator("#q").is_hidden()
    assert "details need JavaScript" in without.locator("noscript").inner_text()


def test_fifty_rows_then_more(board, week, visit):
    tab = visit(board)
    count = len(board_rows(week))
    assert tab.locator("#body tr").count() == 50
    tab.click("#more")
    assert tab.locator("#body tr").count() == 100
    assert tab.inner_text("#shown") == f"100 of {count} rows"


def test_what_is_counted_equals_the_tables_to_the_cent(board, week, visit):
    tab = visit(board)
    assert int(tab.get_attribute("#count", "data-cents")) == round(100 * sum(totals(week.tables).values()))
    tab.select_option("#kind", "late")
    late = totals(week.tables)["late_deliveries"]
    assert int(tab.get_attribute("#count", "data-cents")) == round(100 * late)


def test_filters_are_in_the_address_and_the_address_is_a_view(board, week, visit):
    tab = visit(board)
    tab.select_option("#kind", "surge")
    tab.select_option("#level", "low")
    tab.fill("#q", "p-00")
    tab.get_by_role("button", name="Manufacturing").click()
    rows = board_rows(week)
    fit = rows[(rows["kind"] == "surge") & (rows["level"] == "low") & (rows["owner"] == "manufacturing")]
    assert tab.inner_text("#shown") == f"{len(fit)} of {len(fit)} row{'' if len(fit) == 1 else 's'}"
    shared = tab.url.partition("#")[2]
    assert "kind=surge" in shared
    assert "owner=manufacturing" in shared
    other = visit(board, f"#{shared}")
    assert other.input_value("#q") == "p-00"
    assert first_cells(other) == first_cells(tab)
    other.click("#clear")
    assert other.url.partition("#")[2] == ""
    assert other.locator("#body tr").count() == 50


def test_headers_are_buttons_that_sort_and_say_so(board, visit):
    tab = visit(board)
    head = tab.locator("th", has_text="Probability")
    assert tab.locator("th[aria-sort=descending]").inner_text() == "Value at risk"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    shown = [int(re.match(r"\d+", cells[1]).group()) for cells in first_cells(tab)]
    assert shown == sorted(shown, reverse=True)
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert tab.locator("th[aria-sort=descending]").count() == 0
    assert "sort=p" in tab.url


def test_the_panel_opens_by_keyboard_tells_where_numbers_come_from_and_gives_the_focus_back(board, week, visit):
    tab = visit(board)
    row = board_rows(week).query("kind == 'late'").iloc[0]
    tab.select_option("#kind", "late")
    opener = tab.locator("#body tr button").first
    opener.focus()
    tab.keyboard.press("Enter")
    panel = tab.locator("#panel")
    assert panel.is_visible()
    told = panel.inner_text()
    command = f"bullwhip explain '{row['row_id']}'"
    for words in (row["row_id"], "publication 2026-06-01.r1", command, "On time, last 13 weeks"):
        assert words in told
    assert panel.locator("tr[aria-current=true]").count() == 1
    assert f"row={row['row_id']}" in tab.url
    tab.keyboard.press("Escape")
    assert panel.is_hidden()
    assert opener.evaluate("button => button === document.activeElement")
    assert "row=" not in tab.url


def test_a_panel_adds_up_its_supplier(board, week, visit):
    supplier = week.table("supplier_risk").query("entity_kind == 'supplier'").iloc[0]
    rows = board_rows(week)
    mine = rows[rows["supplier_id"] == supplier["entity_id"]]
    tab = visit(board, f"#row={mine['row_id'].iloc[0]}")
    assert int(mine["value"].sum()) == round(100 * supplier["value_at_risk"])
    facts = tab.locator("#panel .facts b").all_inner_texts()
    assert facts[1] == f"{(mine['level'] == 'high').sum()} of {len(mine)}"
    assert tab.locator("#panel .risk tbody tr").count() == len(mine)
    assert tab.locator("#panel .trend").is_visible()


def test_a_link_opens_the_panel_of_a_demand_window(board, week, visit):
    row = board_rows(week).query("kind == 'drop'").iloc[0]
    tab = visit(board, f"#row={row['row_id'].replace('|', '%7C')}")
    assert tab.inner_text("#panel-title") == f"{row['product']}, {row['site']}"
    assert "Units likely per window" in tab.inner_text("#panel")
    tab.get_by_role("button", name="Close").click()
    assert tab.locator("#panel").is_hidden()
    assert visit(board, "#row=nothing").locator("#panel").is_hidden()


def test_the_panel_of_a_series_that_has_moved_far_says_so(board, week, visit):
    rows = board_rows(week).query("kind == 'drop'")
    far, near = rows[rows["moved"].notna()].iloc[0], rows[rows["moved"].isna()].iloc[0]
    said = {id: visit(board, f"#row={id.replace('|', '%7C')}").inner_text("#panel") for id in (far.row_id, near.row_id)}
    assert "30% below the year before" in said[far.row_id]
    assert "the year before" not in said[near.row_id]


def test_csv_holds_the_rows_that_are_shown(board, week, visit):
    tab = visit(board, "#kind=late")
    with tab.expect_download() as got:
        tab.click("#csv")
    assert got.value.suggested_filename == "risks-2026-06-01.csv"
    saved = pd.read_csv(got.value.path(), encoding="utf-8-sig")
    rows = board_rows(week).query("kind == 'late'").reset_index(drop=True)
    assert saved["row_id"].tolist() == rows["row_id"].tolist()
    assert (100 * saved["value_at_risk"]).round().astype(int).tolist() == rows["value"].tolist()
    assert (10_000 * saved["probability"]).round().astype(int).tolist() == rows["p"].tolist()
    promised = week.table("supplier_delay_risk").set_index("row_id")["promised_on"]
    assert saved["from"].tolist() == promised[saved["row_id"]].dt.strftime("%Y-%m-%d").tolist()
    assert saved["owner"].fillna("").tolist() == rows["owner"].fillna("").tolist()


def test_hostile_names_are_text_in_every_place(board_week, folder, visit):
    names = {f"P-{k:04d}": f'{mark}HYPERLINK("http://x")' for k, mark in enumerate(["=", "+", "-", "@", "\t=", "\r="])}
    week = board_week(lines=40, series=6, suppliers={f"S-{k:03d}": HOSTILE for k in range(8)}, names=names)
    path = folder / "hostile.html"
    path.write_text(make_page(week), newline="")
    for how in ({}, {"java_script_enabled": False}):
        assert HOSTILE in visit(path, "#kind=late", **how).inner_text("#body")
    tab = visit(path, "#kind=late")
    assert tab.locator("script").count() == 2
    tab.locator("#body tr button").first.click()
    assert tab.inner_text("#panel-title") == HOSTILE
    with tab.expect_download() as got:
        tab.evaluate("document.getElementById('csv').click()")
    lines = csv.DictReader(io.StringIO(Path(got.value.path()).read_bytes().decode("utf-8-sig"), newline=""))
    products = {line["product"] for line in lines}
    assert any("HYPERLINK" in name for name in products)
    assert not [name for name in products if name[:1] in tuple("=+-@\t\r")]


def test_a_narrow_screen_does_not_scroll_sideways(board, visit):
    tab = visit(board, viewport=PHONE)
    assert no_sideways_scroll(tab)
    tab.locator("#body tr button").first.click()
    assert no_sideways_scroll(tab)
    assert tab.locator("#panel").evaluate("panel => panel.scrollWidth <= panel.clientWidth")


def test_paper_shows_what_the_screen_shows_without_its_tools(board, visit):
    tab = visit(board, "#level=high")
    paper = tab.pdf(prefer_css_page_size=True)
    assert paper.startswith(b"%PDF")
    width, height = (float(x) for x in re.search(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", paper).groups())
    assert (round(width), round(height)) == (842, 595), "A4 landscape"
    tab.emulate_media(media="print")
    assert tab.locator("#q").is_hidden()
    assert tab.locator("aside").is_hidden()
    assert "Medium" not in tab.inner_text("#body")
    assert "◆ High" in tab.inner_text("#pf")


@pytest.mark.parametrize("state", ["desktop", "dialog", "phone", "dark", "dark dialog"])
def test_axe_finds_nothing(board, visit, state):
    from axe_playwright_python.sync_playwright import Axe

    tab = visit(
        board, viewport=PHONE if state == "phone" else DESK, color_scheme="dark" if "dark" in state else "light",
        bypass_csp=True,
    )  # fmt: skip
    if "dialog" in state:
        tab.locator("#body tr button").nth(1).click()
    found = Axe().run(tab).response["violations"]
    assert [(v["id"], [n["html"][:160] for n in v["nodes"][:3]]) for v in found] == []


@pytest.mark.parametrize("drawn", [{"lines": 0}, {"series": 0}, {"weeks": 1}, {"series": 0, "cost": False}], ids=str)
def test_a_board_of_less_works_too(board_week, folder, visit, drawn):
    path = folder / "less.html"
    path.write_text(make_page(board_week(**drawn)))
    tab = visit(path)
    tab.locator("#body tr button").first.click()
    assert tab.locator("#panel").is_visible()


def test_an_empty_board_says_so(board_week, folder, visit):
    from dataclasses import replace

    path = folder / "empty.html"
    path.write_text(make_page(replace(board_week(weeks=1, lines=20, series=4), tables={})))
    assert "No published risk carries a value" in visit(path).inner_text("#body")


def test_twenty_thousand_rows_are_ready_in_time(large_week, folder, visit):
    """The best of some loads by the clock; where others use the processors, by the seconds the page itself has used."""
    path = folder / "large.html"
    path.write_text(make_page(large_week))
    clock, used = [], []
    while len(clock) < 5 and min(clock, default=9) > READY_SECONDS:
        tab = visit(path)
        metrics = tab.context.new_cdp_session(tab)
        metrics.send("Performance.enable", {"timeDomain": "threadTicks"})
        tab.reload()
        clock.append(tab.evaluate("performance.getEntriesByName('board-ready')[0].startTime") / 1000)
        used.append({m["name"]: m["value"] for m in metrics.send("Performance.getMetrics")["metrics"]}["TaskDuration"])
    busy = os.getloadavg()[0] > os.cpu_count()
    assert min(used if busy else clock) <= READY_SECONDS, (clock, used, os.getloadavg())
    took = min(
        tab.evaluate("""() => ["high", "low", "medium"].map((level) => {
        const began = performance.now();
        document.getElementById("level").value = level;
        document.getElementById("level").dispatchEvent(new Event("change"));
        return performance.now() - began;
    })""")
    )
    assert took < 100 or busy, f"a filter took {took} ms"
