"""How similar a layer's representations of images and of their adversarial examples are: linear CKA.

Kornblith et al., "Similarity of neural network representations revisited" (ICML 2019), section 3, with the unbiased
estimate over batches of Nguyen et al., "Do wide and deep networks learn the same things?" (ICLR 2021), section 2. The
Hilbert-Schmidt independence criterion (HSIC) without bias is that of Song et al. (2012), equation 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_adv.analysis.local_response import receiving
from lightning_adv.analysis.signals.batches import check_pair, in_parts
from lightning_adv.attacks import held_still
from lightning_adv.attacks.forward import at_least_fp32
from lightning_adv.core.errors import UsageError

SMALLEST_BATCH = 4
"""HSIC without bias divides by n - 3."""


class Similarity(NamedTuple):
    """HSICs of two representations of the same images; those of several batches or processes add up field by field.

    Attributes:
        cross: Between the two.
        first: Of the first with itself.
        second: Of the second with itself.
    """

    cross: float
    first: float
    second: float

    @property
    def cka(self) -> float:
        """``cross / sqrt(first * second)``: 1 for equal representations, up to rotation and scale; 0 for independent.

        Without bias it may be a little below 0; it is nan where a representation is the same for all images.
        """
        product = self.first * self.second
        return self.cross / math.sqrt(product) if self.first > 0 and product > 0 else math.nan


def linear_cka(first: Tensor, second: Tensor, *, debiased: bool = False) -> float:
    """Return the linear centred kernel alignment of two representations of the same images.

    ``‖Y'X‖² / (‖X'X‖ ‖Y'Y‖)`` of centred features X and Y, with Frobenius norms. The more features and the fewer
    images, the closer to 1 it is whatever the representations; ``debiased`` puts the unbiased HSIC in its place, by
    which independent representations have 0 on average.

    Args:
        first: Features (N, ...); whatever follows the first axis is one vector.
        second: Features (N, ...), as many as there are of the first, of any other shape.
        debiased: Whether HSIC is estimated without bias.

    Returns:
        The similarity, at most 1; nan where a representation is the same for all images.

    Raises:
        UsageError: The numbers of images differ, or there are fewer than two (debiased: four).

    Example:
        >>> features = torch.randn(8, 3)
        >>> round(linear_cka(features, 2 * features.roll(1, dims=1)), 4)  # other units, another scale
        1.0
    """
    smallest = SMALLEST_BATCH if debiased else 2
    if len(first) != len(second) or len(first) < smallest:
        raise UsageError(
            f"first and second must be features of the same images, at least {smallest}, got {len(first)} and "
            f"{len(second)}."
        )
    return _similarity([_centred_gram(first)], [_centred_gram(second)], debiased).cka


def layer_similarity(
    network: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    layers: Mapping[str, nn.Module],
    *,
    debiased: bool = True,
    batch_size: int | None = 64,
) -> dict[str, Similarity]:
    """Return by layer how similar the representations of images and of their adversarial examples are.

    ``similarity.cka`` is the number; over several calls or processes the three fields are summed first. Without bias it
    does not depend on how images are split into batches but by chance; with bias it does (debiased=False is the formula
    of Kornblith et al. where one batch holds all images).

    The network is in eval mode meanwhile and is left as it was. Cost: two forward passes, and of each layer products of
    n × n entries for a batch of n images.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Clean images (N, C, H, W).
        x_adv: Their adversarial examples (N, C, H, W).
        layers: Modules of the network by name. The features of a layer that runs several times count as one vector.
        debiased: Whether HSIC is estimated without bias.
        batch_size: How many images to compare at a time; None takes all. A last batch of fewer than four is left out.

    Returns:
        Sums over batches, each weighted by its number of images, in the order of ``layers``.

    Raises:
        UsageError: There are fewer than four images, ``x_adv`` has another shape, or a layer does not run, runs more
            often for the ones than for the others, or gives out something else than a tensor (N, ...).

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> x = torch.rand(8, 1, 2, 2)
        >>> round(layer_similarity(network, x, x, {"fc": network[1]})["fc"].cka, 4)
        1.0
    """
    check_pair(x, x_adv)
    if min(len(x), len(x) if batch_size is None else batch_size) < SMALLEST_BATCH:
        raise UsageError(
            f"Similarity needs at least {SMALLEST_BATCH} images in a batch, got {len(x)} images and batch_size "
            f"{batch_size}."
        )
    sums = {name: Similarity(0.0, 0.0, 0.0) for name in layers}
    with held_still(network) as still, torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for clean, adversarial in in_parts(batch_size, x, x_adv):
            if len(clean) < SMALLEST_BATCH:
                break
            first, second = (_grams(still, images, layers) for images in (clean, adversarial))
            for name, total in sums.items():
                now = _similarity(first[name], second[name], debiased)
                sums[name] = Similarity(*(a + len(clean) * b for a, b in zip(total, now, strict=True)))
    return sums


def _grams(network: nn.Module, x: Tensor, layers: Mapping[str, nn.Module]) -> dict[str, list[Tensor]]:
    """Return of each layer, and of each of its runs, the products (n, n) of centred features."""
    grams: dict[str, list[Tensor]] = {name: [] for name in layers}
    with receiving(layers, len(x), lambda name, output: grams[name].append(_centred_gram(output))):
        network(x)
    for name, runs in grams.items():
        if not runs:
            raise UsageError(f"layer {name} does not run in a forward pass: it has no representation.")
    return grams


def _centred_gram(features: Tensor) -> Tensor:
    """Return the products (n, n) of features (n, ...) less their mean, in fp32 or more whatever autocast does."""
    with torch.autocast(features.device.type, enabled=False):
        flat = at_least_fp32(features.detach()).flatten(1)
        flat = flat - flat.mean(0)
        return flat @ flat.T


def _similarity(first: list[Tensor], second: list[Tensor], debiased: bool) -> Similarity:
    """Return the HSICs of two representations, each given by the products of its parts, which add up to its own."""
    if len(first) != len(second):
        raise UsageError(
            f"A layer runs {len(first)} times for clean images and {len(second)} times for adversarial examples."
        )
    # double precision beside the device: Apple's has none
    one, other = (torch.stack(parts).sum(0).cpu().double() for parts in (first, second))
    hsic = _unbiased_hsic if debiased else _hsic
    return Similarity(hsic(one, other), hsic(one, one), hsic(other, other))


def _hsic(first: Tensor, second: Tensor) -> float:
    """Return HSIC of centred kernels (n, n): tr(KL) / (n - 1)² (Kornblith et al., equation 3)."""
    return float((first * second).sum()) / (len(first) - 1) ** 2


def _unbiased_hsic(first: Tensor, second: Tensor) -> float:
    """Return HSIC of kernels (n, n) without bias (Song et al. 2012, equation 5; Nguyen et al. 2021, equation 3)."""
    n = len(first)
    first, second = (kernel - kernel.diag().diag() for kernel in (first, second))
    means = first.sum() * second.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (first.sum(0) @ second.sum(0))
    return float((first * second).sum() + means) / (n * (n - 3))
