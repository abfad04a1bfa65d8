"""Late is the same as on time; challengers are compared, promoted, taken back: the commands on a small world."""

import shlex
import shutil
import sys
import types
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from features import matrix, orders
from models.forecasters import load as load_forecaster
from models.health import BY_SCORING
from pipelines import catch_up, mlflow_store, publish, registry
from pipelines.settings import Settings, load
from pipelines.simulate import simulate
from tests.workspaces import bullwhip, change, learn_quickly, run

END = date(2026, 6, 1)
BEGIN, WEEK = END - timedelta(weeks=2), timedelta(weeks=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, migrated_mlflow, prefect_server):  # noqa: ARG001
    """The smallest simulated world, trained quickly as of two weeks before its end."""
    folder = tmp_path_factory.mktemp("trained")
    simulate(folder, scale="toy", end=END)
    shutil.copytree(migrated_mlflow, folder / "mlflow")
    (folder / "bullwhip.toml").write_text(f"as_of = {END}\nhistory_weeks = 60\n")
    with pytest.MonkeyPatch.context() as patch:
        learn_quickly(patch)
        assert bullwhip(folder, "train", "--as-of", str(BEGIN))[0] in (0, 4)
    return folder


@pytest.fixture
def late(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "late"))


@pytest.fixture
def on_time(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "on_time"))


def disturb(workspace):
    """Let facts that became known in the last week contradict earlier ones: a corrected line, a receipt from before."""
    change(workspace, "purchases", f"""FROM old UNION ALL BY NAME SELECT * REPLACE (quantity + 1 AS quantity,
           TIMESTAMP '{END - WEEK}' AS known_at) FROM (SELECT *, ordered_at AS known_at FROM old
            WHERE promised_on > DATE '{END}' ORDER BY po_line_id LIMIT 3)""")  # fmt: skip
    change(workspace, "receipts", f"""FROM old UNION ALL BY NAME SELECT po_line_id, DATE '2001-01-01' AS received_on,
            'wrong' AS receipt_id, TIMESTAMP '{END - WEEK}' AS known_at FROM old
            WHERE received_on > DATE '{BEGIN}' LIMIT 2""")  # fmt: skip


def double(workspace, table):
    """Let the lines of the last three weeks come a second time, in a file of their own."""
    path, folder = workspace / "data" / f"{table}.parquet", workspace / "data" / table
    folder.mkdir()
    path.rename(folder / path.name)
    with duckdb.connect() as con:
        con.execute(f"COPY (FROM '{folder / path.name}' WHERE ordered_at >= DATE '{BEGIN - WEEK}') "
                    f"TO '{folder / 'again.parquet'}' (FORMAT parquet)")  # fmt: skip


def as_known_on(day, workspace, everything):
    """Leave of the tables what had become known before the day, as the people of that day found them."""
    for table, moment in (("orders", "ordered_at"), ("purchases", "coalesce(known_at, ordered_at)"),
                          ("receipts", "known_at"), ("promises", "known_at"), ("signals", "known_at"),
                          ("stock", "known_at")):  # fmt: skip
        there = pd.read_parquet(everything / "data" / f"{table}.parquet").columns
        cancelled = f"REPLACE (CASE WHEN cancelled_at < DATE '{day}' THEN cancelled_at END AS cancelled_at)"
        moment = moment if "known_at" in there or "known_at" not in moment else "ordered_at"
        change(workspace, table, f"SELECT * {cancelled if 'cancelled_at' in there else ''} FROM old "
               f"WHERE {moment} < DATE '{day}'", everything)  # fmt: skip


def test_weeks_scored_late_equal_those_scored_on_their_day(late, on_time):
    disturb(late)
    days = [BEGIN + k * WEEK for k in range(3)]
    for day in days:
        as_known_on(day, on_time, late)
        assert bullwhip(on_time, "score", "--as-of", str(day))[0] == 0
    double(late, "orders")
    code, said, _ = bullwhip(late, "catch-up", "--from", str(BEGIN))
    assert (code, said["as_of"], said["status"]) == (0, str(END), "published")
    assert [week["as_of"] for week in said["caught_up"]] == [str(day) for day in days[:-1]]
    unlike = ["published_at", "code_version", "digest"]  # that of all tables, and one says that files came twice
    ledgers = [publish.publications(w).drop(columns=unlike) for w in (late, on_time)]
    pd.testing.assert_frame_equal(*ledgers)  # models, and the fingerprint of the facts
    refused, counted = "input|orders|refused", []
    for name, day in ((name, day) for name in said["rows"] for day in days):
        one, other = (publish.read(w, name, as_of=day) for w in (late, on_time))
        if name == "health":
            counted += [t.loc[t["row_id"] == refused, "measured"].item() for t in (one, other)]
            one, other = (t[t["row_id"] != refused].reset_index(drop=True) for t in (one, other))
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert min(counted[::2]) > 0 == max(counted[1::2])
    assert len(publish.read(late, "supplier_delay_risk", as_of=BEGIN)) > 10

    code, said, _ = bullwhip(late, "score")
    assert (code, said["status"], said["caught_up"], said["refused"]) == (0, "unchanged", [], [])

    code, said, _ = bullwhip(late, "monitor")
    shown = publish.read(late, "health").drop(columns=["publication_id", "as_of", "schema_version"])
    assert (code, said["as_of"], said["rolled_back"]) == (0, str(END), [])
    drifting = shown["row_id"].str.endswith(BY_SCORING)  # is that of the week before
    assert len(said["health"]) == sum(said["verdicts"].values()) == len(shown)
    now = {row["row_id"]: row["reason"] for row in said["health"]}
    assert shown[~drifting].set_index("row_id")["reason"].to_dict().items() <= now.items()


