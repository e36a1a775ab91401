"""Early stop against brute force: the plain attack's iterates, judged one by one."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_adv.attacks import MIFGSM, PGD
from tests.seeded import seeded

SAMPLES, CLASSES, STEPS = 60, 4, 12
NEVER = STEPS + 1


class Counting(nn.Module):
    """Remembers the sizes of the batches that it is given."""

    def __init__(self, network):
        super().__init__()
        self.network, self.sizes = network, []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.network(x)


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = nn.Sequential(nn.Flatten(), nn.Linear(48, 24), nn.Tanh(), nn.Linear(24, CLASSES))
    return Counting(network.double().eval())


@pytest.fixture
def batch(network):
    """Images with labels that are those of the network, but for every tenth."""
    x = torch.rand(SAMPLES, 3, 4, 4, generator=seeded(1), dtype=torch.float64)
    y = network(x).argmax(1)
    y[::10] = (y[::10] + 1) % CLASSES
    network.sizes.clear()
    return x, y


def _goal(label, network, x, y):
    """Return which class counts, (N,), and whether it is to be reached: what success is, in the test's own words."""
    if label == "random":
        return (y + torch.randint(1, CLASSES, y.shape, generator=seeded(7))) % CLASSES, True
    logits = network(x)
    return {"true": (y, False), "predicted": (logits.argmax(1), False), "least_likely": (logits.argmin(1), True)}[label]


def _first_success(network, iterates, goal):
    """Return, for each sample, after how many steps it succeeded first (N,)."""
    label, targeted = goal
    won = np.stack([((network(images).argmax(1) == label) == targeted).numpy() for images in iterates])
    return np.where(won.any(0), won.argmax(0) + 1, NEVER)


NORMS = {"linf": (0.06, 0.01), "l2": (0.35, 0.06), "l1": (1.6, 0.4)}
SETTINGS = {
    "linf": {},
    "l2": {"norm": "l2"},
    "l1": {"norm": "l1"},
    "momentum": {"momentum": 1.0},
    "margin": {"loss": "margin"},
    "dlr, zero start": {"loss": "dlr", "start": "zero"},
    "kl": {"loss": "kl"},
    "predicted labels": {"label": "predicted"},
    "random targets": {"label": "random"},
    "least-likely targets, l2": {"label": "least_likely", "norm": "l2"},
    "no projection": {"project": False},
    "clean starts": {"clean_start_probability": 0.5},
}


def _settings(name):
    settings = SETTINGS[name]
    eps, step_size = NORMS[settings.get("norm", "linf")]
    larger = {"random": 3, "least_likely": 6}.get(settings.get("label"), 1)  # targets are harder to reach
    return {"eps": larger * eps, "step_size": larger * step_size, **settings}


@pytest.mark.parametrize("name", SETTINGS)
def test_each_sample_keeps_its_first_success(network, batch, name):
    (x, y), settings = batch, _settings(name)
    iterates = PGD(steps=STEPS, **settings).iterates(network, x, y, range(1, STEPS + 1), generator=seeded(7))
    first = _first_success(network, iterates, _goal(settings.get("label", "true"), network, x, y))
    assert len(set(first)) > 4
    assert 5 < (first == NEVER).sum() < 50

    network.sizes.clear()
    x_adv = PGD(steps=STEPS, early_stop=True, **settings)(network, x, y, generator=seeded(7))
    expected = torch.stack([iterates[min(step, STEPS) - 1][i] for i, step in enumerate(first)])
    torch.testing.assert_close(x_adv, expected, rtol=0, atol=1e-9)

    # The pass in which a success is seen is the sample's last; nothing is passed only to be judged.
    clean_passes = settings.get("loss") == "kl" or settings.get("label", "true") != "true"
    assert sum(network.sizes) == clean_passes * SAMPLES + np.minimum(first + 1, STEPS).sum()


@pytest.mark.parametrize("norm", NORMS)
def test_restarts(network, batch, norm):
    """A sample that one run has broken takes no part in the next, and the others start where they would have."""
    (x, y), (eps, step_size) = batch, NORMS[norm]
    settings = {"eps": 4 * eps, "step_size": step_size / 2, "steps": 4, "norm": norm}  # the start matters
    generator = seeded(7)
    runs = [PGD(**settings).iterates(network, x, y, range(1, 5), generator=generator) for _ in range(4)]
    x_adv = PGD(restarts=4, early_stop=True, **settings)(network, x, y, generator=seeded(7))
    broken_by = []
    for i in range(SAMPLES):
        won = [[network(images[i : i + 1]).argmax() != y[i] for images in run] for run in runs]
        number = next((number for number, steps in enumerate(won) if any(steps)), None)
        broken_by.append(number)
        if number is None:  # the last iterate of one of the runs, the one with the largest loss
            ends = torch.stack([run[-1][i] for run in runs])
            losses = nn.functional.cross_entropy(network(ends), y[i].expand(4), reduction="none")
            expected = ends[losses.argmax()]
        else:
            expected = runs[number][won[number].index(True)][i]
        torch.testing.assert_close(x_adv[i], expected, rtol=0, atol=1e-9)
    assert {None, 0} < set(broken_by)  # some are broken by a later run


def test_when_all_are_broken_nothing_more_is_passed(network, batch):
    (x, y) = batch
    attack = PGD(eps=0.5, step_size=0.1, steps=40, restarts=3, early_stop=True)
    x_adv = attack(network, x, y, generator=seeded())
    sizes = network.sizes[:]
    assert (network(x_adv).argmax(1) != y).all()
    assert min(sizes) > 0
    assert len(sizes) < 40
    iterates = attack.iterates(network, x, y, (1, 30, 40), generator=seeded())
    assert torch.equal(iterates[1], iterates[2])
    assert not torch.equal(iterates[0], iterates[1])


class Band(nn.Module):
    """Class 1 where the only pixel lies within 0.05 of 0.55, else class 0."""

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), 0.05 - (x - 0.55).abs()], dim=1).flatten(1)


def test_an_iterate_on_the_way_counts():
    """The steps are longer than what they aim at: of 0.53, 0.61, 0.53, ... every other one is misclassified."""
    x, y = torch.full((3, 1), 0.45, dtype=torch.float64), torch.tensor([0, 0, 1])
    settings = {"eps": 0.2, "step_size": 0.08, "steps": 4, "start": "zero"}
    plain, stopped = (PGD(early_stop=stop, **settings)(Band(), x, y).flatten().tolist() for stop in (False, True))
    assert plain == pytest.approx([0.61, 0.61, 0.25])
    assert stopped == pytest.approx([0.53, 0.53, 0.37])  # the start is no iterate: a first step is taken from it


def test_an_empty_batch(network, batch):
    x, y = batch
    assert PGD(restarts=2, early_stop=True)(network, x[:0], y[:0]).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("settings", [{"batchnorm": "batch"}, {"diversity_probability": 0.5}])
def test_what_it_does_not_go_with(settings):
    with pytest.raises(ValueError, match=r"early_stop=True needs diversity_probability=0, .* and batchnorm='eval'"):
        PGD(early_stop=True, **settings)


def test_it_is_an_argument_like_the_others():
    config = PGD(early_stop=True).to_config()
    assert config["init_args"]["early_stop"] is True
    assert PGD.from_config(config).scaled(0.5).early_stop is True
    assert PGD().early_stop is MIFGSM().early_stop is False
