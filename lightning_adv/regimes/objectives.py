"""The outer minimisation: what adversarial training makes small, once the adversarial examples are there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_adv.core.errors import UsageError
from lightning_adv.core.recipe import Recipe

ImagesToLogits: TypeAlias = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) -> logits (N, K): a network, or a regime."""

Criterion: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Logits (N, K) and labels (N,) -> the mean cross-entropy, with the regime's label smoothing."""


class Objective(Recipe, ABC):
    """The loss of a step, from clean and adversarial images.

    Example:
        >>> class Halves(Objective):
        ...     def __call__(self, forward, x, x_adv, y, criterion):
        ...         return 0.5 * criterion(forward(x), y) + 0.5 * criterion(forward(x_adv), y)
        >>> x, y = torch.rand(2, 3), torch.tensor([0, 2])
        >>> Halves()(lambda images: images, x, x, y, F.cross_entropy) == F.cross_entropy(x, y)
        tensor(True)
    """

    smooths_labels = True
    """Whether the objective uses the criterion, and with it the regime's label smoothing."""

    @abstractmethod
    def __call__(self, forward: ImagesToLogits, x: Tensor, x_adv: Tensor, y: Tensor, criterion: Criterion) -> Tensor:
        """Return the loss.

        Args:
            forward: The network. It is in train mode: each call is a batch of its own to the BatchNorms.
            x: Clean images (N, C, H, W).
            x_adv: Their adversarial examples (N, C, H, W).
            y: True labels (N,).
            criterion: Mean cross-entropy of logits and labels.
        """


class CrossEntropy(Objective):
    """Cross-entropy of adversarial images (Madry et al. 2018, equation 2.1), with clean ones beside them or not.

    Args:
        clean_fraction: Clean images that join the adversarial ones in the batch, as a share of them: 0 is Madry et
            al., 1 the mixture of Goodfellow et al. (Xie & Yuille 2020, section 6.4.1, figure 6.1). Every image counts
            the same: equation 6.1 with alpha = 0.5 if it is 1.
        logit_pairing: Weight of adversarial logit pairing on the clean images that are there (Kannan et al. 2018,
            section 3.2, with weight 0.5).

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> x, y = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1])
        >>> CrossEntropy(clean_fraction=0.5)(lambda images: images, x, x, y, F.cross_entropy)
        tensor(1.3133)
    """

    def __init__(self, clean_fraction: float = 0.0, logit_pairing: float = 0.0) -> None:
        check_mixture(clean_fraction, logit_pairing)
        self.clean_fraction = clean_fraction
        self.logit_pairing = logit_pairing

    def __call__(self, forward: ImagesToLogits, x: Tensor, x_adv: Tensor, y: Tensor, criterion: Criterion) -> Tensor:
        """Return the loss of one batch that holds both kinds; see :meth:`Objective.__call__`."""
        clean = round(self.clean_fraction * len(x))
        logits = forward(torch.cat([x_adv, x[:clean]]))
        loss = criterion(logits, torch.cat([y, y[:clean]]))
        if self.logit_pairing and clean:
            loss = loss + self.logit_pairing * pairing_distance(logits[len(x) :], logits[:clean])
        return loss


class TRADES(Objective):
    """CE(f(x), y) + beta KL(f(x) || f(x_adv)) (Zhang et al. 2019, equation 5).

    Its attack climbs the same divergence: ``PGD(loss="kl", start="gaussian")`` is the paper's algorithm 1.

    Args:
        beta: Weight of robustness against accuracy, 1/lambda in the paper, which uses 1 and 6 (section 5).

    Raises:
        UsageError: ``beta`` is negative.

    Example:
        >>> x, y = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1])
        >>> TRADES(beta=6)(lambda images: images, x, 1 - x, y, F.cross_entropy)
        tensor(4.0860)
    """

    def __init__(self, beta: float = 6.0) -> None:
        self.beta = _at_least_zero("beta", beta)

    def __call__(self, forward: ImagesToLogits, x: Tensor, x_adv: Tensor, y: Tensor, criterion: Criterion) -> Tensor:
        """Return the loss; see :meth:`Objective.__call__`."""
        clean, adversarial = forward(x), forward(x_adv)
        return criterion(clean, y) + self.beta * divergence(clean, adversarial).mean()


class MART(Objective):
    """BCE(f(x_adv), y) + weight (1 - p_y(x)) KL(f(x) || f(x_adv)) (Wang et al. 2020, equation 11).

    The boosted cross-entropy BCE adds the margin -log(1 - max over k != y of p_k) to the cross-entropy (equation 8).
    Samples that the network misclassifies when they are clean count more.

    Args:
        weight: lambda, 5 in the paper (section 4.1).

    Raises:
        UsageError: ``weight`` is negative.

    Example:
        >>> x, y = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1])
        >>> MART(weight=5)(lambda images: images, x, 1 - x, y, F.cross_entropy)
        tensor(2.3157)
    """

    smooths_labels = False

    def __init__(self, weight: float = 5.0) -> None:
        self.weight = _at_least_zero("weight", weight)

    def __call__(self, forward: ImagesToLogits, x: Tensor, x_adv: Tensor, y: Tensor, criterion: Criterion) -> Tensor:
        """Return the loss; see :meth:`Objective.__call__`."""
        clean, adversarial = forward(x), forward(x_adv)
        own = clean.float().softmax(1).gather(1, y[:, None]).squeeze(1)
        weighted = (1 - own) * divergence(clean, adversarial)
        return (boosted_cross_entropy(adversarial, y) + self.weight * weighted).mean()


def divergence(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Return KL(p(clean) || p(adversarial)) (N,) of two logits (N, K); gradients flow into both."""
    p, q = clean.float().log_softmax(1), adversarial.float().log_softmax(1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


def boosted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return -log p_y - log(1 - max over k != y of p_k) (N,) of logits (N, K) (Wang et al. 2020, equation 8).

    1 - p_k is computed as the sum of the other classes, which does not round to zero.
    """
    log_p = logits.float().log_softmax(1)
    own = y[:, None]
    runner_up = log_p.scatter(1, own, float("-inf")).argmax(1, keepdim=True)
    log_rest = log_p.scatter(1, runner_up, float("-inf")).logsumexp(1)
    return -log_p.gather(1, own).squeeze(1) - log_rest


def pairing_distance(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Return the mean squared difference of paired logits, both (N, K) (Kannan et al. 2018, section 3.2)."""
    return F.mse_loss(clean.float(), adversarial.float())


def check_mixture(clean_fraction: float, logit_pairing: float) -> None:
    """Check the two arguments of a mixture of clean and adversarial images.

    Raises:
        UsageError: One is out of its range, or there is nothing to pair.
    """
    if not 0 <= clean_fraction <= 1:
        raise UsageError(f"clean_fraction must lie in [0, 1], got {clean_fraction}.")
    _at_least_zero("logit_pairing", logit_pairing)
    if logit_pairing and not clean_fraction:
        raise UsageError(f"logit_pairing is {logit_pairing}, but clean_fraction is 0: there is no clean image to pair.")


def _at_least_zero(name: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise UsageError(f"{name} must be at least 0 and finite, got {value}.")
    return value
