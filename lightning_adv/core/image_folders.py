"""Folders of image files: what is in them, whatever it is for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lightning_adv.core.errors import UsageError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What an image's name ends in, in small or capital letters: torchvision's list."""

OTHER_IMAGES = (".avif", ".dcm", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".npy", ".pbm", ".svg")
# What systems leave in folders: macOS' archives, Synology's thumbnails, the root of a file system
_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "lost+found")


class ImageList(NamedTuple):
    """The images below a folder, and the files that are images of kinds that are not read."""

    images: list[str]
    left_out: list[str]


def list_images(root: str | Path, *, argument: str) -> ImageList:
    """List the image files of a folder and of those below it, sorted by folder and name.

    Links to folders are followed, and hidden files and folders are left out.

    Args:
        root: The folder.
        argument: The argument that gave it, for the errors.

    Raises:
        UsageError: It is not a folder, has no images, or a link leads nowhere or back.
    """
    if not os.path.isdir(root):
        raise UsageError(f"{argument} is {str(root)!r}, which is not a folder.")
    with errors_name(root, argument):
        files = sorted(files_below(str(root)))
    images, left_out = (
        [f"{below}{os.sep}{file}" for below, file in files if extension_of(file) in extensions]
        for extensions in (EXTENSIONS, OTHER_IMAGES)
    )
    if not images:
        raise UsageError(
            f"{argument} is {str(root)!r}, which has no image: an image's name ends in {', '.join(EXTENSIONS)}."
        )
    return ImageList(images, left_out)


def files_below(folder: str, above: Sequence[str] | None = None) -> Iterator[tuple[str, str]]:
    """Yield (folder, name) of each file in a folder and those below it.

    Args:
        folder: The folder, which may be a link.
        above: The real paths of the folders that led here; None takes those that it lies in.

    Raises:
        FileNotFoundError: A link leads nowhere, or to a folder above it, or a pipe, socket or device has an image's
            name.
    """
    real = os.path.realpath(folder)
    here = (*(map(str, Path(real).parents) if above is None else above), real)
    for entry in entries(folder):
        if entry.is_dir():
            if entry.is_symlink() and os.path.realpath(entry.path) in here:
                raise FileNotFoundError(f"{entry.path} is a link to a folder that it lies in")
            yield from files_below(entry.path, here)
        elif entry.is_file():
            yield folder, entry.name
        elif extension_of(entry.name) in EXTENSIONS:
            raise FileNotFoundError(f"{entry.path} is not a file but a pipe, socket or device")


def entries(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Yield what a folder holds, but for what is hidden or a system's.

    Raises:
        FileNotFoundError: A link leads nowhere.
    """
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS:
                continue
            if entry.is_symlink() and not os.path.exists(entry.path):
                raise FileNotFoundError(f"{entry.path} is a link that leads nowhere")
            yield entry


def extension_of(name: str) -> str:
    """Return what a name ends in, in small letters: ``.jpg``."""
    return os.path.splitext(name)[1].lower()


@contextmanager
def errors_name(root: str | Path, argument: str = "data.root") -> Iterator[None]:
    """Let what goes wrong with files below a folder name the folder, and the argument that gave it.

    Raises:
        UsageError: Something has.
    """
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:  # no permission, gone, a link in a circle
        raise UsageError(f"{argument} is {str(root)!r}, which cannot be used: {str(error).rstrip('.')}.") from error
