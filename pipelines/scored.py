"""Make the risk tables of one day from its facts and its champions: what a scoring is, whoever runs and tracks it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np
import pandas as pd

from features.ladder import on_time_lines
from models import risk
from models.change import Week, with_reasons
from models.forecasters import DelayForecaster, ShiftForecaster
from models.health import as_table, merged, reach
from models.record import READS, RECORD_WEEKS, record_of, track_record
from models.scoring import Champion, Forecasts, by_rules, line_risks, window_risks
from models.watchlist import DAY, watchlist
from pipelines import health, publish
from pipelines.change import explained, rescored
from pipelines.ledger import Target
from pipelines.registered import RegisteredModel
from pipelines.settings import Settings
from pipelines.speaking import said_of
from pipelines.world import World, at_once, judgeable, open_world, scorable

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredChampion(Champion):
    """A champion with what the registry knows of it."""

    found: RegisteredModel


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What came of one task: its risk table, what the naive rules say, the worlds between last week and this, and
    whether its inputs have drifted."""

    name: str
    table: pd.DataFrame
    rules: pd.DataFrame
    rescored: pd.DataFrame
    health: pd.DataFrame


class Runner(Protocol):
    """Who runs the pieces of a scoring, each under a name: Prefect by `pipelines.steps`, or plain calls."""

    def step(self, work: Callable[P, R], name: str) -> Callable[P, R]:
        """Return `work`, to be run under the name."""

    def side_by_side(self, work: Mapping[str, tuple[Callable[..., R], str, tuple[Any, ...]]]) -> dict[str, R]:
        """Run pieces at the same time, each (work, name, arguments), and return what each gave when all have ended."""


def risk_tables(
    world: World, champions: Mapping[str, RegisteredChampion], then: Week | None, runner: Runner
) -> dict[str, pd.DataFrame]:
    """Score the tasks side by side, or one after the other (`at_once`), then rank and sum up what came of both."""
    score_one = {"delay": (score_delays, "score open lines"), "shift": (score_shifts, "score demand")}
    work = {task: (*score_one[task], (world.beside(), c, then)) for task, c in champions.items()}
    parts: dict[str, Scored] = {}
    for together in at_once(world, [*work]):
        parts |= runner.side_by_side({task: work[task] for task in together})
    tables = {part.name: part.table for part in parts.values()}
    tables["rule_forecasts"] = pd.concat([part.rules for part in parts.values()], ignore_index=True)
    tables["health"] = merged(part.health for part in parts.values())
    tables |= runner.step(summarise, "rank and sum up")(world, champions, tables, then)
    steps = {part.name: part.rescored for part in parts.values()}
    tables["weekly_change"] = runner.step(explained, "explain the change")(world, then, tables, steps)
    return tables | {"watchlist": with_reasons(tables["watchlist"], tables["weekly_change"])}


def score_delays(world: World, champion: RegisteredChampion, then: Week | None) -> Scored:
    """Return `supplier_delay_risk` of the lines open as of the day.

    Beside it `rule_forecasts`: what the naive rules say of the lines not due yet.
    """
    forecaster = champion.forecaster
    assert isinstance(forecaster, DelayForecaster)
    scored = scorable(world, forecaster, _day_of(then))
    open_now = scored.now
    rows = open_now.rows
    said = said_of(world, forecaster, open_now)
    table = line_risks(open_now, champion, world.names(), _table_of(then, "supplier_delay_risk"), said)
    due = np.flatnonzero(rows["state"] == "due_future")
    ask, lag = rows.iloc[due], forecaster.facts.terms.posting_lag_days * DAY
    by_rule = by_rules({"late": said.forecasts["late"].iloc[due]})["late"]
    rules = risk.rule_forecasts(
        ask["po_line_id"], "late", ask["due_on"], ask["due_on"] + lag, by_rule,
        model_version=champion.version,
    )  # fmt: skip
    p = table.loc[table["state"] == "due_future", "p_late"].to_numpy(float)
    drifted = as_table(health.drift(world, champion.found, "delay", open_now.take(due), p))
    between = pd.DataFrame() if then is None else rescored(world, forecaster, scored)
    return Scored("supplier_delay_risk", table, rules, between, drifted)


def _table_of(week: Week | None, name: str) -> pd.DataFrame:
    return pd.DataFrame() if week is None else week.of(name)


