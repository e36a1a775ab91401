"""The embedded data set: 1,797 handwritten digits that come with scikit-learn."""

from __future__ import annotations

import torch

from lightning_adv.data.base import ImageDataModule, Splits, check_fraction
from lightning_adv.data.fingerprint import fingerprint_of_indices
from lightning_adv.data.in_memory import InMemoryDataset
from lightning_adv.data.splits import stratified_split


class DigitsDataModule(ImageDataModule):
    """scikit-learn's digits: 1,797 real 8×8 images of 10 classes. Nothing is downloaded.

    They are the test set of the UCI data set "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak, 1998);
    each value counts the set pixels (0 to 16) of a 4×4 block, and is divided by 16 here.
    With the defaults 1,293 images are trained on, 144 validate and 360 test.

    Args:
        batch_size: Images in a training batch, for each process.
        evaluation_batch_size: Images in a validation, test or prediction batch, for each process.
        num_workers: Processes that load images. The images are in memory: more than 0 is slower.
        val_fraction: Share of the non-test images that is held out for validation, in (0, 1).
        test_fraction: Share of all images that is held out for the test, in (0, 1).
        train_fraction: Share of the remaining training images that is trained on, in (0, 1].
        seed: Seed of the splits and the order.
        on_device: Keep the images on the Trainer's device and make the batches there. They are the same. Needs
            ``num_workers`` 0.

    Raises:
        UsageError: An argument is outside its range.
    """

    name = "digits"
    num_classes = 10
    class_names = tuple("0123456789")
    image_shape = (1, 8, 8)

    def __init__(
        self,
        batch_size: int = 64,
        evaluation_batch_size: int = 512,
        num_workers: int = 0,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
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
        check_fraction("test_fraction", test_fraction)
        self.test_fraction = test_fraction
        self.save_hyperparameters(logger=False)  # Lightning refuses to log a name that the regime has too

    def load(self) -> Splits:
        """Read the images from scikit-learn's files and split them."""
        from sklearn.datasets import load_digits  # 0.5 s to import

        digits = load_digits()
        labels = digits.target
        rest, test = stratified_split(labels, self.test_fraction, self.seed, argument="data.test_fraction")
        train, val = self.split_training_data(labels[rest])
        x = torch.from_numpy(digits.images).float().div(16).unsqueeze(1)
        y = torch.from_numpy(labels).long()
        parts = (rest[train], rest[val], test)
        return Splits(
            *(InMemoryDataset(x[part], y[part], fingerprint_of_indices(part, labels[part])) for part in parts)
        )
