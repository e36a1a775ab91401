"""What was loaded of a weights file, and what was not: the report of the loader, in words."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_adv.nn.weights.state_dicts import few


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_weights` did. As text it is for the user.

    Args:
        path: The file.
        source: The key under which the weights lay in it; empty for the file itself.
        loaded: Keys of the network that were loaded.
        left: Names of tensors in the file that were not used.
        missing: Keys of the network that the file does not have, which keep their start.
        replaced_head: Keys of the classifier, which has another size in the file and is new.
        head_classes: Number of classes in the network and in the file, if the classifier is new.
        domain: The BatchNorm domain that was taken, of a file that has domains.
        domains: The domains in the file.
        normalization: Mean and standard deviation that came with the file; None if the network keeps its own.
        kept_normalization: Those that the network keeps then; None if it has none.
    """

    path: str
    source: str
    loaded: tuple[str, ...]
    left: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    replaced_head: tuple[str, ...] = ()
    head_classes: tuple[int, int] | None = None
    domain: str | None = None
    domains: tuple[str, ...] = ()
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    kept_normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __str__(self) -> str:
        """Say in one line what was loaded, and in further lines what was not."""
        total = len(self.loaded) + len(self.missing) + len(self.replaced_head)
        where = f" ({self.source})" if self.source else ""
        lines = [f"{self.path}{where}: {len(self.loaded)} of {total} tensors loaded"]
        if self.head_classes is not None:
            own, theirs = self.head_classes
            lines.append(f"new: the classifier, {own} classes where the file has {theirs} ({few(self.replaced_head)})")
        if self.missing:
            lines.append(f"not in the file, left as it was: {len(self.missing)} ({few(self.missing)})")
        if self.left:
            lines.append(f"in the file, not used: {len(self.left)} ({few(self.left)})")
        if self.domain is not None:
            lines.append(f"BatchNorm domain: {self.domain}, of {', '.join(self.domains)}")
        if self.normalization is not None:
            lines.append(f"normalisation of the file: {_shown(self.normalization)}")
        elif self.kept_normalization is not None:
            lines.append(
                f"normalisation: not in the file, the network keeps its own: {_shown(self.kept_normalization)}"
            )
        else:
            lines.append("normalisation: the network has none, and none was taken from the file")
        return "\n  ".join(lines)


def _shown(normalization: tuple[tuple[float, ...], tuple[float, ...]]) -> str:
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in normalization)
    return f"mean {mean}; standard deviation {std}"


def numbers(mean: Tensor, std: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel as plain numbers, as a report holds them."""
    return tuple(mean.flatten().tolist()), tuple(std.flatten().tolist())
