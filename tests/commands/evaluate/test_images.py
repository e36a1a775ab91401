"""The images of an evaluation."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

from lightning_adv.commands.shared.images import TestImages, in_precision_of


class Sorted(LightningDataModule):
    """A hundred images of ten classes, class after class, as folders give them; an image holds its number."""

    def test_dataloader(self):
        numbers = torch.arange(100)
        return DataLoader(TensorDataset((numbers / 100).view(-1, 1, 1, 1).expand(-1, 1, 8, 8), numbers // 10))


def test_every_image_comes_once_with_its_number():
    images = TestImages(Sorted(), chunk=30, images=None)
    chunks = list(images.read(range(len(images))))
    assert [(chunk.number, chunk.first, len(chunk.y)) for chunk in chunks] == [
        (0, 0, 30),
        (1, 30, 30),
        (2, 60, 30),
        (3, 90, 10),
    ]
    assert sorted(number for chunk in chunks for number in chunk.indices) == list(range(100))
    for chunk in chunks:
        assert (100 * chunk.x[:, 0, 0, 0]).round().int().tolist() == chunk.indices
        assert (chunk.y == torch.tensor(chunk.indices) // 10).all()


def test_a_part_of_a_sorted_test_set_has_all_classes():
    few = TestImages(Sorted(), chunk=30, images=40)
    x, y = few.first(35)
    assert len(set(y.tolist())) == 10
    index = [number for chunk in few.read([0, 1]) for number in chunk.indices]
    assert (100 * x[:, 0, 0, 0]).round().int().tolist() == index[:35]
    # the same ones whatever the chunks and the number of images
    more = TestImages(Sorted(), chunk=7, images=60)
    assert [number for chunk in more.read(range(len(more))) for number in chunk.indices][:40] == index


def test_chunks_are_the_same_whoever_reads_them():
    images = TestImages(Sorted(), chunk=30, images=None)
    state = torch.get_rng_state()
    (alone,) = images.read([2])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(alone.x, list(images.read([0, 2]))[1].x)


def test_images_are_read_once_for_several_networks(monkeypatch):
    images, read = TestImages(Sorted(), chunk=30, images=None), []

    def counted(numbers):
        for chunk in TestImages.read(images, numbers):
            read.append(chunk.number)
            yield chunk

    monkeypatch.setattr(images, "read", counted)
    with pytest.raises(ValueError, match="takes images of 3 channels, got the shape"):
        images.check(3, 10)
    for _ in range(2):
        assert images.check(1, 10) == images.shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"y must lie in \[0, 5\)"):
        images.check(1, 5)
    with pytest.raises(ValueError, match="takes images of 3 channels, got the shape"):
        images.check(3, 10)
    assert read == [0, 1, 2, 3]


@pytest.mark.parametrize("images", [0, 101])
def test_more_images_than_there_are(images):
    with pytest.raises(ValueError, match=rf"images is {images}, but the test set of Sorted has 100 images"):
        TestImages(Sorted(), chunk=30, images=images)


@pytest.mark.parametrize("given", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("network", [torch.float32, torch.float64])
def test_images_of_any_precision_come_in_that_of_the_network(given, network):
    layer = torch.nn.Linear(2, 2, dtype=network)
    assert in_precision_of(layer, torch.rand(1, 2, dtype=given)).dtype == network
    layer(in_precision_of(layer, torch.rand(1, 2, dtype=given)))
