"""CIFAR-10 from its original files."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from lightning_adv.core.errors import UsageError
from lightning_adv.data.base import ImageDataModule, Splits
from lightning_adv.data.fingerprint import fingerprint_of_indices
from lightning_adv.data.in_memory import CropFlip, UInt8Dataset
from lightning_adv.data.splits import Indices


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10 (Krizhevsky 2009): 32×32 colour images of 10 classes, 50,000 to train on and 10,000 to test.

    The images are kept in memory as uint8 (184 MB), and are cropped, flipped and made float in batches on the device;
    with ``on_device`` they are kept there.
    With the defaults 49,000 images are trained on and 1,000 validate, as in Rice et al. 2020 ("Overfitting in
    adversarially robust deep learning"), who select the best checkpoint on as many.

    Args:
        root: The folder that holds ``cifar-10-batches-py``.
        download: Fetch the files into ``root`` if they are not there.
        augment: Random crop after zero padding by 4, and random horizontal flip, in training.
        batch_size: Images in a training batch, for each process.
        evaluation_batch_size: Images in a validation, test or prediction batch, for each process.
        num_workers: Processes that load images. The images are in memory: more than 0 is slower.
        val_fraction: Share of the 50,000 that is held out for validation, in (0, 1).
        train_fraction: Share of the remaining training images that is trained on, in (0, 1].
        seed: Seed of the splits, the order and the augmentation.
        on_device: Keep the images on the Trainer's device and make the batches there. They are the same. Needs
            ``num_workers`` 0.

    Raises:
        UsageError: An argument is outside its range.
    """

    name = "cifar10"
    num_classes = 10
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    image_shape = (3, 32, 32)

    def __init__(
        self,
        root: str = "data",
        download: bool = False,
        augment: bool = True,
        batch_size: int = 128,
        evaluation_batch_size: int = 512,
        num_workers: int = 0,
        val_fraction: float = 0.02,
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
        self.root = os.path.expanduser(root)
        self.download = download
        self.augment = augment
        self.save_hyperparameters(logger=False)  # Lightning refuses to log a name that the regime has too

    def prepare_data(self) -> None:
        """Download the files if asked to.

        Raises:
            UsageError: The files are not there, and cannot be fetched.
        """
        if self.download:
            from torchvision.datasets import CIFAR10

            try:
                CIFAR10(self.root, download=True)
            except (RuntimeError, OSError) as error:  # no network; a damaged file; a folder that cannot be written
                raise UsageError(
                    f"data.root is {self.root!r}, and CIFAR-10 cannot be downloaded into it ({error}). Unpack "
                    f"{CIFAR10.url} there, so that it holds the folder {CIFAR10.base_folder!r}."
                ) from error

    def load(self) -> Splits:
        """Read the files and split off the validation images.

        Raises:
            UsageError: The files are not there, or not complete.
        """
        images, labels = self._read(train=True)
        test_images, test_labels = self._read(train=False)
        train, val = self.split_training_data(labels.numpy())
        crop_flip = CropFlip(len(train), self.seed) if self.augment else None
        return Splits(
            _taken(images, labels, train, crop_flip),
            _taken(images, labels, val),
            _taken(test_images, test_labels, np.arange(len(test_labels))),
        )

    def _read(self, train: bool) -> tuple[Tensor, Tensor]:
        from torchvision.datasets import CIFAR10

        try:
            dataset = CIFAR10(self.root, train=train)
        except (RuntimeError, OSError) as error:  # missing or of another checksum; not readable
            raise UsageError(
                f"data.root is {self.root!r}, which does not hold the original CIFAR-10 in its folder "
                f"{CIFAR10.base_folder!r} ({error}). Set data.download to true, or unpack "
                f"{CIFAR10.url} there."
            ) from error
        images = torch.from_numpy(np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2)))
        return images, torch.tensor(dataset.targets)


def _taken(images: Tensor, labels: Tensor, indices: Indices, crop_flip: CropFlip | None = None) -> UInt8Dataset:
    labels = labels[indices]
    return UInt8Dataset(images[indices], labels, crop_flip, fingerprint_of_indices(indices, labels.numpy()))
