"""Leaks in tables, planted one by one: the prover of every run catches each and takes nothing honest for one.

What is labelled, split or learnt wrongly is in tests/test_learning_leaks.py. Two kinds no test can see: a master table
or an attribute that was overwritten before it was handed in says the same in every world. For these stand the contract
("a fact at order time", "only lasting facts") and the alarm of a result that is too good (tests/test_dataco.py).
"""

from dataclasses import dataclass
from datetime import date

import numpy as np
import pytest

from features.contracts import TABLES
from features.matrix import DELAY_KEY, SHIFT_KEY, Request, delay_matrix, first_fact, shift_matrix
from features.panels import Terms, posting_lag_days
from features.prover import DELETED, MIXED, SCRAMBLED, LeakError, prove_no_leak
from features.weeks import Grid

AS_OF = date(2026, 6, 1)


def shift_rows(con, request, steps):
    return shift_matrix(con, request, steps)[0]


BUILDS = {"delay": (delay_matrix, DELAY_KEY, "purchases"), "shift": (shift_rows, SHIFT_KEY, "orders")}


def ask(con, task, as_of=AS_OF):
    terms = Terms(posting_lag_days=posting_lag_days(con, as_of))
    return Request(Grid(first_fact(con, BUILDS[task][2]), as_of), terms, "DE", ("note",) if task == "delay" else ())


# Leaks in the tables: a table shows something it could not have shown then -------------------------------------------


@dataclass(frozen=True)
class Plant:
    """Facts as a careless hand would give them: `table` is what the query says, {h} being the honest facts."""

    kind: str
    task: str
    table: str
    query: str


