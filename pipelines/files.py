"""Write files so that a reader sees the old one or the new one, never half of either."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Hand out a path beside `path` to write to; it takes the place of `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield fresh
        with open(fresh, "rb") as written:
            os.fsync(written.fileno())
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
