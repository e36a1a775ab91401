"""Feature vectors behind the blocks of a network: of clean images and of their adversarial examples, at random places.

Siddiqui, Breuel, "Identifying Layers Susceptible to Adversarial Attacks" (2021), section 6: a vector z in R^C is what
the C channels of a layer give at one place of an image; "100 random samples from each of 1000 different images", behind
the blocks m1 to m4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_adv.analysis.local_response import local_responses, response_layers
from lightning_adv.attacks import held_still
from lightning_adv.core.errors import UsageError
from lightning_adv.core.seeds import derive_seed
from lightning_adv.nn.layers import named_layers, select_layers
from lightning_adv.nn.trace import channels_last

MOST_BLOCKS = 4
"""A network of more blocks than the paper's four has as many layers taken, at even distances."""


class FeatureVectors(NamedTuple):
    """What one layer gives at the same places of clean images and of their adversarial examples.

    Attributes:
        clean: Vectors (n, C) of the clean images.
        adversarial: Vectors (n, C) of the adversarial examples, in the same order.
        image: Number (n,) of the image that each is of.
    """

    clean: Tensor
    adversarial: Tensor
    image: Tensor


def feature_layers(
    network: nn.Module,
    image_shape: Sequence[int],
    patterns: str | Sequence[str] | None = None,
    *,
    argument: str = "layers",
) -> dict[str, nn.Module]:
    """Return the layers whose features are looked at: those behind the blocks m1, m2, ..., or others by name.

    ``m1``, ``m2``, ... are the ends of the blocks that :func:`~lightning_adv.nn.blocks.split_blocks` finds between the
    stem m0 and the head: in a ResNet or VGG the four stages, in a ViT or another network of tokens its transformer
    blocks. Of more than four blocks, four are taken at even distances, the last one among them: of a ViT's twelve m3,
    m6, m9 and m12, which ends with the norm behind it.

    Args:
        network: A classifier of images (N, C, H, W). It runs on black images, and is left as it was.
        image_shape: Shape (C, H, W) of the images.
        patterns: Names of modules in which ``*`` stands for anything without a dot; None takes the blocks.
        argument: What an error calls the patterns.

    Raises:
        UsageError: A pattern matches no layer, a layer gives out no features, or the network has no block behind its
            stem.

    Example:
        >>> from torchvision.models import resnet18
        >>> list(feature_layers(resnet18(), (3, 32, 32)))
        ['m1', 'm2', 'm3', 'm4']
    """
    if patterns is None:
        layers = _behind_blocks(network, image_shape, argument)
    else:
        layers = select_layers(named_layers(network), patterns, argument=argument)
    try:
        places_of(network, image_shape, layers, positions=1)
    except ValueError as error:
        raise UsageError(f"{argument}: {error}") from error
    return layers


