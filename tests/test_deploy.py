"""What Prefect is told of deployments, and how triggers and the keeper speak to it: without a server."""

import contextlib
import json
import re
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from urllib.error import URLError
from zoneinfo import ZoneInfo

import pytest
from prefect.client.schemas.schedules import CronSchedule
from prefect.utilities.schema_tools.validation import ValidationError as Refused
from prefect.utilities.schema_tools.validation import validate

from features.contracts import Breach, ContractError
from pipelines import clock, deploy, deployments, keeper, prefect_api, running
from pipelines import trigger as triggers
from pipelines.environment import environment
from pipelines.prefect_api import Api, Rejected, WrongPassword
from pipelines.settings import Unreachable, UserError, load

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class FakeApi:
    """Remembers what it is told, and answers from a few lists."""

    def __init__(self, runs=(), states=()):
        self.url, self.sent = "http://prefect/api", []
        self.things, self.runs, self.states = {}, list(runs), list(states)

    def get(self, path):
        if path.startswith("/flow_run_states/"):
            return self.states
        if path not in self.things:
            raise Rejected(404, "not found")
        return self.things[path]

    def post(self, path, body):
        self.sent.append((path, body))
        if path == "/flow_runs/filter":
            wanted = body["flow_runs"]["state"]["type"]["any_"]
            return [run for run in self.runs if run["state"]["type"] in wanted]
        if path == "/automations/filter":
            return [v for k, v in self.things.items() if k.startswith("/automations/")]
        made = {"id": f"id-{len(self.sent)}", **body}
        if path == "/deployments/":
            self.things[f"/deployments/name/{deploy_flow(body['name'])}/{body['name']}"] = made
        if path in ("/work_pools/", "/automations/"):
            self.things[f"{path}{body['name']}"] = made
        return made

    def delete(self, path):
        self.sent.append((path, None))


def deploy_flow(name):
    return next(d.flow for d in deploy.DEPLOYMENTS if d.name == name)


# Deployments ----------------------------------------------------------------------------------------------------------


def test_deploying_twice_is_deploying_once_and_a_change_is_an_update(tmp_path):
    api = FakeApi()
    first = deploy.deploy(load(tmp_path, environ={}), api)
    assert {said["status"] for said in first["deployments"].values()} == {"created"}
    assert {"score-weekly", "train-monthly", "backtest"} <= set(first["deployments"])
    sent = [path for path, _ in api.sent if path != "/automations/filter"]
    again = deploy.deploy(load(tmp_path, environ={}), api)
    assert {said["status"] for said in again["deployments"].values()} == {"unchanged"}
    assert again["automation"]["status"] == "unchanged"
    assert [path for path, _ in api.sent if path != "/automations/filter"] == sent
    later = deploy.deploy(load(tmp_path, environ={"BULLWHIP_SCHEDULE_SCORE": "0 7 * * MON"}), api)
    assert later["deployments"]["score-weekly"]["status"] == "updated"
    assert later["deployments"]["train-monthly"]["status"] == "unchanged"


def test_one_run_at_a_time_and_the_next_waits(tmp_path):
    wanted = deploy.wanted_of(load(tmp_path, environ={}), deploy.DEPLOYMENTS[0])
    assert wanted["concurrency_limit"] == 1
    assert wanted["concurrency_options"] == {"collision_strategy": "ENQUEUE"}
    assert wanted["enforce_parameter_schema"] is True
    assert deploy.wanted_of(load(tmp_path, environ={}), deploy.DEPLOYMENTS[2])["schedules"] == []


@pytest.mark.parametrize(("function", "parameters", "fine"), [
    ("score_weekly", {}, True),
    ("score_weekly", {"as_of": "2026-06-01"}, True),
    ("score_weekly", {"as_of": None}, True),
    ("score_weekly", {"as_of": 5}, False),
    ("score_weekly", {"as_of": "soonish"}, False),
    ("score_weekly", {"asof": "2026-06-01"}, True),  # the schema lets it pass, Prefect's engine does not
    ("train_monthly", {"tasks": ["delay"]}, True),
    ("train_monthly", {"tasks": ["delays"]}, False),
    ("backtest_stretch", {"task": "shift", "refit_days": "x"}, False),
])  # fmt: skip
def test_parameters_are_checked_before_a_run_starts(tmp_path, function, parameters, fine):
    chosen = next(d for d in deploy.DEPLOYMENTS if d.function == function)
    wanted = deploy.wanted_of(load(tmp_path, environ={}), chosen)
    values = wanted["parameters"] | parameters
    if fine:
        validate(values, wanted["parameter_openapi_schema"], raise_on_error=True)
    else:
        with pytest.raises(Refused):
            validate(values, wanted["parameter_openapi_schema"], raise_on_error=True)


