"""Domain BatchNorm in the networks of timm and torchvision."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.nn.batchnorm import convert_batchnorm, domain, domain_norms, export_plain
from lightning_adv.nn.weights.domain_states import plain_state_dict
from tests.nn.slow import slow_but


def _timm(name):
    return lambda: timm.create_model(name, num_classes=5)


def _vgg():
    network = torchvision.models.vgg11_bn(init_weights=False)
    network.classifier = nn.Linear(512 * 7 * 7, 5)  # instead of 120 million weights
    return network


NETWORKS = {
    "timm-resnet18": _timm("resnet18"),
    "timm-resnet50": _timm("resnet50"),
    "timm-efficientnet_b0": _timm("efficientnet_b0"),
    "timm-regnety_002": _timm("regnety_002"),
    "torchvision-resnet18": lambda: torchvision.models.resnet18(num_classes=5),
    "torchvision-vgg11_bn": _vgg,
}


@pytest.fixture(scope="module", params=slow_but(NETWORKS, "timm-efficientnet_b0", "torchvision-resnet18"))
def build(request):
    return NETWORKS[request.param]


@pytest.fixture(scope="module")
def trained(build):
    """A plain network in eval mode, with BatchNorms as after training."""
    torch.manual_seed(0)
    network = build().eval()
    _move([module for module in network.modules() if isinstance(module, _BatchNorm)])
    return network


@pytest.fixture(scope="module")
def converted(trained):
    """The same with a second domain that has moved on."""
    network = convert_batchnorm(copy.deepcopy(trained))
    torch.manual_seed(1)
    _move(domain_norms(network, "adversarial"))
    return network


@pytest.fixture(scope="module")
def x():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def _move(norms):
    with torch.no_grad():
        for norm in norms:
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.add_(0.1 * torch.rand_like(tensor))
            norm.num_batches_tracked.add_(1)


@torch.no_grad()
def _logits(network, x):
    return network(x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["main", "adversarial"])
def test_the_exported_network(build, trained, converted, x, name):
    with domain(converted, name):
        expected = _logits(converted, x)
    exported = export_plain(converted, name)
    assert torch.equal(_logits(exported, x), expected)
    assert [type(module) for module in exported.modules()] == [type(module) for module in trained.modules()]
    fresh = build().eval()
    keys = list(fresh.state_dict())
    assert list(exported.state_dict()) == keys
    state = plain_state_dict(converted.state_dict(), name)
    assert list(state) == keys
    fresh.load_state_dict(state, assign=True)
    assert torch.equal(_logits(fresh, x), expected)


@pytest.mark.slow
def test_a_plain_state_dict_goes_to_every_domain(build, trained, x):
    network = convert_batchnorm(build()).eval()
    network.load_state_dict(trained.state_dict())
    expected = _logits(trained, x)
    assert torch.equal(_logits(network, x), expected)
    with domain(network, "adversarial"):
        assert torch.equal(_logits(network, x), expected)


def test_a_network_with_layernorms_needs_no_domains():
    network = timm.create_model("convnext_atto", num_classes=5)
    with pytest.raises(
        ValueError,
        match=r"Networks with LayerNorm or GroupNorm need none: .* MadryTraining with the objective CrossEntropy",
    ):
        convert_batchnorm(network)


@pytest.mark.parametrize("name", ["resnet18", "regnety_002"])
def test_gradient_checkpointing_of_timm(name):
    network = timm.create_model(name, num_classes=5)
    network.set_grad_checkpointing(True)
    with pytest.raises(ValueError, match=r"switch it off \(in timm: set_grad_checkpointing\(False\)\)"):
        convert_batchnorm(network)
    network.set_grad_checkpointing(False)
    convert_batchnorm(network).set_grad_checkpointing(True)
    with domain(network, "adversarial"):
        loss = network(torch.rand(2, 3, 32, 32)).sum()
    with pytest.raises(RuntimeError, match=r"called in a backward pass.*set_grad_checkpointing\(False\)"):
        loss.backward()
