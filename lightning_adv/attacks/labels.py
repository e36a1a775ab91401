"""Which label an attack runs away from, or towards."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

LabelChoice: TypeAlias = Literal["true", "predicted", "random", "least_likely", True]
"""``true`` and ``predicted`` labels are left (predicted: no label leaking, Kurakin et al. 2017, section 4.2), a
``random`` other class or the ``least_likely`` class is approached. YAML reads an unquoted ``true`` as True, which is
taken for ``"true"``."""

TARGETED = ("random", "least_likely")


def choose_labels(choice: LabelChoice, y: Tensor, clean_logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return the labels that the attack uses.

    Args:
        choice: See :data:`LabelChoice`.
        y: True labels (N,).
        clean_logits: Logits (N, K) of the clean images.
        generator: Draws the random targets.

    Returns:
        Labels (N,); for ``random``, uniform over the K - 1 classes that are not the true one.
    """
    if choice == "predicted":
        return clean_logits.argmax(1)
    if choice == "least_likely":
        return clean_logits.argmin(1)
    if choice == "random":
        num_classes = clean_logits.shape[1]
        shift = torch.randint(1, num_classes, y.shape, generator=generator, device=generator.device)
        return (y + shift.to(y.device)) % num_classes
    return y
