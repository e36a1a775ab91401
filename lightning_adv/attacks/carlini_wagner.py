"""The attacks of Carlini & Wagner (2017), "Towards Evaluating the Robustness of Neural Networks".

The L2 attack looks for the nearest adversarial example. PGD with their margin as its loss is known as C&W in Linf.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from lightning_adv.attacks.balls import L2, column
from lightning_adv.attacks.base import (
    Attack,
    BatchNormMode,
    at_least_fp32,
    attacking,
    check_images,
    check_labels,
    forward_in,
    gradient_to,
)
from lightning_adv.attacks.checks import check_choices, check_counts
from lightning_adv.attacks.distance import Distance, StepSize, parse_distance
from lightning_adv.attacks.diversity import diversify, fork_to_host
from lightning_adv.attacks.labels import TARGETED, LabelChoice, choose_labels
from lightning_adv.attacks.losses import margin, margin_gradient
from lightning_adv.attacks.pgd import PGD
from lightning_adv.core.errors import UsageError

_INSIDE = 0.999999  # pixels of 0 and 1 would lie at infinity; the authors' code shrinks by this number


class CarliniWagner(Attack):
    """The L2 attack: the nearest adversarial example (Carlini & Wagner 2017, sections V and VI-A).

    With x' = (tanh(w) + 1) / 2, which stays in [0, 1], Adam minimises ||x' - x||² + c f(x') over w. Here f(x') =
    max(-m(x'), -confidence), and m is the margin by which the attack has succeeded: the lead of the best other class
    over the label (f_6), or of the target over the best other class. c is searched for each sample: ten times larger
    until an example is found, then by bisection. Of all examples on the way the nearest is kept.

    A sample without a success within ``eps`` is returned clean: to the network it is unbroken. So is a sample whose
    clean image succeeds already, at a distance of 0. Each sample has its own c and its own early stop; with
    ``batchnorm="batch"`` a success is judged among the batch mates of that moment. The paper's several starting points
    are left out, as in the authors' code.

    Args:
        eps: Largest L2 distance of an example, a number or a fraction; None sets no bound, as the paper.
        steps: Adam's steps for each c. The authors take 10,000, which shortens the median distance on the digits by
            less than 0.1 % against 1,000.
        learning_rate: Adam's, 0.01 in the authors' code.
        confidence: kappa, the margin of the logits that an example must exceed; above 0 for examples that transfer.
        binary_search_steps: Number of c tried, 9 in the authors' code (20 in the paper).
        initial_const: The first c, 0.001 in the authors' code.
        abort_early: Stop a sample's descent when a tenth of the steps has not lowered its lowest loss by 0.01 %. In
            batch mode no sample stops before the others.
        label: ``"true"`` or ``"predicted"`` (no label leaking), or a target: ``"random"``, ``"most_likely"`` or
            ``"least_likely"``.
        diversity_probability: Probability p of transforming the input of a step (Xie et al. 2019, equation 3.6).
            Success is judged without it.
        diversity_scale: Size of the transformed input over the image's own; below 1 the smallest size over it, which is
            then padded to the image's.
        batchnorm: What BatchNorms normalise by: ``"eval"`` running statistics, ``"batch"`` those of the batch.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> x = torch.rand(5, 3, 2, 2)
        >>> y = model(x).argmax(1)
        >>> x_adv = CarliniWagner(steps=200)(model, x, y)
        >>> bool((model(x_adv).argmax(1) != y).all())
        True
    """

    def __init__(
        self,
        eps: Distance | None = None,
        steps: int = 1000,
        learning_rate: float = 0.01,
        *,
        confidence: float = 0.0,
        binary_search_steps: int = 9,
        initial_const: float = 1e-3,
        abort_early: bool = True,
        label: LabelChoice = "true",
        diversity_probability: float = 0.0,
        diversity_scale: float = 330 / 299,
        batchnorm: BatchNormMode = "eval",
    ) -> None:
        self.norm = L2()
        self.eps = None if eps is None else parse_distance(eps, "eps")
        self.steps = steps
        self.learning_rate = learning_rate
        self.confidence = confidence
        self.binary_search_steps = binary_search_steps
        self.initial_const = initial_const
        self.abort_early = abort_early
        self.label: LabelChoice = "true" if label is True else label
        self.diversity_probability = diversity_probability
        self.diversity_scale = diversity_scale
        self.batchnorm = batchnorm
        self._check()

    def _check(self) -> None:
        check_choices(self, label=("true", "predicted", *TARGETED), batchnorm=("eval", "batch"))
        check_counts(self, "steps", "binary_search_steps")
        for name in ("learning_rate", "initial_const", "diversity_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be positive and finite, got {getattr(self, name)}.")
        if not 0 <= self.confidence < math.inf:
            raise UsageError(f"confidence must be at least 0 and finite, got {self.confidence}.")
        if not 0 <= self.diversity_probability <= 1:
            raise UsageError(f"diversity_probability must lie in [0, 1], got {self.diversity_probability}.")

    def scaled(self, factor: float) -> Self:
        """Return the same attack with ``eps`` multiplied by ``factor``.

        Raises:
            UsageError: There is no ``eps``.
        """
        if self.eps is None:
            raise UsageError(f"eps must be a distance to be scaled, got None: give {type(self).__name__} an eps.")
        return super().scaled(factor)

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        domain: str | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the adversarial examples; see :meth:`Attack.__call__`."""
        check_images(x, y)
        generator = self._generator(generator)
        with attacking(model, batchnorm=self.batchnorm, domain=domain) as network:
            clean = at_least_fp32(x.detach().clone())
            forward = forward_in(network, x.dtype)
            with torch.no_grad():
                logits = forward(clean)
            y = y.clone().long()
            check_labels(y, logits.shape[1])
            label = choose_labels(self.label, y, logits, generator)
            search = _Search(self, forward, clean, x.dtype, label)
            search.offer(search.everyone, clean, search.success(logits, search.everyone))
            search.run(generator)
        # Exact: what the search keeps are numbers of x's precision, those that the network saw.
        return search.nearest(self.eps).to(x.dtype)


class _Search:
    """The search on one batch, and the nearest example that it has met of each sample."""

    def __init__(
        self,
        attack: CarliniWagner,
        forward: Callable[[Tensor], Tensor],
        clean: Tensor,
        dtype: torch.dtype,
        label: Tensor,
    ) -> None:
        self.attack = attack
        self.forward = forward
        self.clean = clean
        self.dtype = dtype
        self.label = label
        self.targeted = attack.label in TARGETED
        self.independent = attack.batchnorm == "eval"
        self.everyone = torch.arange(len(clean), device=clean.device)
        self._best = clean.clone()
        self._distance = clean.new_full((len(clean),), math.inf)

    def nearest(self, eps: float | None) -> Tensor:
        """Return the nearest examples (N, ...); the clean image where there is none within ``eps``."""
        inside = self._distance <= (math.inf if eps is None else eps)
        return torch.where(inside.view(column(self.clean)), self._best, self.clean)

    def run(self, generator: torch.Generator) -> None:
        """Search c: tenfold until a descent succeeds, then by bisection (section V-B)."""
        const = torch.full_like(self._distance, self.attack.initial_const)
        lower, upper = torch.zeros_like(const), torch.full_like(const, math.inf)
        for _ in range(self.attack.binary_search_steps):
            found = self._descend(const, fork_to_host(generator))
            lower, upper = torch.where(found, lower, const), torch.where(found, const, upper)
            const = torch.where(upper.isinf(), 10 * const, (lower + upper) / 2)

    def offer(self, rows: Tensor, images: Tensor, success: Tensor) -> Tensor:
        """Keep what is nearer than before among the samples ``rows`` that succeed; return which succeed, (R,)."""
        images = images.to(self.dtype).to(self.clean.dtype)
        distance = self.attack.norm.norm(images - self.clean[rows])
        won = success > 0
        nearer = won & (distance < self._distance[rows])
        self._distance[rows[nearer]] = distance[nearer]
        self._best[rows[nearer]] = images[nearer]
        return won

    def success(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the margin (R,) beyond ``confidence`` by which the attack has succeeded."""
        lead = margin(logits, self.label[rows])
        return (-lead if self.targeted else lead) - self.attack.confidence

    def _descend(self, const: Tensor, generator: torch.Generator) -> Tensor:
        """Minimise ||x' - x||² + c f(x') for one c of each sample, (N,); return which samples succeeded, (N,)."""
        w = torch.atanh((2 * self.clean - 1) * _INSIDE)
        w.grad = torch.zeros_like(w)
        adam = torch.optim.Adam([w], lr=self.attack.learning_rate)
        found = torch.zeros_like(const, dtype=torch.bool)
        rows = self.everyone[self._distance > 0]
        if not self.independent and len(rows):
            rows = self.everyone
        lowest = previous = torch.full_like(const[rows], math.inf)
        for step in range(self.attack.steps):
            if not len(rows):
                break
            images = (w[rows].tanh() + 1) / 2
            gradient, success = self._gradient(images, const[rows], rows, generator)
            found[rows] |= self.offer(rows, images, success)
            delta = images - self.clean[rows]
            w.grad[rows] = (2 * delta + gradient) * 2 * images * (1 - images)  # the last three: dx'/dw
            adam.step()
            loss = delta.flatten(1).square().sum(1) + const[rows] * (-success).clamp_min(0)
            lowest = torch.minimum(lowest, loss)  # the loss itself swings around the boundary
            if self.attack.abort_early and step % math.ceil(self.attack.steps / 10) == 0:
                going = lowest <= 0.9999 * previous
                if not self.independent:  # who leaves the batch would change its statistics
                    going = going.any().expand_as(going)
                rows, lowest = rows[going], lowest[going]
                previous = lowest
        return found

    def _gradient(
        self, images: Tensor, const: Tensor, rows: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the gradient (R, ...) of the summed c f(x') to the images, and their :meth:`success` (R,)."""
        attack, leaf = self.attack, images.detach().requires_grad_()
        seen = diversify(leaf, attack.diversity_probability, attack.diversity_scale, generator)
        logits = self.forward(seen)
        success = self.success(logits.detach(), rows)
        slope = margin_gradient(logits.detach(), self.label[rows])
        # c is left out of the backward pass: in fp16 one of 0.001 would underflow. In a batch whose samples see each
        # other their shares must stay.
        weight = const * (success <= 0)
        largest = weight if self.independent else weight.amax().expand_as(weight)
        share = weight / largest.clamp_min(torch.finfo(weight.dtype).tiny)
        descent = (slope if self.targeted else -slope) * share[:, None]
        gradient = gradient_to(leaf, logits, descent) * largest.view(column(images))
        if seen is not leaf:
            with torch.no_grad():
                success = self.success(self.forward(images), rows)
        return gradient, success


class DCarliniWagner(CarliniWagner):
    """D-C&W: the L2 attack on randomly resized and padded inputs, for transfer (Xie et al. 2019, section 3.4.2).

    Args:
        eps: Largest L2 distance of an example, a number or a fraction; None sets no bound.
        steps: 250 there.
        learning_rate: 0.01 there.
        confidence: 10 there.
        diversity_probability: p, 0.5 there (section 3.4.1).
        diversity_scale: Size of the transformed input over the image's own; below 1 the smallest size over it, which is
            then padded to the image's.
        binary_search_steps: Number of trade-offs c tried, from 0.001.
        label: ``"true"`` or ``"predicted"`` (no label leaking), or a target: ``"random"``, ``"most_likely"`` or
            ``"least_likely"``.
        batchnorm: What BatchNorms normalise by: ``"eval"`` running statistics, ``"batch"`` those of the batch.
    """

    def __init__(
        self,
        eps: Distance | None = None,
        steps: int = 250,
        learning_rate: float = 0.01,
        confidence: float = 10.0,
        diversity_probability: float = 0.5,
        diversity_scale: float = 330 / 299,
        *,
        binary_search_steps: int = 9,
        label: LabelChoice = "true",
        batchnorm: BatchNormMode = "eval",
    ) -> None:
        super().__init__(
            eps=eps,
            steps=steps,
            learning_rate=learning_rate,
            confidence=confidence,
            binary_search_steps=binary_search_steps,
            label=label,
            diversity_probability=diversity_probability,
            diversity_scale=diversity_scale,
            batchnorm=batchnorm,
        )


class CarliniWagnerLinf(PGD):
    """PGD on the margin of Carlini & Wagner: C&W in Linf (Madry et al. 2018, section 5, table 2).

    The margin is not cut off at a confidence, as at a large one: Madry et al. use 50.

    Args:
        eps: Radius, 8/255 there.
        steps: Number of steps, 30 there.
        step_size: 2/255 there, which is what :class:`PGD` takes for these two.
        diversity_probability: Probability p of transforming the input of a step; above 0 it is D-C&W in Linf.
        diversity_scale: Size of the transformed input over the image's own; below 1 the smallest size over it, which is
            then padded to the image's.
        restarts: Number of runs; of each sample the worst result is kept.
        label: ``"true"`` or ``"predicted"`` (no label leaking), or a target: ``"random"``, ``"most_likely"`` or
            ``"least_likely"``.
        batchnorm: What BatchNorms normalise by: ``"eval"`` running statistics, ``"batch"`` those of the batch.
    """

    def __init__(
        self,
        eps: Distance = "8/255",
        steps: int = 30,
        step_size: StepSize = None,
        diversity_probability: float = 0.0,
        diversity_scale: float = 330 / 299,
        *,
        restarts: int = 1,
        label: LabelChoice = "true",
        batchnorm: BatchNormMode = "eval",
    ) -> None:
        super().__init__(
            eps=eps,
            steps=steps,
            step_size=step_size,
            loss="margin",
            diversity_probability=diversity_probability,
            diversity_scale=diversity_scale,
            restarts=restarts,
            label=label,
            batchnorm=batchnorm,
        )
