import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sqlalchemy.orm.strategies import SubqueryLoader

from pipelines import mlflow_store, pictures, registry, tracking
from pipelines.settings import Unreachable, load

NAME = "bullwhip-supplier-delay"
STORY = {
    "flow": "train",
    "as_of": date(2026, 1, 5),
    "data_fingerprint": "f00d",
    "git_sha": "abc",
    "params": {"seed": 7, "note": "x" * 9000},
}


@pytest.fixture
def settings(workspace):
    return load(workspace, environ={})


@pytest.fixture
def folder(tmp_path):
    """Files such as a model leaves behind."""
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "model.json").write_text('{"add": 2}')
    return tmp_path / "saved"


def promote(settings, version, because):
    registry.decide(settings, NAME, version, "promoted", since=date(2026, 1, 5), because=because)


def read_run(settings, run_id):
    return mlflow_store.open_store(settings).client.get_run(run_id)


def test_a_run_is_closed_though_the_stop_broke_off_a_call_that_was_reading(settings, folder, monkeypatch):
    """The cursor of such a call lives on in what its frame was about to use, and keeps sqlite from being written."""
    with tracking.run(settings, flow_run_id="one", **STORY) as run:
        registry.register(run, name=NAME, folder=folder, tags={})
    again = tracking.run(settings, flow_run_id="two", **STORY)
    with pytest.raises(KeyboardInterrupt), again as run, monkeypatch.context() as patched:  # noqa: PT012
        patched.setattr(SubqueryLoader, "_setup_query_from_rowproc", _stopped)
        registry.versions(settings, NAME)
    assert read_run(settings, run.run_id).info.status == "KILLED"


def _stopped(*_, **__):
    raise KeyboardInterrupt


