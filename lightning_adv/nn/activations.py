"""Smooth activations for adversarial training, and a network's ReLUs replaced by them.

Xie, "Towards Robust Representation Learning and Beyond" (2020), chapter 5: ReLU's gradient jumps at 0, which
weakens both the attack and the weight update. Smooth adversarial training (SAT) uses smooth activations only
(section 5.4); the control experiment keeps ReLU forward and makes its gradient smooth (section 5.3, table 5.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.nn.functional_relus import RELUS, find_functional_relus, make_relus_modules
from lightning_adv.nn.smooth_relu import SmoothReLU, at_least_float32, positive
from lightning_adv.nn.surgery import replace_modules


class ParametricSoftplus(nn.Softplus):
    """log(1 + exp(αx)) / α (equation 5.2), with derivative sigmoid(αx) (equation 5.3).

    Above αx = 40 it is x, which in float64 differs from it by less than rounding. torch's own threshold of 20 leaves
    a jump of 2e-9 / α there.

    Args:
        alpha: Curvature α > 0; the limit for large α is ReLU.

    Raises:
        UsageError: ``alpha`` is not positive.
    """

    def __init__(self, alpha: float = 10.0) -> None:
        super().__init__(beta=positive(alpha), threshold=40.0)


class GradientSwitch:
    """Whether the gradient is the smooth one. All :class:`SmoothBackwardReLU` of one network share one switch."""

    def __init__(self) -> None:
        self.smooth = False


class SmoothBackwardReLU(nn.Module):
    """ReLU, whose gradient is sigmoid(αx) (equation 5.3) inside :func:`smooth_backward`, and ReLU's outside.

    The output is that of ``nn.ReLU`` to the last bit, always. The gradient is decided in the forward pass: backward
    may come after the context has closed. It has no parameters: state-dict keys are those of the network with ReLU.

    Args:
        alpha: α > 0 of the softplus whose gradient is used.
        cap: The largest output, for ReLU6. The gradient is then sigmoid(αx) - sigmoid(α(x - cap)).

    Raises:
        UsageError: ``alpha`` or ``cap`` is not positive.
    """

    def __init__(self, alpha: float = 10.0, cap: float | None = None) -> None:
        super().__init__()
        self.alpha = positive(alpha)
        self.cap = None if cap is None else positive(cap, "cap")
        self.gradient_switch = GradientSwitch()

    def forward(self, x: Tensor) -> Tensor:
        """Map features of any shape, elementwise."""
        if not self.gradient_switch.smooth:
            return _relu(x, self.cap)
        y: Tensor = _SmoothGradient.apply(x, self.alpha, self.cap)
        return y

    def extra_repr(self) -> str:
        """Show the settings when the network is printed."""
        return f"alpha={self.alpha}" + ("" if self.cap is None else f", cap={self.cap}")


class _SmoothGradient(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, alpha: float, cap: float | None) -> Tensor:
        return _relu(x, cap)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float | None], output: Tensor) -> None:
        x, ctx.alpha, ctx.cap = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,), (x,) = grads, map(at_least_float32, ctx.saved_tensors)
        slope = (ctx.alpha * x).sigmoid()
        if ctx.cap is not None:
            slope = slope - (ctx.alpha * (x - ctx.cap)).sigmoid()
        return (grad * slope).to(grad.dtype), None, None


@contextmanager
def smooth_backward(network: nn.Module) -> Iterator[None]:
    """Give every :class:`SmoothBackwardReLU` of a network its smooth gradient. Contexts nest.

    Forward passes inside the context get the smooth gradient, whenever their backward pass comes.

    Args:
        network: A network whose ReLUs were replaced by ``smooth_backward_relu``, or a module that contains one.

    Raises:
        UsageError: The network has no such activation, or checkpoints its gradients: the forward pass that is repeated
            for them would come after the context has closed, with the other gradient.

    Example:
        >>> x, network = torch.zeros(1, requires_grad=True), SmoothBackwardReLU()
        >>> with smooth_backward(network):
        ...     smooth = torch.autograd.grad(network(x), x)[0]
        >>> smooth, torch.autograd.grad(network(x), x)[0]
        (tensor([0.5000]), tensor([0.]))
    """
    modules = list(network.modules())
    switches = {module.gradient_switch for module in modules if isinstance(module, SmoothBackwardReLU)}
    if not switches:
        raise UsageError("smooth_backward needs a model whose activation is 'smooth_backward_relu', and it has none.")
    if any(vars(module).get("grad_checkpointing") for module in modules):
        raise UsageError("smooth_backward does not work with gradient checkpointing: switch it off in the network.")
    before = {switch: switch.smooth for switch in switches}
    for switch in switches:
        switch.smooth = True
    try:
        yield
    finally:
        for switch, smooth in before.items():
            switch.smooth = smooth


def _softplus() -> nn.Module:
    return ParametricSoftplus(alpha=1.0)


ACTIVATIONS: Mapping[str, Callable[..., nn.Module]] = {
    "softplus": _softplus,
    "parametric_softplus": ParametricSoftplus,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "smooth_relu": SmoothReLU,
    "smooth_backward_relu": SmoothBackwardReLU,
}
"""Activations by name. ELU is smooth for alpha = 1, its default, only (section 5.4.3); the others for every setting."""

ON_PURPOSE = (*RELUS, SmoothBackwardReLU)  # modules that are to call a ReLU

# class names of activations without a kink, in torch, timm and here
SMOOTH = {"SiLU", "SiLUT", "Swish", "GELU", "GELUTanh", "QuickGELU", "Mish", "ELU", "CELU", "Softplus", "Sigmoid"}
SMOOTH |= {"Tanh", "LogSigmoid", "Softsign", "ParametricSoftplus", "SmoothReLU"}


def replace_activations(
    network: nn.Module,
    name: str,
    *,
    options: Mapping[str, Any] | None = None,
    image_shape: tuple[int, int, int],
) -> nn.Module:
    """Replace every ReLU of a network, be it a module, inside another module or a function call.

    ReLU6 counts as a ReLU; a smooth activation has no upper bound, ``smooth_backward_relu`` keeps it. Other kinks
    stay: max-pooling, as in the paper, gates (Sigmoid, Hardsigmoid), Hardswish, LeakyReLU, and ``clamp(min=0)``, which
    guards positions and roots rather than activates. A ReLU module that the network uses in several places, as
    torchvision's ResNet blocks do, stays one: with ``smooth_relu`` these places learn one α.

    Function calls are found by running the network on images without data. The module that makes the call is retraced
    by ``torch.fx`` with a child in place of the call; it keeps its children, parameters and buffers, and loses its
    class's methods and its hooks. State-dict keys stay as they are, but for the parameters of ``smooth_relu``.

    Args:
        network: Any timm or torchvision classifier. It is changed in place.
        name: One of :data:`ACTIVATIONS`.
        options: Keyword arguments of the activation, such as ``{"alpha": 5.0}``.
        image_shape: (C, H, W) of the images that the network takes.

    Returns:
        ``network``, or its retraced version where a function call lies in the ``forward`` of ``network`` itself.

    Raises:
        UsageError: There is no such activation, the options do not fit it, the network does not take such images, it
            has no ReLU, or a ReLU cannot be reached.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> replace_activations(network, "silu", image_shape=(3, 8, 8))[1]
        SiLU()
    """
    make = _factory(network, name, {} if options is None else dict(options))
    network = make_relus_modules(network, image_shape, ignore=ON_PURPOSE)
    relus = [module for module in network.modules() if isinstance(module, RELUS)]
    if not relus:
        raise UsageError(_no_relu(network, name))
    # Never in place, whatever the ReLU was: the smooth derivatives need the input.
    new: dict[nn.Module, nn.Module] = {relu: make(isinstance(relu, nn.ReLU6)).train(relu.training) for relu in relus}
    network = replace_modules(network, new, purpose=f"activation {name!r}")
    left = find_functional_relus(network, image_shape, ignore=ON_PURPOSE)
    if left:
        raise UsageError(
            f"activation {name!r} was put in the place of every ReLU, but there is still {left[0].describe()}: the "
            "network keeps a ReLU where it cannot be found, beside its registered modules."
        )
    return network


def find_kinks(network: nn.Module, image_shape: tuple[int, int, int]) -> list[str]:
    """Describe every activation of a network that is not smooth: ReLUs, modules or function calls, and other modules.

    Args:
        network: Any timm or torchvision classifier, which is left as it is.
        image_shape: (C, H, W) of the images that the network takes.

    Raises:
        UsageError: The network does not take such images.

    Example:
        >>> find_kinks(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (3, 8, 8))
        ['the ReLU at 1']
    """
    kinks = [
        f"the {type(module).__name__} at {name}"
        for name, module in network.named_modules()
        if isinstance(module, RELUS) or (_is_activation(module) and type(module).__name__ not in SMOOTH)
    ]
    return kinks + [call.describe() for call in find_functional_relus(network, image_shape, ignore=ON_PURPOSE)]


def _factory(network: nn.Module, name: str, options: dict[str, Any]) -> Callable[[bool], nn.Module]:
    """Return what builds one activation of the network, given whether it stands for a ReLU6."""
    if name not in ACTIVATIONS:
        hint = did_you_mean(name, ACTIVATIONS)
        raise UsageError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}.{hint}")
    try:
        ACTIVATIONS[name](**options)
    except TypeError as error:
        raise UsageError(f"options {options} do not fit activation {name!r}: {error}.") from error
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    switch = GradientSwitch()

    def make(capped: bool) -> nn.Module:
        activation = ACTIVATIONS[name](**options).to(like)
        if isinstance(activation, SmoothBackwardReLU):
            activation.gradient_switch = switch
            if capped and "cap" not in options:
                activation.cap = 6.0
        return activation

    return make


def _is_activation(module: nn.Module) -> bool:
    homes = ("torch.nn.modules.activation", "timm.layers.activations", SmoothReLU.__module__, __name__)
    return type(module).__module__.startswith(homes) and not isinstance(module, nn.MultiheadAttention)


def _no_relu(network: nn.Module, name: str) -> str:
    names = sorted({type(module).__name__ for module in network.modules() if _is_activation(module)})
    message = f"activation {name!r} replaces ReLUs, and {type(network).__name__} has none"
    if not names:
        return f"{message}."
    if SMOOTH.issuperset(names):
        return f"{message}: its activations ({', '.join(names)}) are smooth already, so leave activation out."
    return f"{message}: its activations are {', '.join(names)}."


def _relu(x: Tensor, cap: float | None) -> Tensor:
    return torch.relu(x) if cap is None else F.hardtanh(x, 0.0, cap)  # hardtanh, as in nn.ReLU6
