"""Train both tasks on what was known, judge them next to the naive rules, and promote only what is better."""

import hashlib
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

import features
import models
from features.demand import Demand
from features.labels import (
    ShiftTerms,
    delay_labels,
    entry_lag_days,
    late_as_known,
    least_value,
    shift_labels,
    shift_outcomes,
)  # fmt: skip
from features.matrix import Matrix, Request
from models.backtest import best_rule, delay_walk, judge, quantile_scores, record, shift_walk, stacked
from models.boosting import gain_shares
from models.delay import DelayModel
from models.forecasters import (
    MODEL,
    DelayForecaster,
    Facts,
    ShiftForecaster,
    fit_delay_rules,
    fit_shift_rules,
    load,
    shift_rule_rows,
)  # fmt: skip
from models.hazard import ArrivalModel
from models.metrics import binary_report
from models.shift import ShiftModel
from pipelines import pictures, tracking
from pipelines.settings import Settings
from pipelines.steps import step
from pipelines.world import World, delay_rows, open_world, request, shift_rows, steps_to_learn_from

SHOWN = ("pr_auc", "prevalence", "lift", "brier", "log_loss", "ece", "slope", "roc_auc", "n", "positives")
DELAY_FOLDS, DELAY_FOLD_WEEKS = 2, 12
SHIFT_FOLDS, SHIFT_FOLD_WEEKS = 2, 13
TOO_GOOD_ROC, TOO_GOOD_SHARE = 0.95, 0.60


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """One task's rows with their labels, ready to learn from and to be judged on."""

    task: str
    matrix: Matrix
    y: np.ndarray
    asked: Request
    shift_terms: ShiftTerms

    @property
    def rows(self) -> pd.DataFrame:
        return self.matrix.rows