def places_of(
    network: nn.Module, image_shape: Sequence[int], layers: Mapping[str, nn.Module], positions: int
) -> dict[str, int]:
    """Return how many vectors :func:`feature_vectors` gives of an image, by layer: at most ``positions``.

    Raises:
        UsageError: A layer does not run or gives out no features.
    """
    like = next(network.parameters())
    images = torch.zeros(2, *image_shape, device=like.device, dtype=like.dtype)
    found = feature_vectors(network, images, images, layers, positions=positions)
    return {name: len(each.image) // len(images) for name, each in found.items()}


def _behind_blocks(network: nn.Module, image_shape: Sequence[int], argument: str) -> dict[str, nn.Module]:
    try:
        ends = response_layers(network, image_shape)
    except ValueError as error:
        raise UsageError(f"{argument}: {error}") from error
    stages = [name for name in ends if name not in ("conv1", "first_conv", "layer0", "m0")]
    if not stages:
        raise UsageError(
            f"{argument}: network {type(network).__name__} has one stage, and no block m1 behind it: name the layers "
            f"to look at. There are {', '.join(named_layers(network))}."
        )
    count = min(len(stages), MOST_BLOCKS)
    taken = [stages[round(number * len(stages) / count) - 1] for number in range(1, count + 1)]
    return {f"m{name.removeprefix('layer').removeprefix('m')}": ends[name] for name in taken}


def feature_vectors(
    network: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    layers: Mapping[str, nn.Module],
    *,
    positions: int = 100,
    generator: torch.Generator | None = None,
    batch_size: int = 64,
) -> dict[str, FeatureVectors]:
    """Return what layers give at random places of images, and at the same places of their adversarial examples.

    A place is one of H × W of features (N, C, H, W), one token of (N, L, C), class tokens among them, or the only one
    of (N, C). Of a layer that runs several times in a pass, the last run counts. The places are picked batch by batch:
    the features of no more than ``batch_size`` images are there at a time.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K). It is in eval mode meanwhile, and is left as it was.
        x: Clean images (N, C, H, W), on any device.
        x_adv: Their adversarial examples (N, C, H, W).
        layers: Modules of the network by name.
        positions: How many places of each image, without repetition; all in layers that have fewer.
        generator: Draws the places, on the CPU; those of a layer do not depend on what other layers there are. None
            draws the same each time.
        batch_size: How many images at a time.

    Returns:
        For each layer its vectors, in float32 on the CPU, image after image.

    Raises:
        UsageError: There are no images or not as many of both kinds, or a layer does not run or gives out no features.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(288, 10))
        >>> x = torch.rand(5, 1, 8, 8)
        >>> feature_vectors(network, x, x, {"conv": network[0]}, positions=7)["conv"].clean.shape
        torch.Size([35, 8])
    """
    if x.shape != x_adv.shape or not len(x):
        raise UsageError(
            f"x and x_adv must be images of one shape, at least one, got {tuple(x.shape)} and {tuple(x_adv.shape)}."
        )
    if positions < 1:
        raise UsageError(f"positions must be at least 1, got {positions}.")
    drawn = torch.Generator().manual_seed(0) if generator is None else generator
    seed = int(torch.randint(2**62, (), generator=drawn))
    places = {name: torch.Generator().manual_seed(derive_seed(seed, name)) for name in layers}
    device = next((parameter.device for parameter in network.parameters()), x.device)
    parts: dict[str, list[FeatureVectors]] = {name: [] for name in layers}
    with held_still(network) as still:
        for start in range(0, len(x), batch_size):
            both = [
                local_responses(still, images[start : start + batch_size].to(device), layers) for images in (x, x_adv)
            ]
            for name in layers:
                clean, adversarial = (_as_vectors(found[name][-1], name, x) for found in both)
                picked = _pick(clean, adversarial, positions, places[name])
                parts[name].append(picked._replace(image=picked.image + start))
    return {name: join(found) for name, found in parts.items()}


def join(parts: Sequence[FeatureVectors]) -> FeatureVectors:
    """Put the vectors of several batches of images behind each other; their numbers of images stay.

    Example:
        >>> one = FeatureVectors(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([0, 0]))
        >>> join([one, one._replace(image=one.image + 1)]).image.tolist()
        [0, 0, 1, 1]
    """
    return FeatureVectors(*(torch.cat(kind) for kind in zip(*parts, strict=True)))


def thin_out(vectors: FeatureVectors, most: int, *, seed: int = 0) -> FeatureVectors:
    """Return at most so many of the pairs of vectors, as evenly over the images as can be.

    Args:
        vectors: The vectors.
        most: How many of each kind are left.
        seed: Which of an image's vectors, and which images where there are more images than that.

    Example:
        >>> zeros = torch.zeros(6, 2)
        >>> sorted(thin_out(FeatureVectors(zeros, zeros, torch.tensor([0, 0, 0, 0, 1, 1])), 4).image.tolist())
        [0, 0, 1, 1]
    """
    if len(vectors.image) <= most:
        return vectors
    order = torch.randperm(len(vectors.image), generator=torch.Generator().manual_seed(seed))
    seen: dict[int, int] = {}
    rank = torch.empty(len(order), dtype=torch.int64)  # which of its image's vectors each is
    for place, image in enumerate(vectors.image[order].tolist()):
        rank[place] = seen[image] = seen.get(image, -1) + 1
    kept = order[rank.argsort(stable=True)[:most]].sort().values
    return FeatureVectors(*(kind[kept] for kind in vectors))


def _as_vectors(features: Tensor, name: str, x: Tensor) -> Tensor:
    """Return features as vectors (N, places, C)."""
    if features.ndim == 4:
        last = channels_last(features, square=x.shape[2] == x.shape[3])
        return features.flatten(1, 2) if last else features.flatten(2).transpose(1, 2)
    if features.ndim not in (2, 3):
        raise UsageError(
            f"layer {name} must give out features (N, C, H, W), tokens (N, L, C) or vectors (N, C), got the shape "
            f"{tuple(features.shape)}."
        )
    return features if features.ndim == 3 else features[:, None]


def _pick(clean: Tensor, adversarial: Tensor, positions: int, generator: torch.Generator) -> FeatureVectors:
    """Return the vectors at random places (N, places, C) -> (n, C), with the number of their image in the batch."""
    images, places, channels = clean.shape
    chosen = torch.rand(images, places, generator=generator).argsort(1)[:, :positions]
    index = chosen[..., None].expand(-1, -1, channels)
    picked, moved = (kind.gather(1, index.to(kind.device)).flatten(0, 1).float().cpu() for kind in (clean, adversarial))
    return FeatureVectors(picked, moved, torch.arange(images).repeat_interleave(chosen.shape[1]))
