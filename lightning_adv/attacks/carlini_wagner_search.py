"""The search of Carlini & Wagner's L2 attack on one batch: for each sample its own trade-off and its own descent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_adv.attacks.balls import per_sample
from lightning_adv.attacks.diversity import diversify, fork_to_host
from lightning_adv.attacks.forward import Forward, gradient_to
from lightning_adv.attacks.labels import TARGETED
from lightning_adv.attacks.losses import margin, margin_gradient

if TYPE_CHECKING:
    from lightning_adv.attacks.carlini_wagner import CarliniWagner

_INSIDE = 0.999999  # pixels of 0 and 1 would lie at infinity; the authors' code shrinks by this number


class Search:
    """The search on one batch, and the nearest example that it has met of each sample."""

    def __init__(
        self,
        attack: CarliniWagner,
        forward: Forward,
        clean: Tensor,
        label: Tensor,
    ) -> None:
        self.attack = attack
        self.forward = forward
        self.clean = clean
        self.label = label
        self.targeted = attack.label in TARGETED
        self.independent = attack.batchnorm == "eval"
        self.everyone = torch.arange(len(clean), device=clean.device)
        self._best = clean.clone()
        self._distance = clean.new_full((len(clean),), math.inf)

    def nearest(self, eps: float | None) -> Tensor:
        """Return the nearest examples (N, ...); the clean image where there is none within ``eps``."""
        inside = self._distance <= (math.inf if eps is None else eps)
        return torch.where(inside.view(per_sample(self.clean)), self._best, self.clean)

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
        # Exactly what the network saw: what is kept is of the precision of the images that are attacked.
        images = images.to(self.forward.dtype).to(self.clean.dtype)
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
        gradient = gradient_to(leaf, logits, descent) * largest.view(per_sample(images))
        if seen is not leaf:
            with torch.no_grad():
                success = self.success(self.forward(images), rows)
        return gradient, success
