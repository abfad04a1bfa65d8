import io
import json
import logging
import os
import signal
import subprocess
import sys
import types
from dataclasses import dataclass
from datetime import date

import pandas as pd
import pytest

import pipelines
from pipelines import cli, screen, stories, terminal
from pipelines.settings import GateRefused, Unreachable

RULES = {
    "supplier_52w": {"pr_auc": 0.2, "brier": 0.11},
    "days_to_promise": {"pr_auc": 0.31, "brier": 0.1, "slope": 1.0},
}
METRICS = {"pr_auc": 0.42, "prevalence": 0.14, "brier": 0.09, "bss_climatology": 0.12, "ece": 0.013, "slope": 0.98}
TRAINED = {
    "model_version": "3",
    "promoted": True,
    "refused_because": None,
    "rows": 1200,
    "metrics": METRICS,
    "rules": RULES,
}
SCORED = {
    "status": "published",
    "publication_id": "2026-06-01.1",
    "as_of": date(2026, 6, 1),
    "rows": {"watchlist": 12},
    "value_at_risk": 1234567.8,
    "models": {"delay": "3"},
}
NOTHING = {"caught_up": [], "refused": [], "out_of_reach": []}
WATCHED = pd.DataFrame(
    {
        "as_of": pd.to_datetime(["2026-06-01", "2026-06-01"]),
        "rank": [1, 2],
        "kind": ["supplier delay", "demand shift"],
        "what": ["PO 4711: 1,200 bearings from Acme", "Pumps in Memphis: demand up"],
        "supplier_id": ["S12", None],
        "product_id": ["P7", "P9"],
        "site_id": ["ROT", "MEM"],
        "p": [0.83, 0.999],
        "level": ["high", None],
        "value_at_risk": [48200.4, float("nan")],
        "driver_1": ["late in 6 of the last 9 deliveries", "three weeks above plan"],
        "owner": ["procurement", "sales"],
        "next_step": ["Call the supplier", "Raise the plan"],
        "act_by": pd.to_datetime(["2026-06-04", "2026-06-09"]),
        "change": ["new", "up 12 points"],
    }
)


@dataclass
class Checked:
    ok: bool = True
    error: str = "the input does not hold (1 breach): orders.quantity: the column is missing"

    def as_dict(self):
        return {"ok": self.ok, "tables": {"orders": {"rows": 3}}}


@pytest.fixture
def fake(monkeypatch):
    """Stand in for modules the commands import: fake(train=function) makes `pipelines.train.train` that function."""

    def put(**functions):
        for name, function in functions.items():
            module = types.ModuleType(f"pipelines.{name}")
            setattr(module, {"publish": "read", "catch_up": "score_week"}.get(name, name), function)
            module.report = lambda outcome: f"all fine: {outcome.ok}"
            module.size_of = module.step_of = lambda given: given
            monkeypatch.setitem(sys.modules, module.__name__, module)
            monkeypatch.setattr(pipelines, name, module, raising=False)
            if name == "score":  # without a day it catches up first
                put(catch_up=lambda *given, since, _score=function, **more: dict(_score(*given, **more), **NOTHING))  # noqa: ARG005

    put(
        check=lambda _settings, now: Checked(),  # noqa: ARG005
        train=lambda _settings, tasks, dry_run, **_: {t: TRAINED | {"dry_run": dry_run} for t in tasks},
        score=lambda _settings, as_of, dry_run: SCORED | {"as_of": as_of},  # noqa: ARG005
        publish=lambda _workspace, table, as_of=None: WATCHED.copy(),  # noqa: ARG005
    )
    return put


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    for name in ("OMP_WAIT_POLICY", "PREFECT_HOME"):
        monkeypatch.setenv(name, os.environ[name])  # what a command adds is taken back
    assert cli.run(["init", "--workspace", str(tmp_path)]) == 0
    return tmp_path


@pytest.fixture
def bullwhip(workspace, capsys):
    """Run a command in the workspace; returns exit code, stdout, stderr."""
    capsys.readouterr()

    def call(*words):
        code = cli.run([*words, "--workspace", str(workspace)])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("command", ["init", "check", "train", "score", "show", "demo"])
