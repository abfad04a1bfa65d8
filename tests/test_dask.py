"""A training and a scoring on a cluster, as a user runs them, say and publish what they do without one."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.workspaces import EARLIER, bullwhip, tables_of

pytestmark = pytest.mark.usefixtures("prefect_server")
CLUSTER = 'engine = "dask"\nthreads = 2\n'


@pytest.fixture
def two(trained, tmp_path):
    """Two copies of the trained workspace, the second one set to work on a cluster of two."""
    here, there = (Path(shutil.copytree(trained[0], tmp_path / name)) for name in ("here", "there"))
    with open(there / "bullwhip.toml", "a") as file:
        file.write(CLUSTER)
    return here, there


def test_a_scoring_publishes_the_same(two):
    tables = []
    for folder in two:
        code, said, _ = bullwhip(folder, "score")
        assert (code, said["status"]) == (0, "published"), said
        tables.append(tables_of(folder))
    for name, table in tables[0].items():
        pd.testing.assert_frame_equal(table, tables[1][name], rtol=0, atol=1e-6)


def test_a_training_learns_the_same(two, trained, migrated_mlflow):
    _, there = two
    shutil.rmtree(there / "mlflow")  # what was trained before on the same facts would be returned as it is
    shutil.copytree(migrated_mlflow, there / "mlflow")
    code, said, _ = bullwhip(there, "train", "--as-of", str(EARLIER))
    assert code == trained[1], said
    own = ("seconds", "mlflow_run_id")
    for task, expected in trained[2]["tasks"].items():
        found = json.loads(json.dumps(said["tasks"][task]))
        assert {k: v for k, v in found.items() if k not in own} == {k: v for k, v in expected.items() if k not in own}
    files = [sorted(w.glob("mlflow/**/*.lgb")) for w in (trained[0], there)]
    assert len(files[0]) == len(files[1]) > 0
    assert {file.read_bytes() for file in files[0]} == {file.read_bytes() for file in files[1]}
