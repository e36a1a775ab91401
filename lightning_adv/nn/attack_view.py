"""A network as its attacks see it: the same logits, prepared for many passes to the input and none to the weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from lightning_adv.nn.activations import SmoothBackwardReLU
from lightning_adv.nn.batchnorm import active_domain, domain_norms, keep_domain, modules_of_domain
from lightning_adv.nn.folding import foldable_layers
from lightning_adv.nn.view_weights import Links, rewrite

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
_CLOSE = 1e-3  # a network folded wrongly is off by its logits' size, one folded rightly by 1e-5 of it


def attack_view(
    model: nn.Module,
    *,
    domain: str | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.channels_last,
    compile: bool | str = False,
) -> AttackView:
    """Return a callable that computes the logits of a network in eval mode, faster forward and back to the input.

    Each BatchNorm with running statistics is folded into the layer before it; where that cannot be done, it becomes a
    multiplication and an addition, and whatever normalises by the batch stays. Weights take part in no gradient.

    The view has weights of its own. Each call compares the network's version counters with those that it saw last, and
    copies the weights again where one has moved. Writing through ``.data`` moves no counter: call
    :meth:`AttackView.refresh` after it.

    Args:
        model: Maps images (N, C, H, W) to logits (N, K), in float32 or float64. It is never written to.
        domain: The BatchNorm domain; None takes the one that is active now.
        dtype: ``torch.bfloat16`` or ``torch.float16`` gives convolutions and linear layers weights of this precision
            and runs the network under autocast; logits come back in the images' dtype. None computes as the network
            does, within autocast or without.
        memory_format: Of images and convolutions.
        compile: Whether ``torch.compile`` compiles the view; a mode of it (``"reduce-overhead"``: CUDA graphs) is a
            choice too.

    Raises:
        ValueError: The network has no such domain, or ``dtype`` is another one.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
        >>> view = attack_view(network)
        >>> x = torch.rand(2, 3, 3, 3)
        >>> torch.allclose(view(x), network.eval()(x), atol=1e-5), view.folded
        (True, 1)
    """
    return AttackView(model, domain, dtype, memory_format, compile)


class AttackView(nn.Module):
    """A network prepared for attacks; :func:`attack_view` makes one and says what it does.

    It prepares itself at its first images, since only a pass through the network shows what can be folded.
    """

    network: nn.Module

    folds_batchnorm = True
    """Attacks find it by this attribute, and refuse to use batch statistics."""

    def __init__(
        self,
        model: nn.Module,
        domain: str | None,
        dtype: torch.dtype | None,
        memory_format: torch.memory_format,
        compile: bool | str,
    ) -> None:
        super().__init__()
        if dtype not in (None, torch.bfloat16, torch.float16):
            raise ValueError(f"dtype must be torch.bfloat16, torch.float16 or None, got {dtype}.")
        if isinstance(model, DistributedDataParallel):
            model = model.module
        model = getattr(model, "_orig_mod", model)  # what torch.compile(model) wraps; its class takes 1.7 s to import
        if domain is not None:
            domain_norms(model, domain)  # says which there are
        self._model = (model,)  # in a tuple, since it is no part of the view
        self.domain = active_domain(model) if domain is None else domain
        self.dtype = dtype
        self.memory_format = memory_format
        self.compile_mode = check_compile_mode(compile)
        self._links: Links | None = None
        self.training = False

    @property
    def folded(self) -> int:
        """How many BatchNorms are folded into the layer before them; 0 before the first images."""
        return 0 if self._links is None else len(self._links.folds)

    def is_of(self, model: nn.Module) -> bool:
        """Whether it is ``model`` that the view shows."""
        return self._model[0] is model

    def train(self, mode: bool = True) -> AttackView:
        """Stay in eval mode, whatever is asked."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W).

        Raises:
            ValueError: See :meth:`prepare`.
        """
        if self._links is None or not self._links.fit(x):
            self.prepare(x)
        elif self._links.is_stale():
            self._links.refresh()
        if self.compile_mode in _CUDA_GRAPHS:
            return self._replayed(x)
        return self._logits(x)

    def _logits(self, x: Tensor) -> Tensor:
        with self._precision(x.device):
            logits: Tensor = self.network(_formatted(x, self.memory_format))
        return logits if self.dtype is None else logits.to(x.dtype)

    def _replayed(self, x: Tensor) -> Tensor:
        """A pass of CUDA graphs, which write to the same memory each time: what an attack keeps is copied out."""
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return self._logits(1.0 * x).clone()  # the product, for the gradient on its way back

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.dtype is None:
            return nullcontext()
        # Its cache is for weights that are cast anew in each pass: here they are cast already.
        return torch.autocast(device.type, self.dtype, cache_enabled=False)

    def refresh(self) -> None:
        """Copy the network's weights and running statistics, as they are now."""
        if self._links is not None:
            self._links.refresh()

    def prepare(self, x: Tensor) -> None:
        """Get ready for images of one shape, or refresh if that was done already.

        Args:
            x: Images (N, C, H, W), of which the shape counts.

        Raises:
            ValueError: The network cannot be prepared, and is to be attacked as it is: it has hooks, it cannot be
                copied, a copy of it computes something else (it is random in eval mode, say), or its weights are in a
                half precision.
        """
        (model,) = self._model
        if self._links is not None and self._links.fit(x) and not self._links.is_reset():
            self._links.refresh()
            return
        if has_hooks(model):
            raise ValueError("the network has hooks, which a view would not call")
        with torch.inference_mode(False), torch.no_grad():
            self._links, self.network = self._build(model, x)
            self._links.refresh()
        if self.compile_mode is not False:
            self.network.compile(**({} if self.compile_mode is True else {"mode": self.compile_mode}))

    def _build(self, model: nn.Module, x: Tensor) -> tuple[Links, nn.Module]:
        plain = _copy(model, self.domain)
        network = _copy(plain, None)
        images = torch.rand(2, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x.device, _dtype_of(model))
        with _isolated(x.device):
            plan = rewrite(network, images, model)
            _stir(plain)
            Links(plan, modules_of_domain(plain, None), x).refresh()
            _check_same(network(images), plain(images))
        for module in network.modules():
            if type(module) in foldable_layers():
                for parameter in module.parameters(recurse=False):
                    parameter.data = _formatted(parameter.detach().to(self.dtype), self.memory_format)  # None: as it is
        return Links(plan, modules_of_domain(model, self.domain), x), network


