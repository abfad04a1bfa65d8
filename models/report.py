"""Say how binary predictions did: next to every rule, per segment and week, and as a list people work through."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from models import metrics
from models.backtest import forecaster_names
from models.forecasters import MODEL
from models.gate import squared_errors

SHOWN = ("pr_auc", "prevalence", "lift", "brier", "log_loss", "ece", "slope", "roc_auc", "n", "positives")
LEAST = 50  # rows a segment or week needs to be told of
ENTITY = {"delay": "supplier_id", "shift": "product_id"}  # whose rows resemble each other


def judge(pairs: pd.DataFrame, entity: str, *, seed: int, n: int = 200) -> pd.DataFrame:
    """Return every metric of p ("model") and of every rule over binary predictions, with intervals by block bootstrap.

    Blocks are weeks of as-of days × entities.
    """
    rules = {name: pairs[f"p_{name}"].to_numpy() for name in forecaster_names(pairs)}
    weeks = pairs["as_of"].to_numpy().astype("datetime64[W]")
    return metrics.compare(pairs["y"], pairs["p"], rules, weeks, pairs[entity].to_numpy(), seed=seed, n=n)


def best_rule(table: pd.DataFrame) -> str:
    """Return the naive rule with the lowest Brier score."""
    return str(table.drop(index="model")["brier"].astype(float).idxmin())


def as_dict(table: pd.DataFrame) -> dict[str, Any]:
    """Return what `judge` found as JSON values: metrics, rules, intervals of the metrics, and the best rule's name."""
    values = table.astype(float)
    if values.loc["model", "prevalence"] in (0, 1):  # every reference is as good as perfect: nothing to be better than
        values[[c for c in values if c.startswith("bss_")]] = np.nan
    skills = [c for c in values if c.startswith("bss_") and not c.endswith(("_lo", "_hi"))]
    ends = sorted(c[:-3] for c in values if c.endswith("_lo"))
    mine = values.loc["model"]
    return {
        "metrics": numbers(mine[[*SHOWN, *skills]]),
        "rules": {name: numbers(values.loc[name, [*SHOWN, "bss_climatology"]]) for name in values.index.drop("model")},
        "intervals": {c: [number(mine[f"{c}_lo"]), number(mine[f"{c}_hi"])] for c in ends},
        "best_rule": best_rule(table),
    }


def numbers(values: pd.Series) -> dict[str, float | int | None]:
    return {str(k): number(v) for k, v in values.items()}


def number(value: Any) -> float | int | None:
    """Return a plain number for JSON: None for what is no number, an int where nothing is lost."""
    value = float(value)
    return None if not np.isfinite(value) else int(value) if value.is_integer() and abs(value) > 1 else value


# Segments -----------------------------------------------------------------------------------------------------------


def _bands(x: pd.Series, edges: tuple[float, ...], unit: str) -> np.ndarray:
    names = [f"{a:g}–{b - 1:g}" for a, b in pairwise(edges)] + [f"{edges[-1]:g}+"]
    place = np.searchsorted(edges, x.to_numpy(float), side="right") - 1
    told = np.array([f"{name} {unit}" for name in names], dtype=object)
    return np.where(x.isna(), "unknown", told[np.clip(place, 0, len(names) - 1)])


def _thirds(x: pd.Series) -> np.ndarray:
    rank = x.rank(pct=True).to_numpy()
    return np.select([np.isnan(rank), rank <= 1 / 3, rank <= 2 / 3], ["unknown", "low", "middle"], "high")


def _named(column: str) -> Callable[[pd.DataFrame], np.ndarray]:
    return lambda pairs: pairs[column].astype(str).replace("", "none").to_numpy()


SEGMENTS: Mapping[str, Mapping[str, Callable[[pd.DataFrame], np.ndarray]]] = {
    "delay": {
        "evidence": _named("evidence"),
        "entity": lambda pairs: np.where(pairs["evidence"] == "new", "new", "known"),
        "days_to_promise": lambda pairs: _bands(pairs["days_to_promise"], (0, 2, 4, 8, 15, 29, 57), "days"),
        "value": lambda pairs: _thirds(pairs["value"]),
        "region": _named("region"),
    },
    "shift": {
        "horizon": lambda pairs: np.array([f"weeks {a + 1}–{a + b}" for a, b in _windows(pairs)], dtype=object),
        "rhythm": _named("rhythm"),
        "entity": lambda pairs: np.where(pairs["age_weeks"] < 52, "new", "known"),
        "value": lambda pairs: _thirds(pairs["stake"]),
        "region": _named("region"),
    },
}


