"""Train LightGBM: the same trees whatever the order of rows and the number of threads, kept as text."""

import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before LightGBM loads: waiting threads must not burn the cores

import lightgbm as lgb
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from features.threads import threads as at_most

STEADY: dict[str, Any] = {
    "deterministic": True,
    "force_row_wise": True,  # the choice between row-wise and column-wise is timed, hence not reproducible
    "feature_pre_filter": False,
    "verbosity": -1,
    "bin_construct_sample_cnt": 20_000,  # rows that bins are cut by: all 200,000 took half the time a block takes
    "max_bin": 127,  # half the histogram work of 255 at no measurable loss on our data
}
NUMBERS = "fiub"  # kinds of column that are taken as they are


class Crew:
    """How many threads LightGBM works with, which is one number for the whole process, set by its latest call.

    Trees that grow, or speak, while another call changes it have memory for another number of threads: they end the
    process, or are wrong in silence (LightGBM's documentation of `num_threads`; its issues 4705 and 5482). So calls
    with the same number run beside each other, and a call with another waits until they have ended.
    """

    def __init__(self) -> None:
        self._changed, self._size, self._at_work = threading.Condition(), 0, 0

    @contextmanager
    def of(self, threads: int) -> Iterator[int]:
        """Work with at most `threads`, 0 for as many as there may be; gives their number, to be told to LightGBM."""
        size = at_most(threads)
        with self._changed:
            self._changed.wait_for(lambda: not self._at_work or self._size == size)
            self._size, self._at_work = size, self._at_work + 1
        try:
            yield size
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()


CREW = Crew()


