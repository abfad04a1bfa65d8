"""How demand has moved per product and site, and what is known of the weeks ahead."""

from collections.abc import Sequence
from dataclasses import dataclass

import bottleneck as bn
import duckdb
import numpy as np
import pandas as pd
import xarray as xr

from features.baseline import INTERMITTENT, WINDOWS, Outlook, outlook
from features.core import (
    Feature,
    ago,
    build,
    names,
    over,
    past,
    past_mean,
    past_sum,
    ratio,
    running,
    share,
    weeks_since,
)
from features.panels import counts
from features.weeks import Grid, closed_days, holiday_dates

MEASURES = (
    "units", "value", "priced_units", "lines", "customers", "largest", "customer_squares", "units_squared", "cancelled_units",
    "ahead_units",
)  # fmt: skip
SERIES = ("product_id", "site_id")


def write_demand_events(con: duckdb.DuckDBPyConnection, grid: Grid) -> None:
    """Make the table `demand_events`: orders, cancellations and backlog per step in which they became known."""
    at = grid.sql_index
    con.execute(f"""
CREATE OR REPLACE TABLE demand_events AS
WITH by_customer AS (
  SELECT {at("known_at")} AS step, product_id, site_id, coalesce(customer_id, order_line_id) AS customer, sum(quantity) AS units,
         sum(quantity * unit_price) AS value, sum(quantity) FILTER (unit_price IS NOT NULL) AS priced, count(*) AS lines,
         max(quantity) AS largest
  FROM orders GROUP BY ALL),
changes AS (
  SELECT step, product_id, site_id, sum(units) AS units, sum(value) AS value, sum(priced) AS priced_units, sum(lines) AS lines,
         count(*) AS customers, max(largest) AS largest, sum(units * units) AS customer_squares, sum(units) ** 2 AS units_squared,
         0 AS cancelled_units, 0 AS ahead_units
  FROM by_customer GROUP BY ALL
  UNION ALL SELECT {at("cancelled_at")}, product_id, site_id, 0, 0, 0, 0, 0, 0, 0, 0, sum(quantity), 0
  FROM orders WHERE cancelled_at IS NOT NULL GROUP BY ALL
  UNION ALL SELECT {at("known_at")}, product_id, site_id, 0, 0, 0, 0, 0, 0, 0, 0, 0, sum(quantity)
  FROM orders WHERE requested_on > CAST(known_at AS DATE) GROUP BY ALL
  UNION ALL SELECT {grid.sql_index_of_day("requested_on")}, product_id, site_id, 0, 0, 0, 0, 0, 0, 0, 0, 0, -sum(quantity)
  FROM orders WHERE requested_on > CAST(known_at AS DATE) GROUP BY ALL)
SELECT c.*, coalesce(p.category, '') AS category, coalesce(s.region, '') AS region
FROM changes c LEFT JOIN products p USING (product_id) LEFT JOIN sites s USING (site_id)""")


@dataclass(frozen=True, slots=True)
class Demand:
    """Weekly demand of every series as known: the panel, its series and their outlook.

    `panel` has dims (as_of, entity) with the measures, `net` units and `category_units`, `site_units` of the series'
    category and site; `series` has product_id, site_id, category, region in the panel's entity order.
    """

    grid: Grid
    series: pd.DataFrame
    category: np.ndarray
    panel: xr.Dataset
    outlook: Outlook

    @property
    def price(self) -> np.ndarray:
        """Mean price of a unit over 26 weeks [as_of, series]; 1 where no price was ever known."""
        recent = share(past_sum(self.panel.value, 26), past_sum(self.panel.priced_units, 26)).values
        return np.nan_to_num(bn.push(recent, axis=0), nan=1.0)


def demand(con: duckdb.DuckDBPyConnection, grid: Grid) -> Demand:
    """Return weekly demand on a grid of seven-day steps; `demand_events` is in `con`."""
    counted = counts(con, "demand_events", (*SERIES, "category", "region"), MEASURES, grid)
    series = counted[[*SERIES, "category", "region"]].drop_duplicates().sort_values(list(SERIES)).reset_index(drop=True)
    entity = pd.MultiIndex.from_frame(series[list(SERIES)]).get_indexer(pd.MultiIndex.from_frame(counted[list(SERIES)]))
    dims, attrs = ("as_of", "entity"), {"step_days": grid.step_days}
    panel = xr.Dataset(attrs=attrs)
    for measure in MEASURES:
        dense = np.zeros((grid.size, len(series)))
        np.add.at(dense, (counted["step"].to_numpy(), entity), counted[measure].fillna(0).to_numpy(float))
        panel[measure] = xr.DataArray(dense, dims=dims, attrs=attrs)
    category = pd.factorize(series["category"], sort=True)[0]
    site = pd.factorize(series["site_id"], sort=True)[0]
    net = np.maximum(panel.units.values - panel.cancelled_units.values, 0)
    panel["net"] = over(panel.units, net)
    panel["category_units"] = over(panel.units, _group_total(net, category)[:, category])
    panel["site_units"] = over(panel.units, _group_total(net, site)[:, site])
    panel["on_hand"] = over(panel.units, _on_hand(con, grid, series))
    out = outlook(net, category, _plans(con, grid, series))
    panel["level"], panel["interval"] = over(panel.units, out.level), over(panel.units, out.interval)
    return Demand(grid, series, category, panel, out)


