"""Tuning begins at the defaults, remembers what it tried, and what it finds is what training then uses."""

import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

from models import hazard, shift, tuning
from models.lessons import Training
from pipelines import mlflow_store
from pipelines import tune as tuner
from pipelines.learn import training
from pipelines.settings import Settings, UserError, load
from pipelines.simulate import simulate

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def toy_workspace(tmp_path, migrated_mlflow):
    simulate(tmp_path / "w", scale="toy")
    shutil.copytree(migrated_mlflow, tmp_path / "w" / "mlflow")
    (tmp_path / "w" / "bullwhip.toml").write_text("as_of = 2026-06-01\n")
    return tmp_path / "w"


def test_trials_are_remembered_and_the_first_are_the_defaults(toy_workspace, monkeypatch):
    tried = []

    def skill(settings, lesson, early, fits, params, trial):  # noqa: ARG001
        tried.append(params)
        assert len(early) == 2
        return -abs(np.log(params["num_leaves"] / 9))

    monkeypatch.setattr(tuner, "_skill", skill)
    settings = load(toy_workspace, environ={})
    found = tuner.tune(settings, "delay", as_of=settings.as_of, minutes=1, trials=6)
    assert tried[0] == {choice.name: choice.default for choice in tuning.space("delay")}
    assert (found["trials"], found["known_before"]) == (6, 0)
    assert found["skill"] >= found["skill_of_defaults"]
    again = tuner.tune(settings, "delay", as_of=settings.as_of, minutes=1, trials=2)
    assert (again["trials"], again["known_before"]) == (8, 6)
    assert again["mlflow_run_id"] == found["mlflow_run_id"]
    assert again["skill"] >= found["skill"]
    assert again["skill_of_defaults"] == found["skill_of_defaults"]
    store = mlflow_store.open_store(settings)
    runs = [r for r in store.client.search_runs([store.experiment_id]) if "mlflow.parentRunId" in r.data.tags]
    assert len(runs) == 8


def test_a_trial_is_worth_its_walk_forward_skill(toy_workspace, monkeypatch):
    few = (tuning.Choice("rounds", 2, 8, 4), tuning.Choice("num_leaves", 3, 8, 4))
    monkeypatch.setattr(tuner, "space", {"delay": few}.__getitem__)
    settings = load(toy_workspace, environ={})
    found = tuner.tune(settings, "delay", as_of=settings.as_of, minutes=1, trials=1)
    assert -1 < found["skill"] == found["skill_of_defaults"] < 1
    assert found["params"] == {}


def test_what_was_found_is_what_training_uses(tmp_path):
    settings = Settings(workspace=tmp_path)
    path = tuner.write_params(settings, "delay", {"rounds": 48, "num_leaves": 9, "lambda_l2": 0.5})
    assert tomllib.loads(path.read_text())["params"]["delay"] == {"rounds": 48, "num_leaves": 9, "lambda_l2": 0.5}
    how = training(load(tmp_path, environ={}), threads=1)
    assert how.of("delay") == {
        "seed": 7, "threads": 1, "country": "", "rounds": 48, "params": {"num_leaves": 9, "lambda_l2": 0.5}
    }  # fmt: skip
    assert how.of("shift") == Training(threads=1).of("shift")
    with pytest.raises(UserError, match=r"has \[params.delay\] already"):
        tuner.write_params(settings, "delay", {"rounds": 50})


def test_a_task_that_does_not_exist_is_refused_in_one_line(tmp_path):
    Path(tmp_path / "bullwhip.toml").write_text("[params.delays]\nrounds = 4\n")
    with pytest.raises(UserError, match="expected a table"):
        load(tmp_path, environ={})


@pytest.mark.parametrize("task", ["delay", "shift"])
def test_the_search_holds_the_defaults_between_its_bounds(task):
    defaults = {"delay": hazard, "shift": shift}[task]
    assert [choice.name for choice in tuning.space(task)] == list(tuning.TUNABLE)
    for choice in tuning.space(task):
        assert choice.low < choice.default < choice.high
        usual = defaults.ROUNDS if choice.name == "rounds" else defaults.PARAMS[choice.name]
        assert choice.default == usual
        assert isinstance(choice.default, int) == isinstance(usual, int)
