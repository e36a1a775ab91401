import copy
from functools import partial

import torch
import torch.nn.functional as F

from lightning_adv.regimes import StandardTraining
from tests.regimes.toy import BACKBONE, ToyData, assert_same, quiet_trainer, trained_by_hand


def test_one_epoch_is_plain_sgd(tmp_path):
    """Against a training loop written out."""
    module = StandardTraining(BACKBONE, num_classes=2, optimizer=partial(torch.optim.SGD, lr=0.1), label_smoothing=0.1)
    network = copy.deepcopy(module.network)
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())

    def loss(x, y):
        return -((0.9 * F.one_hot(y, 2) + 0.1 / 2) * network(x).log_softmax(1)).sum(1).mean()

    trained_by_hand(network.parameters(), loss)
    assert_same(module.network, network)


def test_selects_on_clean_accuracy():
    assert StandardTraining(BACKBONE).monitor == "val/clean_accuracy"