@pytest.mark.parametrize(("name", "value"), [
    ("BULLWHIP_SCHEDULE_SCORE", "every monday"),
    ("BULLWHIP_SCHEDULE_TRAIN", "0 3 1 *"),
    ("BULLWHIP_TIME_ZONE", "Mars/Olympus"),
    ("BULLWHIP_DATABASE", "mysql://u@h/d"),
])  # fmt: skip
def test_wrong_schedules_and_zones_are_named_in_one_line(tmp_path, name, value):
    with pytest.raises(UserError, match=f"environment variable {name}: .*expected") as error:
        load(tmp_path, environ={name: value})
    assert "\n" not in str(error.value)


def test_the_hour_of_a_schedule_stays_when_the_clocks_change(tmp_path):
    """06:00 in Berlin is 05:00 UTC in winter and 04:00 in summer; an hour that a night leaves out is not lost."""
    settings = load(tmp_path, environ={"BULLWHIP_TIME_ZONE": "Europe/Berlin"})
    spec = deploy.wanted_of(settings, deploy.DEPLOYMENTS[0])["schedules"][0]["schedule"]
    from prefect.server.schemas.schedules import CronSchedule as Served

    dates = list(Served(**spec)._get_dates_generator(n=3, start=datetime(2026, 3, 17, tzinfo=UTC)))
    assert [d.astimezone(UTC).strftime("%m-%d %H:%M") for d in dates] == ["03-23 05:00", "03-30 04:00", "04-06 04:00"]
    night = Served(cron="30 2 * * *", timezone="Europe/Berlin")
    days = [d.astimezone(ZoneInfo("Europe/Berlin")).date() for d in
            night._get_dates_generator(n=4, start=datetime(2026, 3, 28, tzinfo=UTC))]  # fmt: skip
    assert len(set(days)) == 4
    assert CronSchedule(**spec).timezone == "Europe/Berlin"


@pytest.mark.parametrize(("zone", "begins", "day"), [
    ("UTC", datetime(2026, 3, 30, 6, tzinfo=UTC), date(2026, 3, 30)),
    ("Europe/Berlin", datetime(2026, 3, 29, 22, 30, tzinfo=UTC), date(2026, 3, 30)),  # Monday 00:30 in Berlin
    ("America/Chicago", datetime(2026, 3, 30, 4, tzinfo=UTC), date(2026, 3, 23)),  # still Sunday there
])  # fmt: skip
def test_a_late_run_is_about_the_day_it_was_scheduled_for(tmp_path, zone, begins, day):
    assert deployments.scheduled_day(load(tmp_path, environ={"BULLWHIP_TIME_ZONE": zone}), begins) == day


# The keeper -----------------------------------------------------------------------------------------------------------


def run(state, message="", *, age=5, name="run", deployment="d"):
    since = (NOW - timedelta(seconds=age)).isoformat()
    return {"id": name, "name": name, "deployment_id": deployment,
            "state": {"type": state, "name": state.title(), "message": message, "timestamp": since}}  # fmt: skip


def sent_states(api):
    return {path.split("/")[2]: body["state"] for path, body in api.sent if path.endswith("/set_state")}


def test_runs_whose_process_is_gone_are_buried(tmp_path):
    marks = tmp_path / running.MARKS
    with running.marked(tmp_path, "alive"), running.marked(tmp_path, "cli.mlflow"):
        (marks / "dead").touch()
        (marks / "gone.mlflow").touch()
        runs = [run("RUNNING", name=n) for n in ("alive", "dead", "gone", "cli", "elsewhere")]
        api = FakeApi([*runs, run("PENDING", age=300, name="lost"), run("PENDING", age=20, name="new")])
        suspects = set()
        keeper.heal(api, tmp_path, NOW, suspects)
        assert sent_states(api) == {}  # the worker may still report them
        keeper.heal(api, tmp_path, NOW, suspects)
    assert {name: s["type"] for name, s in sent_states(api).items()} == dict.fromkeys(
        ("dead", "gone", "lost"), "CRASHED"
    )
    assert not (marks / "dead").exists()
    assert not (marks / "alive").exists()


