"""The clock, held against what is known: a machine that lives in the past must not choose the week by itself."""

from datetime import UTC, datetime, timedelta

from pipelines.settings import Settings, UserError
from pipelines.stores import store_of

SLACK = timedelta(minutes=5)


def refuse_a_slow_clock(settings: Settings, now: datetime) -> None:
    """Raise UserError when it is earlier than the last publication, unless the day was said."""
    if settings.as_of is not None:
        return
    with store_of(settings.target).reading() as reader:
        last = max((line.published_at for line in reader.ledger()), default=None)
    if last is not None and last.replace(tzinfo=UTC) > now.astimezone(UTC) + SLACK:
        raise UserError(
            f"the clock says {now:%Y-%m-%d %H:%M} but a week was published at {last:%Y-%m-%d %H:%M} UTC: "
            f"set the clock, or say the day with --as-of"
        )
