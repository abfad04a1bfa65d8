"""The command that shows everything at once."""

import os
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import terminal
from pipelines.commands import learning, operations, risk, workspace
from pipelines.commands.common import HERE, Common, Count, day_of, refuse_a_file, settings_of, warming_up
from pipelines.terminal import Answer

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.settings import Settings

WEEKS = 8  # of history that the demo publishes before the last one


def demo(*, scale: str | None = None, seed: Count | None = None, common: Common = HERE) -> Answer:
    """See everything at once: simulate, check, train as of weeks ago, score every week since, show, and look around.

    Parameters
    ----------
    scale
        Size of the chain: toy, demo, large, or so many times the demo; demo if left out.
    seed
        Another seed is another chain; 7 if left out.
    """
    steps: dict[str, Callable[[], Answer]] = {
        "check": lambda: workspace.check(common=common),
        "train": lambda: learning.train(as_of=_begin(common), common=common),
        "score": lambda: operations.catch_up(first=_begin(common), common=common),
        "show": lambda: risk.show(common=common),
    }
    if not any((common.workspace / "data").glob("*")):
        steps = {"simulate": lambda: workspace.simulate(scale=scale, seed=seed, common=common)} | steps
    refuse_a_file(common.workspace)
    common.workspace.mkdir(parents=True, exist_ok=True)
    warming_up(settings_of(common))
    said: dict[str, Any] = {}
    code, complaint = 0, ""
    for name, step in steps.items():
        answer = step()
        said[name] = answer.values
        if not common.json:
            terminal.show(answer, heading=name)
        code, complaint = max((code, complaint), (answer.exit_code, answer.complaint))
        if answer.exit_code == 3:
            break
    said["where"] = _where(settings_of(common))
    return Answer(said, lambda screen: _show_where(said["where"], screen), code, complaint)


def _begin(common: Common) -> date:
    """Return the first Monday that is published, so that there is a past to look back on."""
    return day_of(settings_of(common)) - timedelta(weeks=WEEKS)


def _where(settings: "Settings") -> dict[str, str]:
    from pipelines.addresses import mask

    home, programs = settings.workspace.resolve(), Path(sys.executable).parent
    return {
        "tables": f"{home / 'tables'} (Parquet) and {home / 'risk.duckdb'}",
        "models and metrics": f"{programs / 'mlflow'} ui --backend-store-uri {mask(settings.tracking_uri)}",
        "runs and logs": f"PREFECT_HOME={os.environ.get('PREFECT_HOME')} {programs / 'prefect'} server start",
    }


def _show_where(where: dict[str, str], screen: "Console") -> None:
    from pipelines import screen as screens

    screen.rule("look around", align="left", style="dim")
    screens.facts(where, screen)
