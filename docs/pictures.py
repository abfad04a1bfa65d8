"""Take the README's pictures of the board: python -m docs.pictures --workspace demo"""

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

PICTURES = Path(__file__).parent / "pictures"
ARGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync")
COLORS = 256  # the page has few: a palette makes its picture a third of the size
STATES = {
    "board": {"viewport": {"width": 1440, "height": 900}},
    "panel": {"viewport": {"width": 1440, "height": 900}},
    "dark": {"viewport": {"width": 1440, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 1100}},
}


def main() -> None:
    """Write one picture per state, from the board that the workspace holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=Path("demo"))
    board = (parser.parse_args().workspace / "board" / "index.html").resolve()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not board.exists() or not chromium:
        sys.exit(f"pictures need {board} (make demo writes it) and Chromium (Debian: apt-get install chromium)")
    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=ARGS)
        for name, how in STATES.items():
            tab = browser.new_context(**how).new_page()  # type: ignore[arg-type]
            tab.goto(board.as_uri())
            save(tab, name)
        browser.close()


def save(tab: Page, name: str) -> None:
    """Bring the page into its state and save it, with a palette."""
    if name == "panel":
        tab.locator("#body tr", has_text="Late delivery").first.get_by_role("button").click()
        tab.locator("#panel").focus()
    seen = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    picture = seen.quantize(palette=most_used(seen), dither=Image.Dither.NONE)
    path = PICTURES / f"{name}.png"
    picture.save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1024} kB")


def most_used(picture: Image.Image) -> Image.Image:
    """Return a palette of the colours that most of the picture has, exactly: what PIL chooses tints the paper."""
    counted = sorted(picture.getcolors(1 << 24) or [], reverse=True)[:COLORS]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, color in counted for part in color])  # type: ignore[union-attr]
    return palette


if __name__ == "__main__":
    main()
