"""Map the orange juice and the wholesaler's invoices, and hold what comes out to the contracts."""

from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest

from benchmarks.replays import mapping_of
from features.demand import demand
from features.weeks import Grid
from pipelines import sources
from pipelines.settings import Settings
from tests.workspaces import SHARED

JUICE, RETAIL = SHARED / "dominicks_oj", SHARED / "online_retail"


def load(workspace, now):
    con, verdicts = sources.load(Settings(workspace=workspace), now=now)
    return con, {v.table: v for v in verdicts}


@pytest.mark.skipif(not JUICE.is_dir(), reason=f"the orange juice is not in {JUICE}")
@pytest.mark.parametrize("known_ahead", [False, True])
def test_orange_juice_holds_to_the_contracts(tmp_path, known_ahead):
    rows = mapping_of("orange_juice").map_files(JUICE, tmp_path / "data", known_ahead=known_ahead)
    assert (rows["orders"], rows["products"], rows["sites"]) == (106_139, 11, 83)
    con, verdicts = load(tmp_path, datetime(1993, 1, 1, tzinfo=UTC))
    with con:
        assert not any(v.quarantined for v in verdicts.values())
        kinds = con.execute("SELECT DISTINCT kind, known_at < observed_on FROM signals").fetchall()
        assert kinds == [("calendar" if known_ahead else "observed", known_ahead)]
        grid = Grid(date(1990, 6, 14), date(1990, 8, 9))
        data = demand(con, grid)
        told = con.execute("SELECT sum(quantity) FROM orders WHERE ordered_at = '1990-06-14'").fetchone()[0]
        assert data.panel.net.values[1].sum() == pytest.approx(told)  # a week is known when it is over
        effect = np.abs(np.concatenate([p[-1] for p in data.outlook.planned])).max()
        assert effect == 0  # eight weeks teach nothing of promotions


@pytest.mark.skipif(not RETAIL.is_dir(), reason=f"the invoices are not in {RETAIL}")
def test_the_invoices_run_clean_through_the_door(tmp_path):
    rows = mapping_of("online_retail").map_files(RETAIL, tmp_path / "data")
    assert rows["orders"] > 500_000
    con, verdicts = load(tmp_path, datetime(2011, 12, 10, tzinfo=UTC))
    with con:
        assert verdicts["orders"].quarantined < 0.01 * rows["orders"]
        assert verdicts["orders"].kept + verdicts["orders"].quarantined == rows["orders"]
        services = con.execute("SELECT count(*) FROM orders WHERE product_id IN ('POST', 'DOT', 'M', 'D')").fetchone()
        assert services == (0,)
        typo = con.execute("SELECT ordered_at, cancelled_at FROM orders WHERE quantity = 80995").df()
        assert typo["cancelled_at"].tolist() == [pd.Timestamp("2011-12-09 09:27")]  # known when it was written
        early = con.execute("SELECT count(*) FROM orders WHERE cancelled_at < ordered_at").fetchone()
        assert early == (0,)
        twice = con.execute(
            "SELECT count(cancelled_at) FROM orders WHERE customer_id = '12346' AND product_id = '23166'"
        ).fetchone()
        assert twice == (1,)
