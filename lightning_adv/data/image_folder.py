"""Folders of image files: ImageNet, Imagenette, Tiny ImageNet, Caltech-256, or one's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lightning_adv.core.errors import UsageError
from lightning_adv.data import folders, image_files
from lightning_adv.data.base import Splits, check_fraction
from lightning_adv.data.fingerprint import fingerprint_of_files
from lightning_adv.data.folders import Samples
from lightning_adv.data.in_memory import CropFlip
from lightning_adv.data.pictures import Augmentation, PictureDataModule, PictureDataset
from lightning_adv.data.splits import stratified_split


class ImageFolderDataModule(PictureDataModule):
    """Images in class folders, ``train/<class>/x.jpg`` with ``test/<class>/x.jpg`` or else ``val/<class>/x.jpg``.

    A folder ``val`` holds the test images where there is no ``test`` (ImageNet, Imagenette); validation images are
    always split from ``train``. Tiny ImageNet is read as it is distributed. Where the class folders lie directly in
    ``root`` (Caltech-256), ``test_fraction`` splits off the test images. With ``test_only`` all images are test images
    (ImageNet-A, what ``lightning-adv stylize`` writes). The classes are the sorted folder names.

    JPEG, PNG, BMP, WebP, TIFF, PPM and GIF are read, as RGB with a byte for each value:
    :func:`~lightning_adv.core.image_files.to_rgb` says how 16 bits, floats and transparency become that, and
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
        test_only: All images are test images: those in ``test``, or else in ``val``, or else in ``root``. There is
            nothing to train on, so that only ``evaluate`` and what else takes test images work.
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
        test_only: bool = False,
    ) -> None:
        super().__init__(
            image_size=image_size,
            augmentation=augmentation,
            train_transform=train_transform,
            crop_pct=crop_pct,
            in_memory=in_memory,
            check_images=check_images,
            batch_size=batch_size,
            evaluation_batch_size=evaluation_batch_size,
            num_workers=num_workers,
            val_fraction=val_fraction,
            train_fraction=train_fraction,
            seed=seed,
            on_device=on_device,
        )
        if test_fraction is not None:
            check_fraction("test_fraction", test_fraction)
            if test_only:
                raise UsageError("data.test_fraction splits test images off, but with data.test_only all are.")
        root = os.fspath(root)  # a checkpoint cannot hold a Path
        self.root = Path(root).expanduser()
        self.test_fraction = test_fraction
        self.test_only = test_only
        self.name = self.root.resolve().name if name is None else name
        self._checked = False
        self._found: folders.ImageFolders | None = None  # between prepare_data() and load()
        self.save_hyperparameters(logger=False)  # Lightning refuses to log a name that the regime has too

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the class folders, in the order of the labels.

        Raises:
            UsageError: There are none.
        """
        if self.test_only:
            return tuple(folders.find_class_names(folders.test_folder(self.root), own_split=False))
        return tuple(folders.find_class_names(self.root, own_split=self.test_fraction is None))

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
        if self.test_only:
            return self.splits_of(partial(FolderDataset, self.root), [], [], test)
        chosen, held_out = self.split_training_data(_labels(images))
        train, val = [images[i] for i in chosen], [images[i] for i in held_out]
        return self.splits_of(partial(FolderDataset, self.root), train, val, test)

    def _split(self, name: str) -> Dataset[Any]:
        if self.test_only and name != "test":
            raise UsageError(f"data.test_only is true: {str(self.root)!r} has test images only, and no {name} images.")
        return super()._split(name)

    def _find(self) -> folders.ImageFolders:
        if self._found is None:
            if self.test_only:
                self._found = folders.find_test_images(self.root)
            else:
                self._found = folders.find_images(self.root, own_split=self.test_fraction is None)
        return self._found


class FolderDataset(PictureDataset):
    """Image files that are read when they are asked for.

    Args:
        root: The data set's folder.
        samples: (path, class) of the N images.
        transform: See :class:`~lightning_adv.data.pictures.PictureDataset`.
        crop_flip: See there.
        seed: See there.
    """

    def __init__(
        self,
        root: Path,
        samples: Samples,
        transform: Callable[[Image.Image], Tensor],
        crop_flip: CropFlip | None = None,
        seed: int | None = None,
    ) -> None:
        labels = torch.from_numpy(_labels(samples))
        super().__init__(labels, transform, crop_flip, seed, fingerprint_of_files(root, samples))
        # one array: a list of a million strings would be copied into each worker, as it counts its references
        self.paths = np.array([os.fsencode(path) for path, _ in samples])
        self.files = [os.path.relpath(path, root).replace(os.sep, "/") for path, _ in samples]

    def picture(self, index: int) -> Image.Image:
        """Return an image as RGB."""
        return image_files.read_image(os.fsdecode(self.paths[index]))


def _labels(samples: Samples) -> npt.NDArray[np.int64]:
    return np.array([label for _, label in samples], dtype=np.int64)