@flow(name="train", validate_parameters=False)
def train(
    settings: Settings, *, as_of: date, tasks: Sequence[str] | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Train, judge and register each task; the same data, settings and code again change nothing.

    Returns per task what `bullwhip train --json` prints. Nothing is registered in a dry run.
    """
    world = step(open_world, "read")(settings, as_of)
    out: dict[str, Any] = {}
    with tracking.run(
        settings, flow="train", flow_run_id=str(runtime.flow_run.id), as_of=as_of, data_fingerprint=world.fingerprint,
        git_sha=tracking.git_sha(), params=settings.public(),
    ) as run:  # fmt: skip
        for name in tasks or settings.tasks:
            if not world.has(name):
                out[name] = {"skipped": f"no {'purchase lines' if name == 'delay' else 'orders'} known before {as_of}"}
                continue
            out[name] = _one_task(world, name, run, dry_run)
        run.log_dict(out, "result")
    create_markdown_artifact(_paragraph(as_of, out), key="bullwhip-train", description=f"Training as of {as_of}")
    return {"as_of": as_of, "tasks": out}


def _one_task(world: World, name: str, run: tracking.Run, dry_run: bool) -> dict[str, Any]:
    began = time.monotonic()
    recipe = _recipe(world, name)
    if known := _already_trained(world.settings, name, recipe):
        return {**known, "unchanged": True, "seconds": round(time.monotonic() - began, 1)}
    lesson = step(prepare, f"build {name} rows")(world, name)
    walk = step(walk_forward, f"judge {name}")(world.settings, lesson)
    judged = judge(*_binary(walk, name), seed=world.settings.seed) if len(walk) else None
    refusal, publishes = _gate(world.settings, name, lesson, walk, judged)
    forecaster = step(fit, f"fit {name}")(world.settings, lesson, publishes, _record(walk, judged, name))
    result = _result(lesson, walk, judged, forecaster)
    result |= {"refused_because": refusal, "mlflow_run_id": run.run_id}
    _log(run, name, walk, judged, forecaster, result)
    if dry_run:
        result |= {"model_version": None, "alias": None, "promoted": False, "dry_run": True}
    else:
        result |= step(register, f"register {name}")(world.settings, run, forecaster, walk, result, recipe)
    return {**result, "seconds": round(time.monotonic() - began, 1)}


# Rows and labels ----------------------------------------------------------------------------------------------------


def prepare(world: World, name: str) -> Lesson:
    """Build a task's rows over the history, prove that none saw the future, and label them."""
    asked = request(world, name)
    steps = steps_to_learn_from(asked, world.settings.history_weeks)
    if name == "delay":
        matrix = delay_rows(world, asked, steps, proofs=2)
        labels = delay_labels(world.con, matrix.rows, asked.terms)
        rows = matrix.rows.assign(**labels)
        rows["y_late"] = late_as_known(rows, np.datetime64(world.as_of))
        return Lesson(name, replace(matrix, rows=rows), rows["y_late"].to_numpy(), asked, ShiftTerms())
    matrix, data = shift_rows(world, asked, steps, proofs=2)
    return _shift_lesson(world, matrix, data, asked)


def _shift_lesson(world: World, matrix: Matrix, data: Demand, asked: Request) -> Lesson:
    terms = ShiftTerms(entry_lag_days=entry_lag_days(world.con, world.as_of))
    rows = matrix.rows.assign(**shift_outcomes(world.con, data, matrix.rows, terms))
    seen = rows[rows["matured_on"] <= pd.Timestamp(world.as_of)]
    untouched = seen[
        seen["matured_on"] <= pd.Timestamp(world.as_of) - pd.Timedelta(weeks=SHIFT_FOLDS * SHIFT_FOLD_WEEKS)
    ]
    terms = replace(terms, v_min=least_value(untouched if len(untouched) else seen))  # never chosen on judged weeks
    y = np.where(rows["matured_on"] <= pd.Timestamp(world.as_of), shift_labels(rows, terms), np.nan)
    return Lesson("shift", replace(matrix, rows=rows), y, asked, terms)


# Judging and fitting ------------------------------------------------------------------------------------------------


def make_delay(settings: Settings) -> DelayModel:
    return DelayModel(seed=settings.seed, threads=settings.threads)


def make_shift(settings: Settings) -> ShiftModel:
    return ShiftModel(seed=settings.seed, threads=settings.threads)


def walk_forward(settings: Settings, lesson: Lesson) -> pd.DataFrame:
    """Retrain at past cuts and predict what came after; empty when too little has matured."""
    end = np.datetime64(lesson.asked.grid.as_of)
    if lesson.task == "delay":
        return delay_walk(
            lesson.rows, lesson.matrix.X, end=end, make=lambda: make_delay(settings), folds=DELAY_FOLDS,
            fold_weeks=DELAY_FOLD_WEEKS,
        )  # fmt: skip
    return shift_walk(
        lesson.rows, lesson.matrix.X, lesson.y, end=end, make=lambda: make_shift(settings), folds=SHIFT_FOLDS,
        fold_weeks=SHIFT_FOLD_WEEKS,
    )  # fmt: skip


def _binary(walk: pd.DataFrame, name: str) -> tuple[pd.DataFrame, str]:
    """Return binary predictions and the column whose rows resemble each other."""
    return (walk, "supplier_id") if name == "delay" else (stacked(walk), "product_id")


def fit(
    settings: Settings, lesson: Lesson, publishes: str, track: list[dict[str, Any]]
) -> DelayForecaster | ShiftForecaster:
    """Fit the task's models and rules on everything matured by the as-of."""
    cut = np.datetime64(lesson.asked.grid.as_of)
    facts = Facts(str(cut), publishes, lesson.asked.terms, lesson.shift_terms, track)
    matured = lesson.rows["matured_on"].to_numpy().astype("datetime64[D]") <= cut
    if lesson.task == "delay":
        return _fit_delay(settings, lesson, facts, np.flatnonzero(matured & ~np.isnan(lesson.y)), cut)
    learn = np.flatnonzero(matured)
    rows, X, y = lesson.rows.iloc[learn], lesson.matrix.X.iloc[learn], lesson.y[learn]
    deviation = ((rows["actual_units"] - rows["baseline_units"]) / rows["noise_units"]).to_numpy()
    model = make_shift(settings).fit(
        X, y, deviation=deviation, as_of=rows["as_of"].to_numpy(), matured_on=rows["matured_on"].to_numpy(), cut=cut
    )
    known = ~np.isnan(y)
    return ShiftForecaster(model, fit_shift_rules(rows[known], y[known]), facts)


def _fit_delay(
    settings: Settings, lesson: Lesson, facts: Facts, learn: np.ndarray, cut: np.datetime64
) -> DelayForecaster:
    rows, X = lesson.rows, lesson.matrix.X
    model = make_delay(settings).fit(
        X.iloc[learn], lesson.y[learn], as_of=rows["as_of"].to_numpy()[learn],
        matured_on=rows["matured_on"].to_numpy()[learn], cut=cut,
    )  # fmt: skip
    day = pd.Timedelta(days=1)
    known = rows["completed_known_at"] < pd.Timestamp(cut)
    arrival = ArrivalModel(seed=settings.seed, threads=settings.threads).fit(
        X, due_in=(rows["due_on"] - rows["as_of"]) / day,
        completed_in=((rows["completed_on"] - rows["as_of"]) / day).where(known),
        watched=np.fmin(
            (pd.Timestamp(cut) - rows["as_of"]) / day - lesson.asked.terms.posting_lag_days,
            (rows["cancelled_on"] - rows["as_of"]) / day,
        ),
    )  # fmt: skip
    return DelayForecaster(model, arrival, fit_delay_rules(X.iloc[learn], lesson.y[learn]), facts)


# The gate -----------------------------------------------------------------------------------------------------------


def _gate(
    settings: Settings, name: str, lesson: Lesson, walk: pd.DataFrame, judged: pd.DataFrame | None
) -> tuple[str | None, str]:
    """Return why the model may not become champion, None if it may, and what publishes: the model or a rule."""
    if judged is None:
        return "too little has matured to judge it; come back with more weeks of history", _fallback(name)
    rule = best_rule(judged)
    mine, best = float(judged.loc["model", "brier"]), float(judged.loc[rule, "brier"])
    if not mine < best:
        return (
            f"the naive rule {rule} is as good or better on the walk-forward (Brier {best:.4f}, model {mine:.4f}); "
            "the rule is published until a model beats it"
        ), rule
    champion = tracking.champion(settings, tracking.REGISTRY[name])
    if champion is None:
        return None, MODEL
    theirs, ours, n = _against_champion(champion, name, lesson, walk)
    if n and not ours < theirs:
        return (
            f"champion {champion.version} is as good or better on {n:,} predictions both made before the outcome "
            f"(Brier {theirs:.4f}, model {ours:.4f})"
        ), MODEL
    return None, MODEL


def _fallback(name: str) -> str:
    return "days_to_promise" if name == "delay" else "climatology"


def _against_champion(
    champion: tracking.ChampionModel, name: str, lesson: Lesson, walk: pd.DataFrame
) -> tuple[float, float, int]:
    """Return the champion's and the model's Brier score on the same predictions, none of them made with hindsight.

    For as-of days before the champion's cut its own walk-forward predictions count, for later ones it scores now.
    """
    forecaster = load(champion.folder)
    keys = ["po_line_id", "as_of"] if name == "delay" else ["product_id", "site_id", "window", "as_of"]
    p = ["p"] if name == "delay" else ["p_down", "p_up"]
    old = pd.read_parquet(champion.folder / "walk_forward.parquet")
    later = walk[walk["as_of"] >= pd.Timestamp(forecaster.facts.cut)]
    place = pd.MultiIndex.from_frame(lesson.rows[keys]).get_indexer(pd.MultiIndex.from_frame(later[keys]))
    X = lesson.matrix.X.iloc[place]
    if isinstance(forecaster, DelayForecaster):
        now = later[keys].assign(p=forecaster.predict(X)["p_late"].to_numpy())
    else:
        scores = forecaster.predict(X, shift_rule_rows(lesson.rows.iloc[place]))
        now = later[keys].assign(p_down=scores["p_down"].to_numpy(), p_up=scores["p_up"].to_numpy())
    before = old[old["as_of"] < pd.Timestamp(forecaster.facts.cut)] if len(old) else now.iloc[:0]
    theirs = pd.concat([before[[*keys, *p]], now], ignore_index=True)
    both = walk.merge(theirs, on=keys, suffixes=("", "_champion"))
    y = {"p": both["y"], "p_down": (both["y"] == 0) * 1.0, "p_up": (both["y"] == 2) * 1.0}
    scores = [
        float(np.mean([((both[c + end] - y[c]) ** 2).mean() for c in p])) if len(both) else np.nan
        for end in ("_champion", "")
    ]
    return scores[0], scores[1], len(both)


# Results, tracking, registry ----------------------------------------------------------------------------------------


def _record(walk: pd.DataFrame, judged: pd.DataFrame | None, name: str) -> list[dict[str, Any]]:
    return [] if judged is None else record(_binary(walk, name)[0], best_rule(judged), name)


def _result(
    lesson: Lesson, walk: pd.DataFrame, judged: pd.DataFrame | None, forecaster: DelayForecaster | ShiftForecaster
) -> dict[str, Any]:
    matured = lesson.rows["matured_on"] <= pd.Timestamp(lesson.asked.grid.as_of)
    rows = {"rows": len(lesson.rows), "matured": int((matured & ~np.isnan(lesson.y)).sum()), "judged": len(walk)}
    result: dict[str, Any] = {"rows": rows, "metrics": {}, "rules": {}, "intervals": {}, "alarms": []}
    if judged is None:
        return result
    table = judged.astype(float)
    bss = [c for c in table if c.startswith("bss_") and not c.endswith(("_lo", "_hi"))]
    result["metrics"] = _numbers(table.loc["model", [*SHOWN, *bss]])
    result["rules"] = {
        name: _numbers(table.loc[name, [*SHOWN, "bss_climatology"]]) for name in table.index.drop("model")
    }
    ends = {c[:-3] for c in table if c.endswith("_lo")}
    result["intervals"] = {
        c: [_number(table.loc["model", f"{c}_lo"]), _number(table.loc["model", f"{c}_hi"])] for c in sorted(ends)
    }
    result["best_rule"] = best_rule(judged)
    if lesson.task == "shift":
        result["quantiles"] = _numbers(pd.Series(quantile_scores(walk)))
        result["metrics"] |= _directions(walk)
    result["alarms"] = _alarms(result["metrics"], forecaster)
    return result


def _directions(walk: pd.DataFrame) -> dict[str, float | None]:
    """Drops and surges judged apart: the same metrics under names that end in the direction."""
    out: dict[str, float | None] = {}
    for direction, part in stacked(walk).groupby("direction"):
        report = binary_report(part["y"].to_numpy(), part["p"].to_numpy())
        out |= {f"{m}_{direction}": _number(report[m]) for m in ("pr_auc", "prevalence", "slope", "ece")}
    return out


def _alarms(metrics: Mapping[str, Any], forecaster: DelayForecaster | ShiftForecaster) -> list[str]:
    """A result that is too good is a leak until shown otherwise."""
    alarms = []
    if (metrics.get("roc_auc") or 0) > TOO_GOOD_ROC:
        alarms.append(
            f"ROC-AUC {metrics['roc_auc']:.3f} is above {TOO_GOOD_ROC}: look for a leak before you believe it"
        )
    shares = gain_shares(forecaster.model.booster_, forecaster.model.encoder_.columns_)
    if len(shares) and shares.iloc[0] > TOO_GOOD_SHARE:
        alarms.append(f"{shares.index[0]} has {shares.iloc[0]:.0%} of the gain: look for a leak behind it")
    return alarms


def _numbers(values: pd.Series) -> dict[str, float | int | None]:
    return {str(k): _number(v) for k, v in values.items()}


def _number(value: Any) -> float | int | None:
    value = float(value)
    return None if not np.isfinite(value) else int(value) if value.is_integer() and abs(value) > 1 else value


def _log(
    run: tracking.Run, name: str, walk: pd.DataFrame, judged: pd.DataFrame | None,
    forecaster: DelayForecaster | ShiftForecaster, result: Mapping[str, Any],
) -> None:  # fmt: skip
    run.log_metrics({f"{name}.{k}": v for k, v in result["metrics"].items()})
    for rule, values in result["rules"].items():
        run.log_metrics({f"{name}.rule.{rule}.{k}": values[k] for k in ("pr_auc", "brier", "bss_climatology")})
    shares = gain_shares(forecaster.model.booster_, forecaster.model.encoder_.columns_)
    frame = shares.rename_axis("name").reset_index(name="gain_share")
    run.log_table(frame, f"{name}_drivers")
    run.log_figure(pictures.importance(frame, f"What the {name} model listens to"), f"{name}_drivers")
    if judged is None:
        return
    run.log_table(judged.reset_index(), f"{name}_metrics")
    binary, rule = _binary(walk, name)[0], result["best_rule"]
    y, p = binary["y"].to_numpy(), binary["p"].to_numpy()
    title = {"delay": "Late deliveries, walk-forward", "shift": "Demand shifts, walk-forward"}[name]
    run.log_figure(pictures.reliability(y, p, binary[f"p_{rule}"], rule_name=rule, title=title), f"{name}_reliability")
    rules = {c[2:]: binary[c] for c in binary if c.startswith("p_")}
    run.log_figure(pictures.precision_recall(y, p, rules, title), f"{name}_precision_recall")


def register(
    settings: Settings, run: tracking.Run, forecaster: DelayForecaster | ShiftForecaster, walk: pd.DataFrame,
    result: Mapping[str, Any], recipe: str,
) -> dict[str, Any]:  # fmt: skip
    """Register the forecaster and promote it where the gate lets it through, or where nothing scores yet."""
    name = tracking.REGISTRY[forecaster.task]
    refusal = result["refused_because"]
    first = tracking.champion(settings, name) is None
    with tempfile.TemporaryDirectory() as folder:
        forecaster.save(Path(folder))
        walk.to_parquet(Path(folder) / "walk_forward.parquet")
        (Path(folder) / "result.json").write_text(json.dumps(dict(result), default=str))
        tags = {"recipe": recipe, "cut": forecaster.facts.cut, "publishes": forecaster.facts.publishes}
        version = tracking.register(run, name=name, folder=Path(folder), tags=tags | {"result": _said(result)})
    promoted = refusal is None
    if promoted or first:
        tracking.promote(
            settings, name, version, reason=refusal or "better than every naive rule and the last champion"
        )
    alias = "champion" if promoted or first else "challenger"
    return {"model_version": version, "alias": alias, "promoted": promoted, "publishes": forecaster.facts.publishes}


def _said(result: Mapping[str, Any]) -> str:
    keys = (
        "rows",
        "metrics",
        "rules",
        "intervals",
        "best_rule",
        "refused_because",
        "alarms",
        "mlflow_run_id",
        "quantiles",
    )
    return json.dumps({k: result[k] for k in keys if k in result}, default=str)


def _recipe(world: World, name: str) -> str:
    """Digest of everything a training depends on: data, day, settings, code."""
    digest = hashlib.sha256(
        json.dumps([name, str(world.as_of), world.fingerprint, world.settings.public()], default=str).encode()
    )
    for package in (features, models):
        for path in sorted(Path(str(package.__file__)).parent.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _already_trained(settings: Settings, name: str, recipe: str) -> dict[str, Any] | None:
    for version in tracking.versions(settings, tracking.REGISTRY[name])[:3]:
        tags = version["tags"]
        if tags.get("recipe") == recipe and "result" in tags:
            said = json.loads(tags["result"])
            alias = next(iter(version["aliases"]), None)
            promoted = alias == "champion" and said.get("refused_because") is None
            return {**said, "model_version": version["version"], "alias": alias, "promoted": promoted}
    return None


def _paragraph(as_of: date, out: Mapping[str, Any]) -> str:
    said = []
    for name, result in out.items():
        if "skipped" in result:
            said.append(f"**{name}**: {result['skipped']}.")
            continue
        m = result["metrics"]
        verdict = "promoted" if result["promoted"] else f"not promoted: {result['refused_because'] or 'dry run'}"
        skill = f"PR-AUC {m['pr_auc']:.3f} at {m['prevalence']:.1%} prevalence, " if m.get("pr_auc") is not None else ""
        said.append(f"**{name}** version {result['model_version']}: {skill}{verdict}.")
    return f"Trained on what was known before {as_of}. " + " ".join(said)
