"""Run the product as its users do, for benchmarks that judge what came out."""

import importlib.util
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]


def bullwhip(workspace: Path, *words: str) -> dict[str, Any]:
    """Run a command as a process of its own and return its JSON document."""
    command = [str(Path(sys.executable).parent / "bullwhip"), *words, "--json", "--workspace", str(workspace)]
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | os.environ  # two cases run side by side
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
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