def test_a_run_that_was_told_to_stop_and_could_not_say_so_is_found_and_its_mark_buries_it_once(tmp_path):
    mark = tmp_path / running.MARKS / "stopped"
    with pytest.raises(KeyboardInterrupt), running.marked(tmp_path, "stopped", outlives_a_stop=True):
        raise KeyboardInterrupt
    assert mark.exists()
    api = FakeApi([run("RUNNING", name="stopped")])
    keeper.heal(api, tmp_path, NOW, {"stopped"})
    assert sent_states(api)["stopped"]["type"] == "CRASHED"
    mark.touch()
    keeper.heal(FakeApi([run("CRASHED", name="stopped")]), tmp_path, NOW, set())
    assert not mark.exists()
    for error in (ValueError, None):
        with contextlib.suppress(ValueError), running.marked(tmp_path, "ended", outlives_a_stop=True):
            if error:
                raise error
    assert running.left_behind(tmp_path) == []


@pytest.mark.parametrize(("found", "deaths", "again"), [
    (run("CRASHED"), 1, True),
    (run("CRASHED"), keeper.DEATHS, False),
    (run("CRASHED", deployment=None), 1, False),
    (run("CRASHED", age=30 * 86400), 1, False),
    (run("FAILED", "the MLflow store does not answer (exit code 6)"), 1, True),
    (run("FAILED", "nothing to score with (exit code 4)"), 1, False),
    (run("FAILED", "Flow run encountered an exception"), 1, False),
    (run("CANCELLED"), 1, False),
])  # fmt: skip
def test_what_died_begins_again_some_times(tmp_path, found, deaths, again):
    api = FakeApi([found], states=[{"type": "RUNNING"}] + [{"type": "CRASHED"}] * deaths)
    keeper.heal(api, tmp_path, NOW, set())
    assert [s["name"] for s in sent_states(api).values()] == (["AwaitingRetry"] if again else [])


# Triggers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "message", "code"), [
    ("COMPLETED", "Published", 0), ("COMPLETED", "delay: worse (exit code 4)", 4), ("FAILED", "bad (exit code 3)", 3),
    ("FAILED", "Flow run encountered an exception", 1), ("CANCELLED", "", 1),
])  # fmt: skip
def test_a_trigger_that_waits_gives_the_exit_code_of_the_work(state, message, code):
    api = FakeApi()
    api.things["/deployments/name/score/score-weekly"] = {"id": "d", "parameters": {"workspace": "/w"}}
    api.things["/flow_runs/id-1"] = run(state, message, name="id-1") | {"parameters": {}}
    api.post = lambda path, body: api.sent.append((path, body)) or run("SCHEDULED") | {"id": "id-1", "parameters": {}}
    said = triggers.trigger(api, "score-weekly", as_of=date(2026, 6, 1), key="k", wait=True, timeout=5)
    assert said["code"] == code
    assert api.sent[0][1] == {"parameters": {"workspace": "/w", "as_of": "2026-06-01"}, "idempotency_key": "k"}


@pytest.mark.parametrize(("error", "said"), [
    (ContractError((Breach("error", "orders", "quantity", 7, "seven are negative"),)), r"seven are .*\(exit code 3\)$"),
    (Unreachable("postgresql://me:hush@h/x is away"), r"me:\*\*\*@h/x is away \(exit code 6\)$"),
], ids=["input refused", "away"])  # fmt: skip
def test_a_run_that_ends_says_in_one_line_why_and_with_which_exit_code(tmp_path, monkeypatch, error, said):
    monkeypatch.setattr(deployments, "runtime", SimpleNamespace(flow_run=SimpleNamespace(
        id="r", scheduled_start_time=NOW)))  # fmt: skip

    def work(*_):
        raise error

    state = deployments._carried_out(tmp_path, None, work)
    assert state.is_failed()
    assert re.search(said, state.message)
    assert "\n" not in state.message


