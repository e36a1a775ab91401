"""Checks of what would give wrong numbers: data, precision, batches and losses, each with an error of one sentence."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_adv.attacks import held_still
from lightning_adv.attacks.checks import check_images, check_labels
from lightning_adv.attacks.forward import check_logits
from lightning_adv.core.errors import NotFiniteError, UsageError
from lightning_adv.nn.domain_calls import through_domains


def check_shape(
    network: nn.Module, name: str, shape: tuple[int, ...], data: str, num_classes: int | None = None
) -> None:
    """Run one black image through the network: some take one size only.

    Args:
        network: The network.
        name: Its name, for the error.
        shape: Shape (C, H, W) of an image.
        data: The data module's name, for the error.
        num_classes: Number of classes K; None for any.

    Raises:
        UsageError: The network does not take such images, calls BatchNorms past their domains, or gives something else
            than logits (N, K).
    """
    like = next(network.parameters(), torch.empty(0))
    image = torch.zeros(1, *shape, device=like.device, dtype=like.dtype)
    try:
        # leaves flags and statistics as they are
        with held_still(network) as still, torch.no_grad(), through_domains(network):
            output = still(image)
    except (AssertionError, AttributeError, RuntimeError) as error:
        raise UsageError(
            f"backbone.name {name!r} does not take the images of {data}, of shape {tuple(shape)}: {error}"
            f"{_where(error)}"
        ) from error
    try:
        check_logits(output, 1, num_classes)
    except UsageError as error:
        raise UsageError(f"backbone.name {name!r}: {error}") from error


def _where(error: Exception) -> str:
    """Return the file and the line of the user's own code that an exception went through last; nothing for none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not {"site-packages", "lightning_adv"} & {*Path(frame.filename).parts}]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def check_precision(precision: str, argument: str = "trainer.precision") -> None:
    """Check that the images keep what an attack does to them.

    Args:
        precision: Lightning's name of it.
        argument: The argument that gave it, for the error.

    Raises:
        UsageError: The precision rounds an image by more than an attack moves it.
    """
    if precision.startswith(("16-true", "bf16-true")):
        raise UsageError(
            f"{argument} is {precision}, which rounds an image by more than a step of the attack; use 32-true, "
            "bf16-mixed or 16-mixed."
        )


def check_attack_precision(attack_precision: str, precision: str) -> None:
    """Check that attacks can compute in a lower precision than the network.

    Raises:
        UsageError: The network is in fp64, which autocast does not take down.
    """
    if attack_precision != "same" and precision.startswith("64"):
        raise UsageError(
            f"attack_precision is {attack_precision}, and trainer.precision {precision}: leave it at same, or train in "
            "32-true, bf16-mixed or 16-mixed."
        )


def check_last_epochs(number: int, max_epochs: int | None, max_steps: int, trained: bool) -> None:
    """Check that the last epochs on running statistics come, and that there are statistics to run on.

    Args:
        number: How many epochs they are.
        max_epochs: The Trainer's.
        max_steps: The Trainer's; -1 is no limit.
        trained: Whether the network starts from weights, and so from running statistics of their own.

    Raises:
        UsageError: It is not known which epochs are the last, or no epoch before them would set the statistics.
    """
    if max_epochs is None or max_epochs < 1 or max_steps != -1:
        raise UsageError(
            f"running_statistics_epochs is {number} and counts from the end: give trainer.max_epochs without "
            f"trainer.max_steps, got {max_epochs} and {max_steps}."
        )
    if number >= max_epochs and not trained:
        raise UsageError(
            f"running_statistics_epochs is {number}, and trainer.max_epochs {max_epochs}: it must be less, since a "
            "BatchNorm that was never trained has no running statistics."
        )


IMAGE_KEYS = ("image", "images", "img", "imgs", "pixel_values", "x")
"""What the images of a batch that is a dictionary may be called: by torchgeo, Hugging Face's data sets and others."""

LABEL_KEYS = ("label", "labels", "target", "targets", "y")
"""What its labels may be called."""


