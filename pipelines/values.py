"""Kinds of values that settings have beyond numbers and words: a country, a time zone, a line of cron."""

import re
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (OSError, LookupError, ValueError):
        raise ValueError("no time zone") from None
    return value


def _cron(value: str) -> str:
    if value and not re.fullmatch(r"([\w*/,#-]+ ){4}[\w*/,#-]+", value):
        raise ValueError("no cron line")
    return value


Country = Annotated[str, Field(pattern="^([A-Z]{2})?$")]
"""Whether its holidays are known is seen where facts are read: asking takes a tenth of a second."""
TimeZone = Annotated[str, AfterValidator(_zone)]
Cron = Annotated[str, AfterValidator(_cron)]
