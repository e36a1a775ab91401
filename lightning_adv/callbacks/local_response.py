"""How far adversarial examples move the responses of a network's layers while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lightning_adv.analysis.local_response import (
    LocalResponses,
    compare_responses,
    local_responses,
    response_layers,
)
from lightning_adv.analysis.local_response_figures import plot_last_responses, plot_responses
from lightning_adv.attacks import Attack, held_still
from lightning_adv.callbacks.fixed_images import NO_IMAGES, ImageBatch
from lightning_adv.callbacks.image_observer import ImageObserver, ImageParts
from lightning_adv.callbacks.layer_selection import LayerSelection
from lightning_adv.callbacks.observed import ObservedModule, headline_domain
from lightning_adv.core.errors import UsageError
from lightning_adv.core.keywords import Unpack
from lightning_adv.core.table import Record, Row
from lightning_adv.nn.batchnorm import through
from lightning_adv.nn.layers import named_layers
from lightning_adv.nn.weights.runs import read_run
from lightning_adv.regimes.checks import check_shape
from lightning_adv.regimes.runs import load_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH_SIZE = 64
"""Images that are attacked at once."""

_SOURCE = "local_response.source"


class LocalResponse(ImageObserver):
    """Measures the maximum and the total difference between the responses to images and to their adversarial examples.

    "Dissecting Local Properties of Adversarial Examples" (ICLR 2022 submission, anonymous), sections 4.1 and 4.3. It
    looks at the same validation images each time, with the same attack noise, through each BatchNorm domain of the
    regime. The table has for each layer and domain the means over the images:

    * ``max`` and ``total`` (table 1, figures 5 and 9),
    * ``max_successful``, ``total_successful``, ``max_failed`` and ``total_failed``: of the images that are classified
      correctly, those whose adversarial examples are not, and the others (tables 2 and 4),
    * with ``source`` the same with ``transferred_`` in front, for examples that were made on that network (tables 3
      and 5),

    and under the name ``""`` how many images these are. Logged are ``local_response/<layer>/max`` and
    ``local_response/<layer>/total``, through the regime's ``inference_domain``.

    Args:
        layers: Patterns of modules' names, as in ``layer*``. None takes the paper's: ``conv1``, ``layer0`` (before
            layer 1) and the ends of the stages ``layer1``, ``layer2``, ..., which other networks than ResNets have by
            other names; see :func:`~lightning_adv.analysis.local_response.response_layers`.
        images: Number of validation images; None takes 256, or all where there are fewer.
        attack: The attack; None takes the regime's ``evaluation_attack``.
        source: The checkpoint of another run of this package, on whose network transferred examples are made, through
            the BatchNorm domain that it predicts with. It must take the same images and tell the same number of
            classes.
        every_n_epochs: Look at the end of every this many training epochs, after validation. This is the default,
            with 1, where neither is given.
        every_n_steps: Look after every this many optimizer steps instead.
        figures_every_n_looks: Draw at the first look and then at every this many, and at the end of training.
        **parts: Where a LightningModule that is no regime has its network and images: ``network``, ``batch``, ``mean``,
            ``std`` and ``evaluation_attack``, as of :class:`~lightning_adv.callbacks.Observer`.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> LocalResponse(layers="layer*", images=128).images
        128
    """

    analysis = "local_response"

    def __init__(
        self,
        layers: str | Sequence[str] | None = None,
        images: int | None = None,
        attack: Attack | None = None,
        source: str | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figures_every_n_looks: int = 10,
        **parts: Unpack[ImageParts],
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps, figures_every_n_looks, **parts)
        self.check_positive(images=images)
        self.layers = layers
        self.images = images
        self.attack = None if attack is None else Attack.from_config(attack)
        self.source = source
        self._images = NO_IMAGES
        self._layers: dict[str, nn.Module] = {}
        self._source_network: nn.Module | None = None
        self._domain = ""

    def prepare(self, trainer: Trainer, module: ObservedModule) -> None:
        """Take the images, find the layers and load the source.

        Raises:
            UsageError: There are no such images or layers, or the source is not a network for these images.
        """
        self._images = self.take_images(trainer, module, images=self.images, batch_size=BATCH_SIZE)
        self._domain = headline_domain(module)
        batches = self._images.batches  # the first process has one, others may have none
        shape = trainer.strategy.broadcast(tuple(batches[0].x.shape[1:]) if batches else ())
        selection = LayerSelection(self.layers, f"{self.analysis}.layers")
        with trainer.precision_plugin.forward_context(), torch.compiler.set_stance("force_eager"):
            self._layers = find_layers(module.network, selection, shape)
        if self.source is not None:
            with isolate_rng():
                network = load_source(self.source, getattr(module, "num_classes", None), shape)
            self._source_network = network.to(cast(torch.dtype, module.dtype))

    def observe(self, trainer: Trainer, module: ObservedModule) -> list[Record]:
        """Attack the images and compare the responses, through each domain."""
        attack = self.attack_of(module)
        metrics = {
            (domain, prefix): LocalResponses(self._layers).to(_doubles(module.device))
            for domain in module.domains or ("",)
            for prefix in ("", "transferred_")[: 1 if self._source_network is None else 2]
        }
        if self._source_network is not None:
            self._source_network.to(module.device)
        try:
            for batch in self._images.batches:
                self._compare(module, attack, batch, metrics)
        finally:
            if self._source_network is not None:
                self._source_network.cpu()
        return [
            Record(name, domain, f"{prefix}{statistic}", value)
            for (domain, prefix), metric in metrics.items()
            for name, numbers in metric.compute().items()
            for statistic, value in numbers.items()
        ]

    def headline(self, module: ObservedModule, records: Sequence[Record]) -> dict[str, float]:
        """Return the maximum and the total of each layer, in the domain of inference."""
        return {
            f"{record.name}/{record.statistic}": record.value
            for record in records
            if record.name and record.domain == self._domain and record.statistic in ("max", "total")
        }

    def draw(self, rows: Sequence[Row]) -> Mapping[str, Figure]:
        """Draw the layers over training, and the last look by layer."""
        return {"curves": plot_responses(rows, self._domain), "layers": plot_last_responses(rows)}

    def release(self) -> None:
        """Let go of the images, the layers and the source."""
        self._images, self._layers, self._source_network = NO_IMAGES, {}, None

    def _compare(
        self,
        module: ObservedModule,
        attack: Attack,
        batch: ImageBatch,
        metrics: Mapping[tuple[str, str], LocalResponses],
    ) -> None:
        """Take the images of one batch into the metrics."""
        transferred: Tensor | None = None
        if self._source_network is not None:
            x, y, noise = batch.to(module.device)
            transferred = attack(self._source_network, x, y, generator=noise)
        for (domain, prefix), metric in metrics.items():
            network = through(module.network, domain if domain else None)
            x, y, noise = batch.to(module.device)
            x_adv = transferred if prefix and transferred is not None else attack(network, x, y, generator=noise)
            metric.update(compare_responses(network, x, x_adv, self._layers), y)


def find_layers(network: nn.Module, selection: LayerSelection, image_shape: Sequence[int]) -> dict[str, nn.Module]:
    """Return the layers to look at, each of which has one response to an image (C, H, W); by default the paper's.

    Raises:
        UsageError: There are none, or one has not.
    """
    candidates = response_layers(network, image_shape) if selection.patterns is None else named_layers(network)
    layers = selection.among(candidates)
    like = next(network.parameters())
    images = torch.zeros(2, *image_shape, device=like.device, dtype=like.dtype)
    try:
        with held_still(network) as still:
            local_responses(still, images, layers)
    except ValueError as error:
        raise UsageError(f"{selection.key}: {error}") from error
    return layers


def load_source(path: str | Path, num_classes: int | None, image_shape: Sequence[int]) -> nn.Module:
    """Return the network of a run's checkpoint, in eval mode on the CPU, with the BatchNorms that it predicts with.

    With Lightning's weight averaging these are the averaged weights, which were validated.

    Args:
        path: The checkpoint that a regime of this package was saved in.
        num_classes: The number of classes that it must have.
        image_shape: The shape (C, H, W) of images that it must have been trained on.

    Raises:
        UsageError: The file is not such a checkpoint, or its network is not one for these images and classes.
    """
    backbone, classes, _, content, _ = read_run(path, argument=_SOURCE)
    if classes != num_classes:
        raise UsageError(f"{_SOURCE}: {path} tells {classes} classes apart, and this run's network {num_classes}.")
    trained = content["regime"].get("image_shape")
    if backbone.in_channels != image_shape[0] or (trained is not None and tuple(trained) != tuple(image_shape)):
        theirs = f"{backbone.in_channels} channels" if trained is None else f"the shape {tuple(trained)}"
        raise UsageError(
            f"{_SOURCE}: {path} was trained on images of {theirs}, and this run's have the shape {tuple(image_shape)}."
        )
    network = load_run(path, argument=_SOURCE).network.eval().requires_grad_(False)
    if trained is None:  # a run without a data module of this package, which says what its images are
        try:
            check_shape(network, backbone.name, tuple(image_shape), "this run", classes)
        except ValueError as error:
            raise UsageError(f"{_SOURCE}: {path}: {error}") from error
    return network


def _doubles(device: torch.device) -> torch.device:
    """Return where to sum in double precision: on the device, or beside Apple's, which has none."""
    return torch.device("cpu") if device.type == "mps" else device
