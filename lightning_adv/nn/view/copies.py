"""Copies of a network, and whether they compute the same: what an attack view is made with."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.activations import SmoothBackwardReLU
from lightning_adv.nn.batchnorm import domain
from lightning_adv.nn.domain_batchnorm import DomainBatchNorm, keep_domain
from lightning_adv.nn.view.folding import foldable_layers
from lightning_adv.nn.view.module_state import snapshot

_CLOSE = 1e-3  # a network folded wrongly is off by its logits' size, one folded rightly by 1e-5 of it
_TORCH: Any = torch.backends  # whose annotations lack these
_BACKENDS = (_TORCH.cuda.matmul, _TORCH.cudnn.conv, _TORCH.mkldnn.matmul, _TORCH.mkldnn.conv)


def copy_in_eval_mode(network: nn.Module, domain_name: str | None = None) -> nn.Module:
    """Return a copy in eval mode that trains nothing, of one domain if there are several."""
    copied = copy.deepcopy(network, {id(switch): switch for switch in gradient_switches(network)})
    if domain_name is not None:
        copied = keep_domain(copied, domain_name)
    for module in copied.modules():
        module.training = False  # past train(), which some networks override
    return copied.requires_grad_(False)


def gradient_switches(network: nn.Module) -> set[object]:
    """Return what a copy shares with its network: the regime sets the gradient's switch for both."""
    return {module.gradient_switch for module in network.modules() if isinstance(module, SmoothBackwardReLU)}


def state_of(network: nn.Module) -> list[Any]:
    """Return all that a network holds but the numbers of its tensors; which domain is active does not count."""
    switches: set[object] = {m.domain_switch for m in network.modules() if isinstance(m, DomainBatchNorm)}
    return snapshot(network.modules(), gradient_switches(network) | switches)


def logits_in_eval_mode(network: nn.Module, images: Tensor, domain_name: str | None) -> Tensor:
    """Return the logits of the network itself, and leave it as it was."""
    training = [module for module in network.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with nullcontext() if domain_name is None else domain(network, domain_name):
            # Not network(images), which would compile a compiled network for these images too. It has no hooks.
            logits: Tensor = network.forward(images)
    finally:
        for module in training:
            module.training = True
    return logits


def format_weights(network: nn.Module, memory_format: torch.memory_format) -> None:
    """Put the weights of convolutions into a memory format."""
    for parameter in network.parameters():
        parameter.data = formatted(parameter.detach(), memory_format)


def lower_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Give the layers that autocast would cast weights of a lower precision."""
    for module in network.modules():
        if type(module) in foldable_layers():
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.detach().to(dtype)


def randomise(plain: nn.Module) -> None:
    """Give BatchNorms, and whatever is zero, random numbers: they show a wrong fold even in a branch times zero."""
    generator = torch.Generator().manual_seed(0)

    def fill(tensor: Tensor | None, low: float, high: float) -> None:
        if tensor is not None:
            tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    for module in plain.modules():
        if isinstance(module, _BatchNorm):
            fill(module.weight, 0.5, 1.5)
            fill(module.bias, -0.2, 0.2)
            fill(module.running_mean, -0.2, 0.2)
            fill(module.running_var, 0.5, 1.5)
    for parameter in plain.parameters():
        if not parameter.any():
            fill(parameter, -0.1, 0.1)


def check_same(logits: Tensor, expected: Tensor) -> None:
    """Check that logits (N, K) agree but for rounding.

    Raises:
        UsageError: They do not.
    """
    distance, size = (logits - expected).abs().max(), expected.abs().max()
    if not distance <= _CLOSE * size:  # written so that NaN fails too
        raise UsageError(f"a copy of it in eval mode computes other logits (up to {distance:g} away, of {size:g})")


def dtype_of(network: nn.Module) -> torch.dtype:
    """Return the precision of a network's weights.

    Raises:
        UsageError: It is below fp32.
    """
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    if dtype not in (torch.float32, torch.float64):
        raise UsageError(f"it is in {dtype}, whose rounding is too coarse to fold in")
    return dtype


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """No autocast, fp32 in all its bits, and the global random state as it was."""
    cpu = device.type == "cpu"
    same_state = torch.random.fork_rng([] if cpu else [device], device_type="cuda" if cpu else device.type)
    before = [backend.fp32_precision for backend in _BACKENDS]
    try:
        for backend in _BACKENDS:
            # cuDNN's convolutions round to TF32's 10 bits by default: logits of right folds are up to 4 % off then.
            backend.fp32_precision = "ieee"
        with same_state, torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(_BACKENDS, before, strict=True):
            backend.fp32_precision = precision


def formatted(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Return images, or a convolution's weights, in a memory format."""
    if x.ndim == 4 and x.shape[1] == 1 and memory_format == torch.channels_last:
        # torch reads the format off the strides. Of one channel, contiguous images would pass for either and be taken
        # for NCHW: then every operation on the features has operands of two formats, and is slow.
        return x.reshape(len(x), *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=memory_format) if x.ndim == 4 else x
