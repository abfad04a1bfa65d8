"""Score everything open as of one day with the champions and publish the week, whole or not at all."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

from features.labels import shift_thresholds
from features.ladder import on_time_lines
from features.matrix import Matrix
from models import risk
from models.boosting import contributions
from models.delay import DelayModel
from models.explain import DRIVERS, drivers
from models.forecasters import MODEL, DelayForecaster, Forecaster, OtherFormat, ShiftForecaster, load, publishers
from models.hazard import arrival_days
from models.health import as_table, merged
from models.record import READS, RECORD_WEEKS, track_record
from models.risk_contract import SCHEMA_VERSION
from pipelines import health, publish, sources, tracking
from pipelines.handouts import hand_out
from pipelines.settings import GateRefused, Settings
from pipelines.steps import side_by_side, step, stoppable
from pipelines.stores import Target
from pipelines.world import World, delay_rows, of_last_day, open_world, request, shift_rows, steps_to_score

EXPLAINED = 5_000  # rows with drivers, by value at risk: more than anybody reads in a week


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    """The forecaster that scores a task, and the name under which its rows are published."""

    version: str
    forecaster: Forecaster
    found: tracking.RegisteredModel

    @property
    def publishes(self) -> str:
        return publishers(self.forecaster)


@flow(name="score", validate_parameters=False)
@stoppable
def score(settings: Settings, *, as_of: date, dry_run: bool = False, late: bool = False) -> dict[str, Any]:
    """Publish the risk tables as of one day. Running it again for the same day and facts changes nothing.

    Of a week that is caught up `late`, nobody is sent a digest. Returns what `bullwhip score --json` prints.
    """
    began = time.monotonic()
    with step(open_world, "read")(settings, as_of) as world:
        health.refuse_stale(world)
        champions = step(find_champions, "find champions")(world)
        with tracking.run(
            settings, flow="score", flow_run_id=str(runtime.flow_run.id), as_of=as_of,
            data_fingerprint=world.fingerprint, git_sha=tracking.git_sha(), params=settings.public(),
        ) as run:  # fmt: skip
            tables = _risk_tables(world, champions)
            release = step(put_out, "publish")(world, champions, tables, dry_run)
            result = _result(release, tables, champions)
            if dry_run:
                result["value_at_risk_before"] = totals_before(settings, as_of)
            run.log_metrics(
                {f"rows.{k}": v for k, v in result["rows"].items()}
                | {f"value_at_risk.{k}": v for k, v in result["value_at_risk"].items()}
            )
            run.log_dict(result, "result")
            run.tag(publication_id=release.publication_id, status=release.status)
            result["handouts"] = {} if dry_run else step(hand_out, "hand out")(settings, release, late=late)
    create_markdown_artifact(
        _paragraph(result, settings.currency), key="bullwhip-score", description=f"Scores as of {as_of}"
    )
    return {**result, "mlflow_run_id": run.run_id, "seconds": round(time.monotonic() - began, 1)}


def _risk_tables(world: World, champions: Mapping[str, Champion]) -> dict[str, pd.DataFrame]:
    """Score the tasks side by side, then rank and sum up what came of both."""
    score_one = {"delay": (score_delays, "score open lines"), "shift": (score_shifts, "score demand")}
    parts = side_by_side({task: (*score_one[task], (world.beside(), c)) for task, c in champions.items()})
    tables = {name: table for part in parts.values() for name, table in part.items()}
    tables["rule_forecasts"] = pd.concat([part["rule_forecasts"] for part in parts.values()], ignore_index=True)
    tables["health"] = merged(part["health"] for part in parts.values())
    return tables | step(summarise, "rank and sum up")(world, champions, tables)


def find_champions(world: World) -> dict[str, Champion]:
    """Return each task's champion of the day, for tasks that have facts; GateRefused where no task has one.

    A model that learnt from the day or from later ones would know what it is asked.
    """
    found: dict[str, Champion] = {}
    for task in world.settings.tasks:
        name = tracking.REGISTRY[task]
        champion = tracking.champion(world.settings, name, world.as_of) if world.has(task) else None
        if champion:
            try:
                found[task] = Champion(champion.version, load(champion.folder), champion)
            except OtherFormat as error:
                raise GateRefused(
                    f"the champion of {task}, version {champion.version}, cannot be used: {error}"
                ) from error
    if not found:
        raise GateRefused(_why_nothing_scores(world))
    return found


def _why_nothing_scores(world: World) -> str:
    day, settings = world.as_of, world.settings
    known = {task: tracking.versions(settings, tracking.REGISTRY[task]) for task in settings.tasks}
    if not any(known.values()):
        return f"nothing to score with: no model is trained in {settings.workspace}; run bullwhip train first"
    cuts = {task: [str(v["tags"].get("cut", "")) for v in of_task] for task, of_task in known.items() if of_task}
    said = ", ".join(f"{task} was first trained as of {min(of_task)}" for task, of_task in cuts.items())
    if all(cut > str(day) for of_task in cuts.values() for cut in of_task):
        return f"no model of {day} or before: {said}, and hindsight does not count; run bullwhip train --as-of {day}"
    return f"no version is champion on {day}; run bullwhip promote, or bullwhip train --as-of {day}"


def open_lines(world: World, forecaster: DelayForecaster, *, proofs: int = 1) -> Matrix:
    """Return the lines open as of the day, with the inputs of a forecaster."""
    asked = request(world, "delay", forecaster.facts.terms)
    return of_last_day(delay_rows(world, asked, steps_to_score(asked), proofs), asked)


def live_windows(world: World, forecaster: ShiftForecaster, *, proofs: int = 1) -> Matrix:
    """Return the windows of series alive as of the day that can be judged later, and from where on they shift."""
    known = forecaster.facts.shift_terms
    asked = replace(
        request(world, "shift", forecaster.facts.terms),
        windows=known.windows,
        planned_in_baseline=known.planned_in_baseline,
    )
    alive = of_last_day(shift_rows(world, asked, steps_to_score(asked), proofs)[0], asked)
    down_at, up_at = shift_thresholds(alive.rows, known)
    told = alive.take(np.flatnonzero(~np.isnan(up_at)))
    at = {"down_at_units": down_at[~np.isnan(up_at)], "up_at_units": up_at[~np.isnan(up_at)]}
    return replace(told, rows=told.rows.assign(**at))


def score_delays(world: World, champion: Champion) -> dict[str, pd.DataFrame]:
    """Return `supplier_delay_risk` of the lines open as of the day.

    Beside it `rule_forecasts`: what the naive rules say of the lines not due yet.
    """
    forecaster = champion.forecaster
    assert isinstance(forecaster, DelayForecaster)
    open_now = open_lines(world, forecaster)
    rows, X = open_now.rows, open_now.X
    said = forecaster.predict(X)
    p = said["p_late"]
    days = arrival_days(forecaster.survival(X, p.where(rows["state"] == "due_future").to_numpy()))
    stake = (p * rows["open_units"] * rows["unit_cost"].fillna(0)).to_numpy()
    told = _told(open_now, forecaster, stake, None).where(said["published_by"] == MODEL, "")
    table = risk.delay_risk(
        rows, p, days, told, X["supplier_matured_lines_52w"], base_rate=forecaster.model.base_rate_,
        published_by=said["published_by"], model_version=champion.version, names=world.names(),
        last_week=publish.previous_week(world.settings.target, "supplier_delay_risk", world.as_of),
    )  # fmt: skip
    due = np.flatnonzero(rows["state"] == "due_future")
    ask, lag = rows.iloc[due], forecaster.facts.terms.posting_lag_days * risk.DAY
    rules = risk.rule_forecasts(
        ask["po_line_id"], "late", ask["due_on"], ask["due_on"] + lag, _by_rules(forecaster, X.iloc[due])["late"],
        model_version=champion.version,
    )  # fmt: skip
    drifted = health.drift(world, champion.found, "delay", open_now.take(due), said["p_late"].to_numpy(float)[due])
    return {"supplier_delay_risk": table, "rule_forecasts": rules, "health": as_table(drifted)}


def score_shifts(world: World, champion: Champion) -> dict[str, pd.DataFrame]:
    """Return `demand_shift_risk` of the series alive as of the day, windows that can be judged later only.

    Beside it `rule_forecasts`: what the naive rules say of the same windows.
    """
    forecaster = champion.forecaster
    assert isinstance(forecaster, ShiftForecaster)
    alive = live_windows(world, forecaster)
    rows = alive.rows
    p = forecaster.predict(alive.X, rows)
    units = forecaster.model.predict_units(alive.X, rows["baseline_units"], rows["noise_units"])
    up = (p["p_up"] >= p["p_down"]).to_numpy()
    told = _told(
        alive,
        forecaster,
        (p[["p_up", "p_down"]].max(axis=1) * rows["baseline_units"] * rows["unit_price"]).to_numpy(),
        up,
    ).where(p["published_by_up"].where(up, p["published_by_down"]).str.startswith(MODEL), "")
    by = np.where(
        p["published_by_up"] == p["published_by_down"], p["published_by_up"],
        "surges: " + p["published_by_up"] + ", drops: " + p["published_by_down"],
    ).astype(str)  # fmt: skip
    down_rate, _, up_rate = forecaster.model.base_rates_
    table = risk.shift_risk(
        rows, p, units, told, base_rates={"up": up_rate, "down": down_rate}, published_by=by,
        model_version=champion.version, names=world.names(),
        last_week=publish.previous_week(world.settings.target, "demand_shift_risk", world.as_of),
    )  # fmt: skip
    drifted = health.drift(world, champion.found, "shift", alive, p["p_up"].to_numpy(float))
    rules = _shift_rule_forecasts(alive.X, rows, champion)
    return {"demand_shift_risk": table, "rule_forecasts": rules, "health": as_table(drifted)}


def _shift_rule_forecasts(X: pd.DataFrame, rows: pd.DataFrame, champion: Champion) -> pd.DataFrame:
    """Return `rule_forecasts` of each window, once for a drop and once for a surge."""
    windows = risk.window_dates(rows)
    lag = (champion.forecaster.facts.shift_terms.entry_lag_days + 1) * risk.DAY
    parts = [
        risk.rule_forecasts(
            windows["row_id"], event, windows["window_end"], windows["window_end"] + lag, said,
            model_version=champion.version,
        )
        for event, said in _by_rules(champion.forecaster, X, rows).items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _by_rules(
    forecaster: Forecaster, X: pd.DataFrame, rows: pd.DataFrame | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Return per event what every naive rule says of each row."""
    return {
        event: {str(name): said[name].to_numpy() for name in said if name != MODEL}
        for event, said in forecaster.forecasts(X, rows).items()
    }


