"""Other widths and depths by ``backbone.options``: with blocks, domains and export."""

import pytest
import timm
import torch
from torch import nn

from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import convert_batchnorm
from lightning_adv.nn.blocks import split_blocks
from lightning_adv.nn.weights.export import export_network


def convolutions(network):
    return sum(isinstance(module, nn.Conv2d) for name, module in network.named_modules() if "downsample" not in name)


@pytest.mark.parametrize(("layers", "depth"), [([3, 4, 6, 3], 50), ([3, 4, 23, 3], 101)])
def test_depth_of_a_bottleneck_resnet(layers, depth):
    """Xie 2020, figure 6.7: the convolutions and the classifier are as many as the name of the network says."""
    network = Backbone("resnet50", options={"layers": layers, "channels": [4, 8, 16, 32]}).build(10)
    assert convolutions(network) + 1 == depth


def test_a_quarter_of_the_width_and_another_depth_in_use():
    recipe = Backbone("preact_resnet18", options={"channels": [16, 32, 64, 128], "layers": [1, 2, 2, 2]})
    assert Backbone.from_config(recipe.to_config()) == recipe
    network = recipe.build(10).eval()
    assert [block.name for block in split_blocks(network.network, (3, 32, 32))] == [f"m{i}" for i in range(6)]
    widths = [stage[0].conv1.out_channels for stage in (network.network.layer1, network.network.layer4)]
    assert [network.network.conv1.out_channels, *widths] == [16, 16, 128]
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        logits = network(x)
        converted = convert_batchnorm(network, ("main", "adversarial"))
        assert torch.equal(converted(x), logits)


def test_export_of_another_depth_is_what_timm_builds_of_the_options():
    options = {"layers": [1, 2, 1, 1], "channels": [4, 8, 16, 32]}
    recipe = Backbone("resnet50", mean=[0.5], std=[0.25], in_channels=1, options=options)
    network = recipe.build(10).eval()
    exported = export_network(network, recipe.architecture(), num_classes=10)
    plain = timm.create_model("resnet50", in_chans=1, num_classes=10, **options).eval()
    plain.load_state_dict(exported.state)
    x = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(plain((x - 0.5) / 0.25), network(x))
