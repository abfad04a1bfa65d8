"""The risk tables of a week from drawn facts: the same line or product looks alike every week."""

import numpy as np
import pandas as pd

from models import risk
from models.watchlist import watchlist


def risk_week(as_of, *, lines=60, series=30, draw=0, last=None, suppliers=None, names=None, cost=True):
    """Make the risk tables of one week by the code that makes published ones."""
    day, last, rng = pd.Timestamp(as_of).as_unit("s"), last or {}, np.random.default_rng(7)
    called = risk.Names(suppliers or {}, names or {}, {"north": "North plant", "south": "South plant"})
    facts = _lines(day, lines, rng) if lines else None
    moved = np.random.default_rng(draw)
    tables = {}
    if lines:
        tables["supplier_delay_risk"] = _delays(facts, rng, moved, called, last, cost)
        done = facts[["supplier_id", "site_id", "region", "category"]].assign(
            **{rung: (rng.random(lines) < 0.8) * 1.0 for rung in risk.RUNGS}
        )
        tables["supplier_risk"] = risk.supplier_risk(tables["supplier_delay_risk"], done, done, model_version="3")
    if series:
        tables["demand_shift_risk"] = _shifts(day, series, rng, moved, called, last)
    tables["watchlist"] = watchlist(
        tables.get("supplier_delay_risk"), tables.get("demand_shift_risk"),
        dict.fromkeys(("procurement", "logistics", "manufacturing", "sales"), 5), last.get("watchlist", pd.DataFrame()),
        day, "EUR",
    )  # fmt: skip
    return tables


def _lines(day, n, rng):
    due = pd.Series(day + pd.to_timedelta(rng.integers(-6, 60, n), unit="D"), dtype="datetime64[s]")
    ids = pd.Series([f"PO-{k:05d}" for k in range(n)], dtype=str)
    return pd.DataFrame({
        "po_line_id": ids,
        "supplier_id": pd.Series([f"S-{k:03d}" for k in rng.integers(0, max(n // 40, 8), n)], dtype=str),
        "product_id": pd.Series([f"P-{k:04d}" for k in rng.integers(0, max(n // 10, 6), n)], dtype=str),
        "site_id": pd.Series(rng.choice(["north", "south"], n), dtype=str), "category": "bolts", "region": "east",
        "as_of": day, "state": np.where(due >= day, "due_future", "already_late"),
        "ordered_on": day - 30 * pd.Timedelta("1D"),
        "first_promised_on": due, "promised_on": due, "due_on": due, "need_on": pd.NaT, "pushes": 0.0,
        "open_units": rng.integers(1, 500, n) * 1.0, "unit_cost": rng.lognormal(4, 1, n).round(2),
    })  # fmt: skip


def _delays(facts, rng, moved, called, last, cost):
    n = len(facts)
    p = pd.Series(np.clip(rng.beta(1.3, 2.6, n) + moved.normal(0, 0.04, n), 0.001, 0.999))
    arrival = np.sort(rng.integers(0, 80, (n, 4)), axis=1).astype(float)
    said = ["▲ lead_time up 3 days in 6 weeks", "▲ 4 of the last 10 came late", "▼ ordered early"]
    reasons = rng.choice(said, (n, 3))
    told = pd.DataFrame(reasons, columns=["driver_1", "driver_2", "driver_3"])
    facts = facts if cost else facts.assign(unit_cost=np.nan)
    return risk.delay_risk(
        facts, p, arrival, told, pd.Series(rng.integers(0, 90, n) * 1.0), base_rate=0.3, published_by="model",
        model_version="3", names=called, last_week=last.get("supplier_delay_risk", pd.DataFrame()),
    )  # fmt: skip


def _shifts(day, n, rng, moved, called, last):
    k = np.arange(3 * n)
    usual = rng.uniform(10, 900, 3 * n)
    rows = pd.DataFrame({
        "product_id": pd.Series([f"P-{j // 3:04d}" for j in k], dtype=str),
        "site_id": pd.Series("south", index=k, dtype=str),
        "category": "bolts", "window": k % 3, "lead_weeks": np.array([0, 4, 8])[k % 3],
        "length_weeks": np.array([4, 4, 5])[k % 3], "as_of": day, "baseline_units": usual, "noise_units": 5.0,
        "unit_price": rng.lognormal(3, 1, 3 * n), "past_n": 12, "down_at_units": usual * 0.6,
        "up_at_units": usual * 1.4, "moved_share": -0.3, "moved_z": np.where(np.arange(3 * n) % 2, -2.1, 0.4),
    })  # fmt: skip
    p = np.clip(rng.beta(0.8, 4, (3 * n, 2)) * 0.6 + moved.normal(0, 0.02, (3 * n, 2)), 0, 0.5)
    units = usual[:, None] * np.sort(rng.uniform(0.4, 1.8, (3 * n, 3)), axis=1)
    told = pd.DataFrame("▲ orders up 36 % on 8 weeks", index=rows.index, columns=["driver_1", "driver_2", "driver_3"])
    return risk.shift_risk(
        rows, pd.DataFrame(p, columns=["p_up", "p_down"]), units, told, base_rates={"up": 0.1, "down": 0.1},
        published_by="model", model_version="3", names=called, last_week=last.get("demand_shift_risk", pd.DataFrame()),
    )  # fmt: skip
