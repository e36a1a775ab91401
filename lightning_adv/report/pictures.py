"""A run's pictures as the page can trust them: whole PNGs of a size that a browser shows."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import MEGABYTE, read_bytes

_BEGINS = b"\x89PNG\r\n\x1a\n"
_MOST_BYTES, _MOST_PIXELS = 20 * MEGABYTE, 100 * MEGABYTE  # of one picture; a figure has some hundred thousand


def read_picture(path: Path) -> bytes:
    """Return a picture's bytes, after a look at each of its chunks (PNG specification, sections 5.2 and 5.3).

    Raises:
        UsageError: It is no whole PNG, is damaged, or is larger than 20 MB or 100 million pixels. The reason does not
            name the file.
    """
    content = read_bytes(path, most=_MOST_BYTES)
    if not content.startswith(_BEGINS):
        raise UsageError("it is no PNG")
    place, kind = len(_BEGINS), b""
    while kind != b"IEND":
        head = content[place : place + 8]
        length, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
        end = place + 12 + length
        if not kind or end > len(content):
            raise UsageError("it is no whole PNG")
        if zlib.crc32(content[place + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            raise UsageError("it is a damaged PNG")
        if place == len(_BEGINS):
            _check_size(kind, content[place + 8 : end - 4])
        place = end
    return content


def _check_size(kind: bytes, header: bytes) -> None:
    if kind != b"IHDR" or len(header) < 8:
        raise UsageError("it is a damaged PNG")
    width, height = struct.unpack(">II", header[:8])
    if not 0 < width * height <= _MOST_PIXELS:
        raise UsageError(f"it is of {width} × {height} pixels")
