"""SmoothReLU: ReLU with its kink made smooth on the positive side only.

Xie, "Towards Robust Representation Learning and Beyond" (2020), section 5.4.2.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Container, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_adv.core.errors import UsageError


class SmoothReLU(nn.Module):
    """x - log(αx + 1) / α for x ≥ 0, else 0 (equation 5.4), with derivative αx / (1 + αx) (equation 5.5).

    One α is learned, shared by all channels: the square of the parameter ``beta``, as in the authors' code, so that it
    stays positive whatever the optimizer does. The gradient by α is minute, 1e-10 to 1e-6 where α is 400: in steps of
    400 itself it would vanish in rounding (fp32 has a number every 3e-5 there), while β = 20 is finer by 16 and moves
    40 times as fast. Half-precision features are computed in float32 inside.

    State dicts of before, whose ``raw_alpha`` has α as its softplus, load with the same α.

    Args:
        alpha: Where α starts.

    Raises:
        UsageError: ``alpha`` is not positive.

    Example:
        >>> SmoothReLU(alpha=1.0)(torch.tensor([-1.0, math.e - 1])).tolist()
        [0.0, 0.718281...]
    """

    SMALLEST = 1e-6  # below, 1 / α² would soon overflow

    def __init__(self, alpha: float = 400.0) -> None:
        super().__init__()
        alpha = max(positive(alpha), self.SMALLEST)
        self.beta = nn.Parameter(torch.tensor(math.sqrt(alpha)))
        self.register_load_state_dict_pre_hook(_rename_on_load)  # type: ignore[no-untyped-call]

    @property
    def alpha(self) -> Tensor:
        """The positive α, of shape ()."""
        return self.beta.square().clamp_min(self.SMALLEST)

    def forward(self, x: Tensor) -> Tensor:
        """Map features of any shape, elementwise."""
        y: Tensor = _SmoothReLU.apply(x, self.alpha)
        return y

    def extra_repr(self) -> str:
        """Show α when the network is printed."""
        return f"alpha={self.alpha.item():.6g}"


def renew_alpha(state: Mapping[str, Tensor], own: Container[str]) -> OrderedDict[str, Tensor]:
    """Return a state dict with the ``beta`` of each SmoothReLU in place of the ``raw_alpha`` that it had before.

    Args:
        state: The state dict; it is not changed.
        own: The keys of the network that it is for. A ``raw_alpha`` that is the network's own stays.
    """
    renewed = OrderedDict[str, Tensor]()
    for key, value in state.items():
        new = f"{key.removesuffix(_OLD)}beta"
        if key.rpartition(".")[2] == _OLD and new in own and key not in own and new not in state:
            key, value = new, _to_beta(value)
        renewed[key] = value
    if hasattr(state, "_metadata"):
        renewed._metadata = state._metadata  # type: ignore[attr-defined]
    return renewed


_OLD = "raw_alpha"


def _to_beta(raw_alpha: Tensor) -> Tensor:
    """Return the β of the α that is the softplus of ``raw_alpha``, to the rounding of its own dtype."""
    alpha = F.softplus(raw_alpha.double()).clamp_min(SmoothReLU.SMALLEST)
    return alpha.sqrt().to(raw_alpha.dtype)


def _rename_on_load(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    if prefix + _OLD in state and f"{prefix}beta" not in state:
        state[f"{prefix}beta"] = _to_beta(state.pop(prefix + _OLD))


class _SmoothReLU(torch.autograd.Function):
    """Equation 5.4 with its closed-form derivatives.

    With z = αx and s = z / (2 + z), log(1 + z) = 2 artanh(s), so that for small z
    z - log(1 + z) = sz - 2 (s³/3 + s⁵/5 + ...): no cancellation. Negative x are clamped first: no branch has a NaN.
    """

    @staticmethod
    def forward(x: Tensor, alpha: Tensor) -> Tensor:
        positive, alpha = at_least_float32(x).clamp_min(0), at_least_float32(alpha)
        z = alpha * positive
        s, tail = _artanh_tail(z)
        y = torch.where(z < 0.5, (s * z - tail) / alpha, positive - z.log1p() / alpha)
        # Not y.to(x.dtype) alone: where that changes nothing, torch.compile of torch 2.11 gives a wrong gradient.
        return y if y.dtype == x.dtype else y.to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None]:
        (grad,), (x, alpha) = grads, ctx.saved_tensors
        positive, a = at_least_float32(x).clamp_min(0), at_least_float32(alpha)
        z = a * positive
        slope = z / (1 + z)  # equation 5.5
        grad_alpha = None
        if ctx.needs_input_grad[1]:
            s, tail = _artanh_tail(z)
            by_alpha = torch.where(z < 0.5, s * slope + tail, z.log1p() - slope) / a**2
            grad_alpha = (grad * by_alpha).sum().to(alpha.dtype)
        return (grad * slope).to(x.dtype), grad_alpha


def _artanh_tail(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return s = z / (2 + z) and 2 (s³/3 + s⁵/5 + ...), exact to rounding for z up to 1/2."""
    s = z / (2 + z)
    square = s * s
    terms = 10 if z.dtype == torch.float64 else 4
    series = torch.full_like(z, 1 / (2 * terms + 1))
    for term in reversed(range(terms - 1)):
        series = series * square + 1 / (2 * term + 3)
    return s, 2 * s * square * series


def at_least_float32(x: Tensor) -> Tensor:
    """Return half-precision features as float32, others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def positive(value: float, name: str = "alpha") -> float:
    """Return an activation's setting as a float.

    Raises:
        UsageError: It is not positive or not finite.
    """
    if not 0 < value < math.inf:
        raise UsageError(f"{name} of an activation must be a positive number, got {value}.")
    return float(value)
