"""Folders of image files: ImageNet, Imagenette, Tiny ImageNet, Caltech-256, or one's own."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric.utilities.data import suggested_max_num_workers
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lightning_adv.core.errors import UsageError
from lightning_adv.core.seeds import AUGMENTATION, derive_data_seed
from lightning_adv.data import folders, image_files
from lightning_adv.data.base import ImageDataModule, Splits, check_at_least, check_choice, check_fraction
from lightning_adv.data.fingerprint import fingerprint_of_files
from lightning_adv.data.folders import Samples
from lightning_adv.data.in_memory import CropFlip, UInt8Batch, UInt8Dataset
from lightning_adv.data.sampler import Key, split_keys
from lightning_adv.data.splits import stratified_split

Augmentation = Literal["imagenet", "cifar", "none"]

# Random erasing (re_*) is missing: it writes values outside [0, 1]. So are the choices that this module makes.
TRAIN_TRANSFORM_OPTIONS = (
    "auto_augment",
    "color_jitter",
    "color_jitter_prob",
    "gaussian_blur_prob",
    "grayscale_prob",
    "hflip",
    "interpolation",
    "ratio",
    "scale",
    "train_crop_mode",
    "vflip",
)


class ImageFolderDataModule(ImageDataModule):
    """Images in class folders, ``train/<class>/x.jpg`` with ``test/<class>/x.jpg`` or else ``val/<class>/x.jpg``.

    A folder ``val`` holds the test images where there is no ``test`` (ImageNet, Imagenette); validation images are
    always split from ``train``. Tiny ImageNet is read as it is distributed. Where the class folders lie directly in
    ``root`` (Caltech-256), ``test_fraction`` splits off the test images. The classes are the sorted folder names.

    JPEG, PNG, BMP, WebP, TIFF, PPM and GIF are read, as RGB with a byte for each value:
    :func:`~lightning_adv.data.image_files.to_rgb` says how 16 bits, floats and transparency become that, and
    :func:`~lightning_adv.data.folders.find_images` which files and folders count. Images stay bytes until they are on
    the device, so that x lies in [0, 1] whatever the augmentation.

    Args:
        root: The data set's folder.
        image_size: Height and width of the images x.
        augmentation: "imagenet": random resized crop, flip and colour jitter by timm's ``create_transform``;
            "cifar": random crop after zero padding by 4, and flip; "none".
        train_transform: Options of timm's ``create_transform`` for "imagenet", such as
            ``{"scale": [0.08, 1.0], "hflip": 0.5, "color_jitter": None, "auto_augment": "rand-m9-mstd0.5"}``.
        crop_pct: ``image_size`` over the size that the shorter side is resized to before the central crop, in (0, 1].
            The default is timm's 0.875 for "imagenet" and 1 otherwise.
        in_memory: Decode each image once and keep all as uint8. For small images, without "imagenet".
        check_images: What is looked at before training: "quick" finds truncated files (about 60 µs an image); "decode"
            decodes all; "off".
        test_fraction: Share of all images to hold out for the test, if ``root`` has no ``train``.
        name: The data set's name in results. The default is the folder's name.
        batch_size: Images in a training batch, for each process.
        evaluation_batch_size: Images in a validation, test or prediction batch, for each process.
        num_workers: Processes that load images. The default is what Lightning suggests for the machine, and 0 with
            ``in_memory``. The images do not depend on it.
        val_fraction: Share of the training images that is held out for validation, in (0, 1).
        train_fraction: Share of the remaining training images that is trained on, in (0, 1].
        seed: Seed of the splits, the order and the augmentation.
        on_device: With ``in_memory``, keep the images on the Trainer's device and make the batches there. They are the
            same. Needs ``num_workers`` 0.

    Raises:
        UsageError: An argument is outside its range, or not known.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        augmentation: Augmentation = "imagenet",
        train_transform: dict[str, Any] | None = None,
        crop_pct: float | None = None,
        in_memory: bool = False,
        check_images: image_files.Check = "quick",
        test_fraction: float | None = None,
        name: str | None = None,
        batch_size: int = 128,
        evaluation_batch_size: int = 256,
        num_workers: int | None = None,
        val_fraction: float = 0.05,
        train_fraction: float = 1.0,
        seed: int = 0,
        on_device: bool = False,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            evaluation_batch_size=evaluation_batch_size,
            num_workers=num_workers,
            val_fraction=val_fraction,
            train_fraction=train_fraction,
            seed=seed,
            on_device=on_device,
        )
        root = os.fspath(root)  # a checkpoint cannot hold a Path
        self.root = Path(root).expanduser()
        self.image_size = image_size
        self.image_shape = (3, image_size, image_size)
        self.augmentation = augmentation
        self.train_transform = {} if train_transform is None else train_transform
        self.crop_pct = crop_pct
        self.in_memory = in_memory
        self.check_images = check_images
        self.test_fraction = test_fraction
        self.name = self.root.resolve().name if name is None else name
        self._check_arguments()
        self._checked = False
        self._found: folders.ImageFolders | None = None  # between prepare_data() and load()
        self.save_hyperparameters(logger=False)  # Lightning refuses to log a name that the regime has too

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the class folders, in the order of the labels.

        Raises:
            UsageError: There are none.
        """
        return tuple(folders.find_class_names(self.root, own_split=self.test_fraction is None))

    @property
    def num_classes(self) -> int:
        """Number of class folders.

        Raises:
            UsageError: There are none.
        """
        return len(self.class_names)

    def prepare_data(self) -> None:
        """Look for images that cannot be read, on one process of each machine.

        Raises:
            UsageError: Some cannot. It names them.
        """
        if not self._checked and not self.in_memory:  # load() decodes every image that is kept in memory
            train, test = self._find()
            paths = [path for path, _ in train + ([] if test is None else test)]
            image_files.check_image_files(self.root, paths, self.check_images)
        self._checked = True

    def load(self) -> Splits:
        """List the images, split them, and read them if they are kept in memory.

        Raises:
            UsageError: The folder does not hold a data set, or (in memory) an image cannot be read.
        """
        images, test = self._find()
        self._found = None
        if test is None:
            rest, held_out = stratified_split(
                _labels(images), cast(float, self.test_fraction), self.seed, argument="data.test_fraction"
            )
            images, test = [images[i] for i in rest], [images[i] for i in held_out]
        chosen, held_out = self.split_training_data(_labels(images))
        train, val = [images[i] for i in chosen], [images[i] for i in held_out]
        still = self._transform(training=False)
        if self.augmentation == "imagenet":
            training = FolderDataset(self.root, train, self._transform(training=True), seed=self.seed)
        else:
            crop_flip = CropFlip(len(train), self.seed) if self.augmentation == "cifar" else None
            training = FolderDataset(self.root, train, still, crop_flip)
        parts = (training, *(FolderDataset(self.root, part, still) for part in (val, test)))
        return Splits(*(_in_memory(part) if self.in_memory else part for part in parts))

    def _find(self) -> folders.ImageFolders:
        if self._found is None:
            self._found = folders.find_images(self.root, own_split=self.test_fraction is None)
        return self._found

    def _transform(self, *, training: bool) -> Callable[[Image.Image], Tensor]:
        from timm.data import create_transform  # 0.5 s to import

        crop_pct = self.crop_pct
        if crop_pct is None and self.augmentation != "imagenet":
            crop_pct = 1.0
        # not normalised: the transform returns the bytes of the Pillow image. The mean is AutoAugment's filling.
        options = self.train_transform if training else {"crop_pct": crop_pct}
        try:
            transform: Callable[[Image.Image], Tensor] = create_transform(
                self.image_size, is_training=training, normalize=False, **options
            )
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"data.train_transform is {self.train_transform}, which timm's create_transform refuses: {error!r}."
            ) from error
        return transform

    def _workers(self) -> int:
        if self.num_workers is not None:
            return self.num_workers
        return (
            0 if self.in_memory else suggested_max_num_workers(1 if self.trainer is None else self.trainer.num_devices)
        )

    def _check_arguments(self) -> None:
        check_at_least("image_size", self.image_size, 1)
        check_choice("augmentation", self.augmentation, get_args(Augmentation))
        check_choice("check_images", self.check_images, get_args(image_files.Check))
        if self.crop_pct is not None:
            check_fraction("crop_pct", self.crop_pct, or_one=True)
        if self.test_fraction is not None:
            check_fraction("test_fraction", self.test_fraction)
        for option in self.train_transform:
            check_choice("train_transform's keys", option, TRAIN_TRANSFORM_OPTIONS)
        if self.train_transform and self.augmentation != "imagenet":
            raise UsageError(
                f"data.train_transform is used by augmentation 'imagenet' only, got augmentation {self.augmentation!r}."
            )
        if self.in_memory and self.augmentation == "imagenet":
            raise UsageError(
                "data.in_memory needs augmentation 'cifar' or 'none', got 'imagenet', which crops the full image."
            )
        if self.on_device and not self.in_memory:
            raise UsageError(
                "data.on_device needs data.in_memory true and augmentation 'cifar' or 'none', got in_memory false and "
                f"augmentation {self.augmentation!r}: image files are decoded and resized by Pillow, on the CPU."
            )


class FolderDataset(Dataset[UInt8Batch]):
    """Image files that are read when they are asked for.

    Args:
        root: The data set's folder.
        samples: (path, class) of the N images.
        transform: Turns a Pillow image into a tensor (C, H, W) uint8.
        crop_flip: The random crops and flips of these N images, or None.
        seed: Where ``transform`` is random, the seed of the augmentation. The transform of image i in epoch e then
            depends on (seed, e, i) only, and the global random state is left alone.
    """

    def __init__(
        self,
        root: Path,
        samples: Samples,
        transform: Callable[[Image.Image], Tensor],
        crop_flip: CropFlip | None = None,
        seed: int | None = None,
    ) -> None:
        # one array: a list of a million strings would be copied into each worker, as it counts its references
        self.paths = np.array([os.fsencode(path) for path, _ in samples])
        self.labels = torch.from_numpy(_labels(samples))
        self.transform = transform
        self.crop_flip = crop_flip
        self.seed = seed
        self.fingerprint = fingerprint_of_files(root, samples)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, keys: Sequence[Key] | Sequence[int]) -> UInt8Batch:
        """Return the batch for keys (epoch, index) or plain indices. The loader must not collate it again."""
        epoch, index = split_keys(keys)
        images = torch.stack([self._image(epoch, i) for i in index.tolist()])
        drawn = (None, None) if self.crop_flip is None else self.crop_flip(epoch, index)
        return UInt8Batch(images, self.labels[index], *drawn)

    def _image(self, epoch: int, index: int) -> Tensor:
        image = image_files.read_image(os.fsdecode(self.paths[index]))
        if self.seed is None:
            return self.transform(image)
        # timm's and torchvision's transforms draw from three global generators
        seed = derive_data_seed(self.seed, AUGMENTATION, epoch, index)
        with isolate_rng(include_cuda=False):
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPU too
            return self.transform(image)


def _in_memory(on_disk: FolderDataset) -> UInt8Dataset:
    """Read every image, once."""
    chunks = torch.split(torch.arange(len(on_disk)), 1024)
    images = torch.cat([on_disk.__getitems__(chunk.tolist()).images for chunk in chunks])
    return UInt8Dataset(images, on_disk.labels, on_disk.crop_flip, on_disk.fingerprint)


def _labels(samples: Samples) -> npt.NDArray[np.int64]:
    return np.array([label for _, label in samples], dtype=np.int64)
