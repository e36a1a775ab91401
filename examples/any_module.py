"""An adversary and observers for a LightningModule that knows nothing of this package."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_adv.attacks import PGD
from lightning_adv.callbacks import AdversarialBatches, EarlyWarning, LocalResponse
from lightning_adv.data import DigitsDataModule


class Classifier(LightningModule):
    """As anybody writes it: images and labels in, a loss out."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch, whatever its images are."""
        x, y = batch
        return F.cross_entropy(self.model(x), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the accuracy, in percent of clean images."""
        self.log("val_accuracy", 100 * (self.model(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def train(adversary: bool, folder: Path = Path("runs/any-module-example"), max_epochs: int = 3) -> float:
    """Train on digits, and return the robust accuracy of the last epoch."""
    parts: dict[str, Any] = {"network": "model", "evaluation_attack": PGD(eps=0.2, steps=10, step_size=0.05)}
    observers = [EarlyWarning(**parts), LocalResponse(layers="*", **parts)]
    attack = PGD(eps=0.2, steps=5, step_size=0.08)
    callbacks = [AdversarialBatches(attack, network="model"), *observers] if adversary else observers
    torch.manual_seed(0)
    trainer = Trainer(default_root_dir=folder, max_epochs=max_epochs, accelerator="cpu", callbacks=callbacks)
    trainer.fit(Classifier(), DigitsDataModule(batch_size=64))
    return trainer.callback_metrics["early_warning/robust_accuracy"].item()


if __name__ == "__main__":
    print(f"robust accuracy {train(adversary=False):.1%}, with an adversary {train(adversary=True):.1%}")
