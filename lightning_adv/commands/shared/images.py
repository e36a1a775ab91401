"""The images of an evaluation: the test set in chunks that do not depend on who works on them.

The order is drawn, the same for every evaluation of a test set: folders are sorted by class, and their first images
would be of a few classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_adv.attacks.checks import check_images, check_labels
from lightning_adv.commands.shared.held_out import check_gives, test_loaders
from lightning_adv.core.errors import UsageError
from lightning_adv.core.loaders import indices_of, sampler_of
from lightning_adv.regimes.checks import as_pair
from lightning_adv.regimes.training_data import class_names_of, describe_data


class ImageChunk(NamedTuple):
    """Samples that are attacked together.

    Attributes:
        number: The chunk's number, from 0.
        first: The position of its first sample in the evaluation's order.
        indices: The samples' numbers in the test set.
        x: Images (n, C, H, W) in [0, 1], on the CPU.
        y: Labels (n,), on the CPU.
    """

    number: int
    first: int
    indices: list[int]
    x: Tensor
    y: Tensor


def in_precision_of(network: nn.Module, x: Tensor) -> Tensor:
    """Return images in float64 if the network is, else in float32; autocast takes care of the half precisions."""
    return x.double() if next(network.parameters()).dtype == torch.float64 else x.float()


class TestImages:
    """The images of a data module's test set, by their index, in an order that is drawn once for all.

    Args:
        data: The data module, which knows its images or downloads them.
        chunk: Samples in a chunk; the last one may have fewer.
        images: How many images, the first ones of that order; None takes all.
        at_most: No more than these where ``images`` is None.

    Raises:
        UsageError: There is no test set, it has no index or fewer images than were asked for.

    Attributes:
        name: The data module's name.
        described: Which images they are, by :func:`~lightning_adv.regimes.training_data.describe_data`.
        count: How many images are evaluated.
        shape: Their shape (C, H, W), after :meth:`check`.
    """

    __test__ = False  # pytest takes a class of that name for a test

    def __init__(
        self, data: LightningDataModule, chunk: int, images: int | None, *, at_most: int | None = None
    ) -> None:
        check_gives(data, "test")
        data.prepare_data()
        data.setup("test")
        self._data = data
        loaders = test_loaders(data)
        loader = loaders[0] if len(loaders) == 1 else loaders
        self.name = name = type(data).__name__
        self.described = describe_data(data)
        self._class_names = class_names_of(data)
        dataset = getattr(loader, "dataset", None)
        if (
            not isinstance(loader, DataLoader)
            or not hasattr(dataset, "__len__")
            or isinstance(dataset, IterableDataset)
        ):
            raise UsageError(
                f"data: the images of an evaluation are taken by their index; {name}.test_dataloader() must give one "
                f"DataLoader over a data set with a length, got {type(loader).__name__}."
            )
        self._loader = loader
        given = indices_of(loader)
        if given is None:
            raise UsageError(
                f"data: the images of an evaluation are taken by their index, and which of them a "
                f"{type(sampler_of(loader)).__name__} gives is not known: let {name}.test_dataloader() hold them out "
                "with torch.utils.data.Subset."
            )
        self.available = len(given)
        if images is not None and not 1 <= images <= self.available:
            raise UsageError(f"images is {images}, but the test set of {name} has {self.available} images.")
        if not self.available:
            raise UsageError(f"data: the test set of {name} has no images.")
        most = self.available if at_most is None else min(at_most, self.available)
        self.count = most if images is None else images
        order = torch.randperm(self.available, generator=torch.Generator().manual_seed(0))
        drawn = torch.as_tensor(given)[order[: self.count]]
        self._chunks = [part.tolist() for part in torch.split(drawn, chunk)]
        self._chunk = chunk
        self.shape: tuple[int, ...] = ()
        self._seen: list[tuple[tuple[int, ...], Tensor]] = []

    def __len__(self) -> int:
        """Return the number of chunks."""
        return len(self._chunks)

    def size(self, number: int) -> int:
        """Return the number of samples in a chunk."""
        return len(self._chunks[number])

    def read(self, numbers: Sequence[int]) -> Iterator[ImageChunk]:
        """Read some chunks, in order."""
        loader = DataLoader(
            self._loader.dataset,
            batch_sampler=[self._chunks[number] for number in numbers],
            collate_fn=self._loader.collate_fn,
            num_workers=self._loader.num_workers,
            generator=torch.Generator().manual_seed(0),  # a loader draws a seed each time: not from the global one
        )
        for number, batch in zip(numbers, loader, strict=True):
            x, y = as_pair(self._data.on_after_batch_transfer(self._data.on_before_batch_transfer(batch, 0), 0))
            yield ImageChunk(number, number * self._chunk, self._chunks[number], x, y)

    @property
    def indices(self) -> list[int]:
        """The numbers in the test set of all images, in the evaluation's order."""
        return [index for chunk in self._chunks for index in chunk]

    def names(self, indices: Sequence[int], y: Tensor) -> list[str]:
        """Return the names of images, as files below a folder that :class:`ImageFolderDataModule` reads as a test set.

        It is the image's own name in the data set's folder, where it has one below a folder of its class; otherwise
        ``test/CLASS/NUMBER.png``. The folders of the classes are in the order of the labels.

        Args:
            indices: Their numbers in the test set.
            y: Their labels (n,).
        """
        files = getattr(self._loader.dataset, "files", None)
        named: list[str] = []
        for index, label in zip(indices, y.tolist(), strict=True):
            of_class = self._folder_of(label)
            own = PurePosixPath(f"{index:0{len(str(self.available))}}.png" if files is None else files[index])
            below = not own.is_absolute() and ".." not in own.parts and of_class in own.parts[:-1]
            named.append(str(own) if below else f"test/{of_class}/{own.name}")
        return named

    def _folder_of(self, label: int) -> str:
        """Return the name of a class as that of a folder, numbered where the names are not in the labels' order."""
        names = self._class_names
        if names is not None and list(names) == sorted(names) and not any("/" in name for name in names):
            return names[label]
        return f"{label:05}" if names is None else f"{label:05} {names[label].replace('/', ' ')}"

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the first images (n, C, H, W) and labels (n,), ``count`` or as many as there are."""
        chunks = list(self.read(range(min(-(-count // self._chunk), len(self)))))
        return (torch.cat([chunk.x for chunk in chunks])[:count], torch.cat([chunk.y for chunk in chunks])[:count])

    def check(self, in_channels: int, num_classes: int) -> tuple[int, ...]:
        """Look at every image and label, before anything is computed. They are read once, for however many networks.

        Args:
            in_channels: Number of channels that the network takes.
            num_classes: Number of classes K that it knows.

        Returns:
            The images' shape (C, H, W).

        Raises:
            UsageError: Images leave [0, 1] or have other channels, or labels leave [0, K).
        """
        for shape, labels in self._seen_once():
            self.shape = shape
            check_labels(labels, num_classes)
            if len(self.shape) != 3 or self.shape[0] != in_channels:
                raise UsageError(
                    f"data: the network takes images of {in_channels} channels, got the shape {self.shape}."
                )
        return self.shape

    def _seen_once(self) -> Iterator[tuple[tuple[int, ...], Tensor]]:
        """Give each chunk's shape (C, H, W) and labels (n,); a chunk that was not read before is, and is checked."""
        yield from self._seen
        if len(self._seen) < len(self):
            for chunk in self.read(range(len(self._seen), len(self))):
                check_images(chunk.x, chunk.y)
                self._seen.append((tuple(chunk.x.shape[1:]), chunk.y))
                yield self._seen[-1]
