"""Check, train, score and replay the Olist marketplace with the same commands as any workspace."""

import argparse
import subprocess
import sys
from datetime import date
from pathlib import Path

from mapping import map_files

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
    return _bullwhip(
        given.workspace, "backtest", "--task", "delay", "--from", str(TRAINED), "--to", str(JUDGED_TO),
        "--predictions", str(given.workspace / "predictions.parquet"),
    )  # fmt: skip


def _bullwhip(workspace: Path, *command: str) -> int:
    print(f"\n$ bullwhip {' '.join(command)}", flush=True)
    program = Path(sys.executable).parent / "bullwhip"
    return subprocess.run([program, *command, "--workspace", workspace], check=False).returncode


def _stop(words: str) -> int:
    print(f"bullwhip: {words}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
