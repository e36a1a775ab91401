"""What an attack maximises: (N, K), target -> (N,), one number for each sample and no reduction."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_adv.core.errors import UsageError

_SMALLEST_LEAD = 1e-12  # where the first and third class tie, the authors' code divides by this


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy (N,) of logits (N, K) and labels (N,).

    The usual gradient, softmax minus one-hot, is a difference that fp32 rounds to noise, then to zero, where the
    network is confident. So it is written by how much the other classes fall behind: log(1 + sum exp(z_j - z_y)).
    """
    return F.softplus(log_odds(logits, y))


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """Return the log-odds (N,) that the label is wrong: log sum over j != y of exp(z_j), minus z_y.

    The cross-entropy grows with it, sample by sample, so that both have the same direction of steepest ascent; but this
    one's gradient does not vanish, however confident the network is.
    """
    own, others = _split(logits, y)
    return others.logsumexp(1) - own


def log_odds_gradient(logits: Tensor, y: Tensor) -> Tensor:
    """Return the softmax over the other classes, and -1 at the label (N, K)."""
    _, others = _split(logits, y)
    return others.softmax(1).scatter(1, y[:, None], -1)


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


def margin_gradient(logits: Tensor, y: Tensor) -> Tensor:
    """Return 1 at the best other class, -1 at the label (N, K)."""
    _, others = _split(logits, y)
    return torch.zeros_like(logits).scatter(1, others.argmax(1, keepdim=True), 1).scatter(1, y[:, None], -1)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio (Croce & Hein 2020, equation 6), which no scaling or shift changes.

    It is the :func:`margin` over the lead of the first class over the third.

    Args:
        logits: (N, K), K at least 3.
        y: Labels (N,).

    Returns:
        Ratios (N,), positive exactly where the sample is misclassified.

    Raises:
        UsageError: There are fewer than 3 classes.
    """
    top = _top_three(logits).values
    return margin(logits, y) / (top[:, 0] - top[:, 2]).clamp_min(_SMALLEST_LEAD)


def dlr_gradient(logits: Tensor, y: Tensor) -> Tensor:
    """Return the gradient (N, K) of the difference of logits ratio."""
    top = _top_three(logits)
    first, third = top.indices[:, :1], top.indices[:, 2:]
    lead = top.values[:, :1] - top.values[:, 2:]
    ratio = (margin(logits, y)[:, None] / lead.clamp_min(_SMALLEST_LEAD)).where(lead > _SMALLEST_LEAD, 0)
    spread = torch.zeros_like(logits).scatter(1, first, 1).scatter(1, third, -1)
    return (margin_gradient(logits, y) - ratio * spread) / lead.clamp_min(_SMALLEST_LEAD)


def kl(logits: Tensor, clean_logits: Tensor) -> Tensor:
    """Return KL(p(clean) || p(adversarial)) (N,), which TRADES maximises (Zhang et al. 2019, equation 5).

    Args:
        logits: Logits (N, K) of the adversarial images.
        clean_logits: Logits (N, K) of the clean images.
    """
    divergence = F.kl_div(logits.log_softmax(1), clean_logits.log_softmax(1), reduction="none", log_target=True)
    return divergence.sum(1)


def kl_gradient(logits: Tensor, clean_logits: Tensor) -> Tensor:
    """Return the adversarial minus the clean prediction (N, K)."""
    return logits.softmax(1) - clean_logits.softmax(1)


def check_classes(loss: str, num_classes: int) -> None:
    """Check that a network has as many classes as a loss compares.

    Raises:
        UsageError: It has fewer.
    """
    if loss == "dlr" and num_classes < 3:
        raise UsageError(f"loss='dlr' compares three classes, and the network has {num_classes}: use cross_entropy.")


def _top_three(logits: Tensor) -> torch.return_types.topk:
    check_classes("dlr", logits.shape[1])
    return logits.topk(3, dim=1)


def _split(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the own logit (N,), and (N, K) with minus infinity in its place."""
    return logits.gather(1, y[:, None]).squeeze(1), logits.scatter(1, y[:, None], float("-inf"))


class Loss(NamedTuple):
    """A loss, and what it compares the logits with."""

    function: Callable[[Tensor, Tensor], Tensor]
    alone: Callable[[Tensor, Tensor], Tensor]
    """What to climb where samples do not see each other: a function that grows with the loss, sample by sample."""
    alone_gradient: Callable[[Tensor, Tensor], Tensor]
    """Its gradient to the logits (N, K), in closed form: no step builds and differentiates a graph of the loss."""
    target: str
    """``"labels"`` (N,) or ``"clean_logits"`` (N, K)."""


LOSSES = {
    "cross_entropy": Loss(cross_entropy, log_odds, log_odds_gradient, "labels"),
    "margin": Loss(margin, margin, margin_gradient, "labels"),
    "dlr": Loss(dlr, dlr, dlr_gradient, "labels"),
    "kl": Loss(kl, kl, kl_gradient, "clean_logits"),
}


def get_loss(name: str) -> Loss:
    """Return a loss by its name.

    Raises:
        UsageError: There is no loss of that name.
    """
    if name not in LOSSES:
        raise UsageError(f"loss must be one of {', '.join(LOSSES)}, got {name!r}.")
    return LOSSES[name]
