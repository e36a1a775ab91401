"""Whether a network is as often right as it is confident."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from lightning_adv.attacks.checks import check_labels
from lightning_adv.attacks.forward import at_least_fp32, check_logits
from lightning_adv.core.errors import UsageError


def calibration_error(logits: Tensor, y: Tensor, *, bins: int = 15) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy over bins of confidence.

    ``Σ_b |B_b| / N · |accuracy(B_b) - confidence(B_b)|`` over bins of equal width of the largest probability (Guo et
    al., "On calibration of modern neural networks", ICML 2017, equation 3), by torchmetrics. Of few images it is too
    large on average, since a bin of one image has a gap whatever the network: compare it at one number of images.

    It is not a mean over images: over several batches or processes gather the logits first, or feed
    ``logits.float().softmax(1)`` to torchmetrics' ``MulticlassCalibrationError``, which gathers them. (It takes logits
    that happen to lie in [0, 1] for probabilities, so give it probabilities.)

    Args:
        logits: Logits (N, K) of images, clean or adversarial, at least one.
        y: Labels (N,).
        bins: Number of bins.

    Returns:
        The error in [0, 1].

    Raises:
        UsageError: These are no logits and labels, or ``bins`` is below 1.

    Example:
        >>> import torch
        >>> calibration_error(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0]))  # half sure, always right
        0.5
    """
    check_logits(logits, len(y))
    if not len(y):
        raise UsageError("y must hold at least one label, got none.")
    check_labels(y, logits.shape[1])
    if bins < 1:
        raise UsageError(f"bins must be at least 1, got {bins}.")
    probabilities = at_least_fp32(logits.detach()).softmax(1)
    return float(multiclass_calibration_error(probabilities, y, logits.shape[1], n_bins=bins, norm="l1"))
