"""The signals of the flight recorder: each measures a network on images and adversarial examples that all share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from lightning_adv.analysis.local_response import response_layers
from lightning_adv.analysis.signals import (
    calibration_error,
    dead_units,
    elle,
    gradient_alignment,
    gradient_moments,
    gradient_noise,
    input_gradient_norm,
    largest_hessian_eigenvalue,
    layer_similarity,
    loss_along_line,
    perturbation_cosine,
    relu_layers,
)
from lightning_adv.attacks import FGSM, Attack, held_still
from lightning_adv.attacks.balls import Ball
from lightning_adv.callbacks.layer_selection import LayerSelection
from lightning_adv.core.errors import UsageError
from lightning_adv.core.recipe import Recipe
from lightning_adv.core.seeds import derive_seed
from lightning_adv.core.table import Record
from lightning_adv.nn.batchnorm import without_domain
from lightning_adv.nn.blocks import split_blocks
from lightning_adv.nn.layers import named_layers

BATCH_SIZE = 128


class Probe:
    """What the signals of one look are measured on. What several of them need is computed once, when one asks for it.

    Args:
        network: Maps images (N, C, H, W) in [0, 1] to logits (N, K), through the BatchNorms that it predicts with.
        x: Images (N, C, H, W) in [0, 1].
        y: Labels (N,).
        attack: The strong attack, with a norm and a radius.
        seed: Of all that is random: the same at each look.
        batch_size: Images that are looked at together.

    Raises:
        UsageError: The attack stays in no ball of a norm.
    """

    def __init__(
        self, network: nn.Module, x: Tensor, y: Tensor, attack: Attack, seed: int, batch_size: int = BATCH_SIZE
    ) -> None:
        check_ball(attack, "attack")
        self.network, self.x, self.y = network, x, y
        self.attack, self.batch_size = attack, batch_size
        self._seed = seed

    @property
    def norm(self) -> Ball:
        """The norm of the ball that the attack stays in."""
        return cast(Ball, self.attack.ball)

    @property
    def eps(self) -> float:
        """The radius of that ball."""
        return cast(float, self.attack.radius)

    @cached_property
    def x_adv(self) -> Tensor:
        """The strong attack's examples (N, C, H, W)."""
        return self._attacked(self.attack)

    @cached_property
    def x_fgsm(self) -> Tensor:
        """The examples (N, C, H, W) of one step of length eps."""
        fgsm = FGSM(self.eps, norm=self.norm, label=self.attack.label, batchnorm=self.attack.batchnorm)
        return self._attacked(fgsm)

    @cached_property
    def logits(self) -> Tensor:
        """Logits (N, K) of the images."""
        return self.predict(self.x)

    @cached_property
    def adversarial_logits(self) -> Tensor:
        """Logits (N, K) of the strong attack's examples."""
        return self.predict(self.x_adv)

    def predict(self, images: Tensor) -> Tensor:
        """Return logits (n, K) of images (n, C, H, W), with the network in eval mode, which is left as it was."""
        with held_still(self.network) as still, torch.no_grad():
            return torch.cat([still(part) for part in torch.split(images, self.batch_size)])

    def generator(self, name: str) -> torch.Generator:
        """Return a source of randomness, the same at each look and on each process."""
        return torch.Generator(self.x.device).manual_seed(derive_seed(self._seed, "flight recorder", name))

    def _attacked(self, attack: Attack) -> Tensor:
        noise = self.generator(type(attack).__name__)
        parts = zip(*(torch.split(each, self.batch_size) for each in (self.x, self.y)), strict=True)
        return torch.cat([attack(self.network, x, y, generator=noise) for x, y in parts])


def check_ball(attack: Attack, argument: str) -> None:
    """Check that an attack stays in a ball of a norm.

    Raises:
        UsageError: It does not.
    """
    if attack.ball is None or attack.radius is None:
        raise UsageError(
            f"{argument} must stay in a ball of a norm, whose eps the signals take; {type(attack).__name__} does not."
        )


