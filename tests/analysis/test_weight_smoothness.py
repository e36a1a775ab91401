"""Against loops, torchmetrics, a padded FFT, and what optimizers really do to weights."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.image import total_variation

from lightning_adv.analysis.weight_smoothness import (
    MEANS,
    KernelSmoothness,
    decay_rate,
    effective_learning_rate,
    kernel_smoothness,
    quadratic_sum,
    spatial_convolutions,
    weight_smoothness,
)
from lightning_adv.analysis.weight_smoothness_figures import plot_kernels, plot_smoothness
from lightning_adv.core.table import Row
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import InDomain, convert_batchnorm, domain, export_plain

DISORDERED = torch.tensor([[-1.0, -1, -1], [-1, 9, -1], [-1, -1, -1]])[None, None]  # figure 4
SMOOTH = torch.full((1, 1, 3, 3), 1 / 9)


def random_weight(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3


# Kernels --------------------------------------------------------------------------------------------------------------


def test_the_kernels_of_figure_4():
    """Both have the mean 1/9. The mean square of the disordered one is 89/9; its middle is 10 above 4 neighbours."""
    disordered = kernel_smoothness(DISORDERED)
    assert disordered.kernel_variance == pytest.approx(89 / 9 - 1 / 81)
    assert disordered.relative_kernel_variance == pytest.approx(800 / 801)
    assert disordered.total_variation == pytest.approx(40)
    assert disordered.relative_total_variation == pytest.approx(40 / 17)
    smooth = kernel_smoothness(SMOOTH)
    assert smooth[:4] == pytest.approx((0, 0, 0, 0), abs=1e-12)
    # of a row of three equal pixels the energy below 1/4 is (3 s(0) + 4 s(1) + 2 s(2)) / 3, with 1/2, 1/π and 0
    assert smooth.high_frequency_share == pytest.approx(1 - ((3 / 2 + 4 / math.pi) / 3) ** 2)
    assert disordered.high_frequency_share > 0.7


def test_variance_and_total_variation_are_those_of_loops():
    weight = random_weight(4, 3, 3, 5)
    variances, squares, variations, absolute = [], [], [], 0.0
    for kernel in weight.numpy().reshape(12, 3, 5):
        values = [float(value) for value in kernel.reshape(-1)]
        mean = sum(values) / 15
        variances.append(sum((value - mean) ** 2 for value in values) / 15)
        squares.append(sum(value**2 for value in values) / 15)
        absolute += sum(abs(value) for value in values)
        variation = sum(abs(kernel[i + 1, j] - kernel[i, j]) for i in range(2) for j in range(5))
        variations.append(variation + sum(abs(kernel[i, j + 1] - kernel[i, j]) for i in range(3) for j in range(4)))
    measured = kernel_smoothness(weight)
    assert measured.kernel_variance == pytest.approx(sum(variances) / 12)
    assert measured.relative_kernel_variance == pytest.approx(sum(variances) / sum(squares))
    assert measured.total_variation == pytest.approx(sum(variations) / 12)
    assert measured.relative_total_variation == pytest.approx(sum(variations) / absolute)


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (8, 1, 7, 7), (2, 2, 1, 7), (6, 5, 2, 3)])
def test_total_variation_is_that_of_torchmetrics(shape):
    weight = random_weight(*shape)
    slices = weight.reshape(-1, 1, *shape[2:])
    assert kernel_smoothness(weight).total_variation == pytest.approx(total_variation(slices, "mean").item())


def padded_share(weight, size):
    """The share by a Riemann sum over the bins of a padded FFT; a bin at 1/4 lies on the edge and counts half."""
    axes = tuple(range(2, weight.ndim))
    energy = np.abs(np.fft.fftn(weight.numpy(), s=[size] * len(axes), axes=axes)) ** 2
    low = energy
    for axis in axes:
        frequency = np.abs(np.fft.fftfreq(size))
        inside = np.where(np.isclose(frequency, 0.25), 0.5, frequency < 0.25)
        low = low * inside.reshape([-1 if axis == other else 1 for other in range(weight.ndim)])
    return 1 - low.sum() / energy.sum()


@pytest.mark.parametrize("shape", [(3, 2, 3, 3), (2, 1, 7, 7), (2, 2, 1, 7), (2, 3, 2, 5)])
def test_high_frequencies_are_those_of_a_padded_fft(shape):
    weight = random_weight(*shape)
    assert kernel_smoothness(weight).high_frequency_share == pytest.approx(padded_share(weight, 256), abs=1e-4)


@pytest.mark.parametrize(("shape", "size"), [((3, 2, 5), 1024), ((2, 2, 3, 3, 2), 48)])
def test_one_and_three_dimensions(shape, size):
    weight = random_weight(*shape)
    measured = kernel_smoothness(weight)
    assert measured.high_frequency_share == pytest.approx(padded_share(weight, size), abs=2e-3)
    differences = sum(np.abs(np.diff(weight.numpy(), axis=axis)).sum() for axis in range(2, weight.ndim))
    assert measured.total_variation == pytest.approx(differences / (shape[0] * shape[1]))


def test_white_kernels_have_three_quarters_and_checkerboards_more():
    white = torch.randn(200, 200, 3, 3, generator=torch.Generator().manual_seed(0))
    assert kernel_smoothness(white).high_frequency_share == pytest.approx(0.75, abs=0.01)
    checkerboard = (-1.0) ** (torch.arange(5)[:, None] + torch.arange(5))
    assert kernel_smoothness(checkerboard[None, None]).high_frequency_share > 0.98
    wave = torch.cos(torch.pi / 8 * torch.arange(64))  # 1/16 cycle per pixel, along one axis
    assert kernel_smoothness(wave.expand(1, 1, 64, 64)).high_frequency_share < 0.02


def test_a_kernel_of_zeros_is_constant_and_nan_stays_nan():
    assert kernel_smoothness(torch.zeros(2, 2, 3, 3)) == KernelSmoothness(0, 0, 0, 0, 0)
    broken = kernel_smoothness(torch.full((2, 2, 3, 3), math.nan))
    assert all(math.isnan(getattr(broken, measure)) for measure in MEANS[:2])
    assert 0 <= kernel_smoothness(torch.ones(1, 1, 512, 512)).high_frequency_share < 0.01


def test_precision_does_not_matter():
    weight = random_weight(4, 3, 3, 3).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert kernel_smoothness(weight) == kernel_smoothness(weight.double())
    half = (1000 * weight).half()  # squares that overflow
    assert kernel_smoothness(half) == kernel_smoothness(half.double())
    assert all(math.isfinite(number) for number in kernel_smoothness(half))


def test_a_weight_that_is_no_kernel():
    with pytest.raises(ValueError, match=r"^weight must be .* got \(4, 3\)\.$"):
        kernel_smoothness(torch.ones(4, 3))


# Networks -------------------------------------------------------------------------------------------------------------


def test_convolutions_of_one_pixel_have_no_shape():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 4, (1, 3)), nn.Linear(4, 2))
    assert list(spatial_convolutions(network)) == ["1", "2"]
    with pytest.raises(ValueError, match="no convolution with a kernel of more than one pixel"):
        spatial_convolutions(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 2)))
    with pytest.raises(
        ValueError, match=r"smoothness.layers has the pattern '0', which no layer matches.* There are 1, 2"
    ):
        spatial_convolutions(network, "0")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision/efficientnet_b0", "resnet18"])
def test_quadratic_sum_of_a_domain_is_that_of_its_plain_network(name):
    network = convert_batchnorm(Backbone(name).build(10))
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=drawn))
    for each in ("main", "adversarial"):
        plain = sum((p.detach().numpy().astype(float) ** 2).sum() for p in export_plain(network, each).parameters())
        assert quadratic_sum(InDomain(network, each)) == pytest.approx(plain, rel=1e-9)
    assert quadratic_sum(InDomain(network, "main")) != quadratic_sum(InDomain(network, "adversarial"))


def test_records_of_a_network():
    network = convert_batchnorm(
        nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 1))
    )
    network[0].weight.data, network[2].weight.data = DISORDERED.clone(), SMOOTH.clone()
    optimizer = torch.optim.Adam(network[0].parameters(), lr=0.1, weight_decay=0.1)
    with domain(network, "adversarial"):  # what is active makes no difference
        records = weight_smoothness(network, domains=("main", "adversarial"), optimizer=optimizer)
    table = {record[:3]: record.value for record in records}
    assert len(table) == len(records)
    assert {key[1:] for key in table if key[0] == ""} == {
        ("main", "quadratic_sum"),
        ("adversarial", "quadratic_sum"),
        *(("", measure) for measure in MEANS),
    }
    assert {key[0] for key in table} == {"", "0", "2"}
    assert table["", "", "relative_kernel_variance"] == pytest.approx(400 / 801)
    assert table["", "", "relative_total_variation"] == pytest.approx(20 / 17)
    assert table["0", "", "norm"] == pytest.approx(math.sqrt(89))
    assert table["0", "", "effective_learning_rate"] == pytest.approx(0.1 / math.sqrt(89))
    assert ("0", "", "decay_rate") not in table  # Adam rescales it
    assert ("2", "", "effective_learning_rate") not in table  # not trained
    for name, weight in (("0", DISORDERED), ("2", SMOOTH)):
        for measure, value in kernel_smoothness(weight)._asdict().items():
            assert table[name, "", measure] == value


# What optimizers do ---------------------------------------------------------------------------------------------------


def direction_after_a_step(norm, make):
    """Weights of a scale-invariant layer, of the given norm: their direction after one step, in double precision."""
    drawn = torch.Generator().manual_seed(0)
    x, target, start = (torch.randn(n, 6, generator=drawn, dtype=torch.float64) for n in (50, 1, 1))
    weight = nn.Parameter(norm * start / start.norm())
    features = torch.batch_norm(x @ weight.T, None, None, None, None, True, 0.1, 0.0, False)
    (features * (x @ target.T)).sum().backward()
    make([weight], norm).step()
    return weight.detach() / weight.detach().norm()


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        lambda parameters, lr: torch.optim.Adam(parameters, lr=lr, eps=1e-30),
        lambda parameters, lr: torch.optim.RMSprop(parameters, lr=lr, eps=1e-30),
    ],
    ids=["sgd", "adam", "rmsprop"],
)
def test_a_step_turns_weights_as_it_would_turn_unit_weights_at_the_effective_rate(make):
    lr = 0.02
    seen = []

    def at_lr(parameters, norm):
        optimizer = make(parameters, lr)
        seen.append(effective_learning_rate(parameters[0], optimizer))
        return optimizer

    large = direction_after_a_step(7.0, at_lr)
    unit = direction_after_a_step(1.0, lambda parameters, norm: make(parameters, seen[0]))
    torch.testing.assert_close(large, unit)
    assert not torch.allclose(large, direction_after_a_step(1.0, at_lr))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=1e-3, weight_decay=1e-2),
        lambda p: torch.optim.SGD(p, lr=1e-3, weight_decay=1e-2, dampening=0.5),
        lambda p: torch.optim.SGD(p, lr=1e-3, weight_decay=1e-2, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=1e-3, weight_decay=1e-2, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=1e-3, weight_decay=1e-2, momentum=0.9, dampening=0.5),
        lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=1e-2),
        lambda p: torch.optim.NAdam(p, lr=1e-3, weight_decay=1e-2, decoupled_weight_decay=True),
        lambda p: torch.optim.SGD(p, lr=1e-3),
    ],
)
def test_weights_without_a_gradient_shorten_at_the_decay_rate(make):
    weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = make([weight])
    weight.grad = torch.zeros(3, dtype=torch.float64)
    for _ in range(300):
        optimizer.step()
    before = weight.detach().clone()
    optimizer.step()
    shortened = 1 - (weight.detach() / before)[0].item()
    assert decay_rate(weight, optimizer) == pytest.approx(shortened, rel=2e-3)


def test_rates_come_from_the_parameters_own_group():
    first, second, frozen = (nn.Parameter(torch.full((4,), 2.0)) for _ in range(3))
    groups = [{"params": [first]}, {"params": [second], "lr": torch.tensor(0.5), "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.1)
    assert effective_learning_rate(first, optimizer) == pytest.approx(0.1 / 16)
    assert effective_learning_rate(second, optimizer) == pytest.approx(0.5 / 16)
    assert decay_rate(first, optimizer) == pytest.approx(0.01)
    assert decay_rate(second, optimizer) == 0
    assert effective_learning_rate(frozen, optimizer) is None
    assert decay_rate(frozen, optimizer) is None
    first.requires_grad_(False)
    assert decay_rate(first, optimizer) is None


def test_rates_that_nobody_knows():
    weight = nn.Parameter(torch.ones(4))
    assert decay_rate(weight, torch.optim.Adam([weight], weight_decay=0.1)) is None
    assert decay_rate(weight, torch.optim.SGD([weight], weight_decay=0.1, momentum=1.0)) is None
    assert effective_learning_rate(weight, torch.optim.Adagrad([weight])) is None
    zero = nn.Parameter(torch.zeros(4))
    assert effective_learning_rate(zero, torch.optim.SGD([zero], lr=0.1)) is None


# Figures --------------------------------------------------------------------------------------------------------------


def rows_of(epochs, domains=("",), convolutions=("conv1", "conv2"), per_epoch=1):
    rows = []
    for look in range(epochs * per_epoch):
        at = (look // per_epoch, 10 * look + 9)
        rows += [Row(*at, "", domain, "quadratic_sum", 100 - look) for domain in domains]
        rows += [Row(*at, "", "", measure, 0.1 * number + 0.01 * look) for number, measure in enumerate(MEANS)]
        rows += [Row(*at, name, "", "high_frequency_share", n + look) for n, name in enumerate(convolutions)]
    return rows


def test_curves_show_the_table():
    figure = plot_smoothness(rows_of(3, domains=("main", "adversarial")))
    quadratic, relative = figure.axes
    assert [line.get_label() for line in quadratic.lines] == ["main", "adversarial"]
    assert [tuple(line.get_ydata()) for line in quadratic.lines] == [(100, 99, 98)] * 2
    assert [tuple(line.get_xdata()) for line in relative.lines] == [(0, 1, 2)] * 3
    assert tuple(relative.lines[1].get_ydata()) == pytest.approx((0.1, 0.11, 0.12))
    assert quadratic.get_xlabel() == "Epoch"


def test_the_heat_map_shows_the_table():
    axes = plot_kernels(rows_of(30)).axes[0]
    values = axes.images[0].get_array()
    assert values.shape == (2, 30)
    assert values[1, 7] == 8
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv1", "conv2"]
    assert [label.get_text() for label in axes.get_xticklabels()][:3] == ["0", "5", "10"]
    many = plot_kernels(rows_of(2, convolutions=[f"conv{n}" for n in range(100)]))
    assert [label.get_text() for label in many.axes[0].get_yticklabels()][:2] == ["conv0", "conv3"]
    assert many.get_figheight() < 11


def test_looks_within_epochs_are_drawn_by_their_step():
    assert plot_smoothness(rows_of(2, per_epoch=2)).axes[0].get_xlabel() == "Optimizer step"
