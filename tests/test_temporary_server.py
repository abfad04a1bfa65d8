"""A Prefect server of our own is begun only where Prefect has been told of none, and goes with whoever began it."""

import os
import signal
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest

from pipelines.temporary_server import OWN, is_told_where


@pytest.mark.parametrize(
    ("environ", "file", "text", "told"),
    [
        ({}, "", "", False),
        ({"PREFECT_API_URL": "http://prefect.example/api"}, "", "", True),
        ({"PREFECT_API_URL": ""}, "", "", False),
        ({"PREFECT_PROFILE": "cloud"}, "", "", True),
        ({"PREFECT_SERVER_EPHEMERAL_ENABLED": "False"}, "", "", True),
        ({"PREFECT_SERVER_EPHEMERAL_ENABLED": "true"}, "", "", False),
        ({}, "home/profiles.toml", "", True),
        ({}, "prefect.toml", "", True),
        ({}, ".env", "PREFECT_API_URL=http://prefect.example/api", True),
        ({}, ".env", "OTHER=1", False),
        ({}, "pyproject.toml", "[tool.prefect.api]", True),
        ({}, "pyproject.toml", "[tool.ruff]", False),
    ],
)
def test_it_is_told_where_by_environment_and_files(tmp_path, environ, file, text, told):
    (tmp_path / "home").mkdir()
    if file:
        (tmp_path / file).write_text(text)
    assert is_told_where(environ | {"PREFECT_HOME": str(tmp_path / "home")}, tmp_path) is told


BEGIN = """
import os, time
from pathlib import Path
from pipelines import warmup
warmup.load = None  # tracking begins beside it, and is not what is looked at
ready = warmup.warm_up(Path())
from prefect.settings import get_current_settings
assert get_current_settings().flows.heartbeat_frequency == 180
ready()
assert get_current_settings().flows.heartbeat_frequency is None  # ending their thread takes up to a second
print(os.environ["PREFECT_API_URL"], flush=True)
time.sleep(60)
"""


def test_it_answers_wants_no_signs_of_life_and_goes_even_with_a_process_that_was_killed(tmp_path):
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
    environ |= {"PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN], stdout=subprocess.PIPE, env=environ, cwd=tmp_path, text=True
    ) as process:
        url = process.stdout.readline().strip()
        assert urlopen(f"{url}/health", timeout=30).status == 200
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while answers(url) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not answers(url)


TRIGGERS = """
from prefect.settings import get_current_settings
print(get_current_settings().server.services.triggers.enabled)
"""


def test_no_automation_is_carried_out_on_it():
    """Without signs of life `deploy`'s would call a long training crashed."""
    said = subprocess.check_output([sys.executable, "-c", TRIGGERS], env=os.environ | OWN, text=True)
    assert said.strip() == "False"


def answers(url):
    try:
        urlopen(f"{url}/health", timeout=5).close()
    except OSError:
        return False
    return True
