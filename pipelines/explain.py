"""Tell all about one published row: recompute it with the model that published it, and hold the two together."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from features.as_known import as_known, census
from features.contracts import TABLES
from features.matrix import Matrix
from models.change import RISKS
from models.explain import families
from models.forecasters import DelayForecaster, Forecaster, OtherFormat, load
from models.risk import window_dates
from models.scoring import Champion, by_rules, line_risks, shap_values, window_risks
from pipelines import publish, registry, tracking
from pipelines.settings import GateRefused, Settings, UserError
from pipelines.world import World, judgeable, line_builder, open_world, request_of, window_builder

TASK_OF = dict(zip(RISKS, ("delay", "shift"), strict=True))
OF_OTHER_ROWS = ("publication_id", "schema_version", "rank", "p_late_last_week", "p_up_last_week", "p_down_last_week")
"""Columns that say nothing of the row by itself."""


def explain(settings: Settings, row_id: str, as_of: date | None = None) -> dict[str, Any]:
    """Return what `bullwhip explain --json` prints of a row of the latest week, or of `as_of`."""
    table, row = published_row(settings, row_id, as_of)
    day, task = pd.Timestamp(row["as_of"]).date(), TASK_OF[table]
    champion = _model(settings, task, str(row["model_version"]))
    forecaster = champion.forecaster
    with open_world(settings, day) as world:
        arrived_since = _late_facts(world, str(row["publication_id"]), day)
        with as_known(world.con, {t.name: day for t in TABLES}) as con:
            cut = replace(world, connection=[con], others=[])
            matrix = _rows(cut, forecaster)
            one = _only(matrix, table, str(row["row_id"]))
            facts = facts_of(con, row, table)
        names = world.names()
    found = (line_risks if task == "delay" else window_risks)(one, champion, names, pd.DataFrame()) if one else None
    told = {} if one is None else _told(one, forecaster, row, settings.currency)
    return {
        "row_id": row["row_id"], "table": table, "as_of": day, "publication_id": row["publication_id"],
        "model": {"task": task, "version": champion.version, "learnt_to": forecaster.facts.cut},
        "published_by": row["published_by"], "row": row, "facts": facts, **told,
        "check": checked(row, found, arrived_since),
    }  # fmt: skip


def published_row(settings: Settings, row_id: str, as_of: date | None) -> tuple[str, dict[str, Any]]:
    """Return the risk table and the row of that name; UserError with close matches where there is none."""
    known: list[str] = []
    had = set(publish.publications(settings.target)["rows"].map(list).sum())
    for table in (name for name in RISKS if name in had):
        rows = publish.read(settings.target, table, as_of=as_of)
        mine = rows[rows["row_id"].str.casefold() == row_id.casefold()]
        if len(mine):
            return table, mine.iloc[0].to_dict()
        known += rows["row_id"].tolist()
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(row_id.casefold(), folded, 3, 0.5)
    hint = f"close to it: {', '.join(folded[name] for name in close)}" if close else "bullwhip show names some"
    raise UserError(
        f"no row {row_id!r} among {len(known):,} published rows of {as_of or 'the latest week'}; expected a purchase "
        f"line or product|site|wN, {hint}"
    )


def _model(settings: Settings, task: str, version: str) -> Champion:
    found = registry.registered(settings, registry.REGISTRY[task], version)
    try:
        return Champion(version, load(found.folder))
    except OtherFormat as error:
        raise GateRefused(f"version {version} of the {task} model cannot be read: {error}") from error


def _rows(world: World, forecaster: Forecaster) -> Matrix:
    asked = request_of(world, forecaster)
    last = np.array([asked.grid.size - 1])
    if isinstance(forecaster, DelayForecaster):
        return line_builder(world)(world.con, asked, last)
    return judgeable(window_builder(world)(world.con, asked, last), forecaster.facts.shift_terms)


def _only(matrix: Matrix, table: str, row_id: str) -> Matrix | None:
    names = matrix.rows["po_line_id"] if table == RISKS[0] else window_dates(matrix.rows)["row_id"]
    place = np.flatnonzero(names == row_id)
    return matrix.take(place) if len(place) else None


# What was published against what comes out now -----------------------------------------------------------------------


def checked(row: Mapping[str, Any], found: pd.DataFrame | None, late: list[str] | None) -> dict[str, Any]:
    """Return whether the row comes out as it was published, and else what differs and which facts have come since.

    `late` names the tables that have other facts of that time now, None where it is not known what they had then.
    """
    if found is None:
        words = f"the row does not come out any more{_because(late)}"
        return {"equal": False, "differs": [], "late_facts": late, "words": words}
    now = found.iloc[0].to_dict()
    untold = not any(row.get(f"driver_{k}") for k in (1, 2, 3))  # only the rows of most value have drivers
    differs = [
        {"column": name, "published": row[name], "recomputed": value}
        for name, value in now.items()
        if name in row and name not in OF_OTHER_ROWS and not (untold and name.startswith("driver_"))
        and not _same(row[name], value)
    ]  # fmt: skip
    words = "recomputed from today's data: every column as published"
    if differs:
        names = ", ".join(d["column"].replace("_", " ") for d in differs)
        words = f"recomputed from today's data it differs in {names}{_because(late)}"
    return {"equal": not differs, "differs": differs, "late_facts": late, "words": words}


def _because(late: list[str] | None) -> str:
    if late is None:
        return ": facts that arrived late, or other code (what was known then was not kept)"
    if late:
        return f": facts that arrived late: {', '.join(late)}"
    return ": the facts are those of then, so the code is another"


def _same(was: Any, now: Any) -> bool:
    if pd.isna(was) or pd.isna(now):
        return bool(pd.isna(was) and pd.isna(now))
    if isinstance(was, int | float | np.number) and isinstance(now, int | float | np.number):
        return abs(float(was) - float(now)) <= 1e-6 + 1e-9 * abs(float(was))
    return pd.Timestamp(was) == pd.Timestamp(now) if isinstance(now, pd.Timestamp | date) else was == now


def _late_facts(world: World, publication_id: str, day: date) -> list[str] | None:
    """Return the tables whose facts known before the day are others than when it was published, with how many more."""
    told = tracking.tags_of(world.settings, publication_id).get("facts_known")
    if told is None:
        return None
    then, now = json.loads(told), census(world.con, day)
    return [
        f"{name} ({now[name][0] - then[name][0]:+,} rows)" if now[name][0] != then[name][0] else f"{name} (corrected)"
        for name in now
        if name in then and list(now[name]) != list(then[name])
    ]


# What the model was given and said ------------------------------------------------------------------------------------


def _told(one: Matrix, forecaster: Forecaster, row: Mapping[str, Any], currency: str) -> dict[str, Any]:
    model, X = forecaster.model, one.X
    forecasts = forecaster.forecasts(X, one.rows)
    if isinstance(forecaster, DelayForecaster):
        up, due = None, row["state"] == "due_future"
        p = forecaster.predict(X, said=forecasts)["p_late"].to_numpy() if due else np.array([np.nan])
        more = {"curve": _curve(forecaster.survival(X, p)[0], pd.Timestamp(row["as_of"]))}
    else:
        up, due, more = np.array([row["p_up"] >= row["p_down"]]), True, {}
    shap, inputs = shap_values(one, X, forecaster, up)
    said = {name: X[name].iloc[0] for name in X}
    usual = model.usual_.reindex(X.columns)
    features = [
        {
            "name": f.name, "value": said[f.name], "usual": usual["median"][f.name], "low": usual["low"][f.name],
            "high": usual["high"][f.name], "unit": f.unit.removeprefix("on-time "), "about": f.about,
            "contribution": float(shap[0][k]),
        }
        for k, f in enumerate(inputs)
    ]  # fmt: skip
    return {
        "features": features, "drivers": families(shap[0], X, inputs, usual["median"], currency) if due else [],
        "model_says": {event: float(given["model"].iloc[0]) for event, given in forecasts.items()},
        "rules": {event: {name: float(p[0]) for name, p in of.items()} for event, of in by_rules(forecasts).items()},
        **more,
    }  # fmt: skip


def _curve(survival: np.ndarray, as_of: pd.Timestamp) -> list[dict[str, Any]]:
    """Return P(arrived by the end of the day) until all but certain."""
    arrived = 1 - survival
    last = int(np.searchsorted(arrived, 0.99)) + 1
    return [{"day": as_of + pd.Timedelta(days=d), "p": float(p)} for d, p in enumerate(arrived[:last])]


# The facts behind it -------------------------------------------------------------------------------------------------


def facts_of(con: duckdb.DuckDBPyConnection, row: Mapping[str, Any], table: str) -> dict[str, Any]:
    """Return the facts that count for a row by table, each with its known_at, as `con` shows them."""
    wanted = LINE_SQL if table == RISKS[0] else WINDOW_SQL
    keys = {name: row.get(name) for name in ("po_line_id", "supplier_id", "product_id", "site_id", "as_of")}
    keys |= {"begin": row.get("window_begin"), "end": row.get("window_end")}
    facts = {}
    for name, sql in wanted.items():
        used = {k: v for k, v in keys.items() if f"${k}" in sql}
        facts[name] = con.execute(sql, used).df()
    return facts | {"signals": _signals(con, row, table)}


LINE_SQL = {
    "purchases": "SELECT known_at, ordered_at, promised_on, requested_on, need_on, quantity, unit_cost, cancelled_at "
    "FROM purchases WHERE po_line_id = $po_line_id",
    "promises": "SELECT known_at, promised_on, reason FROM promises WHERE po_line_id = $po_line_id ORDER BY known_at",
    "receipts": "SELECT known_at, received_on, quantity FROM receipts WHERE po_line_id = $po_line_id ORDER BY known_at",
    "last lines of the supplier": "SELECT complete_known_at AS known_at, po_line_id, ordered_on, promised_on, "
    "complete_on, complete_on - promised_on AS days_late FROM line_history WHERE supplier_id = $supplier_id "
    "AND complete_on IS NOT NULL ORDER BY complete_known_at DESC, po_line_id LIMIT 20",
}
WINDOW_SQL = {
    "orders, by week": """
