"""How far the statistics of BatchNorm move: from where they started, from another network, between domains.

Xie, "Towards Robust Representation Learning and Beyond" (2020), section 6.4.2: clean and adversarial images that go
through the same filters induce different running statistics, and those of adversarial images are larger (figure 6.5,
20 random channels of one layer).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.core.errors import UsageError
from lightning_adv.core.table import Record
from lightning_adv.nn.layers import named_batchnorms, select_layers
from lightning_adv.nn.trace import unwrap


class ChannelStatistics(NamedTuple):
    """The Gaussians by which one BatchNorm normalises: channel c as N(mean[c], variance[c] + eps).

    Attributes:
        mean: (C,).
        variance: (C,).
        eps: What the BatchNorm adds to every variance.
    """

    mean: Tensor
    variance: Tensor
    eps: float


Statistics: TypeAlias = Mapping[str, Mapping[str, ChannelStatistics]]
"""The statistics of a network by domain and layer. The domain is the empty string where there are none."""


class StatisticsDistance(NamedTuple):
    """How far two BatchNorms are apart, channel by channel.

    Attributes:
        mean: Difference of the means (C,), with its sign, in the unit of the features.
        variance: Difference of the variances (C,), with its sign, in the unit of the features, squared.
        kl: :func:`symmetric_kl` (C,), in nats.
    """

    mean: Tensor
    variance: Tensor
    kl: Tensor


# What a network has ---------------------------------------------------------------------------------------------------


def tracked_batchnorms(network: nn.Module, layers: str | Sequence[str] = "**") -> dict[str, _BatchNorm]:
    """Return the BatchNorms that have running statistics, by their layers' names.

    Args:
        network: Any network.
        layers: Patterns, see :func:`~lightning_adv.nn.layers.select_layers`.

    Raises:
        UsageError: No BatchNorm has running statistics, or a pattern matches none.

    Example:
        >>> list(tracked_batchnorms(nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))))
        ['1']
    """
    norms = named_batchnorms(network)
    tracked = {name: norm for name, norm in norms.items() if norm.running_mean is not None}
    if not tracked:
        raise UsageError(
            f"The network, a {type(unwrap(network)[1]).__name__}, has BatchNorms ({', '.join(norms)}), but none with "
            "running statistics: they were made with track_running_stats=False."
        )
    return select_layers(tracked, layers, argument="layers")


def running_statistics(network: nn.Module, layers: str | Sequence[str] = "**") -> dict[str, ChannelStatistics]:
    """Copy the running statistics of a network's BatchNorms, by their layers' names.

    Args:
        network: Any network.
        layers: Patterns, see :func:`~lightning_adv.nn.layers.select_layers`.

    Returns:
        Copies on the CPU, in float32, or float64 where the network has that.

    Raises:
        UsageError: See :func:`tracked_batchnorms`.

    Example:
        >>> running_statistics(nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)))["1"].variance
        tensor([1., 1.])
    """
    norms = tracked_batchnorms(network, layers)
    return {
        name: ChannelStatistics(_copy(norm.running_mean), _copy(norm.running_var), norm.eps)
        for name, norm in norms.items()
    }


def _copy(buffer: Tensor | None) -> Tensor:
    values = torch.as_tensor(buffer).detach()
    return values.to("cpu", values.dtype if values.dtype == torch.float64 else torch.float32, copy=True)


def sample_channels(
    norms: Mapping[str, _BatchNorm], layers: str | Sequence[str] | None, count: int
) -> dict[str, list[int]]:
    """Choose the channels that are looked at one by one.

    Which they are follows from the layer's name and its number of channels, so that runs and looks can be compared.

    Args:
        norms: The BatchNorms to choose from, by their layers' names.
        layers: Patterns of layers, see :func:`~lightning_adv.nn.layers.select_layers`; None is the one in the middle.
        count: Channels of each layer; all of them where it has fewer.

    Returns:
        For each layer its channels in ascending order.

    Raises:
        UsageError: A pattern matches none of the BatchNorms.

    Example:
        >>> sample_channels({"bn1": nn.BatchNorm2d(16)}, "bn*", 3)
        {'bn1': [2, 7, 10]}
    """
    middle = list(norms)[len(norms) // 2]
    chosen = {middle: norms[middle]} if layers is None else select_layers(norms, layers, argument="layers")
    drawn: dict[str, list[int]] = {}
    for name, norm in chosen.items():
        seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1
        order = torch.randperm(norm.num_features, generator=torch.Generator().manual_seed(seed))
        drawn[name] = sorted(order[:count].tolist())
    return drawn


# How far apart --------------------------------------------------------------------------------------------------------


def symmetric_kl(a: ChannelStatistics, b: ChannelStatistics) -> Tensor:
    """Return KL(a‖b) + KL(b‖a) of the channel Gaussians, also called Jeffreys divergence.

    With p = variance_a + eps_a and q = variance_b + eps_b it is, for each channel,
    ``(p - q)² / (2 p q) + (mean_a - mean_b)² · (1/p + 1/q) / 2``.

    Args:
        a: Statistics of C channels.
        b: Statistics of C channels.

    Returns:
        (C,), float64, in nats, at least 0.

    Example:
        >>> zero, one = torch.zeros(1), torch.ones(1)
        >>> symmetric_kl(ChannelStatistics(zero, one, 0.0), ChannelStatistics(one, one, 0.0)).item()
        1.0
    """
    p, q = a.variance.double() + a.eps, b.variance.double() + b.eps
    means = a.mean.double() - b.mean.double()
    # Written with differences, so that what is equal gives 0 and close variances do not cancel.
    return ((p - q) / p * ((p - q) / q) + means.square() * (1 / p + 1 / q)) / 2


def distance(a: ChannelStatistics, b: ChannelStatistics) -> StatisticsDistance:
    """Return how far ``a`` is from ``b``: differences a - b and divergence of each channel (C,), float64."""
    means = a.mean.double() - b.mean.double()
    return StatisticsDistance(means, a.variance.double() - b.variance.double(), symmetric_kl(a, b))


# The table ------------------------------------------------------------------------------------------------------------


def drift_records(
    now: Statistics, references: Mapping[str, Statistics], channels: Mapping[str, Sequence[int]]
) -> list[Record]:
    """Write down the statistics of a network and their distances from others.

    For each layer and domain these are ``running_mean`` and ``running_variance``, averaged over the channels, and for
    each reference r ``mean_from_r`` and ``variance_from_r``, the absolute differences, and ``kl_from_r``, the symmetric
    KL divergence, averaged likewise. The first domain is a reference for the others; from it there are
    ``signed_mean_from_r`` and ``signed_variance_from_r`` too (positive where the first one's are smaller).

    Args:
        now: The statistics.
        references: Other statistics by name, with the same domains and layers (or more).
        channels: By layer, the channels of which ``running_mean[c]`` and ``running_variance[c]`` are written down.

    Example:
        >>> now = {"": running_statistics(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)))}
        >>> drift_records(now, {"start": now}, {})[-1]
        Record(name='1', domain='', statistic='kl_from_start', value=0.0)
    """
    first = next(iter(now))
    records: list[Record] = []
    for domain, layers in now.items():
        for name, own in layers.items():
            values = {"running_mean": own.mean.double().mean(), "running_variance": own.variance.double().mean()}
            for reference, others in references.items():
                values |= _distances(own, others[domain][name], reference)
            if domain != first:
                values |= _distances(own, now[first][name], first, signed=True)
            for c in channels.get(name, ()):
                values |= {f"running_mean[{c}]": own.mean[c], f"running_variance[{c}]": own.variance[c]}
            records += [Record(name, domain, statistic, float(value)) for statistic, value in values.items()]
    return records


def _distances(
    own: ChannelStatistics, other: ChannelStatistics, reference: str, *, signed: bool = False
) -> dict[str, Tensor]:
    apart = distance(own, other)
    values = {
        f"mean_from_{reference}": apart.mean.abs().mean(),
        f"variance_from_{reference}": apart.variance.abs().mean(),
        f"kl_from_{reference}": apart.kl.mean(),
    }
    if signed:
        values[f"signed_mean_from_{reference}"] = apart.mean.mean()
        values[f"signed_variance_from_{reference}"] = apart.variance.mean()
    return values


def average_over_layers(records: Iterable[Record], statistic: str, domains: Sequence[str]) -> float:
    """Return the mean of one statistic over all layers of some domains; NaN where there is none."""
    values = [record.value for record in records if record.statistic == statistic and record.domain in domains]
    return sum(values) / len(values) if values else float("nan")
