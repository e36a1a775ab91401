import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lightning_adv.data import DigitsDataModule


def parts(datamodule):
    """Return (x, y) of the three splits, each read once through its loader."""
    datamodule.setup()
    loaders = [datamodule.train_dataloader(), datamodule.val_dataloader(), datamodule.test_dataloader()]
    return [tuple(torch.cat(tensors) for tensors in zip(*loader, strict=True)) for loader in loaders]


@pytest.fixture(scope="module")
def splits():
    return parts(DigitsDataModule(batch_size=1))  # batches of one: the last is not left out


def test_the_splits_are_the_data_set(splits):
    digits = load_digits()
    found = torch.cat([x for x, _ in splits]).mul(16).view(-1, 64)
    labels = torch.cat([y for _, y in splits])
    assert [len(y) for _, y in splits] == [1293, 144, 360]
    rows = sorted(map(tuple, torch.cat([found, labels[:, None]], dim=1).tolist()))
    assert rows == sorted(map(tuple, np.c_[digits.data, digits.target].tolist()))


def test_batches(splits):
    for x, y in splits:
        assert x.shape[1:] == (1, 8, 8) == DigitsDataModule.image_shape
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert (x.min(), x.max()) == (0, 1)
    assert (DigitsDataModule.name, DigitsDataModule.num_classes) == ("digits", 10)


def test_every_class_has_its_share(splits):
    total = np.bincount(load_digits().target)
    for (_, y), share in zip(splits, (0.72, 0.08, 0.2), strict=True):
        assert (np.abs(np.bincount(y) - share * total) < 1.5).all()


@pytest.mark.slow
def test_the_seed_decides_the_splits(splits):
    again = parts(DigitsDataModule(batch_size=1, evaluation_batch_size=7, num_workers=1))
    other = parts(DigitsDataModule(batch_size=1, seed=1))
    for (x, y), (x_again, y_again), (x_other, _) in zip(splits, again, other, strict=True):
        assert torch.equal(x, x_again)
        assert torch.equal(y, y_again)
        assert not torch.equal(x, x_other)


@pytest.mark.parametrize("test_fraction", [0, 1, 2.0])
def test_bad_test_fraction(test_fraction):
    with pytest.raises(ValueError, match=r"data.test_fraction must lie in \(0, 1\), got"):
        DigitsDataModule(test_fraction=test_fraction)
