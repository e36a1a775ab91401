"""Published robust networks are attacked, cut into blocks, fine-tuned, retrained, looked at, evaluated and exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from timm.layers import Conv2dSame
from torch import nn

from lightning_adv.attacks import PGD
from lightning_adv.cli import main
from lightning_adv.nn.activations import find_kinks
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import convert_batchnorm, domain
from lightning_adv.nn.blocks import split_blocks
from lightning_adv.nn.normalize import NormalizedNetwork
from lightning_adv.nn.view.attack_view import attack_view
from lightning_adv.nn.view.folding import Affine
from tests.commands.shortened import fit
from tests.data.fake_cifar10 import write_fake_cifar10
from tests.nn.zoo.authors import SMALL, weights_and_logits

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
XCIT = {"depth": 1, "embed_dim": 32, "num_heads": 4}


def _written(entry: str, folder: Path) -> Backbone:
    """Write the authors' weights into a folder, and return the recipe that reads them."""
    state, _ = weights_and_logits(entry, IMAGES)
    file = folder / "weights.pt"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
    return Backbone(f"robustbench/{entry}", options=SMALL[entry][1], checkpoint=str(file))


# How many BatchNorms are folded into the layer before them, and how many become an Affine.
VIEWS = {
    "Carmon2019Unlabeled": (6, 7),
    "Wang2023Better_WRN-70-16": (6, 7),
    "Pang2020Boosting": (6, 7),
    "Ding2020MMA": (6, 7),
    "Rade2021Helper_R18_extra": (8, 9),
    "Andriushchenko2020Understanding": (8, 8),
    "Addepalli2022Efficient_RN18": (21, 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("entry", VIEWS)
def test_attacks_view_it_with_folded_batchnorms_and_the_same_logits(entry, tmp_path):
    network = _written(entry, tmp_path).build(10).eval()
    view = attack_view(network)
    torch.testing.assert_close(view(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-4)
    assert (view.folded, sum(isinstance(module, Affine) for module in view.modules())) == VIEWS[entry]
    y = torch.zeros(4, dtype=torch.long)
    adversarial = PGD(eps=8 / 255, steps=2, step_size=2 / 255)(network, IMAGES, y)
    loss = nn.functional.cross_entropy
    assert loss(network(adversarial), y) > loss(network(IMAGES), y)


BLOCKS = {
    "Wang2023Better_WRN-70-16": [("conv1",), ("block1",), ("block2",), ("block3", "bn1", "relu"), ("pool", "fc")],
    "Ding2020MMA": [("conv1",), ("block1",), ("block2",), ("block3", "bn1", "relu"), ("pool", "fc")],
    "Rade2021Helper_R18_extra": [
        ("conv1",), ("layer1",), ("layer2",), ("layer3",), ("layer4", "bn", "relu"), ("pool", "linear"),
    ],
    "Andriushchenko2020Understanding": [
        ("conv1",), ("layer1",), ("layer2",), ("layer3",), ("layer4", "bn", "relu"), ("pool", "linear"),
    ],
    "Addepalli2022Efficient_RN18": [
        ("conv1", "bn1", "act1", "maxpool"), ("layer1",), ("layer2",), ("layer3",), ("layer4",), ("global_pool", "fc"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("entry", BLOCKS)
def test_it_is_cut_where_the_resolution_changes(entry, tmp_path):
    network = _written(entry, tmp_path).build(10)
    blocks = split_blocks(network, (3, 32, 32))
    assert [block.modules for block in blocks] == [tuple(f"network.{path}" for path in of) for of in BLOCKS[entry]]
    layers = split_blocks(network, (3, 32, 32), unit="layer")
    assert len(layers) == sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in network.modules())


def test_an_xcit_is_cut_into_its_layers():
    network = Backbone("xcit_small_12_p4_32", options={**XCIT, "depth": 3}).build(10)
    parts = [block.modules for block in split_blocks(network, (3, 32, 32))]
    assert len(parts) >= 3
    assert sorted(path for part in parts for path in part) == sorted({path for part in parts for path in part})
    torch.testing.assert_close(attack_view(network.eval())(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_activations_are_smooth_where_the_authors_are(tmp_path):
    smooth = _written("Wang2023Better_WRN-70-16", tmp_path)
    assert find_kinks(smooth.build(10), (3, 32, 32)) == []
    relu = _written("Carmon2019Unlabeled", tmp_path)
    assert len(find_kinks(relu.build(10), (3, 32, 32))) == 13
    trained_smoothly = Backbone(relu.name, options=relu.options, checkpoint=relu.checkpoint, activation="silu")
    assert find_kinks(trained_smoothly.build(10), (3, 32, 32)) == []


def test_padding_of_its_own_stays_in_domains(tmp_path):
    network = _written("Gowal2020Uncovering_70_16", tmp_path).build(10).eval()
    assert sum(isinstance(module, Conv2dSame) for module in network.modules()) == 2
    logits = network(IMAGES)
    convert_batchnorm(network, ("main", "adversarial"))
    for name in ("main", "adversarial"):
        with domain(network, name):
            assert torch.equal(network(IMAGES), logits)


# Commands -----------------------------------------------------------------------------------------------------------

ARGUMENTS = [
    "--trainer.precision=32-true",
    "--data.init_args.root=images",
    "--data.init_args.val_fraction=0.2",
    "--data.init_args.batch_size=8",
    "--data.init_args.evaluation_batch_size=8",
    "--data.init_args.on_device=false",
    "--model.init_args.attack.init_args.steps=1",
]

DATA = ["--data.class_path=CIFAR10DataModule", "--data.init_args={root: images, val_fraction: 0.2}"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_fake_cifar10(tmp_path / "images", monkeypatch, images_per_batch=20)
    return tmp_path


def _given(backbone: Backbone) -> str:
    fields = {"name": backbone.name, "checkpoint": backbone.checkpoint, "options": dict(backbone.options)}
    return f"--model.init_args.backbone={json.dumps(fields)}"


def _network(checkpoint: Path) -> tuple[NormalizedNetwork, dict]:
    content = torch.load(checkpoint, weights_only=True)
    recipe = Backbone(**content["hyper_parameters"]["backbone"])
    network = recipe.build(10).eval()
    prefix = "network."
    state = {key.removeprefix(prefix): v for key, v in content["state_dict"].items() if key.startswith(prefix)}
    network.load_state_dict(state)
    return network, content


@pytest.mark.slow
def test_fine_tuned_observed_resumed_evaluated_exported(home):
    backbone = _written("Wang2023Better_WRN-70-16", home)
    given = [*ARGUMENTS, _given(backbone)]
    run = fit("--config", "analyses", *given, config="cifar10/robustbench")
    assert {path.name for path in (run / "analyses").iterdir()} == {
        "bn_drift.csv", "bn_gap.csv", "smoothness.csv", "local_response.csv",
    }  # fmt: skip
    network, content = _network(run / "checkpoints" / "last.ckpt")
    assert content["hyper_parameters"]["backbone"]["name"] == "wide_resnet"  # built again without file or download
    start = backbone.build(10).eval()
    own, theirs = network.network.conv1.weight, start.network.conv1.weight
    assert 0 < (own - theirs).norm() < 0.2 * theirs.norm()  # it began at the authors' weights
    fit(*given, "--trainer.max_epochs=3", f"--ckpt_path={run}/checkpoints/last.ckpt", config="cifar10/robustbench")
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2
    (home / "weights.pt").unlink()
    main(["export", "--checkpoint", f"{run}/checkpoints/best.ckpt"])
    description = json.loads((run / "export" / "model.json").read_text())
    assert description["architecture"]["activation"] == "silu"
    exported = Backbone("wide_resnet", options=description["architecture"]["options"], activation="silu").build(10)
    exported.network.load_state_dict(load_file(run / "export" / "model.safetensors"))
    main(
        ["evaluate", f"--checkpoint={run}/checkpoints/best.ckpt", "--config", "evaluation/quick",
         *DATA, "--eps.linf=[8/255]", "--images=8", "--accelerator=cpu"]
    )  # fmt: skip


@pytest.mark.slow
def test_blocks_of_one_are_retrained(home):
    backbone = _written("Rade2021Helper_R18_extra", home)
    given = [*ARGUMENTS, _given(backbone), "--model.init_args.cutoff=m2", "--trainer.max_epochs=1"]
    run = fit(*given, config="cifar10/blockwise")
    network, _ = _network(run / "checkpoints" / "last.ckpt")
    start = backbone.build(10).state_dict()
    state = {key: value for key, value in network.state_dict().items() if key.startswith("network.")}
    retrained = {key.split(".")[1] for key, value in state.items() if not torch.equal(value, start[key])}
    assert retrained == {"conv1", "layer1"}


@pytest.mark.slow
def test_a_file_of_the_authors_is_evaluated(home):
    backbone = _written("Addepalli2022Efficient_RN18", home)
    main(
        ["evaluate", f"--checkpoint={backbone.checkpoint}", f"--backbone.name={backbone.name}",
         f"--backbone.options={json.dumps(SMALL['Addepalli2022Efficient_RN18'][1])}", "--config", "evaluation/quick",
         *DATA, "--eps.linf=[8/255]", "--images=8", "--accelerator=cpu", "--output=told"]
    )  # fmt: skip
    told = json.loads(Path("told/evaluation.json").read_text())
    assert "resnet18" in json.dumps(told)
