"""The simulated chain is one chain: reproducible, coherent, cut at its end, and true to its own answer book."""

import hashlib
import json
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pandas as pd
import pytest

from features.door import hold
from pipelines.simulate import DATA, chains, delivery, simulate, size_of
from pipelines.simulate.clock import NEVER, Running, clock_until, open_days
from pipelines.simulate.promises import PATHS

END = pd.Timestamp("2026-06-01")


def read(folder: Path) -> SimpleNamespace:
    """Return the tables of a world by name, with days as timestamps."""
    tables = {file.stem: pd.read_parquet(file) for file in sorted(folder.glob("*/*.parquet"))}
    for table in tables.values():
        for column in table.columns[table.columns.str.endswith("_on") | (table.columns == "as_of")]:
            table[column] = pd.to_datetime(table[column]).astype("datetime64[us]")
    return SimpleNamespace(folder=folder, **tables)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    simulate(folder, scale="toy")
    return read(folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A third of the demo: enough suppliers and shocks for shares to mean something."""
    folder = tmp_path_factory.mktemp("world")
    simulate(folder, scale=0.35, seed=3)
    return read(folder)


def test_same_seed_gives_same_bytes_over_whatever_lay_there(toy, tmp_path):
    simulate(tmp_path, scale="toy", seed=8)
    other = digests(tmp_path)
    simulate(tmp_path, scale="toy", seed=7)
    assert digests(tmp_path) == digests(toy.folder)
    assert all(
        other[name] != digest for name, digest in digests(tmp_path).items() if "sites" not in name
    )  # these are given


def test_summary_is_what_was_written(toy, tmp_path):
    said: list[str] = []
    summary = simulate(tmp_path, scale="toy", progress=said.append)
    assert summary == json.loads((tmp_path / "truth" / "world.json").read_text())
    assert {name: len(getattr(toy, name)) for name in DATA} == {name: summary["counts"][name] for name in DATA}
    assert len(said) == 1


@pytest.mark.parametrize("scale", ["huge", 0.01, 5000.0])
def test_unknown_scale_says_what_is_known(scale):
    with pytest.raises(ValueError, match="expected"):
        size_of(scale)


def test_multiples_of_the_demo_come_in_parts():
    assert (size_of(2.5).parts, size_of(300.0).parts, size_of("demo").parts) == (3, 300, 1)
    assert size_of(2.5).suppliers * 3 == pytest.approx(150, abs=2)


def test_world_in_parts_is_one_world(tmp_path, monkeypatch):
    from pipelines import simulate as simulator

    monkeypatch.setitem(simulator.SIZES, "pair", simulator.Size(8, 20, sites=2, years=1, parts=2))
    simulate(tmp_path, scale="toy")
    summary = simulate(tmp_path, scale="pair")
    assert not (tmp_path / "data" / "purchases.parquet").exists()
    tables = {
        name: pd.read_parquet(tmp_path / "data" / name) for name in ("purchases", "suppliers", "orders", "signals")
    }
    assert tables["purchases"].po_line_id.is_unique
    assert tables["orders"].order_line_id.is_unique
    assert len(tables["suppliers"]) == 16
    assert tables["suppliers"].name.is_unique
    assert summary["counts"]["sites"] == 2
    assert len(tables["purchases"]) == summary["counts"]["purchases"]
    assert not tables["signals"].duplicated(["signal", "scope", "observed_on", "known_at"]).any()
    simulate(tmp_path, scale="toy")
    assert not (tmp_path / "data" / "purchases").exists()


def test_every_row_passes_its_contract(world):
    con = duckdb.connect()
    for name in DATA:
        con.execute(f"CREATE VIEW raw_{name} AS SELECT * FROM '{world.folder}/data/{name}.parquet'")
    sources = {name: f"raw_{name}" for name in DATA}
    verdicts = hold(con, sources, now=datetime(2026, 6, 1), attributes=("ship_mode",))  # noqa: DTZ001  # naive UTC
    assert {v.table: v.quarantined for v in verdicts} == dict.fromkeys((v.table for v in verdicts), 0)
    assert [str(b) for v in verdicts for b in v.breaches] == []


def test_every_id_leads_somewhere(world):
    for child, parent in (("product_id", world.products), ("site_id", world.sites), ("supplier_id", world.suppliers)):
        for table in (world.orders, world.purchases, world.stock, world.shifts):
            if child in table:
                assert set(table[child]) <= set(parent[child])
    for table in (world.receipts, world.promises, world.p_late):
        assert set(table.po_line_id) <= set(world.purchases.po_line_id)


def test_nothing_is_known_at_or_after_the_end(world):
    for name in DATA:
        table = getattr(world, name)
        for column in {"known_at", "ordered_at", "cancelled_at"} & set(table.columns):
            assert table[column].dropna().max() < END, (name, column)


def test_an_end_within_a_week_cuts_there_too(tmp_path):
    simulate(tmp_path, scale="toy", end=date(2026, 6, 4))
    cut = read(tmp_path)
    assert pd.Timestamp("2026-06-03") <= cut.orders.ordered_at.max() < pd.Timestamp("2026-06-04")
    assert cut.p_late.as_of.max() == END


def test_goods_come_after_the_order_and_never_more_than_ordered(world):
    goods = world.receipts.merge(world.purchases, on="po_line_id")
    assert (goods.received_on > goods.ordered_at.dt.normalize()).all()
    assert (goods.known_at >= goods.received_on + pd.Timedelta("1D") - pd.Timedelta("1us")).all()
    received = world.receipts.groupby("po_line_id").quantity.sum()
    ordered = world.purchases.set_index("po_line_id").quantity
    assert (received <= ordered.loc[received.index] + 1e-9).all()
    assert world.receipts.po_line_id.duplicated().any()  # some come in parts


def test_promises_move_on_before_they_are_broken(world):
    moves = world.promises.merge(world.purchases, on="po_line_id", suffixes=("", "_first"))
    moves = moves.sort_values(["po_line_id", "known_at"])
    before = moves.groupby("po_line_id").promised_on.shift().fillna(moves.promised_on_first)
    assert (moves.known_at < before).all()
    assert (moves.promised_on > before).all()
    assert (moves.known_at > moves.ordered_at).all()


def test_truth_knows_the_promise_in_force(world):
    moves = world.p_late.merge(world.promises, on="po_line_id", suffixes=("", "_new"))
    last = moves[moves.known_at < moves.as_of].sort_values("known_at").groupby(["po_line_id", "as_of"]).promised_on_new
    in_force = last.last().rename("in_force").reset_index()
    both = world.p_late.merge(world.purchases[["po_line_id", "promised_on"]], on="po_line_id", suffixes=("", "_first"))
    both = both.merge(in_force, on=["po_line_id", "as_of"], how="left")
    assert (both.promised_on == both.in_force.fillna(both.promised_on_first)).all()
    assert (both.promised_on >= both.as_of).all()


def judged(world) -> pd.DataFrame:
    """Return the truth with what became of each row; lines the buyer cancelled in time are out."""
    rows = world.p_late[~(world.p_late.completed_on.isna() & (world.p_late.cancelled_on <= world.p_late.promised_on))]
    return rows.assign(late=(rows.completed_on.isna() | (rows.completed_on > rows.promised_on)).astype(float))


def test_true_probabilities_come_true(world):
    rows = judged(world)
    tenths = rows.groupby(pd.qcut(rows.p_late, 10)).agg(p=("p_late", "mean"), late=("late", "mean"))
    assert (tenths.p - tenths.late).abs().max() < 0.05
    assert rows.p_late.mean() == pytest.approx(rows.late.mean(), abs=0.02)
    assert np.polyfit(tenths.p, tenths.late, 1)[0] == pytest.approx(1, abs=0.06)
    assert 0.15 < rows.late.mean() < 0.40
    assert rows.p_late.std() > 0.2


def test_futures_happen_as_often_as_the_chain_says():
    states = chains.futures(np.random.default_rng(1), chains.REGIMES, PATHS, 20)
    want = np.linalg.matrix_power(chains.REGIMES[2], 19)
    got = np.stack([(states[19, 6:9] == s).mean(axis=1) for s in range(3)], axis=1)
    assert got == pytest.approx(want, abs=0.06)


def test_survival_starts_at_one_falls_and_never_quite_ends_in_trouble():
    days = np.linspace(0, 500, 100)
    for trouble in (False, True):
        open_share = delivery.still_open(days, np.log(20.0), np.float64(0.2), trouble)
        assert open_share[0] == pytest.approx(1)
        assert (np.diff(open_share) <= 0).all()
        assert open_share[-1] == pytest.approx(delivery.NEVER_SHARE * trouble)


def test_running_sum_says_when_it_first_reaches_a_level():
    running = Running(np.array([[1, 0, 1, 1], [0, 0, 2, 0]]))
    days = running.first_reaching(np.array([0, 0, 0, 1, 1]), np.array([1, 2, 4, 1, 3]))
    assert days.tolist() == [0, 2, NEVER, 2, NEVER]


def test_new_year_closes_china_for_longer_than_its_holidays():
    clock = clock_until(date(2026, 6, 1), 104)
    day = clock.index(date(2026, 2, 17))
    assert not open_days(clock, "CN")[day - 4 : day + 9].any()
    assert open_days(clock, "NL")[day]


def test_orders_swing_more_than_demand(world):
    """The bullwhip ratio of DEFINITIONS 4, over four-week sums so that batches alone do not make it."""
    ratios = []
    for product, bought in world.purchases.groupby("product_id"):
        sold = world.orders[world.orders.product_id == product]
        sums = [
            x.groupby(x.ordered_at.dt.normalize().sub(END).dt.days // 28).quantity.sum().iloc[8:]
            for x in (bought, sold)
        ]
        ratios.append(sums[0].var() / sums[1].var())
    assert np.nanmedian(ratios) > 1.5  # NaN: a product too new for eight periods


def test_a_surge_of_orders_makes_a_supplier_later(world):
    lines = world.purchases.sort_values("ordered_at")
    done = world.p_late.drop_duplicates("po_line_id").set_index("po_line_id").completed_on
    stamp = lines.ordered_at.astype("int64") // 86_400_000_000
    recent, usual = np.zeros(len(lines)), np.zeros(len(lines))
    for _, group in stamp.reset_index(drop=True).groupby(lines.supplier_id.reset_index(drop=True)):
        days = group.to_numpy()
        place = np.arange(len(days))
        recent[group.index] = place - np.searchsorted(days, days - 28)
        usual[group.index] = (np.searchsorted(days, days - 28) - np.searchsorted(days, days - 210)) / 6.5
    taken = (lines.po_line_id.map(done) - lines.ordered_at).dt.days / (lines.requested_on - lines.ordered_at).dt.days
    frame = pd.DataFrame({"surge": (recent + 2) / (usual + 2), "taken": taken.to_numpy()})[usual > 4].dropna()
    assert frame.taken[frame.surge > 1.5].median() > 1.1 * frame.taken[frame.surge < 1.0].median()


def test_freight_rises_before_lines_are_late(world):
    """Sea lines from a region whose freight index is up are the likelier ones to be late."""
    rows = judged(world).merge(world.purchases[["po_line_id", "supplier_id", "ship_mode"]], on="po_line_id")
    rows = rows[rows.ship_mode == "sea"].merge(world.suppliers[["supplier_id", "region"]], on="supplier_id")
    freight = world.signals[world.signals.signal == "freight_index"]
    freight = freight.assign(region=freight.scope.str.removeprefix("region:"), as_of=freight.observed_on)
    paired = rows.merge(freight[["region", "as_of", "value"]], on=["region", "as_of"])
    assert paired.p_late[paired.value > 120].mean() > 1.3 * paired.p_late[paired.value < 108].mean()


def test_freight_leads_the_shocks_by_one_to_four_weeks():
    start = np.zeros(400, int)
    states = chains.walk(np.random.default_rng(5), np.repeat(chains.SHOCKS[None], 400, 0), start, 150)
    region, week = np.nonzero((states[:, 1:] == chains.DISRUPTED) & (states[:, :-1] != chains.DISRUPTED))
    week, region = week[week > 10] + 1, region[week > 10]
    ahead = [chains.FREIGHT[states[region, week - back]] > 0 for back in (1, 4, 5)]
    assert ahead[0].all()
    assert 0.15 < ahead[1].mean() < 0.4
    assert ahead[2].mean() < 0.1


def test_pmi_is_revised_and_the_first_print_stands_beside_the_revision(world):
    pmi = world.signals[world.signals.signal == "pmi"]
    vintages = pmi.groupby(["scope", "observed_on"]).agg(n=("known_at", "nunique"), values=("value", "nunique"))
    settled = vintages.iloc[:-1].groupby("scope").head(20)
    assert (settled.n == 2).all()
    assert (settled["values"] == 2).mean() > 0.8
    assert (pmi.known_at > pmi.observed_on + pd.Timedelta("28D")).all()


def test_planned_events_are_known_weeks_ahead_and_lift_demand(world):
    planned = world.signals[world.signals.signal == "promotion"]
    assert (planned.kind == "calendar").all()
    assert (planned.known_at <= planned.observed_on - pd.Timedelta("14D")).all()
    assert (planned.observed_on.dt.day_of_week == 0).all()
    assert planned.value.between(0.1, 0.3).all()
    assert planned.scope.str.contains("&site:").any()
    assert (~planned.scope.str.contains("&")).any()
    orders = world.orders.assign(observed_on=world.orders.ordered_at.dt.to_period("W").dt.start_time)
    local = planned[planned.scope.str.contains("&")].scope.str.extract(
        "product:(?P<product_id>.*)&site:(?P<site_id>.*)"
    )
    local["observed_on"] = planned.observed_on
    key = ["product_id", "site_id", "observed_on"]
    weekly = orders.groupby(key).size().rename("lines").reset_index().merge(local, on=key, how="left", indicator=True)
    usual = weekly.groupby(key[:2]).lines.transform("mean")
    assert (weekly.lines / usual)[weekly["_merge"] == "both"].mean() > 1.25


def test_shifts_are_planted_both_ways_in_every_window_and_stay_rare(world):
    kinds = world.shifts.groupby("lead_weeks")["shift"].value_counts(normalize=True).unstack()
    assert kinds.index.tolist() == [0, 4, 8]
    assert (kinds[["up", "down"]] > 0.01).all(axis=None)
    assert (kinds["steady"] > 0.75).all()
    up, down = (world.shifts[world.shifts["shift"] == kind].ratio for kind in ("up", "down"))
    assert up.min() > 1.35
    assert down.max() < 1 / 1.35


def test_what_was_expected_is_what_was_ordered(world):
    weeks = world.shifts[(world.shifts.lead_weeks == 0) & (world.shifts.as_of < END - pd.Timedelta("28D"))]
    one = weeks[weeks.as_of.isin(weeks.as_of.drop_duplicates().iloc[::4])]
    sold = world.orders[(world.orders.ordered_at >= one.as_of.min())]
    sold = sold[sold.ordered_at < one.as_of.max() + pd.Timedelta("28D")]
    assert sold.quantity.sum() == pytest.approx(one.expected_units.sum(), rel=0.03)


def test_intermittent_series_exist(world):
    week = world.orders.ordered_at.dt.to_period("W").astype(str)
    busy = week.groupby([world.orders.product_id, world.orders.site_id]).nunique()
    assert 0.1 < (157 / busy >= 1.32).mean() < 0.5


def test_customers_order_on_weekdays_and_a_few_order_much(world):
    assert (world.orders.ordered_at.dt.day_of_week < 5).mean() > 0.9
    assert (world.purchases.ordered_at.dt.day_of_week < 5).all()
    by_customer = world.orders.groupby(["product_id", "customer_id"]).size().groupby("product_id")
    assert (by_customer.max() / by_customer.sum()).median() > 0.08


# Worlds whose shifts are planted by hand -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calm")
    simulate(folder, scale=0.35, seed=3, shifts="none")
    return read(folder)


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    simulate(folder, scale=0.35, seed=3, shifts=0.3)
    return read(folder)


def test_the_usual_world_is_what_it_was(toy, tmp_path):
    summary = simulate(tmp_path, scale="toy", shifts="usual")
    assert digests(tmp_path) == digests(toy.folder)
    assert not {"shifts", "busy"} & set(summary)
    counted = {name: summary["counts"][name] for name in ("orders", "purchases", "receipts", "signals", "windows_up")}
    assert counted == {"orders": 13_458, "purchases": 844, "receipts": 830, "signals": 1_969, "windows_up": 289}


def test_planted_steps_are_as_reproducible_and_leave_nothing_behind(tmp_path):
    for kind in (0.3, "none", 0.3):
        simulate(tmp_path / "again", scale="toy", shifts=kind)
    summary = simulate(tmp_path / "once", scale="toy", shifts=0.3)
    assert digests(tmp_path / "again") == digests(tmp_path / "once")
    assert summary["shifts"] == 0.3
    simulate(tmp_path / "again", scale="toy")
    assert not (tmp_path / "again" / "truth" / "planted.parquet").exists()


def test_a_busier_world_sells_so_many_times_as_often(toy, tmp_path):
    summary = simulate(tmp_path, scale="toy", busy=3)
    assert summary["busy"] == 3
    assert summary["counts"]["orders"] / len(toy.orders) == pytest.approx(3, rel=0.05)
    with pytest.raises(ValueError, match="expected how many times"):
        simulate(tmp_path, scale="toy", busy=0)


@pytest.mark.parametrize("shifts", ["many", 0.0, 1.0, -0.3])
def test_unknown_shifts_say_what_is_known(tmp_path, shifts):
    with pytest.raises(ValueError, match="expected usual, none, or the size"):
        simulate(tmp_path, scale="toy", shifts=shifts)


def test_a_calm_world_has_no_shift_and_no_wave_and_the_same_supply(calm, world):
    assert len(calm.planted) == 0
    assert set(calm.shifts["shift"]) == {"steady"}
    assert (calm.shifts["expected_units"] == calm.shifts["usual_units"]).all()
    pd.testing.assert_frame_equal(calm.suppliers, world.suppliers)
    freight = [w.signals[w.signals["signal"] == "freight_index"].reset_index(drop=True) for w in (calm, world)]
    pd.testing.assert_frame_equal(*freight)


def test_steps_are_planted_both_ways_at_their_weeks_and_nothing_else_is(steps):
    planted = steps.planted
    assert set(np.exp(planted["log_size"]).round(6)) == {0.7, 1.3}
    assert planted["log_size"].gt(0).mean() == pytest.approx(0.5, abs=0.02)
    assert not planted.duplicated(["product_id", "site_id"]).any()
    starts = pd.to_datetime(planted["starts_on"])
    assert (starts.dt.day_of_week == 0).all()
    assert starts.min() >= END - pd.Timedelta(weeks=156 - 52)
    assert starts.max() <= END - pd.Timedelta(weeks=13)
    key = ["product_id", "site_id"]
    weekly = steps.shifts[steps.shifts["lead_weeks"] == 0].merge(planted, on=key, how="left")
    started = pd.to_datetime(weekly["starts_on"])
    after, before = weekly["as_of"] >= started, weekly["as_of"] <= started - pd.Timedelta(weeks=4)
    ratio = weekly["expected_units"] / weekly["usual_units"]
    np.testing.assert_allclose(ratio[after], np.exp(weekly["log_size"][after]))
    np.testing.assert_allclose(ratio[before | started.isna()], 1)
    assert 0.2 < len(planted) / len(steps.shifts.groupby(key)) < 0.5


def test_a_step_shows_in_the_orders(steps):
    weekly = steps.orders.assign(week=steps.orders["ordered_at"].dt.to_period("W").dt.start_time)
    weekly = weekly.groupby(["product_id", "site_id", "week"])["quantity"].sum().reset_index()
    both = weekly.merge(steps.planted, on=["product_id", "site_id"])
    both["after"] = both["week"] >= pd.to_datetime(both["starts_on"])
    near = both[(both["week"] - pd.to_datetime(both["starts_on"])).abs() <= pd.Timedelta(weeks=13)]
    level = near.groupby(["product_id", "site_id", "log_size", "after"])["quantity"].mean().unstack()
    moved = np.log(level[True] / level[False]).groupby(np.sign(level.index.get_level_values("log_size"))).median()
    assert moved[1.0] == pytest.approx(np.log(1.3), abs=0.08)
    assert moved[-1.0] == pytest.approx(np.log(0.7), abs=0.08)
