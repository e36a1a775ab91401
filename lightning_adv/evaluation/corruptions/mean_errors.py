r"""What errors on corrupted images come to: the mean error and the mCE.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (ICLR 2019),
section 4.2. With :math:`E_{s,c}` the error at severity s of the corruption c:

- mean error: the mean of :math:`E_{s,c}` over severities and corruptions, which the literature on CIFAR-10-C reports;
- mCE: the mean over c of :math:`\sum_s E_{s,c} / \sum_s E^b_{s,c}`, with a baseline b;
- relative mCE: the mean over c of :math:`\sum_s (E_{s,c} - E) / \sum_s (E^b_{s,c} - E^b)`, with the clean errors
  :math:`E` and :math:`E^b`.

All are shares of 1; the paper prints them times 100.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightning_adv.core.errors import UsageError
from lightning_adv.evaluation.corruptions.corrupt import SEVERITIES

if TYPE_CHECKING:
    from lightning_adv.evaluation.corruptions.errors import CorruptionError

ALEXNET_ERRORS: Mapping[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""AlexNet's mean error over the five severities of the published ImageNet-C, the baseline of the paper.

As in AugMix's ``imagenet.py`` (github.com/google-research/augmix), which names the authors' repository as its source,
and in MMPretrain's metric of corruption errors. On regenerated images an mCE by these is not the published benchmark's;
a baseline that is evaluated on the same images makes a fair one."""

ALEXNET_CLEAN_ERROR = 0.435
"""AlexNet's error on ImageNet's validation images (the paper's table 1; torchvision tells 1 - 0.56522)."""


def mean_error(rows: Sequence[CorruptionError]) -> float:
    """Return the mean error over corruptions and severities, all of one weight.

    Raises:
        UsageError: There are no rows, or not one for each corruption at each severity.

    Example:
        >>> from lightning_adv.evaluation.corruptions import CorruptionError
        >>> rows = [CorruptionError("fog", severity, "", correct=9 - severity, total=10) for severity in (1, 2)]
        >>> mean_error(rows)
        0.25
    """
    return _mean(list(mean_errors(rows).values()))


def mean_errors(rows: Sequence[CorruptionError]) -> dict[str, float]:
    """Return the mean error over the severities of each corruption.

    Raises:
        UsageError: There are no rows, or not one for each corruption at each severity.

    Example:
        >>> from lightning_adv.evaluation.corruptions import CorruptionError
        >>> rows = [CorruptionError(name, 1, "", correct=8, total=10) for name in ("fog", "snow")]
        >>> mean_errors(rows)
        {'fog': 0.2, 'snow': 0.2}
    """
    return {name: _mean(list(errors.values())) for name, errors in _grid(rows).items()}


def mce(rows: Sequence[CorruptionError], baseline: Sequence[CorruptionError] | Mapping[str, float]) -> float:
    """Return the mean corruption error, relative to a baseline's (1: as the baseline).

    Args:
        rows: Of the network.
        baseline: Rows of another network with the same corruptions and severities, or the mean error over all five
            severities by corruption, such as :data:`ALEXNET_ERRORS` for ImageNet.

    Raises:
        UsageError: The rows do not match, or the baseline makes no error on a corruption.

    Example:
        >>> from lightning_adv.evaluation.corruptions import CorruptionError
        >>> rows = [CorruptionError("fog", severity, "", correct=8, total=10) for severity in (1, 2, 3, 4, 5)]
        >>> f"{mce(rows, ALEXNET_ERRORS):.3f}"
        '0.244'
    """
    return relative_mce(rows, baseline, clean_error=0, baseline_clean_error=0)


def relative_mce(
    rows: Sequence[CorruptionError],
    baseline: Sequence[CorruptionError] | Mapping[str, float],
    *,
    clean_error: float,
    baseline_clean_error: float,
) -> float:
    """Return the mean of what a network loses by corruptions, relative to what a baseline loses (1: as the baseline).

    Args:
        rows: Of the network.
        baseline: As in :func:`mce`.
        clean_error: The network's error on the clean images, a share of 1.
        baseline_clean_error: The baseline's, such as :data:`ALEXNET_CLEAN_ERROR`.

    Raises:
        UsageError: The rows do not match, a clean error is no share, or the baseline loses nothing by a corruption.

    Example:
        >>> from lightning_adv.evaluation.corruptions import CorruptionError
        >>> rows = [CorruptionError("fog", severity, "", correct=8, total=10) for severity in (1, 2, 3, 4, 5)]
        >>> relative = relative_mce(rows, ALEXNET_ERRORS, clean_error=0.1, baseline_clean_error=ALEXNET_CLEAN_ERROR)
        >>> f"{relative:.3f}"
        '0.260'
    """
    for argument, value in (("clean_error", clean_error), ("baseline_clean_error", baseline_clean_error)):
        if not 0 <= value <= 1:
            raise UsageError(f"{argument} must lie in [0, 1], got {value}.")
    errors = mean_errors(rows)
    ratios: list[float] = []
    for name, baseline_error in _baseline_errors(rows, baseline).items():
        if not baseline_error > baseline_clean_error:
            raise UsageError(
                f"the baseline's error on {name} must be above {baseline_clean_error:g} to be a measure of others, "
                f"got {baseline_error:g}."
            )
        # Means over the same severities: their ratio is that of the sums.
        ratios.append((errors[name] - clean_error) / (baseline_error - baseline_clean_error))
    return _mean(ratios)


def _baseline_errors(
    rows: Sequence[CorruptionError], baseline: Sequence[CorruptionError] | Mapping[str, float]
) -> dict[str, float]:
    """Return the baseline's mean error on each corruption of the rows."""
    grid = _grid(rows)
    severities = sorted(next(iter(grid.values())))
    if isinstance(baseline, Mapping):
        known, levels = dict(baseline), list(SEVERITIES)
    else:
        known, levels = mean_errors(baseline), sorted(next(iter(_grid(baseline).values())))
    if severities != levels:
        raise UsageError(f"rows and baseline must have the same severities, got {severities} and {levels}.")
    missing = [name for name in grid if name not in known]
    if missing:
        raise UsageError(f"baseline must have all corruptions of the rows, {', '.join(missing)} is missing.")
    return {name: known[name] for name in grid}


def _grid(rows: Sequence[CorruptionError]) -> dict[str, dict[int, float]]:
    """Return the errors by corruption and severity, which must be complete: a mean of a part is another number."""
    if not rows:
        raise UsageError("rows must hold at least one corruption, got none.")
    grid: dict[str, dict[int, float]] = {}
    for row in rows:
        errors = grid.setdefault(row.corruption, {})
        if row.severity in errors:
            raise UsageError(
                f"rows has {row.corruption} at severity {row.severity} twice; sum_errors adds up the parts of a data "
                "set."
            )
        errors[row.severity] = row.error
    severities = sorted({row.severity for row in rows})
    for name, errors in grid.items():
        if sorted(errors) != severities:
            raise UsageError(
                f"rows must have {name} at the severities of the others, {severities}, got {sorted(errors)}."
            )
    return grid


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
