"""One code path from facts to model inputs, for training and scoring alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import duckdb
import numpy as np
import pandas as pd

from features.baseline import WINDOWS, Windows
from features.casting import quote
from features.core import Feature
from features.counts import COUNTED_FOR
from features.demand import Counted, Demand, demand, most_windows, series_windows
from features.exact import NOBODY, Others
from features.orders import LINE_FEATURES, count_open, line_features, new_lines, open_lines
from features.panels import LINE_KEYS, Terms, write_line_events, write_line_history
from features.recent import RECENT_FEATURES, recent_features
from features.sampling import EVERY, Sample
from features.series import SERIES_FEATURES, WINDOW_FEATURES, demand_features
from features.signals import signal_features, signal_of
from features.standing import history
from features.suppliers import LEVELS
from features.threads import pieces, side_by_side
from features.weeks import Grid

DELAY_KEY = ("po_line_id", "as_of")
SHIFT_KEY = ("product_id", "site_id", "window", "as_of")
LINE_REGION, WINDOW_REGION = ("site_region", "region"), ("region",)  # columns a signal's `region:` may name, best last
Features = tuple[Feature, ...]
CHUNK = 4096  # rows put together at a time: they stay in the processor's cache
HISTORY_FEATURES = tuple(f for level in LEVELS for f in level.features)


@dataclass(frozen=True, slots=True)
class Request:
    """What to build: the grid of as-of days, the terms, what settings say of calendar and demand, and which rows."""

    grid: Grid
    terms: Terms
    country: str = ""
    attributes: tuple[str, ...] = ()
    windows: Windows = WINDOWS
    planned_in_baseline: bool = True
    piece: float = 1.0
    sample: Sample = EVERY

    def until(self, step: int) -> "Request":
        """Return the same request with the grid ending at as-of number `step`."""
        day = self.grid.days[step].astype(object)
        return replace(self, grid=Grid(self.grid.start, day, self.grid.step_days))


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Rows of facts as known at each as-of, the inputs X aligned with them, and the features behind X's columns.

    `X` has one float32 block of features; attributes of purchases follow as columns of text or number.
    """

    rows: pd.DataFrame
    X: pd.DataFrame
    features: tuple[Feature, ...]

    def take(self, index: np.ndarray) -> "Matrix":
        return Matrix(
            self.rows.iloc[index].reset_index(drop=True), self.X.iloc[index].reset_index(drop=True), self.features
        )


Build = Callable[[duckdb.DuckDBPyConnection, Request, np.ndarray], Matrix]


@dataclass(frozen=True, slots=True, eq=False)
class Across:
    """What a part of the suppliers needs to know of all lines: the counts of levels that suppliers share, such as
    categories (`features.standing.shared_counts`), and which attributes are numbers."""

    counts: pd.DataFrame
    numbers: Mapping[str, bool]


def delay_matrix(con: duckdb.DuckDBPyConnection, request: Request, steps: np.ndarray) -> Matrix:
    """Return open purchase lines at the as-of days numbered `steps`, one row per line and as-of."""
    write_lines(con, request)
    return lines_matrix(con, request, steps)


def order_matrix(con: duckdb.DuckDBPyConnection, request: Request, steps: np.ndarray) -> Matrix:
    """Return purchase lines as they were ordered on the days numbered `steps`, one row per line; the grid is daily.

    Only the line's own first record is of its day: everything else was known before that day began.
    """
    write_lines(con, request)
    return lines_matrix(con, request, steps, at="order")


def write_lines(con: duckdb.DuckDBPyConnection, request: Request) -> None:
    """Make the tables that `lines_matrix` reads."""
    write_line_history(con, request.terms, request.attributes)
    write_line_events(con, request.grid, request.terms)


def lines_matrix(
    con: duckdb.DuckDBPyConnection, request: Request, steps: np.ndarray, *, at: str = "snapshot",
    across: Across | None = None,
) -> Matrix:  # fmt: skip
    """Return open lines, or with `at` "order" new ones; with `across` they are those of the suppliers in `con`."""
    rows_of = new_lines if at == "order" else open_lines
    rows = rows_of(con, request.grid, request.terms, steps=steps, country=request.country, sample=request.sample)
    counts, numbers = (across.counts, across.numbers) if across else (None, None)
    standing, columns = history(con, rows, request.grid, counts)
    return _line_inputs(con, request, rows, pd.DataFrame(standing, columns=columns, copy=False), numbers)


