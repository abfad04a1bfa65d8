"""The flows as a user runs them: trained, scored, published and refused on the simulator's smallest world."""

import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
import warnings
from datetime import date
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import openpyxl
import pandas as pd
import pytest

from features import matrix, orders
from features.contracts import TABLES
from features.core import Feature
from models import lessons, risk
from models.delay import DelayModel
from models.forecasters import load as load_forecaster
from models.gate import Decision
from models.shift import ShiftModel
from pipelines import backtest, cli, learn, mlflow_store, publish, registry, running
from pipelines.scored import recomputed_record
from pipelines.settings import load
from pipelines.world import NO_PROOF, delay_rows, open_world, request

pytestmark = pytest.mark.usefixtures("prefect_server")
MONDAY, EARLIER, NEXT = date(2026, 6, 1), date(2026, 5, 18), date(2026, 6, 8)
KILLS = 1  # each costs the start of a process; publishing itself is killed many times in test_publish
METRICS = {"pr_auc", "prevalence", "brier", "bss_climatology", "ece", "slope"}


def bullwhip(workspace, *words):
    """Run a command in this process; returns its exit code, its JSON document and what it said on stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run([*words, "--json", "--workspace", str(workspace)])
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return code, json.loads(out.getvalue()), err.getvalue()


@pytest.fixture(scope="session")
def scored(trained, tmp_path_factory):
    """The trained workspace with its Monday published, and what scoring said."""
    folder = shutil.copytree(trained[0], tmp_path_factory.mktemp("scored") / "workspace", symlinks=True)
    code, said, _ = bullwhip(folder, "score")
    assert code == 0, said
    return folder, said


@pytest.fixture
def fresh(world, tmp_path):
    return Path(shutil.copytree(world, tmp_path / "fresh"))


@pytest.fixture
def workspace(trained, tmp_path):
    return Path(shutil.copytree(trained[0], tmp_path / "workspace"))


@pytest.fixture
def published(scored, tmp_path):
    return Path(shutil.copytree(scored[0], tmp_path / "published", symlinks=True))


@pytest.fixture
def quick(monkeypatch):
    """Few trees: for tests that look at what happens around the models."""

    n = 4
    monkeypatch.setattr(lessons, "DelayModel", partial(DelayModel, rounds=n))
    monkeypatch.setattr(lessons, "ShiftModel", partial(ShiftModel, rounds=n, quantile_rounds=n))
    monkeypatch.setattr(learn, "judge", partial(learn.judge, n=20))
    return n


def settings(workspace):
    return load(workspace, environ={})


def change(workspace, table, query):
    """Replace a table by what a query over `old` gives."""
    path = workspace / "data" / f"{table}.parquet"
    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW old AS FROM '{path}'")
        con.execute(f"COPY ({query}) TO '{path}.new' (FORMAT parquet)")
    os.replace(f"{path}.new", path)


def to_nine_digits(document):
    """The document with every number rounded: in which order threads add up is in the last digits."""
    return json.loads(json.dumps(document), parse_float=lambda text: float(f"{float(text):.9g}"))


def forget_from(workspace, day):
    """Delete every fact that became known on or after a day."""
    moment = f"TIMESTAMP '{day} 00:00:00'"
    for table in TABLES:
        path = workspace / "data" / f"{table.name}.parquet"
        if not path.exists() or "known_at" not in [c.name for c in table.columns]:
            continue
        there = set(pd.read_parquet(path).columns)
        known_at = f"coalesce(known_at, {table.column('known_at').default or 'NULL'})"
        known_at = known_at if "known_at" in there else table.column("known_at").default
        later = [c for c in table.columns if c.known_from != "known_at" and c.name in there]
        cells = ", ".join(f"CASE WHEN {c.known_from} < {moment} THEN {c.name} END AS {c.name}" for c in later)
        change(workspace, table.name, f"SELECT * {f'REPLACE ({cells})' if cells else ''} FROM old "
               f"WHERE {known_at} < {moment}")  # fmt: skip


def keep_only(workspace, *tables):
    for path in (workspace / "data").iterdir():
        if path.stem not in tables:
            path.unlink()


def tables_of(workspace, day=None, names=publish.TABLES):
    return {t: publish.read(workspace, t, as_of=day).drop(columns="publication_id") for t in names}


# Training -----------------------------------------------------------------------------------------------------------


def test_training_says_all_of_its_document(trained):
    _, code, said = trained
    assert said["as_of"] == str(EARLIER)
    assert set(said["tasks"]) == {"delay", "shift"}
    for result in said["tasks"].values():
        assert {"model_version", "alias", "promoted", "refused_because", "rows", "metrics", "rules", "mlflow_run_id",
                "seconds"} <= set(result)  # fmt: skip
        assert set(result["metrics"]) >= METRICS
        assert all(isinstance(result["metrics"][name], int | float) for name in METRICS)
        assert result["rules"]
        assert all({"pr_auc", "brier", "slope"} <= set(rule) for rule in result["rules"].values())
        assert 0 < result["rows"]["judged"] <= result["rows"]["matured"] <= result["rows"]["rows"]
        assert result["promoted"] == (result["refused_because"] is None)
        assert (result["model_version"], result["alias"]) == ("1", "champion")
    refused = [r["refused_because"] for r in said["tasks"].values() if r["refused_because"]]
    assert code == (4 if refused else 0)
    assert all(reason in said["error"] for reason in refused)


def test_one_run_keeps_everything_about_a_training(trained):
    folder, _, said = trained
    store = mlflow_store.open_store(settings(folder))
    runs = store.client.search_runs([store.experiment_id])
    assert {r.info.run_id for r in runs} == {t["mlflow_run_id"] for t in said["tasks"].values()}
    (run,) = runs
    assert run.info.status == "FINISHED"
    assert {"prefect.flow_run_id", "as_of", "data_hash", "git_sha"} <= set(run.data.tags)
    assert run.data.metrics["delay.pr_auc"] == pytest.approx(said["tasks"]["delay"]["metrics"]["pr_auc"])
    assert any(name.startswith("shift.rule.") for name in run.data.metrics)
    artifacts = folder / "mlflow" / "artifacts" / run.info.run_id
    names = {p.stem for p in artifacts.rglob("*") if p.is_file()}
    for task in ("delay", "shift"):
        assert {f"{task}_drivers", f"{task}_metrics"} <= names
    for event in ("delay", "shift_down", "shift_up"):
        assert {f"{event}_reliability", f"{event}_precision_recall"} <= names
    drivers = pd.read_csv(next(artifacts.rglob("delay_drivers.csv")))
    assert drivers["gain_share"].sum() == pytest.approx(1)


def test_a_registered_model_serves_what_our_own_loader_scores(workspace, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    found = registry.champion(settings(workspace), registry.REGISTRY["delay"])
    served = mlflow.pyfunc.load_model(f"models:/{registry.REGISTRY['delay']}@champion")
    ours = load_forecaster(found.folder)
    with open_world(settings(workspace), MONDAY) as world:
        asked = request(world, "delay", ours.facts.terms)
        X = delay_rows(world, asked, np.array([asked.grid.size - 1]), NO_PROOF).X
    assert len(X) > 10
    pd.testing.assert_frame_equal(served.predict(X), ours.predict(X))
    stored = {p.suffix for p in (workspace / "mlflow" / "artifacts").rglob("*") if p.is_file()}
    assert not stored & {".pkl", ".pickle", ".joblib", ".npy"}


def test_training_again_on_the_same_changes_nothing(workspace, trained):
    code, said, _ = bullwhip(workspace, "train", "--as-of", str(EARLIER))
    assert code == trained[1]
    for task, result in said["tasks"].items():
        assert result["unchanged"] is True
        assert result["metrics"] == trained[2]["tasks"][task]["metrics"]
        assert len(registry.versions(settings(workspace), registry.REGISTRY[task])) == 1


class Contrary(DelayModel):
    """Says the opposite of what it learnt."""

    def late(self, rows):
        return 1 - super().late(rows)


def test_a_worse_challenger_is_kept_but_not_promoted(workspace, quick, monkeypatch):
    monkeypatch.setattr(lessons, "DelayModel", partial(Contrary, rounds=quick))
    (workspace / "bullwhip.toml").write_text(f"as_of = {MONDAY}\nseed = 8\n")
    code, said, _ = bullwhip(workspace, "train", "--task", "delay", "--dry-run")
    assert (code, said["tasks"]["delay"]["model_version"]) == (4, None)
    assert len(registry.versions(settings(workspace), registry.REGISTRY["delay"])) == 1
    code, said, _ = bullwhip(workspace, "train", "--task", "delay")
    result = said["tasks"]["delay"]
    assert (code, result["alias"], result["promoted"], result["model_version"]) == (4, "challenger", False, "2")
    assert "clearly better" in result["refused_because"]
    assert result["refused_because"] in said["error"]
    known = registry.versions(settings(workspace), registry.REGISTRY["delay"])
    assert [(v["version"], v["aliases"]) for v in known] == [("2", ["challenger"]), ("1", ["champion"])]


@pytest.mark.usefixtures("quick")
def test_training_learns_nothing_from_facts_known_later(fresh, tmp_path):
    (fresh / "bullwhip.toml").write_text("history_weeks = 44\n")
    blind = Path(shutil.copytree(fresh, tmp_path / "blind"))
    forget_from(blind, EARLIER)
    (_, seen, _), (_, unseen, _) = (bullwhip(w, "train", "--as-of", str(EARLIER)) for w in (fresh, blind))
    models = []
    for folder, said in ((fresh, seen), (blind, unseen)):
        for result in said["tasks"].values():
            del result["mlflow_run_id"], result["seconds"]
        found = [registry.champion(settings(folder), name).folder for name in registry.REGISTRY.values()]
        models.append([p.read_bytes() for f in found for p in sorted(f.rglob("*.lgb"))])
    assert to_nine_digits(seen["tasks"]) == to_nine_digits(unseen["tasks"])
    assert seen["tasks"]["delay"]["rows"]["judged"] > 50
    assert len(models[0]) >= 6
    assert models[0] == models[1]


# Scoring ------------------------------------------------------------------------------------------------------------


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


# What refuses -------------------------------------------------------------------------------------------------------


def plant_a_leak(monkeypatch):
    """Let the delay task read how many lines there will ever be: what a careless formula would do."""
    build = matrix.open_lines

    def peeking(con, *more, **named):
        rows = build(con, *more, **named)
        ever = con.execute("SELECT supplier_id, count(*) AS n FROM receipts r JOIN purchases USING (po_line_id) "
                           "GROUP BY supplier_id").df().set_index("supplier_id")["n"]  # fmt: skip
        return rows.assign(receipts_ever=rows["supplier_id"].map(ever).astype(float))

    features = (*orders.LINE_FEATURES, Feature("receipts_ever", lambda rows: rows["receipts_ever"], "", "A leak."))
    monkeypatch.setattr(matrix, "open_lines", peeking)
    monkeypatch.setattr(matrix, "LINE_FEATURES", features)
    monkeypatch.setattr(matrix, "line_features", lambda rows: orders.line_features(rows, features))


@pytest.mark.parametrize("command", [("train", "--task", "delay"), ("score", "--as-of", str(EARLIER))])
def test_a_leak_stops_the_run_and_is_named(workspace, monkeypatch, command):
    plant_a_leak(monkeypatch)
    (workspace / "bullwhip.toml").write_text(f"as_of = {MONDAY}\nseed = 9\n")
    code, said, err = bullwhip(workspace, *command)
    assert code == 4
    assert "receipts_ever reads the future" in said["error"]
    assert err.count("\n") == 1, err
    assert not (workspace / "risk.duckdb").exists()
    assert len(registry.versions(settings(workspace), registry.REGISTRY["delay"])) == 1


def test_without_a_model_scoring_says_what_to_do_and_nothing_else(fresh):
    process = as_process(fresh, "score")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (4, "")
    assert err.startswith("bullwhip: nothing to score with")
    assert err.endswith("run bullwhip train first\n")
    assert err.count("\n") == 1, err  # DuckDB and Prefect are silent at the end, too
    assert not (fresh / "risk.duckdb").exists()


@pytest.mark.parametrize("command", ["train", "score"])
def test_a_tracking_store_that_does_not_answer_is_named_soon(workspace, monkeypatch, command):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    began = time.monotonic()
    code, said, err = bullwhip(workspace, command)
    assert time.monotonic() - began < 15
    assert code == 6
    assert "http://127.0.0.1:9 does not answer" in said["error"]
    assert err.count("\n") == 1, err


# Other worlds -------------------------------------------------------------------------------------------------------


def test_purchases_and_receipts_alone_teach_delays_and_a_better_model_gives_its_reasons(fresh, monkeypatch):
    keep_only(fresh, "purchases", "receipts")
    monkeypatch.setattr(learn, "decide", lambda *_: Decision({"late": "model"}, {"late": "climatology"}, None))
    code, said, _ = bullwhip(fresh, "train")
    assert (code, said["tasks"]["delay"]["promoted"]) == (0, True)
    assert "no orders" in said["tasks"]["shift"]["skipped"]
    code, said, _ = bullwhip(fresh, "score")
    assert (code, said["models"]["delay"]["publishes"]) == (0, "model")
    assert set(said["models"]) == {"delay"}
    frames = tables_of(fresh, names=("supplier_delay_risk", "supplier_risk", "watchlist"))
    assert (frames["supplier_delay_risk"]["published_by"] == "model").all()
    assert (frames["watchlist"]["driver_1"] != "").any()


@pytest.mark.usefixtures("quick")
def test_orders_alone_teach_shifts(fresh):
    keep_only(fresh, "orders")
    code, said, _ = bullwhip(fresh, "train")
    assert code in (0, 4)
    assert "no purchase lines" in said["tasks"]["delay"]["skipped"]
    code, said, _ = bullwhip(fresh, "score")
    assert (code, set(said["models"])) == (0, {"shift"})
    names = {"demand_shift_risk", "watchlist", "weekly_change", "rule_forecasts", "track_record", "health"}
    assert set(said["rows"]) == names


@pytest.mark.usefixtures("quick")
def test_snapshots_may_be_daily_and_purchases_bring_attributes(fresh):
    change(fresh, "purchases", "SELECT *, CASE WHEN hash(po_line_id) % 2 = 0 THEN 'air' ELSE 'sea' END AS ship_mode, "
           "hash(po_line_id) % 90 / 10 AS weight FROM old WHERE ordered_at >= '2025-10-01'")  # fmt: skip
    change(fresh, "receipts", "SELECT * FROM old WHERE received_on >= '2025-10-01'")
    (fresh / "bullwhip.toml").write_text(
        f'as_of = {MONDAY}\nevery_days = 1\nattributes = ["ship_mode", "weight"]\ntasks = ["delay"]\n'
        "max_quarantined = 0.9\nhistory_weeks = 30\n"
    )
    code, said, _ = bullwhip(fresh, "train")
    assert code in (0, 4), said
    assert said["tasks"]["delay"]["rows"]["rows"] > 3000
    found = registry.champion(settings(fresh), registry.REGISTRY["delay"])
    assert {"attribute_ship_mode", "attribute_weight"} <= set(load_forecaster(found.folder).model.encoder_.columns_)
    assert bullwhip(fresh, "score")[0] == 0


# A process that is killed --------------------------------------------------------------------------------------------


def as_process(workspace, *words, **more):
    from prefect.settings import PREFECT_API_URL

    environment = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value()}
    command = [sys.executable, "-m", "pipelines.cli", *words, "--workspace", str(workspace)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


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


@pytest.mark.parametrize("words", [("score",), ("train", "--as-of", "2026-05-25")], ids=["score", "train"])
def test_a_command_that_is_told_to_stop_closes_its_runs_and_leaves_in_time(workspace, words):
    from prefect.client.orchestration import get_client

    process = as_process(workspace, *words)
    marks, began = workspace / running.MARKS, time.monotonic()
    while not (found := list(marks.glob("*.*"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < 300
        time.sleep(0.02)
    flow_run_id, _, mlflow_run_id = found[0].name.partition(".")
    time.sleep(random.uniform(0, 1))
    process.terminate()
    told = time.monotonic()
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (143, "bullwhip: terminated\n")
    assert time.monotonic() - told < (10 if os.getloadavg()[0] < 3 else 90)
    store = mlflow_store.open_store(settings(workspace))
    assert store.client.get_run(mlflow_run_id).info.status == "KILLED"
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(flow_run_id).state.name == "Crashed"
    assert not running.is_locked(workspace / ".publish.lock")
    assert running.left_behind(workspace) == []


# The past, replayed -------------------------------------------------------------------------------------------------

PAST = ("--from", "2026-02-02", "--to", "2026-03-30", "--refit", "4w")


@pytest.fixture
def replayed(fresh, quick):  # noqa: ARG001
    """A workspace whose delays were replayed once, what that said, and its predictions."""
    code, said, _ = bullwhip(fresh, "backtest", "--task", "delay", *PAST, "--predictions", str(fresh / "p.parquet"))
    assert code == 0, said
    return fresh, said, pd.read_parquet(fresh / "p.parquet")


def test_a_backtest_says_all_of_its_document_and_anyone_can_recompute_it(replayed):
    _, said, p = replayed
    assert {"n", "positives", "folds", "metrics", "rules", "intervals", "segments", "weeks", "lists", "quantiles",
            "predictions", "mlflow_run_id", "seconds"} <= set(said)  # fmt: skip
    assert [fold["cut"] for fold in said["folds"]] == ["2026-02-02", "2026-03-02", "2026-03-30"]
    assert (p["as_of"].dt.day_of_week == 0).all()
    known = p[p["label"].notna()]
    assert (said["n"], said["positives"]) == (len(known), known["label"].sum())
    assert said["metrics"]["brier"] == pytest.approx(((known["p"] - known["label"]) ** 2).mean())
    for rule, found in said["rules"].items():
        assert found["brier"] == pytest.approx(((known[f"p_{rule}"] - known["label"]) ** 2).mean()), rule
    assert not p.duplicated(["po_line_id", "as_of"]).any()
    assert (known["matured_at"] <= pd.Timestamp(said["known_until"])).all()
    assert p.loc[p["state"] != "due_future", ["p", "label"]].isna().all(axis=None)
    assert p.filter(like="arrival_in").notna().all(axis=None)
    for name in {part["segment"] for part in said["segments"]}:
        mine = [part["n"] for part in said["segments"] if part["segment"] == name]
        assert 0 < sum(mine) <= len(known)


def test_a_backtest_is_one_run_with_a_child_per_fold_and_its_pictures(replayed):
    folder, said, _ = replayed
    store = mlflow_store.open_store(settings(folder))
    runs = {r.info.run_id: r for r in store.client.search_runs([store.experiment_id])}
    parent = runs.pop(said["mlflow_run_id"])
    assert {r.data.tags["mlflow.parentRunId"] for r in runs.values()} == {said["mlflow_run_id"]}
    assert {r.data.tags["cut"] for r in runs.values()} == {fold["cut"] for fold in said["folds"]}
    assert {r.info.status for r in (parent, *runs.values())} == {"FINISHED"}
    artifacts = folder / "mlflow" / "artifacts" / parent.info.run_id
    names = {p.name for p in artifacts.rglob("*.png")}
    kinds = ("reliability", "precision_recall", "skill_over_time", "value_captured", "warning_days")
    assert names == {f"delay_{kind}.png" for kind in kinds}


def test_a_backtest_goes_on_with_the_folds_that_are_missing(replayed, monkeypatch):
    folder, said, p = replayed
    kept = sorted((folder / "backtests").rglob("fold-*.parquet"))
    assert len(kept) == 5  # two warm the gate up
    kept[-1].unlink()
    played = []
    play = backtest.play
    monkeypatch.setattr(backtest, "play", lambda lesson, fold, *more: played.append(fold) or play(lesson, fold, *more))
    code, again, _ = bullwhip(
        folder, "backtest", "--task", "delay", *PAST, "--predictions", str(folder / "again.parquet")
    )
    assert code == 0
    assert [str(fold.cut) for fold in played] == ["2026-03-30"]
    assert {**again, "seconds": 0, "predictions": ""} == {**said, "seconds": 0, "predictions": ""}
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "again.parquet"), p)


def test_the_past_is_replayed_as_if_the_future_had_not_come(replayed, tmp_path):
    """Facts known later change what came true, never what was predicted."""
    folder, _, p = replayed
    blind = Path(shutil.copytree(folder, tmp_path / "blind", ignore=shutil.ignore_patterns("backtests")))
    forget_from(blind, date(2026, 4, 1))
    code, said, _ = bullwhip(blind, "backtest", "--task", "delay", *PAST, "--predictions", str(blind / "p.csv"))
    assert code == 0
    assert said["known_until"] <= "2026-04-01"
    unseen = pd.read_csv(blind / "p.csv")
    columns = [c for c in p if c.startswith(("p_", "arrival_in"))] + ["p"]
    pd.testing.assert_frame_equal(unseen[columns], p[columns], check_dtype=False)
    assert unseen["label"].notna().sum() < p["label"].notna().sum()


@pytest.mark.usefixtures("quick")
def test_lines_are_replayed_once_on_the_day_they_were_ordered(fresh):
    words = ("--task", "delay", "--at", "order", *PAST, "--predictions", str(fresh / "p.parquet"))
    code, said, _ = bullwhip(fresh, "backtest", *words)
    assert code == 0, said
    p = pd.read_parquet(fresh / "p.parquet")
    assert p["po_line_id"].is_unique
    lines = pd.read_parquet(fresh / "data" / "purchases.parquet")
    ordered = lines.set_index("po_line_id")["ordered_at"].dt.normalize()
    np.testing.assert_array_equal(p["as_of"], p["po_line_id"].map(ordered))
    inside = ordered.between("2026-02-02", "2026-03-30")
    assert set(p["po_line_id"]) <= set(ordered.index[inside])
    assert len(p) > 0.9 * inside.sum()
    assert said["n"] == p["label"].notna().sum() > 50


@pytest.mark.usefixtures("quick")
def test_shifts_are_replayed_with_drops_and_surges_judged_apart(fresh):
    code, said, _ = bullwhip(fresh, "backtest", "--task", "shift", *PAST, "--predictions", str(fresh / "p.csv"))
    assert code == 0
    assert set(said["events"]) == {"down", "up"}
    p = pd.read_csv(fresh / "p.csv")
    assert set(p["label"].dropna()) <= {"down", "steady", "up"}
    np.testing.assert_allclose(p[["p_down", "p_steady", "p_up"]].sum(axis=1), 1)
    known = p[p["label"].notna()]
    up = said["events"]["up"]["metrics"]
    assert up["brier"] == pytest.approx(((known["p_up"] - (known["label"] == "up")) ** 2).mean())
    assert said["n"] == 2 * len(known)
    assert (p["units_p10"] <= p["units_p50"]).all()


@pytest.mark.parametrize(("words", "complaint"), [
    (("--from", "2026-03-30", "--to", "2026-02-02"), "lies after --to"),
    (("--from", "2026-07-01", "--to", "2026-08-01"), "the newest fact is of"),
    (("--from", "2020-01-06", "--to", "2020-02-03"), "nothing to replay"),
    (("--from", "2026-02-02", "--to", "2026-03-30", "--every", "fortnight"), "expected days or weeks"),
])  # fmt: skip
def test_questions_without_an_answer_are_refused_in_one_line(fresh, words, complaint):
    code, said, err = bullwhip(fresh, "backtest", "--task", "delay", *words)
    assert code == 2
    assert complaint in said["error"]
    assert err.count("\n") == 1, err


def test_a_backtest_that_is_killed_goes_on_to_the_same_end(replayed, tmp_path):
    folder, said, _ = replayed
    other = Path(shutil.copytree(folder, tmp_path / "other", ignore=shutil.ignore_patterns("backtests")))
    process = as_process(other, "backtest", "--task", "delay", *PAST)
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < 120 and not list(other.rglob("fold-*.parquet")):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    whole = len(list(other.rglob("fold-*.parquet")))
    assert 1 <= whole < 5
    code, again, _ = bullwhip(other, "backtest", "--task", "delay", *PAST)
    assert code == 0
    assert len(list(other.rglob("fold-*.parquet"))) == 5
    counts = [
        [{k: fold[k] for k in ("cut", "predicted", "n", "positives")} for fold in x["folds"]] for x in (again, said)
    ]
    assert counts[0] == counts[1]


# What changed since last week, and all about one row -----------------------------------------------------------------


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
