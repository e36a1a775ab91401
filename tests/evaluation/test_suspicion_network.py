"""Each check with a network that has the fault, and with sound ones."""

import lightning
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from lightning_adv.evaluation.suspicion.network import (
    batch_dependent_output,
    network_logits,
    probabilities,
    randomised_output,
    train_mode,
    zero_gradients,
)
from tests.evaluation.suspects import Around, probe, trained

# Zero gradients


def test_rounding_has_no_gradient():
    x, y = probe(50)
    found = zero_gradients(Around(trained("standard"), torch.round), x, y, batch_size=16)
    assert found.name == "zero_gradients"
    assert found.evidence == {"images": 50, "zero": 50, "non_finite": 0, "differentiable": True}


def test_a_single_image_without_a_gradient_is_told():
    x, y = probe(50)
    x = x.clone()
    x[7] = 0  # no unit is on
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 30, bias=False), nn.ReLU(), nn.Linear(30, 10, bias=False))
    assert zero_gradients(network, x, y).evidence["zero"] == 1
    assert zero_gradients(network, x[8:], y[8:]) is None


def test_a_gradient_that_is_no_number():
    """The root's slope at 0 is infinite."""
    x, y = probe(50)
    x = 0.1 + 0.8 * x
    x[:3, 0, 0, 0] = 0
    found = zero_gradients(Around(trained("standard"), torch.sqrt), x, y)
    assert (found.evidence["zero"], found.evidence["non_finite"]) == (0, 3)


@pytest.mark.parametrize("cut", [torch.detach, lambda x: torch.from_numpy(x.detach().numpy())])
def test_an_output_that_is_cut_off(cut):
    x, y = probe(20)
    found = zero_gradients(Around(trained("standard"), cut), x, y)
    assert found.evidence == {"images": 20, "zero": 20, "non_finite": 0, "differentiable": False}
    assert "cut off" in found.message


def test_an_output_that_does_not_use_the_input():
    x, y = probe(20)
    weight = nn.Parameter(torch.ones(10))
    found = zero_gradients(Around(nn.Identity(), behind=lambda x: weight.expand(len(x), 10)), x, y)
    assert found.evidence["zero"] == 20


def test_a_confident_network_is_sound_although_its_cross_entropy_is_flat():
    """Large logits: fp32 rounds the usual gradient to 0, but not that of the log-odds, which attacks here use."""
    (x, y), network = probe(), Around(trained("standard"), behind=lambda logits: 1e4 * logits)
    leaf = x.clone().requires_grad_()
    (usual,) = torch.autograd.grad(F.cross_entropy(network(leaf), y), leaf)
    assert (usual == 0).flatten(1).all(1).float().mean() > 0.8
    assert zero_gradients(network, x, y) is None


# Randomised output


@pytest.mark.parametrize("size", [0.01, 1])
def test_noise(size):
    x, _ = probe()
    network = Around(trained("standard"), lambda x: x + size * torch.randn_like(x))
    found = randomised_output(network, x, batch_size=50)
    assert (found.name, found.evidence["images"]) == ("randomised_output", len(x))
    assert 1e-4 < found.evidence["largest_difference"] <= 2  # unit vectors
    assert (found.evidence["changed_predictions"] > 20) == (size == 1)


def test_dropout_that_is_always_on():
    network = Around(trained("standard"), behind=lambda logits: F.dropout(logits, 0.5, training=True))
    assert randomised_output(network, probe()[0]).name == "randomised_output"


@pytest.mark.slow
def test_half_precision_is_not_random():
    with torch.autocast("cpu", torch.bfloat16):
        for check in (randomised_output, batch_dependent_output, probabilities):
            assert check(trained("madry with BatchNorm"), probe()[0]) is None
        assert network_logits(trained("madry"), probe()[0]).dtype == torch.float32


# Batch statistics


def _convolution(norm):
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def test_batchnorm_without_running_statistics():
    x, _ = probe()
    found = batch_dependent_output(_convolution(nn.BatchNorm2d(4, track_running_stats=False)), x)
    assert (found.name, found.evidence["layers"], found.evidence["images"]) == ("batch_statistics", ["1"], 128)
    assert "(1)" in found.message


