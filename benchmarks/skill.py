"""Print what the forecasts are worth on public data and on simulated chains, each figure next to what it must reach.

    python -m benchmarks.skill --data FOLDER [--only olist-order ...] [--write]

Every figure is computed here from the predictions that `bullwhip backtest` writes, not taken from its report.
"""

import argparse
import importlib.util
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from benchmarks import biased, detection
from benchmarks.page import Row, as_markdown, rows_of, write
from models import metrics

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (101, 102, 103, 104, 105)  # simulated chains that nothing was tuned on
UNTIL = date(2026, 6, 1)  # when they end
JUDGED_WEEKS = 24


# Running the product -------------------------------------------------------------------------------------------------


def bullwhip(workspace: Path, *words: str) -> dict[str, Any]:
    """Run a command as a process of its own and return its JSON document."""
    command = [str(Path(sys.executable).parent / "bullwhip"), *words, "--json", "--workspace", str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 4):
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def replay(workspace: Path, task: str, first: date, last: date, *more: str) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return what `bullwhip backtest` said and every prediction it made."""
    file = workspace / f"predictions-{task}{''.join(more)}.parquet"
    days = ("--from", str(first), "--to", str(last))
    said = bullwhip(workspace, "backtest", "--task", task, *days, "--predictions", str(file), *more)
    return said, pd.read_parquet(file)


def mapping_of(example: str) -> ModuleType:
    """Import the mapping of an example from its file."""
    spec = importlib.util.spec_from_file_location(f"mapping_{example}", ROOT / "examples" / example / "mapping.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Figures -------------------------------------------------------------------------------------------------------------


def judged(p: pd.DataFrame, y: pd.Series, stem: str, entity: str) -> pd.DataFrame:
    """Return the metrics of the published forecast and of every rule, as `models.metrics.compare` does."""
    rules = {c[len(stem) + 1 :]: p[c] for c in p if c.startswith(f"{stem}_") and c != f"{stem}_model"}
    return metrics.compare(y, p[stem], rules, p["as_of"].to_numpy().astype("datetime64[W]"), p[entity], n=200)


def figure(data: str, what: str, table: pd.DataFrame, metric: str, **asked: Any) -> Row:
    """Return a row for one metric of what was published."""
    mine = table.loc["model"]
    interval = (float(mine.get(f"{metric}_lo", math.nan)), float(mine.get(f"{metric}_hi", math.nan)))
    return Row(data, what, float(mine[metric]), interval, **asked)


def counted(table: pd.DataFrame) -> str:
    n, positives = int(table.loc["model", "n"]), int(table.loc["model", "positives"])
    return f"{n:,} judged, {positives:,} true ({positives / n:.1%})"


def over_best_rule(data: str, event: str, table: pd.DataFrame, *, ratio: float, skill: float) -> Iterator[Row]:
    """Yield PR-AUC over the highest of any rule, and Brier skill over the rule of the lowest Brier score."""
    rules = table.drop(index="model").astype(float)
    ranks, scores = str(rules["pr_auc"].idxmax()), str(rules["brier"].idxmin())
    mine, theirs = float(table.loc["model", "pr_auc"]), float(rules.loc[ranks, "pr_auc"])
    note = f"{mine:.3f} against {theirs:.3f} of {ranks.replace('_', ' ')}; {counted(table)}"
    yield Row(data, f"{event}: PR-AUC over the best rule's", mine / theirs, least=ratio, note=note)
    what = f"{event}: Brier skill over {scores.replace('_', ' ')}"
    yield figure(data, what, table, f"bss_{scores}", least=skill)


# Olist ---------------------------------------------------------------------------------------------------------------

OLIST = """\
currency = "BRL"
country = "BR"
every_days = 1
attributes = ["freight_value"]
history_weeks = 104
threads = 1
tasks = ["delay"]
"""
OLIST_DAYS = (date(2018, 2, 1), date(2018, 4, 15))


def _olist(data: Path, scratch: Path) -> Path:
    workspace = scratch / "olist"
    workspace.mkdir(exist_ok=True)
    (workspace / "bullwhip.toml").write_text(OLIST)
    mapping_of("olist").map_files(data / "olist", workspace / "data")
    return workspace


def _lateness(name: str, p: pd.DataFrame, reference: str, pr_auc: float, skill: float) -> Iterator[Row]:
    known = p[p["label"].notna()]
    table = judged(known, known["label"], "p", "supplier_id")
    rules = table.drop(index="model").astype(float)
    best = str(rules["brier"].idxmin())
    yield figure(name, "PR-AUC", table, "pr_auc", least=pr_auc, note=counted(table))
    said = f"Brier skill over {reference.replace('_', ' ')}"
    yield figure(name, said, table, f"bss_{reference}", least=skill)
    yield figure(
        name, f"Brier skill over the best rule, {best.replace('_', ' ')}", table, f"bss_{best}",
        note=f"its PR-AUC is {rules.loc[best, 'pr_auc']:.3f}",
    )  # fmt: skip
    yield figure(name, "calibration slope", table, "slope", least=0.9, most=1.1)
    yield figure(name, "ECE", table, "ece", most=0.02)


def olist_order(data: Path, scratch: Path) -> Iterator[Row]:
    """Each line once, when it is ordered."""
    _, p = replay(_olist(data, scratch), "delay", *OLIST_DAYS, "--at", "order")
    yield from _lateness("Olist seller leg, at order", p, "climatology", 0.31, 0.13)


def olist_snapshot(data: Path, scratch: Path) -> Iterator[Row]:
    """Every open line every day."""
    _, p = replay(_olist(data, scratch), "delay", *OLIST_DAYS)
    yield from _lateness("Olist seller leg, daily snapshots", p, "days_to_promise", 0.50, 0.14)


# Demand --------------------------------------------------------------------------------------------------------------

JUICE_DAYS = (date(1992, 3, 12), date(1992, 9, 10))  # weeks 131 … 157 begin; the last window ends with week 160
JUICE = """\
currency = "USD"
windows = [[0, 4]]
threads = 1
tasks = ["shift"]
"""
JUICE_CASES = (  # name, whether promotions and prices are known ahead, and what the settings add
    ("a: promotions as they were", False, ""),
    ("b: known ahead, baseline held as in a", True, "planned_in_baseline = false\n"),
    ("b: known ahead, inside the baseline", True, ""),
)


def _shifts(p: pd.DataFrame, event: str) -> pd.DataFrame:
    known = p[p["label"].notna()]
    return judged(known, (known["label"] == event) * 1.0, f"p_{event}", "product_id")


def _juice(data: Path, scratch: Path, case: int) -> tuple[dict[str, Any], pd.DataFrame]:
    workspace = scratch / f"juice-{case}"
    workspace.mkdir(exist_ok=True)
    _, known_ahead, more = JUICE_CASES[case]
    (workspace / "bullwhip.toml").write_text(JUICE + more)
    mapping_of("orange_juice").map_files(data / "dominicks_oj", workspace / "data", known_ahead=known_ahead)
    return replay(workspace, "shift", *JUICE_DAYS, "--refit", "13w")


def _bands(name: str, said: Mapping[str, Any], pinball: float) -> Iterator[Row]:
    units = said["quantiles"]
    yield Row(name, "80 % band covers", units["coverage"], least=0.76, most=0.84)
    note = f"naive band covers {units['naive_coverage']:.1%}"
    yield Row(name, "pinball over that of naive quantiles", units["pinball_to_naive"], most=pinball, note=note)


def juice(data: Path, scratch: Path) -> Iterator[Row]:
    """Orange juice by store and brand: promotions seen only as they were, and known ahead.

    Known-ahead promotions belong in the baseline; with the baseline held as without them, models can be compared.
    """
    drops = []
    for case, (variant, known_ahead, _) in enumerate(JUICE_CASES):
        name = f"orange juice, {variant}"
        said, p = _juice(data, scratch, case)
        drop, surge = _shifts(p, "down"), _shifts(p, "up")
        drops.append(float(drop.loc["model", "pr_auc"]))
        yield from over_best_rule(name, "drop", drop, ratio=1.1, skill=0.10)
        yield from over_best_rule(name, "surge", surge, ratio=2.3 if known_ahead else 1.0, skill=0.0)
        yield from _bands(name, said, 0.8 if known_ahead else math.inf)
    yield Row("orange juice, b, baseline held", "drop: PR-AUC over that of a", drops[1] / drops[0], least=1.0)


RETAIL_DAYS = (date(2011, 6, 6), date(2011, 11, 21))
RETAIL = """\
currency = "GBP"
country = "GB"
windows = [[0, 2]]
threads = 1
tasks = ["shift"]
"""


def retail(data: Path, scratch: Path) -> Iterator[Row]:
    """A wholesaler's products, with all the dirt of its invoices."""
    workspace = scratch / "retail"
    workspace.mkdir(exist_ok=True)
    (workspace / "bullwhip.toml").write_text(RETAIL)
    mapping_of("online_retail").map_files(data / "online_retail", workspace / "data")
    checked = bullwhip(workspace, "check")
    orders = checked["tables"]["orders"]
    note = f"{orders['rows']:,} rows, {orders['quarantined']:,} quarantined"
    yield Row("Online Retail", "share of rows quarantined", orders["quarantined"] / orders["rows"], note=note)
    said, p = replay(workspace, "shift", *RETAIL_DAYS, "--refit", "8w")
    for event, word in (("up", "surge"), ("down", "drop")):
        yield from over_best_rule("Online Retail", word, _shifts(p, event), ratio=1.3, skill=-math.inf)
    yield from _bands("Online Retail", said, math.inf)


