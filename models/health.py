"""May the week be trusted? Verdicts on inputs, models and matured forecasts, few and with their reasons."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from features.freshness import Freshness
from models import metrics
from models.explain import counted

OK, WATCH, ACT = "ok", "watch", "act"
STALE = {WATCH: 2.0, ACT: 4.0}  # times the usual gap without a new fact
REFUSED = {WATCH: 0.01, ACT: 0.05}  # share of rows in quarantine
OLD_WEEKS = {WATCH: 13, ACT: 26}  # since the model learnt
SLOWER_BY = 2.0  # times, and at least a day: facts come later than they used to
LEAST_ROWS, LEAST_WEEKS = 200, 4  # matured forecasts below which nothing is said
WORSE_BY = 0.02  # Brier skill below zero that is worth an alarm
OFF_BY = 0.05  # share by which came true and foretold may differ
BAND, BAND_BY = 0.80, 0.10  # the band's promise, and how far from it coverage may be
OUTSIDE = 0.20  # share of what the model listens to that lies outside what it learnt from
MOVED = 0.50  # standard deviations by which the probabilities may have moved since the walk-forward
SILENT = 0.50  # share of series of which nothing can be said
LONGEST = 26  # weeks that a window may have
BY_SCORING = ("|drift", "|reach")  # ends of row_id of what only those see who have the rows that are scored
MAIN_INPUTS = 12  # inputs that are looked at: those with the largest share of the gain

COLUMNS = ("row_id", "area", "subject", "verdict", "reason", "measured", "limit", "last_known_at", "model_version")


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of `health`: what was measured, the limit it is held against, and what that means."""

    row_id: str
    area: str
    subject: str
    verdict: str
    reason: str
    measured: float | None = None
    limit: float | None = None
    last_known_at: datetime | None = None
    model_version: str = ""


def as_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Return `health`, what needs doing first."""
    rows = [{name: getattr(f, name) for name in COLUMNS} for f in findings]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["last_known_at"] = pd.to_datetime(table["last_known_at"]).astype("datetime64[us]")
    table[["measured", "limit"]] = table[["measured", "limit"]].astype(float)
    place = table["verdict"].map({ACT: 0, WATCH: 1, OK: 2}).astype(int)
    order = table.assign(place=place).sort_values(["place", "row_id"]).index
    return table.loc[order].reset_index(drop=True)


def merged(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of several `health` tables as one."""
    return as_table(Finding(**{str(k): v for k, v in row.items()}) for t in tables for row in t.to_dict("records"))


def level(measured: float, limits: Mapping[str, float]) -> str:
    """Return act, watch or ok for a measure that is worse the larger it is."""
    return ACT if measured > limits[ACT] else WATCH if measured > limits[WATCH] else OK


class LastWeek:
    """What `health` said the week before: an alarm that rests on chance must last two weeks to be raised."""

    def __init__(self, table: pd.DataFrame) -> None:
        known = table[["row_id", "measured", "model_version"]].to_dict("records") if len(table) else []
        self._measured = {row["row_id"]: (row["measured"], row["model_version"]) for row in known}

    def lasting(self, row_id: str, version: str, beyond: Callable[[float], bool]) -> bool:
        """Whether the same model's measure was beyond its limit last week, too."""
        measured, of = self._measured.get(row_id, (None, ""))
        return measured is not None and not pd.isna(measured) and of == version and beyond(measured)


# Inputs ---------------------------------------------------------------------------------------------------------------


