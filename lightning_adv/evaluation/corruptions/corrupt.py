"""The 15 common corruptions of images, seeded.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (ICLR 2019),
section 4.1. What they do to a network is in :mod:`~lightning_adv.evaluation.corruptions.errors`.

**Regenerated.** The images are made here, so they are not the published files of ImageNet-C and CIFAR-10-C, and results
on them must not stand in one column with results on those. Two families of constants:

- ``imagenet``: the library ``imagecorruptions`` (of the package imagecorruptions-imaug), called as it is. Its constants
  are ImageNet-C's, meant for 224×224 pixels, except for the elastic transform, which has others and no affine map. It
  cuts zoomed images (zoom blur, snow) at one corner and not around the middle, enlarges the pictures of frost by a
  tenth and takes all six, and the published files were stored as JPEG of quality 85 after all (the authors'
  ``make_imagenet_c.py``).
- ``cifar``: CIFAR-10-C's constants, see :mod:`~lightning_adv.evaluation.corruptions.cifar`.

``auto`` takes ``cifar`` for images whose longer side has at most 64 pixels, and ``imagenet`` for others. At 64×64 the
images are not those of Tiny ImageNet-C, which has constants of its own.

**Seeds.** What happens to an image depends on the seed, the corruption, the severity and the image's index, and on
nothing else: not on its batch, nor on how a data set is divided among processes.

**Bits.** The corruptions work on images of 8 bits. Values in between are rounded to those first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lightning_adv.analysis.images.transforms import check_image_batch
from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.evaluation.corruptions.blurs import Picture, evaluation_library
from lightning_adv.evaluation.corruptions.cifar import SMALLEST, cifar_corrupt

Family: TypeAlias = Literal["auto", "cifar", "imagenet"]
"""Whose constants."""

GROUPS: Mapping[str, Sequence[str]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""The corruptions in the order and the groups of the paper's table 1."""

CORRUPTIONS: Sequence[str] = tuple(name for names in GROUPS.values() for name in names)
"""All 15."""

SEVERITIES: Sequence[int] = (1, 2, 3, 4, 5)

_LARGEST_CIFAR = 64
_SMALLEST_IMAGENET = 32  # the library's own limit


def corrupt(
    x: Tensor, name: str, severity: int, *, seed: int, index: int | Sequence[int] = 0, family: Family = "auto"
) -> Tensor:
    """Corrupt images.

    No global random state is drawn from or changed, except numba's, which the library seeds for glass blur.

    Args:
        x: Images (N, C, H, W) in [0, 1] with one or three channels. Grey images are corrupted as three equal channels,
            of which the second, nearest to luminance, is returned: a mean of them would have less noise.
        name: One of :data:`CORRUPTIONS`.
        severity: 1 to 5.
        seed: From 0.
        index: Where each image stands in its data set: the index of the first, with the others behind it, or all of
            them.
        family: Whose constants; see above. ``cifar`` needs 8 × 8 pixels, ``imagenet`` 32 × 32.

    Returns:
        Images like ``x``, multiples of 1/255.

    Raises:
        UsageError: ``x`` are no images in [0, 1] with one or three channels or are too small, or there is no such
            corruption, severity, seed, index or family.
        ImportError: The extra ``eval`` is not installed.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 32, 32)
        >>> darker = corrupt(x, "contrast", severity=5, seed=0)
        >>> darker.shape, bool(darker.std() < x.std())
        (torch.Size([2, 3, 32, 32]), True)
    """
    check_image_batch(x)
    check_corruptions([name], [severity])
    indices = image_indices(index, len(x))
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"seed must be a whole number from 0, got {seed!r}.")
    one = _imagenet_corrupt if family_of(x, family) == "imagenet" else _cifar_corrupt
    precise = torch.promote_types(x.dtype, torch.float32)
    pictures = (255 * x.detach().cpu().to(precise)).round().to(torch.uint8)
    pictures = pictures.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()
    corrupted = torch.empty_like(pictures)
    for number, picture in enumerate(pictures.numpy()):
        # A copy: a result may be a view that cannot be written to, which torch warns of.
        corrupted[number] = torch.from_numpy(one(picture, name, severity, (seed, indices[number])).copy())
    channels = corrupted if x.shape[1] == 3 else corrupted[..., 1:2]
    # Divided here and not on the device, where the last bit may be another one.
    return (channels.permute(0, 3, 1, 2).to(precise) / 255).to(x)


