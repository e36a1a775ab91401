"""PGD as people write it by hand, with the parameters of one of our attacks.

Each function takes the network, our attack and a batch's images, and returns ``(x, y) -> x_adv``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timing import AttackFunction
from torch import Tensor, nn

from lightning_adv.attacks import PGD


def plain_pgd(network: nn.Module, pgd: PGD, images: Tensor) -> AttackFunction:
    """The plain eager loop: ``autograd.grad`` to the images, BatchNorm in eval mode. All others are set against it."""

    def attack(x: Tensor, y: Tensor) -> Tensor:
        network.eval()
        x_adv = random_start(x, pgd)
        for _ in range(pgd.steps):
            x_adv.requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(network(x_adv), y), x_adv)
            x_adv = step(x, x_adv.detach(), gradient, pgd)
        network.train()
        return x_adv

    return attack


def backward_pgd(network: nn.Module, pgd: PGD, images: Tensor) -> AttackFunction:
    """The same with ``loss.backward()``, which computes the weights' gradients too."""

    def attack(x: Tensor, y: Tensor) -> Tensor:
        network.eval()
        x_adv = random_start(x, pgd)
        for _ in range(pgd.steps):
            x_adv = x_adv.detach().requires_grad_()
            F.cross_entropy(network(x_adv), y).backward()  # type: ignore[no-untyped-call]
            assert x_adv.grad is not None
            x_adv = step(x, x_adv.detach(), x_adv.grad, pgd)
        network.train()
        return x_adv

    return attack


def random_start(x: Tensor, pgd: PGD) -> Tensor:
    return (x + torch.empty_like(x).uniform_(-pgd.eps, pgd.eps)).clamp(0, 1)


def step(x: Tensor, x_adv: Tensor, gradient: Tensor, pgd: PGD) -> Tensor:
    moved = x_adv + pgd.step_size * gradient.sign()
    return (x + (moved - x).clamp(-pgd.eps, pgd.eps)).clamp(0, 1)


# In the shape of MadryLab/robustness (robustness/attacker.py and attack_steps.py, with its default use_best=True) -----


class LinfStep:
    """What moves the images and keeps them in the ball: there an object of its own."""

    def __init__(self, x: Tensor, pgd: PGD) -> None:
        self.x, self.eps, self.step_size = x, pgd.eps, pgd.step_size

    def start(self, x: Tensor) -> Tensor:
        return (x + 2 * (torch.rand_like(x) - 0.5) * self.eps).clamp(0, 1)

    def move(self, x: Tensor, gradient: Tensor) -> Tensor:
        return x + gradient.sign() * self.step_size

    def project(self, x: Tensor) -> Tensor:
        return ((x - self.x).clamp(-self.eps, self.eps) + self.x).clamp(0, 1)


class Best:
    """The images of the largest loss so far, sample by sample."""

    def __init__(self, losses: Tensor, x: Tensor) -> None:
        self.losses, self.x = losses.detach().clone(), x.detach().clone()

    def update(self, losses: Tensor, x: Tensor) -> None:
        larger = losses > self.losses
        self.x[larger] = x[larger].detach()
        self.losses[larger] = losses[larger].detach()


def robustness_pgd(network: nn.Module, pgd: PGD, images: Tensor) -> AttackFunction:
    """The mean of the samples' losses, ``autograd.grad``, a step object, and the best iterate: one forward more."""

    def losses_of(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(network(x), y, reduction="none")

    def attack(x: Tensor, y: Tensor) -> Tensor:
        network.eval()
        linf_step, best = LinfStep(x, pgd), None
        x_adv = linf_step.start(x)
        for _ in range(pgd.steps):
            x_adv = x_adv.detach().clone().requires_grad_()
            losses = losses_of(x_adv, y)
            (gradient,) = torch.autograd.grad(losses.mean(), [x_adv])
            with torch.no_grad():
                if best is None:
                    best = Best(losses, x_adv)
                else:
                    best.update(losses, x_adv)
                x_adv = linf_step.project(linf_step.move(x_adv, gradient))
        assert best is not None  # an attack takes at least one step
        best.update(losses_of(x_adv, y), x_adv)
        network.train()
        return best.x

    return attack


# TRADES' inner loop ---------------------------------------------------------------------------------------------------


def naive_trades(network: nn.Module, pgd: PGD, images: Tensor) -> AttackFunction:
    """Ascent on KL(f(x) || f(x_adv)), the clean prediction computed in every step, as in the authors' loss."""

    def attack(x: Tensor, y: Tensor) -> Tensor:
        network.eval()
        x_adv = (x + 0.001 * torch.randn_like(x)).clamp(0, 1)
        for _ in range(pgd.steps):
            x_adv.requires_grad_()
            clean, adversarial = F.softmax(network(x), dim=1), F.log_softmax(network(x_adv), dim=1)
            (gradient,) = torch.autograd.grad(F.kl_div(adversarial, clean, reduction="sum"), x_adv)
            x_adv = step(x, x_adv.detach(), gradient, pgd)
        network.train()
        return x_adv

    return attack


HAND_WRITTEN = {
    "robustness-style loop": robustness_pgd,
    "loop with loss.backward()": backward_pgd,
}
