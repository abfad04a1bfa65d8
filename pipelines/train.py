"""Train both tasks on what was known, judge them next to the naive rules, and promote only what is better."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

import features
import models
from models.backtest import best_rule, quantile_scores, stacked
from models.boosting import gain_shares
from models.forecasters import MODEL, DelayForecaster, OtherFormat, ShiftForecaster, load, shift_rule_rows
from models.metrics import binary_report
from pipelines import pictures, tracking
from pipelines.learn import Learned, Lesson, binary, learn, threads_each
from pipelines.settings import Settings
from pipelines.steps import side_by_side, step
from pipelines.world import World, open_world

SHOWN = ("pr_auc", "prevalence", "lift", "brier", "log_loss", "ece", "slope", "roc_auc", "n", "positives")
LEARNT_WITH = (
    "every_days", "tolerance_days", "short_tolerance", "country", "attributes", "seed", "history_weeks",
)  # fmt: skip
TOO_GOOD_ROC, TOO_GOOD_SHARE = 0.95, 0.60


@flow(name="train", validate_parameters=False)
def train(
    settings: Settings, *, as_of: date, tasks: Sequence[str] | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Train, judge and register each task; the same data, settings and code again change nothing.

    Returns per task what `bullwhip train --json` prints. Nothing is registered in a dry run.
    """
    world = step(open_world, "read")(settings, as_of)
    with world, tracking.run(
        settings, flow="train", flow_run_id=str(runtime.flow_run.id), as_of=as_of, data_fingerprint=world.fingerprint,
        git_sha=tracking.git_sha(), params=settings.public(),
    ) as run:  # fmt: skip
        out = {name: _known_already(world, name) for name in tasks or settings.tasks}
        new = [name for name, known in out.items() if known is None]
        threads = threads_each(settings, len(new))
        lessons = side_by_side({name: (learn, f"learn {name}", (world, name, threads)) for name in new})
        for name, learned in lessons.items():
            out[name] = _decide(world, name, learned, run, dry_run)
        run.log_dict(out, "result")
    create_markdown_artifact(_paragraph(as_of, out), key="bullwhip-train", description=f"Training as of {as_of}")
    return {"as_of": as_of, "tasks": out}


def _known_already(world: World, name: str) -> dict[str, Any] | None:
    """Return what is to be said of a task without learning: no facts, or trained before on the same; None otherwise."""
    if not world.has(name):
        return {"skipped": f"no {'purchase lines' if name == 'delay' else 'orders'} known before {world.as_of}"}
    return _already_trained(world.settings, name, _recipe(world, name))


def _decide(world: World, name: str, learned: Learned, run: tracking.Run, dry_run: bool) -> dict[str, Any]:
    """Let the gate decide, log what was learned, and register it."""
    refusal, publishes = _gate(world.settings, learned)
    forecaster = replace(learned.forecaster, facts=replace(learned.forecaster.facts, publishes=publishes))
    result = _result(learned, forecaster) | {"refused_because": refusal, "mlflow_run_id": run.run_id}
    _log(run, learned, forecaster, result)
    if dry_run:
        result |= {"model_version": None, "alias": None, "promoted": False, "dry_run": True}
    else:
        recipe = _recipe(world, name)
        result |= step(register, f"register {name}")(world.settings, run, forecaster, learned.walk, result, recipe)
    return {**result, "seconds": round(learned.seconds, 1)}


# The gate -----------------------------------------------------------------------------------------------------------


def _gate(settings: Settings, learned: Learned) -> tuple[str | None, str]:
    """Return why the model may not become champion, None if it may, and what publishes: the model or a rule."""
    name, judged = learned.lesson.task, learned.judged
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
    if champion is None or not _readable(champion):
        return None, MODEL
    theirs, ours, n = _against_champion(champion, learned.lesson, learned.walk)
    if n and not ours < theirs:
        return (
            f"champion {champion.version} is as good or better on {n:,} predictions both made before the outcome "
            f"(Brier {theirs:.4f}, model {ours:.4f})"
        ), MODEL
    return None, MODEL


def _readable(champion: tracking.ChampionModel) -> bool:
    """Whether this version of bullwhip can still score with a champion; one it cannot read has to make room."""
    try:
        load(champion.folder)
    except OtherFormat:
        return False
    return True


def _fallback(name: str) -> str:
    return "days_to_promise" if name == "delay" else "climatology"


def _against_champion(champion: tracking.ChampionModel, lesson: Lesson, walk: pd.DataFrame) -> tuple[float, float, int]:
    """Return the champion's and the model's Brier score on the same predictions, none of them made with hindsight.

    For as-of days before the champion's cut its own walk-forward predictions count, for later ones it scores now.
    """
    forecaster = load(champion.folder)
    name = lesson.task
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


def _result(learned: Learned, forecaster: DelayForecaster | ShiftForecaster) -> dict[str, Any]:
    lesson, walk, judged = learned.lesson, learned.walk, learned.judged
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
    run: tracking.Run, learned: Learned, forecaster: DelayForecaster | ShiftForecaster, result: Mapping[str, Any]
) -> None:
    name, walk, judged = forecaster.task, learned.walk, learned.judged
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
    pairs, rule = binary(walk, name)[0], result["best_rule"]
    y, p = pairs["y"].to_numpy(), pairs["p"].to_numpy()
    title = {"delay": "Late deliveries, walk-forward", "shift": "Demand shifts, walk-forward"}[name]
    run.log_figure(pictures.reliability(y, p, pairs[f"p_{rule}"], rule_name=rule, title=title), f"{name}_reliability")
    rules = {c[2:]: pairs[c] for c in pairs if c.startswith("p_")}
    run.log_figure(pictures.precision_recall(y, p, rules, title), f"{name}_precision_recall")


def register(
    settings: Settings, run: tracking.Run, forecaster: DelayForecaster | ShiftForecaster, walk: pd.DataFrame,
    result: Mapping[str, Any], recipe: str,
) -> dict[str, Any]:  # fmt: skip
    """Register the forecaster and promote it where the gate lets it through, or where nothing scores yet."""
    name = tracking.REGISTRY[forecaster.task]
    refusal = result["refused_because"]
    champion = tracking.champion(settings, name)
    first = champion is None or not _readable(champion)
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
    """Digest of everything a training depends on: what was known, the day, settings, code."""
    said = {key: value for key, value in world.settings.public().items() if key in LEARNT_WITH}
    digest = hashlib.sha256(json.dumps([name, str(world.as_of), world.fingerprint, said], default=str).encode())
    code = [p for package in (features, models) for p in sorted(Path(str(package.__file__)).parent.glob("*.py"))]
    for path in (*code, Path(__file__).with_name("learn.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _already_trained(settings: Settings, name: str, recipe: str) -> dict[str, Any] | None:
    for version in tracking.versions(settings, tracking.REGISTRY[name])[:3]:
        tags = version["tags"]
        if tags.get("recipe") == recipe and "result" in tags:
            said = json.loads(tags["result"])
            alias = next(iter(version["aliases"]), None)
            promoted = alias == "champion" and said.get("refused_because") is None
            known = {"model_version": version["version"], "alias": alias, "promoted": promoted}
            return {**said, **known, "unchanged": True, "seconds": 0.0}
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