ENDED = (
    "(SELECT po_line_id, count(*) AS n, max(received_on) AS on_, max(known_at) AS at FROM {h}.receipts GROUP BY ALL)"
)
PLANTS = {
    "receipts counted on the day the goods came": Plant(
        "event time", "delay", "receipts",
        "SELECT * REPLACE (CAST(received_on AS TIMESTAMP) AS known_at) FROM {h}.receipts",
    ),
    "orders counted on the day they were placed": Plant(
        "event time", "shift", "orders", "SELECT * REPLACE (ordered_at AS known_at) FROM {h}.orders"
    ),
    "stock counts dated back to the week they are about": Plant(
        "event time", "shift", "stock", "SELECT * REPLACE (known_at - to_days(14) AS known_at) FROM {h}.stock"
    ),
    "the promise overwritten by its later value": Plant(
        "promise overwritten", "delay", "purchases",
        "SELECT p.* REPLACE (coalesce(l.last, p.promised_on) AS promised_on) FROM {h}.purchases p LEFT JOIN (SELECT "
        "po_line_id, max_by(promised_on, known_at) AS last FROM {h}.promises GROUP BY ALL) l USING (po_line_id)",
    ),
    "later promises known when the line was ordered": Plant(
        "promise overwritten", "delay", "promises",
        "SELECT m.* REPLACE (p.ordered_at AS known_at) FROM {h}.promises m JOIN {h}.purchases p USING (po_line_id)",
    ),
    "actual days as an attribute": Plant(
        "written after the outcome", "delay", "purchases",
        f"SELECT p.* REPLACE (CAST(e.on_ - CAST(p.ordered_at AS DATE) AS VARCHAR) AS note) FROM {{h}}.purchases p "
        f"LEFT JOIN {ENDED} e USING (po_line_id)",
    ),
    "final status as an attribute": Plant(
        "written after the outcome", "delay", "purchases",
        "SELECT p.* REPLACE (CASE WHEN cancelled_at IS NOT NULL THEN 'cancelled' WHEN e.n > 0 THEN 'closed' ELSE "
        f"'open' END AS note) FROM {{h}}.purchases p LEFT JOIN {ENDED} e USING (po_line_id)",
    ),
    "recorded date as an attribute": Plant(
        "written after the outcome", "delay", "purchases",
        f"SELECT p.* REPLACE (CAST(e.at AS VARCHAR) AS note) FROM {{h}}.purchases p LEFT JOIN {ENDED} e "
        "USING (po_line_id)",
    ),
    "freight invoiced with the goods added to the cost": Plant(
        "written after the outcome", "delay", "purchases",
        f"SELECT p.* REPLACE (unit_cost * (1 + coalesce(e.n, 0)) AS unit_cost) FROM {{h}}.purchases p "
        f"LEFT JOIN {ENDED} e USING (po_line_id)",
    ),
    "quantity overwritten by what was received": Plant(
        "written after the outcome", "delay", "purchases",
        "SELECT p.* REPLACE (coalesce(g.units, p.quantity) AS quantity) FROM {h}.purchases p LEFT JOIN (SELECT "
        "po_line_id, sum(quantity) / 2 AS units FROM {h}.receipts GROUP BY ALL) g USING (po_line_id)",
    ),
    "delivered lines only": Plant(
        "cohort chosen by outcome", "delay", "purchases",
        "SELECT * FROM {h}.purchases WHERE po_line_id IN (SELECT po_line_id FROM {h}.receipts)",
    ),
    "lines that were never cancelled only": Plant(
        "cohort chosen by outcome", "shift", "orders", "SELECT * FROM {h}.orders WHERE cancelled_at IS NULL"
    ),
    "a revised value in place of the first print": Plant(
        "revised signals", "delay", "signals",
        "SELECT * REPLACE (last_value(value) OVER (PARTITION BY signal, scope, observed_on ORDER BY known_at ROWS "
        "BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS value) FROM {h}.signals",
    ),
    "this week's statistic, published weeks later": Plant(
        "same-week statistics", "delay", "signals",
        "SELECT * REPLACE (CAST(observed_on AS TIMESTAMP) AS known_at) FROM {h}.signals WHERE kind = 'observed'",
    ),
    "a forecast that is what happened": Plant(
        "forecasts trained on actuals", "shift", "signals",
        "SELECT 'outlook' AS signal, 'product:' || product_id || '&site:' || site_id AS scope, CAST(date_trunc('week', "
        "ordered_at) AS DATE) AS observed_on, date_trunc('week', ordered_at) - to_days(28) AS known_at, sum(quantity) "
        "AS value, 'forecast' AS kind FROM {h}.orders GROUP BY ALL",
    ),
    "a plan overwritten by what was sold": Plant(
        "forecasts trained on actuals", "shift", "plan",
        "SELECT product_id, site_id, CAST(date_trunc('week', ordered_at) AS DATE) AS week, date_trunc('week', "
        "ordered_at) - to_days(91) AS known_at, sum(quantity) AS quantity FROM {h}.orders GROUP BY ALL",
    ),
    "a promotion known before anybody planned it": Plant(
        "calendar known after", "shift", "signals",
        "SELECT * REPLACE (least(known_at, observed_on - to_days(120)) AS known_at) FROM {h}.signals "
        "WHERE kind = 'calendar'",
    ),
    "cancellations netted back to the order date": Plant(
        "cancellations netted back", "shift", "orders",
        "SELECT * REPLACE (CASE WHEN cancelled_at IS NULL THEN quantity ELSE 0 END AS quantity) FROM {h}.orders",
    ),
    "products classed by all they ever sold": Plant(
        "today's master data", "shift", "products",
        "SELECT p.* REPLACE ('class ' || coalesce(o.class, 0) AS category) FROM {h}.products p LEFT JOIN (SELECT "
        "product_id, ntile(3) OVER (ORDER BY sum(quantity)) AS class FROM {h}.orders GROUP BY ALL) o "
        "USING (product_id)",
    ),
    "suppliers filed under how many promises they moved": Plant(
        "today's master data", "delay", "suppliers",
        "SELECT s.* REPLACE ('group ' || coalesce(m.n, 0) % 5 AS region) FROM {h}.suppliers s LEFT JOIN (SELECT "
        "supplier_id, count(*) AS n FROM {h}.promises JOIN {h}.purchases USING (po_line_id) GROUP BY ALL) m "
        "USING (supplier_id)",
    ),
}  # fmt: skip


