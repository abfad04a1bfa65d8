"""How demand has moved per product and site, and what is known of the weeks ahead."""

import bottleneck as bn
import numpy as np
import pandas as pd

from features.core import (
    Cells,
    Feature,
    Tile,
    ago,
    names,
    past,
    past_mean,
    past_std,
    past_sum,
    ratio,
    running,
    share,
    steps_since_first,
    weeks_since,
)
from features.demand import Demand
from features.tiles import gather, write_rows


def _to_level(weeks: int) -> Feature:
    return Feature(
        f"units_{weeks}w_to_level",
        lambda p: share(past_mean(p.net, weeks), p.level),
        "ratio",
        f"Mean weekly units of the last {f'{weeks} weeks' if weeks > 1 else 'week'} against the robust recent level.",
        f"sold {{value}} its usual level over the last {f'{weeks} weeks' if weeks > 1 else 'week'}",
        "momentum",
    )


def _momentum(measure: str, of: str, short: int, long: int) -> Feature:
    return Feature(
        f"{measure}_momentum_{short}w_{long}w",
        lambda p: share(past_mean(p[measure], short), past_mean(p[measure], long)),
        "ratio",
        f"Mean of {of} over {short} {'weeks' if short > 1 else 'week'} against that over {long} weeks.",
        f"{of} of the last {f'{short} weeks' if short > 1 else 'week'} are {{value}} those of the last {long}",
        f"{measure} momentum",
    )


def _volatility(weeks: int) -> Feature:
    return Feature(
        f"volatility_{weeks}w",
        lambda p: share(past_std(p.net, weeks, 4), past_mean(p.net, weeks)),
        "ratio",
        f"Standard deviation of weekly units against their mean, {weeks} weeks.",
        f"weekly demand swings by {{value}} its mean over {weeks} weeks, usually {{usual}}",
        "volatility",
    )


def _per(name: str, part: str, whole: str, unit: str, about: str, say: str, family: str, weeks: int = 13) -> Feature:
    return Feature(
        f"{name}_{weeks}w",
        lambda p: share(past_sum(p[part], weeks), past_sum(p[whole], weeks)),
        unit,
        f"{about.rstrip('.')}, {weeks} weeks.",
        say,
        family,
    )


def _last_year(p: Tile) -> Cells:
    return share(ago(past_mean(p.net, 4), 48), ago(past_mean(p.net, 13), 52))


def _wait_change(p: Tile) -> Cells:
    now, usual = (share(past_sum(p.wait_unit_days, w), past_sum(p.asked_units, w)) for w in (4, 52))
    return now - usual


def _concentration_change(p: Tile) -> Cells:
    now, usual = (share(past_sum(p.customer_squares, w), past_sum(p.units_squared, w)) for w in (4, 52))
    return now - usual


def _slope(p: Tile) -> Cells:
    return share(past_mean(p.net, 4) - ago(past_mean(p.net, 4), 4), p.level)


def _price_change(p: Tile) -> Cells:
    now, usual = (share(past_sum(p.value, w), past_sum(p.priced_units, w)) for w in (4, 26))
    return share(now, usual)


def _line_size_change(p: Tile) -> Cells:
    now, usual = (share(past_sum(p.units, w), past_sum(p.lines, w)) for w in (4, 52))
    return share(now, usual)


def _zero_share(p: Tile) -> Cells:
    return 1 - past_mean((p.net > 0) * 1.0, 13)


def _age_weeks(p: Tile) -> Cells:
    return p.net.whole("age", lambda net: np.minimum(steps_since_first(np.maximum(net, 0)), 104))


