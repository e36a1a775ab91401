"""Against closed forms, plain loops and other libraries. The constants are written out again, as published."""

import importlib.resources
import math

import cv2
import numpy as np
import pytest
import torch
from imagecorruptions import corruptions as library
from PIL import Image
from skimage.filters import gaussian

from lightning_adv.evaluation.corruptions.blurs import defocus_kernel, imagemagick_motion_blur
from lightning_adv.evaluation.corruptions.cifar import CONSTANTS, _frost_picture, _plasma_fractal, cifar_corrupt

SEVERITIES = (1, 2, 3, 4, 5)


def levels(constants):
    return list(zip(SEVERITIES, constants, strict=True))


def flat(value, size=200):
    return np.full((size, size, 3), value, dtype=np.uint8)


def natural(height=32, width=32, seed=0):
    """Coloured clouds: smooth, so that what moves pixels and what blurs them does less than what adds noise."""
    small = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
    return (255 * large[0].permute(1, 2, 0)).round().to(torch.uint8).numpy()


def corrupted(image, name, severity, seed=0):
    return cifar_corrupt(image, name, severity, np.random.default_rng(seed))


# Noise ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("severity", "std"), levels((0.04, 0.06, 0.08, 0.09, 0.10)))
def test_gaussian_noise_has_the_published_standard_deviation(severity, std):
    noise = corrupted(flat(128), "gaussian_noise", severity) / 255 - 128 / 255
    assert noise.std() == pytest.approx(std, rel=0.01)
    assert noise.mean() == pytest.approx(-0.5 / 255, abs=5 * std / math.sqrt(noise.size))  # cut to 8 bits
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.03


@pytest.mark.parametrize(("severity", "photons"), levels((500, 250, 100, 75, 50)))
def test_shot_noise_has_the_variance_of_photons(severity, photons):
    for value in (51, 153):
        noisy = corrupted(flat(value), "shot_noise", severity) / 255
        assert noisy.std() == pytest.approx(math.sqrt(value / 255 / photons), rel=0.04)  # 8 bits add to it
        assert noisy.mean() == pytest.approx(value / 255, abs=1 / 255)


@pytest.mark.parametrize(("severity", "share"), levels((0.01, 0.02, 0.03, 0.05, 0.07)))
def test_impulse_noise_hits_the_published_share_of_values(severity, share):
    noisy = corrupted(flat(100), "impulse_noise", severity)
    assert set(np.unique(noisy)) == {0, 100, 255}
    for end in (0, 255):
        assert (noisy == end).mean() == pytest.approx(share / 2, abs=5 * math.sqrt(share / 2 / noisy.size))


# Blur -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.3, 1, 1.5, 4])
def test_the_defocus_kernel_is_a_disc_of_weight_one(radius):
    kernel = defocus_kernel(radius, 0.5)
    assert kernel.shape == (17, 17)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert np.allclose(kernel, kernel.T)
    assert np.allclose(kernel, kernel[::-1])
    assert kernel[8, 8 + int(radius) + 2 :].max() == 0
    assert kernel[8, 8 + int(radius)] > 0


@pytest.mark.parametrize(("severity", "sigma"), [(1, 0.4), (2, 0.5), (3, 0.6)])
def test_small_discs_are_one_pixel_blurred_by_a_gaussian(severity, sigma):
    side = math.exp(-1 / (2 * sigma**2))
    taps = np.array([side, 1, side]) / (1 + 2 * side)
    image = flat(0, 17)
    image[8, 8] = 255
    blurred = corrupted(image, "defocus_blur", severity)
    assert abs(blurred[7:10, 7:10, 1] - 255 * np.outer(taps, taps)).max() <= 1
    assert blurred.astype(int).sum() == blurred[7:10, 7:10].astype(int).sum()


