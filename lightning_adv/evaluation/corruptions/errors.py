"""How many corrupted images a network classifies correctly, corruption by corruption (Hendrycks & Dietterich 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from lightning_adv.analysis.images.transformed_accuracy import correctly_classified
from lightning_adv.attacks.checks import check_images
from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import shorten
from lightning_adv.core.shares import Share, wilson_interval
from lightning_adv.evaluation.corruptions.corrupt import (
    CORRUPTIONS,
    SEVERITIES,
    Family,
    check_corruptions,
    corrupt,
    family_of,
    image_indices,
)
from lightning_adv.evaluation.corruptions.mean_errors import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERRORS,
    mce,
    mean_error,
    mean_errors,
    relative_mce,
)

__all__ = [
    "ALEXNET_CLEAN_ERROR", "ALEXNET_ERRORS", "CorruptionError", "corruption_errors", "mce", "mean_error", "mean_errors",
    "read_errors", "relative_mce", "sum_errors",
]  # fmt: skip


class CorruptionError(NamedTuple):
    """How many images with one corruption are classified correctly: one row of a tidy table.

    Attributes:
        corruption: What was done to the images, such as ``gaussian_noise``.
        severity: How strongly, 1 to 5.
        images: Where the images come from, such as ``cifar, regenerated``.
        correct: Number of images that are classified correctly.
        total: Number of images, at least 1.
    """

    corruption: str
    severity: int
    images: str
    correct: int
    total: int

    @property
    def error(self) -> float:
        """The share of images that are classified wrongly."""
        return self._wrong.accuracy

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the error."""
        return self._wrong.interval

    @property
    def _wrong(self) -> Share:
        return Share(self.total - self.correct, self.total)


def corruption_errors(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    seed: int,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    index: int | Sequence[int] = 0,
    family: Family = "auto",
    batch_size: int = 256,
) -> list[CorruptionError]:
    """Count how many corrupted images a network classifies correctly. It is in eval mode, and is left as it was.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Clean images (N, C, H, W) in [0, 1], at least one.
        y: Labels (N,).
        seed: From 0. Networks that are to be compared get the same.
        corruptions: Which of :data:`~lightning_adv.evaluation.corruptions.corrupt.CORRUPTIONS`; None takes all 15.
        severities: Which of 1 to 5.
        index: Where the images stand in their data set, of the first or of each. The rows of several parts of a data
            set add up (:func:`sum_errors`) to those of the whole.
        family: Whose constants, see :mod:`~lightning_adv.evaluation.corruptions.corrupt`.
        batch_size: How many images to corrupt and to classify at a time; it changes no result.

    Returns:
        A row for each corruption and severity, corruption by corruption.

    Raises:
        UsageError: There is no such corruption, severity, seed, index or family, or these are no images in [0, 1] with
            labels that can be corrupted.
        ImportError: The extra ``eval`` is not installed.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 2)).eval()
        >>> x = torch.rand(10, 3, 32, 32)
        >>> asked = {"corruptions": ["contrast"], "severities": [1, 5]}
        >>> rows = corruption_errors(network, x, network(x).argmax(1), seed=0, **asked)
        >>> [(row.corruption, row.severity, row.total) for row in rows]
        [('contrast', 1, 10), ('contrast', 5, 10)]
    """
    check_images(x, y)
    if len(x) == 0:
        raise UsageError("x must hold at least one image, got none.")
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {batch_size}.")
    names = CORRUPTIONS if corruptions is None else corruptions
    check_corruptions(names, severities)
    images = f"{family_of(x, family)}, regenerated"
    indices = image_indices(index, len(x))
    rows: list[CorruptionError] = []
    for name in names:
        for severity in severities:
            correct = 0
            for start in range(0, len(x), batch_size):
                part = slice(start, start + batch_size)
                corrupted = corrupt(x[part], name, severity, seed=seed, index=indices[part], family=family)
                correct += int(correctly_classified(network, corrupted, y[part]).sum())
            rows.append(CorruptionError(name, severity, images, correct, len(x)))
    return rows


def sum_errors(shards: Iterable[Sequence[CorruptionError]]) -> list[CorruptionError]:
    """Add up the rows of the parts of a data set, in the order in which they first appear.

    Example:
        >>> row = CorruptionError("fog", 1, "cifar, regenerated", correct=8, total=10)
        >>> sum_errors([[row], [row._replace(correct=6)]])[0].error
        0.3
    """
    sums: dict[tuple[str, int, str], CorruptionError] = {}
    for rows in shards:
        for row in rows:
            before = sums.get(row[:3], row._replace(correct=0, total=0))
            sums[row[:3]] = row._replace(correct=before.correct + row.correct, total=before.total + row.total)
    return list(sums.values())


def read_errors(records: Iterable[Mapping[str, Any]]) -> list[CorruptionError]:
    """Return rows from plain mappings, such as those of ``csv.DictReader`` or of a JSON list.

    Args:
        records: With the keys ``corruption``, ``severity``, ``correct``, ``total`` and, if known, ``images``; numbers
            may be text. Other keys are left out.

    Raises:
        UsageError: A key is missing, or its value makes no row.

    Example:
        >>> read_errors([{"corruption": "fog", "severity": "1", "correct": "8", "total": "10"}])[0].error
        0.2
    """
    rows: list[CorruptionError] = []
    for record in records:
        try:
            name, images = record["corruption"], record.get("images", "")
            severity, correct, total = (_integer(record[key]) for key in ("severity", "correct", "total"))
            row = CorruptionError(name, severity, images, correct, total)
            check_corruptions([row.corruption], [row.severity])
            wilson_interval(correct, total)  # tells counts that cannot be
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"a record must have a corruption, a severity, correct and total, got {shorten(record)}: {error}."
            ) from error
        rows.append(row)
    return rows


def _integer(value: Any) -> int:
    if type(value) not in (int, str) or abs(int(value)) >= 2**53:  # 1.5 and True would become 1
        raise UsageError(f"{shorten(value)} is no whole number")
    return int(value)
