import json
from datetime import date

import pytest
from pydantic import ValidationError

from pipelines.addresses import mask
from pipelines.environment import environment
from pipelines.settings import FILE, KEYS, Settings, UserError, load
from pipelines.settings_file import template

PASSWORD = "p@ss/w:rd"
URL = f"postgresql+psycopg://planner:{PASSWORD}@db.example/chain?sslpassword=hush"


def written(folder, text):
    (folder / FILE).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("environ", "flags", "expected"),
    [
        ({}, {}, 5),
        ({"BULLWHIP_EVERY_DAYS": "3"}, {}, 3),
        ({"BULLWHIP_EVERY_DAYS": "3"}, {"every_days": 2}, 2),
        ({"BULLWHIP_EVERY_DAYS": ""}, {"every_days": None}, 5),
    ],
    ids=["file", "environment", "flag", "empty and None say nothing"],
)
def test_flags_win_over_environment_over_file(tmp_path, environ, flags, expected):
    assert load(written(tmp_path, "every_days = 5"), environ=environ, **flags).every_days == expected


def test_without_anything_the_defaults_hold(tmp_path):
    settings = load(tmp_path, environ={})
    assert settings == Settings(workspace=tmp_path)
    assert settings.data_folder == tmp_path / "data"
    assert settings.data_url is None
    assert set(settings.capacity.values()) == {25}


