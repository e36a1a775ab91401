"""The arguments of ``lightning-adv evaluate``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lightning.pytorch import LightningDataModule

from lightning_adv.attacks import Attack
from lightning_adv.commands.shared.presets import PresetCommand
from lightning_adv.commands.shared.run_folder import run_folder_of
from lightning_adv.core.errors import UsageError
from lightning_adv.evaluation import CommonCorruptions, StepsCurve
from lightning_adv.nn.backbones import Backbone


@dataclass
class Settings:
    """What is evaluated, against what, and how.

    Args:
        checkpoint: A checkpoint of a run, what ``lightning-adv export`` wrote (its folder too, or
            ``hf-hub:user/name``), or a weights file of another project.
        backbone: The network of another project's weights: its name, stem, mean and std.
        data: The data set, whose test images are attacked; that of the checkpoint's run if it is not given.
        attacks: The attacks, in the order in which they run. They are given at any eps, and moved to each eps below.
        eps: For each norm its radii, increasing, as in {linf: [4/255, 8/255], l2: [0.5]}; those that the checkpoint's
            run was tested at if it is not given.
        steps_curve: The accuracy over the number of steps of PGD; null for none.
        corruptions: Common corruptions: their names, severities, family and baseline; null for none.
        exhaustive: Attack also samples that another attack, or the same at a smaller eps, has broken.
        suspicion_images: How many images to look at for signs that the numbers are too good; 0 for no look.
        domain: The BatchNorm domain; the one that the regime predicts with if it is not given.
        images: How many images of the test set, drawn once for all evaluations; all if it is not given.
        batch_size: Images that are attacked at a time; four times as many are kept at hand. The attacks' noise depends
            on it.
        seed: Seed of the attacks' noise.
        accelerator: What to compute on: auto, cpu, gpu, ...
        devices: How many devices share the images, or which.
        precision: 32-true, 64-true, bf16-mixed or 16-mixed.
        name: The name of the output folder, in the folder of the checkpoint's run.
        output: The folder to write; ``-o`` for short. In place of ``name``.
        overwrite: Replace an evaluation that is there.
    """

    checkpoint: str | None = None
    backbone: Backbone | None = None
    data: LightningDataModule | None = None
    attacks: list[Attack] = field(default_factory=list)
    eps: dict[str, list[float | str]] | None = None
    steps_curve: StepsCurve | None = None
    corruptions: CommonCorruptions | None = None
    exhaustive: bool = False
    suspicion_images: int = 128
    domain: str | None = None
    images: int | None = None
    batch_size: int = 256
    seed: int = 0
    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    precision: str = "32-true"
    name: str = "evaluation"
    output: str | None = None
    overwrite: bool = False

    def folder(self) -> Path:
        """Return the folder to write.

        Raises:
            UsageError: Nobody says where it is.
        """
        if self.output is not None:
            return Path(self.output)
        run = None if self.checkpoint is None else run_folder_of(self.checkpoint)
        if run is None:
            raise UsageError("output must be given: the checkpoint does not lie in the folder of a run.")
        return run / self.name


EVALUATE = PresetCommand(
    Settings,
    "evaluate",
    "Attack the test images of a data set, and tell what survives, sample by sample.",
    default="evaluation/quick",
    what=("attacks", "corruptions"),
    checkpoint=lambda parsed: parsed.checkpoint,
)

parse_settings = EVALUATE.settings
