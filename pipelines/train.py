"""Train both tasks on what was known, judge them next to the naive rules, and promote only what is better."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact

import features
import models
from models import lessons
from models.backtest import binary, forecaster_names, predictions
from models.boosting import gain_shares
from models.forecasters import Forecaster, OtherFormat, load, publishers
from models.gate import as_published, squared_errors
from models.health import main_inputs
from models.metrics import binary_report
from models.report import as_dict, number, units
from models.tenure import PROMOTED, champion_of, decided
from pipelines import pictures, registry, tracking
from pipelines.health import INPUTS, refuse_stale
from pipelines.learn import Learned, learn, threads_each
from pipelines.registered import RegisteredModel
from pipelines.settings import Settings
from pipelines.steps import side_by_side, step, stoppable
from pipelines.world import World, at_once, open_world

LEARNT_WITH = (
    "every_days", "tolerance_days", "short_tolerance", "country", "attributes", "seed", "history_weeks",
    "max_snapshots", "params", "windows", "planned_in_baseline",
)  # fmt: skip
TITLES = {"late": "Late deliveries", "down": "Drops of demand", "up": "Surges of demand"}
TOO_GOOD_ROC, TOO_GOOD_SHARE = 0.95, 0.60


@flow(name="train", validate_parameters=False)
@stoppable
def train(
    settings: Settings, *, as_of: date, tasks: Sequence[str] | None = None, dry_run: bool = False,
    challenger: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Train, judge and register each task; the same data, settings and code again change nothing.

    Returns per task what `bullwhip train --json` prints. A `challenger` is registered and never promoted; in a dry run
    nothing is registered.
    """
    with step(open_world, "read")(settings, as_of) as world:
        refuse_stale(world, tasks)
        with tracking.run(
            settings, flow="train", flow_run_id=str(runtime.flow_run.id), as_of=as_of,
            data_fingerprint=world.fingerprint, git_sha=tracking.git_sha(), params=settings.public(),
        ) as run:  # fmt: skip
            out = {name: _known_already(world, name, dry_run) for name in tasks or settings.tasks}
            new = [name for name, known in out.items() if known is None]
            for together in at_once(world, new):
                found = _learn_together(world, together)
                for name in together:
                    out[name] = _decide(world, name, found[name].pop(), run, dry_run, challenger)
            run.log_dict(out, "result")
    create_markdown_artifact(_paragraph(as_of, out), key="bullwhip-train", description=f"Training as of {as_of}")
    return {"as_of": as_of, "tasks": out}


def _learn_together(world: World, names: Sequence[str]) -> dict[str, list[Learned]]:
    """Return by task what was learnt side by side, each in a list for its taker to empty before others learn."""
    threads = threads_each(world.settings, len(names))
    found: dict[str, list[Learned]] = {name: [] for name in names}
    side_by_side({name: (_learn, f"learn {name}", (world, name, threads, found[name])) for name in names})
    return found


def _learn(world: World, name: str, threads: int, found: list[Learned]) -> None:
    """Put into `found` what was learnt; Prefect would keep what a step returns until the flow ends."""
    found.append(learn(world, name, threads))


def _known_already(world: World, name: str, dry_run: bool) -> dict[str, Any] | None:
    """Return what is to be said of a task without learning: no facts, or trained before on the same; None otherwise."""
    if not world.has(name):
        return {"skipped": f"no {'purchase lines' if name == 'delay' else 'orders'} known before {world.as_of}"}
    if not dry_run:
        _finish_promoting(world, name)
    return _already_trained(world, name)


def _decide(
    world: World, name: str, learned: Learned, run: tracking.Run, dry_run: bool, challenger: bool
) -> dict[str, Any]:
    """Let the gate decide, log what was learned, and register it."""
    refusal = _refusal(world, learned)
    result = _result(learned) | {"refused_because": refusal, "mlflow_run_id": run.run_id}
    _log(run, learned, result)
    if dry_run:
        result |= {"model_version": None, "alias": None, "promoted": False, "dry_run": True}
    else:
        result |= step(register, f"register {name}")(world, run, learned, result, challenger)
    return {**result, "seconds": round(learned.seconds, 1)}


# The gate -----------------------------------------------------------------------------------------------------------


def _refusal(world: World, learned: Learned) -> str | None:
    """Return why the forecaster may not become champion, None if it may: no rule and no champion did as well."""
    if learned.decision.refused_because:
        return learned.decision.refused_because
    champion = registry.champion(world.settings, registry.REGISTRY[learned.lesson.task], world.as_of)
    if champion is None or not _readable(champion):
        return None
    theirs, ours, n = _against_champion(champion, learned)
    if n and not ours < theirs:
        return (
            f"champion {champion.version} is as good or better on {n:,} predictions both made before the outcome "
            f"(Brier {theirs:.4f}, model {ours:.4f})"
        )
    return None