class Encoder:
    """Turn a frame of float and text columns into one float32 block; text becomes the place in a learnt vocabulary.

    A value met less than `min_count` times in fitting, or never, is missing: its level could only be learnt by heart.
    """

    def __init__(self, min_count: int = 20):
        self.min_count = min_count

    def fit(self, X: pd.DataFrame, columns: Sequence[str] | None = None) -> "Encoder":
        self.columns_ = list(X.columns if columns is None else columns)
        self.vocabularies_: dict[str, list[str]] = {}
        for name in self.columns_:
            if X[name].dtype.kind not in NUMBERS:
                counts = X[name].dropna().astype(str).value_counts()
                self.vocabularies_[name] = sorted(counts.index[counts >= self.min_count])
        return self

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Return C-ordered float32 [row, column] in the fitted order of columns; a column X lacks is missing."""
        if list(X.columns) == self.columns_ and all(kind.kind in NUMBERS for kind in X.dtypes):
            return np.ascontiguousarray(X.to_numpy(np.float32))
        block = np.full((len(X), len(self.columns_)), np.nan, np.float32)
        for k, name in enumerate(self.columns_):
            if name not in X:
                continue
            if name in self.vocabularies_:
                place = pd.Index(self.vocabularies_[name]).get_indexer(X[name].astype(str))
                block[:, k] = np.where(place >= 0, place, np.nan)
            else:
                block[:, k] = pd.to_numeric(X[name], errors="coerce").to_numpy(np.float32)
        return block

    @property
    def categorical(self) -> list[int]:
        return [self.columns_.index(name) for name in self.vocabularies_]

    def to_dict(self) -> dict[str, Any]:
        return {"min_count": self.min_count, "columns": self.columns_, "vocabularies": self.vocabularies_}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Encoder":
        new = cls(state["min_count"])
        new.columns_, new.vocabularies_ = list(state["columns"]), dict(state["vocabularies"])
        return new


def train(
    block: np.ndarray, y: np.ndarray, params: Mapping[str, Any], *, rounds: int, seed: int, threads: int = 0,
    categorical: Sequence[int] = (), start: np.ndarray | None = None,
) -> lgb.Booster:  # fmt: skip
    """Return the booster of one set of parameters; see `train_each`."""
    how = {"rounds": rounds, "seed": seed, "threads": threads, "categorical": categorical, "start": start}
    return train_each(block, y, [params], **how)[0]  # type: ignore[arg-type]


def train_each(
    block: np.ndarray, y: np.ndarray, each: Sequence[Mapping[str, Any]], *, rounds: int, seed: int, threads: int = 0,
    categorical: Sequence[int] = (), weight: np.ndarray | None = None, start: np.ndarray | None = None,
) -> list[lgb.Booster]:  # fmt: skip
    """Return a booster per set of parameters, the block cut into bins once; they differ in nothing bins depend on.

    Rows are expected in `canonical_order`, since sums and samples of rows depend on theirs. With `start`, raw scores
    per row, the trees learn what is to be added to them. Without any row they learn from one row of missing values per
    class, so that each is as likely as the others.
    """
    with CREW.of(threads) as size:
        data, every = _binned(block, y, each, seed, size, categorical, weight, start)
        return [lgb.train(params, data, num_boost_round=rounds) for params in every]


class Growing:
    """Trees that grow on where they stopped: the first of them are the same however many follow."""

    def __init__(
        self, block: np.ndarray, y: np.ndarray, params: Mapping[str, Any], *, seed: int, threads: int = 0,
        categorical: Sequence[int] = (), weight: np.ndarray | None = None,
    ):  # fmt: skip
        """Take what `train` takes."""
        with CREW.of(threads) as size:
            data, every = _binned(block, y, [params], seed, size, categorical, weight, None)
            self._trees, self._grown = lgb.Booster(every[0], data), 0
        self._threads, self._nothing = threads, np.full((1, block.shape[1]), np.nan, np.float32)

    def upto(self, rounds: int) -> lgb.Booster:
        """Return the trees after so many rounds, or after more if there are more already."""
        with CREW.of(self._threads) as size:
            self._trees.predict(self._nothing, num_threads=size)  # growing on takes the number of the latest call
            for _ in range(self._grown, rounds):
                self._trees.update()
            self._grown = max(self._grown, rounds)
            return lgb.Booster(model_str=self._trees.model_to_string(num_iteration=-1))


def _binned(
    block: np.ndarray, y: np.ndarray, each: Sequence[Mapping[str, Any]], seed: int, threads: int,
    categorical: Sequence[int], weight: np.ndarray | None, start: np.ndarray | None,
) -> tuple[lgb.Dataset, list[dict[str, Any]]]:  # fmt: skip
    """Return the block cut into bins, and each set of parameters with those that all trees share."""
    if not len(y):
        y = np.arange({"binary": 2}.get(each[0]["objective"], each[0].get("num_class", 1)), dtype=float)
        block = np.full((len(y), block.shape[1]), np.nan, np.float32)
    few = {"bagging_freq": 0} if len(y) < 20 else {}  # a sample of so few may be empty
    every = [{**STEADY, **params, "seed": seed, "num_threads": threads, **few} for params in each]
    data = lgb.Dataset(
        block, y, weight=weight, categorical_feature=list(categorical), init_score=start, params=every[0],
        free_raw_data=True,
    )  # fmt: skip
    return data, every


def save(booster: lgb.Booster, file: Path) -> None:
    """Write trees as text for `lightgbm.Booster(model_file=…)`: the same bytes however many threads they grew in."""
    trees = booster.model_to_string()
    file.write_text(re.sub(r"^\[num_threads: \d+\]$", "[num_threads: 0]", trees, flags=re.MULTILINE))


def canonical_order(block: np.ndarray, *columns: np.ndarray, then: np.ndarray | None = None) -> np.ndarray:
    """Return an order of rows that depends on their content alone: by a 64-bit hash of `block` and further columns.

    Rows that tie go by `then`, or are the same. The order is as good as random, so its first n rows are a sample of n.
    """
    extra = [np.asarray(column).astype(np.float32) for column in columns]
    factors = np.random.default_rng(0).integers(1, 2**63, block.shape[1] + len(extra), dtype=np.uint64) | np.uint64(1)
    hashed = np.zeros(len(block), np.uint64)
    for column, factor in zip([*block.T, *extra], factors, strict=True):
        words = (np.ascontiguousarray(column) + np.float32(0)).view(np.uint32).astype(np.uint64)  # −0.0 becomes 0.0
        hashed += (words ^ (words >> np.uint64(7))) * factor
    return np.argsort(hashed, kind="stable") if then is None else np.lexsort((then, hashed))


def day_numbers(days: ArrayLike) -> np.ndarray:
    """Return days as numbers that a hash can take; missing ones are one number."""
    return np.asarray(days).astype("datetime64[D]").astype(np.int64)


def gain_shares(booster: lgb.Booster, columns: Sequence[str]) -> pd.Series:
    """Return each column's share of the total gain, largest first; inputs beyond the columns are one, "time"."""
    found = np.asarray(booster.feature_importance("gain"), float)
    gain = pd.Series(found[: len(columns)], list(columns), dtype=float)
    if len(found) > len(columns):
        gain["time"] = found[len(columns) :].sum()
    return (gain / max(gain.sum(), 1e-12)).sort_values(ascending=False)


def said_by_trees(
    booster: lgb.Booster, block: np.ndarray, *, rounds: int | None = None, raw: bool = False, threads: int = 0
) -> np.ndarray:
    """Return what the first `rounds` trees, or all, say of each row, with at most so many `threads`."""
    with CREW.of(threads) as size:
        return np.asarray(booster.predict(block, num_iteration=rounds, raw_score=raw, num_threads=size))


def contributions(booster: lgb.Booster, block: np.ndarray, threads: int = 0) -> np.ndarray:
    """Return exact SHAP values of the raw score [row, column + 1], the last column the expected value."""
    with CREW.of(threads) as size:
        return np.asarray(booster.predict(block, pred_contrib=True, num_threads=size))
