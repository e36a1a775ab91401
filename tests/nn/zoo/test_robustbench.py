"""The networks of RobustBench's CIFAR-10 Linf board: other people's weights compute what they computed there."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.weights.load import load_weights
from lightning_adv.nn.zoo.robustbench import NOT_BUILT, PUBLISHED
from lightning_adv.nn.zoo.wide_resnet import standardize
from tests.nn.zoo.authors import SMALL, weights_and_logits

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def _small(entry: str, file: Path | None, **arguments: object) -> Backbone:
    checkpoint = None if file is None else str(file)
    return Backbone(f"robustbench/{entry}", options=SMALL[entry][1], checkpoint=checkpoint, **arguments)


def _saved(state: dict[str, Tensor], file: Path) -> Path:
    """Save a state dict as most of the authors do."""
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
    return file


@pytest.mark.parametrize("entry", SMALL)
def test_logits_are_those_of_the_authors_network(entry, tmp_path):
    state, logits = weights_and_logits(entry, IMAGES)
    network = _small(entry, _saved(state, tmp_path / "weights.pt")).build(10).eval()
    assert logits.std(0).min() > 1e-3  # images differ in their logits
    torch.testing.assert_close(network(IMAGES), logits, rtol=1e-5, atol=1e-5)
    assert network.new == ()


def test_every_family_is_compared():
    """By what makes the entries different networks: neither their size nor where they lie."""
    sizes = ("depth", "widen_factor")

    def family(entry: str) -> tuple[object, ...]:
        published = PUBLISHED[entry]
        options = {key: value for key, value in published.options.items() if key not in sizes}
        return published.network, str(options), published.normalization, published.activation

    missing = {family(entry): entry for entry in PUBLISHED}
    for entry in SMALL:
        missing.pop(family(entry), None)
    # Wong's is Andriushchenko's with CIFAR-10's normalisation; the XCiTs are timm's, see below
    assert set(missing.values()) == {"Wong2020Fast"} | {f"Debenedetti2022Light_XCiT-{size}12" for size in "SML"}


def test_all_entries_of_the_board_are_told_and_two_in_three_are_built():
    """RobustBench 1.1.1 lists 76 networks; 58 of them is what was asked for."""
    assert len(PUBLISHED) + len(NOT_BUILT) == 76
    assert len(PUBLISHED) >= 58
    assert not PUBLISHED.keys() & NOT_BUILT.keys()


def test_the_table_of_the_page_is_that_of_the_code():
    """benchmarks/robustbench_layouts.py wrote it; it stopped at any difference above the tolerance."""
    told = json.loads((Path(__file__).parents[3] / "docs" / "results" / "robustbench.json").read_text())
    rows = {row[0].strip("`"): row[1:] for row in told["tables"]["entries"]["rows"]}
    assert {name: reason for name, (network, _, reason) in rows.items() if not network} == NOT_BUILT
    assert {name: network.strip("`") for name, (network, *_) in rows.items() if network} == {
        name: published.network for name, published in PUBLISHED.items()
    }
    for name, published in PUBLISHED.items():
        assert all(f"{key} {value}" in rows[name][1] for key, value in published.options.items())
        assert float(rows[name][2]) < told["tolerance"] == 1e-5
    assert told["counts"] == {"entries": 76, "built": len(PUBLISHED)}


@pytest.mark.slow
@pytest.mark.parametrize("entry", PUBLISHED)
def test_each_entry_has_a_network_of_the_size_that_it_is_named_by(entry):
    with torch.device("meta"):
        recipe = Backbone(f"robustbench/{entry}").without_weights()
        network = timm.create_model(recipe.name, num_classes=10, **recipe.options)
    depth, _, width = entry.upper().partition("WRN")[2].strip("-_").replace("-", "_").partition("_")
    if depth.isdigit() and width.isdigit():
        assert (recipe.options["depth"], recipe.options["widen_factor"]) == (int(depth), int(width))
    assert sum(parameter.numel() for parameter in network.parameters()) > 5e6


def test_files_are_read_as_the_authors_saved_them(tmp_path):
    """Andriushchenko and Flammarion keep the last and the best weights, and some of the tensors twice."""
    state, logits = weights_and_logits("Andriushchenko2020Understanding", IMAGES)
    torch.save({"best": {}, "last": state}, tmp_path / "weights.pt")
    network = _small("Andriushchenko2020Understanding", tmp_path / "weights.pt").build(10).eval()
    torch.testing.assert_close(network(IMAGES), logits, rtol=1e-5, atol=1e-5)


def test_a_normalisation_in_the_file_is_taken(tmp_path):
    """RobustBench's own classes keep it as mu and sigma."""
    state, _ = weights_and_logits("Rice2020Overfitting", IMAGES)
    state |= {"mu": torch.full((1, 3, 1, 1), 0.25), "sigma": torch.full((1, 3, 1, 1), 0.5)}
    network = _small("Rice2020Overfitting", _saved(state, tmp_path / "weights.pt")).build(10)
    assert network.normalize.mean.flatten().tolist() == [0.25] * 3
    assert network.normalize.std.flatten().tolist() == [0.5] * 3