SELECT max(known_at) AS known_at, sum(quantity) AS units, count(*) AS lines, CAST($as_of AS DATE) - 7 * (1 + CAST(floor(
       (epoch(CAST($as_of AS TIMESTAMP)) - epoch(known_at) - 1e-6) / 604800) AS INTEGER)) AS week
FROM orders
WHERE product_id = $product_id AND site_id = $site_id AND known_at >= CAST($as_of AS DATE) - 91
GROUP BY week ORDER BY week DESC""",
    "stock": """
SELECT known_at, on_hand FROM stock WHERE product_id = $product_id AND site_id = $site_id
ORDER BY known_at DESC LIMIT 1""",
    "plan": """
SELECT max(known_at) AS known_at, week, last(quantity ORDER BY known_at) AS units FROM plan
WHERE product_id = $product_id AND site_id = $site_id AND week BETWEEN $begin AND $end GROUP BY week ORDER BY week""",
}


def _signals(con: duckdb.DuckDBPyConnection, row: Mapping[str, Any], table: str) -> pd.DataFrame:
    """Return per signal the latest value of the most specific scope that names the row, and what is planned ahead."""
    regions = con.execute("SELECT region FROM sites WHERE site_id = $1", [row["site_id"]]).fetchall()
    names = {f"{kind}:{row[f'{kind}_id']}" for kind in ("site", "product")} | {f"category:{row['category']}", "*"}
    if table == RISKS[0]:
        names |= {f"supplier:{row['supplier_id']}", f"region:{row['region']}"}
    names |= {f"region:{region}" for (region,) in regions if table == RISKS[1] or not row["region"]}
    begin = row.get("window_begin", row["as_of"])
    end = row["window_end"] if table == RISKS[1] else pd.Timestamp(row["as_of"]) + pd.Timedelta(weeks=4)
    found = con.execute(
        """SELECT signal, kind, scope, observed_on, last(value ORDER BY known_at) AS value, max(known_at) AS known_at
           FROM signals WHERE kind <> 'calendar' OR (observed_on >= $1 AND observed_on <= $2)
           GROUP BY signal, kind, scope, observed_on
           QUALIFY kind = 'calendar'
             OR row_number() OVER (PARTITION BY signal, kind, scope ORDER BY observed_on DESC) = 1
           ORDER BY signal, observed_on, scope""",
        [begin, end],
    ).df()
    parts = found["scope"].str.split("&")
    mine = found[np.array([set(each) <= names for each in parts], bool)].assign(parts=parts.str.len())
    most = mine.groupby("signal")["parts"].transform("max")
    return mine[mine["parts"] == most].drop(columns="parts").reset_index(drop=True)
