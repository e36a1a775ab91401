"""Do networks go by shapes or by textures? Accuracies on images that have lost one or the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_adv.analysis.images.frequency_figures import plot_transformed_accuracy
from lightning_adv.analysis.images.transformed_accuracy import (
    PAPER_LEVELS,
    Answers,
    TransformedAccuracy,
    answers_to,
    answers_to_transformed,
    check_transforms,
    transform_images,
)
from lightning_adv.analysis.images.version_figures import plot_versions
from lightning_adv.core.errors import UsageError
from lightning_adv.core.image_files import read_tensor
from lightning_adv.core.shares import Share
from lightning_adv.interpretation.crafted import Crafted
from lightning_adv.interpretation.finding import CLEAN, Finding, mean_finding, share_finding
from lightning_adv.interpretation.section import Section
from lightning_adv.interpretation.subject import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TOP_1, _ON_CORRECT = "accuracy", "accuracy_on_correct"
_FILTERS = ("low_pass", "high_pass", "random_filter", "random_filter_each")


class ShapeTexture(Section):
    """Accuracies on saturated, shuffled and filtered images, and on versions of the images that lie in folders.

    Zhang & Zhu, "Interpreting Adversarially Trained Convolutional Neural Networks" (ICML 2019), tables 1 to 8 and
    figures 3 to 7. Saturation wears textures off and leaves contours, patch-shuffling destroys shapes and leaves
    textures. For each network, transform and level there are, with 95 % intervals,

    - ``accuracy``, the top-1 accuracy, on clean images and on the network's own adversarial examples too (table 1),
    - ``accuracy_on_correct``: of the images that the network classifies correctly as they are, the share that it still
      does (tables 2 to 8); missing for a network that classifies none correctly,
    - ``true_class_probability``, the mean probability of the true class (figure 6 has it of one image).

    All networks see the same draws.

    Args:
        transforms: The levels of each transform: ``saturation``, ``patch_shuffle``, ``low_pass``, ``high_pass``,
            ``random_filter``, and ``random_filter_each``, which masks each Fourier mode of each channel by itself. By
            default those of the paper, without the numbers of patches that do not divide the images' sides.
        versions: Folders that hold a version of each image under its name, by what they are to be called, as in
            ``{stylised: FOLDER}``: what ``lightning-adv stylize`` wrote of this test set (table 2).
        pictures: How many images the pictures show.

    Example:
        >>> from torch import nn
        >>> x, y = torch.tensor([[[[0.2, 0.8]]], [[[0.6, 0.4]]]]), torch.tensor([1, 1])
        >>> crafted = Crafted([Subject("brighter", nn.Flatten())], {}, x, y)
        >>> section = ShapeTexture({"low_pass": [0]})  # both pixels are their mean, and the first class is taken
        >>> [(row.images, row.statistic, row.value) for row in section.find(crafted.subjects, crafted)][::2]
        [('clean', 'accuracy', 0.5), ('low_pass 0', 'accuracy', 0.0), ('low_pass 0', 'true_class_probability', 0.5)]
    """

    name = "shape_texture"

    def __init__(
        self,
        transforms: dict[str, list[float]] | None = None,
        versions: dict[str, str] | None = None,
        pictures: int = 4,
    ) -> None:
        if pictures < 1:
            raise UsageError(f"pictures must be at least 1, got {pictures}.")
        self.transforms = transforms
        self.versions = {} if versions is None else versions
        self.pictures = pictures
        self._probabilities: dict[str, dict[str, Tensor]] = {}  # of the images that are shown: by version and network

    def check(self, subjects: Sequence[Subject], crafted: Crafted) -> None:
        """Check the levels, and that every image has its versions.

        Raises:
            UsageError: There is no such transform or level, or a version's name is taken or its folder lacks an image.
        """
        levels = self._levels(crafted)
        if not levels and not self.versions:
            raise UsageError("transforms and versions must have something in them, got nothing.")
        check_transforms(levels, crafted.x)
        for name, folder in self.versions.items():
            if name in (CLEAN, *crafted.attacks):
                raise UsageError(f"versions has {name!r}, which is what other images are called.")
            if crafted.files is None:
                raise UsageError("versions are looked for by the images' names, and these images have none.")
            if lacking := [file for file in crafted.files if not (Path(folder) / file).is_file()]:
                raise UsageError(
                    f"versions.{name}: {folder} must hold a version of each image under its name, but lacks "
                    f"{lacking[0]} and {len(lacking) - 1} more of {len(crafted.files)}."
                )
            self._read(name, crafted, crafted.files[:1])

    def find(self, subjects: Sequence[Subject], crafted: Crafted) -> Iterable[Finding]:
        """Let all networks classify all versions of the images."""
        x, y = crafted.x.to(crafted.device), crafted.y.to(crafted.device)
        before = {each.name: self._classified(each, x, y, crafted) for each in subjects}
        self._keep(CLEAN, before)
        for network, answers in before.items():
            yield from _findings(network, CLEAN, answers)
        for attack in crafted.attacks:
            for each in subjects:
                examples = crafted.adversarial(attack, each.name).to(crafted.device)
                yield from _findings(each.name, attack, self._classified(each, examples, y, crafted))
        for images, shown in self._transformed(subjects, crafted, x, y):
            self._keep(images, shown)
            for network, answers in shown.items():
                yield from _findings(network, images, answers, before[network])

    def _transformed(
        self, subjects: Sequence[Subject], crafted: Crafted, x: Tensor, y: Tensor
    ) -> Iterator[tuple[str, Mapping[str, Answers]]]:
        networks = {each.name: each.network for each in subjects}
        levels = [(name, level) for name, several in self._levels(crafted).items() for level in several]
        with crafted.progress("transforming images", len(levels) + len(self.versions)) as done:
            for name, level in levels:
                (shown,) = answers_to_transformed(
                    networks,
                    x,
                    y,
                    {name: [level]},
                    generator=self._generator(crafted, name, level),
                    batch_size=crafted.batch_size,
                )
                yield f"{name} {level:g}", {network: _on_cpu(each) for network, each in shown.networks.items()}
                done(1)
            for name in self.versions:
                found: dict[str, list[Answers]] = {network: [] for network in networks}
                files = crafted.files or ()
                for start in range(0, len(files), crafted.batch_size):
                    part = slice(start, start + crafted.batch_size)
                    images = self._read(name, crafted, files[part]).to(crafted.device)
                    for network, answers in found.items():
                        answers.append(answers_to(networks[network], images, y[part]))
                joined = {network: Answers(*map(torch.cat, zip(*each, strict=True))) for network, each in found.items()}
                yield name, {network: _on_cpu(each) for network, each in joined.items()}
                done(1)

    def draw(self, findings: Sequence[Finding], crafted: Crafted, subjects: Sequence[Subject]) -> Mapping[str, Figure]:
        """Draw the accuracies over the levels, and some images with their versions."""
        levels = self._levels(crafted)
        figures: dict[str, Figure] = {}
        for statistic in (_ON_CORRECT, _TOP_1):
            tables = _tables(findings, statistic, levels)
            if any(tables.values()):
                figures[statistic] = plot_transformed_accuracy(tables)
        if crafted.x.shape[1] not in (1, 3):
            return figures
        groups = {name: [name] for name in ("saturation", "patch_shuffle")} | {"filters": [*_FILTERS]}
        for title, names in groups.items():
            chosen = [(name, level) for name in names for level in sorted(levels.get(name, ()))]
            if chosen:
                shown = {f"{name} {level:g}": self._example(crafted, name, level) for name, level in chosen}
                figures[title] = self._picture(crafted, shown)
        if self.versions and crafted.files is not None:
            files = crafted.files[: self.pictures]
            figures["versions"] = self._picture(
                crafted, {name: self._read(name, crafted, files) for name in self.versions}
            )
        return figures

    def _picture(self, crafted: Crafted, shown: Mapping[str, Tensor]) -> Figure:
        versions = {CLEAN: crafted.x[: self.pictures], **shown}
        answers = {
            title: {network: [f"{100 * p:.1f} %" for p in row.tolist()] for network, row in networks.items()}
            for title, networks in self._probabilities.items()
            if title in versions
        }
        return plot_versions({title.replace("_", " "): images for title, images in versions.items()}, {
            title.replace("_", " "): networks for title, networks in answers.items()
        })  # fmt: skip

    def _example(self, crafted: Crafted, name: str, level: float) -> Tensor:
        """Transform the images that are shown, as all were: they are the first ones, and the draws are in order."""
        x = crafted.x[: self.pictures]
        return transform_images(x, name, level, generator=self._generator(crafted, name, level))

    def _generator(self, crafted: Crafted, name: str, level: float) -> torch.Generator:
        return crafted.generator(self.name, name, str(float(level)))

    def _levels(self, crafted: Crafted) -> Mapping[str, Sequence[float]]:
        if self.transforms is not None:
            return self.transforms
        height, width = crafted.x.shape[-2:]
        patches = [k for k in PAPER_LEVELS["patch_shuffle"] if height % k == 0 and width % k == 0]
        return {**PAPER_LEVELS, "patch_shuffle": patches}

    def _read(self, version: str, crafted: Crafted, files: Sequence[str]) -> Tensor:
        folder, argument = self.versions[version], f"versions.{version}"
        shape = tuple(crafted.x.shape[1:])
        images = [read_tensor(str(Path(folder) / file), argument=argument) for file in files]
        for image, file in zip(images, files, strict=True):
            if tuple(image.shape) != shape:
                raise UsageError(
                    f"{argument} holds {Path(folder) / file}, an image of shape {tuple(image.shape)}, but the images "
                    f"that the networks take are of shape {shape}."
                )
        return torch.stack(images)

    def _classified(self, subject: Subject, x: Tensor, y: Tensor, crafted: Crafted) -> Answers:
        return _on_cpu(answers_to(subject.network, x, y, batch_size=crafted.batch_size))

    def _keep(self, images: str, answers: Mapping[str, Answers]) -> None:
        self._probabilities[images] = {name: each.probability[: self.pictures] for name, each in answers.items()}


def _on_cpu(answers: Answers) -> Answers:
    return Answers(answers.correct.cpu(), answers.probability.cpu())


def _findings(network: str, images: str, answers: Answers, before: Answers | None = None) -> Iterator[Finding]:
    """Yield what is told of a network on one kind of images; ``before`` is how it answers to the clean ones."""
    count = len(answers.correct)
    yield share_finding(network, images, _TOP_1, Share(int(answers.correct.sum()), count))
    if before is not None and (total := int(before.correct.sum())):
        still = int((answers.correct & before.correct).sum())
        yield share_finding(network, images, _ON_CORRECT, Share(still, total))
    yield mean_finding(network, images, "true_class_probability", answers.probability)


def _tables(
    findings: Sequence[Finding], statistic: str, levels: Mapping[str, Sequence[float]]
) -> dict[str, list[TransformedAccuracy]]:
    """Return the rows of one accuracy over the levels of transforms, by network."""
    kinds = {f"{name} {level:g}": (name, level) for name, several in levels.items() for level in several}
    tables: dict[str, list[TransformedAccuracy]] = {row.network: [] for row in findings}
    images = "correct" if statistic == _ON_CORRECT else CLEAN
    for row in findings:
        if row.statistic == statistic and row.images in kinds:
            correct = round(row.value * row.count)
            tables[row.network].append(TransformedAccuracy(*kinds[row.images], images, correct, row.count))
    return tables
