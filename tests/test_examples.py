"""Map the Olist files, as Parquet and as the publisher's CSV, and hold what comes out to the contracts."""

from datetime import UTC, datetime

import duckdb
import pytest

from benchmarks.replays import mapping_of
from pipelines import sources
from pipelines.settings import Settings
from tests.workspaces import SHARED

OLIST = SHARED / "olist"
NOW = datetime(2018, 5, 1, tzinfo=UTC)

pytestmark = pytest.mark.skipif(not OLIST.is_dir(), reason=f"the Olist files are not in {OLIST}")


@pytest.fixture(scope="module")
def mapping():
    return mapping_of("olist")


def fingerprint(workspace, verdicts_of=None):
    con, verdicts = sources.load(Settings(workspace=workspace, attributes=["freight_value"]), now=NOW)
    with con:
        if verdicts_of is not None:
            verdicts_of.extend(verdicts)
        return sources.fingerprint(con)


def test_olist_holds_to_the_contracts_from_parquet_and_from_csv(mapping, tmp_path):
    rows = mapping.map_files(OLIST, tmp_path / "one" / "data")
    assert rows["purchases"] > 80_000
    verdicts = []
    first = fingerprint(tmp_path / "one", verdicts)
    kept = {v.table: v.kept for v in verdicts}
    bad = {v.table: v.quarantined for v in verdicts}
    assert kept["purchases"] + bad["purchases"] == rows["purchases"]
    assert 0 < bad["receipts"] < 0.01 * rows["receipts"]  # parcels handed over before their payment was approved
    (tmp_path / "csv").mkdir()
    with duckdb.connect() as con:
        for name in mapping.FILES:
            source = OLIST / f"olist_{name}_dataset.parquet"
            con.execute(f"COPY (FROM '{source}') TO '{tmp_path}/csv/olist_{name}_dataset.csv' (HEADER, FORMAT csv)")
    mapping.map_files(tmp_path / "csv", tmp_path / "two" / "data")
    assert fingerprint(tmp_path / "two") == first
