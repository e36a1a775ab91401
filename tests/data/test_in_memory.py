import itertools

import pytest
import torch
from torchvision.transforms import functional as torchvision

from lightning_adv.data.in_memory import CropFlip, UInt8Batch, UInt8Dataset, crop_and_flip, to_images


def batch(count=162, size=(8, 8), channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", [(8, 8), (5, 9)])
def test_crop_and_flip_is_torchvisions_for_every_offset(size):
    draws = list(itertools.product(range(9), range(9), (False, True)))
    images = batch(len(draws), size)
    offsets = torch.tensor([draw[:2] for draw in draws])
    flips = torch.tensor([draw[2] for draw in draws])
    found = crop_and_flip(images, offsets, flips)
    assert found.dtype == torch.uint8
    for image, (top, left, flip), result in zip(images, draws, found, strict=True):
        expected = torchvision.crop(torchvision.pad(image, 4), top, left, *size)
        assert torch.equal(result, torchvision.hflip(expected) if flip else expected)


def test_to_images_scales_bytes_to_0_1():
    images, labels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16), torch.tensor([3])
    x, y = to_images(UInt8Batch(images, labels))
    assert torch.equal(x, torchvision.convert_image_dtype(images, torch.float32))
    assert (x.min(), x.max(), x.dtype) == (0, 1, torch.float32)
    assert torch.equal(y, labels)
    assert images.dtype == torch.uint8  # the data set's own tensor is not changed
    centred = UInt8Batch(images, labels, torch.tensor([[4, 4]]), torch.tensor([False]))
    assert torch.equal(to_images(centred)[0], x)


def test_draws_are_uniform():
    offsets, flips = CropFlip(9000, seed=0)(0, torch.arange(9000))
    for axis in (0, 1):
        counts = torch.bincount(offsets[:, axis], minlength=9)
        assert len(counts) == 9
        assert (counts - 1000).abs().max() < 5 * (9000 * 1 / 9 * 8 / 9) ** 0.5
    assert abs(flips.sum() - 4500) < 5 * (9000 / 4) ** 0.5


def test_draws_depend_on_seed_epoch_and_image_only():
    def draws(seed, epoch, index=(3, 1, 2)):
        offsets, flips = CropFlip(50, seed)(epoch, torch.tensor(index))
        return torch.cat([offsets, flips[:, None]], dim=1).tolist()

    whole = [draws(seed, epoch, range(50)) for seed in (0, 1) for epoch in (0, 1)]
    assert all(a != b for a, b in itertools.combinations(whole, 2))
    assert draws(1, 1) == [whole[3][3], whole[3][1], whole[3][2]]
    used = CropFlip(50, seed=0)
    for epoch in (0, 1, 0):  # going back to an epoch gives its draws again
        offsets, flips = used(epoch, torch.arange(50))
        assert torch.cat([offsets, flips[:, None]], dim=1).tolist() == whole[epoch]


def test_draws_follow_the_images_to_another_device():
    used = CropFlip(10, seed=0)
    index = torch.tensor([3, 1])
    expected = used(0, index)
    assert {drawn.device.type for drawn in used(0, index.to("meta"))} == {"meta"}
    assert all(torch.equal(again, first) for again, first in zip(used(0, index), expected, strict=True))


def test_a_batch_of_the_dataset():
    images, labels = batch(10), torch.arange(10)
    plain = UInt8Dataset(images, labels)
    assert len(plain) == 10
    found = plain.__getitems__([4, 0])
    assert torch.equal(found.images, images[[4, 0]])
    assert found.labels.tolist() == [4, 0]
    assert found.offsets is None
    augmented = UInt8Dataset(images, labels, CropFlip(10, seed=0)).__getitems__([(2, 4), (2, 0)])
    expected = CropFlip(10, seed=0)(2, torch.tensor([4, 0]))
    assert torch.equal(augmented.offsets, expected[0])
    assert torch.equal(augmented.flips, expected[1])
