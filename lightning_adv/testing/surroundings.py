"""A network as a program may hold it: compiled, or wrapped for several processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def compiled(network: nn.Module) -> Iterator[nn.Module]:
    """Yield a network behind ``torch.compile``, with a backend that needs no compiler."""
    yield cast(nn.Module, torch.compile(network, backend="eager"))
    torch._dynamo.reset()


@contextmanager
def distributed(network: nn.Module) -> Iterator[tuple[nn.Module, list[str]]]:
    """Yield a network in DDP, and a list of what goes through the wrapper; in a group of one process if there is none.

    Args:
        network: At least one of its parameters requires a gradient.
    """
    uses: list[str] = []
    with TemporaryDirectory() as folder:
        started = not dist.is_initialized()
        if started:
            dist.init_process_group("gloo", init_method=f"file://{Path(folder) / 'store'}", rank=0, world_size=1)
        try:
            wrapped = DistributedDataParallel(network)
            wrapped.register_forward_pre_hook(lambda *_: uses.append("forward"))
            yield wrapped, uses
        finally:
            if started:
                dist.destroy_process_group()
