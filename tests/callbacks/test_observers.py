"""Observers change nothing: weights, optimizer state, buffers, random state and losses, with and without them."""

import random

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from lightning_adv.callbacks import BestCheckpoint, EarlyWarning, LastCheckpoint, Throughput, TrainingCurves
from lightning_adv.regimes import MadryTraining
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer

OBSERVERS = {
    "throughput": lambda: Throughput(),
    "curves": lambda: TrainingCurves(),
    "best": lambda: BestCheckpoint(),
    "last": lambda: LastCheckpoint(every_n_train_steps=3),
    "early_warning": lambda: EarlyWarning(images=20),
}


def end_of_training(folder, callbacks):
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    module = MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK)
    logger = CSVLogger(folder, name="run", version=0)
    trainer = quiet_trainer(folder, callbacks=callbacks, logger=logger, max_epochs=2, enable_checkpointing=True)
    trainer.fit(module, ToyData())
    optimizer = [s["momentum_buffer"] for s in trainer.optimizers[0].state_dict()["state"].values()]
    draws = (torch.rand(3), torch.from_numpy(np.random.rand(3)), torch.tensor(random.random()))
    metrics = sorted(trainer.callback_metrics.items())
    losses = [value for name, value in metrics if not name.startswith("early_warning/")]
    flags = torch.tensor([submodule.training for submodule in module.modules()])
    return [*module.state_dict().values(), *optimizer, *draws, *losses, flags]


@pytest.mark.parametrize("name", OBSERVERS)
def test_training_is_bit_identical(tmp_path, name):
    without = end_of_training(tmp_path / "without", [])
    observed = end_of_training(tmp_path / "with", [OBSERVERS[name]()])
    assert len(without) == len(observed)
    assert all(torch.equal(a, b) for a, b in zip(without, observed, strict=True))
