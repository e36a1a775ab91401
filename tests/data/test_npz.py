import numpy as np
import pytest
import torch

from lightning_adv.data import NpzDataModule, to_images
from lightning_adv.data.in_memory import UInt8Batch

DRAWN = np.random.default_rng(0)
BYTES = DRAWN.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(40) % 4


def made(tmp_path, options=None, **arrays):
    np.savez(tmp_path / "mine.npz", **arrays)
    data = NpzDataModule(str(tmp_path / "mine.npz"), batch_size=4, **(options or {}))
    data.setup()
    return data


def read(loader):
    batches = [to_images(batch) if isinstance(batch, UInt8Batch) else batch for batch in loader]
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def rows(x, y):
    return sorted(map(tuple, torch.cat([x.flatten(1), y[:, None]], dim=1).tolist()))


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (BYTES, BYTES.transpose(0, 3, 1, 2) / 255),
        (BYTES.transpose(0, 3, 1, 2), BYTES.transpose(0, 3, 1, 2) / 255),
        (BYTES[..., 0], BYTES[:, None, :, :, 0] / 255),
        (BYTES / 255, BYTES.transpose(0, 3, 1, 2) / 255),
    ],
)
def test_bytes_and_floats_in_either_layout_are_the_same_images(tmp_path, images, expected):
    data = made(tmp_path, images=images, labels=LABELS[:, None])
    assert data.image_shape == expected.shape[1:]
    parts = [read(loader) for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())]
    assert [len(y) for _, y in parts] == [28, 4, 8]
    x, y = (torch.cat(of) for of in zip(*parts, strict=True))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    found = np.array(rows(x, y))
    truth = np.array(rows(torch.from_numpy(expected).float(), torch.from_numpy(LABELS)))
    np.testing.assert_allclose(found, truth, atol=1e-7)


@pytest.mark.parametrize("form", ["{}_{}", "{1}_{0}"])
def test_splits_of_the_files_own(tmp_path, form):
    """As MedMNIST (train_images) and Keras (images_train) name them; the labels are names here."""
    names = np.array(["fox", "cat"])[LABELS % 2]
    arrays = {}
    for part, index in {"train": slice(0, 20), "val": slice(20, 26), "test": slice(26, 40)}.items():
        arrays |= {form.format(part, "images"): BYTES[index], form.format(part, "labels"): names[index]}
    data = made(tmp_path, {"augmentation": "cifar"}, **arrays)
    assert data.class_names == ("cat", "fox")
    assert data.identity()["images"] == {"train": 20, "val": 6, "test": 14}
    assert data.identity()["test_fraction"] is None
    x, y = read(data.test_dataloader())
    assert torch.equal(x, torch.from_numpy(BYTES[26:]).permute(0, 3, 1, 2) / 255)
    assert y.tolist() == [int(name == "fox") for name in names[26:]]


@pytest.mark.parametrize(
    ("options", "arrays", "message"),
    [
        ({}, {"x": BYTES, "y": LABELS}, "has no array 'images' but x, y: name them by data.images and data.labels"),
        ({}, {"images": BYTES, "labels": LABELS[1:]}, r"'labels' has the shape \(39,\): labels are \(40,\)"),
        ({}, {"images": BYTES, "labels": np.eye(4)[LABELS]}, r"'labels' has the shape \(40, 4\)"),
        ({}, {"images": BYTES, "labels": LABELS + 1}, "has the numbers 1, 2, 3, 4, and classes are counted from 0"),
        ({}, {"images": BYTES, "labels": LABELS / 2}, "is of float64: labels are whole numbers from 0, or names"),
        (
            {"class_names": ["a", "b"]},
            {"images": BYTES, "labels": LABELS},
            "has '2' for image 2, which is none of",
        ),
        (
            {},
            {"images": BYTES.astype(float), "labels": LABELS},
            r"values from 0 to 255, and floats must lie in",
        ),
        ({}, {"images": BYTES.astype(np.uint16), "labels": LABELS}, r"is of uint16: images are bytes \(uint8\) or"),
        ({}, {"images": BYTES[:, :3], "labels": LABELS}, r"\(40, 3, 5, 3\), of which it is not known where the chan"),
        ({}, {"images": BYTES[:, :, 0, 0], "labels": LABELS}, r"shape \(40, 6\): images are \(N, H, W\)"),
        (
            {"class_names": ["a", "b", "a", "d"]},
            {"images": BYTES, "labels": LABELS},
            "'labels' has several classes of the name 'a'",
        ),
        ({}, {"images": BYTES, "labels": 0 * LABELS}, r"'labels' has 1 classes \(0\): a classifier needs two at least"),
        ({}, {"images": BYTES[:0], "labels": LABELS[:0]}, r"'images' has the shape \(0, 6, 5, 3\): there is no image"),
        (
            {},
            {"train_images": BYTES, "train_labels": LABELS, "test_images": BYTES, "test_labels": LABELS + 0.5},
            "'test_labels' is of float64",
        ),
        ({"augmentation": "cifar"}, {"images": BYTES / 255, "labels": LABELS}, "'cifar' is for bytes"),
        ({}, {"images": BYTES, "labels": np.array([object()] * 40)}, "cannot be read as data: Object arrays cannot"),
    ],
)
def test_what_is_not_that_is_one_sentence(tmp_path, options, arrays, message):
    with pytest.raises(ValueError, match=rf"^data\.path is '.*mine\.npz', wh.*{message}"):
        made(tmp_path, options, **arrays)


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\3\4 cut off"])
def test_files_that_are_none(tmp_path, content):
    path = tmp_path / "mine.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^data\.path is '.*mine\.npz', which cannot be read as"):
        NpzDataModule(str(path)).setup()
