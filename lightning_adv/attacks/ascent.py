"""What a gradient attack climbs, sample by sample."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from lightning_adv.attacks.balls import per_sample
from lightning_adv.attacks.forward import gradient_to
from lightning_adv.attacks.losses import Loss


class Ascent:
    """What a run climbs: a loss of the logits, and the label by which success is told.

    Args:
        loss: What grows with a stronger adversarial example, or falls if the attack is targeted.
        target: What the loss compares the logits with.
        label: The attacked label (N,).
        targeted: Whether ``label`` is approached.
        independent: Whether a sample's logits depend on its own image only, as they do with BatchNorm in eval mode.
        y: The true labels (N,); None takes ``label`` for them.
        changing: Whether other runs have other targets, so that only misclassification compares them.
    """

    def __init__(
        self,
        loss: Loss,
        target: Tensor,
        label: Tensor,
        targeted: bool,
        independent: bool,
        *,
        y: Tensor | None = None,
        changing: bool = False,
    ) -> None:
        self.loss = loss
        self.target = target
        self.label = label
        self.targeted = targeted
        self.y = label if y is None else y
        self.changing = changing
        # What is scaled as one: samples that see each other must keep their shares of the sum.
        self._scaled_axes = (1,) if independent else (0, 1)
        self._sign = -1 if targeted else 1
        self._independent = independent

    def select(self, rows: Tensor) -> Self:
        """Return the ascent of some of the samples, given by their indices (n,)."""
        selected = copy.copy(self)
        selected.target, selected.label, selected.y = self.target[rows], self.label[rows], self.y[rows]
        return selected

    def gradient(self, forward: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient (N, ...) of the summed loss to ``images``, and their logits (N, K).

        The gradient is right up to a positive factor; each sample has one of its own if they are independent.

        Raises:
            NoGradientError: There is none.
        """
        images = images.detach().requires_grad_()
        logits = forward(images)
        # Steps do not depend on the length of a sample's gradient, and a confident network's is so short that fp16
        # underflows on the way back: each sample sets out with 1 as its largest entry.
        ascent = self._sign * _unit_max(self._slope(logits.detach()), self._scaled_axes)
        return gradient_to(images, logits, ascent), logits.detach()

    def _slope(self, logits: Tensor) -> Tensor:
        """Return the gradient (N, K) of the loss to the logits. It is that of the sum: batches have no say in it."""
        return (self.loss.alone_gradient if self._independent else self.loss.gradient)(logits, self.target)

    def succeeded(self, logits: Tensor) -> Tensor:
        """Return whether each attack has succeeded (N,): the label is left, or, of a targeted attack, reached."""
        return (logits.argmax(1) == self.label) == self.targeted

    def settled(self, logits: Tensor) -> Tensor:
        """Return which samples no other run need see (N,)."""
        return logits.argmax(1) != self.y if self.changing else self.succeeded(logits)

    @torch.no_grad()
    def score(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return whether each attack has succeeded, and its loss: both (N,)."""
        return self.succeeded(logits), self._sign * self._loss(logits, self.target)

    @torch.no_grad()
    def compare(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return by what the results of several runs are compared: a rank, and the loss of equals, both (N,).

        First is what has succeeded, then what is misclassified at least. Of runs at other targets only the latter
        counts, and the loss is that of the true label.
        """
        if self.changing:
            return self.settled(logits).int(), self._loss(logits, self.y)
        success, loss = self.score(logits)
        if not self.targeted:
            return success.int(), loss
        return 2 * success + ((logits.argmax(1) != self.y) & ~success), loss

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return (self.loss.alone if self._independent else self.loss)(logits, target)


def _unit_max(gradient: Tensor, axes: tuple[int, ...]) -> Tensor:
    return gradient / gradient.abs().amax(axes, keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)


def unit_l1(gradient: Tensor) -> Tensor:
    """Divide each sample's gradient (N, ...) by its L1 norm (Dong et al. 2018, equation 6)."""
    norm = gradient.flatten(1).abs().sum(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient / norm.view(per_sample(gradient))
