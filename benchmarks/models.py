"""Training, explaining and scoring purchase lines, next to bare LightGBM on the same matrix."""

import tempfile
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
from models.hazard import ROUNDS
from pipelines.learn import prepare, threads_each, training
from pipelines.score import Champion, score_delays
from pipelines.settings import Settings, load
from pipelines.world import NO_PROOF, delay_rows, open_world, request

SNAPSHOTS, OPEN_LINES, EXPLAINED = 1_000_000, 1_000_000, 1_000
LINES_PER_SNAPSHOT, LINES_PER_OPEN = 0.27, 40  # of the synthetic chain over its three years
TAUGHT = 20_000  # purchase lines that the forecaster which scores has learnt from


def _settings(folder: Path) -> Settings:
    (folder / "bullwhip.toml").write_text(f'as_of = {END}\ncountry = "DE"\nattributes = ["ship_mode"]\n')
    return load(folder)


def _chain(folder: Path, lines: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_chain(folder / "data", orders=0, purchases=max(lines, 4_000))
    return folder


def make_history(folder: Path, scale: float) -> str:
    lines = round(SNAPSHOTS * LINES_PER_SNAPSHOT * scale)
    _chain(folder / "history", lines)
    return f"about {SNAPSHOTS * scale:,.0f} snapshots of {max(lines, 4_000):,} purchase lines"


@cache
def lesson(folder: Path) -> lessons.Lesson:
    """Return the labelled rows of the whole history, proven."""
    with open_world(_settings(folder / "history"), END) as world:
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


def matrix(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the ready matrix as one block, judged rows only, and who was late."""
    rows = lesson(folder)
    y = rows.outcomes(rows.known_until)["y"].to_numpy(float)
    numbers = rows.matrix.X.select_dtypes("number").to_numpy(np.float32)
    return np.ascontiguousarray(numbers[~np.isnan(y)]), y[~np.isnan(y)]


def bare_train(given: tuple[np.ndarray, np.ndarray]) -> Any:
    block, y = given
    return lgb.train({**STEADY, **DIRECT, "seed": 7}, lgb.Dataset(block, y), num_boost_round=ROUNDS)


# Explaining and scoring ---------------------------------------------------------------------------------------------


def make_open(folder: Path, scale: float) -> str:
    """Write a chain of which about so many lines are open."""
    lines = max(round(OPEN_LINES * LINES_PER_OPEN * scale), 4_000)
    _chain(folder / "open", lines)
    return f"about {OPEN_LINES * scale:,.0f} open lines of {lines:,}"


def open_rows(folder: Path) -> tuple[Matrix, Any]:
    with open_world(_settings(folder / "open"), END) as world:
        asked = request(world, "delay", taught(folder).facts.terms)
        rows = delay_rows(world, asked, np.array([asked.grid.size - 1]), NO_PROOF)
    return rows, taught(folder)


def few_rows(folder: Path) -> tuple[Matrix, Any]:
    rows, forecaster = open_rows(folder)
    return rows.take(np.arange(len(rows.X))[:EXPLAINED]), forecaster


def explain(given: tuple[Matrix, Any]) -> Any:
    rows, forecaster = given
    shap = forecaster.model.contributions(rows.X)
    columns = forecaster.model.encoder_.columns_
    kept = [f for f in rows.features if f.name in columns]
    return drivers(shap[:, [columns.index(f.name) for f in kept]], rows.X, kept, forecaster.model.usual_)


def bare_contributions(given: tuple[Matrix, Any]) -> Any:
    rows, forecaster = given
    model = forecaster.model
    return model.booster_.predict(model.encoder_.transform(rows.X), pred_contrib=True)


def score(given: tuple[Path, Any]) -> Any:
    """From Parquet to published tables of purchase lines."""
    from pipelines import publish
    from pipelines.score import risk

    folder, forecaster = given
    with tempfile.TemporaryDirectory() as out:
        settings = replace_workspace(_settings(folder / "open"), Path(out), folder / "open" / "data")
        with open_world(settings, END) as world:
            tables = score_delays(world, Champion("1", forecaster))
            rounded = {
                n: t.assign(**{c: t[c].round(6) for c in t if t[c].dtype.kind == "f"}) for n, t in tables.items()
            }
            return publish.publish(
                settings.workspace, rounded, as_of=END, model_versions={"delay": "1"},
                data_fingerprint=world.fingerprint, code_version="", published_at=datetime.now(UTC),
                nullable=risk.nullable(tables),
            )  # fmt: skip


def replace_workspace(settings: Settings, workspace: Path, data: Path) -> Settings:
    return settings.model_copy(update={"workspace": workspace, "data": type(settings.data)(str(data))})


def bare_predict(given: tuple[Matrix, Any]) -> Any:
    """Return the raw scores of each of the model's boosters once: the hazard's too, a bucket of days each."""
    rows, forecaster = given
    model = forecaster.model
    block = model.encoder_.transform(rows.X)
    return model.parts_.trees.predict(block), model.parts_.hazard.late(block, _times(rows))


def _times(rows: Matrix) -> Any:
    from models.hazard import Times

    return Times.of(rows.X)


STAGES = (
    Stage(
        "train on snapshots, over bare lightgbm.train", make_history,
        (Contender(OURS, Path, train), Contender("lightgbm.train", matrix, bare_train)),
        {"lightgbm.train": 1.5}, at_most=True,
    ),
    Stage(
        "their rows and features, over bare lightgbm.train", make_history,
        (Contender(OURS, Path, build), Contender("lightgbm.train", matrix, bare_train)),
        {"lightgbm.train": 0.15}, at_most=True,
    ),
    Stage(
        "explain 1,000 rows, over bare pred_contrib", make_open,
        (Contender(OURS, few_rows, explain), Contender("pred_contrib", few_rows, bare_contributions)),
        {"pred_contrib": 1.2}, at_most=True,
    ),
    Stage(
        "score open lines to published tables, over bare Booster.predict", make_open,
        (
            Contender(OURS, lambda folder: (folder, taught(folder)), score),
            Contender("Booster.predict", open_rows, bare_predict),
        ),
        {"Booster.predict": 3.0}, at_most=True,
    ),
)  # fmt: skip
