"""Which version of a model was champion on a day? Read from what was decided about each version, and when."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal

What = Literal["promoted", "rolled back"]
PROMOTED: What = "promoted"
ROLLED_BACK: What = "rolled back"
FOREVER = date.max


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision about a version: it scores from the day `since` on, or never again; `at` is when that was said."""

    what: What
    since: str
    at: str
    because: str


def decided(tags: Mapping[str, str]) -> list[Decided]:
    """Return the decisions about a version, the first one first, from its tags.

    A version promoted before decisions were kept scores since its cut.
    """
    if "decisions" in tags:
        return [Decided(**said) for said in json.loads(tags["decisions"])]
    if "promoted_at" in tags:
        return [Decided(PROMOTED, tags.get("cut", ""), tags["promoted_at"], tags.get("promoted_because", ""))]
    return []


def with_decision(tags: Mapping[str, str], new: Decided) -> dict[str, str]:
    """Return the tags that change when one more decision is made about a version."""
    all_of_them = [*decided(tags), new]
    stem = new.what.replace(" ", "_")
    return {
        "decisions": json.dumps([asdict(d) for d in all_of_them]), f"{stem}_at": new.at, f"{stem}_because": new.because,
    }  # fmt: skip


def champion_of(versions: Iterable[Mapping[str, Any]], day: date = FOREVER) -> Mapping[str, Any] | None:
    """Return the version that scores `day`: of those promoted by then the one promoted last, None without one.

    It must not have learnt from the day or from later ones, nor been rolled back, whenever that was: nobody wants the
    forecasts of a model that failed. `versions` have version and tags.
    """
    standing = [(since, int(v["version"]), v) for v in versions if (since := _since(v["tags"], day)) is not None]
    return max(standing, key=lambda found: found[:2])[2] if standing else None


def _since(tags: Mapping[str, str], day: date) -> str | None:
    """Return the last day, up to `day`, from which a version was to score; None where it does not."""
    known = decided(tags)
    last = max((k for k, d in enumerate(known) if d.what == ROLLED_BACK), default=-1)
    begun = [d.since for d in known[last + 1 :] if d.since <= day.isoformat()]
    learnt_before = tags.get("cut", "") <= day.isoformat()
    return max(begun) if begun and learnt_before else None
