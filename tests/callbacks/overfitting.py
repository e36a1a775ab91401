"""Runs whose overfitting is known, since their networks are made for it."""

import warnings
from functools import partial

import torch
from lightning.pytorch import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_adv.attacks import PGD, Attack
from lightning_adv.nn.batchnorm import without_domain
from lightning_adv.regimes import MadryTraining
from tests.regimes.toy import BACKBONE, ToyData, quiet_trainer

NAMES = ("fgsm_accuracy", "robust_accuracy", "train_robust_accuracy", "catastrophic_gap", "robust_gap")
STRONG = PGD(eps=0.25, steps=4, step_size=0.1)  # turns the answer on every toy image
WEAK = PGD(eps=0.01, steps=2, step_size=0.01)  # turns none


class Brightness(nn.Module):
    """Tells whether the upper half is brighter. While ``masked``, the gradient at images of eighths is reversed."""

    def __init__(self, masked=False):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.masked = masked

    def forward(self, x):
        upper = self.weight * (x[:, :, :4].mean((1, 2, 3)) - x[:, :, 4:].mean((1, 2, 3)))
        logits = torch.stack([upper, -upper], 1)
        on_grid = self.masked & (8 * x == (8 * x).round()).flatten(1).all(1)
        return torch.where(on_grid[:, None], 2 * logits.detach() - logits, logits)


class BrightnessTraining(MadryTraining):
    """Trains :class:`Brightness`, whose gradient is masked from the third epoch on."""

    def __init__(self, attack=STRONG, masked_from=2, lr=0.1):
        optimizer = partial(torch.optim.SGD, lr=lr)
        super().__init__(BACKBONE, num_classes=2, attack=WEAK, evaluation_attack=attack, optimizer=optimizer)
        self.masked_from = masked_from
        self.network = Brightness()

    def on_train_epoch_start(self):
        self.network.masked = self.current_epoch >= self.masked_from


class Folded(Brightness):
    """While ``masked``, the loss of a toy image is largest halfway through FGSM's step of 0.25."""

    def forward(self, x):
        upper = self.weight * (x[:, :, :4].mean((1, 2, 3)) - x[:, :, 4:].mean((1, 2, 3)))
        upper = upper * (upper.square() - 0.1) if self.masked else upper  # a minimum at 0.18, between 0.4 and -0.1
        return torch.stack([upper, -upper], 1)


class GridData(ToyData):
    """Toy images with values that are eighths, and validation labels of which a share is wrong."""

    def __init__(self, wrong=0.0):
        super().__init__()
        self.x = (8 * self.x).round() / 8
        self.wrong = int(wrong * len(self.y))

    def val_dataloader(self):
        labels = torch.cat([1 - self.y[: self.wrong], self.y[self.wrong :]])
        return DataLoader(TensorDataset(self.x, labels), batch_size=8)


class States(Callback):
    """Keeps the module's state at the end of each epoch. Placed first, it sees what the epoch's training left."""

    def __init__(self):
        self.states = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.states.append({name: value.clone() for name, value in pl_module.state_dict().items()})


def run(folder, callbacks, module=None, data=None, **kwargs):
    """Fit; return the trainer, the module and the early warnings."""
    module = BrightnessTraining() if module is None else module
    trainer = quiet_trainer(folder, callbacks=callbacks, **{"max_epochs": 5} | kwargs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, GridData() if data is None else data)
    return trainer, module, [str(w.message) for w in caught if "verfitting" in str(w.message)]


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


class Recorder(Attack):
    """Returns the images as they are, and keeps what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, model, x, y, *, domain=None, generator=None):
        noise = torch.rand(3, generator=generator)
        self.calls.append((x.clone(), without_domain(model)[1], noise, torch.is_autocast_enabled("cpu"), len(x)))
        return x.clone()
