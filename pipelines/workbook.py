"""Write a publication as an Excel workbook: a summary, a sheet per function, every table, and what its columns mean.

Text stays text whatever it looks like, NULL is an empty cell, and the same publication gives the same bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import xlsxwriter
from xlsxwriter.format import Format
from xlsxwriter.worksheet import Worksheet

from models.risk_columns import MONEY, SHARE, Column, P
from models.risk_contract import ADDED, BY_NAME
from pipelines.published import Published

ROWS = 1_048_576  # Excel's own limits: rows of a sheet, …
EXACT = 2**53  # … whole numbers it can tell apart, …
EARLIEST = 1900  # … and the first year it has dates of
WIDEST, NARROWEST, SEEN = 60, 6, 500  # widths of columns in characters, and how many rows are looked at for them
OPTIONS = {
    "strings_to_formulas": False,
    "strings_to_urls": False,
    "strings_to_numbers": False,
    "constant_memory": True,  # text stands in the cell: one road for small and large, bounded by a row
}
FORMS = {
    "money": "#,##0.00",
    "share": "0.0%",
    "day": "yyyy-mm-dd",
    "moment": "yyyy-mm-dd hh:mm:ss",
    "number": "#,##0.0",
}
BY_UNIT = {MONEY: "money", "currency per unit": "money"} | dict.fromkeys(
    (SHARE, P, "difference of shares", "skill"), "share"
)
LAST = tuple(c.name for c in ADDED)
COLUMNS = "Columns"
FOR_A_FUNCTION = {
    "rank": "#", "tier": "tier", "what": "risk", "kind": "kind", "p": "chance", "level": "level", "impact": "impact",
    "value_at_risk": "value at risk", "next_step": "next step", "act_by": "act by", "driver_1": "why",
    "driver_2": "why, second", "driver_3": "why, third", "change": "since last week", "row_id": "row",
}  # fmt: skip
TOTALS = {
    "late_deliveries": "Late deliveries", "demand_shifts": "Demand shifts", "preventable": "Can still be prevented",
    "already_late": "Already late",
}  # fmt: skip


@dataclass(slots=True)
class Book:
    """The workbook being written: its formats, its sheets by title, and what had to be cut."""

    file: xlsxwriter.Workbook
    rows: int
    formats: dict[tuple[tuple[str, Any], ...], Format] = field(default_factory=dict)
    sheets: dict[str, Worksheet] = field(default_factory=dict)
    cut: dict[str, list[str]] = field(default_factory=dict)

    def format(self, **properties: Any) -> Format:
        made = self.formats.get(key := tuple(sorted(properties.items())))
        if made is None:
            made = self.formats[key] = self.file.add_format(properties)
        return made

    def sheet(self, title: str) -> Worksheet:
        """Return a new sheet whose name Excel accepts and nobody has yet."""
        base = "".join(" " if c in "[]:*?/\\" else c for c in title).strip("' ")[:28] or "sheet"
        name, n = base, 1
        while name.casefold() in {taken.casefold() for taken in self.sheets} | {"history"}:
            name = f"{base} {(n := n + 1)}"
        self.sheets[name] = self.file.add_worksheet(name)
        return self.sheets[name]


def write(path: Path, publication: Published, currency: str, *, rows: int = ROWS) -> None:
    """Write the workbook of a publication; a table longer than a sheet holds is cut there, which the summary tells."""
    with xlsxwriter.Workbook(str(path), OPTIONS) as file:
        title = f"Risks as of {publication.as_of}"
        file.set_properties({"title": title, "author": "bullwhip", "created": publication.published_at})
        book = Book(file, rows)
        summary = book.sheet("Summary")
        owners = _functions(book, publication.tables.get("watchlist"))
        _table(book, COLUMNS, _meanings(publication, currency), {})
        for name, table in publication.tables.items():
            last = [c for c in LAST if c in table]
            _table(book, name, table[[*(c for c in table if c not in last), *last]])
        _summary(book, summary, publication, currency, owners)


# One sheet


def _table(book: Book, title: str, table: pd.DataFrame, heads: Mapping[str, str] | None = None) -> None:
    """Write a table to a sheet of its own: header that stays, filters, formats by column, bars for probabilities."""
    sheet = book.sheet(title)
    shown, wrap = table.iloc[: book.rows - 1], heads is not None
    kinds = {c: _kind(title if heads is None else "watchlist", str(c), table[c]) for c in table}
    head = book.format(bold=True, bottom=1, bg_color="#E8EDF3", text_wrap=True, valign="top")
    for place, name in enumerate(table):
        sheet.write_string(0, place, (heads or {}).get(name, str(name)), head)
        form = {"num_format": FORMS[kinds[name]]} if kinds[name] in FORMS else {}
        width = _width((heads or {}).get(name, str(name)), shown[name], kinds[name], 42 if wrap else WIDEST)
        sheet.set_column(place, place, width, book.format(valign="top", text_wrap=wrap, **form))
    long = _cells(sheet, shown)
    sheet.freeze_panes(1, 0)
    if len(table.columns):
        sheet.autofilter(0, 0, len(shown), len(table.columns) - 1)
    for place, name in enumerate(table):
        if len(shown) and (name == "p" or str(name).startswith("p_")):
            sheet.conditional_format(1, place, len(shown), place, _bar())
    _tell(book, title, table, len(shown), long)


def _cells(sheet: Worksheet, table: pd.DataFrame) -> dict[str, int]:
    """Write the rows and return how many texts of each column were longer than a cell holds."""
    columns = [_values(table[c]) for c in table]
    long: dict[str, int] = {}
    for row, cells in enumerate(zip(*columns, strict=True), start=1):
        for place, value in enumerate(cells):
            if value is not None and _cell(sheet, row, place, value) == -2:
                name = str(table.columns[place])
                long[name] = long.get(name, 0) + 1
    return long


def _values(column: pd.Series) -> list[Any]:
    return column.astype(object).where(column.notna(), None).tolist()


def _cell(sheet: Worksheet, row: int, place: int, value: Any) -> int:
    """Write one value as what it is; −2 says that a text was cut, which Excel limits to 32,767 UTF-16 units."""
    if isinstance(value, str):
        return sheet.write_string(row, place, value)
    if isinstance(value, bool):
        return sheet.write_boolean(row, place, value)
    if isinstance(value, int | float):
        if isinstance(value, int) and abs(value) > EXACT:
            return sheet.write_string(row, place, str(value))
        return sheet.write_number(row, place, value)
    if isinstance(value, datetime) and value.year >= EARLIEST:
        return sheet.write_datetime(row, place, value)
    return sheet.write_string(row, place, value.isoformat() if hasattr(value, "isoformat") else str(value))


def _described(table: str, name: str) -> Column | None:
    """Return what the contract says of a column, None where it does not know it."""
    known = BY_NAME.get(table)
    return next((c for c in ADDED if c.name == name), known.column(name) if known else None)


def _kind(table: str, name: str, column: pd.Series) -> str:
    """Return how a column is shown: by its type, and by the unit it has in the contract."""
    if column.dtype.kind == "M":
        filled = column.dropna()
        return "day" if (filled == filled.dt.normalize()).all() else "moment"
    if not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype):
        return "text"
    about = _described(table, name)
    return BY_UNIT.get(about.unit if about else "", "number" if pd.api.types.is_float_dtype(column.dtype) else "count")


def _width(head: str, column: pd.Series, kind: str, widest: int) -> float:
    """Return a width that shows header and values, up to `widest`."""
    seen = column.head(SEEN).dropna()
    longest = {
        "day": lambda: 10, "moment": lambda: 19, "share": lambda: 7,
        "money": lambda: len(f"{seen.abs().max():,.2f}") + 1, "number": lambda: len(f"{seen.abs().max():,.1f}") + 1,
    }.get(kind, lambda: int(seen.astype(str).str.len().max()))  # fmt: skip
    values = longest() if len(seen) else 0
    return min(max(values, len(head) + 3, NARROWEST), widest) + 1


def _bar() -> dict[str, Any]:
    ends = {"min_type": "num", "max_type": "num", "min_value": 0, "max_value": 1}
    return {"type": "data_bar", "data_bar_2010": True, "bar_solid": True, "bar_color": "#9CC3E6", **ends}


def _tell(book: Book, title: str, table: pd.DataFrame, shown: int, long: Mapping[str, int]) -> None:
    """Keep for the summary what of a table is not on its sheet."""
    said = (
        [f"only the first {shown:,} of {len(table):,} rows, which is all a sheet holds"] if shown < len(table) else []
    )
    said += [f"{n:,} texts of {name} end at 32,767 characters, which is all a cell holds" for name, n in long.items()]
    if said:
        book.cut[title] = said


# The sheets for people


def _meanings(publication: Published, currency: str) -> pd.DataFrame:
    """Return a row for every column of every table with what the contract says of it."""
    rows = []
    for table, frame in publication.tables.items():
        for name in map(str, frame):
            about = _described(table, name) or Column(name, "text", "")
            unit = about.unit.replace(MONEY, currency)
            rows.append((table, name, about.about, unit, about.kind, about.nullable, ", ".join(about.one_of)))
    return pd.DataFrame(rows, columns=["table", "column", "what it says", "unit", "kind", "may be empty", "values"])


def _functions(book: Book, watchlist: pd.DataFrame | None) -> dict[str, pd.DataFrame]:
    """Write a sheet per function with its rows of the watchlist, and return these rows by sheet."""
    if watchlist is None or "owner" not in watchlist:
        return {}
    kept = [c for c in FOR_A_FUNCTION if c in watchlist]
    parts = {str(owner): rows for owner, rows in watchlist.groupby("owner", sort=True)}
    for owner, rows in parts.items():
        _table(book, owner.capitalize(), rows[kept], FOR_A_FUNCTION)
    return parts


def _summary(
    book: Book, sheet: Worksheet, publication: Published, currency: str, owners: Mapping[str, pd.DataFrame]
) -> None:
    """Write what it is about, the totals, each function's share, and what stands on which sheet."""
    bold, money = book.format(bold=True), book.format(num_format=FORMS["money"])
    warning = book.format(bold=True, font_color="#B00020")
    models = ", ".join(f"{task} {version}" for task, version in publication.model_versions.items())
    totals = publication.totals()
    functions = [
        (owner.capitalize(), len(rows), int((rows["tier"] == 1).sum()), round(float(rows["value_at_risk"].sum()), 2))
        for owner, rows in owners.items()
    ]
    lines: list[tuple[Sequence[Any], Format | None]] = [
        ((f"Risks as of {publication.as_of:%A %d %B %Y}",), book.format(bold=True, font_size=16)),
        ((f"publication {publication.publication_id}, published {publication.published_at:%Y-%m-%d %H:%M} UTC",), None),
        ((f"models: {models or 'none'}; all money in {currency}",), None),
        *(((f"{title}: {said}. The whole table stands where it was published, as {title}_week.",), warning)
          for title, cut in book.cut.items() for said in cut),
        ((), None),
        (("value at risk", currency), bold),
        *(((words, totals[name]), None) for name, words in TOTALS.items() if name in totals),
        ((), None),
        (("function", "risks on its list", "of these tier 1", f"value at risk, {currency}"), bold),
        *((cells, None) for cells in functions),
        ((), None),
        (("sheet", "rows", "what it holds"), bold),
    ]  # fmt: skip
    for row, (cells, form) in enumerate(lines):
        _line(sheet, row, cells, form, money)
    _links(book, sheet, len(lines), publication)
    sheet.set_column(0, 0, 28)
    sheet.set_column(1, 3, 20)


def _line(sheet: Worksheet, row: int, cells: Iterable[Any], form: Format | None, money: Format) -> None:
    for place, value in enumerate(cells):
        if isinstance(value, str):
            sheet.write_string(row, place, value, form)
        else:
            sheet.write_number(row, place, value, money if isinstance(value, float) else form)


def _links(book: Book, sheet: Worksheet, first: int, publication: Published) -> None:
    link = book.file.get_default_url_format()
    about = {name: table.about for name, table in BY_NAME.items()} | {COLUMNS: "What every column of the tables says."}
    for row, name in enumerate(list(book.sheets)[1:], start=first):
        sheet.write_url(row, 0, f"internal:'{name.replace(chr(39), chr(39) * 2)}'!A1", link, name)
        if name in publication.rows:
            sheet.write_number(row, 1, publication.rows[name])
        sheet.write_string(row, 2, about.get(name, "Its rows of the watchlist."))
