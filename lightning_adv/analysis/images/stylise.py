"""Test sets in the style of paintings: which painting an image gets, and the image as a file.

Zhang & Zhu, "Interpreting Adversarially Trained Convolutional Neural Networks" (ICML 2019), section 4.2.1 and
appendix B: every test image in the style of a randomly selected painting. The paper's are from Kaggle's "Painter by
Numbers". The style is carried over by :class:`~lightning_adv.analysis.images.adain.AdaIN` or, without weights, by
:class:`~lightning_adv.analysis.images.texture_transfer.TextureTransfer`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from lightning_adv.analysis.images.adain import Statistics
from lightning_adv.core.errors import UsageError
from lightning_adv.core.image_files import read_image, to_tensor
from lightning_adv.core.image_folders import list_images
from lightning_adv.core.seeds import derive_seed

_FORMATS = {
    ".bmp": "BMP", ".jpeg": "JPEG", ".jpg": "JPEG", ".pgm": "PPM", ".png": "PNG", ".ppm": "PPM", ".tif": "TIFF",
    ".tiff": "TIFF", ".webp": "WEBP",
}  # fmt: skip
_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}


class Way(Protocol):
    """How a style is carried over: :class:`AdaIN`, :class:`TextureTransfer`, or one's own."""

    kind: str

    def statistics(self, paintings: Tensor) -> list[Statistics]:
        """Return what is used of paintings (N, 3, H, W) in [0, 1]."""

    def __call__(self, x: Tensor, style: Sequence[Statistics]) -> Tensor:
        """Return images (N, 3, H, W) in [0, 1] in the style of a painting each."""


class Paintings:
    """The paintings of a folder, of which each is read once.

    Args:
        folder: The folder; those below it are looked into too.
        way: How their style is carried over.
        size: The length of the shorter side that they are resized to; 512 is that of the authors. None leaves them.
        argument: The argument that gave the folder, for the errors.

    Raises:
        UsageError: There is no such folder, or it has no image.
    """

    def __init__(self, folder: str | Path, way: Way, *, size: int | None = 512, argument: str = "style_folder") -> None:
        self.files = list_images(folder, argument=argument).images
        self._way, self._size, self._argument = way, size, argument
        self._kept: dict[int, list[Statistics]] = {}

    def number_for(self, index: int, seed: int) -> int:
        """Return which painting the image of an index gets: it depends on no other image."""
        return derive_seed(seed, "style", index) % len(self.files)

    def restyle(self, x: Tensor, indices: Sequence[int], seed: int) -> Tensor:
        """Return images in the style of the painting of each.

        Args:
            x: Images (N, 3, H, W) in [0, 1].
            indices: Their numbers in the test set.
            seed: Draws the paintings, together with the indices.

        Returns:
            Images like ``x``.

        Raises:
            UsageError: A painting cannot be read, or the images or paintings are too small.
        """
        with torch.no_grad():
            chosen = [self._statistics(self.number_for(index, seed), x.device) for index in indices]
            style = [Statistics(*map(torch.cat, zip(*layer, strict=True))) for layer in zip(*chosen, strict=True)]
            return self._way(x, style)

    def _statistics(self, number: int, device: torch.device) -> list[Statistics]:
        if number not in self._kept:
            file = self.files[number]
            image = read_image(file, argument=self._argument)
            if self._size is not None:
                scale = self._size / min(image.size)
                width, height = (max(1, round(scale * side)) for side in image.size)
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            painting = to_tensor(image)[None].to(device)
            try:
                self._kept[number] = self._way.statistics(painting)
            except UsageError as error:
                raise UsageError(f"{self._argument} holds {file}, which cannot be a style: {error}") from error
        return self._kept[number]


def to_file(image: Tensor, name: str) -> bytes:
    r"""Return an image as the content of a file, in the format that the name says.

    JPEG is written at quality 95 with colours at full resolution; all others keep every byte.

    Args:
        image: An image (3, H, W) in [0, 1].
        name: The name of the file.

    Raises:
        UsageError: The name is not that of an image.

    Example:
        >>> to_file(torch.zeros(3, 1, 1), "black.ppm")
        b'P6\n1 1\n255\n\x00\x00\x00'
    """
    suffix = PurePath(name).suffix.lower()
    if suffix not in _FORMATS:
        raise UsageError(f"{name} is not the name of an image: it must end in {', '.join(_FORMATS)}.")
    kind = _FORMATS[suffix]
    values = image.detach().mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(values).save(file, format=kind, **_OPTIONS.get(kind, {}))
    return file.getvalue()
