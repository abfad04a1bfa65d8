"""Open the facts of a run and build the inputs of each task from them, the same way for training and scoring."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

import duckdb
import numpy as np

from features.contracts import Verdict
from features.cut import OF_LINES, OF_SERIES, few
from features.demand import piece_of
from features.labels import ShiftTerms, shift_thresholds
from features.matrix import (
    DELAY_KEY,
    SHIFT_KEY,
    Build,
    Matrix,
    Request,
    delay_matrix,
    first_fact,
    order_matrix,
    shift_matrix,
    windows_apart,
    with_windows_ahead,
)
from features.panels import Terms, posting_lag_days
from features.prover import DELETED, MIXED, SCRAMBLED, prove_no_leak
from features.sampling import EVERY
from features.weeks import Grid
from models.forecasters import DelayForecaster, Forecaster
from models.risk import Names
from pipelines import sources
from pipelines.engines import Connection, Engine
from pipelines.partitions import How, in_order, partitioned, partitions_for
from pipelines.settings import Settings
from pipelines.windows import partitioned_windows

LEAD_IN_WEEKS = 53  # weeks before the first row to learn from, so that its yearly windows are whole
WARM_UP_WEEKS = 8  # without so much history a row can only tell that it knows nothing


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """The facts of one run, held to their contracts, and the day it is about; to be used in a `with` statement.

    Prefect keeps what steps were given until the process ends, and DuckDB then complains of connections that are still
    there: so they are in lists, which are empty after the `with`.
    """

    connection: list[duckdb.DuckDBPyConnection]
    verdicts: tuple[Verdict, ...]
    settings: Settings
    as_of: date
    fingerprint: str
    others: list["World"] = field(default_factory=list, repr=False)
    workers: Connection = field(default_factory=Connection, repr=False)

    @property
    def con(self) -> duckdb.DuckDBPyConnection:
        return self.connection[0]

    @property
    def engine(self) -> Engine:
        return self.workers.to(self.settings)

    def beside(self) -> "World":
        """Return the same facts behind a connection of their own, for work at the same time."""
        other = replace(self, connection=[self.con.cursor()])
        self.others.append(other)
        return other

    def __enter__(self) -> "World":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for world in (*self.others, self):
            connection = world.connection.pop()
            if kind is None or issubclass(kind, Exception):
                connection.close()
            else:  # told to stop: work in other threads may be using it
                connection.interrupt()
        if kind is None or issubclass(kind, Exception):
            self.workers.close()

    def has(self, task: str) -> bool:
        """Whether there is anything to predict: purchase lines for delays, orders for shifts, known before the day."""
        first = first_fact(self.con, SIDES[task])
        return first is not None and first < self.as_of

    def names(self) -> Names:
        def of(table: str, key: str) -> dict[str, str]:
            return dict(self.con.execute(f"SELECT {key}, name FROM {table} WHERE name IS NOT NULL").fetchall())

        return Names(
            of("suppliers", "supplier_id"), of("products", "product_id"), of("sites", "site_id"), self.settings.currency
        )


SIDES = {"delay": "purchases", "shift": "orders"}
FACTS_AT_ONCE = 5_000_000  # purchase and order lines above which one task follows the other: it halves the memory


def at_once(world: World, names: Sequence[str]) -> list[list[str]]:
    """Return which tasks learn or score side by side: all, but one after the other where their facts are very many."""
    facts = sum(int(world.con.execute(f"SELECT count(*) FROM {SIDES[name]}").fetchall()[0][0]) for name in names)
    return [[name] for name in names] if facts > FACTS_AT_ONCE else [list(names)] if names else []


def open_world(settings: Settings, as_of: date, *, hindsight: bool = False) -> World:
    """Read every table as it stood when the day began, hold it to its contract and take the fingerprint of it all.

    A run about a day is then the same whenever it happens: no later fact can refuse, correct or contradict an earlier
    one. With `hindsight` everything known today is read, as a replay needs it to see what came true.
    """
    midnight = datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC)
    now, until = (max(datetime.now(UTC), midnight), None) if hindsight else (midnight, as_of)
    con, verdicts = sources.load(settings, now=now, known_before=until)
    return World([con], verdicts, settings, as_of, sources.fingerprint(con))


def request(
    world: World,
    task: str,
    terms: Terms | None = None,
    *,
    last: date | None = None,
    first_cut: date | None = None,
    reach_weeks: int = 0,
    step_days: int | None = None,
) -> Request:
    """Return what to build for a task: days every `every_days` for delays, weeks for shifts, back over the history.

    The grid ends at the world's as-of, or at `last`. For a backtest it reaches a history and `reach_weeks` back from
    `first_cut`, when also the posting lag and the piece of demand are measured: what is late, or a shift, is settled
    before the first prediction. With `terms` that are settled nothing is measured.
    """
    settings, last = world.settings, last or world.as_of
    begin = first_cut or last
    oldest = begin - timedelta(weeks=settings.history_weeks + reach_weeks + LEAD_IN_WEEKS)
    first = max(first_fact(world.con, SIDES[task]) or last, oldest)
    days = (step_days or settings.every_days) if task == "delay" else 7
    piece = piece_of(world.con, begin) if task == "shift" and terms is None else 1.0
    terms = terms or Terms(settings.tolerance_days, settings.short_tolerance, posting_lag_days(world.con, begin))
    attributes = settings.attributes if task == "delay" else ()
    return Request(
        Grid(first, last, days), terms, settings.country, attributes, settings.windows, settings.planned_in_baseline,
        piece,
    )  # fmt: skip


def request_of(world: World, forecaster: Forecaster, last: date | None = None) -> Request:
    """Return what to build for a forecaster to score the world's as-of, or `last`: on the terms it has learnt by."""
    asked = request(world, forecaster.task, forecaster.facts.terms, last=last)
    if forecaster.task == "delay":
        return asked
    known = forecaster.facts.shift_terms
    return replace(asked, windows=known.windows, planned_in_baseline=known.planned_in_baseline, piece=known.piece)


