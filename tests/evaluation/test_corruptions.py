"""Against the library that makes them at ImageNet size, and what seeds and indices promise."""

import random
import sys

import imagecorruptions
import numpy as np
import pytest
import torch

from lightning_adv.evaluation.corruptions.cifar import CONSTANTS, cifar_corrupt
from lightning_adv.evaluation.corruptions.corrupt import CORRUPTIONS, GROUPS, corrupt, image_seed

RANDOM = [  # the others do the same to an image at every seed
    name
    for name in CORRUPTIONS
    if name not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
]


def images(count=2, height=32, width=32, channels=3, seed=0):
    small = torch.rand(count, channels, 5, 5, generator=torch.Generator().manual_seed(seed))
    return (255 * torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)).round() / 255


def test_the_fifteen_are_those_of_the_library_in_four_groups():
    assert list(CORRUPTIONS) == imagecorruptions.get_corruption_names("common")
    assert set(CORRUPTIONS) == set(CONSTANTS)
    for group, names in GROUPS.items():
        assert list(names) == imagecorruptions.get_corruption_names(group)


@pytest.mark.slow
@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(("height", "width", "severities"), [(48, 80, (1, 2, 3, 4, 5)), (224, 224, (3,))])
def test_imagenet_size_is_the_library_to_the_last_bit(name, height, width, severities):
    x = images(2, height, width)
    for severity in severities:
        found = corrupt(x, name, severity, seed=3, index=10, family="imagenet")
        assert found.shape == x.shape
        assert found.dtype == x.dtype
        for number, image in enumerate(x):
            seed = int(image_seed(name, severity, 3, 10 + number).generate_state(1)[0])
            own = {"seed": seed} if name in ("impulse_noise", "glass_blur") else {}
            state = np.random.get_state()
            np.random.seed(seed)
            pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
            theirs = imagecorruptions.corrupt(pixels, severity, name, **own)
            np.random.set_state(state)
            assert np.array_equal((255 * found[number]).round().byte().permute(1, 2, 0).numpy(), theirs)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_small_images_get_the_constants_of_cifar_10_c(name):
    x = images()
    found = corrupt(x, name, 4, seed=1, index=[5, 2])
    assert torch.equal(found, corrupt(x, name, 4, seed=1, index=[5, 2], family="cifar"))
    for index, image, one in zip([5, 2], x, found, strict=True):
        rng = np.random.default_rng(image_seed(name, 4, 1, index))
        theirs = cifar_corrupt((255 * image).round().byte().permute(1, 2, 0).numpy(), name, 4, rng)
        assert np.array_equal((255 * one).round().byte().permute(1, 2, 0).numpy(), theirs)


def test_auto_goes_by_the_longer_side():
    for height, width, family in [(64, 64, "cifar"), (64, 65, "imagenet"), (65, 40, "imagenet"), (8, 8, "cifar")]:
        x = images(1, height, width)
        found = corrupt(x, "contrast", 5, seed=0)
        kept = {"cifar": 0.15, "imagenet": 0.05}[family]
        mean = x.mean((2, 3), keepdim=True)
        assert (found - (kept * x + (1 - kept) * mean)).abs().max() < 2 / 255


