"""Which label an attack runs away from, or towards."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

LabelChoice: TypeAlias = Literal["true", "predicted", "random", "most_likely", "least_likely", True]
"""``true`` and ``predicted`` labels are left (predicted: no label leaking, Kurakin et al. 2017, section 4.2), a
``random`` other class, the ``most_likely`` other class or the ``least_likely`` class is approached. YAML reads an
unquoted ``true`` as True, which is taken for ``"true"``."""

TARGETED = ("random", "most_likely", "least_likely")

CHANGING = ("random", "most_likely")
"""Targets that each restart chooses anew: it draws again, or takes the next likely class."""


def choose_labels(
    choice: LabelChoice, y: Tensor, clean_logits: Tensor, generator: torch.Generator, turn: int = 0
) -> Tensor:
    """Return the labels that the attack uses.

    Args:
        choice: Whose label it is, as :data:`LabelChoice` lists them.
        y: True labels (N,).
        clean_logits: Logits (N, K) of the clean images.
        generator: Draws the random targets.
        turn: How many targets were taken before. ``most_likely`` then takes the next likely class, and after the K - 1
            classes that are not the true one begins again.

    Returns:
        Labels (N,); for ``random``, uniform over the K - 1 classes that are not the true one.
    """
    if choice == "predicted":
        return clean_logits.argmax(1)
    if choice == "least_likely":
        return clean_logits.argmin(1)
    if choice == "most_likely":
        others = clean_logits.scatter(1, y[:, None], float("-inf")).argsort(dim=1, descending=True, stable=True)
        return others[:, turn % (clean_logits.shape[1] - 1)]
    if choice == "random":
        num_classes = clean_logits.shape[1]
        shift = torch.randint(1, num_classes, y.shape, generator=generator, device=generator.device)
        return (y + shift.to(y.device)) % num_classes
    return y
