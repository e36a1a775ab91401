"""The 15 common corruptions at the size of CIFAR, with the constants of CIFAR-10-C.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (ICLR 2019).
The paper describes the corruptions; the constants of CIFAR-10-C are those of the authors' program
(``ImageNet-C/create_c/make_cifar_c.py`` of github.com/hendrycks/robustness), milder than ImageNet-C's.

**Regenerated.** The published files were drawn without a seed and with older libraries, so images made here are others
of the same kind: results on them are not results on CIFAR-10-C. What differs besides the random draws:

- Motion blur, alone and of the snow, was ImageMagick's. Its algorithm (``MotionBlurImage``) is written out here in
  floating point, where ImageMagick has 16 bits; both round to 8.
- PIL, OpenCV, SciPy and scikit-image do the rest as they do today.

What looks odd and is kept, because the published images have it: glass blur copies a neighbour over a pixel where the
paper swaps the two, frost draws from five of its six pictures, and colours are cut to 8 bits rather than rounded.

**Other sizes.** The constants are numbers of pixels at 32×32 and stay so at other sizes, but for the elastic transform,
whose constants are shares of the image, and the pictures of frost, which are resized with the image.
"""

from __future__ import annotations

import functools
import importlib.resources
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lightning_adv.core.errors import UsageError
from lightning_adv.evaluation.corruptions.blurs import (
    Picture,
    Values,
    defocus_blur,
    evaluation_library,
    glass_blur,
    imagemagick_motion_blur,
    motion_blur,
    zoom_blur,
    zoomed,
)

SMALLEST = 8
"""Pixels along a side: below, a pixel more or less is most of what pixelate and the elastic transform do."""

CONSTANTS: Mapping[str, Sequence[Any]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),  # standard deviation
    "shot_noise": (500, 250, 100, 75, 50),  # photons of a white pixel
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),  # share of values that become 0 or 1
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),  # radius, sigma of the disc's edge
    "glass_blur": ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)),  # sigma, passes (by 1 pixel in all of them)
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),  # radius, sigma
    "zoom_blur": (1.06, 1.11, 1.16, 1.21, 1.26),  # the zooms begin at 1, in steps of 0.01, and end about here
    "snow": (  # mean, standard deviation, zoom and threshold of the flakes, radius and sigma of their fall, colour kept
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),  # weights of the image and of the frost
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),  # weight, decay of the fractal
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),  # added to the value of HSV
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # share that is kept
    "elastic_transform": (  # shares of the image: amplitude and sigma of the displacement, reach of the affine map
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),  # size to which the image is shrunk
    "jpeg_compression": (80, 65, 58, 50, 40),  # quality
}
"""By corruption, what severities 1 to 5 mean."""


def cifar_corrupt(image: Picture, name: str, severity: int, rng: np.random.Generator) -> Picture:
    """Corrupt one image as CIFAR-10-C does.

    Args:
        image: (H, W, 3), RGB, at least 8 × 8.
        name: A name of :data:`CONSTANTS`.
        severity: 1 to 5.
        rng: The source of randomness; nothing else is drawn from.

    Returns:
        The corrupted image, like ``image``.

    Raises:
        UsageError: The image is too small.
        ImportError: The extra ``eval`` is not installed.
    """
    if min(image.shape[:2]) < SMALLEST:
        raise UsageError(
            f"images must be at least {SMALLEST} × {SMALLEST} to be corrupted by CIFAR-10-C's constants, got "
            f"{image.shape[0]} × {image.shape[1]}."
        )
    corrupted = _CORRUPTIONS[name](image, CONSTANTS[name][severity - 1], rng)
    return np.clip(corrupted, 0, 255).astype(np.uint8)


# Noise: images in, values of 0 to 255 out, here and below ------------------------------------------------------------


def _gaussian_noise(image: Picture, std: float, rng: np.random.Generator) -> Values:
    return 255 * (image / 255 + rng.normal(scale=std, size=image.shape))


def _shot_noise(image: Picture, photons: int, rng: np.random.Generator) -> Values:
    return 255 * (rng.poisson(image / 255 * photons) / photons)


def _impulse_noise(image: Picture, share: float, rng: np.random.Generator) -> Values:
    noisy: Values = evaluation_library("skimage.util").random_noise(image / 255, "s&p", rng=rng, amount=share)
    return 255 * noisy


# Weather --------------------------------------------------------------------------------------------------------------


def _snow(image: Picture, constants: tuple[Any, ...], rng: np.random.Generator) -> Values:
    mean, std, zoom, threshold, radius, sigma, kept = constants
    cv2 = evaluation_library("cv2")
    flakes = zoomed(rng.normal(mean, std, size=image.shape[:2])[..., None], zoom)
    flakes = np.where(flakes < threshold, 0, np.clip(flakes, 0, 1))
    fall = imagemagick_motion_blur((255 * flakes).astype(np.uint8), radius, sigma, angle=rng.uniform(-135, -45))
    x = (image / 255).astype(np.float32)
    whitened = np.maximum(x, 1.5 * cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None] + 0.5)
    turned = fall[::-1, ::-1]  # by 180 degrees, so that as much falls to the left as to the right
    snowy: Values = 255 * (kept * x + (1 - kept) * whitened) + fall + turned
    return snowy