SERIES_FEATURES = (
    Feature(
        "level", lambda p: p.level, "units per week", "Robust recent weekly demand.",
        "sells {value} units a week, usually {usual}", "level",
    ),
    *(_to_level(w) for w in (1, 2, 4, 8, 26, 52)),
    _momentum("net", "weekly units", 4, 13),
    _momentum("net", "weekly units", 13, 52),
    _momentum("lines", "weekly order lines", 4, 26),
    _momentum("customers", "weekly customers", 4, 26),
    _momentum("category_units", "the category's weekly units", 2, 13),
    _momentum("category_units", "the category's weekly units", 4, 13),
    _momentum("category_units", "the category's weekly units", 4, 26),
    _momentum("product_units", "the product's weekly units at all sites", 1, 13),
    _momentum("product_units", "the product's weekly units at all sites", 4, 13),
    _momentum("site_units", "the site's weekly units", 4, 13),
    Feature(
        "slope_4w", _slope, "share", "Mean of the last 4 weeks less that of the 4 before, against the level.",
        "{value:grew} of its usual level in 4 weeks", "momentum",
    ),
    _volatility(13),
    _volatility(52),
    Feature(
        "interval", lambda p: p.interval, "weeks", "Mean weeks between weeks with demand (ADI), over 52 weeks.",
        "has demand every {value}, usually {usual}", "intermittency",
    ),
    Feature(
        "zero_share_13w", _zero_share, "share", "Share of the last 13 weeks, since the first demand, without demand.",
        "no demand in {value} of the last 13 weeks, usually {usual}", "intermittency",
    ),
    Feature(
        "days_since_order", lambda p: weeks_since(p.lines) * 7, "days",
        "Days since the last week with an order, in whole weeks.", "no order for {value}", "intermittency",
    ),
    Feature(
        "age_weeks", _age_weeks, "weeks", "Weeks since the first demand, at most 104.",
        "sold for {value:to two years}", "age",
    ),
    Feature(
        "last_year_move", _last_year, "ratio", "The coming 4 weeks a year ago against the 13 weeks before them.",
        "a year ago the coming weeks sold {value} the weeks before", "season",
    ),
    Feature(
        "line_size_change", _line_size_change, "ratio", "Units per order line of 4 weeks against 52 weeks.",
        "order lines are {value} their usual size", "order size",
    ),
    Feature(
        "largest_share_13w", lambda p: share(past(bn.move_max, p.largest, 13), past_sum(p.units, 13)), "share",
        "Largest order line of 13 weeks as a share of their units.",
        "the largest order line is {value} of 13 weeks' demand, usually {usual}", "order size",
    ),
    _per(
        "customer_concentration", "customer_squares", "units_squared", "share",
        "Weekly concentration of customers (Herfindahl), weighted by the weeks' squared units; an order without a "
        "customer counts as one of its own.",
        "weekly demand is concentrated at {value} (one customer or order alone is 100 %), usually {usual}", "customers",
    ),
    _per(
        "cancelled_share", "cancelled_units", "units", "share", "Units cancelled per unit ordered.",
        "{value} of the units of 13 weeks were cancelled, usually {usual}", "cancellations",
    ),
    _per(
        "cancelled_share", "cancelled_units", "units", "share", "Units cancelled per unit ordered.",
        "{value} of the units of 4 weeks were cancelled, usually {usual}", "cancellations", weeks=4,
    ),
    Feature(
        "concentration_change", _concentration_change, "share",
        "Weekly concentration of customers of 4 weeks less that of 52 weeks.",
        "the concentration on few customers or orders of 4 weeks is {value:gap} the year's", "customers",
    ),
    Feature(
        "wait_change", _wait_change, "days",
        "Mean days between order and requested day, by units, of 4 weeks less that of 52: buyers who plan ahead.",
        "customers order {value:earlier} than usual", "backlog",
    ),
    Feature(
        "price_change", _price_change, "ratio", "Mean price of 4 weeks against 26 weeks.",
        "the price is {value} the usual", "price",
    ),
    Feature(
        "ahead_to_level", lambda p: share(running(p.ahead_units), p.level), "weeks",
        "Units ordered for a later day, in weeks of the level.",
        "orders for later days cover {value}, usually {usual}", "backlog",
    ),
    Feature(
        "cover_weeks", lambda p: share(p.on_hand, p.level), "weeks", "Latest known stock in weeks of the level.",
        "stock covers {value}, usually {usual}", "stock",
    ),
)  # fmt: skip

