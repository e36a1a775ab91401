import copy

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision import models

from lightning_adv.nn.backbones import create_backbone
from lightning_adv.nn.batchnorm import convert_batchnorm
from lightning_adv.nn.blocks import Block, choose_blocks, freeze_except, reinitialize, split_blocks
from tests.nn.slow import slow_but


def _build(name):
    """Build a network from 'library/name', small where the library has a size to set."""
    torch.manual_seed(0)
    library, _, rest = name.partition("/")
    options = {
        "timm/swin_tiny_patch4_window7_224": {"img_size": 64, "window_size": 4, "embed_dim": 24},
        "timm/vit_tiny_patch16_224": {"img_size": 32, "embed_dim": 48},
        "ours/wide_resnet28_10": {"depth": 10, "widen_factor": 1},
        "ours/preact_resnet18": {"channels": (4, 8, 16, 32)},
    }.get(name, {})
    if library == "ours":
        return create_backbone(rest, 10, in_channels=1 if rest == "small_cnn" else 3, options=options).network
    if library == "timm":
        return timm.create_model(rest, num_classes=10, **options)
    return models.get_model(rest, num_classes=10)


SIZES = {
    "ours/small_cnn": (1, 8, 8),
    "timm/swin_tiny_patch4_window7_224": (3, 64, 64),
    "torchvision/swin_t": (3, 64, 64),
    "torchvision/vit_b_32": (3, 224, 224),
}


def _split(name, unit="block"):
    network = _build(name)
    return network, split_blocks(network, SIZES.get(name, (3, 32, 32)), unit=unit)


def _layer_by_layer(*ends):
    """Names of VGG's blocks of features: each ends right before a max-pool; the last one takes in its own."""
    starts = [0, *ends[:-1]]
    return [tuple(f"features.{i}" for i in range(*pair)) for pair in zip(starts, ends, strict=True)]


STAGES = [("layer2",), ("layer3",), ("layer4",)]
TIMM_RESNET = [("conv1", "bn1", "act1"), ("maxpool", "layer1"), *STAGES, ("global_pool", "fc")]
TORCHVISION_RESNET = [("conv1", "bn1", "relu"), ("maxpool", "layer1"), *STAGES, ("avgpool", "fc")]
VGG11 = _layer_by_layer(3, 7, 14, 21, 29)  # max-pools are layers 3, 7, 14, 21 and 28


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("timm/resnet18", TIMM_RESNET),
        ("torchvision/resnet18", TORCHVISION_RESNET),
        pytest.param("timm/vgg11_bn", [*VGG11, ("pre_logits", "head")], marks=pytest.mark.slow),
        pytest.param(
            "torchvision/vgg11_bn", [*VGG11[:-1], (*VGG11[-1], "avgpool"), ("classifier",)], marks=pytest.mark.slow
        ),
    ],
)
def test_the_papers_six_modules(name, expected):
    _, blocks = _split(name)
    assert [block.modules for block in blocks] == expected
    assert [block.name for block in blocks] == ["m0", "m1", "m2", "m3", "m4", "m5"]
    assert not any(block.parameters for block in blocks)


def test_a_resnet_on_images_that_its_stem_shrinks_to_one_pixel():
    blocks = split_blocks(timm.create_model("resnet18"), (3, 8, 8))
    assert [block.modules for block in blocks] == TIMM_RESNET


