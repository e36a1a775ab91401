import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from lightning_adv.attacks import FGSM, PGD, CarliniWagner
from lightning_adv.regimes import CrossEntropy, MadryTraining
from tests.regimes.toy import BACKBONE, ToyData, assert_same, attacked_by_hand, quiet_trainer, trained_by_hand


@pytest.mark.parametrize("clean_fraction", [0.0, 0.5, 1.0])
def test_one_epoch_against_a_loop_written_out(tmp_path, clean_fraction):
    """FGSM by hand in eval mode, then an SGD step on the adversarial and a share of the clean images."""
    sgd = partial(torch.optim.SGD, lr=0.1)
    objective = CrossEntropy(clean_fraction=clean_fraction)
    module = MadryTraining(BACKBONE, num_classes=2, attack=FGSM(eps=0.1), optimizer=sgd, objective=objective)
    network = copy.deepcopy(module.network)
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())
    clean = int(clean_fraction * 8)

    def loss(x, y):
        x_adv = attacked_by_hand(network, x, y)
        return F.cross_entropy(network(torch.cat([x_adv, x[:clean]])), torch.cat([y, y[:clean]]))

    trained_by_hand(network.parameters(), loss)
    assert_same(module.network, network)


def test_running_statistics_are_updated_once_a_step(tmp_path):
    module = MadryTraining(BACKBONE, num_classes=2, attack=PGD(eps=0.1, steps=5, step_size=0.1, batchnorm="batch"))
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())
    counts = {int(v) for name, v in module.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts == {4}


def test_warm_up_reaches_eps_in_equal_parts(tmp_path):
    used = []

    class Recorder(PGD):
        def __call__(self, *args, **kwargs):
            used.append((round(self.eps, 6), round(self.step_size, 6)))
            return super().__call__(*args, **kwargs)

    attack = Recorder(eps=0.3, steps=1, step_size=0.03)
    module = MadryTraining(BACKBONE, attack=attack, eps_warmup_epochs=3)
    quiet_trainer(tmp_path, max_epochs=5, limit_train_batches=1, limit_val_batches=0).fit(module, ToyData())
    assert used == [(0.1, 0.01), (0.2, 0.02), (0.3, 0.03), (0.3, 0.03), (0.3, 0.03)]
    assert attack.eps == 0.3


def test_selects_on_robust_accuracy():
    assert MadryTraining(BACKBONE).monitor == "val/robust_accuracy"


def test_an_attack_that_cannot_be_warmed_up_is_refused_at_once():
    with pytest.raises(ValueError, match="eps must be a distance to be scaled, got None"):
        MadryTraining(BACKBONE, attack=CarliniWagner(steps=2), eps_warmup_epochs=2)
    assert MadryTraining(BACKBONE, attack=CarliniWagner(eps=1, steps=2), eps_warmup_epochs=2).attack.eps == 1
