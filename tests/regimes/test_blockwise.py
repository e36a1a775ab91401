"""Block-wise retraining: frozen to the last bit, and the rest against a loop written out."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_adv.attacks import FGSM, PGD
from lightning_adv.nn.backbones import Backbone
from lightning_adv.regimes import (
    TRADES,
    AdvPropTraining,
    BlockwiseRetraining,
    CrossEntropy,
    MadryTraining,
    SmoothAdversarialTraining,
    StandardTraining,
    WeightPerturbation,
)
from lightning_adv.regimes.sync_batchnorm import TimmSyncBatchNorm
from tests.regimes.toy import (
    ATTACK,
    BACKBONE,
    ToyData,
    assert_same,
    attacked_by_hand,
    quiet_trainer,
    trained_by_hand,
)

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1)
PREDICTED = PGD(eps=0.1, steps=2, step_size=0.05, label="predicted")


@pytest.fixture
def pretrained(tmp_path):
    """A run of standard training, as its checkpoint."""
    torch.manual_seed(0)
    return checkpoint_of(StandardTraining(BACKBONE, num_classes=2, optimizer=partial(SGD, weight_decay=0)), tmp_path)


def checkpoint_of(module, folder):
    trainer = quiet_trainer(folder, limit_val_batches=0)
    trainer.fit(module, ToyData())
    path = folder / f"{type(module).__name__}.ckpt"
    trainer.save_checkpoint(path)
    return str(path)


def retrain(folder, checkpoint, epochs=2, **arguments):
    torch.manual_seed(1)
    backbone = replace(BACKBONE, checkpoint=checkpoint)
    defaults = {"attack": PREDICTED, "evaluation_attack": ATTACK, "optimizer": SGD, "num_classes": 2}
    module = BlockwiseRetraining(backbone, **defaults | arguments)
    loaded = copy.deepcopy(module.network.state_dict())
    trainer = quiet_trainer(folder, max_epochs=epochs)
    trainer.fit(module, ToyData())
    return module, loaded, trainer


CHOICES = {
    "before": ({"cutoff": 2}, ("layer1", "layer2", "layer3")),
    "after": ({"cutoff": "m2", "side": "after"}, ("layer4", "fc")),
    "set": ({"blocks": ["m0", "m3"]}, ("layer1", "fc")),
    "layers": ({"unit": "layer", "blocks": ["layer2.0"]}, ("layer2",)),
    "conventional": ({"cutoff": 1, "attack": None}, ("layer1",)),
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("reinitialize", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_rest_is_frozen_to_the_last_bit(tmp_path, pretrained, choice, reinitialize):
    """Parameters and BatchNorm buffers, through weight decay, momentum, validation and the attack."""
    arguments, expected = CHOICES[choice]
    module, loaded, trainer = retrain(tmp_path, pretrained, reinitialize=reinitialize, **arguments)
    for name, value in module.network.state_dict().items():
        chosen = name.split(".")[1] in expected
        assert torch.equal(value, loaded[name]) != chosen, name
    optimized = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    for name, parameter in module.network.named_parameters():
        assert (id(parameter) in optimized) == (name.split(".")[1] in expected), name
        assert parameter.grad is None or name.split(".")[1] in expected


@pytest.mark.slow
def test_against_a_loop_written_out(tmp_path, pretrained):
    """Retrain m0 adversarially on predicted labels, a clean image beside each adversarial one."""
    sgd = partial(torch.optim.SGD, lr=0.1)
    attack = FGSM(eps=0.1, label="predicted")
    module, loaded, _ = retrain(
        tmp_path, pretrained, 1, blocks=["m0"], reinitialize=False, attack=attack, optimizer=sgd
    )
    network = BACKBONE.build(2)
    network.load_state_dict(loaded)
    stem = network.network.layer1

    def loss(x, y):
        x_adv = attacked_by_hand(network, x, y, label="predicted")
        network.eval()
        stem.train()
        return F.cross_entropy(network(torch.cat([x_adv, x])), torch.cat([y, y]))

    trained_by_hand(stem.parameters(), loss)
    assert_same(module.network, network)


@pytest.mark.slow
def test_reinitialised_blocks_start_as_a_fresh_network_does(tmp_path, pretrained):
    """With no learning rate the chosen block keeps its fresh weights: another draw, from the same distribution."""
    still = partial(torch.optim.SGD, lr=0.0)
    module, loaded, _ = retrain(tmp_path, pretrained, 1, blocks=["m1"], optimizer=still)
    fresh = module.network.network.layer2[0].weight
    assert not torch.equal(fresh, loaded["network.layer2.0.weight"])
    bound = 1 / (4 * 9) ** 0.5  # torch's default for a convolution of 4 × 3 × 3 inputs
    assert fresh.abs().max() <= bound
    assert fresh.std().item() == pytest.approx(bound / 3**0.5, rel=0.15)
    assert torch.equal(module.network.network.layer2[1].weight, torch.ones(8))
    again, _, _ = retrain(tmp_path, pretrained, 1, blocks=["m1"], optimizer=still)
    assert torch.equal(again.network.network.layer2[0].weight, fresh) == (again.seed == module.seed)


@pytest.mark.slow
def test_batchnorm_alone(tmp_path, pretrained):
    """Section 6.4.4 of Xie & Yuille: affine parameters and running statistics move, filters do not."""
    module, loaded, _ = retrain(tmp_path, pretrained, only_batchnorm=True, reinitialize=False, attack=None)
    for name, value in module.network.state_dict().items():
        is_norm = name.split(".")[-2] == "1" and name.startswith("network.layer")
        assert torch.equal(value, loaded[name]) != is_norm, name


def test_selects_by_what_is_trained_for():
    assert BlockwiseRetraining(BACKBONE).monitor == "val/robust_accuracy"
    assert BlockwiseRetraining(BACKBONE, attack=None).monitor == "val/clean_accuracy"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [MadryTraining, AdvPropTraining, SmoothAdversarialTraining, BlockwiseRetraining])
def test_starts_from_a_run_of_any_regime(tmp_path, pretrained, kind):
    backbone = replace(BACKBONE, checkpoint=pretrained) if kind is BlockwiseRetraining else BACKBONE
    source = kind(backbone, num_classes=2, attack=ATTACK, optimizer=partial(SGD, weight_decay=0))
    path = checkpoint_of(source, tmp_path)
    activation = "silu" if kind is SmoothAdversarialTraining else None
    module = BlockwiseRetraining(
        replace(BACKBONE, checkpoint=path, activation=activation), num_classes=2, attack=PREDICTED, cutoff=3,
        side="after", reinitialize=False, optimizer=partial(torch.optim.SGD, lr=0.0), running_statistics_epochs=1,
    )  # fmt: skip
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(module.eval()(x), source.eval()(x))


@pytest.mark.slow
def test_test_after_training_keeps_the_weights(tmp_path, pretrained):
    """The hook that chooses blocks runs again for the test: it must not reinitialise."""
    module, _, trainer = retrain(tmp_path, pretrained, cutoff=2)
    before = copy.deepcopy(module.network.state_dict())
    trainer.test(module, ToyData(), verbose=False)
    assert all(torch.equal(value, before[name]) for name, value in module.network.state_dict().items())


@pytest.mark.slow
def test_frozen_under_synchronised_batchnorm(tmp_path, pretrained):
    """The converter puts other modules in the place of the BatchNorms, after the blocks were chosen."""

    class Synchronised(BlockwiseRetraining):
        def configure_model(self):
            super().configure_model()
            TimmSyncBatchNorm().apply(self)

    backbone = replace(BACKBONE, checkpoint=pretrained)
    chosen = {"blocks": ["m0"], "reinitialize": False}
    module = Synchronised(backbone, num_classes=2, attack=PREDICTED, optimizer=SGD, **chosen)
    loaded = copy.deepcopy(module.network.state_dict())
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())
    assert isinstance(module.network.network.layer2[1], torch.nn.SyncBatchNorm)
    for name, value in module.network.state_dict().items():
        assert torch.equal(value, loaded[name]) != name.startswith("network.layer1"), name


@pytest.mark.slow
def test_a_new_classifier_cannot_be_frozen(tmp_path):
    """The checkpoint has seven classes, the data two."""
    torch.save(BACKBONE.build(7).state_dict(), tmp_path / "seven.pth")
    backbone = replace(BACKBONE, checkpoint=str(tmp_path / "seven.pth"))
    frozen = BlockwiseRetraining(backbone, attack=PREDICTED, cutoff="m2")
    with pytest.raises(ValueError, match=r"fc\.weight has no pretrained weights, .* retrain block m3 too"):
        quiet_trainer(tmp_path).fit(frozen, ToyData())
    norms = BlockwiseRetraining(backbone, attack=PREDICTED, only_batchnorm=True, reinitialize=False)
    with pytest.raises(ValueError, match="retrain block m3 too, and not its BatchNorms only"):
        quiet_trainer(tmp_path).fit(norms, ToyData())
    retrained = BlockwiseRetraining(backbone, attack=PREDICTED, evaluation_attack=ATTACK, blocks=["m0", "m3"])
    quiet_trainer(tmp_path).fit(retrained, ToyData())


def test_without_pretrained_weights(tmp_path):
    module = BlockwiseRetraining(BACKBONE, num_classes=2, cutoff=1)
    with pytest.raises(ValueError, match=r"backbone.checkpoint must name the trained network"):
        quiet_trainer(tmp_path).fit(module, ToyData())


def test_a_block_that_does_not_exist(tmp_path, pretrained):
    with pytest.raises(ValueError, match="m7"):
        retrain(tmp_path, pretrained, blocks=["m0", "m7"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"side": "left"}, "side must be one of before, after, got 'left'"),
        ({"unit": "stage"}, "unit must be one of block, layer, got 'stage'"),
        ({"blocks": ["m0"], "cutoff": 1}, r"blocks is \['m0'\] and cutoff is 1: give one of them"),
        ({"only_batchnorm": True}, "set reinitialize to false"),
        ({"attack": None, "weight_perturbation": WeightPerturbation()}, "leave weight_perturbation out"),
        ({"attack": None, "eps_warmup_epochs": 2}, "leave eps_warmup_epochs out"),
        ({"attack": None, "clean_after_epochs": 2}, "leave clean_after_epochs out"),
        ({"attack": None, "objective": TRADES()}, "leave objective out"),
        ({"objective": CrossEntropy(1.0), "backbone": Backbone("small_cn")}, "small_cnn"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        BlockwiseRetraining(**{"backbone": BACKBONE, "num_classes": 2} | arguments)


# Networks that the recipe does not give ------------------------------------------------------------------------------


class Unnormalized(BlockwiseRetraining):
    """Takes the images as they are, in a network of three layers."""

    def build_network(self, num_classes):
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(4, num_classes),
        )  # fmt: skip
        if self.backbone.checkpoint is not None:
            network.load_state_dict(torch.load(self.backbone.checkpoint, weights_only=True))
        return network


class LoadingAlways(Unnormalized):
    weights = ""

    def build_network(self, num_classes):
        network = super().build_network(num_classes)
        network.load_state_dict(torch.load(self.weights, weights_only=True))
        return network


def _retrain_own(kind, backbone, folder, **arguments):
    module = kind(backbone, num_classes=2, blocks=["m1"], attack=None, optimizer=SGD, **arguments)
    trainer = quiet_trainer(folder, limit_val_batches=0, max_steps=1)
    trainer.fit(module, ToyData())
    return module


def test_blocks_of_a_network_that_an_override_builds(tmp_path):
    torch.manual_seed(3)
    loaded = Unnormalized(BACKBONE).build_network(2).state_dict()
    torch.save(loaded, tmp_path / "own.pth")
    backbone = replace(BACKBONE, checkpoint=str(tmp_path / "own.pth"))
    module = _retrain_own(Unnormalized, backbone, tmp_path)
    state = module.network.state_dict()
    for key in ("0.weight", "1.weight", "1.running_mean"):
        assert torch.equal(state[key], loaded[key]), key
    assert not torch.equal(state["5.weight"], loaded["5.weight"])
    assert module.backbone.checkpoint == backbone.checkpoint


def test_an_override_that_loads_weights_each_time_cannot_start_anew(tmp_path):
    LoadingAlways.weights = str(tmp_path / "own.pth")
    torch.save(Unnormalized(BACKBONE).build_network(2).state_dict(), LoadingAlways.weights)
    with pytest.raises(ValueError, match=r"LoadingAlways\.build_network gives block m1 the same weights each time"):
        _retrain_own(LoadingAlways, BACKBONE, tmp_path)
    _retrain_own(LoadingAlways, BACKBONE, tmp_path, reinitialize=False)