def test_a_scheduled_score_fills_in_what_was_missed_and_names_what_cannot_be(late):
    toml = late / "bullwhip.toml"
    toml.write_text(f"as_of = {END}\nhistory_weeks = 60\ntasks = ['delay']\n")
    assert bullwhip(late, "score", "--as-of", str(BEGIN))[0] == 0
    code, said, _ = bullwhip(late, "score", "--dry-run")
    assert (code, said["status"]) == (0, "would publish")
    assert [week["as_of"] for week in said["caught_up"]] == [str(BEGIN + WEEK)]
    assert catch_up.published(late) == [BEGIN]
    toml.write_text(toml.read_text() + "catch_up_weeks = 0\n")
    code, said, _ = bullwhip(late, "score", "--dry-run")
    assert (code, said["caught_up"], said["out_of_reach"]) == (0, [], [str(BEGIN + WEEK)])
    code, said, _ = bullwhip(late, "catch-up", "--from", str(BEGIN - WEEK))
    assert code == 4
    assert [week["as_of"] for week in said["refused"]] == [str(BEGIN - WEEK)]
    assert f"run bullwhip train --as-of {BEGIN - WEEK}" in said["error"]
    assert catch_up.published(late) == [BEGIN, BEGIN + WEEK, END]


def test_a_training_that_was_killed_before_it_promoted_is_finished_by_the_next(late):
    settings, names = load(late, environ={}), registry.REGISTRY.values()
    client = mlflow_store.open_store(settings).client
    for name in names:
        for tag in ("decisions", "promoted_at", "promoted_because"):
            client.delete_model_version_tag(name, "1", tag)
        client.delete_registered_model_alias(name, "champion")
    champions = partial(map, lambda name: registry.champion(settings, name, BEGIN), names)
    assert bullwhip(late, "train", "--as-of", str(BEGIN), "--dry-run")[0] in (0, 4)
    assert list(champions()) == [None, None]
    said = bullwhip(late, "train", "--as-of", str(BEGIN))[1]["tasks"].values()
    assert [(task["unchanged"], task["model_version"], task["alias"]) for task in said] == [(True, "1", "champion")] * 2
    assert [champion.version for champion in champions()] == ["1", "1"]


def test_a_model_that_learnt_later_does_not_score_an_earlier_day(late):
    code, said, _ = bullwhip(late, "score", "--as-of", str(BEGIN - WEEK))
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


# What docs/add-a-feature.md says, done

PAGE = Path(__file__).parents[1] / "docs" / "add-a-feature.md"


def blocks(kind):
    return [part.partition("```")[0] for part in PAGE.read_text().split(f"```{kind}\n")[1:]]


def edited(monkeypatch, entry):
    """Put a feature at the end of LINE_FEATURES of features/orders.py, and let the models read it."""
    before, end, after = Path(orders.__file__).read_text().partition(")  # fmt: skip\n\n\ndef line_features")
    module = types.ModuleType("features.orders_edited")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(before + entry.rstrip() + ",\n" + end + after, "orders.py", "exec"), module.__dict__)
    monkeypatch.setattr(matrix, "LINE_FEATURES", module.LINE_FEATURES)
    monkeypatch.setattr(matrix, "line_features", module.line_features)
    return module.LINE_FEATURES[-1].name


def test_a_feature_is_added_compared_and_promoted_as_the_page_says(late, monkeypatch):
    (entry,), commands = blocks("python"), [shlex.split(text) for text in blocks("sh")]
    assert [words[:2] for words in commands] == [["bullwhip", w] for w in ("train", "compare", "promote")]
    monkeypatch.chdir(late.parent)
    late.rename("ours")
    name = edited(monkeypatch, entry)
    with monkeypatch.context() as patch:
        learn_quickly(patch)
        code, trained, _ = run(*commands[0][1:])
    result = trained["tasks"]["delay"]
    assert (code in (0, 4), result["alias"], result["promoted"]) == (True, "challenger", False)
    assert registry.champion(load("ours", environ={}), registry.REGISTRY["delay"]).version == "1"
    code, said, _ = run(*commands[1][1:])
    (task,) = said["tasks"]
    assert (code, task["b"]["inputs"] - task["a"]["inputs"]) == (0, 1)
    (late_event,) = task["events"]
    assert late_event["n"] > 50
    assert late_event["interval"][0] <= late_event["skill_of_b_over_a"] <= late_event["interval"][1]
    assert task["list"]["in_both"] + sum(c["change"] == "comes" for c in task["list"]["changes"]) == task["list"]["k"]
    code, said, _ = run(*commands[2][1:])
    assert (code, said["champion_before"], said["champion"]) == (0, "1", "2")
    found = registry.champion(load("ours", environ={}), registry.REGISTRY["delay"])
    assert name in load_forecaster(found.folder).model.encoder_.columns_
    code, said, _ = run("models", "--workspace", "ours", "--task", "delay")
    assert [(v["version"], v["champion"]) for v in said["models"]] == [("2", True), ("1", False)]
    assert said["models"][0]["decisions"] == [f"promoted from {END}: {commands[2][-1]}"]
    code, said, _ = run("rollback", "--workspace", "ours", "--task", "delay", "--reason", "it was a trial")
    assert (code, said["champion"]) == (0, "1")
    code, said, _ = run("rollback", "--workspace", "ours", "--task", "delay", "--reason", "again")
    assert (code, said["error"]) == (2, "delay version 1 was never preceded by a champion; promote another first")
