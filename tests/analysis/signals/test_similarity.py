"""CKA against its formulas, its invariances, and the sums over quadruples that define the unbiased HSIC."""

import itertools
import math

import pytest
import torch
from torch import nn

from lightning_adv.analysis.signals import Similarity, layer_similarity, linear_cka


@pytest.fixture
def features():
    first = torch.randn(12, 5, dtype=torch.float64) + 3
    return first, first @ torch.randn(5, 7, dtype=torch.float64) + torch.randn(12, 7, dtype=torch.float64)


def test_formula_in_the_space_of_features(features):
    """Kornblith et al., section 3: norms of the cross-covariances."""
    x, y = (each - each.mean(0) for each in features)
    expected = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert linear_cka(*features) == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("debiased", [False, True])
def test_invariances(features, debiased):
    first, second = features
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    value = linear_cka(first, second, debiased=debiased)
    assert linear_cka(3 * first @ rotation + 100, second, debiased=debiased) == pytest.approx(value, rel=1e-9)
    assert linear_cka(second, first, debiased=debiased) == pytest.approx(value, rel=1e-9)
    assert linear_cka(first, first.view(12, 5, 1), debiased=debiased) == pytest.approx(1)


def test_unbiased_hsic_is_the_mean_over_quadruples():
    """Gretton et al. 2005: the mean of K_ij (M_ij + M_qr - 2 M_iq) over different i, j, q, r."""
    first, second = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)

    def hsic(a, b):
        k, m = a @ a.T, b @ b.T
        terms = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in itertools.permutations(range(6), 4)]
        return torch.stack(terms).mean()

    expected = hsic(first, second) / (hsic(first, first) * hsic(second, second)).sqrt()
    assert linear_cka(first, second, debiased=True) == pytest.approx(expected.item(), rel=1e-9)


def test_independent_features_have_none_without_bias():
    values = torch.tensor(
        [[linear_cka(*pair, debiased=d) for d in (True, False)] for pair in torch.randn(200, 2, 8, 50).unbind()]
    )
    assert values[:, 0].mean().abs() < 0.02
    assert values[:, 1].mean() > 0.8, "50 features and 8 images"


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.act = nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.layer(self.act(self.layer(x.flatten(1)))))[:, :2]


def test_layers(features):
    network = Twice()
    x, x_adv = torch.rand(9, 1, 2, 2), torch.rand(9, 1, 2, 2)
    found = layer_similarity(network, x, x_adv, {"layer": network.layer, "act": network.act}, debiased=False)

    def runs(images):
        first = network.layer(images.flatten(1))
        return torch.cat([first, network.layer(first.relu())], 1)  # before the activation in place

    assert list(found) == ["layer", "act"]
    assert found["layer"].cka == pytest.approx(linear_cka(runs(x), runs(x_adv)), rel=1e-5)
    assert found["act"].cka == pytest.approx(linear_cka(runs(x).relu(), runs(x_adv).relu()), rel=1e-5)


def test_batches_are_weighted_and_a_rest_is_left_out():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 6))
    x, x_adv = torch.rand(15, 1, 2, 2), torch.rand(15, 1, 2, 2)
    layers = {"fc": network[1]}
    whole = layer_similarity(network, x, x_adv, layers, batch_size=6)["fc"]
    parts = [layer_similarity(network, x[part], x_adv[part], layers)["fc"] for part in (slice(6), slice(6, 12))]
    assert whole == pytest.approx([sum(numbers) for numbers in zip(*parts, strict=True)], rel=1e-5)


def test_a_constant_representation_has_no_similarity():
    assert math.isnan(linear_cka(torch.ones(5, 2), torch.randn(5, 2)))
    assert math.isnan(Similarity(0.1, -0.1, -0.1).cka)


class OnceMore(Twice):
    """The layer runs twice where images are bright."""

    def forward(self, x):
        return super().forward(x) if x.mean() > 0.5 else self.layer(x.flatten(1))


def test_a_layer_that_runs_more_often_for_the_ones():
    network, x = OnceMore(), torch.ones(4, 1, 2, 2)
    with pytest.raises(ValueError, match="A layer runs 1 times for clean images and 2 times for adversarial examples"):
        layer_similarity(network, 0 * x, x, {"layer": network.layer})


def test_errors():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 6))
    x = torch.rand(6, 1, 2, 2)
    for call, told in [
        (lambda: linear_cka(x, x[:5]), "features of the same images, at least 2, got 6 and 5"),
        (lambda: linear_cka(x[:3], x[:3], debiased=True), "at least 4, got 3 and 3"),
        (lambda: layer_similarity(network, x, x[:5], {"fc": network[1]}), "x_adv must have the shape of x"),
        (lambda: layer_similarity(network, x, x, {"fc": network[1]}, batch_size=3), "at least 4 images in a batch"),
        (lambda: layer_similarity(network, x, x, {"no": nn.ReLU()}), "layer no does not run"),
    ]:
        with pytest.raises(ValueError, match=told):
            call()
