"""A network as its attacks see it: the same logits, prepared for many passes to the input and none to the weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from lightning_adv.nn.activations import GradientSwitch, SmoothBackwardReLU
from lightning_adv.nn.batchnorm import active_domain, domain, domain_norms, keep_domain, modules_of_domain
from lightning_adv.nn.folding import foldable_layers
from lightning_adv.nn.module_state import snapshot
from lightning_adv.nn.view_weights import Links, rewrite

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
_SHAPES = 4  # of images that are kept ready: input diversity has two
_PATIENCE = 3  # how often in a row a network may have changed by more than its weights
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
    copies the weights again where one has moved. Writing through ``.data`` moves no counter, and neither does a changed
    attribute: :meth:`AttackView.prepare` takes all over, whatever it is.

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


class _Build(NamedTuple):
    """What was prepared for images of one shape."""

    network: nn.Module
    links: Links
    state: list[Any]
    """What the network's modules held then beside tensors' numbers."""
    memory_format: torch.memory_format


class AttackView(nn.Module):
    """A network prepared for attacks; :func:`attack_view` makes one and says what it does.

    It prepares itself at its first images, since only a pass through the network shows what can be folded.
    """

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
        self.networks = nn.ModuleList()
        self._builds: dict[Any, _Build] = {}
        self._rebuilt = 0
        self.training = False

    @property
    def folded(self) -> int:
        """How many BatchNorms are folded into the layer before them; 0 before the first images."""
        return max((len(build.links.folds) for build in self._builds.values()), default=0)

    def is_of(self, model: nn.Module) -> bool:
        """Whether it is ``model`` that the view shows."""
        return self._model[0] is model

    def train(self, mode: bool = True) -> AttackView:
        """Stay in eval mode, whatever is asked."""
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> AttackView:
        raise RuntimeError("A view has the device and the precision of its network: move that, and the view follows.")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W).

        Raises:
            ValueError: See :meth:`prepare`.
        """
        build = self._builds.get(_kind(x))
        if build is None or build.links.is_stale():
            build = self._prepared(x)
        if self.compile_mode in _CUDA_GRAPHS:
            return self._replayed(x, build)
        return self._logits(x, build)

    def _logits(self, x: Tensor, build: _Build) -> Tensor:
        with self._precision(x.device):
            logits: Tensor = build.network(_formatted(x, build.memory_format))
        return logits if self.dtype is None else logits.to(x.dtype)

    def _replayed(self, x: Tensor, build: _Build) -> Tensor:
        """A pass of CUDA graphs, which write to the same memory each time: what an attack keeps is copied out."""
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return self._logits(1.0 * x, build).clone()  # the product, for the gradient on its way back

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.dtype is None:
            return nullcontext()
        # Without a cache, which is for weights that are cast anew in each pass: here they are cast already.
        return torch.autocast(device.type, self.dtype, cache_enabled=False)

    def prepare(self, x: Tensor) -> None:
        """Take over the network as it is now, and get ready for images of one shape.

        A call of the view does so by itself where it sees a change. It does not see what is written through ``.data``,
        a changed attribute of a module (a number, a flag) or a new hook: call this before an attack then.

        Args:
            x: Images (N, C, H, W), of which the shape counts.

        Raises:
            ValueError: The network cannot be shown, and is to be attacked as it is: it has hooks, it cannot be copied,
                a copy of it computes something else (it is random in eval mode, say), it holds what may change
                without being seen, it changes in every step, or its weights are in a half precision.
        """
        for build in self._builds.values():
            build.links.forget()  # images of another shape follow when they come
        self._prepared(x)

    def _prepared(self, x: Tensor) -> _Build:
        (model,) = self._model
        if has_hooks(model):
            raise ValueError("it has hooks, which a view would not call")
        state = snapshot(model.modules(), _switches(model))
        build = self._builds.get(_kind(x))
        if build is None or build.state != state:
            self._rebuilt = 0 if build is None else self._rebuilt + 1
            if self._rebuilt > _PATIENCE:
                raise ValueError("it changes by more than its weights in every step")
            build = self._build(model, x, state)
            self._builds = {**dict(list(self._builds.items())[1 - _SHAPES :]), _kind(x): build}
            self.networks = nn.ModuleList([build.network for build in self._builds.values()])
            self.networks.training = False
        elif build.links.is_stale():
            build.links.refresh()
            self._rebuilt = 0
        return build

    def _build(self, model: nn.Module, x: Tensor, state: list[Any]) -> _Build:
        try:
            with torch.inference_mode(False), torch.no_grad(), _isolated(x.device):
                build = self._tried(model, x, state)
        except ValueError:
            raise
        except Exception as error:  # whatever a foreign network's code does not stand
            raise ValueError(f"a copy of it does not run ({type(error).__name__}: {error})") from error
        if self.compile_mode is not False:
            build.network.compile(**({} if self.compile_mode is True else {"mode": self.compile_mode}))
        return build

    def _tried(self, model: nn.Module, x: Tensor, state: list[Any]) -> _Build:
        """Copy, fold, and compare: on random statistics with a copy that is not folded, and with the network itself."""
        plain = _copy(model, self.domain)
        network = _copy(plain, None)
        images = torch.rand(2, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x.device, _dtype_of(model))
        before = snapshot(plain.modules(), _switches(plain))
        plan = rewrite(network, images, model)
        _stir(plain)
        Links(plan, modules_of_domain(plain, None)).refresh()
        _check_same(network(images), plain(images))
        if snapshot(plain.modules(), _switches(plain)) != before:
            raise ValueError("it changes when it is called, in eval mode too")
        links = Links(plan, modules_of_domain(model, self.domain))
        links.refresh()
        expected = _in_eval_mode(model, images, self.domain)
        formats = dict.fromkeys((self.memory_format, torch.contiguous_format))
        for memory_format in formats:
            _format(network, memory_format)
            build = _Build(network, links, state, memory_format)
            try:
                _check_same(build.network(_formatted(images, memory_format)), expected)
                break
            except (
                RuntimeError
            ):  # code that takes contiguous features for granted (``view``) does not run channels-last
                if memory_format == torch.contiguous_format:
                    raise
        if images.dtype == torch.float32:  # autocast leaves fp64 alone
            _lower(network, self.dtype)
        self._logits(images, build)  # it runs so, too
        return build