def judgeable(alive: Matrix, terms: ShiftTerms) -> Matrix:
    """Return the windows that can be judged later, with the units at which each is a drop or a surge."""
    down_at, up_at = shift_thresholds(alive.rows, terms)
    rows = alive.rows.assign(down_at_units=down_at, up_at_units=up_at)
    return replace(alive, rows=rows).take(np.flatnonzero(~np.isnan(up_at)))


def steps_to_learn_from(asked: Request, history_weeks: int) -> np.ndarray:
    """Return the as-of days, by number, whose rows train and judge: all but the warm-up."""
    grid = asked.grid
    first = max(grid.size - 1 - grid.steps(history_weeks), min(grid.steps(WARM_UP_WEEKS), grid.size // 4))
    return np.arange(first, grid.size)


@dataclass(frozen=True, slots=True)
class Proof:
    """On how many as-of days it is proven that no input saw the future, and what becomes of the future in the proofs.

    The days of `only` are built for the proof and for nothing else.
    """

    days: int
    worlds: tuple[str, ...] = (DELETED, SCRAMBLED)
    only: tuple[int, ...] = ()


TO_LEARN, TO_SCORE, NO_PROOF = Proof(2), Proof(1, (MIXED,)), Proof(0)
PROVEN = {"delay": 25_000, "shift": 100_000}
"""Purchase or order lines beyond which a proof rebuilds those of some suppliers or products: what a second can."""


@dataclass(frozen=True, slots=True, eq=False)
class Scorable:
    """What a forecaster scores as of the world's day, and what it would have scored on an earlier `day`.

    `earlier` are the rows of that day, which know no more than was known then; None where nobody asked for it, or it is
    not on the grid. `ahead` are those of windows moved on to the world's day.
    """

    now: Matrix
    day: date
    earlier: Matrix | None = None
    ahead: Matrix | None = None


def scorable(world: World, forecaster: Forecaster, then: date | None = None, proof: Proof = TO_SCORE) -> Scorable:
    """Return the lines open, or the windows of series alive, as of the world's day and of `then`, proven.

    What is proven is an earlier day: there is no later fact to prove the last one by. Without `then` it is a week ago.
    """
    asked, day = request_of(world, forecaster), then or world.as_of - timedelta(days=7)
    before, last = step_of(asked, day), asked.grid.size - 1
    steps = np.array([last] if before is None else [before, last])
    weeks = round((world.as_of - day).days / 7) if then and before is not None else 0
    if before is not None and not then:
        proof = replace(proof, only=(before,))
    if isinstance(forecaster, DelayForecaster):
        rows, ahead = delay_rows(world, asked, steps, proof), None
    else:
        both = shift_rows(world, asked, steps, proof, ahead_weeks=weeks)
        rows, ahead = windows_apart(both, asked, weeks)
    if before is None or not then:
        return Scorable(_of_step(rows, last), day)
    return Scorable(_of_step(rows, last), day, _of_step(rows, before), ahead and _of_step(ahead, before))


def step_of(asked: Request, day: date) -> int | None:
    """Return the number of a day in a request's grid, None where it is not in it."""
    step = np.flatnonzero(asked.grid.days == np.datetime64(day, "D"))
    return int(step[0]) if len(step) else None


def _of_step(matrix: Matrix, step: int) -> Matrix:
    mine = matrix.rows["step"].to_numpy() == step
    return matrix if mine.all() else matrix.take(np.flatnonzero(mine))


def delay_rows(world: World, asked: Request, steps: np.ndarray, proof: Proof, at: str = "snapshot") -> Matrix:
    """Return the open lines at `steps`, after proving that no input saw the future.

    `at="order"` gives every line once instead, on the day it was ordered. Many lines are built a part at a time.
    """
    own_day = ("purchases",) if at == "order" else ()
    alone = order_matrix if at == "order" else delay_matrix
    return _proven(world, "delay", (line_builder(world, at), alone), asked, steps, proof, own_day=own_day)


def _proven(
    world: World, task: str, builds: tuple[Build, Build], asked: Request, steps: np.ndarray, proof: Proof, *,
    own_day: tuple[str, ...] = (), ahead_weeks: int = 0,
) -> Matrix:  # fmt: skip
    """Return the rows that the first of `builds` makes, proven.

    Where there are very many, what is proven is a world of a few suppliers or products, which the second one builds.
    """
    cut, key = (OF_LINES, DELAY_KEY) if task == "delay" else (OF_SERIES, SHIFT_KEY)
    with few(world.con, cut, PROVEN[task], asked.grid.as_of) as seen:
        wanted = np.setdiff1d(steps, proof.only) if seen else steps
        whole = builds[0](world.con, with_windows_ahead(asked, ahead_weeks) if ahead_weeks else asked, wanted)
        days = [*proof.only] if seen and proof.only else _sample(whole, proof.days)
        if not days or not proof.days:
            return whole
        if seen:
            all_of_few = replace(asked, sample=EVERY)
            rows = builds[1](seen, all_of_few, np.array(days))
            prove_no_leak(seen, builds[1], all_of_few, rows, key, days, own_day=own_day, worlds=proof.worlds)
            return whole
        rows = whole if task == "delay" else whole.take(np.flatnonzero(whole.rows["window"] < len(asked.windows)))
        prove_no_leak(world.con, builds[0], asked, rows, key, days, own_day=own_day, worlds=proof.worlds)
    return whole


def line_builder(world: World, at: str = "snapshot") -> Build:
    """Return what builds the inputs of purchase lines, on the engine and in the partitions of the settings."""
    how = cut_for(world, "delay")

    def build(con: duckdb.DuckDBPyConnection, asked: Request, steps: np.ndarray) -> Matrix:
        assert how
        return in_order(con, partitioned(con, asked, steps, at=at, how=how))

    whole = order_matrix if at == "order" else delay_matrix
    return build if how else whole


def window_builder(world: World) -> Build:
    """Return what builds the inputs of series' windows, like `line_builder`."""
    how = cut_for(world, "shift")

    def build(con: duckdb.DuckDBPyConnection, asked: Request, steps: np.ndarray) -> Matrix:
        assert how
        return partitioned_windows(con, asked, steps, how=how)

    return build if how else _windows


def cut_for(world: World, task: str) -> How | None:
    """Return how the settings have a task's rows cut into partitions, None where they are built at once."""
    engine = world.engine
    parts = world.settings.partitions or partitions_for(world.con, engine, task)
    return None if parts == 1 and engine.slots == 1 else How(engine, parts, sources.scratch_of(world.settings))


def shift_rows(world: World, asked: Request, steps: np.ndarray, proof: Proof, *, ahead_weeks: int = 0) -> Matrix:
    """Return the series' windows at `steps`, proven like the delay rows.

    With `ahead_weeks` the windows of so many weeks later follow them (`with_windows_ahead`), which nobody proves.
    """
    return _proven(world, "shift", (window_builder(world), _windows), asked, steps, proof, ahead_weeks=ahead_weeks)


def _windows(con: duckdb.DuckDBPyConnection, asked: Request, steps: np.ndarray) -> Matrix:
    return shift_matrix(con, asked, steps)[0]


def _sample(whole: Matrix, proofs: int) -> list[int]:
    """Return the last day but one with rows and, for more proofs, days spread over the history.

    After the very last there may be no fact: what was read ends there.
    """
    days = np.unique(whole.rows["step"].to_numpy())
    days = days[:-1] if len(days) > 1 else days
    return (
        sorted({int(days[i]) for i in np.linspace(len(days) - 1, len(days) // 3, proofs).round().astype(int)})
        if len(days)
        else []
    )
