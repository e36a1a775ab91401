"""How far the features of adversarial examples are from those of clean images, as numbers and as a map of two axes.

Siddiqui, Breuel, "Identifying Layers Susceptible to Adversarial Attacks" (2021), section 6 and figure 8, shows a t-SNE
of the vectors behind each block with densities of both kinds. The paper has no numbers; those are this package's.

All intervals are of 95 %: 1.96 standard errors to both sides, by the bootstrap over images (1,000 draws), in which an
image is drawn with all of its vectors, of both kinds, since vectors of one image are not independent. They are about
the choice of the images: the classifiers, the map and the network are not made anew. (Percentiles of the bootstrap
would lie below a large overlap: each draw adds noise, which takes from what two densities share.)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_adv.analysis.features.vectors import FeatureVectors, thin_out
from lightning_adv.core.errors import UsageError
from lightning_adv.core.shares import NORMAL_975

FOLDS = 5
"""Parts of the images, each of which is held out once for the accuracy of a classifier."""

POINTS = 5000
"""Points of a map, as figure 8 has them, clean and adversarial together."""

_DRAWS = 1000
_GRID = 64
_GROUPS = 50
_MARGIN = 4.0  # bandwidths beyond the outermost points: a Gaussian has 0.006 % of its mass there


class Estimate(NamedTuple):
    """A number with the ends of its 95 % interval.

    Attributes:
        value: The number; nan, as the ends are, where features are not finite.
        low: The lower end.
        high: The upper end.
    """

    value: float
    low: float
    high: float


class FeatureMap(NamedTuple):
    """Vectors of both kinds in one map of two axes, and how dense they are.

    Attributes:
        clean: Places (n, 2) of the clean vectors.
        adversarial: Places (n, 2) of the adversarial ones.
        x: Grid (G,) of the first axis.
        y: Grid (G,) of the second axis.
        densities: Densities (2, G, G) of the clean and of the adversarial places at (y, x).
        overlap: The mass that both densities share.
    """

    clean: NDArray[np.float64]
    adversarial: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    densities: NDArray[np.float64]
    overlap: Estimate


def separability(vectors: FeatureVectors, *, seed: int = 0) -> Estimate:
    """Return how often a linear classifier tells adversarial vectors from clean ones of images that it has not seen.

    scikit-learn's logistic regression of standardised features, with its default regularisation, in five folds over
    the images: both kinds of an image's vectors are held out together. 0.5 is chance, since there are as many of each
    kind.

    Args:
        vectors: The vectors, of at least five images.
        seed: Of the bootstrap and of the folds.

    Raises:
        UsageError: There are fewer images than folds.

    Example:
        >>> clean, image = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), torch.arange(200)
        >>> separability(FeatureVectors(clean, clean, image)).value
        0.5
        >>> separability(FeatureVectors(clean, clean + 9, image)).value
        1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    number = _numbered(vectors)
    images = int(number.max()) + 1
    if images < FOLDS:
        raise UsageError(f"a classifier in {FOLDS} folds over images needs as many images, got vectors of {images}.")
    if not _finite(vectors):
        return Estimate(math.nan, math.nan, math.nan)
    both = torch.cat([vectors.clean, vectors.adversarial]).numpy()
    kinds = np.repeat([0, 1], len(number))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    told = cross_val_predict(classifier, both, kinds, groups=np.tile(number, 2), cv=folds)
    right = np.bincount(np.tile(number, 2), weights=told == kinds, minlength=images)
    total = 2.0 * np.bincount(number, minlength=images)
    drawn = _draws(images, seed)
    return _estimate(float(right.sum() / total.sum()), drawn @ right / (drawn @ total))