def family_of(x: Tensor, family: Family = "auto") -> Literal["cifar", "imagenet"]:
    """Return whose constants corrupt images (N, C, H, W).

    Raises:
        UsageError: There is no such family, or it does not take images of this shape.
    """
    channels, height, width = x.shape[1:]
    if channels not in (1, 3):
        raise UsageError(f"x must have one or three channels to be corrupted, got {channels}.")
    if family == "auto":
        family = "cifar" if max(height, width) <= _LARGEST_CIFAR else "imagenet"
    if family not in ("cifar", "imagenet"):
        raise UsageError(f"family must be 'auto', 'cifar' or 'imagenet', got {family!r}.")
    smallest = SMALLEST if family == "cifar" else _SMALLEST_IMAGENET
    if min(height, width) < smallest:
        raise UsageError(
            f"x must be at least {smallest} × {smallest} pixels for the {family} corruptions, got {height} × {width}."
        )
    return family


def check_corruptions(names: Sequence[str], severities: Sequence[int]) -> None:
    """Check that there are such corruptions and severities, each given once.

    Raises:
        UsageError: There are not, or one is there twice.
    """
    for argument, values in (("corruptions", names), ("severities", severities)):
        if len(set(values)) < len(values):
            raise UsageError(f"{argument} must hold each once, got {', '.join(map(str, values))}.")
    for name in names:
        if name not in CORRUPTIONS:
            hint = did_you_mean(name, CORRUPTIONS)
            raise UsageError(f"the corruption {name!r} is none of {', '.join(CORRUPTIONS)}.{hint}")
    for severity in severities:
        if type(severity) is not int or severity not in SEVERITIES:  # 1.0 and True are equal to 1
            raise UsageError(f"severity must be one of {', '.join(map(str, SEVERITIES))}, got {severity!r}.")


def image_indices(index: int | Sequence[int], count: int) -> Sequence[int]:
    """Return the index of each of ``count`` images.

    Raises:
        UsageError: They are not as many as images, or below 0.
    """
    indices = range(index, index + count) if isinstance(index, int) else [int(each) for each in index]
    if len(indices) != count:
        raise UsageError(f"index must be that of the first image or one for each of the {count}, got {len(indices)}.")
    if min(indices, default=0) < 0:
        raise UsageError(f"index must be from 0, got {min(indices)}.")
    return indices


def image_seed(name: str, severity: int, seed: int, index: int) -> np.random.SeedSequence:
    """Return what draws the corruption of one image."""
    return np.random.SeedSequence((seed, CORRUPTIONS.index(name), severity, index))


def _cifar_corrupt(picture: Picture, name: str, severity: int, place: tuple[int, int]) -> Picture:
    return cifar_corrupt(picture, name, severity, np.random.default_rng(image_seed(name, severity, *place)))


def _imagenet_corrupt(picture: Picture, name: str, severity: int, place: tuple[int, int]) -> Picture:
    library = evaluation_library("imagecorruptions")
    seed = int(image_seed(name, severity, *place).generate_state(1)[0])
    # These two draw from generators of their own, which the library seeds by the system's entropy if it is not told.
    given = {"seed": seed} if name in ("impulse_noise", "glass_blur") else {}
    with _numpy_seeded(seed):
        corrupted: Picture = library.corrupt(picture, severity, name, **given)
    return corrupted


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which the library draws from, and set it back."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
