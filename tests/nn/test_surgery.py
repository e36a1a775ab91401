"""Networks that keep layers where no surgery sees them: refused by name, before anything is trained on old modules."""

from __future__ import annotations

import copy
import functools

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from lightning_adv.nn.activations import replace_activations
from lightning_adv.nn.batchnorm import convert_batchnorm, export_plain
from lightning_adv.nn.domain_calls import through_domains
from lightning_adv.nn.libraries import use_cifar_stem
from lightning_adv.nn.surgery import hidden_references, put_modules
from lightning_adv.regimes.sync_batchnorm import TimmSyncBatchNorm

GLOBALS: dict[str, nn.Module] = {}


class Net(nn.Module):
    """conv, bn, act: called as ``keep`` says, or by their attributes."""

    def __init__(self, keep=None):
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        if keep is not None:
            keep(self)

    def forward(self, x):
        x = self.conv(x)
        return (self.middle_of(x) if hasattr(self, "middle_of") else self.act(self.bn(x))).mean((2, 3))


class Shared:
    """No module, and it holds modules."""


def in_a_list(net):
    net.middle = [net.bn, net.act]
    net.middle_of = lambda x: functools.reduce(lambda y, layer: layer(y), net.middle, x)


def in_a_dict_of_tuples(net):
    net.middle = {"all": (net.bn, net.act)}
    net.middle_of = lambda x: net.middle["all"][1](net.middle["all"][0](x))


def in_a_closure(net):
    bn, act = net.bn, net.act
    net.middle_of = lambda x: act(bn(x))


def in_a_partial(net):
    def run(bn, x, act):
        return act(bn(x))

    net.middle_of = functools.partial(run, net.bn, act=net.act)


def as_bound_methods(net):
    net.middle = [net.bn.__call__, net.act.__call__]
    net.middle_of = lambda x: functools.reduce(lambda y, call: call(y), net.middle, x)


def in_an_object(net):
    net.middle = Shared()
    net.middle.layers = [net.bn, net.act]
    net.middle_of = lambda x: functools.reduce(lambda y, layer: layer(y), net.middle.layers, x)


def past_registration(net):
    vars(net).update(second=net.bn, third=net.act)
    net.middle_of = lambda x: net.third(net.second(x))


KEPT = [
    in_a_list, in_a_dict_of_tuples, in_a_closure, in_a_partial, as_bound_methods, in_an_object, past_registration,
]  # fmt: skip
SURGERIES = {
    "domain BatchNorms": convert_batchnorm,
    "activation 'silu'": lambda net: replace_activations(net, "silu", image_shape=(1, 8, 8)),
    "synchronised BatchNorms": lambda net: TimmSyncBatchNorm().apply(net),
}


@pytest.mark.parametrize(
    ("keep", "purpose"), [*((keep, "domain BatchNorms") for keep in KEPT), *((in_a_list, each) for each in SURGERIES)]
)
def test_what_is_kept_elsewhere_too_is_refused_and_left_alone(keep, purpose):
    net = Net(keep).eval()
    before = list(net.modules())
    layer = "ReLU act" if "activation" in purpose else "BatchNorm2d bn"
    with pytest.raises(ValueError, match=rf"^Net keeps its {layer} in .*, beside its registered place.*{purpose}"):
        SURGERIES[purpose](net)
    assert list(net.modules()) == before
    assert all(module.training is False for module in before)


@pytest.mark.parametrize("purpose", SURGERIES)
def test_what_only_its_attributes_name_is_replaced(purpose):
    assert [type(module).__name__ for module in SURGERIES[purpose](Net()).children()] != [
        type(module).__name__ for module in Net().children()
    ]


def test_the_network_of_a_list_says_which_place_of_which_module():
    inner = Net(in_a_list)
    with pytest.raises(ValueError, match=r"Net at 1 keeps its BatchNorm2d 1\.bn in middle\[0\]"):
        convert_batchnorm(nn.Sequential(nn.Identity(), inner))


