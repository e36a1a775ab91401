"""One interpretation: sections over named networks, from one crafting of the adversarial examples."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from lightning_adv.attacks import Attack, held_still
from lightning_adv.attacks.checks import check_images, check_labels
from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.interpretation.crafted import Crafted, Progress, no_progress
from lightning_adv.interpretation.finding import CLEAN, Finding
from lightning_adv.interpretation.section import Section
from lightning_adv.interpretation.subject import Subject
from lightning_adv.nn.batchnorm import through

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST_NAME = 60
_NOT_FOR_IT = (RuntimeError, ValueError, AssertionError, IndexError, TypeError)
"""What networks raise for images of other channels or another size; timm's ViT asserts."""
_IN_FILES = re.compile(r"[^\s./\\:*?\"<>|-][^/\\:*?\"<>|\x00-\x1f]*")


class SectionResult(NamedTuple):
    """What a section gave.

    Attributes:
        findings: The rows of its table.
        figures: Its pictures by name.
    """

    findings: list[Finding]
    figures: dict[str, Figure]


def interpret(
    networks: Mapping[str, nn.Module],
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Attack],
    sections: Sequence[Section],
    *,
    domains: Mapping[str, str] | None = None,
    seed: int = 0,
    batch_size: int = 256,
    files: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    progress: Progress = no_progress,
) -> dict[str, SectionResult]:
    """Look at several networks side by side, on the same images and with the same draws.

    Every check of every section is made before anything is computed, and each adversarial example is crafted once.

    Args:
        networks: The networks by name, any that map images (n, C, H, W) in [0, 1] to logits (n, K), all on one device.
            They are in eval mode meanwhile, and are left as they were.
        x: Images (N, C, H, W) in [0, 1], at least one.
        y: Labels (N,).
        attacks: The attacks by name; there may be none, if no section needs one.
        sections: What to look at. Their names differ.
        domains: The BatchNorm domain to look through, by network; one that is not named is taken through its active
            domain.
        seed: What all that is drawn comes from.
        batch_size: How many images go through a network at a time. The draws of a random attack depend on it.
        files: The images' names, which sections look for versions of them by; None where they are not known.
        class_names: The names of the classes, in the order of the labels; None where they are not known.
        progress: Shows how far the work is.

    Returns:
        What each section gave, by its name, in the order of the sections.

    Raises:
        UsageError: Names cannot be those of files, the networks differ in their classes or do not take the images, a
            domain is not there, or a section cannot be computed.

    Example:
        >>> from lightning_adv.attacks import FGSM
        >>> class Accuracy(Section):
        ...     name = "accuracy"
        ...
        ...     def find(self, subjects, crafted):
        ...         for each in subjects:
        ...             x_adv = crafted.adversarial("fgsm", each.name)
        ...             correct = (each.network(x_adv).argmax(1) == crafted.y).double().mean()
        ...             yield Finding(each.name, "fgsm", "", "accuracy", float(correct), count=len(x_adv))
        >>> network, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
        >>> found = interpret({"a": network}, x, torch.tensor([0, 1, 0]), {"fgsm": FGSM(eps=1)}, [Accuracy()])
        >>> [(row.network, row.statistic, row.count) for row in found["accuracy"].findings]
        [('a', 'accuracy', 3)]
    """
    check_names(networks, attacks, sections, {} if domains is None else domains)
    check_images(x, y)
    if x.ndim != 4 or not len(x):
        raise UsageError(f"x must be at least one image (N, C, H, W), got shape {tuple(x.shape)}.")
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {batch_size}.")
    device = _device(networks)
    x, y = x.detach().cpu(), y.detach().cpu()
    with _held(networks, {} if domains is None else domains) as subjects:
        classes = _check_takes(subjects, x, y, device)
        for attack in attacks.values():
            attack.check_fits(tuple(x.shape[1:]), classes)
        crafted = Crafted(
            subjects,
            attacks,
            x,
            y,
            seed=seed,
            batch_size=batch_size,
            device=device,
            files=files,
            class_names=class_names,
            progress=progress,
        )
        for section in sections:
            section.check(subjects, crafted)
        return {section.name: _compute(section, subjects, crafted) for section in sections}


