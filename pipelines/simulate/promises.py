"""Let suppliers push their promises week by week, and write down the true probability of every open line to be late.

p_late = P(completion > promise in force | the line is not known complete, its pushes and parts so far, the regime of
its supplier and the state of its region now). Whether the line is in trouble is not seen but inferred (Bayes, exact);
the future of regime and region is averaged over PATHS continuations of the hidden chains.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.simulate import chains, delivery
from pipelines.simulate.catalogue import EXPOSURE, Catalogue
from pipelines.simulate.clock import DAY_US, NEVER
from pipelines.simulate.delivery import Pace, still_open
from pipelines.simulate.stock import Lines
from pipelines.simulate.tables import moments
from pipelines.simulate.world import World

PATHS, PATH_WEEKS = 64, 34
MAX_PUSHES = 4
REASONS = ("transport", "capacity", "material", "quality", "schedule")


@dataclass(frozen=True, slots=True)
class Pushes:
    """One entry per later promise, oldest first."""

    line: NDArray[np.int64]
    known: NDArray[np.int64]  # µs since day 0
    promised: NDArray[np.int64]
    reason: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LateTruth:
    """One entry per open line and Monday while its promise is not past."""

    line: NDArray[np.int64]
    as_of_day: NDArray[np.int64]
    promised: NDArray[np.int64]
    p_late: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Traits:
    """Per line what promises and probabilities need, looked up once."""

    pair: NDArray[np.int64]
    region: NDArray[np.int64]
    temperament: NDArray[np.int64]
    worst: NDArray[np.float32]
    taken: NDArray[np.float32]
    spread: NDArray[np.float64]
    candour: NDArray[np.float64]
    usual: NDArray[np.float64]


class OrderBook:
    """Walks through the weeks: on Monday the probabilities are taken, midweek suppliers may push promises."""

    def __init__(
        self,
        world: World,
        catalogue: Catalogue,
        pace: Pace,
        lines: Lines,
        recorded: NDArray,
        seed: np.random.SeedSequence,
    ):
        """`recorded` is the day on which the completion of each line was recorded."""
        self.world, self.catalogue, self.pace, self.lines, self.recorded = world, catalogue, pace, lines, recorded
        self.rng = np.random.default_rng(seed)
        s = catalogue.suppliers
        self.traits = Traits(
            pair=pace.pair(lines.supplier, lines.site),
            region=s.region[lines.supplier],
            temperament=s.temperament[lines.supplier],
            worst=s.worst[lines.supplier].astype(np.float32),
            taken=(s.fragility[lines.supplier] * EXPOSURE[lines.mode]).astype(np.float32),
            spread=s.spread[lines.supplier],
            candour=s.candour[lines.supplier],
            usual=s.usual_days[lines.supplier, lines.site, lines.mode],
        )
        self.promised = lines.promised.copy()
        self.pushed = np.zeros(len(lines.done), np.int64)
        self.evidence = np.zeros(len(lines.done))  # log likelihood ratio trouble : no trouble, from pushes alone

    def run(self) -> tuple[Pushes, LateTruth]:
        clock = self.world.clock
        pushes, truth = [], []
        for week in range(clock.end_week + 1):
            if week >= clock.start_week and 7 * week <= clock.end_day:
                truth.append(self._monday(7 * week, week))
            if 7 * week < clock.end_day:
                pushes.append(self._midweek(week))
        return (
            Pushes(*(np.concatenate(column) for column in zip(*pushes, strict=True))),
            LateTruth(*(np.concatenate(column) for column in zip(*truth, strict=True))),
        )

    def _monday(self, day: int, week: int) -> tuple[NDArray, ...]:
        lines = self.lines
        seen = (lines.order_day < day) & (self.recorded >= day) & (lines.buyer_cancels >= day)
        i = np.flatnonzero(seen & (self.promised >= day))
        return i, np.full(len(i), day), self.promised[i], self.late_probability(i, day, week)

    def late_probability(self, i: NDArray, day: int, week: int) -> NDArray[np.float64]:
        lines, traits = self.lines, self.traits
        at_order = self.pace.elapsed[lines.row[i], lines.order_day[i]]
        elapsed = self.pace.elapsed[lines.row[i], day - 1] - at_order
        log_odds = self.evidence[i] + np.log(lines.trouble_share[i] / (1 - lines.trouble_share[i]))
        odds = np.exp(log_odds) * delivery.part_evidence(elapsed, lines.median_log[i], lines.part_day[i] < day)
        later = elapsed[:, None] + self._gained(i, day, week)
        median, spread = lines.median_log[i], traits.spread[i]
        late, there = [], []
        for trouble in (False, True):
            late.append(still_open(later, median[:, None], spread[:, None], trouble).mean(1))
            there.append(self._not_recorded(i, day, at_order, trouble))
        p = (late[0] + odds * late[1]) / (there[0] + odds * there[1])
        return np.clip(p, 0.0, 1.0)

    def _gained(self, i: NDArray, day: int, week: int) -> NDArray[np.float32]:
        """Return [line, path]: what the days from `day` to the promise are worth on each continuation."""
        traits, working, last = self.traits, self.pace.working, self.promised[i]
        strain_row = traits.temperament[i] * 3 + self.catalogue.suppliers.regime[self.lines.supplier[i], week]
        shock_row = self.world.shocks[traits.region[i], week]
        strain = chains.STRAIN.astype(np.float32)[chains.futures(self.rng, chains.REGIMES, PATHS, PATH_WEEKS)]
        severity = chains.SEVERITY.astype(np.float32)[chains.futures(self.rng, chains.SHOCKS[None], PATHS, PATH_WEEKS)]
        gained = np.zeros((len(i), PATHS), np.float32)
        for ahead in range(PATH_WEEKS):
            sel = np.flatnonzero(last >= day + 7 * ahead)
            if not len(sel):
                break
            k = i[sel]
            first, until = day + 7 * ahead, np.minimum(last[sel], day + 7 * ahead + 6)
            days = (working[traits.pair[k], until] - working[traits.pair[k], first - 1]).astype(np.float32)
            pace = 1 - traits.worst[k, None] * strain[ahead][strain_row[sel]]
            pace *= 1 - traits.taken[k, None] * severity[ahead][shock_row[sel]]
            gained[sel] += days[:, None] * pace
        return gained

    def _not_recorded(self, i: NDArray, day: int, at_order: NDArray, trouble: bool) -> NDArray[np.float64]:
        """Return P(no completion on record before `day`): still open, or complete and waiting to be recorded."""
        lines, median, spread = self.lines, self.lines.median_log[i], self.traits.spread[i]
        after = still_open(self.pace.elapsed[lines.row[i], day - 1] - at_order, median, spread, trouble)
        total = after.copy()
        for back in range(1, len(delivery.LONGER)):
            since = np.maximum(day - 1 - back, lines.order_day[i])
            before = still_open(self.pace.elapsed[lines.row[i], since] - at_order, median, spread, trouble)
            total += (before - after) * delivery.LONGER[back - 1]
            after = before
        return total

    def _midweek(self, week: int) -> tuple[NDArray, ...]:
        """Return the week's pushes. A supplier sees its state and whether a line is in trouble, never the work left."""
        lines, rng = self.lines, self.rng
        day = 7 * week + rng.integers(1, 4, len(lines.done))
        could = (lines.order_day < day) & (lines.done > day) & (lines.buyer_cancels > day) & (self.promised > day)
        i = np.flatnonzero(could & (self.pushed < MAX_PUSHES))
        day = day[i]
        chance = [self._push_chance(i, day, week, trouble) for trouble in (False, True)]
        pushes = rng.random(len(i)) < np.where(lines.trouble[i], chance[1], chance[0])
        ratio = np.where(pushes, chance[1] / chance[0], (1 - chance[1]) / (1 - chance[0]))
        self.evidence[i] += np.log(ratio)
        i, day = i[pushes], day[pushes]
        self.promised[i] = self._new_promise(i, week)
        self.pushed[i] += 1
        known = moments(day, rng.integers(7 * 3600, 16 * 3600, len(i)))
        return i, known, self.promised[i], self._reasons(i, week)

    def _push_chance(self, i: NDArray, day: NDArray, week: int, trouble: bool) -> NDArray[np.float64]:
        lines, traits = self.lines, self.traits
        pace = self.pace.weekly[lines.supplier[i], lines.mode[i], week]
        row, promised = lines.row[i], self.promised[i]
        elapsed = self.pace.elapsed[row, day - 1] - self.pace.elapsed[row, lines.order_day[i]]
        left = self.pace.working[traits.pair[i], promised] - self.pace.working[traits.pair[i], day - 1]
        median, spread = lines.median_log[i], traits.spread[i]
        risk = still_open(elapsed + left * pace, median, spread, trouble) / np.maximum(
            still_open(elapsed, median, spread, trouble), 1e-12
        )
        near = np.where(promised - day <= 28, 1.0, 0.15)
        return 0.004 + 0.9 * traits.candour[i] * near * risk

    def _new_promise(self, i: NDArray, week: int) -> NDArray[np.int64]:
        lines = self.lines
        pace = self.pace.weekly[lines.supplier[i], lines.mode[i], week]
        more = np.ceil(self.traits.usual[i] * self.rng.uniform(0.10, 0.30, len(i)) / pace)
        return delivery.promise_day(self.pace, lines.supplier[i], self.promised[i], more, np.ones(len(i), bool))

    def _reasons(self, i: NDArray, week: int) -> NDArray[np.int64]:
        hit = chains.SEVERITY[self.world.shocks[self.traits.region[i], week]] > 0
        strained = self.catalogue.suppliers.regime[self.lines.supplier[i], week] > 0
        return np.select([hit, strained], [0, 1], self.rng.integers(2, len(REASONS), len(i)))


def cancellations(lines: Lines, promised: NDArray, seed: np.random.SeedSequence) -> NDArray[np.int64]:
    """Return per line when it was cancelled, by whomever: suppliers give up some weeks after the last promise."""
    rng = np.random.default_rng(seed)
    n = len(lines.done)
    lost = (lines.done == NEVER) & (lines.buyer_cancels == NEVER)
    day = np.where(lost, promised + rng.integers(5, 36, n), lines.buyer_cancels)
    return np.where(day < NEVER, moments(day, rng.integers(8 * 3600, 16 * 3600, n)), NEVER * DAY_US)
