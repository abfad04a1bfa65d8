"""Count demand per product, site and week as it became known, and cut it into the windows to be judged."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import bottleneck as bn
import duckdb
import numpy as np
import pandas as pd
import xarray as xr

from features.baseline import INTERMITTENT, WINDOWS, Outlook, Windows, outlook
from features.core import Tile, moving_sum, past_sum, ratio, share
from features.counts import MEASURES, weekly_counts
from features.events import events
from features.exact import NOBODY, Others, as_numbers, exact_sums, group_totals
from features.noise import Groups
from features.panels import over_steps
from features.sampling import EVERY, Sample, in_sample, stretches
from features.weeks import Grid, closed_days, holiday_dates

SERIES = ("product_id", "site_id")
MOST = 0.95  # order lines that are whole multiples of a piece
Counted = Callable[[duckdb.DuckDBPyConnection, Grid], tuple[pd.DataFrame, Mapping[str, np.ndarray]]]


@dataclass(frozen=True, slots=True)
class Demand:
    """Weekly demand of every series as known: the panel, its series and their outlook.

    `panel` has dims (as_of, entity) with the measures, `net` units and `category_units`, `site_units`, `product_units`
    of the series' category, site and product; `series` has product_id, site_id, category, region in the panel's order.
    """

    grid: Grid
    series: pd.DataFrame
    panel: xr.Dataset
    outlook: Outlook

    @property
    def price(self) -> np.ndarray:
        """Mean price of a unit over 26 weeks [as_of, series]; 1 where no price was ever known."""
        known = Tile(self.panel)
        recent = share(past_sum(known.value, 26), past_sum(known.priced_units, 26)).values
        return np.nan_to_num(bn.push(recent, axis=0), nan=1.0)


def demand(
    con: duckdb.DuckDBPyConnection, grid: Grid, *, windows: Windows = WINDOWS, oldest: int = 0, planned: bool = True,
    piece: float = 1.0, others: Others = NOBODY, counted: Counted | None = None,
) -> Demand:  # fmt: skip
    """Return weekly demand on a grid of seven-day steps.

    Rows will be asked for from as-of number `oldest` on. Without `planned` the baseline expects nothing of calendars.
    Noise is that of counts of a `piece` of so many units (`piece_of`).
    Where `con` holds some products only, `others` tell what their series share with those elsewhere.
    """
    series, counts = (counted or weekly_counts)(con, grid)
    (category, categories), (site, sites) = _numbered(series, ("category", "site_id"), others)
    product = pd.factorize(series["product_id"])[0]
    net = _net(counts)
    sums = others.told(
        "units", lambda: {"category": exact_sums(net, category, categories), "site": exact_sums(net, site, sites)}
    )
    out = outlook(
        net, Groups(category, product, categories), _plans(con, grid, series, windows), windows=windows,
        events=events(con, grid, series, others) if planned else (), oldest=oldest, piece=piece,
        others=others,
    )  # fmt: skip
    cells = {measure: counts[measure] for measure in MEASURES} | {
        "net": net, "category_units": as_numbers(sums["category"])[:, category],
        "site_units": as_numbers(sums["site"])[:, site], "product_units": group_totals(net, product),
        "on_hand": _on_hand(con, grid, series), "level": out.level, "interval": out.interval,
    }  # fmt: skip
    panel = xr.Dataset({measure: over_steps(found, grid) for measure, found in cells.items()}, attrs={"step_days": 7})
    return Demand(grid, series, panel, out)


def piece_of(con: duckdb.DuckDBPyConnection, as_of: object) -> float:
    """Return the amount that demand known before `as_of` is counted in: 1 unit, or less where orders are for fractions.

    It is the first of 1, 0.1, 0.01, … of which most order lines are whole multiples; beyond the second digit of a usual
    line (their geometric mean), digits are no count but a measurement.
    """
    known = "FROM orders WHERE known_at < ? AND quantity > 0"
    usual = con.execute(f"SELECT avg(log10(quantity)) {known}", [as_of]).fetchall()[0][0] or 0.0
    places = max(1 - math.floor(usual + 1e-9), 0)
    told = "abs({0} - round({0})) <= 1e-6 + 1e-12 * {0}"
    shares = ", ".join(f"avg(CAST({told.format(f'quantity * 1e{k}')} AS INT))" for k in range(places + 1))
    found = con.execute(f"SELECT {shares} {known}", [as_of]).fetchall()[0]
    return 10.0 ** -next((k for k, share in enumerate(found) if share is None or share >= MOST), places)


def _net(counts: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(np.maximum(counts["units"] - counts["cancelled_units"], 0))  # week upon week


def net_units(con: duckdb.DuckDBPyConnection, grid: Grid) -> np.ndarray:
    """Return weekly units without what was cancelled, as known [as_of, series]."""
    return _net(weekly_counts(con, grid)[1])


def _numbered(series: pd.DataFrame, keys: Sequence[str], others: Others) -> list[tuple[np.ndarray, int]]:
    """Return, per key, the number of each series' value among all that there are anywhere, and how many those are."""
    told = others.told("keys", lambda: {key: series[key].value_counts().sort_index() for key in keys})
    return [(told[key].index.get_indexer(series[key]), len(told[key])) for key in keys]


