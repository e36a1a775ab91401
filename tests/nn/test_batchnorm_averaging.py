"""Domain BatchNorm with Lightning's averaged weights."""

import copy

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn

from lightning_adv.nn.batchnorm import convert_batchnorm, domain, export_plain

DECAY = 0.6
DOMAINS = ("main", "adversarial")


class TwoDomains(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = convert_batchnorm(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)))

    def training_step(self, batch, batch_idx):
        loss = self.network(batch).square().mean()
        with domain(self.network, "adversarial"):
            return loss + (self.network(2 * batch + 1) - 1).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


class States(Callback):
    """Keeps the weights after each step."""

    def __init__(self):
        self.states = []

    def on_train_batch_end(self, trainer, module, *_):
        self.states.append(copy.deepcopy(module.network.state_dict()))


@pytest.mark.parametrize("use_buffers", [True, False])
def test_averages_cover_every_domain(tmp_path, use_buffers):
    """Lightning averages the running statistics too by default; without, they are those of the last step."""
    module, seen = TwoDomains(), States()
    trainer = Trainer(
        callbacks=[seen, EMAWeightAveraging(decay=DECAY, use_buffers=use_buffers)], max_epochs=2, accelerator="cpu",
        default_root_dir=tmp_path, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(torch.randn(24, 4), batch_size=8))
    assert len(seen.states) == 6
    averaged = module.network.state_dict()
    for key in seen.states[0]:
        values = [state[key] for state in seen.states]
        if key.endswith("num_batches_tracked"):
            continue
        expected = values[-1]
        if use_buffers or "running" not in key:  # the first step's value is where the average starts
            shares = [DECAY**5] + [(1 - DECAY) * DECAY ** (5 - step) for step in range(1, 6)]
            expected = sum(share * value for share, value in zip(shares, values, strict=True))
        torch.testing.assert_close(averaged[key], expected)
        assert not torch.equal(values[0], values[-1])
    norms = [export_plain(module.network, name)[1] for name in DOMAINS]
    assert not torch.allclose(norms[0].running_mean, norms[1].running_mean, atol=0.1)
    assert module.network[1].domain_switch.active == "main"
