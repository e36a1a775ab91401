from functools import partial

import torch
import torch.nn.functional as F

from lightning_adv.regimes import StandardTraining
from tests.regimes.toy import BACKBONE, ToyData, quiet_trainer


def test_one_epoch_is_plain_sgd(tmp_path):
    """Against a training loop written out."""
    data = ToyData()
    module = StandardTraining(BACKBONE, num_classes=2, optimizer=partial(torch.optim.SGD, lr=0.1), label_smoothing=0.1)
    network = BACKBONE.build(2)
    network.load_state_dict(module.network.state_dict())
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, data)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network.train()
    for x, y in data.train_dataloader():
        optimizer.zero_grad()
        smoothed = 0.9 * F.one_hot(y, 2) + 0.1 / 2
        (-(smoothed * network(x).log_softmax(1)).sum(1).mean()).backward()
        optimizer.step()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(module.network.state_dict()[name], value, msg=name)


def test_selects_on_clean_accuracy():
    assert StandardTraining(BACKBONE).monitor == "val/clean_accuracy"