# Simulated chains ----------------------------------------------------------------------------------------------------

SIMULATED = """\
as_of = 2026-06-01
country = "DE"
attributes = ["ship_mode"]
threads = 1
"""


def _simulated(scratch: Path, seed: int, shifts: str | float = "usual") -> Path:
    from pipelines.simulate import simulate

    workspace = scratch / f"simulated-{seed}-{shifts}"
    if not workspace.exists():
        simulate(workspace, scale="demo", seed=seed, end=UNTIL, shifts=shifts)
        (workspace / "bullwhip.toml").write_text(SIMULATED)
    return workspace


def _truth(workspace: Path, p: pd.DataFrame) -> pd.DataFrame:
    truth = pd.read_parquet(workspace / "truth" / "p_late.parquet")
    known = p[p["label"].notna()]
    return known.merge(truth.assign(as_of=pd.to_datetime(truth["as_of"])), on=["po_line_id", "as_of"])


def simulated_delay(_: Path, scratch: Path) -> Iterator[Row]:
    """Chains whose true probabilities are known: how p_late follows them, and how that of a biased cohort does not."""
    days = (UNTIL - timedelta(weeks=JUDGED_WEEKS), UNTIL - timedelta(weeks=1))
    for seed in SEEDS:
        workspace = _simulated(scratch, seed)
        both = _truth(workspace, replay(workspace, "delay", *days, "--refit", "12w")[1])
        correlation, slope = _follows(f"simulator, seed {seed}", both)
        yield replace(correlation, least=0.7, most=1.0)
        yield replace(slope, least=0.9, most=1.1)
    both = biased.received_only(_simulated(scratch, SEEDS[0]), UNTIL)
    name = "simulator, seed 101, trained on received lines only (must fail)"
    yield from _follows(name, both)
    yield Row(name, "mean p less share late", float(both["p"].mean() - both["label"].mean()), most=-0.03)


