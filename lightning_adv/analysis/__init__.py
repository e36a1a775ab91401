"""The science as pure functions: no Trainer is needed to call them.

What is offered here is public; a module's other names may change with every version. Analyses of images are in
:mod:`lightning_adv.analysis.images`, those of what networks see in them in :mod:`lightning_adv.analysis.features`, and
signals of adversarial training in danger in :mod:`lightning_adv.analysis.signals`. A module is imported when the first
of its names is used, since the report reads metrics without torch.
"""

from typing import TYPE_CHECKING, Any

from lightning_adv.core.offering import offer

if TYPE_CHECKING:
    from lightning_adv.analysis import features as features
    from lightning_adv.analysis import images as images
    from lightning_adv.analysis import signals as signals
    from lightning_adv.analysis.batchnorm_drift import ChannelStatistics as ChannelStatistics
    from lightning_adv.analysis.batchnorm_drift import drift_records as drift_records
    from lightning_adv.analysis.batchnorm_drift import running_statistics as running_statistics
    from lightning_adv.analysis.batchnorm_drift import sample_channels as sample_channels
    from lightning_adv.analysis.batchnorm_drift import symmetric_kl as symmetric_kl
    from lightning_adv.analysis.batchnorm_drift import tracked_batchnorms as tracked_batchnorms
    from lightning_adv.analysis.batchnorm_figures import plot_channels_by_domain as plot_channels_by_domain
    from lightning_adv.analysis.batchnorm_figures import plot_drift as plot_drift
    from lightning_adv.analysis.batchnorm_figures import plot_gaps as plot_gaps
    from lightning_adv.analysis.batchnorm_figures import plot_running_against_batch as plot_running_against_batch
    from lightning_adv.analysis.local_response import LocalResponses as LocalResponses
    from lightning_adv.analysis.local_response import compare_responses as compare_responses
    from lightning_adv.analysis.local_response import local_responses as local_responses
    from lightning_adv.analysis.local_response import response_layers as response_layers
    from lightning_adv.analysis.local_response_figures import plot_kernel_arithmetic as plot_kernel_arithmetic
    from lightning_adv.analysis.local_response_figures import plot_last_responses as plot_last_responses
    from lightning_adv.analysis.local_response_figures import plot_responses as plot_responses
    from lightning_adv.analysis.overfitting import Accuracies as Accuracies
    from lightning_adv.analysis.overfitting import catastrophic_overfitting as catastrophic_overfitting
    from lightning_adv.analysis.overfitting import robust_overfitting as robust_overfitting
    from lightning_adv.analysis.overfitting import robustly_correct as robustly_correct
    from lightning_adv.analysis.running_vs_batch import BatchStatisticsMetric as BatchStatisticsMetric
    from lightning_adv.analysis.running_vs_batch import batch_statistics as batch_statistics
    from lightning_adv.analysis.running_vs_batch import gap_records as gap_records
    from lightning_adv.analysis.running_vs_batch import statistics_gap as statistics_gap
    from lightning_adv.analysis.training_curves import plot_training_curves as plot_training_curves
    from lightning_adv.analysis.training_curves import read_metrics as read_metrics
    from lightning_adv.analysis.weight_smoothness import decay_rate as decay_rate
    from lightning_adv.analysis.weight_smoothness import effective_learning_rate as effective_learning_rate
    from lightning_adv.analysis.weight_smoothness import kernel_smoothness as kernel_smoothness
    from lightning_adv.analysis.weight_smoothness import quadratic_sum as quadratic_sum
    from lightning_adv.analysis.weight_smoothness import smoothness_records as smoothness_records
    from lightning_adv.analysis.weight_smoothness_figures import plot_kernels as plot_kernels
    from lightning_adv.analysis.weight_smoothness_figures import plot_smoothness as plot_smoothness
    from lightning_adv.core.table import Record as Record
    from lightning_adv.core.table import Row as Row
    from lightning_adv.core.table import series as series

_OFFERED = {
    "batchnorm_drift": (
        "ChannelStatistics", "drift_records", "running_statistics", "sample_channels", "symmetric_kl",
        "tracked_batchnorms",
    ),
    "batchnorm_figures": ("plot_channels_by_domain", "plot_drift", "plot_gaps", "plot_running_against_batch"),
    "local_response": ("LocalResponses", "compare_responses", "local_responses", "response_layers"),
    "local_response_figures": ("plot_kernel_arithmetic", "plot_last_responses", "plot_responses"),
    "overfitting": ("Accuracies", "catastrophic_overfitting", "robust_overfitting", "robustly_correct"),
    "running_vs_batch": ("BatchStatisticsMetric", "batch_statistics", "gap_records", "statistics_gap"),
    "training_curves": ("plot_training_curves", "read_metrics"),
    "weight_smoothness": (
        "decay_rate", "effective_learning_rate", "kernel_smoothness", "quadratic_sum", "smoothness_records",
    ),
    "weight_smoothness_figures": ("plot_kernels", "plot_smoothness"),
    ".core.table": ("Record", "Row", "series"),
}  # fmt: skip
_ROOMS = ("features", "images", "signals")

__all__ = [*_ROOMS, *(name for names in _OFFERED.values() for name in names)]
_get = offer(__name__, {**_OFFERED, **{room: (room,) for room in _ROOMS}})


def __dir__() -> list[str]:
    """Return what is offered too, for completion and the API reference."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    return _get(name)
