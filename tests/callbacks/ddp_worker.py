"""Trains in one of two processes, with and without observers: what ``torchrun`` runs in ``test_observers_ddp.py``."""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

import lightning_adv.callbacks.feature_distributions as feature_distributions
import lightning_adv.callbacks.local_response as local_response
from lightning_adv.callbacks import (
    BatchNormDrift,
    FeatureDistributions,
    FlightRecorder,
    FrequencyCurve,
    LocalResponse,
    PerturbationView,
    RunningVsBatch,
    SaliencyMaps,
    WeightSmoothness,
)
from lightning_adv.regimes import AdvPropTraining, MadryTraining
from tests.regimes.toy import ATTACK, BACKBONE, ResumableToyData, quiet_trainer

REGIMES = {"madry": MadryTraining, "advprop": AdvPropTraining}
BATCH_SIZE = 10
MAP = {"perplexity": 5, "points": 50, "positions": 2}
# 31 validation images: three batches or chunks, which two processes cannot share evenly
# Looks after each epoch's last step: validation, which comes before the looks of epochs, makes the buffers one.
OBSERVERS = {
    "bn_drift": lambda: BatchNormDrift(every_n_steps=2),
    "bn_gap": lambda: RunningVsBatch(batches=3, batch_size=8, every_n_steps=2),
    "smoothness": lambda: WeightSmoothness(every_n_steps=2),
    "local_response": lambda: LocalResponse(images=25, every_n_steps=2),
    "flight_recorder": lambda: FlightRecorder(images=25, every_n_steps=2),
    "frequency_curve": lambda: FrequencyCurve(radii=[0.5, 1.0], every_n_steps=2),
    "perturbation_view": lambda: PerturbationView(every_n_steps=2),
    "saliency_maps": lambda: SaliencyMaps(images=10, samples=3, every_n_steps=2),
    "feature_distributions": lambda: FeatureDistributions(images=25, every_n_steps=2, **MAP),
}


class Buffers(Callback):
    """Keeps this process's running statistics as they are after each step, when the observers have looked."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.seen = {name: buffer.clone() for name, buffer in pl_module.network.named_buffers()}


class Data(ResumableToyData):
    def val_dataloader(self):
        full, self.x, self.y = (self.x, self.y), self.x[:31], self.y[:31]
        loader = super(ResumableToyData, self).train_dataloader()
        self.x, self.y = full
        return loader


def make(regime):
    torch.manual_seed(0)
    module = REGIMES[regime](BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK)
    module.seed = 0
    return module


def train(regime, folder, observers, **options):
    """Two epochs; return what could have changed."""
    module = make(regime)
    torch.manual_seed(module.global_rank)
    logger = CSVLogger(folder, name="run", version=0)
    buffers = Buffers()
    trainer = quiet_trainer(
        folder, callbacks=[*observers, buffers], logger=logger, max_epochs=2, log_every_n_steps=1, **options
    )
    trainer.fit(module, Data(batch_size=8))
    trainer.save_checkpoint(folder / "it.ckpt")
    momenta = [state["momentum_buffer"] for state in trainer.optimizers[0].state_dict()["state"].values()]
    return {
        "state": module.state_dict(),
        "momenta": momenta,
        "draw": torch.rand(3),
        "flags": [submodule.training for submodule in module.modules()],
        "metrics": dict(trainer.callback_metrics),
        "buffers": buffers.seen,
        "rank": trainer.global_rank,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    feature_distributions.BATCH_SIZE = local_response.BATCH_SIZE = BATCH_SIZE
    folder = Path(sys.argv[1])
    for regime in REGIMES:
        for observed in (False, True):
            observers = [make_observer() for make_observer in OBSERVERS.values()] if observed else []
            place = folder / f"{regime}-{observed}"
            result = train(regime, place, observers, strategy="ddp", devices=2)
            torch.save(result, folder / f"{regime}-{observed}-{result['rank']}.pt")
