"""What was published before, held by hand against what became of it, and recomputed from the published files."""

from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import pairwise

import duckdb
import numpy as np
import pandas as pd
import pytest

from models.record import READS, by_bin, judged_forecasts, track_record
from models.risk_contract import BY_NAME
from pipelines import publish

AS_OF = pd.Timestamp("2024-03-04")
WEEK = pd.Timestamp("2024-01-08")
PURCHASES = """
    po_line_id  supplier_id  product_id  site_id  ordered_at  promised_on  quantity  cancelled_at      cancelled_by
    kept        acme         soap        north    2024-01-02  2024-02-01   10        -                 -
    late        acme         soap        north    2024-01-02  2024-02-01   10        -                 -
    never       acme         soap        north    2024-01-02  2024-02-01   10        -                 -
    unposted    acme         soap        north    2024-01-02  2024-02-20   10        -                 -
    immature    acme         soap        north    2024-01-02  2024-03-03   10        -                 -
    gone        acme         soap        north    2024-01-02  2024-02-01   10        2024-01-31T09:00  -
    gone_after  acme         soap        north    2024-01-02  2024-02-01   10        2024-02-09T09:00  -
    dropped     acme         soap        north    2024-01-02  2024-02-01   10        2024-01-31T09:00  supplier
    later_gone  acme         soap        north    2024-01-02  2024-02-20   10        2024-03-09T09:00  -
"""
RECEIPTS = """
    po_line_id  received_on  known_at
    kept        2024-02-01   2024-02-02
    late        2024-02-02   2024-02-03
    unposted    2024-02-19   2024-03-04
    immature    2024-02-28   2024-02-29
    gone_after  2024-02-10   2024-02-11
"""
DAY = pd.Timedelta(days=1)


def table(text):
    """Read an aligned ASCII table; `-` is missing, what looks like a number is one."""
    head, *rows = [line.split() for line in text.strip().splitlines()]
    frame = pd.DataFrame([[None if cell == "-" else cell for cell in row] for row in rows], columns=head)
    for name in frame:
        if frame[name].dropna().str.fullmatch(r"-?\d+(\.\d+)?").all():
            frame[name] = frame[name].astype(float)
        elif name.endswith("_on") or name == "as_of":
            frame[name] = pd.to_datetime(frame[name])
    return frame


def delays(lines, due="2024-02-01", lag=1, as_of=WEEK, p=0.35, watched=(), value=100.0, **rules):
    """Return what one week published of open lines: the risk rows, the rules' say and the watchlist."""
    rules = {f"p_{name}": said for name, said in (rules or {"climatology": 0.25}).items()}
    ids = pd.DataFrame({"row_id": lines}).assign(as_of=as_of)
    due_on = pd.Timestamp(due)
    return {
        "supplier_delay_risk": ids.assign(po_line_id=lines, p_late=p, open_value=value),
        "rule_forecasts": ids.assign(
            event="late", due_on=due_on, matures_on=due_on + lag * DAY, model_version="1", **rules
        ),
        "watchlist": pd.DataFrame({"row_id": list(watched)}, dtype=str).assign(as_of=as_of, kind="supplier delay"),
    }


def weeks(*published):
    """Return the history of several weeks."""
    return {name: pd.concat([week[name] for week in published], ignore_index=True) for name in published[0]}


@pytest.fixture
def supply(facts):
    return facts(purchases=PURCHASES, receipts=RECEIPTS)


# Late deliveries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "due", "came_true"), [
    ("kept", "2024-02-01", 0.0),
    ("late", "2024-02-01", 1.0),
    ("late", "2024-02-02", 0.0),  # held against the promise that stood when it was published
    ("never", "2024-02-01", 1.0),
    ("unposted", "2024-02-20", 1.0),  # its receipt was not known yet
    ("gone_after", "2024-02-01", 1.0),
    ("dropped", "2024-02-01", 1.0),
    ("later_gone", "2024-02-20", 1.0),  # that its buyer cancels it is not known yet
])  # fmt: skip
def test_a_warning_comes_true_when_the_line_was_not_complete_by_its_promise(supply, line, due, came_true):
    assert judged_forecasts(supply, AS_OF, delays([line], due))["y"].tolist() == [came_true]


