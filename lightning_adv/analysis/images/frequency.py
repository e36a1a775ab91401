"""Which frequencies a network goes by, and in which of them its adversarial examples differ from clean images.

"Dissecting Local Properties of Adversarial Examples" (ICLR 2022 submission, anonymous), section 3.1 and appendix A: the
accuracy on filtered images (figures 1(a), 1(b) and 6) and on images with swapped frequencies (figures 1(c) and 1(d)),
and the logarithmic amplitude spectra (figure 2). The frequency scale is that of
:mod:`~lightning_adv.analysis.images.transforms`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_adv.analysis.images.transformed_accuracy import TransformedAccuracy, correctly_classified
from lightning_adv.analysis.images.transforms import (
    LARGEST_RADIUS,
    check_image_batch,
    high_pass,
    low_pass,
    swap_frequencies,
)
from lightning_adv.attacks.checks import check_images
from lightning_adv.core.errors import UsageError

FREQUENCY_SCALE = (*(n / 10 for n in range(15)), LARGEST_RADIUS)
"""Radii from the mean alone to the whole spectrum."""
FILTERS = ("low_pass", "merged", "high_pass")
"""Figures 1(a) and 1(b), 1(c) and 1(d), 6."""

_ONE_GREY_LEVEL = 1 / 255


def accuracy_over_frequency(
    network: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    radii: Sequence[float] = FREQUENCY_SCALE,
    *,
    filters: Sequence[str] = FILTERS,
    clip: bool = True,
    batch_size: int = 256,
) -> list[TransformedAccuracy]:
    """Return the accuracy on filtered clean and adversarial images by radius (figures 1 and 6).

    The examples are made once, from the whole images: the attack does not know of the filter.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Clean images (N, C, H, W) in [0, 1].
        x_adv: Their adversarial examples (N, C, H, W).
        y: Labels (N,).
        radii: On the frequency scale, from 0 to √2.
        filters: ``low_pass`` keeps the frequencies up to the radius, ``high_pass`` those above it. With ``merged``,
            what is called ``clean`` has the clean image's frequencies up to the radius and the adversarial example's
            above it, and ``adversarial`` the other way round, as in the paper.
        clip: Whether to clip the filtered images to [0, 1].
        batch_size: How many images to filter and to classify at a time; it changes no result.

    Returns:
        A row for each filter, radius and kind of images, ``clean`` or ``adversarial``.

    Raises:
        UsageError: There are no images or no such filter, a radius is outside, or these are no images in [0, 1] of one
            shape with labels.

    Example:
        >>> x, x_adv = torch.tensor([[[[0.2, 0.8]]]]), torch.tensor([[[[0.6, 0.4]]]])
        >>> brighter = nn.Flatten()  # of two pixels, the brighter one is the class: it goes by the high frequency
        >>> rows = accuracy_over_frequency(brighter, x, x_adv, torch.tensor([1]), [0.5], filters=["merged"])
        >>> [(row.images, row.accuracy) for row in rows]
        [('clean', 0.0), ('adversarial', 1.0)]
    """
    check_images(x, y)
    check_images(x_adv, y)
    if not len(x):
        raise UsageError("x has no images.")
    unknown = [name for name in filters if name not in FILTERS]
    if unknown:
        raise UsageError(f"filters must be of {', '.join(FILTERS)}, got {unknown[0]!r}.")
    for radius in radii:  # before the network runs
        swap_frequencies(x[:1], x_adv[:1], radius)
    sources = {"clean": (x, x_adv), "adversarial": (x_adv, x)}
    rows: list[TransformedAccuracy] = []
    for name in filters:
        for radius in radii:
            for images, (own, others) in sources.items():
                correct = 0
                for start in range(0, len(x), batch_size):
                    part = slice(start, start + batch_size)
                    filtered = _filter(name, own[part], others[part], radius, clip)
                    correct += int(correctly_classified(network, filtered, y[part]).sum())
                rows.append(TransformedAccuracy(name, radius, images, correct, len(x)))
    return rows


def _filter(name: str, own: Tensor, others: Tensor, radius: float, clip: bool) -> Tensor:
    if name == "merged":
        return swap_frequencies(own, others, radius, clip=clip)
    return (low_pass if name == "low_pass" else high_pass)(own, radius, clip=clip)


def log_amplitude_spectrum(x: Tensor) -> Tensor:
    """Return the logarithmic amplitude spectrum ``log |F(x)|``, averaged over images and channels (figure 2).

    F is the discrete Fourier transform without a factor. The mean over images of the difference of two of these is
    ``log |F(x_adv)| - log |F(x)|``, figure 2(c) and 2(e).

    Args:
        x: Images (N, C, H, W) in [0, 1], at least one.

    Returns:
        (H, W), natural logarithm, float64 on the CPU. The mean of the image is at [H // 2, W // 2] and the highest
        frequencies are in the corners. An amplitude below 1/255, which is that of one grey level in one pixel, counts
        as 1/255: images of few grey levels have modes of exactly 0, whose logarithms would decide everything.

    Raises:
        UsageError: ``x`` are no images in [0, 1], or there are none.

    Example:
        >>> log_amplitude_spectrum(torch.ones(1, 1, 2, 2))[1, 1].exp()
        tensor(4., dtype=torch.float64)
    """
    check_image_batch(x)
    if not x.numel():
        raise UsageError(f"x must have at least one image, got shape {tuple(x.shape)}.")
    height, width = x.shape[-2:]
    total = torch.zeros(height, width, dtype=torch.float64)
    for image in x.detach().cpu():  # one by one: doubles of all at once are many
        amplitude = torch.fft.fft2(image.double()).abs()
        total += amplitude.clamp_min(_ONE_GREY_LEVEL).log().sum(0)
    mean = total / (x.shape[0] * x.shape[1])
    return mean.roll((height // 2, width // 2), (0, 1))
