"""How a regime's network is measured: clean and robust accuracy and loss, through each of its BatchNorm domains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DistributedSampler
from torchmetrics import MeanMetric, Metric, SumMetric
from torchmetrics.classification import MulticlassAccuracy

KINDS = ("clean", "robust")


def ends_with_repetition(loader: Any, batch_idx: int) -> bool:
    """Return whether the last image of a batch is one that another process evaluates too.

    Lightning gives plain loaders a ``DistributedSampler``, which repeats images until every process has as many.
    """
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler) or sampler.drop_last or batch_idx != len(loader) - 1:
        return False
    last = sampler.rank + (sampler.num_samples - 1) * sampler.num_replicas
    return last >= len(sampler.dataset)  # type: ignore[arg-type]


class Meters(nn.Module):
    """The metrics of one stage.

    They are ``clean_accuracy``, ``clean_loss``, ``robust_accuracy``, ``robust_loss`` and ``images``. A network with
    several domains has the first four for each domain too, as in ``clean_accuracy_main``; those without a domain's
    name are then through the domain that is used for inference.

    Args:
        num_classes: Number of classes K.
        domains: The domains that are measured; empty for a network without.
        inference_domain: The one whose numbers stand for the network.
    """

    def __init__(self, num_classes: int, domains: Sequence[str] = (), inference_domain: str | None = None) -> None:
        super().__init__()
        self.inference_domain = inference_domain
        suffixes = ["", *(f"_{domain}" for domain in domains)]
        metrics: dict[str, Metric] = {"images": SumMetric()}
        for name in (f"{kind}_{{}}{suffix}" for suffix in suffixes for kind in KINDS):
            # Labels are checked already, with a clearer message.
            metrics[name.format("accuracy")] = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
            metrics[name.format("loss")] = MeanMetric(nan_strategy="disable")  # the default leaves NaN out of the mean
        self.metrics = nn.ModuleDict(metrics)

    def __getitem__(self, name: str) -> Metric:
        """Return a metric by its name."""
        metric: Metric = self.metrics[name]  # type: ignore[assignment]
        return metric

    def items(self) -> Iterator[tuple[str, Metric]]:
        """Yield the names and the metrics."""
        yield from self.metrics.items()  # type: ignore[misc]

    def update(self, kind: str, domain: str | None, logits: Tensor, y: Tensor) -> None:
        """Take in the logits (N, K) of ``"clean"`` or ``"robust"`` images with labels (N,), through a domain."""
        loss = F.cross_entropy(logits.float(), y, reduction="none")
        suffixes = [] if domain is None else [f"_{domain}"]
        for suffix in [*suffixes, ""] if domain == self.inference_domain else suffixes:
            self[f"{kind}_accuracy{suffix}"].update(logits.float(), y)
            self[f"{kind}_loss{suffix}"].update(loss)
