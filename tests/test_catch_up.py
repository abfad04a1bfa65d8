"""Late is the same as on time: weeks that were missed come out as if each had been scored on its day."""

import contextlib
import io
import json
import shutil
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from models import lessons
from models.delay import DelayModel
from models.shift import ShiftModel
from pipelines import catch_up, cli, learn, publish
from pipelines.settings import Settings
from pipelines.simulate import simulate

END = date(2026, 6, 1)
BEGIN, WEEK = END - timedelta(weeks=3), timedelta(weeks=1)


def bullwhip(workspace, *words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run([*words, "--json", "--workspace", str(workspace)])
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return code, json.loads(out.getvalue())


@pytest.fixture(scope="module")
def trained(tmp_path_factory, migrated_mlflow, prefect_server):  # noqa: ARG001
    """The smallest simulated world, trained quickly as of three weeks before its end."""
    folder = tmp_path_factory.mktemp("trained")
    simulate(folder, scale="toy", end=END)
    shutil.copytree(migrated_mlflow, folder / "mlflow")
    (folder / "bullwhip.toml").write_text(f"as_of = {END}\nhistory_weeks = 60\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lessons, "DelayModel", partial(DelayModel, rounds=4))
        patch.setattr(lessons, "ShiftModel", partial(ShiftModel, rounds=4, quantile_rounds=4))
        patch.setattr(learn, "judge", partial(learn.judge, n=20))
        assert bullwhip(folder, "train", "--as-of", str(BEGIN))[0] in (0, 4)
    return folder


@pytest.fixture
def late(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "late"))


@pytest.fixture
def on_time(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "on_time"))


def rewrite(workspace, table, query, source=None):
    """Replace a table by what a query over `old` gives; `source` is the workspace that `old` is taken from."""
    path = workspace / "data" / f"{table}.parquet"
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE old AS FROM '{(source or workspace) / 'data' / path.name}'")
        con.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")


def disturb(workspace):
    """Let facts that became known in the last week contradict earlier ones: a corrected line, a receipt from before."""
    rewrite(workspace, "purchases", f"""FROM old UNION ALL BY NAME SELECT * REPLACE (quantity + 1 AS quantity,
            TIMESTAMP '{END - WEEK}' AS known_at) FROM (SELECT *, ordered_at AS known_at FROM old
            WHERE promised_on > DATE '{END}' ORDER BY po_line_id LIMIT 3)""")  # fmt: skip
    rewrite(workspace, "receipts", f"""FROM old UNION ALL BY NAME SELECT po_line_id, DATE '2001-01-01' AS received_on,
            'wrong' AS receipt_id, TIMESTAMP '{END - WEEK}' AS known_at FROM old
            WHERE received_on > DATE '{BEGIN}' LIMIT 2""")  # fmt: skip


def as_known_on(day, workspace, everything):
    """Leave of the tables what had become known before the day, as the people of that day found them."""
    for table, moment in (("orders", "ordered_at"), ("purchases", "coalesce(known_at, ordered_at)"),
                          ("receipts", "known_at"), ("promises", "known_at"), ("signals", "known_at"),
                          ("stock", "known_at")):  # fmt: skip
        there = pd.read_parquet(everything / "data" / f"{table}.parquet").columns
        cancelled = f"REPLACE (CASE WHEN cancelled_at < DATE '{day}' THEN cancelled_at END AS cancelled_at)"
        moment = moment if "known_at" in there or "known_at" not in moment else "ordered_at"
        rewrite(workspace, table, f"SELECT * {cancelled if 'cancelled_at' in there else ''} FROM old "
                f"WHERE {moment} < DATE '{day}'", everything)  # fmt: skip


def test_weeks_scored_late_equal_those_scored_on_their_day(late, on_time):
    disturb(late)
    days = [BEGIN + k * WEEK for k in range(4)]
    for day in days:
        as_known_on(day, on_time, late)
        assert bullwhip(on_time, "score", "--as-of", str(day))[0] == 0
    code, said = bullwhip(late, "catch-up", "--from", str(BEGIN))
    assert (code, said["as_of"], said["status"]) == (0, str(END), "published")
    assert [week["as_of"] for week in said["caught_up"]] == [str(day) for day in days[:-1]]
    ledgers = [publish.publications(w).drop(columns="published_at") for w in (late, on_time)]
    pd.testing.assert_frame_equal(*ledgers)  # digests of every table, models and fingerprint of the facts
    assert len(publish.read(late, "supplier_delay_risk", as_of=BEGIN)) > 10

    code, said = bullwhip(late, "score")
    assert (code, said["status"], said["caught_up"], said["refused"]) == (0, "unchanged", [], [])


def test_a_scheduled_score_fills_in_what_was_missed_and_names_what_cannot_be(late):
    assert bullwhip(late, "score", "--as-of", str(BEGIN))[0] == 0
    code, said = bullwhip(late, "score", "--dry-run")
    assert (code, said["status"]) == (0, "would publish")
    assert [week["as_of"] for week in said["caught_up"]] == [str(BEGIN + WEEK), str(BEGIN + 2 * WEEK)]
    assert catch_up.published(late) == [BEGIN]
    (late / "bullwhip.toml").write_text(f"as_of = {END}\ncatch_up_weeks = 0\n")
    code, said = bullwhip(late, "score")
    assert (code, said["caught_up"]) == (0, [])
    assert said["out_of_reach"] == [str(BEGIN + WEEK), str(BEGIN + 2 * WEEK)]
    code, said = bullwhip(late, "catch-up", "--from", str(BEGIN - WEEK))
    assert code == 4
    assert [week["as_of"] for week in said["refused"]] == [str(BEGIN - WEEK)]
    assert f"run bullwhip train --as-of {BEGIN - WEEK}" in said["error"]
    assert catch_up.published(late) == [BEGIN, BEGIN + WEEK, BEGIN + 2 * WEEK, END]


def test_a_model_that_learnt_later_does_not_score_an_earlier_day(late):
    code, said = bullwhip(late, "score", "--as-of", str(BEGIN - WEEK))
    assert code == 4
    assert said["error"].startswith(f"no model of {BEGIN - WEEK} or before: delay was first trained as of {BEGIN}")
    assert not (late / "risk.duckdb").exists()


@pytest.mark.parametrize(("published", "since", "reach", "expected"), [
    ([], None, 13, ([], [])),
    ([], 2, 13, ([2, 1], [])),
    ([1], None, 13, ([], [])),
    ([4], None, 13, ([3, 2, 1], [])),
    ([4], None, 2, ([2, 1], [3])),
    ([4], 5, 2, ([5, 3, 2, 1], [])),
    ([4, 2], None, 13, ([1], [])),
    ([4, 2], 4, 13, ([3, 1], [])),
    ([-1, 3], None, 13, ([2, 1], [])),
], ids=str)  # fmt: skip
def test_which_weeks_were_missed(monkeypatch, tmp_path, published, since, reach, expected):
    """Weeks are counted back from the day that is scored."""
    monkeypatch.setattr(catch_up, "published", lambda _: [END - n * WEEK for n in published])
    settings = Settings(workspace=tmp_path, catch_up_weeks=reach)
    found = catch_up.missed_weeks(settings, END, END - since * WEEK if since else None)
    assert found == tuple([END - n * WEEK for n in weeks] for weeks in expected)
