"""The network of every regime, rebuilt from its checkpoint: the one that was trained, or one clear refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from lightning_adv.callbacks.local_response import load_source
from lightning_adv.commands.export.checkpoint import export_checkpoint
from lightning_adv.commands.shared.networks import load_network
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import domain
from lightning_adv.nn.weights.load import load_weights
from lightning_adv.regimes import AdvPropTraining, AutoAugment, BlockwiseRetraining, MadryTraining
from tests.regimes.every_regime import REGIMES, make
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer

X = torch.linspace(0, 1, 5 * 64).view(5, 1, 8, 8)


def trained(regime, folder):
    """Train a step; return the checkpoint."""
    trainer = quiet_trainer(folder, max_steps=1, limit_val_batches=0)
    trainer.fit(regime, ToyData())
    regime.eval()
    trainer.save_checkpoint(folder / "last.ckpt")
    return str(folder / "last.ckpt")


def rebuilt(checkpoint, through=None):
    return load_network(checkpoint, None, num_classes=2, domain=through).network


@pytest.mark.slow
@pytest.mark.parametrize("name", REGIMES)
def test_every_regimes_network_has_the_regimes_own_logits(name, tmp_path):
    regime = make(name, tmp_path)
    assert torch.equal(rebuilt(trained(regime, tmp_path))(X), regime(X))


@pytest.mark.slow
@pytest.mark.parametrize("through", ["main", "adversarial", "augmented"])
def test_every_domain(through, tmp_path):
    options = {"augmentation": AutoAugment("cifar10"), "attack": ATTACK}
    backbone = replace(BACKBONE, activation="smooth_relu", activation_options={"alpha": 3.0})
    regime = AdvPropTraining(backbone, num_classes=2, **options)
    checkpoint = trained(regime, tmp_path)
    with domain(regime.network, through):
        assert torch.equal(rebuilt(checkpoint, through)(X), regime.network(X))


@pytest.mark.slow
def test_retrained_blocks_of_a_network_with_another_activation(tmp_path):
    first = MadryTraining(replace(BACKBONE, activation="gelu"), num_classes=2, attack=ATTACK)
    (tmp_path / "first").mkdir()
    backbone = replace(first.backbone, checkpoint=trained(first, tmp_path / "first"))
    regime = BlockwiseRetraining(backbone, cutoff=2, num_classes=2, attack=ATTACK)
    assert torch.equal(rebuilt(trained(regime, tmp_path))(X), regime(X))


# Regimes of other packages --------------------------------------------------------------------------------------------


class OwnLoss(MadryTraining):
    """Changes what is minimised, and not the network."""

    def training_step(self, batch, batch_idx):
        return 2 * super().training_step(batch, batch_idx)


class Sharpened(MadryTraining):
    """Builds what the recipe does not say, under the recipe's keys."""

    def build_network(self, num_classes):
        built = super().build_network(num_classes)
        built.network.pool = nn.AdaptiveMaxPool2d(1)
        return built


class Prepared(MadryTraining):
    def prepare_network(self):
        super().prepare_network()
        self.network.network.pool = nn.AdaptiveMaxPool2d(1)


class Tempered(MadryTraining):
    def forward(self, x):
        return super().forward(x) / 2


def replaced_later(backbone, **kwargs):
    regime = MadryTraining(backbone, **kwargs)
    regime.network.network.pool = nn.AdaptiveMaxPool2d(1)
    return regime


def added_later(backbone, **kwargs):
    regime = MadryTraining(backbone, **kwargs)
    regime.network.network.late = nn.Linear(2, 2)
    return regime


def set_later(backbone, **kwargs):
    """Keeps the module and its class, and lets it do something else."""
    regime = MadryTraining(backbone, **kwargs)
    convolution = regime.network.get_submodule("network.layer1.0")
    convolution.dilation = convolution.padding = (2, 2)
    return regime