@pytest.mark.parametrize(("line", "low", "high", "inside"), [
    ("kept", "2024-01-20", "2024-02-01", 1.0),
    ("late", "2024-01-20", "2024-02-01", 0.0),
    ("late", "2024-02-03", "2024-02-09", 0.0),
    ("never", "2024-01-20", "2024-02-01", 0.0),
    ("never", "2024-01-20", "2024-03-04", np.nan),  # it may still come in time
])  # fmt: skip
def test_a_band_holds_where_the_line_came_inside_it(supply, line, low, high, inside):
    history = delays([line])
    risks = history["supplier_delay_risk"].assign(arrival_p10=pd.Timestamp(low), arrival_p90=pd.Timestamp(high))
    judged = judged_forecasts(supply, AS_OF, history | {"supplier_delay_risk": risks})
    np.testing.assert_array_equal(judged["inside"], [inside])


@pytest.mark.parametrize(("line", "more"), [
    ("immature", {"due": "2024-03-04"}),  # the promise has passed, the posting lag has not
    ("gone", {}),
    ("unknown", {}),
    ("kept", {"as_of": AS_OF}),  # this week's own release
    ("kept", {"as_of": AS_OF - 40 * 7 * DAY}),  # too long ago
])  # fmt: skip
def test_what_cannot_be_judged_is_left_out(supply, line, more):
    assert len(judged_forecasts(supply, AS_OF, delays([line], **more))) == 0


def test_a_receipt_posted_late_turns_late_into_on_time_and_a_late_cancellation_takes_the_line_out(supply):
    history = delays(["unposted", "later_gone"], "2024-02-20")
    assert judged_forecasts(supply, AS_OF, history)["y"].tolist() == [1.0, 1.0]
    assert judged_forecasts(supply, AS_OF + DAY, history)["y"].tolist() == [0.0, 1.0]
    supply.execute("UPDATE purchases SET cancelled_at = '2024-02-19' WHERE po_line_id = 'later_gone'")
    later = judged_forecasts(supply, AS_OF + 7 * DAY, history)
    assert later["row_id"].tolist() == ["unposted"]


def test_a_line_short_within_tolerance_is_complete(facts):
    con = facts(
        purchases=PURCHASES,
        receipts="""
        po_line_id  received_on  quantity  known_at
        kept        2024-02-01   9         2024-02-02
        """,
    )
    assert judged_forecasts(con, AS_OF, delays(["kept"]))["y"].tolist() == [1.0]
    assert judged_forecasts(con, AS_OF, delays(["kept"]), short_tolerance=0.1)["y"].tolist() == [0.0]


# Demand shifts --------------------------------------------------------------------------------------------------------

ORDERS = """
    order_line_id  product_id  site_id  ordered_at        quantity  cancelled_at      known_at
    before         soap        north    2024-01-07T23:59  100       -                 2024-01-07T23:59
    first          soap        north    2024-01-08T00:00  10        -                 2024-01-08T00:00
    elsewhere      soap        south    2024-01-09T00:00  100       -                 2024-01-09T00:00
    last           soap        north    2024-02-04T23:59  5         -                 2024-02-04T23:59
    after          soap        north    2024-02-05T00:00  100       -                 2024-02-05T00:00
    in_time        soap        north    2024-01-15T00:00  40        2024-02-04T12:00  2024-01-15T00:00
    in_the_lag     soap        north    2024-01-15T00:00  20        2024-02-05T12:00  2024-01-15T00:00
    too_late       soap        north    2024-01-15T00:00  3         2024-02-06T00:00  2024-01-15T00:00
    posted_late    soap        north    2024-01-16T00:00  500       -                 2024-03-05T00:00
"""
UNITS = 10 + 5 + 3  # with a lag of one day
END = pd.Timestamp("2024-02-04")


