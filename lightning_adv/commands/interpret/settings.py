"""The arguments of ``lightning-adv interpret``."""

from __future__ import annotations

from dataclasses import dataclass, field

from lightning.pytorch import LightningDataModule

import lightning_adv.interpretation.sections  # noqa: F401 (what is imported can be named by its class name alone)
from lightning_adv.attacks import Attack
from lightning_adv.commands.shared.presets import PresetCommand
from lightning_adv.interpretation import Section
from lightning_adv.nn.backbones import Backbone


@dataclass
class InterpretSettings:
    """Which networks are looked at, on what images, and what at.

    Args:
        networks: The networks by name, as in {standard: FILE, madry: FILE}: checkpoints of runs, what
            ``lightning-adv export`` wrote, or weights files of other projects, which need a backbone.
        sections: What is looked at. Each gives a table and pictures.
        attacks: The attacks by name, as in {pgd20: {class_path: PGD, init_args: {eps: 8/255}}}. All sections share
            the examples.
        eps: The radius that all attacks are moved to, each within its norm and with its step in proportion; as they
            are given if it is not given.
        data: The data set, whose test images are looked at; that of the first network's run if it is not given.
        backbones: By network, the network that a weights file of another project is of; one with pretrained weights
            stands here alone.
        domains: The BatchNorm domain by network; the one that the regime predicts with where none is given.
        images: How many images of the test set, drawn once for all; 1,000 if it is not given, or all where there are
            fewer.
        batch_size: Images that go through a network at a time. The attacks' noise depends on it.
        seed: Seed of all that is drawn.
        accelerator: What to compute on: auto, cpu, gpu, ...
        output: The folder to write; ``-o`` for short.
        overwrite: Replace what is there.
    """

    networks: dict[str, str] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    attacks: dict[str, Attack] = field(default_factory=dict)
    eps: float | str | None = None
    data: LightningDataModule | None = None
    backbones: dict[str, Backbone] = field(default_factory=dict)
    domains: dict[str, str] = field(default_factory=dict)
    images: int | None = None
    batch_size: int = 256
    seed: int = 0
    accelerator: str = "auto"
    output: str = "interpretation"
    overwrite: bool = False


INTERPRET = PresetCommand(
    InterpretSettings,
    "interpret",
    "Look into several networks side by side, on the same test images and adversarial examples.",
    default="interpret/default",
    what=("sections",),
    checkpoint=lambda parsed: next(iter(parsed.networks.values()), None),
)
