"""A disk that is full or may not be written is told in one line, before anything else fails because of it."""

import contextlib
import shutil
import subprocess

import pytest

from tests.workspaces import bullwhip

FULL, READ_ONLY = "No space left on device", "Read-only file system"


@pytest.fixture
def disk(tmp_path):
    """A disk of 12 MB, real enough to fill: mounting it takes root."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {getattr(error, 'stderr', b'') or error}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk, why):
    if why == READ_ONLY:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        return
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(1 << 20)):
            pass


@pytest.mark.parametrize("why", [FULL, READ_ONLY])
def test_what_cannot_be_written_down_is_not_begun(world, disk, why):
    shutil.copytree(world / "data", disk / "data")
    (disk / "bullwhip.toml").write_text("as_of = 2026-06-01\n")
    fill(disk, why)
    there = sorted(path.name for path in disk.iterdir())
    for command in ("score", "catch-up", "train", "monitor"):
        code, said, err = bullwhip(disk, command)
        assert (code, said["exit_code"]) == (2, 2)
        assert err == f"bullwhip: {disk} cannot be written: {why}; free space or give this user the right\n"
    assert sorted(path.name for path in disk.iterdir()) == there
    assert bullwhip(disk, "check")[0] == 0  # reading needs no room while nothing is refused


def test_refused_rows_that_cannot_be_kept_are_an_error_of_one_line(world, disk):
    shutil.copytree(world / "data", disk / "data")
    (disk / "data" / "suppliers.parquet").unlink()
    (disk / "data" / "suppliers.csv").write_text("supplier_id,name\ns1,one\ns1,two\n,nobody\n")
    fill(disk, READ_ONLY)
    code, said, err = bullwhip(disk, "check")
    assert (code, err.count("\n")) == (2, 1)
    assert READ_ONLY in said["error"]
