import pytest
import timm
from torch import nn
from torchvision.models import resnet18

from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import InDomain, convert_batchnorm, domain, domain_norms
from lightning_adv.nn.layers import named_batchnorms, named_layers, select_layers


def names_of(network):
    return list(named_layers(network))


def test_names_are_those_of_the_library():
    plain = timm.create_model("resnet18", num_classes=10)
    wrapped = Backbone("resnet18", options={}).build(num_classes=10)
    assert names_of(wrapped) == names_of(plain) == [name for name, _ in plain.named_modules() if name]


def test_names_do_not_depend_on_domains():
    network = resnet18()
    before = names_of(network)
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    convert_batchnorm(network, ["main", "adversarial"])
    assert names_of(network) == before
    for name in ("main", "adversarial"):
        found = named_batchnorms(InDomain(network, name))
        assert list(found) == norms
        assert list(found.values()) == domain_norms(network, name)
    with domain(network, "adversarial"):
        assert list(named_batchnorms(network).values()) == domain_norms(network, "adversarial")


def test_what_is_inside_a_batchnorm_of_timm_is_a_layer():
    network = timm.create_model("efficientnet_b0", num_classes=2)
    assert {"bn1", "bn1.act"} <= set(names_of(network))
    convert_batchnorm(network)
    assert "bn1" in names_of(network)
    assert not [name for name in names_of(network) if "norms" in name]


def test_networks_without_batchnorm():
    with pytest.raises(ValueError, match="a Linear, has no BatchNorm to look at"):
        named_batchnorms(nn.Linear(2, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        ("layer*", ["layer1", "layer2", "layer3", "layer4"]),
        (["layer4", "conv1"], ["conv1", "layer4"]),
        ("layer1.*.bn?", None),
        ("layer1.*.bn1", ["layer1.0.bn1", "layer1.1.bn1"]),
        ("**.bn1", ["layer1.0.bn1", "layer1.1.bn1", "layer2.0.bn1", "layer2.1.bn1", "layer3.0.bn1", "layer3.1.bn1",
                    "layer4.0.bn1", "layer4.1.bn1"]),
        ("layer3.1.**", ["layer3.1.conv1", "layer3.1.bn1", "layer3.1.relu", "layer3.1.conv2", "layer3.1.bn2"]),
        ("conv.", None),
        ([], None),
        (["conv1", "layer5"], None),
    ],
)  # fmt: skip
def test_patterns(patterns, found):
    layers = named_layers(resnet18())
    if found is None:
        with pytest.raises(ValueError, match=r"layers (has the pattern|must have).*There are conv1, bn1, relu"):
            select_layers(layers, patterns, argument="layers")
    else:
        chosen = select_layers(layers, patterns, argument="layers")
        assert list(chosen) == found
        assert all(chosen[name] is layers[name] for name in chosen)


def test_double_star_is_everything():
    layers = named_layers(resnet18())
    assert select_layers(layers, "**", argument="layers") == layers


def test_a_misspelled_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"bn_drift.layers has the pattern 'layr1'.*Did you mean 'layer1'"):
        select_layers(named_layers(resnet18()), "layr1", argument="bn_drift.layers")
