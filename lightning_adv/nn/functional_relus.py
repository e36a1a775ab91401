"""ReLUs that a network calls as functions (``F.relu``, ``torch.relu``, ``x.relu_()``, ``F.relu6``, ...).

A dry forward finds them and the modules whose code they stand in; these modules are retraced with a child in place of
each call.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.surgery import replace_modules

FUNCTIONS = ("relu", "relu_", "relu6")
RELUS = (nn.ReLU, nn.ReLU6)


@dataclass
class FunctionalReLU:
    """The ReLUs that one module calls as functions.

    Args:
        owner: The module whose ``forward`` makes the calls.
        path: Its dotted name in the network, empty for the network itself.
        function: Name of the function that is called first.
        arguments: The owner's arguments that are no tensors, by name: tracing takes these for constants.
    """

    owner: nn.Module
    path: str
    function: str
    arguments: dict[str, Any]

    def describe(self) -> str:
        """Name the call and its owner, for an error."""
        where = f"{self.path!r} ({type(self.owner).__name__})" if self.path else type(self.owner).__name__
        return f"the call of {self.function}() in {where}"


class _Recorder(TorchFunctionMode):
    """Notes each ReLU that is called as a function, with the module that is running."""

    def __init__(self, network: nn.Module, ignore: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self.ignore = ignore
        self.paths = {module: path for path, module in network.named_modules()}
        self.running: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = []
        self.found: dict[nn.Module, FunctionalReLU] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in FUNCTIONS:
            owner, given, named = self.running[-1]
            if owner not in self.found and not isinstance(owner, self.ignore):
                constants = _constants(owner, given, named)
                self.found[owner] = FunctionalReLU(owner, self.paths[owner], name, constants)
        return func(*args, **({} if kwargs is None else kwargs))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow which module is running by hooks, removed at the end."""

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.running.append((module, args, kwargs))

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self.running.pop()

        with ExitStack() as stack:
            for module in self.paths:
                # the outermost hooks, so that a ReLU in another hook counts as the module's
                stack.enter_context(module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
                stack.enter_context(module.register_forward_hook(leave))
            stack.enter_context(self)
            yield


def find_functional_relus(
    network: nn.Module, image_shape: tuple[int, int, int], *, ignore: tuple[type[nn.Module], ...] = RELUS
) -> list[FunctionalReLU]:
    """Find the modules of a network that call ReLU as a function, in train or in eval mode.

    The network runs on tensors without data (torch's meta device): it takes next to no time, and parameters, buffers,
    train flags and random numbers stay as they are.

    Args:
        network: The network.
        image_shape: (C, H, W) of the images that it takes.
        ignore: Modules whose own call of a ReLU is not meant.

    Raises:
        UsageError: The network does not take such images.
    """
    recorder = _Recorder(network, ignore)
    # two: BatchNorm in train mode refuses one
    images = torch.empty(2, *image_shape, dtype=_like(network).dtype, device="meta")
    try:
        for training in (False, True):
            with _untouched(network, training), _swapped(network, _without_data), recorder.watching():
                network(images)
    except Exception as error:
        raise UsageError(
            f"{type(network).__name__} does not run on images of image_shape {tuple(image_shape)} (C, H, W): {error}"
        ) from error
    return list(recorder.found.values())


def make_relus_modules(
    network: nn.Module, image_shape: tuple[int, int, int], *, ignore: tuple[type[nn.Module], ...] = RELUS
) -> nn.Module:
    """Give each ReLU that a network calls as a function an ``nn.ReLU`` or ``nn.ReLU6`` of its own.

    Args:
        network: The network. It is changed in place.
        image_shape: (C, H, W) of the images that it takes.
        ignore: Modules whose own call of a ReLU stays.

    Returns:
        ``network``, or its retraced version where a call lies in the ``forward`` of ``network`` itself. The output in
        eval mode is the same to the last bit.

    Raises:
        UsageError: The network does not take such images, or a call cannot be reached.
    """
    calls = find_functional_relus(network, image_shape, ignore=ignore)
    if not calls:
        return network
    graphs = [_trace(call) for call in calls]  # before anything is changed
    before = _output(network, image_shape)
    for call, graph in zip(calls, graphs, strict=True):
        network = replace_modules(network, {call.owner: _retrace(call.owner, graph)}, purpose="module without the call")
    try:
        torch.testing.assert_close(_output(network, image_shape), before, rtol=0, atol=0, equal_nan=True)
    except Exception as error:  # a wrong output, or none: the code looks at its input in a way that tracing misses
        raise UsageError(f"{_unreached(calls[0])}: torch.fx traces it into something else ({error}).") from error
    left = find_functional_relus(network, image_shape, ignore=ignore)
    if left:
        raise UsageError(f"{_unreached(left[0])}: it is there still after torch.fx has traced it.")
    return network


def _trace(call: FunctionalReLU) -> fx.Graph:
    """Trace a module that calls ReLU as a function, and nothing below it."""
    graphs = []
    for training in (True, False):
        try:
            with _untouched(call.owner, training):
                graphs.append(_ShallowTracer().trace(call.owner, concrete_args=call.arguments))
        except Exception as error:
            raise UsageError(f"{_unreached(call)}: torch.fx cannot trace it ({error}).") from error
        for node in graphs[-1].find_nodes(op="placeholder"):  # fx renames constants; callers may use their names
            node.target = next((name for name in call.arguments if node.target == f"{name}_1"), node.target)
    if str(graphs[0]) != str(graphs[1]):
        raise UsageError(f"{_unreached(call)}: its code differs between train and eval mode.")
    return graphs[1]


def _unreached(call: FunctionalReLU) -> str:
    return f"activation cannot replace {call.describe()}"


class _ShallowTracer(fx.Tracer):
    """Traces the code of one module; its children are called as they are."""

    proxy_buffer_attributes = True  # else code that updates a buffer would do so while it is traced

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _retrace(owner: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """Build the owner anew from its graph, in which a child stands for each call of a ReLU."""
    for node in list(graph.nodes):
        function = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
        if node.op not in ("call_method", "call_function") or function not in FUNCTIONS:
            continue
        name = next(name for i in range(len(graph.nodes)) if not hasattr(owner, name := f"activation{i}"))
        owner.add_module(name, (nn.ReLU6() if function == "relu6" else nn.ReLU()).train(owner.training))
        source = node.args[0] if node.args else node.kwargs["input"]
        with graph.inserting_after(node):
            new = graph.call_module(name, (source,))
        order = {other: position for position, other in enumerate(graph.nodes)}
        if function == "relu_" or node.kwargs.get("inplace") or True in node.args[1:]:
            # In place, what reads the input afterwards reads the activated one.
            source.replace_all_uses_with(new, delete_user_cb=lambda user, n=new, o=order: o[user] > o[n])
        node.replace_all_uses_with(new)
        graph.erase_node(node)
    graph.lint()
    retraced = fx.GraphModule(owner, graph, class_name=type(owner).__name__)
    # GraphModule keeps what the graph refers to, in its order: state dicts need the rest and the order too
    for members in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
        setattr(retraced, members, getattr(owner, members))
    return retraced


def _constants(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call that are plain values, defaults included: they may steer the code."""
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    plain = (bool, int, float, str, type(None))
    return {name: value for name, value in bound.arguments.items() if isinstance(value, plain)}


def _output(network: nn.Module, image_shape: tuple[int, int, int]) -> Any:
    """Return the output in eval mode for one image of noise, always the same."""
    like = _like(network)
    with _untouched(network, training=False), _swapped(network, torch.clone):
        image = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(0))
        return network(image.to(like))


def _like(network: nn.Module) -> Tensor:
    """Return a tensor of the network's dtype and device."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))


@contextmanager
def _untouched(network: nn.Module, training: bool) -> Iterator[None]:
    """Run a network in train or in eval mode, without gradients, and restore each module's flag and the RNG."""
    before = {module: module.training for module in network.modules()}
    for module in before:
        module.training = training  # past train(), which some networks override
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, flag in before.items():
            module.training = flag


def _without_data(tensor: Tensor) -> Tensor:
    if tensor.ndim == 0 and not tensor.is_floating_point():  # a BatchNorm without momentum divides by its counter
        return tensor.detach().cpu().clone()
    return tensor.to("meta")


@contextmanager
def _swapped(network: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change every parameter and buffer, and put the network's own back at the end.

    Not ``torch.func.functional_call``: it leaves the changed ones in a module that the network has in two places.
    """
    members: list[Any] = [tensors for module in network.modules() for tensors in (module._parameters, module._buffers)]
    before = [dict(tensors) for tensors in members]
    try:
        for tensors in members:
            tensors.update({name: change(tensor) for name, tensor in tensors.items() if tensor is not None})
        yield
    finally:
        for tensors, own in zip(members, before, strict=True):
            tensors.clear()
            tensors.update(own)
