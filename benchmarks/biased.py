"""What a model learns that is trained on received lines only: wrong twice, and kept to show it."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import detection
from models import lessons
from models.backtest import folds, replay
from models.lessons import Lesson
from pipelines.learn import prepare, training
from pipelines.settings import load
from pipelines.world import open_world, request


@dataclass(frozen=True, slots=True, eq=False)
class ReceivedOnly(Lesson):
    """A lesson in which a line exists once it was received: the worst ones are missing, early ones are hurried in."""

    def outcomes(self, cut: np.datetime64) -> pd.DataFrame:
        """Return outcomes as known at `cut` of lines received by then; at the end of everything they are honest."""
        honest = Lesson.outcomes(self, cut)
        if cut >= self.known_until:
            return honest
        places, late = detection.received_only(self.rows, cut)
        y = np.full(len(honest), np.nan)
        y[places] = late
        return honest.assign(y=y, watched=honest["watched"].where(honest["completed_in"].notna(), 0.0))


def received_only(workspace: Path, until: date, weeks: int = 24) -> pd.DataFrame:
    """Return predictions with labels and true probabilities of a simulated chain by a model trained that way."""
    settings = load(workspace)
    first = np.datetime64(until - timedelta(weeks=weeks), "D")
    with open_world(settings, until) as world:
        asked = request(world, "delay", first_cut=until - timedelta(weeks=weeks))
        honest = prepare(world, "delay", asked, judged_from=first, reach_weeks=weeks)
    lesson = ReceivedOnly(honest.task, honest.matrix, honest.terms, honest.shift_terms, honest.known_until)
    days = asked.grid.days[asked.grid.days >= first]
    given = folds(days, 7 * weeks)
    fitted = lessons.fits(lesson, [fold.cut for fold in given], training(settings, 1))
    p = pd.concat(replay(lesson, given, fitted))
    truth = pd.read_parquet(workspace / "truth" / "p_late.parquet")
    truth = truth.assign(as_of=pd.to_datetime(truth["as_of"]))
    known = p[p["label"].notna()].assign(p=lambda t: t["p_model"])
    return known.merge(truth, on=["po_line_id", "as_of"])
