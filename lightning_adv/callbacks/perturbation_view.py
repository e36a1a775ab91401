"""What adversarial perturbations of fixed images look like, and what becomes of the attacks, while a network trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_adv.analysis.images.perturbation_figures import plot_perturbations
from lightning_adv.analysis.images.perturbations import Outcomes, attack_outcomes
from lightning_adv.attacks import Attack
from lightning_adv.attacks.describe import attack_name
from lightning_adv.callbacks.fixed_images import NO_IMAGES
from lightning_adv.callbacks.image_observer import ImageObserver, ImageParts
from lightning_adv.callbacks.observed import ObservedModule, headline_domain, networks_of, where_doubles_are
from lightning_adv.core.errors import UsageError
from lightning_adv.core.keywords import Unpack
from lightning_adv.core.table import Record, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IN_COLOUR = (1, 3)


class PerturbationView(ImageObserver):
    """Shows the adversarial perturbations of a few fixed images, and counts the attacks that succeed.

    "Dissecting Local Properties of Adversarial Examples" (ICLR 2022 submission, anonymous), section 3.2, figures 3, 7
    and 8, at each look, through each BatchNorm domain. The table has

    * ``images``, ``images_successful`` and ``images_failed``: of the images that are classified correctly, those whose
      adversarial examples are not, and the others; ``success_rate`` is the share of the former among both,
    * ``largest_change`` and ``mean_change``: of all pixels, in the unit of the images.

    Logged are ``perturbation_view/success_rate`` and ``perturbation_view/mean_change``, through the regime's
    ``inference_domain``. Figure: ``examples``, the first ``shown`` images, at each drawing (the file has the last one,
    a logger of pictures all); only of grey and of RGB images.

    Args:
        images: Number of images that are attacked; None takes 64, or all where there are fewer.
        shown: Number of those in the figure.
        attack: The attack; None takes the regime's ``evaluation_attack``.
        every_n_epochs: Look at the end of every this many training epochs, after validation. This is the default,
            with 1, where neither is given.
        every_n_steps: Look after every this many optimizer steps instead.
        figures_every_n_looks: Draw at the first look and then at every this many, and at the end of training.
        **parts: ``name``, ``split`` and ``max_attack_steps``, as of :class:`~lightning_adv.callbacks.ImageObserver`,
            and where a LightningModule that is no regime has its network and images.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> PerturbationView(images=100, shown=4, split="test").shown
        4
    """

    def __init__(
        self,
        images: int | None = None,
        shown: int = 6,
        attack: Attack | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figures_every_n_looks: int = 10,
        **parts: Unpack[ImageParts],
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps, figures_every_n_looks, **parts)
        self.check_positive(images=images, shown=shown)
        if images is not None and shown > images:
            raise UsageError(f"{self.analysis}.shown is {shown}, and {self.analysis}.images only {images}.")
        self.images = images
        self.shown = shown
        self.attack = None if attack is None else Attack.from_config(attack)
        self._images = NO_IMAGES
        self._domain = ""
        self._examples: dict[str, Tensor] = {}  # of the last look, of the first images, by domain
        self._captions: dict[str, list[str]] = {}

    def prepare(self, trainer: Trainer, module: ObservedModule) -> None:
        """Take the images.

        Raises:
            UsageError: There are too few.
        """
        self._images = self.take_images(trainer, module, images=self.images, default=64)
        self._domain = headline_domain(module)

    def observe(self, trainer: Trainer, module: ObservedModule) -> list[Record]:
        """Attack the images through each domain, and tell what became of them."""
        records = [Record("", "", "images", float(self._images.size))]
        for domain, network in networks_of(module).items():
            records += self._attacked(trainer, module, network, domain)
        return records

    def headline(self, module: ObservedModule, records: Sequence[Record]) -> dict[str, float]:
        """Return how many attacks succeed and how far they go, in the domain of inference."""
        logged = ("success_rate", "mean_change")
        own = (record for record in records if record.domain == self._domain)
        return {record.statistic: record.value for record in own if record.statistic in logged}

    def draw(self, rows: Sequence[Row]) -> Mapping[str, Figure]:
        """Draw the images, their examples and the perturbations of the last look."""
        if not self._examples or next(iter(self._examples.values())).shape[1] not in _IN_COLOUR:
            return {}
        x = self._images.batches[0].x[: self.shown]
        return {"examples": plot_perturbations(x, self._examples, self._captions)}

    def release(self) -> None:
        """Let go of the images and the examples."""
        self._images, self._examples, self._captions = NO_IMAGES, {}, {}

    def _attacked(self, trainer: Trainer, module: ObservedModule, network: nn.Module, domain: str) -> list[Record]:
        """Return the numbers of one domain, and keep the examples that are shown."""
        attack = self.attack_of(module)
        sums = torch.zeros(4, dtype=torch.float64)  # successful, failed, changes of all entries, entries
        largest = torch.zeros((), dtype=torch.float64)
        for batch in self._images.batches:
            x, y, noise = batch.to(module.device)
            x_adv = attack(network, x, y, generator=noise)
            outcomes = attack_outcomes(network, x, x_adv, y)
            change = (x_adv - x).abs().double().cpu()
            sums += torch.stack([*(each.sum().cpu() for each in outcomes), change.sum(), torch.tensor(change.numel())])
            largest = torch.maximum(largest, change.amax())
            if batch.index == 0:
                name = domain or attack_name(attack)
                self._examples[name] = x_adv[: self.shown].cpu()
                self._captions[name] = _captions(y[: self.shown], outcomes)
        own = torch.cat([sums, largest[None]]).to(where_doubles_are(module.device))
        gathered = trainer.strategy.all_gather(own).view(-1, 5).cpu()  # of all processes
        successful, failed, total, entries = gathered[:, :4].sum(0).tolist()
        found = {"images_successful": successful, "images_failed": failed}
        if successful + failed:
            found["success_rate"] = successful / (successful + failed)
        found |= {"largest_change": float(gathered[:, 4].max()), "mean_change": total / entries}
        return [Record("", domain, statistic, value) for statistic, value in found.items()]


def _captions(y: Tensor, outcomes: Outcomes) -> list[str]:
    """Say of each image what became of the attack."""
    successful, failed = (each.tolist() for each in outcomes)
    found = zip(y.tolist(), successful, failed, strict=False)  # there are more outcomes than images that are shown
    return [
        f"class {label}: {'turned' if turned else 'withstood' if held else 'wrong before'}"
        for label, turned, held in found
    ]
