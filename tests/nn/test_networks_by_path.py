"""Networks by their import path: what they are given, that they are the user's own, and what is told of bad ones."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_adv.core.trust import trust
from lightning_adv.nn import split_blocks
from lightning_adv.nn.backbones import Backbone, create_backbone
from lightning_adv.nn.batchnorm import convert_batchnorm
from lightning_adv.nn.libraries import default_image_shape, find_network
from lightning_adv.regimes.checks import check_shape
from tests.own_parts import NETWORKS, write_module

X = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _own_networks(tmp_path, monkeypatch):
    yield from write_module(tmp_path, "own_networks", NETWORKS, monkeypatch)


def own(name: str = "MyNet", num_classes: int = 5, **kwargs):
    return Backbone(f"own_networks.{name}", in_channels=1, **kwargs).build(num_classes)


def test_a_class_is_built_as_the_user_would_and_normalised_if_asked():
    expected = importlib.import_module("own_networks").MyNet(num_classes=5, in_channels=1, width=6).eval()
    for normalization, images in (({}, X), ({"mean": [0.5], "std": [0.25]}, (X - 0.5) / 0.25)):
        built = own(options={"width": 6}, **normalization).eval()
        built.network.load_state_dict(expected.state_dict())
        assert torch.equal(built(X), expected(images))


def test_keywords_of_any_name_get_the_channels_as_timm_calls_them():
    built = Backbone("own_networks.my_net", options={"width": 6}).build(5).network
    assert (built.stem[0].in_channels, built.stem[0].out_channels, built.head.out_features) == (3, 6, 5)
    with pytest.raises(ValueError, match=r"^options: .* do not fit own_networks\.my_net: .*'in_chans'"):
        own("my_net")


def test_a_network_of_timm_by_its_path_is_normalised_as_by_its_name():
    by_path, by_name = (create_backbone(name, 3) for name in ("timm.models.resnet.resnet10t", "resnet10t"))
    assert by_path.network.state_dict().keys() == by_name.network.state_dict().keys()
    assert torch.equal(by_path.normalize.mean, by_name.normalize.mean)
    assert torch.equal(by_path.normalize.std, by_name.normalize.std)


def test_domains_activations_and_blocks():
    network = own(activation="silu")
    assert [type(module) for module in network.modules() if isinstance(module, (nn.ReLU, nn.SiLU))] == [nn.SiLU] * 2
    convert_batchnorm(network, ["main", "adversarial"])
    assert network(X).shape == (2, 5)
    assert [block.name for block in split_blocks(own(), (1, 32, 32))] == ["m0", "m1", "m2"]


def test_a_size_that_the_network_takes_is_found():
    fixed = importlib.import_module("own_networks").Fixed()
    assert default_image_shape(fixed, "default", 1, {}) == (1, 8, 8)
    fixed.image_size = 8
    assert default_image_shape(fixed, "default", 1, {}) == (1, 8, 8)
    with pytest.raises(ValueError, match="say it as the attribute image_size of the network"):
        default_image_shape(nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), "default", 1, {})


def test_pretrained_is_given_to_what_takes_it():
    assert own("pretrained_net", pretrained=True).network.head.weight.abs().sum() == 0
    assert own("pretrained_net").network.head.weight.abs().sum() > 0
    with pytest.raises(ValueError, match=r"^pretrained: is true, but own_networks\.MyNet takes no pretrained"):
        own(pretrained=True)


def test_a_weights_file_of_another_project_loads_and_its_head_starts_anew(tmp_path):
    theirs = own(num_classes=7)
    torch.save({"model": theirs.network.state_dict()}, tmp_path / "theirs.pt")
    loaded = own(num_classes=7, checkpoint=str(tmp_path / "theirs.pt"))
    assert torch.equal(loaded.eval()(X), theirs.eval()(X))
    assert own(checkpoint=str(tmp_path / "theirs.pt")).new == ("head.weight", "head.bias")


def test_a_recipe_is_what_the_path_says(tmp_path):
    recipe = Backbone("own_networks.MyNet", in_channels=1, options={"width": 6})
    assert recipe.architecture() == {
        "library": "python",
        "name": "own_networks.MyNet",
        "stem": "default",
        "in_channels": 1,
        "options": {"width": 6},
        "activation": None,
        "activation_options": {},
    }
    plain = recipe.to_config()
    for config in (plain, plain["init_args"]):
        with pytest.raises(ValueError, match=r"^backbone\.name 'own_networks\.MyNet' .* --trust own_networks on"):
            Backbone.from_config(config)
    trust("own_networks")
    assert Backbone.from_config(plain) == recipe


def test_names_of_libraries_come_first_and_a_prefix_picks():
    assert find_network("resnet50.a1_in1k") == ("timm", "resnet50.a1_in1k")
    assert find_network("vit_b_16.IMAGENET1K_V1") == ("torchvision", "vit_b_16.IMAGENET1K_V1")
    assert find_network("python/resnet50.Net") == ("python", "resnet50.Net")
    Backbone.from_config({"name": "resnet50.a1_in1k"})  # a name of a library needs no trust


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no_such_package.Net", r"^name: 'no_such_package\.Net' is not a classifier of timm or torchvision, and there"),
        ("own_networks.MyNett", r"^name: there is no 'MyNett' in own_networks\. Did you mean 'MyNet'\?$"),
        ("own_networks.NoNetwork", r"^name: 'own_networks\.NoNetwork' is a class, but not a torch\.nn\.Module: name"),
        ("own_networks.built", r"^name: 'own_networks\.built' is a network, and not what builds one: name a class"),
        ("own_networks.number", r"^name: 'own_networks\.number' is a int: name a class"),
        (
            "own_networks.Lazy",
            r"^name: 'own_networks\.Lazy' has parameters without a size .*\(1\.weight, 1\.bias\)",
        ),
        ("own_networks.seven", r"^name: 'own_networks\.seven' returns a int, and a network is a torch\.nn\.Module"),
    ],
)
def test_what_is_no_network(name, told):
    with pytest.raises(ValueError, match=told):
        Backbone(name).build(5)


@pytest.mark.parametrize("code", ["import torch\nwidth = 1 / 0\n", "import torch\nimport not_there\n"])
def test_the_error_inside_the_users_module_is_shown(code, tmp_path):
    Path("broken.py").write_text(code)
    with pytest.raises(ValueError, match=r"^name: 'broken\.Net' cannot be imported: .*\(.*broken\.py, line 2\)"):
        Backbone("broken.Net").build(5)


def test_a_mistake_in_the_users_constructor_keeps_its_traceback():
    with pytest.raises(AttributeError, match="'Wrong' object has no attribute 'width'"):
        own("Wrong")


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("MyNet", {"widht": 3}, r"options: .* do not fit own_networks\.MyNet: .*'widht'; it takes num_classes, in_cha"),
        ("my_net", {"widht": 3}, r"options: .* do not fit own_networks\.my_net: .*'widht'"),
        ("Plain", {"widht": 3}, r"options: .* do not fit own_networks\.Plain: .*'widht'; it takes no keyword\.$"),
        ("MyNet", {"num_classes": 3}, r"options: cannot hold 'num_classes': Backbone says it itself"),
        ("MyNet", {"in_channels": 3}, r"options: cannot hold 'in_channels': Backbone says it itself"),
    ],
)
def test_options_that_do_not_fit(name, options, told):
    with pytest.raises(ValueError, match=told):
        Backbone(f"own_networks.{name}", options=options).build(5)


def test_a_class_without_a_constructor_is_given_nothing():
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(own("Plain")(x), x.flatten(1)[:, :5])


def test_the_line_of_the_users_own_forward_is_told():
    with pytest.raises(ValueError, match=r"of shape \(1, 8, 8\): a mistake \(.*own_networks\.py, line \d+\)$"):
        check_shape(own("Fails"), "own_networks.Fails", (1, 8, 8), "Images")
    with pytest.raises(ValueError, match=r"of shape \(2, 8, 8\): [^/]*$"):
        check_shape(Backbone("resnet18").build(5), "resnet18", (2, 8, 8), "Images")


def test_the_cifar_stem_is_for_other_networks():
    with pytest.raises(ValueError, match=r"^stem: 'cifar' changes networks of timm and torchvision: let own_networks"):
        own(stem="cifar")