def line_inputs_of(con: duckdb.DuckDBPyConnection, request: Request) -> Features:
    """Return the features behind the columns of line inputs, in their order."""
    none = pd.DataFrame({c: [] for c in ("step", "as_of", *LINE_KEYS, "site_region")}).astype({"step": int})
    signals = _line_signals(con, none, request.grid)[1]
    return (*LINE_FEATURES, *HISTORY_FEATURES, *RECENT_FEATURES, *signals, *map(_attribute, request.attributes))


def window_inputs_of(con: duckdb.DuckDBPyConnection, request: Request) -> Features:
    """Return the features behind the columns of windows' inputs, in their order."""
    none = pd.DataFrame({c: [] for c in ("step", "as_of", *COUNTED_FOR, "lead_weeks", "length_weeks")})
    signals = _window_signals(con, none.astype({"step": int}), request.grid)[1]
    return (*SERIES_FEATURES, *WINDOW_FEATURES, *signals)


def most_snapshots(con: duckdb.DuckDBPyConnection, request: Request, steps: np.ndarray, task: str, at: str) -> int:
    """Return how many rows there are at most at the days numbered `steps` when no sample is taken."""
    if task == "shift":
        return most_windows(con, request.grid, steps, request.windows)
    if at == "order":
        return int(con.execute("SELECT count(*) FROM purchases").fetchall()[0][0])
    return count_open(con, request.grid, request.terms, steps)


def _line_inputs(
    con: duckdb.DuckDBPyConnection, request: Request, rows: pd.DataFrame, known: pd.DataFrame,
    numbers: Mapping[str, bool] | None = None,
) -> Matrix:  # fmt: skip
    """Return the inputs of `rows`, whose suppliers, lanes and items stand as `known` says; needs `line_history`."""
    prior = known["chain_late_share_52w"].to_numpy(float)
    recent = recent_features(con, rows, request.grid, country=request.country, prior=prior)
    own = line_features(pd.concat([rows, known], axis=1))
    outside, signals = _line_signals(con, rows, request.grid)
    features = (*LINE_FEATURES, *HISTORY_FEATURES, *RECENT_FEATURES, *signals)
    X = _frame((own, known.to_numpy(), recent, outside), features)
    X = _with_attributes(X, rows, attributes_as_numbers(con, request) if numbers is None else numbers)
    return Matrix(rows, X, (*features, *map(_attribute, request.attributes)))


CLOCKS = tuple(f"supplier_{name}" for name in ("pace", "days_since_completion", "silence"))


def lines_alone(con: duckdb.DuckDBPyConnection, request: Request, earlier: Matrix) -> Matrix:
    """Return the lines of `earlier` that are open at the end of the grid, with nothing learnt of anybody since.

    A line's own facts are those that `con` shows: the time it has left, the promise in force. How suppliers, lanes and
    items stand, and for how long a supplier has been silent, is kept from `earlier`: where `con` shows no receipts of
    the days between, everybody would seem to have delivered nothing.
    """
    write_line_history(con, request.terms, request.attributes)
    rows = open_lines(
        con, request.grid, request.terms, steps=np.array([request.grid.size - 1]), country=request.country
    )
    place = pd.Index(earlier.rows["po_line_id"]).get_indexer(rows["po_line_id"])
    rows, place = rows[place >= 0].reset_index(drop=True), place[place >= 0]
    kept = earlier.X.take(place).reset_index(drop=True)
    found = _line_inputs(con, request, rows, kept[[f.name for f in HISTORY_FEATURES]])
    return replace(found, X=found.X.assign(**{name: kept[name] for name in CLOCKS}))


def shift_matrix(
    con: duckdb.DuckDBPyConnection, request: Request, steps: np.ndarray, *, others: Others = NOBODY,
    counted: Counted | None = None,
) -> tuple[Matrix, Demand]:  # fmt: skip
    """Return product × site windows at the as-of days numbered `steps` of a weekly grid, and the demand behind them.

    Where `con` holds some products only, `others` tell what their series share with those elsewhere.
    """
    data = demand(
        con, request.grid, windows=request.windows, oldest=int(min(steps, default=0)),
        planned=request.planned_in_baseline, piece=request.piece, others=others, counted=counted,
    )  # fmt: skip
    rows = series_windows(data, steps, request.country, request.sample)
    block, _ = demand_features(data, rows)
    outside, signals = _window_signals(con, rows, request.grid)
    features = (*SERIES_FEATURES, *WINDOW_FEATURES, *signals)
    return Matrix(rows, _frame((block, outside), features), features), data


def _line_signals(con: duckdb.DuckDBPyConnection, rows: pd.DataFrame, grid: Grid) -> tuple[np.ndarray, Features]:
    return signal_features(con, rows, grid, region=LINE_REGION)