class Signal(Recipe, ABC):
    """Something that may tell of a collapse before it comes. A subclass writes :meth:`measure`.

    ``measure`` is called on every process with the same network and images, and leaves the network as it was. What it
    draws it draws from ``probe.generator``.

    Example:
        >>> class Confidence(Signal):
        ...     def measure(self, probe):
        ...         yield Record("", "", "confidence", probe.logits.softmax(1).amax(1).mean().item())
    """

    @abstractmethod
    def measure(self, probe: Probe) -> Iterable[Record]:
        """Return numbers: ``Record(layer, "", statistic, value)``, with an empty layer for the whole network.

        A number that cannot be told is left out, or not finite, which is left out too.
        """

    def check(self, probe: Probe) -> None:
        """Check before training that it can be measured, without attacking yet. Override it.

        Raises:
            UsageError: It cannot.
        """


class InputGradientNorm(Signal):
    """How steep the loss is: the mean L2 norm of its gradient to an image."""

    def measure(self, probe: Probe) -> Iterator[Record]:
        """Return ``input_gradient_norm``, in nats per unit of the images."""
        yield _mean(
            "input_gradient_norm", input_gradient_norm(probe.network, probe.x, probe.y, batch_size=probe.batch_size)
        )


class GradientAlignment(Signal):
    """The cosine of the loss's gradients at an image and beside it, as GradAlign measures it."""

    def measure(self, probe: Probe) -> Iterator[Record]:
        """Return ``gradient_alignment``, the mean over the images."""
        found = gradient_alignment(
            probe.network, probe.x, probe.y, probe.eps, generator=probe.generator("gradient_alignment"),
            norm=probe.norm, batch_size=probe.batch_size,
        )  # fmt: skip
        yield _mean("gradient_alignment", found)


class LocalLinearity(Signal):
    """The squared error of linear interpolation of the loss in the ball, as ELLE measures it."""

    def measure(self, probe: Probe) -> Iterator[Record]:
        """Return ``elle``, the mean over the images, in nats²."""
        found = elle(
            probe.network, probe.x, probe.y, probe.eps, generator=probe.generator("elle"), norm=probe.norm,
            batch_size=probe.batch_size,
        )  # fmt: skip
        yield _mean("elle", found)


class DirectionAgreement(Signal):
    """The cosine of the perturbations of FGSM and of the strong attack."""

    def measure(self, probe: Probe) -> Iterator[Record]:
        """Return ``direction_agreement``, the mean over the images."""
        yield _mean("direction_agreement", perturbation_cosine(probe.x, probe.x_fgsm, probe.x_adv))


class LossAlongLine(Signal):
    """What the loss does on the way from an image to its example by FGSM.

    Args:
        points: Points of the line, both ends included; at least 3.
    """

    def __init__(self, points: int = 9) -> None:
        self.points = points

    def measure(self, probe: Probe) -> Iterator[Record]:
        """Return ``loss_line_distortion``, ``loss_line_peaks_inside`` and ``loss_line_excess``.

        Distortion is the share of images that are misclassified on the way among those that are not at the ends;
        ``peaks_inside`` the share of those whose loss is largest on the way; ``excess`` by how many nats it is so, on
        average.
        """
        line = loss_along_line(
            probe.network, probe.x, probe.x_fgsm, probe.y, points=self.points, batch_size=probe.batch_size
        )
        yield _mean("loss_line_distortion", line.distorted[line.withstood])
        yield _mean("loss_line_peaks_inside", line.peaks_inside)
        yield _mean("loss_line_excess", line.excess)


