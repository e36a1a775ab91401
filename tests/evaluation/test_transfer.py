"""With linear networks, whose FGSM examples and verdicts are known in closed form."""

import copy

import pytest
import torch
from torch import nn

from lightning_adv.attacks import FGSM, MDIFGSM, MIFGSM, PGD, LogitEnsemble
from lightning_adv.core.shares import wilson_interval
from lightning_adv.evaluation.transfer.rates import (
    TransferRate,
    add_rates,
    commonly_correct,
    ensemble_rates,
    transfer_rates,
)
from lightning_adv.nn.batchnorm import convert_batchnorm
from lightning_adv.testing.untouched import Snapshot

EPS = 0.1


class Linear(nn.Module):
    """Class 1 where the weighted sum of an image's four pixels is positive."""

    def __init__(self, *weights, bias=0.0):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float64))
        self.bias = bias
        self.seen = []

    def score(self, x):
        return x.flatten(1) @ self.weights + self.bias

    def forward(self, x):
        self.seen.append(len(x))
        score = self.score(x)
        return torch.stack([-score, score], 1)


@pytest.fixture
def networks():
    return {
        "a": Linear(1, -1, 1, -1),
        "b": Linear(1, -1, 1, 0.5, bias=-0.7),
        "c": Linear(-0.2, -1, 2, -1, bias=0.1),
    }


@pytest.fixture(scope="module")
def images():
    """200 images that FGSM does not take out of [0, 1], and labels that network a mostly agrees with."""
    generator = torch.Generator().manual_seed(0)
    x = 0.15 + 0.7 * torch.rand(200, 1, 2, 2, generator=generator, dtype=torch.float64)
    y = (Linear(1, -1, 1, -1).score(x) + 0.05 * torch.randn(200, generator=generator) > 0).long()
    return x, y


def verdicts(network, x, y):
    """Right or wrong for each image, by a loop."""
    return [(network.score(x[i : i + 1]).item() > 0) == bool(y[i]) for i in range(len(x))]


def fgsm(weights, x, y):
    """Against class 1 each pixel falls where its weight is positive, against class 0 it rises."""
    return x - EPS * (2 * y - 1).view(-1, 1, 1, 1) * weights.detach().sign().view(1, 1, 2, 2)


def correct_for_all(networks, x, y):
    every = [verdicts(network, x, y) for network in networks.values()]
    return torch.tensor([all(each) for each in zip(*every, strict=True)])


def table(rates):
    return {(row.attack, row.source, row.target): (row.white_box, row.fooled, row.total) for row in rates}


def test_images_that_all_classify_correctly(networks, images):
    expected = correct_for_all(networks, *images)
    assert 40 < expected.sum() < 180
    assert torch.equal(commonly_correct(networks, *images, batch_size=7), expected)
    assert max(max(network.seen) for network in networks.values()) == 7


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 17, 256])
def test_single_sources_against_a_loop(networks, images, batch_size):
    common = correct_for_all(networks, *images)
    x, y = images[0][common], images[1][common]
    expected = {
        ("FGSM", source, target): (
            source == target,
            verdicts(networks[target], fgsm(networks[source].weights, x, y), y).count(False),
            len(x),
        )
        for source in networks
        for target in networks
    }
    rates = transfer_rates(networks, {"FGSM": FGSM(EPS)}, *images, batch_size=batch_size)
    assert table(rates) == expected
    assert [row[1:3] for row in rates] == [(source, target) for source in "abc" for target in "abc"]
    assert len({row.fooled for row in rates}) > 4, "the cells differ"
    assert [row.rate for row in rates] == [row.fooled / row.total for row in rates]
    assert rates[1].interval == wilson_interval(rates[1].fooled, rates[1].total)


def test_ensembles_against_a_loop(networks, images):
    common = correct_for_all(networks, *images)
    x, y = images[0][common], images[1][common]
    expected = {}
    for held_out in networks:
        others = [network for name, network in networks.items() if name != held_out]
        fused = Linear(*[sum(w) / 2 for w in zip(*(network.weights.tolist() for network in others), strict=True)],
                       bias=sum(network.bias for network in others) / 2)  # fmt: skip
        x_adv = fgsm(fused.weights, x, y)
        name = f"-{held_out}"
        expected["FGSM", name, name] = (True, verdicts(fused, x_adv, y).count(False), len(x))
        expected["FGSM", name, held_out] = (False, verdicts(networks[held_out], x_adv, y).count(False), len(x))
    rates = ensemble_rates(networks, {"FGSM": FGSM(EPS)}, *images, batch_size=50)
    assert table(rates) == expected
    assert len({row.fooled for row in rates}) > 3
    assert table(ensemble_rates(networks, {"FGSM": FGSM(EPS)}, *images, held_out=["b"])) == {
        key: row for key, row in expected.items() if key[1] == "-b"
    }