def _windows(pairs: pd.DataFrame) -> list[tuple[int, int]]:
    return list(pairs[["lead_weeks", "length_weeks"]].astype(int).itertuples(index=False, name=None))


def by_segment(pairs: pd.DataFrame, task: str) -> list[dict[str, Any]]:
    """Return one entry per event, segment and value with at least LEAST rows, next to the segment's best rule."""
    out = []
    for event, mine in pairs.groupby("event"):
        for name, of in SEGMENTS[task].items():
            for value, part in mine.groupby(of(mine)):
                if len(part) >= LEAST:
                    out.append({"event": event, "segment": name, "value": str(value), **_one(part)})
    return out


def by_week(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one entry per event and week of as-of days."""
    out = []
    for event, mine in pairs.groupby("event"):
        for week, part in mine.groupby(mine["as_of"].dt.to_period("W-SUN").dt.start_time):
            out.append({"event": event, "week": week.date().isoformat(), **_one(part)})
    return out


def _one(part: pd.DataFrame) -> dict[str, Any]:
    scores = squared_errors(part).mean().drop(MODEL)
    best = str(scores.idxmin())
    report = metrics.binary_report(part["y"], part["p"])
    kept = {k: number(report[k]) for k in ("n", "positives", "pr_auc", "prevalence", "brier", "ece", "slope")}
    mine = float(((part["p"] - part["y"]) ** 2).mean())
    both = part["y"].nunique() == 2  # where all had one outcome, every reference is as good as perfect
    low, high = _skill_interval(part, best) if both else (np.nan, np.nan)
    skills = {name: 1 - mine / scores[name] if both and scores[name] > 0 else np.nan for name in (best, "climatology")}
    return kept | {
        "best_rule": best,
        "best_rule_pr_auc": number(metrics.pr_auc(part["y"], part[f"p_{best}"])),
        "bss_best_rule": number(skills[best]),
        "bss_best_rule_interval": [number(low), number(high)],
        "bss_climatology": number(skills["climatology"]),
    }


def _skill_interval(part: pd.DataFrame, rule: str) -> tuple[float, float]:
    """Return the 95 % interval of the Brier skill over a rule by the same blocks as everywhere."""
    mine, theirs = ((part[c] - part["y"]).to_numpy(float) ** 2 for c in ("p", f"p_{rule}"))

    def skill(weight: np.ndarray) -> dict[str, float]:
        below = metrics.dot(weight, theirs)
        return {"bss": 1 - metrics.dot(weight, mine) / below if below > 0 else np.nan}

    weeks = part["as_of"].to_numpy().astype("datetime64[W]")
    entity = part[ENTITY["delay" if part["event"].iloc[0] == "late" else "shift"]].to_numpy()
    return metrics.block_bootstrap(skill, weeks, entity, n=100, seed=7)["bss"]


# Lists people work through -----------------------------------------------------------------------------------------


def lists(pairs: pd.DataFrame, capacity: int) -> dict[str, dict[str, float | int | None]]:
    """Return per event how the lists of the `capacity` rows with most expected value per as-of day did.

    `precision` came true of the listed, `value_captured` is their share of the value of everything that came true,
    `churn` the share of the next list that was not on this one, and warning lead times as in `lead_times`.
    """
    out = {}
    for event, mine in pairs.groupby("event"):
        listed = on_list(mine, capacity)
        at_stake = (mine["y"] * mine["value"].fillna(0)).to_numpy(float)
        out[str(event)] = {
            "capacity": capacity,
            "precision": number(mine["y"].to_numpy()[listed].mean() if listed.any() else np.nan),
            "value_captured": number(at_stake[listed].sum() / at_stake.sum() if at_stake.sum() > 0 else np.nan),
            "churn": number(_churn(mine, listed)),
        }
        if event == "late":
            out[str(event)] |= _told_in_time(lead_times(mine, listed))
    return out


def on_list(pairs: pd.DataFrame, capacity: int) -> np.ndarray:
    """Return which rows are among the `capacity` with the most p × value of their as-of day; p alone breaks ties."""
    order = pairs.assign(expected=_expected(pairs, "p"))[["as_of", "expected", "p"]]
    rank = order.sort_values(["expected", "p"], ascending=False, kind="stable").groupby("as_of").cumcount()
    return (rank.reindex(pairs.index) < capacity).to_numpy()


def _expected(pairs: pd.DataFrame, score: str) -> pd.Series:
    """Return p × what was at stake when it was said; a window's real deviation is known only afterwards."""
    value = pairs["stake"] if "stake" in pairs else pairs["value"]
    return pairs[score] * value.fillna(0)


def _churn(pairs: pd.DataFrame, listed: np.ndarray) -> float:
    key = "po_line_id" if "po_line_id" in pairs else "product_id"
    keys = [key] if key == "po_line_id" else ["product_id", "site_id", "window"]
    lists = [set(map(tuple, part[keys].to_numpy())) for _, part in pairs[listed].groupby("as_of")]
    changed = [len(now - before) / len(now) for before, now in pairwise(lists) if now]
    return float(np.mean(changed)) if changed else np.nan


def lead_times(pairs: pd.DataFrame, listed: np.ndarray) -> np.ndarray:
    """Return, per line that came late, the days before its promise from which it was listed without a gap.

    0 for lines that were not on the last list before their promise: only the run of lists that reaches it counts.
    """
    late = pairs.assign(listed=listed)[pairs["y"] == 1].sort_values(["po_line_id", "as_of"])
    gap_after = late.loc[::-1].groupby("po_line_id")["listed"].transform(lambda flags: (~flags).cummax())
    run = late[~gap_after.reindex(late.index).astype(bool)]
    first = run.groupby("po_line_id")["days_to_promise"].max()
    return first.reindex(late["po_line_id"].unique()).fillna(0.0).to_numpy()


def _told_in_time(days: np.ndarray) -> dict[str, float | int | None]:
    warned = days > 0
    return {
        "late_lines": len(days),
        "warned_share": number(warned.mean() if len(days) else np.nan),
        "warning_days_median": number(np.median(days[warned]) if warned.any() else np.nan),
    }


def capture_curve(pairs: pd.DataFrame, score: str, points: np.ndarray) -> np.ndarray:
    """Return the share of the value that came true inside the top shares `points` of each day's rows by p × value."""
    expected = _expected(pairs, score).to_numpy(float)
    share = pd.Series(-expected).groupby(pairs["as_of"].to_numpy()).rank(pct=True, method="first").to_numpy()
    at_stake = (pairs["y"] * pairs["value"].fillna(0)).to_numpy(float)
    total = at_stake.sum()
    return np.array([at_stake[share <= point].sum() / total if total > 0 else np.nan for point in points])


# Quantiles ---------------------------------------------------------------------------------------------------------


def units(table: pd.DataFrame) -> dict[str, float | int | None]:
    """Return coverage, pinball and crossings of the windows' units, next to naive conditional quantiles."""
    known = table[table["label"].notna()]
    y, levels = known["actual_units"].to_numpy(), (10, 50, 90)
    mine, naive = (
        metrics.quantile_report(y, known[[f"{stem}_p{level}" for level in levels]].to_numpy())
        for stem in ("units", "naive_units")
    )
    out = mine | {
        "naive_pinball": naive["pinball"],
        "naive_coverage": naive["coverage"],
        "pinball_to_naive": mine["pinball"] / naive["pinball"] if naive["pinball"] > 0 else np.nan,
        "width_to_naive": mine["width"] / naive["width"] if naive["width"] > 0 else np.nan,
    }
    return {k: number(v) for k, v in out.items()}


def arrivals(table: pd.DataFrame) -> dict[str, float | int | None]:
    """Return how often lines had arrived by each arrival quantile; lines whose label has not matured are left out."""
    known = table[table["label"].notna()]
    took = known["arrived_in"].fillna(np.inf).to_numpy()
    levels = [c for c in known if c.startswith("arrival_in_p")]
    out = {f"arrived_by_{c.removeprefix('arrival_in_')}": number((took <= known[c]).mean()) for c in levels}
    inside = (took >= known["arrival_in_p10"]) & (took <= known["arrival_in_p90"])
    return out | {"coverage_80": number(inside.mean()) if len(known) else None, "n": len(known)}
