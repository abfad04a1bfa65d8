"""A workbook and CSV files hold what the tables hold: nothing runs, nothing is dropped unsaid."""

import warnings
from datetime import date, datetime
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
from openpyxl.utils.escape import unescape

from pipelines import workbook
from pipelines.exports import FORMULA_STARTS, guarded, write_csv
from pipelines.published import Published

HOSTILE = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "{=1}", "http://evil.example", "mailto:a@b.example", "#N/A", "TRUE",
    "007", "<script>alert(1)</script>", "a\nb", '"quoted", and more', " blanks ", "😀 é ▲", "_x0041_", "\x01",
]  # fmt: skip


def watched(**columns):
    n = len(next(iter(columns.values())))
    rows = {
        "rank": range(1, n + 1), "row_id": [f"R{i}" for i in range(n)],
        "value_at_risk": [100.5 * (n - i) for i in range(n)],
        "driver_1": "late in 6 of 9", "kind": "supplier delay", "what": [f"Acme {i}" for i in range(n)], "p": 0.5,
        "level": "medium", "impact": "late", "owner": ["sales", "procurement"] * (n // 2) + ["sales"] * (n % 2),
        "next_step": "call", "act_by": pd.Timestamp("2026-06-04"), "tier": 1, "change": "",
    }  # fmt: skip
    return pd.DataFrame(rows | columns)


def publication(tables, **changed):
    facts = {
        "publication_id": "2026-06-01.r1", "as_of": date(2026, 6, 1), "revision": 1,
        "published_at": datetime.fromisoformat("2026-06-01 05:00:07"), "model_versions": {"delay": "3"},
        "rows": {name: len(table) for name, table in tables.items()}, "tables": tables, "before": None, "latest": True,
    }  # fmt: skip
    return Published(**facts | changed)


def opened(path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*extension is not supported", category=UserWarning)  # bars
        return openpyxl.load_workbook(path)


def read(sheet):
    """Return a sheet as a list of rows by header; Excel itself undoes the escapes of control characters."""
    head, *rows = sheet.iter_rows(values_only=True)
    return [dict(zip(head, [unescape(v) if isinstance(v, str) else v for v in row], strict=True)) for row in rows]


def expected(table):
    return [
        {c: None if v is None or (not isinstance(v, str) and pd.isna(v)) else v for c, v in row.items()}
        for row in table.astype(object).to_dict("records")
    ]


TYPES = pd.DataFrame(
    {
        "text": ["a", "", None],
        "digits": ["1", "2", "3"],
        "whole": [1, -2, 2**53 - 1],
        "nullable_whole": pd.array([1, None, 3], dtype="Int64"),
        "on_time_4w": [0.123456, float("nan"), 1.0],
        "open_value": [10105099.3, 0.01, 123456789.123456],
        "on": pd.to_datetime(["2026-06-01", None, "1900-03-01"]),
        "at": pd.to_datetime(["2026-06-01 05:00:07", "2026-06-01 00:00:00", "2026-12-31 23:59:59"]),
        "yes": [True, False, True],
        "publication_id": "2026-06-01.r1",
        "as_of": pd.Timestamp("2026-06-01"),
        "schema_version": "1",
    }
)


def test_every_cell_comes_back_with_its_value_and_type(tmp_path):
    workbook.write(tmp_path / "a.xlsx", publication({"supplier_risk": TYPES}), "EUR")
    sheet = opened(tmp_path / "a.xlsx")["supplier_risk"]
    back = read(sheet)
    assert back == expected(TYPES)
    types = [str, str, int, int, float, float, datetime, datetime, bool, str, datetime, str]
    assert [type(v) for v in back[0].values()] == types
    assert [*back[0]][-3:] == ["publication_id", "as_of", "schema_version"]
    formats = {sheet.cell(1, k).value: sheet.cell(2, k).number_format for k in range(1, sheet.max_column + 1)}
    assert (formats["on_time_4w"], formats["open_value"], formats["on"]) == ("0.0%", "#,##0.00", "yyyy-mm-dd")
    assert formats["at"] == "yyyy-mm-dd hh:mm:ss"


def test_text_stays_text_whatever_it_looks_like(tmp_path):
    table = pd.DataFrame({"name": HOSTILE})
    workbook.write(tmp_path / "a.xlsx", publication({"names": table, "watchlist": watched(what=HOSTILE)}), "EUR")
    book = opened(tmp_path / "a.xlsx")
    assert [row["name"] for row in read(book["names"])] == HOSTILE
    for sheet in book:
        kinds = {cell.data_type for row in sheet.iter_rows() for cell in row if isinstance(cell.value, str)}
        assert kinds <= {"s", "inlineStr"}, sheet.title
        assert sheet.title == "Summary" or not any(cell.hyperlink for row in sheet.iter_rows() for cell in row)


@pytest.mark.parametrize(
    ("value", "written"), [(2**53 + 1, str(2**53 + 1)), (datetime.fromisoformat("1850-01-01"), "1850-01-01T00:00:00")]
)
def test_what_excel_cannot_hold_exactly_is_text(tmp_path, value, written):
    workbook.write(tmp_path / "a.xlsx", publication({"t": pd.DataFrame({"x": [value]})}), "EUR")
    assert opened(tmp_path / "a.xlsx")["t"]["A2"].value == written


def test_what_does_not_fit_is_told_on_the_summary(tmp_path):
    table = pd.DataFrame({"row_id": range(7), "note": ["x" * 40_000, *"abcdef"]})
    workbook.write(tmp_path / "a.xlsx", publication({"t": table}), "EUR", rows=5)
    book = opened(tmp_path / "a.xlsx")
    assert len(read(book["t"])) == 4
    assert len(book["t"]["B2"].value) == 32_767
    said = " ".join(str(c) for row in book["Summary"].iter_rows(values_only=True) for c in row if c)
    assert "t: only the first 4 of 7 rows" in said
    assert "1 texts of note end at 32,767 characters" in said
    assert "The whole table stands where it was published, as t_week" in said


def test_sheets_can_be_read_and_sorted_by_a_person(tmp_path):
    workbook.write(tmp_path / "a.xlsx", publication({"watchlist": watched(p=[0.9, 0.5, 0.1])}), "EUR")
    book = opened(tmp_path / "a.xlsx")
    assert book.sheetnames == ["Summary", "Procurement", "Sales", "Columns", "watchlist"]
    sheet = book["watchlist"]
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("A2", "A1:N4")
    bars = [rule for rules in sheet.conditional_formatting for rule in rules.rules]
    assert [(rule.type, [end.val for end in rule.dataBar.cfvo]) for rule in bars] == [("dataBar", [0, 1])]
    assert [row["risk"] for row in read(book["Sales"])] == ["Acme 0", "Acme 2"]


def test_a_sheet_says_what_the_columns_mean(tmp_path):
    tables = {"watchlist": watched(p=[0.9, 0.5]), "rule_forecasts": pd.DataFrame({"p_last_outcome": [0.5], "new": [1]})}
    workbook.write(tmp_path / "a.xlsx", publication(tables), "USD")
    said = {(row["table"], row["column"]): row for row in read(opened(tmp_path / "a.xlsx")["Columns"])}
    assert [*said] == [(name, column) for name, table in tables.items() for column in table]
    assert said["watchlist", "value_at_risk"]["unit"] == "USD"
    assert said["watchlist", "level"]["values"] == "high, medium, low"
    assert "the rule of that name" in said["rule_forecasts", "p_last_outcome"]["what it says"]
    assert said["rule_forecasts", "new"]["what it says"] == ""


def test_the_same_publication_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        workbook.write(tmp_path / name, publication({"types": TYPES, "watchlist": watched(p=[0.9, 0.5])}), "EUR")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("owner", ["a/b:c*[d]?" * 5, "summary", "History", "x" * 40, "'"])
def test_any_owner_gets_a_sheet(tmp_path, owner):
    workbook.write(tmp_path / "a.xlsx", publication({"watchlist": watched(owner=[owner, owner])}), "EUR")
    assert len(opened(tmp_path / "a.xlsx").sheetnames) == 4


def test_empty_tables_have_their_header(tmp_path):
    tables = {"types": TYPES.head(0), "watchlist": watched(p=[1]).head(0)}
    workbook.write(tmp_path / "a.xlsx", publication(tables), "EUR")
    assert [c.value for c in opened(tmp_path / "a.xlsx")["types"][1]] == [*TYPES]


# CSV


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\tx", "\rx"])
def test_what_starts_like_a_formula_is_guarded(text):
    assert guarded(text) == "'" + text


@pytest.mark.parametrize("text", ["", "a=1", "▲ up", " =1", "'=1"])
def test_other_text_is_left_alone(text):
    assert guarded(text) == text


def test_the_board_guards_the_same_starts():
    script = (Path(__file__).parents[1] / "pipelines" / "board" / "js" / "csv.js").read_text()
    assert "/^[=+\\-@\\t\\r]/.test(value)" in script
    assert tuple("=+-@\t\r") == FORMULA_STARTS


def test_a_csv_file_holds_the_table(tmp_path):
    table = TYPES.assign(name=["=cmd|x", "naïve, 😀", "-5"], gap=[-1.5, 0.1 + 0.2, None])
    write_csv(tmp_path / "a.csv", table)
    raw = (tmp_path / "a.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbftext,")
    assert raw.count(b"\r\n") == 4
    back = pd.read_csv(tmp_path / "a.csv", encoding="utf-8-sig", keep_default_na=False, na_values={"gap": [""]})
    assert [*back["name"]] == ["'=cmd|x", "naïve, 😀", "'-5"]
    assert [*back["gap"].dropna()] == [-1.5, 0.1 + 0.2]
    assert [*back["on"]] == ["2026-06-01", "", "1900-03-01"]
    assert back["at"][0] == "2026-06-01T05:00:07.000000"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    (tmp_path / "a.csv").write_text("before")
    with pytest.raises(UnicodeEncodeError):
        write_csv(tmp_path / "a.csv", pd.DataFrame({"x": ["\ud800"]}, dtype=object))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.csv", "before")]
