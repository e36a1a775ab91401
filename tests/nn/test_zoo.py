from __future__ import annotations

import re

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, create_conv2d
from timm.models.resnetv2 import ResNetV2
from torch import nn

from lightning_adv.nn.backbones import Backbone, create_backbone
from lightning_adv.nn.weights.load import load_weights
from lightning_adv.nn.zoo.preact_resnet import PreActResNet
from lightning_adv.nn.zoo.small_cnn import SmallCNN
from lightning_adv.nn.zoo.wide_resnet import WideResNet

# as published: kuangliu/pytorch-cifar's PreActResNet-18 with the last BatchNorm, and RobustBench's WideResNets
PARAMETERS = {"preact_resnet18": 11_172_170, "wide_resnet28_10": 36_479_194, "wide_resnet34_10": 46_160_474}


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_parameter_count_is_the_published_one(name, parameters):
    with torch.device("meta"):
        network = timm.create_model(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


# Keys and shapes of checkpoints in the wild: locuslab/robust_overfitting and yaodongyu/TRADES.
FOREIGN_KEYS = {
    "preact_resnet18": {
        "conv1.weight": (64, 3, 3, 3),
        "layer1.0.bn1.running_mean": (64,),
        "layer1.1.conv2.weight": (64, 64, 3, 3),
        "layer2.0.shortcut.0.weight": (128, 64, 1, 1),
        "layer4.1.bn2.num_batches_tracked": (),
        "bn.weight": (512,),
        "linear.weight": (10, 512),
    },
    "wide_resnet34_10": {
        "conv1.weight": (16, 3, 3, 3),
        "block1.layer.0.bn1.weight": (16,),
        "block1.layer.0.convShortcut.weight": (160, 16, 1, 1),
        "block2.layer.0.convShortcut.weight": (320, 160, 1, 1),
        "block3.layer.4.conv2.weight": (640, 640, 3, 3),
        "bn1.running_var": (640,),
        "fc.bias": (10,),
    },
}
# counted by hand: stem, blocks and shortcuts; 5 for each BatchNorm; 2 for the classifier
KEY_COUNT = {"preact_resnet18": (1 + 16 + 3) + 5 * (16 + 1) + 2, "wide_resnet34_10": (1 + 30 + 3) + 5 * (30 + 1) + 2}


@pytest.mark.parametrize("name", FOREIGN_KEYS)
def test_state_dict_has_the_keys_of_checkpoints_in_the_wild(name):
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    assert {key: tuple(state[key].shape) for key in FOREIGN_KEYS[name]} == FOREIGN_KEYS[name]
    assert len(state) == KEY_COUNT[name]


def _timms_preactivation_network(network: nn.Module, layers: list[int], channels: list[int], stem: int) -> nn.Module:
    """Build timm's own pre-activation ResNet with the weights of ``network``: an independent implementation."""
    other = ResNetV2(
        layers,
        tuple(channels),
        10,
        stem_chs=stem,
        basic=True,
        bottle_ratio=1.0,
        norm_layer=BatchNormAct2d,
        conv_layer=create_conv2d,
    )
    other.stem = nn.Sequential()
    other.stem.add_module("conv", nn.Conv2d(3, stem, 3, padding=1, bias=False))
    state = {}
    for key, value in network.state_dict().items():
        key = re.sub(r"^conv1\.", "stem.conv.", key)
        key = re.sub(
            r"^(?:layer|block)(\d)\.(?:layer\.)?(\d)\.", lambda m: f"stages.{int(m[1]) - 1}.blocks.{m[2]}.", key
        )
        key = re.sub(r"^bn1?\.", "norm.", key)
        key = re.sub(r"\.bn(\d)\.", r".norm\1.", key)
        key = re.sub(r"shortcut\.0|convShortcut", "downsample.conv", key)
        key = re.sub(r"^(?:linear|fc)\.", "head.fc.", key)
        if key == "head.fc.weight":
            value = value[:, :, None, None]  # timm's is a 1×1 convolution
        state[key] = value
    other.load_state_dict(state)
    return other


def _randomize_batchnorm(network: nn.Module, generator: torch.Generator) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias, module.running_mean):
                tensor.data.normal_(generator=generator)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["preact", "wide"])
