"""Data sets of Hugging Face's ``datasets``: a folder that was saved, Parquet or image files, or a name on the hub."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_adv.core.errors import UsageError
from lightning_adv.data import image_files
from lightning_adv.data.base import Splits, check_fraction
from lightning_adv.data.fingerprint import fingerprint_of_indices
from lightning_adv.data.huggingface_tables import choose_splits, find_columns, load_splits, read_labels
from lightning_adv.data.in_memory import CropFlip
from lightning_adv.data.pictures import Augmentation, PictureDataModule, PictureDataset
from lightning_adv.data.splits import Indices, stratified_split


class HuggingFaceDataModule(PictureDataModule):
    """A data set of Hugging Face's ``datasets`` with a column of images and a column of labels.

    The images are decoded by :func:`~lightning_adv.core.image_files.to_rgb`, as those of an image folder are, and
    resized and augmented as :class:`~lightning_adv.data.ImageFolderDataModule` says. The classes are those of a
    ``ClassLabel``, the numbers from 0, or the sorted names. It needs ``pip install lightning-adv[hf]``.

    Args:
        path: A folder that ``save_to_disk`` wrote, a folder of Parquet or image files (``imagefolder``), or a name on
            the hub, which is fetched.
        config: The configuration of a data set on the hub that has several.
        train_split: The split to train on.
        val_split: The split that validates; None holds out ``val_fraction`` of the training images.
        test_split: The split to test on; None takes the first of ``test``, ``validation``, ``valid``, ``val`` that is
            there and validates nothing, or else holds out ``test_fraction`` of the images.
        test_fraction: Share of the images to hold out for the test, where there is no split for it.
        image: The column of the images; None takes the only one of that kind.
        label: The column of the labels; None takes ``label``, ``labels``, or the only ``ClassLabel``.
        image_size: Height and width of the images x.
        augmentation: "imagenet", "cifar" or "none".
        train_transform: Options of timm's ``create_transform`` for "imagenet".
        crop_pct: ``image_size`` over the size that the shorter side is resized to before the central crop.
        in_memory: Decode each image once and keep all as uint8. For small images, without "imagenet".
        check_images: What is looked at before training: "quick" finds truncated files; "decode" decodes all; "off".
        name: The data set's name in results. The default is the last part of ``path``.
        batch_size: Images in a training batch, for each process.
        evaluation_batch_size: Images in a validation, test or prediction batch, for each process.
        num_workers: Processes that load images. The images do not depend on it.
        val_fraction: Share of the training images that is held out for validation, in (0, 1).
        train_fraction: Share of the remaining training images that is trained on, in (0, 1].
        seed: Seed of the splits, the order and the augmentation.
        on_device: With ``in_memory``, keep the images on the Trainer's device and make the batches there.

    Raises:
        UsageError: An argument is outside its range, or not known.
    """

    def __init__(
        self,
        path: str,
        config: str | None = None,
        train_split: str = "train",
        val_split: str | None = None,
        test_split: str | None = None,
        test_fraction: float = 0.2,
        image: str | None = None,
        label: str | None = None,
        image_size: int = 224,
        augmentation: Augmentation = "imagenet",
        train_transform: dict[str, Any] | None = None,
        crop_pct: float | None = None,
        in_memory: bool = False,
        check_images: image_files.Check = "quick",
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
        check_fraction("test_fraction", test_fraction)
        self.path = os.path.expanduser(os.fspath(path))
        self.config = config
        self.splits = (train_split, val_split, test_split)
        self.columns = (image, label)
        self.test_fraction: float | None = test_fraction
        self.name = os.path.basename(os.path.normpath(path)) if name is None else name
        self._found: _Found | None = None
        self._checked = False
        self.save_hyperparameters(logger=False)  # Lightning refuses to log a name that the regime has too

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return self._find().class_names

    def prepare_data(self) -> None:
        """Fetch the data set, and look for images that cannot be read, on one process of each machine.

        Raises:
            UsageError: It cannot be had, or some images cannot be read. It names them.
        """
        found = self._find()
        if not self._checked and not self.in_memory:  # load() decodes every image that is kept in memory
            files = {
                f"image {i} of {rows.split}": partial(rows.open, i)
                for rows in found.rows.values()
                for i in range(len(rows))
            }
            image_files.check_images(f"data.path is {self.path!r}", files, self.check_images)
        self._checked = True

    def load(self) -> Splits:
        """Split the data set, and decode it if it is kept in memory.

        Raises:
            UsageError: It cannot be had, or does not hold labelled images.
        """
        found = self._find()
        every = {part: np.arange(len(labels)) for part, labels in found.labels.items()}
        train = found.labels["train"]
        if "test" not in every:
            held_out = stratified_split(
                train, cast(float, self.test_fraction), self.seed, argument="data.test_fraction"
            )
            every["train"], every["test"] = held_out
        chosen, val = self.split_training_data(train[every["train"]], own_val="val" in every)
        every = {"val": every["train"][val], **every, "train": every["train"][chosen]}
        parts = {}
        for part, index in every.items():
            source = part if part in found.rows else "train"
            parts[part] = _Part(found.rows[source], found.labels[source], index)
        return self.splits_of(HuggingFaceImages, **parts)

    def _find(self) -> _Found:
        if self._found is None:
            splits = load_splits(self.path, self.config)
            where = f"data.path is {self.path!r}, which"
            chosen = choose_splits(where, splits, *self.splits)
            if "test" in chosen:
                self.test_fraction = None  # the test images are a part of their own
            image, label = find_columns(where, splits, chosen, *self.columns)
            class_names, labels = read_labels(self.path, splits, chosen, label)
            rows = {part: Rows(splits[split], image, split, self.path) for part, split in chosen.items()}
            self._found = _Found(rows, labels, class_names)
        return self._found


class Rows:
    """The images of a split, by their number.

    Args:
        table: The split of ``datasets``.
        image: The column of the images.
        split: The split's name, for errors.
        path: The data set's, for errors.
    """

    def __init__(self, table: Any, image: str, split: str, path: str) -> None:
        from datasets import Image as ImageFeature

        # undecoded: datasets would try Pillow's other formats, turn images by EXIF, and keep modes as they are
        self.table = table.select_columns([image]).cast_column(image, ImageFeature(decode=False)).with_format(None)
        self.image = image
        self.split = split
        self.path = path

    def __len__(self) -> int:
        return len(self.table)

    def open(self, index: int) -> BinaryIO:
        """Open the file of an image.

        Raises:
            UsageError: There is none.
        """
        stored = self.table[index][self.image] or {}
        if (content := stored.get("bytes")) is not None:
            return BytesIO(content)
        if stored.get("path") is None:
            raise UsageError("the row has no image")
        return image_files.open_image(stored["path"])


class HuggingFaceImages(PictureDataset):
    """Some images of a split, decoded when they are asked for.

    Args:
        part: Which images they are.
        transform: See :class:`~lightning_adv.data.pictures.PictureDataset`.
        crop_flip: See there.
        seed: See there.
    """

    def __init__(
        self,
        part: _Part,
        transform: Callable[[Image.Image], Tensor],
        crop_flip: CropFlip | None = None,
        seed: int | None = None,
    ) -> None:
        labels = part.labels[part.numbers]
        fingerprint = fingerprint_of_indices(part.numbers, labels)
        super().__init__(torch.from_numpy(labels), transform, crop_flip, seed, fingerprint)
        self.rows = part.rows
        self.numbers = part.numbers

    def picture(self, index: int) -> Image.Image:
        """Return an image as RGB."""
        row = int(self.numbers[index])
        where = f"data.path is {self.rows.path!r}, and holds image {row} of {self.rows.split}"
        return image_files.decode_image(partial(self.rows.open, row), where)


class _Found(NamedTuple):
    rows: dict[str, Rows]
    labels: dict[str, Indices]
    class_names: tuple[str, ...]


class _Part(NamedTuple):
    rows: Rows
    labels: Indices
    numbers: Indices

    def __len__(self) -> int:
        return len(self.numbers)
