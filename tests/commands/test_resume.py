"""Stopped at any step and resumed, a run ends in the weights, and the metrics, of one that never stopped."""

import csv
from pathlib import Path

import pytest
import torch

from lightning_adv.cli import main
from tests.commands.shortened import FAST_ATTACK, results
from tests.data.fake_cifar10 import write_fake_cifar10

pytestmark = pytest.mark.slow

DIGITS = [
    "fit", "--config", "digits/madry", *FAST_ATTACK, "--trainer.max_epochs=3", "--trainer.enable_progress_bar=false",
    "--trainer.accelerator=cpu", "--last_checkpoint.every_n_train_steps=4", "--trainer.limit_test_batches=1",
]  # fmt: skip


def weights_of(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same_end(run, other):
    first, second = weights_of(run), weights_of(other)
    assert first["global_step"] == second["global_step"]
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name
    for one, two in zip(first["optimizer_states"], second["optimizer_states"], strict=True):
        for key, state in one["state"].items():
            assert torch.equal(state["momentum_buffer"], two["state"][key]["momentum_buffer"])


def rows_of(run):
    with (run / "metrics.csv").open(newline="") as file:
        return sorted((int(row["step"]), sorted(row.items())) for row in csv.DictReader(file))


@pytest.mark.parametrize(("stop", "step"), [("max_steps=3", 3), ("max_epochs=1", 5), ("max_steps=8", 8)])
def test_dropout_augmentation_and_noise_resume(tmp_path, monkeypatch, stop, step):
    """A network that draws on its own, augmented images and random starts; 5 steps an epoch."""
    monkeypatch.chdir(tmp_path)
    write_fake_cifar10(tmp_path / "data", monkeypatch, images_per_batch=10)
    arguments = [
        "fit", "--config", "cifar10/madry", "--trainer.precision=32-true", "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false", "--data.init_args.batch_size=8", "--data.init_args.val_fraction=0.2",
        "--model.init_args.backbone={name: resnet10t, stem: default, options: {drop_rate: 0.5, drop_path_rate: 0.2}}",
        "--model.init_args.attack.init_args.steps=1", *FAST_ATTACK, "--last_checkpoint.every_n_train_steps=1",
        "--trainer.limit_test_batches=1",
    ]  # fmt: skip
    name = "--trainer.logger.init_args.name"
    main([*arguments, f"{name}=whole", "--trainer.max_epochs=3"])
    main([*arguments, f"{name}=stopped", f"--trainer.{stop}"])
    run = Path("runs/stopped/version_0")
    assert weights_of(run)["global_step"] == step
    main([*arguments, f"{name}=stopped", "--trainer.max_epochs=3", f"--ckpt_path={run}/checkpoints/last.ckpt"])
    assert_same_end(Path("runs/whole/version_0"), run)
    # Every row of the whole run is there, to the last digit, but for the test of the end that came first.
    assert [row for row in rows_of(Path("runs/whole/version_0")) if row not in rows_of(run)] == []


def test_resuming_elsewhere_finds_the_best_checkpoint(tmp_path, monkeypatch):
    """The run folder is named by another path than the one that the checkpoint remembers."""
    monkeypatch.chdir(tmp_path)
    main([*DIGITS, "--trainer.logger.init_args.name=run"])
    Path("runs/run").rename("moved")
    last = Path("moved/version_0/checkpoints/last.ckpt").resolve()
    best = torch.load(last.with_name("best.ckpt"), weights_only=True)
    main(["fit", "--config", "moved/version_0/config.yaml", f"--ckpt_path={last}", "--trainer.max_epochs=3"])
    again = torch.load(last.with_name("best.ckpt"), weights_only=True)
    assert again["global_step"] == best["global_step"]
    assert results(last.parents[1])["robust_accuracy"] >= 0
