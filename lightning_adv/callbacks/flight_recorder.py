"""What adversarial training does before it fails: a few numbers at each look, whichever are asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from lightning.pytorch import Trainer

from lightning_adv.analysis.flight_recorder_figures import plot_signals
from lightning_adv.attacks import Attack
from lightning_adv.callbacks.fixed_images import ImageBatch
from lightning_adv.callbacks.flight_signals import (
    Calibration,
    CleanAdversarialSimilarity,
    DeadUnits,
    DirectionAgreement,
    GradientAlignment,
    GradientNoise,
    InputGradientNorm,
    LocalLinearity,
    LossAlongLine,
    Probe,
    Signal,
    accuracies,
    check_ball,
)
from lightning_adv.callbacks.image_observer import ImageObserver, ImageParts
from lightning_adv.callbacks.observed import ObservedModule, headline_domain
from lightning_adv.core.errors import UsageError
from lightning_adv.core.keywords import Unpack
from lightning_adv.core.table import Record, Row
from lightning_adv.nn.batchnorm import through

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT: tuple[type[Signal], ...] = (
    GradientNoise, InputGradientNorm, GradientAlignment, LocalLinearity, DirectionAgreement, LossAlongLine, DeadUnits,
    CleanAdversarialSimilarity, Calibration,
)  # fmt: skip

IMAGES = 128


class FlightRecorder(ImageObserver):
    """Records what a network is like while it is trained adversarially, so that a collapse can be traced to its signs.

    At each look the same images are attacked with the same noise, through the BatchNorms that the network predicts
    with, and every signal measures the network there. All numbers are logged as ``flight_recorder/<statistic>``, those
    of single layers are in the table only. ``clean_accuracy``, ``fgsm_accuracy`` and ``robust_accuracy`` are always
    recorded. The figure ``signals`` has all over the looks, below the accuracies.

    A signal of your own is a subclass of :class:`~lightning_adv.callbacks.Signal`. What a signal cannot tell at a look,
    such as a cosine of gradients that are zero, is missing in that look.

    Under DDP every process measures all of the images: the numbers are those of one process.

    Args:
        signals: The signals, in YAML by their classes' names or ``class_path``; None is the cheap default set.
        images: Number of images; None is 128, or all where there are fewer.
        attack: The strong attack, in a ball of a norm; None takes the regime's ``evaluation_attack``.
        every_n_epochs: Look at the end of every this many training epochs, after validation. This is the default,
            with 1, where neither is given.
        every_n_steps: Look after every this many optimizer steps instead.
        figures_every_n_looks: Draw at the first look and then at every this many, and at the end of training.
        **parts: Where a LightningModule that is no regime has its network and images: ``network``, ``batch``, ``mean``,
            ``std`` and ``evaluation_attack``, as of :class:`~lightning_adv.callbacks.Observer`; and ``name``, ``split``
            and ``max_attack_steps``, as of :class:`~lightning_adv.callbacks.ImageObserver`.

    Raises:
        UsageError: An argument is out of its range, or a signal is there twice.

    Example:
        >>> from lightning_adv.callbacks import DirectionAgreement
        >>> FlightRecorder(signals=[DirectionAgreement()], images=64, every_n_steps=100).analysis
        'flight_recorder'
    """

    needs = ("network", "inference_domain", "evaluation_attack")

    def __init__(
        self,
        signals: list[Signal] | None = None,
        images: int | None = None,
        attack: Attack | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figures_every_n_looks: int = 10,
        **parts: Unpack[ImageParts],
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps, figures_every_n_looks, **parts)
        self.check_positive(images=images)
        self.signals = [kind() for kind in DEFAULT] if signals is None else list(map(Signal.from_config, signals))
        kinds = [type(signal).__name__ for signal in self.signals]
        if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
            raise UsageError(f"{self.analysis}.signals has {twice[0]} twice: its numbers would have one name.")
        self.images = images
        self.attack = None if attack is None else Attack.from_config(attack)
        self._batch: ImageBatch | None = None

    def prepare(self, trainer: Trainer, module: ObservedModule) -> None:
        """Take the images, and check the attack and the signals.

        Raises:
            UsageError: There are no such images, or something cannot be measured.
        """
        check_ball(self.attack_of(module), f"{self.analysis}.attack")
        # One batch, which the first process reads and gives to all: so what is no mean over images is exact, too.
        taken = self.take_images(trainer, module, images=self.images, default=IMAGES, batch_size=2**31)
        self._batch = trainer.strategy.broadcast(taken.batches[0] if taken.batches else None)
        with trainer.precision_plugin.forward_context(), torch.compiler.set_stance("force_eager"):
            probe = self._probe(module)
            for signal in self.signals:
                signal.check(probe)

    def observe(self, trainer: Trainer, module: ObservedModule) -> Iterator[Record]:
        """Measure every signal; what is not finite is left out."""
        probe, domain = self._probe(module), headline_domain(module)
        for records in (accuracies(probe), *(signal.measure(probe) for signal in self.signals)):
            for record in records:
                if math.isfinite(record.value):
                    yield record._replace(domain=record.domain or domain)

    def draw(self, rows: Sequence[Row]) -> Mapping[str, Figure]:
        """Draw every signal of the whole network over the looks, below the accuracies."""
        return {"signals": plot_signals(rows)}

    def release(self) -> None:
        """Let go of the images."""
        self._batch = None

    def _probe(self, module: ObservedModule) -> Probe:
        batch = cast(ImageBatch, self._batch)
        x, y, _ = batch.to(module.device)
        return Probe(through(module.network, module.inference_domain), x, y, self.attack_of(module), batch.seed)
