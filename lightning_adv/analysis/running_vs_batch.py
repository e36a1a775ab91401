"""How far the statistics of a batch are from the running statistics that stand in for them at inference.

Xie, "Towards Robust Representation Learning and Beyond" (2020), section 6.4.2, "Inconsistent behavior of BN": in
adversarial training the mean of a batch converges to the running mean, but its variance does not converge to the
running variance on certain channels (figure 6.6, two batches, 20 random channels of one layer).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics import Metric

from lightning_adv.analysis.batchnorm_drift import ChannelStatistics, Statistics, tracked_batchnorms
from lightning_adv.attacks import held_still
from lightning_adv.core.table import Record

IMAGE_KINDS = ("clean", "adversarial")
"""The two kinds of images."""

BatchStatistics: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Tensor]]]
"""The statistics of B batches by kind of image, domain and layer: (2, B, C), the means and the unbiased variances."""


# One batch ------------------------------------------------------------------------------------------------------------


def batch_statistics(
    network: nn.Module,
    x: Tensor,
    *,
    layers: str | Sequence[str] = "**",
    held: Iterable[nn.Module] = (),
) -> dict[str, ChannelStatistics]:
    """Return mean and variance of what goes into each BatchNorm when a batch goes through the network.

    Every BatchNorm normalises by the statistics of the batch, as in training, so that a layer sees what it sees there;
    all else is in eval mode. Nothing is updated, and the network is left as it was. SyncBatchNorm uses the statistics
    of this process alone.

    A BatchNorm that is called several times in a forward pass has the mean of the means and the mean of the variances
    of its calls: these are what its running statistics average over.

    Args:
        network: Any network.
        x: Images (N, C, H, W) in [0, 1], at least two.
        layers: Patterns, see :func:`~lightning_adv.nn.layers.select_layers`.
        held: BatchNorms that normalise by their running statistics in training too (frozen ones), and so do here.

    Returns:
        By layer, in the order of registration, mean (C,) and unbiased variance (C,) over images and positions, on the
        network's device. They are accumulated in float32 whatever autocast does, in float64 where the features are
        float64. Layers that the forward pass does not reach are left out.

    Raises:
        UsageError: No BatchNorm has running statistics, a pattern matches none, or a
            BatchNorm gets a single value for each channel.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3))
        >>> batch_statistics(network, torch.rand(4, 1, 2, 2))["1"].mean.shape
        torch.Size([3])
    """
    norms = tracked_batchnorms(network, layers)
    with (
        torch.compiler.set_stance("force_eager"),  # a compiled network does not call hooks
        held_still(network) as still,
        torch.no_grad(),
        _batch_mode(still, held),
        _recording(norms) as calls,
    ):
        still(x)
    found: dict[str, ChannelStatistics] = {}
    for name, norm in norms.items():
        if calls[name]:
            mean, variance = torch.stack(calls[name]).mean(0)
            found[name] = ChannelStatistics(mean, variance, norm.eps)
    return found


@contextmanager
def _batch_mode(network: nn.Module, held: Iterable[nn.Module]) -> Iterator[None]:
    """Let every BatchNorm of a network in eval mode, but those held, normalise by its batch.

    In eval mode it does so where it has no running statistics, and then there is nothing to update. In train mode
    SyncBatchNorm would wait for processes that run other batches.
    """
    taken: list[tuple[_BatchNorm, Tensor | None, Tensor | None]] = []
    kept = set(held)
    try:
        for module in network.modules():
            if isinstance(module, _BatchNorm) and module not in kept:
                taken.append((module, module.running_mean, module.running_var))
                module.running_mean = module.running_var = None
        yield
    finally:
        for module, mean, variance in taken:
            module.running_mean, module.running_var = mean, variance


@contextmanager
def _recording(norms: Mapping[str, _BatchNorm]) -> Iterator[dict[str, list[Tensor]]]:
    """Record (2, C), mean and variance, of each input of some BatchNorms, by name."""
    calls: dict[str, list[Tensor]] = {name: [] for name in norms}

    def hook_of(name: str) -> Any:
        def hook(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0] if inputs[0].dtype == torch.float64 else inputs[0].float()  # squares of fp16 overflow
            over = [dimension for dimension in range(x.ndim) if dimension != 1]
            variance, mean = torch.var_mean(x, dim=over, correction=1)
            calls[name].append(torch.stack([mean, variance]))

        return hook

    handles = [norm.register_forward_pre_hook(hook_of(name)) for name, norm in norms.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


# Several batches ------------------------------------------------------------------------------------------------------


class BatchStatisticsMetric(Metric):
    """Gathers the statistics of several batches, which processes may share.

    Args:
        norms: The BatchNorms, by their layers' names.
        batches: Number of batches B of all processes together.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3))
        >>> metric = BatchStatisticsMetric({"1": network[1]}, batches=2)
        >>> for index in range(2):
        ...     metric.update(index, batch_statistics(network, torch.rand(4, 1, 2, 2)))
        >>> metric.compute()["1"].shape
        torch.Size([2, 2, 3])
    """

    full_state_update = False
    moments: Tensor
    batches_of: Tensor

    def __init__(self, norms: Mapping[str, _BatchNorm], batches: int) -> None:
        super().__init__()
        self.features = {name: norm.num_features for name, norm in norms.items()}
        kept = [torch.as_tensor(norm.running_mean) for norm in norms.values()]
        dtype = torch.float64 if any(values.dtype == torch.float64 for values in kept) else torch.float32
        moments = torch.zeros(2, batches, sum(self.features.values()), dtype=dtype)
        # Each batch is filled in by one process and is zero in the others: their sum is exact.
        self.add_state("moments", moments, dist_reduce_fx="sum")
        self.add_state("batches_of", torch.zeros(len(self.features), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, index: int, statistics: Mapping[str, ChannelStatistics]) -> None:
        """Take in one batch.

        Args:
            index: Its number, from 0 to B - 1.
            statistics: What :func:`batch_statistics` returned for it.
        """
        for layer, (name, columns) in enumerate(self._columns()):
            if name in statistics:
                self.moments[0, index, columns] = statistics[name].mean.to(self.moments)
                self.moments[1, index, columns] = statistics[name].variance.to(self.moments)
                self.batches_of[layer] += 1

    def compute(self) -> dict[str, Tensor]:
        """Return for each layer that was reached (2, B, C): the means and the unbiased variances."""
        reached = self.batches_of.tolist()
        return {
            name: self.moments[:, :, columns]
            for number, (name, columns) in zip(reached, self._columns(), strict=True)
            if number
        }

    def _columns(self) -> Iterator[tuple[str, slice]]:
        begin = 0
        for name, features in self.features.items():
            yield name, slice(begin, begin + features)
            begin += features


# The gap --------------------------------------------------------------------------------------------------------------


class Gap(NamedTuple):
    """Distance of B batches' statistics from the running statistics of one BatchNorm, each (B, C), float64.

    Attributes:
        mean: ``|mean_B - mean_R|``, in the unit of the features.
        variance: ``|variance_B - variance_R|``, in the unit of the features, squared.
        relative_mean: ``|mean_B - mean_R| / sqrt(variance_R + eps)``.
        relative_variance: ``|variance_B - variance_R| / (variance_R + eps)``.
    """

    mean: Tensor
    variance: Tensor
    relative_mean: Tensor
    relative_variance: Tensor


def statistics_gap(running: ChannelStatistics, moments: Tensor) -> Gap:
    """Return how far batches are from the running statistics.

    Args:
        running: The running statistics of C channels, on the CPU.
        moments: (2, B, C): means and unbiased variances of B batches.

    Example:
        >>> running = ChannelStatistics(torch.zeros(1), torch.ones(1), 0.0)
        >>> statistics_gap(running, torch.tensor([[[0.5]], [[1.0]]])).relative_mean
        tensor([[0.5000]], dtype=torch.float64)
    """
    means, variances = moments.cpu().double()
    mean = (means - running.mean.double()).abs()
    variance = (variances - running.variance.double()).abs()
    scale = running.variance.double() + running.eps
    return Gap(mean, variance, mean / scale.sqrt(), variance / scale)


def gap_records(running: Statistics, batches: BatchStatistics, channels: Mapping[str, Sequence[int]]) -> list[Record]:
    """Write down how far batches are from the running statistics.

    For each layer and domain these are, with ``clean_`` or ``adversarial_`` in front, ``mean_gap``, ``variance_gap``,
    ``relative_mean_gap`` and ``relative_variance_gap``: see :class:`Gap`, averaged over batches and channels.

    Args:
        running: The running statistics.
        batches: The statistics of the batches.
        channels: By layer, the channels of which ``running_mean[c]`` and ``running_variance[c]`` are written down,
            and for each batch b ``clean_mean_batchb[c]``, ``clean_variance_batchb[c]`` and so on.

    Example:
        >>> running = {"": {"bn1": ChannelStatistics(torch.zeros(1), torch.ones(1), 0.0)}}
        >>> batches = {"clean": {"": {"bn1": torch.tensor([[[0.5]], [[1.0]]])}}}
        >>> gap_records(running, batches, channels={})[0]
        Record(name='bn1', domain='', statistic='clean_mean_gap', value=0.5)
    """
    records: list[Record] = []
    for domain, layers in running.items():
        for name, own in layers.items():
            picked = channels.get(name, ())
            values = {f"running_{which}[{c}]": float(getattr(own, which)[c]) for which in _MOMENTS for c in picked}
            for kind, of_kind in batches.items():
                if name in of_kind[domain]:
                    values |= _values(own, of_kind[domain][name], kind, picked)
            records += [Record(name, domain, statistic, value) for statistic, value in values.items()]
    return records


_MOMENTS = ("mean", "variance")


def _values(own: ChannelStatistics, moments: Tensor, kind: str, picked: Sequence[int]) -> dict[str, float]:
    gap = statistics_gap(own, moments)
    values = {f"{kind}_{name}_gap": float(of_channels.mean()) for name, of_channels in gap._asdict().items()}
    for which, of_batches in zip(_MOMENTS, moments.tolist(), strict=True):
        for batch, of_channels in enumerate(of_batches):
            values |= {f"{kind}_{which}_batch{batch}[{c}]": of_channels[c] for c in picked}
    return values
