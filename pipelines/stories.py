"""Tell on a terminal why numbers are what they are: the change since last week, and all about one row."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from models.change import IN_WORDS, PARTS
from models.watchlist import amount
from pipelines.screen import cell, day_of, lines, money, share, thousands


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
    if len(rows):
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


# All about one row --------------------------------------------------------------------------------------------------

BAR = 30  # characters of a whole bar
SHOWN = {"last lines of the supplier": 5, "orders, by week": 6}  # of longer lists; all of them with --json


def explained(story: Mapping[str, Any], currency: str, screen: Console) -> None:
    """Show what was published of a row, why, from which facts, and whether it comes out again."""
    row, delay = story["row"], story["table"] == "supplier_delay_risk"
    (_line if delay else _window)(row, currency, screen)
    good = story["check"]["equal"]
    screen.print(Text(f"{'✔' if good else '✘'} {story['check']['words']}", style="green" if good else "yellow"))
    for found in story["check"]["differs"]:
        was, now = (cell(found["column"], found[when]) or "nothing" for when in ("published", "recomputed"))
        screen.print(Text(f"    {found['column']}: published {was}, recomputed {now}"))
    if story.get("drivers"):
        _drivers(story["drivers"], screen)
    if story.get("curve"):
        _arrival(story["curve"], row, screen)
    if story.get("rules") and row.get("state", "due_future") == "due_future":
        _rules(story, screen)
    if story.get("features"):
        _inputs(story["features"], screen)
    _facts(story["facts"], screen)
    model = story["model"]
    screen.print(
        f"[dim]publication {story['publication_id']}, {model['task']} model version {model['version']}, learnt to "
        f"{model['learnt_to']}. Every input and fact with --json.[/]"
    )


def _line(row: Mapping[str, Any], currency: str, screen: Console) -> None:
    state = {"due_future": "", "already_late": "already late, ", "no_promise": "without a promise, "}[row["state"]]
    promised = f"promised {day_of(row['promised_on'])}, " if pd.notna(row["promised_on"]) else ""
    screen.print(Text(f"{row['supplier_name']}: {row['product_name']} for {row['site_id']}", style="bold"))
    screen.print(
        Text(
            f"purchase line {row['po_line_id']}, {promised}{state}{amount(row['open_units'])} open"
            + (f", {currency} {money(row['open_value'])}" if pd.notna(row["open_value"]) else "")
        )
    )
    chance = "no probability, since nothing is promised"
    if pd.notna(row["p_late"]):
        chance = f"{share(row['p_late'])} late (usually {share(row['base_rate'])})"
    worth = f", {currency} {money(row['value_at_risk'])} at risk" if pd.notna(row["value_at_risk"]) else ""
    screen.print(Text(f"{chance}{worth}, rank {row['rank']}, said by {_speaker(row)}", style="cyan"))


def _speaker(row: Mapping[str, Any]) -> str:
    from pipelines.board.wording import speaker  # brings what writes the page

    return speaker(row["published_by"])


def _window(row: Mapping[str, Any], currency: str, screen: Console) -> None:
    low, middle, high, base = (f"{row[c]:,.0f}" for c in ("units_p10", "units_p50", "units_p90", "baseline_units"))
    edges = f"a surge from {row['up_at_units']:,.0f}, a drop down to {max(row['down_at_units'], 0):,.0f}"
    when = f"{day_of(row['window_begin'])} to {day_of(row['window_end'])}"
    chances = [
        f"{share(row[f'p_{way}'])} {name} (usually {share(row[f'base_rate_{way}'])})"
        for way, name in (("up", "surge"), ("down", "drop"))
    ]
    worth = f"{currency} {money(row['value_at_risk'])} at risk, rank {row['rank']}, said by {_speaker(row)}"
    screen.print(Text(f"{row['product_name']} at {row['site_name']}", style="bold"))
    screen.print(Text(f"{when}: likely {low} to {high} units, middle {middle}; baseline {base}, {edges}"))
    if "moved_share" in row and pd.notna(row["moved_share"]):
        way = "below" if row["moved_share"] < 0 else "above"
        gaps = f"{abs(row['moved_z']):.1f} times as far as usual"
        screen.print(Text(f"the last 2 weeks stand {share(abs(row['moved_share']))} {way} the year before, {gaps}"))
    screen.print(Text(f"{', '.join(chances)}, {worth}", style="cyan"))


def _drawn(title: str, *heads: tuple[str, bool]) -> Table:
    table = Table(title=f"[bold]{title}[/]", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for head, right in heads:
        table.add_column(head, justify="right" if right else "left", overflow="fold")
    return table


def _drivers(drivers: list[Mapping[str, Any]], screen: Console) -> None:
    told = [d for d in drivers if abs(d["contribution"]) >= 0.005]
    table = _drawn(
        "Why: what raises ▲ and lowers ▼ the log-odds", ("", False), ("by", True), ("family", False), ("", False)
    )
    for driver in told[:12]:
        up = driver["contribution"] > 0
        table.add_row(
            Text("▲" if up else "▼", style="red" if up else "green"), f"{driver['contribution']:+.2f}",
            escape(driver["family"]), escape(driver["words"]),
        )  # fmt: skip
    screen.print(table)
    if len(told) > 12:
        rest = sum(driver["contribution"] for driver in told[12:])
        screen.print(f"[dim]{len(told) - 12} weaker families together {rest:+.2f}[/]")


def _arrival(curve: list[Mapping[str, Any]], row: Mapping[str, Any], screen: Console) -> None:
    """Draw P(arrived by the day) at about a dozen days, the promised one among them."""
    screen.print("[bold]Arrived by the end of[/]")
    promised = row["promised_on"]
    every = max(len(curve) // 12, 1)
    for k, point in enumerate(curve):
        due = pd.notna(promised) and point["day"] == promised
        if k % every and not due and k != len(curve) - 1:
            continue
        bar = "█" * round(BAR * point["p"])
        mark = "  ◀ promised" if due else ""
        line = f"  {point['day']:%Y-%m-%d}  {bar:░<{BAR}}  {share(point['p']) or '0 %':>5}{mark}"
        screen.print(Text(line, style="bold" if due else ""))
    if pd.notna(promised) and promised < curve[0]["day"]:
        screen.print(f"  [dim]promised {day_of(promised)}, which is past[/]")


def _rules(story: Mapping[str, Any], screen: Console) -> None:
    table = _drawn("Who says what", ("", False), *((f"P({event})", True) for event in story["rules"]))
    said = {"model": story["model_says"]}
    for event, given in story["rules"].items():
        for name, p in given.items():
            said.setdefault(name, {})[event] = p
    for name, of in said.items():
        cells = [share(of.get(event)) for event in story["rules"]]
        table.add_row(escape(name.replace("_", " ")), *cells, style="bold" if name == "model" else "")
    screen.print(table)


def _inputs(features: list[Mapping[str, Any]], screen: Console) -> None:
    """Show the inputs that say most, with what is usual and between what nine rows of ten of both ends lie."""
    strongest = sorted(features, key=lambda f: -abs(f["contribution"]))[:15]
    heads = [("input", False), ("value", True), ("usual", True), ("P10 to P90", True), ("unit", False), ("adds", True)]
    known = any(pd.notna(f["low"]) for f in strongest)  # a model saved before ranges were kept has none
    table = _drawn("The inputs that say most", *(head for head in heads if known or head[0] != "P10 to P90"))
    for f in strongest:
        value, usual, low, high = (_plain(f[name]) for name in ("value", "usual", "low", "high"))
        between = [f"{low} to {high}" if low and high else ""] if known else []
        table.add_row(f["name"], value, usual, *between, f["unit"], f"{f['contribution']:+.2f}")
    screen.print(table)


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return escape(value)
    return "" if pd.isna(value) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _facts(facts: Mapping[str, pd.DataFrame], screen: Console) -> None:
    for name, found in facts.items():
        if not len(found):
            continue
        shown = found.head(SHOWN.get(name, 12))
        columns = [c for c in shown if shown[c].notna().any() and c != "known_at"]
        more = f", {len(shown)} of {len(found)}" if len(shown) < len(found) else ""
        table = _drawn(f"Facts: {name}{more}", ("known at", False), *((c.replace("_", " "), False) for c in columns))
        for fact in shown.to_dict("records"):
            table.add_row(f"{fact['known_at']:%Y-%m-%d %H:%M}", *(escape(cell(c, fact[c])) for c in columns))
        screen.print(table)
