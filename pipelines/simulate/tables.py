"""Turn arrays into Arrow columns and tables into Parquet files whose bytes depend on nothing but their content."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.simulate.clock import DAY_US, Clock

MICROSECOND = pa.timestamp("us")


def names_of(names: Sequence[str], which: NDArray) -> pa.Array:
    """Return names[which] as text; a negative entry means missing."""
    index = pa.array(which.astype(np.int32), mask=which < 0)
    return pc.take(pa.array(names, pa.string()), index)


def numbered(prefix: str, number: NDArray, width: int) -> pa.Array:
    """Return ids such as PO-0000123."""
    digits = pc.utf8_lpad(pc.cast(pa.array(number), pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def day_array(clock: Clock, day: NDArray, mask: NDArray | None = None) -> pa.Array:
    return pa.array((day + clock.epoch_days).astype(np.int32), pa.int32(), mask=mask).cast(pa.date32())


def moment_array(clock: Clock, moment: NDArray, mask: NDArray | None = None) -> pa.Array:
    """Return timestamps from microseconds since day 0."""
    return pa.array(moment.astype(np.int64) + clock.epoch_days * DAY_US, pa.int64(), mask=mask).cast(MICROSECOND)


def moments(day: NDArray, second: NDArray) -> NDArray[np.int64]:
    """Return microseconds since day 0."""
    return day.astype(np.int64) * DAY_US + second.astype(np.int64) * 1_000_000


def forget(folder: Path, name: str) -> None:
    """Remove what an earlier run wrote as this table, be it one file or many."""
    (folder / f"{name}.parquet").unlink(missing_ok=True)
    if (folder / name).is_dir():
        for file in sorted((folder / name).glob("part-*.parquet")):
            file.unlink()
        if not any((folder / name).iterdir()):
            (folder / name).rmdir()


def write(folder: Path, name: str, table: pa.Table, part: int | None = None) -> None:
    """Write folder/name.parquet, or folder/name/part-0007.parquet where a world comes in parts."""
    path = folder / f"{name}.parquet" if part is None else folder / name / f"part-{part:04d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", compression_level=1, row_group_size=1 << 20, version="2.6")
