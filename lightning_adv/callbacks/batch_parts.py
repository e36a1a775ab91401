"""How images and labels come out of a batch, and between which numbers the images lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.nn.normalize import Normalize
from lightning_adv.regimes.checks import describe_batch

BatchChoice: TypeAlias = list[str | int] | Callable[[Any], Any] | None
"""Where a batch has its images and its labels: two keys of a dict (or names of attributes), or two positions in a
tuple, as in ``[image, label]`` or ``[0, 2]``; or a function of the batch that returns the two. None: the batch is a
pair of images and labels."""


class BatchParts:
    """Takes the images and the labels out of a batch.

    Args:
        choice: See :data:`BatchChoice`. Where no labels are needed, one key or position is enough.
        key: What errors call it, such as ``local_response.batch``.
        labels: Whether the labels are needed.

    Raises:
        UsageError: ``choice`` is something else. In a call: the batch has no such parts.

    Example:
        >>> x, y = BatchParts(["image", "label"], "batch")({"image": torch.zeros(1), "label": torch.ones(1)})
        >>> y
        tensor([1.])
    """

    def __init__(self, choice: BatchChoice | Sequence[str | int], key: str, *, labels: bool = True) -> None:
        given: Any = choice
        listed = isinstance(given, Sequence) and not isinstance(given, str)
        named = listed and all(isinstance(part, str | int) and not isinstance(part, bool) for part in given)
        if choice is not None and not callable(choice) and not (named and len(given) in ((2,) if labels else (1, 2))):
            raise UsageError(
                f"{key} must be the keys or positions of images and labels, such as [image, label] or [0, 1], or a "
                f"function of a batch that returns the two, got {choice!r}."
            )
        self._choice, self._key, self._labels = choice, key, labels

    def __call__(self, batch: Any) -> tuple[Tensor, Any]:
        """Return the images, and the labels; None for labels that are neither there nor needed."""
        images, labels = self._parts(batch)
        for part, told in ((images, "images"), *(((labels, "labels"),) if self._labels else ())):
            if not isinstance(part, Tensor):
                raise UsageError(f"{self._key}: the {told} of a batch must be a tensor, got a {type(part).__name__}.")
        return images, labels

    def _parts(self, batch: Any) -> tuple[Any, Any]:
        choice = self._choice
        if choice is None:
            return self._pair(batch)
        if callable(choice):
            given = choice(batch)
            if isinstance(given, Tensor) and not self._labels:
                return given, None
            if not isinstance(given, tuple | list) or len(given) != 2:
                raise UsageError(
                    f"{self._key}: the function must return images and labels, got {describe_batch(given)}."
                )
            return given[0], given[1]
        images, *labels = (self._part(batch, part) for part in choice)
        return images, labels[0] if labels else None

    def _pair(self, batch: Any) -> tuple[Any, Any]:
        """Return the parts of a batch of which nobody has said what they are."""
        if isinstance(batch, tuple | list) and len(batch) == 2:
            return batch[0], batch[1]
        if not self._labels and isinstance(batch, Tensor):
            return batch, None
        raise UsageError(
            f"{self._key} must say where a batch has its images and labels, as in [image, label] or [0, 1]: this "
            f"one is not a pair, but {describe_batch(batch)}."
        )

    def _part(self, batch: Any, part: str | int) -> Any:
        try:
            return batch[part]
        except (KeyError, IndexError, TypeError):
            if isinstance(part, str) and hasattr(batch, part):
                return getattr(batch, part)
        hint = did_you_mean(part, map(str, batch)) if isinstance(batch, dict) else ""
        raise UsageError(f"{self._key} has {part!r}, which is not in the batch, {describe_batch(batch)}.{hint}")


class Pixels:
    """Takes normalised images to pixels in [0, 1], where an attack's ``eps`` is a distance, and back.

    Args:
        mean: The mean of each channel, by which the images of a batch are normalised; None where they lie in [0, 1].
        std: The standard deviation of each channel.
        key: What errors begin with, such as ``local_response``.

    Raises:
        UsageError: One of the two is missing, or they are no mean and deviation.

    Example:
        >>> pixels = Pixels([0.5], [0.25], "local_response")
        >>> pixels.of(torch.full((1, 1, 1, 1), 2.0)).item()
        1.0
    """

    def __init__(self, mean: Sequence[float] | None, std: Sequence[float] | None, key: str) -> None:
        if (mean is None) != (std is None):
            raise UsageError(f"{key}.mean and {key}.std belong together, got {mean} and {std}.")
        try:
            self.normalize = None if mean is None or std is None else Normalize(mean, std)
        except UsageError as error:
            raise error.under(key) from error
        self._key = key

    def of(self, x: Tensor, *, look: bool = True) -> Tensor:
        """Return images (N, C, H, W) as pixels in [0, 1]; without ``look``, nobody looks whether they are there.

        Raises:
            UsageError: They are not images, or not in [0, 1].
        """
        if not x.is_floating_point() or x.ndim < 2:
            raise UsageError(
                f"{self._key}.batch: images must be floating-point numbers (N, C, H, W), got {x.dtype} of shape "
                f"{tuple(x.shape)}."
            )
        if self.normalize is None:
            pixels, advice = x, "give the mean and the std by which the data module has normalised them"
        else:
            mean, std = (value.to(x) for value in (self.normalize.mean, self.normalize.std))
            if x.shape[1:2] != mean.shape[:1]:
                raise UsageError(
                    f"{self._key}.mean has {len(mean)} values, one for each channel, and the images have the shape "
                    f"{tuple(x.shape)}."
                )
            pixels, advice = x * std + mean, f"{self._key}.mean and {self._key}.std are others than the data's"
        if look and x.numel():
            low, high = torch.stack(torch.aminmax(pixels.detach())).tolist()
            slack = 0.0 if self.normalize is None else max(1e-5, 4 * torch.finfo(x.dtype).eps)  # what rounding does
            if not (low >= -slack and high <= 1 + slack):
                raise UsageError(
                    f"{self._key}: the images must lie in [0, 1], where eps is a distance in pixels, and go from "
                    f"{low:g} to {high:g}: {advice}."
                )
        return pixels if self.normalize is None else pixels.clamp(0, 1)

    def back(self, pixels: Tensor, x: Tensor, clean: Tensor) -> Tensor:
        """Return pixels as the batch has its images; what no attack has moved, it gives back to the last bit.

        Args:
            pixels: Images (N, C, H, W) in [0, 1].
            x: The images of the batch.
            clean: The same as pixels.
        """
        return pixels if self.normalize is None else x + (pixels - clean) / self.normalize.std.to(x)