def test_a_regime_that_changes_its_loss_alone_is_rebuilt(tmp_path):
    regime = OwnLoss(BACKBONE, num_classes=2, attack=ATTACK)
    assert torch.equal(rebuilt(trained(regime, tmp_path))(X), regime(X))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "by"),
    [
        (Tempered, r"by .*Tempered\.forward"),
        *(
            (make, "by what replaced modules of it after build_network")
            for make in (replaced_later, added_later, set_later)
        ),
    ],
)
def test_a_network_that_the_recipe_does_not_give_is_refused_by_every_reader(make, by, tmp_path):
    checkpoint = trained(make(BACKBONE, num_classes=2, attack=ATTACK), tmp_path)
    backbone = replace(BACKBONE, checkpoint=checkpoint)
    readers = (
        ("checkpoint", lambda: rebuilt(checkpoint)),
        ("--checkpoint", lambda: export_checkpoint(checkpoint=tmp_path / "last.ckpt", folder=tmp_path / "export")),
        ("local_response.source", lambda: load_source(checkpoint, 2, (1, 8, 8))),
        ("checkpoint", lambda: backbone.build(2)),
    )
    for argument, read in readers:
        with pytest.raises(ValueError, match=rf"^{argument}: .*last\.ckpt is the checkpoint of .*{by}: only"):
            read()
    assert not (tmp_path / "export").exists()


class SharpenedDomains(AdvPropTraining):
    def build_network(self, num_classes):
        built = super().build_network(num_classes)
        built.network.pool = nn.AdaptiveMaxPool2d(1)
        return built


@pytest.mark.parametrize("kind", [Sharpened, pytest.param(Prepared, marks=pytest.mark.slow), SharpenedDomains])
def test_a_network_that_its_regime_changed_is_built_again_by_every_reader(kind, tmp_path):
    regime = kind(BACKBONE, num_classes=2, attack=ATTACK)
    checkpoint = trained(regime, tmp_path)
    expected = regime(X)
    assert torch.equal(rebuilt(checkpoint)(X), expected)
    assert torch.equal(load_source(checkpoint, 2, (1, 8, 8))(X), expected)
    export_checkpoint(checkpoint=tmp_path / "last.ckpt", folder=tmp_path / "export")
    own = Sharpened(BACKBONE, num_classes=2, attack=ATTACK).network.eval()
    exported = str(tmp_path / "export/model.safetensors")
    load_weights(own, exported)
    assert torch.equal(own(X), expected)
    with pytest.raises(ValueError, match=rf"of a network that .*{kind.__name__} changed, .* evaluate the checkpoint"):
        rebuilt(exported)
    for file in (checkpoint, exported):  # what is built by the backbone alone is another network
        with pytest.raises(ValueError, match=r"^checkpoint: "):
            replace(BACKBONE, checkpoint=file).build(2)
    if kind is SharpenedDomains:
        with domain(regime.network, "adversarial"):
            assert torch.equal(rebuilt(checkpoint, "adversarial")(X), regime.network(X))
    with pytest.raises(ValueError, match=r"^domain: .* has no BatchNorm domain"):
        rebuilt(checkpoint, "nowhere")


def test_a_class_that_builds_another_network_now_is_refused(tmp_path, monkeypatch):
    """Its keys are the same."""
    checkpoint = trained(Sharpened(BACKBONE, num_classes=2, attack=ATTACK), tmp_path)
    monkeypatch.setattr(Sharpened, "build_network", MadryTraining.build_network)
    with pytest.raises(ValueError, match=r"^checkpoint: .* is of another network than .*Sharpened builds now"):
        rebuilt(checkpoint)


def test_a_network_of_the_users_own_takes_the_weights_of_a_changed_one(tmp_path):
    regime = Sharpened(BACKBONE, num_classes=2, attack=ATTACK)
    own = Backbone(BACKBONE.name, in_channels=1, options=BACKBONE.options).build(2)
    own.network.pool = nn.AdaptiveMaxPool2d(1)
    load_weights(own, trained(regime, tmp_path))
    assert torch.equal(own.eval()(X), regime(X))


@pytest.mark.parametrize("class_path", ["somebody.Regime", "lightning_adv_extra.regimes.Regime"])
def test_a_regime_of_another_package_that_does_not_say_is_refused(class_path, tmp_path):
    checkpoint = trained(OwnLoss(BACKBONE, num_classes=2, attack=ATTACK), tmp_path)
    content = torch.load(checkpoint, weights_only=True)
    del content["regime"]["network_changed_by"]  # as it was written before there was this key
    content["regime"]["class_path"] = class_path
    torch.save(content, checkpoint)
    with pytest.raises(ValueError, match=f"is the checkpoint of {class_path}, which is of another package"):
        rebuilt(checkpoint)


def test_an_argument_of_another_command_is_not_advised(tmp_path):
    torch.save({"state_dict": BACKBONE.build(2).state_dict()}, tmp_path / "foreign.pth")
    with pytest.raises(ValueError, match=r"^networks\.a: .* It takes those, and what 'lightning-adv export' wrote\.$"):
        load_network(str(tmp_path / "foreign.pth"), None, num_classes=2, domain=None, argument="networks.a")
