"""A training regime of one's own: it says what is minimised on a batch, and the base class does the rest."""

from lightning.pytorch import Trainer
from torch import Tensor

from lightning_adv.attacks import PGD
from lightning_adv.data import DigitsDataModule
from lightning_adv.nn import Backbone
from lightning_adv.regimes import Regime
from lightning_adv.testing import check_regime


class LogitDistanceTraining(Regime):
    """The cross-entropy of clean images, and the distance of their adversarial examples' logits from theirs."""

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return what is minimised, for images (N, C, H, W) and labels (N,)."""
        x_adv = self.attacked(PGD(eps=0.2, steps=3, step_size=0.1), x, y)
        clean, adversarial = self(x), self(x_adv)
        return self.criterion(clean, y) + (clean - adversarial).square().mean()


def train(max_epochs: int = 1) -> dict[str, float]:
    """Check the regime, train it on digits, and return what a test says of it."""
    backbone = Backbone("small_cnn", in_channels=1, options={"width": 8})
    evaluation_attack = PGD(eps=0.2, steps=5, step_size=0.08)
    regime = LogitDistanceTraining(backbone, num_classes=10, evaluation_attack=evaluation_attack)
    check_regime(regime)  # trains copies of it: a finite loss, frozen parts, seeds, checkpoints, resuming, ...
    trainer = Trainer(max_epochs=max_epochs, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(regime, DigitsDataModule(batch_size=64))
    return dict(trainer.test(regime, DigitsDataModule(batch_size=64))[0])


if __name__ == "__main__":
    train()
