"""An observer of one's own: it returns rows of a table, and the base class does the rest."""

from collections.abc import Iterator
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from lightning_adv.analysis import robustly_correct
from lightning_adv.attacks import PGD
from lightning_adv.callbacks import ObservedModule, Observer, Record, take_images
from lightning_adv.data import DigitsDataModule
from lightning_adv.nn import Backbone
from lightning_adv.regimes import MadryTraining
from lightning_adv.testing import check_observer


class RobustByClass(Observer):
    """The share of each class's validation images that are classified correctly under the evaluation attack."""

    def prepare(self, trainer: Trainer, module: ObservedModule) -> None:
        """Take the same images for every look."""
        self.images = take_images(trainer, module, observer=self.analysis)

    def observe(self, trainer: Trainer, module: ObservedModule) -> Iterator[Record]:
        """Return the share of each class, which has rows of its own in the table and a curve in every logger."""
        counts = torch.zeros(2, 10, device=module.device)
        for batch in self.images.batches:
            x, y, noise = batch.to(module.device)
            robust = robustly_correct(module.network, x, y, module.evaluation_attack, generator=noise)
            counts += torch.stack([y[robust].bincount(minlength=10), y.bincount(minlength=10)])
        correct, total = trainer.strategy.reduce(counts, reduce_op="sum")  # of all processes
        for label in total.nonzero().flatten().tolist():
            yield Record("", "", f"class_{label}", correct[label] / total[label])


def train(folder: Path = Path("runs/observer-example"), max_epochs: int = 2) -> Path:
    """Check the observer, let it observe a training on digits, and return its table."""
    check_observer(RobustByClass())  # trainings are the same with and without it, its table is tidy, it resumes, ...
    attack = PGD(eps=0.2, steps=3, step_size=0.1)
    module = MadryTraining(Backbone("small_cnn", in_channels=1, options={"width": 8}), attack=attack)
    observer = RobustByClass()
    trainer = Trainer(default_root_dir=folder, max_epochs=max_epochs, accelerator="cpu", callbacks=[observer])
    trainer.fit(module, DigitsDataModule(batch_size=64))
    return observer.table


if __name__ == "__main__":
    print(train().read_text())