@pytest.mark.parametrize("image_size", [8, 32])
def test_a_cifar_stem_is_still_the_first_of_six(image_size):
    network = create_backbone("resnet18", 10, stem="cifar")
    blocks = split_blocks(network, (3, image_size, image_size))
    expected = [("conv1", "bn1", "act1", "maxpool"), ("layer1",), *STAGES, ("global_pool", "fc")]
    assert [block.modules for block in blocks] == [tuple(f"network.{path}" for path in part) for part in expected]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ours/preact_resnet18", [("conv1",), ("layer1",), *STAGES[:2], ("layer4", "bn", "relu"), ("pool", "linear")]),
        ("ours/wide_resnet28_10", [("conv1",), ("block1",), ("block2",), ("block3", "bn1", "relu"), ("pool", "fc")]),
        ("ours/small_cnn", [("layer1",), ("layer2", "layer3"), ("layer4",), ("pool", "fc")]),
        (
            "torchvision/mobilenet_v2",
            [tuple(f"features.{i}" for i in range(*ends)) for ends in ((0, 2), (2, 4), (4, 7), (7, 14), (14, 19))]
            + [("classifier",)],
        ),
        (
            "torchvision/densenet121",
            [("features.conv0", "features.norm0", "features.relu0")]
            + [
                tuple(f"features.{path}" for path in (first, f"denseblock{i}", *last))
                for i, first, last in (
                    (1, "pool0", ("transition1.norm", "transition1.relu", "transition1.conv")),
                    (2, "transition1.pool", ("transition2.norm", "transition2.relu", "transition2.conv")),
                    (3, "transition2.pool", ("transition3.norm", "transition3.relu", "transition3.conv")),
                    (4, "transition3.pool", ("norm5",)),
                )
            ]
            + [("classifier",)],
        ),
        (
            "torchvision/swin_t",
            [tuple(f"features.{i}" for i in (2 * stage, 2 * stage + 1)) for stage in range(3)]
            + [("features.6", "features.7", "norm", "permute"), ("avgpool", "flatten", "head")],
        ),
        ("torchvision/vit_b_32", [("conv_proj",), ("encoder",), ("heads",)]),
        (
            "timm/vit_tiny_patch16_224",
            [
                ("patch_embed", "pos_drop", "patch_drop", "norm_pre"),
                *((f"blocks.{i}",) for i in range(11)),
                ("blocks.11", "norm", "fc_norm", "head_drop"),
                ("head",),
            ],
        ),
    ],
)
def test_the_blocks_of_other_networks(name, expected):
    _, blocks = _split(name)
    assert [block.modules for block in blocks] == expected


TIMMS = ["resnet50", "efficientnet_b0", "densenet121", "mobilenetv3_small_050", "regnety_002", "convnext_atto"]
TIMMS += ["swin_tiny_patch4_window7_224", "resnetv2_50", "nf_resnet26"]


@pytest.mark.parametrize("name", slow_but(TIMMS, "mobilenetv3_small_050"))
def test_blocks_end_where_timm_says_that_the_resolution_does(name):
    network, blocks = _split(f"timm/{name}")
    info = network.feature_info
    last_modules = [feature["module"] for feature in (info if isinstance(info, list) else info.info)]
    within = [
        [path for path in block.modules if (feature + ".").startswith(path + ".")]
        for block, feature in zip(blocks, last_modules, strict=False)
    ]
    assert all(len(paths) == 1 for paths in within)
    assert len(blocks) == len(last_modules) + 1  # and the head


PARTITIONED = [
    *(f"timm/{name}" for name in ("resnet18", "efficientnet_b0", "densenet121", "mobilenetv3_small_050")),
    *(f"timm/{name}" for name in ("regnety_002", "convnext_atto", "swin_tiny_patch4_window7_224")),
    *(f"timm/{name}" for name in ("vit_tiny_patch16_224", "resnet50", "resnetv2_50", "test_resnet")),
    *(f"torchvision/{name}" for name in ("resnet18", "vgg11_bn", "densenet121", "mobilenet_v2", "swin_t")),
    *(f"torchvision/{name}" for name in ("vit_b_32", "squeezenet1_1")),
    *(f"ours/{name}" for name in ("preact_resnet18", "wide_resnet28_10", "small_cnn")),
]


@pytest.mark.parametrize("name", slow_but(PARTITIONED, "timm/resnet18", "timm/test_resnet", "ours/small_cnn"))
def test_every_parameter_and_batchnorm_belongs_to_one_block(name):
    network, blocks = _split(name)
    layers = split_blocks(network, SIZES.get(name, (3, 32, 32)), unit="layer")
    for parts in (blocks, layers):
        assert len({part.name for part in parts}) == len(parts)
        _assert_partition(network, parts)


