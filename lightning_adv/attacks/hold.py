"""The one context that holds a network still: while it is attacked, and wherever it is only looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from lightning_adv.core.errors import UsageError

BatchNormMode: TypeAlias = Literal["eval", "batch"]
"""BatchNorm during an attack: ``eval`` normalises by the running statistics, ``batch`` by those of the batch."""


@contextmanager
def held_still(
    network: nn.Module, *, batchnorm: BatchNormMode = "eval", domain: str | None = None
) -> Iterator[nn.Module]:
    """Hold a network still while it is attacked, and give it back as it was.

    Inside, every module is in eval mode (with ``batchnorm="batch"`` the BatchNorms use batch statistics and update
    nothing), no parameter requires a gradient, and gradients to the input work even within ``no_grad`` or
    ``inference_mode``. The tensors that enter must be cloned inside: an inference tensor cannot require a gradient.

    Args:
        network: Any network. DDP is unwrapped: a forward through the wrapper would start a gradient reduction.
        batchnorm: The BatchNorm mode.
        domain: The domain of the network's domain BatchNorms; None leaves the active one.

    Yields:
        The network to call.

    Raises:
        UsageError: ``domain`` is given and the network has no such domain, or ``batchnorm`` is ``"batch"`` and the
            network a view whose BatchNorms are folded; or the network is not a module.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.BatchNorm1d(2))
        >>> with held_still(network) as still:
        ...     still.training, any(parameter.requires_grad for parameter in still.parameters())
        (False, False)
        >>> network.training, all(parameter.requires_grad for parameter in network.parameters())
        (True, True)
    """
    if isinstance(network, DistributedDataParallel):
        network = network.module
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"The network must be a torch.nn.Module, got a {type(network).__name__}. Within an attack's perturb, "
            "another attack is called by its own perturb(forward, x, y, generator)."
        )
    modules = list(network.modules())
    views = [module for module in modules if getattr(module, "folds_batchnorm", False)]
    if batchnorm == "batch" and views:
        raise UsageError(
            "batchnorm='batch' needs the statistics of each batch, and the network is a view with its BatchNorms "
            "folded: attack the network itself."
        )
    norms = [module for module in modules if isinstance(module, _BatchNorm)] if batchnorm == "batch" else []
    with ExitStack() as stack:
        stack.callback(_Buffers(modules).put_back)
        stack.enter_context(_eval_mode(modules, norms))
        stack.enter_context(_without_parameters(network))
        for view in views:
            stack.enter_context(cast(Any, view).held())  # it takes its network over as it is now
        if domain is not None:
            _select_domain(stack, modules, domain)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield network


@contextmanager
def _eval_mode(modules: list[nn.Module], by_batch: list[_BatchNorm]) -> Iterator[None]:
    """Put modules into eval mode, but the BatchNorms that are to go by their batch and write nothing down."""
    # Flags are set one by one: train() and eval() would overwrite those of frozen parts on the way back.
    training = [module for module in modules if module.training]
    tracked = [norm for norm in by_batch if norm.track_running_stats]
    try:
        for module in training:
            # Networks such as LeViT keep for eval mode what they compute from weights, until they hear of training.
            if type(module).train is not nn.Module.train:
                module.train(True)
        for module in modules:
            module.training = False
        for norm in by_batch:
            norm.training = True
            norm.track_running_stats = False  # with this flag off, a forward writes to no buffer
        yield
    finally:
        for module in modules:
            module.training = False
        for norm in tracked:
            norm.track_running_stats = True
        for module in training:
            module.training = True


@contextmanager
def _without_parameters(network: nn.Module) -> Iterator[None]:
    """Leave the parameters out of every gradient."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            with torch.inference_mode() if parameter.is_inference() else nullcontext():  # such a one refuses elsewhere
                parameter.requires_grad_(True)


class _Buffers:
    """Buffers that a network may write to in eval mode: what a fake-quantiser observes, say, but no BatchNorm's."""

    def __init__(self, modules: list[nn.Module]) -> None:
        viewed = {
            inner for module in modules if getattr(module, "folds_batchnorm", False) for inner in module.modules()
        }
        self._kept = [
            (module, name, buffer, -1 if buffer.is_inference() else buffer._version, buffer.clone())
            for module in modules
            if not isinstance(module, _BatchNorm) and module not in viewed  # a view takes over its network's
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]

    def put_back(self) -> None:
        """Undo what was written, and what was replaced."""
        for module, name, buffer, version, numbers in self._kept:
            if buffer.is_inference() or buffer._version != version:  # an inference tensor counts no versions
                with torch.inference_mode(buffer.is_inference()), torch.no_grad():
                    buffer.resize_(numbers.shape).copy_(numbers)
            module._buffers[name] = buffer


def _select_domain(stack: ExitStack, modules: list[nn.Module], domain: str) -> None:
    # Found by its attribute, so that attacks need not know how domain BatchNorm is built.
    switches = {id(s): s for m in modules if (s := getattr(m, "domain_switch", None)) is not None}
    if not switches:
        raise UsageError(f"domain={domain!r} was given, but the network has no domain BatchNorm.")
    for module in modules:
        if getattr(module, "chooses_domain", False) and module.domain != domain:
            raise UsageError(f"domain={domain!r} was given, and the network is in {module.domain!r} already.")
    for switch in switches.values():
        stack.enter_context(switch.select(domain))
