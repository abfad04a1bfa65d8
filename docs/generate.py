"""Write the reference pages from the values the code itself uses, so that they cannot say anything else.

`python -m docs.generate` writes them, `python -m docs.generate --check` exits 1 naming the stale ones.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from docs.risk_pages import contract, risk
from features.contracts import EARLIEST, TABLES, YEARS_AHEAD, Column, Table
from features.core import Feature
from features.orders import LINE_FEATURES
from features.recent import RECENT_LEVELS
from features.series import SERIES_FEATURES, WINDOW_FEATURES
from features.signals import AHEAD, AHEAD_CHANGE, LATELY_FEATURES, SIGNAL_FEATURES
from features.standing import FIRST_PRIOR
from features.suppliers import LEVELS, PRIOR_LINES

HERE = Path(__file__).parent
HEAD = "<!-- Written by `make docs` from {source}. Edit that file, not this one. -->\n"
KINDS = {
    "id": "Text or whole numbers; `17850`, a numeric `17850.0` and `'17850'` are the same id. Outer blanks go.",
    "text": "Any text.",
    "date": "A site-local day. As text: `YYYY-MM-DD`; of a longer timestamp the day that is written.",
    "timestamp": "A moment in UTC. As text: `YYYY-MM-DD HH:MM:SS`, with `T`, fractions and an offset (`Z`, `+02:00`) "
    "if you like; a date alone is 00:00. Moments with an offset or a time zone are turned into UTC.",
    "number": "A finite number. As text: with a decimal point, no thousands separators.",
}


def data() -> str:
    """Return docs/data.md: every input table, its columns, what is refused and what follows."""
    head = HEAD.format(source="features/contracts.py and docs/generate.py")
    parts = [head, INTRODUCTION, _contents(), MAPPING, VIEWS, _instead(), HISTORY, _kinds(), REFUSED]
    return "\n".join(parts + [_table(t) for t in TABLES]).rstrip() + "\n"


INTRODUCTION = """# Input tables

bullwhip reads these tables, whichever of them you have: from a folder with `<table>.parquet`, `<table>.csv` or
`<table>.csv.gz`, or a folder `<table>/` of such files of one form, in folders by month too; or from a database with a
table or view of the same name: PostgreSQL, SQLite, a DuckDB file (`duckdb:////path/file.duckdb`), any that SQLAlchemy
has a driver for. Set `data` in `bullwhip.toml`, then try it with `bullwhip check`.

You need `purchases` and `receipts` to predict late deliveries, `orders` to predict demand shifts, or both sides. All
other tables are optional. Columns that are not listed here are kept and do no harm.

**The one rule about time.** Every fact has an event time and a `known_at`, the first moment this pipeline could have
read it. A prediction as of a day uses a fact only if its `known_at` lies before that day. So bring the moment a row
reached the system you read from, not the moment it is about. A later promise, a revised signal, another plan or count
is a new row with its own `known_at`. A corrected line takes the place of the old one: of two versions none is believed.
"""

MAPPING = """## From what you have

The least for late deliveries, here as two CSV files:

```
po_line_id,supplier_id,product_id,site_id,ordered_at,promised_on,quantity,unit_cost
4500017-10,ACME,BOLT-M8,MUNICH,2026-03-02,2026-03-20,500,0.12
4500018-10,ACME,BOLT-M8,MUNICH,2026-03-09,2026-03-27,500,0.12
```

```
po_line_id,received_on,quantity
4500017-10,2026-03-24,500
```

The second line is open: it is what gets a forecast. Bring every line that was ordered, those that are open and those
that were cancelled too. An export of finished lines alone hides the worst ones.
"""
VIEWS = """Are columns named otherwise, or dates and numbers written in another way? A DuckDB file of views maps them
and copies nothing: they read your files each time bullwhip does.

