"""The lines of docs/operations.md do what they say: run as written where possible, else held to what they call."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines import cli, publish

TEXT = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
PROGRAMS, HERE = "/opt/bullwhip/.venv/bin", "/srv/risk"


def snippets(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def parsed(words):
    """Hold a command line against our own parser: an unknown command or option raises."""
    cli.app.parse_args([w for w in words if w], print_error=False, exit_on_error=False)


def test_every_bullwhip_line_is_one_our_command_line_understands():
    lines = [line for text in snippets("sh") for line in text.splitlines() if re.search(r"(^|\s)bullwhip ", line)]
    assert len(lines) >= 4
    for line in lines:
        parsed(shlex.split(line.partition("bullwhip ")[2] if "bullwhip " in line else line))


def test_the_cron_line_runs_as_written(trained, tmp_path):
    from prefect.settings import PREFECT_API_URL

    workspace = shutil.copytree(trained[0], tmp_path / "risk")
    (line,) = snippets("cron")
    minute, hour, day, month, weekday, command = line.strip().split(maxsplit=5)
    assert (minute, hour, day, month, weekday) == ("0", "6", "*", "*", "MON")
    command = command.replace(f"{PROGRAMS}/bullwhip", f"{sys.executable} -m pipelines.cli").replace(
        HERE, str(workspace)
    )
    environ = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value()}
    done = subprocess.run(["/bin/sh", "-c", command], env=environ, check=False)
    assert done.returncode == 0, (workspace / "score.log").read_text()
    said = json.loads((workspace / "score.jsonl").read_text())
    assert publish.publications(workspace)["publication_id"].tolist() == [said["publication_id"]]


def test_the_units_of_systemd_are_sound(tmp_path):
    names = re.findall(r"`/etc/systemd/system/(\S+)`", TEXT)
    texts = snippets("ini")
    assert len(names) == len(texts) == 3
    for text in texts:
        for line in re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE):
            assert line.startswith(f"{PROGRAMS}/bullwhip ")
            parsed(shlex.split(line)[1:])
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = shutil.which("true")
    for name, text in zip(names, texts, strict=True):
        (tmp_path / name).write_text(text.replace(f"{PROGRAMS}/bullwhip", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *(str(tmp_path / n) for n in names)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "bullwhip-" in line]
    assert ours == []


def test_the_others_call_commands_that_exist():
    (dag,) = snippets("python")
    compile(dag, "dag.py", "exec")
    command = re.search(r'bash_command="(.*)"', dag)[1].replace("{{ data_interval_end | ds }}", "2026-06-01")
    parsed(shlex.split(command)[1:])
    deployments, job, workers = (yaml.safe_load(text) for text in snippets("yaml"))
    worker = workers["spec"]["template"]["spec"]["containers"][0]["command"]
    assert worker[:2] == [f"{PROGRAMS}/dask", "worker"]
    container = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    parsed(container["command"][1:])
    from pipelines import deployments as flows

    for deployment in deployments["deployments"]:
        assert hasattr(flows, deployment["entrypoint"].rpartition(".")[2])


def test_every_deployment_and_schedule_of_the_page_is_one_there_is():
    from pipelines.deploy import DEPLOYMENTS
    from pipelines.settings import Settings

    for deployment in DEPLOYMENTS:
        default = Settings.model_fields[deployment.schedule].default
        assert f'| `{deployment.name}` | `{deployment.schedule} = "{default}"`' in TEXT
