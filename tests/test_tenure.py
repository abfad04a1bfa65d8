"""Which version scores a day: a table of decisions and days."""

from datetime import date

import pytest

from models.tenure import Decided, champion_of, decided, with_decision


def version(number, cut, *decisions):
    tags = {"cut": cut}
    for what, since in decisions:
        tags |= with_decision(tags, Decided(what, since, f"{since}T08:00:00+00:00", f"{what} {number}"))
    return {"version": str(number), "tags": tags}


FIRST = version(1, "2026-01-05", ("promoted", "2026-01-05"))
SECOND = version(2, "2026-03-02", ("promoted", "2026-03-02"))
BACK = version(2, "2026-03-02", ("promoted", "2026-03-02"), ("rolled back", "2026-03-16"))
AGAIN = version(1, "2026-01-05", ("promoted", "2026-01-05"), ("promoted", "2026-03-16"))
LATE = version(3, "2026-01-12", ("promoted", "2026-04-06"))
OLDER = version(4, "2025-12-01", ("promoted", "2025-12-01"))
CHALLENGER = version(5, "2026-02-02")
TWICE = version(2, "2026-03-02", ("promoted", "2026-03-02"), ("rolled back", "2026-03-16"), ("promoted", "2026-05-04"))
BEFORE_DECISIONS = {"version": "1", "tags": {"cut": "2026-01-05", "promoted_at": "2026-11-23T00:00:00+00:00"}}
HINDSIGHT = version(6, "2026-03-02", ("promoted", "2026-01-05"))


@pytest.mark.parametrize(("versions", "day", "expected"), [
    ([], "2026-06-01", None),
    ([CHALLENGER], "2026-06-01", None),
    ([FIRST], "2026-01-04", None),
    ([FIRST], "2026-01-05", "1"),
    ([FIRST, SECOND], "2026-03-01", "1"),
    ([FIRST, SECOND], "2026-03-02", "2"),
    ([FIRST, SECOND, OLDER], "2026-06-01", "2"),  # trained later about an older day: it scores what comes before
    ([FIRST, SECOND, OLDER], "2026-01-04", "4"),
    ([FIRST, BACK], "2026-03-09", "1"),  # rolled back: not chosen for any day
    ([BACK], "2026-03-09", None),
    ([AGAIN, SECOND], "2026-03-09", "2"),
    ([AGAIN, SECOND], "2026-03-16", "1"),
    ([FIRST, LATE], "2026-04-05", "1"),  # promoted on a later day than its training was about
    ([FIRST, LATE], "2026-04-06", "3"),
    ([FIRST, TWICE], "2026-04-06", "1"),
    ([FIRST, TWICE], "2026-05-04", "2"),
    ([BEFORE_DECISIONS], "2026-01-05", "1"),
    ([BEFORE_DECISIONS], "2026-01-04", None),
    ([HINDSIGHT], "2026-02-02", None),
])  # fmt: skip
def test_the_version_that_scores_a_day(versions, day, expected):
    found = champion_of(versions, date.fromisoformat(day))
    assert (found and found["version"]) == expected
    assert champion_of(versions[::-1], date.fromisoformat(day)) == found


def test_decisions_keep_their_reasons_in_order():
    assert [(d.what, d.because) for d in decided(TWICE["tags"])] == [
        ("promoted", "promoted 2"), ("rolled back", "rolled back 2"), ("promoted", "promoted 2"),
    ]  # fmt: skip
    assert TWICE["tags"]["rolled_back_because"] == "rolled back 2"