def _place(series: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    """Return the place in `series` of every row's product and site, −1 for none."""
    index, asked = (pd.MultiIndex.from_frame(t[list(SERIES)]) for t in (series, table))
    return index.get_indexer(asked)


def scatter(series: pd.DataFrame, found: pd.DataFrame, row: str, value: str, rows: int, empty: float) -> np.ndarray:
    """Return [row, series] of `value`, given once per `row` number, product and site; `empty` where none is given."""
    out = np.full((rows, len(series)), empty)
    place, at = _place(series, found), found[row].to_numpy(int)
    mine = (place >= 0) & (at < rows)
    out[at[mine], place[mine]] = found[value].to_numpy(float)[mine]
    return out


def _on_hand(con: duckdb.DuckDBPyConnection, grid: Grid, series: pd.DataFrame) -> np.ndarray:
    """Latest known stock [as_of, series]; missing without a count."""
    found = con.execute(
        f"SELECT product_id, site_id, {grid.sql_index('known_at')} AS step, last(on_hand ORDER BY known_at) AS on_hand "
        "FROM stock GROUP BY ALL"
    ).df()
    return bn.push(scatter(series, found, "step", "on_hand", grid.size, np.nan), axis=0)


def _plans(
    con: duckdb.DuckDBPyConnection, grid: Grid, series: pd.DataFrame, windows: Windows
) -> list[np.ndarray | None]:
    """Plan in force at each origin, summed per window; NaN unless every week of the window is planned."""
    if not con.execute("SELECT 1 FROM plan LIMIT 1").fetchall():
        return [None] * len(windows)
    origins = pd.DataFrame({"step": np.arange(grid.size), "day": grid.days.astype("datetime64[s]")})
    con.register("origins", origins)
    out: list[np.ndarray | None] = []
    for lead, length in windows:
        found = con.execute(
            f"""SELECT product_id, site_id, step, sum(quantity ORDER BY week) AS units FROM (
                  SELECT p.product_id, p.site_id, o.step, p.week, last(p.quantity ORDER BY p.known_at) AS quantity
                  FROM origins o JOIN plan p ON p.known_at < o.day AND p.week >= o.day + INTERVAL {7 * lead} DAY
                   AND p.week < o.day + INTERVAL {7 * (lead + length)} DAY GROUP BY ALL)
                GROUP BY ALL HAVING count(*) = {length}"""
        ).df()
        out.append(scatter(series, found, "step", "units", grid.size, np.nan))
    con.unregister("origins")
    return out


def series_windows(data: Demand, origins: np.ndarray, country: str = "", sample: Sample = EVERY) -> pd.DataFrame:
    """Return one row per series, origin (index in the grid) and window, of series that had demand in 52 weeks.

    `sample` leaves series out at an origin, with all their windows; `sampled` is there with one.
    Columns: the series' keys, `step`, `as_of`, the window, and what was known of it: `baseline_units` Σb, `noise_units`
    σ, `unit_price`, `interval`, past deviations, holidays ahead, and how far the series has moved.
    """
    alive = past_sum(Tile(data.panel).lines, 52).values > 0
    step, entity = np.nonzero(alive[origins])
    step, days = np.asarray(origins)[step], data.grid.days
    marks = {}
    if sample.share < 1:
        hashed = pd.util.hash_pandas_object(data.series[list(SERIES)].astype(object), index=False).to_numpy()
        kept = sample.keeps(hashed[entity], days[step])
        step, entity = step[kept], entity[kept]
        marks = {"sampled": in_sample(hashed[entity], days[step], sample.share)}
    closed = holiday_dates(country)
    base = data.series.take(entity).reset_index(drop=True).assign(
        entity=entity, step=step, as_of=days[step].astype("datetime64[s]"), level=data.outlook.level[step, entity],
        interval=data.outlook.interval[step, entity], dispersion=data.outlook.dispersion[step, entity],
        unit_price=data.price[step, entity], moved_share=data.outlook.move.share[step, entity],
        moved_z=data.outlook.move.z[step, entity], **marks,
    )  # fmt: skip
    return pd.concat([_one_window(data, base, k, closed) for k in range(len(data.outlook.windows))], ignore_index=True)


def most_windows(con: duckdb.DuckDBPyConnection, grid: Grid, steps: np.ndarray, windows: Windows) -> int:
    """Return how many rows `series_windows` has at most when no sample is taken: gaps of a year are not looked for."""
    known = grid.sql_index("known_at")
    found = con.execute(
        f"SELECT min({known}) AS opens, max({known}) + 52 AS closes FROM orders WHERE {known} < {grid.size} "
        "GROUP BY product_id, site_id"
    ).fetchnumpy()
    opens, closes = (np.asarray(found[edge], np.int64) for edge in ("opens", "closes"))
    return len(windows) * int(stretches(opens, closes, np.unique(steps), grid.size)[1].sum())


def _one_window(data: Demand, base: pd.DataFrame, k: int, closed: np.ndarray) -> pd.DataFrame:
    lead, length = data.outlook.windows[k]
    step, entity = base["step"].to_numpy(), base["entity"].to_numpy()
    z, error = data.outlook.z[k], data.outlook.error[k]
    known = ~np.isnan(z)

    def total(x: np.ndarray, weeks: int) -> np.ndarray:
        return moving_sum(np.where(known, x, 0.0), weeks)[step, entity]

    naive, spread = data.outlook.naive[k]
    begin = base["as_of"].to_numpy().astype("datetime64[D]") + np.timedelta64(7 * lead, "D")
    clipped = np.clip(np.nan_to_num(z), -20, 20)
    one = np.ones_like(z)
    n8 = total(one, 8)
    return base.assign(
        window=k, lead_weeks=lead, length_weeks=length, baseline_units=data.outlook.units[k][step, entity],
        noise_units=data.outlook.noise[k][step, entity], last_z=np.clip(z[step, entity], -20, 20),
        mean_z_8=ratio(total(clipped, 8), n8),
        tracking_signal=ratio(total(error, 8), total(np.abs(error), 8) / np.maximum(n8, 1)),
        past_up=total((z >= 1.64) * 1.0, 52), past_down=total((z <= -1.64) * 1.0, 52), past_n=total(one, 52),
        planned_effect=data.outlook.planned[k][step, entity], recent_effect=data.outlook.recent[step, entity],
        naive_units=naive[step, entity], naive_spread=spread[step, entity],
        holidays=closed_days(begin, begin + np.timedelta64(7 * length, "D"), closed),
        window_month=pd.DatetimeIndex(begin).month,
    )  # fmt: skip


def is_intermittent(interval: Sequence[float] | np.ndarray) -> np.ndarray:
    """Whether series with this mean demand interval have no percentages (DEFINITIONS 2)."""
    return np.asarray(interval) >= INTERMITTENT
