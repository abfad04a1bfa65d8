"""Say in one page whether the input tables hold to their contract: what came, what was refused and why."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from features.contracts import TABLES, Breach, ContractError, Verdict
from pipelines.settings import Settings
from pipelines.sources import load

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}
REASONS = 8
"""How many reasons of one table are printed; all are counted in the quarantine file."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `check` found. `error` carries what must be put right before anything can run."""

    verdicts: tuple[Verdict, ...]
    quarantine: Path
    error: ContractError | None = None

    @property
    def ok(self) -> bool:
        return self.error is None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; tables by name."""
        return {
            "ok": self.ok,
            "tables": {v.table: v.as_dict() for v in self.verdicts},
            "quarantine": str(self.quarantine) if any(v.quarantined for v in self.verdicts) else None,
        }


def check(settings: Settings, *, now: datetime) -> Outcome:
    """Read every table and hold it to its contract. A broken contract is an outcome; no data at all still raises."""
    folder = settings.workspace / "quarantine"
    try:
        con, verdicts = load(settings, now=now)
    except ContractError as error:
        return Outcome(error.verdicts or _unread(error), folder, error)
    con.close()
    return Outcome(verdicts, folder)


def _unread(error: ContractError) -> tuple[Verdict, ...]:
    """Return one verdict for every table that could not even be opened."""
    names = [t.name for t in TABLES if any(b.table == t.name for b in error.breaches)]
    return tuple(Verdict(n, breaches=tuple(b for b in error.breaches if b.table == n)) for n in names)


def level(verdict: Verdict) -> str:
    """Return ok, warning (something was set aside or looks odd) or error."""
    return "error" if verdict.errors else "warning" if verdict.breaches or verdict.quarantined else "ok"


def report(outcome: Outcome) -> RenderableType:
    """Return the page: one line per table, then what is wrong with which, then the sum."""
    details = [_details(v) for v in outcome.verdicts if v.breaches or v.reasons]
    return Group(_overview(outcome.verdicts), _absent(outcome), *details, Text(), _sum(outcome))


def _overview(verdicts: tuple[Verdict, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("table", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("quarantined", justify="right", no_wrap=True)
    table.add_column("days covered", no_wrap=True)
    table.add_column("weeks", justify="right", no_wrap=True)
    table.add_column("covers", overflow="fold")
    table.add_column("known after", no_wrap=True)
    for v in verdicts:
        mark, style = MARKS[level(v)]
        share = (
            Text(f"{v.quarantined:,} ({v.quarantined / v.rows:.1%})", "yellow") if v.quarantined else Text("–", "dim")
        )
        days = f"{v.first_day} … {v.last_day}" if v.first_day else ""
        table.add_row(
            Text(mark, f"bold {style}"), v.table, f"{v.rows:,}" if v.rows else "", share if v.rows else "", days,
            f"{v.weeks:,}" if v.weeks else "", _entities(v), _latency(v),
        )  # fmt: skip
    return table


def _entities(verdict: Verdict) -> str:
    names = {n.removesuffix("_id"): count for n, count in verdict.entities.items()}
    lines = [""]
    for item in (f"{count:,} {name}{'s' if count != 1 else ''}" for name, count in names.items()):
        if lines[-1] and len(lines[-1]) + len(item) > 24:
            lines.append("")
        lines[-1] += (", " if lines[-1] else "") + item
    return "\n".join(lines)


def _latency(verdict: Verdict) -> str:
    """Say how long after the event half and 95 % of the rows became known."""
    said = [_days(h) for h in (verdict.known_at_latency_p50_hours, verdict.known_at_latency_p95_hours) if h is not None]
    return "" if not said else said[0] if len(set(said)) == 1 else f"{said[0]}, 95 % {said[1]}"


def _days(hours: float) -> str:
    return "at once" if hours == 0 else f"{hours:.0f} h" if abs(hours) < 24 else f"{hours / 24:.3g} d"


def _absent(outcome: Outcome) -> Text:
    came = {v.table for v in outcome.verdicts}
    missing = [t.name for t in TABLES if t.name not in came]
    return Text(f"   not there: {', '.join(missing)}" if missing and came else "", "dim")


def _details(verdict: Verdict) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True, min_width=11)
    grid.add_column(overflow="fold")
    for breach in verdict.breaches:
        mark, style = MARKS[breach.severity]
        grid.add_row(Text(mark, f"bold {style}"), _said(breach))
    reasons = sorted(verdict.reasons.items(), key=lambda r: -r[1])
    for reason, count in reasons[:REASONS]:
        grid.add_row(Text(f"{count:,}", "yellow"), Text(reason))
    if len(reasons) > REASONS:
        grid.add_row("", Text(f"and {len(reasons) - REASONS} more reasons", "dim"))
    return Group(Text(f"\n{verdict.table}", "bold"), grid)


def _said(breach: Breach) -> Text:
    return Text.assemble((f"{breach.column}: ", "bold") if breach.column else "", breach.message)


def _sum(outcome: Outcome) -> Text:
    refused = sum(v.quarantined for v in outcome.verdicts)
    rows = "1 row is set aside with its" if refused == 1 else f"{refused:,} rows are set aside with their"
    where = f" {rows} reasons in {outcome.quarantine}." if refused else ""
    if outcome.error is None:
        return Text(f"✓ The tables hold to their contract.{where}", "green")
    many = len(outcome.error.breaches)
    said = "1 breach must" if many == 1 else f"{many} breaches must"
    how = " How to map other columns, dates and numbers: docs/data.md, From what you have." if _foreign(outcome) else ""
    return Text(f"✗ {said} be put right before anything can run.{where}{how}", "red")


def _foreign(outcome: Outcome) -> bool:
    """Whether a table has other columns, or other dates and numbers, than the contract's."""
    said = [b.message for v in outcome.verdicts for b in v.errors]
    return any(s.startswith(("the column is", "not one of", "none of the files")) or "no UTF-8" in s for s in said)
