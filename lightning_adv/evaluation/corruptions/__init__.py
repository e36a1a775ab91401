"""Common corruptions (Hendrycks & Dietterich 2019), and how well a network classifies corrupted images."""

from lightning_adv.evaluation.corruptions.corrupt import CORRUPTIONS, SEVERITIES, corrupt
from lightning_adv.evaluation.corruptions.errors import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERRORS,
    CorruptionError,
    corruption_errors,
    mce,
    mean_error,
    mean_errors,
    read_errors,
    relative_mce,
    sum_errors,
)
from lightning_adv.evaluation.corruptions.figures import plot_corruption_errors

__all__ = [
    "ALEXNET_CLEAN_ERROR",
    "ALEXNET_ERRORS",
    "CORRUPTIONS",
    "SEVERITIES",
    "CorruptionError",
    "corrupt",
    "corruption_errors",
    "mce",
    "mean_error",
    "mean_errors",
    "plot_corruption_errors",
    "read_errors",
    "relative_mce",
    "sum_errors",
]
