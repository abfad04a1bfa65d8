"""Score the step from last week to this one a group of facts at a time, to tell why value at risk has changed."""

from collections.abc import Mapping
from datetime import date

import numpy as np
import pandas as pd

from features.as_known import arrived, as_known
from features.contracts import ORDERS, PLAN, PROMISES, PURCHASES, RECEIPTS, SIGNALS, STOCK, TABLES
from features.matrix import (
    Matrix,
    Request,
    lines_alone,
    windows_ahead,
    with_signals,
)
from models import risk
from models.change import RISKS, Told, Week, weekly_change
from models.forecasters import DelayForecaster, Forecaster, ShiftForecaster
from pipelines import publish
from pipelines.stores import Target
from pipelines.world import World, judgeable, line_builder, request_of, window_builder

READ = (*RISKS, "watchlist")
DATA = {"delay": (PURCHASES, RECEIPTS), "shift": (ORDERS, STOCK, PLAN)}


def week_before(target: Target, as_of: date) -> Week | None:
    """Return what the latest publication before a day holds, None where there is none or it holds no row."""
    found = {name: publish.previous_week(target, name, as_of) for name in READ}
    days = [table["as_of"].iloc[0] for table in found.values() if len(table)]
    if not days:
        return None
    ledger = publish.publications(target)
    ids = [table["publication_id"].iloc[0] for table in found.values() if len(table)]
    had = ledger.loc[ledger["publication_id"] == ids[0], "rows"].iloc[0]
    return Week(pd.Timestamp(days[0]), {name: table for name, table in found.items() if name in had})


def worlds_between(world: World, forecaster: Forecaster, then: date) -> dict[str, Matrix]:
    """Return a forecaster's rows in the worlds between the day `then` and the world's own, by step: see `rescored`.

    Those of `model` are what the day's rows are when everything known since is deleted, so they prove the day too.
    """
    asked = request_of(world, forecaster)
    before = _ending(asked, then) or request_of(world, forecaster, last=then)
    data = any(arrived(world.con, table, then, world.as_of) for table in DATA[forecaster.task])
    build = _lines if isinstance(forecaster, DelayForecaster) else _windows
    return build(world, before, asked, data)


def _ending(asked: Request, day: date) -> Request | None:
    """Return the same request ending on a day, where that is a day of its grid: its rows are the same then."""
    step = np.flatnonzero(asked.grid.days == np.datetime64(day, "D"))
    return asked.until(int(step[0])) if len(step) else None


def rescored(
    world: World, forecaster: Forecaster, now: Matrix, then: date, worlds: Mapping[str, Matrix]
) -> pd.DataFrame:
    """Return the value at risk by row_id in the worlds between the day `then` and the world's own, a column per step.

    `model`: today's model as of `then`, knowing what was known then. `time`: a line's own clock, or the weeks a window
    is about, moved on to today, with nothing learnt. `promise`: with the lines' own promises of today. `data`: as of
    today with all that is known, except signals since `then`. Where no data came at all, all that time does is `time`:
    as of today, by what was known then. `now` is what is published.
    """
    value = line_values if isinstance(forecaster, DelayForecaster) else window_values
    every = dict(worlds)
    if arrived(world.con, SIGNALS, then, world.as_of):
        every["data"] = _without_signals(world, forecaster, request_of(world, forecaster), now, then)
    table = pd.DataFrame({name: value(forecaster, matrix) for name, matrix in every.items()})
    return table if "promise" in table else table.assign(promise=table["time"])


def _lines(world: World, before: Request, asked: Request, data: bool) -> dict[str, Matrix]:
    past, today = _cut(before.grid.as_of), np.array([asked.grid.size - 1])
    with line_builder(world) as build:
        with as_known(world.con, past) as con:
            then = build(con, before, np.array([before.grid.size - 1]))
            worlds = {"model": then, "time": lines_alone(con, asked, then) if data else build(con, asked, today)}
        if arrived(world.con, PROMISES, before.grid.as_of, world.as_of):
            with as_known(world.con, past | {PROMISES.name: world.as_of}) as con:
                worlds["promise"] = lines_alone(con, asked, then) if data else build(con, asked, today)
    return worlds