# Copies and checks ----------------------------------------------------------------------------------------------------


def _copy(model: nn.Module, domain: str | None) -> nn.Module:
    """Return a copy in eval mode that trains nothing, of one domain if there are several."""
    copied = copy.deepcopy(model, {id(switch): switch for switch in _switches(model)})
    if domain is not None:
        copied = keep_domain(copied, domain)
    for module in copied.modules():
        module.training = False  # past train(), which some networks override
    return copied.requires_grad_(False)


def _switches(model: nn.Module) -> list[GradientSwitch]:
    """Return what a copy shares with its network: the gradient's switch belongs to the regime that turns it."""
    return [module.gradient_switch for module in model.modules() if isinstance(module, SmoothBackwardReLU)]


def _in_eval_mode(model: nn.Module, images: Tensor, through: str | None) -> Tensor:
    """Return the logits of the network itself, and leave it as it was."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with nullcontext() if through is None else domain(model, through):
            logits: Tensor = model(images)
    finally:
        for module in training:
            module.training = True
    return logits


def _format(network: nn.Module, memory_format: torch.memory_format) -> None:
    for parameter in network.parameters():
        parameter.data = _formatted(parameter.detach(), memory_format)


def _lower(network: nn.Module, dtype: torch.dtype | None) -> None:
    """Give the layers that autocast would cast weights of a lower precision."""
    for module in network.modules():
        if dtype is not None and type(module) in foldable_layers():
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.detach().to(dtype)


def _kind(x: Tensor) -> tuple[torch.Size, torch.device]:
    return x.shape[1:], x.device


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
        raise ValueError(f"a copy of it in eval mode computes other logits (up to {distance:g} away, of {size:g})")


def _dtype_of(model: nn.Module) -> torch.dtype:
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"it is in {dtype}, whose rounding is too coarse to fold in")
    return dtype


@contextmanager
def _isolated(device: torch.device) -> Iterator[None]:
    """No autocast, and the global random state as it was."""
    devices = [] if device.type == "cpu" else [device]
    with (
        torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type),
        torch.autocast(device.type, enabled=False),
    ):
        yield


def _formatted(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Return images, or a convolution's weights, in a memory format."""
    if x.ndim == 4 and x.shape[1] == 1 and memory_format == torch.channels_last:
        # torch reads the format off the strides. Of one channel, contiguous images would pass for either and be taken
        # for NCHW: then every operation on the features has operands of two formats, and is slow.
        return x.reshape(len(x), *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=memory_format) if x.ndim == 4 else x
