"""Against the paper's figure 4, loops over pixels, and networks whose layers have names."""

from collections import OrderedDict

import pytest
import timm
import torch
import torchvision
from torch import nn

from lightning_adv.analysis.local_response import compare_responses, local_responses, response_layers
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import convert_batchnorm
from lightning_adv.testing.untouched import Snapshot

PAPER = ["conv1", "layer0", "layer1", "layer2", "layer3", "layer4"]
DISORDERED = torch.tensor([[-1.0, 8, 0], [-8, 8, -2], [-4, 4, -4]]) / 255
CONSISTENT = torch.full((3, 3), 8 / 255)


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def convolution(kernel):
    layer = nn.Conv2d(1, 1, len(kernel), bias=False)
    layer.weight.data = kernel[None, None].clone()
    return layer


# Which layers ---------------------------------------------------------------------------------------------------------


def paths(network, shape):
    names = {module: name.removeprefix("network.") for name, module in network.named_modules()}
    return {name: names[module] for name, module in response_layers(network, shape).items()}


@pytest.mark.slow
def test_the_papers_layers_of_a_resnet():
    layers = {name: name for name in PAPER}
    assert paths(timm.create_model("resnet18"), (3, 64, 64)) == layers | {"layer0": "maxpool"}
    assert paths(torchvision.models.resnet18(), (3, 64, 64)) == layers | {"layer0": "maxpool"}
    # the max-pool of the CIFAR stem does nothing
    assert paths(Backbone("resnet18", stem="cifar").build(10), (3, 32, 32)) == layers | {"layer0": "maxpool"}
    converted = convert_batchnorm(Backbone("torchvision/resnet18").build(10))
    assert paths(converted, (3, 64, 64)) == layers | {"layer0": "maxpool"}


