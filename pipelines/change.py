"""Score the step from last week to this one a group of facts at a time, to tell why value at risk has changed."""

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd

from features.as_known import arrived, as_known
from features.contracts import ORDERS, PLAN, PROMISES, PURCHASES, RECEIPTS, SIGNALS, STOCK, TABLES
from features.matrix import (
    Matrix,
    Request,
    lines_alone,
    windows_apart,
    with_signals,
    with_windows_ahead,
)
from models import risk
from models.change import RISKS, Told, Week, weekly_change
from models.forecasters import DelayForecaster, Forecaster, ShiftForecaster
from pipelines import publish
from pipelines.ledger import Target
from pipelines.world import Scorable, World, judgeable, line_builder, request_of, window_builder

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


def rescored(world: World, forecaster: Forecaster, scored: Scorable) -> pd.DataFrame:
    """Return the value at risk by row_id after each step from an earlier day to the world's, a column per step.

    `model`: today's model on the earlier day, with what was known then. `time`: the date alone moves on to today, that
    is a line's own clock, or the weeks a window is about. `promise`: the lines' own promises of today as well. `data`:
    all that is known today, except signals that came since. Where no data came at all, `time` is the forecast as of
    today by what was known then.
    """
    of_lines = isinstance(forecaster, DelayForecaster)
    value, between = (line_values, _lines) if of_lines else (window_values, _windows)
    asked = request_of(world, forecaster)
    data = any(arrived(world.con, table, scored.day, world.as_of) for table in DATA[forecaster.task])
    worlds = between(world, asked, scored if scored.earlier else _rebuilt(world, forecaster, scored), data)
    if arrived(world.con, SIGNALS, scored.day, world.as_of):
        worlds["data"] = _without_signals(world, forecaster, asked, scored)
    table = pd.DataFrame({name: value(forecaster, matrix) for name, matrix in worlds.items()})
    return table if "promise" in table else table.assign(promise=table["time"])


def _rebuilt(world: World, forecaster: Forecaster, scored: Scorable) -> Scorable:
    """Return what was scored with the rows of its earlier day, which is not on the grid that ends on the world's."""
    before = request_of(world, forecaster, last=scored.day)
    last, weeks = np.array([before.grid.size - 1]), round((world.as_of - scored.day).days / 7)
    with as_known(world.con, _cut(scored.day)) as con:
        if isinstance(forecaster, DelayForecaster):
            return replace(scored, earlier=line_builder(world)(con, before, last))
        both = window_builder(world)(con, with_windows_ahead(before, weeks), last)
    earlier, ahead = windows_apart(both, before, weeks)
    return replace(scored, earlier=earlier, ahead=ahead)


def _lines(world: World, asked: Request, scored: Scorable, data: bool) -> dict[str, Matrix]:
    then, past, today = scored.earlier, _cut(scored.day), np.array([asked.grid.size - 1])
    assert then is not None
    worlds, steps = {"model": then}, {"time": past}
    if arrived(world.con, PROMISES, scored.day, world.as_of):
        steps["promise"] = past | {PROMISES.name: world.as_of}
    build = line_builder(world)
    for step, known in steps.items():
        with as_known(world.con, known) as con:
            worlds[step] = lines_alone(con, asked, then) if data else build(con, asked, today)
    return worlds


def _windows(world: World, asked: Request, scored: Scorable, data: bool) -> dict[str, Matrix]:
    assert scored.earlier is not None
    assert scored.ahead is not None
    if data:
        return {"model": scored.earlier, "time": scored.ahead}
    with as_known(world.con, _cut(scored.day)) as con:
        return {"model": scored.earlier, "time": window_builder(world)(con, asked, np.array([asked.grid.size - 1]))}


def _without_signals(world: World, forecaster: Forecaster, asked: Request, scored: Scorable) -> Matrix:
    """Return today's rows without what signals have said since; a calendar of planned events moves baselines too."""
    then = scored.day
    planned = asked.planned_in_baseline and arrived(world.con, SIGNALS, then, world.as_of, "kind = 'calendar'")
    with as_known(world.con, _cut(world.as_of) | {SIGNALS.name: then}) as con:
        if forecaster.task == "shift" and planned:
            return window_builder(world)(con, asked, np.array([asked.grid.size - 1]))
        return with_signals(con, scored.now, asked.grid)


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
