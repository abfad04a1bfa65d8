"""Verdicts: few, with reasons, raised by size and by lasting, never by chance alone."""

from datetime import date, datetime
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from features.contracts import ContractError
from features.freshness import Freshness, freshness, latency
from models import health
from models.health import ACT, OK, WATCH, LastWeek, as_table
from pipelines import monitor, registry, tracking
from pipelines.health import refuse_stale
from pipelines.settings import Settings, load

DAY, MAY = date(2026, 6, 1), datetime.fromisoformat("2026-05-01")
NEVER = LastWeek(pd.DataFrame())


def last(row_id, measured, version="1"):
    return LastWeek(pd.DataFrame({"row_id": [row_id], "measured": [measured], "model_version": [version]}))


# Inputs


@pytest.fixture
def weekly_receipts(facts):
    """Facts of a year: orders every day, receipts every week until three weeks before the day, one signal a month."""
    orders, receipts = pd.date_range("2025-06-01", "2026-05-31"), pd.date_range("2025-06-02", "2026-05-11", freq="7D")
    signals = pd.date_range("2025-05-01", "2026-05-01", freq="MS")
    con = facts()
    for k, day in enumerate(orders):
        con.execute(f"INSERT INTO orders (order_line_id, ordered_at, known_at) VALUES ('o{k}', '{day}', '{day}')")
    for k, day in enumerate(receipts):
        con.execute(f"INSERT INTO receipts (po_line_id, received_on, known_at) VALUES ('l{k}', '{day}', '{day}')")
    for day in signals:
        con.execute(f"INSERT INTO signals (signal, observed_on, known_at) VALUES ('fuel', '{day}', '{day}')")
    con.execute("INSERT INTO orders (order_line_id, ordered_at, known_at) VALUES ('later', '2026-06-01', '2026-06-01')")
    con.execute("INSERT INTO promises (po_line_id, known_at) VALUES ('l1', '2026-01-01')")
    return con


def test_the_usual_gap_is_learnt_and_nothing_later_counts(weekly_receipts):
    found = {(f.table, f.series): (f.days, f.usual_days) for f in freshness(weekly_receipts, DAY)}
    assert found == {("orders", ""): (1, 1), ("receipts", ""): (21, 7), ("signals", "fuel"): (31, 31),
                     ("promises", ""): (151, None)}  # fmt: skip
    assert latency(weekly_receipts, "receipts", "received_on", DAY, 52) == (0, 50)


def test_what_ended_years_ago_is_stale(weekly_receipts):
    found = {f.table: (f.days, f.usual_days) for f in freshness(weekly_receipts, date(2034, 6, 1))}
    assert found["receipts"] == ((date(2034, 6, 1) - date(2026, 5, 11)).days, 7)
    assert found["orders"] == ((date(2034, 6, 1) - date(2026, 6, 1)).days, 1)


@pytest.mark.parametrize(("days", "usual", "verdict"), [
    (1, 1, OK), (3, 1, OK), (3.1, 1, WATCH), (5, 1, WATCH), (5.1, 1, ACT), (14, 7, OK), (15.1, 7, WATCH), (30, 7, ACT),
    (400, None, OK),
])  # fmt: skip
def test_a_table_is_stale_by_what_is_usual_for_it(days, usual, verdict):
    found = health.stale(Freshness("receipts", "", MAY, days, usual))
    assert found.verdict == verdict
    assert ("still look open" in found.reason) == (verdict != OK)
    assert (found.row_id, found.last_known_at) == ("input|receipts", MAY)


@pytest.mark.parametrize(("tasks", "max_stale", "stops"), [
    (("delay", "shift"), 2.9, True), (("delay", "shift"), 3.0, False), (("shift",), 2.9, False),
], ids=str)  # fmt: skip
def test_a_table_a_task_rests_on_stops_the_run(weekly_receipts, tasks, max_stale, stops):
    world = SimpleNamespace(con=weekly_receipts, as_of=DAY, settings=Settings(tasks=tasks, max_stale=max_stale))
    if not stops:
        return refuse_stale(world)
    with pytest.raises(ContractError, match=r"receipts.known_at: nothing new since 2026-05-11 00:00, 21.0 days") as e:
        refuse_stale(world)
    assert e.value.exit_code == 3
    return None


