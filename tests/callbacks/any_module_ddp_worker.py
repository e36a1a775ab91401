"""Trains a foreign module with an adversary and an observer, in one or in two processes: see ``test_any_module.py``."""

import sys
from pathlib import Path

import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn

import lightning_adv.callbacks.local_response as local_response
from lightning_adv.attacks import PGD
from lightning_adv.callbacks import AdversarialBatches, LocalResponse
from tests.callbacks.foreign import Task, classes, dicts
from tests.regimes.toy import quiet_trainer

PARTS = {"network": "model", "batch": ["image", "label"]}
ATTACKS = {
    "zero": PGD(eps=0.1, steps=2, step_size=0.05, start="zero"),
    "uniform": PGD(eps=0.1, steps=2, step_size=0.05),
}


class Validated(Task):
    """Without BatchNorm, of which processes have statistics of their own."""

    def __init__(self, batch_size):
        super().__init__()
        self.batch_size = batch_size
        self.model = nn.Sequential(*(each for each in self.model if not isinstance(each, nn.BatchNorm2d)))

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.criterion(self.model(batch["image"]), batch["label"]), sync_dist=True)

    def train_dataloader(self):
        replicas = {"num_replicas": self.trainer.world_size, "rank": self.trainer.global_rank}
        return dicts(classes(), batch_size=self.batch_size, replicas=replicas)

    def val_dataloader(self):
        return dicts(classes(10), batch_size=5)


def train(folder, start, batch_size, **options):
    """One epoch; return the weights and the images that the steps saw."""
    torch.manual_seed(0)
    observer = LocalResponse(layers="*", images=9, evaluation_attack=ATTACKS["zero"], **PARTS)
    callbacks = [AdversarialBatches(ATTACKS[start], **PARTS), observer]
    module = Validated(batch_size)
    logger = CSVLogger(folder, name="run", version=0)
    trainer = quiet_trainer(folder, callbacks=callbacks, logger=logger, use_distributed_sampler=False, **options)
    trainer.fit(module)
    return {"weights": module.state_dict(), "seen": [seen["image"] for seen in module.seen], "rank": module.global_rank}


if __name__ == "__main__":
    torch.set_num_threads(1)
    local_response.BATCH_SIZE = 3
    folder = Path(sys.argv[1])
    for start in ATTACKS:
        result = train(folder / start, start, batch_size=2, strategy="ddp", devices=2, max_epochs=1)
        torch.save(result, folder / f"{start}-{result['rank']}.pt")
