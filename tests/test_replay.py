"""The past replayed as a user runs it: recomputable, resumable, blind to what came later."""

import shutil
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines import backtest, mlflow_store
from tests.workspaces import as_process, bullwhip, forget_from, settings

pytestmark = pytest.mark.usefixtures("prefect_server")
PAST = ("--from", "2026-02-02", "--to", "2026-03-30", "--refit", "4w")


@pytest.fixture
def replayed(fresh, quick):  # noqa: ARG001
    """A workspace whose delays were replayed once, what that said, and its predictions."""
    code, said, _ = bullwhip(fresh, "backtest", "--task", "delay", *PAST, "--predictions", str(fresh / "p.parquet"))
    assert code == 0, said
    return fresh, said, pd.read_parquet(fresh / "p.parquet")


def test_a_backtest_says_all_of_its_document_and_anyone_can_recompute_it(replayed):
    _, said, p = replayed
    assert {"n", "positives", "folds", "metrics", "rules", "intervals", "segments", "weeks", "lists", "quantiles",
            "predictions", "mlflow_run_id", "seconds"} <= set(said)  # fmt: skip
    assert [fold["cut"] for fold in said["folds"]] == ["2026-02-02", "2026-03-02", "2026-03-30"]
    assert (p["as_of"].dt.day_of_week == 0).all()
    known = p[p["label"].notna()]
    assert (said["n"], said["positives"]) == (len(known), known["label"].sum())
    assert said["metrics"]["brier"] == pytest.approx(((known["p"] - known["label"]) ** 2).mean())
    for rule, found in said["rules"].items():
        assert found["brier"] == pytest.approx(((known[f"p_{rule}"] - known["label"]) ** 2).mean()), rule
    assert not p.duplicated(["po_line_id", "as_of"]).any()
    assert (known["matured_at"] <= pd.Timestamp(said["known_until"])).all()
    assert p.loc[p["state"] != "due_future", ["p", "label"]].isna().all(axis=None)
    assert p.filter(like="arrival_in").notna().all(axis=None)
    for name in {part["segment"] for part in said["segments"]}:
        mine = [part["n"] for part in said["segments"] if part["segment"] == name]
        assert 0 < sum(mine) <= len(known)


def test_a_backtest_is_one_run_with_a_child_per_fold_and_its_pictures(replayed):
    folder, said, _ = replayed
    store = mlflow_store.open_store(settings(folder))
    runs = {r.info.run_id: r for r in store.client.search_runs([store.experiment_id])}
    parent = runs.pop(said["mlflow_run_id"])
    assert {r.data.tags["mlflow.parentRunId"] for r in runs.values()} == {said["mlflow_run_id"]}
    assert {r.data.tags["cut"] for r in runs.values()} == {fold["cut"] for fold in said["folds"]}
    assert {r.info.status for r in (parent, *runs.values())} == {"FINISHED"}
    artifacts = folder / "mlflow" / "artifacts" / parent.info.run_id
    names = {p.name for p in artifacts.rglob("*.png")}
    kinds = ("reliability", "precision_recall", "skill_over_time", "value_captured", "warning_days")
    assert names == {f"delay_{kind}.png" for kind in kinds}


def test_a_backtest_goes_on_with_the_folds_that_are_missing(replayed, monkeypatch):
    folder, said, p = replayed
    kept = sorted((folder / "backtests").rglob("fold-*.parquet"))
    assert len(kept) == 5  # two warm the gate up
    kept[-1].unlink()
    played = []
    play = backtest.play
    monkeypatch.setattr(backtest, "play", lambda lesson, fold, *more: played.append(fold) or play(lesson, fold, *more))
    code, again, _ = bullwhip(
        folder, "backtest", "--task", "delay", *PAST, "--predictions", str(folder / "again.parquet")
    )
    assert code == 0
    assert [str(fold.cut) for fold in played] == ["2026-03-30"]
    assert {**again, "seconds": 0, "predictions": ""} == {**said, "seconds": 0, "predictions": ""}
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "again.parquet"), p)


