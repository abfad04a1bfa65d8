"""Publish the weeks that were missed, in order, each as it would have been on its day, and then the week itself."""

from datetime import date, timedelta
from typing import Any

from prefect import flow

from features.contracts import ContractError
from pipelines.ledger import Target
from pipelines.score import score
from pipelines.settings import Settings, UserError
from pipelines.steps import stoppable
from pipelines.stores import store_of

WEEK = timedelta(weeks=1)


def in_order(
    settings: Settings, weeks: tuple[list[date], list[date]], *, as_of: date, dry_run: bool = False
) -> dict[str, Any]:
    """Score the weeks that `missed_weeks` found, oldest first, and then `as_of` itself.

    A week that is published already is left alone, except the last, which is held against today's facts. A missed week
    that cannot be scored, for want of a model of then or because its input was refused, is named and left out; if the
    last one cannot, that is the error. Returns what `bullwhip score --json` says of the last week, with `caught_up`
    and `refused`.
    """
    missed, out_of_reach = weeks
    caught_up, refused = [], []
    for day in missed:
        if day in published(settings.target):  # by somebody else in the meantime
            continue
        try:
            said = score(settings, as_of=day, dry_run=dry_run, late=True)
        except (UserError, ContractError) as error:
            if getattr(error, "exit_code", 1) not in (3, 4):
                raise
            refused.append({"as_of": day, "error": " ".join(str(error).split()), "exit_code": error.exit_code})
        else:
            caught_up.append({k: said[k] for k in ("as_of", "publication_id", "status", "models", "seconds")})
    last = score(settings, as_of=as_of, dry_run=dry_run)
    return {**last, "caught_up": caught_up, "refused": refused, "out_of_reach": out_of_reach}


catch_up = flow(name="catch-up", validate_parameters=False)(stoppable(in_order))


def score_week(settings: Settings, *, as_of: date, since: date | None = None, dry_run: bool = False) -> dict[str, Any]:
    """Score the weeks missed since the last publication, or since a day, and then `as_of`; see `in_order`.

    Only where a week was missed is this a flow of its own: one flow less to keep.
    """
    weeks = missed_weeks(settings, as_of, since)
    run = catch_up if weeks[0] else in_order
    return dict(run(settings, weeks, as_of=as_of, dry_run=dry_run))


def missed_weeks(settings: Settings, as_of: date, since: date | None = None) -> tuple[list[date], list[date]]:
    """Return the weeks before `as_of` that should have been published, oldest first, and those too far back to do so.

    Missed are the weeks after the last publication before `as_of`; with `since` those not published from that day on,
    however far back.
    """
    known = published(settings.target)
    last = max((day for day in known if day < as_of), default=None)
    begin = since or (last + WEEK if last else as_of)
    weeks = range(1, (as_of - begin) // WEEK + 1)
    due = [day for day in (as_of - n * WEEK for n in reversed(weeks)) if day not in known]
    reach = as_of - settings.catch_up_weeks * WEEK
    return [d for d in due if since or d >= reach], [d for d in due if not since and d < reach]


def published(target: Target) -> list[date]:
    """Return the days that have a publication."""
    with store_of(target).reading() as reader:
        return sorted({line.as_of for line in reader.ledger()})
