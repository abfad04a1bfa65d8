"""Put the rows of every risk table into one ranked list: the rows of the board."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from models.watchlist import level, said_of
from pipelines.board.reading import Week
from pipelines.board.wording import PAST, WATCH, readable, speaker

DAY = pd.Timedelta(days=1)
WHY = ("driver_1", "driver_2", "driver_3")
TODO = ("owner", "next_step", "act_by", "tier", "change")
MOST = 25_000  # rows that a page carries: three megabytes, which a search goes through in a tenth of a second
FAR = 1.64  # usual gaps by which a series has moved before a reader is told: nine in ten are nearer by chance


def board_rows(week: Week) -> pd.DataFrame:
    """Return one row per published risk of some value, or whose value nobody knows, largest value first.

    What is late already comes after all that can still be prevented. Whole numbers throughout: p in hundredths of a
    percent, money in cents, days from the as-of; missing is NA. A line without a promise carries no probability and is
    left out, and so is what is worth nothing.
    """
    parts = [part for part in (_deliveries(week), _shifts(week)) if len(part)]
    if not parts:
        return pd.DataFrame(columns=["row_id", "kind", "p", "value", "level", "stake", *TODO])
    rows = pd.concat(parts, ignore_index=True)
    rows = rows[rows["p"].notna() & ~(rows["value"].fillna(1) <= 0)]
    rows["level"] = np.where(rows["kind"] == "overdue", "past", level(rows["p"] / 10_000))
    rows = rows.merge(_todo(week), on=["row_id", "table"], how="left")
    rows = rows.assign(past=rows["kind"] == "overdue").sort_values(
        ["past", "value", "stake", "row_id"], ascending=[True, False, False, True], na_position="last"
    )
    return rows.drop(columns="past").reset_index(drop=True)


def carried(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that a page carries, in their order: all, or MOST of very many.

    Those are what somebody is asked to act on, then as many of each kind, its largest first, while it has any left.
    """
    if len(rows) <= MOST:
        return rows
    place = rows.groupby("kind").cumcount().where(rows["owner"].isna(), -1)
    return rows.loc[place.nsmallest(MOST).index.sort_values()].reset_index(drop=True)


def _deliveries(week: Week) -> pd.DataFrame:
    table = week.table("supplier_delay_risk")
    if not len(table):
        return table
    p = table["p_late"]
    return _common(table, "supplier_delay_risk").assign(
        kind=np.where(table["state"] == "already_late", "overdue", "late"), p=_whole(p * 10_000),
        p_before=_whole(table["p_late_last_week"] * 10_000), of=cents(table["open_value"]),
        supplier_id=table["supplier_id"], supplier=table["supplier_name"], site=_site_names(week, table["site_id"]),
        when=_ahead(table["promised_on"], week), till=_ahead(table["promised_on"], week), window=-1,
        low=_whole(table["days_late_p10"]), mid=_whole(table["days_late_p50"]), high=_whole(table["days_late_p90"]),
        usual=_whole(table["open_units"]), moved=pd.NA, stake=(p * table["open_units"]).fillna(0.0),
    )  # fmt: skip


def _shifts(week: Week) -> pd.DataFrame:
    table = week.table("demand_shift_risk")
    if not len(table):
        return table
    up = table["p_up"] >= table["p_down"]
    usual = table["baseline_units"]
    table = table.assign(published_by=said_of(table["published_by"], up))
    return _common(table, "demand_shift_risk").assign(
        kind=np.where(up, "surge", "drop"), p=_whole(table["p_up"].where(up, table["p_down"]) * 10_000),
        p_before=_whole(table["p_up_last_week"].where(up, table["p_down_last_week"]) * 10_000),
        of=cents(usual * table["unit_price"]), supplier_id="", supplier="", site=table["site_name"],
        when=_ahead(table["window_begin"], week), till=_ahead(table["window_end"], week), window=table["window"],
        low=_whole(table["units_p10"]), mid=_whole(table["units_p50"]), high=_whole(table["units_p90"]),
        usual=_whole(usual), moved=_moved(table), stake=0.0,
    )  # fmt: skip


def _moved(table: pd.DataFrame) -> pd.Series:
    """Return by how many percent the last weeks stand from the year before, where that is far."""
    if "moved_z" not in table:  # published before it was told
        return pd.Series(pd.NA, table.index, dtype="Int64")
    return _whole(100 * table["moved_share"]).where(table["moved_z"].abs() >= FAR)


def _common(table: pd.DataFrame, name: str) -> pd.DataFrame:
    kept = table[["row_id", "product_id", "product_name", "site_id", *WHY, "evidence_n"]]
    return kept.rename(columns={"product_name": "product"}).assign(
        table=name, value=cents(table["value_at_risk"]), published_by=_words(table["published_by"], speaker),
        **{column: _words(table[column], readable) for column in WHY},
    )  # fmt: skip


def _words(texts: pd.Series, say: Any) -> pd.Series:
    said = {text: say(text) for text in texts.dropna().unique()}
    return texts.map(said).fillna("")


def cents(amount: pd.Series) -> pd.Series:
    """Return money as whole cents, so that sums are exact."""
    return _whole(amount * 100)


def _whole(values: pd.Series) -> pd.Series:
    return values.astype(float).round().astype("Int64")


def _ahead(days: pd.Series, week: Week) -> pd.Series:
    return ((pd.to_datetime(days) - pd.Timestamp(week.as_of)) / DAY).round().astype("Int64")


def _site_names(week: Week, ids: pd.Series) -> pd.Series:
    shifts = week.table("demand_shift_risk")
    known = dict(zip(shifts["site_id"], shifts["site_name"], strict=True)) if len(shifts) else {}
    return ids.map(lambda site: known.get(site, site)).astype(str)


def _todo(week: Week) -> pd.DataFrame:
    """Return what the watchlist says of a row; a list without rows says nothing."""
    watched = week.table("watchlist")
    if not len(watched):
        return pd.DataFrame(columns=["row_id", "table", *TODO])
    table = np.where(watched["kind"] == "supplier delay", "supplier_delay_risk", "demand_shift_risk")
    return watched[["row_id", *TODO]].assign(
        table=table, act_by=_ahead(watched["act_by"], week), tier=watched["tier"].astype("Int64")
    )


def step_of(row: dict[str, Any]) -> tuple[str, str]:
    """Return who acts and what is done first; a row off the watchlist is watched, one already late is chased."""
    if isinstance(row["owner"], str):
        return row["owner"].capitalize(), row["next_step"]
    return PAST if row["kind"] == "overdue" else WATCH


def records(rows: pd.DataFrame, count: int) -> Iterator[dict[str, Any]]:
    """Return the first rows as plain values, missing as None."""
    head = rows.head(count).astype(object)
    yield from head.where(head.notna(), None).to_dict("records")
