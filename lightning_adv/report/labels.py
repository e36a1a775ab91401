"""What metrics, statistics and tables are called on the page: this package's in words, all others by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple


class Label(NamedTuple):
    """What a statistic or a metric is called.

    Attributes:
        title: In menus and above a plot.
        axis: On an axis, shorter and with its unit.
        group: Under which heading of the menu a metric is chosen.
    """

    title: str
    axis: str
    group: str = ""


class ChannelPicture(NamedTuple):
    """A picture of single channels, whose statistics are named ``running_mean[17]``.

    Attributes:
        title: Its name.
        axis: The title of its value axis.
        running: The statistic of the channels; each BatchNorm domain is a set of points.
        batches: After ``clean_`` or ``adversarial_``, how the statistics of batches begin that are shown beside it
            instead of the other domains.
    """

    title: str
    axis: str
    running: str
    batches: str = ""


class Introduction(NamedTuple):
    """How the section of a table begins: its heading, what it is about, what is shown first, pictures of channels."""

    title: str
    lead: str
    first: str = ""
    log: bool = False
    channels: tuple[ChannelPicture, ...] = ()


INTRODUCTIONS: Final[Mapping[str, Introduction]] = {
    "bn_drift": Introduction(
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
    "bn_gap": Introduction(
        "Running against batch statistics",
        "How far the statistics of probe batches are from the running statistics that are used at inference, mean and "
        "variance apart: averages over batches and channels, and single channels (Xie 2020, figure 6.6).",
        "adversarial_relative_mean_gap",
        channels=(
            ChannelPicture("Batch means and running means", "Mean", "running_mean", "mean_batch"),
            ChannelPicture("Batch variances and running variances", "Variance", "running_variance", "variance_batch"),
        ),
    ),
    "smoothness": Introduction(
        "Smoothness of the weights",
        "How smooth the convolution kernels are, and how large all parameters are together: what weight decay changes.",
        "relative_kernel_variance",
    ),
    "local_response": Introduction(
        "Local response difference",
        "How much each layer's response to an image changes when the image becomes an adversarial example: the largest "
        "difference and the sum of all, mean over the probe images.",
        "total",
        True,
    ),
    "feature_distributions": Introduction(
        "Distributions of features",
        "How far the features of adversarial examples are from those of clean images, behind each block: how often a "
        "linear classifier tells them apart, and the energy distance (Siddiqui & Breuel 2021, section 6).",
        "separability",
    ),
    "frequency_curve": Introduction(
        "Accuracy over the frequency scale",
        "The accuracy on images of which only some frequencies are left, clean and adversarial: how high it gets, at "
        "which radius, and where it ends ('Dissecting Local Properties', figures 1 and 6).",
        "low_pass_adversarial_peak",
    ),
    "perturbation_view": Introduction(
        "Perturbations of fixed images",
        "How many attacks turn an image that is classified correctly, and how far they move its pixels.",
        "success_rate",
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
_ORIGINS: Final = {"start": "the start", "last": "the last look", "checkpoint": "the checkpoint"}


def describe_table(name: str) -> Introduction:
    """Return how a table is introduced; one of somebody else's observer by the name of its file."""
    lead = f"What an observer wrote into analyses/{name}.csv."
    return INTRODUCTIONS.get(name, Introduction(_words(name), lead))


def describe_statistic(statistic: str) -> Label:
    """Return what a statistic of a table is called.

    Example:
        >>> describe_statistic("kl_from_start").title, describe_statistic("dead_units").title
        ('Symmetric KL divergence from the start', 'Dead units')
    """
    if match := re.fullmatch(r"(signed_)?(mean|variance|kl)_from_(.+)", statistic):
        signed, moment, origin = match.groups()
        where = _ORIGINS.get(origin, f"the {origin} domain")
        if moment == "kl":
            return Label(f"Symmetric KL divergence from {where}", "Symmetric KL (nats)")
        kind, axis = ("Difference", f"Δ running {moment}") if signed else ("Distance", f"|Δ running {moment}|")
        return Label(f"{kind} of the running {moment}s from {where}", axis)
    if match := re.fullmatch(r"(clean|adversarial)_(relative_)?(mean|variance)_gap", statistic):
        images, relative, moment = match.groups()
        unit = f" / running {'σ' if moment == 'mean' else 'σ²'}" if relative else ""
        return Label(f"{'Relative gap' if relative else 'Gap'} in {moment}, {images} images", f"|Δ {moment}|{unit}")
    if match := re.fullmatch(r"(transferred_)?(max|total)(_successful|_failed)?", statistic):
        transferred, size, attacks = match.groups()
        size = {"max": "Maximum", "total": "Total"}[size]
        of = [transferred and "transferred examples", attacks and f"{attacks[1:]} attacks"]
        return Label(", ".join(filter(None, [f"{size} difference", *of])), f"{size} |Δ response|")
    return _STATISTICS.get(statistic, Label(_words(statistic), _words(statistic)))


def describe_metric(metric: str) -> Label:
    """Return what a metric of ``metrics.csv`` is called.

    Example:
        >>> describe_metric("val/robust_accuracy_main")
        Label(title='Robust accuracy, main BatchNorm', axis='Robust accuracy (%)', group='Accuracy')
    """
    if match := re.fullmatch(r"(val|train)/(?:(clean|robust)_)?(accuracy|loss)(?:_(.+))?", metric):
        part, images, kind, domain = match.groups()
        name = _words(f"{images} {kind}" if images else kind)
        parts = [
            name,
            "training" if part == "train" else "validation" * (kind == "loss"),
            domain and f"{domain} BatchNorm",
        ]
        axis = f"{name} (%)" if kind == "accuracy" else "Loss (nats)"
        return Label(", ".join(filter(None, parts)), axis, kind.title())
    if metric.startswith("lr-"):
        name = "Learning rate"
        return Label(", ".join(filter(None, (name, metric.removeprefix("lr-")))), name, name)
    return Label(metric, metric, "Other")


def describe_measure(column: str) -> Label:
    """Return what a column of a study's table is called; the group ``%`` is that of what by its name is a share.

    Example:
        >>> describe_measure("attacked_robust_accuracy")
        Label(title='Robust accuracy, attacked', axis='Robust accuracy', group='%')
        >>> describe_measure("moved_black_box_rate").title, describe_measure("fooled").title
        ('Black box rate, moved', 'fooled')
    """
    form = r"(?:(.+)_)?((?:clean|robust)_accuracy|(?:black|white)_box_rate)(?:_(.+))?"
    if match := re.fullmatch(form, column):
        of, kind, threat = match.groups()
        return Label(", ".join(filter(None, (_words(kind), of, threat))), _words(kind), "%")
    return Label(column, column, "%" if re.search("(^|_)(accuracy|rate|share)(_|$)", column) else "")


def shorten_middle(text: str, most: int = 26) -> str:
    """Return a text of bounded length: names that begin alike often end differently.

    Example:
        >>> shorten_middle("backbone.layer1.0.conv1", 12)
        'back…0.conv1'
    """
    begin = most // 3
    return text if len(text) <= most else f"{text[:begin]}…{text[begin + 1 - most :]}"


def _words(name: str) -> str:
    return name[:1].upper() + name[1:].replace("_", " ")
