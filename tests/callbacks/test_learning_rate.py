"""Every row of ``metrics.csv`` has an epoch."""

import csv
from functools import partial

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from lightning_adv.callbacks.learning_rate import LearningRate
from lightning_adv.regimes import StandardTraining
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer


@pytest.mark.slow
def test_rates_are_of_epochs(tmp_path):
    optimizer = partial(torch.optim.SGD, lr=0.5)
    schedule = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    regime = StandardTraining(BACKBONE, evaluation_attack=ATTACK, optimizer=optimizer, scheduler=schedule)
    logger = CSVLogger(tmp_path, name="run", version=0)
    trainer = quiet_trainer(tmp_path, max_epochs=3, logger=logger, callbacks=[LearningRate(logging_interval="epoch")])
    trainer.fit(regime, ToyData())
    with (tmp_path / "run/version_0/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["epoch"] for row in rows)
    rates = [(row["epoch"], float(row["lr-SGD"])) for row in rows if row["lr-SGD"]]
    assert rates == [("0", 0.5), ("1", 0.25), ("2", 0.125)]
