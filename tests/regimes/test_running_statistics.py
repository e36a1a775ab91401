"""The last epochs on running statistics (Xie & Yuille 2020, section 6.4.3)."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback

from lightning_adv.regimes import MadryTraining, StandardTraining
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, assert_same, quiet_trainer, trained_by_hand


class Snapshots(Callback):
    def __init__(self):
        self.states = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.states.append(copy.deepcopy(pl_module.network.state_dict()))


def buffers(state):
    return [value for name, value in sorted(state.items()) if "running" in name or "num_batches" in name]


@pytest.mark.slow
def test_buffers_stand_still_and_weights_move(tmp_path):
    snapshots = Snapshots()
    module = MadryTraining(
        BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK, running_statistics_epochs=2
    )
    quiet_trainer(tmp_path, max_epochs=4, callbacks=[snapshots]).fit(module, ToyData())
    second, third, fourth = snapshots.states[1:]
    for before, after in ((second, third), (third, fourth)):
        assert all(torch.equal(a, b) for a, b in zip(buffers(before), buffers(after), strict=True))
        assert not torch.equal(before["network.layer1.0.weight"], after["network.layer1.0.weight"])
        assert not torch.equal(before["network.layer1.1.weight"], after["network.layer1.1.weight"])
    assert not torch.equal(buffers(snapshots.states[0])[0], buffers(second)[0])


def test_against_a_loop_in_eval_mode(tmp_path):
    """This network has nothing but BatchNorm that eval mode changes."""
    sgd = partial(torch.optim.SGD, lr=0.1)
    torch.save(BACKBONE.build(2).state_dict(), tmp_path / "trained.pth")
    backbone = replace(BACKBONE, checkpoint=str(tmp_path / "trained.pth"))
    module = StandardTraining(backbone, num_classes=2, optimizer=sgd, running_statistics_epochs=5)
    network = copy.deepcopy(module.network).eval()
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())
    trained_by_hand(network.parameters(), lambda x, y: F.cross_entropy(network(x), y))
    assert_same(module.network, network)


def test_without_last_epochs_the_buffers_move_whatever_the_end(tmp_path):
    module = StandardTraining(BACKBONE, num_classes=2)
    quiet_trainer(tmp_path, max_epochs=-1, max_steps=3, limit_val_batches=0).fit(module, ToyData())
    assert int(module.network.network.layer1[1].num_batches_tracked) == 3


def test_a_run_without_an_end_has_no_last_epochs(tmp_path):
    module = StandardTraining(BACKBONE, num_classes=2, running_statistics_epochs=1)
    for arguments in ({"max_epochs": -1, "max_steps": 2}, {"max_epochs": 10, "max_steps": 4}):
        with pytest.raises(ValueError, match=r"give trainer.max_epochs without trainer.max_steps, got"):
            quiet_trainer(tmp_path, **arguments).fit(module, ToyData())


def test_a_network_that_was_never_trained_has_no_statistics_to_run_on(tmp_path):
    module = StandardTraining(BACKBONE, num_classes=2, running_statistics_epochs=2)
    with pytest.raises(ValueError, match=r"running_statistics_epochs is 2, and trainer.max_epochs 2: it must be less"):
        quiet_trainer(tmp_path, max_epochs=2).fit(module, ToyData())
