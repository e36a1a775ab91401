"""Overlap, separability and energy distance: closed forms, brute force, and splits by image."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neighbors import KernelDensity

from lightning_adv.analysis.features import (
    FeatureVectors,
    density_overlap,
    energy_distance,
    joint_map,
    plot_distributions,
    plot_feature_numbers,
    separability,
)

GENERATOR = torch.Generator()


@pytest.fixture(autouse=True)
def seeded():
    GENERATOR.manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, generator=GENERATOR)


def shifted(images, distance, axes=2):
    """Standard normal vectors, one of each image, the adversarial ones moved along the first axis."""
    moved = normal(images, axes)
    moved[:, 0] += distance
    return FeatureVectors(normal(images, axes), moved, torch.arange(images))


def test_identical_samples():
    clean = normal(100, 2)
    same = FeatureVectors(clean, clean.clone(), torch.arange(100) // 4)
    assert density_overlap(same).overlap == pytest.approx((1, 1, 1), abs=1e-9)
    assert separability(same) == (0.5, 0.5, 0.5)
    assert all(each == pytest.approx((0, 0, 0), abs=1e-6) for each in energy_distance(same))


@pytest.mark.parametrize("distance", [0.5, 1.5, 3.0])
def test_shifted_gaussians_in_closed_form(distance):
    found = density_overlap(shifted(3000, distance)).overlap
    # Gaussian kernels widen a Gaussian: by their variance
    spread = 1 + distance**2 / 8  # mean over both axes of the variance of both kinds together
    widened = math.sqrt(1 + spread * 3000 ** (-1 / 3))
    assert found.value == pytest.approx(2 * norm.cdf(-distance / 2 / widened), abs=0.03)
    assert found.low < found.value < found.high
    told = separability(shifted(3000, distance))
    assert told.low - 0.005 < norm.cdf(distance / 2) < told.high + 0.005


def test_the_energy_distance_of_shifted_gaussians_in_closed_form():
    distance, share = energy_distance(shifted(800, 2.0, axes=1))
    deviation = math.sqrt(2)  # of the difference of two vectors, whose absolute value is a folded normal one
    between = deviation * math.sqrt(2 / math.pi) * math.exp(-1) + 2 * (1 - 2 * norm.cdf(-2 / deviation))
    expected = 2 * between - 2 * 2 / math.sqrt(math.pi)
    assert distance.low < expected < distance.high
    assert share.low < expected / (2 * between) < share.high
    assert distance.high - distance.low < 0.4


def test_the_energy_distance_is_that_of_all_pairs_of_two_images():
    image = torch.tensor([0, 0, 0, 3, 3, 7, 7, 7, 7])
    vectors = FeatureVectors(normal(9, 5), normal(9, 5) + 0.5, image)
    x, y = (kind.double().numpy() for kind in vectors[:2])
    pairs = [(i, j) for i in range(9) for j in range(9) if image[i] != image[j]]

    def mean(a, b):
        return np.mean([np.linalg.norm(a[i] - b[j]) for i, j in pairs])

    distance, share = energy_distance(vectors)
    expected = 2 * mean(x, y) - mean(x, x) - mean(y, y)
    assert distance.value == pytest.approx(expected, rel=1e-6)
    assert share.value == pytest.approx(expected / (2 * mean(x, y)), rel=1e-6)


def test_a_classifier_never_sees_an_image_that_it_is_asked_about():
    """Each image's vectors are its own: by heart they can be told apart, of an image that is new they cannot."""
    images, each = 40, 8
    image = torch.arange(images).repeat_interleave(each)
    clean, adversarial = (normal(images, 100)[image] + 0.1 * normal(images * each, 100) for _ in range(2))
    both, kinds = torch.cat([clean, adversarial]).numpy(), np.repeat([0, 1], len(image))
    by_vector = cross_val_score(LogisticRegression(max_iter=1000), both, kinds, cv=KFold(5, shuffle=True)).mean()
    assert by_vector > 0.95
    assert separability(FeatureVectors(clean, adversarial, image)).value == pytest.approx(0.5, abs=0.12)


def test_intervals_are_over_images_and_not_over_vectors():
    once = shifted(200, 1.0)
    often = FeatureVectors(*(kind.repeat_interleave(9, dim=0) for kind in once))
    for number in (lambda v: energy_distance(v)[0], lambda v: density_overlap(v).overlap):
        narrow, same = number(once), number(often)
        assert same.high - same.low == pytest.approx(narrow.high - narrow.low, rel=0.2)
    found = separability(once)
    deviation = math.sqrt(found.value * (1 - found.value) / 400)  # of 400 vectors that are independent
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.15)
    repeated = separability(often)
    assert repeated.high - repeated.low == pytest.approx(found.high - found.low, rel=0.15)


