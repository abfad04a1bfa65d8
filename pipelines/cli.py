"""bullwhip on the command line: every command loads its settings, does one thing and returns its answer."""

import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from cyclopts import App

from pipelines import terminal
from pipelines.commands import demo, handouts, learning, operations, risk, service, workspace
from pipelines.terminal import Answer

COMMANDS: tuple[Callable[..., Answer], ...] = (
    workspace.init,
    workspace.simulate,
    workspace.check,
    learning.train,
    risk.score,
    operations.catch_up,
    operations.monitor,
    risk.show,
    risk.explain,
    risk.publications,
    risk.publish,
    risk.board,
    handouts.export,
    handouts.digest,
    learning.backtest,
    learning.tune,
    service.up,
    service.status,
    service.deploy,
    service.trigger,
    learning.compare,
    learning.models,
    learning.promote,
    learning.rollback,
    demo.demo,
)


def _version() -> str:
    from importlib.metadata import version

    return version("bullwhip")


app = App(
    name="bullwhip",
    help="Every Monday: which deliveries will be late, which demand will shift, how sure, what it costs, why.",
    version=_version,
    help_format="plaintext",  # Markdown would cost half of the time --help takes
    suppress_keyboard_interrupt=False,
)
for place, command in enumerate(COMMANDS):
    app.command(command, sort_key=place)


def run(tokens: Sequence[str]) -> int:
    """Run one command in this process and return its exit code."""
    return terminal.run(app, tokens)


def _terminate(*_: object) -> NoReturn:
    raise SystemExit(143)


def main() -> NoReturn:
    """Run what the command line says, and leave with its exit code."""
    ending = terminal.Ending()
    signal.signal(signal.SIGTERM, _terminate)
    ending.code = run(sys.argv[1:])
    terminal.close_stdout()
    sys.exit(ending.code)


if __name__ == "__main__":
    main()
