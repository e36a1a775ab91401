"""What a section finds: one number with what it is about."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from lightning_adv.core.shares import NORMAL_975, Share

CLEAN = "clean"
"""What the images of the test set are called, as they are."""


class Finding(NamedTuple):
    """One number: a row of a section's table.

    Attributes:
        network: The network's name.
        images: What images it is of: ``clean``; ``pgd20``, the network's own adversarial examples by the attack of that
            name; ``pgd20 of standard``, another network's; or a transform, ``saturation 8``.
        layer: The layer, or the empty string where the number is about the whole network.
        statistic: What was measured, such as ``accuracy``.
        value: The number.
        low: Lower end of its 95 % interval; NaN where there is none.
        high: The upper end.
        count: Of how many images, or pairs of images, it is.

    Example:
        >>> Finding("madry", "clean", "", "parameters", 11e6, count=1).low
        nan
    """

    network: str
    images: str
    layer: str
    statistic: str
    value: float
    low: float = math.nan
    high: float = math.nan
    count: int = 0  # type: ignore[assignment]  # tuple.count, which nobody needs of a row


def share_finding(network: str, images: str, statistic: str, share: Share, layer: str = "") -> Finding:
    """Return a share of images, such as an accuracy, as a finding with its interval.

    Example:
        >>> share_finding("madry", "clean", "accuracy", Share(9, 10)).value
        0.9
    """
    return Finding(network, images, layer, statistic, share.accuracy, *share.interval, share.total)


def mean_finding(network: str, images: str, statistic: str, values: Tensor, layer: str = "") -> Finding:
    """Return the mean over images of one number for each, with its normal 95 % interval; of one image there is none.

    Example:
        >>> import torch
        >>> mean_finding("madry", "pgd20", "total", torch.tensor([1.0, 3.0]), "conv1").value
        2.0
    """
    values = values.detach().double().cpu()
    mean, half = float(values.mean()), math.nan
    if len(values) > 1:
        half = NORMAL_975 * float(values.std()) / math.sqrt(len(values))
    return Finding(network, images, layer, statistic, mean, mean - half, mean + half, len(values))


def image_name(attack: str, source: str, network: str) -> str:
    """Return what a network's adversarial examples are called, be they its own or another's.

    Args:
        attack: The attack's name.
        source: The network that they were crafted on.
        network: The network that looks at them.

    Example:
        >>> image_name("pgd20", "madry", "madry"), image_name("pgd20", "standard", "madry")
        ('pgd20', 'pgd20 of standard')
    """
    return attack if source == network else f"{attack} of {source}"


def to_csv(findings: Iterable[Finding]) -> str:
    """Return findings as a table with a header. A number has nine digits, and no interval is an empty cell.

    Example:
        >>> print(to_csv([Finding("madry", "clean", "conv1", "maximum", 0.05, count=100)]), end="")
        network,images,layer,statistic,value,low,high,count
        madry,clean,conv1,maximum,0.05,,,100
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Finding._fields)
    for row in findings:
        ends = ("" if math.isnan(end) else f"{end:.9g}" for end in (row.low, row.high))
        writer.writerow([*row[:4], f"{row.value:.9g}", *ends, row.count])
    return text.getvalue()
