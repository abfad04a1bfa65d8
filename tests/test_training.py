"""Training as a user runs it: what it says, keeps, promotes and never sees; and worlds with fewer tables."""

import json
import shutil
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from models import lessons
from models.delay import DelayModel
from models.forecasters import load as load_forecaster
from models.gate import Decision
from pipelines import learn, mlflow_store, registry
from pipelines import world as worlds
from pipelines.world import NO_PROOF, World, delay_rows, open_world, request
from tests.workspaces import EARLIER, MONDAY, bullwhip, change, forget_from, settings, tables_of

pytestmark = pytest.mark.usefixtures("prefect_server")
METRICS = {"pr_auc", "prevalence", "brier", "bss_climatology", "ece", "slope"}


@pytest.fixture
def workspace(trained, tmp_path):
    return Path(shutil.copytree(trained[0], tmp_path / "workspace"))


def to_nine_digits(document):
    """The document with every number rounded: in which order threads add up is in the last digits."""
    return json.loads(json.dumps(document), parse_float=lambda text: float(f"{float(text):.9g}"))


def keep_only(workspace, *tables):
    for path in (workspace / "data").iterdir():
        if path.stem not in tables:
            path.unlink()


@pytest.mark.parametrize(("most", "groups"), [(7, [["delay", "shift"]]), (6, [["delay"], ["shift"]])])
def test_very_many_facts_are_learnt_from_one_task_after_the_other(most, groups, monkeypatch):
    monkeypatch.setattr(worlds, "FACTS_AT_ONCE", most)
    with duckdb.connect() as con:
        con.execute("CREATE TABLE orders AS FROM range(5); CREATE TABLE purchases AS FROM range(2)")
        world = World([con], (), None, MONDAY, "")
        assert worlds.at_once(world, ["delay", "shift"]) == groups
        assert worlds.at_once(world, ["shift"]) == [["shift"]]
        assert worlds.at_once(world, []) == []


def test_nobody_learns_from_data_that_ended_long_before(workspace):
    code, said, _ = bullwhip(workspace, "train", "--as-of", "2031-01-06")
    assert (code, "nothing new since" in said["error"]) == (3, True)
    assert "choose an earlier day with --as-of" in said["error"]


def test_training_says_all_of_its_document(trained):
    _, code, said = trained
    assert said["as_of"] == str(EARLIER)
    assert set(said["tasks"]) == {"delay", "shift"}
    for result in said["tasks"].values():
        assert {"model_version", "alias", "promoted", "refused_because", "rows", "metrics", "rules", "mlflow_run_id",
                "seconds"} <= set(result)  # fmt: skip
        assert set(result["metrics"]) >= METRICS
        assert all(isinstance(result["metrics"][name], int | float) for name in METRICS)
        assert result["rules"]
        assert all({"pr_auc", "brier", "slope"} <= set(rule) for rule in result["rules"].values())
        assert 0 < result["rows"]["judged"] <= result["rows"]["matured"] <= result["rows"]["rows"]
        assert result["promoted"] == (result["refused_because"] is None)
        assert (result["model_version"], result["alias"]) == ("1", "champion")
    refused = [r["refused_because"] for r in said["tasks"].values() if r["refused_because"]]
    assert code == (4 if refused else 0)
    assert all(reason in said["error"] for reason in refused)


def test_one_run_keeps_everything_about_a_training(trained):
    folder, _, said = trained
    store = mlflow_store.open_store(settings(folder))
    runs = store.client.search_runs([store.experiment_id])
    assert {r.info.run_id for r in runs} == {t["mlflow_run_id"] for t in said["tasks"].values()}
    (run,) = runs
    assert run.info.status == "FINISHED"
    assert {"prefect.flow_run_id", "as_of", "data_hash", "git_sha"} <= set(run.data.tags)
    assert run.data.metrics["delay.pr_auc"] == pytest.approx(said["tasks"]["delay"]["metrics"]["pr_auc"])
    assert any(name.startswith("shift.rule.") for name in run.data.metrics)
    artifacts = folder / "mlflow" / "artifacts" / run.info.run_id
    names = {p.stem for p in artifacts.rglob("*") if p.is_file()}
    for task in ("delay", "shift"):
        assert {f"{task}_drivers", f"{task}_metrics"} <= names
    for event in ("delay", "shift_down", "shift_up"):
        assert {f"{event}_reliability", f"{event}_precision_recall"} <= names
    drivers = pd.read_csv(next(artifacts.rglob("delay_drivers.csv")))
    assert drivers["gain_share"].sum() == pytest.approx(1)


