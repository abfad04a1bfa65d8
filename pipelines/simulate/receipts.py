"""Book goods in, late as people do, and put promises and the truth about lateness into tables."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.simulate import delivery
from pipelines.simulate.clock import DAY_US, NEVER
from pipelines.simulate.promises import REASONS, LateTruth, Pushes
from pipelines.simulate.stock import Lines
from pipelines.simulate.tables import day_array, moment_array, moments, names_of, numbered
from pipelines.simulate.world import World


@dataclass(frozen=True, slots=True)
class Records:
    """When the completion and the first part of every line were recorded: the day, and µs since day 0."""

    done_day: NDArray[np.int64]
    done: NDArray[np.int64]
    part: NDArray[np.int64]


def draw_records(lines: Lines, seed: np.random.SeedSequence) -> Records:
    """Record most receipts within two days, some later, a part never after the whole."""
    rng = np.random.default_rng(seed)
    n = len(lines.done)
    done_day = np.where(lines.done < NEVER, lines.done + delivery.draw_lag(rng, n), NEVER)
    part_day = np.minimum(lines.part_day + delivery.draw_lag(rng, n), done_day)
    second = rng.integers(7 * 3600, 17 * 3600, n)
    done = np.where(done_day == lines.done, (done_day + 1) * DAY_US - 1, moments(done_day, second))
    part = np.where(part_day == lines.part_day, (part_day + 1) * DAY_US - 1, moments(part_day, second - 60))
    return Records(done_day, done, np.minimum(part, done))


def receipts_table(world: World, lines: Lines, records: Records, ids: pa.Array, first_id: int) -> pa.Table:
    """Return the contract table `receipts`: what was recorded before the end."""
    clock = world.clock
    parted = lines.part_day < NEVER
    everyone = np.arange(len(lines.done))
    line = np.concatenate([everyone[parted], everyone])
    day = np.concatenate([lines.part_day[parted], lines.done])
    known = np.concatenate([records.part[parted], records.done])
    rest = lines.units - np.where(parted, lines.part_units, 0.0)
    units = np.concatenate([lines.part_units[parted], rest])
    order = np.lexsort((line, known))
    order = order[(known[order] < clock.end_day * DAY_US) & (day[order] < NEVER)]
    return pa.table(
        {
            "po_line_id": ids.take(pa.array(line[order])),
            "received_on": day_array(clock, day[order]),
            "receipt_id": numbered("R-", first_id + np.arange(len(order)), 7),
            "quantity": pa.array(units[order]),
            "known_at": moment_array(clock, known[order]),
        }
    )


def promises_table(world: World, pushes: Pushes, ids: pa.Array) -> pa.Table:
    """Return the contract table `promises`."""
    order = np.lexsort((pushes.line, pushes.known))
    order = order[pushes.known[order] < world.clock.end_day * DAY_US]
    return pa.table(
        {
            "po_line_id": ids.take(pa.array(pushes.line[order])),
            "known_at": moment_array(world.clock, pushes.known[order]),
            "promised_on": day_array(world.clock, pushes.promised[order]),
            "reason": names_of(REASONS, pushes.reason[order]),
        }
    )


def late_table(world: World, truth: LateTruth, lines: Lines, cancelled: NDArray, ids: pa.Array) -> pa.Table:
    """Return the truth about lateness; `completed_on` is empty for lines that never came, `cancelled_on` says why."""
    done, gone = lines.done[truth.line], cancelled[truth.line] // DAY_US
    return pa.table(
        {
            "po_line_id": ids.take(pa.array(truth.line)),
            "as_of": day_array(world.clock, truth.as_of_day),
            "promised_on": day_array(world.clock, truth.promised),
            "p_late": pa.array(truth.p_late),
            "completed_on": day_array(world.clock, done, mask=done >= NEVER),
            "cancelled_on": day_array(world.clock, gone, mask=gone >= NEVER),
        }
    )
