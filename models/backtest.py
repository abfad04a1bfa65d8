"""Walk forward as production would: retrain at each cut on what had matured, judge on what came after."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from features.labels import delay_outcomes
from features.panels import Terms
from models import metrics
from models.baselines import delay_rule_rows, predict_rules
from models.delay import DelayModel
from models.forecasters import fit_delay_rules, fit_shift_rules, shift_rule_rows
from models.shift import ShiftModel
from models.splits import Fold, walk_forward

DIRECTIONS = {"down": 0, "up": 2}
WINDOW_KEYS = (
    "product_id",
    "site_id",
    "window",
    "as_of",
    "matured_on",
    "actual_units",
    "baseline_units",
    "noise_units",
)


def delay_walk(
    rows: pd.DataFrame,
    X: pd.DataFrame,
    *,
    end: Any,
    make: Callable[[], DelayModel],
    terms: Terms,
    folds: int = 3,
    fold_weeks: int = 8,
) -> pd.DataFrame:
    """Return one row per judged snapshot: po_line_id, as_of, supplier_id, fold, y, p and a column p_<rule> per rule.

    `rows` has y_late and matured_on; rows without a label are neither learnt from nor judged.
    """

    def one(fold: Fold) -> pd.DataFrame:
        learn, test = fold.train_idx, fold.test_idx
        y, known = rows["y_late"].to_numpy(), delay_outcomes(rows, fold.cut, terms)
        asked = np.flatnonzero(rows["as_of"].to_numpy().astype("datetime64[D]") < fold.cut)
        model = make().fit(X.iloc[asked], known.iloc[asked], cut=fold.cut)
        rules = predict_rules(
            fit_delay_rules(X.iloc[learn], known["y"].to_numpy()[learn]), delay_rule_rows(X.iloc[test])
        )
        out = rows.iloc[test][["po_line_id", "as_of", "supplier_id", "matured_on"]].reset_index(drop=True)
        return out.assign(
            fold=str(fold.cut), y=y[test], p=model.predict_proba(X.iloc[test])[:, 1],
            **{f"p_{name}": p for name, p in rules.items()},
        )  # fmt: skip

    found = walk_forward(
        rows["as_of"], rows["matured_on"].where(rows["y_late"].notna()), end=end, folds=folds, fold_weeks=fold_weeks
    )
    return pd.concat(map(one, found), ignore_index=True) if found else pd.DataFrame()


def shift_walk(
    rows: pd.DataFrame, X: pd.DataFrame, y: np.ndarray, *, end: Any, make: Callable[[], ShiftModel], folds: int = 2,
    fold_weeks: int = 13,
) -> pd.DataFrame:  # fmt: skip
    """Return one row per judged window: keys, fold, y, p_down, p_up, the rules' and the quantiles of units."""
    deviation = ((rows["actual_units"] - rows["baseline_units"]) / rows["noise_units"]).to_numpy()
    known = ~np.isnan(y)

    def one(fold: Fold) -> pd.DataFrame:
        learn, test = fold.train_idx, fold.test_idx[known[fold.test_idx]]
        model = make().fit(
            X.iloc[learn], y[learn], deviation=deviation[learn], as_of=rows["as_of"].to_numpy()[learn],
            matured_on=rows["matured_on"].to_numpy()[learn], cut=fold.cut,
        )  # fmt: skip
        judged = learn[known[learn]]
        rules = predict_rules(fit_shift_rules(rows.iloc[judged], y[judged]), shift_rule_rows(rows.iloc[test]))
        mine = rows.iloc[test]
        out = mine[list(WINDOW_KEYS)].reset_index(drop=True).assign(fold=str(fold.cut), y=y[test])
        p = model.predict_proba(X.iloc[test])
        units = model.predict_units(X.iloc[test], mine["baseline_units"], mine["noise_units"])
        columns = {f"p_{d}": p[:, k] for d, k in DIRECTIONS.items()}
        columns |= {f"p_{d}_{name}": q[:, k] for name, q in rules.items() for d, k in DIRECTIONS.items()}
        columns |= {f"units_p{level}": units[:, k] for k, level in enumerate((10, 50, 90))}
        return out.assign(**columns)

    found = walk_forward(rows["as_of"], rows["matured_on"], end=end, folds=folds, fold_weeks=fold_weeks)
    walked = [one(fold) for fold in found if known[fold.test_idx].any()]
    return pd.concat(walked, ignore_index=True) if walked else pd.DataFrame()


def stacked(walk: pd.DataFrame) -> pd.DataFrame:
    """Return shift predictions as binary ones: each window judged once for a drop and once for a surge."""
    parts = []
    for direction, k in DIRECTIONS.items():
        rules = {c: "p" + c[len(f"p_{direction}") :] for c in walk if c.startswith(f"p_{direction}")}
        keys = walk[["product_id", "site_id", "window", "as_of", "fold"]]
        parts.append(
            keys.assign(direction=direction, y=(walk["y"] == k) * 1.0, **{new: walk[c] for c, new in rules.items()})
        )
    return pd.concat(parts, ignore_index=True)


def judge(walk: pd.DataFrame, entity: str, *, seed: int, n: int = 200) -> pd.DataFrame:
    """Return the metrics of the model and of every rule over binary predictions, with intervals by block bootstrap."""
    rules = {c[2:]: walk[c].to_numpy() for c in walk if c.startswith("p_")}
    return metrics.compare(
        walk["y"].to_numpy(),
        walk["p"].to_numpy(),
        rules,
        walk["as_of"].to_numpy(),
        walk[entity].to_numpy(),
        seed=seed,
        n=n,
    )


def best_rule(table: pd.DataFrame) -> str:
    """Return the naive rule with the lowest Brier score."""
    return str(table.drop(index="model")["brier"].astype(float).idxmin())


def record(walk: pd.DataFrame, best: str, task: str) -> list[dict[str, Any]]:
    """Return the track record by tenths of probability: scored, expected, came true, and skill over the best rule."""
    tenth = np.minimum((walk["p"] * 10).astype(int), 9)
    out = []
    for k, part in walk.groupby(tenth):
        mine, reference = (((part[c] - part["y"]) ** 2).mean() for c in ("p", f"p_{best}"))
        out.append(
            {
                "task": task, "p_from": int(k) / 10, "p_to": (int(k) + 1) / 10, "scored": len(part),
                "expected_share": float(part["p"].mean()), "came_true_share": float(part["y"].mean()), "rule": best,
                "skill_over_rule": float(1 - mine / reference) if reference > 0 else None,
                "first_day": str(part["as_of"].min().date()), "last_day": str(part["as_of"].max().date()),
            }
        )  # fmt: skip
    return out


def quantile_scores(walk: pd.DataFrame) -> Mapping[str, float]:
    """Return coverage, pinball and crossings of the windows' units."""
    Q = walk[["units_p10", "units_p50", "units_p90"]].to_numpy()
    return metrics.quantile_report(walk["actual_units"].to_numpy(), Q)
