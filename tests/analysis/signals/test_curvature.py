"""The largest eigenvalue against full Hessians of tiny networks, closed forms and curvlinops."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from curvlinops import HessianLinearOperator
from scipy.sparse.linalg import eigsh
from torch import nn
from torch.func import functional_call

from lightning_adv.analysis.signals import largest_hessian_eigenvalue
from lightning_adv.nn import InDomain, convert_batchnorm


def eigenvalue(network, x, y, tolerance=1e-8, **settings):
    generator = torch.Generator().manual_seed(5)
    return largest_hessian_eigenvalue(network, x, y, generator=generator, tolerance=tolerance, **settings)


def full_hessian(network, x, y):
    """The Hessian (P, P) of the mean cross-entropy to all weights."""
    names, values = zip(*network.named_parameters(), strict=True)
    sizes = [value.numel() for value in values]

    def loss(flat):
        weights = {n: part.view_as(v) for n, v, part in zip(names, values, flat.split(sizes), strict=True)}
        return F.cross_entropy(functional_call(network, weights, x), y)

    return torch.autograd.functional.hessian(loss, torch.cat([value.detach().flatten() for value in values]))


@pytest.fixture
def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4, 3)
    ).double()


@pytest.fixture
def images():
    return torch.rand(9, 3, 2, 2, dtype=torch.float64), torch.arange(9) % 3


def test_against_the_full_hessian(network, images):
    hessian = full_hessian(network.eval(), *images)
    expected = torch.linalg.eigvalsh(hessian)[-1].item()
    assert eigenvalue(network, *images) == pytest.approx(expected, rel=1e-6)
    assert eigenvalue(network, *images, batch_size=4) == pytest.approx(expected, rel=1e-6)
    assert eigenvalue(network.train(), *images) == pytest.approx(expected, rel=1e-6), "BatchNorms in eval mode"


def test_the_largest_and_not_that_of_the_largest_size(network, images):
    """Of minus the loss: the eigenvalue is minus the smallest."""
    expected = -torch.linalg.eigvalsh(full_hessian(network.eval(), *images))[0].item()
    found = eigenvalue(network, *images, loss=lambda logits, y: -F.cross_entropy(logits, y, reduction="none"))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_against_curvlinops(network, images):
    x, y = images
    operator = HessianLinearOperator(
        network.eval(), nn.CrossEntropyLoss(), list(network.parameters()), [(x[:4], y[:4]), (x[4:], y[4:])]
    )
    expected = eigsh(operator.to_scipy(), k=1, which="LA", return_eigenvectors=False)[0]
    assert eigenvalue(network, x, y) == pytest.approx(expected, rel=1e-6)


def test_a_quadratic_loss_has_its_own_curvature():
    """With logits w·(x, 0) and loss Σ z²: the Hessian is 2 mean(x x') for the first row and zero for the second."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(20, 2, bias=False)).double()
    x = torch.rand(6, 5, 2, 2, dtype=torch.float64)
    found = eigenvalue(network, x, torch.zeros(6, dtype=torch.long), loss=lambda logits, y: logits[:, 0].square())
    flat = x.flatten(1)
    assert found == pytest.approx(torch.linalg.eigvalsh(2 * flat.T @ flat / 6)[-1].item(), rel=1e-6)


def test_only_trained_weights_of_the_domain(network, images):
    """A frozen layer is constant; the BatchNorms of another domain have no share."""
    plain = eigenvalue(network, *images)
    convert_batchnorm(network)
    network[1].norms["main"].running_mean += 1.0
    assert eigenvalue(InDomain(network, "adversarial"), *images) == pytest.approx(plain, rel=1e-6)
    network.requires_grad_(False)[4].requires_grad_(True)
    network[1].norms["main"].running_mean -= 1.0
    features = network[:4].eval()(images[0]).detach()
    head = full_hessian(network[4], features, images[1])
    assert eigenvalue(network, *images) == pytest.approx(torch.linalg.eigvalsh(head)[-1].item(), rel=1e-6)


def test_no_curvature_and_no_convergence(network, images):
    assert eigenvalue(network, *images, loss=lambda logits, y: 0.0 * logits.sum(1)) == 0
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    assert eigenvalue(linear, *images, loss=lambda logits, y: logits[:, 0]) == 0, "linear in the weights"
    assert math.isnan(eigenvalue(network, *images, max_products=10, tolerance=1e-15))
    network[4].weight.data[0, 0] = math.nan
    assert math.isnan(eigenvalue(network, *images))


class Shared(nn.Module):
    """A layer that stands in two places, activations whose second derivative autograd knows, and attention."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.parts = nn.ModuleList([self.layer, nn.Hardswish(), nn.SiLU()])

    def forward(self, x):
        tokens = self.layer(x.flatten(2))
        for part in self.parts:
            tokens = part(tokens)
        return F.scaled_dot_product_attention(tokens, tokens, tokens).mean(1)[:, :3]


def test_networks_without_forward_mode_differentiation(images):
    network = Shared().double()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        hessian = full_hessian(copy.deepcopy(network), *images)  # functional_call does not put a shared layer back
    expected = torch.linalg.eigvalsh(hessian)[-1].item()
    assert eigenvalue(network, *images) == pytest.approx(expected, rel=1e-6)


def test_errors(network, images):
    x, y = images
    for call, told in [
        (lambda: eigenvalue(network, x[:0], y[:0]), "at least one image"),
        (lambda: eigenvalue(network, x, y + 1), r"y must lie in \[0, 3\)"),
        (lambda: eigenvalue(network, x, y, tolerance=0.0), "tolerance must lie above 0 and below 1, got 0"),
        (lambda: eigenvalue(network, x, y, max_products=0), "max_products must be at least 1, got 0"),
        (lambda: eigenvalue(network.requires_grad_(False), x, y), "no parameter of it requires a gradient"),
    ]:
        with pytest.raises(ValueError, match=told):
            call()
