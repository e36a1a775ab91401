"""Small image folders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_class_folders(
    folder: Path,
    classes: Sequence[str] = ("cat", "dog", "fox"),
    images: int = 10,
    size: tuple[int, int] = (32, 32),
    extension: str = "png",
) -> None:
    """Write ``images`` random images for each class to ``folder/<class>/<number>.<extension>``."""
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(images):
            write_image(folder / name / f"{i:03}.{extension}", size, seed=1000 * k + i)


def write_image(path: Path, size: tuple[int, int] = (32, 32), seed: int = 0) -> None:
    """Write an image of random values. Blocks of 4 pixels, so that JPEG keeps something of it."""
    width, height = size
    coarse = np.random.default_rng(seed).integers(0, 256, (-(-height // 4), -(-width // 4), 3), dtype=np.uint8)
    pixels = coarse.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    Image.fromarray(pixels).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def write_dataset(root: Path, test: str = "test", **options) -> Path:
    """Write ``root/train`` and ``root/<test>``, and return ``root``."""
    write_class_folders(root / "train", **options)
    write_class_folders(root / test, **{**options, "images": 4})
    return root
