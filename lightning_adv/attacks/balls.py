"""The sets of allowed perturbations: balls of a norm, per sample.

Each ball knows four things: how long a perturbation is, the nearest point inside (``project``), a uniform draw
(``sample``) and the direction of unit length along which a linear loss grows most (``steepest``). A step of projected
gradient ascent follows from these (``projected_step``); a ball that knows a shorter way overrides it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_adv.core.errors import UsageError
from lightning_adv.core.recipe import Recipe

_TINY = torch.finfo(torch.float32).tiny

Step: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From images (N, ...), along the gradient (N, ...) there, to new images (N, ...). It writes to neither."""


class Ball(Recipe, ABC):
    """A norm ball. Perturbations are (N, ...); whatever follows the first axis is one vector."""

    name: str
    max_eps: float = float("inf")

    @abstractmethod
    def norm(self, delta: Tensor) -> Tensor:
        """Return the norm (N,) of each perturbation (N, ...)."""

    @abstractmethod
    def project(self, delta: Tensor, eps: float) -> Tensor:
        """Return the nearest points, in Euclidean distance, of the ball of radius ``eps``: (N, ...)."""

    @abstractmethod
    def sample(self, like: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Return draws, uniform in the ball, of ``like``'s shape (N, ...), dtype and device."""

    @abstractmethod
    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Return directions (N, ...) of norm at most 1 that a step follows from ``x`` (N, ...) in [0, 1].

        The result does not change when a sample's gradient is multiplied by a positive number.
        """

    def projected_step(self, clean: Tensor, eps: float, step_size: float) -> Step:
        """Return the step of projected gradient ascent (Madry et al. 2018, section 2.1, equation 1).

        It follows :meth:`steepest` for ``step_size``, then goes to the nearest point of the ball and into [0, 1].

        Args:
            clean: The centres (N, ...), in [0, 1].
            eps: The radius.
            step_size: How far a step goes.
        """

        def step(x: Tensor, gradient: Tensor) -> Tensor:
            ahead = x + step_size * self.steepest(gradient, x)
            return (clean + self.project(ahead - clean, eps)).clamp(0, 1)

        return step


class Linf(Ball):
    """``max |delta_i| <= eps``."""

    name = "linf"
    max_eps = 1.0

    def norm(self, delta: Tensor) -> Tensor:
        """Return the largest absolute entry, (N,)."""
        return delta.flatten(1).abs().amax(1)

    def project(self, delta: Tensor, eps: float) -> Tensor:
        """Clamp each entry."""
        return delta.clamp(-eps, eps)

    def sample(self, like: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Draw each entry uniformly from [-eps, eps]."""
        return (2 * draw(torch.rand, like.shape, like, generator) - 1) * eps

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Return the sign."""
        return gradient.sign()

    def projected_step(self, clean: Tensor, eps: float, step_size: float) -> Step:
        """Clamp to the box that the ball and [0, 1] have in common, which is made once: three kernels a step."""
        if type(self) is not Linf:  # a subclass may have a direction or a projection of its own
            return super().projected_step(clean, eps, step_size)
        lower, upper = (clean - eps).clamp_(min=0), (clean + eps).clamp_(max=1)

        def step(x: Tensor, gradient: Tensor) -> Tensor:
            return torch.add(x, gradient.sign(), alpha=step_size).clamp_(lower, upper)  # the sum is nobody else's

        return step


class L2(Ball):
    """The Euclidean ball."""

    name = "l2"

    def norm(self, delta: Tensor) -> Tensor:
        """Return the Euclidean norm, (N,)."""
        norm: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        return norm

    def project(self, delta: Tensor, eps: float) -> Tensor:
        """Shorten what is longer than ``eps``."""
        return delta * (eps / self.norm(delta).clamp_min(max(eps, _TINY))).view(per_sample(delta))

    def sample(self, like: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """A Gaussian direction, at a distance of eps U^(1/d)."""
        direction = draw(torch.randn, like.shape, like, generator)
        radius = draw(torch.rand, like.shape[:1], like, generator) ** (1 / max(like.flatten(1).shape[1], 1))
        return direction * (eps * radius / self.norm(direction).clamp_min(_TINY)).view(per_sample(like))

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Return the gradient at unit length; a zero gradient stays zero, and what is NaN counts as zero."""
        gradient = gradient.nan_to_num()  # one such entry would make the image NaN; in the other balls it moves nothing
        # By the largest entry first: the squares of entries below 1e-23 would be zero.
        scaled = gradient / gradient.flatten(1).abs().amax(1).clamp_min(_TINY).view(per_sample(gradient))
        return scaled / self.norm(scaled).clamp_min(_TINY).view(per_sample(gradient))


class L1(Ball):
    """The cross-polytope: ``sum |delta_i| <= eps``.

    Its steepest direction has one entry, which makes attacks slow; Tramèr & Boneh (2019, section 5, SLIDE) move the
    share of entries with the largest gradients at once.

    Args:
        density: The share of entries that a step moves, in (0, 1]; at least one entry moves.
    """

    name = "l1"

    def __init__(self, density: float = 0.01) -> None:
        if not 0 < density <= 1:
            raise UsageError(f"density must lie in (0, 1], got {density}.")
        self.density = density

    def norm(self, delta: Tensor) -> Tensor:
        """Return the sum of absolute entries, (N,)."""
        return delta.flatten(1).abs().sum(1)

    def project(self, delta: Tensor, eps: float) -> Tensor:
        """Soft-threshold by the number that makes the norm ``eps`` (Duchi et al. 2008, figure 1)."""
        magnitude = delta.flatten(1).abs()
        descending = magnitude.sort(dim=1, descending=True).values
        excess = descending.cumsum(1) - eps
        count = torch.arange(1, magnitude.shape[1] + 1, device=delta.device)
        # The condition holds for a leading run; at eps = 0 rounding may leave none, and the first entry decides.
        support = (descending * count > excess).sum(1, keepdim=True).clamp_min(1)
        threshold = (excess.gather(1, support - 1) / support).clamp_min(0)
        return (delta.flatten(1).sign() * (magnitude - threshold).clamp_min(0)).view_as(delta)

    def sample(self, like: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Take d of d + 1 exponential variables over their sum, uniform in the simplex; the signs are coins."""
        shape = (len(like), like.flatten(1).shape[1] + 1)
        exponential = -torch.log1p(-draw(torch.rand, shape, like, generator))
        share = exponential[:, :-1] / exponential.sum(1, keepdim=True).clamp_min(_TINY)
        coins = draw(torch.rand, share.shape, like, generator) < 0.5
        return eps * torch.where(coins, -share, share).view_as(like)

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Return signs of the largest gradients, over their number; entries at the edge of [0, 1] stay."""
        blocked = ((x <= 0) & (gradient < 0)) | ((x >= 1) & (gradient > 0))
        flat = gradient.masked_fill(blocked, 0).flatten(1)
        count = max(1, round(self.density * flat.shape[1]))
        largest = flat.abs().topk(count, dim=1).indices
        direction = torch.zeros_like(flat).scatter(1, largest, flat.gather(1, largest).sign() / count)
        return direction.view_as(gradient)


Norm: TypeAlias = str | Ball
"""``"linf"``, ``"l2"``, ``"l1"``, or a ball with settings of its own."""

_BALLS: dict[str, type[Ball]] = {ball.name: ball for ball in (Linf, L2, L1)}


def get_ball(norm: Norm) -> Ball:
    """Return the ball of a norm.

    Raises:
        UsageError: There is no ball of that name.
    """
    if isinstance(norm, str):
        if norm not in _BALLS:
            raise UsageError(f"norm must be one of {', '.join(_BALLS)}, or a Ball, got {norm!r}.")
        return _BALLS[norm]()
    return Ball.from_config(norm)


def bring_inside(ball: Ball, clean: Tensor, adversarial: Tensor, eps: float, *, slack: float | Tensor = 0.0) -> Tensor:
    """Return images that lie in a ball and in [0, 1]; what is inside already stays as it is, to the last bit.

    Args:
        ball: The ball.
        clean: Its centres (N, ...).
        adversarial: Images (N, ...) of the same dtype.
        eps: The radius.
        slack: By how much more an image may be away and count as inside.

    Example:
        >>> bring_inside(Linf(), torch.zeros(1, 2), torch.tensor([[0.05, 0.5]]), 0.1)
        tensor([[0.0500, 0.1000]])
    """
    delta = adversarial - clean
    inside = (ball.norm(delta) <= eps + slack).view(per_sample(clean))
    return torch.where(inside, adversarial, clean + ball.project(delta, eps)).clamp(0, 1)


def signed_step(ball: Ball, clean: Tensor, eps: float, step_size: float, *, project: bool) -> Step:
    """Return the step that moves every entry by ``step_size``, whatever the ball, and then projects.

    Args:
        ball: The ball.
        clean: The centres (N, ...), in [0, 1].
        eps: The radius.
        step_size: How far each entry moves.
        project: Whether it goes back into the ball; into [0, 1] it does at any rate.
    """

    def step(x: Tensor, gradient: Tensor) -> Tensor:
        ahead = torch.add(x, gradient.sign(), alpha=step_size)
        return (clean + ball.project(ahead - clean, eps) if project else ahead).clamp(0, 1)

    return step


def per_sample(x: Tensor) -> tuple[int, ...]:
    """The shape in which (N,) multiplies (N, ...)."""
    return (-1,) + (1,) * (x.ndim - 1)


def draw(
    distribution: Callable[..., Tensor], shape: tuple[int, ...], like: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw from ``torch.rand`` or ``torch.randn`` in ``shape``, with the dtype and on the device of ``like``."""
    # Drawn where the generator lives: a CPU generator gives the same noise whatever the device of the images.
    return distribution(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
