"""What may be folded, and what must be left: always the same logits and gradients as the network's own."""

import copy

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, Conv2dSame, StdConv2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrizations import weight_norm

from lightning_adv.nn.view.attack_view import attack_view
from lightning_adv.nn.view.folding import Affine, find_foldable, folded_weights, scale_and_shift

C = 4


def stir(network, seed=1):
    """Give every BatchNorm statistics and parameters that matter."""
    drawn = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            ranges = {"weight": (0.5, 1.5), "bias": (-0.3, 0.3), "running_mean": (-0.3, 0.3), "running_var": (0.5, 2)}
            for name, (low, high) in ranges.items():
                tensor = getattr(module, name)
                if tensor is not None:
                    tensor.data.copy_(low + (high - low) * torch.rand(tensor.shape, generator=drawn))
    return network


def conv(**options):
    return nn.Conv2d(C, C, 3, padding=1, **options)


class Net(nn.Module):
    """Images (N, 4, 6, 6) to two logits, by features that a subclass computes."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(C, 2)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class Plain(Net):
    def __init__(self, layer=None, norm=None):
        super().__init__()
        self.layer = conv() if layer is None else layer
        self.norm = nn.BatchNorm2d(C) if norm is None else norm

    def features(self, x):
        return F.relu(self.norm(self.layer(x)))


class ActivationBetween(Plain):
    def features(self, x):
        return self.norm(F.relu(self.layer(x)))


class InPlaceBetween(Plain):
    """The activation hands on the very tensor that the convolution gave."""

    def features(self, x):
        y = self.layer(x)
        F.relu_(y)
        return self.norm(y)


class SkipBetween(Plain):
    """What is between the two is read twice, as in a pre-activation network."""

    def features(self, x):
        y = self.layer(x)
        return y + F.relu(self.norm(y))


class SkipOfAView(Plain):
    def features(self, x):
        y = self.layer(x)
        return self.norm(y) + y.flatten(2).mean(2)[:, :, None, None]


class SharedLayer(Plain):
    def features(self, x):
        return F.relu(self.norm(self.layer(F.relu(self.layer(x)))))


class SharedNorm(Plain):
    def __init__(self):
        super().__init__()
        self.second = conv()

    def features(self, x):
        return self.norm(self.second(F.relu(self.norm(self.layer(x)))))


class TiedWeight(Plain):
    def __init__(self):
        super().__init__()
        self.second = conv()
        self.second.weight = self.layer.weight

    def features(self, x):
        return self.second(F.relu(self.norm(self.layer(x))))


class WeightReadElsewhere(Plain):
    """A penalty on the weight's size is part of what it computes."""

    def features(self, x):
        return F.relu(self.norm(self.layer(x))) * self.layer.weight.norm()


class StatisticReadElsewhere(Plain):
    def features(self, x):
        return self.norm(self.layer(x)) + self.norm.running_mean.sum()


