"""A network that is written as a program is the network, or is not written."""

from __future__ import annotations

import json
import sys

import onnxruntime
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import nn
from torchvision.transforms import functional as transforms

from lightning_adv.nn import ACTIVATIONS, Backbone, Normalize, NormalizedNetwork, write_program
from lightning_adv.nn.weights import programs
from tests.faults.disk import full_disk
from tests.nn.slow import slow_but

TOLD = {"class_names": ["zero", "éins"], "domain": None, "num_classes": 2}


def photographs(channels, size):
    """Crops of scikit-learn's two photographs."""
    images = torch.stack([torch.from_numpy(image.copy()) for image in load_sample_images().images])
    images = transforms.resize(images.permute(0, 3, 1, 2) / 255, [2 * size, 2 * size], antialias=True)
    return torch.cat(transforms.five_crop(images, size))[:, :channels]


def trained(recipe, x):
    """A network with statistics and weights that are not the initial ones."""
    torch.manual_seed(1)
    network = recipe.build(5).train()
    with torch.no_grad():
        network(x)
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network.eval()


def run(path, x):
    """Run a program without this package; with what its file says of it."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        logits = torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
        return logits, session.get_modelmeta().custom_metadata_map
    extra = {"model.json": ""}
    with torch.no_grad():
        return torch.export.load(path, extra_files=extra).module()(x), extra


NETWORKS = {
    "small_cnn": (Backbone("small_cnn", in_channels=1, mean=(0.3,), std=(0.4,)), 8),
    "resnet18": (Backbone("resnet18", stem="cifar", mean=(0.1, 0.4, 0.7), std=(0.2, 0.5, 0.3)), 32),
    "preact_resnet18": (Backbone("preact_resnet18"), 32),
    "efficientnet_b0": (Backbone("efficientnet_b0"), 64),
    "torchvision/resnet18": (Backbone("torchvision/resnet18"), 64),
    "vit_tiny_patch16_224": (Backbone("vit_tiny_patch16_224"), 224),
    **{name: (Backbone("small_cnn", in_channels=1, activation=name), 8) for name in ACTIVATIONS},
}


@pytest.mark.parametrize("name", slow_but(list(NETWORKS), "small_cnn"))
@pytest.mark.parametrize("format", slow_but(["torch_export", "onnx"], "torch_export"))
def test_logits_of_photographs_are_the_networks(tmp_path, name, format):
    recipe, size = NETWORKS[name]
    x = photographs(recipe.in_channels, size)
    network = trained(recipe, x)
    path = write_program(network, TOLD, tmp_path, format=format, image_shape=x.shape[1:])
    with torch.no_grad():
        wanted = network(x)
        assert (wanted[0] - wanted[1]).abs().max() > 1e-4  # the images tell
        for batch in (x, x[:1], x[3:6]):
            logits, logits_of_network = run(path, batch)[0], network(batch)
            if format == "torch_export":
                assert torch.equal(logits, logits_of_network)
            else:  # another library, which adds in another order
                torch.testing.assert_close(logits, logits_of_network, rtol=0, atol=2e-6 * max(1, float(wanted.max())))


@pytest.mark.parametrize("format", slow_but(["torch_export", "onnx"], "torch_export"))
def test_the_file_says_what_it_is(tmp_path, format):
    network = Backbone("small_cnn", in_channels=1).build(2)
    path = write_program(network, TOLD, tmp_path / "new", format=format, image_shape=(1, 8, 8))
    told = run(path, torch.rand(2, 1, 8, 8))[1]
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    description = json.loads(told["model.json" if format == "torch_export" else "description"])
    assert description.items() >= TOLD.items()
    assert description["image_shape"] == [1, 8, 8]
    assert "in [0, 1]: the normalisation is inside" in description["input"]
    if format == "onnx":
        assert json.loads(told["class_names"]) == TOLD["class_names"]
        assert json.loads(told["image_shape"]) == [1, 8, 8]
        assert json.loads(told["domain"]) is None
        (images,), (logits,) = (
            getattr(onnxruntime.InferenceSession(path), f"get_{side}puts")() for side in ("in", "out")
        )
        assert (images.name, images.shape, logits.name, logits.shape) == (
            "images", ["batch", 1, 8, 8], "logits", ["batch", 2],
        )  # fmt: skip


@pytest.mark.slow
def test_a_program_of_torch_has_the_gradients_of_its_network(tmp_path):
    x = photographs(1, 8).requires_grad_()
    network = trained(Backbone("small_cnn", in_channels=1), x.detach())
    path = write_program(network, {}, tmp_path, format="torch_export", image_shape=(1, 8, 8))
    program = torch.export.load(path).module()
    gradients = [torch.autograd.grad(each(x).logsumexp(1).sum(), x)[0] for each in (program, network)]
    assert torch.equal(*gradients)
    assert gradients[0].any()


class Branches(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class OneByOne(nn.Module):
    def forward(self, x):
        return torch.stack([image.flatten() for image in x])


class Random(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x.flatten(1), 0.5)


def wrapped(network):
    return NormalizedNetwork(Normalize([0.5], [0.5]), network)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Branches(), "data-dependent"),
        (OneByOne(), "(batch|Got: 1 Expected: 2)"),
        (Random(), "of the largest logit away from the network's"),
    ],
)
@pytest.mark.parametrize("format", slow_but(["torch_export", "onnx"], "torch_export"))
def test_a_network_that_cannot_be_written_says_why_in_a_line(tmp_path, network, reason, format, capfd):
    (tmp_path / programs._PROGRAMS[format].file).write_text("before")
    arguments = {"format": format, "image_shape": (1, 2, 2), "overwrite": True}
    with pytest.raises(ValueError, match=f"^The network cannot be written as {format}: .*{reason}.*\\.$") as caught:
        write_program(wrapped(network), {}, tmp_path, **arguments)
    assert "\n" not in str(caught.value)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
    assert capfd.readouterr() == ("", "")


def test_what_was_there_stays(tmp_path):
    arguments = {"format": "torch_export", "image_shape": (1, 2, 2)}
    path = write_program(wrapped(nn.Flatten()), {}, tmp_path, **arguments)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"model.pt2 is there already: choose another folder, or overwrite it"):
        write_program(wrapped(nn.Flatten()), {}, tmp_path, **arguments)
    with full_disk(1000), pytest.raises(ValueError, match=r"model.pt2 cannot be written \(File too large\)"):
        write_program(wrapped(nn.Flatten()), {}, tmp_path, overwrite=True, **arguments)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {path.name: before}


def test_onnx_says_what_it_needs(tmp_path, monkeypatch):
    arguments = {"format": "onnx", "image_shape": (1, 8, 8)}
    monkeypatch.setattr(programs, "_MOST_BYTES", 1000)
    network = Backbone("small_cnn", in_channels=1).build(2)
    with pytest.raises(ValueError, match=r"weights are 0.0 GB, and such a file holds 2 GB; torch_export holds any"):
        write_program(network, {}, tmp_path, **arguments)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"^onnx needs onnxscript: pip install 'lightning-adv\[onnx\]'"):
        write_program(network, {}, tmp_path, **arguments)
    assert not list(tmp_path.iterdir())
