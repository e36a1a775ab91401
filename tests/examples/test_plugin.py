"""The template of a plugin: built, installed into a folder beside the environment, and tested by its own tests."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT

TEMPLATE = ROOT / "examples/plugin"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
OFFLINE = ["--no-deps", "--no-index"]


def run(command, folder, **variables):
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-2000:]


@pytest.mark.slow
def test_it_is_built_installed_and_passes_its_own_tests(tmp_path):
    source, site = shutil.copytree(TEMPLATE, tmp_path / "source"), tmp_path / "site"
    run([*PIP, "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", tmp_path, source], tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    run([*PIP, "install", *OFFLINE, "--target", site, wheel], tmp_path)
    shutil.copytree(TEMPLATE / "tests", tmp_path / "tests")  # without the package beside them: the wheel's is tested
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    run(tests, tmp_path, PYTHONPATH=os.pathsep.join([str(site), str(ROOT)]))


def test_its_parts_are_short():
    parts = [path for path in (TEMPLATE / "my_plugin").glob("*.py") if path.name != "__init__.py"]
    assert {path.stem for path in parts} == {"attacks", "data", "networks", "observers", "regimes"}
    assert all(20 <= len(path.read_text().splitlines()) <= 60 for path in parts)
