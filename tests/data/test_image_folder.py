import random
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torchvision.transforms import functional as torchvision

from lightning_adv.core.errors import UsageError
from lightning_adv.data import ImageFolderDataModule, to_images
from tests.data.fake_folder import write_class_folders, write_dataset, write_image

SMALL = {"image_size": 32, "val_fraction": 0.2, "num_workers": 0, "batch_size": 8}


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """10 training and 4 test images of 3 classes, 32×32, lossless."""
    return write_dataset(tmp_path_factory.mktemp("data") / "pets")


def made(root, **options):
    datamodule = ImageFolderDataModule(str(root), **{**SMALL, **options})
    datamodule.setup()
    return datamodule


def read(loader, epoch=0):
    """Return (x, y) of one pass."""
    if hasattr(loader.sampler, "set_epoch"):
        loader.sampler.set_epoch(epoch)
    return tuple(torch.cat(tensors) for tensors in zip(*map(to_images, loader), strict=True))


def pixels(paths):
    """Return (N, 3, H, W) in [0, 1], read without the package."""
    arrays = [np.asarray(Image.open(path)) for path in paths]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 255


def as_rows(x, y):
    return sorted(map(tuple, torch.cat([x.flatten(1), y[:, None]], dim=1).tolist()))


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_splits_are_the_folders(pets, in_memory):
    datamodule = made(pets, augmentation="none", in_memory=in_memory, batch_size=1)
    x, y = read(datamodule.train_dataloader())
    val_x, val_y = read(datamodule.val_dataloader())
    test_x, test_y = read(datamodule.test_dataloader())
    assert y.bincount().tolist() == [8, 8, 8]
    assert val_y.bincount().tolist() == [2, 2, 2]
    truth = pixels(sorted(pets.glob("train/*/*.png")))
    labels = torch.arange(3).repeat_interleave(10)
    assert as_rows(torch.cat([x, val_x]), torch.cat([y, val_y])) == as_rows(truth, labels)
    assert torch.equal(test_x, pixels(sorted(pets.glob("test/*/*.png"))))
    assert test_y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert torch.equal(read(datamodule.predict_dataloader())[0], test_x)


class Labels(LightningModule):
    """Keeps the labels of each stage."""

    def __init__(self):
        super().__init__()
        self.seen = {}
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def keep(self, stage, batch):
        self.seen.setdefault(stage, []).append(batch[1].tolist())
        return batch[0].mean() * self.weight

    def training_step(self, batch, batch_idx):
        return self.keep("train", batch)

    def validation_step(self, batch, batch_idx):
        self.keep("val", batch)

    def test_step(self, batch, batch_idx):
        self.keep("test", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def labels_of(root, epochs=1, **limits):
    module, datamodule = Labels(), ImageFolderDataModule(
        str(root), augmentation="none", evaluation_batch_size=2, **SMALL
    )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=epochs,
        enable_checkpointing=False, num_sanity_val_steps=0, **limits,
    )  # fmt: skip
    trainer.fit(module, datamodule=datamodule)
    trainer.test(module, datamodule=datamodule, verbose=False)
    return module.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("limits", [{"limit_val_batches": 2, "limit_test_batches": 4}, {"fast_dev_run": 2}])
def test_a_part_of_an_evaluation_is_of_all_classes(pets, limits):
    seen = labels_of(pets, **limits)
    assert len({*chain(*seen["val"])}) > 1
    assert len({*chain(*seen["test"])}) > 1
    assert labels_of(pets, **limits) == seen


@pytest.mark.filterwarnings("ignore")
def test_whole_evaluations_are_in_the_order_of_the_folders_and_parts_the_same_in_each_epoch(pets):
    for limits in ({}, {"limit_val_batches": 3, "limit_test_batches": 1.0}):
        seen = labels_of(pets, **limits)
        assert seen["val"] == [[0, 0], [1, 1], [2, 2]]
        assert list(chain(*seen["test"])) == [0] * 4 + [1] * 4 + [2] * 4
    first, second = np.split(np.array(labels_of(pets, epochs=2, limit_val_batches=0.67)["val"]), 2)
    assert (first == second).all()


@pytest.mark.filterwarnings("ignore")
def test_overfitting_is_to_images_of_all_classes(pets):
    first, again = labels_of(pets, epochs=2, overfit_batches=1)["train"]
    assert first == again
    assert len({*first}) > 1


