"""How well a network classifies images that have lost their textures, their shapes, or some of their frequencies.

Zhang & Zhu, "Interpreting Adversarially Trained Convolutional Neural Networks" (ICML 2019): "accuracy on correctly
classified images" and top-1 (section 4.2, figures 5 and 7, tables 3 to 8), and the true class's probability (figure 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_adv.analysis.images.transforms import high_pass, low_pass, patch_shuffle, random_filter, saturate
from lightning_adv.attacks.checks import check_images, check_labels
from lightning_adv.attacks.logits import logits_in_batches
from lightning_adv.core.errors import UsageError
from lightning_adv.core.shares import Share
from lightning_adv.core.suggestions import did_you_mean

PAPER_LEVELS: Mapping[str, Sequence[float]] = {
    "saturation": (0.25, 0.5, 1, 4, 8, 16, 64, 1024),
    "patch_shuffle": (2, 4, 8),
    "low_pass": (0.5,),
    "high_pass": (0.5,),
    "random_filter": (0.1,),
}
"""What tables 3 to 8 do to images. The levels of the filters are ours: the paper does not tell its own."""

_TRANSFORMS: Mapping[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "saturation": lambda x, level, generator: saturate(x, level),
    "patch_shuffle": lambda x, level, generator: patch_shuffle(x, _whole(level), generator),
    "low_pass": lambda x, level, generator: low_pass(x, level),
    "high_pass": lambda x, level, generator: high_pass(x, level),
    "random_filter": lambda x, level, generator: random_filter(x, level, generator),
    "random_filter_each": lambda x, level, generator: random_filter(
        x, level, generator, each_mode=True, each_channel=True
    ),
}


class TransformedAccuracy(NamedTuple):
    """How many transformed images are classified correctly: one row of a tidy table.

    Attributes:
        transform: What was done to the images, such as ``low_pass``.
        level: How strongly: the saturation level, the number of patches along a side, the radius on the frequency
            scale, the probability of a frequency to go.
        images: Which images: ``clean``, ``adversarial``, or ``correct`` for the clean ones that the network classifies
            correctly as they are.
        correct: Number of images that are classified correctly when transformed.
        total: Number of images, at least 1.
    """

    transform: str
    level: float
    images: str
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """The share of images that are classified correctly."""
        return Share(self.correct, self.total).accuracy

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy."""
        return Share(self.correct, self.total).interval


def correctly_classified(network: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 256) -> Tensor:
    """Return which images a network classifies correctly. It is in eval mode meanwhile, and is left as it was.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Images (N, C, H, W).
        y: Labels (N,).
        batch_size: How many images to classify at a time.

    Returns:
        (N,) bool, on the device of the images.

    Example:
        >>> brighter = nn.Flatten()  # of two pixels, the brighter one is the class
        >>> correctly_classified(brighter, torch.tensor([[[[0.2, 0.8]]], [[[0.8, 0.2]]]]), torch.tensor([1, 1]))
        tensor([ True, False])
    """
    if not len(x):  # not every network takes a batch of none
        return torch.zeros(0, dtype=torch.bool, device=x.device)
    logits = torch.cat(logits_in_batches(network, x, batch_size=batch_size))
    check_labels(y, logits.shape[1])
    return logits.argmax(1) == y


class Answers(NamedTuple):
    """How one network answers to N images.

    Attributes:
        correct: Which images it classifies correctly, (N,) bool.
        probability: The probability that it gives the true class of each, (N,).
    """

    correct: Tensor
    probability: Tensor


class TransformedAnswers(NamedTuple):
    """How networks answer to the same transformed images.

    Attributes:
        transform: What was done to the images.
        level: How strongly.
        networks: The answers by network.
    """

    transform: str
    level: float
    networks: Mapping[str, Answers]


def transform_images(x: Tensor, transform: str, level: float, *, generator: torch.Generator) -> Tensor:
    """Transform images by the name of what is done to them.

    Args:
        x: Images (N, C, H, W) in [0, 1].
        transform: ``saturation``, ``patch_shuffle``, ``low_pass``, ``high_pass``, ``random_filter``, or
            ``random_filter_each``, whose mask is drawn for each mode of each channel by itself.
        level: How strongly, see :class:`TransformedAccuracy`.
        generator: Draws the patches' orders and the filters' masks.

    Raises:
        UsageError: There is no such transform or level, or these are no images in [0, 1].

    Example:
        >>> transform_images(torch.tensor([[[[0.2, 0.8]]]]), "low_pass", 0, generator=torch.Generator())
        tensor([[[[0.5000, 0.5000]]]])
    """
    if transform not in _TRANSFORMS:
        hint = did_you_mean(transform, _TRANSFORMS)
        raise UsageError(f"transforms has {transform!r}; there are {', '.join(_TRANSFORMS)}.{hint}")
    return _TRANSFORMS[transform](x, level, generator)


