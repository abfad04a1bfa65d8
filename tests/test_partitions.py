"""Rows of lines and of series are the same bytes for any number of partitions, here or where a worker is lost."""

import os
import signal
from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest

from features.core import measures_of
from features.matrix import DELAY_KEY, Request, delay_matrix, first_fact, order_matrix, shift_matrix
from features.panels import Terms
from features.prover import LeakError, prove_no_leak
from features.sampling import Sample
from features.standing import EXACT, SHARED
from features.suppliers import LEVELS
from features.weeks import Grid
from models import lessons
from models.lessons import Training
from models.scoring import say
from pipelines import sources
from pipelines.engines import Connection, engine, workers_here
from pipelines.fitting import fitting
from pipelines.learn import prepare
from pipelines.partitions import How, in_order, partitioned, partitions_for
from pipelines.settings import Unreachable, UserError, load
from pipelines.simulate import simulate
from pipelines.speaking import said_of
from pipelines.windows import partitioned_windows
from pipelines.world import NO_PROOF, TO_SCORE, World, delay_rows, line_builder, request, shift_rows

AS_OF = date(2026, 6, 1)


def toy(folder, seed):
    """Return the tables of a simulated toy world."""
    simulate(folder, scale="toy", seed=seed)
    return sources.load(load(folder, environ={}), now=datetime(2026, 6, 2, tzinfo=UTC))[0]


@pytest.fixture(scope="module")
def con(tmp_path_factory):
    """A toy world of nine suppliers, with fractions in its quantities, attributes of both kinds and one signal."""
    con = toy(tmp_path_factory.mktemp("parts"), seed=5)
    con.execute("""
        ALTER TABLE purchases ADD COLUMN "ship mode" VARCHAR;
        ALTER TABLE purchases ADD COLUMN weight VARCHAR;
        UPDATE purchases SET quantity = quantity * 1.1, unit_cost = unit_cost * 1.07, weight = quantity,
          "ship mode" = CASE WHEN hash(po_line_id) % 3 = 0 THEN 'sea' ELSE 'air' END;
        DELETE FROM signals WHERE signal <> (SELECT min(signal) FROM signals);
        DELETE FROM purchases WHERE supplier_id NOT IN
          (SELECT DISTINCT supplier_id FROM purchases ORDER BY 1 LIMIT 9)""")
    yield con
    con.close()


@pytest.fixture
def asked(con):
    return Request(Grid(first_fact(con, "purchases"), AS_OF), Terms(), "DE", ("ship mode", "weight"))


def last_two(asked):
    return np.array([asked.grid.size - 2, asked.grid.size - 1])


def same(a, b):
    pd.testing.assert_frame_equal(a.rows, b.rows, check_exact=True)
    pd.testing.assert_frame_equal(a.X, b.X, check_exact=True)
    assert [f.name for f in a.features] == [f.name for f in b.features]


def in_parts(con, request, steps, parts, scratch, at="snapshot"):
    with engine(load(scratch, environ={})) as here:
        made = partitioned(con, request, steps, at=at, how=How(here, parts, scratch))
    assert not list(scratch.iterdir()), "nothing is left behind"
    return in_order(con, made)


@pytest.mark.parametrize("parts", [1, 2, 50])
def test_rows_are_the_same_bytes_for_any_number_of_partitions(con, asked, tmp_path, parts):
    steps = np.arange(40, asked.grid.size, 5)
    whole = delay_matrix(con, asked, steps)
    assert whole.X["attribute_weight"].dtype == np.float32
    assert set(whole.X["attribute_ship mode"]) == {"sea", "air"}
    assert any(name.startswith("signal_") for name in whole.X)
    history = con.sql("FROM line_history ORDER BY line").df()
    same(whole, in_parts(con, asked, steps, parts, tmp_path))
    pd.testing.assert_frame_equal(history, con.sql("FROM line_history ORDER BY line").df(), check_exact=True)


def test_so_are_a_sample_and_lines_at_their_order(con, asked, tmp_path):
    sample = replace(asked, sample=Sample(0.2))
    steps = np.arange(40, asked.grid.size)
    same(delay_matrix(con, sample, steps), in_parts(con, sample, steps, 3, tmp_path))
    daily = replace(asked, grid=Grid(asked.grid.first, AS_OF, 1))
    days = np.arange(daily.grid.size - 60, daily.grid.size)
    same(order_matrix(con, daily, days), in_parts(con, daily, days, 3, tmp_path, at="order"))


def test_without_any_row_there_are_still_the_columns(con, asked, tmp_path):
    none = np.empty(0, int)
    whole, parts = delay_matrix(con, asked, none), in_parts(con, asked, none, 2, tmp_path)
    assert len(parts.rows) == 0
    assert list(parts.rows) == list(whole.rows)
    assert list(parts.X) == list(whole.X)