def shifts(up_at=100.0, down_at=-1.0, product="soap", watched=()):
    ids = pd.DataFrame({"row_id": [f"{product}|north|w0"], "as_of": WEEK})
    said = [
        ids.assign(event=e, due_on=END, matures_on=END + 2 * DAY, model_version="1", p_climatology=0.1)
        for e in ("down", "up")
    ]
    series = ids.assign(
        product_id=product, site_id="north", window_begin=WEEK, window_end=END, p_up=0.25, p_down=0.55,
        up_at_units=float(up_at), down_at_units=float(down_at), baseline_units=50.0, unit_price=2.0,
    )  # fmt: skip
    watch = pd.DataFrame({"kind": list(watched)}, dtype=str).assign(row_id=ids["row_id"].iloc[0], as_of=WEEK)
    return {"demand_shift_risk": series, "rule_forecasts": pd.concat(said, ignore_index=True), "watchlist": watch}


def came(con, history, as_of=AS_OF):
    judged = judged_forecasts(con, as_of, history)
    return dict(zip(judged["event"], judged["y"], strict=True)) if len(judged) else {}


@pytest.mark.parametrize(("up_at", "down_at", "up", "down"), [
    (UNITS, 0, 1, 0), (UNITS + 0.5, UNITS - 0.5, 0, 0), (99, UNITS, 0, 1), (99, -1, 0, 0),
])  # fmt: skip
def test_a_window_counts_what_was_ordered_in_it_and_not_cancelled_before_it_matured(facts, up_at, down_at, up, down):
    assert came(facts(orders=ORDERS), shifts(up_at, down_at)) == {"up": up, "down": down}


def test_an_order_entered_late_counts_once_it_is_known(facts):
    con = facts(orders=ORDERS)
    assert came(con, shifts(up_at=500)) == {"up": 0, "down": 0}
    assert came(con, shifts(up_at=500), AS_OF + 7 * DAY) == {"up": 1, "down": 0}


def test_a_window_without_orders_sold_nothing(facts):
    assert came(facts(orders=ORDERS), shifts(product="salt", down_at=0)) == {"up": 0, "down": 1}


def test_a_window_is_judged_once_its_entry_lag_is_over(facts):
    con = facts(orders=ORDERS)
    assert came(con, shifts(), pd.Timestamp("2024-02-05")) == {}
    assert set(came(con, shifts(), pd.Timestamp("2024-02-06"))) == {"up", "down"}


STOCK = """
    product_id  site_id  known_at    on_hand
    soap        north    {empty}     0
    soap        north    {full}      50
"""


@pytest.mark.parametrize(("empty", "full", "known"), [
    ("2024-01-20", "2024-01-22", False), ("2024-01-01", "2024-01-09", False), ("2024-01-01", "2024-01-08", True),
    ("2024-02-05", "2024-02-09", True), ("2024-01-20", "2025-01-01", False),
])  # fmt: skip
def test_a_drop_in_a_window_without_stock_is_not_known(facts, empty, full, known):
    con = facts(orders=ORDERS, stock=STOCK.format(empty=empty, full=full))
    assert len(came(con, shifts(down_at=50))) == (2 if known else 0)
    assert came(con, shifts(up_at=5)) == {"up": 1, "down": 0}  # what sold is a lower bound


def whole_of(con, history):
    return {row["event"]: row for row in by_bin(judged_forecasts(con, AS_OF, history)) if row["bin"] == "all"}


def test_a_shift_costs_what_its_units_are_off_by_and_is_flagged_in_its_own_direction(facts):
    con = facts(orders=ORDERS)
    rows = whole_of(con, shifts(down_at=50, watched=["demand drop"]))
    assert (rows["down"]["hits"], rows["down"]["value_hit"]) == (1, (50 - UNITS) * 2)
    assert (rows["up"]["hits"], rows["up"]["false_alarms"], rows["up"]["misses"]) == (0, 0, 0)
    wrong = whole_of(con, shifts(down_at=50, watched=["demand surge"]))
    assert {event: (row["misses"], row["false_alarms"]) for event, row in wrong.items()} == {
        "down": (1, 0),
        "up": (0, 1),
    }