def test_forward_equals_timms_preactivation_resnet(kind, training):
    torch.manual_seed(0)
    if kind == "preact":
        network, stem, layers, channels = PreActResNet(channels=(8, 16, 24, 32)), 8, [2, 2, 2, 2], [8, 16, 24, 32]
    else:
        network, stem, layers, channels = WideResNet(depth=16, widen_factor=2), 16, [2, 2, 2], [32, 64, 128]
    _randomize_batchnorm(network, torch.Generator().manual_seed(1))
    other = _timms_preactivation_network(network, layers, channels, stem)
    x = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(network.train(training)(x), other.train(training)(x), rtol=1e-4, atol=1e-4)


def test_wide_resnet_starts_from_he_initialization():
    torch.manual_seed(0)
    network = WideResNet(depth=10, widen_factor=4)
    weight = network.block3.layer[0].conv1.weight  # 256 filters of 3×3: the variance is 2 / (9 · 256)
    assert weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    assert network.fc.bias.abs().max() == 0


def test_wide_resnet_drops_out_in_train_mode_only():
    torch.manual_seed(0)
    network = timm.create_model("wide_resnet28_10", depth=10, widen_factor=1, drop_rate=0.5)
    x = torch.randn(4, 3, 16, 16)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize("depth", [4, 12, 27])
def test_wide_resnet_refuses_other_depths(depth):
    with pytest.raises(ValueError, match=f"depth must be .*, got {depth}"):
        WideResNet(depth=depth)


@pytest.mark.parametrize("size", [8, 11, 28])
def test_small_cnn_takes_images_of_8_to_28_pixels(size):
    network = timm.create_model("small_cnn")
    x = torch.rand(2, 1, size, size)
    assert network(x).shape == (2, 10)
    assert network.forward_features(x).shape == (2, 64, -(-size // 4), -(-size // 4))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 4


def test_small_cnn_width_and_channels():
    # 4 convolutions, 2 values for each BatchNorm channel, the classifier
    expected = 9 * (3 * 8 + 8 * 16 + 16 * 16 + 16 * 32) + 2 * (8 + 16 + 16 + 32) + 33 * 5
    network = timm.create_model("small_cnn", width=8, in_chans=3, num_classes=5)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize(
    "network",
    [PreActResNet(channels=(8, 8, 8, 8)), WideResNet(depth=10, widen_factor=1), SmallCNN(in_chans=3)],
    ids=["preact_resnet", "wide_resnet", "small_cnn"],
)
def test_timms_classifier_protocol(network):
    x = torch.randn(2, 3, 32, 32)
    network.reset_classifier(3)
    assert network.get_classifier().out_features == network.num_classes == 3
    assert network(x).shape == (2, 3)
    network.reset_classifier(0)
    torch.testing.assert_close(network.eval()(x), network.forward_features(x).mean((2, 3)))


@pytest.mark.parametrize("name", ["small_cnn", "preact_resnet18", "wide_resnet28_10"])
def test_there_are_no_pretrained_weights(name):
    options = {"depth": 10, "widen_factor": 1} if name.startswith("wide") else {}
    with pytest.raises(ValueError, match=f"'{name}' with pretrained=True.*No pretrained weights exist"):
        create_backbone(name, 10, pretrained=True, options=options)


def test_the_stage_that_trades_registers_and_never_runs_is_left_out_and_told(tmp_path):
    """TRADES' models/wideresnet.py has ``sub_block1``, built as ``block1`` is."""
    options = {"depth": 10, "widen_factor": 1}
    source = Backbone("wide_resnet34_10", options=options).build(10).network
    state = {f"module.{key}": value for key, value in source.state_dict().items()}
    unused = {key.replace("block1", "sub_block1"): value + 1 for key, value in state.items() if ".block1." in key}
    torch.save(state | unused, tmp_path / "trades.pt")
    built = Backbone("wide_resnet34_10", options=options).build(10)
    report = load_weights(built, tmp_path / "trades.pt")
    assert set(report.left) == set(unused)
    assert "in the file, not used" in str(report)
    assert torch.equal(built.network.block1.layer[0].conv1.weight, source.block1.layer[0].conv1.weight)
    torch.save(state | {"module.block4.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"1 unexpected \(block4\.weight"):
        load_weights(built, tmp_path / "other.pt")
