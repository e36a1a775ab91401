"""What is checked of the images, labels and arguments of every attack."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_adv.core.errors import UsageError


def trust(*tensors: Tensor) -> None:
    """Say that images lie in [0, 1], or labels in [0, K): nothing looks at their values again until they change.

    Each look reads numbers of the device, and an accelerator waits for the host meanwhile. Shapes and dtypes are
    checked all the same.

    Example:
        >>> y = torch.tensor([7])
        >>> trust(y)
        >>> check_labels(y, 2)
    """
    for tensor in tensors:
        tensor._values_trusted = _version(tensor)  # type: ignore[attr-defined]


def _trusted(tensor: Tensor) -> bool:
    return getattr(tensor, "_values_trusted", None) == _version(tensor)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version  # an inference tensor counts no versions


def check_images(x: Tensor, y: Tensor) -> None:
    """Check that ``x`` (N, ...) are images in [0, 1] and ``y`` (N,) integer labels.

    Raises:
        UsageError: They are not.
    """
    for name, given in (("x", x), ("y", y)):
        if not isinstance(given, Tensor):
            raise UsageError(f"{name} must be a tensor, got a {type(given).__name__}.")
    if not x.is_floating_point() or x.ndim < 2:
        advice = " Divide bytes by 255: torchvision's ToDtype(torch.float32, scale=True)."
        raise UsageError(
            f"x must be floating-point images (N, C, H, W), got {x.dtype} of shape {tuple(x.shape)}."
            + (advice if x.dtype == torch.uint8 else "")
        )
    if y.is_floating_point() or y.shape != x.shape[:1]:
        raise UsageError(
            f"y must be integer labels of shape ({len(x)},), one for each image, got {y.dtype} of shape "
            f"{tuple(y.shape)}."
        )
    if x.numel() and not _trusted(x):
        low, high = torch.stack(torch.aminmax(x.detach())).tolist()  # one read: on an accelerator each of them waits
        if not (low >= 0 and high <= 1):  # written so that NaN fails too
            advice = (
                "Divide bytes by 255."
                if low >= 0 and 2 < high <= 255
                else "Leave normalisation to the network (Backbone's mean and std) and take it out of the data's "
                "transform, so that eps is a distance in pixels."
            )
            raise UsageError(f"x must lie in [0, 1], got values from {low:g} to {high:g}. {advice}")


def check_labels(y: Tensor, num_classes: int) -> None:
    """Check that labels (N,) lie in [0, ``num_classes``).

    Raises:
        UsageError: They do not.
    """
    if y.numel() and not _trusted(y):
        low, high = torch.stack(torch.aminmax(y)).tolist()
        if low < 0 or high >= num_classes:
            raise UsageError(f"y must lie in [0, {num_classes}), got labels from {low} to {high}.")


def check_counts(attack: object, *names: str) -> None:
    """Check that arguments are whole numbers of at least 1.

    Raises:
        UsageError: One is not.
    """
    for name in names:
        given = getattr(attack, name)
        if not isinstance(given, int) or given < 1:
            raise UsageError(f"{name} must be an integer of at least 1, got {given!r}.")
