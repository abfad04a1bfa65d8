"""Scoring as a user runs it: published, revised, a week later, explained row by row, sent and exported."""

import os
import random
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest

from models import risk
from pipelines import publish
from pipelines.scored import recomputed_record
from tests.workspaces import EARLIER, MONDAY, NEXT, as_process, bullwhip, change, forget_from, settings, tables_of

pytestmark = pytest.mark.usefixtures("prefect_server")
KILLS = 1  # each costs the start of a process; publishing itself is killed many times in test_publish


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory):
    """The trained workspace with its Monday published, and what scoring said."""
    folder = shutil.copytree(trained[0], tmp_path_factory.mktemp("scored") / "workspace", symlinks=True)
    code, said, _ = bullwhip(folder, "score")
    assert code == 0, said
    return folder, said


@pytest.fixture
def workspace(trained, tmp_path):
    return Path(shutil.copytree(trained[0], tmp_path / "workspace"))


@pytest.fixture
def published(scored, tmp_path):
    return Path(shutil.copytree(scored[0], tmp_path / "published", symlinks=True))


def test_scoring_says_all_of_its_document(scored):
    folder, said = scored
    assert (said["status"], said["as_of"], said["revision"]) == ("published", str(MONDAY), 1)
    frames = tables_of(folder)
    assert said["rows"] == {name: len(frame) for name, frame in frames.items()}
    assert {name for name, n in said["rows"].items() if not n} == {"weekly_change"}  # there was no week before
    assert {"publication_id", "value_at_risk", "models", "seconds", "mlflow_run_id"} <= set(said)
    assert set(said["models"]) == {"delay", "shift"}
    page = Path(said["handouts"]["board"])
    assert said["publication_id"] in page.read_text()
    assert (folder / "board" / "index.html").read_bytes() == (folder / "board" / page.name).read_bytes()


def test_probabilities_are_probabilities_and_money_adds_up(scored):
    folder, said = scored
    frames = tables_of(folder)
    for frame in frames.values():
        for name in [c for c in frame if c.startswith("p_") or c == "p"]:
            assert frame[name].dropna().between(0, 1).all(), name
    delays, shifts, suppliers = (frames[t] for t in publish.TABLES[:3])
    at_risk = said["value_at_risk"]
    assert round(delays["value_at_risk"].sum(), 2) == round(at_risk["late_deliveries"] + at_risk["already_late"], 2)
    assert round(shifts["value_at_risk"].sum(), 2) == at_risk["demand_shifts"]
    for kind, group in suppliers.groupby("entity_kind"):
        assert group["open_lines"].sum() == len(delays), kind
        for money in ("open_value", "value_at_risk"):
            assert round(group[money].sum(), 2) == round(delays[money].sum(), 2), (kind, money)
    assert (delays[["days_late_p10", "days_late_p50", "days_late_p80", "days_late_p90"]].diff(axis=1).iloc[:, 1:]
            .fillna(0) >= 0).all(axis=None)  # fmt: skip
    assert (shifts["units_p10"] <= shifts["units_p50"]).all()
    assert (shifts["units_p50"] <= shifts["units_p90"]).all()


def test_workbook_csv_files_and_digest_say_what_the_tables_say(published):
    at_risk = totals(published)
    code, said, _ = bullwhip(published, "export", "--out", str(published / "week.xlsx"))
    assert (code, said["files"]) == (0, [str(published / "week.xlsx")])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*extension is not supported", category=UserWarning)  # bars
        book = openpyxl.load_workbook(published / "week.xlsx")
    code, said, _ = bullwhip(published, "export", "--format", "csv", "--out", str(published / "week.xlsx"))
    assert (code, "expected a folder" in said["error"]) == (2, True)
    code, said, _ = bullwhip(published, "export", "--format", "csv")
    assert [Path(file).stem for file in said["files"]] == [*publish.TABLES]
    for table, file in zip(publish.TABLES, said["files"], strict=True):
        frame = publish.read(published, table)
        head, *rows = book[table].iter_rows(values_only=True)
        back = pd.DataFrame(rows, columns=head)[list(frame)]
        pd.testing.assert_frame_equal(back.astype(frame.dtypes), frame)
        missing = frame.isna().to_numpy()
        np.testing.assert_array_equal(back.isna().to_numpy(), missing)
        texts = [c for c in frame if pd.api.types.is_string_dtype(frame[c])]
        assert {type(v) for c in texts for v in back[c] if not pd.isna(v)} == ({str} if len(frame) else set())
        dates = dict.fromkeys(texts, str)
        again = pd.read_csv(file, dtype=dates, encoding="utf-8-sig", keep_default_na=False, na_values={
            c: "" for c in frame if c not in texts})  # fmt: skip
        assert len(again) == len(frame)
        if "value_at_risk" in frame:
            assert round(again["value_at_risk"].sum(), 2) == round(frame["value_at_risk"].sum(), 2)
    summary = {row[0]: row[1] for row in book["Summary"].iter_rows(values_only=True) if row[1] is not None}
    assert summary["Late deliveries"] == at_risk["late_deliveries"]
    assert summary["Demand shifts"] == at_risk["demand_shifts"]
    assert summary["Already late"] == at_risk["already_late"]
    code, said, _ = bullwhip(published, "digest")
    assert said["value_at_risk"] == {**at_risk, "preventable": summary["Can still be prevented"]}
    assert round(at_risk["late_deliveries"] + at_risk["demand_shifts"], 2) == summary["Can still be prevented"]
    assert f"**EUR {summary['Can still be prevented']:,.2f}**" in said["text"]


