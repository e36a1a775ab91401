"""Each part keeps what every part of its kind promises."""

import torch
from my_plugin.attacks import RandomCorners
from my_plugin.data import BarsDataModule
from my_plugin.observers import Confidence
from my_plugin.regimes import DenoisedTraining

from lightning_adv.attacks import PGD
from lightning_adv.nn import Backbone
from lightning_adv.testing import check_attack, check_observer, check_regime


def test_the_attack():
    check_attack(RandomCorners(eps=0.1, draws=3))


def test_the_observer():
    check_observer(Confidence())


def test_the_regime():
    tiny = Backbone("small_cnn", in_channels=1, options={"width": 4})
    attack = PGD(eps=0.1, steps=2, step_size=0.05)
    regime = DenoisedTraining(tiny, num_classes=2, attack=attack, evaluation_attack=attack)
    check_regime(regime)
    check_regime(regime, BarsDataModule(images=90))


def test_the_data():
    data = BarsDataModule(images=90)
    data.setup()
    x, y = next(iter(data.test_dataloader()))
    assert x.shape == (30, 1, 8, 8)
    assert (x.min() >= 0) & (x.max() <= 1)
    across, down = x.mean(3).diff(dim=2).abs().mean((1, 2)), x.mean(2).diff(dim=2).abs().mean((1, 2))
    assert torch.equal((down > across).long(), y)
