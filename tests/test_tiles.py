"""However rows are taken out of a panel, they hold what the formulas say of it as a whole."""

from datetime import date

import numpy as np
import pytest

from features import tiles
from features.core import Feature, Tile, measures_of, past_mean, running
from features.panels import dense
from features.standing import entities_asked
from features.tiles import fill, gather, taker, write_rows
from features.weeks import Grid

GRID = Grid(date(2024, 1, 1), date(2024, 3, 4))
FEATURES = (
    Feature("now", lambda p: p.a, "", ""), Feature("mean", lambda p: past_mean(p["a"], 3), "", ""),
    Feature("sum", lambda p: running(p.a - p.b), "", ""),
)  # fmt: skip
RANDOM = np.random.default_rng(7)


def world(entities, order="sorted", times=1):
    """Return steps, entities and two measures: every other cell is given, in order or not, once or more often."""
    place = np.repeat(np.arange(0, entities * GRID.size, 2), times)
    if order != "sorted":
        place = RANDOM.permutation(place)
    values = {"a": RANDOM.integers(0, 9, len(place)).astype(np.float32), "b": RANDOM.integers(0, 3, len(place)) * 1.0}
    return place % GRID.size, (place // GRID.size).astype(np.int32), values


@pytest.mark.parametrize("given", [("sorted", 1), ("mixed", 1), ("sorted", 2), ("mixed", 2)])
def test_values_stand_where_they_were_given_and_add_up(given):
    steps, entity, values = world(40, *given)
    panel = dense(steps, entity, values, 40, GRID)
    for name, value in values.items():
        expected = np.zeros((GRID.size, 40))
        np.add.at(expected, (steps, entity), value)
        np.testing.assert_array_equal(panel[name].values, expected)
    assert dense(steps[:0], entity[:0], {"a": values["a"][:0]}, 2, GRID)["a"].values.tolist() == [[0, 0]] * GRID.size


@pytest.mark.parametrize("rows", [slice(None), slice(-1, None), slice(2, 5)])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_filled_panel_holds_what_the_formulas_say(rows, threads, monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 5)
    monkeypatch.setattr(tiles, "FEW", 3)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    panel = dense(*world(40), 40, GRID)
    whole = np.stack([f.formula(Tile(panel)).values for f in FEATURES]).astype(np.float32)
    np.testing.assert_array_equal(np.concatenate(fill(panel, FEATURES, rows), axis=2), whole[:, rows])


@pytest.mark.parametrize("block", [1 << 24, 8])
@pytest.mark.parametrize("rows", [0, 3, 500])
def test_gathered_rows_hold_what_the_formulas_say(rows, block, monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 16)
    monkeypatch.setattr(tiles, "BLOCK", block)  # all values at once, or tile by tile
    panel = dense(*world(40), 40, GRID)
    whole = np.stack([f.formula(Tile(panel)).values for f in FEATURES]).astype(np.float32)
    now, then = RANDOM.integers(2, 6, rows), RANDOM.integers(0, GRID.size, rows)
    entity = RANDOM.integers(0, 40, rows)
    out = np.full((rows, 5), -1, np.float32)
    gather(panel, FEATURES, [now, now, then], entity, out[:, 1:4])
    expected = np.column_stack([whole[0, now, entity], whole[1, now, entity], whole[2, then, entity]])
    np.testing.assert_array_equal(out[:, 1:4], expected)
    assert (out[:, [0, 4]] == -1).all()


def test_parts_of_rows_stand_next_to_each_other(monkeypatch):
    monkeypatch.setattr(tiles, "CHUNK", 3)
    table, place = RANDOM.random((5, 2)).astype(np.float32), RANDOM.integers(0, 5, 1000)
    rows_of, out = taker(table), np.zeros((1000, 5), np.float32)
    write_rows([lambda rows: -place[rows], lambda rows: rows_of(place[rows]), place.__getitem__], out[:, 1:])
    np.testing.assert_array_equal(out, np.column_stack([0 * place, -place, table[place], place]))


def test_the_measures_that_formulas_read_are_known_before_they_are_counted():
    assert measures_of(FEATURES[:2]) == {"a"}
    assert measures_of(FEATURES) == {"a", "b"}


@pytest.mark.parametrize("far", [1, 10**9])
def test_entities_that_are_asked_for_are_numbered_in_order(far):
    key = np.array([7, 3, 9, 3, 5]) * far
    assert entities_asked(key, np.array([1, 2, 2]))[0].tolist() == [-1, 0, 1, 0, -1]
    assert entities_asked(key, np.array([], int))[1] == 0