def test_json_is_one_document_on_stdout(bullwhip, fake, command, workspace):
    def chatty(_settings, as_of, **_):
        print("a library talks")
        return SCORED | {"as_of": as_of, "bad": float("nan")}

    fake(score=chatty)
    (workspace / "data" / "orders.csv").touch()
    (workspace / "truth").mkdir()
    code, out, err = bullwhip(command, "--json")
    assert code == 0, err
    assert isinstance(json.loads(out, parse_constant=pytest.fail), dict)
    assert out.count("\n") == 1
    assert ("a library talks" in err) == (command in ("score", "demo"))


def test_rows_of_a_table_are_plain_json(bullwhip, fake):
    fake()
    _, out, _ = bullwhip("show", "--json", "--top", "1")
    said = json.loads(out)
    assert said["total_rows"] == 2
    assert said["rows"][0]["act_by"] == "2026-06-04"
    assert json.loads(bullwhip("show", "--json")[1])["rows"][1]["value_at_risk"] is None


ERRORS = [
    (Unreachable("no answer from db"), 6, "bullwhip: no answer from db\n"),
    (GateRefused("worse\nthan before"), 4, "bullwhip: worse than before\n"),
    (PermissionError(13, "Permission denied", "/x"), 2, "Permission denied"),
    (OSError(28, "No space left on device", "/x"), 2, "No space left on device"),
    (RuntimeError("Failed to reach API at http://x/api/"), 6, "the Prefect server"),
    (ZeroDivisionError("of course"), 1, "bullwhip: unexpected ZeroDivisionError: of course (traceback: "),
    (
        type("PrefectHTTPStatusError", (Exception,), {})("error '401 Unauthorized' for"),
        6,
        "wants another password: set",
    ),
    (KeyboardInterrupt(), 130, "bullwhip: interrupted\n"),
    (SystemExit(143), 143, "bullwhip: terminated\n"),
]


@pytest.mark.parametrize(("error", "code", "line"), ERRORS, ids=[type(e).__name__ for e, _, _ in ERRORS])
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_every_error_is_one_line_and_an_exit_code(bullwhip, fake, error, code, line, as_json):
    def broken(*_, **__):
        raise error

    fake(train=broken)
    got, out, err = bullwhip("train", *(["--json"] if as_json else []))
    assert got == code
    assert line in err
    assert err.count("\n") == 1
    if as_json:
        said = json.loads(out)
        assert said["exit_code"] == code
        assert f"bullwhip: {said['error']}\n" == err
    else:
        assert out == ""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trian"], 'Unknown command "trian". Did you mean "train"?'),
        (["train", "--tsk", "x"], "Did you mean --task?"),
        (["train", "--task", "foo"], 'Choose from: "delay", "shift"'),
        (["train", "--as-of", "2026-02-30"], "--as-of: '2026-02-30' is no day; expected YYYY-MM-DD"),
        (["show", "--week", "31/05/2026"], "expected YYYY-MM-DD such as 2026-01-05"),
        (["show", "--top", "-1"], "Must be >= 0"),
        (["simulate", "--scale", "toyy"], "expected one of toy"),
        (["simulate", "--shifts", "many"], "--shifts is 'many'; expected usual, none, or"),
        (["simulate", "--shifts", "2"], "like 0.3"),
        (["simulate", "--busy", "0"], "Must be > 0"),
        (
            ["publish", "--from", "2026-01-05", "--source", "nowhere"],
            "--source is nowhere, and there is no such folder",
        ),
        (["init", "more"], "more"),
    ],
)
def test_wrong_usage_is_said_in_one_line(bullwhip, words, line):
    code, out, err = bullwhip(*words)
    assert (code, out) == (2, "")
    assert line in err
    assert err.startswith("bullwhip: ")
    assert err.count("\n") == 1