def test_a_new_classifier_for_other_classes(tmp_path):
    state, _ = weights_and_logits("Wang2023Better_WRN-70-16", IMAGES)
    network = _small("Wang2023Better_WRN-70-16", _saved(state, tmp_path / "weights.pt")).build(4)
    assert network.new == ("fc.weight", "fc.bias")
    assert torch.equal(network.network.conv1.weight, state["init_conv.weight"])
    assert network(IMAGES).shape == (4, 4)


def test_authors_keys_are_not_renamed_where_the_name_does_not_say_whose_they_are(tmp_path):
    """A wide ResNet with ReLU and symmetric padding would take Wang et al.'s weights and compute something else."""
    state, _ = weights_and_logits("Wang2023Better_WRN-70-16", IMAGES)
    backbone = Backbone("wide_resnet28_10", options=SMALL["Carmon2019Unlabeled"][1])
    with pytest.raises(UsageError, match="holds the weights of another network"):
        load_weights(backbone.build(10), _saved(state, tmp_path / "weights.pt"))


def test_a_saved_network_of_ours_is_loaded_by_the_entry_too(tmp_path):
    state, logits = weights_and_logits("Gowal2020Uncovering_70_16", IMAGES)
    entry = "Gowal2020Uncovering_70_16"
    network = _small(entry, _saved(state, tmp_path / "weights.pt")).build(10)
    torch.save(network.state_dict(), tmp_path / "ours.pt")
    torch.testing.assert_close(_small(entry, tmp_path / "ours.pt").build(10).eval()(IMAGES), logits, rtol=0, atol=1e-5)


def test_recipe_without_weights_is_the_architecture(tmp_path):
    recipe = _small("Wang2023Better_WRN-70-16", tmp_path / "none.pt").without_weights()
    assert recipe == Backbone(
        "wide_resnet",
        options={"depth": 16, "widen_factor": 1, "same_padding": True},
        activation="silu",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2471, 0.2435, 0.2616),
    )
    assert recipe.build(10)(IMAGES).shape == (4, 10)
    assert not recipe.brings_weights
    assert Backbone("robustbench/Standard").brings_weights
    assert Backbone("robustbench/Standard").architecture()["name"] == "wide_resnet"


@pytest.mark.parametrize("name", ["xcit_small_12_p4_32", "xcit_medium_12_p4_32", "xcit_large_12_p4_32"])
def test_xcit_is_timms_with_patches_of_four_pixels(name, tmp_path):
    """Its first two convolutions keep the resolution."""
    options = {"depth": 1, "embed_dim": 32, "num_heads": 4}
    network = Backbone(name, options=options).build(10).network.eval()
    tokens, shape = network.patch_embed(IMAGES)
    assert tokens.shape == (4, 64, 32)
    assert shape == (8, 8)
    other = timm.create_model("xcit_small_12_p16_224", num_classes=10, img_size=32, **options).eval()
    other.load_state_dict(network.state_dict())
    strides = [module.stride for module in network.patch_embed.modules() if isinstance(module, nn.Conv2d)]
    assert strides == [(1, 1), (1, 1), (2, 2), (2, 2)]
    for theirs in [module for module in other.patch_embed.modules() if isinstance(module, nn.Conv2d)][:2]:
        theirs.stride = (1, 1)
    torch.testing.assert_close(network(IMAGES), other(IMAGES))


def test_xcits_weights_under_the_names_of_its_authors(tmp_path):
    """They call the embedding of positions otherwise, and keep query, key and value of class attention as one."""
    options = {"depth": 1, "embed_dim": 32, "num_heads": 4}
    source = Backbone("xcit_small_12_p4_32", options=options).build(10).network.eval()
    state = {key.replace("pos_embed.", "pos_embeder."): value for key, value in source.state_dict().items()}
    for index in range(2):
        for part in ("weight", "bias"):
            attention = f"cls_attn_blocks.{index}.attn"
            three = [state.pop(f"{attention}.{which}.{part}") for which in "qkv"]
            state[f"{attention}.qkv.{part}"] = torch.cat(three)
    file = _saved(state, tmp_path / "xcit.pth.tar")
    network = Backbone("robustbench/Debenedetti2022Light_XCiT-S12", options=options, checkpoint=str(file)).build(10)
    normalized = (IMAGES - network.normalize.mean) / network.normalize.std
    torch.testing.assert_close(network.eval()(IMAGES), source(normalized))


