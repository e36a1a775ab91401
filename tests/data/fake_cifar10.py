"""Files that torchvision takes for CIFAR-10."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest


def write_fake_cifar10(
    root: Path, monkeypatch: pytest.MonkeyPatch, images_per_batch: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """Write random images under CIFAR-10's file names into ``root``, and make torchvision accept their checksums.

    There are five training files and one test file with ``images_per_batch`` images each, the classes in turn.
    CIFAR10DataModule's default ``val_fraction`` of 0.02 needs at least 100, for one image of each class.

    Returns:
        The training images (N, 3, 32, 32) uint8 and their labels (N,).
    """
    from torchvision.datasets import CIFAR10

    folder = Path(root) / CIFAR10.base_folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)

    def write(name: str, content: dict) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    batches = []
    for _ in range(6):
        data = random.integers(0, 256, (images_per_batch, 3 * 32 * 32), dtype=np.uint8)
        labels = [i % 10 for i in range(images_per_batch)]
        batches.append({"data": data, "labels": labels})
    names = [name for name, _ in CIFAR10.train_list]
    train_list = [[name, write(name, batch)] for name, batch in zip(names, batches, strict=False)]
    meta_md5 = write("batches.meta", {"label_names": [f"class {k}" for k in range(10)]})
    monkeypatch.setattr(CIFAR10, "train_list", train_list)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", write("test_batch", batches[-1])]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta_md5})
    images = np.concatenate([batch["data"] for batch in batches[:5]]).reshape(-1, 3, 32, 32)
    return images, np.concatenate([batch["labels"] for batch in batches[:5]])