def stale(found: Freshness) -> Finding:
    """Judge how long a table has brought nothing new by how long that usually is."""
    row_id = f"input|{found.table}" + (f"|{found.series}" if found.series else "")
    subject = f"signal {found.series}" if found.series else found.table
    usual = found.usual_days
    limit = None if usual is None else STALE[WATCH] * usual + 1
    verdict = OK if usual is None else level(found.days - 1, {k: times * usual for k, times in STALE.items()})
    newest = f"the newest fact is {counted(round(found.days, 1), 'day')} old"
    reason = newest if usual is None else f"{newest}; a new one usually comes within {counted(usual, 'day')}"
    if verdict != OK:
        reason = f"{reason}: {MEANS.get(found.table, 'what rests on it is of then')}"
    return Finding(row_id, "input", subject, verdict, reason, round(found.days, 2), limit, found.last_known_at)


MEANS = {
    "receipts": "lines that arrived since then still look open, and overdue",
    "purchases": "lines placed since then are missing",
    "orders": "demand since then looks like none",
    "promises": "new promise dates are missing",
}


def refused(table: str, rows: int, quarantined: int, twice: int = 0) -> Finding:
    """Judge the share of a table's rows that were set aside; `twice` are second copies, which take nothing away."""
    share, lost = (n / rows if rows else 0.0 for n in (quarantined, quarantined - twice))
    copies = f", {twice:,} of them second copies of rows that were kept" if twice else ""
    reason = f"{quarantined:,} of {rows:,} rows were refused ({share:.1%}){copies}; bullwhip check says why"
    verdict = WATCH if level(share, REFUSED) == ACT != level(lost, REFUSED) else level(share, REFUSED)
    return Finding(f"input|{table}|refused", "input", f"{table}: refused rows", verdict,
                   reason if quarantined else "no row was refused", round(share, 6), REFUSED[WATCH])  # fmt: skip


def slower(table: str, recent: float, before: float) -> Finding:
    """Judge whether facts become known later than in the year before."""
    limit = max(SLOWER_BY * before, before + 1)
    reason = f"95 % of the facts of four weeks were known within {counted(recent, 'day')}, of the year within " + (
        counted(before, "day")
    )
    return Finding(f"input|{table}|latency", "input", f"{table}: time until known",
                   WATCH if recent > limit else OK, reason, round(recent, 3), round(limit, 3))  # fmt: skip


# Models ---------------------------------------------------------------------------------------------------------------


def age(task: str, version: str, weeks: float) -> Finding:
    """Judge how long ago the champion learnt."""
    said = f"it learnt {counted(round(weeks), 'week')} ago" + ("; train again" if weeks > OLD_WEEKS[WATCH] else "")
    return Finding(f"model|{task}|age", "model", f"{task}: age", level(weeks, OLD_WEEKS), said, round(weeks, 2),
                   OLD_WEEKS[WATCH], None, version)  # fmt: skip


def gate(task: str, version: str, refused_because: str | None) -> Finding:
    """Say whether the champion passed its gate, or scores since nothing better exists."""
    said = "it passed its gate" if refused_because is None else (
        f"it failed its gate and scores since nothing better exists: {refused_because}"
    )  # fmt: skip
    verdict = OK if refused_because is None else WATCH
    return Finding(f"model|{task}|gate", "model", f"{task}: gate", verdict, said, model_version=version)


def nobody(task: str, day: object) -> Finding:
    """Say that a task has facts but no champion of the day."""
    said = f"no model scores it on {day}, so it is not in the tables; run bullwhip train --task {task} --as-of {day}"
    return Finding(f"model|{task}|gate", "model", f"{task}: champion", ACT, said)


def main_inputs(X: pd.DataFrame, shares: pd.Series) -> list[dict[str, Any]]:
    """Return, of the inputs with the largest share of the gain, where nearly all of their values lay in training."""
    known = shares[[name in X and X[name].dtype.kind == "f" for name in shares.index]].nlargest(MAIN_INPUTS)
    return [
        {
            "name": str(name), "share": float(share), "missing": float(X[name].isna().mean()),
            "low": float(X[name].quantile(0.005)), "high": float(X[name].quantile(0.995)),
        }
        for name, share in known.items() if X[name].notna().any()
    ]  # fmt: skip


