"""The conditions under which an observer looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from lightning_adv.regimes import Regime


@contextmanager
def seeing(trainer: Trainer, regime: Regime) -> Iterator[None]:
    """The conditions of a look: the Trainer's precision, no compiled graphs, and one set of buffers for all processes.

    Hooks in a compiled network are not called, and a look's shapes are not worth a graph. Without synchronised
    BatchNorm each process has running statistics of its own, until the next forward pass of training. Random states
    are put back, whatever a user's attack draws from.
    """
    with (
        isolate_rng(),
        trainer.precision_plugin.forward_context(),
        torch.compiler.set_stance("force_eager"),
        _buffers_of_first_process(trainer, regime.network),
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
