"""The command line under two processes: one run folder, one table, exact numbers."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_adv.data import DigitsDataModule
from lightning_adv.regimes import AdvPropTraining
from tests.commands.shortened import results

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_fit_ends_as_with_one_process(tmp_path):
    """361 test images, which two processes cannot share evenly; the numbers are recomputed in this process."""
    command = [
        sys.executable, "-m", "lightning_adv", "fit", "--config", "digits/advprop", "--trainer.devices=2",
        "--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=3", "--trainer.num_sanity_val_steps=0", "--trainer.enable_progress_bar=false",
        "--model.init_args.evaluation_attack.init_args={steps: 2, start: zero}",
        "--data.init_args.test_fraction=0.2005", "--data.init_args.batch_size=32",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert ended.stdout.count("AdvPropTraining: small_cnn on digits") == 1
    assert [path.name for path in (tmp_path / "runs").rglob("version_*")] == ["version_0"]
    run = tmp_path / "runs" / "digits-advprop" / "version_0"
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "metrics.csv", "checkpoints", "results.json", "figures",
    }  # fmt: skip
    found = results(run)
    assert (found["processes"], found["test_images"]) == (2, 361)
    regime = AdvPropTraining.load_from_checkpoint(run / found["checkpoint"]["path"], weights_only=True).eval()
    data = DigitsDataModule(test_fraction=0.2005)
    data.setup()
    (x, y), *_ = data.test_dataloader()
    assert len(y) == 361
    for domain, numbers in found["domains"].items():
        x_adv = regime.evaluation_attack(regime.network, x, y, domain=domain)
        for kind, images in (("clean", x), ("robust", x_adv)):
            with torch.no_grad():
                correct = int((regime.logits(images, domain).argmax(1) == y).sum())
            assert numbers[f"{kind}_accuracy"] == correct / 361, (domain, kind)
    # 3 batches of 32 images on each of 2 processes
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["callbacks"]["Throughput"]["images"] == 3 * 32 * 2
    assert last["global_step"] == 3
    with (run / "metrics.csv").open(newline="") as file:
        assert sum(bool(row["val/clean_accuracy_main"]) for row in csv.DictReader(file)) == 1
