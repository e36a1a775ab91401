import sys
from io import BytesIO

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from lightning_adv.data import HuggingFaceDataModule, ImageFolderDataModule, to_images
from tests.data.fake_folder import write_dataset

SMALL = {"image_size": 32, "augmentation": "none", "num_workers": 0, "batch_size": 4, "val_fraction": 0.2}


@pytest.fixture(scope="module", autouse=True)
def _no_network_and_no_cache_of_the_users(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        datasets.disable_progress_bars()
        yield


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "pets")


def of_folder(root, **columns):
    """Return the images of the folder with labels, as ``datasets`` has them: files as bytes."""
    kinds = Features({"image": ImageFeature(), "label": ClassLabel(names=["cat", "dog", "fox"])})
    made = {}
    for split in ("train", "test"):
        files = sorted((root / split).glob("*/*.png"))
        rows = {
            "image": [{"bytes": f.read_bytes(), "path": None} for f in files],
            "label": [f.parent.name for f in files],
        }
        made[split] = Dataset.from_dict(rows, features=kinds)
    return DatasetDict(made)


def made(path, **options):
    data = HuggingFaceDataModule(str(path), **{**SMALL, **options})
    data.setup()
    return data


def read(loader):
    return tuple(torch.cat(tensors) for tensors in zip(*map(to_images, loader), strict=True))


def save_to_disk(root, path):
    of_folder(root).save_to_disk(path)
    return path


def save_parquet(root, path):
    for split, rows in of_folder(root).items():
        (path / "data").mkdir(parents=True, exist_ok=True)
        rows.to_parquet(path / "data" / f"{split}-00000.parquet")
    return path


def leave(root, path):
    return root


@pytest.mark.parametrize("write", [save_to_disk, save_parquet, leave])
@pytest.mark.parametrize("in_memory", [False, True])
def test_the_images_and_labels_are_those_of_the_folder(pets, tmp_path, write, in_memory):
    data = made(write(pets, tmp_path / "saved"), in_memory=in_memory)
    assert data.class_names == ("cat", "dog", "fox")
    folder = ImageFolderDataModule(str(pets), **SMALL)
    folder.setup()
    for name in ("train", "val", "test"):
        found, truth = (read(getattr(each, f"{name}_dataloader")()) for each in (data, folder))
        assert torch.equal(found[0], truth[0])
        assert torch.equal(found[1], truth[1])
    told = data.identity()
    assert told["images"] == {"train": 24, "val": 6, "test": 12}
    assert len({*told["fingerprints"].values()}) == 3


def test_splits_and_columns_that_are_given(pets, tmp_path):
    """Labels are names here, in a column of another name; one split validates, and the test is split off."""
    rows = of_folder(pets)
    names = [["cat", "dog", "fox"][label] for label in rows["train"]["label"]]
    train = rows["train"].remove_columns("label").add_column("animal", names)
    with pytest.raises(ValueError, match=r"has 0 columns that may be the label among image, animal: give data\.label"):
        made(saved(tmp_path / "a", {"train": train}))
    held = train.select(range(0, 30, 6))
    data = made(saved(tmp_path / "b", {"train": train, "held": held}), label="animal", val_split="held")
    assert data.class_names == ("cat", "dog", "fox")
    assert data.identity()["images"] == {"train": 24, "val": 5, "test": 6}
    assert data.identity()["test_fraction"] == 0.2


def saved(path, splits):
    DatasetDict(splits).save_to_disk(path)
    return path


def numbered(labels, image=b"", kind=None, label=None):
    features = Features({"image": kind or ImageFeature(), "label": label or Value("int64")})
    stored = [image if kind or image is None else {"bytes": image, "path": None}] * len(labels)
    return Dataset.from_dict({"image": stored, "label": labels}, features=features)


@pytest.mark.parametrize(
    ("splits", "options", "message"),
    [
        ({"train": numbered([0, 1])}, {"test_split": "test"}, "has no split 'test' but train: give data.test_split"),
        ({"train": numbered([1, 2])}, {}, r"train\['label'\] has the numbers 1, 2, and classes are counted from 0"),
        (
            {"train": numbered([0, 1]), "test": numbered([-1])},
            {},
            "has '-1' for image 0, which is none of the 2",
        ),
        (
            {"train": numbered([0, 1], "x", Value("string"))},
            {},
            "has 0 columns that may be the image among",
        ),
        ({"train": numbered([0, None, 1])}, {}, "no label for 1 of 3 images, of which image 1 is the first"),
        ({"train": numbered([[0], [1, 0]], label=[Value("int64")])}, {}, "an image has one label, a whole number or a"),
        (
            {
                "train": numbered([0, 1], label=ClassLabel(names=["cat", "dog"])),
                "test": numbered([0, 1], label=ClassLabel(names=["dog", "cat"])),
            },
            {},
            r"test\['label'\] names class 0 'dog', which is 'cat' where it is trained",
        ),
        (
            {"train": numbered([0, 1]), "test": numbered([0, 1]).remove_columns("label")},
            {},
            "has no column 'label' in its split 'test'",
        ),
        ({"train": numbered([])}, {}, "which cannot be read: a split has no rows"),
        ({"train": numbered([0, 1])}, {"image": "label"}, "has no images in its column 'label' but Value"),
        ({"train": numbered([0, 1] * 9, b"no image")}, {}, "18 of 18 images cannot be read: image 0 of train"),
        ({"train": numbered([0, 1] * 9, None)}, {}, r"image 0 of train \(the row has no image\)"),
    ],
)
def test_what_is_not_that_is_one_sentence(tmp_path, splits, options, message):
    with pytest.raises(ValueError, match=rf"^data\.path is '.*saved'.*{message}"):
        made(saved(tmp_path / "saved", splits), **options)


def test_an_image_that_breaks_later_is_named(pets, tmp_path, monkeypatch):
    data = made(save_to_disk(pets, tmp_path / "saved"), check_images="off")
    monkeypatch.setattr(data._splits.test.rows, "open", lambda index: BytesIO(b"no image"))
    with pytest.raises(ValueError, match="saved', and holds image 0 of test, which cannot be dec"):
        read(data.test_dataloader())


def test_no_such_folder_no_hub_and_no_package(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="which is no folder and cannot be had from the hub"):
        made("nobody/has-this")
    with pytest.raises(ValueError, match="which cannot be read"):
        made(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"needs the package datasets: pip install 'lightning-adv\[hf\]'"):
        made(tmp_path)


def test_exif_is_read_as_it_is_stored_as_in_folders(tmp_path):
    """Where datasets itself would turn the image."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    rows = numbered([0, 1] * 9, (tmp_path / "x.png").read_bytes())
    with pytest.warns(UserWarning, match=r"18 of 18 images are stored turned .*image 0 of train is the first"):
        data = made(saved(tmp_path / "saved", {"train": rows}))
    x, _ = read(data.test_dataloader())
    assert torch.equal(x[0], torch.from_numpy(pixels).permute(2, 0, 1) / 255)
