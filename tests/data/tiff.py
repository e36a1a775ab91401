"""TIFF files that Pillow cannot write."""

import struct

import numpy as np


def tiff(
    values: np.ndarray, *, order: str = "<", photometric: int | None = None, bits: int | None = None,
    largest: int | None = None,
) -> bytes:  # fmt: skip
    """Return an uncompressed TIFF of one strip.

    Args:
        values: (H, W) or (H, W, C); their type gives the sample format and, unless 12 bits are packed, the bits.
        order: ``<`` or ``>``, the byte order.
        photometric: 0 for white is zero; the default is 1, or 2 for colours.
        bits: 12 packs two values into three bytes.
        largest: The largest value, as the file declares it.
    """
    height, width, channels = (*values.shape, 1)[:3]
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(int)
        packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
        data = packed.astype(np.uint8).tobytes()
    else:
        bits = 8 * values.itemsize
        data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    photometric = (2 if channels > 1 else 1) if photometric is None else photometric
    entries = {
        256: [width], 257: [height], 258: [bits] * channels, 259: [1], 262: [photometric], 273: [8], 277: [channels],
        278: [height], 279: [len(data)], 339: [kind] * channels,
    }  # fmt: skip
    if largest is not None:
        entries[281] = [largest] * channels
    data += b"\0" * (len(data) % 2)
    start, extra = 8 + len(data), b""
    beyond = start + 2 + 12 * len(entries) + 4
    directory = struct.pack(f"{order}H", len(entries))
    for tag, numbers in sorted(entries.items()):
        long = tag in (273, 279)
        packed_numbers = struct.pack(f"{order}{len(numbers)}{'I' if long else 'H'}", *numbers)
        if len(packed_numbers) > 4:
            packed_numbers, extra = struct.pack(f"{order}I", beyond + len(extra)), extra + packed_numbers
        directory += struct.pack(f"{order}HHI", tag, 4 if long else 3, len(numbers)) + packed_numbers.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", start) + data + directory + struct.pack(f"{order}I", 0) + extra