def drift(
    task: str, version: str, X: pd.DataFrame, learnt: Iterable[Mapping[str, Any]], moved: float, last: LastWeek
) -> Finding:
    """Judge whether the inputs that count lie where the model learnt them, and whether that has moved its forecasts.

    Measured is the share of values outside the middle 99 % of training, each input weighing its share of the gain.
    `moved` is the distance of this week's mean log-odds from those of the walk-forward in standard deviations.
    """
    row_id, weight = f"model|{task}|drift", sum(f["share"] for f in learnt) or 1.0
    parts = {f["name"]: _outside(X[f["name"]], f) * f["share"] / weight for f in learnt if f["name"] in X}
    outside = float(sum(parts.values()))
    far = outside > OUTSIDE and abs(moved) > MOVED
    lasting = last.lasting(row_id, version, lambda was: was > OUTSIDE)
    said = f"{outside:.0%} of what it listens to lies outside what it learnt from"
    said += f", most of all {max(parts, key=lambda name: parts[name])}" if outside > OUTSIDE else ""
    said += f"; its forecasts are {abs(moved):.1f} standard deviations {'higher' if moved > 0 else 'lower'} than then"
    return Finding(row_id, "model", f"{task}: inputs", WATCH if far and lasting else OK, said, round(outside, 6),
                   OUTSIDE, None, version)  # fmt: skip


def _outside(x: pd.Series, learnt: Mapping[str, Any]) -> float:
    unknown = x.isna() if learnt["missing"] < 0.005 else pd.Series(False, index=x.index)
    return float(((x < learnt["low"]) | (x > learnt["high"]) | unknown).mean()) if len(x) else 0.0


def moved(now: np.ndarray, then: np.ndarray) -> float:
    """Return how far the mean log-odds of `now` lie from those of `then`, in standard deviations of `then`."""
    a, b = (np.log(p / (1 - p)) for p in (np.clip(x[~np.isnan(x)], 1e-4, 1 - 1e-4) for x in (now, then)))
    return float((a.mean() - b.mean()) / b.std()) if len(a) and len(b) > 1 and b.std() > 0 else 0.0


def reach(version: str, rows: pd.DataFrame, judged: pd.DataFrame) -> list[Finding]:
    """Report series without a forecast: all of their windows are shorter than two of their demand intervals.

    `rows` are the windows of all series alive, `judged` those that are published.
    """
    series = rows.drop_duplicates(["product_id", "site_id"]).set_index(["product_id", "site_id"])
    silent = series.drop(pd.MultiIndex.from_frame(judged[["product_id", "site_id"]]).unique())
    if not len(silent):
        return []
    share, needed = len(silent) / len(series), 2 * float(silent["interval"].median())
    longest = counted(int(rows["length_weeks"].max()), "week")
    remedy = "bring them by something coarser, such as the category"
    if needed <= LONGEST:
        remedy = f"one of {np.ceil(needed):.0f} weeks would reach half of them (windows)"
    said = (
        f"nothing is said of {len(silent):,} of {len(series):,} series: they sell too rarely for a window of {longest}"
        f"; {remedy}"
    )
    verdict = WATCH if share > SILENT else OK
    return [
        Finding("model|shift|reach", "model", "shift: reach", verdict, said, round(share, 6), SILENT, None, version)
    ]


# Matured forecasts ----------------------------------------------------------------------------------------------------


def judged(event: str, version: str, rows: pd.DataFrame, last: LastWeek, *, seed: int) -> list[Finding]:
    """Judge what the present champion published of one event, by what came true of it.

    `rows` is what `models.record.judged_forecasts` gives of the event and the version.
    """
    mine = rows[(rows["event"] == event) & (rows["model_version"] == version)] if len(rows) else rows
    weeks = mine["as_of"].nunique() if len(mine) else 0
    if len(mine) < LEAST_ROWS or weeks < LEAST_WEEKS or mine["y"].nunique() < 2:
        said = f"too few of its forecasts have matured to judge it: {len(mine):,} of {counted(weeks, 'week')}"
        row_id, subject = f"forecast|{event}|skill", f"{WORDS[event]}: skill"
        return [Finding(row_id, "forecast", subject, OK, said, model_version=version)]
    return [_skill(event, version, mine, last, seed), _level(event, version, mine, last, seed),
            *_coverage(event, version, mine, last)]  # fmt: skip