@pytest.fixture(scope="module")
def trained():
    """Three small networks with BatchNorm that learned, each in its own way, which quarter of an image is brightest."""
    generator = torch.Generator().manual_seed(1)
    x = 0.7 * torch.rand(600, 1, 8, 8, generator=generator)
    y = torch.randint(4, (600,), generator=generator)
    for image, label in zip(x, y.tolist(), strict=True):
        image[:, 4 * (label // 2) :, 4 * (label % 2) :][:, :4, :4] += 0.3
    networks = {}
    with torch.random.fork_rng():
        for seed, name in enumerate(("a", "b", "c")):
            torch.manual_seed(seed)
            networks[name] = network = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2),
                nn.Flatten(), nn.Linear(128, 4),
            )  # fmt: skip
            optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
            for part in torch.arange(400).repeat(8).split(100):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(x[part]), y[part]).backward()
                optimizer.step()
    return networks, x[400:], y[400:]


ITERATIVE = {
    "PGD": PGD(0.06, steps=3, step_size=0.03),
    "M-DI²-FGSM": MDIFGSM(0.06, steps=4, step_size=0.02, diversity_scale=0.75),
}


@pytest.mark.slow
def test_ensembles_against_an_explicit_one(trained):
    networks, x, y = trained
    common = commonly_correct(networks, x, y)
    attack = MIFGSM(0.06, steps=4)
    rates = ensemble_rates(networks, {"MI": attack}, x, y)
    for name, network in networks.items():
        ensemble = LogitEnsemble([other for other in networks.values() if other is not network]).eval()
        x_adv = attack(ensemble, x[common], y[common])
        with torch.no_grad():
            fooled = [int((tested(x_adv).argmax(1) != y[common]).sum()) for tested in (ensemble, network.eval())]
        assert [row.fooled for row in rates if row.source == f"-{name}"] == fooled
        assert 0 < fooled[1] < len(x_adv)


@pytest.mark.slow
def test_draws_are_of_the_attack_and_the_source_alone(trained):
    networks, x, y = trained
    rates = table(transfer_rates(networks, ITERATIVE, x, y, seed=3))
    for attack in ITERATIVE:
        for source in networks:
            alone = transfer_rates(networks, {attack: ITERATIVE[attack]}, x, y, sources=[source], seed=3)
            assert table(alone) == {key: row for key, row in rates.items() if key[:2] == (attack, source)}
    assert table(transfer_rates(networks, ITERATIVE, x, y, sources=["c", "a"], seed=3)).items() <= rates.items()
    assert table(transfer_rates(networks, ITERATIVE, x, y, seed=4)) != rates
    ensembles = table(ensemble_rates(networks, ITERATIVE, x, y, seed=3))
    alone = table(ensemble_rates(networks, {"PGD": ITERATIVE["PGD"]}, x, y, held_out=["b"], seed=3))
    assert alone.items() <= ensembles.items()


class Drawing(FGSM):
    """Keeps the first number that its generator gives."""

    drawn = ()

    def __call__(self, model, x, y, *, domain=None, generator=None):
        self.drawn = (*self.drawn, torch.rand((), generator=generator).item())
        return super().__call__(model, x, y)


def test_no_two_generators_are_alike(networks, images):
    attacks = {name: Drawing(EPS) for name in ("first", "second")}
    for seed in (0, 1):
        transfer_rates(networks, attacks, *images, seed=seed)
        ensemble_rates(networks, attacks, *images, seed=seed)
    drawn = [number for attack in attacks.values() for number in attack.drawn]
    assert len(set(drawn)) == len(drawn) == 2 * 2 * 6


@pytest.mark.slow
def test_chunks_add_up(trained):
    networks, x, y = trained
    attacks = {"FGSM": FGSM(0.06), "MI": MIFGSM(0.06, steps=3)}
    for measure in (transfer_rates, ensemble_rates):
        whole = measure(networks, attacks, x, y)
        common = commonly_correct(networks, x, y)
        chunks = zip(x[common].split(60), y[common].split(60), strict=True)
        parts = [row for seed, chunk in enumerate(chunks) for row in measure(networks, attacks, *chunk, seed=seed)]
        assert len(parts) >= 3 * len(whole)
        assert add_rates(parts) == whole


@pytest.mark.slow
def test_networks_are_left_as_they_were(trained):
    networks, x, y = copy.deepcopy(trained[0]), *trained[1:]
    for network in networks.values():
        network.train()
        network[1].eval()
        network[0].weight.requires_grad_(False)
        network[0].bias.grad = torch.ones(8)

    before, random = [Snapshot(network) for network in networks.values()], torch.get_rng_state()
    rates = transfer_rates(networks, ITERATIVE, x, y) + ensemble_rates(networks, ITERATIVE, x, y)
    assert torch.equal(torch.get_rng_state(), random)
    assert [each.difference() for each in before] == [None] * 3
    in_eval_mode = {name: network.eval() for name, network in networks.items()}
    assert transfer_rates(in_eval_mode, ITERATIVE, x, y) + ensemble_rates(in_eval_mode, ITERATIVE, x, y) == rates


