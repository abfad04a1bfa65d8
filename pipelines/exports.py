"""Write a publication for spreadsheets: one workbook, or a CSV file per table."""

from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Literal

import pandas as pd

from pipelines.files import replacing
from pipelines.published import published
from pipelines.settings import Settings, UserError

Format = Literal["xlsx", "csv"]
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet may take for the beginning of a formula in a CSV file; the board's csv.js has the same."""


def guarded(text: str) -> str:
    """Return text that a spreadsheet shows and never runs: an apostrophe goes before what could start a formula."""
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def export(
    settings: Settings, *, week: date | None, form: Format, out: Path | None, tables: Collection[str] = ()
) -> list[Path]:
    """Write a published week, all its tables or those named, and return the files written.

    A workbook goes to `out`. CSV goes into the folder `out`, a file per table; a single table may name its file. The
    default is `export/` in the workspace. Every file appears whole or not at all.
    """
    if out is not None and form == "xlsx" and (out.suffix.lower() != ".xlsx" or out.is_dir()):
        raise UserError(f"--out is {out}, expected a file name that ends in .xlsx, or --format csv")
    found = published(settings.target, week, tables)
    home = settings.workspace / "export"
    if form == "xlsx":
        from pipelines import workbook

        path = out or home / f"bullwhip-{found.publication_id}.xlsx"
        with replacing(path) as fresh:
            workbook.write(fresh, found, settings.currency)
        return [path]
    if out is not None and out.suffix.lower() == ".csv":
        if len(found.tables) != 1:
            raise UserError(f"--out is the file {out}, but there are {len(found.tables)} tables; name one with --table")
        paths = dict.fromkeys(found.tables, out)
    else:
        folder = out or home / found.publication_id
        if folder.is_file():
            raise UserError(
                f"--out is the file {out}, expected a folder, or for a single --table a name that ends in .csv"
            )
        paths = {name: folder / f"{name}.csv" for name in found.tables}
    for name, path in paths.items():
        write_csv(path, found.tables[name])
    return list(paths.values())


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV that spreadsheets and programs read alike: ISO days, decimal points, CRLF, quoted by need.

    UTF-8 with a byte order mark: without one Excel reads the machine's own code page, and names break.
    """
    with replacing(path) as fresh:
        table.apply(_as_text).to_csv(fresh, index=False, encoding="utf-8-sig", lineterminator="\r\n")


def _as_text(column: pd.Series) -> pd.Series:
    if column.dtype.kind == "M":
        whole_days = (column.dropna() == column.dropna().dt.normalize()).all()
        return column.dt.strftime("%Y-%m-%d" if whole_days else "%Y-%m-%dT%H:%M:%S.%f")
    if pd.api.types.is_string_dtype(column.dtype) or column.dtype == object:
        return column.map(lambda v: guarded(v) if isinstance(v, str) else v)
    return column