def test_a_traceback_waits_in_a_file_without_secrets(bullwhip, fake, workspace, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("cannot open postgresql://me:secret@db/x")

    fake(score=broken)
    _, _, err = bullwhip("score")
    text = (workspace / "last-error.txt").read_text()
    assert "Traceback" in text
    assert "in broken" in text
    assert "secret" not in err + text
    monkeypatch.setenv("BULLWHIP_DEBUG", "1")
    assert "Traceback" in bullwhip("score")[2]
    cli.run(["score", "--workspace", str(workspace / "nowhere")])
    assert "there is no workspace" in capsys.readouterr().err
    for command in ("init", "simulate", "check", "demo"):
        assert cli.run([command, "--workspace", str(workspace / "bullwhip.toml")]) == 2
        assert "--workspace is the file" in capsys.readouterr().err


def test_a_refused_model_exits_4_with_its_whole_story(bullwhip, fake):
    refused = TRAINED | {"promoted": False, "refused_because": "it is not better than days_to_promise"}
    fake(train=lambda *_, **__: {"delay": refused, "shift": TRAINED})
    code, out, err = bullwhip("train", "--json")
    assert (code, err) == (4, "bullwhip: delay: it is not better than days_to_promise\n")
    assert set(json.loads(out)) == {"delay", "shift", "error", "exit_code"}
    assert "Version 3 is not used: it is not better than days_to_promise" in bullwhip("train")[1]
    fake(train=lambda *_, **__: {"delay": refused | {"rows": {"rows": 9, "matured": 0}}})
    assert "name the day after its newest fact: --as-of" in bullwhip("train")[2]
    fake(train=lambda *_, **__: {"delay": refused | {"alias": "champion"}, "shift": TRAINED})
    assert "Version 3 is in use, but a naive rule speaks in place of its model" in bullwhip("train")[1]


def test_input_that_fails_its_contract_exits_3(bullwhip, fake):
    fake(check=lambda *_, **__: Checked(ok=False))
    code, out, err = bullwhip("check")
    assert (code, out) == (3, "all fine: False\n")
    assert err == "bullwhip: the input does not hold (1 breach)\n", "what it is stands above, once"
    assert bullwhip("demo")[0] == 3


@pytest.mark.parametrize(
    ("b", "asked"), [("challenger", ["delay"]), ("1", ["delay", "shift"]), ("9", ["delay", "shift"])]
)
def test_compare_asks_the_tasks_that_have_both_versions(bullwhip, fake, b, asked):
    seen = []
    fake(compare=lambda _settings, task, *_, **__: seen.append(task))
    aliases = {"delay": ["challenger"], "shift": []}
    sys.modules["pipelines.compare"].listed = lambda _settings, task, as_of: [  # noqa: ARG005
        {"version": "1", "aliases": ["champion", *aliases[task]]}
    ]
    bullwhip("compare", "champion", b, "--json")
    assert seen == asked


def test_flags_reach_the_flows(bullwhip, fake):
    seen = {}
    fake(train=lambda _settings, **given: seen.update(given) or {})
    bullwhip("train", "--task", "shift", "--as-of", "2026-01-07", "--dry-run")
    assert seen == {"as_of": date(2026, 1, 7), "tasks": ("shift",), "dry_run": True, "challenger": False}


def test_what_people_see_of_a_week(bullwhip, fake):
    fake()
    out = bullwhip("show")[1]
    for words in ("83 %", ">99 %", "48,200", "Call the supplier", "procurement, by 2026-06-04", "• late in 6", "S12"):
        assert words in out
    assert max(map(len, out.splitlines())) <= screen.WIDTH
    trained = bullwhip("train")[1]
    assert trained.index("days to promise") < trained.index("supplier 52w")
    assert "1,200 rows, 14.0% come true" in trained
    assert "Version 3 is the new champion" in trained
    assert "EUR 1,234,568 at risk" in bullwhip("score")[1]


def test_train_says_where_a_rule_did_better_and_why_there_is_no_skill(bullwhip, fake):
    behind = TRAINED | {"best_rule": "last_z", "metrics": METRICS | {"bss_last_z": -0.286}}
    fake(train=lambda *_, **__: {"shift": behind})
    said = " ".join(bullwhip("train")[1].split())
    assert "the naive rule last z did better, by no more than chance may do" in said
    assert "-28.6%" in said
    fake(train=lambda *_, **__: {"shift": behind | {"metrics": METRICS | {"bss_last_z": 0.1}}})
    assert "did better" not in bullwhip("train")[1]
    fake(train=lambda *_, **__: {"delay": TRAINED | {"metrics": METRICS | {"prevalence": 1.0}}})
    assert "All of them came true: there is nothing to tell apart, so no skill." in bullwhip("train")[1]


def test_a_row_without_reasons_says_that_a_rule_spoke(bullwhip, fake):
    frame = WATCHED.head(1).assign(driver_1="", published_by="supplier_52w")
    fake(publish=lambda *_, **__: frame)
    assert "By a simple rule" in bullwhip("show")[1]


@pytest.mark.parametrize("frame", [WATCHED, WATCHED.head(0), WATCHED[["rank", "p"]], pd.DataFrame()])
@pytest.mark.parametrize("table", ["watchlist", "supplier_risk"])
def test_tables_are_shown_whatever_columns_there_are(bullwhip, fake, frame, table):
    fake(publish=lambda *_, **__: frame.copy())
    code, out, err = bullwhip("show", "--table", table)
    assert code == 0, err
    assert f"of {len(frame)} " in out


def test_a_table_shows_as_many_columns_as_fit_without_breaking_a_cell(bullwhip, fake):
    frame = pd.DataFrame({f"column_{i}": ["2026-06-04", "抗生素药"] for i in range(12)})
    fake(publish=lambda *_, **__: frame)
    out = bullwhip("show", "--table", "health")[1]
    drawn = [line for line in out.splitlines() if "2026" in line or "抗生素药" in line]
    assert len(drawn) == 2
    assert all(line.split() == [line.split()[0]] * len(line.split()) for line in drawn)
    assert "Further columns, with --json: column_" in out


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("p_late", 0.123, "12 %"),
        ("p_late", 0.0001, "<1 %"),
        ("p_late", 0.0, "0 %"),
        ("open_value", 1234567.8, "1,234,568"),
        ("on_time_share", 0.5, "50 %"),
        ("days_late_p50", 3.14159, "3.14"),
        ("open_lines", 1200, "1,200"),
        ("act_by", pd.Timestamp("2026-06-04"), "2026-06-04"),
        ("act_by", pd.NaT, ""),
        ("state", "due_future", "due_future"),
        ("late", True, "yes"),
        ("p_late", None, ""),
    ],
)
def test_cells_are_written_as_people_write_them(column, value, expected):
    assert screen.cell(column, value) == expected


