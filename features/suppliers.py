"""How reliable have this supplier, its lane, its item, its category and its region been lately?"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.core import (
    Cells,
    Feature,
    Tile,
    ago,
    each,
    latest,
    past_mean,
    past_std,
    past_sum,
    running,
    share,
    weeks_since,
)

PRIOR_LINES = 8.0  # matured promises that the prior rate weighs; few enough that 8 own lines count as much


def late_share(weeks: int) -> Feature:
    def formula(panel: Tile) -> Cells:
        matured = past_sum(panel.matured_lines, weeks)
        late = past_sum(panel.late_lines, weeks).clip(0, matured)  # a lateness taken back may be older than the window
        return (late + PRIOR_LINES * panel.prior) / (matured + PRIOR_LINES)

    return Feature(
        f"late_share_{weeks}w",
        formula,
        "on-time share",
        f"Share missed of the promises that fell due in the last {weeks} weeks, shrunk towards the level above by "
        f"{PRIOR_LINES:g} lines.",
        f"on time about {{value}} over {weeks} weeks, usually {{usual}}",  # shrunk: no count of lines
        "late share",
    )


def late_trend() -> Feature:
    def formula(panel: Tile) -> Cells:
        return late_share(4).formula(panel) - late_share(52).formula(panel)

    return Feature(
        "late_trend",
        formula,
        "share",
        "Late share of the last 4 weeks less that of the last 52.",
        "its late share of 4 weeks is {value:gap} the year's",
        "late share",
    )


def matured_lines() -> Feature:
    return Feature(
        "matured_lines_52w",
        lambda panel: past_sum(panel.matured_lines, 52),
        "lines",
        "Promises that fell due in the last 52 weeks: the evidence behind the shares.",
        "{value} fell due within a year",
        "evidence",
    )


def last_outcome() -> Feature:
    def formula(panel: Tile) -> Cells:
        due = panel.matured_lines
        missed = running(panel.late_lines)
        before = latest((missed - panel.late_lines).where(due > 0))
        return ((missed - before) / latest(due.where(due > 0))).clip(0, 1)

    return Feature(
        "last_outcome",
        formula,
        "share",
        "Outcome of the last promise that fell due: 1 missed, 0 kept.",
        "the last delivery was {value:outcome}",
        "late share",
    )


def mean_per(
    name: str, part: str, whole: str, weeks: int, unit: str, about: str, say: str, family: str = ""
) -> Feature:
    """Return sum(part) / sum(whole) over `weeks` weeks, missing without any."""
    return Feature(
        f"{name}_{weeks}w",
        lambda panel: share(past_sum(panel[part], weeks), past_sum(panel[whole], weeks)),
        unit,
        about,
        say,
        family,
    )


def days_late(weeks: int) -> Feature:
    return mean_per(
        "days_late", "days_late", "timed_lines", weeks, "days",
        f"Mean days from first promise to completion, of lines completed in the last {weeks} weeks; early is negative.",
        f"delivered {{value:after}} the promise on average over {weeks} weeks, usually {{usual:after}}", "lead time",
    )  # fmt: skip


def lead_days(weeks: int) -> Feature:
    return mean_per(
        "lead_days", "lead_days", "completed_lines", weeks, "days",
        f"Mean days from order to completion, of lines completed in the last {weeks} weeks.",
        f"took {{value}} from order to delivery on average over {weeks} weeks, usually {{usual}}", "lead time",
    )  # fmt: skip


def promised_days(weeks: int) -> Feature:
    return mean_per(
        "promised_days", "promised_days", "promised_lines", weeks, "days",
        f"Mean days from order to first promise, of lines ordered in the last {weeks} weeks.",
        "promises delivery {value} after the order, usually {usual}", "lead time",
    )  # fmt: skip


def lead_drift() -> Feature:
    def formula(panel: Tile) -> Cells:
        return lead_days(8).formula(panel) - lead_days(52).formula(panel)

    return Feature(
        "lead_drift",
        formula,
        "days",
        "Mean lead time of the last 8 weeks less that of the last 52.",
        "its lead times of the last 8 weeks are {value:shorter} than those of the year",
        "lead time",
    )


def lead_spread() -> Feature:
    def formula(panel: Tile) -> Cells:
        mean = lead_days(52).formula(panel)
        square = share(past_sum(panel.lead_days_sq, 52), past_sum(panel.completed_lines, 52))
        return each(lambda a, b: np.sqrt(np.maximum(a - b**2, 0)), square, mean)

    return Feature(
        "lead_spread_52w",
        formula,
        "days",
        "Standard deviation of the lead times of lines completed in the last 52 weeks.",
        "its lead times vary by {value}, usually {usual}",
        "lead time",
    )


def open_lines() -> Feature:
    return Feature(
        "open_lines",
        lambda panel: running(panel.ordered_lines - panel.closed_lines),
        "lines",
        "Lines known and not known complete or cancelled.",
        "{value} open, usually {usual}",
        "backlog",
    )


def open_vs_usual() -> Feature:
    def formula(panel: Tile) -> Cells:
        backlog = open_lines().formula(panel)
        return share(backlog, past_mean(backlog, 52))

    return Feature(
        "open_vs_usual",
        formula,
        "ratio",
        "Open lines against their mean over the last 52 weeks.",
        "its open orders are {value} the usual",
        "backlog",
    )


def overdue_share() -> Feature:
    return Feature(
        "overdue_share",
        lambda panel: share(running(panel.overdue_lines), open_lines().formula(panel)),
        "share",
        "Share of the open lines whose promise has passed.",
        "{value} of its open lines are overdue, usually {usual}",
        "backlog",
    )


def overdue_vs_usual() -> Feature:
    def formula(panel: Tile) -> Cells:
        overdue = running(panel.overdue_lines)
        return share(overdue, past_mean(overdue, 52) + 0.5)

    return Feature(
        "overdue_vs_usual",
        formula,
        "ratio",
        "Overdue lines against half a line more than their mean over the last 52 weeks.",
        "its overdue lines are {value} the usual",
        "backlog",
    )


def weeks_since_receipt() -> Feature:
    return Feature(
        "weeks_since_receipt",
        lambda panel: weeks_since(panel.receipts),
        "weeks",
        "Weeks since anything was received.",
        "nothing received for {value}",
        "recency",
    )


def weeks_since_order() -> Feature:
    return Feature(
        "weeks_since_order",
        lambda panel: weeks_since(panel.ordered_lines),
        "weeks",
        "Weeks since anything was ordered.",
        "nothing ordered for {value}",
        "recency",
    )


def order_surge(measure: str, word: str) -> Feature:
    def formula(panel: Tile) -> Cells:
        usual = ago(past_mean(panel[measure], 48), 4)
        return share(past_mean(panel[measure], 4), usual)

    return Feature(
        f"{word}_surge_4w",
        formula,
        "ratio",
        f"Ordered {word} of the last 4 weeks against the 48 weeks before: the bullwhip at the supplier's door.",
        f"{{value}} the usual {word} ordered from it over 4 weeks",
        "surge",
    )


def pushed_share(weeks: int) -> Feature:
    return mean_per(
        "pushed_share", "pushes", "ordered_lines", weeks, "pushes",
        f"Promise dates pushed back in the last {weeks} weeks, per line ordered in them.",
        f"pushed back {{value:promises}} per line ordered in {weeks} weeks, usually {{usual}}", "pushes",
    )  # fmt: skip


def push_days(weeks: int) -> Feature:
    return mean_per(
        "push_days", "push_days", "pushes", weeks, "days",
        f"Mean days by which a push moved the promise, over the last {weeks} weeks.",
        "pushes a promise back by {value} at a time, usually {usual}", "pushes",
    )  # fmt: skip


def pushes_per_open_line() -> Feature:
    return Feature(
        "pushes_per_open_line",
        lambda panel: share(running(panel.open_pushes), open_lines().formula(panel)),
        "pushes",
        "Pushes so far of the lines that are open, per open line.",
        "has pushed back {value:promises} per open line, usually {usual}",
        "pushes",
    )


def breadth() -> Feature:
    return Feature(
        "products_26w",
        lambda panel: running(panel.products),
        "products",
        "Different products ordered in the last 26 weeks.",
        "{value} ordered from it in 26 weeks, usually {usual}",
        "breadth",
    )


def line_units() -> Feature:
    return mean_per(
        "line_units", "ordered_units", "ordered_lines", 52, "units",
        "Mean units of a line ordered in the last 52 weeks.", "a line has {value} units, usually {usual}", "size",
    )  # fmt: skip


def unit_cost() -> Feature:
    return mean_per(
        "unit_cost", "ordered_value", "costed_units", 52, "money per unit",
        "Mean cost of a unit ordered in the last 52 weeks.", "a unit costs {value}, usually {usual}", "price",
    )  # fmt: skip


def late_volatility() -> Feature:
    def formula(panel: Tile) -> Cells:
        weekly = share(past_sum(panel.late_lines, 4), past_sum(panel.matured_lines, 4))
        return past_std(weekly, 52, at_least=4)

    return Feature(
        "late_volatility_52w",
        formula,
        "share",
        "Standard deviation, over the last 52 weeks, of the late share of four weeks.",
        "its late share swings by {value:points}, usually {usual:points}",
        "late share",
    )


@dataclass(frozen=True, slots=True)
class Level:
    """Whose history: the columns that name the entity, the level whose late share is its prior, and its features.

    `when_ordered` are those of the formulas that are also read at the as-of of the line's order: a queue that a line
    joined weeks ago is what it waits in.
    """

    name: str
    of: str
    keys: tuple[str, ...]
    prior: str
    formulas: tuple[Feature, ...]
    when_ordered: tuple[Feature, ...] = ()

    @property
    def features(self) -> tuple[Feature, ...]:
        then = (f.at(f"{self.name}_when_ordered", f"{self.of} at the time of the order") for f in self.when_ordered)
        return (*(f.at(self.name, self.of) for f in self.formulas), *then)


TREND = (
    late_share(4), late_share(13), late_share(52), days_late(13), lead_drift(), overdue_share(),
    order_surge("ordered_lines", "lines"), pushed_share(4), pushed_share(13), pushes_per_open_line(),
)  # fmt: skip

LEVELS = (
    Level("chain", "the whole chain", (), "", (late_share(4), late_share(13), late_share(52), overdue_share())),
    Level("region", "supplier's region", ("region",), "chain", TREND),
    Level("category", "product category", ("category",), "chain", TREND),
    Level(
        "supplier", "supplier", ("supplier_id",), "chain",
        (
            *(late_share(w) for w in (4, 13, 26, 52)), late_trend(), late_volatility(), matured_lines(), days_late(4),
            days_late(13), days_late(52), lead_days(13), lead_days(52), lead_drift(), lead_spread(), promised_days(52),
            open_lines(), open_vs_usual(), overdue_share(), overdue_vs_usual(), weeks_since_receipt(),
            order_surge("ordered_lines", "lines"), order_surge("ordered_value", "value"), pushed_share(4),
            pushed_share(13), push_days(52), pushes_per_open_line(), breadth(),
        ),
        (order_surge("ordered_lines", "lines"), open_vs_usual(), pushes_per_open_line()),
    ),
    Level(
        "site_supplier", "supplier into this site", ("site_id", "supplier_id"), "supplier",
        (late_share(13), late_share(52), matured_lines(), lead_days(52), weeks_since_order()),
    ),
    Level(
        "supplier_product", "this item at this supplier", ("supplier_id", "product_id"), "supplier",
        (
            late_share(13), late_share(52), matured_lines(), last_outcome(), days_late(52), lead_days(52),
            promised_days(52), line_units(), unit_cost(), weeks_since_order(),
        ),
    ),
)  # fmt: skip


def late_counts(X: pd.DataFrame, level: str, prior: str) -> tuple[np.ndarray, np.ndarray]:
    """Return matured and missed promises of 52 weeks per row, read back out of the shrunk share and its prior."""
    matured = X[f"{level}_matured_lines_52w"].fillna(0).to_numpy(float)
    share, base = X[f"{level}_late_share_52w"].to_numpy(float), X[f"{prior}_late_share_52w"].to_numpy(float)
    late = np.rint(share * (matured + PRIOR_LINES) - PRIOR_LINES * base)
    return matured, np.clip(np.nan_to_num(late), 0, matured)
