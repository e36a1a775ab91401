from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.loggers import CSVLogger

from lightning_adv.callbacks import BestCheckpoint, LastCheckpoint
from lightning_adv.regimes import MadryTraining, StandardTraining
from tests.faults.disk import full_disk
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


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("at_step", [2, 3])
def test_weights_that_are_no_numbers_are_not_saved(tmp_path, at_step, value):
    """Within an epoch of four steps, after a step whose own loss was finite: what was saved before stays whole."""
    folder = tmp_path / "run/version_0/checkpoints"

    class Explosion(StandardTraining):
        def optimizer_step(self, *args, **kwargs):
            super().optimizer_step(*args, **kwargs)
            if self.trainer.global_step == at_step - 1:  # it counts this step afterwards
                with torch.no_grad():
                    next(self.parameters()).view(-1)[0] = value

    trainer = trainer_with(tmp_path, [LastCheckpoint(every_n_train_steps=1), BestCheckpoint()])
    words = rf"NaN or infinite after step {at_step} \(epoch 0\): network\S+weight, 1 of \d+ parameters"
    with pytest.raises(FloatingPointError, match=words):
        trainer.fit(Explosion(BACKBONE, evaluation_attack=ATTACK), ToyData())
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]
    kept = torch.load(folder / "last.ckpt", weights_only=True)
    assert kept["global_step"] == at_step - 1
    assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    """And nothing is written into the temporary folder, which may be another file system: a move there is a copy."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    folder = tmp_path / "run/version_0/checkpoints"

    class FullSoon(StandardTraining):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 2:
                disk.enter_context(full_disk(1000))

    trainer = trainer_with(tmp_path, [LastCheckpoint(every_n_train_steps=1)], max_epochs=2)
    with ExitStack() as disk, pytest.raises(OSError, match=r"checkpoints/last\.ckpt"):
        trainer.fit(FullSoon(BACKBONE, evaluation_attack=ATTACK), ToyData())
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]
    assert step_of(folder / "last.ckpt") == 2


def test_a_checkpoint_plugin_of_the_users_own_is_used(tmp_path):
    saved = []

    class Own(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            saved.append(Path(path).name)
            super().save_checkpoint(checkpoint, path, storage_options)

    trainer = trainer_with(tmp_path, [LastCheckpoint()], max_epochs=1, plugins=[Own()])
    trainer.fit(StandardTraining(BACKBONE, evaluation_attack=ATTACK), ToyData())
    assert saved == ["last.ckpt"]
