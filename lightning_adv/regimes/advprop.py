"""AdvProp (Xie 2020, chapter 7) and mixture BatchNorm (chapter 6): one BatchNorm for each kind of image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_adv.attacks import GD, IFGSM, PGD, Attack
from lightning_adv.attacks.distance import Distance, parse_distance
from lightning_adv.core.arguments import check_choices
from lightning_adv.core.errors import UsageError
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import convert_batchnorm, domain_norms
from lightning_adv.regimes.augmentation import AutoAugment
from lightning_adv.regimes.base import Regime
from lightning_adv.regimes.keywords import RegimeKeywords, Unpack
from lightning_adv.regimes.objectives import check_mixture, pairing_distance


class AdvPropTraining(Regime):
    """Learn from clean images through the main, and from adversarial ones through the auxiliary BatchNorms.

    With a weak attack and inference through the main BatchNorms this is AdvProp (Xie 2020, algorithm 2), which is for
    clean accuracy. With the attack's strength for robustness, ``reduction="mean"`` and inference through the auxiliary
    ones it is the mixture BatchNorm of section 6.4.2. Validation reports clean and robust accuracy through both:
    ``val/clean_accuracy_main``, ``val/robust_accuracy_adversarial`` and so on (tables 6.1 and 7.3).

    Args:
        backbone: What network to build; it needs BatchNorms.
        attack: What makes the adversarial images, through the auxiliary BatchNorms;
            :func:`advprop_attack` makes those of the thesis.
        clean_fraction: Clean images for each adversarial one, from 0 to 1 (figure 6.1).
        logit_pairing: Weight of adversarial logit pairing (section 6.4.1, ALP).
        reduction: ``"sum"`` adds the mean losses of the domains (algorithm 2, line 6); ``"mean"`` is the mean over all
            images (equation 6.1 with alpha = 0.5 if ``clean_fraction`` is 1).
        augmentation: None, or what makes a third kind of image that has its own BatchNorms: fine-grained AdvProp
            (section 7.5.4). The data module should then leave this augmentation to it.
        inference_domain: ``"main"`` or ``"adversarial"``: the BatchNorms that the trained network uses.
        **kwargs: The other arguments of :class:`~lightning_adv.regimes.base.Regime`.

    Raises:
        UsageError: An argument is out of its range, or the network has no BatchNorm.

    Example:
        >>> backbone = Backbone("small_cnn", in_channels=1)
        >>> regime = AdvPropTraining(backbone, num_classes=10, attack=advprop_attack("2/255"))
        >>> regime.attack.steps
        3
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        attack: Attack = PGD(eps="4/255", steps=5),  # noqa: B008 (a recipe)
        clean_fraction: float = 1.0,
        logit_pairing: float = 0.0,
        reduction: Literal["sum", "mean"] = "sum",
        augmentation: AutoAugment | None = None,
        inference_domain: Literal["main", "adversarial"] = "main",
        **kwargs: Unpack[RegimeKeywords],
    ) -> None:
        check_mixture(clean_fraction, logit_pairing)
        self.reduction = reduction
        self.inference_domain = inference_domain
        check_choices(self, AdvPropTraining)
        if clean_fraction == 0 and inference_domain == "main":
            raise UsageError(
                "clean_fraction is 0, which trains no main BatchNorm: set inference_domain to 'adversarial'."
            )
        # Before super().__init__, which builds the network with these.
        self.domains = ("main", "adversarial") if clean_fraction else ("adversarial",)
        self.clean_fraction = clean_fraction
        self.augmentation = None if augmentation is None else AutoAugment.from_config(augmentation)
        super().__init__(backbone, **kwargs)
        self.attack = Attack.from_config(attack)
        self.logit_pairing = logit_pairing

    @property
    def monitor(self) -> str:
        """The metric of what the regime is for: clean accuracy through main, robust accuracy through auxiliary."""
        return "val/clean_accuracy" if self.inference_domain == "main" else "val/robust_accuracy"

    def build_network(self, num_classes: int) -> nn.Module:
        """Return the backbone with a BatchNorm for each domain."""
        network = super().build_network(num_classes)
        augmented = () if self.augmentation is None else ("augmented",)
        convert_batchnorm(network, ("main", "adversarial", *augmented))
        if not self.clean_fraction:  # else weight decay would wear them down
            for norm in domain_norms(network, "main"):
                for parameter in (norm.weight, norm.bias):  # not an activation's, which the domains share
                    parameter.requires_grad_(False)
        return network

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the total loss of a clean mini-batch (algorithm 2, whose lines from 3 on are numbered)."""
        x_adv = self.attacked(self.attack, x, y, domain="adversarial")  # 3
        images = {"main": x[: self._clean_images(len(x))], "adversarial": x_adv}
        if self.augmentation is not None:
            images["augmented"] = self.augmentation(x)
        logits = {name: self.logits(part, name) for name, part in images.items() if len(part)}  # 4 and 5
        return self._total_loss(logits, y)  # 6

    def _clean_images(self, adversarial: int) -> int:
        """How many clean images go with that many adversarial ones: at least two, which have batch statistics."""
        if not self.clean_fraction:
            return 0
        return min(adversarial, max(2, round(self.clean_fraction * adversarial)))

    def _total_loss(self, logits: dict[str, Tensor], y: Tensor) -> Tensor:
        """One number from the logits (n, K) of each domain, which belong to the first n labels."""
        images = sum(len(part) for part in logits.values())
        total = torch.zeros((), device=self.device)
        for part in logits.values():
            weight = len(part) / images if self.reduction == "mean" else 1.0
            total = total + weight * self.criterion(part, y[: len(part)])
        if self.logit_pairing:
            clean = logits["main"]
            total = total + self.logit_pairing * pairing_distance(clean, logits["adversarial"][: len(clean)])
        return total


def advprop_attack(eps: Distance, attacker: type[PGD] | type[IFGSM] | type[GD] = PGD) -> Attack:
    """Return the attack of AdvProp at ``eps`` (Xie 2020, sections 7.5.1 and 7.5.4).

    Steps of one grey level, one more than eps has levels; a single one at eps = 1/255.

    Args:
        eps: Distance in pixels, 1/255 to 4/255 there.
        attacker: PGD, I-FGSM (no random start) or GD (no projection), table 7.7.

    Example:
        >>> attack = advprop_attack("4/255")
        >>> attack.steps, attack.step_size == 1 / 255
        (5, True)
    """
    levels = 255 * parse_distance(eps, "eps")
    steps = 1 if levels <= 1 else round(levels) + 1
    return attacker(eps=eps, steps=steps, step_size="1/255")
