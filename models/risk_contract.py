"""The risk tables as data: keys, columns, units, meanings and allowed values.

Checks, databases and docs come from here. To add a table, write its `Table` below and list it in TABLES.
"""

from types import MappingProxyType

from features.ladder import RUNGS
from models.risk_columns import SHARE, Column, P, Table, count, day, drivers, money, number, share, signed_money, text

SCHEMA_VERSION = "1"

MODEL_VERSION = text("model_version", "The registered version of the model that scored the row.")
PUBLISHED_BY = text("published_by", "Who gave the probability: model, or the name of the naive rule that did better.")
EVIDENCE = count("evidence_n", "How many past cases stand behind the row.", "cases")
SUPPLIER = (
    text("supplier_id", "The supplier."),
    text("supplier_name", "The supplier's name; its id where none is known."),
)
PRODUCT = (text("product_id", "The product."), text("product_name", "The product's name; its id where none is known."))

ADDED = (
    text("publication_id", "The publication the row belongs to: the week and its revision, such as 2026-11-23.r1."),
    Column("as_of", "day", "The day the row is about; only facts known before it were used."),
    text("schema_version", "The version of this contract the row was written under."),
)
"""What publishing itself puts before the columns of every table."""

SUPPLIER_DELAY_RISK = Table(
    "supplier_delay_risk",
    "Which supplier deliveries will be late: every purchase-order line that is open, largest value at risk first.",
    ("row_id",),
    (
        text("row_id", "The row, the same from week to week: the purchase-order line."),
        text("po_line_id", "The purchase-order line."),
        *SUPPLIER,
        *PRODUCT,
        text("site_id", "The site the goods go to."),
        text("category", "The product's category; empty where none is known."),
        text("region", "The supplier's region; empty where none is known."),
        text(
            "state",
            "due_future: the promised day is not past; already_late: it is; no_promise: none was given.",
            ("due_future", "already_late", "no_promise"),
        ),
        day("ordered_on", "The day of the order."),
        day("first_promised_on", "The day first confirmed.", nullable=True),
        day("promised_on", "The day promised as known now.", nullable=True),
        day("need_on", "The day the goods are needed.", nullable=True),
        count("pushes", "How often the promise has moved to a later day.", "times"),
        number("open_units", "What is still to be delivered.", "units"),
        money("open_value", "Open units at the cost agreed.", nullable=True),
        share("p_late", "The probability that the line comes after the promised day; 1 once it has.", P, nullable=True),
        share("p_late_last_week", "p_late of the week published before.", P, nullable=True),
        share("base_rate", "The share of lines like these that came late, all together."),
        *(
            column
            for level in (10, 50, 80, 90)
            for column in (
                day(f"arrival_p{level}", f"The day by which it has arrived with {level} % probability.", nullable=True),
                number(
                    f"days_late_p{level}",
                    f"Days from the promise to arrival_p{level}; negative is early.",
                    "days",
                    nullable=True,
                ),
            )
        ),
        money("value_at_risk", "p_late × open value.", nullable=True),
        *drivers("the probability"),
        EVIDENCE,
        PUBLISHED_BY,
        MODEL_VERSION,
        count("rank", "Place by value at risk.", "place", at_least=1),
    ),
)

DEMAND_SHIFT_RISK = Table(
    "demand_shift_risk",
    "Which demand will shift: every product and site with demand, for every window of weeks ahead.",
    ("row_id",),
    (
        text("row_id", "The row, the same from week to week: product, site and window."),
        *PRODUCT,
        text("site_id", "The site the customers are served from."),
        text("site_name", "The site's name; its id where none is known."),
        text("category", "The product's category; empty where none is known."),
        count("window", "The window's place in the setting `windows`, from 0.", "number"),
        day("window_begin", "The window's first day."),
        day("window_end", "The window's last day."),
        share("p_up", "The probability of a surge: demand of the window at or above up_at_units.", P),
        share("p_down", "The probability of a drop: demand of the window at or below down_at_units.", P),
        share("p_up_last_week", "p_up of the week published before.", P, nullable=True),
        share("p_down_last_week", "p_down of the week published before.", P, nullable=True),
        share("base_rate_up", "The share of windows like these with a surge, all together."),
        share("base_rate_down", "The share of windows like these with a drop, all together."),
        number("baseline_units", "The demand to be expected if nothing shifts.", "units"),
        number("noise_units", "The usual miss of the baseline in a window.", "units"),
        number("down_at_units", "Down to here demand counts as a drop; below 0 it cannot.", "units"),
        number("up_at_units", "From here on demand counts as a surge.", "units"),
        *(
            number(f"units_p{level}", f"The demand that is not exceeded with {level} % probability.", "units")
            for level in (10, 50, 90)
        ),
        number(
            "moved_share",
            "How far the last 2 weeks' demand stands from the year before, known promotions and the category's own "
            "moves taken out: −0.28 is 28 % below. NULL where demand comes now and then or too little is known.",
            SHARE,
            nullable=True,
        ),
        number(
            "moved_z",
            "moved_share in the usual size of such gaps: by chance alone one series in ten is beyond ±1.64.",
            "standard deviations",
            nullable=True,
        ),
        Column("unit_price", "number", "The mean price of a unit.", "currency per unit", minimum=0),
        money(
            "value_at_risk", "Expected money of a shift: p_up × units to P90 above, and p_down × units to P10 below."
        ),
        *drivers("the likelier of the two"),
        EVIDENCE,
        text(
            "published_by", "Who gave the probabilities: model or rule, apart for surges and drops where they differ."
        ),
        MODEL_VERSION,
        count("rank", "Place by value at risk.", "place", at_least=1),
    ),
)

