"""A data module: splits, loaders and determinism are the base's."""

import torch

from lightning_adv.data import ImageDataModule, InMemoryDataset, Splits


class BarsDataModule(ImageDataModule):
    """Noisy images (1, 8, 8) of horizontal (0) and vertical (1) bars.

    Args:
        images: How many images there are; a third of them is for the test.
        seed: Seed of the images, the split and the order.
    """

    name, num_classes, image_shape = "bars", 2, (1, 8, 8)
    class_names = ("horizontal", "vertical")

    def __init__(self, images: int = 300, seed: int = 0) -> None:
        super().__init__(
            batch_size=50, evaluation_batch_size=100, num_workers=0, val_fraction=0.2, train_fraction=1.0, seed=seed
        )
        self.images = images
        self.save_hyperparameters(logger=False)

    def load(self) -> Splits:
        """Return the training, validation and test images."""
        generator = torch.Generator().manual_seed(self.seed)
        y = torch.arange(self.images) % 2
        x = torch.rand(self.images, 1, 8, 8, generator=generator) / 2
        x[y == 0, :, ::2] += 0.5
        x[y == 1, :, :, ::2] += 0.5
        rest = 2 * self.images // 3
        train, val = self.split_training_data(y[:rest].numpy())
        return Splits(*(InMemoryDataset(x[part], y[part]) for part in (train, val, range(rest, self.images))))
