"""Trains every regime on this process's share of the data: what ``torchrun`` runs twice in ``test_ddp.py``."""

import os
import sys
from pathlib import Path

import torch

from tests.regimes.every_regime import make, still
from tests.regimes.toy import ResumableToyData, quiet_trainer

EACH_PART = ("standard", "madry", "trades", "switching", "fine_grained", "mixture_bn", "smooth_gradient", "blockwise")


def train(name, folder, processes, train_mode):
    """Two epochs in batches of 16, all processes together; return the weights and all metrics."""
    changes = {} if train_mode else {**still(name), "running_statistics_epochs": 2}
    module = make(name, folder, **changes)
    options = {"strategy": "ddp", "devices": processes} if processes > 1 else {}
    trainer = quiet_trainer(folder, max_epochs=2, num_sanity_val_steps=0, **options)
    data = ResumableToyData(batch_size=16 // processes)
    trainer.fit(module, data)
    metrics = {key: value.item() for key, value in trainer.callback_metrics.items()}
    # 31 images, which two processes cannot share evenly
    odd = ResumableToyData(data.x[:31], data.y[:31], batch_size=16 // processes)
    tested = trainer.test(module, odd, verbose=False)[0]
    return {"state": module.state_dict(), "metrics": {**metrics, **tested}, "rank": trainer.global_rank}


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for train_mode in (False, True):
        for name in EACH_PART:
            # each process writes the pretrained weights that block-wise retraining starts from to a place of its own
            place = folder / f"{name}-{train_mode}-{os.environ['RANK']}"
            result = train(name, place, 2, train_mode)
            torch.save(result, folder / f"{name}-{train_mode}-{result['rank']}.pt")