def test_what_suppliers_share_counts_in_whole_numbers():
    """Sums of fractions depend on their order, so on the partitions."""

    for level in SHARED:
        assert measures_of((*level.formulas, *level.when_ordered)) <= {*EXACT, "prior"}


def test_a_leak_is_found_in_partitions_too(con, asked, tmp_path, monkeypatch):
    def ahead(panel):
        return panel.late_lines.whole("next week", lambda late: np.roll(late, -1, axis=0))

    def build(con, request, steps):
        with engine(load(tmp_path, environ={})) as here:
            return partitioned(con, request, steps, at="snapshot", how=How(here, 2, tmp_path))

    region = next(level for level in SHARED if level.name == "region")
    leaking = replace(region, formulas=(replace(region.formulas[0], formula=ahead), *region.formulas[1:]))
    every = tuple(leaking if level is region else level for level in LEVELS)
    monkeypatch.setattr("features.standing.LEVELS", every)
    monkeypatch.setattr("features.standing.SHARED", tuple(x for x in every if "supplier_id" not in x.keys))
    whole = build(con, asked, last_two(asked))
    with pytest.raises(LeakError, match="feature region_late_share_4w reads the future"):
        prove_no_leak(con, build, asked, whole, DELAY_KEY, [asked.grid.size - 2])


# Series -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demanded(tmp_path_factory):
    """A toy world with a promotion, a price, fractions in quantities, plans, and a product that is sold at one site."""
    con = toy(tmp_path_factory.mktemp("series"), seed=6)
    con.execute("""
        UPDATE orders SET quantity = quantity * 1.1 WHERE hash(product_id) % 3 = 0;
        UPDATE orders SET customer_id = NULL WHERE hash(order_line_id) % 5 = 0;
        DELETE FROM orders WHERE product_id = (SELECT min(product_id) FROM orders)
          AND site_id <> (SELECT min(site_id) FROM orders)""")
    yield con
    con.close()


@pytest.fixture
def weekly(demanded):
    return Request(Grid(first_fact(demanded, "orders"), AS_OF), Terms(), "DE")


def series_in_parts(con, request, steps, parts, scratch):
    with engine(load(scratch, environ={})) as here:
        made = partitioned_windows(con, request, steps, how=How(here, parts, scratch))
    assert not list(scratch.iterdir()), "nothing is left behind"
    return made


@pytest.mark.parametrize("planned", [True, False])
@pytest.mark.parametrize("parts", [1, 2, 50])
def test_windows_are_the_same_bytes_for_any_number_of_partitions(demanded, weekly, tmp_path, parts, planned):
    asked = replace(weekly, planned_in_baseline=planned)
    steps = np.array([60, asked.grid.size - 5, asked.grid.size - 1])
    whole, _ = shift_matrix(demanded, asked, steps)
    assert (whole.rows["planned_effect"].abs().max() > 0) == planned
    same(whole, series_in_parts(demanded, asked, steps, parts, tmp_path))


def test_so_is_a_sample_of_windows(demanded, weekly, tmp_path):
    asked, steps = replace(weekly, sample=Sample(0.2)), np.arange(40, weekly.grid.size)
    same(shift_matrix(demanded, asked, steps)[0], series_in_parts(demanded, asked, steps, 3, tmp_path))


def test_without_any_window_there_are_still_the_columns(demanded, weekly, tmp_path):
    none = np.empty(0, int)
    whole, parts = shift_matrix(demanded, weekly, none)[0], series_in_parts(demanded, weekly, none, 2, tmp_path)
    assert len(parts.rows) == 0
    assert list(parts.rows) == list(whole.rows)
    assert list(parts.X) == list(whole.X)


# A cluster ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    with workers_here(2) as made:
        yield made


class Losing(Connection):
    """An engine of whose workers one is killed in mid-run, once."""

    def __init__(self, lost):
        super().__init__()
        self.lost = lost

    def to(self, settings):
        there, lost = super().to(settings), self.lost

        def dying(run):
            def some_die(work, each):
                def once(k, *args):
                    if k == 1 and not lost.exists():
                        lost.touch()
                        os.kill(os.getpid(), signal.SIGKILL)
                    return work(*args)

                return run(once, [(k, *args) for k, args in enumerate(each)])

            return some_die

        return replace(there, each=dying(there.each), map=dying(there.map))


@pytest.fixture
def losing(cluster, tmp_path):
    """Settings of a cluster, and a connection to it that loses a worker."""
    settings = load(
        tmp_path, environ={}, as_of=AS_OF, engine="dask", dask_scheduler=cluster.scheduler_address, partitions=3
    )
    workers = Losing(tmp_path / "lost")
    yield settings, workers
    workers.close()
    assert workers.lost.exists(), "a worker died"


