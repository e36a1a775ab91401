"""What every training step of a regime promises, looked at while a Trainer trains it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from lightning_adv.regimes import Regime
from lightning_adv.testing.untouched import Snapshot

_FINITE = "A training step ends in a finite loss"
_FROZEN = "Frozen means frozen"
_SIGNATURE = inspect.signature(F.batch_norm)


def require(kept: bool, promise: str, found: str) -> None:
    """Raise an error that says which promise is broken, and what was found.

    Raises:
        AssertionError: It is broken.
    """
    if not kept:
        raise AssertionError(f"{promise}: {found}.")


class WatchedStep(Callback):
    """Checks each training step of a :class:`~lightning_adv.regimes.Regime`.

    Attributes:
        batch: Images and labels of the last step.

    Raises:
        AssertionError: In training: a promise is broken.
    """

    batch: tuple[Tensor, Tensor]

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Note what is frozen, and watch the steps."""
        network = pl_module.network
        self._frozen = {name: p.detach().clone() for name, p in network.named_parameters() if not p.requires_grad}
        self._still = {name: value.clone() for name, value in _frozen_statistics(network)}
        for optimizer in trainer.optimizers:
            optimized = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            for name, parameter in network.named_parameters():
                decayed = not parameter.requires_grad and id(parameter) in optimized
                require(not decayed, _FROZEN, f"{name} requires no gradient, and the optimizer has it")
        pl_module.training_step = self._watched(pl_module)

    def _watched(self, regime: Regime) -> Any:
        step = regime.training_step

        @functools.wraps(step)
        def watched(batch: Any, batch_idx: int) -> Any:
            self.batch = regime.check_batch(batch, batch_idx)
            before, updates = Snapshot(regime.network, running_statistics=False), _Updates(regime.network)
            try:
                with updates:
                    loss = step(batch, batch_idx)
            except FloatingPointError as error:
                raise AssertionError(f"{_FINITE}: {error}") from error
            left = before.difference()
            require(left is None, "Computing the loss leaves the network alone", f"afterwards {left}")
            value = loss["loss"] if isinstance(loss, dict) else loss
            require(bool(torch.isfinite(value)), _FINITE, f"it is {value}")
            updates.check(value)
            return loss

        return watched

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        """Check the gradients."""
        for name, parameter in pl_module.network.named_parameters():
            gradient = parameter.grad
            if parameter.requires_grad:
                promise = "A training step has a finite gradient to each parameter that is trained"
                require(gradient is not None, promise, f"{name} has none")
                require(bool(torch.isfinite(gradient).all()), promise, f"that of {name} is not finite")
            else:
                require(gradient is None, _FROZEN, f"{name} requires no gradient, and has one")

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Check that what was frozen has not moved."""
        now = dict(pl_module.network.named_parameters())
        for name, value in self._frozen.items():
            require(torch.equal(value, now[name]), _FROZEN, f"{name} requires no gradient, and has moved")
        for name, value in _frozen_statistics(pl_module.network):
            require(torch.equal(value, self._still[name]), _FROZEN, f"{name} has moved, of a BatchNorm that is frozen")


def _frozen_statistics(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the running statistics of the BatchNorms that are frozen."""
    for path, module in network.named_modules():
        if isinstance(module, _BatchNorm) and _is_frozen(module):
            yield from ((f"{path}.{name}", buffer) for name, buffer in module.named_buffers(recurse=False))


def _is_frozen(module: nn.Module) -> bool:
    """Whether a module has parameters, and none of them is trained."""
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)


class _Updates(TorchFunctionMode):
    """Sees the updates of running statistics, without hooks: a network that has some is attacked in another way."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        norms = [(n, m) for n, m in network.named_modules() if isinstance(m, _BatchNorm) and not _is_frozen(m)]
        self._names = {id(norm.running_mean): name for name, norm in norms if norm.running_mean is not None}
        self._seen: list[tuple[str, Any]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, and note which BatchNorm it updates with what output."""
        output = func(*args, **(kwargs or {}))
        if func is F.batch_norm:
            given = _SIGNATURE.bind(*args, **(kwargs or {})).arguments
            if given.get("training", False) and id(given["running_mean"]) in self._names:
                self._seen.append((self._names[id(given["running_mean"])], output.grad_fn))
        return output

    def check(self, loss: Tensor) -> None:
        """Check that no update is by images that the loss is not of, such as those on the way of an attack."""
        reached, waiting = set(), [loss.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in reached:
                reached.add(node)
                waiting += [following for following, _ in node.next_functions]
        for name, node in self._seen:
            found = f"{name} is updated by images that are not part of it"
            require(node in reached, "Computing the loss moves running statistics by what it is of only", found)
