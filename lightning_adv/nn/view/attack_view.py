"""A network prepared for attacks: the same logits, with many passes to the input in mind and none to the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.batchnorm import active_domain, domain_norms, without_domain
from lightning_adv.nn.domain_batchnorm import modules_of_domain
from lightning_adv.nn.view.copies import (
    check_same,
    copy_in_eval_mode,
    dtype_of,
    format_weights,
    formatted,
    isolated,
    logits_in_eval_mode,
    lower_weights,
    randomise,
    state_of,
)
from lightning_adv.nn.view.weights import WeightPlan, rewrite

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
_SHAPES = 4  # of images that are kept ready: input diversity has two
_PATIENCE = 3  # how often in a row a view may be built anew: below that it pays


class NoViewError(UsageError):
    """No view can be made of a network, and attacks need the network itself. The message says why, without subject."""


class _Build(NamedTuple):
    """What was prepared for images of one shape."""

    network: nn.Module
    plan: WeightPlan
    modules: Mapping[str, nn.Module]
    """Those of the network itself, by the paths that the plan names."""
    state: list[Any]
    """What the network's modules held then beside tensors' numbers."""
    memory_format: torch.memory_format


class AttackView(nn.Module):
    """Computes the logits of a network in eval mode, faster forward and back to the input. Attacks run on it.

    Each BatchNorm with running statistics is folded into the layer before it; where that cannot be done, it becomes a
    multiplication and an addition, and whatever normalises by the batch stays. Weights take part in no gradient.

    The view has weights of its own. Each attack begins by taking over those that the network has then, and whatever
    else has changed; outside an attack, each call does. It is built at the first images of a shape, since only a pass
    through the network shows what can be folded. Four shapes are kept ready, each with a copy of the weights.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K), in float32 or float64. It is never written to.
        domain: The BatchNorm domain; None takes the one that is active now.
        dtype: ``torch.bfloat16`` or ``torch.float16`` gives convolutions and linear layers weights of this precision
            and runs the network under autocast; logits come back in the images' dtype. None computes as the network
            does, within autocast or without.
        memory_format: Of images and convolutions.
        compile: Whether ``torch.compile`` compiles the view; a mode of it (``"reduce-overhead"``: CUDA graphs) is a
            choice too.

    Raises:
        UsageError: The network has no such domain, or ``dtype`` or ``compile`` is not one of these.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
        >>> view = AttackView(network)
        >>> x = torch.rand(2, 3, 3, 3)
        >>> torch.allclose(view(x), network.eval()(x), atol=1e-5), view.folded
        (True, 1)
    """

    folds_batchnorm = True
    """By this attribute attacks find a view: they refuse batch statistics, and run within :meth:`held`."""

    def __init__(
        self,
        network: nn.Module,
        *,
        domain: str | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format = torch.channels_last,
        compile: bool | str = False,
    ) -> None:
        super().__init__()
        if dtype not in (None, torch.bfloat16, torch.float16):
            raise UsageError(f"dtype must be torch.bfloat16, torch.float16 or None, got {dtype}.")
        # _orig_mod: what torch.compile(network) wraps; its class takes 1.7 s to import.
        while isinstance(network, DistributedDataParallel) or hasattr(network, "_orig_mod"):
            wrapped = network.module if isinstance(network, DistributedDataParallel) else network._orig_mod
            network = cast(nn.Module, wrapped)
        if domain is not None:
            domain_norms(network, domain)  # says which there are
        network, within = without_domain(network)
        domain = within if domain is None else domain
        self._network = (network,)  # in a tuple, since it is not a part of the view
        self.domain = active_domain(network) if domain is None else domain
        self.dtype = dtype
        self.memory_format = memory_format
        self.compile_mode = check_compile_mode(compile)
        self.networks = nn.ModuleList()
        self._builds: dict[Any, _Build] = {}
        self._rebuilt = 0
        self._holds = 0
        self._taken: set[Any] = set()  # shapes whose weights were taken over in the attack that runs
        self.training = False

    @property
    def folded(self) -> int:
        """How many BatchNorms are folded into the layer before them; 0 before the first images."""
        return max((len(build.plan.folds) for build in self._builds.values()), default=0)

    def is_of(self, network: nn.Module) -> bool:
        """Whether the view was made of ``network``."""
        return self._network[0] is without_domain(network)[0]

    def train(self, mode: bool = True) -> AttackView:
        """Stay in eval mode, whatever is asked."""
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> AttackView:
        raise RuntimeError("A view has the device and the precision of its network: move that, and the view follows.")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Take the network over once, at the first images of a shape, for all calls within the context: one attack."""
        self._holds += 1
        self._taken.clear()
        try:
            yield
        finally:
            self._holds -= 1

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W).

        Raises:
            NoViewError: No view can be made of the network for such images (see :meth:`prepare`).
        """
        if not self._holds or _kind(x) not in self._taken:
            self.prepare(x)
        build = self._builds[_kind(x)]
        if self.compile_mode not in _CUDA_GRAPHS:
            return self._logits(x, build)
        # CUDA graphs write to the same memory in each pass: what an attack keeps is copied out.
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return self._logits(1.0 * x, build).clone()  # the product, for the gradient on its way back

    def _logits(self, x: Tensor, build: _Build) -> Tensor:
        with self._precision(x.device):
            logits: Tensor = build.network(formatted(x, build.memory_format))
        return logits if self.dtype is None else logits.to(x.dtype)

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.dtype is None:
            return nullcontext()
        # Without a cache, which is for weights that are cast anew in each pass: here they are cast already.
        return torch.autocast(device.type, self.dtype, cache_enabled=False)

    def prepare(self, x: Tensor) -> None:
        """Take over the network as it is now, for images of one shape.

        Args:
            x: Images (N, C, H, W), of which the shape counts.

        Raises:
            NoViewError: Attacks need the network itself: it has hooks, it cannot be copied, a copy of it computes
                something else (it is random in eval mode, say), it holds what may change without being seen, what it
                computes depends on numbers of tensors, it changes in every step, its images have ever other shapes, or
                its weights are in a half precision.
        """
        (network,) = self._network
        if has_hooks(network):
            raise NoViewError("it has hooks, which a view would not call")
        try:
            state = state_of(network)
        except ValueError as error:
            raise NoViewError(str(error)) from None
        kind = _kind(x)
        build = self._builds.get(kind)
        if build is not None and build.state == state:
            build.plan.refresh(build.modules)
            self._rebuilt = 0
        else:
            self._rebuilt += build is not None or len(self._builds) == _SHAPES
            if self._rebuilt > _PATIENCE:
                shapes = f"images of more than {_SHAPES} shapes take turns"
                raise NoViewError(shapes if build is None else "it changes by more than its weights in every step")
            build = self._build(network, x, state)
            self._builds = {**dict(list(self._builds.items())[1 - _SHAPES :]), kind: build}
            self.networks = nn.ModuleList([build.network for build in self._builds.values()])
            self.networks.training = False
        self._taken.add(kind)

    def _build(self, network: nn.Module, x: Tensor, state: list[Any]) -> _Build:
        try:
            with torch.inference_mode(False), torch.no_grad(), isolated(x.device):
                build = self._tried(network, x, state)
        except ValueError as error:
            raise NoViewError(str(error)) from error
        except Exception as error:  # whatever a foreign network's code does not stand
            raise NoViewError(f"a copy of it does not run ({type(error).__name__}: {error})") from error
        if self.compile_mode is not False:
            build.network.compile(**({} if self.compile_mode is True else {"mode": self.compile_mode}))
        return build

    def _tried(self, network: nn.Module, x: Tensor, state: list[Any]) -> _Build:
        """Copy, fold, and compare: on random statistics with a copy that is not folded, and with the network itself."""
        plain = copy_in_eval_mode(network, self.domain)
        folded = copy_in_eval_mode(plain)
        images = torch.rand(2, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x.device, dtype_of(network))
        before = state_of(plain)
        plan = rewrite(folded, images, network)
        randomise(plain)
        plan.refresh(modules_of_domain(plain, None))
        check_same(folded(images), plain(images))
        if state_of(plain) != before:
            raise UsageError("it changes when it is called, in eval mode too")
        modules = modules_of_domain(network, self.domain)
        plan.refresh(modules)
        expected = logits_in_eval_mode(network, images, self.domain)
        for memory_format in dict.fromkeys((self.memory_format, torch.contiguous_format)):
            format_weights(folded, memory_format)
            try:
                check_same(folded(formatted(images, memory_format)), expected)
                break
            except RuntimeError:
                # view() takes contiguous features for granted, and does not run on others.
                if memory_format == torch.contiguous_format:
                    raise
        build = _Build(folded, plan, modules, state, memory_format)
        if self.dtype is not None and images.dtype == torch.float32:  # autocast leaves fp64 alone
            lower_weights(folded, self.dtype)
        self._logits(images, build)  # it runs so, too
        return build


attack_view = AttackView  # the name of versions before 0.2


def _kind(x: Tensor) -> tuple[torch.Size, torch.device]:
    return x.shape[1:], x.device


def check_compile_mode(given: bool | str, name: str = "compile") -> bool | str:
    """Return ``given`` if ``torch.compile`` can be asked so.

    Raises:
        UsageError: It is not the name of a mode.
    """
    modes = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
    if isinstance(given, str) and given not in modes:
        raise UsageError(f"{name} must be true, false or one of {', '.join(modes)}, got {given!r}.")
    return given


def has_hooks(network: nn.Module) -> bool:
    """Whether a module of a network has a hook: a view would not call it."""
    return any(module.__dict__[hooks] for module in network.modules() for hooks in _HOOKS)
