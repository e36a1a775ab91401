"""Small networks of the digits: sound ones, and what makes them faulty."""

import functools

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from lightning_adv.attacks import PGD
from lightning_adv.nn.normalize import Normalize, NormalizedNetwork
from tests.seeded import seeded

MEAN, STD = 0.3053, 0.3760
TRAINED_ON = 500  # from this image on
SOUND = ("standard", "madry", "standard with BatchNorm", "madry with BatchNorm")


@functools.cache
def digits():
    """Return (1797, 1, 8, 8) in [0, 1], and labels."""
    data = load_digits()
    return torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)


def probe(number=128, seed=0):
    """Return some of the images that no network was trained on."""
    x, y = digits()
    chosen = torch.randperm(TRAINED_ON, generator=seeded(seed))[:number]
    return x[chosen], y[chosen]


@functools.cache
def trained(kind):
    """Train a network for a second, with images as they are or on PGD's at eps 0.2; eval mode. Do not change it."""
    x, y = (part[TRAINED_ON:] for part in digits())
    attack = PGD(eps=0.2, steps=4, step_size=0.1) if kind.startswith("madry") else None
    norm = nn.BatchNorm2d if kind.endswith("BatchNorm") else nn.Identity
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NormalizedNetwork(
            Normalize([MEAN], [STD]),
            nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1), norm(16), nn.ReLU(),
                nn.Conv2d(16, 32, 3, stride=2, padding=1), norm(32), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
            ),
        )  # fmt: skip
        optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
        for _ in range(12 if attack else 8):
            for batch in torch.randperm(len(x)).split(100):
                images = attack(network, x[batch], y[batch]) if attack else x[batch]
                optimizer.zero_grad()
                F.cross_entropy(network(images), y[batch]).backward()
                optimizer.step()
    return network.eval()


class Around(nn.Module):
    """A network with a function before and a function behind it."""

    def __init__(self, network, before=None, behind=None):
        super().__init__()
        self.network, self.before, self.behind = network, before, behind

    def forward(self, x):
        logits = self.network(x if self.before is None else self.before(x))
        return logits if self.behind is None else self.behind(logits)