@pytest.mark.slow
def test_domains_of_one_network_and_of_several(trained):
    """A network with two domains gives what its two plain networks give."""
    networks, x, y = trained
    other = copy.deepcopy(networks["a"])
    other[1].running_mean += 0.05
    other[1].weight.data *= 1.3
    plain = {"main": networks["a"], "auxiliary": other, "b": networks["b"]}
    both = convert_batchnorm(copy.deepcopy(networks["a"]))
    both[1].norms["adversarial"].load_state_dict(other[1].state_dict())
    shared = {"main": both, "auxiliary": both, "b": networks["b"]}
    domains = {"main": "main", "auxiliary": "adversarial"}
    for measure in (transfer_rates, ensemble_rates):
        expected = measure(plain, ITERATIVE, x, y)
        assert measure(shared, ITERATIVE, x, y, domains=domains) == expected
        assert measure(shared, ITERATIVE, x, y) != expected, "the active domain, twice"
    assert torch.equal(commonly_correct(shared, x, y, domains=domains), commonly_correct(plain, x, y))
    assert both[1].domain_switch.active == "main"


# Bad input


@pytest.mark.parametrize("measure", [commonly_correct, transfer_rates, ensemble_rates])
def test_networks_that_cannot_be_compared(networks, images, measure):
    attacks = () if measure is commonly_correct else ({"FGSM": FGSM(EPS)},)
    with pytest.raises(ValueError, match="networks must be at least two, for examples to transfer, got 1"):
        measure({"a": networks["a"]}, *attacks, *images)
    three = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    with pytest.raises(ValueError, match=r"one shape, got for one image \(1, 2\) from 'a' and \(1, 3\) from 'three'"):
        measure({**networks, "three": three}, *attacks, *images)
    with pytest.raises(ValueError, match="x must be at least one image"):
        measure(networks, *attacks, images[0][:0], images[1][:0])
    with pytest.raises(ValueError, match=r"domains has 'aa'; the networks are a, b, c\. Did you mean 'a'"):
        measure(networks, *attacks, *images, domains={"aa": "main"})
    with pytest.raises(ValueError, match="no domain"):
        measure(networks, *attacks, *images, domains={"a": "main"})
    with pytest.raises(ValueError, match=r"y must lie in \[0, 2\)"):
        measure(networks, *attacks, images[0], images[1] + 1)


@pytest.mark.parametrize("measure", [transfer_rates, ensemble_rates])
def test_no_image_that_all_classify_correctly(networks, images, measure):
    x, y = images
    opposite = Linear(*(-networks["a"].weights).tolist())
    right = 100 * sum(verdicts(networks["a"], x, y)) / len(x)
    message = f"of the 200 images x there is none; their accuracies are a {right:.1f} %, opposite {100 - right:.1f} %"
    with pytest.raises(ValueError, match=message):
        measure({"a": networks["a"], "opposite": opposite}, {"FGSM": FGSM(EPS)}, x, y)
    assert not commonly_correct({"a": networks["a"], "opposite": opposite}, x, y).any()


def test_attacks_and_sources_that_there_are_not(networks, images):
    with pytest.raises(ValueError, match="attacks must be at least one, got none"):
        transfer_rates(networks, {}, *images)
    with pytest.raises(ValueError, match="sources has 'd'; the networks are a, b, c"):
        transfer_rates(networks, {"FGSM": FGSM(EPS)}, *images, sources=["a", "d"])
    with pytest.raises(ValueError, match="held_out has 'd'; the networks are a, b, c"):
        ensemble_rates(networks, {"FGSM": FGSM(EPS)}, *images, held_out=["d"])
    assert not any(network.seen for network in networks.values())


def test_rows_of_different_cells_stay_apart():
    rows = [
        TransferRate("FGSM", "a", "a", True, 3, 5),
        TransferRate("FGSM", "a", "b", False, 1, 5),
        TransferRate("FGSM", "a", "a", True, 4, 7),
        TransferRate("PGD", "a", "a", True, 7, 7),
    ]
    assert add_rates(iter(rows)) == [
        TransferRate("FGSM", "a", "a", True, 7, 12),
        TransferRate("FGSM", "a", "b", False, 1, 5),
        TransferRate("PGD", "a", "a", True, 7, 7),
    ]
    assert add_rates([]) == []


def test_an_attack_that_gives_no_numbers_fools_nobody(networks, images):
    """A network's first class would be its answer to them, and count as a rate."""

    class Faulty(FGSM):
        def perturb(self, forward, x, y, generator):
            return x * float("nan")

    with pytest.raises(RuntimeError, match=r"^Faulty gave images with values from nan to nan.*: it is faulty"):
        transfer_rates(networks, {"faulty": Faulty(eps=EPS)}, *images)
