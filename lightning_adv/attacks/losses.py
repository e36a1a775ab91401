"""What an attack maximises: (N, K), target -> (N,), one number for each sample and no reduction."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy (N,) of logits (N, K) and labels (N,).

    The usual gradient, softmax minus one-hot, is a difference that fp32 rounds to noise, then to zero, where the
    network is confident. So it is written by how much the other classes fall behind: log(1 + sum exp(z_j - z_y)).
    """
    own, others = _split(logits, y)
    return F.softplus(others.logsumexp(1) - own)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return by how much the best other class leads: max over j != y of z_j, minus z_y.

    Positive exactly where the sample is misclassified (Carlini & Wagner 2017, section V-A, f_6).

    Args:
        logits: (N, K), K at least 2.
        y: Labels (N,).

    Returns:
        Margins (N,).
    """
    own, others = _split(logits, y)
    return others.amax(1) - own


def kl(logits: Tensor, clean_logits: Tensor) -> Tensor:
    """Return KL(p(clean) || p(adversarial)) (N,), which TRADES maximises (Zhang et al. 2019, equation 5).

    Args:
        logits: Logits (N, K) of the adversarial images.
        clean_logits: Logits (N, K) of the clean images.
    """
    divergence = F.kl_div(logits.log_softmax(1), clean_logits.log_softmax(1), reduction="none", log_target=True)
    return divergence.sum(1)


def _split(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the own logit (N,), and (N, K) with minus infinity in its place."""
    return logits.gather(1, y[:, None]).squeeze(1), logits.scatter(1, y[:, None], float("-inf"))


class Loss(NamedTuple):
    """A loss and what it compares the logits with."""

    function: Callable[[Tensor, Tensor], Tensor]
    target: str
    """``"labels"`` (N,) or ``"clean_logits"`` (N, K)."""


LOSSES = {
    "cross_entropy": Loss(cross_entropy, "labels"),
    "margin": Loss(margin, "labels"),
    "kl": Loss(kl, "clean_logits"),
}


def get_loss(name: str) -> Loss:
    """Return a loss by its name.

    Raises:
        ValueError: There is no loss of that name.
    """
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {name!r}.")
    return LOSSES[name]