def shown(plant):
    """Return the task's build over facts in which the plant's table is another."""
    build = BUILDS[plant.task][0]

    def careless(con, request, steps):
        ((home,),) = con.execute("SELECT current_schema()").fetchall()
        con.execute("CREATE SCHEMA careless")
        for table in TABLES:
            query = plant.query.format(h=home) if table.name == plant.table else f"FROM {home}.{table.name}"
            con.execute(f"CREATE TABLE careless.{table.name} AS {query}")
        con.execute("SET schema = 'careless'")
        try:
            return build(con, request, steps)
        finally:
            con.execute(f"SET schema = '{home}'; DROP SCHEMA careless CASCADE")

    return careless


def proven(con, build, task, back, **worlds):
    request, key = ask(con, task), BUILDS[task][1]
    steps = [request.grid.size - weeks for weeks in back]
    whole = build(con, request, np.array(sorted(steps)))
    return prove_no_leak(con, build, request, whole, key, steps, **worlds)


@pytest.mark.parametrize("name", PLANTS)
def test_the_prover_catches_a_table_that_shows_too_much(slow_toy, name):
    plant, build = PLANTS[name], shown(PLANTS[name])
    request, key = ask(slow_toy, plant.task), BUILDS[plant.task][1]
    steps = [request.grid.size - weeks for weeks in (22, 30, 41)]
    whole = build(slow_toy, request, np.array(sorted(steps)))
    for worlds in ((DELETED, SCRAMBLED), (MIXED,)):  # of a training, and of a scoring
        with pytest.raises(LeakError, match=r"reads the future|depends on the future"):
            prove_no_leak(slow_toy, build, request, whole, key, steps, worlds=worlds)


HONEST = {
    "as it is": None,
    "receipts posted a day later": Plant(
        "", "delay", "receipts", "SELECT * REPLACE (known_at + to_days(1) AS known_at) FROM {h}.receipts"
    ),
    "promises lost": Plant("", "delay", "promises", "FROM {h}.promises WHERE hash(po_line_id) % 2 = 0"),
    "an attribute from the order": Plant(
        "", "delay", "purchases", "SELECT * REPLACE (CAST(dayofweek(ordered_at) AS VARCHAR) AS note) FROM {h}.purchases"
    ),
    "signals published later": Plant(
        "", "shift", "signals", "SELECT * REPLACE (known_at + to_days(9) AS known_at) FROM {h}.signals"
    ),
    "orders entered later": Plant(
        "", "shift", "orders", "SELECT * REPLACE (known_at + to_days(2) AS known_at) FROM {h}.orders"
    ),
    "products classed by their names": Plant(
        "", "shift", "products", "SELECT * REPLACE ('class ' || hash(product_id) % 3 AS category) FROM {h}.products"
    ),
    "no plan": Plant("", "shift", "plan", "FROM {h}.plan LIMIT 0"),
}


@pytest.mark.parametrize("name", HONEST)
def test_nothing_honest_is_taken_for_a_leak(slow_toy, name):
    for task in BUILDS if HONEST[name] is None else [HONEST[name].task]:
        build = BUILDS[task][0] if HONEST[name] is None else shown(HONEST[name])
        back = (22, 55) if HONEST[name] is None else (33,)
        assert proven(slow_toy, build, task, back, worlds=[DELETED, SCRAMBLED, MIXED])["rows"] > 20


def test_the_catalogue_has_every_kind():
    kinds = {p.kind for p in PLANTS.values()}
    assert kinds == {
        "event time", "promise overwritten", "written after the outcome", "cohort chosen by outcome", "revised signals",
        "same-week statistics", "forecasts trained on actuals", "calendar known after", "cancellations netted back",
        "today's master data",
    }  # fmt: skip
    assert len(PLANTS) == 20
