"""The table of what forecasts are worth: a figure a row, next to what it must reach."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured on what, the figure with its interval, and where it must lie."""

    data: str
    what: str
    value: float
    interval: tuple[float, float] = (math.nan, math.nan)
    least: float = -math.inf
    most: float = math.inf
    note: str = ""

    @property
    def verdict(self) -> str:
        """ "yes" or "no"; "" where nothing was asked."""
        if math.isinf(self.least) and math.isinf(self.most):
            return ""
        return "yes" if self.least <= self.value <= self.most else "**no**"

    @property
    def asked(self) -> str:
        """Where it must lie, in signs."""
        low, high = not math.isinf(self.least), not math.isinf(self.most)
        if low and high:
            return f"{self.least:g} … {self.most:g}"
        return f"≥ {self.least:g}" if low else f"≤ {self.most:g}" if high else ""


def rows_of(found: Mapping[str, dict[str, Any]]) -> list[Row]:
    return [Row(**{**row, "interval": tuple(row["interval"])}) for case in found.values() for row in case["rows"]]


def as_markdown(
    found: Mapping[str, dict[str, Any]], seconds: float | None, failed: Mapping[str, str] | None = None
) -> str:
    """Return the table with dates, commits and the time it took; `seconds` of all cases together, None for a part.

    `failed` are the cases that could not be measured, with what they said.
    """
    dates, commits = (", ".join(sorted({case[key] for case in found.values()})) for key in ("on", "commit"))
    by_case = ", ".join(f"{name} {case['seconds']:.0f}" for name, case in found.items())
    took = "Case by case" if seconds is None else f"{seconds / 60:.0f} minutes in all"
    lines = [
        "# What the forecasts are worth", "",
        f"{dates}, commit {commits}, by `make skill` on 2 cores. {took}; seconds by case:",
        f"{by_case}.",
        "Every figure is recomputed from the predictions of `bullwhip backtest`. In brackets: 95 % intervals by block",
        "bootstrap over weeks and suppliers (products for demand).", "",
        *(f"**Not measured**: {name}, {said}\n" for name, said in (failed or {}).items()),
        "| data | what | figure | must be | reached | |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {r.data} | {r.what} | {_shown(r)} | {r.asked} | {r.verdict} | {r.note} |" for r in rows_of(found)]
    return "\n".join(lines) + "\n"


def _shown(row: Row) -> str:
    low, high = row.interval
    return f"{row.value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if math.isfinite(low) and math.isfinite(high) else "")


def write(text: str, page: Path) -> None:
    """Put the table on the page; what people wrote below it stays."""
    _, mark, said = page.read_text().partition("\n## ")
    page.write_text(text + mark + said)
