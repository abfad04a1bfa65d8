"""Check, train, score and judge the Olist marketplace with the same commands as any workspace."""

import argparse
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from mapping import map_files
from rich.console import Console
from rich.table import Table

TRAINED, SCORED, JUDGED_TO = date(2018, 2, 1), date(2018, 4, 16), date(2018, 4, 15)

SETTINGS = """\
# Olist: a Brazilian marketplace. Lead times are days, so every day is a snapshot.
currency = "BRL"
country = "BR"
every_days = 1
attributes = ["freight_value"]
history_weeks = 104
"""


def main() -> int:
    """Run the whole example below --workspace; returns the exit code of the first command that failed."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--data", type=Path, required=True, help="folder of the publisher's files")
    words.add_argument("--workspace", type=Path, default=Path("olist"))
    given = words.parse_args()
    if not given.data.is_dir():
        return _stop(f"no folder {given.data}; name the folder of the Olist files: make olist DATA=folder")
    given.workspace.mkdir(parents=True, exist_ok=True)
    (given.workspace / "bullwhip.toml").write_text(SETTINGS)
    rows = map_files(given.data, given.workspace / "data")
    print("mapped: " + ", ".join(f"{n:,} {table}" for table, n in rows.items()))
    for command in (
        ("check",),
        ("train", "--as-of", str(TRAINED)),
        ("score", "--as-of", str(SCORED)),
        ("show", "--top", "5"),
    ):
        code = _bullwhip(given.workspace, *command)
        if code not in (0, 4):  # 4: the gate refused one of the models; what is in use still scores
            return code
    report(given.workspace)
    return 0


def _bullwhip(workspace: Path, *command: str) -> int:
    print(f"\n$ bullwhip {' '.join(command)}", flush=True)
    program = Path(sys.executable).parent / "bullwhip"
    return subprocess.run([program, *command, "--workspace", workspace], check=False).returncode


def report(workspace: Path) -> None:
    """Print how the champion trained as of TRAINED did on every later snapshot whose promise has matured."""
    from models.backtest import judge  # after the commands: importing LightGBM takes a second
    from models.baselines import delay_rule_rows
    from models.forecasters import DelayForecaster
    from pipelines import learn, settings, tracking, world

    chosen = settings.load(workspace)
    settings.apply_environment(chosen)
    champion = tracking.champion(chosen, tracking.REGISTRY["delay"])
    if champion is None:
        print("no delay model is in use: nothing to judge")
        return
    forecaster = DelayForecaster.load(champion.folder)
    now = world.open_world(chosen, date(2018, 5, 1))
    asked = world.request(now, "delay", forecaster.facts.terms)
    days = asked.grid.days
    steps = np.flatnonzero((days >= np.datetime64(TRAINED)) & (days <= np.datetime64(JUDGED_TO)))
    matrix = world.delay_rows(now, asked, steps, proofs=1)
    rows = matrix.rows.assign(**learn.delay_labels(now.con, matrix.rows, asked.terms))
    judged = np.flatnonzero(rows["y_late"].notna() & (rows["matured_on"] <= pd.Timestamp(SCORED)))
    X = matrix.X.iloc[judged]
    rules = {f"p_{name}": rule.predict(delay_rule_rows(X)) for name, rule in forecaster.rules.items()}
    walk = rows.iloc[judged][["as_of", "supplier_id"]].assign(
        y=rows["y_late"].iloc[judged], p=forecaster.predict(X)["p_late"], **rules
    )
    _print(judge(walk, "supplier_id", seed=chosen.seed), len(walk))


def _print(judged: pd.DataFrame, n: int) -> None:
    said = f"Open lines of {TRAINED} to {JUDGED_TO}, trained to {TRAINED}: {n:,} matured snapshots"
    table = Table(title=said, title_justify="left")
    columns = {
        "pr_auc": "PR-AUC",
        "brier": "Brier",
        "bss_days_to_promise": "BSS over days to promise",
        "slope": "slope",
    }
    for name in ("", *columns.values()):
        table.add_column(name, justify="right" if name else "left")
    for name, row in judged.astype(float).sort_values("pr_auc", ascending=False).iterrows():
        cells = [_with_interval(row, column) for column in columns]
        table.add_row(str(name).replace("_", " "), *cells, style="bold" if name == "model" else "")
    Console(width=120).print(table)
    print("In brackets: 95 % intervals by block bootstrap over days and sellers.")


def _with_interval(row: pd.Series, column: str) -> str:
    if not np.isfinite(row[column]):
        return "–"
    low, high = row.get(f"{column}_lo", np.nan), row.get(f"{column}_hi", np.nan)
    return f"{row[column]:.3f}" + (f" [{low:.3f}, {high:.3f}]" if np.isfinite(low) and low < high else "")


def _stop(words: str) -> int:
    print(f"bullwhip: {words}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
