"""Print what the forecasts are worth on public data and on simulated chains, each figure next to what it must reach.

    python -m benchmarks.skill --data FOLDER [--only olist-order ...] [--write]

Every figure is computed here from the predictions that `bullwhip backtest` writes, not taken from its report.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import simulated
from benchmarks.page import Row, as_markdown, rows_of, write
from benchmarks.replays import ROOT, bullwhip, mapping_of, replay
from models import metrics

# Figures -------------------------------------------------------------------------------------------------------------


def judged(p: pd.DataFrame, y: pd.Series, stem: str, entity: str, *references: str) -> pd.DataFrame:
    """Return the metrics of the published forecast and of every rule.

    Skills with intervals are those over the rule of the lowest Brier score and over `references`; each costs time.
    """
    rules = {c[len(stem) + 1 :]: p[c] for c in p if c.startswith(f"{stem}_") and c != f"{stem}_model"}
    table = pd.DataFrame({name: metrics.binary_report(y, said) for name, said in rules.items()}).T
    held = {name: rules[name] for name in (str(table["brier"].idxmin()), *references)}
    weeks = p["as_of"].to_numpy().astype("datetime64[W]")
    return pd.concat([metrics.compare(y, p[stem], held, weeks, p[entity], n=200), table.drop(index=list(held))])


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
    table = judged(known, known["label"], "p", "supplier_id", reference)
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


# The table -----------------------------------------------------------------------------------------------------------

CASES: Mapping[str, Callable[[Path, Path], Iterator[Row]]] = {  # the long ones first: two are measured at a time
    "simulated-101": simulated.first, "juice": juice, "simulated-shift": simulated.planted,
    "simulated-busy": partial(simulated.planted, busy=10.0), "olist-snapshot": olist_snapshot,
    **{f"simulated-{seed}": partial(simulated.seeded, seed=seed) for seed in simulated.SEEDS[1:]},
    "retail": retail, "olist-order": olist_order, "simulated-calm": simulated.calm,
}  # fmt: skip


def measure(names: Sequence[str], data: Path, scratch: Path, side_by_side: int = 2) -> dict[str, str]:
    """Measure these cases, `side_by_side` at a time, and leave the rows and seconds of each in `scratch`.

    A case that fails stops no other one. Returns what the failed ones said.
    """
    failed = {}

    def one(name: str) -> None:
        began = time.monotonic()
        _kept(scratch, name).unlink(missing_ok=True)
        try:
            rows = [asdict(row) for row in CASES[name](data, scratch)]
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"{name} failed: {failed[name]}", file=sys.stderr, flush=True)
            return
        seconds = time.monotonic() - began
        print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)
        said = {"rows": rows, "seconds": seconds, "on": f"{datetime.now(UTC):%Y-%m-%d}", "commit": _commit()}
        _kept(scratch, name).write_text(json.dumps(said))

    with ThreadPoolExecutor(side_by_side) as pool:
        list(pool.map(one, names))
    return failed


def _kept(scratch: Path, name: str) -> Path:
    return scratch / f"rows-{name}.json"


def _commit() -> str:
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def measured(scratch: Path) -> dict[str, dict[str, Any]]:
    """Return what was left in `scratch` of every case that was ever measured there."""
    return {name: json.loads(_kept(scratch, name).read_text()) for name in CASES if _kept(scratch, name).exists()}


def main() -> int:
    """Measure, print and, with --write, keep the table; 1 if a figure is not where it must be, 2 if a case failed."""
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
    folder = (given.scratch or Path(tempfile.mkdtemp(prefix="bullwhip-skill-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    failed = measure(given.only, given.data.resolve(), folder, given.side_by_side)
    found = measured(folder)
    text = as_markdown(found, time.monotonic() - began if set(given.only) == set(CASES) else None, failed)
    print(text)
    if given.write:
        write(text, ROOT / "benchmarks" / "SKILL.md")
    if failed:
        print(
            f"failed: {', '.join(failed)}; what was measured is kept: "
            f"go on with --scratch {folder} --only {' '.join(failed)}",
            file=sys.stderr,
        )
        return 2
    if given.scratch is None:
        shutil.rmtree(folder, ignore_errors=True)
    return int(any(row.verdict == "**no**" for row in rows_of(found)))


if __name__ == "__main__":
    sys.exit(main())
