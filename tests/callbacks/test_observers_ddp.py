"""Two processes: observers change nothing, and see what one process sees of the same network and images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from lightning_adv.callbacks.undisturbed import undisturbed
from lightning_adv.core.table import read_table
from tests.callbacks.ddp_worker import BATCH_SIZE, OBSERVERS, REGIMES, Data, make
from tests.regimes.toy import quiet_trainer

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the two processes wrote."""
    folder = tmp_path_factory.mktemp("ddp")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    worker = [*launch, "-m", "tests.callbacks.ddp_worker", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(worker, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return folder


def result(folder, regime, observed, rank):
    return torch.load(folder / f"{regime}-{observed}-{rank}.pt", weights_only=True)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("regime", REGIMES)
def test_training_is_bit_identical(folder, regime, rank):
    without, observed = (result(folder, regime, seen, rank) for seen in (False, True))
    for part in ("state", "buffers", "metrics"):
        assert without[part].keys() == observed[part].keys()
        assert all(torch.equal(value, observed[part][name]) for name, value in without[part].items())
    assert all(torch.equal(a, b) for a, b in zip(without["momenta"], observed["momenta"], strict=True))
    assert torch.equal(without["draw"], observed["draw"])
    assert without["flags"] == observed["flags"]


@pytest.mark.parametrize("regime", REGIMES)
def test_processes_have_statistics_of_their_own(folder, regime):
    """Without this difference, the next test would not show whose buffers were looked at."""
    first, second = (result(folder, regime, True, rank)["buffers"] for rank in (0, 1))
    own = {name.rpartition(".")[2] for name, value in first.items() if not torch.equal(value, second[name])}
    assert own == {"running_mean", "running_var"}


class Once(Callback):
    """Puts the weights of a checkpoint into the regime, and lets an observer look."""

    def __init__(self, content, observer):
        self.content, self.observer, self.seen = content, observer, None

    def on_train_start(self, trainer, pl_module):
        pl_module.load_state_dict(self.content["state_dict"])
        self.observer.prepare(trainer, pl_module)
        self.observer.load_state_dict(self.content["callbacks"][self.observer.state_key])
        with undisturbed(trainer, pl_module.network):
            self.seen = self.observer.look(trainer, pl_module)
        trainer.should_stop = True


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize("regime", REGIMES)
def test_two_processes_see_what_one_does(folder, tmp_path, monkeypatch, regime, name):
    for observer in ("feature_distributions", "local_response"):
        monkeypatch.setattr(f"lightning_adv.callbacks.{observer}.BATCH_SIZE", BATCH_SIZE)
    place = folder / f"{regime}-True"
    once = Once(torch.load(place / "it.ckpt", weights_only=True), OBSERVERS[name]())
    quiet_trainer(tmp_path, callbacks=[once], num_sanity_val_steps=0).fit(make(regime), Data(batch_size=8))
    rows = read_table(place / f"run/version_0/analyses/{name}.csv")
    last = [row for row in rows if row.step == rows[-1].step]
    found = {(row.name, row.domain, row.statistic): row.value for row in last}
    alone = {record[:3]: record.value for record in once.seen.records}
    assert len(found) == len(last) == len(alone)
    assert found.keys() == alone.keys()
    for key, value in alone.items():
        if "from_last" not in key[2]:  # the look before is another
            assert found[key] == pytest.approx(value, rel=1e-5, abs=1e-7), key
