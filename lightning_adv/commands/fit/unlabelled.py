"""The images of a folder that ``lightning-adv predict --folder`` predicts: without labels, seen as test images are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor

from lightning_adv.core.errors import UsageError
from lightning_adv.data.base import ImageDataModule, Splits
from lightning_adv.data.folders import find_files
from lightning_adv.data.image_files import check_image_files, read_image
from lightning_adv.data.in_memory import to_images
from lightning_adv.data.pictures import PictureDataModule, PictureDataset
from lightning_adv.regimes.training_data import class_names_of, num_classes_of


class UnlabelledFolder(ImageDataModule):
    """The images of a folder and the folders below it, in the order of their paths, each once.

    They are resized and cropped as ``like`` does with its test images, else so that the shorter side fits.

    Args:
        folder: The folder.
        like: The data module of the network's training; None if there is none.
        image_shape: (C, H, W) of what the network was trained on; None asks ``like``.

    Raises:
        UsageError: Nobody says how large the images must be, or the network takes no grey and no RGB.
    """

    num_classes: int | None = None  # type: ignore[assignment]  # that of the checkpoint
    class_names: tuple[str, ...] | None = None
    has_labels = False

    def __init__(self, folder: str, like: LightningDataModule | None, image_shape: tuple[int, ...] | None) -> None:
        super().__init__(
            batch_size=1,
            evaluation_batch_size=getattr(like, "evaluation_batch_size", 64),
            num_workers=getattr(like, "num_workers", None),
            val_fraction=0.5,
            train_fraction=1.0,
            seed=0,
        )
        shape = getattr(like, "image_shape", None) if image_shape is None else image_shape
        if shape is None:
            raise UsageError(
                "folder: nobody says what size the network takes: give ckpt_path of a run that knows its image_shape, "
                "or a data module that has one."
            )
        channels, height, width = shape
        if channels not in (1, 3):
            raise UsageError(f"folder: the network takes {channels} channels, and image files have 1 or 3.")
        self.folder = Path(folder).expanduser()
        self.name = self.folder.resolve().name
        self.image_shape = (channels, height, width)
        self._like = like
        if image_shape is None:  # no checkpoint says what the classes are
            self.num_classes, self.class_names = num_classes_of(like), class_names_of(like)

    def prepare_data(self) -> None:
        """Look for images that cannot be read.

        Raises:
            UsageError: Some cannot. It names them.
        """
        check_image_files(self.folder, find_files(self.folder, argument="folder"), "quick", argument="folder")

    def load(self) -> Splits:
        """List the images.

        Raises:
            UsageError: There are none, or fewer than processes.
        """
        paths, processes = find_files(self.folder, argument="folder"), self._processes()[0]
        if len(paths) < processes:
            raise UsageError(
                f"folder is {str(self.folder)!r}, which has {len(paths)} images for {processes} processes: set "
                "trainer.devices to 1."
            )
        images = UnlabelledImages(self.folder, paths, self._transform(), grey=self.image_shape[0] == 1)
        return Splits(images, images, images)  # of which predict_dataloader takes the last

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Tensor:
        """Return the images (N, C, H, W) of a batch, alone."""
        return to_images(batch)[0]

    def _transform(self) -> Callable[[Image.Image], Tensor]:
        if isinstance(self._like, PictureDataModule) and self._like.image_shape == self.image_shape:
            return self._like.evaluation_transform()
        from timm.data import create_transform  # 0.5 s to import

        transform: Callable[[Image.Image], Tensor] = create_transform(
            self.image_shape[1:], normalize=False, crop_pct=1.0
        )
        return transform


class UnlabelledImages(PictureDataset):
    """Image files without labels.

    Args:
        folder: The folder that they are in.
        paths: Their paths.
        transform: Turns a Pillow image into a tensor (C, H, W) uint8.
        grey: Whether they are read as grey.
    """

    def __init__(
        self, folder: Path, paths: list[str], transform: Callable[[Image.Image], Tensor], *, grey: bool
    ) -> None:
        super().__init__(torch.zeros(len(paths), dtype=torch.int64), transform)
        self.files = [os.path.relpath(path, folder).replace(os.sep, "/") for path in paths]
        self._paths = np.array([os.fsencode(path) for path in paths])
        self._grey = grey

    def picture(self, index: int) -> Image.Image:
        """Return an image as RGB, or as grey where the network takes one channel."""
        image = read_image(os.fsdecode(self._paths[index]), argument="folder")
        return image.convert("L") if self._grey else image
