"""End process groups when the process that started them is gone, however it went: `python -m pipelines.reaper`."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable

SECONDS_TO_END = 8.0


def end(groups: Iterable[int], seconds: float = SECONDS_TO_END, reap: Callable[[], object] = lambda: None) -> None:
    """Ask every process of the groups to end, and after some seconds make them.

    `reap` takes note of the caller's own children that have ended, which would look alive until then.
    """
    left = [group for group in groups if _sent(group, signal.SIGTERM)]
    deadline = time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        reap()
        left = [group for group in left if _sent(group, 0)]
    for group in left:
        _sent(group, signal.SIGKILL)


def _sent(group: int, what: int) -> bool:
    """Whether there was somebody to hear the signal."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, what)
        return True
    return False


def main() -> None:
    """Read one group per line, `+17` when it begins and `-17` when it has ended, until the writer is gone."""
    os.setsid()
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        number = int(line[1:])
        (groups.add if line[0] == "+" else groups.discard)(number)
    end(groups)


if __name__ == "__main__":
    main()
