"""Training, explaining and scoring purchase lines, next to bare LightGBM on the same matrix."""

import tempfile
from copy import copy
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np

from benchmarks.chain import END, write_chain
from benchmarks.contest import OURS, Contender, Stage
from features.matrix import Matrix
from models import lessons
from models.boosting import STEADY
from models.delay import DIRECT
from models.explain import drivers
from models.hazard import ROUNDS, Times
from models.risk_contract import SCHEMA_VERSION
from pipelines import publish
from pipelines.learn import prepare, threads_each, training
from pipelines.registered import RegisteredModel
from pipelines.scored import RegisteredChampion, Scored, score_delays
from pipelines.settings import Settings, load
from pipelines.world import NO_PROOF, delay_rows, open_world, request

SNAPSHOTS, OPEN_LINES, EXPLAINED = 1_000_000, 1_000_000, 1_000
LINES_PER_SNAPSHOT = 0.27  # of the synthetic chain over its three years
LINES_PER_OPEN, RECENT = 1.75, 0.8  # of one that has ordered this share of its lines in its last weeks
TAUGHT = 20_000  # purchase lines that the forecaster which scores has learnt from


def _settings(folder: Path) -> Settings:
    (folder / "bullwhip.toml").write_text(f'as_of = {END}\ncountry = "DE"\nattributes = ["ship_mode"]\n')
    return load(folder)


