import numpy as np
import pytest
import torch

from lightning_adv.data import CIFAR10DataModule, to_images
from tests.data.fake_cifar10 import write_fake_cifar10


@pytest.fixture
def real(tmp_path, monkeypatch):
    return write_fake_cifar10(tmp_path, monkeypatch)


def epoch(datamodule, number=0):
    """Return (x, y) of one training epoch, in its order."""
    loader = datamodule.train_dataloader()
    loader.sampler.set_epoch(number)
    return tuple(torch.cat(tensors) for tensors in zip(*map(to_images, loader), strict=True))


def made(root, **options):
    datamodule = CIFAR10DataModule(str(root), **options)
    datamodule.setup()
    return datamodule


def test_the_splits_are_the_files_images(tmp_path, real):
    images, labels = real
    datamodule = made(tmp_path, augment=False, batch_size=1)
    x, y = epoch(datamodule)
    val_x, val_y = (torch.cat(part) for part in zip(*map(to_images, datamodule.val_dataloader()), strict=True))
    assert (len(x), len(val_x)) == (490, 10)
    assert np.bincount(y).tolist() == [49] * 10
    assert np.bincount(val_y).tolist() == [1] * 10
    found = torch.cat([torch.cat([x, val_x]).mul(255).round().flatten(1), torch.cat([y, val_y])[:, None]], dim=1)
    expected = np.c_[images.reshape(500, -1), labels]
    assert sorted(map(tuple, found.long().tolist())) == sorted(map(tuple, expected.tolist()))


def test_evaluation_sees_each_test_image_once_and_in_order(tmp_path, real):
    datamodule = made(tmp_path, evaluation_batch_size=30)
    for loader in (datamodule.test_dataloader(), datamodule.predict_dataloader()):
        batches = [to_images(batch) for batch in loader]
        assert [len(y) for _, y in batches] == [30, 30, 30, 10]
        assert torch.cat([y for _, y in batches]).tolist() == [i % 10 for i in range(100)]
        assert all(x.shape[1:] == (3, 32, 32) == datamodule.image_shape for x, _ in batches)


def test_augmentation_shifts_and_mirrors(tmp_path, real):
    plain, labels = epoch(made(tmp_path, augment=False))
    augmented, same_labels = epoch(made(tmp_path))
    assert torch.equal(labels, same_labels)
    candidates = torch.nn.functional.pad(plain, (4,) * 4)
    unmoved = 0
    for image, padded, original in zip(augmented[:50], candidates, plain, strict=False):
        crops = padded.unfold(1, 32, 1).unfold(2, 32, 1)  # (3, 9, 9, 32, 32): every crop
        mirrored = image.flip(2)
        hits = [(crops == shown[:, None, None]).all(dim=(0, 3, 4)).sum() for shown in (image, mirrored)]
        assert sum(hits) == 1
        unmoved += torch.equal(image, original)
    assert unmoved < 5


@pytest.mark.slow
def test_an_epoch_depends_on_seed_and_epoch_only(tmp_path, real):
    x, y = epoch(made(tmp_path, batch_size=10), 1)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    for options in ({"num_workers": 2}, {"batch_size": 7}, {}):
        x_again, y_again = epoch(made(tmp_path, **{"batch_size": 10, **options}), 1)
        assert torch.equal(x[: len(x_again)], x_again)
        assert torch.equal(y[: len(y_again)], y_again)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(epoch(made(tmp_path, batch_size=10), 2)[0], x)
    assert not torch.equal(epoch(made(tmp_path, batch_size=10, seed=1), 1)[0], x)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=rf"^data.root is '{tmp_path}', .*cifar-10-batches-py.*data.download"):
        made(tmp_path)


def test_a_damaged_file_is_an_error(tmp_path, real):
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"^data.root is .*corrupted"):
        made(tmp_path)


def test_download_is_asked_for_only_where_wanted(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    asked = []

    def refuse(self):
        asked.append(self.root)
        raise OSError("no network")

    monkeypatch.setattr(CIFAR10, "download", refuse)
    CIFAR10DataModule(str(tmp_path)).prepare_data()
    assert asked == []
    with pytest.raises(ValueError, match=r"data.root is .* cannot be downloaded into it \(no network\)"):
        CIFAR10DataModule(str(tmp_path), download=True).prepare_data()
    assert asked == [str(tmp_path)]


def test_class_names_are_in_the_order_of_the_labels(tmp_path, monkeypatch):
    """The data set's own documentation lists them in this order, which torchvision reads from the archive."""
    expected = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert list(CIFAR10DataModule.class_names) == expected
