"""The page orchestrators open on Monday: one HTML file per published week, made of the published tables alone."""

from datetime import date
from pathlib import Path

from pipelines import releases
from pipelines.board.page import page
from pipelines.board.reading import latest_day, read_week
from pipelines.files import replacing
from pipelines.settings import Settings

INDEX = "index.html"


def write(settings: Settings, as_of: date | None = None) -> Path:
    """Write `board/<as_of>.html` of a published week, and keep `board/index.html` the latest one; return the path.

    An older week goes into the curves of the latest, so that one is made anew with it. A file that is right already
    is left alone; others are replaced whole.
    """
    latest = latest_day(settings)
    day, folder = as_of or latest, settings.workspace / "board"
    with releases.plainly(settings.workspace, "write the board of"):
        folder.mkdir(parents=True, exist_ok=True)
        for one in dict.fromkeys((day, latest)):
            text = page(read_week(settings, one))
            _replace(folder / f"{one}.html", text)
            if one == latest:
                _replace(folder / INDEX, text)
    return folder / f"{day}.html"


def _replace(path: Path, text: str) -> None:
    content = text.encode()
    if path.exists() and path.read_bytes() == content:
        return
    with replacing(path) as fresh:
        fresh.write_bytes(content)