def _follows(name: str, both: pd.DataFrame) -> tuple[Row, Row]:
    """Return how p goes with the true probability, and its slope on what came true."""
    y, p, truth = (both[c].to_numpy(float) for c in ("label", "p", "p_late"))

    def figures(weight: np.ndarray) -> dict[str, float]:
        (a, ab), (_, b) = np.cov(p, truth, aweights=weight)
        return {"correlation": ab / np.sqrt(a * b), "slope": metrics.calibration_slope(y, p, weight)}

    weeks = both["as_of"].to_numpy().astype("datetime64[W]")
    between = metrics.block_bootstrap(figures, weeks, both["supplier_id"], n=100)
    found, note = figures(np.ones(len(y))), f"mean p {p.mean():.3f}, share late {y.mean():.3f}, {len(y):,} judged"
    return (
        Row(name, "correlation with the true p", float(found["correlation"]), between["correlation"]),
        Row(name, "slope", float(found["slope"]), between["slope"], note=note),
    )


def simulated_shift(_: Path, scratch: Path) -> Iterator[Row]:
    """Planted steps of 30 %: how soon they are found; and a world without shifts: how many events it has."""
    days = (UNTIL - timedelta(weeks=52), UNTIL - timedelta(weeks=14))
    steps = _simulated(scratch, SEEDS[0], 0.3)
    p = replay(steps, "shift", *days, "--refit", "13w")[1]
    planted = pd.read_parquet(steps / "truth" / "planted.parquet")
    first = p[p["window"] == 0]
    calm = first.merge(planted[["product_id", "site_id"]], how="left", indicator=True, on=["product_id", "site_id"])
    levels = detection.alarm_levels(calm[calm["_merge"] == "left_only"])
    begun = planted[pd.to_datetime(planted["starts_on"]) >= pd.Timestamp(days[0])]
    found = detection.summary(detection.weeks_to_find(first, begun, levels))
    for direction in ("up", "down", "all"):
        note = f"{int(found.loc[direction, 'steps'])} steps, {found.loc[direction, 'found']:.0%} within 13 weeks"
        yield Row(
            "simulator, planted ±30 %", f"median weeks to find, {direction}",
            float(found.loc[direction, "median_weeks"]), most=2.0 if direction == "all" else math.inf, note=note,
        )  # fmt: skip
    calm_world = replay(_simulated(scratch, SEEDS[0], "none"), "shift", *days, "--refit", "52w")[1]
    y = calm_world["label"].map({"down": 0.0, "steady": 1.0, "up": 2.0})
    rates = detection.false_event_rate(y)
    for direction in ("down", "up"):
        yield Row(
            "simulator, no shifts", f"false events, {direction}", rates[direction], most=detection.NOMINAL,
            note=f"{int(rates['windows']):,} windows",
        )  # fmt: skip