def _frost(image: Picture, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    image_weight, frost_weight = constants
    height, width, _ = image.shape
    frost = _frost_picture(int(rng.integers(5)), 0.2 * max(height, width) / 32)
    top, left = (int(rng.integers(whole - part)) for whole, part in zip(frost.shape, (height, width), strict=False))
    return image_weight * image + frost_weight * frost[top : top + height, left : left + width]


@functools.lru_cache(maxsize=5)
def _frost_picture(number: int, scale: float) -> Picture:
    """Return one of the pictures that the authors photographed, RGB."""
    cv2 = evaluation_library("cv2")
    evaluation_library("imagecorruptions")
    name = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")[number]
    file = importlib.resources.files("imagecorruptions") / "frost" / name
    picture = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    resized: Picture = cv2.resize(picture, (0, 0), fx=scale, fy=scale)[..., ::-1]
    return resized


def _fog(image: Picture, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    weight, decay = constants
    height, width, _ = image.shape
    x = image / 255
    brightest = float(x.max())
    fog = _plasma_fractal(1 << (max(height, width) - 1).bit_length(), decay, rng)[:height, :width, None]
    return 255 * ((x + weight * fog) * brightest / (brightest + weight))


def _plasma_fractal(size: int, decay: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a random landscape (size, size) in [0, 1] by the diamond-square algorithm; ``size`` is a power of two."""
    land = np.zeros((size, size))
    step, wobble = size, 100.0

    def disturbed(total: NDArray[np.float64]) -> NDArray[np.float64]:
        return total / 4 + wobble * rng.uniform(-wobble, wobble, total.shape)

    while step >= 2:
        half = step // 2
        corners = land[::step, ::step]
        below = corners + np.roll(corners, -1, axis=0)
        land[half::step, half::step] = disturbed(below + np.roll(below, -1, axis=1))
        centres = land[half::step, half::step]
        beside = corners + np.roll(corners, -1, axis=1)
        land[::step, half::step] = disturbed(centres + np.roll(centres, 1, axis=0) + beside)
        land[half::step, ::step] = disturbed(centres + np.roll(centres, 1, axis=1) + below)
        step, wobble = half, wobble / decay
    land -= land.min()
    return land / float(land.max())


def _brightness(image: Picture, added: float, rng: np.random.Generator) -> Values:
    color = evaluation_library("skimage.color")
    hsv = color.rgb2hsv(image / 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + added, 0, 1)
    brighter: Values = color.hsv2rgb(hsv)
    return 255 * brighter


# Digital --------------------------------------------------------------------------------------------------------------


def _contrast(image: Picture, kept: float, rng: np.random.Generator) -> Values:
    x = image / 255
    mean: Values = x.mean((0, 1))
    return 255 * ((x - mean) * kept + mean)


def _elastic_transform(image: Picture, shares: tuple[float, float, float], rng: np.random.Generator) -> Values:
    cv2 = evaluation_library("cv2")
    height, width, _ = image.shape
    amplitude, sigma, reach = (min(height, width) * share for share in shares)
    middle, arm = np.array([width, height]) // 2, min(height, width) // 3
    corners = np.array([middle + arm, middle + np.array([arm, -arm]), middle - arm], dtype=np.float32)
    moved = corners + rng.uniform(-reach, reach, size=corners.shape).astype(np.float32)
    x = cv2.warpAffine(
        (image / 255).astype(np.float32),
        cv2.getAffineTransform(corners, moved),
        (width, height),
        borderMode=cv2.BORDER_REFLECT_101,
    )
    right, down = (
        (amplitude * ndimage.gaussian_filter(rng.uniform(-1, 1, (height, width)), sigma, truncate=3))[..., None]
        for _ in range(2)
    )
    rows, columns, channels = np.mgrid[:height, :width, :3]
    where = (rows + down, columns + right, channels)
    stretched: Values = ndimage.map_coordinates(x, where, order=1, mode="reflect")
    return 255 * stretched


def _pixelate(image: Picture, share: float, rng: np.random.Generator) -> Values:
    height, width, _ = image.shape
    small = Image.fromarray(image).resize((int(width * share), int(height * share)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX))


def _jpeg_compression(image: Picture, quality: int, rng: np.random.Generator) -> Values:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    with Image.open(file, formats=["JPEG"]) as compressed:
        return np.asarray(compressed)


_CORRUPTIONS: Mapping[str, Callable[[Picture, Any, np.random.Generator], Values]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}
