"""Describe every input table as data: columns, units, keys, rules, and what a breach does."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Literal

Kind = Literal["id", "text", "date", "timestamp", "number"]

EARLIEST = date(1990, 1, 1)
"""A date before this day is a typing error or a placeholder."""
YEARS_AHEAD = 5
"""A promise, plan or wish further ahead than this is a placeholder such as 9999-12-31."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: what it holds, and which values of it are refused.

    `default` is SQL over the typed columns of the same row and `default_about` says the same in words. `known_from`
    names the column that says when this cell became known; a cancellation is known when it happens, not when the
    order was placed. A column that may lie `ahead` is a wish, promise or plan; any other date is a fact of the past.
    """

    name: str
    kind: Kind
    about: str
    unit: str = ""
    required: bool = True
    nullable: bool = False
    default: str = ""
    default_about: str = ""
    minimum: float | None = None
    maximum: float | None = None
    positive: bool = False
    ahead: bool = False
    one_of: tuple[str, ...] = ()
    refers_to: str = ""
    known_from: str = "known_at"


@dataclass(frozen=True, slots=True)
class Rule:
    """A row for which the SQL predicate `when` is true is quarantined; `shows` is SQL for what came."""

    reason: str
    when: str
    shows: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """One input table. `line` names the column that ties its rows to purchases, `event` the day a row is about."""

    name: str
    about: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    optional: bool = True
    rules: tuple[Rule, ...] = ()
    event: str = ""
    line: str = ""
    all_versions_fall: bool = False

    @property
    def has_history(self) -> bool:
        """Whether its rows say when they became known."""
        return any(c.name == "known_at" for c in self.columns)

    def column(self, name: str) -> Column:
        return next(c for c in self.columns if c.name == name)


@dataclass(frozen=True, slots=True)
class Breach:
    """One way a whole table or column differs from its contract. An error stops the run, a warning does not."""

    severity: Literal["error", "warning"]
    table: str
    column: str
    count: int
    message: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column}: {self.message}" if self.column else f"{self.table}: {self.message}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one table at the door. Always rows = kept + quarantined."""

    table: str
    rows: int = 0
    kept: int = 0
    quarantined: int = 0
    breaches: tuple[Breach, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)
    first_day: date | None = None
    last_day: date | None = None
    weeks: int = 0
    entities: Mapping[str, int] = field(default_factory=dict)
    known_at_latency_p50_hours: float | None = None
    known_at_latency_p95_hours: float | None = None

    @property
    def errors(self) -> tuple[Breach, ...]:
        return tuple(b for b in self.breaches if b.severity == "error")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: days as ISO text, latencies in days."""
        out = asdict(self)
        out["breaches"] = list(out["breaches"])
        for name in ("first_day", "last_day"):
            out[name] = out[name].isoformat() if out[name] else None
        for name in ("p50", "p95"):
            hours = out.pop(f"known_at_latency_{name}_hours")
            out[f"known_at_latency_{name}_days"] = None if hours is None else round(hours / 24, 2)
        return out


class ContractError(Exception):
    """The input does not hold to its contract; `breaches` says every way in which, `verdicts` what was seen."""

    exit_code = 3

    def __init__(self, breaches: tuple[Breach, ...], verdicts: tuple[Verdict, ...] = ()) -> None:
        self.breaches, self.verdicts = breaches, verdicts
        many = f"{len(breaches)} breaches" if len(breaches) > 1 else "1 breach"
        super().__init__(f"the input does not hold to its contract ({many}): " + " · ".join(map(str, breaches)))


# Rules that several tables share. A site's day may begin 14 hours before UTC's: nothing is known earlier than that.


def known_before(day: str, unless: str = "") -> Rule:
    return Rule(
        reason=f"known before {day}",
        when=f"known_at + INTERVAL 14 HOUR < {day}" + (f" AND {unless}" if unless else ""),
        shows=f"'known_at ' || known_at || ', {day} ' || {day}",
        about=f"`known_at` more than 14 hours before the UTC day of `{day}` (a site's day may begin that early)"
        + (" in an `observed` row" if unless else ""),
    )


def known_before_ordered() -> Rule:
    return Rule(
        reason="known before ordered_at",
        when="known_at < date_trunc('day', ordered_at)",
        shows="'known_at ' || known_at || ', ordered_at ' || ordered_at",
        about="`known_at` on a day before `ordered_at`",
    )


def earlier_than_ordered(column: str, verb: str) -> Rule:
    return Rule(
        reason=f"{verb} before ordered",
        when=f"CAST({column} AS DATE) < CAST(ordered_at AS DATE)",
        shows=f"'{column} ' || CAST({column} AS DATE) || ', ordered_at ' || CAST(ordered_at AS DATE)",
        about=f"`{column}` on a day before `ordered_at`",
    )


# Columns that several tables share.


def known_at(about: str, default: str = "", default_about: str = "") -> Column:
    optional = bool(default)
    return Column("known_at", "timestamp", about, "UTC", not optional, optional, default, default_about)


def part_of(master: str, about: str) -> Column:
    return Column(f"{master.removesuffix('s')}_id", "id", about, refers_to=master)


def maybe(name: str, kind: Kind, about: str, unit: str = "", **more: Any) -> Column:
    """Return a column that may be absent and whose cells may be empty."""
    return Column(name, kind, about, unit, required=False, nullable=True, **more)


PRODUCT, SITE = part_of("products", "Which product."), part_of("sites", "At or for which site.")
FIRST_READ = "First moment the pipeline could have read this row."
CANCELLED = maybe(
    "cancelled_at",
    "timestamp",
    "When the rest of the line was cancelled; empty: it was not.",
    "UTC",
    known_from="cancelled_at",
)

ORDERS = Table(
    name="orders",
    about="Customer demand: one row per order line, or one per product, site and week when only totals are kept.",
    key=("order_line_id",),
    columns=(
        Column("order_line_id", "id", "Names the line."),
        PRODUCT,
        SITE,
        Column(
            "ordered_at", "timestamp", "When the customer ordered; of a weekly total the first day of the week.", "UTC"
        ),
        Column("quantity", "number", "Ordered units, before any cancellation.", "units", minimum=0),
        maybe("unit_price", "number", "Net price of one unit.", "currency per unit", minimum=0),
        maybe("customer_id", "id", "Who ordered."),
        maybe("requested_on", "date", "Day the customer wants it.", "local day", ahead=True),
        CANCELLED,
        known_at(FIRST_READ, "ordered_at", "`ordered_at`; of weekly totals the end of the week"),
    ),
    optional=False,
    rules=(known_before_ordered(), earlier_than_ordered("cancelled_at", "cancelled")),
    event="ordered_at",
)
PURCHASES = Table(
    name="purchases",
    about="Purchase-order lines placed with suppliers. A column named under `attributes` in the settings must be a "
    "fact at order time, for example `ship_mode`.",
    key=("po_line_id",),
    columns=(
        Column("po_line_id", "id", "Names the line."),
        part_of("suppliers", "Who delivers."),
        PRODUCT,
        SITE,
        Column("ordered_at", "timestamp", "When the line was placed.", "UTC"),
        Column("promised_on", "date", "Day first confirmed by the supplier, never overwritten by later promises; "
               "empty: no promise.", "local day", nullable=True, ahead=True),
        Column("quantity", "number", "Ordered units.", "units", positive=True),
        maybe("unit_cost", "number", "Price paid for one unit.", "currency per unit", minimum=0),
        maybe("requested_on", "date", "Day the buyer asked for.", "local day", ahead=True),
        maybe("need_on", "date", "Day from which missing it hurts.", "local day", ahead=True),
        CANCELLED,
        maybe("cancelled_by", "text", "Who cancelled; a line its supplier cancelled counts as late, others leave "
              "unjudged when cancelled before the promise.", one_of=("buyer", "supplier"), default_about="buyer",
              known_from="cancelled_at"),
        known_at(FIRST_READ, "ordered_at", "`ordered_at`"),
    ),
    optional=False,
    rules=(
        known_before_ordered(),
        earlier_than_ordered("promised_on", "promised"),
        earlier_than_ordered("cancelled_at", "cancelled"),
    ),
    event="ordered_at",
    all_versions_fall=True,
)  # fmt: skip
RECEIPTS = Table(
    name="receipts",
    about="Goods accepted against purchase lines; a line may have several. Two receipts of a line on one day need a "
    "`receipt_id` each, or their sum in one row.",
    key=("po_line_id", "received_on", "receipt_id"),
    columns=(
        Column("po_line_id", "id", "The purchase line it belongs to."),
        Column("received_on", "date", "Day the goods were accepted.", "local day"),
        maybe("receipt_id", "id", "Tells receipts of one line and day apart."),
        maybe("quantity", "number", "Accepted units.", "units", positive=True, default_about="the whole line"),
        known_at(
            FIRST_READ, "received_on + INTERVAL 1 DAY - INTERVAL 1 MICROSECOND", "the last microsecond of `received_on`"
        ),
    ),
    optional=False,
    rules=(known_before("received_on"),),
    event="received_on",
    line="po_line_id",
)
PROMISES = Table(
    name="promises",
    about="Later promise dates. A new promise is a new row, never an update.",
    key=("po_line_id", "known_at"),
    columns=(
        Column("po_line_id", "id", "The purchase line it belongs to."),
        known_at("When this promise became known."),
        Column("promised_on", "date", "Day promised from then on.", "local day", ahead=True),
        maybe("reason", "text", "Why it moved."),
    ),
    line="po_line_id",
)
SCOPE = "(region|site|supplier|product|category):[^&]+"
SIGNALS = Table(
    name="signals",
    about="Facts from outside as a long table: one value of one signal for one period and scope, in the vintage that "
    "was known at `known_at`. A revision is a new row. Planned prices, promotions and holidays are `calendar` rows, "
    "known before they happen.",
    key=("signal", "scope", "observed_on", "known_at"),
    columns=(
        Column("signal", "id", "Names the series."),
        Column("scope", "id", "What it touches: `*` for everything, `region:BR`, `site:…`, `supplier:…`, `product:…`, "
               "`category:…`, or several joined by `&` (`product:5&site:12`)."),
        Column("observed_on", "date", "First day of the period the value is about.", "local day", ahead=True),
        known_at("When this vintage became known."),
        Column("value", "number", "The value, in the signal's own unit."),
        Column("kind", "text", "How the value came about.", required=False, nullable=True, default="'observed'",
               default_about="`observed`", one_of=("observed", "forecast", "calendar")),
    ),
    rules=(
        known_before("observed_on", unless="kind = 'observed'"),
        Rule(
            "scope is not understood",
            f"scope <> '*' AND NOT regexp_full_match(scope, '{SCOPE}(&{SCOPE})*')",
            "'''' || scope || ''''",
            "a `scope` written in another way",
        ),
    ),
    event="observed_on",
)  # fmt: skip
PLAN = Table(
    name="plan",
    about="The demand forecast in force: planned units per product, site and week, as known at `known_at`.",
    key=("product_id", "site_id", "week", "known_at"),
    columns=(
        PRODUCT,
        SITE,
        Column("week", "date", "First day of the planned week.", "local day", ahead=True),
        known_at("When this plan became known."),
        Column("quantity", "number", "Planned units.", "units per week", minimum=0),
    ),
    event="week",
)
STOCK = Table(
    name="stock",
    about="Stock counts per product and site. A negative count is stock owed.",
    key=("product_id", "site_id", "known_at"),
    columns=(
        PRODUCT,
        SITE,
        known_at("When this count became known."),
        Column("on_hand", "number", "Units on hand.", "units"),
    ),
    event="known_at",
)
BOM = Table(
    name="bom",
    about="Bill of materials: what one unit of the parent is made of.",
    key=("parent_id", "product_id"),
    columns=(
        Column("parent_id", "id", "What is made.", refers_to="products"),
        Column("product_id", "id", "What it is made of.", refers_to="products"),
        Column("quantity_per", "number", "Units of the part in one parent unit.", "units per unit", positive=True),
    ),
    rules=(
        Rule("is made of itself", "parent_id = product_id", "parent_id", "a product that is its own part"),
    ),
)  # fmt: skip


def master(name: str, about: str) -> Table:
    """Return a list of suppliers, products or sites; it has no history, so only lasting facts belong in it."""
    one = name.removesuffix("s")
    return Table(
        name=name,
        about=about,
        key=(f"{one}_id",),
        columns=(
            Column(f"{one}_id", "id", f"Names the {one}."),
            maybe("name", "text", "How people call it."),
            maybe("region", "text", "Region, as in signals' `region:…`."),
            maybe("category", "text", "Category, as in signals' `category:…`."),
            maybe("latitude", "number", "Degrees north.", "degrees", minimum=-90, maximum=90),
            maybe("longitude", "number", "Degrees east.", "degrees", minimum=-180, maximum=180),
            maybe("lead_time_days", "number", "Agreed or usual lead time.", "days", minimum=0),
            maybe("owner", "text", "Person or team that acts on its risks."),
        ),
    )


TABLES = (
    ORDERS,
    PURCHASES,
    RECEIPTS,
    PROMISES,
    SIGNALS,
    PLAN,
    STOCK,
    BOM,
    master("suppliers", "Who delivers: lasting facts about suppliers."),
    master("products", "What is bought and sold: lasting facts about products."),
    master("sites", "Where goods are wanted: lasting facts about warehouses, plants and shops."),
)


def table(name: str) -> Table:
    """Return the contract of this table."""
    return next(t for t in TABLES if t.name == name)
