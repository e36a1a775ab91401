"""Units that are dead by construction, in layers of every kind."""

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torchvision.models import resnet18

from lightning_adv.analysis.signals import dead_units, relu_layers
from lightning_adv.nn import Backbone, InDomain, convert_batchnorm


def convolution(bias):
    layer = nn.Conv2d(1, len(bias), 1)
    layer.weight.data.fill_(1.0)
    layer.bias.data = torch.tensor(bias)
    return layer


def test_a_unit_that_fires_once_at_one_position_is_alive():
    network = nn.Sequential(convolution([0.0, -0.5, -2.0]), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12, 2))
    x = torch.zeros(6, 1, 2, 2)
    x[4, 0, 1, 0] = 0.75
    assert dead_units(network, x)["1"].tolist() == [False, False, True]
    assert dead_units(network, x, batch_size=4)["1"].tolist() == [False, False, True]
    assert dead_units(network, x[:4])["1"].tolist() == [True, True, True], "no image at all makes the first two fire"


def test_by_brute_force():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 40), nn.ReLU6(), nn.Linear(40, 2))
    network[1].bias.data -= 0.6
    x = torch.rand(16, 3, 1, 1)
    found = dead_units(network, x, batch_size=5)["2"]
    assert found.tolist() == [all(v == 0 for v in column) for column in network[:3](x).T.tolist()]
    assert 0 < found.sum() < 40


def test_tokens():
    """Tokens (N, T, C): the units are the last axis."""
    tokens = nn.Sequential(nn.Flatten(2), nn.Linear(4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2))
    tokens[1].bias.data = torch.tensor([5.0, -5.0, 5.0])
    assert dead_units(tokens, torch.rand(3, 2, 2, 2))["2"].tolist() == [False, True, False]


def test_layers_that_run_twice_have_the_units_of_both_runs():
    network = resnet18(num_classes=3)  # one ReLU for the two places of each block
    found = dead_units(network, torch.rand(2, 3, 32, 32))
    assert list(found)[:3] == ["relu", "layer1.0.relu", "layer1.1.relu"]
    assert len(found["relu"]) == 64
    assert len(found["layer4.1.relu"]) == 1024


@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_own_and_timms_networks_have_relus_as_modules(name):
    options = {"small_cnn": {"width": 4}}.get(name, {})
    assert relu_layers(Backbone(name, options=options).build(3))


def test_names_are_those_of_the_network_without_domains():
    """The activation stands in timm's BatchNormAct2d, and domains share it."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), BatchNormAct2d(4), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten())
    assert list(relu_layers(network)) == ["1.act", "3"]
    plain = dead_units(network, torch.rand(2, 3, 6, 6))
    convert_batchnorm(network)
    for through in network, InDomain(network, "adversarial"):
        found = dead_units(through, torch.rand(2, 3, 6, 6))
        assert {name: len(units) for name, units in found.items()} == {"1.act": 4, "3": 4}
        assert list(found) == list(plain)


def test_only_the_layers_that_are_asked_for():
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 2))
    network[3].weight.data.zero_()
    network[3].bias.data = torch.tensor([0.0, 1.0])
    assert dead_units(network, torch.rand(3, 1, 1, 2), {"last": network[3]})["last"].tolist() == [True, False]


def test_errors():
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.GELU())
    x = torch.rand(3, 1, 1, 2)
    for call, told in [
        (lambda: dead_units(network, x), "Sequential has no ReLU among its modules"),
        (lambda: dead_units(network, x, {"other": nn.ReLU()}), "layer other does not run"),
        (lambda: dead_units(network, x[:0], {"1": network[1]}), "at least one image"),
    ]:
        with pytest.raises(ValueError, match=told):
            call()