def test_the_past_is_replayed_as_if_the_future_had_not_come(replayed, tmp_path):
    """Facts known later change what came true, never what was predicted."""
    folder, _, p = replayed
    blind = Path(shutil.copytree(folder, tmp_path / "blind", ignore=shutil.ignore_patterns("backtests")))
    forget_from(blind, date(2026, 4, 1))
    code, said, _ = bullwhip(blind, "backtest", "--task", "delay", *PAST, "--predictions", str(blind / "p.csv"))
    assert code == 0
    assert said["known_until"] <= "2026-04-01"
    unseen = pd.read_csv(blind / "p.csv")
    columns = [c for c in p if c.startswith(("p_", "arrival_in"))] + ["p"]
    pd.testing.assert_frame_equal(unseen[columns], p[columns], check_dtype=False)
    assert unseen["label"].notna().sum() < p["label"].notna().sum()


@pytest.mark.usefixtures("quick")
def test_lines_are_replayed_once_on_the_day_they_were_ordered(fresh):
    words = ("--task", "delay", "--at", "order", *PAST, "--predictions", str(fresh / "p.parquet"))
    code, said, _ = bullwhip(fresh, "backtest", *words)
    assert code == 0, said
    p = pd.read_parquet(fresh / "p.parquet")
    assert p["po_line_id"].is_unique
    lines = pd.read_parquet(fresh / "data" / "purchases.parquet")
    ordered = lines.set_index("po_line_id")["ordered_at"].dt.normalize()
    np.testing.assert_array_equal(p["as_of"], p["po_line_id"].map(ordered))
    inside = ordered.between("2026-02-02", "2026-03-30")
    assert set(p["po_line_id"]) <= set(ordered.index[inside])
    assert len(p) > 0.9 * inside.sum()
    assert said["n"] == p["label"].notna().sum() > 50


@pytest.mark.usefixtures("quick")
def test_shifts_are_replayed_with_drops_and_surges_judged_apart(fresh):
    code, said, _ = bullwhip(fresh, "backtest", "--task", "shift", *PAST, "--predictions", str(fresh / "p.csv"))
    assert code == 0
    assert set(said["events"]) == {"down", "up"}
    p = pd.read_csv(fresh / "p.csv")
    assert set(p["label"].dropna()) <= {"down", "steady", "up"}
    np.testing.assert_allclose(p[["p_down", "p_steady", "p_up"]].sum(axis=1), 1)
    known = p[p["label"].notna()]
    up = said["events"]["up"]["metrics"]
    assert up["brier"] == pytest.approx(((known["p_up"] - (known["label"] == "up")) ** 2).mean())
    assert said["n"] == 2 * len(known)
    assert (p["units_p10"] <= p["units_p50"]).all()


@pytest.mark.parametrize(("words", "complaint"), [
    (("--from", "2026-03-30", "--to", "2026-02-02"), "lies after --to"),
    (("--from", "2026-07-01", "--to", "2026-08-01"), "the newest fact is of"),
    (("--from", "2020-01-06", "--to", "2020-02-03"), "nothing to replay"),
    (("--from", "2026-02-02", "--to", "2026-03-30", "--every", "fortnight"), "expected days or weeks"),
    (("--from", "2026-02-02", "--to", "2026-03-30", "--predictions", "p.txt"), "ends in .parquet or .csv"),
])  # fmt: skip
def test_questions_without_an_answer_are_refused_in_one_line(fresh, words, complaint):
    code, said, err = bullwhip(fresh, "backtest", "--task", "delay", *words)
    assert code == 2
    assert complaint in said["error"]
    assert err.count("\n") == 1, err


def test_a_backtest_that_is_killed_goes_on_to_the_same_end(replayed, tmp_path):
    folder, said, _ = replayed
    other = Path(shutil.copytree(folder, tmp_path / "other", ignore=shutil.ignore_patterns("backtests")))
    process = as_process(other, "backtest", "--task", "delay", *PAST)
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < 120 and not list(other.rglob("fold-*.parquet")):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    whole = len(list(other.rglob("fold-*.parquet")))
    assert 1 <= whole < 5
    code, again, _ = bullwhip(other, "backtest", "--task", "delay", *PAST)
    assert code == 0
    assert len(list(other.rglob("fold-*.parquet"))) == 5
    counts = [
        [{k: fold[k] for k in ("cut", "predicted", "n", "positives")} for fold in x["folds"]] for x in (again, said)
    ]
    assert counts[0] == counts[1]
