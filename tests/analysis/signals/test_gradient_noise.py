"""The noise of gradients, against per-sample gradients and against a population whose moments are known."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_adv.analysis.signals import GradientMoments, gradient_moments, gradient_noise
from lightning_adv.nn import convert_batchnorm


@pytest.fixture
def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).double()


@pytest.fixture
def images():
    return torch.rand(24, 3, 2, 2, dtype=torch.float64), torch.arange(24) % 3


def per_sample(network, x, y):
    rows = []
    for each, label in zip(x, y, strict=True):
        loss = F.cross_entropy(network(each[None]), label[None])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, tuple(network.parameters()))]))
    return torch.stack(rows)


def test_single_images_give_the_sample_covariance(network, images):
    """With micro-batches of one image the estimate of tr(Σ) is the unbiased sample variance of the gradients."""
    rows = per_sample(network, *images)
    found = gradient_noise(gradient_moments(network, *images, micro_batch=1))
    assert found.norm == pytest.approx(rows.mean(0).norm().item(), rel=1e-5)
    assert found.variance == pytest.approx(rows.var(0).sum().item(), rel=1e-5)
    assert found.squared_norm == pytest.approx(found.norm**2 - found.variance / 24, rel=1e-5)
    assert found.noise_scale == pytest.approx(found.variance / found.squared_norm)


def test_micro_batches_give_the_variance_of_single_images(network, images):
    """With micro-batches of four: four times the sample variance of their gradients."""
    rows = per_sample(network, *images).view(6, 4, -1).mean(1)
    found = gradient_noise(gradient_moments(network, *images, micro_batch=4))
    assert found.variance == pytest.approx(4 * rows.var(0).sum().item(), rel=1e-5)


def test_estimates_have_no_bias():
    """Gradients drawn from N(G, Σ) with |G|² = 25 and tr(Σ) = 6, many times."""
    mean, deviation = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 5.0**0.5])
    draws = mean + deviation * torch.randn(4000, 8, 2)
    found = [gradient_noise(GradientMoments(d.sum(0), float(d.square().sum()), 8, 8)) for d in draws]
    assert torch.tensor([each.squared_norm for each in found]).mean().item() == pytest.approx(25, abs=0.6)
    assert torch.tensor([each.variance for each in found]).mean().item() == pytest.approx(6, abs=0.2)


def test_parts_add_up(network, images):
    """Two processes, one of them without images, know what one process knows."""
    x, y = images
    whole = gradient_noise(gradient_moments(network, x, y, micro_batch=4))
    parts = [
        gradient_moments(network, x[part], y[part], micro_batch=4) for part in (slice(16), slice(16, 27), slice(0))
    ]
    assert [part.micro_batches for part in parts] == [4, 2, 0]
    assert gradient_noise(*parts) == pytest.approx(whole, rel=1e-5)


def test_frozen_weights_and_other_domains_are_left_out():
    network = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    network[0].requires_grad_(False)
    convert_batchnorm(network)
    moments = gradient_moments(network, torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]), micro_batch=2)
    main, adversarial, head = moments.gradient_sum.split([8, 8, 15])
    assert main.abs().min() > 0
    assert adversarial.abs().max() == 0, "the active domain is main"
    assert head.abs().max() > 0


def test_own_loss(network, images):
    found = gradient_moments(network, *images, micro_batch=8, loss=lambda logits, y: 0.0 * logits.sum(1))
    assert found.gradient_sum.abs().max() == 0
    noise = gradient_noise(found)
    assert (noise.norm, noise.variance, noise.noise_scale) == (0, 0, math.inf)


def test_errors(network, images):
    x, y = images
    few, other = (gradient_moments(network, x, y, micro_batch=size) for size in (16, 8))
    for call, told in [
        (lambda: gradient_noise(few), "at least two micro-batches, got 1"),
        (lambda: gradient_noise(few, other), "micro-batches of one size"),
        (lambda: gradient_moments(network, x, y, micro_batch=0), "micro_batch must be at least 1, got 0"),
        (lambda: gradient_moments(network, x, y - 1, micro_batch=8), r"y must lie in \[0, 3\)"),
        (lambda: gradient_moments(network.requires_grad_(False), x, y), "no parameter of it requires a gradient"),
    ]:
        with pytest.raises(ValueError, match=told):
            call()