@pytest.mark.slow
def test_feature_maps_have_the_sizes_of_the_papers_footnote():
    network = Backbone("resnet18", stem="cifar").build(10).eval()
    responses = local_responses(network, images(1, 3, 32, 32), response_layers(network, (3, 32, 32)))
    sizes = [(64, 32, 32)] * 3 + [(128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert {name: tuple(found[0].shape[1:]) for name, found in responses.items()} == dict(
        zip(PAPER, sizes, strict=True)
    )


@pytest.mark.slow
def test_layers_of_other_networks():
    # Each stage ends with the ReLU before the next max-pool; layer 1 is entered behind the first of these.
    features = torchvision.models.vgg16_bn().features
    classifier = [nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(512 * 49, 10)]
    vgg = nn.Sequential(features, *classifier)
    ends = {"conv1": 0, "layer0": 6, "layer1": 12, "layer2": 22, "layer3": 32, "layer4": 42}
    assert paths(vgg, (3, 32, 32)) == {name: f"0.{end}" for name, end in ends.items()}
    efficientnet = paths(torchvision.models.efficientnet_b0(), (3, 64, 64))
    assert list(efficientnet.values()) == [f"features.{end}" for end in ("0.0", 1, 2, 3, 5, 8)]
    vit = timm.create_model("vit_tiny_patch16_224", depth=3)
    assert list(paths(vit, (3, 224, 224)).values()) == [
        "patch_embed.proj",
        "patch_embed",
        "blocks.0",
        "blocks.1",
        "norm",
    ]
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match="single block"):
        response_layers(mlp, (1, 8, 8))


# Differences ----------------------------------------------------------------------------------------------------------


def test_names_that_mean_something_else_in_the_network():
    """small_cnn's second stage begins at its layer2 and ends with its layer3: "layer1" would be another module."""
    network = Backbone("small_cnn", in_channels=1).build(10)
    assert paths(network, (1, 8, 8)) == {"conv1": "layer1.0", "m0": "layer1", "m1": "layer3", "m2": "layer4"}
    stem = nn.Sequential(OrderedDict(first=nn.Conv2d(3, 4, 3, padding=1), conv1=nn.Conv2d(4, 4, 3, padding=1)))
    head = {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "head": nn.Linear(4, 2)}
    network = nn.Sequential(OrderedDict(stem=stem, **head))
    assert paths(network, (3, 8, 8)) == {"conv1": "stem.first", "layer0": "stem"}
    network = nn.Sequential(OrderedDict([*stem.named_children(), *head.items()]))
    assert paths(network, (3, 8, 8)) == {"first_conv": "first", "layer0": "conv1"}


@pytest.mark.parametrize(
    ("kernel", "perturbation", "difference"),
    [
        (torch.tensor([[-1.0, -1, -1], [-1, 9, -1], [-1, -1, -1]]), DISORDERED, 79 / 255),
        (torch.tensor([[-1.0, -1, -1], [-1, 9, -1], [-1, -1, -1]]), CONSISTENT, 8 / 255),
        (torch.full((3, 3), 1 / 9), DISORDERED, 1 / 9 / 255),
        (torch.full((3, 3), 1 / 9), CONSISTENT, 8 / 255),
    ],
)
def test_figure_4(kernel, perturbation, difference):
    network = nn.Sequential(convolution(kernel), nn.Flatten())
    x = torch.full((1, 1, 3, 3), 0.5)
    seen = compare_responses(network, x, x + perturbation, {"conv1": network[0]})
    assert seen.maximum["conv1"].item() == pytest.approx(difference, abs=1e-6)
    assert seen.total["conv1"].item() == pytest.approx(difference, abs=1e-6)


def test_differences_are_those_of_loops():
    """Two images, a 2×2 kernel on 4×4 pixels, then a ReLU: each response computed by hand."""
    kernel = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    network = nn.Sequential(convolution(kernel), nn.ReLU(), nn.Flatten(), nn.Linear(9, 2))
    x = images(2, 1, 4, 4) - 0.5
    x_adv = x + 0.1 * (images(2, 1, 4, 4, seed=1) - 0.5)
    seen = compare_responses(network, x, x_adv, {"0": network[0], "1": network[1]})

    def responses(image):
        at = [(i, j) for i in range(3) for j in range(3)]
        return [sum(kernel[a, b] * image[0, i + a, j + b] for a in (0, 1) for b in (0, 1)).item() for i, j in at]

    for number in (0, 1):
        clean, adversarial = responses(x[number]), responses(x_adv[number])
        differences = [abs(a - b) for a, b in zip(clean, adversarial, strict=True)]
        assert seen.maximum["0"][number].item() == pytest.approx(max(differences), rel=1e-4)
        assert seen.total["0"][number].item() == pytest.approx(sum(differences), rel=1e-4)
        rectified = [abs(max(a, 0) - max(b, 0)) for a, b in zip(clean, adversarial, strict=True)]
        assert seen.maximum["1"][number].item() == pytest.approx(max(rectified), rel=1e-4)
        assert seen.total["1"][number].item() == pytest.approx(sum(rectified), rel=1e-4)
        assert sum(rectified) < sum(differences)
    torch.testing.assert_close(seen.clean, network(x))
    torch.testing.assert_close(seen.adversarial, network(x_adv))


@pytest.mark.parametrize("inplace", [False, True])
def test_an_activation_in_place_does_not_change_the_layer_before(inplace):
    network = nn.Sequential(convolution(-torch.ones(1, 1)), nn.ReLU(inplace=inplace), nn.Flatten())
    x = torch.full((1, 1, 2, 2), 0.5)
    seen = compare_responses(network, x, x + 0.25, {"conv": network[0], "relu": network[1]})
    assert (seen.maximum["conv"].item(), seen.total["conv"].item()) == (0.25, 1)
    assert (seen.maximum["relu"].item(), seen.total["relu"].item()) == (0, 0)
    kept = local_responses(network, x, {"conv": network[0]})
    assert torch.equal(kept["conv"][0], -x)


class Cast(nn.Module):
    """Multiplies, in half precision."""

    def __init__(self, factor, dtype):
        super().__init__()
        self.factor, self.dtype = factor, dtype

    def forward(self, x):
        return (self.factor * x).to(self.dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_totals_in_half_precision_neither_overflow_nor_round(dtype):
    """4096 differences of 257 and 258: 1,054,720 each, beyond fp16; bf16 would round."""
    network = nn.Sequential(Cast(256, dtype), nn.Flatten())
    x = torch.zeros(1, 1, 64, 64)
    x_adv = torch.ones(1, 1, 64, 64)
    x_adv[..., ::2] += 1 / 128
    seen = compare_responses(network, x, x_adv, {"cast": network[0]})
    assert seen.total["cast"].dtype == torch.float32
    assert seen.maximum["cast"].item() == 258
    assert seen.total["cast"].item() == 2048 * (256 + 258)


def test_a_difference_that_half_precision_does_not_have():
    """60000 and -60000 are numbers in fp16, their difference is none."""
    network = nn.Sequential(Cast(60000, torch.float16), nn.Flatten())
    x = torch.ones(1, 1, 1, 1)
    assert compare_responses(network, -x, x, {"cast": network[0]}).maximum["cast"].item() == 120000


class Twice(nn.Module):
    """Runs one layer twice, and another never."""

    def __init__(self):
        super().__init__()
        self.layer, self.other = nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 1)
        self.pair, self.fold = Pair(), Fold()
        self.layer.weight.data.fill_(3.0)

    def forward(self, x):
        return self.fold(self.pair(self.layer(self.layer(x)))[0])[: len(x)].flatten(1)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Fold(nn.Module):
    def forward(self, x):
        return torch.cat([x, x])


def test_a_layer_that_runs_twice_counts_both_runs():
    network = Twice()
    x = torch.zeros(2, 1, 2, 2)
    x_adv = x.clone()
    x_adv[1] = 0.5
    seen = compare_responses(network, x, x_adv, {"layer": network.layer})
    assert seen.maximum["layer"].tolist() == [0, 4.5]
    assert seen.total["layer"].tolist() == [0, 4 * (1.5 + 4.5)]
    assert [tuple(run.shape) for run in local_responses(network, x, {"layer": network.layer})["layer"]] == [
        (2, 1, 2, 2)
    ] * 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other", "layer other does not run in a forward pass"),
        ("pair", r"layer pair must give out one tensor \(N, ...\) with the responses to 2 images, got a tuple\."),
        ("fold", r"layer fold must give out one tensor .* to 2 images, got shape \(4, 1, 2, 2\)\."),
    ],
)
def test_layers_without_one_response(name, message):
    network = Twice().train()
    x = torch.zeros(2, 1, 2, 2)
    with pytest.raises(ValueError, match=message):
        compare_responses(network, x, x, {name: network.get_submodule(name), "layer": network.layer})
    assert all(not module._forward_hooks for module in network.modules())
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