def energy_distance(vectors: FeatureVectors, *, seed: int = 0) -> tuple[Estimate, Estimate]:
    """Return the energy distance of clean and adversarial vectors in R^C, and its share of the distance between them.

    E = 2 E‖X − Y‖ − E‖X − X'‖ − E‖Y − Y'‖ (Székely, Rizzo 2013), 0 for equal distributions only, in the unit of the
    features; and E / (2 E‖X − Y‖), from 0 to 1, which can be compared between layers and networks. The means are over
    pairs of vectors from two different images. An image's clean and adversarial vectors are close to each other, and
    would make the distance smaller than it is. Without bias, it comes out slightly below 0 now and then.

    Args:
        vectors: The vectors (n, C), of at least two images. Time is that of 3 n² distances.
        seed: Of the bootstrap.

    Raises:
        UsageError: They are of one image.

    Example:
        >>> clean, image = torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])
        >>> distance, share = energy_distance(FeatureVectors(clean, clean + 3, image))
        >>> round(distance.value, 6), round(share.value, 6)
        (4.0, 0.666667)
    """
    number = _numbered(vectors)
    images = int(number.max()) + 1
    if images < 2:
        raise UsageError("an energy distance needs vectors of at least two images, got those of one.")
    if not _finite(vectors):
        nothing = Estimate(math.nan, math.nan, math.nan)
        return nothing, nothing
    x, y = vectors.clean.double(), vectors.adversarial.double()
    between, *within = (_distances(a, b, torch.from_numpy(number)) for a, b in ((x, y), (x, x), (y, y)))
    count = np.bincount(number, minlength=images).astype(float)
    pairs = np.outer(count, count)
    np.fill_diagonal(pairs, 0)

    def means(draws: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        xy, xx, yy, of = (np.einsum("di,di->d", draws @ sums, draws) for sums in (between, *within, pairs))
        of = np.where(of > 0, of, math.nan)  # few images: a draw may have one of them only
        distance = (2 * xy - xx - yy) / of
        return distance, distance / np.maximum(2 * xy / of, np.finfo(float).tiny)

    (value,), (share,) = means(np.ones((1, images)))
    values, shares = means(_draws(images, seed))
    return _estimate(float(value), values, -math.inf, math.inf), _estimate(float(share), shares, -math.inf)


def density_overlap(vectors: FeatureVectors, *, seed: int = 0) -> FeatureMap:
    """Return the densities of clean and adversarial places of two axes, and the overlap Σ min(p, q) of both.

    Each density is scikit-learn's of Gaussian kernels, whose bandwidth is that of Scott's rule for the standard
    deviation of all places together, on a grid of 64 × 64 cells. The overlap is 1 for the same places and 0 for places
    far from each other. Two samples of one distribution come out below 1, the more so the fewer they are. The bootstrap
    draws 50 groups of images.

    Args:
        vectors: Places (n, 2), such as those of :func:`joint_map`.
        seed: Of the bootstrap.

    Raises:
        UsageError: They are not of two axes.

    Example:
        >>> places, image = torch.randn(100, 2), torch.arange(100)
        >>> round(density_overlap(FeatureVectors(places, places, image)).overlap.value, 6)
        1.0
    """
    from sklearn.neighbors import KernelDensity

    number = _numbered(vectors)
    kinds = [kind.double().numpy() for kind in (vectors.clean, vectors.adversarial)]
    both = np.concatenate(kinds)
    if both.shape[1] != 2:
        raise UsageError(f"densities are those of places (n, 2), got {both.shape[1]} axes: use joint_map.")
    bandwidth = float(np.sqrt(both.var(0).mean())) * len(number) ** (-1 / 6) or 1.0  # all of them in one place
    low, high = both.min(0) - _MARGIN * bandwidth, both.max(0) + _MARGIN * bandwidth
    x, y = np.linspace(low, high, _GRID).T
    cells = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    group = number % _GROUPS
    mass = np.zeros((2, group.max() + 1, len(cells)))  # a density is the mean of its points', so that of its groups'
    for kind, places in enumerate(kinds):
        for each in range(mass.shape[1]):
            own = places[group == each]
            mass[kind, each] = len(own) * np.exp(KernelDensity(bandwidth=bandwidth).fit(own).score_samples(cells))
    whole = mass.sum(1)
    drawn = _draws(mass.shape[1], seed)
    p, q = ((drawn @ each) / (drawn @ each).sum(1, keepdims=True) for each in mass)
    shares = whole / whole.sum(1, keepdims=True)
    overlap = _estimate(float(np.minimum(*shares).sum()), np.minimum(p, q).sum(1))
    return FeatureMap(kinds[0], kinds[1], x, y, (whole / len(number)).reshape(2, _GRID, _GRID), overlap)


def joint_map(
    vectors: FeatureVectors,
    *,
    perplexity: float = 30,
    points: int = POINTS,
    seed: int = 0,
) -> FeatureMap:
    """Return the t-SNE of clean and adversarial vectors together, with their densities and overlap (figure 8).

    scikit-learn's t-SNE, started from the first two principal components. A map of distances between neighbours: how
    far apart two groups lie in it says little, whether they share places does.

    Args:
        vectors: The vectors (n, C), of at least two channels.
        perplexity: How many neighbours of a point count, about. There must be more than three times as many points.
        points: How many points the map has at most, of both kinds together; taken evenly from the images.
        seed: Of the choice of points, of t-SNE and of the bootstrap.

    Raises:
        UsageError: There are too few vectors for the perplexity, or they are of one channel.

    Example:
        >>> clean = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
        >>> found = joint_map(FeatureVectors(clean, clean + 50, torch.arange(60)), perplexity=10)
        >>> found.clean.shape, found.overlap.value < 0.1
        ((60, 2), True)
    """
    from sklearn.manifold import TSNE

    if vectors.clean.shape[1] < 2:
        raise UsageError("a map of two axes needs vectors of at least two channels, got those of one.")
    images = len(torch.unique(vectors.image))
    check_perplexity(perplexity, images, len(vectors.image) // max(1, images), points)
    few = thin_out(vectors, points // 2, seed=seed)
    if not _finite(few):
        empty = np.empty((0, 2))
        nothing = Estimate(math.nan, math.nan, math.nan)
        return FeatureMap(empty, empty, np.arange(2.0), np.arange(2.0), np.full((2, 2, 2), math.nan), nothing)
    both = torch.cat([few.clean, few.adversarial]).numpy()
    if float(np.var(both, axis=0).max()) > 0:
        placed = TSNE(init="pca", perplexity=perplexity, random_state=seed % 2**32).fit_transform(both)
    else:  # the units are dead: t-SNE divides by the deviation, and its tree ends the process at NaN
        placed = np.zeros((len(both), 2), np.float32)
    clean, adversarial = torch.split(torch.from_numpy(placed), len(few.image))
    return density_overlap(FeatureVectors(clean, adversarial, few.image), seed=seed)


def check_perplexity(
    perplexity: float, images: int, places: int, points: int = POINTS, *, argument: str = "perplexity"
) -> None:
    """Check that a map has enough points; see :func:`joint_map`.

    Args:
        perplexity: The perplexity.
        images: How many images there are.
        places: How many vectors there are of an image, of each kind.
        points: The most points of the map.
        argument: What an error calls the perplexity.

    Raises:
        UsageError: There are too few.

    Example:
        >>> check_perplexity(30, images=100, places=1)
    """
    found = 2 * min(images * places, points // 2)
    if not 1 <= perplexity < found / 3:
        raise UsageError(
            f"{argument} must be at least 1 and below a third of the points of the map, got {perplexity:g} and {found} "
            f"points: {places} of each of {images} images, clean and adversarial, and at most {points}. Give more "
            "images, or a smaller perplexity."
        )


def _numbered(vectors: FeatureVectors) -> NDArray[np.int64]:
    """Return the image of each vector, counted from 0 without gaps."""
    if not len(vectors.image):
        raise UsageError("there are no vectors to compare.")
    number: NDArray[np.int64] = np.unique(vectors.image.numpy(), return_inverse=True)[1]
    return number


def _finite(vectors: FeatureVectors) -> bool:
    return bool(vectors.clean.isfinite().all() and vectors.adversarial.isfinite().all())


def _distances(x: Tensor, y: Tensor, number: Tensor) -> NDArray[np.float64]:
    """Return the sums of distances between the vectors of two images each (images, images), 0 within an image."""
    images = int(number.max()) + 1
    sums = torch.zeros(images, images, dtype=x.dtype)
    for rows, of in zip(torch.split(x, 512), torch.split(number, 512), strict=True):
        by_image = torch.zeros(len(rows), images, dtype=x.dtype).index_add_(1, number, torch.cdist(rows, y))
        sums.index_add_(0, of, by_image)
    return sums.fill_diagonal_(0).numpy()


def _draws(images: int, seed: int) -> NDArray[np.float64]:
    """Return how often each image is in each draw of the bootstrap (draws, images)."""
    chances = np.full(images, 1 / images)
    return np.random.default_rng(seed).multinomial(images, chances, size=_DRAWS).astype(float)


def _estimate(value: float, draws: NDArray[np.float64], least: float = 0.0, most: float = 1.0) -> Estimate:
    """Return a number and what lies 1.96 standard errors of its bootstrap around it, within limits."""
    reach = NORMAL_975 * float(np.nanstd(draws))
    return Estimate(value, max(value - reach, least), min(value + reach, most))
