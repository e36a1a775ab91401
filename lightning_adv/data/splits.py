"""Seeded, stratified splits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lightning_adv.core.errors import UsageError

Indices = npt.NDArray[np.int64]


def stratified_split(
    labels: Sequence[int] | npt.NDArray[np.int64], fraction: float, seed: int, *, argument: str = "fraction"
) -> tuple[Indices, Indices]:
    """Hold out a share of the images, with every class in the same proportion.

    Args:
        labels: The class of each image, shape (N,).
        fraction: Share to hold out, in (0, 1). ``ceil(fraction * N)`` images are held out.
        seed: Seed of the split, in [0, 2**32).
        argument: What the caller's user calls ``fraction``, for the error.

    Returns:
        The indices that are kept and those held out. Both are sorted; together they are 0 ... N - 1.

    Raises:
        UsageError: ``fraction`` is outside (0, 1), or a class has too few images for such a split.
    """
    from sklearn.model_selection import train_test_split  # 0.5 s to import

    if not 0 < fraction < 1:
        raise UsageError(f"{argument} must lie strictly between 0 and 1, got {fraction}.")
    labels = np.asarray(labels)
    try:
        rest, held_out = train_test_split(
            np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed
        )
    except ValueError as error:
        classes, counts = np.unique(labels, return_counts=True)
        fewest = f", the smallest of them with {counts.min()}" if len(counts) else ""
        raise UsageError(
            f"{argument} = {fraction} cannot be split off in equal proportion from {len(labels)} images of "
            f"{len(classes)} classes{fewest}: {str(error).rstrip('.')}.{_advice(counts, argument)}"
        ) from error
    return np.sort(rest), np.sort(held_out)


def _advice(counts: npt.NDArray[np.int64], argument: str) -> str:
    """Return which shares leave an image for each class in both parts; nothing where none does."""
    if not len(counts) or counts.min() < 2:
        return ""
    least = len(counts) / counts.sum()
    return f" {argument} may be {math.ceil(1000 * least) / 1000:g} to {math.floor(1000 * (1 - least)) / 1000:g}."
