"""With networks of the digits that are normalised once more, by a layer or within a forward method."""

import pytest
import torch
from torch import nn
from torchvision import transforms
from torchvision.transforms import v2

from lightning_adv.attacks import LogitEnsemble
from lightning_adv.evaluation.suspicion.normalisation import normalised_twice
from lightning_adv.nn.normalize import Normalize, NormalizedNetwork
from tests.evaluation.suspects import MEAN, STD, Around, probe, trained


def accuracy(network, x, y):
    with torch.no_grad():
        return (network(x).argmax(1) == y).double().mean().item()


class Buffers(nn.Module):
    """A normalisation as in robustbench, advertorch (``mean``, ``std``) and robustness (``new_mean``, ``new_std``)."""

    def __init__(self, mean, std, names=("mean", "std")):
        super().__init__()
        self.names = names
        for name, value in zip(names, (mean, std), strict=True):
            self.register_buffer(name, torch.tensor(value).view(1, -1, 1, 1))

    def forward(self, x):
        mean, std = (getattr(self, name) for name in self.names)
        return (x - mean) / std


def test_a_network_without_normalisation():
    x, y = probe()
    bare = trained("standard").network
    assert normalised_twice(Around(bare, lambda x: (x - MEAN) / STD), x, y) is None


@pytest.mark.parametrize(
    "outer",
    [
        Normalize([0.5], [0.5]),
        Buffers([0.5], [0.5]),
        Buffers([0.5], [0.5], names=("new_mean", "new_std")),
        transforms.Normalize([0.5], [0.5]),
        v2.Normalize([0.5], [0.5]),
    ],
    ids=["ours", "buffers", "robustness", "torchvision", "torchvision v2"],
)
def test_two_layers_in_series(outer):
    """Accuracy falls, and comes back when the outer layer is undone: that of the network alone."""
    (x, y), network = probe(), nn.Sequential(outer, trained("standard"))
    found = normalised_twice(network, x, y, batch_size=50)
    assert found.name == "normalised_twice"
    assert found.evidence["layers"] == ["0", "1.normalize"]
    assert found.evidence["accuracy"] == pytest.approx(accuracy(network, x, y))
    assert found.evidence["accuracy_undone"] == pytest.approx(accuracy(trained("standard"), x, y))
    assert found.evidence["accuracy"] < found.evidence["accuracy_undone"] - 0.1
    assert (found.evidence["mean"], found.evidence["std"]) == ([0.5], [0.5])
    assert found.evidence["p_value"] < 0.001
    assert "1.normalize normalises what 0 has normalised" in found.message
    assert "Accuracy rises" in found.message


def test_layers_in_series_are_told_even_where_accuracy_hardly_falls():
    (x, y), network = probe(), nn.Sequential(Normalize([MEAN], [STD]), trained("madry"))
    found = normalised_twice(network, x, y)
    assert found.evidence["layers"] == ["0", "1.normalize"]
    assert found.evidence["p_value"] > 0.001
    assert "Accuracy rises" not in found.message


def test_a_normalisation_that_is_hidden_in_a_forward_method():
    (x, y), inner = probe(), Around(trained("standard").network, lambda x: (x - MEAN) / STD)
    network = NormalizedNetwork(Normalize([0.5], [0.25]), inner)
    found = normalised_twice(network, x, y)
    assert found.evidence["layers"] == []
    assert found.evidence["accuracy_undone"] == pytest.approx(accuracy(inner, x, y))
    assert found.evidence["accuracy_undone"] > found.evidence["accuracy"]
    assert found.evidence["p_value"] < 0.001


def test_images_that_are_normalised_before_the_network_with_no_layer_at_all():
    """A wrapper normalises, and nothing tells so; 0.5 and 0.5 is among the guesses."""
    x, y = probe()
    network = Around(trained("standard"), lambda x: (x - 0.5) / 0.5)
    found = normalised_twice(network, x, y)
    assert (found.evidence["mean"], found.evidence["std"], found.evidence["layers"]) == ([0.5], [0.5], [])


def test_colour_images_twice_by_imagenets_values():
    """Three channels of digits with their own brightness: the mean must be that of each channel."""
    (x, y), mean, std = probe(), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

    def grey(x):
        return (x * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)).mean(1, keepdim=True)

    sound = nn.Sequential(Normalize(mean, std), Around(trained("standard"), grey))
    images = x.expand(-1, 3, -1, -1)
    assert normalised_twice(sound, images, y) is None
    found = normalised_twice(Around(sound, transforms.Normalize(mean, std)), images, y)
    assert found.evidence["layers"] == ["before", "network.0"]
    assert found.evidence["accuracy_undone"] == pytest.approx(accuracy(trained("standard"), x, y))


# What is no fault


def test_each_network_of_an_ensemble_may_normalise():
    x, y = probe()
    assert normalised_twice(LogitEnsemble([trained("standard"), trained("madry")]), x, y) is None


def test_a_layer_that_changes_nothing_does_not_count():
    x, y = probe()
    assert normalised_twice(nn.Sequential(Normalize([0.0], [1.0]), trained("standard")), x, y) is None


class Noise(nn.Module):
    """Has a mean and a standard deviation, but normalises nothing."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x):
        return x + 0.001 * torch.sin(x)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.1, 0.5), ([0.1] * 7, [1.0] * 7), ("narrow", "wide"), (0.1, None), ([[1], [2, 3]], 1), (0.1, 0.0)],
)
def test_other_things_that_are_called_mean_and_std(mean, std):
    network = Around(trained("standard"), Noise(mean, std))
    assert normalised_twice(network, *probe()) is None


# How it looks


@pytest.mark.slow
def test_a_compiled_network():
    x, y = probe(16)
    network = torch.compile(nn.Sequential(Normalize([0.5], [0.5]), trained("standard")), backend="eager")
    with torch.no_grad():
        network(x)
    assert len(normalised_twice(network, x, y).evidence["layers"]) == 2


def test_the_network_is_left_as_it_was():
    network = nn.Sequential(Normalize([0.5], [0.5]), trained("standard")).train()
    try:
        assert normalised_twice(network, *probe()) is not None
        assert all(module.training for module in network.modules())
        assert not any(module._forward_hooks for module in network.modules())
        torch.testing.assert_close(network[0].mean, torch.full((1, 1, 1), 0.5))
    finally:
        network.eval()