def _readable(champion: RegisteredModel) -> bool:
    """Whether this version of bullwhip can still score with a champion; one it cannot read has to make room."""
    try:
        load(champion.folder)
    except OtherFormat:
        return False
    return True


def _against_champion(champion: RegisteredModel, learned: Learned) -> tuple[float, float, int]:
    """Return the champion's and the new forecaster's Brier score on the same predictions, none made with hindsight.

    For as-of days before the champion's cut its own walk-forward predictions count, for later ones it scores now.
    """
    forecaster, lesson = load(champion.folder), learned.lesson
    keys = [*lessons.KEYS[lesson.task], "event"]
    walk = as_published(learned.walk, learned.decision.publishes)
    before = pd.read_parquet(champion.folder / "walk_forward.parquet")
    before = before[before["as_of"] < pd.Timestamp(forecaster.facts.cut)] if len(before) else walk.iloc[:0]
    places = np.unique(walk.loc[walk["as_of"] >= pd.Timestamp(forecaster.facts.cut), "place"])
    now = binary(predictions(forecaster, lesson, places, curves=False), lesson.task)
    theirs = pd.concat([before[[*keys, "p"]], now[[*keys, "p"]]] if len(now) else [before[[*keys, "p"]]])
    both = walk.merge(theirs, on=keys, suffixes=("", "_champion"))
    scores = [float(((both[c] - both["y"]) ** 2).mean()) if len(both) else np.nan for c in ("p_champion", "p")]
    return scores[0], scores[1], len(both)


# Results, tracking, registry ----------------------------------------------------------------------------------------


def _result(learned: Learned) -> dict[str, Any]:
    lesson, judged = learned.lesson, learned.judged
    y = lesson.outcomes(lesson.known_until)["y"]
    rows = {
        "rows": len(lesson.rows),
        "matured": int(y.notna().sum()),
        "judged": int((learned.walk["event"] == lesson.events[0]).sum()),
    }
    result: dict[str, Any] = {"rows": rows, "metrics": {}, "rules": {}, "intervals": {}, "alarms": []}
    result |= {"sampled_share": round(lesson.share, 4)} if lesson.share < 1 else {}
    if judged is not None:
        result |= as_dict(judged)
        if lesson.task == "shift":
            result["metrics"] |= _directions(learned.walk)
            once = learned.walk[learned.walk["event"] == "up"]
            result["quantiles"] = units(once.assign(label=once["y"]))
        result["alarms"] = alarms(result["metrics"], learned.forecaster)
    return result


def _directions(walk: pd.DataFrame) -> dict[str, float | int | None]:
    """Drops and surges judged apart: the same metrics under names that end in the direction."""
    out: dict[str, float | int | None] = {}
    for event, part in walk.groupby("event"):
        report = binary_report(part["y"], part["p_model"])
        out |= {f"{m}_{event}": number(report[m]) for m in ("pr_auc", "prevalence", "slope", "ece")}
    return out


def alarms(metrics: Mapping[str, Any], forecaster: Forecaster) -> list[str]:
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


def _log(run: tracking.Run, learned: Learned, result: Mapping[str, Any]) -> None:
    name, judged, model = learned.lesson.task, learned.judged, learned.forecaster.model
    run.log_metrics({f"{name}.{k}": v for k, v in result["metrics"].items()})
    for rule, values in result["rules"].items():
        run.log_metrics({f"{name}.rule.{rule}.{k}": values[k] for k in ("pr_auc", "brier", "bss_climatology")})
    shares = gain_shares(model.booster_, model.encoder_.columns_)
    frame = shares.rename_axis("name").reset_index(name="gain_share")
    run.log_table(frame, f"{name}_drivers")
    run.log_figure(pictures.importance(frame, f"What the {name} model listens to"), f"{name}_drivers")
    if judged is not None:
        run.log_table(judged.reset_index(), f"{name}_metrics")
        log_pictures(run, learned.walk.assign(p=learned.walk["p_model"]), name, "walk-forward")


def log_pictures(run: tracking.Run, pairs: pd.DataFrame, task: str, of: str) -> None:
    """Log reliability and precision-recall of p, a pair of pictures for every event."""
    for event, part in pairs.groupby("event"):
        title, rules = f"{TITLES[str(event)]}, {of}", {name: part[f"p_{name}"] for name in forecaster_names(part)}
        best = str(squared_errors(part).mean()[list(rules)].idxmin())
        y, p = part["y"].to_numpy(), part["p"].to_numpy()
        name = task if event == "late" else f"{task}_{event}"
        run.log_figure(pictures.reliability(y, p, rules[best], rule_name=best, title=title), f"{name}_reliability")
        run.log_figure(pictures.precision_recall(y, p, rules, title), f"{name}_precision_recall")


