"""The names features, models and pipelines are generic: prove that they are ours and all that the wheel ships."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"features", "models", "pipelines"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """Return the files of a wheel built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return set(wheel.namelist())


def test_the_wheel_ships_exactly_our_modules(shipped):
    known = {str(p.relative_to(ROOT)) for package in OURS for p in (ROOT / package).rglob("*.py")}
    assert {name for name in shipped if name.endswith(".py")} == known
    assert {name.split("/")[0] for name in shipped} - OURS == {f"bullwhip-{PROJECT['project']['version']}.dist-info"}


def test_the_wheel_ships_what_pages_and_mails_are_made_of(shipped):
    parts = [p for package in OURS for p in (ROOT / package).rglob("*") if p.suffix in (".css", ".js", ".j2")]
    assert len(parts) > 8
    assert {str(p.relative_to(ROOT)) for p in parts} <= shipped


def test_no_other_distribution_owns_our_names():
    owners = importlib.metadata.packages_distributions()
    assert {name: set(owners.get(name, ())) - {"bullwhip"} for name in OURS} == {name: set() for name in OURS}


def test_nobody_can_upload_it_by_accident():
    assert "Private :: Do Not Upload" in PROJECT["project"]["classifiers"]


def test_git_ignores_none_of_our_packages():
    ignored = subprocess.run(
        ["git", "check-ignore", *(f"{name}/__init__.py" for name in OURS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ignored.stdout == ""


def test_tests_are_no_package():
    assert not (ROOT / "tests" / "__init__.py").exists()


def test_no_module_hides_a_package_or_a_standard_module():
    tops = {name.split(".")[0] for name in (*importlib.metadata.packages_distributions(), *sys.stdlib_module_names)}
    mine = {p.stem for package in OURS for p in (ROOT / package).glob("*.py")} - {"__init__"}
    standard = set(sys.stdlib_module_names)
    assert mine & standard == set()
    assert {p.stem for p in (ROOT / "pipelines").glob("*.py")} & (tops - OURS - {"docs"}) == set()


def test_the_lock_pins_everything_with_hashes_and_names_no_address():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    blocks = re.split(r"\n(?=\S)", lock.strip())
    pinned = [b for b in blocks if not b.startswith("#")]
    assert len(pinned) > 50
    assert [b.splitlines()[0] for b in pinned if "==" not in b.splitlines()[0] or "--hash=sha256:" not in b] == []


def test_every_dependency_is_locked():
    names = {re.split(r"[<>=\[;]", d)[0].lower() for d in PROJECT["project"]["dependencies"]}
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert names <= locked


def test_labels_alone_look_ahead():
    """Every formula but a label uses its own row and earlier ones; the leak prover holds them to it at run time."""
    ahead = re.compile(r"\.shift\([^)]*-\s*\d")
    others = [p for p in (ROOT / "features").glob("*.py") if p.name != "labels.py"]
    assert [p.name for p in others if ahead.search(p.read_text())] == []
