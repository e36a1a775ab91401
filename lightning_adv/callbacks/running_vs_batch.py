"""How far the statistics of a batch are from the running statistics, while a network trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_adv.analysis import batchnorm_figures as figures
from lightning_adv.analysis.batchnorm_drift import average_over_layers, running_statistics, tracked_batchnorms
from lightning_adv.analysis.running_vs_batch import IMAGE_KINDS, BatchStatisticsMetric, batch_statistics, gap_records
from lightning_adv.attacks import Attack
from lightning_adv.callbacks.batchnorm_drift import choose_layers
from lightning_adv.callbacks.fixed_images import NO_IMAGES, split_size
from lightning_adv.callbacks.image_observer import ImageObserver, ImageParts
from lightning_adv.callbacks.observed import ObservedModule, headline_domain, networks_of
from lightning_adv.core.errors import UsageError
from lightning_adv.core.keywords import Unpack
from lightning_adv.core.table import Record, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNKNOWN_BATCH_SIZE = 128
"""The batch size where the training loader does not tell its own."""


class RunningVsBatch(ImageObserver):
    """Compares the statistics of a few fixed batches with the running statistics of every BatchNorm.

    Xie 2020 (section 6.4.2, figure 6.6) finds that in adversarial training the mean of a batch converges to the running
    mean, and its variance does not converge to the running variance on certain channels. Each look runs the same
    random mini-batches of training images, clean and under the attack that the regime trains on, through each BatchNorm
    domain, with every BatchNorm normalising as in training: by the batch, or, where the regime holds it still, by its
    running statistics.

    The table says what the gaps are: :func:`~lightning_adv.analysis.running_vs_batch.gap_records`. The loggers get
    ``bn_gap/mean`` and ``bn_gap/variance``, the relative gaps averaged over the layers, in the domain of inference, for
    the images that the regime trains this domain on: adversarial ones, unless it is the first of several or the regime
    does not attack. Where one BatchNorm sees clean and adversarial images mixed (``clean_fraction``), its running
    statistics are those of the mixture, and neither kind is without a gap. Figures: ``channels_<layer>`` (figure 6.6)
    and ``gaps`` (over the looks).

    Args:
        layers: The BatchNorms to look at: patterns as in ``layer3.**``.
        channel_layers: Those of which single channels are written down and drawn; None is the one in the middle.
        channels: How many channels of each of them; which ones follows from the layer's name.
        batches: Number of batches; the paper draws two. Processes share them, and none is split.
        batch_size: Images of each batch; None is the training loader's, as far as there are so many images.
        attack: What makes the adversarial images, through the BatchNorm mode that it has itself; None takes the attack
            that the regime trains on, at its full ``eps``, and its ``evaluation_attack`` where it trains on none.
        every_n_epochs: Look at the end of every this many training epochs, after validation. This is the default,
            with 1, where neither is given.
        every_n_steps: Look after every this many optimizer steps instead.
        figures_every_n_looks: Draw at the first look and then at every this many, and at the end of training.
        **parts: ``split`` and ``max_attack_steps``, as of :class:`~lightning_adv.callbacks.ImageObserver`; ``name``,
            and where a LightningModule that is no regime has its network and images: ``network``, ``batch``, ``mean``,
            ``std`` and ``evaluation_attack``, as of :class:`~lightning_adv.callbacks.Observer`.

    Raises:
        UsageError: An argument is out of its range.
    """

    analysis = "bn_gap"
    default_split = "training"

    def __init__(
        self,
        layers: str | list[str] = "**",
        channel_layers: str | list[str] | None = None,
        channels: int = 20,
        batches: int = 2,
        batch_size: int | None = None,
        attack: Attack | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figures_every_n_looks: int = 10,
        **parts: Unpack[ImageParts],
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps, figures_every_n_looks, **parts)
        self.check_positive(channels=channels, batches=batches, batch_size=batch_size)
        if batch_size == 1:
            raise UsageError("bn_gap.batch_size must be at least 2, got 1: one image has no statistics of a batch.")
        self.layers = layers
        self.channel_layers = channel_layers
        self.channels = channels
        self.batches = batches
        self.batch_size = batch_size
        self.attack = None if attack is None else Attack.from_config(attack)
        self._names: list[str] = []
        self._sampled: dict[str, list[int]] = {}
        self._images = NO_IMAGES

    def prepare(self, trainer: Trainer, module: ObservedModule) -> None:
        """Find the layers and take the batches.

        Raises:
            UsageError: There is no such layer, or there are too few images.
        """
        self._names, self._sampled = choose_layers(self, module)
        size = self._batch_size(trainer)
        self._images = self.take_images(trainer, module, images=self.batches * size, batch_size=size)

    def default_attack(self, module: ObservedModule) -> Attack:
        """Return the attack that the regime trains on; that of validation where it trains on none."""
        training = getattr(module, "attack", None)
        return training if isinstance(training, Attack) else module.evaluation_attack

    def observe(self, trainer: Trainer, module: ObservedModule) -> list[Record]:
        """Compare the statistics of the batches with the running statistics."""
        networks = networks_of(module)
        running = {domain: running_statistics(network, self._names) for domain, network in networks.items()}
        batches: dict[str, dict[str, dict[str, Tensor]]] = {kind: {} for kind in IMAGE_KINDS}
        for domain, network in networks.items():
            for kind, moments in self._moments(module, network).items():
                batches[kind][domain] = moments
        return gap_records(running, batches, self._sampled)

    def headline(self, module: ObservedModule, records: Sequence[Record]) -> dict[str, float]:
        """Return the relative gaps in the domain of inference, for the images that it is trained on."""
        own = headline_domain(module)
        clean = not getattr(module, "adversarial", True) or (len(module.domains) > 1 and own == module.domains[0])
        kind = "clean" if clean else "adversarial"
        return {
            name: average_over_layers(records, f"{kind}_relative_{name}_gap", [own]) for name in ("mean", "variance")
        }

    def draw(self, rows: Sequence[Row]) -> Mapping[str, Figure]:
        """Draw figure 6.6 for each layer with single channels, and the gaps over the run."""
        drawn = {
            f"channels_{layer}": figures.plot_running_against_batch(rows, layer)
            for layer in figures.channel_layers(rows)
        }
        return {**drawn, "gaps": figures.plot_gaps(rows)}

    def release(self) -> None:
        """Let go of the images."""
        self._images = NO_IMAGES

    def _moments(self, module: ObservedModule, network: nn.Module) -> dict[str, dict[str, Tensor]]:
        """Return (2, B, C) for each layer, by kind of image, from the batches of all processes."""
        attack = self.attack_of(module)
        norms = tracked_batchnorms(network, self._names)
        held = list(getattr(module, "held_in_eval", list)())
        metrics = {kind: BatchStatisticsMetric(norms, self._images.count).to(module.device) for kind in IMAGE_KINDS}
        for batch in self._images.batches:
            x, y, noise = batch.to(module.device)
            x_adv = attack(network, x, y, generator=noise)
            for kind, images in zip(IMAGE_KINDS, (x, x_adv), strict=True):
                found = batch_statistics(network, images, layers=self._names, held=held)
                metrics[kind].update(batch.index, found)
        return {kind: metric.compute() for kind, metric in metrics.items()}

    def _batch_size(self, trainer: Trainer) -> int:
        """Return the images of each batch.

        Raises:
            UsageError: There are too few.
        """
        try:
            images = split_size(trainer, self.split, self.analysis)
        except UsageError as error:
            if self.split != "training":
                raise
            raise UsageError(f"{error} Or look at validation images: {self.analysis}.split: validation.") from error
        size = self.batch_size
        if size is None:
            loader = trainer.train_dataloader
            trained = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
            size = min(UNKNOWN_BATCH_SIZE if trained is None else trained, images // self.batches)
        if size < 2 or self.batches * size > images:
            asked = f"batches of {self.batch_size} images" if self.batch_size is not None else "batches"
            raise UsageError(
                f"bn_gap.batches asks for {self.batches} {asked}, but the {self.split} set has {images} images: make "
                "bn_gap.batches or bn_gap.batch_size smaller."
            )
        return size
