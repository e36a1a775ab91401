"""``lightning-adv export --format onnx`` and ``torch_export``, on the checkpoint of a run with BatchNorm domains."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torchvision.transforms import functional as transforms

from lightning_adv.cli import main

ROOT = Path(__file__).parents[2]
X = torch.from_numpy(load_digits().images).float()[:, None] / 16


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "tests/fixtures/v0.1.0/advprop", tmp_path / "run", ignore=lambda *_: ["export"])
    return tmp_path / "run" / "checkpoints" / "best.ckpt"


def export(checkpoint, *arguments):
    main(["export", "--checkpoint", str(checkpoint), *arguments])
    return checkpoint.parents[1] / "export"


def plain_logits(folder):
    """Logits of timm's network with the exported weights."""
    told = json.loads((folder / "model.json").read_text())
    network = timm.create_model(told["architecture"]["name"], num_classes=10, **told["architecture"]["options"]).eval()
    network.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.no_grad():
        return network(transforms.normalize(X, told["normalization"]["mean"], told["normalization"]["std"]))


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["main", "adversarial"])
@pytest.mark.parametrize("format", ["torch_export", "onnx"])
def test_logits_of_all_digits_are_those_of_the_plain_network(checkpoint, domain, format, capsys):
    folder = export(checkpoint, "--domain", domain)
    capsys.readouterr()
    export(checkpoint, "--domain", domain, "--format", format)
    file = {"onnx": "model.onnx", "torch_export": "model.pt2"}[format]
    told = capsys.readouterr()
    assert f"export/{file}: images (N, 1, 8, 8) in [0, 1] to 10 logits, through the domain {domain}\n" in told.out
    assert f"BatchNorm domain: {domain}, of main, adversarial" in told.err
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model.json", file}
    wanted = plain_logits(folder)
    if format == "onnx":
        session = onnxruntime.InferenceSession(folder / file)
        torch.testing.assert_close(
            torch.from_numpy(session.run(None, {"images": X.numpy()})[0]), wanted, rtol=0, atol=1e-5
        )
        description = json.loads(session.get_modelmeta().custom_metadata_map["description"])
    else:
        extra = {"model.json": ""}
        with torch.no_grad():
            assert torch.equal(torch.export.load(folder / file, extra_files=extra).module()(X), wanted)
        description = json.loads(extra["model.json"])
    beside = json.loads((folder / "model.json").read_text())
    del beside["sha256"]  # of the other file
    assert description.items() >= beside.items()
    assert description["class_names"] == list("0123456789")
    assert description["domain"] == domain


def test_images_of_another_size(checkpoint):
    folder = export(checkpoint, "--format", "torch_export", "--image_size", "12", "16")
    program = torch.export.load(folder / "model.pt2").module()
    assert program(torch.rand(3, 1, 12, 16)).shape == (3, 10)


def test_mistakes_are_told_in_a_line(checkpoint, tmp_path, capsys):
    content = torch.load(checkpoint, weights_only=True)
    content["regime"]["image_shape"] = None
    torch.save(content, tmp_path / "unsized.ckpt")
    for arguments, status, message in (
        (["--format", "onx"], 2, "--format"),
        (["--image_size", "8", "8"], 1, "--image_size: model.safetensors takes images of any size: leave it out."),
        (["--image_size", "0", "8", "--format", "onnx"], 1, "--image_size must be at least 1, got 0 8."),
        (["--checkpoint", "unsized.ckpt", "--format", "onnx"], 1, "--image_size must be given: unsized.ckpt does not"),
    ):
        with pytest.raises(SystemExit) as caught:
            export(checkpoint, *arguments)
        assert caught.value.code == status
        assert message in capsys.readouterr().err
    assert not (checkpoint.parents[1] / "export").exists()