# Checks and copies ----------------------------------------------------------------------------------------------------


def _copy(model: nn.Module, domain: str | None) -> nn.Module:
    """Return a copy in eval mode that trains nothing, of one domain if there are several."""
    # The gradient's switch belongs to the regime that turns it: the copy hangs on the same one.
    switches = [module.gradient_switch for module in model.modules() if isinstance(module, SmoothBackwardReLU)]
    try:
        copied = copy.deepcopy(model, {id(switch): switch for switch in switches})
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"the network cannot be copied ({error})") from error
    if domain is not None:
        copied = keep_domain(copied, domain)
    for module in copied.modules():
        module.training = False  # past train(), which some networks override
    return copied.requires_grad_(False)


def check_compile_mode(given: bool | str, name: str = "compile") -> bool | str:
    """Return ``given`` if ``torch.compile`` can be asked so.

    Raises:
        ValueError: It is the name of no mode.
    """
    modes = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
    if isinstance(given, str) and given not in modes:
        raise ValueError(f"{name} must be true, false or one of {', '.join(modes)}, got {given!r}.")
    return given


def has_hooks(model: nn.Module) -> bool:
    """Whether a module of a network has a hook: a view would not call it."""
    for module in model.modules():
        attributes = module.__dict__
        if any(attributes[hooks] for hooks in _HOOKS):
            return True
    return False


def _stir(plain: nn.Module) -> None:
    """Give BatchNorms, and whatever is zero, random numbers: a wrong fold must show, even in a branch that is off."""
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


def _check_same(logits: Tensor, expected: Tensor) -> None:
    distance, size = (logits - expected).abs().max(), expected.abs().max()
    if not distance <= _CLOSE * size:  # written so that NaN fails too
        raise ValueError(
            f"a copy of the network in eval mode computes other logits (up to {distance:g} away, of {size:g})"
        )


def _dtype_of(model: nn.Module) -> torch.dtype:
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the network is in {dtype}, whose rounding is too coarse to fold in")
    return dtype


@contextmanager
def _isolated(device: torch.device) -> Iterator[None]:
    """No autocast, and the global random state as it was."""
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices), torch.autocast(device.type, enabled=False):
        yield


def _formatted(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Return images, or a convolution's weights, in a memory format."""
    if x.ndim == 4 and x.shape[1] == 1 and memory_format == torch.channels_last:
        # torch reads the format off the strides. Of one channel, contiguous images would pass for either and be taken
        # for NCHW: then every operation on the features has operands of two formats, and is slow.
        return x.reshape(len(x), *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=memory_format) if x.ndim == 4 else x
