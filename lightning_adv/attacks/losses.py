"""What an attack maximises: (N, K), target -> (N,), one number for each sample and no reduction.

A loss is the name of one of those here, a :class:`Loss`, or any function of logits (N, K) and labels (N,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_adv.core.errors import UsageError
from lightning_adv.core.recipe import Recipe

_SMALLEST_LEAD = 1e-12  # where the first and third class tie, the authors' code divides by this

LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Logits (N, K) and a target, labels (N,) mostly, to (N,)."""


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


def _top_three(logits: Tensor) -> torch.return_types.topk:
    LOSSES["dlr"].check_classes(logits.shape[1])
    return logits.topk(3, dim=1)


def _split(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the own logit (N,), and (N, K) with minus infinity in its place."""
    return logits.gather(1, y[:, None]).squeeze(1), logits.scatter(1, y[:, None], float("-inf"))


class Loss(Recipe, ABC):
    """What an attack maximises: write ``__call__``, and ``alone_gradient`` too where there is a closed form.

    Being a recipe, a loss can be named in YAML by its ``class_path`` and is kept in checkpoints. Where that is not
    needed, any function of logits and labels will do.

    Attributes:
        target: What the logits are compared with: ``"labels"`` (N,), or ``"clean_logits"`` (N, K).
        min_classes: The smallest number of classes K.

    Example:
        >>> class Confidence(Loss):
        ...     def __call__(self, logits, y):
        ...         return -logits.softmax(1).gather(1, y[:, None])[:, 0]
        >>> Confidence().gradient(torch.zeros(1, 2), torch.tensor([0]))
        tensor([[-0.2500,  0.2500]])
    """

    target: Literal["labels", "clean_logits"] = "labels"
    min_classes: int = 2

    @abstractmethod
    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the losses (N,) of logits (N, K), no mean and no sum."""

    def alone(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return what is climbed where samples do not see each other, (N,): it grows with the loss of each sample."""
        return self(logits, target)

    def alone_gradient(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the gradient (N, K) of the sum of :meth:`alone`. In closed form no step builds a graph of the loss."""
        return self._gradient(self.alone, logits, target)

    def gradient(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the gradient (N, K) of the sum of the losses to the logits (N, K).

        Raises:
            UsageError: The loss is not one number for each sample, or has no gradient.
        """
        return self._gradient(self, logits, target)

    def check_classes(self, num_classes: int) -> None:
        """Check that a network has as many classes as the loss compares.

        Raises:
            UsageError: It has fewer.
        """
        if num_classes < self.min_classes:
            told = {3: "three"}.get(self.min_classes, self.min_classes)
            raise UsageError(
                f"loss={self._told!r} compares {told} classes, and the network has {num_classes}: use cross_entropy."
            )

    @property
    def _told(self) -> str:
        return type(self).__name__

    def _gradient(self, function: LossFunction, logits: Tensor, target: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            values = function(leaf, target)
            if not isinstance(values, Tensor) or values.shape != logits.shape[:1]:
                told = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
                raise UsageError(
                    f"loss must give one number for each sample, shape ({len(logits)},), got {told}: leave out its "
                    "mean or sum, as by reduction='none'."
                )
            if not values.requires_grad:
                raise UsageError("loss has no gradient to the logits: it must be differentiable, and not detached.")
            return torch.autograd.grad(values.sum(), leaf)[0]


class _Function(Loss):
    """A loss of functions: of one, or of the loss, what grows with it and the gradient of that in closed form."""

    def __init__(
        self,
        function: LossFunction,
        alone: LossFunction | None = None,
        alone_gradient: LossFunction | None = None,
        *,
        target: Literal["labels", "clean_logits"] = "labels",
        min_classes: int = 2,
    ) -> None:
        self._function, self._alone, self._closed = function, alone, alone_gradient
        self.target = target
        self.min_classes = min_classes

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return self._function(logits, target)

    def alone(self, logits: Tensor, target: Tensor) -> Tensor:
        return (self._function if self._alone is None else self._alone)(logits, target)

    def alone_gradient(self, logits: Tensor, target: Tensor) -> Tensor:
        return super().alone_gradient(logits, target) if self._closed is None else self._closed(logits, target)

    @property
    def _told(self) -> str:
        return getattr(self._function, "__name__", repr(self._function))


LOSSES: dict[str, Loss] = {
    "cross_entropy": _Function(cross_entropy, log_odds, log_odds_gradient),
    "margin": _Function(margin, margin, margin_gradient),
    "dlr": _Function(dlr, dlr, dlr_gradient, min_classes=3),
    "kl": _Function(kl, kl, kl_gradient, target="clean_logits"),
}

if TYPE_CHECKING:
    LossChoice: TypeAlias = Literal["cross_entropy", "margin", "dlr", "kl"] | Loss | LossFunction
else:  # of a function the command could keep nothing
    LossChoice = Literal["cross_entropy", "margin", "dlr", "kl"] | Loss


def get_loss(loss: LossChoice) -> Loss:
    """Return a loss by its name, as it is, or of a function of logits (N, K) and labels (N,).

    Raises:
        UsageError: There is no loss of that name, or it is not a function.

    Example:
        >>> own = get_loss(lambda logits, y: -logits.gather(1, y[:, None])[:, 0])
        >>> own(torch.tensor([[1.0, 2.0]]), torch.tensor([1]))
        tensor([-2.])
    """
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise UsageError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}.")
        return LOSSES[loss]
    if isinstance(loss, dict):
        return Loss.from_config(loss)
    if isinstance(loss, Loss):
        return loss
    if not callable(loss) or isinstance(loss, type):
        raise UsageError(
            f"loss must be one of {', '.join(LOSSES)}, a Loss, or a function (logits, labels) -> (N,), got {loss!r}."
        )
    return _Function(loss)


def kept_loss(loss: LossChoice) -> LossChoice:
    """Return a loss as an attack keeps it: what is read from YAML is built, anything else is kept as it was given."""
    return get_loss(loss) if isinstance(loss, dict) else loss
