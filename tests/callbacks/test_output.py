import random

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CometLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image

from lightning_adv.callbacks.output import log_figure, log_table
from lightning_adv.core.table import Row
from tests.logged import OfflineRun, close_wandb

ROWS = [Row(0, 3, "layer1.0.bn1", "main", "running_mean[17]", 0.25), Row(1, 7, "", "", "quadratic_sum", 1e-9)]


@pytest.fixture
def picture(tmp_path):
    """A picture without symmetry, with transparency as matplotlib's have."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture
def wandb_logger(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield WandbLogger(save_dir=tmp_path, project="sending")
    close_wandb()


@pytest.mark.slow
def test_empty_table_is_not_sent(wandb_logger, tmp_path):
    _ = wandb_logger.experiment
    log_table([wandb_logger], "bn_drift/table", [])
    close_wandb()
    assert OfflineRun(tmp_path).history == []


@pytest.mark.slow
def test_no_random_number_is_drawn(wandb_logger, picture, tmp_path):
    loggers = [TensorBoardLogger(tmp_path), wandb_logger]
    for logger in loggers:
        _ = logger.experiment
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    log_figure(loggers, "bn_drift/heatmap", picture, 4)
    log_table(loggers, "bn_drift/table", ROWS)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


@pytest.mark.slow
def test_mlflow_gets_the_picture(picture, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger("sending", tracking_uri=f"file:{tmp_path}/mlruns")
    log_figure([logger], "bn_drift/heatmap", picture, 4)
    stored = [path for path in (tmp_path / "mlruns").rglob("*.png") if "heatmap" in path.name]
    with Image.open(picture) as sent, Image.open(stored[0]) as found:
        assert len(stored) == 1
        np.testing.assert_array_equal(np.asarray(found.convert("RGB")), np.asarray(sent.convert("RGB")))
    assert "+step+4+" in stored[0].name


def test_comet_gets_the_picture(picture):
    """Comet's package has many dependencies: what stands in its place has its experiment's method alone."""

    class Experiment:
        sent = None

        def log_image(self, image_data, name=None, step=None):
            self.sent = image_data, name, step

    class Logger(CometLogger):
        def __init__(self):
            self.kept = Experiment()

        experiment = property(lambda self: self.kept)

    logger = Logger()
    log_figure([logger], "bn_drift/heatmap", picture, 4)
    pixels, name, step = logger.kept.sent
    with Image.open(picture) as sent:
        np.testing.assert_array_equal(pixels, np.asarray(sent.convert("RGB")))
    assert (name, step) == ("bn_drift/heatmap", 4)
