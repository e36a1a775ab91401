"""Images and their adversarial examples, each made once, whatever asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_adv.attacks import Attack
from lightning_adv.attacks.crafting import attack_in_batches
from lightning_adv.core.errors import UsageError
from lightning_adv.core.seeds import derive_seed
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.interpretation.subject import Subject

Progress: TypeAlias = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Told what is being done and how much of it there is; its context gives what to call with each part that is done."""


def no_progress(what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show nothing: a :data:`Progress`."""
    return nullcontext(lambda done: None)


class Crafted:
    """The images, and the adversarial examples of each attack on each network, crafted once for all sections.

    Attributes:
        subjects: The networks.
        attacks: The attacks by name.
        x: Images (N, C, H, W) in [0, 1], on the CPU.
        y: Labels (N,), on the CPU.
        seed: What all that is drawn comes from.
        batch_size: How many images go through a network at a time.
        device: Where the networks are: where a batch must be when it goes through one.
        files: The images' names, as ``lightning-adv stylize`` names their versions; None where they are not known.
        class_names: The names of the classes, in the order of the labels; None where they are not known.
        progress: Shows how far a long piece of work is: ``with crafted.progress("what", total) as done: done(1)``.

    Example:
        >>> from torch import nn
        >>> from lightning_adv.attacks import FGSM
        >>> subject = Subject("linear", nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
        >>> crafted = Crafted([subject], {"fgsm": FGSM()}, torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.long))
        >>> crafted.adversarial("fgsm", "linear") is crafted.adversarial("fgsm", "linear")
        True
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        attacks: Mapping[str, Attack],
        x: Tensor,
        y: Tensor,
        *,
        seed: int = 0,
        batch_size: int = 256,
        device: torch.device | str = "cpu",
        files: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self.subjects = tuple(subjects)
        self.attacks = dict(attacks)
        self.x = x
        self.y = y
        self.seed = seed
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.files = files
        self.class_names = class_names
        self.progress = progress
        self._examples: dict[tuple[str, str], Tensor] = {}

    def adversarial(self, attack: str, source: str) -> Tensor:
        """Return the adversarial examples (N, C, H, W) of an attack on a network, on the CPU; not to be changed.

        They are made at the first call. The attack draws the same on each network.

        Args:
            attack: The attack's name.
            source: The network's name.

        Raises:
            UsageError: There is no attack or no network of that name.
        """
        networks = {subject.name: subject.network for subject in self.subjects}
        for what, name, known in (("attack", attack, self.attacks), ("network", source, networks)):
            if name not in known:
                told = f"the {what}s are {', '.join(known)}" if known else f"there is no {what}"
                raise UsageError(f"{what} is {name!r}; {told}.{did_you_mean(name, known)}")
        if (attack, source) not in self._examples:
            with self.progress(f"crafting {attack} on {source}", len(self.x)) as done:
                self._examples[attack, source] = attack_in_batches(
                    self.attacks[attack],
                    networks[source],
                    self.x,
                    self.y,
                    self.generator("attack", attack),
                    self.batch_size,
                    device=self.device,
                    done=done,
                )
        return self._examples[attack, source]

    def generator(self, *what: int | str) -> torch.Generator:
        """Return a generator (CPU) for one purpose of a section: it gives the same draws for every network.

        Args:
            what: The section's name and the purpose, such as ``("shape_texture", "patch_shuffle", 4)``. What other
                sections draw changes nothing.
        """
        return torch.Generator().manual_seed(derive_seed(self.seed, *what))

    def batches(self, *images: Tensor) -> list[tuple[Tensor, ...]]:
        """Return tensors of N rows as batches, still on the CPU.

        Example:
            >>> crafted = Crafted([], {}, torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.long), batch_size=2)
            >>> [len(x) for x, y in crafted.batches(crafted.x, crafted.y)]
            [2, 1]
        """
        return list(zip(*(torch.split(tensor, self.batch_size) for tensor in images), strict=True))
