"""What "Dissecting Local Properties of Adversarial Examples" shows of networks that are trained.

ICLR 2022 submission, anonymous: the local response differences on test images (tables 1 to 5) with the accuracies that
go with them, the frequencies (figures 1, 2 and 6), the perturbations (figures 3, 7 and 8), and the arithmetic of a
perturbation and a kernel (figure 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_adv.analysis.images.frequency import (
    FILTERS,
    FREQUENCY_SCALE,
    accuracy_over_frequency,
    log_amplitude_spectrum,
)
from lightning_adv.analysis.images.frequency_figures import plot_frequency_accuracy, plot_spectra
from lightning_adv.analysis.images.perturbation_figures import plot_perturbations
from lightning_adv.analysis.images.transformed_accuracy import TransformedAccuracy
from lightning_adv.analysis.images.transforms import swap_frequencies
from lightning_adv.analysis.local_response import GROUPS, compare_responses, local_responses, response_layers
from lightning_adv.analysis.local_response_figures import plot_kernel_arithmetic, plot_last_responses
from lightning_adv.analysis.weight_smoothness import MEANS, smoothness_records
from lightning_adv.core.errors import UsageError
from lightning_adv.core.shares import Share
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.core.table import Row
from lightning_adv.interpretation.crafted import Crafted
from lightning_adv.interpretation.finding import CLEAN, Finding, image_name, mean_finding, share_finding
from lightning_adv.interpretation.section import Section
from lightning_adv.interpretation.subject import Subject
from lightning_adv.nn.batchnorm import without_domain
from lightning_adv.nn.layers import named_layers, select_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LocalProperties(Section):
    """The tables and figures of "Dissecting Local Properties" for each network, attack and source of examples.

    Its statistics, of a network by the images that it looks at:

    - ``accuracy`` on clean images, on its own adversarial examples and on those of each other network (section 4.3);
      on filtered images ``clean low_pass 0.4``, ``pgd20 high_pass 0.4``, and on images with the other's high
      frequencies, ``clean merged pgd20 0.4`` and ``pgd20 merged clean 0.4`` (figures 1 and 6).
    - By layer ``max`` and ``total``: the mean over images of the largest and of the summed absolute difference between
      the responses to an example and to its clean image (tables 1, 3 and 5); with ``_successful`` and ``_failed``
      behind it of the images that the attack turned, and of those that withstood it (tables 2 and 4).
    - ``log_amplitude_low`` and ``log_amplitude_high``: by how much the logarithmic amplitude of its own examples is
      above that of clean images, as the mean over frequencies up to and above 0.7 (figure 2).
    - ``quadratic_sum`` of the parameters and the smoothness of the kernels (section 4.4), of no images.

    Args:
        layers: Patterns of layers, as in ``layer*``; None takes the paper's (``conv1``, ``layer0``, ...).
        frequency_attack: The attack of figures 1 and 6; None takes the first.
        radii: The frequencies of these, from 0 to √2.
        spectrum_images: Of how many images the spectra of figure 2 are, at most; the paper takes 1,000.
        examples: How many images figures 3, 7 and 8 show.

    Raises:
        UsageError: A number is below 1, or there are no radii.

    Example:
        >>> LocalProperties(layers="layer*", examples=5).name
        'local_properties'
    """

    name: ClassVar[str] = "local_properties"

    def __init__(
        self,
        layers: str | list[str] | None = None,
        frequency_attack: str | None = None,
        radii: list[float] | None = None,
        spectrum_images: int = 1000,
        examples: int = 3,
    ) -> None:
        for name, given in (("spectrum_images", spectrum_images), ("examples", examples)):
            if given < 1:
                raise UsageError(f"{name} must be at least 1, got {given}.")
        if radii is not None and not radii:
            raise UsageError("radii must be at least one, got none.")
        self.layers = layers
        self.frequency_attack = frequency_attack
        self.radii = list(FREQUENCY_SCALE) if radii is None else radii
        self.spectrum_images = spectrum_images
        self.examples = examples
        self._classes: dict[tuple[str, str], Tensor] = {}
        self._curves: dict[str, list[TransformedAccuracy]] = {}
        self._spectra: dict[str, Tensor] = {}

    def check(self, subjects: Sequence[Subject], crafted: Crafted) -> None:
        """Check that there is an attack, that the radii are frequencies, and that each network has such layers.

        Raises:
            UsageError: It is not so.
        """
        if not crafted.attacks:
            raise UsageError(f"{self.name} needs adversarial examples: attacks must be at least one, got none.")
        if self.frequency_attack is not None and self.frequency_attack not in crafted.attacks:
            known = crafted.attacks
            raise UsageError(
                f"{self.name}.frequency_attack is {self.frequency_attack!r}; the attacks are {', '.join(known)}."
                f"{did_you_mean(self.frequency_attack, known)}"
            )
        for radius in self.radii:
            swap_frequencies(crafted.x[:1], crafted.x[:1], radius)
        for subject in subjects:
            self._layers_of(subject, crafted)

    def find(self, subjects: Sequence[Subject], crafted: Crafted) -> Iterator[Finding]:
        """Compute the tables, the curves and the spectra."""
        self._classes, self._curves, self._spectra = {}, {}, {CLEAN: self._spectrum(crafted.x)}
        for subject in subjects:
            yield from self._responses(subject, subjects, crafted)
        attack = self._frequency_attack(crafted)
        work = len(subjects) * len(FILTERS) * len(self.radii) * len(crafted.x)
        with crafted.progress("filtering", work) as done:
            for subject in subjects:
                yield from self._filtered(subject, attack, crafted, done)
        for name in crafted.attacks:
            for subject in subjects:
                yield from self._amplitudes(subject, name, crafted)
        for subject in subjects:
            yield from _smoothness(subject)

    def draw(self, findings: Sequence[Finding], crafted: Crafted, subjects: Sequence[Subject]) -> Mapping[str, Figure]:
        """Draw the figures of the paper, and the tables by layer."""
        figures = {"frequencies": plot_frequency_accuracy(self._curves)}
        for attack in crafted.attacks:
            own = {subject.name: self._spectra[_key(attack, subject.name)] for subject in subjects}
            figures[f"spectra_{attack}"] = plot_spectra(self._spectra[CLEAN], own)
            figures[f"responses_{attack}"] = plot_last_responses(_as_rows(findings, attack, subjects))
            if crafted.x.shape[1] in (1, 3):
                for outcome in ("successful", "failed"):
                    chosen = self._images_of(attack, crafted, subjects, successful=outcome == "successful")
                    if len(chosen):
                        shown = self._perturbations(attack, crafted, subjects, chosen)
                        figures[f"perturbations_{attack}_{outcome}"] = shown
        figures["kernel_arithmetic"] = plot_kernel_arithmetic()
        return figures

    # What is found ----------------------------------------------------------------------------------------------------

    def _layers_of(self, subject: Subject, crafted: Crafted) -> dict[str, nn.Module]:
        """Return the layers to look at, after one pass that shows that each has one response to an image."""
        network, shape = without_domain(subject.network)[0], tuple(crafted.x.shape[1:])
        try:
            if self.layers is None:
                found = response_layers(network, shape)
            else:
                found = select_layers(named_layers(network), self.layers, argument="layers")
            local_responses(subject.network, crafted.x[:1].to(crafted.device), found)
        except UsageError as error:
            raise UsageError(f"{self.name}: {subject.name}: {error}") from error
        return found

    def _responses(self, subject: Subject, subjects: Sequence[Subject], crafted: Crafted) -> Iterator[Finding]:
        layers, own = self._layers_of(subject, crafted), subject.name
        pairs = [(attack, source.name) for attack in crafted.attacks for source in subjects]
        examples = {pair: crafted.adversarial(*pair) for pair in pairs}  # before the bar: they have one of their own
        with crafted.progress(f"local responses of {own}", len(pairs) * len(crafted.x)) as done:
            for number, (attack, source) in enumerate(pairs):
                images = image_name(attack, source, own)
                parts = []
                for x, x_adv in crafted.batches(crafted.x, examples[attack, source]):
                    seen = compare_responses(subject.network, x.to(crafted.device), x_adv.to(crafted.device), layers)
                    parts.append(
                        {
                            ("", "clean"): seen.clean.argmax(1).cpu(),
                            ("", "adversarial"): seen.adversarial.argmax(1).cpu(),
                        }
                        | {(name, "max"): each.double().cpu() for name, each in seen.maximum.items()}
                        | {(name, "total"): each.double().cpu() for name, each in seen.total.items()}
                    )
                    done(len(x))
                columns = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
                before, after = columns.pop(("", "clean")), columns.pop(("", "adversarial"))
                self._classes |= {(own, CLEAN): before, (own, images): after}
                correct, withstood = before == crafted.y, after == crafted.y
                if number == 0:
                    yield share_finding(own, CLEAN, "accuracy", _share(correct))
                yield share_finding(own, images, "accuracy", _share(withstood))
                groups = (torch.ones_like(correct), correct & ~withstood, correct & withstood)
                for (layer, statistic), values in columns.items():
                    for suffix, chosen in zip(GROUPS, groups, strict=True):
                        if chosen.any():
                            yield mean_finding(own, images, f"{statistic}{suffix}", values[chosen], layer)

    def _filtered(
        self, subject: Subject, attack: str, crafted: Crafted, done: Callable[[int], None]
    ) -> Iterator[Finding]:
        x_adv = crafted.adversarial(attack, subject.name)
        counts: dict[tuple[str, float, str], int] = {}
        for x, worse, y in crafted.batches(crafted.x, x_adv, crafted.y):
            x, worse, y = (each.to(crafted.device) for each in (x, worse, y))
            for row in accuracy_over_frequency(subject.network, x, worse, y, self.radii, batch_size=len(x)):
                key = (row.transform, row.level, row.images)
                counts[key] = counts.get(key, 0) + row.correct
            done(len(FILTERS) * len(self.radii) * len(x))
        total = len(crafted.x)
        self._curves[subject.name] = [TransformedAccuracy(*key, count, total) for key, count in counts.items()]
        for row in self._curves[subject.name]:
            images, other = (CLEAN, attack) if row.images == "clean" else (attack, CLEAN)
            what = f"merged {other}" if row.transform == "merged" else row.transform
            share = Share(row.correct, row.total)
            yield share_finding(subject.name, f"{images} {what} {row.level:.6g}", "accuracy", share)

    def _amplitudes(self, subject: Subject, attack: str, crafted: Crafted) -> Iterator[Finding]:
        x_adv = crafted.adversarial(attack, subject.name)
        spectrum = self._spectra[_key(attack, subject.name)] = self._spectrum(x_adv)
        gap, low = spectrum - self._spectra[CLEAN], _low_frequencies(*spectrum.shape)
        count = min(self.spectrum_images, len(x_adv))
        for name, modes in (("low", low), ("high", ~low)):
            if modes.any():
                yield Finding(subject.name, attack, "", f"log_amplitude_{name}", float(gap[modes].mean()), count=count)

    def _spectrum(self, images: Tensor) -> Tensor:
        return log_amplitude_spectrum(images[: self.spectrum_images])

    def _frequency_attack(self, crafted: Crafted) -> str:
        return next(iter(crafted.attacks)) if self.frequency_attack is None else self.frequency_attack

    # What is drawn ----------------------------------------------------------------------------------------------------

    def _images_of(self, attack: str, crafted: Crafted, subjects: Sequence[Subject], *, successful: bool) -> Tensor:
        """Return the images on which an attack succeeded, or failed, on most networks; of the same number the first."""
        score = torch.zeros(len(crafted.y))
        for subject in subjects:
            fooled = self._classes[subject.name, attack] != crafted.y
            score += (self._classes[subject.name, CLEAN] == crafted.y) & (fooled == successful)
        best = score.argsort(descending=True, stable=True)[: self.examples]
        return best[score[best] > 0]

    def _perturbations(self, attack: str, crafted: Crafted, subjects: Sequence[Subject], chosen: Tensor) -> Figure:
        examples = {subject.name: crafted.adversarial(attack, subject.name)[chosen] for subject in subjects}
        captions = {
            subject.name: [
                f"{before} → {after}" if before != after else f"{before} stays"
                for before, after in zip(
                    self._classes[subject.name, CLEAN][chosen].tolist(),
                    self._classes[subject.name, attack][chosen].tolist(),
                    strict=True,
                )
            ]
            for subject in subjects
        }
        return plot_perturbations(crafted.x[chosen], examples, captions)


def _key(attack: str, network: str) -> str:
    return f"{attack} of {network}"


def _share(correct: Tensor) -> Share:
    return Share(int(correct.sum()), len(correct))


def _low_frequencies(height: int, width: int) -> Tensor:
    """Return which modes (H, W) of a centred spectrum have a frequency of up to 0.7."""
    vertical = (torch.arange(height) - height // 2) * 2 / height
    horizontal = (torch.arange(width) - width // 2) * 2 / width
    return torch.hypot(vertical[:, None], horizontal[None]) <= 0.7


def _smoothness(subject: Subject) -> Iterator[Finding]:
    """Give the quadratic sum of the parameters and the mean measures of the kernels, where there are kernels."""
    kernels = [module.kernel_size for module in subject.network.modules() if isinstance(module, _ConvNd)]
    if any(max(size) > 1 for size in kernels):
        for record in smoothness_records(subject.network):
            if not record.name and record.statistic in ("quadratic_sum", *MEANS):
                yield Finding(subject.name, "", "", record.statistic, record.value)


def _as_rows(findings: Sequence[Finding], attack: str, subjects: Sequence[Subject]) -> list[Row]:
    """Return the responses to one attack's examples as the table that an observer writes, a domain for each network.

    What is transferred is the mean over the other networks.
    """
    rows: list[Row] = []
    for subject in subjects:
        transferred: dict[tuple[str, str], list[float]] = {}
        others = {image_name(attack, other.name, subject.name) for other in subjects if other is not subject}
        for found in findings:
            if found.network != subject.name or not found.layer:
                continue
            if found.images == attack:
                rows.append(Row(0, 0, found.layer, subject.name, found.statistic, found.value))
            elif found.images in others and found.statistic in ("max", "total"):
                transferred.setdefault((found.layer, found.statistic), []).append(found.value)
        for (layer, statistic), values in transferred.items():
            rows.append(Row(0, 0, layer, subject.name, f"transferred_{statistic}", sum(values) / len(values)))
    return rows