@pytest.mark.slow
@pytest.mark.parametrize("family", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_batches_and_shards_change_nothing(name, family):
    x = images(5)
    whole = corrupt(x, name, 5, seed=4, index=7, family=family)
    one_by_one = [corrupt(x[k : k + 1], name, 5, seed=4, index=7 + k, family=family) for k in range(5)]
    assert torch.equal(torch.cat(one_by_one), whole)
    order = [3, 0, 4]
    shard = corrupt(x[order], name, 5, seed=4, index=torch.tensor([10, 7, 11]), family=family)
    assert torch.equal(shard, whole[order])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_seeds_and_indices_draw_anew(name, family):
    x = images(1).expand(2, -1, -1, -1)
    first, second = corrupt(x, name, 5, seed=0, family=family)
    other = corrupt(x[:1], name, 5, seed=1, family=family)[0]
    assert torch.equal(first, second) == (name not in RANDOM)
    assert torch.equal(first, other) == (name not in RANDOM)


@pytest.mark.parametrize("family", ["cifar", "imagenet"])
def test_global_randomness_is_left_alone_and_not_drawn_from(family):
    x, results = images(1), []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        results.append(torch.cat([corrupt(x, name, 3, seed=0, family=family) for name in CORRUPTIONS]))
        assert random.getstate() == before[0]
        assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
        assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.equal(*results)


def test_global_randomness_is_set_back_after_an_error(monkeypatch):
    def fail(*args, **kwargs):
        np.random.rand(3)
        raise RuntimeError("no")

    monkeypatch.setattr(imagecorruptions, "corrupt", fail)
    np.random.seed(0)
    with pytest.raises(RuntimeError, match="no"):
        corrupt(images(1), "fog", 1, seed=0, family="imagenet")
    assert np.random.rand() == np.random.RandomState(0).rand()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_and_values(dtype):
    x = images(1).to(dtype)
    before = x.clone()
    found = corrupt(x.requires_grad_(), "jpeg_compression", 5, seed=0)
    assert found.dtype == dtype
    assert not found.requires_grad
    assert torch.equal(x, before)
    values = 255 * found.double()
    assert (values - values.round()).abs().max() <= {torch.float16: 0.07, torch.bfloat16: 0.6}.get(dtype, 1e-9)
    assert 0 <= found.min() <= found.max() <= 1


def test_values_between_bits_are_rounded_first():
    x = torch.full((1, 3, 32, 32), 100 / 255)
    whole = corrupt(x, "gaussian_noise", 1, seed=0)
    assert torch.equal(corrupt(x + 0.4 / 255, "gaussian_noise", 1, seed=0), whole)
    assert not torch.equal(corrupt(x + 0.6 / 255, "gaussian_noise", 1, seed=0), whole)


@pytest.mark.parametrize("size", [8, 32, 70])
def test_grey_images_have_the_noise_of_one_channel(size):
    x = torch.full((40, 1, size, size), 0.5)
    noise = corrupt(x, "gaussian_noise", 1, seed=0) - x
    assert noise.shape == x.shape
    assert noise.std() == pytest.approx(0.08 if size > 64 else 0.04, rel=0.05)
    in_colour = corrupt(images(1, size, size, channels=1).expand(1, 3, -1, -1), "fog", 2, seed=0)
    assert torch.equal(corrupt(images(1, size, size, channels=1), "fog", 2, seed=0), in_colour[:, 1:2])


def test_no_images_give_no_images():
    assert corrupt(torch.zeros(0, 3, 32, 32), "fog", 1, seed=0).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": "gausian_noise"}, "'gausian_noise' is none of .* Did you mean 'gaussian_noise'?"),
        ({"severity": 0}, "severity must be one of 1, 2, 3, 4, 5, got 0"),
        ({"severity": True}, "got True"),
        ({"seed": -1}, "seed must be a whole number from 0, got -1"),
        ({"index": -1}, "index must be from 0, got -1"),
        ({"index": [0]}, "one for each of the 2, got 1"),
        ({"family": "cifar10"}, "family must be 'auto', 'cifar' or 'imagenet', got 'cifar10'"),
        ({"x": images(channels=2)}, "one or three channels .* got 2"),
        ({"x": images(height=7)}, "at least 8 × 8 pixels for the cifar corruptions, got 7 × 32"),
        ({"x": images(height=31), "family": "imagenet"}, "at least 32 × 32 pixels for the imagenet .* got 31 × 32"),
        ({"x": 2 * images()}, "got values from"),
        ({"x": images()[0]}, r"\(N, C, H, W\)"),
    ],
)
def test_bad_input_is_told(arguments, told):
    given = {"x": images(), "name": "fog", "severity": 1, "seed": 0} | arguments
    with pytest.raises(ValueError, match=told):
        corrupt(given.pop("x"), given.pop("name"), given.pop("severity"), **given)


@pytest.mark.parametrize(
    ("library", "family", "name"), [("imagecorruptions", "imagenet", "fog"), ("cv2", "cifar", "defocus_blur")]
)
def test_a_missing_library_is_told(monkeypatch, library, family, name):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"need {library}: pip install 'lightning-adv\[eval\]'"):
        corrupt(images(), name, 1, seed=0, family=family)