def _chain(folder: Path, lines: int, recent: float = 0.0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_chain(folder / "data", orders=0, purchases=max(lines, 4_000), recent=recent)
    return folder


def make_history(folder: Path, scale: float) -> str:
    lines = round(SNAPSHOTS * LINES_PER_SNAPSHOT * scale)
    _chain(folder / "history", lines)
    return f"about {SNAPSHOTS * scale:,.0f} snapshots of {max(lines, 4_000):,} purchase lines"


@cache
def lesson(folder: Path, most: int | None = None) -> lessons.Lesson:
    """Return the labelled rows of the history, proven: the sample that is learnt from, or at most so many."""
    settings = _settings(folder / "history")
    if most:
        settings = settings.model_copy(update={"max_snapshots": most})
    with open_world(settings, END) as world:
        return prepare(world, "delay", request(world, "delay"), judged_from=np.datetime64(END, "D"))


@cache
def taught(folder: Path) -> Any:
    """Return a forecaster taught by a small chain."""
    small = _chain(folder / "small", TAUGHT)
    with open_world(_settings(small), END) as world:
        rows = prepare(world, "delay", request(world, "delay"), judged_from=np.datetime64(END, "D"))
    return lessons.fit(rows, np.datetime64(END, "D"), training(world.settings, threads_each(world.settings, 1)))


# Training -----------------------------------------------------------------------------------------------------------


def train(folder: Path) -> Any:
    """From Parquet to a fitted forecaster: read, build and prove the rows, label them, fit."""
    with open_world(_settings(folder / "history"), END) as world:
        rows = prepare(world, "delay", request(world, "delay"), judged_from=np.datetime64(END, "D"))
        return lessons.fit(rows, np.datetime64(END, "D"), training(world.settings, threads_each(world.settings, 1)))


def build(folder: Path) -> Any:
    """Return the rows and features alone."""
    with open_world(_settings(folder / "history"), END) as world:
        return prepare(world, "delay", request(world, "delay"), judged_from=np.datetime64(END, "D"))


def matrix(folder: Path, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the ready matrix of the snapshots learnt from as one block, judged rows only, and who was late."""
    rows = lesson(folder, most)
    y = rows.outcomes(rows.known_until)["y"].to_numpy(float)
    numbers = rows.matrix.X.select_dtypes("number").to_numpy(np.float32)
    return np.ascontiguousarray(numbers[~np.isnan(y)]), y[~np.isnan(y)]


def whole_matrix(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix of every snapshot there is, as somebody would who takes no sample."""
    return matrix(folder, 100 * SNAPSHOTS)


def bare_train(given: tuple[np.ndarray, np.ndarray]) -> Any:
    block, y = given
    return lgb.train({**STEADY, **DIRECT, "seed": 7}, lgb.Dataset(block, y), num_boost_round=ROUNDS)


# Explaining and scoring ---------------------------------------------------------------------------------------------


def make_open(folder: Path, scale: float) -> str:
    """Write a chain of which about so many lines are open."""
    lines = max(round(OPEN_LINES * LINES_PER_OPEN * scale), 4_000)
    _chain(folder / "open", lines, RECENT)
    return f"about {OPEN_LINES * scale:,.0f} open lines of {lines:,}"


def open_rows(folder: Path) -> tuple[Matrix, Any]:
    with open_world(_settings(folder / "open"), END) as world:
        asked = request(world, "delay", taught(folder).facts.terms)
        rows = delay_rows(world, asked, np.array([asked.grid.size - 1]), NO_PROOF)
    return rows, taught(folder)


@cache
def few_rows(folder: Path) -> tuple[Matrix, Any]:
    """Return the first open lines and the forecaster that has learnt from the whole history, with all its trees."""
    rows, _ = open_rows(folder)
    return rows.take(np.arange(len(rows.X))[:EXPLAINED]), train(folder)


def make_both(folder: Path, scale: float) -> str:
    return f"{make_open(folder, scale)}, learnt from {make_history(folder, scale)}"


def explain(given: tuple[Matrix, Any]) -> Any:
    rows, forecaster = given
    shap = forecaster.model.contributions(rows.X)
    columns = forecaster.model.encoder_.columns_
    kept = [f for f in rows.features if f.name in columns]
    return drivers(shap[:, [columns.index(f.name) for f in kept]], rows.X, kept, forecaster.model.usual_["median"])


def bare_contributions(given: tuple[Matrix, Any]) -> Any:
    rows, forecaster = given
    model = forecaster.model
    return model.booster_.predict(model.encoder_.transform(rows.X), pred_contrib=True)


def path_and_taught(folder: Path) -> tuple[Path, Any]:
    return folder, taught(folder)


def score(given: tuple[Path, Any]) -> Scored:
    """From Parquet to the risk tables of purchase lines."""
    folder, forecaster = given
    with tempfile.TemporaryDirectory() as out, open_world(_elsewhere(folder, Path(out)), END) as world:
        return score_delays(world, _champion(forecaster, Path(out)), None)


def score_and_publish(given: tuple[Path, Any]) -> Any:
    """From Parquet to published tables of purchase lines."""
    with tempfile.TemporaryDirectory() as out:
        scored = score(given)
        rounded = {
            name: table.assign(**{c: table[c].round(6) for c in table if table[c].dtype.kind == "f"})
            for name, table in ((scored.name, scored.table), ("rule_forecasts", scored.rules))
        }
        return publish.publish(
            Path(out), rounded, as_of=END, model_versions={"delay": "1"}, data_fingerprint="", code_version="",
            published_at=datetime.now(UTC), schema_version=SCHEMA_VERSION,
        )  # fmt: skip


def _champion(forecaster: Any, folder: Path) -> RegisteredChampion:
    """Return a forecaster as if it came from the registry; without the files that drift is judged by."""
    return RegisteredChampion("1", forecaster, RegisteredModel("", "1", folder, {}, {}, ""))


def _elsewhere(folder: Path, workspace: Path) -> Settings:
    """Return settings that read the open lines but have nothing published yet."""
    settings = _settings(folder / "open")
    data = type(settings.data)(str(folder / "open" / "data"))
    return settings.model_copy(update={"workspace": workspace, "data": data})


def bare_predict(given: tuple[Matrix, Any]) -> Any:
    """Return what LightGBM says of the boosters: the direct trees once a line, the hazard in each bucket of days."""
    rows, forecaster = given
    model = forecaster.model
    block = model.encoder_.transform(rows.X)
    times = Times.of(rows.X)
    hazard = copy(model.parts_.hazard)
    hazard._trees = None  # our own way of hearing them
    return model.parts_.trees.predict(block), hazard.late(block, times), hazard.survival(block, times)


ALL, SAMPLE = "lightgbm.train, all snapshots", "lightgbm.train, our sample of them"
BARE = (Contender(ALL, whole_matrix, bare_train), Contender(SAMPLE, matrix, bare_train))
STAGES = (
    Stage(
        "train on snapshots, over bare lightgbm.train", make_history, (Contender(OURS, Path, train), *BARE),
        {ALL: 1.5, SAMPLE: 1.5}, at_most=True,
    ),
    Stage(
        "their rows and features, over bare lightgbm.train", make_history, (Contender(OURS, Path, build), *BARE),
        {ALL: 0.15}, at_most=True,
    ),
    Stage(
        "explain 1,000 rows, over bare pred_contrib", make_both,
        (Contender(OURS, few_rows, explain), Contender("pred_contrib", few_rows, bare_contributions)),
        {"pred_contrib": 1.2}, at_most=True,
    ),
    Stage(
        "score open lines, over bare Booster.predict", make_open,
        (Contender(OURS, path_and_taught, score), Contender("Booster.predict", open_rows, bare_predict)),
        {"Booster.predict": 3.0}, at_most=True,
    ),
    Stage(
        "score open lines to published tables, over bare Booster.predict", make_open,
        (Contender(OURS, path_and_taught, score_and_publish), Contender("Booster.predict", open_rows, bare_predict)),
        {}, at_most=True,
    ),
)  # fmt: skip
