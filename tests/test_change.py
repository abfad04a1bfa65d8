"""Why value at risk has changed since last week: one thing happens, its part moves, and parts always sum up."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.change import PARTS, RISKS, STEPS, Told, Week, totals_of_change, weekly_change, with_reasons

THEN, NOW = pd.Timestamp("2026-05-25"), pd.Timestamp("2026-06-01")
LINES, WINDOWS = RISKS
ENDED = pd.DataFrame(columns=["complete_on", "cancelled_at"])


def lines(**values):
    """Open lines by row_id: value at risk, or a dict of what else differs."""
    rows = []
    for name, given_ in values.items():
        own = given_ if isinstance(given_, dict) else {"value_at_risk": given_}
        row = {
            "row_id": name, "supplier_id": "s", "supplier_name": "Sensor Co", "product_id": "p",
            "product_name": "Meter", "site_id": "MEM", "state": "due_future", "pushes": 0,
            "promised_on": pd.Timestamp("2026-07-01"),
            "ordered_on": pd.Timestamp("2026-05-01"), "open_units": 10.0, "open_value": 1000.0, "p_late": 0.5,
            "days_late_p10": 2.0, "days_late_p90": 9.0, "evidence_n": 20, "driver_1": "",
            "driver_2": "", "driver_3": "", "published_by": "model", "model_version": "1",
        }  # fmt: skip
        rows.append(row | own)
    return pd.DataFrame(rows)


def windows(**values):
    rows = [
        {
            "row_id": f"{name}|MEM|w0", "product_id": name, "product_name": name.upper(), "site_id": "MEM",
            "site_name": "Memphis", "p_up": 0.4, "p_down": 0.1, "value_at_risk": value, "window": 0,
            "window_begin": NOW, "units_p10": 1.0, "units_p90": 9.0, "baseline_units": 5.0, "evidence_n": 9,
            "driver_1": "", "driver_2": "", "driver_3": "", "published_by": "model", "model_version": "1",
        }
        for name, value in values.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def explain(before, after, rescored=None, risk=LINES, ended=ENDED, versions=("1", "1"), **watched):
    then = Week(THEN, {risk: before} | ({"watchlist": watched["then"]} if watched else {}))
    now = Week(NOW, {risk: after} | ({"watchlist": watched["now"]} if watched else {}))
    told = Told({risk: pd.DataFrame() if rescored is None else rescored}, ended, {risk: versions}, "EUR")
    return weekly_change(then, now, told)


def moved(row):
    return {part: row[f"part_{part}"] for part in PARTS if row[f"part_{part}"]}


def worlds(**steps):
    """Values of row `a` after each step."""
    return pd.DataFrame({name: pd.Series({"a": value}) for name, value in steps.items()})


PUSHED = {"promised_on": pd.Timestamp("2026-07-09")}
OVERDUE = {"state": "already_late", "promised_on": pd.Timestamp("2026-05-28"), "p_late": 1.0}


@pytest.mark.parametrize(
    ("after", "steps", "parts", "reason"),
    [
        ({}, {"model": 500, "time": 500, "promise": 500, "data": 500}, {}, "as last week"),
        ({}, {"model": 470, "time": 500, "promise": 500, "data": 500}, {"model": -30, "time": 30},
         "as last week"),
        ({"value_at_risk": 520}, {"model": 420, "time": 520, "promise": 520, "data": 520}, {"model": -80, "time": 100},
         "7 days nearer to the promise of 1 Jul"),
        ({"value_at_risk": 600}, {"model": 600, "time": 600, "promise": 600}, {"model": 100},
         "facts of earlier weeks that arrived late, or new code"),
        ({"value_at_risk": 600} | PUSHED, {"model": 500, "time": 500, "promise": 600, "data": 600}, {"promise": 100},
         "promise moved from 1 Jul to 9 Jul"),
        ({"value_at_risk": 300, "open_units": 6.0}, {"model": 500, "time": 500, "promise": 500, "data": 300},
         {"data": -200}, "4 units came in, 6 still open"),
        ({"value_at_risk": 520}, {"model": 500, "time": 500, "promise": 500, "data": 500}, {"signals": 20},
         "external signals"),
        ({"value_at_risk": 1000} | OVERDUE, {"model": 500, "time": 1000, "promise": 1000, "data": 1000}, {"time": 500},
         "already late now: promised 28 May"),
        ({"value_at_risk": 650}, {"model": 500, "time": np.nan, "promise": 560, "data": 650},
         {"promise": 60, "data": 90}, "what was ordered and received since"),
    ],
)  # fmt: skip
def test_each_step_is_one_part_of_the_change(after, steps, parts, reason):
    if after.get("value_at_risk") is None:
        after = after | {"value_at_risk": 500}
    (row,) = explain(lines(a=500), lines(a=after), worlds(**steps)).to_dict("records")
    assert moved(row) == parts
    assert (row["status"], row["reason"]) == ("stays", reason)
    assert sum(row[f"part_{part}"] for part in PARTS) == row["change"]


def test_another_model_says_so():
    found = explain(lines(a=500), lines(a=610), worlds(model=600, time=600, promise=600, data=600), versions=("1", "2"))
    assert found["reason"].tolist() == ["model version 2 instead of 1"]
    assert moved(found.iloc[0]) == {"model": 100, "signals": 10}


def test_new_and_closed_lines_count_as_a_whole_and_say_what_became_of_them():
    ended = pd.DataFrame(
        {
            "complete_on": [pd.Timestamp("2026-05-27"), pd.NaT],
            "cancelled_at": [pd.NaT, pd.Timestamp("2026-05-29 10:00")],
        },
        index=["b", "c"],
    )
    found = explain(lines(b=300, c=20, d=1), lines(e=80), ended=ended).set_index("row_id")
    assert {name: moved(row) for name, row in found.iterrows()} == {
        "b": {"closed": -300}, "c": {"closed": -20}, "d": {"closed": -1}, "e": {"new": 80},
    }  # fmt: skip
    assert found["reason"].to_dict() == {
        "b": "received on 27 May", "c": "cancelled on 29 May", "d": "no longer among the open lines",
        "e": "new: ordered on 1 May",
    }  # fmt: skip
    assert found.loc["e", "value_last_week"] == found.loc["b", "value_this_week"] == 0
    assert found["p_last_week"].isna().to_dict() == {"b": False, "c": False, "d": False, "e": True}


def test_a_value_nobody_knows_counts_as_nothing_and_is_missing():
    found = explain(lines(a=np.nan), lines(a=40.0), worlds(model=np.nan, time=np.nan, promise=40, data=40))
    assert moved(found.iloc[0]) == {"promise": 40}
    assert np.isnan(found["value_last_week"][0])


def test_demand_has_no_promises():
    steps = pd.DataFrame({"model": [100.0], "time": [90.0], "promise": [90.0], "data": [140.0]}, index=["x|MEM|w0"])
    found = explain(windows(x=100), windows(x=145, y=3), steps, risk=WINDOWS)
    assert moved(found.iloc[0]) == {"time": -10, "data": 50, "signals": 5}
    assert found["reason"].tolist()[0] == "what customers ordered since"
    assert found["kind"].unique().tolist() == ["demand surge"]


@pytest.mark.parametrize("then", [None, Week(THEN, {WINDOWS: windows(x=1)})])
def test_without_a_week_before_there_is_nothing_to_explain(then):
    found = weekly_change(then, Week(NOW, {LINES: lines(a=1)}), Told({}, ENDED))
    assert len(found) == 0
    assert found["change"].dtype == float
    assert totals_of_change(found) == {}


amounts = st.one_of(st.floats(0, 2e6).map(lambda x: round(x, 2)), st.just(np.nan))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(*[st.tuples(st.booleans(), amounts)] * 6), min_size=1, max_size=12))
def test_parts_sum_to_the_change_whatever_rows_are_missing_where(rows):
    weeks = [{f"r{n}": row[k][1] for n, row in enumerate(rows) if row[k][0]} for k in (0, 5)]
    if not all(weeks):
        return
    steps = pd.DataFrame(
        {s: pd.Series({f"r{n}": row[k][1] for n, row in enumerate(rows) if row[k][0]}, dtype=float)
         for k, s in enumerate(STEPS[:-1], start=1)}
    )  # fmt: skip
    before, after = lines(**weeks[0]), lines(**weeks[1])
    found = explain(before, after, steps)
    assert set(found["row_id"]) == weeks[0].keys() | weeks[1].keys()
    parts = found[[f"part_{part}" for part in PARTS]].sum(axis=1)
    assert np.allclose(parts, found["change"], rtol=0, atol=1e-9)
    assert np.allclose(
        found["value_this_week"].fillna(0) - found["value_last_week"].fillna(0), found["change"], rtol=0, atol=1e-9
    )
    total = totals_of_change(found)[LINES]
    assert sum(round(100 * amount) for amount in total["parts"].values()) == round(100 * total["change"])
    assert round(100 * total["value_this_week"]) == round(100 * after["value_at_risk"].sum())


# The list -----------------------------------------------------------------------------------------------------------


def listed(*names, owner="procurement", value=400.0, kind="supplier delay"):
    return pd.DataFrame(
        {
            "row_id": names, "product_id": "p", "site_id": "MEM", "kind": kind, "owner": owner, "value_at_risk": value,
            "change": "+5 points since last week",
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("after", "floor", "why"),
    [
        ({"value_at_risk": 100.0}, 200.0, "risk fell: 7 days nearer to the promise of 1 Jul"),
        ({"value_at_risk": 100.0}, 900.0, "pushed out by larger ones"),
        ({"value_at_risk": 700.0}, 900.0, "pushed out by larger ones"),
        ({"value_at_risk": 0.0}, 200.0, "nothing at stake any more"),
        ({"value_at_risk": 900.0} | OVERDUE, 200.0, "already late now: promised 28 May"),
        ({"value_at_risk": 900.0, "promised_on": NOW}, 200.0, "past the last day to act, 31 May"),
    ],
)
def test_what_left_the_list_says_why(after, floor, why):
    value = after["value_at_risk"]
    steps = worlds(model=400, time=value, promise=value, data=value)
    found = explain(
        lines(a=400), lines(a=after, z=floor), steps, then=listed("a"), now=listed("z", value=floor)
    ).set_index("row_id")
    assert found.loc["a", "reason"] == f"left the list: {why}"
    assert found["left_list"].to_dict() == {"a": True, "z": False}


def test_a_received_line_leaves_the_list_and_a_listed_one_does_not():
    ended = pd.DataFrame({"complete_on": [pd.Timestamp("2026-05-27")], "cancelled_at": [pd.NaT]}, index=["a"])
    found = explain(
        lines(a=400, b=400), lines(b=400), worlds(model=1.0), ended=ended, then=listed("a", "b"), now=listed("b")
    ).set_index("row_id")
    assert found.loc["a", "reason"] == "left the list: received on 27 May"
    assert found["left_list"].to_dict() == {"a": True, "b": False}


def test_the_watchlist_says_what_moved_its_rows():
    changes = explain(lines(a=500), lines(a={"value_at_risk": 600} | PUSHED),
                      worlds(model=500, time=500, promise=600, data=600))  # fmt: skip
    watch = pd.concat([listed("a", "b"), listed("a").assign(change="as last week")])
    assert with_reasons(watch, changes)["change"].tolist() == [
        "+5 points since last week: promise moved from 1 Jul to 9 Jul", "+5 points since last week", "as last week",
    ]  # fmt: skip
