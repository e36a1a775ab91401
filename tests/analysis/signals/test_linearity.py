"""Gradients and local linearity of networks whose loss is known in closed form, and against autograd and captum."""

import math

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Saliency
from torch import nn

from lightning_adv.analysis.signals import elle, gradient_alignment, input_gradient_norm
from lightning_adv.attacks.balls import get_ball


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Quadratic(nn.Module):
    """Logits (q, 0) with q = scale · Σ x²: the cross-entropy of class 1 is softplus(q), q itself where q is big."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        q = self.scale * x.flatten(1).square().sum(1)
        return torch.stack([q, torch.zeros_like(q)], 1)


@pytest.fixture
def tanh():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).double()


@pytest.fixture
def images():
    return torch.rand(5, 3, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("l1", 1), ("linf", math.inf)])
def test_gradient_norm_is_autograds_image_by_image(tanh, images, norm, order):
    x, y = images
    found = input_gradient_norm(tanh, x, y, norm=norm)
    for each, label, value in zip(x, y, found, strict=True):
        leaf = each[None].clone().requires_grad_()
        F.cross_entropy(tanh(leaf), label[None]).backward()
        assert value.item() == pytest.approx(torch.linalg.vector_norm(leaf.grad.flatten(), order).item(), rel=1e-9)


def test_gradient_norm_is_captums_saliency(tanh, images):
    """Captum differentiates what a forward function gives: here, the loss."""
    x, y = images
    loss = Saliency(lambda images: F.cross_entropy(tanh(images), y, reduction="none"))
    length = loss.attribute(x.clone().requires_grad_(), abs=True).flatten(1).norm(dim=1)
    torch.testing.assert_close(input_gradient_norm(tanh, x, y), length)


def test_a_confident_networks_gradient_is_not_rounded_away():
    """Cross-entropy log(1 + exp(-60)): softmax minus one-hot is zero in float32, the gradient 60 exp(-60)."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    network[1].weight.data = torch.tensor([[60.0], [0.0]])
    found = input_gradient_norm(network, torch.ones(1, 1, 1, 1), torch.tensor([0]))
    assert found.item() == pytest.approx(60 * math.exp(-60), rel=1e-4)


def test_alignment_of_a_quadratic_loss_is_the_cosine_of_the_points(images):
    """∇q(x) is along x: the cosine of the gradients is that of x and x + η."""
    x, _ = images
    y = torch.ones(5, dtype=torch.long)
    noise = get_ball("linf").sample(x, 0.3, generator())
    expected = F.cosine_similarity(x.flatten(1), (x + noise).flatten(1))
    found = gradient_alignment(Quadratic().double(), x, y, 0.3, generator=generator())
    torch.testing.assert_close(found, expected)
    assert found.max() < 0.999


def test_alignment_is_the_cosine_of_the_cross_entropys_gradients(tanh, images):
    """The paper's own loss, brute force, where it has a gradient."""
    x, y = images
    noise = get_ball("l2").sample(x, 2.0, generator())
    gradients = []
    for points in (x, x + noise):
        leaf = points.clone().requires_grad_()
        gradients.append(torch.autograd.grad(F.cross_entropy(tanh(leaf), y, reduction="sum"), leaf)[0].flatten(1))
    found = gradient_alignment(tanh, x, y, 2.0, generator=generator(), norm="l2")
    torch.testing.assert_close(found, F.cosine_similarity(*gradients))


def test_alignment_where_there_is_no_gradient_is_nan(images):
    x, _ = images
    x = torch.cat([torch.zeros_like(x[:1]), x])  # in the middle of the bowl it is flat
    found = gradient_alignment(Quadratic().double(), x, torch.ones(6, dtype=torch.long), 0.1, generator=generator())
    assert found.isnan().tolist() == [True] + 5 * [False]


