"""Adversarial weight perturbation: the loss at the worst weights near those that are trained (Wu et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_adv.core.errors import UsageError
from lightning_adv.core.recipe import Recipe
from lightning_adv.regimes.objectives import ImagesToLogits


class WeightPerturbation(Recipe):
    """Adversarial weight perturbation, AWP (Wu et al. 2020, equations 8 to 10 and algorithm 1).

    Each weight tensor w moves along the gradient g of the loss by v = gamma ||w|| g / ||g||, and the step follows the
    gradient at w + v. Vectors (biases, BatchNorm) stay, as in the authors' code. The adversarial examples are those of
    the unperturbed weights: one attack for each step. The weights themselves are never written to.

    Args:
        gamma: Relative size of the perturbation, 0.005 in the paper (section 5.1).
        warmup_epochs: Number of epochs without it at the start.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> network, x, y = nn.Linear(3, 2), torch.rand(4, 3), torch.tensor([0, 1, 0, 1])
        >>> loss = lambda forward: nn.functional.cross_entropy(forward(x), y)
        >>> worst = WeightPerturbation(gamma=0.1).perturb(network, loss, average=lambda gradient: gradient)
        >>> bool(loss(worst) > loss(network))
        True
    """

    def __init__(self, gamma: float = 5e-3, warmup_epochs: int = 0) -> None:
        if not 0 < gamma < float("inf"):
            raise UsageError(f"gamma must be positive and finite, got {gamma}.")
        if warmup_epochs < 0:
            raise UsageError(f"warmup_epochs must be at least 0, got {warmup_epochs}.")
        self.gamma = gamma
        self.warmup_epochs = warmup_epochs

    def check_network(self, network: nn.Module) -> None:
        """Check that a network can be perturbed, before training.

        Raises:
            UsageError: It uses one layer in two places: ``functional_call`` (torch 2.15) leaves what it puts there.
        """
        names = {id(weight): name for name, weight in network.named_parameters()}
        tied = [name for name, w in network.named_parameters(remove_duplicate=False) if names[id(w)] != name]
        if tied:
            raise UsageError(
                f"weight_perturbation cannot work on this network: its parameter {tied[0]} is "
                f"{names[id(network.get_parameter(tied[0]))]} as well. Leave weight_perturbation out."
            )

    def perturb(
        self, network: nn.Module, loss: Callable[[ImagesToLogits], Tensor], average: Callable[[Tensor], Tensor]
    ) -> ImagesToLogits:
        """Return the network at its worst weights nearby, as a function of images; gradients flow to the weights.

        Args:
            network: The network.
            loss: The loss of this step, as a function of the network.
            average: Averages a tensor over the processes, which must all perturb alike.
        """
        weights = {name: w for name, w in network.named_parameters() if w.requires_grad and w.ndim > 1}
        # On copies: the running statistics must be updated once by a batch, not twice.
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}

        def probe(images: Tensor) -> Tensor:
            logits: Tensor = functional_call(network, {**weights, **buffers}, (images,))
            return logits

        # Multiplied by about the batch size: directions stay the same, and fp16 does not underflow on the way back.
        gradients = torch.autograd.grad(256 * loss(probe), list(weights.values()), allow_unused=True)
        worst: dict[str, Tensor] = {}
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            if gradient is not None:  # a weight that the loss does not depend on stays
                worst[name] = weight + self.gamma * _scaled_like(weight.detach(), average(gradient))

        def forward(images: Tensor) -> Tensor:
            logits: Tensor = functional_call(network, worst, (images,))
            return logits

        return forward


def _scaled_like(weight: Tensor, gradient: Tensor) -> Tensor:
    """Give a gradient the norm of its weight."""
    scaled: Tensor = gradient * (weight.norm() / gradient.norm().clamp_min(torch.finfo(gradient.dtype).tiny))
    return scaled
