"""Say in a few lines what a publication comes to: totals, change, warnings and the risks to look at first."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd

from models.change import RISKS
from pipelines import publish
from pipelines.published import Published, published, totals
from pipelines.screen import share
from pipelines.settings import Settings

TOP = 10
VERDICTS = ("act", "watch")


@dataclass(frozen=True, slots=True)
class Risk:
    """One row of the watchlist in words; `value` is None where no cost is known."""

    place: int
    what: str
    kind: str
    chance: str
    level: str
    impact: str
    value: float | None
    why: tuple[str, ...]
    next_step: str
    owner: str
    act_by: date
    change: str
    row_id: str


@dataclass(frozen=True, slots=True)
class Warned:
    """One line of the table `health` that is not in order."""

    verdict: str
    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class Digest:
    """What every form of the digest says; amounts are those of the published tables, to the cent."""

    publication_id: str
    as_of: date
    revision: int
    currency: str
    totals: Mapping[str, float]
    before: date | None
    change: float | None
    top: tuple[Risk, ...]
    listed: int
    warnings: tuple[Warned, ...]
    board: str
    latest: bool

    @property
    def board_is_a_page(self) -> bool:
        """Whether `board` is an address to click on; else it is the path of a file."""
        return self.board.startswith(("http://", "https://"))


def digest(settings: Settings, week: date | None = None) -> Digest:
    """Return the digest of the latest revision of a week, the latest week unless told which."""
    found = published(settings.target, week)
    then = {n: publish.previous_week(settings.target, n, found.as_of) for n in RISKS if n in found.tables}
    return compose(settings, found, then if found.before else {})


def compose(settings: Settings, found: Published, then: Mapping[str, pd.DataFrame]) -> Digest:
    """Return the digest of a publication; `then` are its tables of the week before, none when there was none."""
    watchlist = found.tables.get("watchlist", pd.DataFrame())
    known = {n: table for n, table in then.items() if "value_at_risk" in table}
    at_risk = found.totals()
    return Digest(
        publication_id=found.publication_id,
        as_of=found.as_of,
        revision=found.revision,
        currency=settings.currency,
        totals=at_risk,
        before=found.before if known else None,
        change=round(at_risk["preventable"] - totals(known)["preventable"], 2) if known else None,
        top=tuple(_risk(row) for row in watchlist.head(TOP).to_dict("records")),
        listed=len(watchlist),
        warnings=_warnings(found.tables.get("health", pd.DataFrame())),
        board=board(settings, found.as_of),
        latest=found.latest,
    )


def board(settings: Settings, as_of: date) -> str:
    """Return where the page of a week is: below `board_url` where that is set, else its file in the workspace."""
    page = f"{as_of.isoformat()}.html"
    return (
        f"{settings.board_url.rstrip('/')}/{page}" if settings.board_url else str(settings.workspace / "board" / page)
    )


def _risk(row: Mapping[Any, Any]) -> Risk:
    value = row.get("value_at_risk")
    return Risk(
        place=int(row["rank"]),
        what=_said(row["what"]),
        kind=_said(row["kind"]),
        chance=share(row["p"]),
        level=_said(row["level"]),
        impact=_said(row["impact"]),
        value=None if value is None or pd.isna(value) else float(value),
        why=tuple(filter(None, (_said(row.get(f"driver_{k}")) for k in (1, 2, 3)))),
        next_step=_said(row["next_step"]),
        owner=_said(row["owner"]),
        act_by=row["act_by"].date(),
        change=_said(row.get("change")),
        row_id=_said(row["row_id"]),
    )


def _said(value: Any) -> str:
    """Return one line of visible text: no line breaks, no control signs, none that turn the direction of writing."""
    text = "" if value is None or pd.isna(value) else str(value)
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split())).strip()


def _warnings(health: pd.DataFrame) -> tuple[Warned, ...]:
    rows = [] if health.empty else health[health["verdict"].isin(VERDICTS)].to_dict("records")
    told = [Warned(_said(row["verdict"]), _said(row["subject"]), _said(row["reason"])) for row in rows]
    return tuple(sorted(told, key=lambda w: VERDICTS.index(w.verdict)))
