"""Accuracies as counts, and how sure one can be of them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from lightning_adv.core.errors import UsageError

NORMAL_975 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution, for two-sided 95 % intervals."""


class Share(NamedTuple):
    """How many of a number of samples are classified correctly.

    Attributes:
        correct: How many.
        total: Of how many, at least 1.

    Example:
        >>> share = Share(correct=50, total=100)
        >>> share.accuracy, [f"{end:.3f}" for end in share.interval]
        (0.5, ['0.404', '0.596'])
    """

    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """The share, a fraction of 1."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % confidence interval (:func:`wilson_interval`)."""
        return wilson_interval(self.correct, self.total)

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"correct": self.correct, "accuracy": self.accuracy, "interval": list(self.interval)}


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of an accuracy (Wilson 1927, score interval).

    It stays within [0, 1] and has a width at 0 % and 100 %, where the usual normal interval has none.

    Args:
        correct: Number of correct answers.
        total: Number of independent samples, at least 1.

    Returns:
        The lower and the upper end, fractions of 1.

    Raises:
        UsageError: ``correct`` is not between 0 and ``total``, or ``total`` is below 1.

    Example:
        >>> low, high = wilson_interval(50, 100)
        >>> f"{low:.3f} to {high:.3f}"
        '0.404 to 0.596'
    """
    if total < 1 or not 0 <= correct <= total:
        raise UsageError(f"correct must lie in [0, total] and total be at least 1, got {correct} of {total}.")
    share, z2 = correct / total, NORMAL_975**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = NORMAL_975 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    # Exactly 0 and 1 at the ends, where the formula leaves rounding.
    return (0.0 if correct == 0 else centre - half), (1.0 if correct == total else centre + half)
