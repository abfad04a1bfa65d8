"""Tell on a terminal why numbers are what they are: the change since last week, and all about one row."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.change import IN_WORDS, PARTS
from pipelines.screen import day_of, lines, money, thousands


def weekly_change(rows: pd.DataFrame, total: int, currency: str, screen: Console) -> None:
    """Show what moved most since last week: what, from how much to how much, by which parts, and why."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), leading=1, expand=True)
    table.add_column("risk", ratio=10)
    for head in ("last week", "this week", "change"):
        table.add_column(f"{head}\n{currency}", justify="right", no_wrap=True)
    table.add_column("parts", ratio=6)
    table.add_column("why", ratio=8)
    for row in rows.to_dict("records"):
        table.add_row(*_moved(row))
    screen.print(table)
    when = f" of {day_of(rows['as_of'].iloc[0])}" if "as_of" in rows and len(rows) else ""
    screen.print(f"[dim]{len(rows)} of {total:,} changes{when}, the largest first. All columns with --json.[/]")


def _moved(row: Mapping[str, Any]) -> list[str | Text]:
    named = [name for name in (row["supplier_name"], row["product_name"]) if name]
    parts = [(part, row[f"part_{part}"]) for part in PARTS if abs(row[f"part_{part}"]) >= 0.5]
    parts.sort(key=lambda part: -abs(part[1]))
    style = "red" if row["change"] > 0 else "green"
    return [
        lines((": ".join(named), "bold"), (f"{row['kind']} · {row['row_id']} · {row['site_id']}", "dim")),
        money(row["value_last_week"]),
        money(row["value_this_week"]),
        Text(f"{row['change']:+,.0f}", style=style),
        lines(*((f"{IN_WORDS[part]} {thousands(amount)}", "") for part, amount in parts)),
        lines((row["reason"], "")),
    ]