def test_the_simulator_is_told_what_to_plant(bullwhip, fake):
    told = []
    fake(simulate=lambda _out, **given: told.append(given) or {"end": "2026-06-01", "counts": {}})
    for words in ([], ["--shifts", "none"], ["--shifts", "0.3", "--busy", "10"]):
        assert bullwhip("simulate", *words)[0] == 0
    kept = [{k: v for k, v in given.items() if k in ("shifts", "busy")} for given in told]
    assert kept == [{}, {"shifts": "none"}, {"shifts": 0.3, "busy": 10.0}]


def test_a_simulated_workspace_stands_at_the_end_of_its_world(bullwhip, workspace, fake):
    made = {"end": "2026-06-01", "counts": {"orders": 5}}
    fake(
        simulate=lambda out, **_: (
            (out / "truth").mkdir(exist_ok=True) or (out / "data/orders.csv").touch() or dict(made)
        )
    )
    (workspace / "bullwhip.toml").unlink()
    assert bullwhip("simulate", "--json")[0] == 0
    text = (workspace / "bullwhip.toml").read_text()
    assert "\n# A simulated world stands still: this is the day it ends.\nas_of = 2026-06-01\n" in text
    made["end"] = "2027-01-04"
    assert "left as it is: its as_of is 2026-06-01" in bullwhip("simulate")[1]
    assert (workspace / "bullwhip.toml").read_text() == text


def test_a_simulation_never_replaces_real_tables(bullwhip, workspace):
    (workspace / "data" / "orders.csv").touch()
    code, _, err = bullwhip("simulate")
    assert code == 2
    assert "were not simulated" in err


def test_the_demo_says_where_everything_is(bullwhip, workspace, fake):
    fake(simulate=lambda out, **_: (out / "data/orders.csv").touch() or {"end": "2026-06-01", "counts": {}})
    code, out, err = bullwhip("demo")
    assert code == 0, err
    for words in (
        "simulate",
        "Version 3",
        "Call the supplier",
        f"ui --backend-store-uri sqlite:///{workspace}",
        "server start",
    ):
        assert words in out
    assert "A simulated supply chain" not in bullwhip("demo")[1]  # it is there already


def test_values_become_plain_json():
    frame = pd.DataFrame(
        {"day": pd.to_datetime(["2026-01-01"]), "at": pd.to_datetime(["2026-01-01 10:30"]), "x": [None]}
    )
    assert terminal.plain({"a": frame, 1: (float("inf"), pd.NA, date(2026, 1, 1))}) == {
        "a": [{"day": "2026-01-01", "at": "2026-01-01T10:30:00", "x": None}],
        "1": [None, None, "2026-01-01"],
    }