@pytest.mark.parametrize("task", ["delay", "shift"])
def test_a_cluster_that_loses_a_worker_gives_the_same_bytes(con, asked, demanded, weekly, losing, tmp_path, task):
    settings, workers = losing
    con, asked = (con, asked) if task == "delay" else (demanded, weekly)
    steps = np.array([asked.grid.size - 5, asked.grid.size - 1])
    there = workers.to(settings)
    assert (there.slots, there.threads) == (2, 1)
    assert partitions_for(con, there, task) == 8
    how = How(there, 3, tmp_path / "scratch")
    if task == "delay":
        made = in_order(con, partitioned(con, asked, steps, at="snapshot", how=how))
    else:
        made = partitioned_windows(con, asked, steps, how=how)
    same(delay_matrix(con, asked, steps) if task == "delay" else shift_matrix(con, asked, steps)[0], made)


def small_lesson(facts, settings, task):
    few = settings.model_copy(update={"engine": "local", "partitions": 0, "max_snapshots": 1_000})
    with World([facts.cursor()], (), few, AS_OF, "") as world:
        return prepare(world, task, request(world, task), judged_from=np.datetime64(AS_OF))


def saved(forecaster, folder):
    """Return every file of a saved forecaster by its name."""
    folder.mkdir()
    forecaster.save(folder)
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("task", ["delay", "shift"])
def test_forecasters_are_the_same_where_a_worker_is_lost_while_they_are_fitted(con, demanded, losing, tmp_path, task):
    settings, workers = losing
    facts = con if task == "delay" else demanded
    lesson, how = small_lesson(facts, settings, task), Training(threads=2, params={task: {"rounds": 5}})
    cuts = [np.datetime64(AS_OF) - np.timedelta64(weeks, "W") for weeks in (8, 4, 0)]
    here = [saved(one, tmp_path / f"here-{k}") for k, one in enumerate(lessons.fits(lesson, cuts, how))]
    with World([facts.cursor()], (), settings, AS_OF, "", workers=workers) as world, fitting(world, lesson) as fits:
        there = [saved(one, tmp_path / f"there-{k}") for k, one in enumerate(fits(cuts, how))]
    assert here == there
    assert here[0] != here[1]
    assert not list(sources.scratch_of(settings).iterdir()), "nothing is left behind"


@pytest.mark.parametrize("task", ["delay", "shift"])
def test_forecasters_say_the_same_on_a_cluster_that_loses_a_worker(con, demanded, losing, task):
    settings, workers = losing
    facts, cut = con if task == "delay" else demanded, np.datetime64(AS_OF)
    lesson = small_lesson(facts, settings, task)
    forecaster = lessons.fit(lesson, cut, Training(threads=2, params={task: {"rounds": 5}}))
    rows, X = lesson.matrix.rows, lesson.matrix.X
    here = say(forecaster, rows, X)
    with World([facts.cursor()], (), settings, AS_OF, "", workers=workers) as world:
        there = said_of(world, forecaster, lesson.matrix)
    for event, said in here.forecasts.items():
        pd.testing.assert_frame_equal(said, there.forecasts[event], check_exact=True)
    pd.testing.assert_frame_equal(here.published, there.published, check_exact=True)
    np.testing.assert_array_equal(here.quantiles, there.quantiles)


def test_the_settings_choose_engine_and_partitions(con, tmp_path, cluster):
    there = {"engine": "dask", "dask_scheduler": cluster.scheduler_address, "partitions": 2}
    found = []
    for how in ({}, there):
        with World([con.cursor()], (), load(tmp_path, environ={}, as_of=AS_OF, **how), AS_OF, "") as world:
            asked = request(world, "delay")
            assert (line_builder(world) is delay_matrix) == (not how)
            found.append(delay_rows(world, asked, last_two(asked), NO_PROOF))
    same(*found)


def test_demand_is_cut_as_the_settings_say_and_its_proof_too(demanded, tmp_path):
    found = []
    for parts in (1, 3):
        with World([demanded.cursor()], (), load(tmp_path, environ={}, partitions=parts), AS_OF, "") as world:
            weekly = request(world, "shift")
            found.append(shift_rows(world, weekly, last_two(weekly), TO_SCORE))
    same(*found)


def test_workers_that_are_started_leave_this_process_its_threads(tmp_path):
    before = dict(os.environ)
    with engine(load(tmp_path, environ={}, engine="dask", threads=1)) as there:
        assert dict(os.environ) == before
        assert there.map(os.getenv, [("OMP_NUM_THREADS",)]) == ["1"]


def test_what_dask_cannot_do_is_said_in_one_line(tmp_path, monkeypatch):
    away = load(tmp_path, environ={}, engine="dask", dask_scheduler="tcp://127.0.0.1:9")
    monkeypatch.setattr("pipelines.engines.SECONDS_TO_ANSWER", 0.5)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 does not answer"), engine(away):
        pass
    with pytest.raises(UserError, match=r'dask_scheduler is .*expected an address such as "tls://'):
        load(tmp_path, environ={}, dask_scheduler="scheduler.example")
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(UserError, match="needs the extra"), engine(away):
        pass