def test_the_densities_are_scikit_learns_of_all_places():
    vectors = shifted(70, 2.0)
    found = density_overlap(vectors)
    cells = np.stack(np.meshgrid(found.x, found.y), -1)
    places = torch.cat(vectors[:2]).double().numpy()
    bandwidth = np.sqrt(places.var(0).mean()) * 70 ** (-1 / 6)
    for density, kind in zip(found.densities, vectors[:2], strict=True):
        whole = KernelDensity(bandwidth=bandwidth).fit(kind.double().numpy())
        assert np.allclose(density, np.exp(whole.score_samples(cells.reshape(-1, 2))).reshape(64, 64))


@pytest.mark.slow
def test_a_joint_map_shows_what_is_apart_and_what_is_not():
    clean = normal(120, 10)
    image = torch.arange(120) // 2
    apart = joint_map(FeatureVectors(clean, clean + 20, image), perplexity=10, points=200)
    assert len(apart.clean) == len(apart.adversarial) == 100
    assert apart.overlap.value < 0.05
    same = FeatureVectors(clean, clean + 1e-4, image)
    first, again = (joint_map(same, perplexity=10, seed=5) for _ in range(2))
    assert first.overlap.value > 0.95
    assert np.array_equal(first.clean, again.clean)
    cell = np.prod([np.diff(axis)[0] for axis in (first.x, first.y)])
    assert first.densities.sum((1, 2)) * cell == pytest.approx(1, abs=0.01)


def test_features_that_are_not_finite_have_no_numbers():
    clean = normal(60, 3)
    broken = clean.clone()
    broken[5, 1] = math.nan
    vectors = FeatureVectors(clean, broken, torch.arange(60))
    found = [separability(vectors), *energy_distance(vectors), joint_map(vectors).overlap]
    assert all(math.isnan(end) for estimate in found for end in estimate)
    assert plot_distributions({"network": {"m1": joint_map(vectors)}}).axes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: joint_map(shifted(45, 1.0)), r"perplexity must be .* below a third of the points of the map, got 30 "
         r"and 90 points: 1 of each of 45 images"),
        (lambda: joint_map(shifted(90, 1.0, axes=1)), "at least two channels, got those of one"),
        (lambda: separability(shifted(4, 1.0)), "in 5 folds over images needs as many images, got vectors of 4"),
        (lambda: energy_distance(shifted(1, 1.0)), "at least two images"),
        (lambda: density_overlap(shifted(9, 1.0, axes=3)), r"places \(n, 2\), got 3 axes"),
    ],
)  # fmt: skip
def test_too_little_to_compare(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Pictures -------------------------------------------------------------------------------------------------------------


def test_the_figure_has_a_row_for_each_network_and_a_column_for_each_block():
    found = density_overlap(shifted(60, 1.0))
    told = separability(shifted(60, 9.0))
    figure = plot_distributions({"a": {"m1": found, "m2": found}, "b": {"m2": found}}, {
        ("a", "m1"): told, ("a", "m2"): told, ("b", "m2"): told,
    })  # fmt: skip
    first, second, absent, last = figure.axes
    assert first.get_ylabel() == "a"
    assert second.get_title() == last.get_title() == f"m2: overlap {found.overlap.value:.2f}, told apart 1.00"
    assert not absent.axison
    green, red = first.collections[0], first.collections[2 + 1]
    assert np.allclose(green.get_offsets(), found.clean)
    assert np.allclose(red.get_offsets(), found.adversarial)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["clean", "adversarial"]


def test_intervals_are_drawn_at_their_blocks():
    numbers = {("a", "m1"): (0.6, 0.5, 0.8), ("a", "m2"): (0.7, 0.6, 0.9), ("b", "m2"): (0.5, 0.4, 0.6)}
    axes = plot_feature_numbers({"separability": numbers}).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["m1", "m2"]
    (bars,) = axes.containers[0].lines[2]
    assert np.allclose([segment[:, 1] for segment in bars.get_segments()], [[0.5, 0.8], [0.6, 0.9]])
    assert np.allclose(axes.containers[1].lines[0].get_xdata(), [1.04])


def test_features_of_dead_units_are_all_in_one_place() -> None:
    zeros = torch.zeros(40, 3)
    found = joint_map(FeatureVectors(zeros, zeros, torch.arange(40)), perplexity=5)
    assert found.overlap.value == pytest.approx(1)
    assert not found.clean.any()
    assert not found.adversarial.any()
