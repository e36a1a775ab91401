"""The benchmarks are scripts in a folder, not a package: here is how tests import them."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def script():
    """Import a script by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module


@pytest.fixture(scope="session")
def timing(script):
    return script("timing")


@pytest.fixture(scope="session")
def workload(timing):
    return replace(timing.WORKLOADS["small_cnn"], batch_size=4, steps=2)