```sql
CREATE OR REPLACE VIEW purchases AS
SELECT "Order" || '-' || "Position" AS po_line_id, "Vendor no." AS supplier_id, "Material" AS product_id,
       "Plant" AS site_id, strptime("Ordered", '%d.%m.%Y') AS ordered_at,
       strptime("Confirmed", '%d.%m.%Y') AS promised_on,
       CAST(replace(replace("Quantity", '.', ''), ',', '.') AS DOUBLE) AS quantity
FROM read_csv('/erp/purchases_*.csv', all_varchar = true, delim = ';', encoding = 'latin-1');

CREATE OR REPLACE VIEW receipts AS
SELECT "Order" || '-' || "Position" AS po_line_id, "Quantity" AS quantity,
       DATE '1899-12-30' + CAST("Posted" AS INTEGER) AS received_on   -- days as Excel counts them
FROM read_csv('/erp/receipts.csv', all_varchar = true);
```

Make the file with DuckDB's own program (`duckdb chain.duckdb < views.sql`) or from Python
(`duckdb.connect("chain.duckdb").execute(open("views.sql").read())`), then set `data = "duckdb:////full/path/chain.duckdb"`.
"""
INSTEAD = {
    "no number of a line": "order and position joined, or anything else that names the same line in every export",
    "no sites, or one": "the same word in every row, such as `main`",
    "a day without a time of day": "the day; if rows are entered later than that, `known_at` too",
    "one promise that is overwritten": "the date first confirmed, from the order confirmation or an earlier export; "
    "without one, the day ordered plus the agreed lead time. The date as it stands today gives the outcome away.",
    "returns and credit notes, as negative quantities": "no row of their own (a negative quantity is set aside): "
    "`cancelled_at` on the line they cancel as a whole, nothing for a part of it. Never take them off the quantity "
    "that was ordered: nobody knew then.",
    "a receipt that was booked and reversed": "neither of the two rows",
    "lines of which a little never comes (weights, lengths, broken packs)": "`cancelled_at` when the rest is closed, "
    "or `short_tolerance` in the settings, such as 0.03; else they stay open, and count as late",
    "an order changed after it was placed": "one row: the promise first confirmed, and the quantity that stands now",
    "orders entered after the goods came": "no `promised_on` on them: a promise before the order is refused",
    "postage, discounts, bookings, tests among the orders": "nothing of them: they are no demand",
    "products that sell once a month or more rarely": "`windows` of several weeks in the settings, such as "
    "`[[0, 13], [13, 13]]`: nothing is said in a window shorter than two gaps between sales",
    "products that hardly ever sell twice": "something coarser as `product_id`, such as the category",
    "orders booked together at the month's end": "the day each was ordered; if nobody knows it, `windows` of 13 weeks: "
    "four weeks may hold one such day or none",
    "totals per week": "one row per product, site and week; `ordered_at` is the first day of the week",
    "several currencies": "money in the one that `currency` names, at the rate of the day of the order",
    "more than one company or system": "one table, with ids that cannot collide: put a prefix before them",
    "data that ends in the past": "`as_of` in `bullwhip.toml`, or `--as-of`, the day after its newest fact",
}
HISTORY = """A year of history is little: until a model has been tried on enough of the past, naive rules speak in its
place. Two or three are better. [examples/](../examples) maps four public data sets in this way.
"""

REFUSED = f"""## What is refused, and what follows

**An error stops every command with exit code 3** and names table, column, what came, what was expected and what to do.
All errors of all tables are named at once:

- a table that is needed is missing, cannot be read, or has no rows, or there are two files for one table;
- a needed column is missing, or a contract column is written in another case (`Quantity`);
- a column has a type that cannot hold such values, or not one of its values can be read;
- more than `max_quarantined` (10 %) of the rows of a table are bad; the second copy of an equal row does not count.

**A bad row is set aside.** It goes to `quarantine/<table>.parquet` in the workspace with its row number, its key, every
reason, and the row as it came; the run goes on without it. For every table, rows read = rows kept + rows set aside.
In any table a row is bad when

- a cell that must be filled is empty (blanks count as empty), or a cell cannot be read as its kind;
- a number is NaN or infinite;
- a day lies before {EARLIEST.year}, a fact after today, or a promise, wish or plan over {YEARS_AHEAD} years ahead;
- its `known_at` lies in the future;
- a line of a CSV file does not split into the cells of its header;
- it equals an earlier row (`duplicate row`: the first stays), or has the key of another row but says something else
  (`duplicate key`: the row known first stays, then the one that comes first).

