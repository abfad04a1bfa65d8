"""A sample of snapshots is the same whatever else there is, and holds exactly the rows it would have had anyway."""

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest

from features.labels import ShiftTerms, delay_labels
from features.matrix import Request, delay_matrix, first_fact, most_snapshots, order_matrix, shift_matrix
from features.panels import Terms
from features.prover import prove_no_leak
from features.sampling import Sample, in_sample, share_for
from features.weeks import Grid
from models import lessons
from models.lessons import Lesson, Training

AS_OF = date(2026, 6, 1)
LINE, WINDOW = ["po_line_id", "as_of"], ["product_id", "site_id", "window", "as_of"]
KEYS = {"delay": LINE, "order": LINE, "shift": WINDOW}
BUILD = {"delay": delay_matrix, "order": order_matrix, "shift": lambda *given: shift_matrix(*given)[0]}


def request(con, kind, share=1.0, until=None):
    table = "orders" if kind == "shift" else "purchases"
    grid = Grid(first_fact(con, table), AS_OF, 1 if kind == "order" else 7)
    return Request(grid, Terms(), "DE", sample=Sample(share, until))


@pytest.mark.parametrize("kind", BUILD)
def test_sampled_rows_are_the_same_bytes_as_among_all(toy, kind):
    whole, part = (BUILD[kind](toy, r, np.arange(20, r.grid.size)) for r in (request(toy, kind, s) for s in (1.0, 0.3)))
    assert 0.25 < len(part.rows) / len(whole.rows) < 0.35
    assert part.rows["sampled"].all()
    every, kept = (pd.MultiIndex.from_frame(m.rows[KEYS[kind]]) for m in (whole, part))
    place = every.get_indexer(kept)
    assert (np.diff(place) > 0).all(), "rows keep their order"
    kept = whole.take(place)
    pd.testing.assert_frame_equal(kept.rows, part.rows.drop(columns="sampled"), check_exact=True)
    pd.testing.assert_frame_equal(kept.X, part.X, check_exact=True)


def test_days_that_are_judged_are_whole_and_marked(toy):
    begin = date(2026, 3, 2)
    whole, part = (delay_matrix(toy, r, np.arange(20, r.grid.size))
                   for r in (request(toy, "delay"), request(toy, "delay", 0.2, begin)))  # fmt: skip
    judged = (part.rows["as_of"] >= pd.Timestamp(begin)).to_numpy()
    assert judged.sum() == (whole.rows["as_of"] >= pd.Timestamp(begin)).sum()
    assert part.rows["sampled"].to_numpy()[~judged].all()
    assert 0.1 < part.rows["sampled"].to_numpy()[judged].mean() < 0.3


@pytest.mark.parametrize("kind", BUILD)
def test_no_more_rows_come_than_were_counted(toy, kind):
    asked = request(toy, kind)
    steps = np.arange(30, asked.grid.size, 1 if kind == "order" else 3)
    task, at = ("shift", "snapshot") if kind == "shift" else ("delay", "order" if kind == "order" else "snapshot")
    there, rows = most_snapshots(toy, asked, steps, task, at), len(BUILD[kind](toy, asked, steps).rows)
    assert there == rows if kind == "delay" else rows <= there < 2 * rows + 500


def test_the_proof_sees_the_same_sample(toy):
    asked = request(toy, "delay", 0.2)
    whole = delay_matrix(toy, asked, np.arange(asked.grid.size))
    step = asked.grid.size - 8
    seen = prove_no_leak(toy, delay_matrix, asked, whole, KEYS["delay"], [step])
    assert seen["rows"] == (whole.rows["step"] == step).sum() > 0


def test_a_smaller_sample_is_part_of_a_larger_one_and_both_are_as_large_as_asked():
    key, day = np.random.default_rng(0).integers(0, 2**63, 100_000).astype(np.uint64), np.datetime64("2026-01-05", "D")
    days = day + np.arange(100_000) % 50 * np.timedelta64(1, "D")
    small, large = (in_sample(key, days, share) for share in (0.1, 0.25))
    assert not (small & ~large).any()
    assert (small.mean(), large.mean()) == pytest.approx((0.1, 0.25), abs=0.005)
    assert in_sample(key, days, 1.0).all()
    assert not in_sample(key, days, 0.0).any()
    one_key = in_sample(np.full(50, key[0]), day + np.arange(50) * np.timedelta64(1, "D"), 0.5)
    assert 10 < one_key.sum() < 40, "days of one line are chosen apart"


@pytest.mark.parametrize(("most", "there", "share"), [(10, 5, 1.0), (10, 10, 1.0), (10, 40, 0.25), (10, 0, 1.0)])
def test_share(most, there, share):
    assert share_for(most, there) == share


def test_rows_outside_the_sample_are_not_learnt_from(toy):
    asked = request(toy, "delay", 0.3, date(2026, 1, 5))
    matrix = delay_matrix(toy, asked, np.arange(60, asked.grid.size))
    rows = matrix.rows.assign(**delay_labels(toy, matrix.rows, asked.terms))
    inside = rows["sampled"].to_numpy()
    flipped = rows.assign(y_late=np.where(inside, rows["y_late"], 1 - rows["y_late"]))
    cut = np.datetime64(AS_OF, "D")

    def said(rows, share):
        lesson = Lesson("delay", replace(matrix, rows=rows), asked.terms, ShiftTerms(), cut, share)
        model = lessons.fit(lesson, cut, Training(threads=1, params={"delay": {"rounds": 3}})).model
        return model.predict_proba(matrix.X.iloc[:50])[:, 1]

    assert np.array_equal(said(rows, 0.3), said(flipped, 0.3))
    assert not np.array_equal(said(rows, 1.0), said(flipped, 1.0))
