"""How far apart the features of clean images and of adversarial examples are while a network trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Trainer
from torch import nn

from lightning_adv.analysis.features.distributions import (
    FOLDS,
    Estimate,
    check_perplexity,
    energy_distance,
    joint_map,
    separability,
)
from lightning_adv.analysis.features.distributions_figures import plot_distributions, plot_feature_curves
from lightning_adv.analysis.features.vectors import (
    FeatureVectors,
    feature_layers,
    feature_vectors,
    join,
    places_of,
    thin_out,
)
from lightning_adv.attacks import Attack
from lightning_adv.callbacks.fixed_images import NO_IMAGES
from lightning_adv.callbacks.image_observer import ImageObserver, ImageParts
from lightning_adv.callbacks.observed import ObservedModule, headline_domain
from lightning_adv.core.errors import UsageError
from lightning_adv.core.keywords import Unpack
from lightning_adv.core.table import Record, Row
from lightning_adv.nn.batchnorm import through

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH_SIZE = 64
"""Images that are attacked at once."""


class FeatureDistributions(ImageObserver):
    """Measures how far the features of adversarial examples are from those of clean images, behind each block.

    Siddiqui, Breuel, "Identifying Layers Susceptible to Adversarial Attacks" (2021), section 6. It looks at the same
    validation images each time, at the same random places of their features, with the same attack noise, through each
    BatchNorm domain of the regime. The table has for each block and domain

    * ``separability``: how often a linear classifier tells adversarial vectors from clean ones, of images that it has
      not seen; 0.5 is chance,
    * ``energy_distance`` in R^C, and ``energy_share``, from 0 (one distribution) to 1,

    each with the ends of its 95 % interval over images, ``..._low`` and ``..._high``. Logged are
    ``feature_distributions/<block>/separability`` and ``feature_distributions/<block>/energy_share``, through the
    regime's ``inference_domain``. Now and then, as ``figures_every_n_looks`` says, it draws the t-SNE of figure 8 with
    the densities and their overlap: that takes seconds, the numbers do not.

    Args:
        layers: Patterns of modules' names, as in ``layer*``. None takes what is behind the blocks m1, m2, ...; see
            :func:`~lightning_adv.analysis.features.feature_layers`.
        images: Number of validation images, at least five; None takes 256, or all where there are fewer.
        positions: How many places of each image; all in layers that have fewer.
        attack: The attack; None takes the regime's ``evaluation_attack``.
        points: Points of the t-SNE, and of the energy distance, at most: clean and adversarial together.
        perplexity: Of the t-SNE: how many neighbours of a point count, about.
        every_n_epochs: Look at the end of every this many training epochs, after validation. This is the default,
            with 1, where neither is given.
        every_n_steps: Look after every this many optimizer steps instead.
        figures_every_n_looks: Draw at the first look and then at every this many, and at the end of training.
        **parts: ``split`` and ``max_attack_steps``, as of :class:`~lightning_adv.callbacks.ImageObserver`, and
            ``name``, ``network``, ``batch``, ``mean``, ``std`` and ``evaluation_attack``, as of
            :class:`~lightning_adv.callbacks.Observer`.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> FeatureDistributions(images=128, figures_every_n_looks=5).positions
        10
    """

    analysis = "feature_distributions"

    def __init__(
        self,
        layers: str | Sequence[str] | None = None,
        images: int | None = None,
        positions: int = 10,
        attack: Attack | None = None,
        points: int = 1000,
        perplexity: float = 30,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figures_every_n_looks: int = 10,
        **parts: Unpack[ImageParts],
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps, figures_every_n_looks, **parts)
        self.check_positive(images=images, positions=positions, points=points)
        self.layers = layers
        self.images = images
        self.positions = positions
        self.attack = None if attack is None else Attack.from_config(attack)
        self.points = points
        self.perplexity = perplexity
        self._images = NO_IMAGES
        self._layers: dict[str, nn.Module] = {}
        self._domain = ""
        self._seen: dict[str, FeatureVectors] = {}  # of the last look, for the picture

    def prepare(self, trainer: Trainer, module: ObservedModule) -> None:
        """Take the images and find the layers.

        Raises:
            UsageError: There are no such images or layers, or too few images for what is computed of them.
        """
        self._images = self.take_images(trainer, module, images=self.images, batch_size=BATCH_SIZE)
        self._domain = headline_domain(module)
        size = self._images.size
        if size < FOLDS:
            raise UsageError(f"{self.analysis}.images must be at least {FOLDS}, which are its folds, got {size}.")
        batches = self._images.batches  # the first process has one, others may have none
        shape = trainer.strategy.broadcast(tuple(batches[0].x.shape[1:]) if batches else ())
        with trainer.precision_plugin.forward_context(), torch.compiler.set_stance("force_eager"):
            self._layers = feature_layers(module.network, shape, self.layers, argument=f"{self.analysis}.layers")
            places = places_of(module.network, shape, self._layers, self.positions)
        for name, count in places.items():
            told = f"{self.analysis}.perplexity (behind {name})"
            check_perplexity(self.perplexity, size, count, self.points, argument=told)

    def observe(self, trainer: Trainer, module: ObservedModule) -> list[Record]:
        """Attack the images and compare the vectors of both kinds, through each domain."""
        records = []
        for domain in module.domains or ("",):
            vectors = self._vectors(trainer, module, domain)
            if domain == self._domain:
                self._seen = {name: thin_out(each, self.points // 2) for name, each in vectors.items()}
            for name, each in vectors.items():
                distance, share = energy_distance(thin_out(each, self.points // 2))
                found = {"separability": separability(each), "energy_distance": distance, "energy_share": share}
                records += [
                    Record(name, domain, f"{statistic}{end}", value)
                    for statistic, estimate in found.items()
                    for end, value in zip(("", "_low", "_high"), estimate, strict=True)
                ]
        return records

    def headline(self, module: ObservedModule, records: Sequence[Record]) -> dict[str, float]:
        """Return the separability and the energy distance's share of each layer, in the domain of inference."""
        return {
            f"{record.name}/{record.statistic}": record.value
            for record in records
            if record.name and record.domain == self._domain and record.statistic in ("separability", "energy_share")
        }

    def draw(self, rows: Sequence[Row]) -> Mapping[str, Figure]:
        """Draw the numbers over training, and the vectors of the last look."""
        figures = {"curves": plot_feature_curves(rows, self._domain)}
        if self._seen:  # not in a run that is resumed at its end
            maps = {
                name: joint_map(each, perplexity=self.perplexity, points=self.points)
                for name, each in self._seen.items()
            }
            last = {
                (row.name, row.statistic): row.value
                for row in rows
                if row.step == rows[-1].step and row.domain == self._domain
            }
            told = {
                name: Estimate(*(last[name, f"separability{end}"] for end in ("", "_low", "_high"))) for name in maps
            }
            network = f"epoch {rows[-1].epoch}, step {rows[-1].step}"
            figures["map"] = plot_distributions({network: maps}, {(network, name): each for name, each in told.items()})
        return figures

    def release(self) -> None:
        """Let go of the images, the layers and the vectors."""
        self._images, self._layers, self._seen = NO_IMAGES, {}, {}

    def _vectors(self, trainer: Trainer, module: ObservedModule, domain: str) -> dict[str, FeatureVectors]:
        """Return the vectors of the images of all processes, as one process would have them."""
        attack = self.attack_of(module)
        network = through(module.network, domain if domain else None)
        own: dict[int, dict[str, FeatureVectors]] = {}
        for batch in self._images.batches:
            x, y, noise = batch.to(module.device)
            x_adv = attack(network, x, y, generator=noise)
            drawn = torch.Generator().manual_seed(batch.seed)
            found = feature_vectors(network, x, x_adv, self._layers, positions=self.positions, generator=drawn)
            first = batch.index * BATCH_SIZE
            own[batch.index] = {name: each._replace(image=each.image + first) for name, each in found.items()}
        everyone = [own]
        if trainer.world_size > 1:
            everyone = [{}] * trainer.world_size
            torch.distributed.all_gather_object(everyone, own)
        batches = {index: found for each in everyone for index, found in each.items()}
        return {name: join([batches[index][name] for index in sorted(batches)]) for name in self._layers}