@pytest.mark.parametrize(("quarantined", "verdict"), [(0, OK), (10, OK), (11, WATCH), (51, ACT)])
def test_refused_rows_are_told_by_their_share(quarantined, verdict):
    assert health.refused("orders", 1000, quarantined).verdict == verdict


@pytest.mark.parametrize(("quarantined", "twice", "verdict"), [(400, 400, WATCH), (400, 351, WATCH), (400, 349, ACT)])
def test_a_file_that_came_twice_is_no_reason_to_trust_no_number(quarantined, twice, verdict):
    found = health.refused("orders", 1000, quarantined, twice)
    assert found.verdict == verdict
    assert f"{twice} of them second copies" in found.reason


@pytest.mark.parametrize(("recent", "verdict"), [(5, OK), (8, OK), (8.1, WATCH)])
def test_facts_that_come_later_than_they_used_to(recent, verdict):
    assert health.slower("receipts", recent, 4.0).verdict == verdict


# Models


def test_a_champion_that_failed_its_gate_or_is_old_or_missing_is_named():
    assert health.gate("delay", "3", None).verdict == OK
    failed = health.gate("delay", "3", "the naive rule x is better")
    assert (failed.verdict, failed.model_version) == (WATCH, "3")
    assert "since nothing better exists: the naive rule x" in failed.reason
    assert [health.age("delay", "3", weeks).verdict for weeks in (13, 14, 27)] == [OK, WATCH, ACT]
    assert "bullwhip train --task shift --as-of 2026-06-01" in health.nobody("shift", DAY).reason


X = pd.DataFrame({"a": np.linspace(0, 1, 201, dtype="float32"), "b": np.linspace(5, 9, 201, dtype="float32")})
LEARNT = health.main_inputs(X, pd.Series({"a": 0.7, "b": 0.2, "gone": 0.1}))


@pytest.mark.parametrize(("move_a", "move_b", "moved", "last", "verdict"), [
    (0, 0, 2.0, 0.5, OK),  # the inputs are where they were
    (0, 9, 2.0, 0.5, WATCH),
    (9, 9, 0.4, 0.5, OK),  # they left, but the forecasts did not
    (9, 0, 0.6, 0.1, OK),  # for the first week
    (9, 0, -0.6, 0.5, WATCH),
    (9, 0, 0.6, None, OK),
])  # fmt: skip
def test_drift_counts_where_the_model_listens_and_its_forecasts_move(move_a, move_b, moved, last, verdict):
    now = X.assign(a=X["a"] + move_a, b=X["b"] + move_b)
    before = NEVER if last is None else globals()["last"]("model|delay|drift", last)
    found = health.drift("delay", "1", now, LEARNT, moved, before)
    assert found.verdict == verdict, found
    assert found.measured == pytest.approx((0.7 * bool(move_a) + 0.2 * bool(move_b)) / 0.9, abs=0.02)
    assert ("most of all a" in found.reason) == bool(move_a)


def test_how_far_forecasts_have_moved():
    then = np.array([0.1, 0.2, 0.3, 0.4, np.nan])
    assert health.moved(then, then) == pytest.approx(0)
    assert health.moved(np.array([0.4, 0.4]), then) > 1
    assert health.moved(np.array([]), then) == 0


# Matured forecasts


