"""How soon is a planted shift found, how often is one found that is none, and what a biased cohort would learn."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

NOMINAL = 0.05  # a direction: z* = 1.64 standard deviations of what chance does
WITHIN_WEEKS = 13
NOT_FOUND = np.inf  # "13+" in a table: a median takes it for what it is, later than any week
CLASSES = {"down": 0, "up": 2}  # of features.labels.shift_labels


def alarm_levels(calm: pd.DataFrame, nominal: float = NOMINAL) -> dict[str, float]:
    """Return by direction the p that scores of a world without shifts exceed in `nominal` of all rows."""
    return {d: float(np.quantile(calm[f"p_{d}"].to_numpy(float), 1 - nominal, method="higher")) for d in CLASSES}


def weeks_to_find(scores: pd.DataFrame, planted: pd.DataFrame, levels: Mapping[str, float]) -> pd.DataFrame:
    """Return the planted steps that were scored, with `direction` and `weeks` from their start to the first alarm.

    `scores` has product_id, site_id, as_of, p_up and p_down of one window; `planted` is truth/planted.parquet. An alarm
    is p of the step's own direction above its level, at an as_of after the start: after one week, one week of it is
    known. `weeks` is NOT_FOUND without an alarm within WITHIN_WEEKS. A series that is not scored in these weeks is left
    out.
    """
    keys = ["product_id", "site_id"]
    if scores.duplicated([*keys, "as_of"]).any():
        raise ValueError("scores has several rows of one series and as_of; expected one window only, e.g. window 0")
    steps = planted.assign(
        starts_on=pd.to_datetime(planted["starts_on"]), direction=np.where(planted["log_size"] > 0, "up", "down")
    )
    both = steps.merge(scores[[*keys, "as_of", "p_up", "p_down"]], on=keys)
    both["weeks"] = (pd.to_datetime(both["as_of"]) - both["starts_on"]) / pd.Timedelta(weeks=1)
    both = both[(both["weeks"] > 0) & (both["weeks"] <= WITHIN_WEEKS)]
    p = np.where(both["direction"] == "up", both["p_up"], both["p_down"])
    rung = both["weeks"].where(p > both["direction"].map(dict(levels)).to_numpy(), NOT_FOUND)
    first = both.assign(weeks=rung).groupby(keys)["weeks"].min().reset_index()
    return steps.merge(first, on=keys)


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return per direction, and for all, the steps, the median weeks to find them and the share found in 13 weeks."""
    groups = [*found.groupby("direction"), ("all", found)]
    return pd.DataFrame(
        {
            name: {
                "steps": len(part),
                "median_weeks": part["weeks"].median(),
                "found": np.isfinite(part["weeks"]).mean(),
            }
            for name, part in groups
        }
    ).T


def false_event_rate(y: ArrayLike) -> dict[str, float]:
    """Return the share of windows labelled drop and surge, and their number, of a world without shifts.

    `y` are `features.labels.shift_labels`: 0 down, 1 steady, 2 up, NaN unknown (left out). Nominal is NOMINAL each.
    """
    known = np.asarray(y, float)
    known = known[~np.isnan(known)]
    shares = {d: float((known == k).mean()) if len(known) else float("nan") for d, k in CLASSES.items()}
    return {**shares, "windows": float(len(known))}


def received_only(rows: pd.DataFrame, cut: object) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and y of the cohort that many train on: lines received by `cut`, late or not by their receipts.

    `rows` are labelled snapshots (features.labels.delay_labels). Wrong twice, and kept to show it: lines still out at
    the cut, the worst ones, are dropped, and lines that are not due yet come in if they were early.
    """
    received = (rows["completed_known_at"] < pd.Timestamp(cut)) & (rows["state"] == "due_future")
    place = np.flatnonzero(received.to_numpy())
    late = (rows["completed_on"] > rows["due_on"]).to_numpy()[place]
    return place, late * 1.0


def against_truth(p: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """Return how predictions go with true probabilities: correlation, slope of truth on p, and both means."""
    p, truth = np.asarray(p, float), np.asarray(truth, float)
    if len(p) < 2 or p.std() == 0 or truth.std() == 0:
        nothing = float("nan")
        return {"correlation": nothing, "slope": nothing, "mean_p": float(p.mean()), "mean_truth": float(truth.mean())}
    r = float(np.corrcoef(p, truth)[0, 1])
    slope = r * truth.std() / p.std()
    return {"correlation": r, "slope": float(slope), "mean_p": float(p.mean()), "mean_truth": float(truth.mean())}
