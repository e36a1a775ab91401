"""Data modules: images (N, C, H, W) float32 in [0, 1] and labels (N,) int64, in seeded and stratified splits."""

from lightning_adv.data.base import ImageDataModule, Splits
from lightning_adv.data.cifar10 import CIFAR10DataModule
from lightning_adv.data.digits import DigitsDataModule
from lightning_adv.data.huggingface import HuggingFaceDataModule
from lightning_adv.data.image_folder import ImageFolderDataModule
from lightning_adv.data.in_memory import InMemoryDataset, to_images
from lightning_adv.data.npz import NpzDataModule

__all__ = [
    "CIFAR10DataModule",
    "DigitsDataModule",
    "HuggingFaceDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "InMemoryDataset",
    "NpzDataModule",
    "Splits",
    "to_images",
]