def as_pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Return a batch as images and labels; labels of any integer type, or booleans, as int64.

    Args:
        batch: A pair of images and labels, or a dictionary with one of :data:`IMAGE_KEYS` and one of
            :data:`LABEL_KEYS`, whose other entries do not count.

    Raises:
        UsageError: It is not that: only its data module can tell what the parts of another batch are.

    Example:
        >>> as_pair([torch.zeros(2, 1, 8, 8), torch.tensor([True, False])])[1]
        tensor([1, 0])
        >>> as_pair({"img": torch.zeros(2, 1, 8, 8), "label": torch.tensor([3, 4]), "file": ["a", "b"]})[1]
        tensor([3, 4])
    """
    parts = parts_of(batch)
    if not (len(parts) == 2 and all(isinstance(part, Tensor) for part in parts)):
        raise UsageError(
            "data: a batch must be a pair of tensors, images (N, C, H, W) and labels (N,), got "
            f"{describe_batch(batch)}: return such a pair from the data set, or from the data module's "
            f"on_after_batch_transfer, or a dictionary with one of {', '.join(IMAGE_KEYS)} and one of "
            f"{', '.join(LABEL_KEYS)}."
        )
    x, y = parts
    return x, y if y.is_floating_point() or y.is_complex() else y.long()


def images_alone(batch: Any) -> Tensor | None:
    """Return the images of a batch that has no labels; None for one that has more than one part."""
    parts = parts_of(batch)
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Tensor) else None


def parts_of(batch: Any) -> Sequence[Any]:
    """Return the images and labels of a batch, the images alone, or whatever else it has.

    Example:
        >>> [part.shape[0] for part in parts_of({"x": torch.zeros(3, 1, 8, 8), "file": ["a", "b", "c"]})]
        [3]
    """
    if isinstance(batch, Mapping):
        images, labels = ([batch[key] for key in keys if key in batch] for keys in (IMAGE_KEYS, LABEL_KEYS))
        return images + labels if len(images) == 1 else []  # of two images nobody knows which
    return batch if isinstance(batch, (tuple, list)) else [batch]


def describe_batch(batch: Any) -> str:
    """Return what a batch is, for an error."""
    if isinstance(batch, Tensor):
        return f"one tensor of shape {tuple(batch.shape)}"
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} with the keys {', '.join(map(str, batch))}"
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of {len(batch)} ({', '.join(type(part).__name__ for part in batch)})"
    return f"a {type(batch).__name__}"


def check_batch(x: Tensor, y: Tensor | None, in_channels: int, num_classes: int) -> None:
    """Check that a batch is of images (N, C, H, W) in [0, 1] and labels (N,) in [0, K); None where none are needed.

    Raises:
        UsageError: It is not.
    """
    if x.ndim != 4 or x.shape[1] != in_channels:
        raise UsageError(
            f"x must be images (N, {in_channels}, H, W) as backbone.in_channels says, got shape {tuple(x.shape)}."
            + (" Their channels come last: permute(0, 3, 1, 2)." if x.ndim == 4 and x.shape[3] == in_channels else "")
        )
    check_images(x, torch.zeros(len(x), dtype=torch.int64) if y is None else y)
    if y is not None:
        check_labels(y, num_classes)


def no_statistics(images: int) -> str:
    """Return what to say of a batch in which a BatchNorm in training has one value for each channel only."""
    return (
        f"A training batch of {images} image{'s' if images > 1 else ''} ends as one value for each channel before a "
        "BatchNorm, which cannot normalise by it: choose a batch_size that leaves more images for the last batch, let "
        "the loader drop that (drop_last=True), or train on larger images."
    )


def begin_again(checkpoints: Iterable[Any]) -> str:
    """Return the first words of the advice for a run that diverged: it can be resumed only from files that are there.

    Args:
        checkpoints: The Trainer's checkpoint callbacks.

    Example:
        >>> begin_again([])
        'Begin again with'
    """
    folders = dict.fromkeys(each.dirpath for each in checkpoints if getattr(each, "dirpath", None))
    files = [Path(folder) / name for folder in folders for name in ("last.ckpt", "best.ckpt")]
    kept = " or ".join(str(file.relative_to(file.parents[1])) for file in files if file.is_file())
    return f"Resume from {kept} with" if kept else "Begin again with"


def check_loss_form(loss: object, function: str, *, needs_gradient: bool) -> None:
    """Check that what a function gives for a loss can be minimised.

    Args:
        loss: What it gave.
        function: Its name, for the error.
        needs_gradient: Whether the loss is what the optimizer's step follows.

    Raises:
        TypeError: It is not a tensor of one number, or has no gradient although gradients are on.
    """
    if not isinstance(loss, Tensor):
        got = f"a {type(loss).__name__}"
    elif loss.numel() != 1 or not loss.is_floating_point():
        got = f"{loss.dtype} of shape {tuple(loss.shape)}"
    elif needs_gradient and torch.is_grad_enabled() and not loss.requires_grad:
        got = "a tensor that is detached from the network"
    else:
        return
    raise TypeError(f"{function} must return a tensor of one number with a gradient, got {got}.")


def check_training_loss(loss: Tensor, step: int, epoch: int, checkpoints: Iterable[Any] = ()) -> None:
    """Check that a training loss is a number, before its gradient touches the weights.

    Args:
        loss: The loss.
        step: The number of steps that were made.
        epoch: The epoch.
        checkpoints: The Trainer's checkpoint callbacks.

    Raises:
        NotFiniteError: The loss is NaN or infinite.
    """
    if not torch.isfinite(loss):
        raise NotFiniteError(
            f"The training loss is {loss.item()} at step {step} (epoch {epoch}). Training stops before the weights are "
            f"touched again. {begin_again(checkpoints)} a lower learning rate, clip gradients "
            "(trainer.gradient_clip_val) or use a wider precision."
        )


def check_measured_losses(losses: Mapping[str, Tensor], stage: str) -> None:
    """Check that a network computed numbers on all images that it was measured on.

    Args:
        losses: Mean losses by name, such as ``robust_loss``.
        stage: ``"val"`` or ``"test"``.

    Raises:
        NotFiniteError: It did not: its accuracies would be those of a guess of the first class.
    """
    for name, loss in losses.items():
        if not torch.isfinite(loss):
            raise NotFiniteError(
                f"{stage}/{name} is {loss.item()}: the network computes NaN or infinite numbers on these images, and "
                "its accuracies mean nothing. Use a wider precision (trainer.precision), or another checkpoint."
            )


def check_validation_loss(loss: Tensor, step: int, epoch: int) -> None:
    """Check that a network computes numbers, before it is saved.

    Raises:
        NotFiniteError: The loss is NaN or infinite.
    """
    if not torch.isfinite(loss):
        raise NotFiniteError(
            f"The validation loss is {loss.item()} after step {step} (epoch {epoch}). Training stops before the "
            "weights are saved. Lower the learning rate, clip gradients (trainer.gradient_clip_val) or use a wider "
            "precision."
        )
