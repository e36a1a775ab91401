"""Whether a network normalises its images twice.

That is easily done: a data set that normalises and a network that does, or a pretrained network with the normalisation
inside that is wrapped once more. Accuracy falls a little and eps is no longer a distance in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_adv.attacks import held_still
from lightning_adv.attacks.checks import check_images, check_labels
from lightning_adv.attacks.forward import at_least_fp32
from lightning_adv.core.errors import UsageError
from lightning_adv.evaluation.suspicion.network import network_logits, random_state_kept
from lightning_adv.evaluation.suspicion.verdicts import ALPHA, Suspicion, sign_test
from lightning_adv.nn.batchnorm import without_domain

# torchvision, kornia, timm, robustbench, advertorch and this package; MadryLab's robustness; DeepMind's networks
_ATTRIBUTES = (("mean", "std"), ("new_mean", "new_std"), ("mu", "sigma"))
_TRACED = 16  # images by which the order of the layers is told

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Normalisation(NamedTuple):
    """(x - mean) / std, of each channel or of all: (C,) or (1,) each."""

    mean: Tensor
    std: Tensor

    def undo(self, x: Tensor) -> Tensor:
        """Return the images (N, C, H, W) that become ``x`` when they are normalised."""
        mean, std = (value.to(x).view(-1, 1, 1) for value in self)
        return x * std + mean


def normalised_twice(network: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 256) -> Suspicion | None:
    """Suspect a network that normalises images which are normalised already.

    There are two kinds of evidence, and either is enough:

    - Two layers that normalise by their ``mean`` and ``std`` run one on the output of the other.
    - Images that one normalisation turns back into ``x`` are classified better than ``x``, beyond chance (McNemar's
      exact test, one-sided). This finds a normalisation that is hidden in a forward method. Tried are the
      normalisations that the network's modules name, that by the mean and standard deviation of ``x``, 0.5 and 0.5,
      and ImageNet's; the test's level is shared among them.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K). It is in eval mode meanwhile, and is left as it was.
        x: Clean images (N, C, H, W) in [0, 1], at least one.
        y: Labels (N,).
        batch_size: How many images to look at at a time.

    Raises:
        UsageError: These are no images in [0, 1] with labels of the network, or it gives NaN.

    Example:
        >>> import torch
        >>> from lightning_adv.nn.normalize import Normalize
        >>> twice = [Normalize((0.5,) * 3, (0.2,) * 3), Normalize((0.5,) * 3, (0.2,) * 3)]
        >>> network = torch.nn.Sequential(*twice, torch.nn.Flatten(), torch.nn.Linear(12, 2)).eval()
        >>> normalised_twice(network, torch.rand(5, 3, 2, 2), torch.zeros(5, dtype=torch.long)).name
        'normalised_twice'
    """
    check_images(x, y)
    if x.ndim != 4 or not len(x):
        raise UsageError(f"x must be images (N, C, H, W), at least one, got the shape {tuple(x.shape)}.")
    named = _named_normalisations(network, channels=x.shape[1])

    def correct(images: Tensor) -> Tensor:
        logits = network_logits(network, images, batch_size=batch_size)
        check_labels(y, logits.shape[1])
        return logits.argmax(1) == y

    with random_state_kept(x):
        layers = _in_series(network, x[:_TRACED], named)
        before = correct(x)
        guesses = _guesses(x, named)
        undone = [correct(guess.undo(x)) for guess in guesses]
    p_values = [
        min(1.0, len(guesses) * sign_test(int((after & ~before).sum()), int((before & ~after).sum())))
        for after in undone
    ]
    best = min(range(len(guesses)), key=p_values.__getitem__)
    return _suspicion(layers, before, undone[best], guesses[best], p_values[best])


def _suspicion(
    layers: list[str], before: Tensor, after: Tensor, undone: Normalisation, p_value: float
) -> Suspicion | None:
    if not layers and p_value >= ALPHA:
        return None
    accuracy, accuracy_undone = (float(correct.float().mean()) for correct in (before, after))
    seen = []
    if layers:
        seen.append(f"{layers[1]} normalises what {layers[0]} has normalised.")
    if p_value < ALPHA:
        mean, std = (", ".join(f"{value:.3g}" for value in values.tolist()) for values in undone)
        seen.append(
            f"Accuracy rises from {accuracy:.1%} to {accuracy_undone:.1%} when a normalisation is undone (mean {mean}, "
            f"std {std})."
        )
    return Suspicion(
        "normalised_twice",
        " ".join(seen) + " Images seem to be normalised twice: leave it to the network's first layer, once.",
        {
            "images": len(before),
            "layers": layers,
            "accuracy": accuracy,
            "accuracy_undone": accuracy_undone,
            "mean": undone.mean.tolist(),
            "std": undone.std.tolist(),
            "p_value": p_value,
        },
    )


def _named_normalisations(network: nn.Module, channels: int) -> dict[str, Normalisation]:
    """Return what the modules call their mean and standard deviation, but for means of 0 with deviations of 1."""
    found = {}
    for name, module in without_domain(network)[0].named_modules():
        for attributes in _ATTRIBUTES:
            values = [_channel_values(getattr(module, attribute, None), channels) for attribute in attributes]
            mean, std = values
            if mean is not None and std is not None and (std > 0).all() and ((mean != 0).any() or (std != 1).any()):
                found[name] = Normalisation(mean, std)
    return found


def _channel_values(value: object, channels: int) -> Tensor | None:
    """Return one number for each channel, or for all, as a tensor; None if that is something else."""
    if isinstance(value, int | float | list | tuple | Tensor):
        try:
            numbers = torch.as_tensor(value).detach().cpu().double().flatten()
        except (TypeError, ValueError, RuntimeError):
            return None
        if len(numbers) in (1, channels):
            return numbers
    return None


def _in_series(network: nn.Module, x: Tensor, named: Mapping[str, Normalisation]) -> list[str]:
    """Return the names of two layers that normalise one after the other; empty if there are none.

    In an ensemble each network normalises the images themselves: there is no series.
    """
    outputs: dict[str, Tensor] = {}
    series: list[str] = []

    def look(name: str, seen: object, output: object) -> None:
        if not isinstance(seen, Tensor) or not isinstance(output, Tensor) or seen.shape != output.shape:
            return
        if seen.ndim != 4 or not torch.allclose(named[name].undo(output), seen, rtol=0, atol=1e-2):
            return  # it is no normalisation, whatever its attributes are called
        earlier = [other for other, values in outputs.items() if torch.equal(values, seen)]
        if earlier and not series:
            series.extend([earlier[0], name])
        outputs[name] = output.clone()

    def hook(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        return lambda module, inputs, output: look(name, inputs[0] if inputs else None, output)

    modules = {name: without_domain(network)[0].get_submodule(name) for name in named}
    # Hooks that are added to a compiled network fire in eager mode only.
    with held_still(network) as still, torch.no_grad(), torch.compiler.set_stance("force_eager"):
        handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
        try:
            still(x)
        finally:
            for handle in handles:
                handle.remove()
    return series


def _guesses(x: Tensor, named: Mapping[str, Normalisation]) -> list[Normalisation]:
    images = at_least_fp32(x)
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3))
    guesses = [Normalisation(mean, std.clamp_min(1e-3)), Normalisation(torch.tensor([0.5]), torch.tensor([0.5]))]
    if x.shape[1] == 3:
        guesses.append(Normalisation(*(torch.tensor(values) for values in IMAGENET)))
    return [*named.values(), *guesses]
