"""What W&B and TensorBoard get of a run of the real command line, read back from their files."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lightning_adv.cli import main
from lightning_adv.core.table import Row, read_table
from tests.commands.shortened import fit
from tests.logged import OfflineRun, close_wandb, tensorboard, tensorboard_hyper_parameters

ANALYSES = ["bn_drift", "bn_gap", "smoothness", "local_response"]
HEADLINES = ["bn_drift/mean", "bn_gap/variance", "smoothness/quadratic_sum", "local_response/m2/max"]
WANDB = [
    "--trainer.logger+=WandbLogger",
    "--trainer.logger.project=robust",
    "--trainer.logger.name=first",
    "--trainer.logger.tags=[madry,digits]",
]
TENSORBOARD = ["--trainer.logger+=TensorBoardLogger", "--trainer.logger.save_dir=boards"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    close_wandb()


def saved_config(run, name="config.yaml"):
    return yaml.safe_load((run / name).read_text())


def scalars(run, name):
    """Return a metric's values by their steps, from the run folder."""
    with (run / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(file) if row.get(name)}


@pytest.mark.slow
def test_wandb_has_project_name_tags_configuration_and_scalars():
    run = fit(*WANDB)
    close_wandb()
    logged = OfflineRun(".")
    assert (logged.run.project, logged.run.display_name) == ("robust", "first")
    assert list(logged.run.tags) == ["madry", "digits"]
    assert logged.config["model"]["class_path"] == "lightning_adv.regimes.MadryTraining"
    assert logged.config["data"]["init_args"]["batch_size"] == 64
    assert {key: value for key, value in logged.config.items() if key != "_wandb"} == saved_config(run)
    accuracies = scalars(run, "val/robust_accuracy")
    assert list(accuracies) == [2, 5]
    assert logged.values("val/robust_accuracy") == pytest.approx(accuracies)
    assert len(logged.values("test/robust_accuracy")) == 1


@pytest.mark.slow
def test_tensorboard_has_configuration_and_scalars():
    run = fit(*TENSORBOARD)
    events = tensorboard("boards")
    found = tensorboard_hyper_parameters(events)
    assert found["data/init_args/batch_size"] == 64
    assert found["model/init_args/attack/init_args/eps"] == 0.2
    assert found["model/class_path"] == saved_config(run)["model"]["class_path"]
    assert found["trainer/logger/1/class_path"].endswith("TensorBoardLogger")
    logged = {event.step: event.value for event in events.Scalars("val/robust_accuracy")}
    assert logged == pytest.approx(scalars(run, "val/robust_accuracy"))
    assert len(logged) == 2


@pytest.mark.slow
def test_both_get_what_the_analyses_saw():
    """The numbers of metrics.csv, the pictures and the tables of the run folder, from one run with both loggers."""
    run = fit("--config", "analyses", *WANDB, *TENSORBOARD)
    close_wandb()
    logged, events = OfflineRun("."), tensorboard("boards")
    for name in HEADLINES:
        found = scalars(run, name)
        assert list(found) == [2, 5]
        assert logged.values(name) == pytest.approx(found)
        assert {event.step: event.value for event in events.Scalars(name)} == pytest.approx(found)
    drawn = {path.stem: path for path in (run / "figures").iterdir() if path.stem != "training_curves"}
    assert all(any(stem.startswith(analysis) for stem in drawn) for analysis in ANALYSES)
    tags = {tag.replace("/", "_", 1): tag for tag in events.Tags()["images"]}
    assert tags.keys() == drawn.keys()
    for stem, tag in tags.items():
        assert list(logged.values(tag)) == [event.step for event in events.Images(tag)] == [2, 5]
        (last,) = logged.values(tag)[5]["filenames"]
        assert (logged.folder / "files" / last).read_bytes() == drawn[stem].read_bytes()
        assert np.array_equal(pixels(io.BytesIO(events.Images(tag)[-1].encoded_image_string)), pixels(drawn[stem]))
    for analysis in ANALYSES:
        table = json.loads(logged.file(f"{analysis}/table").read_text())
        assert [Row(*row) for row in table["data"]] == read_table(run / "analyses" / f"{analysis}.csv")


def pixels(file):
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.mark.slow
def test_wandb_alone_offline_and_resumed(monkeypatch):
    """A CSVLogger is put before it and keeps the run folder; a resumed run sends the configuration that it has now."""
    monkeypatch.delenv("WANDB_MODE")
    offline = ["--trainer.logger=WandbLogger", "--trainer.logger.offline=true", "--trainer.logger.project=robust"]
    fit(*offline, "--trainer.logger.save_dir=first", "--trainer.max_epochs=1")
    close_wandb()
    run = Path("runs/run/version_0")
    path = f"--ckpt_path={run}/checkpoints/last.ckpt"
    main(["fit", "--config", f"{run}/config.yaml", path, "--trainer.logger.save_dir=second", "--trainer.max_epochs=2"])
    close_wandb()
    first, second = OfflineRun("first"), OfflineRun("second")
    assert (first.config["trainer"]["max_epochs"], second.config["trainer"]["max_epochs"]) == (1, 2)
    assert second.config["model"] == saved_config(run, "config-resumed.yaml")["model"]
    assert list(first.values("val/robust_accuracy")) == [2]
    assert list(second.values("val/robust_accuracy")) == [5]
