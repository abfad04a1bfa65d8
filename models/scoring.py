"""Turn the rows of one task into its risk table: what the forecaster says, what it is worth and why."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.core import Feature
from features.matrix import Matrix
from models import risk
from models.boosting import contributions
from models.delay import DelayModel
from models.explain import DRIVERS, drivers
from models.forecasters import MODEL, DelayForecaster, Forecaster, ShiftForecaster, publishers

Forecasts = Mapping[str, pd.DataFrame]
"""What `Forecaster.forecasts` gives: per event, what the model and every rule say of each row."""


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What a forecaster says of rows: its `forecasts`, what is published of them (`predict`), and the quantiles
    [row, level] of days to arrival or of a window's units."""

    forecasts: Forecasts
    published: pd.DataFrame
    quantiles: np.ndarray


EXPLAINED = 5_000  # rows with drivers, by value at risk: more than anybody reads in a week


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    """The forecaster that scores a task, and the name under which its rows are published."""

    version: str
    forecaster: Forecaster

    @property
    def publishes(self) -> str:
        return publishers(self.forecaster)


def say(forecaster: Forecaster, rows: pd.DataFrame, X: pd.DataFrame) -> Said:
    """Return what a forecaster says of open lines, or of windows; what it says of a row depends on no other."""
    forecasts = forecaster.forecasts(X, rows)
    p = forecaster.predict(X, rows, said=forecasts)
    if isinstance(forecaster, DelayForecaster):
        ahead = p["p_late"].where(rows["state"] == "due_future").to_numpy()
        return Said(dict(forecasts), p, forecaster.arrivals(X, ahead, said=forecasts))
    units = forecaster.model.predict_units(X, rows["baseline_units"], rows["noise_units"])
    return Said(forecasts, p, units)


def said_together(parts: Sequence[Said]) -> Said:
    """Return what was said of rows that follow each other."""

    def whole(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(tables, ignore_index=True)

    forecasts = {event: whole(part.forecasts[event] for part in parts) for event in parts[0].forecasts}
    return Said(forecasts, whole(part.published for part in parts), np.concatenate([part.quantiles for part in parts]))


def line_risks(
    lines: Matrix, champion: Champion, names: risk.Names, last_week: pd.DataFrame, said: Said | None = None
) -> pd.DataFrame:
    """Return `supplier_delay_risk` of open lines; `said` is what the forecaster says of them, where it is there."""
    forecaster, rows, X = champion.forecaster, lines.rows, lines.X
    assert isinstance(forecaster, DelayForecaster)
    said = said or say(forecaster, rows, X)
    p, by = said.published["p_late"], said.published["published_by"]
    stake = (p * rows["open_units"] * rows["unit_cost"].fillna(0)).to_numpy()
    told = _told(lines, forecaster, stake, None, names.currency).where(by == MODEL, "")
    return risk.delay_risk(
        rows, p, said.quantiles, told, X["supplier_matured_lines_52w"], base_rate=forecaster.model.base_rate_,
        published_by=by, model_version=champion.version, names=names, last_week=last_week,
    )  # fmt: skip


def window_risks(
    windows: Matrix, champion: Champion, names: risk.Names, last_week: pd.DataFrame, said: Said | None = None
) -> pd.DataFrame:
    """Return `demand_shift_risk` of windows that can be judged later (`judgeable`); `said` as for lines."""
    forecaster, rows = champion.forecaster, windows.rows
    assert isinstance(forecaster, ShiftForecaster)
    said = said or say(forecaster, rows, windows.X)
    p = said.published
    up = (p["p_up"] >= p["p_down"]).to_numpy()
    stake = (p[["p_up", "p_down"]].max(axis=1) * rows["baseline_units"] * rows["unit_price"]).to_numpy()
    by_model = p["published_by_up"].where(up, p["published_by_down"]).str.startswith(MODEL)
    told = _told(windows, forecaster, stake, up, names.currency).where(by_model, "")
    by = np.where(
        p["published_by_up"] == p["published_by_down"], p["published_by_up"],
        "surges: " + p["published_by_up"] + ", drops: " + p["published_by_down"],
    ).astype(str)  # fmt: skip
    down_rate, _, up_rate = forecaster.model.base_rates_
    return risk.shift_risk(
        rows, p, said.quantiles, told, base_rates={"up": up_rate, "down": down_rate}, published_by=by,
        model_version=champion.version, names=names, last_week=last_week,
    )  # fmt: skip


def _told(
    matrix: Matrix, forecaster: Forecaster, stake: np.ndarray, up: np.ndarray | None, currency: str
) -> pd.DataFrame:
    """Return the drivers in words of the rows with most at stake, empty words for the rest."""
    names = [f"driver_{k + 1}" for k in range(DRIVERS)]
    told = pd.DataFrame("", index=matrix.X.index, columns=names)
    if not len(matrix.X):
        return told
    top = np.sort(np.argsort(-np.nan_to_num(stake), kind="stable")[:EXPLAINED])
    X = matrix.X.iloc[top]
    shap, kept = shap_values(matrix, X, forecaster, None if up is None else up[top])
    told.iloc[top] = drivers(shap, X, kept, forecaster.model.usual_["median"], currency=currency).to_numpy()
    return told


def shap_values(
    matrix: Matrix, X: pd.DataFrame, forecaster: Forecaster, up: np.ndarray | None
) -> tuple[np.ndarray, list[Feature]]:
    """Return what each input adds to the log-odds [row, feature] of rows X, and the features the model was given.

    Of windows it is the log-odds of a surge against steady where `up`, of a drop elsewhere.
    """
    model = forecaster.model
    if isinstance(model, DelayModel):
        shap = model.contributions(X)
    else:
        shap = contributions(model.booster_, model.encoder_.transform(X), model.threads)
    if up is not None:
        down_part, steady, up_part = np.split(shap, 3, axis=1)
        shap = np.where(up[:, None], up_part, down_part) - steady
    kept = [f for f in matrix.features if f.name in model.encoder_.columns_]
    return shap[:, [model.encoder_.columns_.index(f.name) for f in kept]], kept


def by_rules(said: Forecasts) -> dict[str, dict[str, np.ndarray]]:
    """Return of forecasts, per event, what every naive rule says of each row."""
    return {
        event: {str(name): given[name].to_numpy() for name in given if name != MODEL} for event, given in said.items()
    }
