"""Show results to a person on a terminal: tables that fit, numbers with units, decisions in sentences."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from models.change import IN_WORDS

WIDTH = 120
TASKS = {"delay": "Late deliveries", "shift": "Demand shifts"}
EVENTS = {"late": "late", "down": "drops", "up": "surges"}
MEASURES = {
    "pr_auc": ("PR-AUC", "{:.3f}"),
    "brier": ("Brier", "{:.4f}"),
    "bss_climatology": ("BSS", "{:+.1%}"),
    "ece": ("ECE", "{:.3f}"),
    "slope": ("slope", "{:.2f}"),
}
LEVELS = {"high": "bold red", "tier 1": "bold red", "medium": "yellow", "tier 2": "yellow"}
MONEY, SHARE = ("value", "cost", "price", "loss", "margin", "part_"), ("p_", "share", "rate", "skill")
REPEATED = ("publication_id", "schema_version", "as_of", "model_version", "row_id")


def console(width: int | None = None) -> Console:
    """Return a console on stdout: as wide as the terminal but at most WIDTH, WIDTH when piped."""
    screen = Console(highlight=False, soft_wrap=False)
    if width or not screen.is_terminal or screen.width > WIDTH:
        screen.width = width or WIDTH
    return screen


def trained(result: Mapping[str, Any], screen: Console) -> None:
    """Show per task the model next to every naive rule, and what was decided."""
    for task, outcome in per_task(result).items():
        if outcome.get("skipped"):
            screen.print(Text(f"{TASKS[task]}: nothing to learn from, {outcome['skipped']}\n", style="yellow"))
            continue
        metrics, rules = outcome.get("metrics") or {}, outcome.get("rules") or {}
        parts = [k for k, v in metrics.items() if isinstance(v, Mapping)]
        for part in parts or [None]:
            mine = metrics[part] if part else metrics
            theirs = {n: (r.get(part) or {}) if part else r for n, r in rules.items()}
            screen.print(_skill(" · ".join(filter(None, (TASKS.get(task, task), part))), outcome, mine, theirs))
            _one_outcome(mine, screen)
        screen.print(Text(f"  {decision(outcome)}\n", style="green" if outcome.get("promoted") else "yellow"))
    screen.print("[dim]PR-AUC, BSS: more is better. Brier, ECE: less is better. Slope: 1 is right.[/]")


def per_task(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what was said about each task."""
    inner = result.get("tasks")
    found = inner if isinstance(inner, Mapping) else result
    return {task: v for task, v in found.items() if task in TASKS and isinstance(v, Mapping)}


def decision(outcome: Mapping[str, Any]) -> str:
    """Say in a sentence whether the new model scores from now on."""
    version = f"Version {outcome['model_version']}" if outcome.get("model_version") else "This model"
    if because := outcome.get("refused_because"):
        if outcome.get("alias") == "champion":
            return f"{version} is in use, but a naive rule speaks in place of its model: {because}"
        return f"{version} is not used: {because}"
    if outcome.get("promoted"):
        return f"{version} is the new champion: it scores from now on.{_behind(outcome)}"
    return f"{version} was trained but not promoted" + (": this was a dry run." if outcome.get("dry_run") else ".")


def _behind(outcome: Mapping[str, Any]) -> str:
    """Say where the best naive rule did better than the model that scores, by no more than chance."""
    rule = str(outcome.get("best_rule"))
    skill = (outcome.get("metrics") or {}).get(f"bss_{rule}")
    if skill is None or skill >= 0:
        return ""
    return (
        f" On the walk-forward the naive rule {rule.replace('_', ' ')} did better, by no more than chance may do: "
        f"Brier skill of the model over it {skill:+.1%}."
    )


def _one_outcome(measured: Mapping[str, Any], screen: Console) -> None:
    """Say why there is no skill where all that was judged had one outcome."""
    if measured.get("prevalence") in (0, 1):
        what = "All" if measured["prevalence"] else "None"
        screen.print(f"  [dim]{what} of them came true: there is nothing to tell apart, so no skill.[/]")