def test_a_trigger_says_what_is_wrong(monkeypatch):
    api = FakeApi()
    with pytest.raises(UserError, match="no deployment 'score'; expected one of score-weekly"):
        triggers.trigger(api, "score", as_of=None, key=None, wait=False, timeout=1)
    with pytest.raises(UserError, match="not deployed at http://prefect/api; run bullwhip deploy"):
        triggers.trigger(api, "score-weekly", as_of=None, key=None, wait=False, timeout=1)
    api.things["/deployments/name/score/score-weekly"] = {"id": "d", "parameters": {}}
    api.things["/flow_runs/r"] = run("RUNNING", name="r") | {"parameters": {}}
    api.post = lambda *_: run("SCHEDULED", name="r") | {"parameters": {}}
    monkeypatch.setattr(triggers, "ASK_EVERY", 0.01)
    with pytest.raises(triggers.TimedOut, match=r"r is Running after 0.05 s; it goes on") as error:
        triggers.trigger(api, "score-weekly", as_of=None, key=None, wait=True, timeout=0.05)
    assert error.value.exit_code == 124


def test_a_server_that_is_away_or_wants_a_password_is_one_line(monkeypatch):
    with pytest.raises(Unreachable, match=r"http://127.0.0.1:9/api does not answer: .*refused; start it: bullwhip up"):
        Api("http://127.0.0.1:9/api").get("/health")
    answers = iter([URLError("away"), prefect_api.HTTPError("u", 401, "no", None, None)])

    def opened(*_, **__):
        raise next(answers)

    monkeypatch.setattr(prefect_api, "urlopen", opened)
    monkeypatch.setattr(prefect_api.time, "sleep", lambda _: None)
    with pytest.raises(WrongPassword, match="set BULLWHIP_AUTH=user:password") as error:
        Api("http://prefect/api", patience=60).get("/x")  # asks again while it is away, not for another password
    assert error.value.exit_code == 6


# The clock ------------------------------------------------------------------------------------------------------------


def test_a_clock_before_the_last_publication_chooses_no_week(tmp_path, monkeypatch):
    settings, said = load(tmp_path, environ={}), r"the clock says 2026-06-01 12:00 but .* published at 2026-06-01 13:00"
    clock.refuse_a_slow_clock(settings, NOW)  # nothing is published
    ledger = [SimpleNamespace(published_at=datetime(2026, 6, 1, 13))]  # noqa: DTZ001  (as a ledger has it)
    store = SimpleNamespace(reading=lambda: nullcontext(SimpleNamespace(ledger=lambda: ledger)))
    monkeypatch.setattr(clock, "store_of", lambda _: store)
    with pytest.raises(UserError, match=said):
        clock.refuse_a_slow_clock(settings, NOW)
    clock.refuse_a_slow_clock(settings, NOW + timedelta(hours=1))
    clock.refuse_a_slow_clock(load(tmp_path, environ={}, as_of="2026-05-25"), NOW)


# Databases ------------------------------------------------------------------------------------------------------------

URL = "postgresql://me:s%40cret@db:5433/risk?sslmode=require"


def test_one_database_holds_a_schema_each_and_shows_no_password(tmp_path):
    settings = load(tmp_path, environ={"BULLWHIP_DATABASE": URL})
    base = "me:s%40cret@db:5433/risk"
    assert settings.database_url("asyncpg") == f"postgresql+asyncpg://{base}?ssl=require"
    assert settings.tracking_store == (f"postgresql+psycopg://{base}?sslmode=require&options=-csearch_path%3Dmlflow")
    assert settings.target.get_secret_value().endswith("options=-csearch_path%3Dbullwhip")
    elsewhere = load(tmp_path, environ={"BULLWHIP_DATABASE": URL, "BULLWHIP_PUBLISH": "postgresql://u@h/x"})
    assert elsewhere.target == elsewhere.publish
    assert load(tmp_path, environ={}).tracking_store.startswith("sqlite:///")
    for shown in (repr(settings), json.dumps(settings.public())):
        assert "s%40cret" not in shown
        assert "me:***@db" in shown


def test_who_runs_a_flow_gives_signs_of_life_often_enough_not_to_be_called_dead(tmp_path):
    told = environment(load(tmp_path, environ={}))
    assert 2 * int(told["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) < deploy.SILENCE
