"""Where the partitions of a run are worked on: one after the other here, or side by side on a Dask cluster."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pipelines.settings import Settings, Unreachable, UserError

R = TypeVar("R")
SECONDS_TO_ANSWER = 20.0
FREE_PORT = "127.0.0.1:0"  # of the scheduler's page: without an address it asks for 8787, which another run may hold
TRIM = "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_"
"""Memory beyond which Dask's workers give back what was freed: at its 64 KB each of our arrays is cleared anew."""
RETRIES = 2  # of a partition whose worker raised; those of lost workers go to others by themselves


@dataclass(frozen=True, slots=True)
class Engine:
    """`map` works on all arguments and returns what came of each, in their order, up to `slots` at a time.

    A piece of work shall use `threads` threads. `each` gives what came of one argument after the other, while others
    are worked on; here it begins with one when it is asked for.
    """

    each: Callable[[Callable[..., R], Sequence[tuple[Any, ...]]], Iterator[R]]
    map: Callable[[Callable[..., R], Sequence[tuple[Any, ...]]], list[R]]
    slots: int
    threads: int


class Connection:
    """The engine of a run, connected when somebody first asks for it and kept until the run ends."""

    def __init__(self) -> None:
        self._lock, self._held = threading.Lock(), ExitStack()
        self._engine: Engine | None = None

    def to(self, settings: Settings) -> Engine:
        """Return the engine that the settings name."""
        with self._lock:
            if self._engine is None:
                self._engine = self._held.enter_context(engine(settings))
            return self._engine

    def close(self) -> None:
        """Leave the scheduler, or end the workers that were started for the run."""
        self._held.close()


@contextmanager
def engine(settings: Settings) -> Iterator[Engine]:
    """Hand out the engine that the settings name, connected."""
    if settings.engine == "local":
        threads = settings.threads or os.cpu_count() or 1
        yield Engine(_when_asked, _one_by_one, 1, threads)
        return
    with _client(settings) as client:
        slots = sum(client.nthreads().values())

        def begun(work: Callable[..., R], each: Sequence[tuple[Any, ...]]) -> list[Any]:
            return [client.submit(work, *args, pure=False, retries=RETRIES) for args in each]

        def as_ready(work: Callable[..., R], each: Sequence[tuple[Any, ...]]) -> Iterator[R]:
            given = begun(work, each)
            try:
                for future in given:
                    yield future.result()
            finally:
                client.cancel(given)

        def side_by_side(work: Callable[..., R], each: Sequence[tuple[Any, ...]]) -> list[R]:
            return list(client.gather(begun(work, each)))

        yield Engine(as_ready, side_by_side, max(slots, 1), 1)


def _when_asked(work: Callable[..., R], each: Sequence[tuple[Any, ...]]) -> Iterator[R]:
    return (work(*args) for args in each)


def _one_by_one(work: Callable[..., R], each: Sequence[tuple[Any, ...]]) -> list[R]:
    return [work(*args) for args in each]


@contextmanager
def workers_here(number: int) -> Iterator[Any]:
    """Hand out a cluster of so many processes of one thread each on this machine, which end with the block."""
    import dask
    from distributed import LocalCluster

    before = dict(os.environ)
    with (
        dask.config.set({TRIM: None}),
        LocalCluster(n_workers=number, threads_per_worker=1, dashboard_address=FREE_PORT) as cluster,
    ):
        for name in os.environ.keys() - before.keys():  # starting them tells this process, too, to use one thread
            del os.environ[name]
        os.environ.update(before)
        yield cluster


@contextmanager
def _client(settings: Settings) -> Iterator[Any]:
    """Connect to the scheduler, or start workers on this machine, which end with the block.

    A client is closed here rather than by its own `with`, which must be left in the thread that it was entered in.
    Certificates and keys are Dask's own: its configuration or DASK_DISTRIBUTED__COMM__TLS__….
    """
    try:
        from distributed import Client
    except ImportError:
        raise UserError('engine is "dask", which needs the extra: pip install "bullwhip[dask]"') from None
    if not settings.dask_scheduler:
        with (
            workers_here(settings.threads or os.cpu_count() or 1) as cluster,
            closing(Client(cluster, direct_to_workers=True, set_as_default=False)) as client,
        ):
            yield client
        return
    try:
        client = Client(settings.dask_scheduler, timeout=SECONDS_TO_ANSWER, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise Unreachable(
            f"dask_scheduler {settings.dask_scheduler} does not answer ({error}); is it running, and does a tls:// "
            "address find its certificates?"
        ) from error
    with closing(client):
        yield client
