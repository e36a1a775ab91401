"""How an attack sees a network: images to logits, in a precision that attacks can work in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from lightning_adv.attacks.checks import check_labels
from lightning_adv.core.errors import UsageError

_NO_GRADIENT = (
    "The network's logits have no gradient to its images, as where a forward pass rounds, compares, detaches or runs "
    "under no_grad: no gradient attack can be run on it; a black-box attack can, such as RandomNoise or "
    "AutoAttack(attacks=['square'])."
)


class Forward:
    """A network as a function: images (n, C, H, W) to logits (n, K), in fp32 or more.

    Where the network computes in a half precision, the gradient to its logits is scaled by a power of two on the way
    back and the gradient to the images scaled back, so that it does not underflow: it is the same number otherwise.

    Args:
        network: Maps images to logits.
        dtype: The dtype in which it takes its images: that of the images which are attacked.
        y: Labels, which are checked at the first call, when the number of classes is known; None checks none.
        independent: Whether a sample's logits depend on its own image only, as with BatchNorm in eval mode.

    Raises:
        UsageError: In a call: the network gives something else than logits, or labels leave [0, K).

    Example:
        >>> forward = Forward(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).bfloat16(), torch.bfloat16)
        >>> forward(torch.rand(5, 3, 2, 2)).dtype
        torch.float32
    """

    def __init__(
        self, network: nn.Module, dtype: torch.dtype, y: Tensor | None = None, *, independent: bool = True
    ) -> None:
        self.network = network
        self.dtype = dtype
        self._unchecked = y
        self._axes = (1,) if independent else (0, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits."""
        seen = images.view_as(images) if images.requires_grad else images
        logits = check_logits(self.network(seen.to(self.dtype)), len(images))
        if self._unchecked is not None:
            check_labels(self._unchecked, logits.shape[1])
            self._unchecked = None
        wide = at_least_fp32(logits)
        if wide is not logits and wide.requires_grad and seen.requires_grad:
            _keep_from_underflow(seen, wide, self._axes)
        return wide


def _keep_from_underflow(images: Tensor, logits: Tensor, axes: tuple[int, ...]) -> None:
    """Scale the gradient that goes back from logits (n, K) to about 1, and that which comes to images (n, ...) back."""
    exponent = logits.new_zeros(1, 1)

    def scale(gradient: Tensor) -> Tensor:
        nonlocal exponent
        largest = gradient.detach().abs().amax(axes, keepdim=True)
        exponent = torch.where(largest.isfinite() & (largest > 0), torch.frexp(largest).exponent - 1, 0)
        return torch.ldexp(gradient, -exponent)

    def scale_back(gradient: Tensor) -> Tensor:
        return torch.ldexp(gradient, exponent.view((-1,) + (1,) * (gradient.ndim - 1)))

    logits.register_hook(scale)  # type: ignore[no-untyped-call]
    images.register_hook(scale_back)  # type: ignore[no-untyped-call]


def at_least_fp32(tensor: Tensor) -> Tensor:
    """Return a tensor of a half precision in fp32, and any other as it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def check_logits(output: object, images: int, num_classes: int | None = None) -> Tensor:
    """Return what a network gave for a number of images, if it is logits (N, K) of at least two classes.

    Args:
        output: What it gave.
        images: The number N of images.
        num_classes: The number K of classes; None for any.

    Raises:
        UsageError: It is not.
    """
    if isinstance(output, Tensor) and output.ndim == 2 and len(output) == images and output.shape[1] > 1:
        if num_classes not in (None, output.shape[1]):
            raise UsageError(f"The network gives {output.shape[1]} logits, and there are {num_classes} classes.")
        return output
    if isinstance(output, Tensor):
        told = f"a tensor of shape {tuple(output.shape)}"
    elif isinstance(output, Mapping):
        told = f"a {type(output).__name__} with the keys {', '.join(map(str, output))}"
    elif isinstance(output, tuple | list):
        told = f"a {type(output).__name__} of {len(output)}"
    else:
        told = f"a {type(output).__name__}"
    advice = "" if isinstance(output, Tensor) else ": wrap it in a module that returns its logits alone"
    raise UsageError(f"The network must give logits ({images}, K) with K of at least 2, got {told}{advice}.")


class NoGradientError(UsageError):
    """A network's logits have no gradient to its images."""

    def __init__(self, message: object = _NO_GRADIENT, *, key: str | None = None) -> None:
        super().__init__(message, key=key)


def gradient_to(images: Tensor, logits: Tensor, ascent: Tensor) -> Tensor:
    """Return the gradient (N, ...) to images of the logits (N, K) weighted by ``ascent`` (N, K).

    Raises:
        NoGradientError: There is none.
    """
    gradient = torch.autograd.grad(logits, images, ascent, allow_unused=True)[0] if logits.requires_grad else None
    if gradient is None:
        raise NoGradientError
    return gradient


def check_gradient(forward: Callable[[Tensor], Tensor], images: Tensor) -> None:
    """Check that logits have a gradient to images (N, ...), for an attack of another package, which would not say so.

    Raises:
        NoGradientError: They have none.
    """
    with torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        logits = forward(leaf)
        gradient_to(leaf, logits, torch.ones_like(logits))


def round_towards(x: Tensor, adversarial: Tensor) -> Tensor:
    """Cast to ``x``'s dtype so that rounding never leaves the ball: towards ``x``, entry by entry."""
    adversarial = adversarial.detach()
    if x.dtype == adversarial.dtype:
        return adversarial
    cast, clean = adversarial.to(x.dtype), x.detach()
    outside = (cast.float() - clean.float()).abs() > (adversarial - clean.float()).abs()
    return torch.where(outside, torch.nextafter(cast, clean), cast)
