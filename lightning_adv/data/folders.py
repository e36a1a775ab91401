"""Image folders: which classes and images there are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_warn

from lightning_adv.core.errors import UsageError
from lightning_adv.core.image_folders import (
    EXTENSIONS,
    OTHER_IMAGES,
    entries,
    errors_name,
    extension_of,
    files_below,
    list_images,
)

Samples = list[tuple[str, int]]
"""(path, class) of each image."""

_TINY_IMAGENET_LABELS = "val_annotations.txt"


class ImageFolders(NamedTuple):
    """What a root folder holds. ``test`` is None where the test images must be split from ``train``.

    ``train`` is empty where there are test images only.
    """

    train: Samples
    test: Samples | None


def find_test_images(root: Path) -> ImageFolders:
    """List the images of a folder that holds test images only, in ``test/<class>``, ``val/<class>`` or ``<class>``.

    Raises:
        UsageError: There are no images, a class has none, or a link leads nowhere or back.
    """
    folder = test_folder(root)
    return ImageFolders([], _samples(root, folder, find_class_names(folder, own_split=False)))


def test_folder(root: Path) -> Path:
    """Return the folder that the class folders of the test images lie in: ``test``, ``val``, or else ``root``."""
    return next((root / name for name in ("test", "val") if os.path.isdir(root / name)), root)


def find_class_names(root: Path, *, own_split: bool) -> list[str]:
    """Return the names of the class folders, sorted: class k of the labels is the k-th.

    Hidden folders (``.ipynb_checkpoints``) and those of systems (``__MACOSX``) are none.

    Args:
        root: The data set's folder.
        own_split: Whether the images lie in ``train`` (or else in ``root`` itself).

    Raises:
        UsageError: There are not two of them, or a name is not UTF-8.
    """
    # os.path.isdir, unlike Path.is_dir, is False where there is no permission to look
    if not os.path.isdir(root):
        raise UsageError(f"data.root is {str(root)!r}, which is not a folder.")
    if own_split and not os.path.isdir(root / "train"):
        raise UsageError(
            f"data.root is {str(root)!r}, which has no folder train/. If the class folders lie directly in it "
            "(Caltech-256), set data.test_fraction; if it holds test images only, data.test_only."
        )
    names = _class_folders(root, root / "train" if own_split else root)
    where = "whose train/" if own_split else "which"
    if len(names) < 2:
        raise UsageError(
            f"data.root is {str(root)!r}, {where} has {len(names)} class folders ({_some(names)}): a classifier needs "
            "two at least."
        )
    if not own_split and "train" in names and {"test", "val"} & {*names}:
        raise UsageError(
            f"data.root is {str(root)!r}, which has a folder train/ and test images of its own: leave "
            "data.test_fraction out."
        )
    return names


def find_images(root: Path, *, own_split: bool) -> ImageFolders:
    """List the images of a data set.

    Three layouts are known: ``train/<class>/...`` with ``test/<class>/...`` or else ``val/<class>/...`` (ImageNet,
    Imagenette); Tiny ImageNet as it is distributed, whose labelled test images are ``val/images`` with a table; and,
    without ``own_split``, ``<class>/...`` (Caltech-256). Folders in a class folder, and links to folders, are followed;
    hidden files and folders are left out. It warns of images that are not read.

    Raises:
        UsageError: There are no images, a class has none, train and test have different classes, or a link leads
            nowhere or back.
    """
    classes = find_class_names(root, own_split=own_split)
    if not own_split:
        return ImageFolders(_samples(root, root, classes), None)
    train = _samples(root, root / "train", classes)
    if (root / "val" / _TINY_IMAGENET_LABELS).is_file():
        return ImageFolders(train, _tiny_imagenet_test(root, classes))
    held_out = test_folder(root)
    if held_out == root:
        raise UsageError(f"data.root is {str(root)!r}, which has neither a folder test/ nor a folder val/.")
    found = _class_folders(root, held_out)
    if found != classes:
        only_train, only_test = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
        raise UsageError(
            f"data.root is {str(root)!r}, whose {held_out.name}/ does not have the class folders of train/: "
            f"only in train/: {_some(only_train)}; only in {held_out.name}/: {_some(only_test)}."
        )
    return ImageFolders(train, _samples(root, held_out, classes))


def find_files(root: Path, *, argument: str) -> list[str]:
    """List the image files of a folder and of those below it, sorted by folder and name; labels are not asked for.

    It warns of images that are not read; see :func:`~lightning_adv.core.image_folders.list_images`.

    Args:
        root: The folder.
        argument: The argument that gave it, for the errors.

    Raises:
        UsageError: It is not a folder, has no images, or a link leads nowhere or back.
    """
    images, left_out = list_images(root, argument=argument)
    if left_out:
        rank_zero_warn(
            f"{argument} is {str(root)!r}, where {len(left_out)} files are left out, as they do not end in "
            f"{', '.join(EXTENSIONS)}: {left_out[0]} is the first."
        )
    return images


def _class_folders(root: Path, folder: Path) -> list[str]:
    with errors_name(root):
        names = sorted(entry.name for entry in entries(folder) if entry.is_dir())
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:  # it could not be written into the results
            raise UsageError(
                f"data.root is {str(root)!r}, whose class folder {name!r} is not named in UTF-8."
            ) from error
    return names


def _samples(root: Path, folder: Path, classes: list[str]) -> Samples:
    """List the images of a folder's classes, in torchvision's order: by class, by the folder below it, by name."""
    samples: Samples = []
    with errors_name(root):
        left_out = [
            entry.path for entry in entries(folder) if extension_of(entry.name) in EXTENSIONS and entry.is_file()
        ]
        for label, name in enumerate(classes):
            files = sorted(files_below(str(folder / name)))
            samples += [(f"{below}{os.sep}{file}", label) for below, file in files if extension_of(file) in EXTENSIONS]
            left_out += [f"{below}{os.sep}{file}" for below, file in files if extension_of(file) in OTHER_IMAGES]
    labels = {label for _, label in samples}
    if empty := [name for label, name in enumerate(classes) if label not in labels]:
        raise UsageError(
            f"data.root is {str(root)!r}, where {folder.name}/ has no image for the classes {_some(empty)}: an image's "
            f"name ends in {', '.join(EXTENSIONS)}."
        )
    if left_out:
        rank_zero_warn(
            f"data.root is {str(root)!r}, where {len(left_out)} files of {folder.name}/ are left out, as they lie in "
            f"no class folder or do not end in {', '.join(EXTENSIONS)}: {left_out[0]} is the first."
        )
    return samples


def _tiny_imagenet_test(root: Path, classes: list[str]) -> Samples:
    """Read the table of file name, class name and bounding box, separated by tabs."""
    number = {name: k for k, name in enumerate(classes)}
    with errors_name(root):
        lines = (root / "val" / _TINY_IMAGENET_LABELS).read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line]
    unknown = sorted({row[1] for row in rows if len(row) > 1} - set(classes))
    if not rows or unknown or any(len(row) < 2 for row in rows):
        raise UsageError(
            f"data.root is {str(root)!r}, whose val/{_TINY_IMAGENET_LABELS} does not name a class folder of train/ "
            f"in each line: {_some(unknown)}."
        )
    return [(str(root / "val" / "images" / row[0]), number[row[1]]) for row in rows]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) if names else "none"
    return f"{shown}, ... ({len(names)})" if len(names) > 3 else shown