# Bins -----------------------------------------------------------------------------------------------------------------

JUDGED = table("""
    event  p     y  p_flat  p_wise  flagged  value  day_on
    late   0.30  0  0.25    0.2     0        10     2024-01-01
    late   0.35  1  0.25    0.4     1        20     2024-01-08
    late   0.39  1  0.25    -       0        40     2024-01-08
    late   0.81  1  0.25    0.9     1        -      2024-01-15
    late   1.00  0  0.25    0.9     1        80     2024-01-15
""").rename(columns={"day_on": "day"})


def test_tenths_of_probability_and_the_whole_are_counted_by_hand():
    rows = {row["bin"]: row for row in by_bin(JUDGED)}
    assert list(rows) == ["all", "0.3", "0.8", "0.9"]
    low, whole = rows["0.3"], rows["all"]
    assert (low["p_from"], low["p_to"], whole["p_from"], whole["p_to"]) == (0.3, 0.4, 0.0, 1.0)
    assert [rows[b]["scored"] for b in rows] == [5, 3, 1, 1]
    assert low["expected_share"] == pytest.approx((0.3 + 0.35 + 0.39) / 3)
    assert low["came_true_share"] == pytest.approx(2 / 3)
    brier = (0.3**2 + 0.65**2 + 0.61**2) / 3
    assert low["brier"] == pytest.approx(brier)
    assert low["skill_over_flat"] == pytest.approx(1 - brier / ((0.25**2 + 2 * 0.75**2) / 3))
    assert low["skill_over_wise"] == pytest.approx(1 - (0.3**2 + 0.65**2) / (0.2**2 + 0.6**2))  # where it had a say
    assert {row["rule"] for row in rows.values()} == {"wise"}
    assert low["skill_over_rule"] == low["skill_over_wise"]
    assert [(r["hits"], r["false_alarms"], r["misses"]) for r in rows.values()] == [
        (2, 1, 1), (1, 0, 1), (1, 0, 0), (0, 1, 0),
    ]  # fmt: skip
    assert [(r["value_hit"], r["value_missed"]) for r in rows.values()] == [
        (20, 40), (20, 40), (None, None), (None, None),
    ]  # fmt: skip
    assert (whole["first_day"], whole["last_day"]) == ("2024-01-01", "2024-01-15")


def test_bins_do_not_depend_on_the_order_of_rows_and_tenths_add_up_to_the_whole():
    rng = np.random.default_rng(3)
    n = 3_000
    judged = pd.DataFrame({
        "event": rng.choice(["late", "up", "down"], n), "p": rng.random(n).round(6), "p_flat": rng.random(n),
        "flagged": rng.random(n) < 0.2, "value": rng.random(n) * 1e4, "day": WEEK,
    }).assign(y=lambda d: (rng.random(n) < d["p"]) * 1.0)  # fmt: skip
    rows = by_bin(judged)
    assert by_bin(judged.sample(frac=1, random_state=1)) == rows
    frame = pd.DataFrame(rows)
    tenths = frame[frame["bin"] != "all"].groupby("event")[["scored", "hits", "false_alarms", "misses"]].sum()
    whole = frame[frame["bin"] == "all"].set_index("event")[["scored", "hits", "false_alarms", "misses"]]
    pd.testing.assert_frame_equal(tenths, whole, check_dtype=False)


