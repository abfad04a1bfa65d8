"""Show a person which models there are, how two of them differ, and what was decided."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.screen import EVENTS, MEASURES, TASKS, share

ALARM = {"watch": "yellow", "act": "bold red"}
LISTED = 10  # changes of the list that are shown; all are in --json


def compared(tasks: Sequence[Mapping[str, Any]], screen: Console) -> None:
    """Show per task two versions next to each other."""
    for found in tasks:
        a, b = found["a"], found["b"]
        screen.print(f"[bold]{TASKS[found['task']]}[/]: a is version {a['version']}, b is version {b['version']}")
        screen.print(_measured(found))
        for event in found["events"]:
            screen.print(f"  {escape(_skill(event))}")
        if not found["events"]:
            screen.print("  [yellow]no prediction was made by both before its outcome was known[/]")
        _list(found["list"], screen)


def _measured(found: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2))
    for k, head in enumerate(("", "a", "b")):
        table.add_column(head, justify="left" if k == 0 else "right", no_wrap=True)
    for name, about in (("cut", "learnt until"), ("inputs", "inputs"), ("seconds_to_learn", "seconds to learn")):
        table.add_row(about, *(_or_dash(found[m][name]) for m in ("a", "b")))
    if found["seconds"]:
        table.add_row("seconds to predict today", *(f"{found['seconds'][m]['predict']:.2f}" for m in ("a", "b")))
    for event in found["events"]:
        for name in ("brier", "pr_auc", "slope", "ece"):
            head, form = MEASURES[name]
            cells = ("–" if event[m][name] is None else form.format(event[m][name]) for m in ("a", "b"))
            table.add_row(f"{EVENTS[event['event']]}: {head}", *cells)
    return table


def _or_dash(value: object) -> str:
    return "–" if value is None else str(value)


def _skill(event: Mapping[str, Any]) -> str:
    (low, high), skill = event["interval"], event["skill_of_b_over_a"]
    between = f" [{low:+.1%}, {high:+.1%}]" if low is not None else ""
    said = f"{skill:+.1%}{between}" if skill is not None else "cannot be told"
    return (
        f"{EVENTS[event['event']]}: Brier skill of b over a {said} on {event['n']:,} matured predictions, "
        f"{event['positives']:,} true, of {event['weeks']} weeks; better: {event['better']}"
    )


def _list(found: Mapping[str, Any] | None, screen: Console) -> None:
    if not found:
        return
    screen.print(f"  of today's top {found['k']}, {found['in_both']} are on both lists")
    for row in found["changes"][:LISTED]:
        screen.print(f"    {row['change']:>5}  {escape(row['row_id'])}  {share(row['p_a'])} → {share(row['p_b'])}")
    screen.print()


def listed(known: Sequence[Mapping[str, Any]], screen: Console) -> None:
    """Show every version, and below it what was decided."""
    if not known:
        screen.print("No model is trained yet; run bullwhip train")
    for task in dict.fromkeys(v["task"] for v in known):
        screen.print(f"[bold]{TASKS[task]}[/]")
        for version in (v for v in known if v["task"] == task):
            screen.print(f"  {escape(_version(version))}", style="bold" if version["champion"] else "")
            refused = version["refused_because"] or ""
            for said in [*version["decisions"], *([refused] if refused not in " ".join(version["decisions"]) else [])]:
                screen.print(f"      [dim]{escape(said)}[/]")


def _version(version: Mapping[str, Any]) -> str:
    names = ", ".join(["champion"] * version["champion"] + [a for a in version["aliases"] if a != "champion"])
    skill, rule = version["skill_over_best_rule"], version["best_rule"]
    worth = f", Brier skill {skill:+.1%} over {rule.replace('_', ' ')}" if skill is not None else ""
    return f"{version['version']:>3}  learnt until {version['cut']}{worth}  {names}"


def monitored(result: Mapping[str, Any], screen: Console) -> None:
    """Show what must be done or looked at, and how much is fine."""
    verdicts = result["verdicts"]
    screen.print(f"[bold]As of {result['as_of']}[/]: " + ", ".join(f"{n} {name}" for name, n in verdicts.items()))
    for row in result["health"].to_dict("records"):
        if row["verdict"] != "ok":
            said = f"{escape(row['subject'])}: {escape(row['reason'])}"
            screen.print(f"  [{ALARM[row['verdict']]}]{row['verdict']:>5}[/]  {said}")
    for done in result["rolled_back"]:
        screen.print(f"{TASKS[done['task']]}: version {done['champion']} scores from now on. {escape(done['reason'])}")


def decided(result: Mapping[str, Any], screen: Console) -> None:
    """Say what scores from now on."""
    screen.print(f"{TASKS[result['task']]}: version {result['version']} {result['what']}, {escape(result['reason'])}")
    screen.print(f"  version {result['champion']} scores from {result['as_of']} on")