def test_batch_statistics_that_no_module_tells_of():
    network = Around(trained("standard"), lambda x: F.batch_norm(x, None, None, training=True))
    found = batch_dependent_output(network, probe()[0], batch_size=40)
    assert (found.evidence["layers"], found.evidence["images"]) == ([], 40)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)])
def test_statistics_of_the_training_or_of_one_image_are_sound(norm):
    assert batch_dependent_output(_convolution(norm), probe()[0]) is None


def test_random_networks_and_few_images_tell_nothing_about_batches():
    noisy = Around(trained("standard"), lambda x: x + torch.randn_like(x))
    assert batch_dependent_output(noisy, probe()[0]) is None
    network = _convolution(nn.BatchNorm2d(4, track_running_stats=False))
    assert batch_dependent_output(network, probe(3)[0]) is None
    assert batch_dependent_output(network, probe(4)[0]) is not None


# Probabilities


@pytest.mark.parametrize("factor", [0.1, 1, 100])
def test_a_softmax_within_the_network(factor):
    network = Around(trained("standard"), behind=lambda logits: (factor * logits).softmax(1))
    found = probabilities(network, probe()[0])
    assert found.name == "probabilities"
    assert found.evidence["minimum"] >= 0
    assert found.evidence["maximum"] <= 1 + 1e-5


@pytest.mark.parametrize("behind", [lambda logits: logits.log_softmax(1), torch.sigmoid, lambda z: z.softmax(1) + 0.1])
def test_what_are_no_probabilities(behind):
    assert probabilities(Around(trained("standard"), behind=behind), probe()[0]) is None


# Train mode


def test_dropout_and_batchnorm_in_train_mode():
    network = _convolution(nn.BatchNorm2d(4)).append(nn.Dropout(0.5)).train()
    found = train_mode(network)
    assert found.evidence == {"count": 2, "kinds": ["BatchNorm2d", "Dropout"], "layers": ["1", "5"]}
    network.eval()
    assert train_mode(network) is None
    network[5].train()
    assert train_mode(network).evidence["layers"] == ["5"]


class OwnNoise(nn.Linear):
    def forward(self, x):
        return self._perturb(super().forward(x))

    def _perturb(self, x):
        return x + torch.randn_like(x) if self.training else x


@pytest.mark.parametrize(
    ("module", "flagged"),
    [
        (OwnNoise(3, 2), True),
        (nn.RReLU(), True),
        (nn.InstanceNorm1d(3, track_running_stats=True), True),
        (timm.layers.DropPath(0.1), True),
        (timm.layers.BatchNormAct2d(3), True),
        (timm.create_model("test_resnet"), True),
        (torch.compile(nn.Sequential(nn.Dropout(0.5))), True),
        (torch.compile(nn.Linear(3, 2)), False),
        (nn.Dropout(0.0), False),
        (timm.layers.DropPath(0.0), False),
        (nn.MultiheadAttention(4, 2), False),
        (nn.Sequential(nn.Linear(3, 2), nn.GroupNorm(1, 2), nn.ReLU()), False),
        (lightning.LightningModule(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_modules_that_depend_on_the_mode(module, flagged):
    assert (train_mode(module.train()) is not None) == flagged
    assert train_mode(module.eval()) is None


# What is left as it was, and bad input


@pytest.mark.parametrize(
    ("behind", "told"),
    [
        (lambda logits: logits.log(), "NaN logits"),
        (lambda logits: logits[:, :1], "network must give logits"),
        (lambda logits: logits[:5], "network must give logits"),
        (lambda logits: logits.argmax(1), "network must give logits"),
        (lambda logits: (logits,), "network must give logits .* got tuple"),
    ],
)
def test_bad_outputs(behind, told):
    with pytest.raises(ValueError, match=told):
        network_logits(Around(trained("standard"), behind=behind), probe()[0])
