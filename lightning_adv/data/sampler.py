"""The order of the images: in training a function of (seed, epoch), and resumable in the middle of an epoch.

A run that is killed and resumed must see the batches that it would have seen. Lightning's checkpoints hold how many
batches of the epoch are done, but Lightning does not skip them: it counts on the loader.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from itertools import islice
from typing import Any, cast

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SequentialSampler

from lightning_adv.core.errors import UsageError
from lightning_adv.core.seeds import EVALUATION, ORDER, derive_data_seed

Key = tuple[int, int]
"""(epoch, index): what the training sampler yields, so that a dataset can augment image ``index`` by both."""


def split_keys(keys: Sequence[Key] | Sequence[int]) -> tuple[int, Tensor]:
    """Return the epoch and the indices (N,) int64 of a batch of keys. Plain indices belong to epoch 0."""
    if isinstance(keys[0], tuple):
        pairs = cast(Sequence[Key], keys)
        return pairs[0][0], torch.tensor([index for _, index in pairs])
    return 0, torch.tensor(keys)


class EpochSampler(DistributedSampler[Key]):
    """Yields ``(epoch, index)`` in an order that depends on (seed, epoch) only.

    Because it is a ``DistributedSampler``, Lightning leaves it in place and calls ``set_epoch`` before each epoch.
    Over all processes, batch k of an epoch holds the same images whatever the number of processes, as long as the
    global batch size is the same.

    Args:
        dataset: The images; only its length is used.
        num_replicas: Number of processes.
        rank: This process.
        seed: Seed of the order, >= 0.
        drop_last: Drop the images that do not divide evenly among the processes instead of repeating some.

    Attributes:
        skip: How many keys the next iteration leaves out, once. ``len`` stays that of the full epoch, from which
            Lightning knows when the epoch ends.
    """

    def __init__(self, dataset: Dataset[Any], *, num_replicas: int, rank: int, seed: int, drop_last: bool) -> None:
        # DistributedSampler seeds by seed + epoch, hence the derived seed
        super().__init__(
            dataset, num_replicas=num_replicas, rank=rank, seed=derive_data_seed(seed, ORDER), drop_last=drop_last
        )
        self.skip = 0

    def __iter__(self) -> Iterator[Key]:
        epoch, skip, self.skip = self.epoch, self.skip, 0
        indices = cast(Iterator[int], super().__iter__())
        return ((epoch, index) for index in islice(indices, skip, None))


def drawn_order(count: int, seed: int) -> list[int]:
    """Return 0 ... ``count`` - 1 in an order that depends on these two only."""
    generator = torch.Generator().manual_seed(derive_data_seed(seed, EVALUATION))
    return cast(list[int], torch.randperm(count, generator=generator).tolist())


class DrawnOrder(SequentialSampler):
    """Yields every index once, in one order that is drawn: the first of them stand for all.

    ``Trainer(overfit_batches=...)`` keeps what is a ``SequentialSampler``, as this is: its order is always the same.

    Args:
        dataset: The images; only its length is used.
        seed: Seed of the order, >= 0.
    """

    def __init__(self, dataset: Dataset[Any], *, seed: int) -> None:
        super().__init__(cast(Sized, dataset))
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        return iter(drawn_order(len(self.data_source), self.seed))


class SharedDrawnOrder(UnrepeatedDistributedSampler):
    """The part of :class:`DrawnOrder` that one of several processes yields: every so many-th index.

    Args:
        dataset: The images; only its length is used.
        num_replicas: Number of processes.
        rank: This process.
        seed: Seed of the order, >= 0.
    """

    def __init__(self, dataset: Dataset[Any], *, num_replicas: int, rank: int, seed: int) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False, seed=seed)

    def __iter__(self) -> Iterator[Any]:
        return iter(drawn_order(self.total_size, self.seed)[self.rank :: self.num_replicas])


class TrainLoader(DataLoader[Any]):
    """A loader over an :class:`EpochSampler` that a resumed run enters in the middle of an epoch.

    Three things make this exact:

    * Lightning creates its first iterator before it has told the sampler the epoch, and worker processes would begin
      to load at once. Here nothing is read before the first batch is asked for.
    * Lightning calls :meth:`load_state_dict` when it restarts, before it creates that iterator. So the iterator that
      must skip batches is known; later ones, and those that a callback creates, see the full epoch.
    * The epoch is ``trainer.current_epoch``. What Lightning gives to ``set_epoch`` is one too high after resuming
      from the end of an epoch with ``max_steps``.

    Attributes:
        trainer: The Trainer that may fit on this loader.
    """

    trainer: Trainer | None = None
    _resumed = False

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch promises its own iterator class
        resumed, self._resumed = self._resumed, False
        return self._batches(resumed)

    def _batches(self, resumed: bool) -> Iterator[Any]:
        trainer = self.trainer
        # Trainer(overfit_batches=...) puts a sequential sampler in the place of ours
        if trainer is not None and trainer.train_dataloader is self and isinstance(self.sampler, EpochSampler):
            self.sampler.set_epoch(trainer.current_epoch)
            if resumed:
                # only now has Lightning decided whether the checkpoint's epoch goes on or is over
                done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
                self.sampler.skip = done * cast(int, self.batch_size)
        yield from super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """Return what must stay the same for the rest of an epoch to be the same. The position is the Trainer's."""
        replicas = getattr(self.sampler, "num_replicas", 1)
        return {
            "images": len(cast(Sized, self.dataset)),
            "global_batch_size": cast(int, self.batch_size) * replicas,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Note that the next iterator is a resumed run's.

        Raises:
            UsageError: The checkpoint lies within an epoch of other batches, so the rest of it cannot be trained on.
        """
        now = self.state_dict()
        if state != now:
            raise UsageError(
                f"The checkpoint was saved within an epoch over {state['images']} images in batches of "
                f"{state['global_batch_size']} (all processes together), and data.batch_size and the training set "
                f"now give {now['images']} images in batches of {now['global_batch_size']}: resume with the same, or "
                "from a checkpoint that was saved at the end of an epoch."
            )
        self._resumed = True