def test_what_was_not_published_has_no_hits_and_one_sided_bins_have_their_skill():
    rows = by_bin(JUDGED[["event", "p", "y", "p_flat", "day"]])
    assert not {"hits", "misses", "value_hit"} & set(rows[0])
    assert by_bin(JUDGED[["event", "p", "y", "day"]])[0]["skill_over_rule"] is None
    sure = by_bin(JUDGED.assign(p_flat=JUDGED["y"], p_wise=np.nan))[0]
    assert sure["skill_over_flat"] is None  # nothing can be better than a perfect rule
    assert (sure["rule"], sure["skill_over_wise"]) == ("flat", None)


# The whole table ------------------------------------------------------------------------------------------------------

WALKED = by_bin(JUDGED[["event", "p", "y", "p_flat", "day"]])


def test_the_judgement_before_the_champion_was_let_in_stands_beside(supply):
    record = track_record(supply, AS_OF, delays(["kept"]), [row | {"model_version": "7"} for row in WALKED])
    assert record["source"].value_counts().to_dict() == {"walk_forward": 4, "published": 2}
    assert record["row_id"].is_unique
    assert record["row_id"].iloc[0] == "delay|late|published|0.3"
    assert set(zip(record["source"], record["model_version"], strict=True)) == {
        ("published", "1"),
        ("walk_forward", "7"),
    }
    assert record.loc[record["source"] == "walk_forward", "hits"].isna().all()
    assert record["first_day"].tolist()[0] == WEEK


def test_rows_that_an_older_version_left_are_passed_over(supply):
    assert len(track_record(supply, AS_OF, {}, [{"task": "delay", "p_from": 0.1, "scored": 3}])) == 0


@pytest.mark.parametrize("history", [{}, {"rule_forecasts": pd.DataFrame()}], ids=["none", "empty"])
def test_without_history_the_record_is_empty_and_has_its_columns(facts, history):
    record = track_record(facts(), AS_OF, history, [])
    assert len(record) == 0
    assert {"row_id", "task", "event", "scored", "came_true_share", "skill_over_rule", "hits"} <= set(record)


def test_a_day_judged_by_several_models_names_them_in_order(supply):
    first, second = delays(["kept"]), delays(["late"], as_of=WEEK + 7 * DAY)
    second["rule_forecasts"]["model_version"] = "2"
    assert set(track_record(supply, AS_OF, weeks(second, first), [])["model_version"]) == {"1, 2"}


# From the published files ---------------------------------------------------------------------------------------------

RELEASES = (
    delays(["kept", "late", "never", "gone"], p=[0.31, 0.35, 0.82, 0.5], watched=["never", "kept"],
           climatology=0.25, supplier_52w=[0.3, 0.4, 0.5, 0.6]),
    delays(["kept", "late", "dropped"], as_of=WEEK + 7 * DAY, p=[0.11, 0.65, 0.92], watched=["late"],
           climatology=0.25, supplier_52w=[0.3, 0.4, 0.5]),
    delays(["unposted", "later_gone", "immature"], due="2024-02-20", as_of=WEEK + 14 * DAY, p=[0.42, 0.44, 0.9],
           climatology=0.25, supplier_52w=[0.3, 0.4, 0.5]),
)  # fmt: skip


def put_out(workspace, tables, as_of):
    """Publish tables of one week as the flow does."""
    rounded = {
        name: frame.drop(columns="as_of", errors="ignore").pipe(
            lambda f: f.assign(**{c: f[c].round(6) for c in f if f[c].dtype.kind == "f"}))
        for name, frame in tables.items()
    }  # fmt: skip
    there = {
        name: replace(t, columns=tuple(c for c in t.columns if c.many or c.name in tables.get(name, ())))
        for name, t in BY_NAME.items()
    }
    return publish.publish(
        workspace, rounded, as_of=as_of.date(), model_versions={"delay": "1"}, data_fingerprint="f", code_version="c",
        published_at=datetime(2024, 3, 1, tzinfo=UTC), contract=there,
    )  # fmt: skip


def from_database(workspace):
    return {name: publish.history(workspace, name, date(2023, 1, 1), AS_OF.date(), READS[name]) for name in READS}


