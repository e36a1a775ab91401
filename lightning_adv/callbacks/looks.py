"""What an observer found in a look, and how many looks there were: what a checkpoint keeps of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from lightning_adv.core.table import Record


class Look(NamedTuple):
    """What an observer found.

    Attributes:
        scalars: The few numbers that the Trainer's loggers get, without the name of the analysis before them.
        records: All numbers, for the table.
    """

    scalars: Mapping[str, float]
    records: Sequence[Record]


@dataclass
class Progress:
    """How many looks there were, and what they took.

    Attributes:
        seconds: Wall time so far.
        looks: Number of looks.
        drawn: Number of looks when the figures were drawn last.
        last_step: The optimizer step, from 0, of the last look; before the first one, where the run began.
    """

    seconds: float = 0.0
    looks: int = 0
    drawn: int = 0
    last_step: int = -1

    def counts(self, step: int, figures_every_n_looks: int) -> bool:
        """Count a look, and tell whether to draw: a tenth more looks come between two drawings once there are many."""
        self.looks += 1
        self.last_step = step
        draws = self.drawn == 0 or self.looks - self.drawn >= max(figures_every_n_looks, self.looks // 10)
        if draws:
            self.drawn = self.looks
        return draws

    @contextmanager
    def clock(self, device: torch.device) -> Iterator[None]:
        """Add the time to what the observer took."""
        if device.type != "cpu":
            torch.accelerator.synchronize(device)  # else it would wait for steps that are still queued
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start


def plain_record(record: object, function: str) -> Record:
    """Return a record with a number of Python's.

    Args:
        record: What an observer yielded.
        function: What yielded it, for the error.

    Raises:
        TypeError: It is something else than a record of one number.

    Example:
        >>> plain_record(("conv1", "", "norm", torch.tensor(2)), "WeightNorm.observe")
        Record(name='conv1', domain='', statistic='norm', value=2)
    """
    if isinstance(record, tuple) and len(record) == 4:
        parts: tuple[Any, ...] = record
        name, domain, statistic, value = parts
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            return Record(name, domain, statistic, value.item())
        if not isinstance(value, torch.Tensor):
            with suppress(TypeError, ValueError):
                return Record(name, domain, statistic, float(value))
    raise TypeError(f"{function} must yield Record(name, domain, statistic, value) with a number each, got {record!r}.")