def _day_of(week: Week | None) -> date | None:
    return None if week is None else week.as_of.date()


def score_shifts(world: World, champion: RegisteredChampion, then: Week | None) -> Scored:
    """Return `demand_shift_risk` of the series alive as of the day, windows that can be judged later only.

    Beside it `rule_forecasts`: what the naive rules say of the same windows.
    """
    forecaster = champion.forecaster
    assert isinstance(forecaster, ShiftForecaster)
    scored = scorable(world, forecaster, _day_of(then))
    alive = judgeable(scored.now, forecaster.facts.shift_terms)
    said = said_of(world, forecaster, alive)
    table = window_risks(alive, champion, world.names(), _table_of(then, "demand_shift_risk"), said)
    rules = _shift_rule_forecasts(alive.rows, said.forecasts, champion)
    found = health.drift(world, champion.found, "shift", alive, table["p_up"].to_numpy(float))
    found += reach(champion.version, scored.now.rows, alive.rows)
    between = pd.DataFrame() if then is None else rescored(world, forecaster, scored)
    return Scored("demand_shift_risk", table, rules, between, as_table(found))


def _shift_rule_forecasts(rows: pd.DataFrame, forecasts: Forecasts, champion: Champion) -> pd.DataFrame:
    """Return `rule_forecasts` of each window, once for a drop and once for a surge."""
    windows = risk.window_dates(rows)
    lag = (champion.forecaster.facts.shift_terms.entry_lag_days + 1) * DAY
    parts = [
        risk.rule_forecasts(
            windows["row_id"], event, windows["window_end"], windows["window_end"] + lag, said,
            model_version=champion.version,
        )
        for event, said in by_rules(forecasts).items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def summarise(
    world: World, champions: Mapping[str, RegisteredChampion], tables: Mapping[str, pd.DataFrame], then: Week | None
) -> dict[str, pd.DataFrame]:
    """Return roll-ups, watchlist, track record and health over the scored rows."""
    target, as_of = world.settings.target, pd.Timestamp(world.as_of)
    out = {}
    if "delay" in champions:
        terms = champions["delay"].forecaster.facts.terms
        lines = [on_time_lines(world.con, world.as_of, terms, weeks) for weeks in (13, 4)]
        version = champions["delay"].version
        out["supplier_risk"] = risk.supplier_risk(tables["supplier_delay_risk"], *lines, model_version=version)
    out["watchlist"] = watchlist(
        tables.get("supplier_delay_risk"), tables.get("demand_shift_risk"), world.settings.capacity,
        _table_of(then, "watchlist"), as_of, world.settings.currency,
    )  # fmt: skip
    judged = health.judged(world, past_releases(target, world.as_of))
    out["track_record"] = record_of(judged, walked(champions))
    found = {task: c.found for task, c in champions.items()}
    findings = [*health.inputs(world), *health.champions(world, found), *health.forecasts(world, found, judged)]
    out["health"] = merged([tables["health"], as_table(findings)])
    return out


def past_releases(target: Target, as_of: date) -> dict[str, pd.DataFrame]:
    """Return the published tables that the track record of `as_of` is made of, the latest revision of every week."""
    since = as_of - timedelta(weeks=RECORD_WEEKS)
    return {name: publish.history(target, name, since, as_of, columns) for name, columns in READS.items()}


def walked(champions: Mapping[str, RegisteredChampion]) -> list[dict[str, Any]]:
    """Return the rows of the track record that come from the champions' own walk-forward."""
    return [{**row, "model_version": c.version} for c in champions.values() for row in c.forecaster.facts.record]


def recomputed_record(settings: Settings, as_of: date) -> pd.DataFrame:
    """Return the track record published for a day, made anew from the published tables and the facts: the same bytes.

    The champions' walk-forward is taken as it was published; everything published since is judged again.
    """
    was = publish.read(settings.target, "track_record", as_of=as_of)
    own = was[was["source"] == "walk_forward"].to_dict("records")
    with open_world(settings, as_of) as world:
        return track_record(
            world.con, pd.Timestamp(as_of), past_releases(settings.target, as_of), own,
            short_tolerance=settings.short_tolerance,
        )  # fmt: skip


def rounded(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the tables as they are published: to six decimals, so that the order of a sum is no revision."""
    return {
        name: table.assign(**{c: table[c].round(6) for c in table if table[c].dtype.kind == "f"})
        for name, table in tables.items()
    }