def _assert_partition(network, blocks):
    for kind, named in (
        ("parameter", [name for name, _ in network.named_parameters()]),
        ("batchnorm", [name for name, module in network.named_modules() if isinstance(module, _BatchNorm)]),
        ("dropout", [n for n, m in network.named_modules() if isinstance(m, (nn.Dropout, DropPath, nn.ReLU))]),
    ):
        for name in named:
            # by the paths alone, not by walking the modules as the package does
            owners = [b.name for b in blocks for path in b.modules if f"{name}.".startswith(f"{path}.")]
            owners += [block.name for block in blocks for path in block.parameters if path == name]
            assert len(owners) == 1, f"{kind} {name} belongs to {owners}"


def test_parameters_of_no_layer():
    _, blocks = _split("timm/vit_tiny_patch16_224")
    assert blocks[0].parameters == ("cls_token", "pos_embed")
    _, layers = _split("timm/convnext_atto", unit="layer")
    held = {block.name: block.parameters for block in layers if block.parameters}
    assert held["stages.0.blocks.0.conv_dw"] == ("stages.0.blocks.0.gamma",)
    assert len(held) == 12


def test_the_layers_of_resnet18():
    _, blocks = _split("torchvision/resnet18", unit="layer")
    assert [block.name for block in blocks] == [
        "conv1",
        "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2",
        "layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0", "layer2.1.conv1", "layer2.1.conv2",
        "layer3.0.conv1", "layer3.0.conv2", "layer3.0.downsample.0", "layer3.1.conv1", "layer3.1.conv2",
        "layer4.0.conv1", "layer4.0.conv2", "layer4.0.downsample.0", "layer4.1.conv1", "layer4.1.conv2",
        "fc",
    ]  # fmt: skip
    assert blocks[0].modules == ("conv1", "bn1", "relu", "maxpool")
    assert blocks[7].modules == ("layer2.0.downsample.0", "layer2.0.downsample.1")


def test_layers_run_in_the_order_of_the_forward_pass():
    _, blocks = _split("ours/preact_resnet18", unit="layer")
    names = [block.name for block in blocks]
    # registered after conv2, but the shortcut runs first; the BatchNorm before a convolution follows the last one
    assert names[5:8] == ["layer2.0.shortcut.0", "layer2.0.conv1", "layer2.0.conv2"]
    assert blocks[0].modules == ("conv1", "layer1.0.bn1", "layer1.0.relu1")


def test_a_normalisation_before_the_first_layer():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    blocks = split_blocks(network, (3, 4, 4), unit="layer")  # takes one size only: it is not traced on larger images
    assert blocks == [Block("1", ("0", "1", "2", "3")), Block("4", ("4",))]


def test_modules_in_lists_and_modules_that_do_not_run():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, stride=2) for _ in range(2))
            self.spare = nn.Linear(2, 2)
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            for conv in self.convs:
                x = conv(x)
            return self.head(x.mean((2, 3)))

    network = Network()
    blocks = split_blocks(network, (3, 32, 32))
    assert [block.modules for block in blocks] == [("convs.0",), ("convs.1", "spare"), ("head",)]
    _assert_partition(network, split_blocks(network, (3, 32, 32), unit="layer"))


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["block", "layer"])
def test_domain_batchnorms_and_replaced_activations(unit):
    network = _build("timm/efficientnet_b0")
    plain = split_blocks(network, (3, 32, 32), unit=unit)
    convert_batchnorm(network)
    assert split_blocks(network, (3, 32, 32), unit=unit) == plain
    network = _build("torchvision/resnet18")
    plain = split_blocks(network, (3, 32, 32), unit=unit)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.ReLU):
            network.set_submodule(name, nn.PReLU())
    blocks = split_blocks(convert_batchnorm(network), (3, 32, 32), unit=unit)
    assert blocks == plain
    _assert_partition(network, blocks)


