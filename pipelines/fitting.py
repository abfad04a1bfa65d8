"""Fit a lesson's forecasters where partitions are worked on: here one after the other, or side by side on a cluster."""

import pickle
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from features.matrix import Matrix
from models import lessons
from models.forecasters import Forecaster, load
from models.lessons import Lesson, Training
from pipelines import sources
from pipelines.engines import Engine
from pipelines.partitions import scratch
from pipelines.world import World

Fits = Callable[[Sequence[np.datetime64], Training], Iterator[Forecaster]]
LESSON = "lesson"  # the file that workers read


@contextmanager
def fitting(world: World, lesson: Lesson) -> Iterator[Fits]:
    """Hand out what fits a forecaster of the lesson at each of some cuts, and gives them in the order of the cuts.

    Here each is fitted when it is asked for. On a cluster all are begun at once, from a copy of the lesson in the
    scratch folder: the same forecasters, since trees do not depend on the number of threads.
    """
    if world.settings.engine == "local":
        yield partial(lessons.fits, lesson)
        return
    with scratch(sources.scratch_of(world.settings)) as folder:
        bare = replace(lesson, matrix=Matrix(lesson.matrix.rows, lesson.matrix.X, ()))  # features are functions
        with open(folder / LESSON, "wb") as file:
            pickle.dump(bare, file, protocol=5)
        yield partial(_on_workers, world.engine, folder)


def _on_workers(
    engine: Engine, folder: Path, cuts: Sequence[np.datetime64], training: Training
) -> Iterator[Forecaster]:
    asked = [(folder, cut, training, engine.threads) for cut in cuts]
    return (load(made) for made in engine.each(fit_of, asked))


def fit_of(folder: Path, cut: np.datetime64, training: Training, threads: int) -> Path:
    """Fit a forecaster of the lesson in a folder with so many threads; return where, inside of it, it was saved.

    It remembers the threads of `training`, to speak with.
    """
    with open(folder / LESSON, "rb") as file:
        lesson: Lesson = pickle.load(file)
    made = folder / uuid.uuid4().hex  # a worker that was lost may have left half of one
    made.mkdir()
    fitted = lessons.fit(lesson, cut, replace(training, threads=threads))
    fitted.model.set_params(threads=training.threads)
    fitted.save(made)
    return made
