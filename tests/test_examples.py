"""Map the Olist files, as Parquet and as the publisher's CSV, and hold what comes out to the contracts."""

import importlib.util
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from pipelines import sources
from pipelines.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
OLIST = ROOT.parent / "shared" / "data" / "olist"
NOW = datetime(2018, 5, 1, tzinfo=UTC)

pytestmark = pytest.mark.skipif(not OLIST.is_dir(), reason=f"the Olist files are not in {OLIST}")


@pytest.fixture(scope="module")
def mapping():
    spec = importlib.util.spec_from_file_location("olist_mapping", ROOT / "examples" / "olist" / "mapping.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
