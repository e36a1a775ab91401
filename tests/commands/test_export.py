"""``lightning-adv export`` on the checkpoints of real runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from lightning.pytorch import Trainer
from safetensors.torch import load_file
from torchvision.transforms import functional as transforms

from lightning_adv.attacks import PGD
from lightning_adv.cli import main
from lightning_adv.commands.shared.networks import load_network
from lightning_adv.data import DigitsDataModule
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import domain
from lightning_adv.regimes import AdvPropTraining, MadryTraining
from tests.commands.shortened import fit

X = torch.linspace(0, 1, 3 * 64).view(3, 1, 8, 8)
EMA = "{class_path: lightning.pytorch.callbacks.EMAWeightAveraging, init_args: {decay: 0.9}}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run with averaged weights."""
    home = tmp_path_factory.mktemp("home")
    (home / "ema.yaml").write_text(f"trainer: {{callbacks: [{EMA}]}}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        return home / fit("--config", "ema.yaml")


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of the run, to write in; the working directory is empty."""
    copied = shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return copied


def export(checkpoint, *arguments):
    """Export; return the plain network of timm and the description."""
    main(["export", "--checkpoint", str(checkpoint), *arguments])
    folder = checkpoint.parents[1] / "export" if "--output" not in arguments else Path(arguments[-1])
    description = json.loads((folder / "model.json").read_text())
    name, options = description["architecture"]["name"], description["architecture"]["options"]
    network = timm.create_model(name, num_classes=description["num_classes"], in_chans=1, **options)
    network.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return network.eval(), description


def logits(network, description):
    numbers = description["normalization"]
    with torch.no_grad():
        return network(transforms.normalize(X, numbers["mean"], numbers["std"]))


@pytest.mark.slow
def test_plain_network_has_the_logits_of_the_averaged_weights(run):
    best = run / "checkpoints" / "best.ckpt"
    network, description = export(best)
    regime = MadryTraining.load_from_checkpoint(best, weights_only=True).eval()
    with torch.no_grad():
        assert torch.equal(logits(network, description), regime(X))
    raw = torch.load(best, weights_only=True)["current_model_state"]["network.network.fc.weight"]
    assert not torch.equal(network.fc.weight, raw)


@pytest.mark.slow
def test_description_says_what_it_is_and_how_robust(run):
    description = export(run / "checkpoints" / "best.ckpt")[1]
    results = json.loads((run / "results.json").read_text())
    assert description["architecture"] | {"options": None} == {
        "library": "timm",
        "name": "small_cnn",
        "stem": "default",
        "in_channels": 1,
        "options": None,
        "activation": None,
        "activation_options": {},
    }
    assert description["num_classes"] == 10
    assert description["domain"] is None
    assert description["class_names"] == list("0123456789")
    assert description["regime"] == "MadryTraining"
    assert (description["threat_model"]["norm"], description["threat_model"]["eps"]) == ("Linf", 0.2)
    assert description["training_attack"]["init_args"]["steps"] == 7
    assert description["evaluation_attack"]["init_args"]["steps"] == 2
    for name in ("clean_accuracy", "robust_accuracy", "clean_interval", "robust_interval", "test_images", "dataset"):
        assert description["results"][name] == results[name]
    assert description["versions"]["torch"] == torch.__version__
    assert description["versions"]["timm"] == timm.__version__


def test_results_of_other_weights_are_left_out(run):
    assert export(run / "checkpoints" / "last.ckpt", "--output", "last")[1]["results"] is None
    results = json.loads((run / "results.json").read_text())
    results["checkpoint"]["step"] -= 1  # a resumed run found a better one, and stopped
    (run / "results.json").write_text(json.dumps(results))
    assert export(run / "checkpoints" / "best.ckpt", "--output", "best")[1]["results"] is None
    (run / "results.json").unlink()
    assert export(run / "checkpoints" / "best.ckpt", "--overwrite", "--output", "best")[1]["results"] is None


def test_results_of_a_copied_run_go_along_whatever_the_times_of_its_files(run):
    newer = (run / "results.json").stat().st_mtime + 10
    os.utime(run / "checkpoints" / "best.ckpt", (newer, newer))  # as a copy that does not keep times writes it
    assert export(run / "checkpoints" / "best.ckpt")[1]["results"]["clean_accuracy"] is not None


def test_exported_files_say_the_size_of_images_and_have_the_usual_mode(run):
    assert export(run / "checkpoints" / "best.ckpt")[1]["image_shape"] == [1, 8, 8]
    (run / "usual").touch()
    modes = {path.stat().st_mode for path in (run / "usual", *(run / "export").iterdir())}
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("num_classes", "ten", "has in the field num_classes the text 'ten', where a whole number from 2 on belongs"),
        (
            "normalization",
            {"mean": 0.5, "std": [0.5]},
            "the field normalization.mean 0.5, where a list of numbers",
        ),
    ],
)
def test_a_description_that_was_changed_is_refused_in_a_sentence(run, field, value, sentence):
    export(run / "checkpoints" / "best.ckpt")
    path = run / "export" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=sentence):
        load_network(str(run / "export" / "model.safetensors"), None, num_classes=None, domain=None)


@pytest.mark.slow
def test_exported_network_is_fine_tuned_by_the_command(run, capsys):
    export(run / "checkpoints" / "best.ckpt")
    capsys.readouterr()
    weights = run / "export" / "model.safetensors"
    arguments = [f"--model.init_args.backbone.checkpoint={weights}", "--trainer.max_epochs=1"]
    fit(*arguments)
    assert f"checkpoint: {weights}: 26 of 26 tensors loaded" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "taken"), [([], "adversarial"), (["--domain", "main"], "main")])
def test_domain_is_that_of_the_prediction_or_the_one_asked_for(tmp_path, asked, taken, capsys):
    attack = PGD(eps=0.1, steps=1, step_size=0.1)
    regime = AdvPropTraining(
        Backbone("small_cnn", in_channels=1), attack=attack, evaluation_attack=attack, inference_domain="adversarial"
    )
    trainer = Trainer(
        max_steps=2, limit_val_batches=0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(regime, DigitsDataModule())
    path = tmp_path / "checkpoints" / "best.ckpt"
    trainer.save_checkpoint(path)
    network, description = export(path, *asked)
    for name in ("main", "adversarial"):
        with torch.no_grad(), domain(regime.network.eval(), name):
            assert torch.equal(logits(network, description), regime.network(X)) == (name == taken)
    assert description["domain"] == taken
    assert f"BatchNorm domain: {taken}, of main, adversarial" in capsys.readouterr().err
    code, told = _error(capsys, "--checkpoint", str(path), "--domain", "auxiliary")
    assert code == 1
    assert "no BatchNorm domain 'auxiliary'; it has main, adversarial: name one of them." in told


def _error(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["export", *arguments])
    captured = capsys.readouterr()
    assert captured.out == ""
    return caught.value.code, captured.err


def test_mistakes_are_told_in_a_line(run, tmp_path, capsys):
    best = str(run / "checkpoints" / "best.ckpt")
    torch.save({"state_dict": {"w": torch.zeros(1)}}, tmp_path / "other.ckpt")
    (tmp_path / "garbage.ckpt").write_text("404")
    cases = {
        ("--checkpoint", "absent.ckpt"): (1, "--checkpoint: there is no file absent.ckpt"),
        ("--checkpoint", str(tmp_path / "other.ckpt")): (1, "other.ckpt is not the checkpoint of a run"),
        ("--checkpoint", str(tmp_path / "garbage.ckpt")): (1, "cannot be read as weights"),
        ("--checkpoint", best, "--domain", "main"): (1, "has no BatchNorm domains"),
        (): (2, "--checkpoint"),
        ("--checkpoint", best, "--outpt", "x"): (2, "--outpt"),
        ("--check", best): (2, "--check"),
    }
    for arguments, (status, message) in cases.items():
        code, told = _error(capsys, *arguments)
        assert code == status
        assert message in told
        assert "Traceback" not in told


def test_nothing_is_overwritten_unless_asked(run, capsys):
    best = run / "checkpoints" / "best.ckpt"
    export(best)
    (run / "export" / "model.json").write_text("mine")
    code, told = _error(capsys, "--checkpoint", str(best))
    assert code == 1
    assert "is there already" in told.splitlines()[-1]
    assert (run / "export" / "model.json").read_text() == "mine"
    assert export(best, "--overwrite")[1]["num_classes"] == 10


@pytest.mark.slow
def test_export_needs_no_trainer(run):
    code = f"import sys, lightning_adv.cli; lightning_adv.cli.main(['export', '--checkpoint', {str(run / 'checkpoints' / 'best.ckpt')!r}]); print('lightning' in sys.modules)"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
