"""What is usual of an input: its median and its range from P10 to P90 among the rows a model learnt from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd


def sampled(n: int) -> np.ndarray:
    """Return places spread over n rows: some 20,000 to 40,000, enough to say what is usual."""
    return np.arange(0, n, max(n // 20_000, 1))


def usual(block: np.ndarray, columns: Sequence[str]) -> pd.DataFrame:
    """Return `median`, `low` (P10) and `high` (P90) per column of `block` [row, column], NaN for one without values."""
    sample = block[sampled(len(block))]
    found = pd.DataFrame(np.nan, list(columns), ["median", "low", "high"])
    filled = np.flatnonzero(~np.isnan(sample).all(axis=0))
    if len(filled):
        known = sample[:, filled]
        found.iloc[filled, 0] = np.nanmedian(known, axis=0)
        found.iloc[filled, 1:] = np.nanquantile(known, [0.1, 0.9], axis=0).T
    return found


def to_dict(found: pd.DataFrame) -> dict[str, Any]:
    """Return the frame as JSON values."""
    plain = found.astype(object).where(found.notna(), None)
    return {"usual": plain["median"].tolist(), "usual_range": plain[["low", "high"]].to_numpy().tolist()}


def from_dict(state: Mapping[str, Any], columns: Sequence[str]) -> pd.DataFrame:
    """Return the frame that `to_dict` described; of a model saved before ranges were kept they are not known."""
    ends = pd.DataFrame(state.get("usual_range", np.nan), list(columns), ["low", "high"], dtype=float)
    return ends.assign(median=pd.Series(state["usual"], list(columns), dtype=float))[["median", "low", "high"]]