@pytest.mark.parametrize(
    ("severity", "sigma", "passes"), [(1, 0.05, 1), (2, 0.25, 1), (3, 0.4, 1), (4, 0.25, 2), (5, 0.4, 2)]
)
def test_glass_blur_is_the_published_loop_over_pixels(severity, sigma, passes):
    image = np.random.default_rng(1).integers(0, 256, size=(32, 32, 3), dtype=np.uint8)

    def blur(picture):
        return 255 * gaussian(picture / 255, sigma, channel_axis=-1)

    rng, glass = np.random.default_rng(7), blur(image).astype(np.uint8)
    for _ in range(passes):
        for row in range(31, 1, -1):
            for column in range(31, 1, -1):
                dx, dy = rng.integers(-1, 1, size=2)
                glass[row, column] = glass[row + dy, column + dx]
    found = corrupted(image, "glass_blur", severity, seed=7)
    assert np.array_equal(found, blur(glass).astype(np.uint8))
    assert (found != image).any(2)[2:, 2:].mean() > 0.6
    if severity == 1:  # which blurs by nothing but the cut to 8 bits
        assert abs(found[:2].astype(int) - image[:2]).max() <= 2


def test_motion_blur_draws_half_a_gaussian_along_a_line():
    image = flat(0, 21)
    image[10, 10] = 255
    weights = np.exp(-(np.arange(13.0) ** 2) / (2 * 2.0**2))
    expected = np.rint(255 * weights / weights.sum())
    level = imagemagick_motion_blur(image, 6, 2.0, angle=0)[..., 0]
    assert np.array_equal(level[10, 10::-1], expected[:11])
    assert level.sum() == level[10, :11].sum()
    upright = imagemagick_motion_blur(image, 6, 2.0, angle=-90)[..., 0]
    assert np.array_equal(upright[10:, 10], expected[:11])
    diagonal = imagemagick_motion_blur(image, 6, 2.0, angle=45)[..., 0]
    assert all(abs(row - column) <= 1 and row <= 10 for row, column in np.argwhere(diagonal))
    assert diagonal[10, 10] == expected[0]


@pytest.mark.parametrize(("severity", "constants"), levels(((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))))
def test_motion_blur_agrees_with_the_library_of_imagenet_corruptions(severity, constants):
    """Its function takes images of any size, radius and sigma, and edges go on there too."""
    image, angle = natural(), np.random.default_rng(9).uniform(-45, 45)
    theirs = library._motion_blur(image, *constants, angle)
    assert abs(corrupted(image, "motion_blur", severity, seed=9) - theirs).max() <= 0.5001


@pytest.mark.parametrize(("severity", "last"), levels((1.06, 1.10, 1.15, 1.20, 1.25)))
def test_zoom_blur_flattens_a_ramp_about_its_middle(severity, last):
    ramp = np.broadcast_to(np.arange(0, 255, 4)[None, :64, None], (64, 64, 3)).astype(np.uint8)
    blurred = corrupted(ramp, "zoom_blur", severity).mean((0, 2))
    zooms = np.arange(1, last + 1e-9, 0.01)
    slope = 4 * (1 + (1 / zooms).sum()) / (len(zooms) + 1)
    assert np.polyfit(np.arange(64), blurred, 1)[0] == pytest.approx(slope, rel=0.02)
    assert blurred.mean() == pytest.approx(ramp.mean(), abs=3)  # half a pixel where one too many is cut


@pytest.mark.parametrize(("severity", "last"), levels((1.06, 1.11, 1.15, 1.20, 1.25)))
def test_zoom_blur_by_the_library_of_imagenet_corruptions(severity, last):
    """It does not cut what was zoomed to the middle."""
    image = natural()
    total = image / 255
    zooms = np.arange(1, last + 0.005, 0.01)  # its last bits decide how some are cut
    for zoom in zooms:
        zoomed = library.clipped_zoom(image / 255, zoom)
        cut = (len(zoomed) - 32) // 2
        total = total + zoomed[cut : cut + 32, cut : cut + 32]
    assert abs(corrupted(image, "zoom_blur", severity) - 255 * total / (len(zooms) + 1)).max() < 1.001


# Weather --------------------------------------------------------------------------------------------------------------


