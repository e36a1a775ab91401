"""A regime of six lines, and an attack, in folders of their own: they keep the promises, and commands take them."""

import importlib
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from lightning_adv.testing import check_attack, check_regime
from tests.commands.shortened import SHORT
from tests.regimes.toy import ATTACK, BACKBONE

SIX_LINES = """
from lightning_adv.attacks import PGD
from lightning_adv.regimes import Regime
class MyRegime(Regime):
    def loss(self, x, y):
        x_adv = self.attacked(PGD(eps=0.1, steps=2, step_size=0.05), x, y)
        return self.criterion(self(x), y) + self.criterion(self(x_adv), y)
"""

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("lightning-adv")


def run_in(folder: Path, *arguments: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.mark.slow
def test_six_lines_keep_the_promises(tmp_path, monkeypatch):
    (tmp_path / "six_lines.py").write_text(SIX_LINES)
    monkeypatch.syspath_prepend(tmp_path)
    kind = importlib.import_module("six_lines").MyRegime
    check_regime(kind(BACKBONE, num_classes=2, evaluation_attack=ATTACK))


@pytest.mark.slow
def test_six_lines_run_from_the_command_line(tmp_path):
    """In the folder of the file, which the command finds there."""
    (tmp_path / "my_regimes.py").write_text(SIX_LINES)

    run = partial(run_in, tmp_path)
    run("fit", "--config=digits/standard", "--model=my_regimes.MyRegime", *SHORT)
    folder = tmp_path / "runs/digits-standard/version_0"
    best = folder / "checkpoints/best.ckpt"
    kept = torch.load(best, weights_only=True)
    assert kept["regime"]["class_path"] == "my_regimes.MyRegime"
    assert json.loads((folder / "results.json").read_text())["regime"] == "MyRegime"
    several = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.precision=bf16-mixed"]
    run("fit", f"--config={folder}/config.yaml", *several, "--trainer.accumulate_grad_batches=2")
    assert json.loads((folder.with_name("version_1") / "results.json").read_text())["processes"] == 2
    run("test", f"--config={folder}/config.yaml", f"--ckpt_path={best}", *SHORT)
    evaluation = ["--attacks=[FGSM]", "--eps.linf=[0.1]", "--images=8", "--output=out", "--accelerator=cpu"]
    run("evaluate", f"--checkpoint={best}", *evaluation, "--suspicion_images=0")
    assert (tmp_path / "out/evaluation.json").is_file()


FOUR_LINES = """
import torch
from lightning_adv.attacks import Attack
class MyFGSM(Attack):
    norm = "linf"
    def __init__(self, eps: float = 0.1) -> None:
        self.eps = eps
    def perturb(self, forward, x, y, generator):
        loss = torch.nn.functional.cross_entropy(forward(x.requires_grad_()), y)
        return x + self.eps * torch.autograd.grad(loss, x)[0].sign()
"""


@pytest.mark.slow
def test_four_lines_of_an_attack_keep_the_promises(tmp_path, monkeypatch):
    (tmp_path / "four_lines.py").write_text(FOUR_LINES)
    monkeypatch.syspath_prepend(tmp_path)
    check_attack(importlib.import_module("four_lines").MyFGSM())


@pytest.mark.slow
def test_four_lines_of_an_attack_run_from_the_command_line(tmp_path):
    (tmp_path / "my_attacks.py").write_text(FOUR_LINES)

    run = partial(run_in, tmp_path)
    run("fit", "--config=digits/madry", "--model.init_args.attack=my_attacks.MyFGSM", *SHORT)
    best = tmp_path / "runs/digits-madry/version_0/checkpoints/best.ckpt"
    kept = torch.load(best, weights_only=True)["hyper_parameters"]["attack"]
    assert kept == {"class_path": "my_attacks.MyFGSM", "init_args": {"eps": 0.2}}  # that of the configuration
    evaluation = ["--attacks=[FGSM,my_attacks.MyFGSM]", "--eps.linf=[0.05,0.1]", "--images=8", "--output=out"]
    run("evaluate", f"--checkpoint={best}", *evaluation, "--accelerator=cpu", "--suspicion_images=0")
    assert (tmp_path / "out/evaluation.json").is_file()
