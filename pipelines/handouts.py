"""Make what people open of a publication, once it is out; what failed is made by the next run."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pipelines import board, delivery
from pipelines.publish import Publication
from pipelines.settings import Settings
from pipelines.stores import held

Handout = Callable[[Settings, Publication], Any]


def board_page(settings: Settings, publication: Publication) -> str:
    """Write the page of the week, and return where it is."""
    return str(board.write(settings, publication.as_of))


HANDOUTS: Mapping[str, Handout] = MappingProxyType({"board": board_page, "digest": delivery.hand_out})
"""What is made of every publication, by name; each gives plain values that say what came of it, such as its path."""


def hand_out(settings: Settings, publication: Publication, *, late: bool = False) -> dict[str, Any]:
    """Make everything people open of a publication, an unchanged one too, and return by name what came of each.

    Of a `late` week, which another follows at once, nobody is sent a digest.
    """
    with held(settings.target):
        return {name: make(settings, publication) for name, make in HANDOUTS.items() if not late or name != "digest"}