def _windows(world: World, before: Request, asked: Request, data: bool) -> dict[str, Matrix]:
    weeks = round((world.as_of - before.grid.as_of).days / 7)
    with window_builder(world) as build, as_known(world.con, _cut(before.grid.as_of)) as con:
        if data:
            return dict(zip(("model", "time"), windows_ahead(build, con, before, weeks), strict=True))
        both = ((before, before.grid.size - 1), (asked, asked.grid.size - 1))
        found = [build(con, request, np.array([step])) for request, step in both]
        return dict(zip(("model", "time"), found, strict=True))


def _without_signals(world: World, forecaster: Forecaster, asked: Request, now: Matrix, then: date) -> Matrix:
    """Return today's rows without what signals have said since; a calendar of planned events moves baselines too."""
    planned = asked.planned_in_baseline and arrived(world.con, SIGNALS, then, world.as_of, "kind = 'calendar'")
    with as_known(world.con, _cut(world.as_of) | {SIGNALS.name: then}) as con:
        if forecaster.task == "shift" and planned:
            with window_builder(world) as build:
                return build(con, asked, np.array([asked.grid.size - 1]))
        return with_signals(con, now, asked.grid)


def _cut(day: date) -> dict[str, date]:
    return {table.name: day for table in TABLES}


def line_values(forecaster: Forecaster, matrix: Matrix) -> pd.Series:
    """Return the value at risk of open lines by row_id."""
    p = forecaster.predict(matrix.X)["p_late"]
    return risk.line_stakes(matrix.rows, p)[2].set_axis(matrix.rows["po_line_id"])


def window_values(forecaster: Forecaster, matrix: Matrix) -> pd.Series:
    """Return the value at risk of series windows by row_id, of those that can be judged later."""
    assert isinstance(forecaster, ShiftForecaster)
    matrix = judgeable(matrix, forecaster.facts.shift_terms)
    rows = matrix.rows
    p = forecaster.predict(matrix.X, rows)
    units = forecaster.model.predict_units(matrix.X, rows["baseline_units"], rows["noise_units"])
    return risk.window_stakes(rows, p, units).set_axis(risk.window_dates(rows)["row_id"])


def explained(
    world: World, then: Week | None, tables: dict[str, pd.DataFrame], steps: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    """Return `weekly_change` of this week's tables against the last one's."""
    ended = _ended(world, then.of(RISKS[0]) if then else pd.DataFrame())
    versions = {
        name: (_version(then.of(name)), _version(tables[name])) for name in RISKS if then is not None and name in tables
    }
    now = Week(pd.Timestamp(world.as_of), {name: tables[name] for name in READ if name in tables})
    return weekly_change(then, now, Told(steps, ended, versions, world.settings.currency))


def _version(table: pd.DataFrame) -> str:
    return str(table["model_version"].iloc[0]) if len(table) else ""


def _ended(world: World, lines: pd.DataFrame) -> pd.DataFrame:
    """Return by po_line_id when last week's lines were completed or cancelled, as known before the world's as-of."""
    if not len(lines):
        return pd.DataFrame(columns=["complete_on", "cancelled_at"])
    world.con.register("asked", lines[["po_line_id"]])
    ended = world.con.execute(
        "SELECT po_line_id, CASE WHEN complete_known_at < $1 THEN complete_on END AS complete_on, "
        "CASE WHEN cancelled_at < $1 THEN cancelled_at END AS cancelled_at FROM line_history JOIN asked "
        "USING (po_line_id)",
        [world.as_of],
    ).df()
    world.con.unregister("asked")
    return ended.set_index("po_line_id")