def test_processes_share_a_drawn_part(pets):
    def read_by(rank, replicas):
        datamodule = made(pets, augmentation="none", evaluation_batch_size=4 // replicas)
        datamodule.trainer = SimpleNamespace(world_size=replicas, global_rank=rank, limit_test_batches=2)
        batches = list(datamodule.test_dataloader())
        return [[tuple(image.flatten().tolist()) for image in batch.images] for batch in batches]

    alone, first, second = read_by(0, 1), read_by(0, 2), read_by(1, 2)
    assert [sorted(batch) for batch in alone] == [sorted(a + b) for a, b in zip(first, second, strict=True)]
    assert len({*chain(*alone)}) == 12


def test_names_are_known_before_setup(pets):
    datamodule = ImageFolderDataModule(str(pets), image_size=48)
    assert (datamodule.name, datamodule.num_classes, datamodule.image_shape) == ("pets", 3, (3, 48, 48))
    assert ImageFolderDataModule(str(pets), name="cats").name == "cats"
    with pytest.raises(ValueError, match=r"^data.root is .*is not a folder"):
        _ = ImageFolderDataModule(str(pets / "nowhere")).num_classes


def test_test_images_split_from_one_folder(tmp_path):
    write_class_folders(tmp_path)
    datamodule = made(tmp_path, augmentation="none", test_fraction=0.3, val_fraction=0.15, batch_size=1)
    assert datamodule.num_classes == 3
    parts = [datamodule.train_dataloader(), datamodule.val_dataloader(), datamodule.test_dataloader()]
    parts = [read(part) for part in parts]
    assert parts[2][1].bincount().tolist() == [3, 3, 3]
    truth = as_rows(pixels(sorted(tmp_path.glob("*/*.png"))), torch.arange(3).repeat_interleave(10))
    assert as_rows(*(torch.cat(tensors) for tensors in zip(*parts, strict=True))) == truth


def test_evaluation_resizes_the_shorter_side_and_crops_the_centre(tmp_path):
    write_dataset(tmp_path, size=(60, 40))
    x, _ = read(made(tmp_path, image_size=14).test_dataloader())  # 14 / 0.875 = 16
    for image, path in zip(x, sorted(tmp_path.glob("test/*/*.png")), strict=True):
        resized = Image.open(path).resize((24, 16), Image.Resampling.BILINEAR)
        expected = np.asarray(resized.crop((5, 1, 19, 15)))
        assert torch.equal(image, torch.from_numpy(expected.copy()).permute(2, 0, 1) / 255)


def test_crops_and_flips_are_the_same_from_disk_and_from_memory(pets):
    plain, labels = read(made(pets, augmentation="none").train_dataloader())
    for epoch in (0, 1):
        disk, disk_y = read(made(pets, augmentation="cifar").train_dataloader(), epoch)
        memory, memory_y = read(made(pets, augmentation="cifar", in_memory=True).train_dataloader(), epoch)
        assert torch.equal(disk, memory)
        assert torch.equal(disk_y, memory_y)
        if epoch == 0:
            assert torch.equal(disk_y, labels)
            assert not torch.equal(disk, plain)


def test_timms_options_reach_the_training_images_only(pets):
    mirror = {"scale": [1, 1], "ratio": [1, 1], "hflip": 1.0, "color_jitter": None}
    mirrored, _ = read(made(pets, train_transform=mirror).train_dataloader())
    plain, _ = read(made(pets, augmentation="none").train_dataloader())
    assert torch.equal(mirrored, torchvision.hflip(plain))
    # 0.875 of 32 is the default of the evaluation
    val = [read(made(pets, crop_pct=1.0, train_transform=t).val_dataloader())[0] for t in (None, mirror)]
    assert torch.equal(*val)
    assert torch.equal(val[0], read(made(pets, augmentation="none").val_dataloader())[0])


STRONG = {"auto_augment": "augmix-m9-w3", "color_jitter": [0.9, 0.9, 0.9, 0.4], "gaussian_blur_prob": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("options", [None, STRONG, {"auto_augment": "rand-m9-mstd0.5", "interpolation": "random"}])
def test_augmentation_depends_on_seed_epoch_and_image_only(pets, options):
    def epoch(number=1, **changed):
        return read(made(pets, **{"train_transform": options, **changed}).train_dataloader(), number)[0]

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    x = epoch()
    assert before[:2] == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(torch.get_rng_state(), before[2])
    assert 0 <= x.min() < x.max() <= 1
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    again = epoch(num_workers=2, batch_size=6)
    assert torch.equal(again, x)
    assert not torch.equal(epoch(seed=1), x)
    plain, shown_again = (read(made(pets, augmentation="none").train_dataloader(), number) for number in (1, 2))
    order, order_again = (part[0].flatten(1).tolist() for part in (plain, shown_again))
    assert not torch.equal(epoch(2)[order_again.index(order[0])], x[0])


def test_a_truncated_image_is_one_error_before_training(tmp_path):
    write_dataset(tmp_path, extension="jpg")
    path = tmp_path / "test" / "dog" / "002.jpg"
    path.write_bytes(path.read_bytes()[:-30])
    message = rf"^data.root is '{tmp_path}', where 1 of 42 images cannot be read: {path}"
    for datamodule in (ImageFolderDataModule(str(tmp_path)), ImageFolderDataModule(str(tmp_path))):
        with pytest.raises(ValueError, match=message):
            datamodule.prepare_data()
    with pytest.raises(ValueError, match=message):
        made(tmp_path)
    with pytest.raises(ValueError, match=rf"{path}, which cannot be decoded"):
        made(tmp_path, augmentation="cifar", in_memory=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_later_is_named(tmp_path, workers):
    write_dataset(tmp_path)
    datamodule = made(tmp_path, num_workers=workers)
    path = tmp_path / "test" / "cat" / "000.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=rf"{path}, which cannot be decoded"):
        read(datamodule.test_dataloader())


def test_the_check_runs_once_and_can_be_turned_off(tmp_path, monkeypatch):
    write_dataset(tmp_path)
    made(tmp_path).prepare_data()
    datamodule = made(tmp_path)
    path = tmp_path / "train" / "cat" / "000.png"
    path.write_bytes(b"")
    datamodule.prepare_data()  # fit and test share one module: its images are looked at once
    made(tmp_path, check_images="off")
    with pytest.raises(ValueError, match="1 of 42 images"):
        made(tmp_path)


def test_a_deep_folder_of_one_format_more(tmp_path):
    write_dataset(tmp_path)
    (tmp_path / "train" / "cat" / "more").mkdir()
    write_image(tmp_path / "train" / "cat" / "more" / "x.webp")
    assert len(made(tmp_path, augmentation="none", batch_size=1).train_dataloader()) == 24


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augmentation": "cifr"}, r"data.augmentation must be one of .*'cifr'. Did you mean 'cifar'\?"),
        ({"check_images": "decod"}, r"data.check_images must be one of .* Did you mean 'decode'\?"),
        ({"train_transform": {"h_flip": 1}}, r"data.train_transform's keys must be .* Did you mean 'hflip'\?"),
        ({"train_transform": {"hflip": 1}, "augmentation": "none"}, "used by augmentation 'imagenet' only, got"),
        ({"in_memory": True}, "data.in_memory needs augmentation 'cifar' or 'none'"),
        ({"image_size": 0}, "data.image_size must be at least 1, got 0"),
        ({"crop_pct": 1.5}, r"data.crop_pct must lie in \(0, 1\], got 1.5"),
        ({"test_fraction": 0.0}, r"data.test_fraction must lie in \(0, 1\), got 0.0"),
        ({"num_workers": -1}, "data.num_workers must be at least 0, got -1"),
    ],
)
def test_bad_arguments(pets, options, message):
    with pytest.raises(ValueError, match=message):
        ImageFolderDataModule(str(pets), **options)


def test_values_that_timm_refuses(pets):
    with pytest.raises(ValueError, match=r"^data.train_transform is .*timm's create_transform refuses"):
        made(pets, train_transform={"train_crop_mode": "nowhere"})


@pytest.mark.parametrize("below", ["test", "val", "."])
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_folder_of_test_images_only(tmp_path, below, in_memory):
    write_class_folders(tmp_path / below, images=2)
    datamodule = made(tmp_path, augmentation="none", test_only=True, in_memory=in_memory)
    x, y = read(datamodule.test_dataloader())
    assert torch.equal(x, pixels(sorted((tmp_path / below).glob("*/*.png"))))
    assert y.tolist() == [0, 0, 1, 1, 2, 2]
    assert datamodule.class_names == ("cat", "dog", "fox")
    assert datamodule.identity()["images"] == {"train": 0, "val": 0, "test": 6}
    with pytest.raises(UsageError, match=r"data.test_only is true: .* has test images only, and no train images"):
        datamodule.train_dataloader()


def test_test_images_only_have_no_fraction():
    with pytest.raises(UsageError, match=r"data.test_fraction splits test images off, but with data.test_only all are"):
        ImageFolderDataModule("x", test_only=True, test_fraction=0.5)