class Between(Plain):
    """A slice of the channels is normalised."""

    def __init__(self):
        super().__init__(norm=nn.BatchNorm2d(C // 2))

    def features(self, x):
        y = self.layer(x)
        return torch.cat([self.norm(y[:, : C // 2]), y[:, C // 2 :]], 1)


class Tokens(Net):
    """BatchNorm1d over the tokens, not over the linear layer's outputs, of which there are as many."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(36, C), nn.BatchNorm1d(C)

    def features(self, x):
        return self.norm(self.layer(x.flatten(2)))[..., None]


class Alone(nn.Module):
    """Logits from BatchNorm1d behind a linear layer."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(C * 36, 5), nn.BatchNorm1d(5)

    def forward(self, x):
        return self.norm(self.layer(x.flatten(1)))


class Beside(Alone):
    """The BatchNorm's output goes nowhere: the logits are what it reads."""

    def forward(self, x):
        logits = self.layer(x.flatten(1))
        self.norm(logits)
        return logits


FOLDED = {
    "convolution": lambda: Plain(),
    "without_bias": lambda: Plain(conv(bias=False)),
    "without_affine": lambda: Plain(norm=nn.BatchNorm2d(C, affine=False)),
    "strided_grouped": lambda: Plain(conv(groups=2, stride=2)),
    "reflected": lambda: Plain(conv(padding_mode="reflect")),
    "same_padding": lambda: Plain(Conv2dSame(C, C, 3, stride=2)),
    "with_activation": lambda: Plain(norm=BatchNormAct2d(C, act_layer=nn.SiLU)),
    "linear": Alone,
    "eps": lambda: Plain(norm=nn.BatchNorm2d(C, eps=0.1)),
}
LEFT = {  # and how many BatchNorms become a multiplication and an addition
    "activation_between": (ActivationBetween, 1),
    "in_place_between": (InPlaceBetween, 1),
    "skip_between": (SkipBetween, 1),
    "skip_of_a_view": (SkipOfAView, 1),
    "shared_layer": (SharedLayer, 1),
    "shared_norm": (SharedNorm, 1),
    "tied_weight": (TiedWeight, 1),
    "weight_read_elsewhere": (WeightReadElsewhere, 1),
    "statistic_read_elsewhere": (StatisticReadElsewhere, 0),
    "slice": (Between, 1),
    "tokens": (Tokens, 1),
    "beside": (Beside, 1),
    "standardised_weights": (lambda: Plain(StdConv2d(C, C, 3, padding=1)), 1),
    "weight_norm": (lambda: Plain(weight_norm(conv())), 1),
    "batch_statistics": (lambda: Plain(norm=nn.BatchNorm2d(C, track_running_stats=False)), 0),
    "instance_norm": (lambda: Plain(norm=nn.InstanceNorm2d(C, affine=True, track_running_stats=True)), 0),
}


def affines(view):
    return [module for module in view.modules() if isinstance(module, Affine)]


def assert_same_function(network, view, x):
    """Logits and gradients, in fp64: a wrong fold is far off, rounding is not."""
    network.eval()
    weights = torch.randn(len(x), network(x).shape[1], dtype=x.dtype)
    results = []
    for function in (network, view):
        leaf = x.clone().requires_grad_()
        logits = function(leaf)
        results.append((logits, torch.autograd.grad((logits * weights).sum(), leaf)[0]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FOLDED)
def test_folded(name):
    torch.manual_seed(2)
    network = stir(FOLDED[name]()).double()
    x = torch.rand(3, C, 6, 6, dtype=torch.float64)
    view = attack_view(network)
    assert_same_function(network, view, x)
    assert view.folded == 1
    assert not [m for m in view.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("name", LEFT)
def test_left_alone(name):
    torch.manual_seed(2)
    kind, multiplied = LEFT[name]
    network = stir(kind()).double()
    x = torch.rand(3, C, 6, 6, dtype=torch.float64)
    view = attack_view(network)
    assert_same_function(network, view, x)
    assert view.folded == 0
    assert len(affines(view)) == multiplied


def test_two_of_three_are_folded():
    torch.manual_seed(2)
    network = stir(
        nn.Sequential(
            *(conv(), nn.BatchNorm2d(C), nn.ReLU(inplace=True), nn.BatchNorm2d(C), conv(), nn.BatchNorm2d(C)),
            *(nn.Flatten(), nn.Linear(36 * C, 3)),
        )
    ).double()
    view = attack_view(network)
    assert_same_function(network, view, torch.rand(2, C, 6, 6, dtype=torch.float64))
    assert (view.folded, len(affines(view))) == (2, 1)


@pytest.mark.parametrize("affine", [True, False])
def test_weights_are_those_that_torch_fuses(affine):
    layer, norm = conv(), stir(nn.BatchNorm2d(C, affine=affine))
    fused = fuse_conv_bn_eval(layer.eval(), norm.eval())
    for ours, torchs in zip(folded_weights(layer, norm), (fused.weight, fused.bias), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-6)


def test_a_lone_batchnorm_keeps_no_features():
    norm = stir(nn.BatchNorm2d(C)).eval().requires_grad_(False)
    sizes = {}
    for name, module in {"batchnorm": norm, "affine": Affine(C, torch.empty(()))}.items():
        kept = []
        x = torch.rand(2, C, 8, 8, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()), lambda _: None):
            module(x)
        sizes[name] = sum(kept)
    assert sizes["batchnorm"] > 2 * C * 64 - 1
    assert sizes["affine"] <= 2 * C


def test_a_lone_batchnorm_rounds_its_result_only():
    """Of bf16 features, too, whose mean is far from zero: what is added nearly cancels what is multiplied."""
    norm = stir(nn.BatchNorm2d(C)).eval()
    norm.running_mean.fill_(6)
    affine = Affine(C, torch.empty(()))
    for own, value in zip((affine.scale, affine.shift), scale_and_shift(norm), strict=True):
        own.copy_(value.detach())
    x = (6 + torch.randn(8, C, 5, 5)).bfloat16()
    exact = copy.deepcopy(norm).double()(x.double())
    assert affine(x).dtype == torch.bfloat16
    torch.testing.assert_close(affine(x).double(), exact, rtol=2**-8, atol=1e-5)


def test_nothing_is_left_on_the_network_that_was_looked_at():
    network = Plain().eval()
    before = [dict(vars(module)) for module in network.modules()]
    find_foldable(network, torch.rand(2, C, 6, 6))
    assert [dict(vars(module)) for module in network.modules()] == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
