"""Texture transfer without weights: the statistics of a painting, in each band of an image's Laplacian pyramid.

It is what adaptive instance normalisation does to a network's features (:mod:`.adain`), done to the bands of an image.
Bands know no textures but energies at a scale, so that the results are not what the literature calls stylised.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_adv.analysis.images.adain import Statistics, adain, channel_statistics
from lightning_adv.analysis.images.transforms import check_image_batch
from lightning_adv.core.errors import UsageError

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # Burt & Adelson's filter with a = 0.375


def laplacian_pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """Return the bands of images from the finest, and what is left (Burt & Adelson 1983).

    Args:
        x: Images (N, C, H, W).
        levels: How many times they are halved, at least 1. Both sides must be 2^levels at least.

    Returns:
        ``levels`` bands, the k-th of shape (N, C, ⌈H / 2^k⌉, ⌈W / 2^k⌉), and the images' remainder.

    Raises:
        UsageError: The images are too small.

    Example:
        >>> [tuple(band.shape[2:]) for band in laplacian_pyramid(torch.rand(1, 3, 9, 8), 2)]
        [(9, 8), (5, 4), (3, 2)]
    """
    if levels < 1 or min(x.shape[-2:]) < 2**levels:
        raise UsageError(
            f"levels must be at least 1, and both sides of the images 2^levels, got {levels} levels and images of "
            f"{x.shape[-2]} × {x.shape[-1]}."
        )
    bands = []
    for _ in range(levels):
        smaller = _blur(x)[..., ::2, ::2]
        bands.append(x - _enlarge(smaller, x))
        x = smaller
    return [*bands, x]


def from_laplacian_pyramid(bands: list[Tensor]) -> Tensor:
    """Return the images (N, C, H, W) of a pyramid: what :func:`laplacian_pyramid` took, up to rounding.

    Example:
        >>> x = torch.rand(1, 3, 8, 8)
        >>> torch.allclose(from_laplacian_pyramid(laplacian_pyramid(x, 3)), x, atol=1e-6)
        True
    """
    *finer, x = bands
    for band in reversed(finer):
        x = band + _enlarge(x, band)
    return x


class TextureTransfer:
    """Gives images the mean and the standard deviation of paintings in each channel of each band of the pyramid.

    Args:
        levels: How many bands there are beside the remainder, which gets the painting's colours. Three end at the
            scale of VGG-19's relu4_1.

    Example:
        >>> transfer, grey = TextureTransfer(), torch.full((1, 3, 8, 8), 0.5)
        >>> transfer(torch.rand(1, 3, 8, 8), transfer.statistics(grey)).sub(0.5).abs().max() < 0.1
        tensor(True)
    """

    kind = "texture transfer"

    def __init__(self, levels: int = 3) -> None:
        self.levels = levels

    def statistics(self, paintings: Tensor) -> list[Statistics]:
        """Return what is used of paintings (N, C, H, W) in [0, 1]: the statistics of each band.

        Raises:
            UsageError: These are no images in [0, 1], or they are too small.
        """
        check_image_batch(paintings, "paintings")
        return [channel_statistics(band) for band in laplacian_pyramid(paintings, self.levels)]

    def __call__(self, x: Tensor, style: Sequence[Statistics]) -> Tensor:
        """Return images with the textures of paintings.

        Args:
            x: Images (N, C, H, W) in [0, 1], which keep where things are.
            style: The statistics of a painting for each.

        Returns:
            Images like ``x``, clipped to [0, 1].

        Raises:
            UsageError: These are no images in [0, 1], or they are too small.
        """
        check_image_batch(x)
        bands = zip(laplacian_pyramid(x, self.levels), style, strict=True)
        return from_laplacian_pyramid([adain(band, of) for band, of in bands]).clamp(0, 1)


def _blur(x: Tensor) -> Tensor:
    """Blur each channel by the binomial filter, with the borders' pixels repeated."""
    line = torch.tensor(_BINOMIAL, dtype=x.dtype, device=x.device)
    channels = x.shape[1]
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    rows = F.conv2d(padded, line.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)
    return F.conv2d(rows, line.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
