"""Commands that make a workspace and look at what is in it."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from pipelines.commands.common import HERE, Common, Count, Day, refuse_a_file, settings_of
from pipelines.terminal import Answer, working

if TYPE_CHECKING:
    from rich.console import Console


def init(*, common: Common = HERE) -> Answer:
    """Make a workspace: a bullwhip.toml that explains every key, and a folder for the data."""
    from pipelines.settings import FILE
    from pipelines.settings_file import template

    refuse_a_file(common.workspace)
    written = _write_new(common.workspace / FILE, template())
    (common.workspace / "data").mkdir(parents=True, exist_ok=True)
    values = {"workspace": str(common.workspace.resolve()), "written": written}

    def show(screen: "Console") -> None:
        screen.print(f"{'Wrote' if written else 'Left as it is:'} {common.workspace / FILE}", soft_wrap=True)
        where = "" if common.workspace == Path() else f" --workspace {common.workspace}"
        screen.print(f"Next: put the tables into {common.workspace / 'data'} (docs/data.md says which), or name a"
                     f" database in {FILE}; then: bullwhip check{where}", soft_wrap=True)  # fmt: skip

    return Answer(values, show)


def simulate(
    *, scale: str | None = None, seed: Count | None = None, end: Day | None = None, shifts: str | None = None,
    busy: Annotated[float | None, Parameter(validator=Number(gt=0, lte=100))] = None, common: Common = HERE,
) -> Answer:  # fmt: skip
    """Write a synthetic supply chain whose truth is known, to try everything on.

    Parameters
    ----------
    scale
        Size of the chain: toy, demo, large, or so many times the demo; demo if left out.
    seed
        Another seed is another chain; 7 if left out.
    end
        The day the world ends, for which predictions are made; 2026-06-01 if left out.
    shifts
        What is planted in demand: usual, none, or a number such as 0.3, a step of ±30 % in half of the steady series.
    busy
        How many times as often as usual customers order; 1 if left out.
    """
    from pipelines.settings import FILE, UserError
    from pipelines.settings_file import template

    workspace = common.workspace
    refuse_a_file(workspace)
    if any((workspace / "data").glob("*")) and not (workspace / "truth").is_dir():
        raise UserError(f"{workspace / 'data'} holds tables that were not simulated; name another --workspace")
    result = _simulated(workspace, scale=_size(scale), seed=seed, end=end, shifts=_planted(shifts), busy=busy)
    until = date.fromisoformat(result["end"])
    text = template({"as_of": until, "country": result.get("country", "")})
    text = text.replace("\nas_of =", "\n# A simulated world stands still: this is the day it ends.\nas_of =")
    values = {"workspace": str(workspace.resolve()), "written": _write_new(workspace / FILE, text)} | result
    return Answer(values, lambda screen: _show_world(values, workspace, screen))


def _size(scale: str | None) -> str | float | None:
    """Return a named size or a multiple."""
    from pipelines.simulate import size_of

    return _name_or_number(scale, size_of)


def _planted(shifts: str | None) -> str | float | None:
    """Return which shifts to plant, by name or by their size."""
    from pipelines.simulate import step_of

    return _name_or_number(shifts, step_of)


def _name_or_number(given: str | None, known: Callable[[str | float], Any]) -> str | float | None:
    """Return what a flag holds, refused in one line where `known` does not know it."""
    from pipelines.settings import UserError

    if given is None:
        return None
    value = float(given) if given.replace(".", "", 1).isdigit() else given
    try:
        known(value)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    return value


def _simulated(workspace: Path, **given: Any) -> dict[str, Any]:
    from pipelines import simulate as simulator

    with working("simulating") as progress:
        return simulator.simulate(workspace, **{k: v for k, v in given.items() if v is not None}, progress=progress)


def _show_world(values: dict[str, Any], workspace: Path, screen: "Console") -> None:
    from pipelines import screen as screens
    from pipelines.settings import FILE, load

    screen.print(f"[bold]A simulated supply chain until {values['end']}[/], in {workspace / 'data'}", soft_wrap=True)
    counts = {k: v for k, v in values.get("counts", {}).items() if "windows" not in k}
    screens.facts({k.replace("_", " "): f"{v:>10,}" for k, v in counts.items()}, screen)
    stands = load(workspace, environ={}).as_of
    if not values["written"] and str(stands) != values["end"]:
        screen.print(f"[yellow]{workspace / FILE} was left as it is: its as_of is {stands}.[/]", soft_wrap=True)


def check(*, common: Common = HERE) -> Answer:
    """Hold the input tables to their contract: rows, quarantined rows and why, days covered."""
    settings = settings_of(common)
    from pipelines import check as checker

    with working("checking the tables"):
        outcome = checker.check(settings, now=datetime.now(UTC))

    def show(screen: "Console") -> None:
        if (report := checker.report(outcome)) is not None:
            screen.print(report)

    said = "" if outcome.ok else str(outcome.error)
    return Answer(dict(outcome.as_dict()), show, 0 if outcome.ok else 3, said, said.partition(": ")[0])


def _write_new(path: Path, text: str) -> list[str]:
    """Write a file unless there is one, and say which files were written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return []
    return [str(path)]
