"""What a published table and its columns are, and the kinds of columns that come again and again."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal

Kind = Literal["text", "integer", "number", "boolean", "day", "timestamp"]
KIND_ABOUT = MappingProxyType(
    {
        "text": "Text; empty text means there is nothing to say.",
        "integer": "A whole number.",
        "number": "A finite number; NaN never is published, missing is NULL.",
        "boolean": "true or false.",
        "day": "A day, as the timestamp of its midnight.",
        "timestamp": "A moment in UTC.",
    }
)
MONEY = "currency"
SHARE = "share"
P = "probability"


@dataclass(frozen=True, slots=True)
class Column:
    """One published column; a `*` in the name stands for what differs from case to case, such as the name of a rule."""

    name: str
    kind: Kind
    about: str
    unit: str = ""
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    one_of: tuple[str, ...] = ()

    @property
    def many(self) -> bool:
        return "*" in self.name


@dataclass(frozen=True, slots=True)
class Table:
    """One risk table; in a publication `key` tells its rows apart."""

    name: str
    about: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column | None:
        """Return the column of that name, the first pattern that fits it, or None."""
        return next((c for c in self.columns if c.name == name), None) or next(
            (c for c in self.columns if c.many and fnmatchcase(name, c.name)), None
        )

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that must be there: all but the patterns."""
        return tuple(c.name for c in self.columns if not c.many)


# Kinds of columns that come again and again


def text(name: str, about: str, one_of: tuple[str, ...] = (), *, nullable: bool = False) -> Column:
    return Column(name, "text", about, one_of=one_of, nullable=nullable)


def day(name: str, about: str, *, nullable: bool = False) -> Column:
    return Column(name, "day", about, nullable=nullable)


def number(name: str, about: str, unit: str, *, nullable: bool = False) -> Column:
    return Column(name, "number", about, unit, nullable)


def count(name: str, about: str, unit: str, *, at_least: int = 0, nullable: bool = False) -> Column:
    return Column(name, "integer", about, unit, nullable, minimum=at_least)


def share(name: str, about: str, unit: str = SHARE, *, nullable: bool = False) -> Column:
    return Column(name, "number", about, unit, nullable, 0, 1)


def money(name: str, about: str, *, nullable: bool = False) -> Column:
    return Column(name, "number", about, MONEY, nullable, minimum=0)


def signed_money(name: str, about: str) -> Column:
    return Column(name, "number", about, MONEY)


def drivers(of: str) -> tuple[Column, ...]:
    nth = ("first", "second", "third")
    return tuple(text(f"driver_{k + 1}", f"The {nth[k]} reason for {of}, in words; ▲ raises it.") for k in range(3))
