"""How a regime's network is measured: clean and robust accuracy and loss, through each of its BatchNorm domains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
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


def length_of(value: Any) -> int | None:
    """Return the length of a loader or a data set; None where it has none."""
    try:
        return len(value)
    except TypeError:
        return None


class ClassesSeen(Metric):
    """Counts how many of K classes the images are of: an accuracy on one of ten says little."""

    full_state_update = False
    seen: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_state("seen", torch.zeros(num_classes), dist_reduce_fx="sum")

    def update(self, y: Tensor) -> None:
        """Take in labels (N,)."""
        self.seen.index_fill_(0, y.long(), 1.0)

    def compute(self) -> Tensor:
        """Return the number of classes."""
        return (self.seen > 0).float().sum()


class Meters(nn.Module):
    """The metrics of one stage.

    They are ``clean_accuracy``, ``clean_loss``, ``robust_accuracy``, ``robust_loss``, ``images`` and ``classes``. A
    network with several domains has the first four for each domain too, as in ``clean_accuracy_main``; those without a
    domain's name are then through the domain that is used for inference.

    Args:
        num_classes: Number of classes K.
        domains: The domains that are measured; empty for a network without.
        inference_domain: The one whose numbers stand for the network.
    """

    def __init__(self, num_classes: int, domains: Sequence[str] = (), inference_domain: str | None = None) -> None:
        super().__init__()
        self.inference_domain = inference_domain
        suffixes = ["", *(f"_{domain}" for domain in domains)]
        metrics: dict[str, Metric] = {"images": SumMetric(), "classes": ClassesSeen(num_classes)}
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