WORDS = {"late": "late deliveries", "down": "demand drops", "up": "demand surges"}


def _interval(statistic: Callable[[np.ndarray], float], rows: pd.DataFrame, seed: int) -> tuple[float, float]:
    entity = rows["row_id"].str.partition("|")[0]
    weeks = rows["as_of"].to_numpy().astype("datetime64[W]")
    return metrics.block_bootstrap(lambda w: {"it": statistic(w)}, weeks, entity, seed=seed)["it"]


def _skill(event: str, version: str, rows: pd.DataFrame, last: LastWeek, seed: int) -> Finding:
    names = [c for c in rows if c.startswith("p_") and rows[c].notna().all()]
    best = min(names, key=lambda name: (float(((rows[name] - rows["y"]) ** 2).mean()), name))
    y, p, rule = (rows[c].to_numpy(float) for c in ("y", "p", best))
    skill = metrics.brier_skill(y, p, rule)
    low, high = _interval(metrics.brier_skills(y, p, rule), rows, seed)
    row_id, worse = f"forecast|{event}|skill", high < 0 and skill < -WORSE_BY
    lasting = last.lasting(row_id, version, lambda was: was < -WORSE_BY)
    verdict = OK if not worse else ACT if lasting else WATCH
    said = (
        f"Brier skill {skill:+.1%} [{low:+.1%}, {high:+.1%}] over {best[2:]}, the best rule on the {len(rows):,} "
        "forecasts that matured"
    )
    return Finding(row_id, "forecast", f"{WORDS[event]}: skill", verdict, said, round(skill, 6), 0.0, None, version)


def _level(event: str, version: str, rows: pd.DataFrame, last: LastWeek, seed: int) -> Finding:
    y, p = rows["y"].to_numpy(float), rows["p"].to_numpy(float)
    off = float((y - p).mean())
    low, high = _interval(lambda w: float(np.average(y - p, weights=w)) if w.sum() else np.nan, rows, seed)
    row_id = f"forecast|{event}|level"
    wrong = abs(off) > OFF_BY and (low > 0 or high < 0)
    lasting = last.lasting(row_id, version, lambda was: abs(was) > OFF_BY)
    said = (
        f"foretold {p.mean():.1%}, came true {y.mean():.1%} of {len(rows):,} (difference {off:+.1%} "
        f"[{low:+.1%}, {high:+.1%}])"
    )
    return Finding(row_id, "forecast", f"{WORDS[event]}: calibration", WATCH if wrong and lasting else OK, said,
                   round(off, 6), OFF_BY, None, version)  # fmt: skip


def _coverage(event: str, version: str, rows: pd.DataFrame, last: LastWeek) -> list[Finding]:
    if "inside" not in rows or event == "up" or rows["inside"].notna().sum() < LEAST_ROWS:  # one band per window
        return []
    known = rows["inside"].dropna()
    covered = float(known.mean())
    row_id = f"forecast|{event}|coverage"
    wrong = abs(covered - BAND) > BAND_BY
    lasting = last.lasting(row_id, version, lambda was: abs(was - BAND) > BAND_BY)
    what = "arrivals" if event == "late" else "units"
    said = f"{covered:.0%} of {len(known):,} {what} fell inside the band that promises {BAND:.0%}"
    return [Finding(row_id, "forecast", f"{what}: band", WATCH if wrong and lasting else OK, said, round(covered, 6),
                    BAND, None, version)]  # fmt: skip
