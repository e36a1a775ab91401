"""Every configuration runs through the real command line, shortened."""

import pytest
import torch

from lightning_adv.run.configs import config_names
from tests.data.fake_cifar10 import write_fake_cifar10
from tests.data.fake_folder import write_dataset
from tests.run.shortened import fit, results

SMALL_BATCHES = ["--data.init_args.batch_size=4", "--data.init_args.evaluation_batch_size=4"]


@pytest.fixture
def data_arguments(tmp_path, monkeypatch):
    """Write a small copy of the data set that a configuration asks for."""

    def write(config):
        root = tmp_path / "images"
        if config.startswith("cifar10/"):
            write_fake_cifar10(root, monkeypatch, images_per_batch=20)
            return [*SMALL_BATCHES, f"--data.init_args.root={root}", "--data.init_args.val_fraction=0.2"]
        if config.startswith(("imagenet/", "cifar10_folder/")):
            write_dataset(root, test="val", classes=("cat", "dog"))
            return [
                *SMALL_BATCHES,
                f"--data.init_args.root={root}",
                "--data.init_args.num_workers=0",
                "--data.init_args.val_fraction=0.5",
                "--trainer.limit_train_batches=1",
            ]
        return []

    return write


@pytest.mark.parametrize("config", config_names())
def test_config_runs(config, data_arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attack = [] if config.endswith("/standard") else ["--model.init_args.attack.init_args.steps=1"]
    run = fit(*data_arguments(config), *attack, "--trainer.max_epochs=1", config=config)
    found = results(run)
    assert found["dataset"] in ("digits", "cifar10", "cifar10_folder", "images")
    assert 0 <= found["robust_accuracy"] <= 1
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "metrics.csv", "checkpoints", "results.json", "figures",
    }  # fmt: skip
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["hyper_parameters"]["num_classes"] >= 2
