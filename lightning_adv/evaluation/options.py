"""What an evaluation can measure beside attacks: the accuracy over the number of steps, and common corruptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from lightning_adv.attacks import PGD
from lightning_adv.core.arguments import check_choices
from lightning_adv.core.errors import UsageError
from lightning_adv.core.recipe import Recipe
from lightning_adv.evaluation.corruptions.blurs import evaluation_library
from lightning_adv.evaluation.corruptions.corrupt import CORRUPTIONS, SEVERITIES, check_corruptions

XIE_STEPS = (10, 20, 40, 60, 80, 100, 200, 500, 1000, 2000)
"""From 10 to 2000 attack iterations, the range of Xie 2020, figure 4.6."""


@dataclass(frozen=True)
class StepsCurve(Recipe):
    """The accuracy over the number of attack steps: does it flatten? (Xie 2020, figure 4.6).

    One run of PGD is looked at after each number of steps, at the largest radius of each norm.

    Args:
        attack: PGD; its radius and its step are scaled as those of the other attacks. Its number of steps is not used.
        steps: Numbers of steps, increasing.
        images: How many images, the first that are evaluated.

    Raises:
        UsageError: ``steps`` do not increase from 1 or more, ``images`` is below 1, or the attack is not a PGD.
    """

    attack: PGD
    steps: Sequence[int] = XIE_STEPS
    images: int = 1000

    def __post_init__(self) -> None:
        if not self.steps or self.steps[0] < 1 or any(later <= earlier for earlier, later in pairwise(self.steps)):
            raise UsageError(
                f"steps_curve.steps must be increasing numbers of steps, each at least 1, got {list(self.steps)}."
            )
        if self.images < 1:
            raise UsageError(f"steps_curve.images must be at least 1, got {self.images}.")


@dataclass(frozen=True)
class CommonCorruptions(Recipe):
    """The 15 common corruptions at five severities (Hendrycks & Dietterich 2019), made anew from the images.

    Args:
        names: Which corruptions; None takes all 15.
        severities: Which severities, 1 to 5.
        family: ``"cifar"`` for the constants of CIFAR-10-C, ``"imagenet"`` for those of ImageNet-C, ``"auto"`` by the
            size of the images.
        baseline: What the mean corruption error (mCE) is relative to: the ``evaluation.json`` of another network with
            the same corruptions, or ``"alexnet"`` for the paper's baseline on ImageNet; None for no mCE.

    Raises:
        UsageError: There is no such corruption, severity or family.
    """

    names: Sequence[str] | None = None
    severities: Sequence[int] = SEVERITIES
    family: Literal["auto", "cifar", "imagenet"] = "auto"
    baseline: str | None = None

    def __post_init__(self) -> None:
        check_corruptions(self.chosen, self.severities)
        if not self.chosen or not self.severities:
            raise UsageError("corruptions.names and corruptions.severities must hold at least one each.")
        check_choices(self, CommonCorruptions)

    def check_available(self) -> None:
        """Check that the libraries are installed.

        Raises:
            UsageError: One is not; the message says how to install it.
        """
        try:
            for library in ("imagecorruptions", "skimage"):
                evaluation_library(library)
        except ImportError as error:
            raise UsageError(str(error)) from error

    @property
    def chosen(self) -> Sequence[str]:
        """The names of the corruptions."""
        return CORRUPTIONS if self.names is None else self.names
