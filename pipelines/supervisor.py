"""Keep services alive: start them, ask how they are, start them again with growing pauses, and end them all."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import urlopen

from pipelines import reaper, running
from pipelines.services import Service

ASK_EVERY = 5.0  # seconds between two questions after a service's health
ANSWER_WITHIN = 2.0
SILENT = 20.0  # seconds without an answer after which a service is started anew …
START_WITHIN = 180.0  # … and those it may take to give the first: a migration on a slow disk
LONGEST_PAUSE = 30.0
FILE_SIZE = 5_000_000  # bytes; three older ones are kept
STEADY = 60.0  # seconds alive after which an end counts as the first again
ABORT_WITHIN = 1.0
END_WITHIN = 2.5  # seconds: the worker and its flows first, then the servers, with what went on before below ten


class Log:
    """One view of everything: prefixed lines on stderr, and a file per service that turns over."""

    def __init__(self, folder: Path, secret: Iterable[str], shown: IO[str]) -> None:
        self.folder, self.secret, self.shown = folder, tuple(secret), shown
        self.files: dict[str, RotatingFileHandler] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def say(self, name: str, line: str) -> None:
        """Write a line of a service; a full disk or a closed terminal stops no service."""
        for word in self.secret:
            line = line.replace(word, "***")
        stamped = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {name:<7} | {line}"
        if name not in self.files:
            path = self.folder / f"{name}.log"
            handler = RotatingFileHandler(path, maxBytes=FILE_SIZE, backupCount=3, encoding="utf-8", delay=True)
            handler.handleError = lambda record: None  # type: ignore[method-assign] # noqa: ARG005
            self.files[name] = handler
        self.files[name].handle(logging.makeLogRecord({"msg": stamped}))
        with contextlib.suppress(OSError, ValueError):
            print(stamped, file=self.shown, flush=True)

    def close(self) -> None:
        """Close the files; they open again when there is more to say."""
        for handler in self.files.values():
            with contextlib.suppress(OSError):
                handler.close()
        self.files.clear()


@dataclass(eq=False)
class Child:
    """A service with its process, and what became of it so far."""

    service: Service
    process: subprocess.Popen[bytes] | None = None
    healthy: bool = False
    was_healthy: bool = False
    well_at: float = 0.0
    restarts: int = 0
    in_a_row: int = 0
    started: float = 0.0
    not_before: float = 0.0
    last_words: str = ""

    @property
    def may_take_to_start(self) -> float:
        """Seconds, more after each start that failed: on a busy machine the same patience would fail for ever."""
        return float(START_WITHIN * 2 ** min(self.in_a_row, 3))

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def about(self) -> dict[str, Any]:
        """Return what the state file says of it."""
        state = "ok" if self.healthy else "starting" if self.alive else "down"
        pid = self.process.pid if self.process and self.alive else None
        return {"url": self.service.url, "state": state, "pid": pid, "restarts": self.restarts}


class Supervisor:
    """Runs services until told to stop; `tick` is its whole life, so that a test can live it step by step."""

    def __init__(self, services: Iterable[Service], log: Log, publish: Callable[[dict[str, Any]], None]) -> None:
        self.children = {s.name: Child(s) for s in services}
        self.log, self.publish = log, publish
        self.stopping = threading.Event()
        self.reaper: subprocess.Popen[bytes] | None = None
        self.asked, self.told = 0.0, False

    @property
    def ready(self) -> bool:
        return all(child.healthy for child in self.children.values())

    def run(self) -> None:
        """Live until `stopping` is set, then end everything."""
        try:
            while not self.stopping.is_set():
                self.tick()
                self.stopping.wait(0.3)
        finally:
            self.stop()

    def tick(self) -> None:
        """Look after every service once."""
        if self.reaper is None or self.reaper.poll() is not None:
            self._start_reaper()
        ask = time.monotonic() - self.asked > ASK_EVERY
        self.asked = time.monotonic() if ask else self.asked
        before = self._states()
        for child in self.children.values():
            if not self.stopping.is_set():
                self._look_after(child, ask)
        if self._states() != before or not self.told:
            self.told = True
            self.publish(self._states())

    def _states(self) -> dict[str, Any]:
        return {name: child.about() for name, child in self.children.items()}

    def _look_after(self, child: Child, ask: bool) -> None:
        if child.process is not None and not child.alive:
            self._restart_later(child, f"ended with {child.process.returncode}")
        if child.process is None:
            first = self.children.get(child.service.after)
            if time.monotonic() >= child.not_before and (first is None or first.healthy):
                self._start(child)
        elif ask or not child.healthy:
            self._ask(child)

    def _ask(self, child: Child) -> None:
        was, child.healthy = child.healthy, _answers(child.service.health) if child.service.health else child.alive
        if self.stopping.is_set():  # all will be ended at once, this one too
            return
        now = time.monotonic()
        if child.healthy:
            child.well_at, child.was_healthy = now, True
            child.in_a_row = 0 if now - child.started > STEADY else child.in_a_row
            if not was:
                self.log.say("up", f"{child.service.name} is well {child.service.url}".rstrip())
        elif now - child.well_at > SILENT if child.was_healthy else now - child.started > child.may_take_to_start:
            self._abort(child)
            self._restart_later(child, "does not answer")

    def _start(self, child: Child) -> None:
        child.process = subprocess.Popen(
            child.service.command, env=dict(child.service.environ), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        child.started, child.was_healthy = time.monotonic(), False
        self._tell_reaper("+", child.process.pid)
        threading.Thread(target=self._listen, args=(child, child.process.stdout), daemon=True).start()

    def _listen(self, child: Child, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                text = line.decode(errors="replace").rstrip()
                child.last_words = text or child.last_words
                self.log.say(child.service.name, text)

    def _abort(self, child: Child) -> None:
        """End a service that does not answer, and have it write into its log where each of its threads stands."""
        assert child.process is not None
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            child.process.send_signal(signal.SIGABRT)
            child.process.wait(ABORT_WITHIN)

    def _restart_later(self, child: Child, why: str) -> None:
        """End what is left of a service's process group, and set when it starts again."""
        assert child.process is not None
        self._end([child], END_WITHIN)
        child.process, child.healthy = None, False
        pause = min(2.0**child.in_a_row, LONGEST_PAUSE)
        child.restarts, child.in_a_row = child.restarts + 1, child.in_a_row + 1
        child.not_before = time.monotonic() + pause
        self.log.say("up", f"{child.service.name} {why}; it starts again in {pause:g} s")

    def stop(self) -> None:
        """End all services, those that depend on others first; nothing is left after ten seconds."""
        self.log.say("up", "stopping")
        dependent = [c for c in self.children.values() if c.service.after]
        for children in (dependent, [c for c in self.children.values() if not c.service.after]):
            self._end([c for c in children if c.process is not None], END_WITHIN)
        if self.reaper and self.reaper.stdin:
            self.reaper.stdin.close()
            self.reaper.wait()
            self.reaper = None
        for child in self.children.values():
            child.process, child.healthy = None, False
        self.log.close()

    def _end(self, children: list[Child], seconds: float) -> None:
        processes = [c.process for c in children if c.process]
        reaper.end([p.pid for p in processes], seconds, lambda: [p.poll() for p in processes])
        for process in processes:
            process.wait()
            self._tell_reaper("-", process.pid)

    def _start_reaper(self) -> None:
        """Start who ends the services if this process is killed."""
        self.reaper = subprocess.Popen(
            [sys.executable, "-m", "pipelines.reaper"], stdin=subprocess.PIPE,
            env=next(iter(self.children.values())).service.environ,
        )  # fmt: skip
        for child in self.children.values():
            if child.process is not None:
                self._tell_reaper("+", child.process.pid)

    def _tell_reaper(self, sign: str, group: int) -> None:
        if self.reaper and self.reaper.stdin:
            with contextlib.suppress(OSError):
                self.reaper.stdin.write(f"{sign}{group}\n".encode())
                self.reaper.stdin.flush()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=ANSWER_WITHIN) as answer:
            return bool(answer.status < 500)
    except HTTPError as error:
        return error.code < 500
    except (OSError, ValueError):
        return False


def state_writer(workspace: Path, **facts: Any) -> Callable[[dict[str, Any]], None]:
    """Return what writes the services' states into the workspace's state file.

    The first time it must succeed; a disk that is full later stops no service.
    """
    running.write(workspace, {"pid": os.getpid(), **facts, "services": {}})

    def write(services: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            running.write(workspace, {"pid": os.getpid(), **facts, "services": services})

    return write
