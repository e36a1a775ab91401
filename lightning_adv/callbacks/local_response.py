"""How far adversarial examples move the responses of a network's layers while it trains."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

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
from lightning_adv.callbacks.observed import ObservedModule, headline_domain, where_doubles_are
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
      and 5); of several ``sources`` with ``transferred_from_<source>_``,
    * of several ``attacks`` all of these with the attack's name in front, as in ``fgsm_total_failed`` or
      ``pgd20_transferred_from_standard_max``,

    and under the name ``""`` how many images these are. Logged are ``local_response/<layer>/max`` and
    ``local_response/<layer>/total``, through the regime's ``inference_domain``; of several attacks
    ``local_response/<layer>/<attack>_max`` and so on. The paper's tables are of test images: ``split: test``.

    Args:
        layers: Patterns of modules' names, as in ``layer*``. None takes the paper's: ``conv1``, ``layer0`` (before
            layer 1) and the ends of the stages ``layer1``, ``layer2``, ..., which other networks than ResNets have by
            other names; see :func:`~lightning_adv.analysis.local_response.response_layers`.
        images: Number of images; None takes 256, or all where there are fewer.
        attack: The attack; None takes the regime's ``evaluation_attack``.
        source: The checkpoint of another run of this package, on whose network transferred examples are made, through
            the BatchNorm domain that it predicts with. It must take the same images and tell the same number of
            classes.
        every_n_epochs: Look at the end of every this many training epochs, after validation. This is the default,
            with 1, where neither is given.
        every_n_steps: Look after every this many optimizer steps instead.
        figures_every_n_looks: Draw at the first look and then at every this many, and at the end of training.
        attacks: Several attacks by name, in the place of ``attack``, such as PGD-20 and FGSM side by side (table 4).
        sources: Several checkpoints by name, in the place of ``source``.
        **parts: ``split`` and ``max_attack_steps``, as of :class:`~lightning_adv.callbacks.ImageObserver`; ``name``,
            and where a LightningModule that is no regime has its network and images: ``network``, ``batch``, ``mean``,
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
        *,
        attacks: dict[str, Attack] | None = None,
        sources: dict[str, str] | None = None,
        **parts: Unpack[ImageParts],
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps, figures_every_n_looks, **parts)
        self.check_positive(images=images)
        self._check_several("attack", attack, attacks)
        self._check_several("source", source, sources)
        self.layers = layers
        self.images = images
        self.attack = None if attack is None else Attack.from_config(attack)
        self.attacks = None if attacks is None else {each: Attack.from_config(of) for each, of in attacks.items()}
        self.source = source
        self.sources = sources
        self._images = NO_IMAGES
        self._layers: dict[str, nn.Module] = {}
        self._networks: dict[str, nn.Module] = {}  # of the sources
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
        for name, path in (self.sources or ({} if self.source is None else {"": self.source})).items():
            argument = f"{self.analysis}.sources.{name}" if name else f"{self.analysis}.source"
            with isolate_rng():
                network = load_source(path, getattr(module, "num_classes", None), shape, argument=argument)
            self._networks[name] = network.to(cast(torch.dtype, module.dtype))

    def observe(self, trainer: Trainer, module: ObservedModule) -> list[Record]:
        """Attack the images and compare the responses, through each domain."""
        metrics = {
            _Series(domain, attack, source): LocalResponses(self._layers).to(where_doubles_are(module.device))
            for domain in module.domains or ("",)
            for attack in self.attacks or ("",)
            for source in (None, *self._networks)
        }
        for network in self._networks.values():
            network.to(module.device)
        try:
            for batch in self._images.batches:
                self._compare(module, batch, metrics)
        finally:
            for network in self._networks.values():
                network.cpu()
        return [
            Record(name, series.domain, f"{series.prefix}{statistic}", value)
            for series, metric in metrics.items()
            for name, numbers in metric.compute().items()
            for statistic, value in numbers.items()
        ]

    def headline(self, module: ObservedModule, records: Sequence[Record]) -> dict[str, float]:
        """Return the maximum and the total of each layer, in the domain of inference."""
        logged = {f"{each}_{of}" if each else of for each in self.attacks or ("",) for of in ("max", "total")}
        return {
            f"{record.name}/{record.statistic}": record.value
            for record in records
            if record.name and record.domain == self._domain and record.statistic in logged
        }

    def draw(self, rows: Sequence[Row]) -> Mapping[str, Figure]:
        """Draw the layers over training, and the last look by layer; of several attacks each apart."""
        drawn: dict[str, Figure] = {}
        for attack in self.attacks or ("",):
            own, ending = _of_attack(rows, attack, self.attacks or ()), f"_{attack}" if attack else ""
            drawn[f"curves{ending}"] = plot_responses(own, self._domain)
            drawn[f"layers{ending}"] = plot_last_responses(own)
        return drawn

    def release(self) -> None:
        """Let go of the images, the layers and the sources."""
        self._images, self._layers, self._networks = NO_IMAGES, {}, {}

    def _compare(self, module: ObservedModule, batch: ImageBatch, metrics: Mapping[_Series, LocalResponses]) -> None:
        """Take the images of one batch into the metrics. Every example is made once, from the same noise."""
        made: dict[tuple[str, str, str | None], Tensor] = {}
        for series, metric in metrics.items():
            network = through(module.network, series.domain if series.domain else None)
            x, y, noise = batch.to(module.device)
            key = (series.domain if series.source is None else "", series.attack, series.source)
            if key not in made:
                attacked = network if series.source is None else self._networks[series.source]
                made[key] = self.attack_of(module, series.attack)(attacked, x, y, generator=noise)
            metric.update(compare_responses(network, x, made[key], self._layers), y)

    def _check_several(self, argument: str, one: object, several: object) -> None:
        """Check that one thing is given or several by name, and that the names can be told apart in the table.

        Raises:
            UsageError: Both are given, there are none, or a name is no word.
        """
        key = f"{self.analysis}.{argument}s"
        if several is None:
            return
        if one is not None:
            raise UsageError(f"{self.analysis}.{argument} and {key} exclude each other: give one of them.")
        if not isinstance(several, dict) or not several:
            raise UsageError(f"{key} must be at least one {argument} by name, got {several!r}.")
        for name in several:
            if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
                raise UsageError(f"{key}: names must be of letters, digits, '_' and '-', got {name!r}.")


class _Series(NamedTuple):
    """Which examples a mean is about.

    Attributes:
        domain: The BatchNorm domain that responds, or the empty string.
        attack: The name of the attack; the empty string where there is one without a name.
        source: The network that the examples were made on; None for that which responds.
    """

    domain: str
    attack: str
    source: str | None

    @property
    def prefix(self) -> str:
        """What stands before the statistics."""
        own = f"{self.attack}_" if self.attack else ""
        if self.source is None:
            return own
        return f"{own}transferred_from_{self.source}_" if self.source else f"{own}transferred_"


def _of_attack(rows: Sequence[Row], attack: str, attacks: Iterable[str]) -> list[Row]:
    """Return the rows of one attack, without its name; a name may begin another, as fgsm does fgsm_strong."""
    prefix = f"{attack}_" if attack else ""
    longer = tuple(f"{name}_" for name in attacks if len(name) > len(attack) and name.startswith(prefix))
    own = (row for row in rows if row.statistic.startswith(prefix) and not row.statistic.startswith(longer))
    return [row._replace(statistic=row.statistic.removeprefix(prefix)) for row in own]


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


def load_source(
    path: str | Path, num_classes: int | None, image_shape: Sequence[int], *, argument: str = _SOURCE
) -> nn.Module:
    """Return the network of a run's checkpoint, in eval mode on the CPU, with the BatchNorms that it predicts with.

    With Lightning's weight averaging these are the averaged weights, which were validated.

    Args:
        path: The checkpoint that a regime of this package was saved in.
        num_classes: The number of classes that it must have.
        image_shape: The shape (C, H, W) of images that it must have been trained on.
        argument: What errors call it.

    Raises:
        UsageError: The file is not such a checkpoint, or its network is not one for these images and classes.
    """
    backbone, classes, _, content, _ = read_run(path, argument=argument)
    if classes != num_classes:
        raise UsageError(f"{argument}: {path} tells {classes} classes apart, and this run's network {num_classes}.")
    trained = content["regime"].get("image_shape")
    if backbone.in_channels != image_shape[0] or (trained is not None and tuple(trained) != tuple(image_shape)):
        theirs = f"{backbone.in_channels} channels" if trained is None else f"the shape {tuple(trained)}"
        raise UsageError(
            f"{argument}: {path} was trained on images of {theirs}, and this run's have the shape {tuple(image_shape)}."
        )
    network = load_run(path, argument=argument).network.eval().requires_grad_(False)
    if trained is None:  # a run without a data module of this package, which says what its images are
        try:
            check_shape(network, backbone.name, tuple(image_shape), "this run", classes)
        except ValueError as error:
            raise UsageError(f"{argument}: {path}: {error}") from error
    return network
