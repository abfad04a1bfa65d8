"""Evaluate trees on every pair of a row and a time, with their questions asked once per row and once per time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np

from features.threads import pieces

LARGEST = float(np.finfo(np.float32).max)
PAIRS = 1 << 14  # of a row and a time that are evaluated at once: they stay in the processor's cache
MOST_SPLITS = 14  # of a tree: its table has a value for every way in which they can be answered


@dataclass(frozen=True, slots=True)
class Question:
    """Whether an input is at most `at_most`, as float32, or one of `among`; and what a missing input answers."""

    column: int
    at_most: np.float32
    among: tuple[int, ...]
    missing: bool

    def asked(self, values: np.ndarray) -> np.ndarray:
        """Return the answers [row], true for the left branch, to values [row] of the column."""
        if self.among:
            return np.isin(np.trunc(values), self.among)  # of a missing value or one below 0 there is none
        return ~(values > self.at_most) if self.missing else values <= self.at_most


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """A tree's questions about rows and about times, and its values [code]: bit k of a code answers question k.

    Questions about rows come first.
    """

    of_row: tuple[Question, ...]
    of_time: tuple[Question, ...]
    values: np.ndarray


class SharedTrees:
    """The trees of a booster whose first `own` inputs are those of a row, and the others those of a time."""

    def __init__(self, every: Sequence[Mapping[str, Any]], own: int):
        self.trees = [_tree(told["tree_structure"], own) for told in every]

    def raw(
        self, block: np.ndarray, places: np.ndarray, kind: np.ndarray, counts: Sequence[int | None]
    ) -> list[np.ndarray]:
        """Return `Booster.predict(raw_score=True)` [row, time] by the first trees, for each rising count of them.

        `block` [row, input] and `places` [kind, time, input] are float32; a row is asked at all times of its `kind`.
        The bits are those of LightGBM: trees are added up in their order.
        """
        shape = len(kind), places.shape[1]
        rows, times = np.ascontiguousarray(block.T), np.ascontiguousarray(places.reshape(-1, places.shape[2]).T)
        some = list(pieces(len(kind), max(PAIRS // max(shape[1], 1), 1)))
        total, out = np.zeros(shape), []
        most = min(len(kind), PAIRS // max(shape[1], 1) + 1), shape[1]
        room = np.empty(most, np.intp), np.empty(most)
        for n, tree in enumerate(self.trees, start=1):
            own = _codes(tree.of_row, rows, 0)
            of_time = _codes(tree.of_time, times, len(tree.of_row)).reshape(places.shape[:2])
            for part in some:
                _add(tree, own[part], of_time, kind[part], room, total[part])
            out += [total.copy() for count in counts if count == n]
        return out + [total] * (len(counts) - len(out))


def _add(
    tree: Tree, own: np.ndarray, of_time: np.ndarray, kind: np.ndarray, room: tuple[np.ndarray, np.ndarray],
    total: np.ndarray,
) -> None:  # fmt: skip
    """Add what the tree says of rows, by their own codes and those of their kinds' times, to `total` [row, time]."""
    if not tree.of_time:
        total += tree.values.take(own)[:, None]
        return
    code, value = (a[: len(own)] for a in room)
    of_time.take(kind, axis=0, out=code, mode="clip")
    code |= own[:, None]
    total += tree.values.take(code, out=value, mode="clip")


def shared(booster: lgb.Booster, own: int) -> SharedTrees | None:
    """Return the booster's trees, None where one has too many splits for a table."""
    every = booster.dump_model()["tree_info"]
    most = max((told["num_leaves"] for told in every), default=1)
    return SharedTrees(every, own) if most - 1 <= MOST_SPLITS else None


def _codes(questions: Sequence[Question], columns: np.ndarray, first: int) -> np.ndarray:
    """Return the answers to questions as bits from `first` on, an index per value of the columns [input, value]."""
    out = np.zeros(columns.shape[1], np.uint16)
    for bit, question in enumerate(questions, start=first):
        out |= question.asked(columns[question.column]).view(np.uint8).astype(np.uint16) << np.uint16(bit)
    return out.astype(np.intp)


def _tree(root: Mapping[str, Any], own: int) -> Tree:
    splits = sorted(_splits(root), key=lambda split: split["split_feature"] >= own)
    bit_of = {split["split_index"]: bit for bit, split in enumerate(splits)}
    codes = np.arange(1 << len(splits))
    of_row = tuple(_question(s, 0) for s in splits if s["split_feature"] < own)
    of_time = tuple(_question(s, own) for s in splits if s["split_feature"] >= own)
    return Tree(of_row, of_time, _values(root, bit_of, codes))


def _splits(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "split_index" not in node:
        return []
    return [node, *_splits(node["left_child"]), *_splits(node["right_child"])]


def _values(node: Mapping[str, Any], bit_of: Mapping[int, int], codes: np.ndarray) -> np.ndarray:
    """Return the value that each code leads to."""
    if "split_index" not in node:
        return np.full(len(codes), float(node["leaf_value"]))
    left = codes >> bit_of[node["split_index"]] & 1
    return np.where(left, *(_values(node[side], bit_of, codes) for side in ("left_child", "right_child")))


def _question(split: Mapping[str, Any], first: int) -> Question:
    """Return a split as LightGBM decides it: a missing value is 0 where training saw none, else takes the default."""
    column, threshold = split["split_feature"] - first, split["threshold"]
    if split["decision_type"] == "==":
        return Question(column, np.float32(0), tuple(int(level) for level in str(threshold).split("||")), False)
    at_most = np.float32(np.clip(threshold, -LARGEST, LARGEST))
    if float(at_most) > threshold:  # a float32 is at most a number where it is at most the float32 below
        at_most = np.nextafter(at_most, np.float32(-np.inf))
    missing = split["default_left"] if split["missing_type"] == "NaN" else threshold >= 0
    return Question(column, at_most, (), bool(missing))
