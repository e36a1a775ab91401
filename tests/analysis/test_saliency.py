"""Saliency maps: Grad and SmoothGrad against closed forms and autograd; sparsity and distances against brute force."""

import copy
import sys

import pytest
import torch
from torch import nn

from lightning_adv.analysis.features import (
    gini,
    grad_saliency,
    saliency_distances,
    saliency_pictures,
    smooth_grad,
)
from lightning_adv.analysis.features import saliency as module
from lightning_adv.core.errors import UsageError
from lightning_adv.nn import Backbone


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 3, channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(n, channels, 4, 4, generator=seeded(7))
    return x, torch.arange(n) % 3


def linear(channels: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, 3))


class Quadratic(nn.Module):
    """Two classes whose logits differ by ``w · x² - shift``, w from -1 to 1."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("w", torch.linspace(-1, 1, 32))
        self.shift = shift

    def forward(self, x):
        score = (self.w * x.flatten(1) ** 2).sum(1) - self.shift
        return torch.stack([torch.zeros_like(score), score], 1)


# Grad and SmoothGrad --------------------------------------------------------------------------------------------------


def test_grad_of_a_linear_network_is_its_weights_less_their_expected_value():
    x, y = images()
    network = linear()
    maps = grad_saliency(network, x, y, batch_size=2)
    w, p = network[1].weight, network(x).softmax(1)
    torch.testing.assert_close(maps.flatten(1), (w[y] - p @ w).detach())


def test_grad_of_a_sure_answer_is_as_exact_as_of_an_unsure_one():
    x = torch.full((1, 1, 1, 2), 0.5)
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[40.0, 0.0], [0.0, 0.0]]))  # p_1 = 1 / (1 + e^20) = 2.06e-9
    (value,) = grad_saliency(network, x, torch.tensor([0]))[0, 0, 0, :1]
    assert value.item() == pytest.approx(40 / (1 + torch.tensor(20.0, dtype=torch.float64).exp().item()), rel=1e-4)


def test_smooth_grad_of_a_quadratic_is_its_gradient():
    # log p_1 = s - log(1 + e^s) is s for s = w · x² - 100, and its gradient 2 w x is linear in x: the mean over noisy
    # copies is the gradient at the image itself, but for 2 w times the mean noise.
    x, y = images(2, channels=2)[0], torch.tensor([1, 1])
    network = Quadratic(shift=100.0)
    expected = 2 * network.w * x.flatten(1)
    torch.testing.assert_close(grad_saliency(network, x, y).flatten(1), expected)
    samples = 400
    found = smooth_grad(network, x, y, generator=seeded(), samples=samples).flatten(1)
    size = 0.1 * (x.flatten(1).amax(1) - x.flatten(1).amin(1))[:, None]
    standard_error = 2 * network.w.abs() * size / samples**0.5
    deviations = ((found - expected) / standard_error).flatten()
    assert deviations.abs().max() < 4.5
    assert deviations.std().item() == pytest.approx(1, abs=0.35)  # sigma is that of each image, and nothing is clipped


def test_smooth_grad_is_the_mean_of_gradients_at_noisy_copies():
    x, y = images(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.Tanh(), nn.Linear(8, 3))
    found = smooth_grad(network, x, y, generator=seeded(), samples=4000, noise=0.5)
    noise = torch.randn(20_000, 2, 4, 4, generator=seeded(1)) * 0.5 * (x.max() - x.min())
    copies = (x + noise).requires_grad_()
    (gradients,) = torch.autograd.grad(network(copies).log_softmax(1)[:, y[0]].sum(), copies)
    error = gradients.std(0) * (1 / 4000 + 1 / 20_000) ** 0.5
    assert ((found[0] - gradients.mean(0)) / error).abs().max() < 4.5
    assert (found[0] - grad_saliency(network, x, y)[0]).abs().max() > 10 * error.max()  # smoothing is not the identity


def test_samples_do_not_depend_on_the_batch_nor_on_its_size():
    x, y = images(4)
    network = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.Tanh(), nn.Linear(8, 3))
    whole = smooth_grad(network, x, y, generator=seeded(), samples=10)
    generator = seeded()
    parts = [smooth_grad(network, *part, generator=generator, samples=10) for part in [(x[:1], y[:1]), (x[1:], y[1:])]]
    assert torch.equal(torch.cat(parts), whole)
    others = x.clone()
    others[1:] = 0.5 * x[1:].flip(0)
    assert torch.equal(smooth_grad(network, others, y, generator=seeded(), samples=10)[0], whole[0])
    assert not torch.equal(smooth_grad(network, x, y, generator=seeded(1), samples=10), whole)


def test_copies_that_do_not_fit_at_once_are_all_taken(monkeypatch):
    x, y = images(1)
    seen = []
    network = linear()
    network.register_forward_hook(lambda layer, given, output: seen.append(len(output)))
    monkeypatch.setattr(module, "_AT_ONCE", 4 * 32)
    smooth_grad(network, x, y, generator=seeded(), samples=10)
    assert seen == [4, 4, 2]


@pytest.mark.parametrize("kind", ["grad", "smooth_grad"])
def test_any_network_is_left_as_it_was_and_so_is_the_global_generator(kind):
    network = Backbone("small_cnn", in_channels=1, options={"width": 4}).build(3)
    network.train()
    next(network.parameters()).requires_grad_(False)
    before, flags = copy.deepcopy(network.state_dict()), [p.requires_grad for p in network.parameters()]
    state = torch.get_rng_state()
    x, y = torch.rand(2, 1, 8, 8, generator=seeded()), torch.tensor([0, 2])
    with torch.inference_mode():
        if kind == "grad":
            maps = grad_saliency(network, x, y)
        else:
            maps = smooth_grad(network, x, y, generator=seeded(), samples=3)
    assert maps.shape == x.shape
    assert not maps.requires_grad
    assert maps.abs().sum() > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(each.training for each in network.modules())
    assert [p.requires_grad for p in network.parameters()] == flags
    assert all(p.grad is None for p in network.parameters())


def test_no_images_have_no_maps():
    x, y = torch.zeros(0, 2, 4, 4), torch.zeros(0, dtype=torch.long)
    assert grad_saliency(linear(), x, y).shape == smooth_grad(linear(), x, y, generator=seeded()).shape == x.shape
    assert saliency_pictures(x).shape == (0, 4, 4)
    assert gini(x).shape == (0,)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"samples": 0}, "samples must be an integer of at least 1, got 0"),
        ({"noise": -0.1}, "noise must be a share of an image's range of at least 0, got -0.1"),
        ({"x": torch.full((3, 2, 4, 4), 2.0)}, r"x must lie in \[0, 1\]"),
        ({"y": torch.tensor([0, 1, 3])}, r"y must lie in \[0, 3\), got labels from 3 to 3"),
    ],
)
def test_what_cannot_be_explained_is_told(change, told):
    x, y = images()
    with pytest.raises(UsageError, match=told):
        smooth_grad(linear(), **({"x": x, "y": y, "generator": seeded()} | change))


def test_without_captum_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(UsageError, match=r"need captum: pip install 'lightning-adv\[interpret\]'"):
        grad_saliency(linear(), *images())
    with pytest.raises(UsageError, match=r"need captum: pip install 'lightning-adv\[interpret\]'"):
        smooth_grad(linear(), *images(), generator=seeded())


# Numbers and pictures -------------------------------------------------------------------------------------------------


def test_gini_is_half_the_mean_difference_of_two_values_over_their_mean():
    maps = torch.randn(5, 2, 3, 3, generator=seeded())
    values = maps.abs().flatten(1).double()
    pairs = (values[:, :, None] - values[:, None, :]).abs().mean((1, 2))
    torch.testing.assert_close(gini(maps), pairs / (2 * values.mean(1)))
    torch.testing.assert_close(gini(-3 * maps), gini(maps))
    assert gini(torch.zeros(1, 4)).isnan().all()


def test_distances_are_between_where_networks_look_and_not_how_sure_they_are():
    a, b = torch.randn(2, 4, 2, 3, 3, generator=seeded()).double()
    found = saliency_distances(a, b)
    for i in range(4):
        p, q = a[i].abs().flatten(), b[i].abs().flatten()
        assert found.l2[i].item() == pytest.approx(((p / p.sum() - q / q.sum()) ** 2).sum().sqrt().item())
        assert found.cosine[i].item() == pytest.approx(1 - torch.cosine_similarity(p, q, dim=0).item())
    scaled = saliency_distances(-5 * a, b)
    torch.testing.assert_close(scaled.l2, found.l2)
    torch.testing.assert_close(scaled.cosine, found.cosine)
    torch.testing.assert_close(saliency_distances(b, a).l2, found.l2)
    assert saliency_distances(a, torch.zeros_like(a)).l2.isnan().all()
    with pytest.raises(UsageError, match="one shape"):
        saliency_distances(a, b[:2])


def test_pictures_are_white_from_the_99th_percentile_on():
    maps = torch.zeros(2, 2, 20, 50)
    maps[0, 0] = torch.arange(1000).reshape(20, 50)
    maps[0, 1] = -torch.arange(1000).reshape(20, 50)
    maps[1, 0, 0, 0] = 3.0  # fewer pixels than a hundredth
    pictures = saliency_pictures(maps)
    assert (pictures[0] == 1).sum() == 10
    torch.testing.assert_close(pictures[0].flatten()[:990], torch.arange(990) / 989.01)
    assert pictures[1, 0, 0] == 1
    assert pictures[1].sum() == 1
    assert saliency_pictures(torch.zeros(1, 1, 2, 2)).sum() == 0