def signals(_: Path, scratch: Path) -> Iterator[Row]:
    """What signals buy on a simulated chain, and what is left when they come twice as late."""
    workspace = _simulated(scratch, SEEDS[0])
    days = (UNTIL - timedelta(weeks=JUDGED_WEEKS), UNTIL - timedelta(weeks=1))
    skills = {}
    for name, later in (("as they come", 1), ("twice as late", 2)):
        said, p = replay(_delayed(workspace, scratch, later), "delay", *days, "--refit", "12w")
        known = p[p["label"].notna()]
        skills[name] = metrics.brier_skill(known["label"], known["p"], known["p_climatology"])
        kept = ", ".join(s["signal"] for s in said["signals"] if s["kept"])
        note = f"kept: {kept}"
        yield Row("simulator, signals", f"delay: Brier skill with signals {name}", skills[name], note=note)
    lost = skills["as they come"] - skills["twice as late"]
    yield Row("simulator, signals", "skill lost when every lag doubles", lost, most=0.03)


def _delayed(workspace: Path, scratch: Path, times: int) -> Path:
    """Return a workspace whose signals are known `times` as long after their period as they were."""
    if times == 1:
        return workspace
    other = scratch / f"{workspace.name}-later"
    (other / "data").mkdir(parents=True, exist_ok=True)
    for path in (workspace / "data").glob("*.parquet"):
        if path.stem == "signals":
            later = "CASE WHEN kind = 'observed' THEN known_at + (known_at - observed_on) ELSE known_at END"
            query = f"SELECT * REPLACE ({later} AS known_at) FROM '{path}'"
            duckdb.sql(f"COPY ({query}) TO '{other / 'data' / path.name}' (FORMAT parquet)")
        elif not (other / "data" / path.name).exists():
            (other / "data" / path.name).symlink_to(path)
    (other / "bullwhip.toml").write_text(SIMULATED)
    return other


# The table -----------------------------------------------------------------------------------------------------------

CASES: Mapping[str, Callable[[Path, Path], Iterator[Row]]] = {
    "simulated-delay": simulated_delay, "olist-snapshot": olist_snapshot, "juice": juice, "olist-order": olist_order,
    "simulated-shift": simulated_shift, "retail": retail, "signals": signals,
}  # fmt: skip


def measure(names: Sequence[str], data: Path, scratch: Path, side_by_side: int = 2) -> None:
    """Measure these cases, `side_by_side` at a time, and leave the rows and seconds of each in `scratch`."""

    def one(name: str) -> None:
        began = time.monotonic()
        rows = [asdict(row) for row in CASES[name](data, scratch)]
        seconds = time.monotonic() - began
        print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)
        said = {"rows": rows, "seconds": seconds, "on": f"{datetime.now(UTC):%Y-%m-%d}", "commit": _commit()}
        _kept(scratch, name).write_text(json.dumps(said))

    with ThreadPoolExecutor(side_by_side) as pool:
        list(pool.map(one, names))


def _kept(scratch: Path, name: str) -> Path:
    return scratch / f"rows-{name}.json"


def _commit() -> str:
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def measured(scratch: Path) -> dict[str, dict[str, Any]]:
    """Return what was left in `scratch` of every case that was ever measured there."""
    return {name: json.loads(_kept(scratch, name).read_text()) for name in CASES if _kept(scratch, name).exists()}


def main() -> int:
    """Measure, print and, with --write, keep the table; 1 if a figure is not where it must be."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    words.add_argument("--data", type=Path, required=True, help="folder of the public data sets")
    words.add_argument("--only", nargs="*", choices=tuple(CASES), default=tuple(CASES))
    words.add_argument(
        "--scratch", type=Path, help="keep the workspaces here; cases measured there before are shown too"
    )
    words.add_argument("--side-by-side", type=int, default=2, help="cases measured at a time")
    words.add_argument("--write", action="store_true", help="write the table into benchmarks/SKILL.md")
    given = words.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bullwhip-skill-") as scratch:
        folder = (given.scratch or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        measure(given.only, given.data.resolve(), folder, given.side_by_side)
        found = measured(folder)
    text = as_markdown(found, time.monotonic() - began if set(given.only) == set(CASES) else None)
    print(text)
    if given.write:
        write(text, ROOT / "benchmarks" / "SKILL.md")
    return int(any(row.verdict == "**no**" for row in rows_of(found)))


if __name__ == "__main__":
    sys.exit(main())