def _skill(title: str, outcome: Mapping[str, Any], mine: Mapping[str, Any], rules: Mapping[str, Any]) -> Table:
    rows = outcome.get("rows")
    counts = rows if isinstance(rows, Mapping) else {"rows": rows}
    facts = [
        *(f"{n:,} {name}" for name, n in counts.items() if isinstance(n, int)),
        _said("{:.1%} come true", mine.get("prevalence")),
    ]
    about = f"[bold]{escape(title)}[/]  [dim]{escape(', '.join(filter(None, facts)))}[/]"
    table = Table(title=about, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2))
    table.add_column("", overflow="fold")
    for head, _ in MEASURES.values():
        table.add_column(head, justify="right", no_wrap=True)
    table.add_row("model", *_measures(mine), style="bold")
    for name, measured in sorted(rules.items(), key=lambda r: -(r[1].get("pr_auc") or 0)):
        table.add_row(escape(name.replace("_", " ")), *_measures(measured))
    return table


def _measures(values: Mapping[str, Any]) -> list[str]:
    return [_said(form, values.get(name)) or "–" for name, (_, form) in MEASURES.items()]


def _said(form: str, value: Any) -> str:
    return form.format(value) if isinstance(value, int | float) and value == value else ""


def backtested(result: Mapping[str, Any], screen: Console) -> None:
    """Show how the replay did next to every rule, where it did best and worst, and who published."""
    if not result["metrics"]:
        screen.print(Text(f"{result['predicted']:,} predictions; {result['told']}", style="yellow"))
        return
    for event, found in (result.get("events") or {result["task"]: result}).items():
        counts = {"rows": {"judged": found["metrics"]["n"], "true": found["metrics"]["positives"]}}
        title = f"{TASKS.get(event, EVENTS.get(event, event))}, {result['from']} to {result['to']}"
        screen.print(_skill(title, counts, found["metrics"], found["rules"]))
        _one_outcome(found["metrics"], screen)
        screen.print(f"  [dim]{escape(_sure(found))}[/]\n")
    screen.print(_segments(result["segments"]))
    for event, by in result["published_by"].items():
        said = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in by.items())
        screen.print(f"[dim]{escape(f'{EVENTS[event]} published by: {said}')}[/]")
    if result.get("predictions"):
        screen.print(f"[dim]every prediction: {escape(result['predictions'])}[/]")


def tuned(result: Mapping[str, Any], screen: Console) -> None:
    """Show the best parameters found, and what they gain over the defaults."""
    skills = f"{result['skill']:+.2%}, the defaults {result['skill_of_defaults']:+.2%}"
    screen.print(f"[bold]{TASKS[result['task']]}[/]: best Brier skill of {result['trials']} trials {skills}")
    if not result["params"]:
        screen.print("  the defaults are best so far; nothing to change")
        return
    said = [f"[params.{result['task']}]", *(f"{k} = {v}" for k, v in result["params"].items())]
    written = result.get("written")
    screen.print(f"  written to {written}:" if written else "  to use them, put into bullwhip.toml (or add --write):")
    screen.print(escape("\n".join(f"  {line}" for line in said)))


def _sure(found: Mapping[str, Any]) -> str:
    rule = found["best_rule"]
    (low, high), skill = found["intervals"][f"bss_{rule}"], found["metrics"][f"bss_{rule}"]
    between = f" [{low:+.1%}, {high:+.1%}]" if low is not None else ""
    return f"Brier skill over the best rule, {rule.replace('_', ' ')}: {_said('{:+.1%}', skill) or '–'}{between}"