def _told(matrix: Matrix, forecaster: Forecaster, stake: np.ndarray, up: np.ndarray | None) -> pd.DataFrame:
    """Return the drivers in words of the rows with most at stake, empty words for the rest."""
    names = [f"driver_{k + 1}" for k in range(DRIVERS)]
    told = pd.DataFrame("", index=matrix.X.index, columns=names)
    if not len(matrix.X):
        return told
    top = np.sort(np.argsort(-np.nan_to_num(stake), kind="stable")[:EXPLAINED])
    model = forecaster.model
    if isinstance(model, DelayModel):
        shap = model.contributions(matrix.X.iloc[top])
    else:
        shap = contributions(model.booster_, model.encoder_.transform(matrix.X.iloc[top]))
    if up is not None:
        down_part, steady, up_part = np.split(shap, 3, axis=1)
        shap = np.where(up[top][:, None], up_part, down_part) - steady
    kept = [f for f in matrix.features if f.name in model.encoder_.columns_]
    columns = [model.encoder_.columns_.index(f.name) for f in kept]
    told.iloc[top] = drivers(shap[:, columns], matrix.X.iloc[top], kept, model.usual_).to_numpy()
    return told


def summarise(
    world: World, champions: Mapping[str, Champion], tables: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Return roll-ups, watchlist, track record and health over the scored rows."""
    target, as_of = world.settings.target, pd.Timestamp(world.as_of)
    out = {}
    if "delay" in champions:
        terms = champions["delay"].forecaster.facts.terms
        lines = [on_time_lines(world.con, world.as_of, terms, weeks) for weeks in (13, 4)]
        version = champions["delay"].version
        out["supplier_risk"] = risk.supplier_risk(tables["supplier_delay_risk"], *lines, model_version=version)
    out["watchlist"] = risk.watchlist(
        tables.get("supplier_delay_risk"), tables.get("demand_shift_risk"), world.settings.capacity,
        publish.previous_week(target, "watchlist", world.as_of), as_of, world.settings.currency,
    )  # fmt: skip
    past = past_releases(world.settings.target, world.as_of)
    out["track_record"] = track_record(
        world.con, as_of, past, walked(champions), short_tolerance=world.settings.short_tolerance
    )
    found = {task: c.found for task, c in champions.items()}
    judged = [*health.inputs(world), *health.champions(world, found), *health.forecasts(world, found, past)]
    out["health"] = merged([tables["health"], as_table(judged)])
    return out


def past_releases(target: Target, as_of: date) -> dict[str, pd.DataFrame]:
    """Return the published tables that the track record of `as_of` is made of, the latest revision of every week."""
    since = as_of - timedelta(weeks=RECORD_WEEKS)
    return {name: publish.history(target, name, since, as_of, columns) for name, columns in READS.items()}


def walked(champions: Mapping[str, Champion]) -> list[dict[str, Any]]:
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


def put_out(
    world: World, champions: Mapping[str, Champion], tables: Mapping[str, pd.DataFrame], dry_run: bool
) -> publish.Publication:
    """Publish the week, or say what would be; numbers to six decimals, so that the order of a sum is no revision."""
    rounded = {
        name: table.assign(**{c: table[c].round(6) for c in table if table[c].dtype.kind == "f"})
        for name, table in tables.items()
    }
    return publish.publish(
        world.settings.target, rounded, as_of=world.as_of,
        model_versions={t: c.version for t, c in champions.items()}, data_fingerprint=world.fingerprint,
        code_version=tracking.git_sha(), schema_version=SCHEMA_VERSION,
        published_at=datetime.now(UTC), data_time=sources.data_time(world.con), dry_run=dry_run,
    )  # fmt: skip


def _result(
    release: publish.Publication, tables: Mapping[str, pd.DataFrame], champions: Mapping[str, Champion]
) -> dict[str, Any]:
    models = {
        task: {"version": c.version, "publishes": c.publishes, "trained_to": c.forecaster.facts.cut}
        for task, c in champions.items()
    }
    said = {"value_at_risk": risk.totals(tables), "models": models, "health": health.counted(tables["health"])}
    return {**publish.summary(release), **said}


def totals_before(settings: Settings, as_of: date) -> dict[str, float]:
    """Return the value at risk that readers see of a week now, nothing where it is not out."""
    names, after = ("supplier_delay_risk", "demand_shift_risk"), as_of + timedelta(days=1)
    found = {name: publish.history(settings.target, name, as_of, after) for name in names}
    return risk.totals({name: table for name, table in found.items() if len(table)})


def _paragraph(result: Mapping[str, Any], currency: str) -> str:
    money = ", ".join(f"{k.replace('_', ' ')} {currency} {v:,.0f}" for k, v in result["value_at_risk"].items())
    said, rows = result["status"].capitalize(), sum(result["rows"].values())
    return f"{said} {result['publication_id']}: {rows:,} rows. At risk: {money}."
