"""Commands around the published week: score it, show it."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pipelines.commands.common import HERE, Common, Count, Day, Flag, Week, settings_of, warming_up
from pipelines.commands.operations import weekly
from pipelines.terminal import Answer, working

if TYPE_CHECKING:
    from rich.console import Console


def score(*, as_of: Day | None = None, dry_run: Annotated[bool, Flag] = False, common: Common = HERE) -> Answer:
    """Publish the risk tables of the week, after any that were missed; the same week again changes nothing.

    Parameters
    ----------
    as_of
        Score this day and no other; left out: Monday of this week, after the weeks that were missed.
    dry_run
        Say what would change: rows added, removed and changed per table, and the totals before and after.
    """
    settings = settings_of(common, as_of=as_of)
    if as_of is None:
        return weekly(settings, dry_run=dry_run)
    ready = warming_up(settings)
    from pipelines.score import score as run_scoring

    with working(f"scoring {as_of}"):
        ready()
        result = run_scoring(settings, as_of=as_of, dry_run=dry_run)
    from pipelines import screen as screens

    return Answer(dict(result), lambda s: screens.scored(result, settings.currency, s))


def board(
    *,
    week: Week = None,
    open_it: Annotated[bool, Parameter(name="--open", negative="", show_default=False)] = False,
    common: Common = HERE,
) -> Answer:
    """Write the page of a published week, and say where it is: one file that opens anywhere.

    Parameters
    ----------
    week
        An earlier week; the latest if left out.
    open_it
        Open it in the browser.
    """
    settings = settings_of(common)
    from pipelines import board as boards

    with working("writing the board"):
        path = boards.write(settings, week)
    if open_it:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    values = {"as_of": path.stem, "path": str(path), "current": str(path.with_name(boards.INDEX)), "opened": open_it}
    return Answer(values, lambda screen: screen.print(str(path), soft_wrap=True, markup=False))


def show(*, table: str = "watchlist", top: Count = 10, week: Week = None, common: Common = HERE) -> Answer:
    """Show the latest published week: what to worry about, and what to do first.

    Parameters
    ----------
    table
        supplier_delay_risk, demand_shift_risk, supplier_risk, watchlist, weekly_change, rule_forecasts, track_record or
        health.
    top
        How many rows; 0 for all.
    week
        An earlier week; the latest if left out.
    """
    settings = settings_of(common)
    from pipelines import publish, stories
    from pipelines import screen as screens

    frame = publish.read(settings.target, table, as_of=week)
    rows = frame.head(top) if top else frame

    def shown(screen: "Console") -> None:
        if table == "watchlist":
            screens.watchlist(rows, len(frame), settings.currency, screen)
        elif table == "weekly_change":
            stories.weekly_change(rows, len(frame), settings.currency, screen)
        else:
            screens.table(rows, table, len(frame), screen)

    return Answer({"table": table, "total_rows": len(frame), "rows": rows}, shown)


def explain(row: str, /, *, week: Week = None, common: Common = HERE) -> Answer:
    """Tell all about one published row: facts, inputs, drivers, rules, and whether it comes out again.

    Parameters
    ----------
    row
        The row_id of a risk table, in quotes: a purchase line, or 'product|site|wN'.
    week
        An earlier week; the latest if left out.
    """
    settings = settings_of(common)
    with working(f"recomputing {row}"):
        from pipelines.explain import explain as tell

        story = tell(settings, row, week)
    from pipelines import stories

    return Answer(story, lambda screen: stories.explained(story, settings.currency, screen))


def publications(*, grant_reader: str | None = None, common: Common = HERE) -> Answer:
    """List what was published, oldest week first.

    Parameters
    ----------
    grant_reader
        First let this PostgreSQL role read the views, and nothing else.
    """
    settings = settings_of(common)
    from pipelines import publish as publishing
    from pipelines import screen as screens

    if grant_reader:
        publishing.grant_reader(settings.target, grant_reader)
    ledger = publishing.publications(settings.target)
    values = {"target": str(settings.target), "publications": ledger}
    return Answer(
        values | ({"granted": grant_reader} if grant_reader else {}), lambda s: screens.publications(ledger, s)
    )


def publish(
    *,
    week: Annotated[Day, Parameter(name="--from")],
    source: Annotated[str, Parameter(env_var="BULLWHIP_SOURCE")] = "",
    dry_run: Annotated[bool, Flag] = False,
    common: Common = HERE,
) -> Answer:
    """Publish a week again that was published before: to move to another target, or after a loss.

    Parameters
    ----------
    week
        The day the week was published for.
    source
        Where it is: a workspace or a database URL; left out, this workspace.
    dry_run
        Say what would change.
    """
    settings = settings_of(common)
    from pathlib import Path

    from pipelines import publish as publishing
    from pipelines import screen as screens
    from pipelines.settings import DataSource, UserError

    place = DataSource(source) if "://" in source else Path(source or settings.workspace)
    if isinstance(place, Path) and not place.is_dir():
        raise UserError(f"--source is {place}, and there is no such folder; expected a workspace or a database URL")
    with working(f"publishing {week}"):
        done = publishing.again(place, settings.target, week, published_at=datetime.now(UTC), dry_run=dry_run)
    result = publishing.summary(done)
    return Answer(result, lambda s: screens.scored(result, settings.currency, s))