def test_standardised_images_have_mean_0_and_deviation_1_and_a_flat_one_stays_finite():
    images = torch.cat([IMAGES, torch.full((1, 3, 32, 32), 0.3)])
    standard = standardize(images)
    assert standard.mean((1, 2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(standard[:4].std((1, 2, 3)), torch.ones(4))
    assert torch.isfinite(standard).all()


def test_images_of_odd_size_are_padded_as_tensorflow_does():
    """One row on either side then; the authors' own networks in PyTorch do not run on such images."""
    options = {"depth": 10, "widen_factor": 1}
    same, plain = (
        Backbone("wide_resnet", options={**options, "same_padding": same}).build(10).eval() for same in (True, False)
    )
    plain.load_state_dict(same.state_dict())
    # 29, 15 and 8 pixels: the second is of odd size too, so both are padded alike
    torch.testing.assert_close(same(IMAGES[..., :29, :29]), plain(IMAGES[..., :29, :29]))
    assert not torch.allclose(same(IMAGES), plain(IMAGES))


# Fetched ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def drive(monkeypatch, tmp_path):
    """Put a gdown in place that copies a file, and notes the ids."""
    asked = []

    def download(*, id: str, output: str, quiet: bool) -> None:
        asked.append(id)
        state, _ = weights_and_logits("Carmon2019Unlabeled", IMAGES)
        _saved(state, Path(output))

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=download))
    return asked


def test_an_entry_without_a_file_is_downloaded_once(hub, drive):
    _, logits = weights_and_logits("Carmon2019Unlabeled", IMAGES)
    for _ in range(2):
        network = _small("Carmon2019Unlabeled", None).build(10).eval()
        torch.testing.assert_close(network(IMAGES), logits, rtol=1e-5, atol=1e-5)
    assert drive == ["15tUx-gkZMYx7BfEOw1GY5OKC-jECIsPQ"]  # as in robustbench 1.1.1
    assert [file.name for file in hub.rglob("*") if file.is_file()] == ["Carmon2019Unlabeled.pt"]


def test_weights_with_an_address_need_no_other_package(hub, monkeypatch):
    asked = []

    def download(url: str, dst: str, progress: bool) -> None:
        asked.append(url)
        options = {"depth": 1, "embed_dim": 32, "num_heads": 4}
        torch.save(Backbone("xcit_small_12_p4_32", options=options).build(10).network.state_dict(), dst)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    options = {"depth": 1, "embed_dim": 32, "num_heads": 4}
    Backbone("robustbench/Debenedetti2022Light_XCiT-S12", options=options).build(10)
    assert len(asked) == 1
    assert asked[0].endswith("/v1.1/debenedetti2022light-xcit-s-cifar10-linf.pth.tar")


def test_without_gdown_the_error_names_the_extra(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(UsageError, match=r"gdown is needed: pip install 'lightning-adv\[robustbench\]'; or give"):
        _small("Carmon2019Unlabeled", None).build(10)


def test_without_a_network_the_error_says_what_to_do_and_nothing_is_left(hub, monkeypatch):
    def download(**_: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=download))
    with pytest.raises(UsageError, match=r"cannot be downloaded from https://drive\.google.*no route.*as checkpoint"):
        _small("Carmon2019Unlabeled", None).build(10)
    assert not [file for file in hub.rglob("*") if file.is_file()]


# Bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "robustbench/Carmon2019"}, r"Did you mean 'robustbench/Carmon2019Unlabeled'\?"),
        ({"name": "robustbench/Bai2024MixedNUTS"}, "cannot be built here: it is a mixture of two networks"),
        (
            {"name": "robustbench/Wang2023Better_WRN-28-10", "activation": "gelu"},
            "activation: is 'gelu', but the published network",
        ),
        ({"name": "robustbench/Sehwag2021Proxy_R18", "in_channels": 1}, "holds the weights of another network"),
        ({"name": "wide_resnet", "options": {"head": "cosines"}}, "head must be one of linear, cosine, got 'cosines'"),
        ({"name": "wide_resnet", "options": {"channels": [1, 2]}}, "channels must be three positive numbers"),
        ({"name": "preact_resnet18", "options": {"shortcut_kernel": 2}}, "shortcut_kernel must be one of 1, 3, got 2"),
    ],
)
def test_bad_input(arguments, message, tmp_path):
    state, _ = weights_and_logits("Addepalli2022Efficient_RN18", IMAGES)
    file = str(_saved(state, tmp_path / "weights.pt")) if "robustbench" in arguments["name"] else None
    with pytest.raises(UsageError, match=message):
        Backbone(**arguments, checkpoint=file).build(10)


def test_nothing_in_a_weights_file_is_run(tmp_path):
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": {}, "more": Trap()}, tmp_path / "weights.pt")
    with pytest.raises(UsageError, match="cannot be read as weights"):
        _small("Carmon2019Unlabeled", tmp_path / "weights.pt").build(10)
    assert not (tmp_path / "ran").exists()
