"""Commands that keep it running from week to week: catch up, monitor."""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pipelines.commands.common import HERE, Common, Day, Flag, settings_of, warming_up
from pipelines.terminal import Answer, working

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.settings import Settings


def catch_up(
    *,
    first: Annotated[Day | None, Parameter(name="--from")] = None,
    as_of: Day | None = None,
    dry_run: Annotated[bool, Flag] = False,
    common: Common = HERE,
) -> Answer:
    """Publish the weeks that were missed, in order, each with what was known and with the model of then.

    Parameters
    ----------
    first
        Fill every gap from this day on; left out: since the last publication.
    as_of
        The last week to publish; left out: Monday of this week.
    dry_run
        Say what would be published.
    """
    settings = settings_of(common, as_of=as_of)
    answer = weekly(settings, since=first, dry_run=dry_run)
    codes = [week["exit_code"] for week in answer.values["refused"]]
    refused = "; ".join(f"{week['as_of']} was left out: {week['error']}" for week in answer.values["refused"])
    return Answer(answer.values, answer.show, max(codes, default=0), refused)


def monitor(*, as_of: Day | None = None, dry_run: Annotated[bool, Flag] = False, common: Common = HERE) -> Answer:
    """Judge inputs, models and matured forecasts; a champion that fails is rolled back.

    Parameters
    ----------
    as_of
        The day on which it looks; left out: today.
    dry_run
        Say what is wrong, but roll nothing back.
    """
    settings = settings_of(common, as_of=as_of)
    ready = warming_up(settings)
    from pipelines.monitor import monitor as run_monitoring

    day = settings.as_of or datetime.now(UTC).date()
    with working(f"looking at what is known on {day}"):
        ready()
        result = dict(run_monitoring(settings, as_of=day, dry_run=dry_run))
    from pipelines import screen_models as screens

    return Answer(result, lambda screen: screens.monitored(result, screen))


def weekly(settings: "Settings", *, since: date | None = None, dry_run: bool = False) -> Answer:
    """Score the week of the settings after those that were missed."""
    ready = warming_up(settings)
    from pipelines.catch_up import score_week
    from pipelines.clock import refuse_a_slow_clock

    refuse_a_slow_clock(settings, now := datetime.now(UTC))
    day = settings.as_of_on(now.date())
    with working(f"scoring {day} and what was missed before it"):
        ready()
        result = score_week(settings, as_of=day, since=since, dry_run=dry_run)
    return Answer(result, lambda screen: _show(result, settings.currency, screen))


def _show(result: dict[str, Any], currency: str, screen: "Console") -> None:
    from rich.markup import escape

    from pipelines import screen as screens

    for week in result.get("caught_up", ()):
        screen.print(f"{week['status'].capitalize()} the missed week of {week['as_of']}", highlight=False)
    for week in result.get("refused", ()):
        screen.print(f"[yellow]The missed week of {week['as_of']} was left out: {escape(week['error'])}[/]")
    if far := result.get("out_of_reach"):
        screen.print(
            f"[yellow]{len(far)} weeks before {far[-1]} were missed too; to publish them:"
            f" bullwhip catch-up --from {far[0]}[/]"
        )
    screens.scored(result, currency, screen)
