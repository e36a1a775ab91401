"""A classifier that is measured: clean and robust accuracy and loss in validation and test."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from lightning_adv.nn.weights.finite import check_finite_network
from lightning_adv.regimes.checks import check_measured_losses, check_validation_loss, images_alone
from lightning_adv.regimes.classifier import Classifier
from lightning_adv.regimes.metrics import Meters, ends_with_repetition, length_of


class MeasuredClassifier(Classifier):
    """A :class:`~lightning_adv.regimes.classifier.Classifier` that a Trainer validates, tests and predicts with.

    The metrics are those of :class:`~lightning_adv.regimes.metrics.Meters`, under ``val/`` and ``test/``.
    """

    def _build(self, num_classes: int) -> None:
        super()._build(num_classes)
        measured = {stage: Meters(num_classes, self.domains, self.inference_domain) for stage in ("val", "test")}
        self.meters = nn.ModuleDict(measured)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure clean and robust accuracy and loss on validation images."""
        self._evaluate(batch, batch_idx, "val")

    def on_validation_epoch_end(self) -> None:
        """Stop at a network that computes no numbers, before it is saved (a Lightning hook).

        Raises:
            FloatingPointError: The loss on clean images is NaN or infinite.
        """
        if self.trainer.state.fn == "validate":
            self._check_losses("val")
            return
        images = self._meters("val")["images"]
        if not self.trainer.sanity_checking:
            dataset = getattr(self.trainer.val_dataloaders, "dataset", None)
            self.coverage["validation_images"] = (round(images.compute().item()), length_of(dataset))
        for name in ("images", "classes"):  # they are not logged, which would reset them
            self._meters("val")[name].reset()
        loss = self._meters("val")["clean_loss"].compute()
        check_validation_loss(loss, self.global_step, self.current_epoch)

    def on_validation_start(self) -> None:
        """Refuse a network that holds no numbers, where no training would end at it (a Lightning hook)."""
        if self.trainer.state.fn == "validate":
            check_finite_network(self.network, "ckpt_path")

    def on_test_start(self) -> None:
        """Refuse a network that holds no numbers (a Lightning hook)."""
        check_finite_network(self.network, "ckpt_path")

    on_predict_start = on_test_start

    def on_test_epoch_end(self) -> None:
        """Refuse results of a network that computes no numbers (a Lightning hook)."""
        self._check_losses("test")

    def _check_losses(self, stage: str) -> None:
        losses = {name: metric.compute() for name, metric in self._meters(stage).items() if "_loss" in name}
        check_measured_losses(losses, stage)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Measure clean and robust accuracy and loss on test images."""
        self._evaluate(batch, batch_idx, "test")

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the class probabilities (N, K); the images need no labels."""
        alone = images_alone(batch)
        x = self.check_batch(batch, batch_idx)[0] if alone is None else self._checked(alone, None, batch_idx)
        probabilities: Tensor = self(x).float().softmax(1)
        return probabilities

    def _evaluate(self, batch: Any, batch_idx: int, stage: Literal["val", "test"]) -> None:
        x, y = self.check_batch(batch, batch_idx)
        loader = self.trainer.val_dataloaders if stage == "val" else self.trainer.test_dataloaders
        if ends_with_repetition(loader, batch_idx):
            x, y = x[:-1], y[:-1]
        meters = self._meters(stage)
        for domain in (self.domains if self.domains else (None,)) if len(x) else ():
            noise = self.noise(stage, batch_idx)
            # A test is what is reported: no attack on it is weaker than it need be.
            x_adv = self.attacked(
                self.evaluation_attack, x, y, domain=domain, generator=noise, reduced_precision=stage == "val"
            )
            meters.update("clean", domain, self.logits(x, domain), y)
            meters.update("robust", domain, self.logits(x_adv, domain), y)
        meters["images"].update(len(x))
        meters["classes"].update(y)
        for name, metric in meters.items():
            if name not in ("images", "classes") or stage == "test":
                shown = stage == "val" and name in ("clean_accuracy", "robust_accuracy")
                self.log(f"{stage}/{name}", metric, on_step=False, on_epoch=True, prog_bar=shown)

    def _meters(self, stage: str) -> Meters:
        meters: Meters = self.meters[stage]  # type: ignore[assignment]
        return meters
