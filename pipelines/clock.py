"""The clock, held against what is known: a machine that lives in the past must not choose the week by itself."""

from datetime import UTC, datetime, timedelta

from pipelines import publish, releases
from pipelines.settings import Settings, UserError

SLACK = timedelta(minutes=5)


def refuse_a_slow_clock(settings: Settings, now: datetime) -> None:
    """Raise UserError when it is earlier than the last publication, unless the day was said."""
    if settings.as_of is not None or releases.current(settings.workspace) is None:
        return
    last = publish.publications(settings.workspace)["published_at"].max()
    if last.to_pydatetime().replace(tzinfo=UTC) > now.astimezone(UTC) + SLACK:
        raise UserError(
            f"the clock says {now:%Y-%m-%d %H:%M} but {settings.workspace} was published at {last:%Y-%m-%d %H:%M} UTC: "
            f"set the clock, or say the day with --as-of"
        )
