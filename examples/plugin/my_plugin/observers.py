"""An observer: it returns rows of a table, and the base class does the rest."""

from collections.abc import Iterator

import torch
from lightning.pytorch import Trainer

from lightning_adv.attacks import held_still
from lightning_adv.callbacks import ObservedModule, Observer, Record, take_images


class Confidence(Observer):
    """The mean probability of the predicted class, on clean validation images and under the evaluation attack."""

    def prepare(self, trainer: Trainer, module: ObservedModule) -> None:
        """Take the same images for every look."""
        self.images = take_images(trainer, module, observer=self.analysis)

    def observe(self, trainer: Trainer, module: ObservedModule) -> Iterator[Record]:
        """Return the two means: rows of ``analyses/confidence.csv``, and curves in every logger."""
        sums = torch.zeros(3, device=module.device)
        for batch in self.images.batches:
            x, y, noise = batch.to(module.device)
            x_adv = module.evaluation_attack(module.network, x, y, generator=noise)
            with held_still(module.network) as network, torch.no_grad():  # in eval mode, and put back afterwards
                clean, adversarial = (network(images).softmax(1).amax(1).sum() for images in (x, x_adv))
            sums += torch.stack([clean, adversarial, torch.full_like(clean, len(x))])
        clean, adversarial, images = trainer.strategy.reduce(sums, reduce_op="sum")  # of all processes
        yield Record("", "", "clean", clean / images)
        yield Record("", "", "adversarial", adversarial / images)