WINDOW_FEATURES = (
    Feature(
        "lead_weeks", lambda r: r["lead_weeks"], "weeks", "Weeks from the as-of to the window.",
        "the window starts {value:ahead}", "window",
    ),
    Feature(
        "length_weeks", lambda r: r["length_weeks"], "weeks", "Weeks in the window.",
        "the window lasts {value}", "window",
    ),
    Feature(
        "noise_to_baseline", lambda r: ratio(r["noise_units"], r["baseline_units"]), "ratio",
        "Noise σ of the window against its baseline.",
        "demand swings by {value} what is expected, usually {usual}", "volatility",
    ),
    Feature(
        "noise_value", lambda r: r["noise_units"] * r["unit_price"], "money", "Noise σ of the window in money.",
        "the value of its demand swings by {value}, usually {usual}", "volatility",
    ),
    Feature(
        "naive_z", lambda r: ratio(r["naive_units"] - r["baseline_units"], r["noise_units"]), "standard deviations",
        "Seasonal naive forecast (the window a year ago, else the last weeks) less the baseline, in σ.",
        "the same weeks a year ago (or the last weeks) are {value:z} what is expected", "naive forecast",
    ),
    Feature(
        "naive_spread", lambda r: ratio(r["naive_spread"], r["noise_units"]), "ratio",
        "Root mean square error of past seasonal naive forecasts in σ.",
        "repeating last year's (or the last) weeks misses by {value} the usual swing, usually {usual}",
        "naive forecast",
    ),
    Feature(
        "season", lambda r: ratio(r["baseline_units"], r["level"] * r["length_weeks"]), "ratio",
        "Baseline of the window against the level.", "plan or season puts it at {value} its usual level", "season",
    ),
    Feature(
        "dispersion", lambda r: r["dispersion"], "ratio", "Variance over mean of the category's errors (φ).",
        "the category's demand scatters {value} as much as chance alone would, usually {usual}", "volatility",
    ),
    Feature(
        "last_z", lambda r: r["last_z"], "standard deviations", "Latest matured deviation in σ.",
        "the last window ended {value:z} what was expected", "past errors",
    ),
    Feature(
        "mean_z_8", lambda r: r["mean_z_8"], "standard deviations",
        "Mean deviation in σ of the windows that matured in the last 8 weeks.",
        "the last windows ended {value:z} what was expected on average", "past errors",
    ),
    Feature(
        "tracking_signal", lambda r: r["tracking_signal"], "mean absolute errors",
        "Sum of the errors that matured in the last 8 weeks over their mean absolute size.",
        "recent errors lean one way: tracking signal {value}, usually {usual}", "past errors",
    ),
    Feature(
        "past_up", lambda r: ratio(r["past_up"], r["past_n"]), "share",
        "Share with z ≥ 1.64 of the windows that matured in the last 52 weeks.",
        "surged in {value} of past windows, usually {usual}", "past shifts",
    ),
    Feature(
        "past_down", lambda r: ratio(r["past_down"], r["past_n"]), "share",
        "Share with z ≤ −1.64 of the windows that matured in the last 52 weeks.",
        "dropped in {value} of past windows, usually {usual}", "past shifts",
    ),
    Feature(
        "planned_effect", lambda r: np.exp(r["planned_effect"]), "ratio",
        "What promotions and prices known ahead make of the window's baseline, against their usual.",
        "known promotions and prices make it {value} the usual", "planned events",
    ),
    Feature(
        "recent_effect", lambda r: np.exp(r["recent_effect"]), "ratio",
        "What promotions and prices known ahead have made of the last 4 weeks, against their usual.",
        "known promotions and prices made the last 4 weeks {value} the usual", "planned events",
    ),
    Feature(
        "planned_change", lambda r: np.exp(r["planned_effect"] - r["recent_effect"]), "ratio",
        "What known events make of the window against what they have made of the last 4 weeks.",
        "known promotions and prices make it {value} the last 4 weeks", "planned events",
    ),
    Feature(
        "holidays", lambda r: r["holidays"], "days", "Public holidays in the window.",
        "{value:holidays} in the window", "calendar",
    ),
    Feature(
        "month", lambda r: r["window_month"], "month", "Month of the window's first day.",
        "the window starts in {value:month}", "calendar",
    ),
)  # fmt: skip


def demand_features(data: Demand, rows: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Return float32 [row, feature] of series and window features, in registry order, and their names."""
    registry = (*SERIES_FEATURES, *WINDOW_FEATURES)
    out = np.empty((len(rows), len(registry)), np.float32)
    step, entity = rows["step"].to_numpy(), rows["entity"].to_numpy()
    gather(data.panel, SERIES_FEATURES, [step] * len(SERIES_FEATURES), entity, out)
    columns = [np.asarray(feature.formula(rows), float).astype(np.float32) for feature in WINDOW_FEATURES]
    write_rows([column.__getitem__ for column in columns], out[:, len(SERIES_FEATURES) :])
    return out, names(registry)