**Rows that stand or fall together.** A purchase line must never look late because its receipt was set aside. So when
a receipt is bad, its line is set aside too, and with a line all its receipts and promises. Of purchase lines that
contradict each other under one key, none is believed. Duplicates of equal receipts, and receipts of unknown lines,
put no line in doubt.

**A warning changes nothing but is shown**: ids that are not listed in `suppliers`, `products` or `sites` (the rows are
kept), an optional table without rows, a column that looks like a misspelt optional one, orders that look like
weekly totals without `known_at`, orders in such large units that half of them are for less than half a unit, four
weeks more than usual without any order in a chain that has many, purchases none of which has a promised day, a line
for more than a thousand times the others of its product, receipts that seem to count in another unit than the orders,
lines of which nearly all came and then nothing, a product of few orders that holds most of all units, a column that
names several currencies, ids that differ only in capitals, blanks or leading zeros (`0042` and
`42`), monthly signals known as their month begins, days that come as moments with a time zone.
"""


def _contents() -> str:
    keys = {t.name: ", ".join(f"`{k}`" for k in t.key) for t in TABLES}
    rows = [f"| [`{t.name}`](#{t.name}) | {_needed(t)} | {keys[t.name]} | {_first(t.about)} |" for t in TABLES]
    return "\n".join(["| table | needed | one row per | about |", "|---|---|---|---|", *rows, ""])


def _needed(table: Table) -> str:
    sides = {"orders": "for demand shifts", "purchases": "for late deliveries", "receipts": "for late deliveries"}
    return sides.get(table.name, "no")


def _first(text: str) -> str:
    return text.partition(". ")[0].partition(": ")[0].rstrip(".")


def _instead() -> str:
    rows = [f"| {have} | {bring} |" for have, bring in INSTEAD.items()]
    return "\n".join(["| you have | bring |", "|---|---|", *rows, ""])


def _kinds() -> str:
    rows = [f"| {kind} | {about} |" for kind, about in KINDS.items()]
    return "\n".join(["## Kinds of values", "", "| kind | what is read |", "|---|---|", *rows, ""])


def _table(table: Table) -> str:
    lines = [f"## {table.name}", "", table.about, "", f"One row per {' and '.join(f'`{k}`' for k in table.key)}.", ""]
    lines += ["| column | kind | unit | needed | when empty | meaning |", "|---|---|---|---|---|---|"]
    lines += [_column(c) for c in table.columns]
    if refused := [*filter(None, map(_limits, table.columns)), *(r.about for r in table.rules), *_by_comparison(table)]:
        lines += ["", "Rows are also set aside for:", "", *(f"- {r}" for r in refused)]
    return "\n".join([*lines, ""])


def _column(c: Column) -> str:
    needed = "yes" if c.required else "no"
    empty = c.default_about or ("stays empty" if c.nullable else "row refused")
    known = (
        " This cell is known from that moment on, not from `known_at`." if c.known_from == c.name != "known_at" else ""
    )
    listed = f" Listed in [`{c.refers_to}`](#{c.refers_to})." if c.refers_to else ""
    return f"| `{c.name}` | {c.kind} | {c.unit} | {needed} | {empty} | {c.about}{known}{listed} |"


def _limits(c: Column) -> str:
    if c.one_of:
        return f"a `{c.name}` that is not {', '.join(f'`{v}`' for v in c.one_of[:-1])} or `{c.one_of[-1]}`"
    if c.positive:
        return f"a `{c.name}` of zero or less"
    if c.minimum is not None and c.maximum is not None:
        return f"a `{c.name}` outside {c.minimum:g} to {c.maximum:g}"
    return f"a negative `{c.name}`" if c.minimum == 0 else ""


def _by_comparison(table: Table) -> list[str]:
    if table.line:
        own = ["`received_on` on a day before its line's `ordered_at`"] if table.name == "receipts" else []
        return [*own, f"a `{table.line}` that is not in `purchases`", "a purchase line that was set aside"]
    return ["a receipt of this line that was set aside"] if table.name == "purchases" else []


def feature_pages() -> str:
    """Return docs/features.md: every input of the models, its unit and its meaning."""
    source = "features/orders.py, suppliers.py, recent.py, series.py and signals.py"
    delays = [
        _group("The line itself", "What an open purchase-order line tells by itself.", LINE_FEATURES),
        *(_group(_upper(v.of), _whose(v.keys, v.prior), v.features, v.of) for v in LEVELS),
        *(_group(f"{_upper(v.of)}: last lines", LAST_LINES, v.features, v.of) for v in RECENT_LEVELS),
    ]
    each, recent = (
        [f.at("signal_<name>", "signal") for f in features]
        for features in ((*SIGNAL_FEATURES, AHEAD), (*LATELY_FEATURES, AHEAD_CHANGE))
    )
    shifts = [
        _group("Product and site", "How demand of one product at one site has moved.", SERIES_FEATURES),
        _group("Window", "What is known of the weeks that are judged.", WINDOW_FEATURES),
        _group("Signals of late", "What the recent level of demand already holds of a signal.", recent, "signal"),
    ]
    parts = [HEAD.format(source=source), FEATURES, "## Late deliveries", "", *delays, "## Demand shifts", "", *shifts]
    return "\n".join([*parts, "## Both", "", _group("Signals", SIGNALS, each, "signal"), ATTRIBUTES]).rstrip() + "\n"


FEATURES = f"""# Features