def answers_to(network: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 256) -> Answers:
    """Return how a network answers to images. It is in eval mode meanwhile, and is left as it was.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Images (N, C, H, W), at least one.
        y: Labels (N,).
        batch_size: How many images to classify at a time.

    Raises:
        UsageError: A label is outside [0, K).

    Example:
        >>> answers = answers_to(nn.Flatten(), torch.tensor([[[[0.0, 0.0]]]]), torch.tensor([1]))
        >>> answers.correct.tolist(), answers.probability.tolist()
        ([False], [0.5])
    """
    logits = torch.cat(logits_in_batches(network, x, batch_size=batch_size))
    check_labels(y, logits.shape[1])
    probability = logits.float().softmax(1).gather(1, y[:, None])[:, 0]
    return Answers(logits.argmax(1) == y, probability)


def answers_to_transformed(
    networks: Mapping[str, nn.Module],
    x: Tensor,
    y: Tensor,
    transforms: Mapping[str, Sequence[float]] | None = None,
    *,
    generator: torch.Generator,
    batch_size: int = 256,
) -> Iterator[TransformedAnswers]:
    """Show several networks the same transformed images, level after level (Zhang & Zhu 2019, section 4.2).

    Args:
        networks: By name; each maps images (N, C, H, W) to logits (N, K).
        x: Clean images (N, C, H, W) in [0, 1], at least one.
        y: Labels (N,).
        transforms: The levels of each transform, see :func:`transform_images`. None takes :data:`PAPER_LEVELS`.
        generator: Draws the patches' orders and the filters' masks: once, for all networks.
        batch_size: How many images to transform and to classify at a time; it changes no result.

    Yields:
        The answers of all networks at each level.

    Raises:
        UsageError: There is no such transform or level, or these are no images in [0, 1] with labels.

    Example:
        >>> x, y = torch.tensor([[[[0.2, 0.8]]]]), torch.tensor([1])
        >>> networks = {"brighter": nn.Flatten(), "darker": nn.Sequential(nn.Flatten(), nn.Threshold(0.9, 0.0))}
        >>> (shown,) = answers_to_transformed(networks, x, y, {"saturation": [2]}, generator=torch.Generator())
        >>> {name: answers.correct.tolist() for name, answers in shown.networks.items()}
        {'brighter': [True], 'darker': [False]}
    """
    check_images(x, y)
    chosen = PAPER_LEVELS if transforms is None else transforms
    check_transforms(chosen, x)
    for name, levels in chosen.items():
        for level in levels:
            found: dict[str, list[Answers]] = {network: [] for network in networks}
            for part, labels in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
                transformed = transform_images(part, name, level, generator=generator)
                for network, answers in found.items():
                    answers.append(answers_to(networks[network], transformed, labels))
            joined = {network: Answers(*map(torch.cat, zip(*parts, strict=True))) for network, parts in found.items()}
            yield TransformedAnswers(name, level, joined)


def accuracy_on_correctly_classified(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    transforms: Mapping[str, Sequence[float]] | None = None,
    *,
    generator: torch.Generator,
    batch_size: int = 256,
) -> list[TransformedAccuracy]:
    """Return which share of the images that a network classifies correctly it still does when they are transformed.

    This leaves out how accurate a network is to begin with, so that robust networks, which mostly are less accurate,
    can be compared with others.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Clean images (N, C, H, W) in [0, 1].
        y: Labels (N,).
        transforms: The levels of each transform, see :func:`transform_images`. None takes :data:`PAPER_LEVELS`.
        generator: Draws the patches' orders and the filters' masks. All images get one, those too that are classified
            wrongly, so that another network sees the same.
        batch_size: How many images to transform and to classify at a time; it changes no result.

    Raises:
        UsageError: There is no such transform or level, these are no images in [0, 1] with labels, or the network
            classifies none of them correctly.

    Example:
        >>> x, brighter = torch.tensor([[[[0.2, 0.8]]], [[[0.8, 0.2]]], [[[0.8, 0.2]]]]), nn.Flatten()
        >>> levels = {"low_pass": [1.0], "high_pass": [0.5, 1.0]}  # the last leaves nothing, which is class 0
        >>> random = torch.Generator().manual_seed(0)
        >>> rows = accuracy_on_correctly_classified(brighter, x, torch.tensor([1, 0, 1]), levels, generator=random)
        >>> [(row.correct, row.total) for row in rows]
        [(2, 2), (2, 2), (1, 2)]
    """
    check_images(x, y)
    check_transforms(PAPER_LEVELS if transforms is None else transforms, x)
    before = correctly_classified(network, x, y, batch_size=batch_size)
    total = int(before.sum())
    if total == 0:
        raise UsageError(f"network classifies none of the {len(x)} images x correctly: there is no accuracy on those.")
    shown = answers_to_transformed({"": network}, x, y, transforms, generator=generator, batch_size=batch_size)
    return [
        TransformedAccuracy(row.transform, row.level, "correct", int((row.networks[""].correct & before).sum()), total)
        for row in shown
    ]


def check_transforms(transforms: Mapping[str, Sequence[float]], x: Tensor) -> None:
    """Try every level on one of the images (N, C, H, W), before a network runs.

    Raises:
        UsageError: There is no such transform or level, or these are no images in [0, 1].
    """
    for name, levels in transforms.items():
        for level in levels:
            transform_images(x[:1], name, level, generator=torch.Generator())


def _whole(level: float) -> int:
    if not float(level).is_integer():
        raise UsageError(f"the level of patch_shuffle is a number of patches along a side, got {level}.")
    return int(level)