def test_a_run_says_when_on_what_and_with_which_code(settings):
    with tracking.run(settings, flow_run_id="one", **STORY) as run:
        run.log_metrics({"pr_auc": 0.4, "value@25": 1, "absent": None})
        run.log_dict({"a": 1}, "facts")
        run.log_table(pd.DataFrame({"a": [1]}), "rows")
        run.tag(refused="delay")
    found = read_run(settings, run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.metrics == {"pr_auc": 0.4, "value_25": 1.0}
    assert found.data.params["seed"] == "7"
    expected = {"prefect.flow_run_id": "one", "as_of": "2026-01-05", "data_hash": "f00d", "git_sha": "abc"}
    assert expected.items() <= found.data.tags.items()
    assert found.data.tags["refused"] == "delay"
    written = {p.name for p in (settings.workspace / "mlflow" / "artifacts").rglob("*") if p.is_file()}
    assert written == {"facts.json", "rows.csv"}


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_that_breaks_says_so_and_the_error_goes_on(settings, error, status):
    with pytest.raises(error), tracking.run(settings, flow_run_id="broken", **STORY) as run:
        raise error
    assert read_run(settings, run.run_id).info.status == status


def test_a_retried_flow_run_goes_on_in_its_run(settings):
    with pytest.raises(ValueError), tracking.run(settings, flow_run_id="again", **STORY) as first:
        raise ValueError
    with tracking.run(settings, flow_run_id="again", **STORY | {"params": {"seed": 8, "new": 1}}) as second:
        assert read_run(settings, second.run_id).info.status == "RUNNING"
    with tracking.run(settings, flow_run_id="another", **STORY) as third:
        pass
    assert first.run_id == second.run_id != third.run_id
    finished = read_run(settings, second.run_id)
    assert finished.info.status == "FINISHED"
    assert (finished.data.params["seed"], finished.data.params["new"]) == ("7", "1")


KILLED = """
import os, signal, sys
from datetime import date
from pipelines import tracking
from pipelines.environment import apply_environment
from pipelines.settings import load
settings = load(sys.argv[1])
with tracking.run(settings, flow="train", flow_run_id=sys.argv[2], as_of=date(2026, 1, 5), data_fingerprint="f00d",
                  git_sha="abc", params={"seed": 7}) as run:
    run.log_metrics({"before": 1})
    print(run.run_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_processes_are_resumed_and_two_may_start_on_a_fresh_store(tmp_path):
    started = [
        subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    run_ids = [process.communicate(timeout=100)[0].strip() for process in started]
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2
    settings = load(tmp_path, environ={})
    # the one that began later may have found the other one dead, and closed its run
    assert {read_run(settings, run_id).info.status for run_id in run_ids} <= {"RUNNING", "KILLED"}
    with tracking.run(settings, flow_run_id="a", **STORY | {"params": {"seed": 7}}) as run:
        run.log_metrics({"after": 1})
    assert run.run_id == run_ids[0] != run_ids[1]
    assert read_run(settings, run.run_id).data.metrics == {"before": 1, "after": 1}


def test_a_store_that_was_being_made_when_its_maker_died_is_made_anew(tmp_path, monkeypatch):
    settings, place = load(tmp_path, environ={}), tmp_path / "mlflow"

    def die(*_):
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(SystemExit):
            mlflow_store.open_store(settings)
    assert all(file.name.startswith("unfinished-") for file in place.glob("*.db"))
    (place / "unfinished-1.db-journal").write_bytes(b"torn")
    assert mlflow_store.open_store(settings).client.search_experiments()
    assert [file.name for file in place.glob("*.db*")] == ["mlflow.db"]


def test_no_champion_before_one_is_promoted(settings, folder):
    assert registry.champion(settings, NAME) is None
    assert registry.versions(settings, NAME) == []
    with tracking.run(settings, flow_run_id="one", **STORY) as run:
        registry.register(run, name=NAME, folder=folder)
    assert registry.champion(settings, NAME) is None


def test_the_champion_comes_with_its_files_metrics_and_reasons(settings, folder):
    with tracking.run(settings, flow_run_id="one", **STORY) as run:
        run.log_metrics({"delay.pr_auc": 0.4})
        version = registry.register(run, name=NAME, folder=folder, tags={"task": "delay"})
        assert registry.register(run, name=NAME, folder=folder) == version  # the same files: a resumed flow
        (folder / "model.json").write_text("{}")
        newer = registry.register(run, name=NAME, folder=folder)
    promote(settings, version, "no model before")
    champion = registry.champion(settings, NAME)
    assert (champion.version, champion.run_id, champion.metrics) == ("1", run.run_id, {"delay.pr_auc": 0.4})
    assert (champion.folder / "model.json").read_text() == '{"add": 2}'
    assert {"task": "delay", "git_sha": "abc", "promoted_because": "no model before"}.items() <= champion.tags.items()
    known = registry.versions(settings, NAME)
    assert [(v["version"], v["aliases"]) for v in known] == [(newer, ["challenger"]), ("1", ["champion"])]


def test_a_registered_model_loads_without_pickles_and_predicts(settings, folder, monkeypatch):
    import mlflow

    class Adder:
        def __init__(self, add):
            self.add = add

        def predict(self, X):
            return pd.DataFrame({"p": X["x"] + self.add})

    import json

    fake = SimpleNamespace(load=lambda folder: Adder(json.loads((folder / "model.json").read_text())["add"]))
    monkeypatch.setitem(sys.modules, "models.forecasters", fake)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with tracking.run(settings, flow_run_id="one", **STORY) as run:
        started = time.perf_counter()
        version = registry.register(run, name=NAME, folder=folder)
        assert time.perf_counter() - started < 3, "requirements are inferred again"
    promote(settings, version, "test")
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    assert model.predict(pd.DataFrame({"x": [1.0]}))["p"].tolist() == [3.0]
    stored = [p.suffix for p in (settings.workspace / "mlflow" / "artifacts").rglob("*") if p.is_file()]
    assert not {".pkl", ".pickle", ".joblib"} & set(stored)


def test_a_moved_workspace_keeps_its_models(settings, folder, tmp_path):
    with tracking.run(settings, flow_run_id="one", **STORY) as run:
        promote(settings, registry.register(run, name=NAME, folder=folder), "test")
    moved = load(shutil.move(settings.workspace, tmp_path / "moved_%"), environ={})
    champion = registry.champion(moved, NAME)
    assert champion.folder.is_relative_to(moved.workspace)
    assert (champion.folder / "model.json").exists()
    with tracking.run(moved, flow_run_id="two", **STORY) as run:
        run.log_text("here", "where.txt")
    assert not settings.workspace.exists()


def test_workspaces_of_one_process_do_not_mix(settings, folder, tmp_path, migrated_mlflow):
    other = tmp_path / "other"
    shutil.copytree(migrated_mlflow, other / "mlflow")
    with tracking.run(settings, flow_run_id="one", **STORY) as run:
        promote(settings, registry.register(run, name=NAME, folder=folder), "test")
    assert os.environ["MLFLOW_TRACKING_URI"] == ""  # not removed: another thread may be reading all of it
    assert registry.champion(load(other, environ={}), NAME) is None
    assert registry.champion(settings, NAME) is not None


@pytest.mark.parametrize(
    ("uri", "shown"),
    [("http://127.0.0.1:9", "http://127.0.0.1:9"), ("http://me:secret@127.0.0.1:9", "http://me:***@127.0.0.1:9")],
)
def test_a_store_that_does_not_answer_is_named_within_seconds(tmp_path, monkeypatch, uri, shown):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    started = time.perf_counter()
    with pytest.raises(Unreachable) as error:
        registry.champion(load(tmp_path, environ={}), NAME)
    assert time.perf_counter() - started < 10
    assert f"the MLflow store {shown} does not answer" in str(error.value)
    assert "secret" not in str(error.value)
    assert error.value.exit_code == 6


def test_a_store_that_wants_another_password_says_so_and_does_not_show_the_wrong_one(tmp_path, monkeypatch):
    class Closed(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(401)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Closed) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{server.server_port}")
        with pytest.raises(
            Unreachable, match=r"http://me:\*\*\*@.* wants another password: set BULLWHIP_AUTH"
        ) as error:
            registry.champion(load(tmp_path, environ={}), NAME)
        server.shutdown()
    assert error.value.exit_code == 6


def test_the_code_version_is_a_commit_or_the_package_s_version(tmp_path, monkeypatch):
    assert len(tracking.git_sha().removesuffix("-changed")) == 40 or tracking.git_sha().startswith("bullwhip ")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(tracking, "__file__", str(tmp_path / "tracking.py"))
    assert tracking.git_sha().startswith("bullwhip ")


def test_pictures_survive_every_outcome_and_are_logged(settings):
    rng = np.random.default_rng(0)
    p = rng.random(300)
    ties = np.full(300, 0.1)
    drawn = {
        "reliability": pictures.reliability(rng.random(300) < p, p, ties, rule_name="rule", title="t"),
        "nothing came true": pictures.precision_recall(np.zeros(300), ties, {"rule": ties}, "t"),
        "gain": pictures.importance(pd.DataFrame({"name": ["a", "b"], "gain_share": [0.9, 0.1]}), "t"),
    }
    with tracking.run(settings, flow_run_id="one", **STORY) as run:
        for name, figure in drawn.items():
            run.log_figure(figure, name)
    written = (settings.workspace / "mlflow" / "artifacts").rglob("*.png")
    assert {p.stem for p in written} == set(drawn)


def test_the_area_drawn_is_average_precision():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 400).astype(float), rng.integers(0, 9, 400) / 9
    assert pictures._average_precision(y, p) == pytest.approx(average_precision_score(y, p))
