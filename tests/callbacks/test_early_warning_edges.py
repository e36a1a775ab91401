"""What the early warning refuses, and two processes."""

from datetime import timedelta

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_adv.attacks import FGSM, PGD
from lightning_adv.callbacks import EarlyWarning
from lightning_adv.regimes import StandardTraining
from tests.callbacks.overfitting import NAMES, BrightnessTraining, Recorder, run
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer

# Bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_epochs": 0}, r"every_n_epochs must be an integer of at least 1, got 0"),
        ({"images": 0}, r"images must be an integer of at least 1, got 0"),
        ({"catastrophic_gap": -0.1}, r"catastrophic_gap must lie in \[0, 1\], got -0.1"),
        ({"overfitting_gap": float("nan")}, r"overfitting_gap must lie in \[0, 1\], got nan"),
        ({"loss_peaks": 1.5}, r"loss_peaks must lie in \[0, 1\], got 1.5"),
        ({"action": "stpo"}, r"action must be one of warn, stop, restore, got 'stpo'. Did you mean 'stop'"),
        ({"attack": "PGD"}, r"Expected a Attack"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        EarlyWarning(**arguments)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(TensorDataset(ToyData().x, ToyData().y))


class WithoutValidation(ToyData):
    val_dataloader = LightningModule.val_dataloader


class Streamed(ToyData):
    def train_dataloader(self):
        return DataLoader(Stream(), batch_size=8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (WithoutValidation, "needs validation images, and the Trainer has no validation loader"),
        (Streamed, "takes its training images by their index: .* got a DataLoader over a Stream"),
    ],
)
def test_data_that_cannot_be_looked_at(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, [EarlyWarning()], data=data())


def test_no_validation_batches(tmp_path):
    with pytest.raises(ValueError, match="needs validation images"):
        run(tmp_path, [EarlyWarning()], limit_val_batches=0)


def test_what_the_action_cannot_do(tmp_path):
    standard = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=ATTACK)
    with pytest.raises(ValueError, match="action is 'stop', but StandardTraining is monitored by val/clean_accuracy"):
        run(tmp_path, [EarlyWarning(action="stop")], standard)
    with pytest.raises(ValueError, match="action is 'restore', but WeightAveraging"):
        run(tmp_path, [EarlyWarning(action="restore"), EMAWeightAveraging()])
    with pytest.raises(ValueError, match="fgsm must be given: Recorder is not a PGD"):
        run(tmp_path, [EarlyWarning(attack=Recorder())])


# Two processes -------------------------------------------------------------------------------------------------------


class Ends(Callback):
    """Writes down in which epoch each process ended, and how many images it attacked."""

    def __init__(self, folder, recorded):
        self.folder, self.recorded = folder, recorded

    def setup(self, trainer, pl_module, stage):
        torch.manual_seed(trainer.global_rank)  # what processes have that nobody seeded

    def on_train_end(self, trainer, pl_module):
        attacked = sum(len(chunk.x) for chunk in [*self.recorded._train.batches, *self.recorded._val.batches])
        (self.folder / f"rank-{trainer.global_rank}").write_text(f"{trainer.current_epoch} {attacked}")


def numbers_of(folder, processes):
    torch.manual_seed(0)
    folder.mkdir()
    x, y = torch.rand(200, 1, 8, 8), torch.randint(2, (200,))
    module = BrightnessTraining(attack=PGD(eps=0.05, steps=1, step_size=0.01), lr=0.0)
    module.network = nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 2, bias=False))
    warning = EarlyWarning(images=150, fgsm=FGSM(eps=1e-4), catastrophic_gap=0.02, action="restore")
    strategy = DDPStrategy(process_group_backend="gloo", start_method="fork", timeout=timedelta(minutes=10))
    trainer = quiet_trainer(
        folder,
        max_epochs=4,
        callbacks=[Ends(folder, warning), warning],
        **({"devices": processes, "strategy": strategy} if processes > 1 else {}),
    )
    data = ToyData(batch_size=25)
    data.x, data.y = x, y
    trainer.fit(module, data)
    ends = [(folder / f"rank-{rank}").read_text().split() for rank in range(processes)]
    return {name: trainer.callback_metrics[f"early_warning/{name}"].item() for name in NAMES}, ends


@pytest.mark.slow
def test_two_processes_measure_what_one_does_and_stop_together(tmp_path):
    """150 images are 64 + 64 + 22: the first process attacks two of the parts, the second one."""
    one, [(end, attacked)] = numbers_of(tmp_path / "one", 1)
    two, ends = numbers_of(tmp_path / "two", 2)
    assert one == two
    assert 0 < one["robust_accuracy"] < 1
    assert (end, attacked) == ("2", "300")
    assert ends == [[end, "172"], [end, "128"]]
