"""What metrics, statistics and tables are called on the page: this package's in words, all others by their names.

Example:
    >>> describe_statistic("kl_from_start")
    Label(title='Symmetric KL divergence from the start', axis='Symmetric KL (nats)')
    >>> describe_statistic("dead_units").title
    'Dead units'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple


class Label(NamedTuple):
    """What a statistic is called.

    Attributes:
        title: In menus and above a plot.
        axis: On an axis, shorter and with its unit.
    """

    title: str
    axis: str


class Metric(NamedTuple):
    """What a metric is called, and on which axis it is drawn.

    Attributes:
        group: Under which heading it is chosen.
        title: Its name.
        axis: The title of its axis.
        factor: From what was logged to the unit of the axis.
        log: Whether the axis is logarithmic.
    """

    group: str
    title: str
    axis: str
    factor: float = 1.0
    log: bool = False


class ChannelPicture(NamedTuple):
    """A picture of single channels, whose statistics are named ``running_mean[17]``.

    Attributes:
        title: Its name.
        axis: The title of its value axis.
        running: The statistic of the channels; each BatchNorm domain is a set of points.
        batches: How the statistics of the batches begin that stand beside it for one domain, after ``clean_`` or
            ``adversarial_``; empty for a picture without batches.
    """

    title: str
    axis: str
    running: str
    batches: str = ""


class Section(NamedTuple):
    """How a table is introduced.

    Attributes:
        title: The heading.
        lead: What the table is about, in a sentence or two.
        first: The statistic that is shown first, if the table has it.
        log: Whether the axes begin logarithmic.
        channels: Pictures of single channels.
    """

    title: str
    lead: str
    first: str = ""
    log: bool = False
    channels: Sequence[ChannelPicture] = ()


SECTIONS: Final[Mapping[str, Section]] = {
    "bn_drift": Section(
        "BatchNorm drift",
        "How far the running statistics have moved, from where they began, from the look before, and between the "
        "domains: averages over a layer's channels, and single channels (Xie 2020, figure 6.5).",
        "kl_from_start",
        True,
        (
            ChannelPicture("Running means of sampled channels", "Running mean", "running_mean"),
            ChannelPicture("Running variances of sampled channels", "Running variance", "running_variance"),
        ),
    ),
    "bn_gap": Section(
        "Running against batch statistics",
        "How far the statistics of probe batches are from the running statistics that are used at inference, mean and "
        "variance apart: averages over batches and channels, and single channels (Xie 2020, figure 6.6).",
        "adversarial_relative_mean_gap",
        channels=(
            ChannelPicture("Batch means and running means", "Mean", "running_mean", "mean_batch"),
            ChannelPicture("Batch variances and running variances", "Variance", "running_variance", "variance_batch"),
        ),
    ),
    "smoothness": Section(
        "Smoothness of the weights",
        "How smooth the convolution kernels are, and how large all parameters are together: what weight decay changes.",
        "relative_kernel_variance",
    ),
    "local_response": Section(
        "Local response difference",
        "How much each layer's response to an image changes when the image becomes an adversarial example: the largest "
        "difference and the sum of all, mean over the probe images.",
        "total",
        True,
    ),
}
"""The tables of this package's observers, in the order of the page."""

_STATISTICS: Final = {
    "kernel_variance": Label("Variance of the kernels", "Variance (weights²)"),
    "relative_kernel_variance": Label("Relative variance of the kernels", "Variance / mean square"),
    "total_variation": Label("Total variation of the kernels", "Total variation (weights)"),
    "relative_total_variation": Label("Relative total variation of the kernels", "Total variation / Σ|w|"),
    "high_frequency_share": Label("High frequencies of the kernels", "Share of the spectral energy"),
    "norm": Label("Norm of the weights", "‖w‖"),
    "decay_rate": Label("Decay rate", "Share of ‖w‖ per step"),
    "quadratic_sum": Label("Quadratic sum of the parameters", "Σ w²"),
}
_MOMENTS: Final = {"mean": "running means", "variance": "running variances"}
_ORIGINS: Final = {"start": "the start", "last": "the last look", "checkpoint": "the checkpoint"}
_GROUPS: Final = ("Accuracy", "Loss", "Learning rate", "Other")


