"""One network, in each of the forms in which it may be handed over."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_adv.cli import main
from lightning_adv.commands.shared.networks import load_network
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import convert_batchnorm, domain
from lightning_adv.regimes import AdvPropTraining, MadryTraining
from tests.commands.shortened import fit

X = torch.linspace(0, 1, 5 * 64).view(5, 1, 8, 8)


@pytest.fixture(scope="module")
def advprop(tmp_path_factory):
    home = tmp_path_factory.mktemp("advprop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        return home / fit(config="digits/advprop") / "checkpoints" / "best.ckpt"


@pytest.mark.slow
def test_a_run_an_export_and_a_plain_file_are_the_same_network(checkpoint, tmp_path):
    regime = MadryTraining.load_from_checkpoint(checkpoint, weights_only=True).eval()
    main(["export", f"--checkpoint={checkpoint}", f"--output={tmp_path}"])
    normalize = regime.network.normalize
    torch.save({"model": regime.network.network.state_dict()}, tmp_path / "foreign.pth")
    pair = {name: tuple(getattr(normalize, name).flatten().tolist()) for name in ("mean", "std")}
    plain = replace(regime.backbone.without_weights(), **pair)
    found = {
        "run": load_network(checkpoint, None, num_classes=10, domain=None),
        "exported": load_network(str(tmp_path / "model.safetensors"), None, num_classes=None, domain=None),
        "foreign": load_network(str(tmp_path / "foreign.pth"), plain, num_classes=10, domain=None),
    }
    for name, loaded in found.items():
        assert not loaded.network.training
        assert torch.allclose(loaded.network(X), regime(X), atol=1e-6), name
        assert (loaded.num_classes, loaded.facts["architecture"]["name"]) == (10, "small_cnn")
    assert found["run"].image_shape == (1, 8, 8)
    assert found["run"].facts["sha256"] == hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    assert found["run"].evaluation_attack["init_args"]["eps"] == found["exported"].evaluation_attack["init_args"]["eps"]
    assert found["foreign"].evaluation_attack is None


@pytest.mark.slow
@pytest.mark.parametrize(("given", "through"), [(None, "main"), ("main", "main"), ("adversarial", "adversarial")])
def test_a_domain_of_a_run(advprop, given, through):
    regime = AdvPropTraining.load_from_checkpoint(advprop, weights_only=True).eval()
    loaded = load_network(str(advprop), None, num_classes=10, domain=given)
    with domain(regime.network, through):
        assert torch.equal(loaded.network(X), regime.network(X))
    assert loaded.facts["domain"] == through


@pytest.mark.slow
def test_a_domain_that_is_not_there(advprop, checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"^domain: .*'auxiliary'; it has main, adversarial: name one"):
        load_network(str(advprop), None, num_classes=10, domain="auxiliary")
    with pytest.raises(ValueError, match=r"has no BatchNorm domains, and .main. was asked for"):
        load_network(checkpoint, None, num_classes=10, domain="main")
    main(["export", f"--checkpoint={advprop}", f"--output={tmp_path}"])
    with pytest.raises(ValueError, match="was exported without other domains than 'main'"):
        load_network(str(tmp_path / "model.safetensors"), None, num_classes=10, domain="adversarial")


def test_of_another_project_the_arguments_are_the_commands_own(tmp_path):
    plain, path = Backbone("small_cnn", in_channels=1), tmp_path / "foreign.pth"
    torch.save(convert_batchnorm(plain.build(10).network).state_dict(), path)
    with pytest.raises(ValueError, match=r"^domain: .* it has main, adversarial: name one of them\.$"):
        load_network(str(path), plain, num_classes=10, domain="auxiliary")
    with pytest.raises(ValueError, match=r"^checkpoint: .* holds the weights of another network"):
        load_network(str(path), replace(plain, name="resnet18"), num_classes=10, domain="main")
    own = replace(plain, checkpoint=str(path), checkpoint_domain="auxiliary")
    with pytest.raises(ValueError, match=r"^backbone\.checkpoint_domain: .* name one of them\.$"):
        load_network(None, own, num_classes=10, domain=None)


@pytest.mark.slow
def test_the_command_finds_in_an_export_what_it_finds_in_the_run(evaluate, checkpoint, tmp_path, capsys):
    ours, _ = evaluate("--images=60")
    main(["export", f"--checkpoint={checkpoint}", f"--output={tmp_path}"])
    exported = ["--checkpoint=model.safetensors", "--data=DigitsDataModule", "--output=exported", "--accelerator=cpu"]
    main(["evaluate", *exported, "--images=60"])
    theirs = json.loads((tmp_path / "exported" / "evaluation.json").read_text())
    assert [threat["all_or_nothing"] for threat in theirs["threat_models"]] == [
        threat["all_or_nothing"] for threat in ours["threat_models"]
    ]
    assert theirs["settings"]["network"]["regime"] == "MadryTraining"


def test_a_domain_without_a_checkpoint_is_not_passed_over():
    """Published weights have no domains, and what was not used must not stand in the result."""
    backbone = Backbone("resnet18", pretrained=True)
    with pytest.raises(ValueError, match="domain is 'adversarial', but there is no checkpoint with BatchNorm domains"):
        load_network(None, backbone, num_classes=10, domain="adversarial")
