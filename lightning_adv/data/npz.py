"""Images and labels as arrays in one ``.npz`` file: MedMNIST's files, or one's own."""

from __future__ import annotations

import os
import zipfile
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
import numpy.typing as npt
import torch

from lightning_adv.core.errors import UsageError
from lightning_adv.data.base import ImageDataModule, Splits, check_choice, check_fraction
from lightning_adv.data.fingerprint import fingerprint_of_indices
from lightning_adv.data.in_memory import CropFlip, InMemoryDataset, UInt8Dataset
from lightning_adv.data.labels import name_classes, number_labels
from lightning_adv.data.splits import Indices, stratified_split

Layout = Literal["auto", "NHWC", "NCHW"]
Array = npt.NDArray[Any]


class NpzDataModule(ImageDataModule):
    """Arrays of a ``.npz`` file: ``images`` with ``labels``, or ``train_images`` ... and ``test_images`` ....

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W), bytes or floats in [0, 1]. Labels are (N,) or (N, 1): whole
    numbers from 0, or names. The file is read as data: an array of Python objects is refused.

    Args:
        path: The file.
        images: The arrays' name. Where the file has ``train_<images>`` and ``test_<images>`` (MedMNIST), or
            ``<images>_train`` and ``<images>_test`` (Keras), these are the training and the test images, and
            ``val_<images>`` validate if they are there.
        labels: The same of the labels.
        layout: Which axis the channels are; "auto" takes the one of length 1 or 3.
        augmentation: "cifar": random crop after zero padding by 4, and flip, of bytes; or "none".
        class_names: The classes' names, in the order of the labels. None takes the array ``class_names`` of the file.
        test_fraction: Share of the images to hold out for the test, where the file has no test images of its own.
        name: The data set's name in results. The default is the file's name without its ending.
        batch_size: Images in a training batch, for each process.
        evaluation_batch_size: Images in a validation, test or prediction batch, for each process.
        num_workers: Processes that load images. The images are in memory: more than 0 is slower.
        val_fraction: Share of the training images that is held out for validation, in (0, 1).
        train_fraction: Share of the remaining training images that is trained on, in (0, 1].
        seed: Seed of the splits, the order and the augmentation.
        on_device: Keep the images on the Trainer's device and make the batches there. They are the same.

    Raises:
        UsageError: An argument is outside its range, or the file does not hold such arrays.

    Example:
        >>> import tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "stripes.npz")
        >>> np.savez(file, images=np.zeros((40, 8, 8, 3), np.uint8), labels=np.arange(40) % 2)
        >>> data = NpzDataModule(file)
        >>> data.setup()
        >>> data.num_classes, data.image_shape, data.identity()["images"]
        (2, (3, 8, 8), {'train': 28, 'val': 4, 'test': 8})
    """

    def __init__(
        self,
        path: str,
        images: str = "images",
        labels: str = "labels",
        layout: Layout = "auto",
        augmentation: Literal["cifar", "none"] = "none",
        class_names: list[str] | None = None,
        test_fraction: float = 0.2,
        name: str | None = None,
        batch_size: int = 128,
        evaluation_batch_size: int = 512,
        num_workers: int = 0,
        val_fraction: float = 0.1,
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
        path = os.fspath(path)  # a checkpoint cannot hold a Path
        check_choice("layout", layout, get_args(Layout))
        check_choice("augmentation", augmentation, ("cifar", "none"))
        check_fraction("test_fraction", test_fraction)
        self.path = os.path.expanduser(path)
        self.arrays = (images, labels)
        self.layout = layout
        self.augmentation = augmentation
        self.given_names = class_names
        self.test_fraction: float | None = test_fraction
        self.name = os.path.splitext(os.path.basename(path))[0] if name is None else name
        self._read: _Arrays | None = None
        self.save_hyperparameters(logger=False)  # Lightning refuses to log a name that the regime has too

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels; their numbers where they have no names."""
        return self._arrays().class_names

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:  # type: ignore[override]  # the file says it
        """(C, H, W)."""
        _, channels, height, width = self._arrays().images["train"].shape
        return channels, height, width

    def load(self) -> Splits:
        """Split the arrays."""
        images, labels, _ = self._arrays()
        every = {part: np.arange(len(of)) for part, of in labels.items()}
        if "test" not in every:
            rest, held_out = stratified_split(
                labels["train"], cast(float, self.test_fraction), self.seed, argument="data.test_fraction"
            )
            every |= {"train": rest, "test": held_out}
        chosen, val = self.split_training_data(labels["train"][every["train"]], own_val="val" in every)
        every = {"val": every["train"][val], **every, "train": every["train"][chosen]}
        parts = [self._part(part, every[part], images, labels) for part in ("train", "val", "test")]
        return Splits(*parts)

    def _part(self, part: str, index: Indices, images: dict[str, Array], labels: dict[str, Array]) -> InMemoryDataset:
        source = part if part in images else "train"
        x, y = images[source], labels[source][index]
        taken, fingerprint = torch.from_numpy(x[index]), fingerprint_of_indices(index, y)
        if x.dtype != np.uint8:
            return InMemoryDataset(taken.float(), torch.from_numpy(y), fingerprint)
        augmented = part == "train" and self.augmentation == "cifar"
        crop_flip = CropFlip(len(index), self.seed) if augmented else None
        return UInt8Dataset(taken, torch.from_numpy(y), crop_flip, fingerprint)

    def _arrays(self) -> _Arrays:
        if self._read is None:
            try:
                with np.load(self.path, allow_pickle=False) as file:
                    self._read = self._checked({name: file[name] for name in file.files})
            except (OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:  # no .npz
                raise UsageError(f"data.path is {self.path!r}, which cannot be read as .npz: {error}.") from error
            except ValueError as error:
                if isinstance(error, UsageError):
                    raise
                raise UsageError(f"data.path is {self.path!r}, which cannot be read as data: {error}") from error
        return self._read

    def _checked(self, arrays: dict[str, Array]) -> _Arrays:
        named = {part: self._named(arrays, part) for part in ("train", "val", "test")}
        found = {part: pair for part, pair in named.items() if pair is not None}
        if not {"train", "test"} <= found.keys():
            found = {"train": self.arrays}
        else:
            self.test_fraction = None  # the test images are a part of their own
        missing = [name for names in found.values() for name in names if name not in arrays]
        if missing:
            raise UsageError(
                f"data.path is {self.path!r}, which has no array {missing[0]!r} but {', '.join(arrays) or 'none'}: "
                "name them by data.images and data.labels."
            )
        where = f"data.path is {self.path!r}, whose array"
        images = {part: self._images(f"{where} {x!r}", arrays[x]) for part, (x, _) in found.items()}
        raw = {part: _labels(f"{where} {y!r}", arrays[y], len(images[part])) for part, (_, y) in found.items()}
        given = arrays.get("class_names")
        names = self.given_names if self.given_names or given is None else [str(name) for name in given.ravel()]
        class_names = name_classes(raw["train"], names, f"{where} {found['train'][1]!r}")
        labels = {part: number_labels(raw[part], class_names, f"{where} {y!r}") for part, (_, y) in found.items()}
        shapes = {part: of.shape[1:] for part, of in images.items()}
        if len(set(shapes.values())) > 1:
            raise UsageError(f"data.path is {self.path!r}, whose images have different shapes: {shapes}.")
        return _Arrays(images, labels, class_names)

    def _named(self, arrays: dict[str, Array], part: str) -> tuple[str, str] | None:
        """Return the names of a part's arrays as MedMNIST or Keras writes them; None where there are none."""
        for form in (f"{part}_{{}}", f"{{}}_{part}"):
            images, labels = map(form.format, self.arrays)
            if images in arrays:
                return images, labels
        return None

    def _images(self, where: str, x: Array) -> Array:
        """Return images as (N, C, H, W), bytes or float32 in [0, 1]."""
        if not x.size:
            raise UsageError(f"{where} has the shape {x.shape}: there is no image.")
        if x.ndim == 3:
            x = x[:, None]
        elif x.ndim == 4:
            x = np.moveaxis(x, _channels(where, x.shape, self.layout), 1)
        else:
            raise UsageError(f"{where} has the shape {x.shape}: images are (N, H, W), (N, H, W, C) or (N, C, H, W).")
        if x.dtype == np.uint8:
            return x
        if x.dtype.kind != "f":
            raise UsageError(f"{where} is of {x.dtype}: images are bytes (uint8) or floats in [0, 1].")
        low, high = x.min(), x.max()
        if not (low >= 0 and high <= 1):  # written so that NaN fails too
            raise UsageError(
                f"{where} has values from {low:g} to {high:g}, and floats must lie in [0, 1]: divide bytes by 255, and "
                "leave normalisation to the network (Backbone's mean and std)."
            )
        if self.augmentation != "none":
            raise UsageError(f"{where} is of {x.dtype}, and data.augmentation {self.augmentation!r} is for bytes.")
        return x.astype(np.float32)


class _Arrays(NamedTuple):
    images: dict[str, Array]  # by part, (N, C, H, W)
    labels: dict[str, Array]  # (N,) int64
    class_names: tuple[str, ...]


def _channels(where: str, shape: tuple[int, ...], layout: Layout) -> int:
    """Return which axis of images the channels are."""
    if layout != "auto":
        return layout.index("C")
    likely = [axis for axis in (1, 3) if shape[axis] in (1, 3)]
    if len(likely) != 1:
        raise UsageError(
            f"{where} has the shape {shape}, of which it is not known where the channels are: give data.layout, NHWC "
            "or NCHW."
        )
    return likely[0]


def _labels(where: str, y: Array, count: int) -> Array:
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (count,):
        raise UsageError(f"{where} has the shape {y.shape}: labels are ({count},), one for each image.")
    return y
