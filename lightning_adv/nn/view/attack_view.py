"""A network as its attacks see it: the same logits, prepared for many passes to the input and none to the weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.batchnorm import (
    active_domain,
    domain_norms,
    modules_of_domain,
)
from lightning_adv.nn.view.copies import (
    check_same,
    copy_in_eval_mode,
    domain_switches,
    dtype_of,
    format_weights,
    formatted,
    gradient_switches,
    isolated,
    logits_in_eval_mode,
    lower_weights,
    stir,
)
from lightning_adv.nn.view.module_state import snapshot
from lightning_adv.nn.view.weights import Links, rewrite

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
_SHAPES = 4  # of images that are kept ready: input diversity has two
_PATIENCE = 3  # how often in a row a network may have changed by more than its weights


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

    The view has weights of its own. Each attack begins by taking over the network as it is then, whatever has changed.
    Between attacks a call compares the network's version counters with those that it saw last, and copies the weights
    again where one has moved. A fused optimizer moves no counter, writing through ``.data`` or NumPy does not, and
    neither does a changed attribute: :meth:`AttackView.prepare` takes all over then.

    Images of four shapes are kept ready at a time, each with a copy of the weights.

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
        UsageError: The network has no such domain, or ``dtype`` is another one.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
        >>> view = attack_view(network)
        >>> x = torch.rand(2, 3, 3, 3)
        >>> torch.allclose(view(x), network.eval()(x), atol=1e-5), view.folded
        (True, 1)
    """
    return AttackView(model, domain, dtype, memory_format, compile)


class NoViewError(UsageError):
    """A network cannot be shown, and is to be attacked as it is. The message says why, without its subject."""


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
    """Attacks find it by this attribute, refuse to use batch statistics, and call :meth:`forget` as they begin."""

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
            raise UsageError(f"dtype must be torch.bfloat16, torch.float16 or None, got {dtype}.")
        # _orig_mod: what torch.compile(model) wraps; its class takes 1.7 s to import.
        while isinstance(model, DistributedDataParallel) or hasattr(model, "_orig_mod"):
            model = model.module if isinstance(model, DistributedDataParallel) else cast(nn.Module, model._orig_mod)
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
            NoViewError: No view can be made of the network for such images.
        """
        build = self._builds.get(_kind(x))
        if build is None or build.links.is_stale():
            build = self._prepared(x)
        if self.compile_mode in _CUDA_GRAPHS:
            return self._replayed(x, build)
        return self._logits(x, build)

    def _logits(self, x: Tensor, build: _Build) -> Tensor:
        with self._precision(x.device):
            logits: Tensor = build.network(formatted(x, build.memory_format))
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

        An attack does so as it begins, and a call of the view where it sees a change.

        Args:
            x: Images (N, C, H, W), of which the shape counts.

        Raises:
            NoViewError: The network cannot be shown, and is to be attacked as it is: it has hooks, it cannot be copied,
                a copy of it computes something else (it is random in eval mode, say), it holds what may change
                without being seen, what it computes hangs on numbers of tensors, it changes in every step, its images
                have ever other shapes, or its weights are in a half precision.
        """
        self.forget()
        self._prepared(x)

    def forget(self) -> None:
        """Take over the network anew at the next call, whether it seems to have changed or not."""
        for build in self._builds.values():
            build.links.forget()

    def _prepared(self, x: Tensor) -> _Build:
        (model,) = self._model
        if has_hooks(model):
            raise NoViewError("it has hooks, which a view would not call")
        try:
            state = snapshot(model.modules(), gradient_switches(model) | domain_switches(model))
        except ValueError as error:
            raise NoViewError(str(error)) from None
        build = self._builds.get(_kind(x))
        if build is None or build.state != state:
            # A build that is replaced, or takes another's place: views do not pay where none lives long.
            self._rebuilt += build is not None or len(self._builds) == _SHAPES
            if self._rebuilt > _PATIENCE:
                raise NoViewError(
                    "it changes by more than its weights in every step"
                    if build is not None
                    else f"images of more than {_SHAPES} shapes take turns"
                )
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
            with torch.inference_mode(False), torch.no_grad(), isolated(x.device):
                build = self._tried(model, x, state)
        except ValueError as error:
            raise NoViewError(str(error)) from error
        except Exception as error:  # whatever a foreign network's code does not stand
            raise NoViewError(f"a copy of it does not run ({type(error).__name__}: {error})") from error
        if self.compile_mode is not False:
            build.network.compile(**({} if self.compile_mode is True else {"mode": self.compile_mode}))
        return build

    def _tried(self, model: nn.Module, x: Tensor, state: list[Any]) -> _Build:
        """Copy, fold, and compare: on random statistics with a copy that is not folded, and with the network itself."""
        plain = copy_in_eval_mode(model, self.domain)
        network = copy_in_eval_mode(plain, None)
        images = torch.rand(2, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x.device, dtype_of(model))
        before = snapshot(plain.modules(), gradient_switches(plain))
        plan = rewrite(network, images, model)
        stir(plain)
        Links(plan, modules_of_domain(plain, None)).refresh()
        check_same(network(images), plain(images))
        if snapshot(plain.modules(), gradient_switches(plain)) != before:
            raise UsageError("it changes when it is called, in eval mode too")
        links = Links(plan, modules_of_domain(model, self.domain))
        links.refresh()
        expected = logits_in_eval_mode(model, images, self.domain)
        formats = dict.fromkeys((self.memory_format, torch.contiguous_format))
        for memory_format in formats:
            format_weights(network, memory_format)
            build = _Build(network, links, state, memory_format)
            try:
                check_same(build.network(formatted(images, memory_format)), expected)
                break
            except RuntimeError:
                # view() takes contiguous features for granted, and does not run on others.
                if memory_format == torch.contiguous_format:
                    raise
        if images.dtype == torch.float32:  # autocast leaves fp64 alone
            lower_weights(network, self.dtype)
        self._logits(images, build)  # it runs so, too
        return build


def _kind(x: Tensor) -> tuple[torch.Size, torch.device]:
    return x.shape[1:], x.device


def check_compile_mode(given: bool | str, name: str = "compile") -> bool | str:
    """Return ``given`` if ``torch.compile`` can be asked so.

    Raises:
        UsageError: It is the name of no mode.
    """
    modes = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
    if isinstance(given, str) and given not in modes:
        raise UsageError(f"{name} must be true, false or one of {', '.join(modes)}, got {given!r}.")
    return given


def has_hooks(model: nn.Module) -> bool:
    """Whether a module of a network has a hook: a view would not call it."""
    for module in model.modules():
        attributes = module.__dict__
        if any(attributes[hooks] for hooks in _HOOKS):
            return True
    return False