def _window_signals(con: duckdb.DuckDBPyConnection, rows: pd.DataFrame, grid: Grid) -> tuple[np.ndarray, Features]:
    return signal_features(
        con, rows, grid, region=WINDOW_REGION, begin_weeks=rows["lead_weeks"].to_numpy(),
        length_weeks=rows["length_weeks"].to_numpy(), recent=True,
    )  # fmt: skip


def with_signals(con: duckdb.DuckDBPyConnection, matrix: Matrix, grid: Grid) -> Matrix:
    """Return the same rows with their signals as `con` shows them, missing where it shows none; all else stays.

    Of windows only what signals say directly is renewed: what a calendar does to a baseline is in the rows.
    """
    read = _window_signals if "window" in matrix.rows else _line_signals
    block, signals = read(con, matrix.rows, grid)
    X = matrix.X.assign(**{c: np.float32(np.nan) for c in matrix.X if signal_of(c) is not None})
    fresh = _frame((block,), signals)
    return replace(matrix, X=X.assign(**{c: fresh[c].to_numpy() for c in fresh if c in X}))


def with_windows_ahead(request: Request, weeks: int) -> Request:
    """Return a request for the same windows, and for those of `weeks` later after them."""
    later = tuple((lead + weeks, length) for lead, length in request.windows)
    return replace(request, windows=request.windows + later)


def windows_apart(both: Matrix, request: Request, weeks: int) -> tuple[Matrix, Matrix]:
    """Return the windows of `request` among those of `with_windows_ahead`, and the later ones as if they were these.

    The later ones are the same windows moved on: they keep number and lead, as if today were `weeks` later and nothing
    had been learnt since.
    """
    n = len(request.windows)
    moved = (both.rows["window"] >= n).to_numpy()
    ahead = both.take(np.flatnonzero(moved))
    lead = ahead.rows["lead_weeks"] - weeks
    rows = ahead.rows.assign(window=ahead.rows["window"] - n, lead_weeks=lead)
    X = ahead.X.assign(lead_weeks=lead.to_numpy(np.float32))
    return both.take(np.flatnonzero(~moved)), replace(ahead, rows=rows, X=X)


def first_fact(con: duckdb.DuckDBPyConnection, table: str) -> date | None:
    """Return the day of the oldest known_at in a table, None when it is empty."""
    return con.execute(f"SELECT CAST(min(known_at) AS DATE) FROM {table}").fetchall()[0][0]


def _frame(blocks: Sequence[np.ndarray], features: Sequence[Feature]) -> pd.DataFrame:
    """Return the blocks next to each other as one block; what is not finite is missing."""
    values = np.empty((len(blocks[0]), len(features)), np.float32)

    def work(rows: slice) -> None:
        mine = values[rows]
        np.concatenate([block[rows] for block in blocks], axis=1, out=mine)
        mine[~np.isfinite(mine)] = np.nan

    side_by_side(work, pieces(len(values), CHUNK))
    return pd.DataFrame(values, columns=[f.name for f in features], copy=False)


def _attribute(name: str) -> Feature:
    column, words = f"attribute_{name}", name.replace("_", " ").replace("{", "{{").replace("}", "}}")
    about = f"The purchase line's own {name}, as it was ordered."
    return Feature(column, lambda rows: rows[column], "as given", about, f"{words} is {{value}}", column)


def attributes_as_numbers(con: duckdb.DuckDBPyConnection, request: Request) -> dict[str, bool]:
    """Say of each attribute of purchases whether every line known by the grid's end has a number there."""
    cells = [f"bool_and({c} IS NULL OR TRY_CAST({c} AS DOUBLE) IS NOT NULL)" for c in map(quote, request.attributes)]
    known = f"FROM purchases WHERE known_at < DATE '{request.grid.as_of}'"
    found = con.execute(f"SELECT {', '.join(cells)} {known}").fetchall()[0] if cells else ()
    return {name: bool(all_numbers) for name, all_numbers in zip(request.attributes, found, strict=True)}


def _with_attributes(X: pd.DataFrame, rows: pd.DataFrame, numbers: Mapping[str, bool]) -> pd.DataFrame:
    """Add the purchases' attributes, as numbers or as text."""
    for name, is_number in numbers.items():
        given = rows[f"attribute_{name}"]
        cells = pd.to_numeric(given, errors="coerce").astype(np.float32) if is_number else given.astype(object)
        X = X.assign(**{f"attribute_{name}": cells})
    return X