def _segments(segments: Iterable[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for head in ("segment", "", "rows", "true", "PR-AUC", "best rule", "its PR-AUC", "skill", "slope"):
        left = head in ("segment", "", "best rule")
        table.add_column(head, justify="left" if left else "right", no_wrap=True)
    for part in segments:
        table.add_row(
            f"{EVENTS[part['event']]} by {part['segment']}".replace("_", " "), escape(part["value"]), f"{part['n']:,}",
            _said("{:.1%}", part["prevalence"]), _said("{:.3f}", part["pr_auc"]), part["best_rule"].replace("_", " "),
            _said("{:.3f}", part["best_rule_pr_auc"]), _said("{:+.1%}", part["bss_best_rule"]),
            _said("{:.2f}", part["slope"]),
        )  # fmt: skip
    return table


def scored(result: Mapping[str, Any], currency: str, screen: Console) -> None:
    """Show what was published, in a few lines."""
    said = {"unchanged": "Nothing new for", "revised": "Revised", "published": "Published"}
    status = str(result.get("status", "published"))
    day, identity = result.get("as_of"), result.get("publication_id")
    screen.print(f"[bold]{said.get(status, status.capitalize())} the week of {day}[/]  [dim]{escape(str(identity))}[/]")
    if result.get("leads") is False:
        screen.print("  [yellow]a revision with newer data was published meanwhile: readers see that one[/]")
    risk = result.get("value_at_risk")
    if isinstance(risk, Mapping):
        before = result.get("value_at_risk_before") or {}
        for name, amount in risk.items():
            was = f", published so far {money(before[name])}" if name in before else ""
            screen.print(f"  {name.replace('_', ' ')}: {currency} {money(amount)} at risk{was}")
    elif risk is not None:
        screen.print(f"  {currency} {money(risk)} at risk")
    for line in changes(result):
        screen.print(Text(f"  {line}"), soft_wrap=True)
    for name, count in (result.get("rows") or {}).items():
        change = (result.get("changes") or {}).get(name)
        would = "  [dim]{added:,} added, {removed:,} removed, {changed:,} changed[/]".format(**change) if change else ""
        screen.print(f"  {count:>9,}  {name}{would}")
    models = result.get("models") or {}
    if models:
        shown = ", ".join(f"{k} {v.get('version', v) if isinstance(v, Mapping) else v}" for k, v in models.items())
        screen.print(f"  [dim]models: {escape(shown)}[/]")
    for made in (result.get("handouts") or {}).values():
        for warning in made.get("warnings", ()) if isinstance(made, Mapping) else ():
            screen.print(Text(f"  {warning}", style="yellow"))


def publications(ledger: pd.DataFrame, screen: Console) -> None:
    """Show the ledger, oldest week first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name, right in (("week", False), ("rev.", True), ("status", False), ("published, UTC", False),
                        ("data up to", False), ("rows", True), ("models", False), ("digest", False)):  # fmt: skip
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for line in ledger.to_dict("records"):
        published, until = (
            "" if pd.isna(t) else f"{t:%Y-%m-%d %H:%M}" for t in (line["published_at"], line["data_time"])
        )
        models = ", ".join(f"{task} {version}" for task, version in line["model_versions"].items())
        week, rows = f"{line['as_of']:%Y-%m-%d}", f"{sum(line['rows'].values()):,}"
        about = (escape(models), line["digest"][:12])
        table.add_row(week, str(line["revision"]), line["status"], published, until, rows, *about)
    screen.print(table)


def changes(result: Mapping[str, Any]) -> list[str]:
    """Return a line per risk: how value at risk has changed since the week before, and by what, largest part first."""
    told = []
    for risk, found in (result.get("change") or {}).items():
        parts = sorted(found["parts"].items(), key=lambda part: -abs(part[1]))
        said = ", ".join(f"{IN_WORDS[part]} {thousands(amount)}" for part, amount in parts if round(amount))
        name = "deliveries" if risk == "supplier_delay_risk" else "demand"
        told.append(f"{name} {thousands(found['change'])} since {result['since']}" + (f": {said}" if said else ""))
    return told


def thousands(amount: float) -> str:
    """Return a signed amount, in thousands from ten thousand on."""
    return f"{amount / 1000:+,.0f} k" if abs(amount) >= 10_000 else f"{amount:+z,.0f}"


def watchlist(rows: pd.DataFrame, total: int, currency: str, screen: Console) -> None:
    """Show the top risks: what, how likely, how much, why, and who does what by when."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), leading=1, expand=True)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("risk", ratio=10)
    table.add_column("chance", justify="right", no_wrap=True)
    table.add_column(f"at risk\n{currency}", justify="right", no_wrap=True)
    table.add_column("why", ratio=9)
    table.add_column("what to do", ratio=9)
    for row in rows.to_dict("records"):
        table.add_row(*_watched(row))
    if len(rows):
        screen.print(table)
    day = f" of {day_of(rows['as_of'].iloc[0])}" if "as_of" in rows and len(rows) else ""
    screen.print(f"[dim]{len(rows)} of {total:,} risks on the watchlist{day}. All columns with --json.[/]")


def _watched(row: Mapping[str, Any]) -> list[str | Text]:
    def got(name: str) -> str:
        value = row.get(name)
        return "" if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)) else str(value)

    places = " · ".join(filter(None, (got("kind"), got("supplier_id"), got("product_id"), got("site_id"))))
    level = got("level") or (f"tier {got('tier')}" if got("tier") else "")
    chance = Text(share(row.get("p")), style=LEVELS.get(level.lower(), ""))
    if level:
        chance.append(f"\n{level}", style="dim")
    drivers = [f"• {d}" for d in (got(f"driver_{i}") for i in (1, 2, 3)) if d] or [_no_why(got)]
    who = ", ".join(filter(None, (got("owner"), f"by {day_of(row.get('act_by'))}" if got("act_by") else "")))
    return [
        got("rank"),
        lines((got("what"), "bold"), (got("impact"), ""), (places, "dim")),
        chance,
        money(row.get("value_at_risk")),
        lines(*((driver, "") for driver in drivers)),
        lines((got("next_step"), ""), (who, "dim"), (got("change"), "cyan")),
    ]


