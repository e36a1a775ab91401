from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from lightning_adv.callbacks import BestCheckpoint, LastCheckpoint
from lightning_adv.regimes import MadryTraining, StandardTraining
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer


def trainer_with(tmp_path, callbacks, **kwargs):
    logger = CSVLogger(tmp_path, name="run", version=0)
    return quiet_trainer(tmp_path, callbacks=callbacks, logger=logger, enable_checkpointing=True, **kwargs)


def step_of(path):
    return torch.load(path, weights_only=True)["global_step"]


@pytest.mark.parametrize(
    ("make", "metric"), [(StandardTraining, "val/clean_accuracy"), (MadryTraining, "val/robust_accuracy")]
)
def test_best_follows_the_regimes_metric(tmp_path, make, metric):
    best = BestCheckpoint()
    trainer = trainer_with(tmp_path, [best], max_epochs=2)
    trainer.fit(make(BACKBONE, evaluation_attack=ATTACK), ToyData())
    assert best.monitor == metric
    assert Path(best.best_model_path).name == "best.ckpt"
    assert best.best_model_score <= 1


def test_last_is_written_between_epochs_and_at_their_ends(tmp_path):
    """Four steps an epoch: steps 3 and 6 by their number, 4 and 8 as the ends, not again at 8."""
    seen = []

    class Watcher(LastCheckpoint):
        def on_train_batch_end(self, trainer, *args):
            super().on_train_batch_end(trainer, *args)
            path = Path(self.dirpath) / "last.ckpt"
            seen.append(step_of(path) if path.is_file() else 0)

    trainer = trainer_with(tmp_path, [Watcher(every_n_train_steps=3)], max_epochs=2)
    trainer.fit(StandardTraining(BACKBONE, evaluation_attack=ATTACK), ToyData())
    assert seen == [0, 0, 3, 3, 4, 6, 6, 6]
    assert step_of(tmp_path / "run/version_0/checkpoints/last.ckpt") == 8


def test_last_is_written_where_training_stops_within_an_epoch(tmp_path):
    trainer = trainer_with(tmp_path, [LastCheckpoint()], max_epochs=5, max_steps=6)
    trainer.fit(StandardTraining(BACKBONE, evaluation_attack=ATTACK), ToyData())
    assert step_of(tmp_path / "run/version_0/checkpoints/last.ckpt") == 6


@pytest.mark.parametrize("name", ["every_n_epochs", "every_n_train_steps"])
def test_numbers_below_one(name):
    with pytest.raises(ValueError, match=f"last_checkpoint.{name} must be at least 1, got 0"):
        LastCheckpoint(**{name: 0})


def test_metrics_are_on_disk_whenever_a_checkpoint_is(tmp_path):
    """A killed run resumes at its checkpoint; what was logged before it must not be in memory only."""
    trainer = trainer_with(tmp_path, [LastCheckpoint(every_n_train_steps=1)], max_steps=1)
    trainer.logger.experiment.log_metrics({"kept": 1.0}, 0)
    trainer.fit(StandardTraining(BACKBONE, evaluation_attack=ATTACK), ToyData())
    assert "kept" in (tmp_path / "run/version_0/metrics.csv").read_text()