class GradientNoise(Signal):
    """The gradient of the loss to the weights at the strong attack's examples, and how much of it is noise.

    Args:
        micro_batch: Images of a micro-batch, by which the noise is told; of few images it is half of them.
    """

    def __init__(self, micro_batch: int = 16) -> None:
        self.micro_batch = micro_batch

    def measure(self, probe: Probe) -> Iterator[Record]:
        """Return ``gradient_norm`` and ``gradient_noise_scale`` (in images), which is missing where it is infinite."""
        size = min(self.micro_batch, len(probe.x) // 2)
        if size > 0:
            found = gradient_noise(gradient_moments(probe.network, probe.x_adv, probe.y, micro_batch=size))
            yield Record("", "", "gradient_norm", found.norm)
            yield Record("", "", "gradient_noise_scale", found.noise_scale)


class HessianEigenvalue(Signal):
    """How sharply the loss curves over the weights, at the strong attack's examples. It costs more than all others.

    Args:
        images: How many of the images to take.
        max_products: About how many products with the Hessian to spend, each about seven forward passes.
    """

    def __init__(self, images: int = 32, max_products: int = 100) -> None:
        self.images = images
        self.max_products = max_products

    def measure(self, probe: Probe) -> Iterator[Record]:
        """Return ``largest_hessian_eigenvalue``; it is missing where the iteration does not end in time."""
        value = largest_hessian_eigenvalue(
            probe.network, probe.x_adv[: self.images], probe.y[: self.images],
            generator=probe.generator("hessian"), max_products=self.max_products,
        )  # fmt: skip
        yield Record("", "", "largest_hessian_eigenvalue", value)


class DeadUnits(Signal):
    """The share of channels behind a ReLU that are zero for all images; missing in a network without ReLUs."""

    def measure(self, probe: Probe) -> Iterator[Record]:
        """Return ``dead_units`` of each layer and of all layers together."""
        if not relu_layers(probe.network):
            return
        dead = dead_units(probe.network, probe.x, batch_size=probe.batch_size)
        yield _mean("dead_units", torch.cat(list(dead.values())).double())
        for name, units in dead.items():
            yield _mean("dead_units", units.double())._replace(name=name)


class CleanAdversarialSimilarity(Signal):
    """How similar the layers' outputs for images and for the strong attack's examples are, by linear CKA without bias.

    Args:
        layers: Patterns of modules' names; None takes those of
            :func:`~lightning_adv.analysis.response_layers`, of a network of a single block none.
    """

    def __init__(self, layers: str | Sequence[str] | None = None) -> None:
        self.layers = layers

    def check(self, probe: Probe) -> None:
        """Find the layers.

        Raises:
            UsageError: There are no such layers.
        """
        self._found(probe)

    def measure(self, probe: Probe) -> Iterator[Record]:
        """Return ``cka`` of each layer, and ``lowest_cka`` of all."""
        if len(probe.x) < 4 or not (layers := self._found(probe)):
            return
        found = layer_similarity(probe.network, probe.x, probe.x_adv, layers, batch_size=max(4, probe.batch_size))
        for name, similarity in found.items():
            yield Record(name, "", "cka", similarity.cka)
        yield Record("", "", "lowest_cka", min(similarity.cka for similarity in found.values()))

    def _found(self, probe: Probe) -> dict[str, nn.Module]:
        network, shape = without_domain(probe.network)[0], tuple(probe.x.shape[1:])
        if self.layers is not None:
            return LayerSelection(self.layers, "clean_adversarial_similarity.layers").among(named_layers(network))
        return response_layers(network, shape) if len(split_blocks(network, shape)) > 1 else {}


class Calibration(Signal):
    """How far confidence is from accuracy: the expected calibration error, clean and under the strong attack.

    Args:
        bins: Number of bins of confidence.
    """

    def __init__(self, bins: int = 15) -> None:
        self.bins = bins

    def measure(self, probe: Probe) -> Iterator[Record]:
        """Return ``clean_calibration_error`` and ``robust_calibration_error``."""
        for kind, logits in (("clean", probe.logits), ("robust", probe.adversarial_logits)):
            error = calibration_error(logits, probe.y, bins=self.bins)
            yield Record("", "", f"{kind}_calibration_error", error)


def accuracies(probe: Probe) -> Iterator[Record]:
    """Yield ``clean_accuracy``, ``fgsm_accuracy`` and ``robust_accuracy``, which every look has."""
    found = {"clean": probe.logits, "fgsm": probe.predict(probe.x_fgsm), "robust": probe.adversarial_logits}
    for kind, logits in found.items():
        yield _mean(f"{kind}_accuracy", logits.argmax(1) == probe.y)


def _mean(statistic: str, values: Tensor) -> Record:
    """Return the mean over images, of those that have a number."""
    known = values[torch.isfinite(values)].cpu().double()
    return Record("", "", statistic, known.mean().item() if len(known) else float("nan"))