RUNG_ABOUT = dict(
    zip(
        RUNGS,
        (
            "on time with the tolerance agreed",
            "on the first promised day or before",
            "on the requested day or before",
            "in full by the requested day",
            "in full by the requested day, lines cancelled for it counted as failed",
        ),
        strict=True,
    )
)

SUPPLIER_RISK = Table(
    "supplier_risk",
    "Open lines, money and punctuality, summed up by supplier, site, region and category.",
    ("row_id",),
    (
        text("row_id", "The row, the same from week to week: kind and id."),
        text("entity_kind", "What the row sums up.", ("supplier", "site", "region", "category")),
        text("entity_id", "Which supplier, site, region or category."),
        count("open_lines", "Open purchase-order lines.", "lines"),
        money("open_value", "Their open value.", nullable=True),
        count("overdue_lines", "Open lines whose promised day is past.", "lines"),
        money("overdue_value", "The open value of overdue lines.", nullable=True),
        Column("expected_late_lines", "number", "Lines not due yet that are expected to be late.", "lines", minimum=0),
        money("value_at_risk", "The sum of value at risk of the lines.", nullable=True),
        *(
            share(rung, f"Lines matured in the last 13 weeks that came {RUNG_ABOUT[rung]}.", nullable=True)
            for rung in RUNGS
        ),
        count("matured_lines_13w", "Lines whose first promise matured in the last 13 weeks.", "lines"),
        share("on_time_4w", "on_time_promised of the last 4 weeks.", nullable=True),
        Column("trend", "number", "on_time_4w less on_time_promised.", "difference of shares", True, -1, 1),
        MODEL_VERSION,
    ),
)

WATCHLIST = Table(
    "watchlist",
    "What each function works on this week: the largest risks that can still be prevented, as many as fit.",
    ("row_id",),
    (
        count("rank", "Place on the list.", "place", at_least=1),
        text("row_id", "The row of supplier_delay_risk or demand_shift_risk it is about."),
        text("supplier_id", "The supplier, of a supplier delay.", nullable=True),
        text("product_id", "The product."),
        text("site_id", "The site."),
        money("value_at_risk", "As in the row it is about.", nullable=True),
        *drivers("the probability"),
        EVIDENCE,
        PUBLISHED_BY,
        MODEL_VERSION,
        text("kind", "What may happen.", ("supplier delay", "demand surge", "demand drop")),
        text("what", "What it is about, in names."),
        share("p", "The probability that it happens.", P),
        text("level", "The probability as a word: high from 60 %, medium from 30 %.", ("high", "medium", "low")),
        text("impact", "What it would mean, in words."),
        text("owner", "The function that acts.", ("procurement", "logistics", "manufacturing", "sales", "finance")),
        text("next_step", "What to do first."),
        day("act_by", "The last day on which acting prevents it."),
        Column("tier", "integer", "1: as many as the function can work on; 2: the next ones.", "tier", False, 1, 2),
        share("p_last_week", "p of the same risk the week before.", P, nullable=True),
        money("value_at_risk_last_week", "Value at risk of the same risk the week before.", nullable=True),
        text("change", "What has changed since the week before, in words."),
    ),
)

WEEKLY_CHANGE = Table(
    "weekly_change",
    "Why value at risk is another than the week before: every row of either week, its change split into parts that sum "
    "to it, largest change first. Empty where nothing was published before.",
    ("risk", "row_id"),
    (
        text("row_id", "The row of the table that `risk` names."),
        text("risk", "The table it is a row of.", ("supplier_delay_risk", "demand_shift_risk")),
        text("kind", "What may happen.", ("supplier delay", "demand surge", "demand drop")),
        text("supplier_name", "The supplier's name; empty for demand."),
        text("product_name", "The product's name; its id where none is known."),
        text("site_id", "The site."),
        text("status", "new: of this week alone; closed: of last week alone; stays: of both.",
             ("new", "closed", "stays")),
        money("value_last_week", "Value at risk the week before; 0 where the row was not there, NULL where not known.",
              nullable=True),
        money("value_this_week", "Value at risk now; 0 where the row is not there, NULL where not known.",
              nullable=True),
        signed_money("change", "This week's value less last week's, NULL taken as 0: the sum of the parts."),
        signed_money("part_new", "The value of a new row."),
        signed_money("part_closed", "What a closed row takes away."),
        signed_money("part_model", "Another model; with the same version, late facts of earlier weeks or other code."),
        signed_money("part_time", "Time passed: the promise is nearer, or the window has moved on."),
        signed_money("part_promise", "The line's promise moved."),
        signed_money("part_data", "Receipts, purchases, orders, stock and plans known since."),
        signed_money("part_signals", "External signals known since."),
        share("p_last_week", "The probability the week before.", P, nullable=True),
        share("p_this_week", "The probability now.", P, nullable=True),
        Column("left_list", "boolean", "Whether the risk was on last week's watchlist and is not on this one."),
        text("reason", "The largest part in words; of rows that left the watchlist, why."),
    ),
)  # fmt: skip