def test_the_network_is_left_as_it_was():
    network = convert_batchnorm(_build("timm/test_efficientnet")).train()
    network.blocks[0].eval()
    network.conv_stem.weight.requires_grad_(False)
    network.classifier.register_forward_hook(lambda module, inputs, output: None)
    before = copy.deepcopy(network.state_dict())
    flags = [(module.training, list(module._forward_hooks.values())) for module in network.modules()]
    required = [parameter.requires_grad for parameter in network.parameters()]
    random_state = torch.get_rng_state()
    for unit in ("block", "layer"):
        split_blocks(network, (3, 32, 32), unit=unit)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [(module.training, list(module._forward_hooks.values())) for module in network.modules()] == flags
    assert [parameter.requires_grad for parameter in network.parameters()] == required
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(ValueError, match="does not fit"):
        split_blocks(network, (4, 32, 32))
    assert [(module.training, list(module._forward_hooks.values())) for module in network.modules()] == flags


BLOCKS = [Block(f"m{index}", (f"layer{index}",)) for index in range(6)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "m0 m1 m2 m3 m4 m5"),
        ({"cutoff": 2}, "m0 m1"),
        ({"cutoff": 2, "side": "after"}, "m2 m3 m4 m5"),
        ({"cutoff": "m5", "side": "before"}, "m0 m1 m2 m3 m4"),
        ({"cutoff": "m5", "side": "after"}, "m5"),
        ({"names": ["m4", "m0"]}, "m0 m4"),
        ({"names": {"m1"}}, "m1"),
    ],
)
def test_choosing(arguments, expected):
    assert [block.name for block in choose_blocks(BLOCKS, **arguments)] == expected.split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["m1"], "cutoff": 1}, "names .* and cutoff 1 are both given"),
        ({"cutoff": 0}, "cutoff must leave blocks on both sides: a number from 1 to 5 .* got 0"),
        ({"cutoff": "m0"}, "cutoff must leave blocks on both sides: .* got 'm0'"),
        ({"cutoff": "m55"}, r"cutoff must be of m0, m1, m2, m3, m4, m5, got 'm55'\. Did you mean 'm5'\?"),
        ({"names": ["m0", "mm1"]}, r"names must be of m0, .*, got 'mm1'\. Did you mean 'm1'\?"),
        ({"names": []}, "names must hold at least one of m0, m1"),
        ({"cutoff": 2, "side": "behind"}, "side must be 'before' or 'after', got 'behind'"),
        ({"side": "after"}, "side 'after' needs a cutoff"),
    ],
)
def test_bad_choices(arguments, message):
    with pytest.raises(ValueError, match=message):
        choose_blocks(BLOCKS, **arguments)