def test_a_registered_model_serves_what_our_own_loader_scores(workspace, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    found = registry.champion(settings(workspace), registry.REGISTRY["delay"])
    served = mlflow.pyfunc.load_model(f"models:/{registry.REGISTRY['delay']}@champion")
    ours = load_forecaster(found.folder)
    with open_world(settings(workspace), MONDAY) as world:
        asked = request(world, "delay", ours.facts.terms)
        X = delay_rows(world, asked, np.array([asked.grid.size - 1]), NO_PROOF).X
    assert len(X) > 10
    pd.testing.assert_frame_equal(served.predict(X), ours.predict(X))
    stored = {p.suffix for p in (workspace / "mlflow" / "artifacts").rglob("*") if p.is_file()}
    assert not stored & {".pkl", ".pickle", ".joblib", ".npy"}


def test_training_again_on_the_same_changes_nothing(workspace, trained):
    code, said, _ = bullwhip(workspace, "train", "--as-of", str(EARLIER))
    assert code == trained[1]
    for task, result in said["tasks"].items():
        assert result["unchanged"] is True
        assert result["metrics"] == trained[2]["tasks"][task]["metrics"]
        assert len(registry.versions(settings(workspace), registry.REGISTRY[task])) == 1


class Contrary(DelayModel):
    """Says the opposite of what it learnt."""

    def late(self, rows):
        return 1 - super().late(rows)


def test_a_worse_challenger_is_kept_but_not_promoted(workspace, quick, monkeypatch):
    monkeypatch.setattr(lessons, "DelayModel", partial(Contrary, rounds=quick))
    (workspace / "bullwhip.toml").write_text(f"as_of = {MONDAY}\nseed = 8\n")
    code, said, _ = bullwhip(workspace, "train", "--task", "delay", "--dry-run")
    assert (code, said["tasks"]["delay"]["model_version"]) == (4, None)
    assert len(registry.versions(settings(workspace), registry.REGISTRY["delay"])) == 1
    code, said, _ = bullwhip(workspace, "train", "--task", "delay")
    result = said["tasks"]["delay"]
    assert (code, result["alias"], result["promoted"], result["model_version"]) == (4, "challenger", False, "2")
    assert "clearly better" in result["refused_because"]
    assert result["refused_because"] in said["error"]
    known = registry.versions(settings(workspace), registry.REGISTRY["delay"])
    assert [(v["version"], v["aliases"]) for v in known] == [("2", ["challenger"]), ("1", ["champion"])]


@pytest.mark.usefixtures("quick")
def test_training_learns_nothing_from_facts_known_later(fresh, tmp_path):
    (fresh / "bullwhip.toml").write_text("history_weeks = 44\n")
    blind = Path(shutil.copytree(fresh, tmp_path / "blind"))
    forget_from(blind, EARLIER)
    (_, seen, _), (_, unseen, _) = (bullwhip(w, "train", "--as-of", str(EARLIER)) for w in (fresh, blind))
    models = []
    for folder, said in ((fresh, seen), (blind, unseen)):
        for result in said["tasks"].values():
            del result["mlflow_run_id"], result["seconds"]
        found = [registry.champion(settings(folder), name).folder for name in registry.REGISTRY.values()]
        models.append([p.read_bytes() for f in found for p in sorted(f.rglob("*.lgb"))])
    assert to_nine_digits(seen["tasks"]) == to_nine_digits(unseen["tasks"])
    assert seen["tasks"]["delay"]["rows"]["judged"] > 50
    assert len(models[0]) >= 6
    assert models[0] == models[1]


# Other worlds ---------------------------------------------------------------------------------------------------------


def test_purchases_and_receipts_alone_teach_delays_and_a_better_model_gives_its_reasons(fresh, monkeypatch):
    keep_only(fresh, "purchases", "receipts")
    monkeypatch.setattr(learn, "decide", lambda *_: Decision({"late": "model"}, {"late": "climatology"}, None))
    code, said, _ = bullwhip(fresh, "train")
    assert (code, said["tasks"]["delay"]["promoted"]) == (0, True)
    assert "no orders" in said["tasks"]["shift"]["skipped"]
    code, said, _ = bullwhip(fresh, "score")
    assert (code, said["models"]["delay"]["publishes"]) == (0, "model")
    assert set(said["models"]) == {"delay"}
    frames = tables_of(fresh, names=("supplier_delay_risk", "supplier_risk", "watchlist"))
    assert (frames["supplier_delay_risk"]["published_by"] == "model").all()
    assert (frames["watchlist"]["driver_1"] != "").any()
    code, story, _ = bullwhip(fresh, "explain", frames["watchlist"]["row_id"].iloc[0])
    assert (code, story["check"]["equal"], story["facts"]["signals"]) == (0, True, [])


@pytest.mark.usefixtures("quick")
def test_orders_alone_teach_shifts(fresh):
    keep_only(fresh, "orders")
    code, said, _ = bullwhip(fresh, "train")
    assert code in (0, 4)
    assert "no purchase lines" in said["tasks"]["delay"]["skipped"]
    code, said, _ = bullwhip(fresh, "score")
    assert (code, set(said["models"])) == (0, {"shift"})
    names = {"demand_shift_risk", "watchlist", "weekly_change", "rule_forecasts", "track_record", "health"}
    assert set(said["rows"]) == names
    row = tables_of(fresh, names=("demand_shift_risk",))["demand_shift_risk"]["row_id"].iloc[0]
    code, story, _ = bullwhip(fresh, "explain", row)
    assert (code, story["check"]["equal"], story["facts"]["signals"]) == (0, True, [])


@pytest.mark.usefixtures("quick")
def test_snapshots_may_be_daily_and_purchases_bring_attributes(fresh):
    change(fresh, "purchases", "SELECT *, CASE WHEN hash(po_line_id) % 2 = 0 THEN 'air' ELSE 'sea' END AS ship_mode, "
           "hash(po_line_id) % 90 / 10 AS weight FROM old WHERE ordered_at >= '2025-10-01'")  # fmt: skip
    change(fresh, "receipts", "SELECT * FROM old WHERE received_on >= '2025-10-01'")
    (fresh / "bullwhip.toml").write_text(
        f'as_of = {MONDAY}\nevery_days = 1\nattributes = ["ship_mode", "weight"]\ntasks = ["delay"]\n'
        "max_quarantined = 0.9\nhistory_weeks = 30\n"
    )
    code, said, _ = bullwhip(fresh, "train")
    assert code in (0, 4), said
    assert said["tasks"]["delay"]["rows"]["rows"] > 3000
    found = registry.champion(settings(fresh), registry.REGISTRY["delay"])
    assert {"attribute_ship_mode", "attribute_weight"} <= set(load_forecaster(found.folder).model.encoder_.columns_)
    assert bullwhip(fresh, "score")[0] == 0
