"""Image folders: which images there are, and whether they can be read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

Samples = list[tuple[str, int]]
"""(path, class) of each image."""

Check = Literal["quick", "decode", "off"]

_TINY_IMAGENET_LABELS = "val_annotations.txt"
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_SMALL = 8192  # bytes; to decode so small an image costs less than to read its header


class ImageFolders(NamedTuple):
    """What a root folder holds. ``test`` is None where the test images must be split from ``train``."""

    train: Samples
    test: Samples | None


def find_class_names(root: Path, *, own_split: bool) -> list[str]:
    """Return the names of the class folders, sorted: class k of the labels is the k-th.

    Args:
        root: The data set's folder.
        own_split: Whether the images lie in ``train`` (or else in ``root`` itself).

    Raises:
        ValueError: There are none.
    """
    from torchvision.datasets.folder import find_classes

    # os.path.isdir, unlike Path.is_dir, is False where there is no permission to look
    if not os.path.isdir(root):
        raise ValueError(f"data.root is {str(root)!r}, which is not a folder.")
    if own_split and not os.path.isdir(root / "train"):
        raise ValueError(
            f"data.root is {str(root)!r}, which has no folder train/. If the class folders lie directly in it "
            "(Caltech-256), set data.test_fraction."
        )
    with _errors_name_root(root):
        names: list[str] = find_classes(root / "train" if own_split else root)[0]
    return names


def find_images(root: Path, *, own_split: bool) -> ImageFolders:
    """List the images of a data set.

    Three layouts are known: ``train/<class>/...`` with ``test/<class>/...`` or else ``val/<class>/...`` (ImageNet,
    Imagenette); Tiny ImageNet as it is distributed, whose labelled test images are ``val/images`` with a table; and,
    without ``own_split``, ``<class>/...`` (Caltech-256).

    Raises:
        ValueError: There are no images, a class has none, or train and test have different classes.
    """
    classes = find_class_names(root, own_split=own_split)
    if not own_split:
        return ImageFolders(_samples(root, root), None)
    train = _samples(root, root / "train")
    if (root / "val" / _TINY_IMAGENET_LABELS).is_file():
        return ImageFolders(train, _tiny_imagenet_test(root, classes))
    held_out = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if held_out is None:
        raise ValueError(f"data.root is {str(root)!r}, which has neither a folder test/ nor a folder val/.")
    with _errors_name_root(root):
        found = sorted(entry.name for entry in os.scandir(held_out) if entry.is_dir())
    if found != classes:
        only_train, only_test = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
        raise ValueError(
            f"data.root is {str(root)!r}, whose {held_out.name}/ does not have the class folders of train/: "
            f"only in train/: {_some(only_train)}; only in {held_out.name}/: {_some(only_test)}."
        )
    return ImageFolders(train, _samples(root, held_out))


def check_images(root: Path, paths: Sequence[str], check: Check) -> None:
    """Look for images that cannot be read, before they stop a training.

    Args:
        root: The data set's folder, for the error.
        paths: The image files.
        check: "quick" reads each header and looks for the end of a JPEG or PNG file; it decodes small images, those
            of other formats and those without an end. "decode" decodes every image, "off" does nothing.

    Raises:
        ValueError: Some images cannot be read. It names them.
    """
    if check == "off":
        return
    errors = [error for path in paths if (error := _error_in(path, decode=check == "decode")) is not None]
    if errors:
        more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
        raise ValueError(
            f"data.root is {str(root)!r}, where {len(errors)} of {len(paths)} images cannot be read: "
            f"{'; '.join(errors[:3])}{more}. Replace or delete them."
        )


def read_image(path: str) -> Image.Image:
    """Return the image as RGB.

    Raises:
        ValueError: It cannot be decoded.
    """
    try:
        with open(path, "rb") as file:
            return Image.open(file).convert("RGB")
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and others
        raise ValueError(f"data.root holds {path}, which cannot be decoded: {error}.") from error


def _samples(root: Path, folder: Path) -> Samples:
    from torchvision.datasets import ImageFolder

    with _errors_name_root(root):
        samples: Samples = ImageFolder(folder).samples
    return samples


def _tiny_imagenet_test(root: Path, classes: list[str]) -> Samples:
    """Read the table of file name, class name and bounding box, separated by tabs."""
    number = {name: k for k, name in enumerate(classes)}
    with _errors_name_root(root):
        lines = (root / "val" / _TINY_IMAGENET_LABELS).read_text().splitlines()
    rows = [line.split("\t") for line in lines if line]
    unknown = sorted({row[1] for row in rows if len(row) > 1} - set(classes))
    if unknown or any(len(row) < 2 for row in rows):
        raise ValueError(
            f"data.root is {str(root)!r}, whose val/{_TINY_IMAGENET_LABELS} does not name a class folder of train/ "
            f"in each line: {_some(unknown)}."
        )
    return [(str(root / "val" / "images" / row[0]), number[row[1]]) for row in rows]


def _error_in(path: str, *, decode: bool) -> str | None:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            tail = file.read()
            file.seek(0)
            with Image.open(file) as image:
                end = _ENDS.get(str(image.format))
                if decode or size < _SMALL or end is None or not tail.endswith(end):
                    image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and others
        return f"{path} ({error})"
    return None


@contextmanager
def _errors_name_root(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # torchvision raises FileNotFoundError where it finds no class folder or no image
        raise ValueError(f"data.root is {str(root)!r}, which cannot be used: {str(error).rstrip('.')}.") from error


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) if names else "none"
    return f"{shown}, ... ({len(names)})" if len(names) > 3 else shown
