"""Are the features of adversarial examples among those of clean images? Distributions behind each block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lightning_adv.analysis.features.distributions import (
    FOLDS,
    POINTS,
    Estimate,
    FeatureMap,
    check_perplexity,
    energy_distance,
    joint_map,
    separability,
)
from lightning_adv.analysis.features.distributions_figures import plot_distributions, plot_feature_numbers
from lightning_adv.analysis.features.vectors import (
    FeatureVectors,
    feature_layers,
    feature_vectors,
    places_of,
    thin_out,
)
from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.interpretation.crafted import Crafted
from lightning_adv.interpretation.finding import Finding
from lightning_adv.interpretation.section import Section
from lightning_adv.interpretation.subject import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWN = ("overlap", "separability", "energy_share")


class FeatureSpace(Section):
    """Distributions of the features of clean images and of adversarial examples, behind each block.

    Siddiqui & Breuel, "Identifying Layers Susceptible to Adversarial Attacks" (2021), section 6 and figure 8: a joint
    t-SNE of vectors at random places of the images, the same places of both kinds, with densities in green and red; a
    row for each network and a column for each block. The paper has no numbers. For each network and block there are,
    with 95 % intervals over images,

    - ``overlap``, the mass that both densities share in the map: 1 where they are the same,
    - ``separability``, how often a linear classifier tells adversarial vectors from clean ones, of images that it has
      not seen: 0.5 is chance,
    - ``energy_distance`` in R^C, in the unit of the features, and ``energy_share``, from 0 (one distribution) to 1.

    All networks are looked at in the same images, and at the same places where their features have one size. The map
    takes most of the time; its vectors and their energy distance are at most ``points``, those of the classifier are
    all.

    Args:
        layers: Names of modules, with ``*`` for anything without a dot. None takes what is behind the blocks m1 to m4;
            see :func:`~lightning_adv.analysis.features.feature_layers`.
        attacks: Names of the attacks whose examples are looked at; None takes the first attack.
        positions: How many places of each image; all in layers that have fewer.
        points: Points of a map at most, clean and adversarial together.
        perplexity: Of the t-SNE: how many neighbours of a point count, about.

    Raises:
        UsageError: A number is below 1.

    Example:
        >>> FeatureSpace(attacks=["pgd20"], points=2000).positions
        100
    """

    name = "feature_space"

    def __init__(
        self,
        layers: str | list[str] | None = None,
        attacks: list[str] | None = None,
        positions: int = 100,
        points: int = POINTS,
        perplexity: float = 30,
    ) -> None:
        for argument, number in (("positions", positions), ("points", points)):
            if number < 1:
                raise UsageError(f"{argument} must be at least 1, got {number}.")
        self.layers = layers
        self.attacks = attacks
        self.positions = positions
        self.points = points
        self.perplexity = perplexity
        self._maps: dict[str, dict[str, dict[str, FeatureMap]]] = {}  # by attack, network and layer

    def check(self, subjects: Sequence[Subject], crafted: Crafted) -> None:
        """Check the attacks, the layers of each network, and that there are images enough.

        Raises:
            UsageError: There is no such attack or layer, or there are too few images.
        """
        if not crafted.attacks:
            raise UsageError("feature_space compares clean images with adversarial examples: give an attack.")
        for name in self._attacks(crafted):
            if name not in crafted.attacks:
                known = ", ".join(crafted.attacks)
                raise UsageError(
                    f"feature_space.attacks has {name!r}; the attacks are {known}.{did_you_mean(name, crafted.attacks)}"
                )
        images, shape = len(crafted.x), tuple(crafted.x.shape[1:])
        if images < FOLDS:
            raise UsageError(f"feature_space needs at least {FOLDS} images, which are its folds, got {images}.")
        for subject in subjects:
            told = f"feature_space.layers of {subject.name}"
            layers = feature_layers(subject.network, shape, self.layers, argument=told)
            for layer, places in places_of(subject.network, shape, layers, self.positions).items():
                told = f"feature_space.perplexity ({subject.name} behind {layer})"
                check_perplexity(self.perplexity, images, places, self.points, argument=told)

    def find(self, subjects: Sequence[Subject], crafted: Crafted) -> Iterable[Finding]:
        """Compare the vectors of each network, block after block."""
        self._maps = {}
        for attack in self._attacks(crafted):
            for subject in subjects:
                yield from self._compare(subject, attack, crafted)

    def draw(self, findings: Sequence[Finding], crafted: Crafted, subjects: Sequence[Subject]) -> Mapping[str, Figure]:
        """Draw figure 8 and the numbers by block, for each attack."""
        figures = {}
        for attack, maps in self._maps.items():
            numbers: dict[str, dict[tuple[str, str], Estimate]] = {statistic: {} for statistic in _DRAWN}
            for row in findings:
                if row.images == attack and row.statistic in numbers:
                    numbers[row.statistic][row.network, row.layer] = Estimate(row.value, row.low, row.high)
            figures[f"map_{attack}"] = plot_distributions(maps, numbers["separability"])
            figures[f"numbers_{attack}"] = plot_feature_numbers(numbers)
        return figures

    def _attacks(self, crafted: Crafted) -> list[str]:
        return list(crafted.attacks)[:1] if self.attacks is None else self.attacks

    def _compare(self, subject: Subject, attack: str, crafted: Crafted) -> Iterator[Finding]:
        x_adv = crafted.adversarial(attack, subject.name)
        layers = feature_layers(subject.network, crafted.x.shape[1:], self.layers)
        vectors = feature_vectors(
            subject.network,
            crafted.x,
            x_adv,
            layers,
            positions=self.positions,
            generator=crafted.generator(self.name, "positions"),
            batch_size=crafted.batch_size,
        )
        seed = crafted.generator(self.name, "map").initial_seed()
        maps = self._maps.setdefault(attack, {}).setdefault(subject.name, {})
        with crafted.progress(f"mapping the features of {subject.name}", len(vectors)) as done:
            for layer in layers:
                each = vectors.pop(layer)  # let go of once it is looked at
                maps[layer] = joint_map(each, perplexity=self.perplexity, points=self.points, seed=seed)
                for statistic, found in self._numbers(each, maps[layer], seed).items():
                    yield Finding(subject.name, attack, layer, statistic, *found, len(crafted.x))
                done(1)

    def _numbers(self, vectors: FeatureVectors, placed: FeatureMap, seed: int) -> dict[str, Estimate]:
        distance, share = energy_distance(thin_out(vectors, self.points // 2, seed=seed), seed=seed)
        return {
            "overlap": placed.overlap,
            "separability": separability(vectors, seed=seed),
            "energy_distance": distance,
            "energy_share": share,
        }