def test_alignment_of_a_confident_network(images):
    """In float32 the cross-entropy's gradient underflows to zero here; the cosine is defined all the same."""
    x, _ = images
    found = gradient_alignment(Quadratic(1e4), x.float(), torch.zeros(5, dtype=torch.long), 0.3, generator=generator())
    expected = gradient_alignment(Quadratic().double(), x, torch.zeros(5, dtype=torch.long), 0.3, generator=generator())
    assert input_gradient_norm(Quadratic(1e4), x.float(), torch.zeros(5, dtype=torch.long)).max() == 0
    assert (found - expected).abs().max() < 0.2
    assert not found.isnan().any()


def test_elle_of_a_quadratic_loss(images):
    """q((1 - α) a + α b) - (1 - α) q(a) - α q(b) = -α (1 - α) |a - b|²."""
    x, _ = images
    y = torch.ones(5, dtype=torch.long)
    draws, ball = generator(), get_ball("linf")
    a, b = (x + ball.sample(x, 0.2, draws) for _ in range(2))
    alpha = torch.rand(5, generator=draws, dtype=torch.float64)
    expected = (100 * alpha * (1 - alpha) * (a - b).flatten(1).square().sum(1)).square()
    found = elle(Quadratic(100.0).double(), x + 0.0, y, 0.2, generator=generator())
    torch.testing.assert_close(found, expected)  # softplus(q) is q to the bit for q of at least 40


def test_elle_is_the_authors_snippet(tanh, images):
    x, y = images
    draws, ball = generator(3), get_ball("linf")
    ends = torch.cat([x + ball.sample(x, 0.5, draws) for _ in range(2)])
    alpha = torch.rand(5, generator=draws, dtype=torch.float64)
    between = (1 - alpha.view(-1, 1, 1, 1)) * ends[:5] + alpha.view(-1, 1, 1, 1) * ends[5:]
    losses = F.cross_entropy(tanh(torch.cat([ends, between])), y.repeat(3), reduction="none")
    error = F.mse_loss(losses[10:], (1 - alpha) * losses[:5] + alpha * losses[5:10])
    assert elle(tanh, x, y, 0.5, generator=generator(3)).mean().item() == pytest.approx(error.item(), rel=1e-9)


def test_elle_does_not_measure_the_rounding_of_autocast(tanh, images):
    x, y = images[0].float(), images[1]
    found = elle(tanh.float(), x, y, "1/255", generator=generator())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(elle(tanh, x, y, "1/255", generator=generator()), found, rtol=0, atol=0)


def test_linear_loss():
    """The log-odds are linear, and so is the cross-entropy of a sample that is far on the wrong side."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double()
    network[1].bias.data = torch.tensor([100.0, 0], dtype=torch.float64)
    x, y = torch.rand(4, 3, 2, 2, dtype=torch.float64), torch.ones(4, dtype=torch.long)
    assert gradient_alignment(network, x, y, "32/255", generator=generator()).min() == pytest.approx(1, abs=1e-12)
    assert elle(network, x, y, "32/255", generator=generator()).max() < 1e-20


def test_errors(tanh, images):
    x, y = images
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 3).double().requires_grad_(False), nn.Threshold(1e9, 0.0))
    for call, told in [
        (lambda: elle(tanh, x[:0], y[:0], 0.1, generator=generator()), "at least one image"),
        (lambda: elle(tanh, x, y, -0.1, generator=generator()), "eps must be at least 0"),
        (lambda: elle(tanh, x, y, 0.1, generator=generator(), norm="l7"), "norm must be one of linf, l2, l1"),
        (lambda: gradient_alignment(tanh, x + 1, y, 0.1, generator=generator()), r"x must lie in \[0, 1\]"),
        (lambda: input_gradient_norm(tanh, x, y + 3), r"y must lie in \[0, 3\)"),
        (lambda: input_gradient_norm(tanh, x, y, batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda: input_gradient_norm(nn.Sequential(flat, _Round()), x, y), "no gradient"),
    ]:
        with pytest.raises(ValueError, match=told):
            call()


class _Round(nn.Module):
    def forward(self, x):
        return x.detach().round()
