"""Which image files cannot be read, before they stop a training. :mod:`~lightning_adv.core.image_files` reads them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image

from lightning_adv.core.errors import UsageError
from lightning_adv.core.image_files import (
    FORMATS,
    LONGEST,
    declared_depth,
    decode_image,
    identified,
    open_image,
    read_image,
    reason_of,
    to_rgb,
)

__all__ = [
    "FORMATS", "LONGEST", "Check", "check_image_files", "check_images", "decode_image", "open_image", "read_image",
    "to_rgb",
]  # fmt: skip

Check = Literal["quick", "decode", "off"]

_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_SMALL = 8192  # bytes; to decode so small an image costs less than to read its header
_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright


def check_image_files(root: Path, paths: Sequence[str], check: Check, *, argument: str = "data.root") -> None:
    """Look for image files that cannot be read, before they stop a training; see :func:`check_images`.

    Args:
        root: The data set's folder, for the error.
        paths: The image files.
        check: What is looked at.
        argument: The argument that gave the folder, for the error.
    """
    check_images(f"{argument} is {str(root)!r}", {path: partial(open_image, path) for path in paths}, check)


def check_images(where: str, files: Mapping[str, Callable[[], BinaryIO]], check: Check) -> None:
    """Look for images that cannot be read, before they stop a training.

    It warns of images that a viewer would turn: they are read as they are stored, as torchvision and timm do, whose
    networks are trained so.

    Args:
        where: The start of the errors: where the images are.
        files: What opens each image, which may be in memory, by its name.
        check: "quick" reads each header and looks for the end of a JPEG or PNG file; it decodes small images, those
            of other formats and those without an end. "decode" decodes every image, "off" does nothing.

    Raises:
        UsageError: Some images cannot be read. It names them.
    """
    if check == "off":
        return
    errors, turned, largest = [], [], []
    for name, open_file in files.items():
        looked = _look(open_file, decode=check == "decode")
        if looked.error is not None:
            errors.append(f"{name} ({looked.error})")
        if looked.turned:
            turned.append(name)
        if looked.largest is not None:
            largest.append(looked.largest)
    if errors:
        more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
        raise UsageError(
            f"{where}, where {len(errors)} of {len(files)} images cannot be read: "
            f"{'; '.join(errors[:3])}{more}. Replace or delete them."
        )
    if turned:
        rank_zero_warn(
            f"{where}, where {len(turned)} of {len(files)} images are stored turned or mirrored, by "
            f"their EXIF orientation, and are read as they are stored: {turned[0]} is the first."
        )
    if largest and max(largest) < 2**12:
        rank_zero_warn(
            f"{where}, where no value of {len(largest)} images of 16 bits is above {max(largest)}: "
            "they are read as shares of 65535, and so are nearly black. If they hold fewer bits, scale them, or let a "
            "TIFF declare the depth (MaxSampleValue)."
        )


class _Looked(NamedTuple):
    error: str | None
    turned: bool
    largest: int | None = None  # of an image of 16 bits that was decoded


def _look(open_file: Callable[[], BinaryIO], *, decode: bool) -> _Looked:
    try:
        with open_file() as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            tail = file.read()
            file.seek(0)
            with identified(file) as image:
                end = _ENDS.get(str(image.format))
                largest = None
                if decode or size < _SMALL or end is None or not tail.endswith(end):
                    to_rgb(image)
                    if image.mode.startswith("I;16") and declared_depth(image) is None:
                        largest = int(np.asarray(image).max())
                return _Looked(None, _is_turned(image), largest)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and others
        return _Looked(reason_of(error), turned=False)


def _is_turned(image: Image.Image) -> bool:
    # Pillow turns those of a TIFF itself
    return "exif" in image.info and image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) in range(2, 9)