def totals(workspace):
    return risk.totals({name: publish.read(workspace, name) for name in publish.TABLES})


def test_a_week_goes_into_a_database_and_the_password_of_its_url_nowhere(workspace, postgres, monkeypatch):
    monkeypatch.setenv("BULLWHIP_PUBLISH", postgres)
    answers = [bullwhip(workspace, *words) for words in (["score"], ["show", "--top", "3"], ["publications"])]
    assert [code for code, *_ in answers] == [0, 0, 0], answers
    assert answers[0][1]["status"] == "published"
    assert [row["rank"] for row in answers[1][1]["rows"]] == [1, 2, 3]
    assert answers[2][1]["publications"][0]["data_time"] < str(MONDAY)
    assert not os.path.lexists(workspace / "risk.duckdb")
    monkeypatch.setenv("BULLWHIP_PUBLISH", postgres.replace("hu-sh", "no-hu-sh"))
    answers.append(bullwhip(workspace, "show"))
    assert answers[-1][0] == 6
    files = [p for home in (workspace, Path(os.environ["PREFECT_HOME"])) for p in home.rglob("*") if p.is_file()]
    assert len(files) > 10
    assert [path for path in files if b"hu-sh" in path.read_bytes()] == []
    assert "hu-sh" not in repr(answers)


def test_the_same_week_again_changes_nothing_and_a_correction_is_its_next_revision(published, webhook, monkeypatch):
    before = tables_of(published)
    shutil.rmtree(published / "board")
    with webhook(500) as down:
        posting_to(down, published)
        code, said, _ = bullwhip(published, "score")
    assert (code, said["status"], said["revision"]) == (0, "unchanged", 1)
    assert said["handouts"]["digest"]["receivers"]["slack"]["state"] == "not delivered"
    assert len(down.came) == 3
    assert (published / "board" / "index.html").exists(), "a page that is missing is made again"
    line = before["supplier_delay_risk"]["po_line_id"].iloc[0]  # is open: its receipt was forgotten
    change(
        published,
        "receipts",
        f"SELECT * FROM old UNION ALL BY NAME SELECT '{line}' AS po_line_id, "
        "DATE '2026-05-28' AS received_on, 'late-paper' AS receipt_id, TIMESTAMP '2026-05-30' AS known_at",
    )
    with webhook(200) as hook:
        posting_to(hook, published)
        code, said, _ = bullwhip(published, "score")
        assert (code, said["status"], said["publication_id"]) == (0, "revised", "2026-06-01.r2")
        monkeypatch.setenv("BULLWHIP_PARTITIONS", "3")  # the tables are the same bytes
        code, again, _ = bullwhip(published, "score")
        assert (code, again["status"]) == (0, "unchanged")
    told = [said["handouts"]["digest"]["receivers"]["slack"] for said in (said, again)]
    assert told == [{"state": "sent", "why": ""}, {"state": "sent", "why": "by an earlier run"}]
    assert len(hook.came) == 1
    assert line not in set(tables_of(published)["supplier_delay_risk"]["po_line_id"])
    first = publish.read(published, "supplier_delay_risk", as_of=MONDAY, revision=1).drop(columns="publication_id")
    pd.testing.assert_frame_equal(first, before["supplier_delay_risk"])


def posting_to(hook, workspace):
    with open(workspace / "bullwhip.toml", "a") as file:
        file.truncate(0)
        file.write(f'as_of = {MONDAY}\nslack_webhook = "{hook.url}"\n')


def test_a_score_that_is_killed_leaves_nothing_or_a_whole_week(workspace, scored):
    whole = scored[1]["rows"]
    for _ in range(KILLS):
        process = as_process(workspace, "score")
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < 60:  # until it touches the workspace, or has ended
            if (workspace / "releases").exists() or (workspace / ".publish.lock").exists():
                time.sleep(random.uniform(0, 0.3))
                break
            time.sleep(0.01)
        process.kill()
        process.communicate()
        if (workspace / "current").exists():
            assert {t: len(f) for t, f in tables_of(workspace).items()} == whole
    code, said, _ = bullwhip(workspace, "score")
    assert (code, said["rows"]) == (0, whole)