RULE_FORECASTS = Table(
    "rule_forecasts",
    "What each naive rule says of the same rows, so that anyone can compute the skill of what was published.",
    ("row_id", "event"),
    (
        text("row_id", "The row of supplier_delay_risk or demand_shift_risk."),
        text("event", "What may happen: the delivery is late, demand drops or surges.", ("late", "down", "up")),
        day("due_on", "The day by which it happens or does not."),
        day("matures_on", "The day from which the outcome may be read."),
        share("p_*", "The probability that the rule of that name gives; NULL where it says nothing.", P, nullable=True),
        MODEL_VERSION,
    ),
)

TRACK_RECORD = Table(
    "track_record",
    "Did the warnings come true? Rows scored and what came of them, by tenths of probability.",
    ("row_id",),
    (
        text("row_id", "The row, the same from week to week: task, event, source and bin."),
        text("task", "Which model was judged.", ("delay", "shift")),
        text("event", "What was foretold.", ("late", "down", "up")),
        text("source", "What releases said, or the trial of the model.", ("published", "walk_forward")),
        text("bin", "The tenth of probability by its lower edge, or all.", (*(f"0.{k}" for k in range(10)), "all")),
        share("p_from", "Lower edge of the bin.", P),
        share("p_to", "Upper edge of the bin.", P),
        count("scored", "Rows scored whose outcome is known.", "rows"),
        share("expected_share", "The mean probability given."),
        share("came_true_share", "The share that came true."),
        share("brier", "Brier score: mean squared distance of probability and outcome.", "Brier score"),
        text("rule", "The naive rule with the lowest Brier score over all bins."),
        Column("skill_over_rule", "number", "Brier skill over that rule; above 0 is better.", "skill", True, None, 1),
        Column(
            "skill_over_*", "number", "Brier skill over the rule of that name, on the rows it has a say on.",
            "skill", True, None, 1,
        ),
        count("hits", "Rows that the watchlist showed and that came true.", "rows", nullable=True),
        count("false_alarms", "Rows that the watchlist showed and that did not come true.", "rows", nullable=True),
        count("misses", "Rows that came true unshown.", "rows", nullable=True),
        money("value_hit", "What the hits were worth.", nullable=True),
        money("value_missed", "What the misses were worth.", nullable=True),
        day("first_day", "The first day that was judged."),
        day("last_day", "The last day that was judged."),
        text("model_version", "The models that spoke, the first one first."),
    ),
)  # fmt: skip

HEALTH = Table(
    "health",
    "May the week be trusted? A verdict on every input, model and kind of forecast, what needs doing first.",
    ("row_id",),
    (
        text("row_id", "The row, the same from week to week: area, subject and what was measured."),
        text("area", "What is judged.", ("input", "model", "forecast")),
        text("subject", "The table, the task or the event, in words."),
        text("verdict", "act: do not trust before it is put right; watch: look at it.", ("ok", "watch", "act")),
        text("reason", "Why, in words."),
        number("measured", "What was measured, such as days, a share or a skill.", "as the reason says", nullable=True),
        number("limit", "What it is held against.", "as the reason says", nullable=True),
        Column("last_known_at", "timestamp", "When the newest fact became known, of an input.", nullable=True),
        text("model_version", "The registered version that is judged; empty for an input."),
    ),
)

PUBLICATIONS = Table(
    "publications",
    "The ledger: one row per publication.",
    ("publication_id",),
    (
        text("publication_id", "The publication: the week and its revision."),
        Column("as_of", "day", "The day it is about."),
        count("revision", "1 for the first publication of the week, 2 for its first correction.", "number", at_least=1),
        text("status", "What it was at the time.", ("published", "revised")),
        text("digest", "SHA-256 of the content; equal content has an equal digest."),
        text("rows", "Rows per table, as JSON."),
        text("model_versions", "Version of the model per task, as JSON."),
        text("data_fingerprint", "Fingerprint of the input tables."),
        Column("data_time", "timestamp", "When the newest fact that was read became known.", nullable=True),
        text("code_version", "The version of the code."),
        text("schema_version", "The version of this contract."),
        Column("published_at", "timestamp", "When it was published."),
    ),
)

TABLES = (
    SUPPLIER_DELAY_RISK, DEMAND_SHIFT_RISK, SUPPLIER_RISK, WATCHLIST, WEEKLY_CHANGE, RULE_FORECASTS, TRACK_RECORD,
    HEALTH,
)  # fmt: skip
"""Every risk table, in the order people are told of them."""

BY_NAME = MappingProxyType({table.name: table for table in TABLES})
