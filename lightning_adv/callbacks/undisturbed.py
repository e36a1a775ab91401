"""The conditions under which an observer runs the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn


@contextmanager
def undisturbed(trainer: Trainer, network: nn.Module) -> Iterator[None]:
    """Run a network as it is trained, so that its training goes on as if nothing had run.

    This is in the Trainer's precision, without compiled graphs, and with one set of buffers for all processes: hooks in
    a compiled network are not called, and without synchronised BatchNorm each process has running statistics of its
    own until the next forward pass of training. Random states are put back, whatever a user's attack draws from.
    """
    with (
        isolate_rng(),
        trainer.precision_plugin.forward_context(),
        torch.compiler.set_stance("force_eager"),
        _buffers_of_first_process(trainer, network),
    ):
        yield


@contextmanager
def _buffers_of_first_process(trainer: Trainer, network: nn.Module) -> Iterator[None]:
    if trainer.world_size == 1:
        yield
        return
    buffers = dict(network.named_buffers())
    own = {name: buffer.clone() for name, buffer in buffers.items()}
    theirs = trainer.strategy.broadcast({name: buffer.cpu() for name, buffer in own.items()})
    with torch.no_grad():
        try:
            for name, buffer in buffers.items():
                buffer.copy_(theirs[name])
            yield
        finally:
            for name, buffer in buffers.items():
                buffer.copy_(own[name])
