"""What a network shows when it is asked twice, in other company, or for its gradient.

Three of these checks are AutoAttack's flags (Croce & Hein 2020; ``checks.py`` and ``flags_doc.md`` of its repository):
randomised output, probabilities instead of logits, zero gradients. Each function gives a
:class:`~lightning_adv.evaluation.suspicion.verdicts.Suspicion` or None, and leaves the network and the global random
state of torch as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.attacks import held_still
from lightning_adv.attacks.checks import check_images, check_labels
from lightning_adv.attacks.forward import at_least_fp32
from lightning_adv.attacks.logits import logits_in_batches
from lightning_adv.attacks.losses import log_odds
from lightning_adv.core.errors import UsageError
from lightning_adv.evaluation.suspicion.verdicts import Suspicion
from lightning_adv.nn.batchnorm import without_domain

_NAMED = 5  # so many modules are named, the others counted


@contextmanager
def random_state_kept(x: Tensor) -> Iterator[None]:
    """Give the global random states back as they were: a network that draws noise takes it from there."""
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        yield


def network_logits(network: nn.Module, x: Tensor, *, batch_size: int = 256) -> Tensor:
    """Return the logits (N, K) of images (N, C, H, W) in eval mode, in float32 or wider.

    Raises:
        UsageError: What the network gives is not (N, K) with at least two classes, or is NaN.
    """
    parts = logits_in_batches(network, x, batch_size=batch_size)
    for part, images in zip(parts, torch.split(x, batch_size), strict=True):
        told = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
        if not isinstance(part, Tensor) or part.ndim != 2 or len(part) != len(images) or part.shape[1] < 2:
            raise UsageError(f"network must give logits ({len(images)}, K) with K of at least 2, got {told}.")
    logits = at_least_fp32(torch.cat(parts))
    rows = int(logits.isnan().any(1).sum())
    if rows:
        raise UsageError(f"network gives NaN logits for {rows} of {len(x)} images: no verdict on them means anything.")
    return logits


def zero_gradients(network: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 256) -> Suspicion | None:
    """Suspect a network that gives a gradient attack nothing to follow, be it at one image (as AutoAttack does).

    The gradient is that of the log-odds against the label, which grow with the cross-entropy but do not saturate: a
    confident network alone has no zero gradients. Zero means exactly zero in each pixel.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K). It is in eval mode meanwhile.
        x: Clean images (N, C, H, W) in [0, 1], at least one.
        y: Labels (N,).
        batch_size: How many images to look at at a time.

    Raises:
        UsageError: These are no images in [0, 1] with labels of the network.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)).eval()
        >>> torch.nn.init.zeros_(network[1].weight).sum().item()
        0.0
        >>> zero_gradients(network, torch.rand(5, 3, 2, 2), torch.zeros(5, dtype=torch.long)).name
        'zero_gradients'
    """
    _check_probe(x, y)
    zero, broken, differentiable = 0, 0, True
    with random_state_kept(x), held_still(network) as still:
        for images, labels in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
            leaf = images.detach().clone().requires_grad_()
            logits = at_least_fp32(still(leaf))
            check_labels(labels, logits.shape[1])
            gradient = torch.zeros_like(leaf)
            if logits.requires_grad:
                loss = log_odds(logits, labels.clone().long()).sum()
                (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True, materialize_grads=True)
            differentiable = differentiable and logits.requires_grad
            zero += int((gradient == 0).flatten(1).all(1).sum())
            broken += int((~gradient.isfinite()).flatten(1).any(1).sum())
    if not zero + broken:
        return None
    told = "; its output is cut off from its input" if not differentiable else ""
    return Suspicion(
        "zero_gradients",
        f"The gradient is zero at {zero} of {len(x)} images and not finite at {broken}{told}. Gradient attacks have no "
        "direction there: look for rounding, thresholds, detach() or saturated layers, and attack through a "
        "differentiable surrogate (BPDA) or without gradients.",
        {"images": len(x), "zero": zero, "non_finite": broken, "differentiable": differentiable},
    )


def randomised_output(network: nn.Module, x: Tensor, *, batch_size: int = 256) -> Suspicion | None:
    """Suspect a network that gives the same images other logits the second time.

    Attacks on such a network must average over its randomness (Athalye et al. 2018, section 4.2, EOT), and one verdict
    on an image is a draw. As in AutoAttack, logits at unit length must differ by more than 1e-4; in half precision by
    more than its rounding.

    Args:
        network: See :func:`zero_gradients`.
        x: Images (N, C, H, W), at least one.
        batch_size: See :func:`zero_gradients`.

    Raises:
        UsageError: There are no images, or the network gives no logits (N, K), or NaN.

    Example:
        >>> import torch
        >>> class Noisy(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.rand(len(x), 2)
        >>> randomised_output(Noisy(), torch.rand(5, 3, 2, 2)).name
        'randomised_output'
    """
    _check_probe(x)
    with random_state_kept(x):
        first, second = (network_logits(network, x, batch_size=batch_size) for _ in range(2))
    largest, tolerance = _largest_difference(first, second), _tolerance(x)
    if largest <= tolerance:
        return None
    changed = int((first.argmax(1) != second.argmax(1)).sum())
    return Suspicion(
        "randomised_output",
        f"The same {len(x)} images give other logits the second time, and {changed} another class. A single attack and "
        "a single verdict are a matter of luck: average gradients and predictions over the randomness (EOT; "
        "AutoAttack's version 'rand').",
        {
            "images": len(x),
            "largest_difference": largest,
            "tolerance": tolerance,
            "changed_predictions": changed,
        },
    )


def batch_dependent_output(network: nn.Module, x: Tensor, *, batch_size: int = 256) -> Suspicion | None:
    """Suspect a network whose answer to an image depends, in eval mode, on the other images of the batch.

    A BatchNorm without running statistics (``track_running_stats=False``) normalises by those of the batch. An attack
    then moves the statistics too, and verdicts depend on how images are batched. Images are shown in one batch, and in
    two halves of it. A network with random output is none of this check's business: it gives None.

    Args:
        network: See :func:`zero_gradients`.
        x: Images (N, C, H, W), at least one. ``batch_size`` of them are looked at; of fewer than 4 nothing can be told.
        batch_size: See :func:`zero_gradients`.

    Raises:
        UsageError: There are no images, or the network gives no logits (N, K), or NaN.

    Example:
        >>> import torch
        >>> norm = torch.nn.BatchNorm2d(3, track_running_stats=False)
        >>> network = torch.nn.Sequential(norm, torch.nn.Flatten(), torch.nn.Linear(12, 2)).eval()
        >>> batch_dependent_output(network, torch.rand(8, 3, 2, 2)).evidence["layers"]
        ['0']
    """
    _check_probe(x)
    batch = x[:batch_size]
    if len(batch) < 4:  # of halves with a single image there may be no statistics at all
        return None
    size, half = len(batch), (len(batch) + 1) // 2
    with random_state_kept(x):
        whole, again, halves = (network_logits(network, batch, batch_size=n) for n in (size, size, half))
    # ten times: convolutions round differently in batches of another size
    largest, tolerance = _largest_difference(whole, halves), 10 * _tolerance(x)
    if largest <= tolerance or _largest_difference(whole, again) > _tolerance(x):
        return None
    norms = {
        name: module for name, module in without_domain(network)[0].named_modules() if isinstance(module, _BatchNorm)
    }
    layers = [name for name, module in norms.items() if module.running_mean is None]
    changed = int((whole.argmax(1) != halves.argmax(1)).sum())
    named = f" ({', '.join(layers[:_NAMED])})" if layers else ""
    return Suspicion(
        "batch_statistics",
        f"In batches of {half} instead of {len(batch)} images the logits are others, and {changed} of the predicted "
        f"classes. {len(layers)} BatchNorms keep no running statistics{named}: give them some, as attacks on one image "
        "must not depend on the others.",
        {
            "images": len(batch),
            "largest_difference": largest,
            "tolerance": tolerance,
            "changed_predictions": changed,
            "layers": layers[:_NAMED],
        },
    )


def probabilities(network: nn.Module, x: Tensor, *, batch_size: int = 256) -> Suspicion | None:
    """Suspect a network that gives probabilities where attacks expect logits.

    A softmax within the network saturates, and the gradients of a confident network vanish with it. As in AutoAttack,
    every output must lie in [0, 1] and every row sum to 1, to 1e-5.

    Args:
        network: See :func:`zero_gradients`.
        x: Images (N, C, H, W), at least one.
        batch_size: See :func:`zero_gradients`.

    Raises:
        UsageError: There are no images, or the network gives no logits (N, K), or NaN.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2), torch.nn.Softmax(1)).eval()
        >>> probabilities(network, torch.rand(5, 3, 2, 2)).name
        'probabilities'
    """
    _check_probe(x)
    with random_state_kept(x):
        logits = network_logits(network, x, batch_size=batch_size)
    low, high = (float(bound) for bound in torch.aminmax(logits))
    deviation = float((logits.sum(1) - 1).abs().max())
    tolerance = max(1e-5, 4 * torch.finfo(x.dtype).eps)
    if low < -tolerance or high > 1 + tolerance or deviation > tolerance:
        return None
    return Suspicion(
        "probabilities",
        f"The outputs lie in [0, 1] and sum to 1 for each of {len(x)} images: these are probabilities, no logits. The "
        "gradients of a softmax vanish where the network is confident: take the softmax off the network.",
        {"images": len(x), "minimum": low, "maximum": high, "largest_deviation_of_sums": deviation},
    )


def train_mode(network: nn.Module) -> Suspicion | None:
    """Suspect a network that was handed over in train mode, where Dropout draws and BatchNorm uses the batch.

    Attacks and verdicts of this package force eval mode, but another evaluation of the network as it stands would not.
    Only modules whose forward pass asks for the flag count, which is told by its code; those without effect (a Dropout
    with p = 0) do not.

    Args:
        network: Any network. It does not run.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
        >>> train_mode(network).evidence["layers"], train_mode(network.eval())
        (['1'], None)
    """
    network, _ = without_domain(network)
    layers = [name for name, module in network.named_modules() if module.training and _depends_on_mode(module)]
    if not layers:
        return None
    kinds = sorted({type(network.get_submodule(name)).__name__ for name in layers})
    return Suspicion(
        "train_mode",
        f"Modules that answer otherwise in train mode are in train mode: {len(layers)} ({', '.join(kinds)}). The "
        "figures here are those of eval mode: call network.eval() before any other evaluation.",
        {"count": len(layers), "kinds": kinds, "layers": layers[:_NAMED]},
    )


def _depends_on_mode(module: nn.Module) -> bool:
    if "_orig_mod" in module._modules:  # torch.compile's wrapper hands the flag on
        return False
    if any(_is_zero(getattr(module, name, None)) for name in ("p", "drop_prob", "dropout")):
        return False
    classes = type(module).__mro__[: type(module).__mro__.index(nn.Module)]
    return any(
        "training" in function.__code__.co_names
        for owner in classes
        for name, function in vars(owner).items()
        # forward and its private helpers: LightningModule.log asks for the flag too
        if (name.startswith("_") or "forward" in name) and hasattr(function, "__code__")
    )


def _is_zero(value: object) -> bool:
    return isinstance(value, int | float) and value == 0


def _largest_difference(first: Tensor, second: Tensor) -> float:
    """Return the largest Euclidean distance of two rows of logits, each at unit length."""
    first, second = (nn.functional.normalize(logits, dim=1, eps=1e-10) for logits in (first, second))
    return float((first - second).norm(dim=1).max())


def _tolerance(x: Tensor) -> float:
    precision = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    return max(1e-4, 4 * torch.finfo(precision).eps)


def _check_probe(x: Tensor, y: Tensor | None = None) -> None:
    check_images(x, torch.zeros(len(x), dtype=torch.int64, device=x.device) if y is None else y)
    if not len(x):
        raise UsageError("x must have at least one image, got none.")
