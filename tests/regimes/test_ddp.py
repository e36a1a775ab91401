"""Two processes are one: weights, losses and metrics, for each part of the regimes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.regimes.ddp_worker import EACH_PART, train
from tests.regimes.every_regime import make, still

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the two processes wrote, by regime, mode and rank."""
    folder = tmp_path_factory.mktemp("ddp")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    worker = [*launch, "-m", "tests.regimes.ddp_worker", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(worker, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return lambda name, train_mode, rank: torch.load(folder / f"{name}-{train_mode}-{rank}.pt", weights_only=True)


@pytest.mark.parametrize("name", EACH_PART)
def test_with_still_batchnorm_two_processes_end_in_the_weights_of_one(results, tmp_path, name):
    one = train(name, tmp_path, 1, train_mode=False)
    two = results(name, False, 0)
    before = make(name, tmp_path, **still(name)).state_dict()
    assert any(not torch.equal(value, before[key]) for key, value in one["state"].items()), "nothing was trained"
    for key, value in one["state"].items():
        torch.testing.assert_close(two["state"][key], value, rtol=1e-4, atol=1e-6, msg=key)
    assert one["metrics"].keys() == two["metrics"].keys()
    for key, value in one["metrics"].items():
        assert two["metrics"][key] == pytest.approx(value, rel=1e-4), key
    assert two["metrics"]["test/images"] == 31


@pytest.mark.parametrize("name", EACH_PART)
def test_processes_agree_in_train_mode(results, name):
    """No unused-parameter error on the way here, and no process that went its own way."""
    first, second = (results(name, True, rank) for rank in (0, 1))
    parameters = [key for key in first["state"] if "running" not in key]
    assert parameters
    for key in parameters:
        assert torch.equal(first["state"][key], second["state"][key]), key
    for key, value in first["metrics"].items():
        assert second["metrics"][key] == value, key
