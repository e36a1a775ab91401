"""A network that is exported is the one that was trained, to the last bit."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision import models
from torchvision.transforms import functional as transforms

from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import convert_batchnorm, domain
from lightning_adv.nn.weights.export import export_network, read_description, write_network
from tests.faults.disk import full_disk
from tests.nn.slow import slow_but


def _trained(recipe, domains=()):
    """A network with statistics and weights that are not the initial ones, in each domain others."""
    torch.manual_seed(1)
    network = recipe.build(5)
    if domains:
        convert_batchnorm(network, domains)
    for name in domains:
        with domain(network, name):
            network.train()(torch.rand(4, recipe.in_channels, 32, 32))
    if not domains:
        network.train()(torch.rand(4, recipe.in_channels, 32, 32))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network.eval()


def _write(network, recipe, folder, **arguments):
    write_network(export_network(network, recipe.architecture(), 5, **arguments), folder)
    return json.loads((folder / "model.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("resnet18", None),
        ("efficientnet_b0", "main"),
        ("efficientnet_b0", "adversarial"),
        ("torchvision/resnet18", "main"),
    ],
)
def test_plain_network_of_the_library_has_the_same_logits(tmp_path, name, taken):
    recipe = Backbone(name, mean=(0.1, 0.4, 0.7), std=(0.2, 0.5, 0.3))
    network = _trained(recipe, () if taken is None else ("main", "adversarial"))
    description = _write(network, recipe, tmp_path, domain=taken)
    architecture = description["architecture"]
    if architecture["library"] == "timm":
        plain = timm.create_model(architecture["name"], num_classes=description["num_classes"])
    else:
        plain = models.get_model(architecture["name"], num_classes=description["num_classes"])
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    x = torch.rand(3, 3, 48, 48)
    mean, std = description["normalization"]["mean"], description["normalization"]["std"]
    with torch.no_grad():
        logits = plain.eval()(transforms.normalize(x, mean, std))
        if taken is None:
            assert torch.equal(logits, network(x))
        else:
            with domain(network, taken):
                assert torch.equal(logits, network(x))
    assert description["domain"] == taken


@pytest.mark.parametrize("activation", slow_but([None, "silu", "smooth_relu"], "smooth_relu"))
def test_exported_network_comes_back_as_a_checkpoint(tmp_path, activation):
    recipe = Backbone("resnet18", stem="cifar", in_channels=1, mean=(0.3,), std=(0.4,), activation=activation)
    network = _trained(recipe)
    _write(network, recipe, tmp_path)
    fields = {"stem": "cifar", "in_channels": 1, "checkpoint": str(tmp_path / "model.safetensors")}
    loaded = Backbone("resnet18", activation=activation, **fields).build(5).eval()
    x = torch.rand(3, 1, 32, 32)
    assert torch.equal(loaded(x), network(x))  # the normalisation came with the description
    with pytest.raises(ValueError, match=r"was trained with the activation .* and the network's is gelu"):
        Backbone("resnet18", activation="gelu", **fields).build(5)
    with pytest.raises(ValueError, match=r"^mean: is \(0.5,\), but the checkpoint was trained with \[0.3"):
        Backbone("resnet18", activation=activation, mean=(0.5,), **fields).build(5)


RECIPE = Backbone("small_cnn", in_channels=1)


def test_export_leaves_the_network_and_shares_nothing(tmp_path):
    network = convert_batchnorm(RECIPE.build(5))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    exported = export_network(network, RECIPE.architecture(), 5, facts={"regime": "AdvPropTraining"})
    for value in exported.state.values():
        value.zero_()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert exported.description["regime"] == "AdvPropTraining"
    assert exported.description["domain"] == "main"


def test_tied_weights_are_written(tmp_path):
    network = RECIPE.build(5)
    network.network.twin = nn.Linear(2, 2)
    network.network.twin.bias = nn.Parameter(network.network.twin.weight[0].detach())  # one memory
    _write(network, RECIPE, tmp_path)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["twin.bias"], network.network.twin.bias)


def test_files_that_are_there_stay(tmp_path):
    exported = export_network(RECIPE.build(5), RECIPE.architecture(), 5)
    write_network(exported, tmp_path / "new" / "folder")
    before = (tmp_path / "new" / "folder" / "model.safetensors").read_bytes()
    other = export_network(RECIPE.build(5), RECIPE.architecture(), 5)
    with pytest.raises(ValueError, match=r"model.safetensors is there already.*or overwrite it"):
        write_network(other, tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "model.safetensors").read_bytes() == before
    write_network(other, tmp_path / "new" / "folder", overwrite=True)
    assert (tmp_path / "new" / "folder" / "model.safetensors").read_bytes() != before
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["model.json", "model.safetensors"]


def test_folder_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        write_network(export_network(RECIPE.build(5), RECIPE.architecture(), 5), tmp_path / "file" / "folder")


def test_an_export_that_was_killed_between_its_two_files_goes_on(tmp_path):
    exported = export_network(RECIPE.build(5), RECIPE.architecture(), 5)
    write_network(exported, tmp_path)
    told = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").unlink()
    with pytest.raises(ValueError, match="is there already"):
        write_network(export_network(RECIPE.build(5), RECIPE.architecture(), 5), tmp_path)  # other weights
    write_network(exported, tmp_path)
    assert (tmp_path / "model.json").read_text() == told


def test_a_full_disk_leaves_the_export_before(tmp_path):
    write_network(export_network(RECIPE.build(5), RECIPE.architecture(), 5), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = export_network(RECIPE.build(5), RECIPE.architecture(), 5)
    with full_disk(1000), pytest.raises(ValueError, match=r"model.safetensors cannot be written \(File too large\)"):
        write_network(other, tmp_path, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_description_of_other_weights_is_refused(tmp_path):
    for name in ("one", "other"):
        _write(RECIPE.build(5), RECIPE, tmp_path / name)
    (tmp_path / "one" / "model.json").replace(tmp_path / "other" / "model.json")
    with pytest.raises(ValueError, match=r"describes other weights than .*checksums"):
        Backbone("small_cnn", in_channels=1, checkpoint=str(tmp_path / "other" / "model.safetensors")).build(5)


@pytest.mark.parametrize("text", ["[]", '{"format": "pt"}', None])
def test_what_is_no_description_of_ours_is_left_alone(tmp_path, text):
    _write(RECIPE.build(5), RECIPE, tmp_path)
    if text is None:
        (tmp_path / "model.json").unlink()
    else:
        (tmp_path / "model.json").write_text(text)
    assert read_description(tmp_path / "model.safetensors", argument="checkpoint") is None


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"format": 1, "format": 2}', "\x00"])
def test_a_damaged_description_is_refused(tmp_path, text):
    """It may have said how the images are normalised: without it the numbers would be those of another network."""
    _write(RECIPE.build(5), RECIPE, tmp_path)
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match=r"checkpoint: .*model.json, which may say what model.safetensors is, cannot"):
        read_description(tmp_path / "model.safetensors", argument="checkpoint")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("architecture", value) for value in (None, "small_cnn", {}, {"name": 5})),
        *(
            ("normalization", value)
            for value in ([0.5], {"mean": [0.5]}, {"mean": [0.5], "std": ["1"]}, {"mean": [], "std": []})
        ),
        ("sha256", 5),
    ],
)
def test_incomplete_description_is_refused(tmp_path, name, value):
    description = _write(RECIPE.build(5), RECIPE, tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(description | {name: value}))
    with pytest.raises(
        ValueError, match=rf"model\.json (has|lacks) .*the field {name}.* belongs.*Export the network again"
    ):
        read_description(tmp_path / "model.safetensors", argument="checkpoint")
