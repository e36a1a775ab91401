import json
import shutil

import pytest
import torch

from lightning_adv.data import CIFAR10DataModule, DigitsDataModule, ImageFolderDataModule
from tests.data.fake_cifar10 import write_fake_cifar10
from tests.data.fake_folder import write_dataset, write_image

FOLDER = {"image_size": 16, "val_fraction": 0.2, "num_workers": 0}


def identity(datamodule):
    datamodule.setup()
    return datamodule.identity()


def test_digits():
    told = identity(DigitsDataModule(val_fraction=0.1, seed=3))
    fingerprints = told.pop("fingerprints")
    assert told == {
        "class_path": "lightning_adv.data.digits.DigitsDataModule",
        "name": "digits",
        "seed": 3,
        "val_fraction": 0.1,
        "train_fraction": 1.0,
        "test_fraction": 0.2,
        "class_names": list("0123456789"),
        "image_shape": [1, 8, 8],
        "images": {"train": 1293, "val": 144, "test": 360},
    }
    assert len({*fingerprints.values()}) == 3


def test_it_can_be_kept_in_a_checkpoint_and_written_down(tmp_path):
    told = identity(ImageFolderDataModule(str(write_dataset(tmp_path / "pets")), **FOLDER))
    torch.save(told, tmp_path / "told")
    assert torch.load(tmp_path / "told", weights_only=True) == told == json.loads(json.dumps(told))


def test_another_seed_or_fraction_is_another_split():
    plain = identity(DigitsDataModule())
    assert identity(DigitsDataModule(batch_size=7, evaluation_batch_size=3)) == plain
    changed = {"seed": {"seed": 1}, "val_fraction": {"val_fraction": 0.2}, "train_fraction": {"train_fraction": 0.5}}
    for key, options in changed.items():
        told = identity(DigitsDataModule(**options))
        assert told[key] != plain[key]
        assert told["fingerprints"]["train"] != plain["fingerprints"]["train"]
    assert told["fingerprints"]["test"] == plain["fingerprints"]["test"]  # of half the training images


def test_cifar10(tmp_path, monkeypatch):
    write_fake_cifar10(tmp_path, monkeypatch)
    told, other = (identity(CIFAR10DataModule(str(tmp_path), seed=seed)) for seed in (0, 1))
    assert (told["images"], told["test_fraction"]) == ({"train": 490, "val": 10, "test": 100}, None)
    same = {part: told["fingerprints"][part] == other["fingerprints"][part] for part in ("train", "val", "test")}
    assert same == {"train": False, "val": False, "test": True}


def test_a_folder_is_known_by_its_files_wherever_it_lies(tmp_path, monkeypatch):
    write_dataset(tmp_path / "pets")
    told = identity(ImageFolderDataModule(str(tmp_path / "pets"), **FOLDER))
    assert (told["images"], told["class_names"]) == ({"train": 24, "val": 6, "test": 12}, ["cat", "dog", "fox"])
    shutil.copytree(tmp_path / "pets", tmp_path / "elsewhere" / "pets")
    moved = ImageFolderDataModule(
        str(tmp_path / "elsewhere" / "pets") + "/", augmentation="none", in_memory=True, **FOLDER
    )
    assert identity(moved) == told
    monkeypatch.chdir(tmp_path / "elsewhere" / "pets")
    assert identity(ImageFolderDataModule(".", **FOLDER)) == told
    write_image(tmp_path / "elsewhere" / "pets" / "test" / "cat" / "another.png")
    added = identity(ImageFolderDataModule(str(tmp_path / "elsewhere" / "pets"), **FOLDER))
    assert added["fingerprints"] == {**told["fingerprints"], "test": added["fingerprints"]["test"]}
    assert added["fingerprints"]["test"] != told["fingerprints"]["test"]


def test_what_is_told_is_a_copy():
    digits = DigitsDataModule()
    with pytest.raises(RuntimeError, match=r"Call setup\(\) before identity\(\)"):
        digits.identity()
    identity(digits)["images"].clear()
    assert digits.identity()["images"]
