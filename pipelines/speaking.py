"""Let a forecaster speak of rows where partitions are worked on: here, or some rows at a time on a cluster."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from features.matrix import Matrix
from models.forecasters import Forecaster, load
from models.scoring import Said, said_together, say
from pipelines.partitions import scratch
from pipelines.world import World, cut_for


def said_of(world: World, forecaster: Forecaster, matrix: Matrix) -> Said:
    """Return what the forecaster says of all rows, wherever it is worked out; rows go to workers through files."""
    how = cut_for(world, forecaster.task)
    if how is None or world.settings.engine == "local" or not len(matrix.rows):
        return say(forecaster, matrix.rows, matrix.X)
    with scratch(how.scratch) as folder:
        (folder / "model").mkdir()
        forecaster.save(folder / "model")
        parts = _written(matrix, folder, how.partitions)
        return said_together(how.engine.map(say_of, [(folder, part) for part in range(parts)]))


def _written(matrix: Matrix, folder: Path, parts: int) -> int:
    """Write rows and inputs in about so many parts of the same size; return how many there are."""
    edges = np.unique(np.linspace(0, len(matrix.rows), parts + 1).astype(int))
    for part, (begin, end) in enumerate(pairwise(edges)):
        for name, table in (("rows", matrix.rows), ("inputs", matrix.X)):
            table.iloc[begin:end].reset_index(drop=True).to_feather(folder / f"{name}-{part}")
    return len(edges) - 1


def say_of(folder: Path, part: int) -> Said:
    """Return what the forecaster in a folder says of the rows that were written beside it."""
    rows, inputs = (pd.read_feather(folder / f"{name}-{part}") for name in ("rows", "inputs"))
    return say(load(folder / "model"), rows, inputs)
