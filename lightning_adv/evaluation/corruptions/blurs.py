"""The blurs of the common corruptions: images (H, W, 3) in, values of 0 to 255 out."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Picture: TypeAlias = NDArray[np.uint8]
"""An image (H, W, 3), RGB."""

Values: TypeAlias = NDArray[np.floating[Any]]
"""Numbers (H, W, C) of an image while it is worked on."""


def evaluation_library(name: str) -> Any:
    """Import a library of the extra ``eval`` when it is needed.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ImportError(f"Common corruptions need {name}: pip install 'lightning-adv[eval]'.") from error


def defocus_blur(image: Picture, constants: tuple[float, float], rng: np.random.Generator) -> Values:
    """Average over a disc, by its radius and the sigma of its edge."""
    blurred: Values = evaluation_library("cv2").filter2D(image / 255, -1, defocus_kernel(*constants))
    return 255 * blurred


def defocus_kernel(radius: float, sigma: float) -> NDArray[np.float32]:
    """Return the disc (17, 17) of :func:`defocus_blur`."""
    y, x = np.mgrid[-8:9, -8:9]
    disc = (x**2 + y**2 <= radius**2).astype(np.float32)
    kernel: NDArray[np.float32] = evaluation_library("cv2").GaussianBlur(disc / disc.sum(), (3, 3), sigma)
    return kernel


def glass_blur(image: Picture, constants: tuple[float, int], rng: np.random.Generator) -> Values:
    """Blur, shuffle neighbours and blur again, by sigma and the number of passes."""
    sigma, passes = constants
    height, width, _ = image.shape
    glass = (255 * _gaussian_blur(image, sigma)).astype(np.uint8)
    # The published program goes from the last pixel to the third, and each takes the value of a neighbour above or to
    # the left, or keeps its own. No pixel is read after it was written, so all of them can be done at once.
    y, x = np.mgrid[height - 1 : 1 : -1, width - 1 : 1 : -1]
    for _ in range(passes):
        dx, dy = np.moveaxis(rng.integers(-1, 1, size=(*y.shape, 2)), 2, 0)
        glass[y, x] = glass[y + dy, x + dx]
    return 255 * _gaussian_blur(glass, sigma)


def _gaussian_blur(image: Picture, sigma: float) -> NDArray[np.float64]:
    blurred: NDArray[np.float64] = ndimage.gaussian_filter(image / 255, (sigma, sigma, 0), mode="nearest")
    return blurred


def motion_blur(image: Picture, constants: tuple[int, float], rng: np.random.Generator) -> Values:
    """Blur along a line at an angle of -45 to 45 degrees, by radius and sigma."""
    return imagemagick_motion_blur(image, *constants, angle=rng.uniform(-45, 45))


def imagemagick_motion_blur(image: Picture, radius: int, sigma: float, angle: float) -> Values:
    """Average (H, W, C) along a line that begins at each pixel, with weights of half a Gaussian; edges go on."""
    step = np.arange(2 * radius + 1)
    weights = np.exp(-(step**2) / (2 * sigma**2))
    towards = np.deg2rad(angle)
    y, x = (np.ceil(step * along(towards) - 0.5).astype(int) for along in (np.sin, np.cos))
    height, width, _ = image.shape
    rows = np.clip(np.arange(height)[:, None] + y, 0, height - 1)
    columns = np.clip(np.arange(width)[:, None] + x, 0, width - 1)
    line = image[rows[:, None], columns[None]]  # (H, W, steps, C)
    blurred: Values = np.einsum("hwsc,s->hwc", line, weights / weights.sum())
    return np.rint(blurred)


def zoom_blur(image: Picture, stop: float, rng: np.random.Generator) -> Values:
    """Average over zooms from 1 to about ``stop``."""
    x = (image / 255).astype(np.float32)
    zooms = np.arange(1, stop, 0.01)
    total = x + sum(zoomed(x, zoom) for zoom in zooms)
    return 255 * (total / (len(zooms) + 1))


def zoomed(image: Values, zoom: float) -> Values:
    """Enlarge the middle of (H, W, C) to (H, W, C)."""
    kept = [int(np.ceil(size / zoom)) for size in image.shape[:2]]
    enlarged: Values = ndimage.zoom(_middle(image, kept), (zoom, zoom, 1), order=1)
    return _middle(enlarged, image.shape[:2])


def _middle(image: Values, size: Sequence[int]) -> Values:
    top, left = ((whole - part) // 2 for whole, part in zip(image.shape, size, strict=False))
    return image[top : top + size[0], left : left + size[1]]
