"""Saliency maps: to which pixels the answer of a network is sensitive, how sparse that is, and how networks differ.

Zhang & Zhu, "Interpreting Adversarially Trained Convolutional Neural Networks" (ICML 2019), section 2.2: Grad (Simonyan
et al. 2013) and SmoothGrad (Smilkov et al. 2017) of the log-probability of a class. They come from captum
(``pip install 'lightning-adv[interpret]'``), for any network that maps images to logits, which is held still meanwhile
and left as it was.

A saliency map E (C, H, W) is a gradient: it has a sign and the shape of the image. The numbers here are about ``|E|``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor, nn

from lightning_adv.attacks import held_still
from lightning_adv.attacks.checks import check_images, check_labels
from lightning_adv.core.errors import UsageError

SAMPLES = 100
"""Noisy copies of an image in SmoothGrad (section 2.2)."""
NOISE = 0.1
"""Standard deviation of SmoothGrad's noise, as a share of the range of an image's values (section 2.2)."""

Method: TypeAlias = Literal["smooth_grad", "grad"]

_AT_ONCE = 4_000_000  # values of an image's noisy copies in one forward pass: 26 of 224 × 224 pixels in colour


class SaliencyDistances(NamedTuple):
    """How far saliency maps are from others of the same images.

    Attributes:
        l2: (N,) float64: the L2 distance of ``|E| / ||E||_1``, from 0 to √2.
        cosine: (N,) float64: 1 - cos of the angle between ``|E|`` and the other, from 0 to 1.
    """

    l2: Tensor
    cosine: Tensor


# Maps -----------------------------------------------------------------------------------------------------------------


def grad_saliency(network: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 64) -> Tensor:
    """Return the gradients of the log-probability of a class to the images: Grad (Zhang & Zhu 2019, equation 2).

    Args:
        network: Maps images (N, C, H, W) to logits (N, K). It is in eval mode meanwhile, and is left as it was.
        x: Images (N, C, H, W) in [0, 1].
        y: The class (N,) that each map is about; in the paper the true one.
        batch_size: How many images to look at at a time; it changes no result.

    Returns:
        The maps E (N, C, H, W), with their signs.

    Raises:
        UsageError: These are no images with labels, or captum is not installed.

    Example:
        >>> x = torch.tensor([[[[0.0, 0.0]]]])
        >>> grad_saliency(nn.Flatten(), x, torch.tensor([0]))  # the classes are the pixels, one as likely as the other
        tensor([[[[ 0.5000, -0.5000]]]])
    """
    saliency = captum_attributions().Saliency
    check_images(x, y)
    if not len(x):
        return torch.zeros_like(x)
    parts = []
    with held_still(network) as still:
        for images, labels in zip(torch.split(_single(x), batch_size), torch.split(y, batch_size), strict=True):
            explained = saliency(_log_probabilities(still, labels, x.dtype))
            parts.append(explained.attribute(images.clone().requires_grad_(), target=labels, abs=False))
    return torch.cat(parts).to(x.dtype)


def smooth_grad(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator,
    samples: int = SAMPLES,
    noise: float = NOISE,
) -> Tensor:
    """Return means of the gradients at noisy copies of the images: SmoothGrad (Zhang & Zhu 2019, equation 3).

    The noise is Gaussian, and what it makes of an image is not clipped to [0, 1]. Each image has noise of its own, by
    its place among the images that the generator is used for: images that come in several batches get the same as in
    one. The noise depends on the kind of device.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K). It is in eval mode meanwhile, and is left as it was.
        x: Images (N, C, H, W) in [0, 1].
        y: The class (N,) that each map is about; in the paper the true one.
        generator: Seeds the noise of each image; global random states are left alone.
        samples: Number of noisy copies of each image.
        noise: The standard deviation of the noise over the range of the image's values, ``max(x) - min(x)``.

    Returns:
        The maps E (N, C, H, W), with their signs.

    Raises:
        UsageError: These are no images with labels, ``samples`` or ``noise`` is out of its range, or captum is not
            installed.

    Example:
        >>> x = torch.tensor([[[[0.0, 0.0]]]])  # of one colour: no noise
        >>> smooth_grad(nn.Flatten(), x, torch.tensor([0]), generator=torch.Generator().manual_seed(0))
        tensor([[[[ 0.5000, -0.5000]]]])
    """
    captum = captum_attributions()
    check_images(x, y)
    if not isinstance(samples, int) or samples < 1:
        raise UsageError(f"samples must be an integer of at least 1, got {samples!r}.")
    if not noise >= 0:
        raise UsageError(f"noise must be a share of an image's range of at least 0, got {noise!r}.")
    if not len(x):
        return torch.zeros_like(x)
    seeds = torch.randint(2**63 - 1, (len(x),), generator=generator, device=generator.device).tolist()
    at_once = max(1, _AT_ONCE // x[0].numel())  # of the images' size only: the noise may depend on it
    options = {"nt_samples": samples, "nt_samples_batch_size": at_once, "abs": False}
    maps = []
    with held_still(network) as still, _seeded(x.device) as seed_noise:
        for image, label, seed in zip(torch.split(_single(x), 1), torch.split(y, 1), seeds, strict=True):
            seed_noise(seed)  # image by image: the noise of one call of captum has one size
            tunnel = captum.NoiseTunnel(captum.Saliency(_log_probabilities(still, label, x.dtype)))
            size = noise * float(image.max() - image.min())
            maps.append(tunnel.attribute(image, target=int(label), stdevs=size, **options))
    return torch.cat(maps).to(x.dtype)


def captum_attributions() -> Any:
    """Return captum's attributions, of the extra ``interpret``.

    Raises:
        UsageError: It is not installed.
    """
    try:
        from captum import attr
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("captum"):
            raise
        raise UsageError("Saliency maps need captum: pip install 'lightning-adv[interpret]'.") from error
    return attr


def saliency_maps(
    method: Method, network: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator, samples: int = SAMPLES
) -> Tensor:
    """Return saliency maps by the name of their method: :func:`smooth_grad` or, for ``grad``, :func:`grad_saliency`.

    Example:
        >>> x, y, random = torch.tensor([[[[0.0, 0.0]]]]), torch.tensor([0]), torch.Generator()
        >>> saliency_maps("grad", nn.Flatten(), x, y, generator=random)
        tensor([[[[ 0.5000, -0.5000]]]])
    """
    if method == "grad":
        return grad_saliency(network, x, y)
    return smooth_grad(network, x, y, generator=generator, samples=samples)


def check_method(argument: str, method: str) -> None:
    """Check the name of a method.

    Raises:
        UsageError: There is no such method.
    """
    if method not in get_args(Method):
        raise UsageError(f"{argument} must be one of {', '.join(get_args(Method))}, got {method!r}.")


@contextmanager
def _seeded(device: torch.device) -> Iterator[Callable[[int], object]]:
    """Give what seeds the global generator of a device, from which captum draws, and put its state back at the end."""
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        if device.type == "cpu":
            yield torch.default_generator.manual_seed
        elif device.type == "cuda":  # of this device, and not of the current one
            yield torch.cuda.default_generators[device.index].manual_seed
        else:
            yield torch.get_device_module(device).manual_seed


def _single(x: Tensor) -> Tensor:
    """Return images in single precision at least, in which the noise and the means are made."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def _log_probabilities(network: nn.Module, y: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return what maps images to log-probabilities (N, K), for classes (n,) that it has to have."""

    def forward(x: Tensor) -> Tensor:
        logits: Tensor = network(x.to(dtype))
        check_labels(y, logits.shape[1])
        # Of a sure answer the gradient is 1 - p_c, of which single precision leaves nothing beyond 1e-7. Apple's
        # devices have no doubles.
        return (logits.float() if logits.device.type == "mps" else logits.double()).log_softmax(1)

    return forward