def from_parquet(workspace):
    found = {}
    for name in READS:
        if files := sorted((workspace / "tables" / name).glob("as_of=*/*.parquet")):
            weeks = [pd.read_parquet(f).assign(as_of=f.parent.name.removeprefix("as_of=")) for f in files]
            found[name] = pd.concat(weeks, ignore_index=True)
    return found


def from_a_query(workspace):
    with duckdb.connect(str(workspace / "risk.duckdb"), read_only=True) as con:
        there = {name for (name,) in con.execute("SELECT view_name FROM duckdb_views()").fetchall()}
        return {n: con.execute(f"FROM {n}_week ORDER BY hash(row_id)").df() for n in READS if f"{n}_week" in there}


@pytest.fixture
def published(tmp_path, supply):
    for release in RELEASES:
        put_out(tmp_path, release, release["rule_forecasts"]["as_of"].iloc[0])
    record = track_record(supply, AS_OF, from_database(tmp_path), WALKED)
    put_out(tmp_path, {"track_record": record}, AS_OF)
    return tmp_path


def file_of(workspace, as_of=AS_OF):
    return (workspace / "tables" / "track_record" / f"as_of={as_of.date()}" / "track_record.parquet").read_bytes()


@pytest.mark.parametrize("read", [from_database, from_parquet, from_a_query])
def test_the_record_made_again_from_published_tables_has_the_same_bytes(published, supply, tmp_path, read):
    again = track_record(supply, AS_OF, read(published), reversed(WALKED))
    assert put_out(published, {"track_record": again}, AS_OF).status == "unchanged"
    put_out(tmp_path / "elsewhere", {"track_record": again}, AS_OF)
    assert file_of(tmp_path / "elsewhere") == file_of(published)


def test_published_counts_agree_with_those_of_a_hand(published):
    record = publish.read(published, "track_record")
    whole = record[(record["source"] == "published") & (record["bin"] == "all")].iloc[0]
    # kept 0.31 and 0.11 on time; late 0.35 and 0.65, never 0.82, dropped 0.92, unposted 0.42, later_gone 0.44 late;
    # gone left, and of the third week `immature` was complete, known and due on the same day as the others
    p = np.array([0.31, 0.35, 0.82, 0.11, 0.65, 0.92, 0.42, 0.44, 0.9])
    y = np.array([0, 1, 1, 0, 1, 1, 1, 1, 1])
    assert whole["scored"] == len(p)
    assert whole["brier"] == pytest.approx(((p - y) ** 2).mean(), abs=1e-6)
    assert whole["skill_over_climatology"] == pytest.approx(
        1 - ((p - y) ** 2).mean() / ((0.25 - y) ** 2).mean(), abs=1e-6
    )
    assert (whole["hits"], whole["false_alarms"], whole["misses"]) == (2, 1, 5)
    assert (whole["value_hit"], whole["value_missed"]) == (200, 500)


def test_a_release_that_was_revised_counts_once_with_its_latest_rows(published, supply):
    before = track_record(supply, AS_OF, from_parquet(published), [])
    put_out(published, RELEASES[0] | delays(["kept"], p=0.05), WEEK)
    for read in (from_database, from_parquet, from_a_query):
        after = track_record(supply, AS_OF, read(published), [])
        counts = [t.loc[t["bin"] == "all", "scored"].item() for t in (before, after)]
        assert counts == [9, 7]


def test_a_receipt_posted_late_changes_the_next_record_and_not_the_last(published, supply):
    history = from_parquet(published)
    days = [AS_OF, AS_OF + DAY, AS_OF + 7 * DAY]
    records = [track_record(supply, day, history, []).set_index("bin") for day in days]
    shares = [r.loc["all", "came_true_share"] * r.loc["all", "scored"] for r in records]
    assert shares == pytest.approx([7, 6, 6], abs=1e-4)
    assert all(len(a) == len(b) for a, b in pairwise(records))
    pd.testing.assert_frame_equal(track_record(supply, AS_OF, history, []).set_index("bin"), records[0])