def test_settings_are_frozen(tmp_path):
    with pytest.raises(ValidationError):
        load(tmp_path, environ={}).seed = 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("curency = 'EUR'", "{file}: unknown key 'curency', did you mean 'currency'?"),
        ("every_days = 40", "{file}: every_days is 40, expected a whole number from 1 to 28"),
        ("as_of = 'monday'", "{file}: as_of is 'monday', expected a day such as 2026-01-05"),
        ("workspace = 'x'", "{file}: unknown key 'workspace', expected one of data, publish"),
        ("tasks = []", "{file}: tasks is [], expected a list of"),
        ("[capacity]\nsales = -1", "{file}: capacity is"),
        ("[capacity]\nsale = 1", "expected a table [capacity] with a whole number from 0 for any of procurement"),
        ("windows = [[0, 4], [0, 4]]", "{file}: windows is [[0, 4], [0, 4]], expected one to eight different"),
        ("windows = [[-1, 4]]", "{file}: windows is [[-1, 4]], expected one to eight different [lead, length]"),
        ("windows = [[20, 8]]", "{file}: windows is"),
        ("windows = [4]", "{file}: windows is"),
        ("windows = []", "{file}: windows is"),
        ("windows = 'soon'", "{file}: windows is"),
        ("currency = 'euro'\nseed = 'x'", "(also wrong: seed)"),
        ("country = 'de'", "country is 'de', expected the two capital letters of a country whose holidays are known"),
        (
            "[params.delay]\nleaves = 4",
            "[params.delay] or [params.shift] with numbers for any of rounds",
        ),
        ("currency = ", "{file} cannot be read: Invalid value"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_in_one_line(tmp_path, text, message):
    with pytest.raises(UserError) as error:
        load(written(tmp_path, text), environ={})
    assert message.format(file=tmp_path / FILE) in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_wrong_environment_and_flags_are_named(tmp_path):
    with pytest.raises(UserError, match="environment variable BULLWHIP_SEED: seed is 'x', expected a whole number"):
        load(tmp_path, environ={"BULLWHIP_SEED": "x"})
    with pytest.raises(UserError, match="BULLWHIP_CURENCY: unknown key 'curency', did you mean 'currency'"):
        load(tmp_path, environ={"BULLWHIP_CURENCY": "EUR"})
    with pytest.raises(UserError, match="--as-of: as_of is '2026-02-30'"):
        load(tmp_path, environ={}, as_of="2026-02-30")


def test_variables_that_others_put_into_the_environment_pass(tmp_path):
    others = {"BULLWHIP_SERVICE_HOST": "10.0.0.1", "BULLWHIP_DEBUG": "1", "BULLWHIP_WORKSPACE": "x"}
    assert load(tmp_path, environ=others) == load(tmp_path, environ={})


def test_windows_come_from_file_and_environment(tmp_path):
    assert load(written(tmp_path, "windows = [[0, 2]]"), environ={}).windows == ((0, 2),)
    assert load(tmp_path, environ={"BULLWHIP_WINDOWS": "[[0, 4], [4, 4]]"}).windows == ((0, 4), (4, 4))


def test_lists_can_be_written_with_commas(tmp_path):
    settings = load(
        tmp_path, environ={"BULLWHIP_ATTRIBUTES": "ship_mode, country", "BULLWHIP_CAPACITY": "sales=3"}, tasks="delay"
    )
    assert (settings.attributes, settings.tasks) == (("ship_mode", "country"), ("delay",))
    assert settings.capacity["sales"] == 3
    assert settings.capacity["finance"] == 25


@pytest.mark.parametrize(
    "shown",
    [repr, str, lambda s: s.model_dump_json(), lambda s: json.dumps(s.public()), lambda s: f"{s.data}"],
    ids=["repr", "str", "json", "public", "format"],
)
def test_a_password_is_never_shown(tmp_path, shown):
    settings = load(tmp_path, environ={"BULLWHIP_DATA": URL, "BULLWHIP_PUBLISH": URL})
    assert settings.data_url == settings.target.get_secret_value() == URL
    assert PASSWORD not in shown(settings)
    assert "hush" not in shown(settings)
    assert "planner:***@db.example" in shown(settings)


def test_tables_are_published_into_the_workspace_unless_a_database_is_named(tmp_path):
    assert load(tmp_path, environ={}).target == tmp_path
    with pytest.raises(UserError, match=r"publish is 'elsewhere', expected a database URL such as .*, or"):
        load(tmp_path, environ={"BULLWHIP_PUBLISH": "elsewhere"})


def test_a_wrong_value_does_not_show_a_password_either(tmp_path):
    with pytest.raises(UserError) as error:
        load(tmp_path, environ={"BULLWHIP_SEED": URL})
    assert PASSWORD not in str(error.value)
    with pytest.raises(ValidationError) as raw:
        Settings(workspace=tmp_path, seed=URL)
    assert PASSWORD not in str(raw.value)


def test_mask_leaves_what_is_not_secret():
    assert mask("sqlite:////tmp/a.db") == "sqlite:////tmp/a.db"
    assert mask("https://mlflow.example:5000/x?page=2") == "https://mlflow.example:5000/x?page=2"
    assert mask("mssql+pyodbc:///?odbc_connect=PWD%3Dx&a=1") == "mssql+pyodbc:///?odbc_connect=***&a=1"


@pytest.mark.parametrize(
    ("today", "expected"),
    [
        (date(2026, 1, 5), date(2026, 1, 5)),
        (date(2026, 1, 11), date(2026, 1, 5)),
        (date(2026, 1, 12), date(2026, 1, 12)),
    ],
)
def test_the_default_day_is_the_monday_of_this_week(tmp_path, today, expected):
    assert load(tmp_path, environ={}).as_of_on(today) == expected
    assert load(tmp_path, environ={}, as_of="2025-07-01").as_of_on(today) == date(2025, 7, 1)


def test_the_template_explains_every_key_and_is_itself_valid(tmp_path):
    text = template()
    assert all(f"# {name} = " in text or f"[{name}" in text for name in KEYS)
    assert load(written(tmp_path, text), environ={}) == Settings(workspace=tmp_path)
    uncommented = "\n".join(line[2:] if " = " in line or "# [" in line else line for line in text.splitlines())
    assert load(written(tmp_path, uncommented), environ={}) == Settings(
        workspace=tmp_path, as_of=date(2026, 1, 5), params={"delay": {"num_leaves": 16}}
    )  # fmt: skip


def test_values_in_the_template_come_back(tmp_path):
    values = {"as_of": date(2026, 6, 1), "currency": "USD", "attributes": ("a", 'b"'), "capacity": {"sales": 1}}
    settings = load(written(tmp_path, template(values)), environ={})
    assert (settings.as_of, settings.currency, settings.attributes) == (date(2026, 6, 1), "USD", ("a", 'b"'))
    assert settings.capacity["sales"] == 1


def test_a_byte_order_mark_from_windows_is_read(tmp_path):
    (tmp_path / FILE).write_bytes(b"\xef\xbb\xbfseed = 3\r\n")
    assert load(tmp_path, environ={}).seed == 3


def test_the_user_s_tracking_server_is_respected(tmp_path, monkeypatch):
    settings = load(tmp_path, environ={})
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    assert settings.tracking_uri == "http://mlflow.example"


def test_nothing_phones_home(tmp_path):
    variables = environment(load(tmp_path, environ={}))
    assert variables["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert variables["DO_NOT_TRACK"] == variables["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert variables["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert variables["PREFECT_HOME"] == str(tmp_path / "prefect")