# Numbers and pictures -------------------------------------------------------------------------------------------------


def saliency_pictures(maps: Tensor) -> Tensor:
    """Return saliency maps as they are looked at: the sum over channels of ``|E|`` over its 99th percentile.

    So does the code of Zhang & Zhu (2019); what is above the percentile is white.

    Args:
        maps: The maps E (N, C, H, W).

    Returns:
        Pictures (N, H, W) in [0, 1]; black where a map is zero.

    Example:
        >>> saliency_pictures(torch.tensor([[[[0.0, -1.0, 2.0]]]])).round(decimals=3)
        tensor([[[0.0000, 0.5050, 1.0000]]])
    """
    sums = maps.detach().abs().float().sum(1)
    # one by one: torch's quantile takes at most 16 million numbers
    largest = torch.stack([torch.quantile(each, 0.99) for each in sums.flatten(1)]) if len(sums) else sums.sum((1, 2))
    scale = torch.where(largest > 0, largest, sums.amax((1, 2)))[:, None, None]  # a few pixels are all there is
    return torch.where(scale > 0, sums / scale, 0).clamp(max=1)


def gini(maps: Tensor) -> Tensor:
    """Return how sparse saliency maps are: the Gini index of ``|E|`` (Hurley & Rickard 2009, equation 3.13).

    Args:
        maps: The maps E (N, ...) of d values each.

    Returns:
        (N,) float64 on the CPU, from 0, where all values are equal, to 1 - 1/d, where all but one are zero; nan of a
        map of zeros.

    Example:
        >>> gini(torch.tensor([[1.0, -1.0, 1.0, 1.0], [0.0, 0.0, -5.0, 0.0]]))
        tensor([0.0000, 0.7500], dtype=torch.float64)
    """
    values = _magnitudes(maps).sort(1).values
    d = values.shape[1]
    weights = (d - torch.arange(1, d + 1, dtype=torch.float64) + 0.5) / d
    return 1 - 2 * (values @ weights) / values.sum(1)


def saliency_distances(maps: Tensor, others: Tensor) -> SaliencyDistances:
    """Return how far saliency maps are from others of the same images, such as another network's.

    Zhang & Zhu (2019), section 5, compare average distances between maps without saying which distance that is. Both of
    these leave out how large the gradients are, which says how sure a network is and not where it looks.

    Args:
        maps: The maps E (N, ...).
        others: The others, of the same shape.

    Returns:
        Both distances (N,), on the CPU; nan where a map is zero.

    Raises:
        UsageError: The shapes differ.

    Example:
        >>> maps, others = torch.tensor([[1.0, -3.0], [2.0, 0.0]]), torch.tensor([[2.0, 6.0], [0.0, 1.0]])
        >>> distances = saliency_distances(maps, others)
        >>> distances.l2.round(decimals=3), distances.cosine.round(decimals=3).abs()
        (tensor([0.0000, 1.4140], dtype=torch.float64), tensor([0., 1.], dtype=torch.float64))
    """
    if maps.shape != others.shape:
        raise UsageError(f"maps and others must have one shape, got {tuple(maps.shape)} and {tuple(others.shape)}.")
    a, b = _magnitudes(maps), _magnitudes(others)
    l2 = (a / a.sum(1, keepdim=True) - b / b.sum(1, keepdim=True)).norm(dim=1)
    return SaliencyDistances(l2, 1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)))


def _magnitudes(maps: Tensor) -> Tensor:
    """Return ``|E|`` as rows (N, d) in double precision."""
    return maps.detach().flatten(1).cpu().double().abs()
