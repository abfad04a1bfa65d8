"""A proof of very many lines is one of a few suppliers or products, chosen by the day, with all that is theirs."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from features import matrix
from features.as_known import showing
from features.contracts import PURCHASES, TABLES
from features.cut import OF_LINES, OF_SERIES, few
from features.matrix import shift_matrix
from features.prover import LeakError
from pipelines import learn
from pipelines import world as worlds
from pipelines.learn import enough, prepare
from pipelines.settings import load
from pipelines.world import NO_PROOF, TO_LEARN, TO_SCORE, World, delay_rows, request, shift_rows

DAY = date(2026, 6, 1)
CUTS = {"lines": OF_LINES, "series": OF_SERIES}


def read(con, query):
    return con.execute(query).fetchall()


def chosen(con, cut, most, day=DAY):
    with few(con, cut, most, day) as seen:
        return None if seen is None else {row[0] for row in read(seen, f"SELECT DISTINCT {cut.by} FROM {_lines(cut)}")}


def _lines(cut):
    return cut.tables[0].name


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_all_that_is_known_of_the_few_is_there_and_nothing_of_others(toy, cut):
    ((every,),) = read(toy, f"SELECT count(*) FROM {_lines(cut)}")
    with few(toy, cut, every // 3, DAY) as seen:
        few_of = [row[0] for row in read(seen, f"SELECT DISTINCT {cut.by} FROM {_lines(cut)}")]
        assert 0 < read(seen, f"SELECT count(*) FROM {_lines(cut)}")[0][0] < 2 * (every // 3)
        for table in TABLES:
            found = sorted(read(seen, f"FROM {table.name}"), key=str)
            mine = ""
            if table in cut.tables:
                own = cut.by in {c.name for c in table.columns}
                line_of = f"po_line_id IN (SELECT po_line_id FROM purchases WHERE {cut.by} IN $1)"
                mine = f" WHERE {cut.by} IN $1" if own else f" WHERE {line_of}"
            given = [few_of] if mine else []
            assert found == sorted(toy.execute(f"FROM {table.name}{mine}", given).fetchall(), key=str), table.name
    assert read(toy, "SELECT current_schema()") == [("main",)]


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_another_day_chooses_others_and_the_same_day_the_same(toy, cut):
    ((every,),) = read(toy, f"SELECT count(*) FROM {_lines(cut)}")
    first = chosen(toy, cut, every // 3)
    assert first == chosen(toy, cut, every // 3)
    others = [chosen(toy, cut, every // 3, date(2026, 6, day)) for day in range(2, 30)]
    ((all_of,),) = read(toy, f"SELECT count(DISTINCT {cut.by}) FROM {_lines(cut)}")
    assert len(set.union(first, *others)) == all_of, "in time everybody's turn comes"


def test_where_all_are_few_nobody_is_left_out_and_where_each_is_too_many_the_smallest_is_taken(toy):
    assert chosen(toy, OF_LINES, 10**9) is None
    assert chosen(toy, OF_LINES, 1) == {by_size(toy)[0][0]}


def test_one_that_has_nearly_everything_is_proven_rather_than_nearly_nothing(toy):
    (small, _), (large, most) = by_size(toy)[0], by_size(toy)[-1]

    def view(table, source):
        return f"FROM {source}" + (f" WHERE supplier_id IN ('{small}', '{large}')" if table is PURCHASES else "")

    with showing(toy, view) as two:
        assert chosen(two, OF_LINES, most - 1) == {small, large}


def by_size(con):
    return read(con, "SELECT supplier_id, count(*) FROM purchases GROUP BY 1 ORDER BY 2, 1")


@pytest.fixture
def world(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(worlds, "PROVEN", {"delay": 400, "shift": 4_000})
    with World([toy.cursor()], (), load(tmp_path, environ={}), DAY, "") as here:
        yield here


@pytest.mark.parametrize("proof", [TO_LEARN, TO_SCORE], ids=["to learn", "to score"])
@pytest.mark.parametrize(("task", "rows_of"), [("delay", delay_rows), ("shift", shift_rows)])
def test_the_few_are_proven_and_the_rows_are_those_of_all(world, task, rows_of, proof):
    asked = request(world, task)
    steps = np.arange(asked.grid.size - 20, asked.grid.size)
    found = [rows_of(world, asked, steps, how) for how in (proof, NO_PROOF)]
    assert found[0].X.equals(found[1].X)


def test_a_leak_is_found_among_the_few(world, monkeypatch):
    def careless(con, request, steps, **kwargs):
        made, data = shift_matrix(con, request, steps, **kwargs)
        late = con.execute("SELECT count(*) FROM orders").fetchall()[0][0]
        return replace(made, X=made.X.assign(units_1w_to_level=np.float32(late))), data

    monkeypatch.setattr(worlds, "shift_matrix", careless)
    asked = request(world, "shift")
    with pytest.raises(LeakError, match="feature units_1w_to_level reads the future"):
        shift_rows(world, asked, np.array([asked.grid.size - 5, asked.grid.size - 1]), TO_SCORE)


def test_windows_moved_on_are_not_proven_but_there(world):
    asked = request(world, "shift")
    steps = np.array([asked.grid.size - 2, asked.grid.size - 1])
    wide = shift_rows(world, asked, steps, TO_SCORE, ahead_weeks=1)
    mine, moved = matrix.windows_apart(wide, asked, 1)
    assert mine.X.equals(shift_rows(world, asked, steps, NO_PROOF).X)
    assert (moved.rows["lead_weeks"] == mine.rows["lead_weeks"]).all()
    assert not moved.X.equals(mine.X)


@pytest.mark.parametrize(("task", "by"), [("delay", "supplier_id"), ("shift", "product_id")])
def test_training_learns_from_as_many_as_its_sample_needs_and_a_backtest_judges_all(
    toy, tmp_path, monkeypatch, task, by
):
    monkeypatch.setattr(learn, "PER_SNAPSHOT", {"delay": 0.25, "shift": 0.015})  # of a thousand: 250 lines, 15 series
    lines = _lines(CUTS["lines" if task == "delay" else "series"])
    counted = "count(*)" if task == "delay" else "count(DISTINCT (product_id, site_id))"
    with World([toy.cursor()], (), load(tmp_path, environ={}, max_snapshots=1_000), DAY, "") as here:
        asked, day = request(here, task), np.datetime64(DAY, "D")
        with enough(here, task) as some:
            most = {"delay": 250, "shift": 15}[task]
            assert most <= read(some.con, f"SELECT {counted} FROM {lines}")[0][0] < 2 * most
            own = {row[0] for row in read(some.con, f"SELECT DISTINCT {by} FROM {lines}")}
        assert set(prepare(here, task, asked, judged_from=day).rows[by]) <= own
        whole = prepare(here, task, asked, judged_from=day, whole_from=date(2026, 5, 1))
        assert not set(whole.rows[by]) <= own
        assert read(here.con, "SELECT current_schema()") == [("main",)]
