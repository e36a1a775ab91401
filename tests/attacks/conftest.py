"""Networks and images that several files of this folder attack."""

import copy
import functools

import pytest
import timm
import torch
from sklearn.datasets import load_digits
from torch import nn

CLASSES = 5


def _cnn():
    """A plain CNN with BatchNorm and Dropout."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(16 * 8 * 8, CLASSES),
    )  # fmt: skip


def _timm(name, **arguments):
    return lambda: timm.create_model(name, num_classes=CLASSES, **arguments)


NETWORKS = {
    "cnn": _cnn,
    # timm's smallest of each family; EfficientNets are made of BatchNormAct2d
    "resnet": _timm("test_resnet", drop_rate=0.2, drop_path_rate=0.2),
    "efficientnet": _timm("test_efficientnet", drop_rate=0.2, drop_path_rate=0.2),
    "vit": _timm("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, drop_rate=0.2, drop_path_rate=0.2),
    # those of the papers
    "resnet18": _timm("resnet18"),
    "efficientnet_b0": _timm("efficientnet_b0", drop_rate=0.2, drop_path_rate=0.2),
}


@pytest.fixture(scope="session")
def build():
    """Return a function that builds a network by name: the same each time, with used BatchNorms, in train mode."""

    @functools.cache
    def first(name):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = NETWORKS[name]()
            with torch.no_grad():
                for _ in range(3):
                    network(torch.rand(16, 3, 32, 32))
        return network

    return lambda name: copy.deepcopy(first(name))


@pytest.fixture(scope="session")
def images():
    """Return 6 images (6, 3, 32, 32), their edges of [0, 1] included, and labels."""
    x = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    x = ((x - 0.5) * 1.5 + 0.5).clamp(0, 1)
    return x, torch.tensor([0, 1, 2, 3, 4, 0])


@pytest.fixture(scope="session")
def digits():
    """Return scikit-learn's 8x8 digits as (1797, 1, 8, 8) in [0, 1], and labels."""
    data = load_digits()
    return torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)


@pytest.fixture(scope="session")
def train():
    """Return a function that trains a small CNN on images, attacked if need be, for ``epochs``; eval mode."""

    def train(x, y, epochs, lr=0.01, attack=None):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
                nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
                nn.Flatten(), nn.Linear(32 * 16, 10),
            )  # fmt: skip
            optimizer = torch.optim.Adam(network.parameters(), lr=lr)
            for _ in range(epochs):
                for batch in torch.randperm(len(x)).split(100):
                    seen = x[batch] if attack is None else attack(network, x[batch], y[batch])
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(network(seen), y[batch]).backward()
                    optimizer.step()
        return network.eval()

    return train


@pytest.fixture(scope="session")
def mixed():
    """Return a function that freezes some modules and parameters of a network and gives others a gradient already."""

    def mixed(network):
        for i, module in enumerate(network.modules()):
            module.training = i % 3 != 2
        for i, parameter in enumerate(network.parameters()):
            parameter.requires_grad_(i % 4 != 1)
            parameter.grad = torch.full_like(parameter, i) if i % 2 else None
        return network

    return mixed


@pytest.fixture(scope="session")
def state_of():
    """Return a function that lists all that an attack must leave alone, as values that compare bit by bit."""

    def bits(tensor):
        return None if tensor is None else (id(tensor), tensor._version, tensor.detach().clone().numpy().tobytes())

    def state_of(network):
        modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
        return {
            "training": {name: module.training for name, module in modules.items()},
            "tracking": {name: getattr(module, "track_running_stats", None) for name, module in modules.items()},
            "requires_grad": {name: parameter.requires_grad for name, parameter in parameters.items()},
            "parameters": {name: bits(parameter) for name, parameter in parameters.items()},
            "gradients": {name: bits(parameter.grad) for name, parameter in parameters.items()},
            "buffers": {name: bits(buffer) for name, buffer in network.named_buffers()},
        }

    return state_of