def _train(network, frozen, image_shape):
    """Three steps of SGD with momentum and weight decay on every parameter there is, in train mode."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    network.train()
    for module in frozen:
        module.eval()
    for seed in range(3):
        x = torch.rand(8, *image_shape, generator=torch.Generator().manual_seed(seed))
        nn.functional.cross_entropy(network(x), torch.arange(8) % 10).backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def _changed(network, before):
    """Names of the state that is no longer the same, bit for bit."""
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize(
    ("name", "image_shape", "unit", "side"),
    [
        ("test_resnet", (3, 32, 32), "block", "before"),
        ("test_efficientnet", (3, 32, 32), "layer", "after"),
        ("preact_resnet18", (3, 16, 16), "block", "after"),
    ],
)
def test_frozen_means_frozen(name, image_shape, unit, side):
    options = {"channels": (4, 8, 16, 32)} if name == "preact_resnet18" else {"drop_rate": 0.5, "drop_path_rate": 0.5}
    network = create_backbone(name, 10, options=options)
    before = copy.deepcopy(network.state_dict())
    # a .grad of earlier training would move parameters that get none any more
    network(torch.rand(2, *image_shape)).sum().backward()
    blocks = split_blocks(network, image_shape, unit=unit)
    chosen = choose_blocks(blocks, cutoff=len(blocks) // 2, side=side)
    network.load_state_dict(before)
    frozen = freeze_except(network, chosen)
    optimizer = _train(network, frozen, image_shape)
    paths = [f"{path}." for block in chosen for path in block.modules]
    expected = {name for name in before if any(name.startswith(path) for path in paths)}
    assert 0 < len(expected) < len(before)
    assert _changed(network, before) == expected
    names = {parameter: name for name, parameter in network.named_parameters()}
    assert {names[parameter] for parameter in optimizer.state} == expected & set(names.values())


def test_all_blocks_chosen_train_as_without_freezing():
    network, other = (create_backbone("test_efficientnet", 10, options={"drop_path_rate": 0.5}) for _ in range(2))
    other.load_state_dict(network.state_dict())
    for unit in ("block", "layer"):
        frozen = freeze_except(network, split_blocks(network, (3, 32, 32), unit=unit))
        assert frozen == [network.normalize]
    torch.manual_seed(0)
    _train(network, frozen, (3, 32, 32))
    torch.manual_seed(0)
    _train(other, [], (3, 32, 32))
    assert not _changed(network, other.state_dict())


@pytest.mark.slow
def test_dropout_belongs_to_its_block():
    network = models.vgg11_bn(num_classes=10)
    blocks = split_blocks(network, (3, 32, 32))
    assert network.classifier[2] in freeze_except(network, blocks[:3])
    network.requires_grad_(True)
    frozen = freeze_except(network, blocks[3:])
    assert network.classifier[2] not in frozen
    assert network.features[1] in frozen
    assert network.features not in frozen


@pytest.mark.slow
def test_loose_parameters_are_frozen_and_trained_with_their_block():
    network = timm.create_model("test_vit", num_classes=10)
    size = network.patch_embed.img_size[0]
    blocks = split_blocks(network, (3, size, size))
    before = copy.deepcopy(network.state_dict())
    changed = []
    for chosen in (blocks[:1], blocks[1:]):
        network.load_state_dict(before)
        network.requires_grad_(True)
        _train(network, freeze_except(network, chosen), (3, size, size))
        changed.append(_changed(network, before))
    assert changed[0] >= {"cls_token", "pos_embed", "patch_embed.proj.weight"}
    assert changed[0] | changed[1] == set(before)
    assert not changed[0] & changed[1]


def test_what_was_frozen_stays_frozen():
    network = _build("timm/test_resnet")
    network.conv1.requires_grad_(False)
    freeze_except(network, split_blocks(network, (3, 32, 32)))
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == [
        f"conv1.{name}" for name, _ in network.conv1.named_parameters()
    ]


@pytest.mark.parametrize("domains", [False, True])
def test_only_batchnorm(domains):
    network = create_backbone("test_efficientnet", 10, options={"drop_rate": 0.5, "drop_path_rate": 0.5})
    blocks = split_blocks(network, (3, 32, 32))
    if domains:
        convert_batchnorm(network)
    before = copy.deepcopy(network.state_dict())
    frozen = freeze_except(network, blocks[1:3], only_batchnorm=True)
    _train(network, frozen, (3, 32, 32))
    inside = tuple(f"{path}." for block in blocks[1:3] for path in block.modules)
    norms = [name for name, module in network.named_modules() if isinstance(module, _BatchNorm)]
    expected = {
        f"{name}.{key}"
        for name in norms
        if name.startswith(inside) and "adversarial" not in name  # these domains got no images
        for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert expected
    assert _changed(network, before) == expected
    stochastic = [m for m in network.modules() if isinstance(m, (nn.Dropout, DropPath))]
    assert all(not module.training for module in stochastic)


def test_only_batchnorm_freezes_dropout_and_loose_parameters():
    class Scaled(nn.Sequential):
        def __init__(self, *layers):
            super().__init__(*layers)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.scale * super().forward(x)

    dropout = nn.Dropout()
    network = Scaled(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), dropout, nn.Flatten(), nn.Linear(16, 10))
    blocks = split_blocks(network, (3, 4, 4), unit="layer")
    assert blocks[0] == Block("0", ("0", "1", "2", "3"), ("scale",))
    assert dropout not in freeze_except(network, blocks[:1])
    assert network.scale.requires_grad
    assert dropout in freeze_except(network, blocks[:1], only_batchnorm=True)
    assert [name for name, p in network.named_parameters() if p.requires_grad] == ["1.weight", "1.bias"]


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["block", "layer"])
def test_reinitialising(unit):
    network, fresh = _build("timm/resnet18"), _build("timm/resnet18")
    for tensor in network.state_dict().values():
        tensor += 1
    before, initial = (copy.deepcopy(n.state_dict()) for n in (network, fresh))
    blocks = split_blocks(network, (3, 32, 32), unit=unit)
    reinitialize(network, fresh, blocks[1:4])
    paths = tuple(f"{path}." for block in blocks[1:4] for path in block.modules)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, initial[name] if name.startswith(paths) else before[name])
    assert network.layer1[0].bn2.weight.abs().max() == 0  # timm's own initialisation; reset_parameters() sets 1
    fresh.layer1[0].conv1.weight.data += 1
    assert not torch.equal(fresh.layer1[0].conv1.weight, network.layer1[0].conv1.weight)


def test_reinitialising_a_network_with_loose_parameters():
    network, fresh = (timm.create_model("test_vit", num_classes=10) for _ in range(2))
    size = network.patch_embed.img_size[0]
    reinitialize(network, fresh, split_blocks(network, (3, size, size)))
    assert not _changed(network, fresh.state_dict())
    assert network.cls_token is not fresh.cls_token


def test_bad_networks_and_blocks():
    network = _build("timm/test_resnet")
    blocks = split_blocks(network, (3, 32, 32))
    with pytest.raises(ValueError, match="unit must be 'block' or 'layer', got 'stage'"):
        split_blocks(network, (3, 32, 32), unit="stage")
    with pytest.raises(ValueError, match=r"image_shape must be three positive numbers \(C, H, W\), got \(32, 32\)"):
        split_blocks(network, (32, 32))
    with pytest.raises(ValueError, match=r"image_shape \(1, 32, 32\) does not fit the network"):
        split_blocks(network, (1, 32, 32))
    with pytest.raises(ValueError, match="network has no convolution or linear layer"):
        split_blocks(nn.Sequential(nn.BatchNorm2d(3)), (3, 32, 32))
    with pytest.raises(ValueError, match="block m9 is not of this network, which has no nowhere"):
        freeze_except(network, [Block("m9", ("nowhere",))])
    with pytest.raises(ValueError, match=r"blocks \['m5'\] hold no BatchNorm parameter"):
        freeze_except(network, blocks[-1:], only_batchnorm=True)
    with pytest.raises(ValueError, match=r"blocks \[\] hold no parameter"):
        freeze_except(network, [])
    assert all(parameter.requires_grad for parameter in network.parameters())
    before, other = copy.deepcopy(network.state_dict()), timm.create_model("test_resnet", num_classes=7)
    with pytest.raises(ValueError, match=r"block m5 differs in head.*|block m5 differs in fc"):
        reinitialize(network, other, blocks)
    assert not _changed(network, before)


def test_parameters_that_blocks_share_belong_to_one():
    """CoaT's blocks share their position encodings; each is in the group that registers it first."""
    network = timm.create_model("coat_tiny", num_classes=3, img_size=64)
    blocks = split_blocks(network, (3, 64, 64))
    owned = [p for block in blocks for path in block.modules for p in network.get_submodule(path).parameters()]
    owned += [network.get_parameter(path) for block in blocks for path in block.parameters]
    assert len(owned) == len({id(parameter) for parameter in owned}) == len(list(network.parameters()))
    assert len(blocks) == 19  # 4 stems, 8 serial and 6 parallel blocks, the head