def test_an_earlier_week_published_later_uses_only_what_was_known_then_and_the_next_looks_back(
    published, workspace, webhook
):
    current = tables_of(published)
    with webhook(200) as hook:
        posting_to(hook, published)
        code, said, _ = bullwhip(published, "score", "--as-of", str(EARLIER))
    assert (code, said["status"], said["as_of"]) == (0, "published", str(EARLIER))
    assert (hook.came, said["handouts"]["digest"]["receivers"]) == ([], {})
    assert (published / "digest" / f"{EARLIER}.md").exists()
    for name, frame in tables_of(published).items():
        pd.testing.assert_frame_equal(frame, current[name])
    forget_from(workspace, EARLIER)
    assert bullwhip(workspace, "score", "--as-of", str(EARLIER))[0] == 0
    known_then = tables_of(workspace)
    assert len(known_then["supplier_delay_risk"]) > 10
    for name, frame in tables_of(published, EARLIER).items():
        pd.testing.assert_frame_equal(frame, known_then[name])

    with webhook(200) as hook:
        posting_to(hook, published)
        code, said, _ = bullwhip(published, "score", "--as-of", str(NEXT))
    assert (code, said["status"]) == (0, "published")
    (_, _, message), *more = hook.came
    assert (
        f"Risks of {NEXT}: EUR {said['value_at_risk']['demand_shifts'] + said['value_at_risk']['late_deliveries']:,.2f}"
        in message["text"]
    )
    assert "Since Mon 1 Jun 2026" in message["text"]
    assert more == []
    it_compares_itself_with_last_week(published)


def it_compares_itself_with_last_week(published):
    before, frames = tables_of(published, MONDAY), tables_of(published)
    assert frames["watchlist"]["as_of"].dt.date.unique().tolist() == [NEXT]
    then = before["supplier_delay_risk"].set_index("po_line_id")["p_late"]
    now = frames["supplier_delay_risk"]
    np.testing.assert_array_equal(now["p_late_last_week"], now["po_line_id"].map(then))
    assert now["p_late_last_week"].notna().any()
    assert frames["demand_shift_risk"]["p_up_last_week"].notna().any()
    assert frames["watchlist"]["change"].str.contains("last week|new on the list").all()
    record = frames["track_record"]
    assert {"published", "walk_forward"} == set(record["source"])
    whole = record[(record["source"] == "published") & (record["bin"] == "all")]
    assert whole["skill_over_climatology"].notna().all()
    again = recomputed_record(settings(published), NEXT)
    shown = record.drop(columns=["as_of", "schema_version"])
    pd.testing.assert_frame_equal(again.astype(shown.dtypes), shown[list(again)])


# What changed since last week, and all about one row ------------------------------------------------------------------


def test_a_week_later_every_change_is_explained_and_every_row_comes_out_again(published):
    code, said, _ = bullwhip(published, "score", "--as-of", str(NEXT))
    assert (code, said["status"], said["since"]) == (0, "published", str(MONDAY))
    changes = publish.read(published, "weekly_change", as_of=NEXT)
    parts = [c for c in changes if c.startswith("part_")]
    assert np.allclose(changes[parts].sum(axis=1), changes["change"], rtol=0, atol=1e-9)
    assert (changes["part_model"] == 0).all()
    for table_of, totals in said["change"].items():
        for day, value in ((MONDAY, "value_last_week"), (NEXT, "value_this_week")):
            table = publish.read(published, table_of, as_of=day)
            assert totals[value] == pytest.approx(table["value_at_risk"].sum(), abs=0.005)
            there = changes[
                (changes["risk"] == table_of) & (changes["status"] != ("new" if day == MONDAY else "closed"))
            ]
            assert set(there["row_id"]) == set(table["row_id"])
    watch = {day: publish.read(published, "watchlist", as_of=day) for day in (MONDAY, NEXT)}
    left = changes.loc[changes["left_list"], "row_id"]
    assert set(left) <= set(watch[MONDAY]["row_id"]) - set(watch[NEXT]["row_id"])
    assert changes.loc[changes["left_list"], "reason"].str.startswith("left the list: ").all()
    assert bullwhip(published, "score", "--as-of", str(NEXT))[1]["status"] == "unchanged"

    line = publish.read(published, "supplier_delay_risk", as_of=NEXT).query("open_units > 2")["row_id"].iloc[0]
    window = publish.read(published, "demand_shift_risk", as_of=NEXT)["row_id"].iloc[0]
    for row in (line, window):
        code, story, _ = bullwhip(published, "explain", row.lower())
        assert code == 0, story
        assert (story["check"]["equal"], story["row_id"]) == (True, row), story["check"]
        assert story["features"]
        assert all(fact["known_at"] < str(NEXT) for facts in story["facts"].values() for fact in facts)
    came = "DATE '2026-06-03' AS received_on, 1 AS quantity, TIMESTAMP '2026-06-03 12:00' AS known_at"
    change(published, "receipts", f"FROM old UNION ALL BY NAME SELECT '{line}' AS po_line_id, {came}")
    _, story, _ = bullwhip(published, "explain", line)
    assert story["check"]["late_facts"] == ["receipts (+1 rows)"]
    assert "open_units" in [found["column"] for found in story["check"]["differs"]]
    code, said, _ = bullwhip(published, "explain", f"{line}x")
    assert code == 2
    assert line in said["error"]
