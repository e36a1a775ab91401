"""Whether a network goes by shapes or by textures, on images with the shape of one class and the texture of another.

Geirhos et al., "ImageNet-trained CNNs are biased towards texture; increasing shape bias improves accuracy and
robustness" (ICLR 2019), section 2 and figure 4.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_adv.core.errors import UsageError
from lightning_adv.core.shares import Share
from lightning_adv.core.suggestions import did_you_mean

_NAME = re.compile(r"(?P<shape>.*?\D)\d*-(?P<texture>.*?\D)\d*")


class Cues(NamedTuple):
    """What an image shows.

    Attributes:
        shape: The class whose shape it has.
        texture: The class whose texture it has.
    """

    shape: str
    texture: str


class Decisions(NamedTuple):
    """What a network goes by.

    Attributes:
        shape: How many images it takes for the class of their shape.
        texture: How many for that of their texture.
        neither: How many for another one.
    """

    shape: int
    texture: int
    neither: int

    @property
    def total(self) -> int:
        """The number of images."""
        return sum(self)

    @property
    def bias(self) -> Share | None:
        """The shape bias: the share of decisions for the shape among those for shape or texture; None without any."""
        return Share(self.shape, self.shape + self.texture) if self.shape + self.texture else None


def parse_cues(name: str, classes: Sequence[str]) -> Cues:
    """Return what an image shows by the name of its file, such as ``cat7-elephant2.png``.

    Args:
        name: The name of the file, or its path.
        classes: The classes that there are.

    Raises:
        UsageError: It is not of two classes that there are.

    Example:
        >>> parse_cues("cue-conflict/cat/cat7-elephant2.png", ["cat", "elephant"])
        Cues(shape='cat', texture='elephant')
    """
    found = _NAME.fullmatch(PurePath(name).stem)
    if found is None:
        raise UsageError(f"{name} is not named after its shape and its texture, as cat7-elephant2.png is.")
    cues = Cues(found["shape"], found["texture"])
    for each in cues:
        if each not in classes:
            hint = did_you_mean(each, classes)
            raise UsageError(
                f"{name} is named after {each!r}, which is none of the {len(classes)} classes of the mapping.{hint}"
            )
    return cues


def parse_mapping(
    content: object, class_names: Sequence[str] | None = None, num_classes: int | None = None
) -> dict[str, list[int]]:
    """Return which of a data set's classes make up each of a few coarse ones, such as the 16 of Geirhos et al.

    Args:
        content: By coarse class, a list of the data set's classes: their indices from 0, or their names.
        class_names: The data set's names, where they are known.
        num_classes: How many classes the data set has, where that is known.

    Raises:
        UsageError: There are less than two coarse classes, one has no members, or a member is not a class of the data
            set or is one of two coarse classes.

    Example:
        >>> parse_mapping({"cat": ["tabby", 2], "dog": [0]}, ["beagle", "tabby", "lynx"])
        {'cat': [1, 2], 'dog': [0]}
    """
    if not isinstance(content, Mapping) or len(content) < 2:
        raise UsageError(
            "the mapping must have two classes at least, each with a list of the data set's classes, as in "
            f"cat: [281, 282]; got {_told(content)}."
        )
    mapping: dict[str, list[int]] = {}
    for name, members in content.items():
        if not isinstance(name, str) or not isinstance(members, list) or not members:
            raise UsageError(
                f"the mapping's {name!r} must be a name with a list of the data set's classes, got {_told(members)}."
            )
        mapping[name] = [_index(member, name, class_names, num_classes) for member in members]
    counts = Counter(index for members in mapping.values() for index in members)
    if twice := [index for index, count in counts.items() if count > 1]:
        raise UsageError(f"the mapping has the class {twice[0]} of the data set twice.")
    return mapping


def _index(member: object, name: str, class_names: Sequence[str] | None, num_classes: int | None) -> int:
    known = num_classes if class_names is None else len(class_names)
    if isinstance(member, str):
        if class_names is None:
            raise UsageError(f"the mapping's {name!r} has {member!r}: the data set has no names, only indices from 0.")
        if member not in class_names:
            hint = did_you_mean(member, class_names)
            raise UsageError(f"the mapping's {name!r} has {member!r}, which is no class of the data set.{hint}")
        return list(class_names).index(member)
    if not isinstance(member, int) or isinstance(member, bool) or member < 0 or (known is not None and member >= known):
        allowed = "from 0" if known is None else f"from 0 to {known - 1}"
        raise UsageError(f"the mapping's {name!r} has {member!r}; the data set's classes are {allowed}.")
    return member


def _told(content: object) -> str:
    return f"{len(content)} of them" if isinstance(content, Mapping) else repr(content)[:80]


def coarse_decisions(probabilities: Tensor, mapping: Mapping[str, Sequence[int]]) -> list[str]:
    """Return what a network takes images for among a few coarse classes.

    The probability of a coarse class is the mean of those of its members, so that a class of many members does not
    win by their number (Geirhos et al. 2019, section 2: "averaging").

    Args:
        probabilities: Of the data set's classes, (N, K).
        mapping: The members of each coarse class, from 0 to K - 1; every list has some.

    Returns:
        A coarse class for each of the N images; the first of those that are equally probable.

    Raises:
        UsageError: A member is not below K.

    Example:
        >>> coarse_decisions(torch.tensor([[0.3, 0.3, 0.4]]), {"cat": [0, 1], "dog": [2]})
        ['dog']
    """
    largest = max(max(members) for members in mapping.values())
    if largest >= probabilities.shape[1]:
        raise UsageError(
            f"the mapping has the class {largest}, but the network knows {probabilities.shape[1]} classes."
        )
    means = torch.stack([probabilities[:, list(members)].mean(1) for members in mapping.values()], 1)
    names = list(mapping)
    return [names[index] for index in means.argmax(1).tolist()]


def count_decisions(decisions: Sequence[str], cues: Sequence[Cues]) -> Decisions:
    """Count the decisions for the shape and those for the texture.

    Images whose shape and texture are of one class leave nothing to decide, and are left out as the authors do.

    Args:
        decisions: What the network takes N images for.
        cues: What they show.

    Example:
        >>> cues = [Cues("cat", "elephant"), Cues("cat", "dog"), Cues("cat", "cat")]
        >>> decisions = count_decisions(["cat", "dog", "cat"], cues)
        >>> decisions, decisions.bias.accuracy
        (Decisions(shape=1, texture=1, neither=0), 0.5)
    """
    conflicts = [(made, each) for made, each in zip(decisions, cues, strict=True) if each.shape != each.texture]
    shape = sum(made == each.shape for made, each in conflicts)
    texture = sum(made == each.texture for made, each in conflicts)
    return Decisions(shape, texture, len(conflicts) - shape - texture)


def add_decisions(decisions: Iterable[Decisions]) -> Decisions:
    """Return the sum of decisions on different images.

    Example:
        >>> add_decisions([Decisions(1, 2, 0), Decisions(1, 0, 4)])
        Decisions(shape=2, texture=2, neither=4)
    """
    return Decisions(*map(sum, zip(*decisions, strict=True)))