def _no_why(got: Callable[[str], str]) -> str:
    """Say who spoke where there are no reasons."""
    from pipelines.board.wording import no_why, speaker  # brings what writes the page

    return no_why(got("kind"), speaker(got("published_by"))) if got("published_by") else ""


def lines(*styled: tuple[str, str]) -> Text:
    return Text("\n").join(Text(words, style=style) for words, style in styled if words)


def table(rows: pd.DataFrame, name: str, total: int, screen: Console) -> None:
    """Show any table: as many columns as fit, the names of the others below."""
    named = [c for c in rows.columns if c not in REPEATED]
    cells = {c: [cell(c, v) for v in rows[c]] for c in named}
    shown = _that_fit({c: max(map(cell_len, [_head(c), *cells[c]])) for c in named}, screen.width)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for column in shown:
        right = pd.api.types.is_numeric_dtype(rows[column])
        drawn.add_column(_head(column), justify="right" if right else "left", max_width=40, overflow="fold")
    for i in range(len(rows)):
        drawn.add_row(*(escape(cells[c][i]) for c in shown))
    screen.print(drawn)
    alike = [c for c in ("as_of", "model_version") if c in rows and rows[c].nunique(dropna=False) == 1]
    constant = [f"{c} {cell(c, rows[c].iloc[0])}" for c in alike if cell(c, rows[c].iloc[0])]
    hidden = [c for c in named if c not in shown]
    more = f" Further columns, with --json: {', '.join(hidden)}." if hidden else ""
    screen.print(f"[dim]{escape(', '.join([f'{len(rows)} of {total:,} rows of {name}', *constant]) + '.' + more)}[/]")


def _that_fit(widths: Mapping[str, int], room: int) -> list[str]:
    shown: list[str] = []
    for column, width in widths.items():
        room -= min(width, 40) + 3  # a blank on either side and one between two columns
        if room < 0 and shown:
            break
        shown.append(column)
    return shown


def _head(column: str) -> str:
    return column.replace("_", " ")


def cell(column: str, value: Any) -> str:
    """Return a value as a person writes it, by what its column name says it is."""
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return ""
    if hasattr(value, "strftime"):
        return day_of(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "yes" if value is True else "no" if value is False else str(value)
    if column.startswith("p_") or column == "p" or any(word in column for word in SHARE[1:]):
        return share(value)
    if any(word in column for word in MONEY):
        return money(value)
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:,.3g}"


def share(value: Any) -> str:
    """Return a probability in percent; never 0 % or 100 %, which nobody knows."""
    if not isinstance(value, int | float) or value != value:
        return ""
    return "<1 %" if 0 < value < 0.005 else ">99 %" if 0.995 < value < 1 else f"{value:.0%}".replace("%", " %")


def money(value: Any) -> str:
    """Return an amount with thousands separators, without cents."""
    return f"{value:,.0f}" if isinstance(value, int | float) and value == value else ""


def day_of(value: Any) -> str:
    if not hasattr(value, "strftime"):
        return str(value)[:10]
    midnight = not getattr(value, "hour", 0) and not getattr(value, "minute", 0)
    return value.strftime("%Y-%m-%d" if midnight else "%Y-%m-%d %H:%M")


def facts(pairs: Iterable[tuple[str, object]] | Mapping[str, object], screen: Console) -> None:
    """Show names and values side by side."""
    rows: Sequence[tuple[str, object]] = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
    wide = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        screen.print(Text(f"  {name:<{wide}}  {value}"), soft_wrap=True)
