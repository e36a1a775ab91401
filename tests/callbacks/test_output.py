import io
import json
import random

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image

from lightning_adv.callbacks.output import log_figure, log_table
from lightning_adv.core.table import Row
from tests.logged import OfflineRun, close_wandb, tensorboard

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


def pixels_of(file):
    return np.asarray(Image.open(file).convert("RGB"))


def test_wandb_gets_picture_and_table_in_the_group_of_their_analysis(wandb_logger, picture, tmp_path):
    log_figure([wandb_logger], "bn_drift/heatmap", picture, 4)
    log_table([wandb_logger], "bn_drift/table", ROWS)
    close_wandb()
    run = OfflineRun(tmp_path)
    ((step, image),) = run.values("bn_drift/heatmap").items()
    assert step == 4
    assert (run.folder / "files" / image["filenames"][0]).read_bytes() == picture.read_bytes()
    assert list(run.values("bn_drift/table")) == [7]
    table = json.loads(run.file("bn_drift/table").read_text())
    assert table["columns"] == ["epoch", "step", "name", "domain", "statistic", "value"]
    assert [Row(*row) for row in table["data"]] == ROWS
    assert any("bn_drift" in name for name in run.artifacts)


def test_tensorboard_gets_the_picture_to_the_last_bit(picture, tmp_path):
    logger = TensorBoardLogger(tmp_path)
    log_figure([logger], "bn_drift/heatmap", picture, 4)
    log_table([logger], "bn_drift/table", ROWS)  # TensorBoard has no tables
    logger.finalize("success")
    events = tensorboard(tmp_path)
    assert events.Tags()["images"] == ["bn_drift/heatmap"]
    (event,) = events.Images("bn_drift/heatmap")
    assert event.step == 4
    assert np.array_equal(pixels_of(io.BytesIO(event.encoded_image_string)), pixels_of(picture))


def test_every_logger_that_takes_them_gets_them_and_others_are_left_alone(wandb_logger, picture, tmp_path):
    csv_logger = CSVLogger(tmp_path / "csv")
    board = TensorBoardLogger(tmp_path / "board")
    loggers = [csv_logger, board, wandb_logger]
    log_figure(loggers, "smoothness/curves", picture, 0)
    log_table(loggers, "smoothness/table", ROWS)
    board.finalize("success")
    close_wandb()
    assert not (tmp_path / "csv").exists()
    assert tensorboard(tmp_path / "board").Tags()["images"] == ["smoothness/curves"]
    run = OfflineRun(tmp_path)
    assert {name for row in run.history for name in row} >= {"smoothness/curves", "smoothness/table"}


def test_empty_table_is_not_sent(wandb_logger, tmp_path):
    _ = wandb_logger.experiment
    log_table([wandb_logger], "bn_drift/table", [])
    close_wandb()
    assert OfflineRun(tmp_path).history == []


def test_no_random_number_is_drawn(wandb_logger, picture, tmp_path):
    loggers = [TensorBoardLogger(tmp_path), wandb_logger]
    for logger in loggers:
        _ = logger.experiment
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    log_figure(loggers, "bn_drift/heatmap", picture, 4)
    log_table(loggers, "bn_drift/table", ROWS)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