def register(
    world: World, run: tracking.Run, learned: Learned, result: Mapping[str, Any], challenger: bool
) -> dict[str, Any]:
    """Register the forecaster; promote it where the gate lets it through, or where nothing scores that day yet."""
    forecaster, refusal = learned.forecaster, result["refused_because"]
    name = registry.REGISTRY[forecaster.task]
    champion = registry.champion(world.settings, name, world.as_of)
    scores = (refusal is None or champion is None or not _readable(champion)) and not challenger
    with tempfile.TemporaryDirectory() as folder:
        forecaster.save(Path(folder))
        walk = as_published(learned.walk, learned.decision.publishes)
        walk.to_parquet(Path(folder) / "walk_forward.parquet")
        (Path(folder) / INPUTS).write_text(json.dumps(_inputs(learned)))
        (Path(folder) / "result.json").write_text(json.dumps(dict(result), default=str))
        tags = {
            "recipe": recipe(world, forecaster.task), "cut": forecaster.facts.cut, "publishes": publishers(forecaster),
            "seconds_to_learn": round(learned.seconds, 1), "to_score": scores,
        }  # fmt: skip
        version = registry.register(run, name=name, folder=Path(folder), tags=tags | {"result": _said(result)})
    if scores:
        _promote(world, name, version, refusal)
    return {
        "model_version": version, "alias": "champion" if scores else "challenger",
        "promoted": scores and refusal is None, "publishes": publishers(forecaster),
    }  # fmt: skip


def _promote(world: World, name: str, version: str, refusal: str | None) -> None:
    because = refusal or "no naive rule is clearly better, and no champion before it was as good"
    registry.decide(world.settings, name, version, PROMOTED, since=world.as_of, because=because)


def _finish_promoting(world: World, name: str) -> None:
    """Promote what a training of this day had registered to score when its process was killed."""
    model, made_of = registry.REGISTRY[name], recipe(world, name)
    for version in registry.versions(world.settings, model):
        tags = version["tags"]
        if tags.get("recipe") == made_of and tags.get("to_score") == "True" and not decided(tags):
            _promote(world, model, version["version"], json.loads(tags["result"])["refused_because"])


def _inputs(learned: Learned) -> list[dict[str, Any]]:
    """Return where the inputs that count lay in the last year the model learnt from, to know later when they leave."""
    lesson, model = learned.lesson, learned.forecaster.model
    since = pd.Timestamp(lesson.known_until) - pd.Timedelta(weeks=52)
    recent = lesson.matrix.X[(lesson.rows["as_of"] >= since).to_numpy()]
    return main_inputs(recent, gain_shares(model.booster_, model.encoder_.columns_))


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


def recipe(world: World, name: str, more: Sequence[str] = ()) -> str:
    """Return a digest of everything a training depends on: what was known, the day, settings, code, and `more`."""
    said = {key: value for key, value in world.settings.public().items() if key in LEARNT_WITH}
    digest = hashlib.sha256(json.dumps([name, str(world.as_of), world.fingerprint, said, *more], default=str).encode())
    code = [p for package in (features, models) for p in sorted(Path(str(package.__file__)).parent.glob("*.py"))]
    for path in (*code, Path(__file__).with_name("learn.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _already_trained(world: World, name: str) -> dict[str, Any] | None:
    known, made_of = registry.versions(world.settings, registry.REGISTRY[name]), recipe(world, name)
    scores = champion_of(known, world.as_of)
    for version in known:
        tags = version["tags"]
        if tags.get("recipe") == made_of and "result" in tags:
            said = json.loads(tags["result"])
            champion = scores is not None and scores["version"] == version["version"]
            alias = "champion" if champion else next(iter(version["aliases"]), None)
            promoted = champion and said.get("refused_because") is None
            now = {"model_version": version["version"], "alias": alias, "promoted": promoted}
            return {**said, **now, "unchanged": True, "seconds": 0.0}
    return None


def _paragraph(as_of: date, out: Mapping[str, Any]) -> str:
    said = []
    for name, result in out.items():
        if "skipped" in result:
            said.append(f"**{name}**: {result['skipped']}.")
            continue
        m = result["metrics"]
        why = result["refused_because"] or ("dry run" if result.get("dry_run") else "nobody asked for it")
        verdict = "promoted" if result["promoted"] else f"not promoted: {why}"
        skill = f"PR-AUC {m['pr_auc']:.3f} at {m['prevalence']:.1%} prevalence, " if m.get("pr_auc") is not None else ""
        said.append(f"**{name}** version {result['model_version']}: {skill}{verdict}.")
    return f"Trained on what was known before {as_of}. " + " ".join(said)
