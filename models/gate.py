"""Who publishes? The model, unless a naive rule did clearly better on matured predictions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t

from models.forecasters import EVENTS, MODEL, Facts, said_by
from models.leaning import JUDGED_ONLY

FALLBACK = {"late": "days_to_promise", "down": "climatology", "up": "climatology"}
SEGMENT = {"late": "evidence", "down": "rhythm", "up": "rhythm"}
LEAST_ROWS, LEAST_POSITIVES = 200, 20  # fewer say nothing about a segment
BY_CHANCE = 0.05  # at most so often may the best of all rules lead so far that is no better
LEAST_BLOCKS = 4  # fewer tell nothing of how much a mean may be off


@dataclass(frozen=True, slots=True)
class Decision:
    """Who publishes per event and segment, the best rule of each event, and why the model does not where it does not.

    `refused_because` is None if the model publishes at least one event.
    """

    publishes: Mapping[str, str]
    best_rule: Mapping[str, str]
    refused_because: str | None


def decide(pairs: pd.DataFrame, task: str) -> Decision:
    """Return who publishes after matured binary predictions (`models.backtest.binary`).

    Per event the model publishes unless the best rule's Brier score leads by more than chance (`is_clear`). In a
    segment another one does on the same terms.
    """
    publishes: dict[str, str] = {}
    best: dict[str, str] = {}
    lost = []
    for event in EVENTS[task]:
        mine = pairs[pairs["event"] == event]
        if len(mine) < LEAST_ROWS or mine["y"].nunique() < 2:
            publishes[event] = best[event] = FALLBACK[event]
            few = "too little has matured to judge it; come back with more weeks of history"
            more = {"late": ", in which lines have reached a promised day"}
            few += more.get(event, ", or set longer windows where products sell once a month or more rarely")
            which = "all" if mine["y"].any() else "none"
            same = f"{which} of {len(mine):,} judged came true: there is nothing to tell apart"
            lost.append(few if len(mine) < LEAST_ROWS else same)
            continue
        losses = squared_errors(mine).drop(columns=list(JUDGED_ONLY), errors="ignore")  # no release could publish them
        score = losses.mean()
        best[event] = str(score.drop(MODEL).idxmin())
        rule, model = score[best[event]], score[MODEL]
        clear = is_clear(losses[MODEL] - losses[best[event]], blocks(mine), losses.shape[1] - 1)
        publishes[event] = best[event] if clear else MODEL
        if publishes[event] != MODEL:
            what = "" if event == "late" else f" for {'surges' if event == 'up' else 'drops'}"
            lost.append(
                f"the naive rule {best[event]} is clearly better{what} on the walk-forward "
                f"(Brier {rule:.4f}, model {model:.4f}); the rule is published until a model is as good"
            )
        publishes |= _departures(event, mine, losses, publishes[event])
    refused = len(lost) == len(EVENTS[task])
    return Decision(publishes, best, "; ".join(dict.fromkeys(lost)) if refused else None)


def squared_errors(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return (p − y)² per row, a column for the model and for every rule."""
    names = [c for c in pairs if c.startswith("p_")]
    return pd.DataFrame({c[2:]: (pairs[c] - pairs["y"]) ** 2 for c in names})


def as_published(pairs: pd.DataFrame, publishes: Mapping[str, str]) -> pd.DataFrame:
    """Return the pairs with p as these publishers would have said it."""
    if not len(pairs):
        return pairs
    p = np.empty(len(pairs))
    for event in pairs["event"].unique():
        mine = np.flatnonzero(pairs["event"] == event)
        part = pairs.iloc[mine]
        by = Facts("", publishes).publisher(event, part[SEGMENT[event]].to_numpy())
        p[mine] = said_by(part.filter(regex="^p_").rename(columns=lambda name: name[2:]), by)
    return pairs.assign(p=p)


def _departures(event: str, pairs: pd.DataFrame, losses: pd.DataFrame, default: str) -> dict[str, str]:
    out = {}
    for segment, part in losses.groupby(pairs[SEGMENT[event]].to_numpy()):
        y = pairs.loc[part.index, "y"]
        if len(part) < LEAST_ROWS or min(y.sum(), (1 - y).sum()) < LEAST_POSITIVES:
            continue
        other = str(part.mean().idxmin())
        if other == default:
            continue
        if is_clear(part[default] - part[other], blocks(pairs.loc[part.index]), part.shape[1] - 1):
            out[f"{event}/{segment}"] = other
    return out


def blocks(pairs: pd.DataFrame) -> np.ndarray:
    """Return a number per row: its stretch of as-of weeks, as long as half of the rows waited for their label.

    Rows closer than that share what happened to them. There are at least LEAST_BLOCKS if there are as many weeks.
    """
    week = pairs["as_of"].to_numpy().astype("datetime64[W]").astype(int)
    waited = np.median((pairs["matured_at"] - pairs["as_of"]).dt.days.to_numpy()) / 7
    weeks = week - week.min()
    return weeks // max(min(round(waited), (weeks.max() + 1) // LEAST_BLOCKS), 1)


def is_clear(difference: pd.Series, block: np.ndarray, among: int) -> bool:
    """Return whether the best `among` so many leads by more than chance would have it; `difference` is its lead by row.

    By Student's t between blocks, few of which say little of their own spread, at BY_CHANCE over the number there was
    to choose from (Bonferroni).
    """
    return lead(difference, block) > t.ppf(1 - BY_CHANCE / among, max(len(np.unique(block)) - 1, 1))


def lead(difference: pd.Series, block: np.ndarray) -> float:
    """Return the mean paired difference over its standard error, rows of one block taken as one."""
    sums = difference.groupby(block).agg(["sum", "size"])
    mean = sums["sum"].sum() / sums["size"].sum()
    off = sums["sum"] - mean * sums["size"]
    clusters = len(sums)
    if clusters < LEAST_BLOCKS:
        return 0.0
    error = np.sqrt((off**2).sum() * clusters / (clusters - 1)) / sums["size"].sum()
    return float(mean / error) if error > 0 else 0.0
