"""Which images of its data set a loader gives."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any, cast

from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, SequentialSampler, SubsetRandomSampler


def sampler_of(loader: DataLoader[Any]) -> Any:
    """Return what says which images a loader gives."""
    return getattr(loader.batch_sampler, "sampler", loader.sampler)


def indices_of(loader: DataLoader[Any]) -> Sequence[int] | None:
    """Return the indices that a loader gives: all of its data set, or those of a ``SubsetRandomSampler``.

    Returns:
        The indices, each once, in no order that counts; None where the sampler may give others.

    Example:
        >>> indices_of(DataLoader([5, 6, 7], sampler=SubsetRandomSampler([0, 2])))
        [0, 2]
    """
    sampler = sampler_of(loader)
    everything = range(len(cast(Sized, loader.dataset)))
    if isinstance(sampler, SubsetRandomSampler):
        return sampler.indices
    if isinstance(sampler, (SequentialSampler, RandomSampler)) and cast(Any, sampler.data_source) is loader.dataset:
        return everything
    # Lightning wraps other samplers in one of its own, over a data set that is not the loader's
    if isinstance(sampler, DistributedSampler) and sampler.dataset is loader.dataset:
        return everything
    return None
