"""Pictures of any size, which Pillow decodes: resized, cropped and augmented, as bytes until they are on the device."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.fabric.utilities.data import suggested_max_num_workers
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lightning_adv.core.errors import UsageError
from lightning_adv.core.seeds import AUGMENTATION, derive_data_seed
from lightning_adv.data import image_files
from lightning_adv.data.base import ImageDataModule, Splits, check_at_least, check_choice, check_fraction
from lightning_adv.data.in_memory import CropFlip, UInt8Batch, UInt8Dataset
from lightning_adv.data.sampler import Key, split_keys

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


class PictureDataset(Dataset[UInt8Batch]):
    """Pictures that are decoded when they are asked for. A subclass writes :meth:`picture`.

    Args:
        labels: The class of each picture, (N,) int64.
        transform: Turns a Pillow image into a tensor (C, H, W) uint8.
        crop_flip: The random crops and flips of these N pictures, or None.
        seed: Where ``transform`` is random, the seed of the augmentation. The transform of picture i in epoch e then
            depends on (seed, e, i) only, and the global random state is left alone.
        fingerprint: Tells which pictures they are, see :mod:`~lightning_adv.data.fingerprint`.

    Attributes:
        files: The pictures' paths below the data set's folder, in their order; None where they are of none.
    """

    files: Sequence[str] | None = None

    def __init__(
        self,
        labels: Tensor,
        transform: Callable[[Image.Image], Tensor],
        crop_flip: CropFlip | None = None,
        seed: int | None = None,
        fingerprint: str | None = None,
    ) -> None:
        self.labels = labels
        self.transform = transform
        self.crop_flip = crop_flip
        self.seed = seed
        self.fingerprint = fingerprint

    def picture(self, index: int) -> Image.Image:
        """Return a picture as RGB.

        Raises:
            UsageError: It cannot be decoded. It says which.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, keys: Sequence[Key] | Sequence[int]) -> UInt8Batch:
        """Return the batch for keys (epoch, index) or plain indices. The loader must not collate it again."""
        epoch, index = split_keys(keys)
        images = torch.stack([self._image(epoch, i) for i in index.tolist()])
        drawn = (None, None) if self.crop_flip is None else self.crop_flip(epoch, index)
        return UInt8Batch(images, self.labels[index], *drawn)

    def _image(self, epoch: int, index: int) -> Tensor:
        image = self.picture(index)
        if self.seed is None:
            return self.transform(image)
        # timm's and torchvision's transforms draw from three global generators
        seed = derive_data_seed(self.seed, AUGMENTATION, epoch, index)
        with isolate_rng(include_cuda=False):
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPU too
            return self.transform(image)


class PictureDataModule(ImageDataModule):
    """Base of the data modules whose images are pictures of any size.

    A subclass writes :meth:`load`, which gives the pictures of its three parts to :meth:`splits_of`.

    Args:
        image_size: Height and width of the images x.
        augmentation: ``"imagenet"``: random resized crop, flip and colour jitter by timm's ``create_transform``;
            ``"cifar"``: random crop after zero padding by 4, and flip; ``"none"``.
        train_transform: Options of timm's ``create_transform`` for ``"imagenet"``.
        crop_pct: ``image_size`` over the size that the shorter side is resized to before the central crop, in (0, 1].
            None is timm's 0.875 for ``"imagenet"`` and 1 otherwise.
        in_memory: Decode each picture once and keep all as uint8.
        check_images: What is looked at before training, see :func:`~lightning_adv.data.image_files.check_images`.
        options: The arguments of :class:`~lightning_adv.data.base.ImageDataModule`.

    Raises:
        UsageError: An argument is outside its range, or not known.
    """

    def __init__(
        self,
        *,
        image_size: int,
        augmentation: Augmentation,
        train_transform: dict[str, Any] | None,
        crop_pct: float | None,
        in_memory: bool,
        check_images: image_files.Check,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.image_size = image_size
        self.image_shape = (3, image_size, image_size)
        self.augmentation = augmentation
        self.train_transform = {} if train_transform is None else train_transform
        self.crop_pct = crop_pct
        self.in_memory = in_memory
        self.check_images = check_images
        self._check_picture_arguments()

    @property
    def num_classes(self) -> int:
        """Number of classes.

        Raises:
            UsageError: There are none.
        """
        return len(self.class_names or ())

    def splits_of(self, make: Callable[..., PictureDataset], train: Any, val: Any, test: Any) -> Splits:
        """Return the three parts with their transforms, decoded if they are kept in memory.

        Args:
            make: Makes a data set of a part's pictures, their transform and, where they are augmented, ``crop_flip``
                or ``seed``: those of :class:`PictureDataset`.
            train: The pictures to train on. They have a length.
            val: Those that validate.
            test: Those that are tested on.
        """
        still = self.evaluation_transform()
        if self.augmentation == "imagenet":
            training = make(train, self._transform(training=True), seed=self.seed)
        else:
            crop_flip = CropFlip(len(train), self.seed) if self.augmentation == "cifar" else None
            training = make(train, still, crop_flip=crop_flip)
        parts = (training, make(val, still), make(test, still))
        return Splits(*(_in_memory(part) if self.in_memory and len(part) else part for part in parts))

    def evaluation_transform(self) -> Callable[[Image.Image], Tensor]:
        """Return what turns a picture into a tensor (3, H, W) uint8 in validation, test and prediction."""
        return self._transform(training=False)

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

    def _check_picture_arguments(self) -> None:
        check_at_least("image_size", self.image_size, 1)
        check_choice("augmentation", self.augmentation, get_args(Augmentation))
        check_choice("check_images", self.check_images, get_args(image_files.Check))
        if self.crop_pct is not None:
            check_fraction("crop_pct", self.crop_pct, or_one=True)
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


def _in_memory(on_disk: PictureDataset) -> UInt8Dataset:
    """Decode every picture, once."""
    chunks = torch.split(torch.arange(len(on_disk)), 1024)
    images = torch.cat([on_disk.__getitems__(chunk.tolist()).images for chunk in chunks])
    kept = UInt8Dataset(images, on_disk.labels, on_disk.crop_flip, on_disk.fingerprint)
    kept.files = on_disk.files
    return kept
