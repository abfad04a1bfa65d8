"""AutoETS where statsforecast is installed, a word in the log where it is not."""

import importlib.util
import logging
import sys

import numpy as np
import pandas as pd
import pytest

from models.ets import with_ets

WINDOWS = pd.DataFrame({"lead_weeks": [0, 4], "length_weeks": [4, 4]})


def rows(series):
    pairs = pd.DataFrame([(39, s) for s in range(series)], columns=["step", "entity"])
    return pairs.merge(WINDOWS, how="cross")


def test_without_statsforecast_the_rule_is_left_out_and_said_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "statsforecast.models", None)
    with caplog.at_level(logging.WARNING):
        assert list(with_ets(rows(2), np.ones((40, 2)))) == list(rows(2))
    assert "statsforecast is not installed" in caplog.text


@pytest.mark.skipif(importlib.util.find_spec("statsforecast") is None, reason="statsforecast is not installed")
def test_forecasts_of_sampled_series():
    net = np.column_stack([np.full(40, 10.0), np.random.default_rng(0).poisson(50, 40), np.zeros(40), np.eye(40)[39]])
    found = with_ets(rows(4), net)
    np.testing.assert_allclose(found["ets_units"][:2], 40, rtol=0.01)
    assert found["ets_units"][2:4].between(150, 250).all()
    assert (found["ets_spread"][2:4] > 5).all()
    assert found["ets_units"][4:].isna().all()  # all zero, or too short
    assert with_ets(rows(4), net, most=1)["ets_units"].notna().sum() == 2
    assert len(with_ets(rows(4).iloc[:0], net)) == 0
