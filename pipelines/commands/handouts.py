"""Commands that hand a published week to people: as files for spreadsheets, as a digest in a mail or a channel."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pipelines.commands.common import HERE, Common, Flag, Week, settings_of
from pipelines.terminal import Answer, working

if TYPE_CHECKING:
    from rich.console import Console


def export(
    *,
    week: Week = None,
    format: Literal["xlsx", "csv"] = "xlsx",
    out: Path | None = None,
    table: Annotated[tuple[str, ...], Flag] = (),
    common: Common = HERE,
) -> Answer:
    """Write a published week for spreadsheets: one workbook, or a CSV file per table.

    Parameters
    ----------
    week
        An earlier week; the latest if left out.
    format
        One workbook, or a file per table.
    out
        The workbook, or the folder for CSV files; left out, export/ in the workspace.
    table
        Only this table; may be repeated.
    """
    settings = settings_of(common)
    from pipelines.exports import export as write_files

    with working("writing"):
        paths = write_files(settings, week=week, form=format, out=out, tables=table)

    def shown(screen: "Console") -> None:
        for path in paths:
            screen.print(f"written {path}", markup=False, soft_wrap=True)

    return Answer({"files": [str(path) for path in paths]}, shown)


def digest(
    *,
    week: Week = None,
    send: Annotated[bool, Flag] = False,
    format: Literal["md", "html", "slack", "teams"] = "md",
    common: Common = HERE,
) -> Answer:
    """Say in a few lines what a published week comes to: totals, change, warnings, the ten risks to look at first.

    Parameters
    ----------
    week
        An earlier week; the latest if left out.
    send
        Send it to everybody named in the settings who has not got it, also where a killed run left that in doubt.
    format
        What to print: Markdown, the mail, or the message for a channel.
    """
    settings = settings_of(common)
    from pipelines import delivery
    from pipelines.digest import digest as digest_of
    from pipelines.digest_forms import written

    found = digest_of(settings, week)
    text = written(found, format)
    values = {"publication_id": found.publication_id, "as_of": found.as_of, "value_at_risk": dict(found.totals)}
    if not send:
        return Answer(values | {"text": text}, lambda screen: screen.out(text, highlight=False, end=""))
    with working("sending"):
        outcome = delivery.send_by_hand(settings, found)
    failed = delivery.told(outcome)

    def shown(screen: "Console") -> None:
        for name, said in outcome.items():
            screen.print(" ".join(filter(None, (f"{name}: {said['state']}", said["why"]))), markup=False)

    undelivered = any(said["state"] != delivery.SENT for said in outcome.values())
    return Answer(values | {"receivers": outcome}, shown, 6 if undelivered else 0, "; ".join(failed))