def published(worse, n=800, shift=0.0):
    """Forecasts of 8 weeks whose probabilities are mixed with noise as far as `worse` says; the rule knows the rate."""
    rng = np.random.default_rng(3)
    truth = rng.beta(1, 4, n)
    p = np.clip((1 - worse) * truth + worse * rng.random(n) + shift, 0, 1)
    return pd.DataFrame({
        "event": "late", "model_version": "1", "row_id": [f"l{k}" for k in range(n)],
        "y": 1.0 * (rng.random(n) < truth),
        "as_of": np.repeat(pd.date_range("2026-03-02", periods=8, freq="7D"), n // 8), "p": p, "p_rate": truth.mean(),
        "p_silent": np.nan, "inside": (rng.random(n) < 0.8) * 1.0,
    })  # fmt: skip


def verdict_of(kind, rows, last=NEVER, version="1"):
    found = {f.row_id: f for f in health.judged("late", version, rows, last, seed=1)}
    return found[f"forecast|late|{kind}"].verdict


def test_skill_is_an_alarm_when_it_is_beyond_chance_large_and_lasting():
    assert verdict_of("skill", published(0)) == OK
    assert verdict_of("skill", published(1)) == WATCH
    assert verdict_of("skill", published(1), last("forecast|late|skill", -0.3)) == ACT
    assert verdict_of("skill", published(1), last("forecast|late|skill", -0.01)) == WATCH
    assert verdict_of("skill", published(1), last("forecast|late|skill", -0.3, version="0")) == WATCH
    assert verdict_of("skill", published(1, n=160), last("forecast|late|skill", -0.3)) == OK  # too few
    assert verdict_of("skill", published(1), version="2") == OK  # another model's forecasts


def test_calibration_and_bands_are_watched():
    off, bands = last("forecast|late|level", 0.2), last("forecast|late|coverage", 0.5)
    assert verdict_of("level", published(0, shift=0.15), off) == WATCH
    assert verdict_of("level", published(0, shift=0.15)) == OK
    assert verdict_of("level", published(0), off) == OK
    assert verdict_of("coverage", published(0), bands) == OK
    assert verdict_of("coverage", published(0).assign(inside=0.0), bands) == WATCH


@pytest.mark.parametrize(
    ("intervals", "verdict", "said"),
    [
        ((1.0, 2.0), None, ""),
        ((1.0, 1.0, 5.5), OK, "1 of 3 series: they sell too rarely for a window of 5 weeks; one of 11 weeks would"),
        ((1.0, np.nan), OK, "1 of 2 series: they sell too rarely for a window of 5 weeks; bring them by"),
        ((1.0, 9.0, 20.0, 20.0), WATCH, "3 of 4 series: they sell too rarely for a window of 5 weeks; bring them by"),
    ],
)
def test_series_that_sell_too_rarely_for_every_window_are_told(intervals, verdict, said):
    rows = pd.DataFrame(
        [(f"p{i}", "north", length, gap) for i, gap in enumerate(intervals) for length in (4, 5)],
        columns=["product_id", "site_id", "length_weeks", "interval"],
    )
    found = health.reach("3", rows, rows[rows["length_weeks"] >= 2 * rows["interval"]])
    assert [f.verdict for f in found] == ([verdict] if verdict else [])
    assert all(said in f.reason for f in found)


def test_the_table_begins_with_what_must_be_done():
    table = as_table([health.gate("a", "1", None), health.nobody("b", DAY), health.gate("c", "1", "why")])
    assert list(table["verdict"]) == [ACT, WATCH, OK]
    assert list(table) == list(health.COLUMNS)
    pd.testing.assert_frame_equal(health.merged([table, as_table([])]), table)


# The gate of what is published


def test_a_failing_champion_makes_room_for_the_one_before_it_and_the_reason_is_kept(workspace, tmp_path):
    settings, name = load(workspace, environ={}), registry.REGISTRY["delay"]
    story = {"flow": "train", "data_fingerprint": "f", "git_sha": "c", "params": {}, "as_of": DAY}
    for cut in ("2026-01-05", "2026-03-02"):
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "cut.txt").write_text(cut)
        with tracking.run(settings, flow_run_id=cut, **story) as run:
            version = registry.register(run, name=name, folder=tmp_path / "model", tags={"cut": cut})
        registry.decide(settings, name, version, "promoted", since=date.fromisoformat(cut), because="first")

    def looked_at(**verdicts):
        champion = registry.champion(settings, name, DAY)
        rows = [health.Finding(f"forecast|{e}|skill", "forecast", e, v, f"{e} is worse") for e, v in verdicts.items()]
        return champion.version, monitor.take_back(settings, as_table(rows), {"delay": champion}, DAY)

    assert looked_at(late=WATCH, up=ACT) == ("2", [])
    _, (done,) = looked_at(late=ACT)
    assert (done["version"], done["champion"]) == ("2", "1")
    assert registry.versions(settings, name)[0]["tags"]["rolled_back_because"] == "monitoring: late is worse"
    version, (done,) = looked_at(late=ACT)  # the last one scores on
    assert (version, done["champion"]) == ("1", "1")
    assert "train again" in done["reason"]
    assert registry.champion(settings, name).version == "1"
