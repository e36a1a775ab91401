"""To which pixels networks are sensitive, how sparse that is, and how far networks are from each other in it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_adv.analysis.features.saliency import (
    SAMPLES,
    Method,
    captum_attributions,
    check_method,
    gini,
    saliency_distances,
    saliency_maps,
)
from lightning_adv.analysis.features.saliency_figures import plot_saliency
from lightning_adv.analysis.images.transformed_accuracy import check_transforms, transform_images
from lightning_adv.core.errors import UsageError
from lightning_adv.core.figures import COLOURS, SMALL, add_legend, label, new_figure, set_text
from lightning_adv.interpretation.crafted import Crafted
from lightning_adv.interpretation.finding import CLEAN, Finding, mean_finding
from lightning_adv.interpretation.section import Section
from lightning_adv.interpretation.subject import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PATCHES = (4, 2, 8, 3, 5, 7)  # along a side, of the shuffled images: the first that divides both sides
_TITLES: Mapping[str, str] = {"smooth_grad": "SmoothGrad", "grad": "Grad"}


class Saliency(Section):
    """Saliency maps of the networks side by side, on clean, saturated, shuffled and adversarial images.

    Zhang & Zhu, "Interpreting Adversarially Trained Convolutional Neural Networks" (ICML 2019), sections 2.2 and 4.1,
    figures 2 and 8 to 10. The maps are gradients of the log-probability of the true class, smoothed (SmoothGrad) and
    plain (Grad). They come from captum (``pip install 'lightning-adv[interpret]'``). For each method, as means over the
    images with normal 95 % intervals:

    - ``smooth_grad_gini``: how sparse a network's maps are (:func:`~lightning_adv.analysis.features.gini`),
    - ``smooth_grad_l2_to_NETWORK`` and ``smooth_grad_cosine_to_NETWORK``: how far they are from those of each other
      network (:func:`~lightning_adv.analysis.features.saliency_distances`). Of an attack each network looks at its own
      adversarial examples.

    All networks see the same shuffled images and the same noise.

    Args:
        methods: ``smooth_grad`` and ``grad``, or one of them.
        transforms: The levels of transforms as of :class:`ShapeTexture`; by default saturation 1024 and a shuffle of 4
            patches along a side, or another number where 4 does not divide the images' sides.
        images: How many images, the first ones, or all where there are fewer.
        samples: Noisy copies of each image in SmoothGrad: what it costs is as many times ``images`` forward and
            backward passes of an image, for each network and version.
        pictures: How many images the pictures show.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> from torch import nn
        >>> x, y = torch.rand(2, 1, 4, 4), torch.tensor([1, 3])
        >>> crafted = Crafted([Subject("pixels", nn.Flatten())], {}, x, y)
        >>> found = list(Saliency(["grad"], {"saturation": [1024]}).find(crafted.subjects, crafted))
        >>> [(row.images, row.statistic, row.count) for row in found]
        [('clean', 'grad_gini', 2), ('saturation 1024', 'grad_gini', 2)]
    """

    name = "saliency"

    def __init__(
        self,
        methods: list[Method] | None = None,
        transforms: dict[str, list[float]] | None = None,
        images: int = 100,
        samples: int = SAMPLES,
        pictures: int = 4,
    ) -> None:
        for argument, number in (("images", images), ("samples", samples), ("pictures", pictures)):
            if number < 1:
                raise UsageError(f"{argument} must be at least 1, got {number}.")
        self.methods: list[Method] = ["smooth_grad", "grad"] if methods is None else methods
        if not self.methods:
            raise UsageError("methods must be at least one, got none.")
        for method in self.methods:
            check_method("methods", method)
        self.transforms = transforms
        self.images = images
        self.samples = samples
        self.pictures = pictures
        self._shown: dict[str, dict[str, dict[str, Tensor]]] = {}  # maps by method, version and network

    def check(self, subjects: Sequence[Subject], crafted: Crafted) -> None:
        """Check the levels.

        Raises:
            UsageError: There is no such transform or level, or captum is not installed.
        """
        captum_attributions()
        check_transforms(self._levels(crafted), crafted.x)

    def find(self, subjects: Sequence[Subject], crafted: Crafted) -> Iterable[Finding]:
        """Compute the maps of all networks on all versions of the images."""
        names = [subject.name for subject in subjects]
        self._shown = {method: {} for method in self.methods}
        versions = self._versions(names, crafted, self.images)
        total = len(versions) * len(self.methods) * len(names)
        with crafted.progress("saliency maps", total) as done:
            for (version, images), method in itertools.product(versions.items(), self.methods):
                maps = {}
                for subject in subjects:
                    x = images[subject.name] if isinstance(images, Mapping) else images
                    maps[subject.name] = self._maps(method, subject, x, crafted)
                    done(1)
                self._shown[method][version] = {name: each[: self.pictures] for name, each in maps.items()}
                yield from _findings(method, version, maps)

    def draw(self, findings: Sequence[Finding], crafted: Crafted, subjects: Sequence[Subject]) -> Mapping[str, Figure]:
        """Draw the maps side by side for each method, and how sparse they are."""
        figures: dict[str, Figure] = {"sparsity": _plot_sparsity(findings, self.methods)}
        if crafted.x.shape[1] in (1, 3):
            versions = self._versions([subject.name for subject in subjects], crafted, min(self.images, self.pictures))
            captions = [f"class {number}" for number in crafted.y[: self.pictures].tolist()]
            for method in self.methods:
                figures[method] = plot_saliency(versions, self._shown[method], captions)
        return figures

    def _levels(self, crafted: Crafted) -> Mapping[str, Sequence[float]]:
        if self.transforms is not None:
            return self.transforms
        height, width = crafted.x.shape[-2:]
        return {
            "saturation": [1024],
            "patch_shuffle": [k for k in _PATCHES if height % k == 0 and width % k == 0][:1],
        }

    def _versions(self, names: Sequence[str], crafted: Crafted, count: int) -> dict[str, Tensor | Mapping[str, Tensor]]:
        """Return the first images in each version, those of attacks by network; a part of them has the same draws."""
        x = crafted.x[:count]
        versions: dict[str, Tensor | Mapping[str, Tensor]] = {CLEAN: x}
        for transform, levels in self._levels(crafted).items():
            for level in levels:
                drawn = crafted.generator(self.name, transform, str(float(level)))
                versions[f"{transform} {level:g}"] = transform_images(x, transform, level, generator=drawn)
        for attack in crafted.attacks:
            versions[attack] = {name: crafted.adversarial(attack, name)[:count] for name in names}
        return versions

    def _maps(self, method: Method, subject: Subject, x: Tensor, crafted: Crafted) -> Tensor:
        """Return the maps (n, C, H, W) of one network, on the CPU."""
        noise = crafted.generator(self.name, "noise")
        return torch.cat([
            saliency_maps(
                method,
                subject.network,
                images.to(crafted.device),
                labels.to(crafted.device),
                generator=noise,
                samples=self.samples,
            ).cpu()
            for images, labels in crafted.batches(x, crafted.y[: len(x)])
        ])  # fmt: skip


def _findings(method: Method, version: str, maps: Mapping[str, Tensor]) -> Iterator[Finding]:
    for name, each in maps.items():
        yield from _mean(name, version, f"{method}_gini", gini(each))
    for (name, each), (other, theirs) in itertools.combinations(maps.items(), 2):
        for distance, values in saliency_distances(each, theirs)._asdict().items():
            yield from _mean(name, version, f"{method}_{distance}_to_{other}", values)
            yield from _mean(other, version, f"{method}_{distance}_to_{name}", values)


def _mean(network: str, images: str, statistic: str, values: Tensor) -> Iterator[Finding]:
    """Yield the mean of the values that there are: of maps of zeros there are none."""
    values = values[~values.isnan()]
    if len(values):
        yield mean_finding(network, images, statistic, values)


def _plot_sparsity(findings: Sequence[Finding], methods: Sequence[str]) -> Figure:
    """Draw the Gini index of each network over the versions of the images, a panel for each method."""
    rows = [row for row in findings if row.statistic.endswith("_gini")]
    versions = list(dict.fromkeys(row.images for row in rows))
    networks = list(dict.fromkeys(row.network for row in rows))
    figure = new_figure(1.5 + len(methods) * (1.2 + 0.7 * max(3, len(versions))), 3.6)
    for axes, method in zip(figure.subplots(1, len(methods), squeeze=False, sharey=True)[0], methods, strict=True):
        for number, network in enumerate(networks):
            found = [row for row in rows if row.network == network and row.statistic == f"{method}_gini"]
            at = [versions.index(row.images) + 0.4 * (number + 0.5) / len(networks) - 0.2 for row in found]
            bars = [0.0 if math.isnan(row.low) else row.value - row.low for row in found]
            axes.errorbar(
                at,
                [row.value for row in found],
                bars,
                fmt="o",
                markersize=4,
                color=COLOURS[number % len(COLOURS)],
                label=label(network),
            )
        set_text(axes, _TITLES[method], y="Gini index of the maps" if method == methods[0] else "")
        axes.set_xticks(range(len(versions)), list(map(label, versions)), rotation=30, ha="right", fontsize=SMALL)
    add_legend(figure, figure.axes[0])
    return figure
