"""AutoETS forecasts of sampled series and days, for a naive rule of the backtest."""

import logging
from typing import Any

import numpy as np
import pandas as pd

MOST_FITS = 2_000  # a fit takes some 10 ms: half a minute
HISTORY_WEEKS = 104
ONE_SIGMA = 68.27


def with_ets(rows: pd.DataFrame, net: np.ndarray, most: int = MOST_FITS) -> pd.DataFrame:
    """Return `rows` with `ets_units` and `ets_spread`: AutoETS forecasts of the window's total and their spread.

    `net` holds weekly units [as_of, series] as known; `step` and `entity` of a row are its place in it. At most `most`
    pairs of day and series are fitted, spread evenly; other rows are missing. Without statsforecast (the extra
    `stats`) nothing is added, and the log says so.
    """
    try:
        from statsforecast.models import AutoETS
    except ImportError:
        logging.getLogger(__name__).warning("no AutoETS rule: statsforecast is not installed (pip install .[stats])")
        return rows
    pairs = rows[["step", "entity"]].drop_duplicates().sort_values(["step", "entity"]).to_numpy()
    chosen = (
        pairs[np.unique(np.linspace(0, len(pairs) - 1, min(most, len(pairs))).astype(int))] if len(pairs) else pairs
    )
    horizon = int((rows["lead_weeks"] + rows["length_weeks"]).max()) if len(rows) else 1
    told = {
        (int(t), int(s)): _forecast(AutoETS, net[max(t + 1 - HISTORY_WEEKS, 0) : t + 1, s], horizon) for t, s in chosen
    }
    windows = zip(rows["step"], rows["entity"], rows["lead_weeks"], rows["length_weeks"], strict=True)
    found = [_window(told.get((int(t), int(s))), int(lead), int(length)) for t, s, lead, length in windows]
    return rows.assign(
        ets_units=np.array([units for units, _ in found], float), ets_spread=np.array([s for _, s in found], float)
    )


def _forecast(model: Any, units: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return mean and standard deviation of each week ahead, None where the series is too short or all zero."""
    units = units[np.argmax(units > 0) :]
    if len(units) < 8 or not units.any():
        return None
    said = model(season_length=1, model="ZZN").forecast(y=units.astype(np.float64), h=horizon, level=[ONE_SIGMA])
    return said["mean"], (said[f"hi-{ONE_SIGMA}"] - said[f"lo-{ONE_SIGMA}"]) / 2


def _window(told: tuple[np.ndarray, np.ndarray] | None, lead: int, length: int) -> tuple[float, float]:
    """Return the window's total and its spread, as if the errors of its weeks were half shared."""
    if told is None:
        return np.nan, np.nan
    mean, spread = (x[lead : lead + length] for x in told)
    return float(mean.sum()), float(np.sqrt((spread.sum() ** 2 + (spread**2).sum()) / 2))