def in_a_process(*words, **changed):
    command = [sys.executable, "-m", "pipelines.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | changed, check=False)


def test_help_imports_nothing_heavy():
    heavy = ["pandas", "numpy", "prefect", "mlflow", "pydantic", "duckdb", "lightgbm", "sklearn", "rich.markdown"]
    code = (
        f"import sys; from pipelines import cli; cli.run(['--help']); print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("init", "simulate", "check", "train", "score", "show", "demo"):
        assert f"│ {command} " in done.stdout


def test_a_process_leaves_with_its_exit_code(tmp_path):
    done = in_a_process("train", "--workspace", str(tmp_path), "--json", BULLWHIP_SEED="x")
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2
    assert done.stderr == "bullwhip: environment variable BULLWHIP_SEED: seed is 'x', expected a whole number from 0\n"


SLEEPING = """
import sys, time, types, pipelines
from pipelines import cli
def sleep(*_, **__):
    print("started", file=sys.stderr, flush=True)
    for _ in range(600):
        time.sleep(0.1)  # one long sleep would not hear of a signal that comes as it falls asleep
module = types.ModuleType("pipelines.catch_up")
module.score_week = sleep
sys.modules["pipelines.catch_up"] = pipelines.catch_up = module
sys.argv = ["bullwhip", "score", "--workspace", sys.argv[1]]
cli.main()
"""


@pytest.mark.parametrize(
    ("sent", "code", "line"),
    [(signal.SIGINT, 130, "bullwhip: interrupted"), (signal.SIGTERM, 143, "bullwhip: terminated")],
)
def test_signals_end_a_command_in_one_line(tmp_path, sent, code, line):
    process = subprocess.Popen([sys.executable, "-c", SLEEPING, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline() == "started\n"
    process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (code, f"{line}\n")


def test_a_flow_s_own_traceback_is_not_shown_but_its_warnings_are(bullwhip, fake):
    def score(*_, **__):
        logging.getLogger("flow_runs").warning("rows are few")
        try:
            raise Unreachable("the database is away")
        except Unreachable:
            logging.getLogger("flow_runs").exception("Encountered exception during execution: Unreachable()")
            raise

    fake(score=score)
    shown = io.StringIO()
    console = logging.StreamHandler(shown)
    logging.getLogger().addHandler(console)
    try:
        assert bullwhip("score")[2] == "bullwhip: the database is away\n"
    finally:
        logging.getLogger().removeHandler(console)
    assert shown.getvalue() == "rows are few\n"
    assert console.filters == []


ENDING = """
import atexit, sys
from pipelines import terminal
ending = terminal.Ending()
atexit.register(print, "registered later, called before")
class Late:
    def __del__(self): print("never heard")
kept = Late()
ending.code = int(sys.argv[1])
sys.exit(ending.code)
"""


@pytest.mark.parametrize(("code", "taken_apart"), [(0, False), (4, False), (143, True)])
def test_a_process_ends_at_once_after_all_that_is_registered_unless_told_to_stop(code, taken_apart):
    done = subprocess.run([sys.executable, "-c", ENDING, str(code)], capture_output=True, text=True, check=False)
    said = ["registered later, called before"] + ["never heard"] * taken_apart
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (code, said, "")


@pytest.mark.parametrize(("state", "p", "said"), [("due_future", 0.4, "40 % late"), ("no_promise", None, "nothing is")])
def test_a_line_without_a_promise_has_no_probability_and_no_rule_speaks_of_it(state, p, said):
    row = {
        "state": state, "promised_on": pd.NaT, "supplier_name": "Acme", "product_name": "pump", "site_id": "north",
        "po_line_id": "l1", "open_units": 5.0, "open_value": None, "p_late": p, "base_rate": 0.2,
        "value_at_risk": None, "rank": 1, "published_by": "supplier_52w",
    }  # fmt: skip
    story = {
        "row": row, "table": "supplier_delay_risk", "check": {"equal": True, "words": "as published", "differs": []},
        "rules": {"late": {"climatology": 0.5}}, "model_says": {"late": 0.5}, "facts": {}, "publication_id": "x.r1",
        "model": {"task": "delay", "version": "1", "learnt_to": "2026-06-01"},
    }  # fmt: skip
    seen = screen.console(120)
    with seen.capture() as captured:
        stories.explained(story, "EUR", seen)
    assert said in captured.get()
    assert ("climatology" in captured.get()) == (state == "due_future")
    assert "said by the supplier's rate in a year" in captured.get()


@pytest.mark.parametrize(("amount", "said"), [(-0.3, "+0"), (9_999, "+9,999"), (-12_345, "-12 k")])
def test_a_change_is_told_with_its_sign(amount, said):
    assert screen.thousands(amount) == said
