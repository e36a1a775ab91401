"""The spatially transformed adversary: pixels change their places, not their values.

Xiao et al. (2018), "Spatially Transformed Adversarial Examples" (stAdv). Zhang & Zhu (2019), section 5 and figure 8,
train a network against it (their ST-AT-CNN, whose settings they do not tell).
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn

from lightning_adv.attacks.balls import per_sample
from lightning_adv.attacks.base import Attack
from lightning_adv.attacks.checks import check_counts
from lightning_adv.attacks.forward import Forward, NoGradientError, at_least_fp32
from lightning_adv.attacks.hold import BatchNormMode
from lightning_adv.attacks.labels import TARGETED, LabelChoice, choose_labels
from lightning_adv.attacks.losses import margin, margin_gradient
from lightning_adv.core.arguments import check_choices
from lightning_adv.core.errors import UsageError
from lightning_adv.core.moved import renamed_argument


class StAdv(Attack):
    """stAdv: the smoothest flow field that fools the network (Xiao et al. 2018, section 3.2).

    Each pixel takes its value from a place that lies a vector of the flow field away (:func:`warp`). The field
    minimises max(-m, -confidence) + tau * :func:`flow_smoothness`, where m is the margin by which the attack has
    succeeded: the lead of the best other class over the label (the paper attacks targets only: the lead of the target
    over the best other class). Of all fields on the way that succeed, the smoothest is kept; of a sample without
    success that of the largest margin, so that one can also train against it. A sample that is misclassified as it is
    comes back clean.

    No ball of a norm holds the result: a shift by one pixel may turn black into white.

    The paper minimises by L-BFGS. Its line search and its curvature would be those of the whole batch, where samples
    see each other; here it is Adam, which treats each number by itself. Its learning rate falls to zero along a
    cosine, since the smoothness has a kink at equal neighbours, around which steps of a fixed length swing.

    Args:
        steps: Adam's steps.
        learning_rate: Adam's at the start, in pixels: what the first step moves a pixel by along each axis.
        tau: The weight of the smoothness, 0.05 in the paper. A field is worth its while only where it lowers the
            margin by more than ``tau`` for each unit of roughness: networks of small logits need a smaller one.
        confidence: kappa, the margin of the logits that an example must exceed; 0 in the paper.
        max_flow: The longest way along each axis, in pixels; None sets no bound, as the paper.
        label: ``"true"`` or ``"predicted"`` (no label leaking), or a target: ``"random"``, ``"most_likely"`` or
            ``"least_likely"``.
        batchnorm: What BatchNorms normalise by: ``"eval"`` running statistics, ``"batch"`` those of the batch.

    Raises:
        UsageError: An argument is out of its range. In a call: the images are not (N, C, H, W).

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
        >>> x = torch.rand(5, 1, 8, 8)
        >>> x_adv = StAdv(max_flow=1)(network, x, network(x).argmax(1))
        >>> x_adv.shape
        torch.Size([5, 1, 8, 8])
    """

    norm = None  # said, not left open
    steps: int

    def __init__(
        self,
        steps: int = 100,
        learning_rate: float = 0.05,
        *,
        tau: float = 0.05,
        confidence: float = 0.0,
        max_flow: float | None = None,
        label: LabelChoice = "true",
        batchnorm: BatchNormMode = "eval",
    ) -> None:
        self.steps = steps
        self.learning_rate = learning_rate
        self.tau = tau
        self.confidence = confidence
        self.max_flow = max_flow
        self.label: LabelChoice = "true" if label is True else label
        self.batchnorm = batchnorm
        self._check()

    def _check(self) -> None:
        check_choices(self, StAdv)
        check_counts(self, "steps")
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning_rate must be positive and finite, got {self.learning_rate}.")
        for name in ("tau", "confidence", "max_flow"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"{name} must be at least 0 and finite, got {value}.")

    def check_fits(self, shape: tuple[int, ...], num_classes: int) -> None:
        """Check that images are maps; see :meth:`Attack.check_fits`.

        Raises:
            UsageError: They are not.
        """
        _check_maps((1, *shape))

    def scaled(self, factor: float) -> Self:
        """Return the same attack with ``max_flow`` multiplied by ``factor``.

        Raises:
            UsageError: There is no ``max_flow``.
        """
        if self.max_flow is None:
            raise UsageError("max_flow must be a number of pixels to be scaled, got None: give StAdv a max_flow.")
        scaled = super().scaled(factor)
        scaled.max_flow = factor * self.max_flow
        return scaled

    def perturb(self, forward: Forward, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the adversarial examples; see :meth:`Attack.perturb`."""
        return warp(x, self._flow(forward, x, y, generator)).to(forward.dtype)

    @renamed_argument("model", "network")
    def flow(
        self,
        network: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        domain: str | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the flow fields (N, 2, H, W), detached, in fp32 or more; the arguments are those of a call.

        ``warp(x, flow)`` is what a call returns.
        """
        with self.prepared(network, x, y, domain=domain, generator=generator) as prepared:
            return self._flow(*prepared)

    def _flow(self, forward: Forward, clean: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        _check_maps(tuple(clean.shape))
        with torch.no_grad():
            logits = forward(clean)
        return self._search(forward, clean, logits, choose_labels(self.label, y, logits, generator))

    def _search(self, forward: Forward, clean: Tensor, logits: Tensor, label: Tensor) -> Tensor:
        """Descend from no flow; ``logits`` (N, K) are those of the clean images (N, C, H, W)."""
        flow = at_least_fp32(clean.new_zeros(len(clean), 2, *clean.shape[2:])).requires_grad_()
        best = _Best(flow.detach(), self._success(logits, label))
        adam = torch.optim.Adam([flow], lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.steps)
        for _ in range(self.steps):
            logits = forward(warp(clean, flow))
            if not logits.requires_grad:
                raise NoGradientError
            smoothness = flow_smoothness(flow)
            success = self._success(logits.detach(), label)
            best.offer(flow.detach(), success, smoothness.detach())
            # The gradient of the sum: of the hinge where it is not flat, and of the smoothness.
            slope = margin_gradient(logits.detach(), label) * (success <= 0)[:, None]
            descent = (slope if self.label in TARGETED else -slope, torch.full_like(smoothness, self.tau))
            (flow.grad,) = torch.autograd.grad((logits, smoothness), flow, descent)
            adam.step()
            schedule.step()
            if self.max_flow is not None:
                with torch.no_grad():
                    flow.clamp_(-self.max_flow, self.max_flow)
        with torch.no_grad():
            best.offer(flow, self._success(forward(warp(clean, flow)), label), flow_smoothness(flow))
        return best.flow

    def _success(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the margin (N,) beyond ``confidence`` by which the attack has succeeded."""
        lead = margin(logits, label)
        return (-lead if self.label in TARGETED else lead) - self.confidence


class _Best:
    """The best flow field that was met of each sample, beginning with none.

    Args:
        flow: Fields of zeros (N, 2, H, W).
        success: The margin (N,) by which the clean images succeed.
    """

    def __init__(self, flow: Tensor, success: Tensor) -> None:
        self.flow = flow.clone()
        self._success = success
        self._smoothness = torch.zeros_like(success)

    def offer(self, flow: Tensor, success: Tensor, smoothness: Tensor) -> None:
        """Keep what succeeds more smoothly, or for the first time, or failing all that, comes nearer."""
        won, had_won = success > 0, self._success > 0
        better = torch.where(had_won, won & (smoothness < self._smoothness), success > self._success)
        self.flow = torch.where(better.view(per_sample(flow)), flow, self.flow)
        self._success = torch.where(better, success, self._success)
        self._smoothness = torch.where(better, smoothness, self._smoothness)


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Return images whose pixels have moved (Xiao et al. 2018, equation 1).

    The pixel in row i and column j is read, bilinearly, from row i + flow[0, i, j] and column j + flow[1, i, j];
    beyond the edge from the edge. By hand, as ``torch.nn.functional.grid_sample`` takes places on a scale of [-1, 1],
    where the rounding moves the pixels of an image by itself: here no flow gives back the image, and a flow of whole
    pixels its pixels, to the last bit. Values lie between those that they are read from, so in [0, 1].

    Args:
        x: Images (N, C, H, W).
        flow: Displacements (N, 2, H, W) in pixels, rows and columns. Gradients flow to it.

    Returns:
        Images (N, C, H, W) in ``x``'s dtype; they are computed in fp32 or more.
    """
    images = at_least_fp32(x)
    height, width = x.shape[-2:]
    rows = torch.arange(height, device=x.device, dtype=flow.dtype).view(-1, 1)
    columns = torch.arange(width, device=x.device, dtype=flow.dtype)
    top, down = _between(rows + flow[:, 0], height)
    left, right = _between(columns + flow[:, 1], width)
    below, beside = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)

    def read(row: Tensor, col: Tensor) -> Tensor:
        places = (row * width + col).flatten(1)[:, None].expand(-1, x.shape[1], -1)
        return images.flatten(2).gather(2, places).view_as(images)

    down, right = down[:, None].to(images.dtype), right[:, None].to(images.dtype)
    upper = torch.lerp(read(top, left), read(top, beside), right)
    lower = torch.lerp(read(below, left), read(below, beside), right)
    moved: Tensor = torch.lerp(upper, lower, down)
    return moved.to(x.dtype)


def flow_smoothness(flow: Tensor) -> Tensor:
    """Return how rough flow fields are, (N,): zero where all pixels move alike (Xiao et al. 2018, equation 4).

    The sum, over all pixels and their up to four neighbours, of the length of the difference between their
    displacements; so each pair of neighbours counts twice.

    Args:
        flow: Displacements (N, 2, H, W) in pixels.
    """
    # Of equal neighbours vector_norm has a gradient of zero; that of a square root would be NaN.
    down, right = (torch.linalg.vector_norm(flow.diff(dim=axis), dim=1).flatten(1) for axis in (2, 3))
    total: Tensor = 2 * (down.sum(1) + right.sum(1))
    return total


def _between(place: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the pixel before each place on an axis, and how far, in [0, 1], the place lies on the way to the next."""
    # Clamped where it lies outside only: clamp passes no gradient at its ends, and pixels of the edge could not move.
    place = torch.where((place < 0) | (place > size - 1), place.detach().clamp(0, size - 1), place)
    # The last pixel is the end of the way before it, not the start of none.
    before = place.detach().floor().clamp(max=max(size - 2, 0))
    return before.long(), place - before


def _check_maps(shape: tuple[int, ...]) -> None:
    if len(shape) != 4:
        raise UsageError(f"x must be images (N, C, H, W) to be transformed in space, got shape {shape}.")
