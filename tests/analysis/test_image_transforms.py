"""Against the papers' formulas pixel by pixel, complex Fourier sums in NumPy, and single waves."""

import math

import numpy as np
import pytest
import torch

from lightning_adv.analysis.images.transforms import (
    LARGEST_RADIUS,
    high_pass,
    low_pass,
    patch_shuffle,
    random_filter,
    saturate,
    swap_frequencies,
)
from tests.seeded import seeded

SIZES = [(8, 8), (7, 9), (6, 5), (1, 4), (32, 32)]
DTYPES = [torch.float32, torch.float64]


def images(n=3, channels=3, size=(8, 8), dtype=torch.float64, seed=0):
    return torch.rand(n, channels, *size, dtype=dtype, generator=seeded(seed))


def wave(u, v, size=(20, 20), amplitude=0.4):
    """A single pair of modes: 1/2 + a cos(2π (u m / H + v n / W))."""
    rows, columns = torch.arange(size[0], dtype=torch.float64)[:, None], torch.arange(size[1], dtype=torch.float64)
    return (0.5 + amplitude * torch.cos(2 * math.pi * (u * rows / size[0] + v * columns / size[1])))[None, None]


def numpy_low_pass(image, radius):
    """The Fourier sums as loops over signed frequencies."""
    height, width = image.shape
    rows, columns = np.arange(height)[:, None], np.arange(width)
    total = np.zeros((height, width), complex)
    for u in range(-(height // 2), height - height // 2):
        for v in range(-(width // 2), width - width // 2):
            if 4 * u * u / height**2 + 4 * v * v / width**2 <= radius**2 * (1 + 1e-12):
                turn = np.exp(2j * np.pi * (u * rows / height + v * columns / width))
                total += (image * turn.conj()).sum() * turn / (height * width)
    assert np.abs(total.imag).max() < 1e-12
    return total.real


# Saturation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.25, 1, 3, 8, 1024])
def test_saturation_is_the_papers_formula(p):
    x = images()
    expected = [math.copysign(abs(2 * v - 1) ** (2 / p), 2 * v - 1) / 2 + 1 / 2 for v in x.flatten().tolist()]
    assert saturate(x, p).flatten().tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturation_of_two_is_the_image_and_of_infinity_binary(dtype):
    x = images(dtype=dtype)
    torch.testing.assert_close(saturate(x, 2), x, rtol=0, atol=1e-7)
    assert torch.equal(saturate(x, math.inf), (x > 0.5).to(dtype))
    assert saturate(torch.full((1, 1, 1, 1), 0.5), math.inf).item() == 0.5
    assert (saturate(0.05 + 0.9 * x, 1e-3) - 0.5).abs().max() < 1e-6


# Patches --------------------------------------------------------------------------------------------------------------


def patches(image, k):
    """The k × k patches of one image (C, H, W) in reading order, as bytes."""
    height, width = image.shape[1] // k, image.shape[2] // k
    return [
        image[:, i * height : (i + 1) * height, j * width : (j + 1) * width].numpy().tobytes()
        for i in range(k)
        for j in range(k)
    ]


@pytest.mark.parametrize(("k", "size"), [(2, (8, 8)), (4, (8, 12)), (8, (8, 16)), (3, (9, 6))])
def test_patches_are_permuted_whole(k, size):
    x = images(6, size=size)
    shuffled = patch_shuffle(x, k, seeded())
    orders = []
    for before, after in zip(x, shuffled, strict=True):
        before, after = patches(before, k), patches(after, k)
        assert sorted(before) == sorted(after)
        orders.append([before.index(patch) for patch in after])
    assert any(order != sorted(order) for order in orders)
    assert len({tuple(order) for order in orders}) > 1, "each image has an order of its own"


def test_all_orders_are_equally_likely():
    """24 orders of four patches: chi-square with 23 degrees of freedom is below 50 with probability 0.9991."""
    x = torch.tensor([0.0, 0.25, 0.5, 0.75]).view(1, 1, 2, 2).expand(4800, -1, -1, -1)
    _, counts = patch_shuffle(x, 2, seeded()).flatten(1).unique(dim=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 200.0) ** 2 / 200).sum() < 50


# Filters --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES[:4])
@pytest.mark.parametrize("radius", [0, 0.3, 0.5, 1, 1.2, LARGEST_RADIUS])
def test_low_pass_against_loops_in_numpy(size, radius):
    x = images(1, 2, size)
    expected = np.stack([numpy_low_pass(channel.numpy(), radius) for channel in x[0]])
    assert np.allclose(low_pass(x, radius, clip=False)[0], expected, atol=1e-12)
    assert np.allclose(low_pass(x, radius)[0], expected.clip(0, 1), atol=1e-12)
    assert np.allclose(high_pass(x, radius)[0], (x[0].numpy() - expected).clip(0, 1), atol=1e-12)


@pytest.mark.parametrize(
    ("u", "v", "radius"),
    [(3, 0, 0.3), (0, 7, 0.7), (10, 0, 1.0), (6, 8, 1.0), (-6, 8, 1.0), (3, 4, 0.5), (10, 10, math.sqrt(2))],
)
def test_a_wave_passes_at_its_radius_and_not_below(u, v, radius):
    """Of 20 × 20 pixels, the mode (u, v) is at sqrt(u² + v²) / 10."""
    x = wave(u, v)
    grey = torch.full_like(x, 0.5)
    for dtype in DTYPES:
        given, close = x.to(dtype), {"rtol": 0, "atol": 1e-6}
        torch.testing.assert_close(low_pass(given, radius), given, **close)
        torch.testing.assert_close(low_pass(given, radius - 0.01), grey.to(dtype), **close)
        torch.testing.assert_close(high_pass(given, radius, clip=False), torch.zeros_like(given), **close)
        torch.testing.assert_close(high_pass(given, radius - 0.01, clip=False), given - 0.5, **close)
        torch.testing.assert_close(high_pass(given, radius - 0.01), (given - 0.5).clamp(min=0), **close)


def test_the_ends_of_the_scale():
    x = images(size=(8, 6))
    mean = x.mean((2, 3), keepdim=True).expand_as(x)
    torch.testing.assert_close(low_pass(x, 0), mean)
    torch.testing.assert_close(low_pass(x, float(torch.tensor(2.0).sqrt())), x)  # √2 rounded to float32 is smaller
    torch.testing.assert_close(high_pass(x, 0, clip=False), x - mean)
    assert high_pass(x, LARGEST_RADIUS).abs().max() == 0


@pytest.mark.parametrize("size", SIZES)
def test_random_filter_removes_pairs_of_modes(size):
    """What is left is the image's mode or nothing, in all channels alike, and the share of what goes is as asked."""
    x = images(40, 2, size)
    spectra = np.fft.fft2(x.numpy())
    filtered = np.fft.fft2(random_filter(x, 0.3, seeded(), clip=False).numpy())
    gone = np.abs(filtered) < 1e-10
    assert np.allclose(filtered[~gone], spectra[~gone])
    assert (gone[:, 0] == gone[:, 1]).all()
    height, width = size
    mirrored = gone[:, 0][:, -np.arange(height) % height][:, :, -np.arange(width) % width]
    assert (mirrored == gone[:, 0]).all()
    assert (gone[0] != gone[1:]).any()
    free = 40 * height * width / 2  # a pair is one draw
    assert abs(gone.mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / free)


@pytest.mark.parametrize("each_channel", [False, True])
def test_random_filter_of_each_mode_is_the_real_part_of_masked_sums(each_channel):
    """A mode and its mirror go by themselves: in NumPy's full spectrum, whose masked image is complex."""
    x, options = images(2, 3, (6, 5)), {"each_mode": True, "each_channel": each_channel}
    drawn = torch.rand((2, 3 if each_channel else 1, 6, 5), generator=seeded()).numpy()
    masked = np.fft.ifft2(np.fft.fft2(x.numpy()) * (drawn >= 0.4))
    found = random_filter(x, 0.4, seeded(), clip=False, **options)
    np.testing.assert_allclose(found.numpy(), masked.real, atol=1e-12)
    assert np.abs(masked.imag).max() > 0.01
    assert torch.equal(random_filter(x, 0.4, seeded(), **options), found.clamp(0, 1))
    parts = torch.cat(
        [random_filter(part, 0.4, generator, **options) for generator in [seeded()] for part in x.split(1)]
    )
    torch.testing.assert_close(parts, found.clamp(0, 1))


def test_random_filter_of_each_channel_keeps_waves_real():
    """Each channel has a mask of its own, in which pairs of modes go together."""
    x = images(1, 3)
    filtered = np.fft.fft2(random_filter(x, 0.5, seeded(), clip=False, each_channel=True).numpy())
    kept = np.isclose(filtered, np.fft.fft2(x.numpy()))
    assert np.allclose(filtered[~kept], 0)
    mirrored = np.roll(kept[..., ::-1, ::-1], (1, 1), (2, 3))
    assert (kept == mirrored).all()
    assert (kept[:, 0] != kept[:, 1]).any()


def test_random_filter_of_all_and_nothing():
    x = images()
    torch.testing.assert_close(random_filter(x, 0, seeded()), x)
    assert random_filter(x, 1, seeded()).abs().max() == 0


def test_swapped_frequencies_are_those_of_either():
    low_from, high_from = wave(2, 1, amplitude=0.2), wave(5, 5, amplitude=0.25)
    merged = swap_frequencies(low_from, high_from, 0.5)
    torch.testing.assert_close(merged, low_from + high_from - 0.5)
    torch.testing.assert_close(swap_frequencies(high_from, low_from, 0.5), torch.full_like(merged, 0.5))
    x, other = images(), images(seed=1)
    torch.testing.assert_close(swap_frequencies(x, other, LARGEST_RADIUS), x)
    means = (x - other).mean((2, 3), keepdim=True)
    torch.testing.assert_close(swap_frequencies(x, other, 0, clip=False), other + means)
    clipped, not_clipped = swap_frequencies(x, other, 0.5), swap_frequencies(x, other, 0.5, clip=False)
    assert not_clipped.max() > 1
    assert torch.equal(clipped, not_clipped.clamp(0, 1))


# All of them ----------------------------------------------------------------------------------------------------------

TRANSFORMS = {
    "saturate": lambda x, generator: saturate(x, 8),
    "patch_shuffle": lambda x, generator: patch_shuffle(x, 2, generator),
    "low_pass": lambda x, generator: low_pass(x, 0.5),
    "high_pass": lambda x, generator: high_pass(x, 0.5),
    "random_filter": lambda x, generator: random_filter(x, 0.5, generator),
    "swap_frequencies": lambda x, generator: swap_frequencies(x, 1 - x, 0.5),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16, torch.bfloat16])
def test_images_in_and_out(transform, dtype):
    x = images(5, size=(10, 6)).to(dtype)
    kept, state = x.clone(), torch.get_rng_state()
    out = transform(x, seeded())
    assert out.dtype == dtype
    assert out.shape == x.shape
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert transform(x[:0], seeded()).shape == (0, 3, 10, 6)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_batch_mates_change_nothing(transform):
    x = images(5, size=(10, 6), dtype=torch.float32)
    whole, generator = transform(x, seeded()), seeded()
    parts = torch.cat([transform(part, generator) for part in x.split([1, 3, 1])])
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)
    others = torch.cat([x[:1], 1 - x[1:]])
    torch.testing.assert_close(transform(others, seeded())[:1], whole[:1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize(
    ("x", "told"),
    [
        (torch.full((1, 3, 4, 4), 1.5), r"\[0, 1\], got values from 1\.5 to 1\.5"),
        (torch.full((1, 3, 4, 4), math.nan), r"\[0, 1\], got values from nan to nan"),
        (torch.zeros(3, 4, 4), r"\(N, C, H, W\), got torch.float32 of shape \(3, 4, 4\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), r"\(N, C, H, W\), got torch.uint8"),
    ],
    ids=["outside", "nan", "one image", "integers"],
)
def test_what_is_no_image_is_told(transform, x, told):
    with pytest.raises(ValueError, match=told):
        transform(x, seeded())


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda x: patch_shuffle(x, 4, seeded()), "k must divide .* 8 × 6, got 4"),
        (lambda x: low_pass(x, 1.5), r"radius must lie in \[0, √2\].* got 1.5"),
        (lambda x: swap_frequencies(x, x, math.nan), r"radius must lie in \[0, √2\].* got nan"),
        (lambda x: swap_frequencies(x, x[:, :, :4], 0.5), r"one shape, got \(1, 3, 8, 6\) and \(1, 3, 4, 6\)"),
        (lambda x: swap_frequencies(x, x + 1, 0.5), "high_from must be images"),
        (lambda x: random_filter(x, 1.1, seeded()), r"probability must lie in \[0, 1\], got 1.1"),
        (lambda x: saturate(x, 0), "p, the saturation level, must be above 0 .* got 0"),
    ],
)
def test_what_is_out_of_range_is_told(call, told):
    with pytest.raises(ValueError, match=told):
        call(images(1, size=(8, 6)))
