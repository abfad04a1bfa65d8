"""One answer on stdout, everything else on stderr, one line per error, exit codes a scheduler can read."""

import atexit
import contextlib
import errno
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App, CycloptsError

if TYPE_CHECKING:
    from rich.console import Console

TOLD_TO_STOP = (130, 143)
NOT_TO_BE_WRITTEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command has to say: values for --json, a way to show them, and how it went.

    `in_short` is the complaint to a person who is shown the rest.
    """

    values: dict[str, Any]
    show: Callable[["Console"], None]
    exit_code: int = 0
    complaint: str = ""
    in_short: str = ""


def run(app: App, tokens: Sequence[str]) -> int:
    """Run one command, print its answer or what went wrong, and return the exit code."""
    as_json = "--json" in tokens
    try:
        command, bound, _ = app.parse_args(list(tokens), print_error=False, exit_on_error=False)
        answer = command(*bound.args, **bound.kwargs)
        if not isinstance(answer, Answer):  # --help and --version have printed already
            return 0
        _say(answer, as_json)
        return answer.exit_code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _complain(*_explained(error, tokens), as_json=as_json)
    except KeyboardInterrupt:
        return _complain("interrupted", 130, as_json=as_json)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
        return _complain("terminated" if code == 143 else "stopped", code, as_json=as_json) if code else 0


class _NoTracebacks(logging.Filter):
    """Leave out what Prefect says about an error that is about to be explained in one line; its pages keep it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = None
        said_again = ("Encountered exception", "Crash detected", "Finished in state", "Task run failed")
        message = record.getMessage()
        return not message.startswith(said_again) or " Retry " in message


@contextlib.contextmanager
def working(words: str) -> Iterator[Callable[..., None]]:
    """Keep stdout clean of what libraries print, and turn a wheel on stderr when a person is watching."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        for handler in [] if _debugging() else logging.getLogger().handlers:
            handler.addFilter(quiet := _NoTracebacks())
            stack.callback(handler.removeFilter, quiet)
        if not sys.stderr.isatty():
            yield lambda *_: None
            return
        from rich.console import Console

        status = stack.enter_context(Console(stderr=True).status(f"{words} …"))
        yield lambda *done: status.update(f"{words} … {' '.join(str(d) for d in done)}")


def show(answer: Answer, heading: str = "") -> None:
    """Print an answer for a person."""
    from pipelines import screen as screens

    screen = screens.console()
    if heading:
        screen.rule(heading, align="left", style="dim")
    answer.show(screen)
    sys.stdout.flush()


def plain(value: Any) -> Any:
    """Return plain JSON values: days and moments in ISO form, NaN and other ways of missing as null."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return [plain(row) for row in value.to_dict("records")]
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist())
    if value is None or type(value).__name__ == "NAType" or value != value:
        return None
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() and not value.tzinfo else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)


def close_stdout() -> None:
    """End the answer: what a library prints at exit must not follow it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


class Ending:
    """How this process ends, once all threads and all that is registered for its exit are done: with `code`, at once.

    The interpreter would then take a heap apart for a second or two that the system takes back anyway. A process that
    was told to stop goes that way, since work in other threads was not let go of; it is heard no more, as 2026-11
    Prefect 3.8.8's threads keep our functions, and so DuckDB, until the very end, of which DuckDB complains. To be made
    before anything else registers what happens at exit: the first one is called last.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        if not _debugging():
            atexit.register(self._end)

    def _end(self) -> None:
        logging.shutdown()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        if self.code is not None and self.code not in TOLD_TO_STOP:
            os._exit(self.code)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _say(answer: Answer, as_json: bool) -> None:
    if as_json:
        failed = {"error": _one_line(answer.complaint), "exit_code": answer.exit_code} if answer.exit_code else {}
        print(json.dumps(plain(answer.values | failed), allow_nan=False, ensure_ascii=False), flush=True)
    else:
        show(answer)
    if answer.complaint:
        said = answer.complaint if as_json else answer.in_short or answer.complaint
        print(f"bullwhip: {_one_line(said)}", file=sys.stderr)


def _complain(message: str, code: int, *, as_json: bool) -> int:
    print(f"bullwhip: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": message, "exit_code": code}, ensure_ascii=False), flush=True)
    return code


def _explained(error: Exception, tokens: Sequence[str]) -> tuple[str, int]:
    """Return one line and the exit code: expected errors bring both, others leave their traceback in a file."""
    if _debugging():
        traceback.print_exception(error)
    message = _one_line(str(error))
    if isinstance(error, CycloptsError):
        return message, 2
    if isinstance(getattr(error, "exit_code", None), int):
        return message, error.exit_code  # type: ignore[attr-defined]
    if isinstance(error, OSError) and error.errno in NOT_TO_BE_WRITTEN:
        return f"{message}; free space or give this user the right, or name another --workspace", 2
    if type(error).__name__ in ("ConnectError", "ConnectTimeout") or message.startswith("Failed to reach API"):
        return f"the Prefect server {os.environ.get('PREFECT_API_URL', '')} does not answer: {message}", 6
    if type(error).__name__ == "PrefectHTTPStatusError" and "401 Unauthorized" in message:
        wanted = "set BULLWHIP_AUTH=user:password (or PREFECT_API_AUTH_STRING) as the server has it"
        return f"the Prefect server {os.environ.get('PREFECT_API_URL', '')} wants another password: {wanted}", 6
    return f"unexpected {type(error).__name__}: {message} (traceback: {_leave_traceback(error, tokens)})", 1


def _debugging() -> bool:
    return os.environ.get("BULLWHIP_DEBUG", "0") not in ("", "0")


def _one_line(text: str) -> str:
    from pipelines.addresses import mask

    return mask(" ".join(text.split()))


def _leave_traceback(error: Exception, tokens: Sequence[str]) -> Path:
    """Write the traceback into the workspace, or to the system's temporary folder where there is none."""
    import tempfile

    from pipelines.addresses import mask
    from pipelines.settings import FILE

    text = mask("".join(traceback.format_exception(error)))
    workspace = os.environ.get("BULLWHIP_WORKSPACE") or "."
    for word, following in zip(tokens, [*tokens[1:], ""], strict=True):
        workspace = following if word == "--workspace" else word.partition("--workspace=")[2] or workspace
    path = Path(workspace) / "last-error.txt"
    with contextlib.suppress(OSError):
        if (path.parent / FILE).is_file():
            path.write_text(text, encoding="utf-8")
            return path
    handle, name = tempfile.mkstemp(prefix="bullwhip-", suffix="-error.txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    return Path(name)
