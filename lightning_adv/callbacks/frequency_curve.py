"""How much of the spectrum a network needs, clean and under attack, while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Trainer

from lightning_adv.analysis.images.frequency import FILTERS, FREQUENCY_SCALE, accuracy_over_frequency
from lightning_adv.analysis.images.frequency_table import (
    frequency_records,
    plot_frequency_curves,
    plot_frequency_over_looks,
)
from lightning_adv.analysis.images.transformed_accuracy import TransformedAccuracy
from lightning_adv.analysis.images.transforms import LARGEST_RADIUS
from lightning_adv.attacks import Attack
from lightning_adv.callbacks.fixed_images import NO_IMAGES
from lightning_adv.callbacks.image_observer import ImageObserver, ImageParts
from lightning_adv.callbacks.observed import ObservedModule, headline_domain, networks_of
from lightning_adv.core.errors import UsageError
from lightning_adv.core.keywords import Unpack
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.core.table import Record, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FrequencyCurve(ImageObserver):
    """Measures the accuracy on clean and adversarial images of which only some frequencies are left.

    "Dissecting Local Properties of Adversarial Examples" (ICLR 2022 submission, anonymous), section 3.1, figures 1 and
    6, at each look. The paper finds that low frequencies of adversarial examples are classified best: a standard
    network's accuracy has a peak of 47.5 % and then falls to 0, a robust one's peak of 51.2 % ends at 47.5 %.

    The attack sees the whole images and does not know of the filter. The table has, for each BatchNorm domain, filter
    and kind of images (``clean`` or ``adversarial``), the records of
    :func:`~lightning_adv.analysis.images.frequency_table.frequency_records`, and the number of ``images``. Logged are
    ``frequency_curve/<filter>_adversarial_peak``, ``..._peak_radius`` and ``..._end``, through the regime's
    ``inference_domain``. Figures: ``curves`` (the first look, one between, the last) and ``looks`` (radius × look).

    A look costs the attack and two forward passes for each filter and radius: 32 by default.

    Args:
        images: Number of images; None takes 256, or all where there are fewer.
        attack: The attack; None takes the regime's ``evaluation_attack``.
        filters: Any of ``low_pass``, ``merged`` and ``high_pass``, as in
            :func:`~lightning_adv.analysis.images.accuracy_over_frequency`.
        radii: Radii on the frequency scale, from 0 to √2; None takes 0, 0.1, ..., 1.4 and √2.
        every_n_epochs: Look at the end of every this many training epochs, after validation. This is the default,
            with 1, where neither is given.
        every_n_steps: Look after every this many optimizer steps instead.
        figures_every_n_looks: Draw at the first look and then at every this many, and at the end of training.
        **parts: ``name``, ``split`` and ``max_attack_steps``, as of :class:`~lightning_adv.callbacks.ImageObserver`,
            and where a LightningModule that is no regime has its network and images.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> FrequencyCurve(filters=["low_pass", "high_pass"], radii=[0.5, 1.0]).radii
        [0.5, 1.0]
    """

    def __init__(
        self,
        images: int | None = None,
        attack: Attack | None = None,
        filters: list[str] = ["low_pass"],  # noqa: B006 (never written to; a list is what YAML has)
        radii: list[float] | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figures_every_n_looks: int = 10,
        **parts: Unpack[ImageParts],
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps, figures_every_n_looks, **parts)
        self.check_positive(images=images)
        unknown = [name for name in filters if name not in FILTERS]
        if unknown or not filters:
            hint = did_you_mean(unknown[0], FILTERS) if unknown else ""
            raise UsageError(
                f"{self.analysis}.filters must be at least one of {', '.join(FILTERS)}, got {filters!r}.{hint}"
            )
        outside = [radius for radius in radii or () if not 0 <= radius <= LARGEST_RADIUS]
        if outside or radii == []:
            raise UsageError(
                f"{self.analysis}.radii must be at least one number from 0 to √2, the frequency scale, got {radii!r}."
            )
        self.images = images
        self.attack = None if attack is None else Attack.from_config(attack)
        self.filters = list(dict.fromkeys(filters))
        self.radii = radii
        self._images = NO_IMAGES
        self._domain = ""

    def prepare(self, trainer: Trainer, module: ObservedModule) -> None:
        """Take the images.

        Raises:
            UsageError: There are too few.
        """
        self._images = self.take_images(trainer, module, images=self.images)
        self._domain = headline_domain(module)

    def observe(self, trainer: Trainer, module: ObservedModule) -> list[Record]:
        """Attack the images, and classify what the filters leave of them, through each domain."""
        radii = sorted(set(FREQUENCY_SCALE if self.radii is None else self.radii))
        kinds = [(name, radius, of) for name in self.filters for radius in radii for of in ("clean", "adversarial")]
        records = [Record("", "", "images", float(self._images.size))]
        for domain, network in networks_of(module).items():
            correct = torch.zeros(len(kinds), dtype=torch.int64, device=module.device)
            for batch in self._images.batches:
                x, y, noise = batch.to(module.device)
                x_adv = self.attack_of(module)(network, x, y, generator=noise)
                rows = accuracy_over_frequency(network, x, x_adv, y, radii, filters=self.filters)
                found = {row[:3]: row for row in rows}
                correct += torch.tensor([found[kind].correct for kind in kinds], device=module.device)
            whole = trainer.strategy.reduce(correct, reduce_op="sum").tolist()  # of all processes
            counts = zip(kinds, whole, strict=True)
            rows = [TransformedAccuracy(*kind, count, self._images.size) for kind, count in counts]
            records += frequency_records(rows, domain)
        return records

    def headline(self, module: ObservedModule, records: Sequence[Record]) -> dict[str, float]:
        """Return where the curves of adversarial images are highest, and where they end, in the domain of inference."""
        endings = tuple(f"adversarial_{of}" for of in ("peak", "peak_radius", "end"))
        return {
            record.statistic: record.value
            for record in records
            if record.domain == self._domain and record.statistic.endswith(endings)
        }

    def draw(self, rows: Sequence[Row]) -> Mapping[str, Figure]:
        """Draw the curves of some looks, and the accuracy by radius and look."""
        return {
            "curves": plot_frequency_curves(rows, self._domain),
            "looks": plot_frequency_over_looks(rows, self._domain),
        }

    def release(self) -> None:
        """Let go of the images."""
        self._images = NO_IMAGES
