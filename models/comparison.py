"""Which of two models is better, by how much, and what would change? Both judged on the same matured predictions."""

from typing import Any

import numpy as np
import pandas as pd

from models import metrics
from models.gate import LEAST_POSITIVES
from models.lessons import KEYS
from models.report import ENTITY, number

MEASURES = ("brier", "pr_auc", "slope", "ece")


def common_pairs(a: pd.DataFrame, b: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return the predictions two walk-forwards share: keys, event, y, p_a, p_b and the entity.

    Rows that one of them labels otherwise, since it asks another question, are left out.
    """
    if not len(a) or not len(b):
        return pd.DataFrame(columns=["event", "as_of", "y", "p_a", "p_b", ENTITY[task]])
    keys = [*KEYS[task], "event"]
    mine = a[list(dict.fromkeys([*keys, ENTITY[task], "y", "p"]))].rename(columns={"p": "p_a"})
    theirs = b[[*keys, "y", "p"]].rename(columns={"p": "p_b"})
    both = mine.merge(theirs, on=keys, suffixes=("", "_b"))
    return both[both["y"] == both["y_b"]].drop(columns="y_b")


def side_by_side(pairs: pd.DataFrame, task: str, *, seed: int) -> list[dict[str, Any]]:
    """Return per event what each model's probabilities are worth, and the skill of b over a with its 95 % interval."""
    return [
        {
            "event": str(event), "n": len(part), "positives": int(part["y"].sum()),
            "weeks": int(part["as_of"].nunique()), "a": _measured(part, "p_a"), "b": _measured(part, "p_b"),
            **_skill(part, ENTITY[task], seed),
        }
        for event, part in pairs.groupby("event", sort=True)
    ]  # fmt: skip


def _measured(part: pd.DataFrame, p: str) -> dict[str, float | int | None]:
    report = metrics.binary_report(part["y"], part[p])
    return {name: number(report[name]) for name in MEASURES}


def _skill(part: pd.DataFrame, entity: str, seed: int) -> dict[str, Any]:
    y, a, b = (part[c].to_numpy(float) for c in ("y", "p_a", "p_b"))
    skill = metrics.brier_skills(y, b, a)
    weeks, entities = part["as_of"].to_numpy().astype("datetime64[W]"), part[entity].to_numpy()
    low, high = metrics.block_bootstrap(lambda w: {"skill": skill(w)}, weeks, entities, seed=seed)["skill"]
    told = min(y.sum(), (1 - y).sum()) >= LEAST_POSITIVES
    return {
        "skill_of_b_over_a": number(skill(np.ones(len(y)))), "interval": [number(low), number(high)],
        "better": "too few to tell" if not told else "b" if low > 0 else "a" if high < 0 else "neither can be told",
    }  # fmt: skip


def list_changes(rows: pd.DataFrame, k: int) -> dict[str, Any]:
    """Return how the k rows with most expected loss differ: `rows` have row_id, p_a, p_b, stake_a and stake_b."""
    top = {m: set(_top(rows, f"stake_{m}", k)) for m in ("a", "b")}
    moved = rows[rows["row_id"].isin(top["a"] ^ top["b"])].sort_values("stake_b", ascending=False)
    change = np.where(moved["row_id"].isin(top["b"]), "comes", "goes")
    return {
        "k": min(k, len(rows)), "in_both": len(top["a"] & top["b"]),
        "changes": moved.assign(change=change)[["change", "row_id", "p_a", "p_b"]].to_dict("records"),
    }  # fmt: skip


def _top(rows: pd.DataFrame, stake: str, k: int) -> pd.Series:
    known = rows[rows[stake].notna()]
    return known.sort_values([stake, "row_id"], ascending=[False, True])["row_id"].head(k)