class Data(nn.Module):
    """Runs its layer once more for bright images."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x):
        x = self.layer(x)
        return (self.layer(x) if x.mean() > 0.5 else x).flatten(1)


def test_a_layer_that_runs_for_one_kind_of_image():
    network, x = Data(), torch.zeros(2, 1, 2, 2)
    for clean, adversarial, more in ((x, x + 1, "adversarial examples than"), (x + 1, x, "clean images than")):
        with pytest.raises(ValueError, match=f"layer layer runs more often for {more}"):
            compare_responses(network, clean, adversarial, {"layer": network.layer})


def test_the_network_is_left_as_it_was():
    network = Backbone("small_cnn", in_channels=1, options={"width": 4}).build(2).train()
    next(network.children()).eval()
    next(network.parameters()).requires_grad_(False)
    before, random = Snapshot(network), torch.get_rng_state()
    layers = response_layers(network, (1, 8, 8))
    with torch.inference_mode():
        seen = compare_responses(network, images(4, 1, 8, 8), images(4, 1, 8, 8, seed=1), layers)
    assert before.difference() is None
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks for module in network.modules())
    assert not any(tensor.requires_grad for tensor in (*seen.maximum.values(), seen.clean))
    assert list(seen.maximum) == list(seen.total) == list(layers)


@pytest.mark.slow
def test_stages_that_give_out_a_list_end_with_the_last_module_that_gives_one_tensor():
    network = timm.create_model("hrnet_w18_small", num_classes=3)
    layers = response_layers(network, (3, 32, 32))
    names = {module: name for name, module in network.named_modules()}
    assert names[layers["m3"]] == "stage2.0.fuse_act"
    x = torch.rand(2, 3, 32, 32)
    assert compare_responses(network, x, 1 - x, layers).maximum.keys() == layers.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "stem", "side"), [("torchvision", "default", 8), ("timm", "default", 8), ("timm", "cifar", 32)]
)
def test_layer0_is_what_enters_layer_1(library, stem, side):
    """In the stem of an ImageNet network that is behind its pooling; the dissected ResNet-18 has none."""
    name = "torchvision/resnet18" if library == "torchvision" else "resnet18"
    network = Backbone(name, stem=stem).build(3).eval()
    x, entered = images(2, 3, 32, 32), []
    layer1 = dict(network.named_modules())["network.layer1"]
    layer1.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0].clone()))
    found = {"layer0": response_layers(network, (3, 32, 32))["layer0"]}
    (response,) = local_responses(network, x, found)["layer0"]
    assert response.shape == (2, 64, side, side)
    assert torch.equal(response, entered[-1])
