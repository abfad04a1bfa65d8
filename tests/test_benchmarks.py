"""The benchmarks run, at a tiny size, and their contenders without peers to install agree with bullwhip."""

import pytest

from benchmarks import orders, panels, snapshots, suppliers
from benchmarks.__main__ import as_markdown
from benchmarks.contest import OURS, Stage, compare

INSTALLED = {OURS, "DuckDB", "DuckDB ASOF", "pandas", "pandas merge_asof"}
STAGES = [stage for module in (panels, orders, suppliers, snapshots) for stage in module.STAGES]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_contenders_do_the_same_work(stage, tmp_path):
    few = tuple(c for c in stage.contenders if c.name in INSTALLED)
    if len(few) < 2:
        pytest.skip("its peers are installed by `make bench` alone")
    small = Stage(stage.name, stage.make, few, stage.targets, stage.same, stage.at_most)
    rows = compare(small, tmp_path, scale=1e-5, rounds=1, memory=False)
    assert [row.peer for row in rows] == [c.name for c in few[1:]]
    assert as_markdown(rows, 1e-5, 1).count("\n| ") == 1 + len(rows)
