"""Images without their textures, without their shapes, or with some of their frequencies.

Zhang & Zhu, "Interpreting Adversarially Trained Convolutional Neural Networks" (ICML 2019), section 3.2 (saturation and
patch-shuffling) and C (Fourier filters); "Dissecting Local Properties of Adversarial Examples" (ICLR 2022 submission,
anonymous), section 3.1 (filters and swapped frequencies).

**Frequency scale.** Both papers filter by a radial mask, and neither says in which unit. Here the mode (u, v) of an
image of H × W pixels has the radius ``sqrt((2u/H)² + (2v/W)²)`` with ``-H/2 <= u < H/2`` and ``-W/2 <= v < W/2``: 0 is
the mean, 1 the highest frequency along an axis (half a cycle per pixel) and √2 = 1.41 the corner of the spectrum, where
the curves of "Dissecting Local Properties", figure 1, end. Modes at the radius itself belong to the low frequencies.

**Clipping.** Saturation and patch-shuffling stay within [0, 1]. What a filter leaves does not: it rings at edges, and
without the mean (a high-pass at any radius, most of all) about half of the pixels are negative. The results are clipped
to [0, 1], since all that takes images here expects them there. ``clip=False`` returns what the filter is in the books,
with which low and high frequencies add up to the image. The papers do not say what they do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_adv.core.errors import UsageError

LARGEST_RADIUS = math.sqrt(2)
"""The corner of the spectrum, of images with an even height and width; others have no mode that high."""

_ROUNDING = 1e-6  # a radius of 1 must take in the mode (0.6, 0.8); different radii are further apart below 1,100 pixels


# Textures and shapes --------------------------------------------------------------------------------------------------


def saturate(x: Tensor, p: float) -> Tensor:
    """Push the pixels to 0 and 1, which wears textures off and leaves contours.

    Each value v becomes ``sign(2v - 1) |2v - 1|^(2/p) / 2 + 1/2`` (Zhang & Zhu 2019, section 3.2).

    Args:
        x: Images (N, C, H, W) in [0, 1].
        p: The saturation level, above 0. Two changes nothing but the last bits, ``math.inf`` leaves only 0 and 1 (and
            1/2 where that was), and what is below two pushes all pixels but 0 and 1 to 1/2.

    Returns:
        Images like ``x``.

    Raises:
        UsageError: ``x`` are no images in [0, 1], or ``p`` is not above 0.

    Example:
        >>> saturate(torch.tensor([[[[0.25, 0.5, 0.75]]]]), math.inf)
        tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """
    check_image_batch(x)
    if not p > 0:
        raise UsageError(f"p, the saturation level, must be above 0 (2 leaves images as they are), got {p}.")
    centred = 2 * x - 1
    return centred.sign() * centred.abs().pow(2 / p) / 2 + 0.5


def patch_shuffle(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Cut each image into k × k patches and put them in a random order, which destroys shapes and leaves textures.

    All orders are equally likely, the old one too (Zhang & Zhu 2019, section 3.2).

    Args:
        x: Images (N, C, H, W) in [0, 1].
        k: Number of patches along the height and along the width, a divisor of both. One changes nothing.
        generator: Draws an order for each image; images that come in several batches get the same as in one.

    Returns:
        Images like ``x``.

    Raises:
        UsageError: ``x`` are no images in [0, 1], or ``k`` does not divide their height and width.

    Example:
        >>> x = torch.tensor([[[[0.0, 0.25], [0.5, 0.75]]]])
        >>> shuffled = patch_shuffle(x, 2, torch.Generator().manual_seed(0))
        >>> shuffled.shape, sorted(shuffled.flatten().tolist())
        (torch.Size([1, 1, 2, 2]), [0.0, 0.25, 0.5, 0.75])
    """
    check_image_batch(x)
    n, channels, height, width = x.shape
    if k < 1 or height % k or width % k:
        raise UsageError(f"k must divide the height and the width of the images, {height} × {width}, got {k}.")
    order = torch.rand((n, k * k), generator=generator, device=generator.device).argsort(1).to(x.device)
    patches = x.reshape(n, channels, k, height // k, k, width // k).transpose(3, 4).flatten(2, 3)
    shuffled = patches[torch.arange(n, device=x.device)[:, None], :, order].transpose(1, 2)
    return shuffled.reshape(n, channels, k, k, height // k, width // k).transpose(3, 4).reshape(x.shape)


# Frequencies ----------------------------------------------------------------------------------------------------------


def low_pass(x: Tensor, radius: float, *, clip: bool = True) -> Tensor:
    """Keep the frequencies up to a radius ("the low frequency filtered version", Zhang & Zhu 2019, C.1).

    Args:
        x: Images (N, C, H, W) in [0, 1].
        radius: On the frequency scale (see above), from 0, the mean of each channel, to √2, everything.
        clip: Whether to clip the result to [0, 1].

    Returns:
        Images like ``x``.

    Raises:
        UsageError: ``x`` are no images in [0, 1], or ``radius`` is not in [0, √2].

    Example:
        >>> low_pass(torch.tensor([[[[0.25, 0.75]]]]), radius=0.5)
        tensor([[[[0.5000, 0.5000]]]])
    """
    return _masked(x, _within(x, radius), clip)


def high_pass(x: Tensor, radius: float, *, clip: bool = True) -> Tensor:
    """Keep the frequencies above a radius ("the high frequency filtered version", Zhang & Zhu 2019, C.1).

    The mean goes at every radius, so that clipping cuts off the negative half of what is left.

    Args:
        x: Images (N, C, H, W) in [0, 1].
        radius: On the frequency scale (see above), from 0, everything but the mean of each channel, to √2, nothing.
        clip: Whether to clip the result to [0, 1].

    Returns:
        Images like ``x``.

    Raises:
        UsageError: ``x`` are no images in [0, 1], or ``radius`` is not in [0, √2].

    Example:
        >>> x = torch.tensor([[[[0.25, 0.75]]]])
        >>> high_pass(x, radius=0.5, clip=False), high_pass(x, radius=0.5)
        (tensor([[[[-0.2500,  0.2500]]]]), tensor([[[[0.0000, 0.2500]]]]))
    """
    return _masked(x, ~_within(x, radius), clip)


def random_filter(
    x: Tensor,
    probability: float,
    generator: torch.Generator,
    *,
    clip: bool = True,
    each_mode: bool = False,
    each_channel: bool = False,
) -> Tensor:
    """Set each frequency to zero with some probability ("the random filtered version", Zhang & Zhu 2019, C.1).

    By default the modes (u, v) and (-u, -v), which make up one real wave, go or stay together, and so do the channels:
    what is left is an image that lacks some waves in all of its colours. The paper sets "each mode to 0 with
    probability p" and says nothing of pairs and channels. ``each_mode`` and ``each_channel`` take it at its word. A
    wave that has lost one of its two modes is complex; its real part, which is taken, is the wave at half its height.
    The mean is a mode like any other, as the paper has it.

    Args:
        x: Images (N, C, H, W) in [0, 1].
        probability: Of each mode to be set to zero, in [0, 1].
        generator: Draws a mask for each image; images that come in several batches get the same as in one.
        clip: Whether to clip the result to [0, 1].
        each_mode: Whether (u, v) and (-u, -v) are drawn by themselves: a wave goes with the probability p², and loses
            half its height with 2p(1 - p).
        each_channel: Whether each channel has a mask of its own.

    Returns:
        Images like ``x``.

    Raises:
        UsageError: ``x`` are no images in [0, 1], or ``probability`` is not in [0, 1].

    Example:
        >>> x, random = torch.tensor([[[[0.25, 0.75]]]]), torch.Generator().manual_seed(0)
        >>> random_filter(x, 0.0, random), random_filter(x, 1.0, random)
        (tensor([[[[0.2500, 0.7500]]]]), tensor([[[[0., 0.]]]]))
    """
    check_image_batch(x)
    if not 0 <= probability <= 1:
        raise UsageError(f"probability must lie in [0, 1], got {probability}.")
    n, channels, height, width = x.shape
    shape = (n, channels if each_channel else 1, height, width)
    kept = torch.rand(shape, generator=generator, device=generator.device) >= probability
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    mode, mirrored = rows * width + columns, (-rows % height) * width + (-columns % width)
    if not each_mode:
        return _masked(x, _half(kept, torch.minimum(mode, mirrored), x.device), clip)
    one, other = (_half(kept, of, x.device) for of in (mode, mirrored))
    real_part = (_masked(x, one & other, clip=False) + _masked(x, one | other, clip=False)) / 2
    return real_part.clamp(0, 1) if clip else real_part


def swap_frequencies(low_from: Tensor, high_from: Tensor, radius: float, *, clip: bool = True) -> Tensor:
    """Merge the low frequencies of some images with the high frequencies of others.

    "Dissecting Local Properties of Adversarial Examples", figure 1(c) and (d): a merged natural example has the low
    frequencies of a clean image and the high ones of its adversarial example, a merged adversarial example the other
    way round.

    Args:
        low_from: Images (N, C, H, W) in [0, 1], which give the frequencies up to the radius.
        high_from: Images of the same shape, which give the others.
        radius: On the frequency scale (see above), from 0 to √2.
        clip: Whether to clip the result to [0, 1].

    Returns:
        Images like ``low_from``.

    Raises:
        UsageError: These are no images in [0, 1] of one shape, or ``radius`` is not in [0, √2].

    Example:
        >>> swap_frequencies(torch.tensor([[[[0.25, 0.75]]]]), torch.tensor([[[[0.5, 0.25]]]]), radius=0.5)
        tensor([[[[0.6250, 0.3750]]]])
    """
    check_image_batch(low_from, "low_from")
    check_image_batch(high_from, "high_from")
    if low_from.shape != high_from.shape:
        raise UsageError(
            f"low_from and high_from must have one shape, got {tuple(low_from.shape)} and {tuple(high_from.shape)}."
        )
    merged = low_pass(low_from, radius, clip=False) + high_pass(high_from.to(low_from), radius, clip=False)
    return merged.clamp(0, 1) if clip else merged


def _half(kept: Tensor, mode: Tensor, device: torch.device) -> Tensor:
    """Look a mask (N, C, H, W) up at the modes (H, W), and return the half of it that ``torch.fft.rfft2`` gives."""
    looked_up = kept.flatten(2)[:, :, mode.to(kept.device)]
    return looked_up[..., : mode.shape[1] // 2 + 1].to(device)


def _within(x: Tensor, radius: float) -> Tensor:
    """Return which of the modes that ``torch.fft.rfft2`` gives are low frequencies: (H, W // 2 + 1) bool."""
    check_image_batch(x)
    if not 0 <= radius <= LARGEST_RADIUS + _ROUNDING:
        raise UsageError(f"radius must lie in [0, √2], where 1 is half a cycle per pixel along an axis, got {radius}.")
    # On the CPU first: Apple's devices have no doubles.
    height, width = x.shape[-2:]
    u = 2 * torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    v = 2 * torch.fft.rfftfreq(width, dtype=torch.float64)
    return (torch.hypot(u, v) <= radius + _ROUNDING).to(x.device)


def _masked(x: Tensor, kept: Tensor, clip: bool) -> Tensor:
    """Keep some modes (..., H, W // 2 + 1) of real images; the mask is the same at (u, v) and (-u, -v)."""
    if not len(x):  # MKL refuses to transform no images (torch 2.14); a copy, as the transform gives one
        return x.clone()
    # Half precision has transforms on some devices only, and of some sizes only.
    spectrum = torch.fft.rfft2(x.to(torch.promote_types(x.dtype, torch.float32)))
    # not a product, which leaves -0 and would keep what is not finite
    filtered: Tensor = torch.fft.irfft2(torch.where(kept, spectrum, 0), s=x.shape[-2:]).to(x.dtype)
    return filtered.clamp(0, 1) if clip else filtered


def check_image_batch(x: Tensor, name: str = "x") -> None:
    """Check that ``x`` are floating-point images (N, C, H, W) in [0, 1].

    Raises:
        UsageError: They are not.
    """
    if not x.is_floating_point() or x.ndim != 4:
        raise UsageError(f"{name} must be floating-point images (N, C, H, W), got {x.dtype} of shape {tuple(x.shape)}.")
    if x.numel():
        low, high = (bound.item() for bound in torch.aminmax(x.detach()))
        if not (low >= 0 and high <= 1):  # written so that NaN fails too
            raise UsageError(f"{name} must be images in [0, 1], got values from {low:g} to {high:g}.")