Everything the models see. A row is one open purchase-order line as of a day, or one product, site and window of weeks
as of a day. **A row as of a day uses only facts whose `known_at` lies before that day**; weeks are counted back from
it, and a fact counts in the week in which it became known. Every training and every scoring run proves this on a
sample of its own rows: it rebuilds them with all later facts deleted or scrambled, and stops at the first feature that
differs.

Missing means missing: a supplier with nothing received has no lead time, not one of 0. Shares of late promises are
shrunk: they begin at the rate of the level above, which weighs as much as {PRIOR_LINES:g} promises of one's own. In the
reasons that a planner reads they are turned round into shares on time.
"""

LAST_LINES = "What its last lines took, as far as it was known before the day."

SIGNALS = """For each signal of the table [`signals`](data.md#signals): its latest vintage known, of the most specific
scope that names the row. Forecasts and observations make the level, forecasts and calendar rows what is ahead: for a
delivery the next 4 weeks, for a demand shift its window."""

ATTRIBUTES = """### Attributes

Columns of [`purchases`](data.md#purchases) that the settings name under `attributes` become `attribute_<column>`:
numbers if every line has a number there, else categories.
"""


def _group(title: str, about: str, features: Iterable[Feature], of: str = "") -> str:
    """Return a table of features; `of`, whose features they are, is said once in the title."""
    lines = [f"### {title}", "", about, "", "| name | unit | meaning |", "|---|---|---|"]
    for f in features:
        meaning = _upper(f.about.removeprefix(of).removeprefix(":").strip())
        lines.append(f"| `{f.name}` | {f.unit.replace('on-time share', 'share')} | {meaning} |")
    return "\n".join([*lines, ""])


def _upper(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _whose(keys: tuple[str, ...], prior: str) -> str:
    whose = f"Lines of the same {' and '.join(f'`{k}`' for k in keys)}" if keys else "All lines"
    above = f"those of the {prior}" if prior else f"{FIRST_PRIOR:.0%}"
    return f"{whose}; late shares are shrunk towards {above}."


PAGES: Mapping[str, Callable[[], str]] = {
    "data.md": data,
    "features.md": feature_pages,
    "risk.md": risk,
    "contracts/risk.odcs.yaml": contract,
}


def main(arguments: list[str]) -> int:
    """Write every page, or with --check say which are stale."""
    written = {HERE / name: page() for name, page in PAGES.items()}
    stale = [path for path, text in written.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            print(f"docs/{path.relative_to(HERE)} is stale; run make docs", file=sys.stderr)
        return int(bool(stale))
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(written[path], encoding="utf-8")
        print(f"wrote docs/{path.relative_to(HERE)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
