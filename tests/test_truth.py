"""Hold the models to a world whose truth is known, with a seed that nothing was tuned on."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from models import lessons, metrics
from models.backtest import binary, play, warm_ups
from pipelines.learn import learn, prepare, training
from pipelines.settings import Settings
from pipelines.simulate import simulate
from pipelines.world import open_world, request

HELD_OUT, END = 31, date(2026, 6, 1)
SHIFT_KEY = ["product_id", "site_id", "as_of", "lead_weeks"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("held_out")
    simulate(workspace, scale="demo", seed=HELD_OUT, end=END)
    with open_world(Settings(workspace=workspace, country="DE", attributes=["ship_mode"]), END) as world:
        yield world


def truth(world, name):
    table = pd.read_parquet(world.settings.workspace / "truth" / f"{name}.parquet")
    return table.assign(as_of=pd.to_datetime(table["as_of"]))


def test_p_late_is_calibrated_and_follows_the_true_probability(world):
    learned = learn(world, "delay", threads=2)
    walk = learned.walk.assign(p=learned.walk["p_model"])
    assert len(walk) > 10_000
    assert 0.9 <= metrics.calibration_slope(walk["y"], walk["p"]) <= 1.1
    both = walk.merge(truth(world, "p_late"), on=["po_line_id", "as_of"])
    assert len(both) > 0.95 * len(walk)
    assert np.corrcoef(both["p"], both["p_late"])[0, 1] >= 0.65
    assert learned.judged is not None
    assert learned.judged["brier"].astype(float).idxmin() == "model"
    assert learned.judged["pr_auc"].astype(float).idxmax() == "model"
    assert learned.decision.publishes["late"] == "model"
    kept = {entry["signal"]: entry["kept"] for entry in learned.forecaster.facts.signals}
    assert not kept["sentiment"]  # noise


def test_planted_demand_shifts_are_found(world):
    """The last quarter's windows, as far as they have matured, by a model of what was known before it."""
    asked, cut = request(world, "shift"), np.datetime64(END)
    quarter = warm_ups("shift", cut, asked.grid.days)[-1]
    lesson = prepare(world, "shift", asked, judged_from=quarter.cut)
    walk = binary(play(lesson, quarter, [], lessons.fit(lesson, quarter.cut, training(world.settings, 2))), "shift")
    both = walk.merge(truth(world, "shifts"), on=SHIFT_KEY)
    planted = (both["shift"] == both["event"]).to_numpy()
    assert 0.005 < planted.mean() < 0.2
    assert metrics.pr_auc(planted, both["p_model"]) >= 2 * planted.mean()