SNOW = (
    (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
)


@pytest.mark.parametrize(("severity", "constants"), levels(SNOW))
def test_snow_is_zoomed_noise_above_a_threshold_that_falls(severity, constants):
    """On black, by the functions of the library of ImageNet's corruptions, which does not cut what was zoomed."""
    mean, std, zoom, threshold, radius, sigma, kept = constants
    rng = np.random.default_rng(6)
    flakes = library.clipped_zoom(rng.normal(mean, std, size=(32, 32))[..., None], zoom)[..., 0]
    cut = (len(flakes) - 32) // 2
    flakes = flakes[cut : cut + 32, cut : cut + 32]
    flakes = np.floor(255 * np.clip(flakes * (flakes >= threshold), 0, 1))
    fall = np.rint(library._motion_blur(flakes, radius, sigma, rng.uniform(-135, -45)))
    expected = np.minimum(255 * 0.5 * (1 - kept) + fall + np.rot90(fall, 2), 255)
    assert abs(corrupted(flat(0, 32), "snow", severity, seed=6)[..., 1] - np.floor(expected)).max() <= 1
    assert np.ptp(expected) > 20


@pytest.mark.parametrize(
    ("severity", "weights"),
    levels(((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
)
def test_frost_is_a_weighted_sum(severity, weights):
    image, of_image, of_frost = natural() // 2, *weights
    frost = corrupted(flat(0, 32), "frost", severity, seed=2)
    both = corrupted(image, "frost", severity, seed=2)
    assert 0 < frost.max() <= 255 * of_frost
    assert abs(both - (of_image * image + frost.astype(float))).max() <= 1.01


def test_frost_pictures_are_the_librarys_in_red_green_blue():
    for number, name in enumerate(["frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg"]):
        with (importlib.resources.files("imagecorruptions") / "frost" / name).open("rb") as file:
            picture = Image.open(file).convert("RGB")
            small = np.asarray(picture.resize((picture.width // 5, picture.height // 5), Image.Resampling.BILINEAR))
        assert np.allclose(_frost_picture(number, 0.2).mean((0, 1)), small.mean((0, 1)), atol=2)
        assert _frost_picture(number, 0.2).shape[0] == pytest.approx(picture.height / 5, abs=1)


@pytest.mark.parametrize(("size", "decay"), [(8, 3), (32, 1.75), (64, 2)])
def test_the_fractal_is_that_of_the_imagenet_corruptions(size, decay):
    state = np.random.get_state()
    try:
        np.random.seed(5)
        theirs = library.plasma_fractal(size, decay)  # in single precision
    finally:
        np.random.set_state(state)
    assert np.allclose(_plasma_fractal(size, decay, np.random.RandomState(5)), theirs, atol=1e-5)


@pytest.mark.parametrize(("severity", "weight"), levels((0.2, 0.5, 0.75, 1, 1.5)))
def test_fog_keeps_the_brightest_pixel_and_dims_by_its_weight(severity, weight):
    foggy = corrupted(flat(255, 32), "fog", severity)
    assert foggy.max() == 255
    assert foggy.min() == pytest.approx(255 / (1 + weight), abs=1)
    assert (corrupted(flat(0, 32), "fog", severity) == 0).all()


@pytest.mark.parametrize(("severity", "decay"), levels((3, 3, 2.5, 2, 1.75)))
def test_fog_is_a_fractal_of_the_published_decay(severity, decay):
    """On white: 1 / (1 + weight) and up, in proportion to the fractal, here drawn as the library would."""
    foggy = cifar_corrupt(flat(255, 32), "fog", severity, np.random.RandomState(8))[..., 0] / 255
    fractal = _plasma_fractal(32, decay, np.random.RandomState(8))
    assert np.allclose((foggy - foggy.min()) / (1 - foggy.min()), fractal, atol=0.03)


@pytest.mark.parametrize(("severity", "added"), levels((0.05, 0.1, 0.15, 0.2, 0.3)))
def test_brightness_scales_a_pixel_so_that_its_largest_channel_gains(severity, added):
    """Hue and saturation stay exactly if all channels are multiplied by one number."""
    x = np.random.default_rng(0).integers(1, 256, size=(32, 32, 3)) / 255
    value = x.max(2, keepdims=True)
    expected = 255 * x * np.minimum(value + added, 1) / value
    found = corrupted((255 * x).round().astype(np.uint8), "brightness", severity)
    assert np.all(found <= expected + 1e-6)
    assert np.all(found > expected - 1.0001)
    assert np.all(corrupted(flat(0, 8), "brightness", severity) == math.floor(255 * added + 1e-9))


# Digital --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("severity", "kept"), levels((0.75, 0.5, 0.4, 0.3, 0.15)))
def test_contrast_shrinks_each_channel_towards_its_mean(severity, kept):
    image = natural()
    for channel in range(3):
        mean = image[..., channel].mean()
        expected = kept * image[..., channel] + (1 - kept) * mean
        gap = expected - corrupted(image, "contrast", severity)[..., channel]
        assert -1e-6 <= gap.min() <= gap.max() < 1.0001


@pytest.mark.parametrize(
    ("severity", "shares"),
    levels(((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))),
)
@pytest.mark.parametrize("size", [32, 64])
def test_elastic_transform_against_torchs_sampling(severity, shares, size):
    """Away from the edges: two interpolations, by an affine map of three corners and by a smoothed displacement."""
    image, rng = natural(size, size), np.random.default_rng(4)
    amplitude, sigma, reach = (size * share for share in shares)
    corners = size // 2 + size // 3 * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + rng.uniform(-reach, reach, size=(3, 2))
    back = np.linalg.solve(np.c_[moved, np.ones(3)], corners)  # (x, y, 1) of the result to (x, y) of the image
    right, down = (amplitude * smoothed(rng.uniform(-1, 1, (size, size)), sigma) for _ in range(2))
    y, x = np.mgrid[:size, :size]
    affine = sampled(image / 255, np.stack([x, y, np.ones_like(x)], 2) @ back)
    expected = 255 * sampled(affine, np.stack([x + right, y + down], 2))
    inside = slice(size // 4, -size // 4)
    gap = corrupted(image, "elastic_transform", severity, seed=4)[inside, inside] - expected[inside, inside]
    assert -3 < gap.min() <= gap.max() < 2
    assert abs(image[inside, inside] - expected[inside, inside]).max() > 10


def smoothed(field, sigma):
    return gaussian(field, sigma, mode="reflect", truncate=3) if sigma else field


def sampled(image, places):
    """Values of (H, W, 3) at places (H, W, 2), x before y, in pixels."""
    grid = torch.from_numpy(2 * places / (len(image) - 1) - 1)[None]
    picture = torch.from_numpy(image).permute(2, 0, 1)[None]
    found = torch.nn.functional.grid_sample(picture, grid, padding_mode="reflection", align_corners=True)
    return found[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("severity", "small"), levels((30, 28, 27, 24, 20)))
def test_pixelate_is_pils_box_there_and_back(severity, small):
    image = natural()
    there = Image.fromarray(image).resize((small, small), Image.Resampling.BOX)
    assert np.array_equal(
        corrupted(image, "pixelate", severity), np.asarray(there.resize((32, 32), Image.Resampling.BOX))
    )


@pytest.mark.parametrize(("severity", "quality"), levels((80, 65, 58, 50, 40)))
def test_jpeg_compression_against_opencvs_encoder(severity, quality):
    image = natural()
    _, file = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    theirs = cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1]
    found = corrupted(image, "jpeg_compression", severity)
    assert abs(found.astype(int) - theirs).max() <= 2
    assert (found != image).mean() > 0.3


# All ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize("size", [(8, 8), (8, 32), (32, 20), (64, 64)])
def test_other_sizes(name, size):
    for severity in SEVERITIES:
        image = natural(*size)
        before = image.copy()
        found = corrupted(image, name, severity)
        assert found.shape == image.shape
        assert found.dtype == np.uint8
        assert np.array_equal(image, before)
        assert np.array_equal(corrupted(image, name, severity), found)


def test_images_can_be_too_small():
    with pytest.raises(ValueError, match=r"at least 8 × 8 .* got 7 × 32"):
        corrupted(flat(0, 32)[:7], "fog", 1)