def _compute(section: Section, subjects: Sequence[Subject], crafted: Crafted) -> SectionResult:
    findings = list(section.find(subjects, crafted))
    return SectionResult(findings, dict(section.draw(findings, crafted, subjects)))


@contextmanager
def _held(networks: Mapping[str, nn.Module], domains: Mapping[str, str]) -> Iterator[list[Subject]]:
    """Give the networks as subjects, each through its domain and held still; afterwards they are as they were."""
    with ExitStack() as stack:
        yield [
            Subject(name, stack.enter_context(held_still(through(network, domains.get(name)))))
            for name, network in networks.items()
        ]


def _device(networks: Mapping[str, nn.Module]) -> torch.device:
    """Return where the networks are; the CPU where none has a parameter or a buffer.

    Raises:
        UsageError: They are not all on one device.
    """
    where = {
        name: tensor.device
        for name, network in networks.items()
        for tensor in [*network.parameters(), *network.buffers()]
    }
    if len(set(where.values())) > 1:
        raise UsageError(f"networks must be on one device, got {', '.join(f'{n} on {d}' for n, d in where.items())}.")
    return next(iter(where.values()), torch.device("cpu"))


def _check_takes(subjects: Sequence[Subject], x: Tensor, y: Tensor, device: torch.device) -> int:
    """Let one image go through each network, and return the number of classes that all of them know.

    Raises:
        UsageError: A network does not take it, or they differ in the number of classes.
    """
    classes: dict[str, int] = {}
    for subject in subjects:
        try:
            with torch.no_grad():
                logits = subject.network(x[:1].to(device))
        except _NOT_FOR_IT as error:
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise UsageError(
                f"networks: {subject.name} does not take images of shape {tuple(x.shape[1:])}: {why}"
            ) from error
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
            got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise UsageError(f"networks: {subject.name} must give logits (n, K), got {got} for one image.")
        classes[subject.name] = logits.shape[1]
    if len(set(classes.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in classes.items())
        raise UsageError(f"networks must know the same classes, but {told}.")
    count = next(iter(classes.values()))
    check_labels(y, count)
    return count


def check_names(
    networks: Collection[str],
    attacks: Collection[str],
    sections: Sequence[Section],
    domains: Collection[str],
) -> None:
    """Check names: those of files are made of them.

    Raises:
        UsageError: There are no networks or sections, a name cannot be that of a file, or one means two things.
    """
    if not networks:
        raise UsageError("networks must be at least one, got none.")
    for argument, names in (("networks", networks), ("attacks", attacks)):
        for name in names:
            fits = isinstance(name, str) and name.isprintable() and len(name.encode()) <= _LONGEST_NAME
            if not fits or not _IN_FILES.fullmatch(name):
                raise UsageError(
                    f"{argument} has {name!r}: a name is that of files too, so it must have 1 to {_LONGEST_NAME} "
                    'characters, none of / \\ : * ? " < > | and no dot, dash or blank in front.'
                )
    for name in attacks:
        if " " in name:  # tables have "pgd20 of standard" and "saturation 8": such a name would mean two things
            raise UsageError(
                f"attacks has {name!r}: the name of an attack has no blanks, since tables put words behind it."
            )
    if CLEAN in attacks:
        raise UsageError(f"attacks has {CLEAN!r}: that is what images without an attack are called.")
    for name in domains:
        if name not in networks:
            hint = did_you_mean(name, networks)
            raise UsageError(f"domains has {name!r}; the networks are {', '.join(networks)}.{hint}")
    _check_sections(sections)


def _check_sections(sections: Sequence[Section]) -> None:
    """Check the sections' names, of which files are made.

    Raises:
        UsageError: There are none, one has no name or a name that is not an identifier, or two have the same.
    """
    if not sections:
        raise UsageError("sections must be at least one, got none.")
    names: dict[str, str] = {}
    for section in sections:
        kind, name = type(section).__name__, getattr(section, "name", None)
        if not isinstance(name, str) or not name.isidentifier():
            raise UsageError(
                f"sections: {kind} must have an identifier as its name, as in name = 'edges', got {name!r}."
            )
        if name in names:
            raise UsageError(f"sections has two of the name {name!r} ({names[name]} and {kind}): give it once.")
        names[name] = kind
