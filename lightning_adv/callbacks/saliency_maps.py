"""How the saliency maps of fixed images change while a network trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_adv.analysis.features.saliency import (
    SAMPLES,
    Method,
    captum_attributions,
    check_method,
    gini,
    saliency_distances,
    saliency_maps,
    saliency_pictures,
)
from lightning_adv.analysis.features.saliency_figures import plot_saliency_numbers, plot_saliency_over_training
from lightning_adv.callbacks.fixed_images import NO_IMAGES
from lightning_adv.callbacks.image_observer import ImageObserver, ImageParts
from lightning_adv.callbacks.observed import NETWORK_AND_DOMAINS, ObservedModule, headline_domain, networks_of
from lightning_adv.core.keywords import Unpack
from lightning_adv.core.table import Record, Row, looks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH_SIZE = 4
"""Images of a batch, which is looked at by one process; those of the first are shown."""

_MOST_PICTURES = 12  # of looks, side by side


class SaliencyMaps(ImageObserver):
    """Shows to which pixels the network is sensitive, and how that changes over training.

    Zhang & Zhu, "Interpreting Adversarially Trained Convolutional Neural Networks" (ICML 2019), section 2.2. It looks
    at the same clean images each time, with the same noise, through each BatchNorm domain of the regime; maps are about
    the true class. It needs captum (``pip install 'lightning-adv[interpret]'``). The table has for each domain the
    means over the images:

    * ``gini``: how sparse the maps are (:func:`~lightning_adv.analysis.features.gini`),
    * ``l2_from_first`` and ``cosine_from_first``: how far they are from those of the first look
      (:func:`~lightning_adv.analysis.features.saliency_distances`),
    * ``l2_from_last`` and ``cosine_from_last``: how far they are from those of the look before.

    Logged are these of the regime's ``inference_domain``. The picture ``maps`` shows four of the images with their maps
    at up to thirteen looks, the picture ``numbers`` the table.

    Args:
        images: Number of images; None takes 16, or all where there are fewer.
        method: ``smooth_grad`` or ``grad``.
        samples: Noisy copies of each image in SmoothGrad: what a look costs is as many times ``images`` forward and
            backward passes of an image.
        every_n_epochs: Look at the end of every this many training epochs, after validation. This is the default,
            with 1, where neither is given.
        every_n_steps: Look after every this many optimizer steps instead.
        figures_every_n_looks: Draw at the first look and then at every this many, and at the end of training.
        **parts: ``split`` and ``name``, and where a LightningModule that is no regime has its network and images, as of
            :class:`~lightning_adv.callbacks.ImageObserver`.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> SaliencyMaps(images=8, method="grad", every_n_epochs=5).method
        'grad'
    """

    analysis = "saliency_maps"
    needs = NETWORK_AND_DOMAINS
    _first: dict[str, Tensor]
    _last: dict[str, Tensor]
    _pictures: dict[int, Tensor]

    def __init__(
        self,
        images: int | None = None,
        method: Method = "smooth_grad",
        samples: int = SAMPLES,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figures_every_n_looks: int = 10,
        **parts: Unpack[ImageParts],
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps, figures_every_n_looks, **parts)
        self.check_positive(images=images, samples=samples)
        check_method(f"{self.analysis}.method", method)
        self.images = images
        self.method: Method = method
        self.samples = samples
        self._images = NO_IMAGES
        self._domain = ""
        self._forget()

    def prepare(self, trainer: Trainer, module: ObservedModule) -> None:
        """Take the images.

        Raises:
            UsageError: There are no such images, or captum is not installed.
        """
        captum_attributions()
        self._images = self.take_images(trainer, module, images=self.images, default=16, batch_size=BATCH_SIZE)
        self._domain = headline_domain(module)
        if trainer.global_step == 0:  # else a checkpoint may have brought them
            self._forget()

    def observe(self, trainer: Trainer, module: ObservedModule) -> list[Record]:
        """Compute the maps through each domain, and compare them with those before."""
        maps = self._maps(trainer, module)
        if any(self._first[domain].shape != now.shape for domain, now in maps.items() if domain in self._first):
            self._forget()  # a resumed run looks at another number of images
        records = [record for domain, now in maps.items() for record in self._numbers(domain, now)]
        self._first = maps | self._first
        self._last = maps
        self._keep_picture(trainer.global_step - 1)
        return records

    def draw(self, rows: Sequence[Row]) -> Mapping[str, Figure]:
        """Draw the maps of the first images by look, and the numbers over training."""
        figures = {"numbers": plot_saliency_numbers(rows)}
        shown, when = self._shown(), looks(rows)
        if self._images.batches and shown.shape[1] in (1, 3):
            pictures = self._pictures | {rows[-1].step: _to_bytes(shown)}
            named = {when.at[step]: each / 255 for step, each in sorted(pictures.items()) if step in when.at}
            figures["maps"] = plot_saliency_over_training(self._images.batches[0].x, named, when.unit)
        return figures

    def release(self) -> None:
        """Let go of the images."""
        self._images = NO_IMAGES

    def state(self) -> dict[str, Any]:
        """Return the maps of the first and the last look, and the pictures of looks between."""
        pictures = {"pictures": self._pictures, "seen": self._seen, "stride": self._stride}
        return {"first": self._first, "last": self._last, **pictures}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from the looks of another run."""
        self._first, self._last, self._pictures = (dict(state[name]) for name in ("first", "last", "pictures"))
        self._seen, self._stride = state["seen"], state["stride"]

    def _forget(self) -> None:
        """Have seen nothing yet: no maps (N, C, H, W) by domain, and no pictures (n, H, W) in bytes by step."""
        self._first, self._last, self._pictures = {}, {}, {}
        self._seen, self._stride = 0, 1

    def _maps(self, trainer: Trainer, module: ObservedModule) -> dict[str, Tensor]:
        """Return the maps (N, C, H, W) of all processes' images, by domain, on the CPU."""
        found: dict[str, dict[int, Tensor]] = {domain: {} for domain in networks_of(module)}
        for domain, network in networks_of(module).items():
            for batch in self._images.batches:
                x, y, noise = batch.to(module.device)
                found[domain][batch.index] = saliency_maps(
                    self.method, network, x, y, generator=noise, samples=self.samples
                ).cpu()
        everybody = [trainer.strategy.broadcast(found, src=rank) for rank in range(trainer.world_size)]
        together = {domain: {k: each for of_one in everybody for k, each in of_one[domain].items()} for domain in found}
        return {domain: torch.cat([parts[index] for index in sorted(parts)]) for domain, parts in together.items()}

    def _numbers(self, domain: str, now: Tensor) -> Iterator[Record]:
        """Return the means of one domain; of maps of zeros there are no numbers."""
        values = {"gini": gini(now)}
        for which, before in (("first", self._first), ("last", self._last)):
            if domain in before:
                for name, distances in saliency_distances(now, before[domain])._asdict().items():
                    values[f"{name}_from_{which}"] = distances
        for statistic, each in values.items():
            if not each.isnan().all():
                yield Record("", domain, statistic, float(each.nanmean()))

    def _shown(self) -> Tensor:
        """Return the maps that are drawn, in the domain of inference."""
        return self._last[self._domain][:BATCH_SIZE]

    def _keep_picture(self, step: int) -> None:
        """Keep the pictures of every so many looks, so that a long run has as many as a short one."""
        if self._seen % self._stride == 0:
            self._pictures[step] = _to_bytes(self._shown())
        self._seen += 1
        if len(self._pictures) > _MOST_PICTURES:
            self._stride *= 2
            self._pictures = dict(list(self._pictures.items())[::2])


def _to_bytes(maps: Tensor) -> Tensor:
    """Return pictures of maps as bytes: a checkpoint has many of them."""
    return (255 * saliency_pictures(maps)).round().to(torch.uint8)