def test_a_batchnorm_that_is_nowhere_registered_is_refused():
    net = Net()
    net.extra = [nn.BatchNorm2d(4)]
    with pytest.raises(ValueError, match=r"keeps its BatchNorm2d in extra\[0\], where it is not registered"):
        convert_batchnorm(net)


def test_the_modules_of_a_class_and_its_closures_are_found():
    relu, norm = nn.ReLU(), nn.BatchNorm2d(4)

    class Closing(nn.Module):
        act = relu

        def forward(self, x):
            return norm(x)

    found = {where: module for _, where, module in hidden_references(Closing())}
    assert found["act"] is relu
    assert found["the closure of forward"] is norm


def test_hooks_and_what_torch_keeps_are_no_second_place():
    net = Net()
    seen = []
    net.bn.register_forward_hook(lambda module, args, output: seen.append(net.bn))
    net.compile(backend="eager")
    assert list(hidden_references(net)) == []
    convert_batchnorm(net)


@pytest.mark.slow
def test_networks_of_the_libraries_hold_nothing_elsewhere():
    for name in ("resnet18", "efficientnet_b0", "densenet121", "regnety_002", "vit_tiny_patch16_224", "convnext_atto"):
        assert list(hidden_references(timm.create_model(name))) == []


def test_a_stem_that_is_called_from_a_list_is_refused():
    net = timm.create_model("resnet18", num_classes=3)
    net.stem = [net.conv1, net.bn1, net.act1, net.maxpool]
    with pytest.raises(ValueError, match=r"ResNet keeps its Conv2d conv1 in stem\[0\].*CIFAR stem"):
        use_cifar_stem(net, "resnet18")


# What only a pass shows ----------------------------------------------------------------------------------------------


def from_globals(net):
    GLOBALS.update(bn=net.bn, act=net.act)
    net.middle_of = _run_globals


def _run_globals(x):
    return GLOBALS["act"](GLOBALS["bn"](x))


def test_a_relu_that_still_runs_after_all_were_replaced_is_refused():
    with pytest.raises(ValueError, match=r"put in the place of every ReLU, but there is .* relu\(\) in Net"):
        replace_activations(Net(from_globals), "silu", image_shape=(1, 8, 8))


def test_a_batchnorm_that_runs_past_its_domain_is_refused():
    x = torch.rand(2, 1, 8, 8)
    net = convert_batchnorm(Net(from_globals)).eval()
    with (
        pytest.raises(ValueError, match="calls the BatchNorm2d bn otherwise than as its registered module"),
        through_domains(net),
    ):
        net(x)
    right = convert_batchnorm(Net()).eval()
    with through_domains(right):
        watched = right(x)
    assert torch.equal(right(x), watched)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in [*net.modules(), *right.modules()])


def test_a_batchnorm_whose_tensors_are_read_says_so():
    class Functional(Net):
        def forward(self, x):
            bn = self.bn
            return F.batch_norm(self.conv(x), bn.running_mean, bn.running_var, bn.weight, bn.bias).mean((2, 3))

    net = convert_batchnorm(Functional())
    with pytest.raises(AttributeError, match=r"no running_mean: the network's code reads .* F\.batch_norm"):
        net(torch.rand(2, 1, 8, 8))
    assert not hasattr(net.bn, "weight")  # what initialises weights by type or attribute passes by


def test_an_exported_copy_shares_nothing_with_its_network():
    net = convert_batchnorm(Net())
    conv = net.conv
    net.convolve = lambda x: conv(x)
    with pytest.raises(ValueError, match="would share the layers in the closure of convolve"):
        export_plain(net)


def test_put_modules_puts_one_in_every_place_of_a_module():
    relu = nn.ReLU()
    net = nn.Sequential(relu, nn.Sequential(relu), nn.Linear(1, 1))
    new = copy.deepcopy(relu)
    put_modules(net, {relu: new})
    assert net[0] is new
    assert net[1][0] is new
    assert put_modules(net, {net: new}) is new
