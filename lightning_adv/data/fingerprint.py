"""What a split is made of, in a few characters: checkpoints keep it, so that another split is noticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt


def fingerprint_of_indices(indices: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> str:
    """Return a hash of the images of a split that are known by their number in the data set.

    Args:
        indices: Number of each image, shape (N,), in the split's order.
        labels: Their labels (N,).

    Returns:
        16 hexadecimal digits; no pixel is looked at.

    Example:
        >>> fingerprint_of_indices(np.array([4, 7]), np.array([0, 1]))
        '85a9bdc8255d7c3f'
    """
    return _digest(np.asarray(part, dtype="<i8").tobytes() for part in (indices, labels))


def fingerprint_of_files(root: str | os.PathLike[str], samples: Sequence[tuple[str, int]]) -> str:
    """Return a hash of the image files of a split: of their paths below ``root``, which may lie anywhere, and labels.

    Args:
        root: The data set's folder.
        samples: (path, label) of each image, in the split's order.

    Returns:
        16 hexadecimal digits; no file is read.
    """
    above = os.path.join(os.fspath(root), "")  # not the start of a path where the root is "."
    # no file name holds a zero byte, whatever its encoding
    paths = b"\0".join(os.fsencode(path.removeprefix(above).replace(os.sep, "/")) for path, _ in samples)
    return _digest([paths, np.array([label for _, label in samples], dtype="<i8").tobytes()])


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]
