"""The benchmarks run, at a tiny size, and their contenders without peers to install agree with bullwhip."""

from datetime import UTC, date, datetime

import pytest

from benchmarks import orders, panels, snapshots, suppliers
from benchmarks.__main__ import as_markdown
from benchmarks.contest import OURS, Stage, compare
from benchmarks.deliveries import WEEK, Deliveries
from benchmarks.year import TROUBLES, to_train
from pipelines import sources
from pipelines.settings import load

INSTALLED = {OURS, "DuckDB", "DuckDB ASOF", "pandas", "pandas merge_asof"}
STAGES = [stage for module in (panels, orders, suppliers, snapshots) for stage in module.STAGES]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_contenders_do_the_same_work(stage, tmp_path):
    few = tuple(c for c in stage.contenders if c.name in INSTALLED)
    if len(few) < 2:
        pytest.skip("its peers are installed by `make bench` alone")
    small = Stage(stage.name, stage.make, few, stage.targets, stage.same, stage.at_most)
    rows = compare(small, tmp_path, stage.make(tmp_path, 1e-5), rounds=1, memory=False)
    assert [row.peer for row in rows] == [c.name for c in few[1:]]
    assert as_markdown(rows, 1e-5, 1).count("\n| ") == 1 + len(rows)


def known(workspace, day):
    con, verdicts = sources.load(load(workspace, environ={}), now=datetime(2026, 6, 2, tzinfo=UTC), known_before=day)
    with con:
        return sources.fingerprint(con), {v.table for v in verdicts if v.quarantined}


def test_files_that_come_by_week_late_twice_or_wrong_hold_in_the_end_what_the_whole_tables_hold(world, tmp_path):
    first = date(2026, 4, 6)
    days = [first + k * WEEK for k in range(3)]
    files = Deliveries(world / "data", tmp_path / "data", first)
    for day in days:
        for table in files.tables():
            if (table, day) == ("orders", days[1]):
                files.double(table, day)
            elif (table, day) != ("receipts", days[1]):
                files.bring(table, day, wrong=(table, day) == ("purchases", days[1]))
        whole, twice = known(world, day)[0], {"orders"} if day > first else set()
        if day == days[1]:
            assert known(tmp_path, day)[0] != whole
            files.bring("purchases", day)
            files.bring("receipts", day)
        assert known(tmp_path, day) == (whole, twice)


def test_a_year_has_twelve_trainings_none_of_which_lacks_a_file():
    lacking = {t.week + k for t in TROUBLES if t.kind in ("late", "wrong") for k in range(max(t.mended, 1))}
    assert len(to_train(range(52))) == 12
    assert not lacking & set(to_train(range(52)))
