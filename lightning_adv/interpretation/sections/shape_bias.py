"""Shape bias: what networks take images for that have the shape of one class and the texture of another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_adv.analysis.images.cue_conflict import (
    Cues,
    Decisions,
    add_decisions,
    coarse_decisions,
    count_decisions,
    parse_cues,
    parse_mapping,
)
from lightning_adv.analysis.images.cue_conflict_figures import plot_shape_bias
from lightning_adv.analysis.images.version_figures import plot_versions
from lightning_adv.core.errors import UsageError
from lightning_adv.core.image_files import read_tensor
from lightning_adv.core.image_folders import list_images
from lightning_adv.core.reading import read_json, read_yaml
from lightning_adv.core.shares import Share
from lightning_adv.interpretation.crafted import Crafted
from lightning_adv.interpretation.finding import Finding, share_finding
from lightning_adv.interpretation.section import Section
from lightning_adv.interpretation.subject import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IMAGES = "cue conflict"


class ShapeBias(Section):
    """The share of decisions for the shape among those for shape or texture, on cue-conflict images.

    Geirhos et al., "ImageNet-trained CNNs are biased towards texture" (ICLR 2019), figure 4. The authors' 1,280 images
    (github.com/rgeirhos/texture-vs-shape) are named after their shape and their texture, ``cat7-elephant2.png``, by 16
    classes that are made up of ImageNet's. For each network there are ``shape_bias`` with a 95 % interval (Wilson's),
    and the shares of ``shape_decisions``, ``texture_decisions`` and ``other_decisions`` among all images; and the
    shape bias on the images of each shape, as the paper's figure has it. Images whose shape and texture are of one
    class are left out, as the authors do.

    Args:
        folder: The images' folder; those below it are looked into too. They are resized to the size of the test images.
        mapping: A YAML or JSON file that lists the members of each coarse class: indices of the data set's classes
            from 0, or their names. The probability of a coarse class is the mean of those of its members.
        pictures: How many images the picture shows.
    """

    name = "shape_bias"

    def __init__(self, folder: str, mapping: str, pictures: int = 6) -> None:
        if pictures < 1:
            raise UsageError(f"pictures must be at least 1, got {pictures}.")
        self.folder = folder
        self.mapping = mapping
        self.pictures = pictures
        self._decided: dict[str, list[str]] = {}
        self._by_shape: dict[str, dict[str, Decisions]] = {}

    def check(self, subjects: Sequence[Subject], crafted: Crafted) -> None:
        """Read the mapping and the images' names.

        Raises:
            UsageError: The mapping or the folder cannot be used, a name does not parse, or networks take no colours.
        """
        if crafted.x.shape[1] != 3:
            raise UsageError(f"cue-conflict images have 3 channels, but the networks take {crafted.x.shape[1]}.")
        with torch.no_grad():
            classes = subjects[0].network(crafted.x[:1].to(crafted.device)).shape[1]
        self._images(self._members(crafted, classes))

    def find(self, subjects: Sequence[Subject], crafted: Crafted) -> Iterable[Finding]:
        """Let all networks decide on all images."""
        mapping = self._members(crafted, None)
        files, cues = self._images(mapping)
        self._decided = {subject.name: [] for subject in subjects}
        with crafted.progress("cue-conflict images", len(files)) as done:
            for start in range(0, len(files), crafted.batch_size):
                x = self._read(files[start : start + crafted.batch_size], crafted)
                for subject in subjects:
                    with torch.no_grad():
                        probabilities = subject.network(x.to(crafted.device)).float().softmax(1)
                    self._decided[subject.name] += coarse_decisions(probabilities, mapping)
                done(len(x))
        for name, decided in self._decided.items():
            self._by_shape[name] = _by_shape(decided, cues, list(mapping))
            yield from _findings(name, self._by_shape[name])

    def draw(self, findings: Sequence[Finding], crafted: Crafted, subjects: Sequence[Subject]) -> Mapping[str, Figure]:
        """Draw the bias by shape, and some images with what they are taken for."""
        files, _ = self._images(self._members(crafted, None))
        apart = max(1, len(files) // self.pictures)
        shown = range(0, min(len(files), apart * self.pictures), apart)
        images = self._read([files[number] for number in shown], crafted)
        columns = {Path(files[number]).stem: image[None] for number, image in zip(shown, images, strict=True)}
        answers = {
            title: {network: [decided[number]] for network, decided in self._decided.items()}
            for title, number in zip(columns, shown, strict=True)
        }
        figures = {"examples": plot_versions(columns, answers)}
        if any(decisions.bias for classes in self._by_shape.values() for decisions in classes.values()):
            figures["by_shape"] = plot_shape_bias(self._by_shape)
        return figures

    def _members(self, crafted: Crafted, classes: int | None) -> dict[str, list[int]]:
        path = Path(self.mapping).expanduser()
        try:
            content = read_json(path) if path.suffix == ".json" else read_yaml(path)
            return parse_mapping(content, crafted.class_names, classes)
        except UsageError as error:
            raise UsageError(f"mapping: {path} cannot be used: {error}") from error

    def _images(self, mapping: Mapping[str, Sequence[int]]) -> tuple[list[str], list[Cues]]:
        files = list_images(self.folder, argument="folder").images
        named = [(file, parse_cues(file, list(mapping))) for file in files]
        conflicts = [(file, cues) for file, cues in named if cues.shape != cues.texture]
        if not conflicts:
            raise UsageError(f"folder is {self.folder!r}, where no image has its shape and its texture of two classes.")
        return [file for file, _ in conflicts], [cues for _, cues in conflicts]

    def _read(self, files: Sequence[str], crafted: Crafted) -> Tensor:
        size = crafted.x.shape[-2:]
        images = [read_tensor(file, argument="folder")[None] for file in files]
        return torch.cat(
            [F.interpolate(x, size, mode="bilinear", antialias=True) if x.shape[-2:] != size else x for x in images]
        ).clamp(0, 1)


def _by_shape(decided: Sequence[str], cues: Sequence[Cues], names: Sequence[str]) -> dict[str, Decisions]:
    """Return the decisions on the images of each shape, in the order of the mapping."""
    found: dict[str, Decisions] = {}
    for name in names:
        chosen = [number for number, each in enumerate(cues) if each.shape == name]
        if chosen:
            found[name] = count_decisions([decided[n] for n in chosen], [cues[n] for n in chosen])
    return found


def _findings(network: str, classes: Mapping[str, Decisions]) -> Iterable[Finding]:
    total = add_decisions(classes.values())
    if total.bias is not None:
        yield share_finding(network, _IMAGES, "shape_bias", total.bias)
    for what, count in (("shape", total.shape), ("texture", total.texture), ("other", total.neither)):
        yield share_finding(network, _IMAGES, f"{what}_decisions", Share(count, total.total))
    for name, decisions in classes.items():
        if decisions.bias is not None:
            yield share_finding(network, f"{_IMAGES}, {name}", "shape_bias", decisions.bias)
