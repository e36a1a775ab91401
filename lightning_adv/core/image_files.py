"""Image files as RGB: which formats are read, and what their values mean."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lightning_adv.core.errors import UsageError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
"""What is read, by its content and not by its name. Pillow's other formats are not tried: one calls Ghostscript."""

LONGEST = 1000
"""A longer side over the shorter one: beyond it, resizing the shorter side fills the memory."""

# TIFF's tags
_BITS, _PHOTOMETRIC, _LARGEST_VALUE, _SAMPLE_FORMAT = 258, 262, 281, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2


def read_image(path: str, *, argument: str = "data.root") -> Image.Image:
    """Return an image file as RGB, see :func:`to_rgb`.

    Args:
        path: The file.
        argument: The argument that gave the folder it is in, for the error.

    Raises:
        UsageError: It cannot be decoded, or it is not known what its values mean. It names the file.
    """
    return decode_image(partial(open_image, path), f"{argument} holds {path}")


def read_tensor(path: str, *, argument: str) -> Tensor:
    """Return an image file as a tensor (3, H, W) in [0, 1], see :func:`to_rgb`.

    Args:
        path: The file.
        argument: The argument that gave the folder it is in, for the error.

    Raises:
        UsageError: It cannot be decoded, or it is not known what its values mean. It names the file.
    """
    return to_tensor(read_image(path, argument=argument))


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as a tensor (3, H, W) in [0, 1].

    Example:
        >>> to_tensor(Image.new("RGB", (1, 1), "red")).flatten()
        tensor([1., 0., 0.])
    """
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def decode_image(open_file: Callable[[], BinaryIO], where: str) -> Image.Image:
    """Return the image of a file, which may be in memory, as RGB, see :func:`to_rgb`.

    Args:
        open_file: Opens it.
        where: The start of the error: what holds which image.

    Raises:
        UsageError: It cannot be decoded, or it is not known what its values mean.

    Example:
        >>> from io import BytesIO
        >>> decode_image(lambda: BytesIO(b"P5 1 1 255 A"), "It holds an image").getpixel((0, 0))
        (65, 65, 65)
    """
    try:
        with open_file() as file, identified(file) as image:
            return to_rgb(image)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and others
        raise UsageError(f"{where}, which cannot be decoded: {reason_of(error)}.") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an opened image as RGB, a byte for each value.

    8 bits and fewer, palettes, YCbCr and CMYK are as Pillow converts them. Where an image is transparent, it is laid
    on white. Grey values of 16 bits are scaled by 65535, or by the depth that a TIFF declares (12 bits in 16), and
    rounded; of colours in 16 bits Pillow keeps the upper 8. Floats must lie in [0, 1]. Of an animation it is the first
    picture.

    Raises:
        UsageError: The values have no range that is known, or there are several pages.

    Example:
        >>> grey = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
        >>> np.asarray(to_rgb(grey))[0, :, 0]
        array([  0, 128, 255], dtype=uint8)
    """
    width, height = image.size
    if max(width, height) > LONGEST * min(width, height):
        raise UsageError(
            f"it is {width}×{height} pixels, and the longer side may be {LONGEST} times the shorter one at most"
        )
    depth = declared_depth(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _scaled(image, depth).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() != (255, 255):
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _scaled(image: Image.Image, depth: int | None) -> Image.Image:
    """Return an image of 16-bit integers or floats as 8-bit grey."""
    tags: Any = getattr(image, "tag_v2", {})
    # Pillow inverts such images of 8 bits only
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    # Pillow opens PPM files of more than 8 bits as "I", and has scaled them to 16
    known = image.mode.startswith("I;16") or image.format == "PPM" or image.mode == "F"
    if not known:
        raise UsageError(
            f"its mode is {image.mode} (signed or 32-bit integers), whose range is not known: store it with 8 bits, "
            "with 16 bits without a sign, or as floats in [0, 1]"
        )
    values = np.asarray(image)
    if image.mode == "F":
        _check_range(image.mode, values, 1)
        grey = np.rint(values * np.float32(255))
    else:
        largest = 65535 if depth is None else 2**depth - 1
        _check_range(image.mode, values, largest)
        grey = (values.astype(np.int64) * 510 + largest) // (2 * largest)  # the nearest
    grey = (255 - grey if inverted else grey).astype(np.uint8)
    if image.mode.startswith("I;16") and isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255
    return Image.fromarray(grey)


def _check_range(mode: str, values: npt.NDArray[Any], largest: int) -> None:
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= largest):  # written so that NaN fails too
        raise UsageError(
            f"its mode is {mode}, whose values must lie in [0, {largest}] here, and it has {low} to {high}"
        )


def declared_depth(image: Any) -> int | None:
    """Return how many bits a TIFF says that its 16-bit values have; None where it, or another format, says nothing.

    The largest value counts where it is that of a depth: by TIFF 6.0 it is the largest that occurs, and would stretch
    each image by its own contrast.

    Raises:
        UsageError: It has several pages, signed values, or colours of fewer bits than Pillow takes them to have.
    """
    if image.format != "TIFF":
        return None
    if image.n_frames > 1:
        raise UsageError(f"it has {image.n_frames} pages, and which of them is the image is not known")
    tags = image.tag_v2
    if image.mode not in ("I", "F") and _SIGNED in _numbers(tags.get(_SAMPLE_FORMAT)):
        raise UsageError(f"its mode is {image.mode} with signed values, whose range is not known")
    bits = set(_numbers(tags.get(_BITS)))
    if bits == {12}:
        return 12
    if bits != {16}:
        return None
    declared = {value.bit_length() for value in _numbers(tags.get(_LARGEST_VALUE)) if value & (value + 1) == 0}
    depth = max(declared, default=16)
    if not 8 <= depth < 16:  # 255 may well be the largest of a dark image
        return None
    if not image.mode.startswith("I;16"):
        raise UsageError(f"its mode is {image.mode} with {depth} bits in 16, which are read as 16: scale it")
    return depth


def _numbers(value: Any) -> list[int]:
    return [number for number in (value if isinstance(value, tuple) else (value,)) if isinstance(number, int)]


def open_image(path: str) -> BinaryIO:
    """Open an image file.

    Raises:
        OSError: It cannot be opened.
        UsageError: It is not a file.
    """
    # a named pipe would be waited for, and a device may do anything
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise UsageError("it is not a file but a folder, pipe, socket or device")
    return open(path, "rb")


def identified(file: BinaryIO) -> Image.Image:
    """Open an image of one of :data:`FORMATS`; only its header is read.

    Raises:
        UsageError: It is of none of them, or empty.
    """
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        if not file.seek(0, os.SEEK_END):
            raise UsageError("the file is empty") from error
        raise UsageError(f"it is none of {', '.join(FORMATS)}, or its header is damaged") from error


def reason_of(error: Exception) -> str:
    """Return why an image cannot be read, without a full stop."""
    return str(error).rstrip(".") or type(error).__name__
