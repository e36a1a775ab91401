"""PGD of other libraries, called as their documentation does, with the parameters of one of our attacks.

Each function takes the network, our attack and a batch's images, and returns ``(x, y) -> x_adv``. It raises
``ImportError`` where its library is not installed.
"""

from __future__ import annotations

import sys

import torch
from timing import AttackFunction
from torch import Tensor, nn

from lightning_adv.attacks import PGD


def torchattacks_pgd(network: nn.Module, pgd: PGD, images: Tensor) -> AttackFunction:
    import torchattacks

    return torchattacks.PGD(network, eps=pgd.eps, alpha=pgd.step_size, steps=pgd.steps)


def foolbox_pgd(network: nn.Module, pgd: PGD, images: Tensor) -> AttackFunction:
    import foolbox

    linf_pgd = foolbox.attacks.LinfPGD(abs_stepsize=pgd.step_size, steps=pgd.steps)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        model = foolbox.PyTorchModel(network.eval(), bounds=(0, 1))
        _, x_adv, _ = linf_pgd(model, x, y, epsilons=pgd.eps)
        network.train()
        return x_adv

    return attack


def art_pgd(network: nn.Module, pgd: PGD, images: Tensor) -> AttackFunction:
    sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]  # ART would import it if it could
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    shape, loss = tuple(images.shape[1:]), nn.CrossEntropyLoss()
    classifier = PyTorchClassifier(network, loss, shape, nb_classes=10, clip_values=(0, 1), device_type="cpu")
    settings = {"eps": pgd.eps, "eps_step": pgd.step_size, "max_iter": pgd.steps, "num_random_init": 1}
    art_attack = ProjectedGradientDescentPyTorch(classifier, batch_size=len(images), verbose=False, **settings)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        x_adv = torch.from_numpy(art_attack.generate(x.numpy(), y.numpy()))
        network.train()  # the library leaves it in eval mode
        return x_adv

    return attack


PEERS = {
    "torchattacks PGD": torchattacks_pgd,
    "foolbox LinfPGD": foolbox_pgd,
    "ART ProjectedGradientDescentPyTorch": art_pgd,
}
