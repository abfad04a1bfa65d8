"""What stops a flow: a leak, no model, no store, the word to stop; nothing half done is left."""

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from features import matrix, orders
from features.core import Feature
from pipelines import mlflow_store, registry, running
from tests.workspaces import EARLIER, MONDAY, as_process, bullwhip, settings

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def workspace(trained, tmp_path):
    return Path(shutil.copytree(trained[0], tmp_path / "workspace"))


def plant_a_leak(monkeypatch):
    """Let the delay task read how many lines there will ever be: what a careless formula would do."""
    build = matrix.open_lines

    def peeking(con, *more, **named):
        rows = build(con, *more, **named)
        ever = con.execute("SELECT supplier_id, count(*) AS n FROM receipts r JOIN purchases USING (po_line_id) "
                           "GROUP BY supplier_id").df().set_index("supplier_id")["n"]  # fmt: skip
        return rows.assign(receipts_ever=rows["supplier_id"].map(ever).astype(float))

    features = (*orders.LINE_FEATURES, Feature("receipts_ever", lambda rows: rows["receipts_ever"], "", "A leak."))
    monkeypatch.setattr(matrix, "open_lines", peeking)
    monkeypatch.setattr(matrix, "LINE_FEATURES", features)
    monkeypatch.setattr(matrix, "line_features", lambda rows: orders.line_features(rows, features))


@pytest.mark.parametrize("command", [("train", "--task", "delay"), ("score", "--as-of", str(EARLIER))])
def test_a_leak_stops_the_run_and_is_named(workspace, monkeypatch, command):
    plant_a_leak(monkeypatch)
    (workspace / "bullwhip.toml").write_text(f"as_of = {MONDAY}\nseed = 9\n")
    code, said, err = bullwhip(workspace, *command)
    assert code == 4
    assert "receipts_ever reads the future" in said["error"]
    assert err.count("\n") == 1, err
    assert not (workspace / "risk.duckdb").exists()
    assert len(registry.versions(settings(workspace), registry.REGISTRY["delay"])) == 1


def test_without_a_model_scoring_says_what_to_do_and_nothing_else(fresh):
    process = as_process(fresh, "score")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (4, "")
    assert err.startswith("bullwhip: nothing to score with")
    assert err.endswith("run bullwhip train first\n")
    assert err.count("\n") == 1, err  # DuckDB and Prefect are silent at the end, too
    assert not (fresh / "risk.duckdb").exists()


@pytest.mark.parametrize("command", ["train", "score"])
def test_a_tracking_store_that_does_not_answer_is_named_soon(workspace, monkeypatch, command):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    began = time.monotonic()
    code, said, err = bullwhip(workspace, command)
    assert time.monotonic() - began < 15
    assert code == 6
    assert "http://127.0.0.1:9 does not answer" in said["error"]
    assert err.count("\n") == 1, err


@pytest.mark.parametrize("words", [("score",), ("train", "--as-of", "2026-05-25")], ids=["score", "train"])
def test_a_command_that_is_told_to_stop_closes_its_runs_and_leaves_in_time(workspace, words):
    from prefect.client.orchestration import get_client

    process = as_process(workspace, *words)
    marks, began = workspace / running.MARKS, time.monotonic()
    while not (found := list(marks.glob("*.*"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < 300
        time.sleep(0.02)
    flow_run_id, _, mlflow_run_id = found[0].name.partition(".")
    time.sleep(random.uniform(0, 1))
    process.terminate()
    told = time.monotonic()
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (143, "bullwhip: terminated\n")
    assert time.monotonic() - told < (10 if os.getloadavg()[0] < 3 else 90)
    store = mlflow_store.open_store(settings(workspace))
    assert store.client.get_run(mlflow_run_id).info.status == "KILLED"
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(flow_run_id).state.name == "Crashed"
    assert not running.is_locked(workspace / ".publish.lock")
    assert running.left_behind(workspace) == []
