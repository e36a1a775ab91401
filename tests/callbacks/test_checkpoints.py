from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import EMAWeightAveraging
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    tensor = r"network\S+weight, 1 of \d+ tensors .*Resume from checkpoints/last\.ckpt with a lower"
    words = rf"NaN or infinite after step {at_step} \(epoch 0\): {tensor}"
    with pytest.raises(FloatingPointError, match=words):
        trainer.fit(Explosion(BACKBONE, evaluation_attack=ATTACK), ToyData())
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]
    kept = torch.load(folder / "last.ckpt", weights_only=True)
    assert kept["global_step"] == at_step - 1
    assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())


def test_nobody_is_sent_to_a_checkpoint_that_is_not_there(tmp_path):
    """In the first epoch nothing was saved yet."""
    regime = StandardTraining(BACKBONE, evaluation_attack=ATTACK)
    regime.training_step = lambda batch, batch_idx: regime.check_loss(torch.tensor(float("nan")))
    with pytest.raises(FloatingPointError, match=r"at step 0 .* Begin again with a lower learning rate"):
        trainer_with(tmp_path, [LastCheckpoint(), BestCheckpoint()]).fit(regime, ToyData())


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


@pytest.mark.parametrize("where", ["running_var", "momentum_buffer", "averaged"])
def test_whatever_is_saved_is_finite(tmp_path, where):
    """Running statistics, the optimizer's state and an average, while all weights are numbers."""

    class Explosion(StandardTraining):
        def optimizer_step(self, *args, **kwargs):
            super().optimizer_step(*args, **kwargs)
            if self.trainer.global_step == 1:
                buffers = dict(self.named_buffers())
                state = next(iter(self.trainer.optimizers[0].state.values()))
                averaging = next(each for each in self.trainer.callbacks if isinstance(each, EMAWeightAveraging))
                {
                    "running_var": next(value for name, value in buffers.items() if name.endswith("running_var")),
                    "momentum_buffer": state["momentum_buffer"],
                    "averaged": next(averaging._average_model.module.parameters()),
                }[where].data.view(-1)[0] = float("inf")

    callbacks = [EMAWeightAveraging(decay=0.9), LastCheckpoint(every_n_train_steps=1)]
    trainer = trainer_with(tmp_path, callbacks)
    with pytest.raises(FloatingPointError, match=r"saved is NaN or infinite after step 2 .*, [12] of \d+ "):
        trainer.fit(Explosion(BACKBONE, evaluation_attack=ATTACK), ToyData())
    assert step_of(tmp_path / "run/version_0/checkpoints/last.ckpt") == 1


@pytest.mark.slow
@pytest.mark.parametrize("resumed_monitor", ["val/clean_accuracy", "val/robust_loss"])
def test_best_is_remembered_by_whatever_settings_it_has_now(tmp_path, resumed_monitor):
    first = BestCheckpoint(monitor="val/clean_accuracy")
    trainer = trainer_with(tmp_path, [first, LastCheckpoint()])
    trainer.fit(StandardTraining(BACKBONE, evaluation_attack=ATTACK), ToyData())
    second = BestCheckpoint(monitor=resumed_monitor, every_n_epochs=2)
    last = tmp_path / "run/version_0/checkpoints/last.ckpt"
    trainer = trainer_with(tmp_path, [second, LastCheckpoint()], max_epochs=1)
    regime = StandardTraining(BACKBONE, evaluation_attack=ATTACK)
    if resumed_monitor != first.monitor:
        with pytest.raises(ValueError, match=r"monitor is val/robust_loss .* chosen by val/clean_accuracy"):
            trainer.fit(regime, ToyData(), ckpt_path=last, weights_only=True)
        return
    trainer.fit(regime, ToyData(), ckpt_path=last, weights_only=True)
    assert (second.best_model_score, second.best_model_path) == (first.best_model_score, first.best_model_path)


@pytest.mark.slow
def test_best_that_was_left_behind_is_looked_for_anew(tmp_path, caplog):
    trainer = trainer_with(tmp_path, [BestCheckpoint(), LastCheckpoint()])
    trainer.fit(StandardTraining(BACKBONE, evaluation_attack=ATTACK), ToyData())
    folder = tmp_path / "run/version_0/checkpoints"
    (folder / "best.ckpt").unlink()
    best = BestCheckpoint()
    trainer = trainer_with(tmp_path, [best, LastCheckpoint()], max_epochs=2)
    regime = StandardTraining(BACKBONE, evaluation_attack=ATTACK)
    trainer.fit(regime, ToyData(), ckpt_path=folder / "last.ckpt", weights_only=True)
    assert "the run's best checkpoint is not there" in caplog.text
    assert step_of(best.best_model_path) == step_of(folder / "best.ckpt") == 8


@pytest.mark.slow
def test_best_is_overwritten_from_whatever_folder_it_is_named(tmp_path, monkeypatch):
    """By a relative path to a run folder that was begun by another: it was deleted after it had been written."""
    trainer = trainer_with(tmp_path, [BestCheckpoint(mode="min", monitor="val/clean_loss"), LastCheckpoint()])
    trainer.fit(StandardTraining(BACKBONE, evaluation_attack=ATTACK), ToyData())
    monkeypatch.chdir(tmp_path / "run/version_0")
    best = BestCheckpoint(mode="min", monitor="val/clean_loss")
    logger = CSVLogger(".", name="", version="")
    trainer = quiet_trainer(
        tmp_path, callbacks=[best, LastCheckpoint()], logger=logger, enable_checkpointing=True, max_epochs=3
    )
    regime = StandardTraining(BACKBONE, evaluation_attack=ATTACK)
    trainer.fit(regime, ToyData(), ckpt_path="checkpoints/last.ckpt", weights_only=True)
    assert step_of("checkpoints/best.ckpt") > 4, "or there was nothing to overwrite"


@pytest.mark.slow
def test_a_test_in_a_folder_of_its_own_warns_of_no_checkpoints(tmp_path, caplog, recwarn):
    first = trainer_with(tmp_path / "run", [LastCheckpoint(), BestCheckpoint()])
    first.fit(StandardTraining(BACKBONE, evaluation_attack=ATTACK), ToyData())
    path = tmp_path / "run/run/version_0/checkpoints/best.ckpt"
    recwarn.clear()
    again = trainer_with(tmp_path / "test", [LastCheckpoint(), BestCheckpoint()])
    regime = StandardTraining(BACKBONE, evaluation_attack=ATTACK)
    again.test(regime, ToyData(), ckpt_path=path, weights_only=True, verbose=False)
    assert not [str(each.message) for each in recwarn if "dirpath" in str(each.message)]
    assert "best checkpoint is not there" not in caplog.text