def describe_statistic(statistic: str) -> Label:
    """Return what a statistic of a table is called."""
    for pattern, describe in _PATTERNS.items():
        if match := re.fullmatch(pattern, statistic):
            return describe(match)
    words = _capital(statistic.replace("_", " "))
    return _STATISTICS.get(statistic, Label(words, words))


def _distance(match: re.Match[str]) -> Label:
    signed, moment, origin = match.groups()
    where = _ORIGINS.get(origin, f"the {origin} domain")
    if moment == "kl":
        return Label(f"Symmetric KL divergence from {where}", "Symmetric KL (nats)")
    kind, axis = ("Difference", f"Δ running {moment}") if signed else ("Distance", f"|Δ running {moment}|")
    return Label(f"{kind} of the {_MOMENTS[moment]} from {where}", axis)


def _gap(match: re.Match[str]) -> Label:
    kind, relative, moment = match.groups()
    unit = f" / running {'σ' if moment == 'mean' else 'σ²'}" if relative else ""
    return Label(f"{'Relative gap' if relative else 'Gap'} in {moment}, {kind} images", f"|Δ {moment}|{unit}")


def _response(match: re.Match[str]) -> Label:
    transferred, which, attacks = match.groups()
    size = {"max": "Maximum", "total": "Total"}[which]
    parts = [f"{size} difference", transferred and "transferred examples", attacks and f"{attacks[1:]} attacks"]
    return Label(", ".join(filter(None, parts)), f"{size} |Δ response|")


_PATTERNS: Final[Mapping[str, Callable[[re.Match[str]], Label]]] = {
    r"(signed_)?(mean|variance|kl)_from_(.+)": _distance,
    r"(clean|adversarial)_(relative_)?(mean|variance)_gap": _gap,
    r"(transferred_)?(max|total)(_successful|_failed)?": _response,
}


def describe_metric(metric: str) -> Metric:
    """Return what a metric of ``metrics.csv`` is called.

    Example:
        >>> describe_metric("val/robust_accuracy_main").title
        'Robust accuracy, main BatchNorm'
    """
    if match := re.fullmatch(r"(val|train)/(clean|robust)_accuracy(?:_(.+))?", metric):
        part, kind, domain = match.groups()
        training = ", training" if part == "train" else ""
        title = f"{_capital(kind)} accuracy{training}{_through(domain)}"
        return Metric("Accuracy", title, f"{_capital(kind)} accuracy (%)", 100.0)
    if match := re.fullmatch(r"(val|train)/(?:(clean|robust)_)?loss(?:_(.+))?", metric):
        part, kind, domain = match.groups()
        images = "training" if part == "train" else "validation"
        return Metric(
            "Loss", f"{_capital(f'{kind} loss' if kind else 'loss')}, {images}{_through(domain)}", "Loss (nats)"
        )
    if metric.startswith("lr-"):
        title = ", ".join(filter(None, ("Learning rate", metric.removeprefix("lr-"))))
        return Metric("Learning rate", title, "Learning rate", log=True)
    return Metric("Other", metric, metric)


def order_metrics(metrics: Sequence[str]) -> list[str]:
    """Return metrics in the order of a menu: group by group, and in each by title."""
    described = {metric: describe_metric(metric) for metric in metrics}
    return sorted(described, key=lambda each: (_GROUPS.index(described[each].group), described[each].title))


def describe_table(name: str) -> Section:
    """Return how a table is introduced; one of an observer of somebody else's by the name of its file."""
    lead = f"What the observer wrote into analyses/{name}.csv: each of its numbers over epochs, layers and domains."
    return SECTIONS.get(name, Section(_capital(name.replace("_", " ")), lead))


def shorten_middle(text: str, most: int = 26) -> str:
    """Return a text of bounded length: names that begin alike often end differently.

    Example:
        >>> shorten_middle("backbone.layer1.0.conv1", 12)
        'back….conv1'
    """
    begin = most // 3
    return text if len(text) <= most else f"{text[:begin]}…{text[begin + 1 - most :]}"


def _through(domain: str | None) -> str:
    return f", {domain} BatchNorm" if domain else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