def _group_total(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    total = np.zeros((len(x), group.max(initial=0) + 1))
    np.add.at(total.T, group, x.T)
    return total


def _on_hand(con: duckdb.DuckDBPyConnection, grid: Grid, series: pd.DataFrame) -> np.ndarray:
    """Latest known stock [as_of, series]; missing without a count."""
    found = con.execute(
        f"SELECT product_id, site_id, {grid.sql_index('known_at')} AS step, last(on_hand ORDER BY known_at) AS on_hand "
        f"FROM stock GROUP BY ALL HAVING step < {grid.size}"
    ).df()
    entity = pd.MultiIndex.from_frame(series[list(SERIES)]).get_indexer(pd.MultiIndex.from_frame(found[list(SERIES)]))
    dense = np.full((grid.size, len(series)), np.nan)
    mine = entity >= 0
    dense[found["step"].to_numpy()[mine], entity[mine]] = found["on_hand"].to_numpy()[mine]
    return bn.push(dense, axis=0)


def _plans(con: duckdb.DuckDBPyConnection, grid: Grid, series: pd.DataFrame) -> list[np.ndarray | None]:
    """Plan in force at each origin, summed per window; NaN unless every week of the window is planned."""
    if not con.execute("SELECT count(*) FROM plan").fetchone()[0]:  # type: ignore[index]
        return [None] * len(WINDOWS)
    origins = pd.DataFrame({"step": np.arange(grid.size), "day": grid.days.astype("datetime64[s]")})
    con.register("origins", origins)
    out: list[np.ndarray | None] = []
    for lead, length in WINDOWS:
        found = con.execute(
            f"""SELECT product_id, site_id, step, sum(quantity) AS units FROM (
                  SELECT p.product_id, p.site_id, o.step, p.week, last(p.quantity ORDER BY p.known_at) AS quantity
                  FROM origins o JOIN plan p ON p.known_at < o.day AND p.week >= o.day + INTERVAL {7 * lead} DAY
                   AND p.week < o.day + INTERVAL {7 * (lead + length)} DAY GROUP BY ALL)
                GROUP BY ALL HAVING count(*) = {length}"""
        ).df()
        entity = pd.MultiIndex.from_frame(series[list(SERIES)]).get_indexer(
            pd.MultiIndex.from_frame(found[list(SERIES)])
        )
        dense, mine = np.full((grid.size, len(series)), np.nan), entity >= 0
        dense[found["step"].to_numpy()[mine], entity[mine]] = found["units"].to_numpy()[mine]
        out.append(dense)
    con.unregister("origins")
    return out


def _to_level(weeks: int) -> Feature:
    return Feature(
        f"units_{weeks}w_to_level",
        lambda p: share(past_mean(p.net, weeks), p.level),
        "ratio",
        f"Mean weekly units of the last {weeks} weeks against the robust recent level.",
        f"sells {{value}} its level over {weeks} weeks",
        "momentum",
    )


def _momentum(measure: str, of: str, short: int, long: int) -> Feature:
    return Feature(
        f"{measure}_momentum_{short}w_{long}w",
        lambda p: share(past_mean(p[measure], short), past_mean(p[measure], long)),
        "ratio",
        f"Mean weekly {of} of {short} weeks against {long} weeks.",
        f"{of}: {{value}} the {long}-week mean over the last {short} weeks",
        f"{measure} momentum",
    )


def _volatility(weeks: int) -> Feature:
    return Feature(
        f"volatility_{weeks}w",
        lambda p: share(past(bn.move_std, p.net, weeks, 4), past_mean(p.net, weeks)),
        "ratio",
        f"Standard deviation of weekly units against their mean, {weeks} weeks.",
        f"weekly swings are {{value}} the mean over {weeks} weeks, usually {{usual}}",
        "volatility",
    )


def _per(name: str, part: str, whole: str, unit: str, about: str, say: str, family: str, weeks: int = 13) -> Feature:
    return Feature(
        f"{name}_{weeks}w",
        lambda p: share(past_sum(p[part], weeks), past_sum(p[whole], weeks)),
        unit,
        about,
        say,
        family,
    )


def _last_year(p: xr.Dataset) -> xr.DataArray:
    return share(ago(past_mean(p.net, 4), 48), ago(past_mean(p.net, 13), 52))


def _slope(p: xr.Dataset) -> xr.DataArray:
    return share(past_mean(p.net, 4) - ago(past_mean(p.net, 4), 4), p.level)


def _price_change(p: xr.Dataset) -> xr.DataArray:
    now, usual = (share(past_sum(p.value, w), past_sum(p.priced_units, w)) for w in (4, 26))
    return share(now, usual)


def _line_size_change(p: xr.Dataset) -> xr.DataArray:
    now, usual = (share(past_sum(p.units, w), past_sum(p.lines, w)) for w in (4, 52))
    return share(now, usual)


SERIES_FEATURES = (
    Feature("level", lambda p: p.level, "units per week", "Robust recent weekly demand.",
            "sells {value} a week, usually {usual}", "level"),
    *(_to_level(w) for w in (1, 2, 4, 8, 26, 52)),
    _momentum("net", "units", 4, 13),
    _momentum("net", "units", 13, 52),
    _momentum("lines", "order lines", 4, 26),
    _momentum("customers", "customers", 4, 26),
    _momentum("category_units", "the category", 4, 13),
    _momentum("category_units", "the category", 4, 26),
    _momentum("site_units", "the site", 4, 13),
    Feature("slope_4w", _slope, "ratio", "Last 4 weeks less the 4 before, against the level.",
            "changed by {value} of its level in 4 weeks", "momentum"),
    _volatility(13),
    _volatility(52),
    Feature("interval", lambda p: p.interval, "weeks", "Mean weeks between weeks with demand (ADI).",
            "has demand every {value}, usually {usual}", "intermittency"),
    Feature("zero_share_13w", lambda p: over(p.net, past_mean(over(p.net, (p.net.values <= 0) * 1.0), 13).values), "share",
            "Share of the last 13 weeks without demand.", "no demand in {value} of 13 weeks, usually {usual}", "intermittency"),
    Feature("days_since_order", lambda p: weeks_since(p.lines) * 7, "days", "Days since the last week with an order, in whole weeks.",
            "no order for {value}", "intermittency"),
    Feature("age_weeks", lambda p: over(p.net, np.minimum(np.cumsum(np.maximum.accumulate(p.net.values > 0, axis=0), axis=0), 104)),
            "weeks", "Weeks since the first demand, at most 104.", "known for {value}", "age"),
    Feature("last_year_move", _last_year, "ratio", "The coming 4 weeks a year ago against the 13 weeks before them.",
            "a year ago the next weeks were {value} the level", "season"),
    Feature("line_size_change", _line_size_change, "ratio", "Units per order line of 4 weeks against 52 weeks.",
            "orders are {value} their usual size", "order size"),
    Feature("largest_share_13w", lambda p: share(past(bn.move_max, p.largest, 13), past_sum(p.units, 13)), "share",
            "Largest order line of 13 weeks as a share of their units.", "one order is {value} of 13 weeks, usually {usual}", "order size"),
    _per("customer_concentration", "customer_squares", "units_squared", "share",
         "Weekly concentration of customers (Herfindahl), weighted by the weeks' units.",
         "customer concentration {value}, usually {usual}", "customers"),
    _per("cancelled_share", "cancelled_units", "units", "share", "Units cancelled per unit ordered.",
         "{value} of the units were cancelled, usually {usual}", "cancellations"),
    Feature("price_change", _price_change, "ratio", "Mean price of 4 weeks against 26 weeks.",
            "the price is {value} its usual", "price"),
    Feature("ahead_to_level", lambda p: share(running(p.ahead_units), p.level), "weeks",
            "Units ordered for a later day, in weeks of the level.", "orders ahead cover {value}, usually {usual}", "backlog"),
    Feature("cover_weeks", lambda p: share(p.on_hand, p.level), "weeks", "Latest known stock in weeks of the level.",
            "stock covers {value}, usually {usual}", "stock"),
)  # fmt: skip

WINDOW_FEATURES = (
    Feature("lead_weeks", lambda r: r["lead_weeks"], "weeks", "Weeks from the as-of to the window.",
            "the window starts in {value}", "window"),
    Feature("length_weeks", lambda r: r["length_weeks"], "weeks", "Weeks in the window.", "the window has {value}", "window"),
    Feature("noise_to_baseline", lambda r: ratio(r["noise_units"], r["baseline_units"]), "ratio",
            "Noise σ of the window against its baseline.", "noise is {value} the baseline, usually {usual}", "volatility"),
    Feature("season", lambda r: ratio(r["baseline_units"], r["level"] * r["length_weeks"]), "ratio",
            "Baseline of the window against the level.", "the season makes it {value} the level", "season"),
    Feature("dispersion", lambda r: r["dispersion"], "ratio", "Variance over mean of the category's errors (φ).",
            "category dispersion {value}, usually {usual}", "volatility"),
    Feature("last_z", lambda r: r["last_z"], "standard deviations", "Latest matured deviation in σ.",
            "the last window ended {value:z} off its baseline", "past errors"),
    Feature("mean_z_8", lambda r: r["mean_z_8"], "standard deviations", "Mean deviation in σ of the last 8 matured origins.",
            "the last windows were {value:z} off", "past errors"),
    Feature("tracking_signal", lambda r: r["tracking_signal"], "mean absolute errors",
            "Sum of the last 8 matured errors over their mean absolute size.", "tracking signal {value}, usually {usual}", "past errors"),
    Feature("past_up", lambda r: r["past_up"] / np.maximum(r["past_n"], 1), "share", "Share of the last 52 matured origins with z ≥ 1.64.",
            "surged in {value} of past windows, usually {usual}", "past shifts"),
    Feature("past_down", lambda r: r["past_down"] / np.maximum(r["past_n"], 1), "share",
            "Share of the last 52 matured origins with z ≤ −1.64.", "dropped in {value} of past windows, usually {usual}", "past shifts"),
    Feature("holidays", lambda r: r["holidays"], "days", "Public holidays in the window.",
            "{value:holidays} in the window", "calendar"),
    Feature("month", lambda r: r["window_month"], "month", "Month of the window's first day.",
            "the window starts in {value:month}", "calendar"),
)  # fmt: skip


def series_windows(data: Demand, origins: np.ndarray, country: str = "") -> pd.DataFrame:
    """Return one row per series, origin (index in the grid) and window, of series that had demand in 52 weeks.

    Columns: the series' keys, `step`, `as_of`, the window, and what was known of it: `baseline_units` Σb, `noise_units`
    σ, `unit_price`, `interval`, past deviations, holidays ahead.
    """
    alive = past_sum(data.panel.lines, 52).values > 0
    step, entity = np.nonzero(alive[origins])
    step = np.asarray(origins)[step]
    days = data.grid.days
    closed = holiday_dates(country)
    base = data.series.take(entity).reset_index(drop=True).assign(
        entity=entity, step=step, as_of=days[step].astype("datetime64[s]"), level=data.outlook.level[step, entity],
        interval=data.outlook.interval[step, entity], dispersion=data.outlook.dispersion[step, entity],
        unit_price=data.price[step, entity],
    )  # fmt: skip
    return pd.concat([_one_window(data, base, k, closed) for k in range(len(WINDOWS))], ignore_index=True)


def _one_window(data: Demand, base: pd.DataFrame, k: int, closed: np.ndarray) -> pd.DataFrame:
    lead, length = WINDOWS[k]
    step, entity = base["step"].to_numpy(), base["entity"].to_numpy()
    z, error = data.outlook.z[k], data.outlook.error[k]
    known = ~np.isnan(z)

    def total(x: np.ndarray, weeks: int) -> np.ndarray:
        return bn.move_sum(np.where(known, x, 0.0), window=min(weeks, len(x)), min_count=1, axis=0)[step, entity]

    begin = base["as_of"].to_numpy().astype("datetime64[D]") + np.timedelta64(7 * lead, "D")
    n8 = total(np.ones_like(z), 8)
    return base.assign(
        window=k, lead_weeks=lead, length_weeks=length, baseline_units=data.outlook.units[k][step, entity],
        noise_units=data.outlook.noise[k][step, entity], last_z=np.clip(z[step, entity], -20, 20),
        mean_z_8=np.clip(ratio(total(np.clip(np.nan_to_num(z), -20, 20), 8), n8), -20, 20),
        tracking_signal=ratio(total(np.nan_to_num(error), 8), total(np.abs(np.nan_to_num(error)), 8) / np.maximum(n8, 1)),
        past_up=total((z >= 1.64) * 1.0, 52), past_down=total((z <= -1.64) * 1.0, 52), past_n=total(np.ones_like(z), 52),
        holidays=closed_days(begin, begin + np.timedelta64(7 * length, "D"), closed),
        window_month=pd.DatetimeIndex(begin).month,
    )  # fmt: skip


def demand_features(data: Demand, rows: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Return float32 [row, feature] of series and window features, and their names."""
    table = build(data.panel, SERIES_FEATURES)
    step, entity = rows["step"].to_numpy(), rows["entity"].to_numpy()
    columns = [table[f.name].values[step, entity] for f in SERIES_FEATURES]
    columns += [np.asarray(f.formula(rows), float) for f in WINDOW_FEATURES]
    return np.column_stack(columns).astype(np.float32), names((*SERIES_FEATURES, *WINDOW_FEATURES))


def is_intermittent(interval: Sequence[float] | np.ndarray) -> np.ndarray:
    """Whether series with this mean demand interval have no percentages (DEFINITIONS 2)."""
    return np.asarray(interval) >= INTERMITTENT
