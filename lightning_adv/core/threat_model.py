"""What an adversarial example may be: the one form in which attacks, evaluations and files say it."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

from lightning_adv.core.distances import tell_distance
from lightning_adv.core.errors import UsageError

_NO_BALL = "no ball of a norm"
_TITLES = {"linf": "Linf", "l2": "L2", "l1": "L1"}


class ThreatModel(NamedTuple):
    """What an adversarial example may be: within ``eps`` of the clean image in a norm, and in [0, 1].

    Attributes:
        norm: ``"linf"``, ``"l2"``, ``"l1"`` or the name of another ball; None for no ball of a norm.
        eps: The radius, in the unit of the images; None for no ball of a norm.

    Example:
        >>> str(ThreatModel("linf", 8 / 255)), ThreatModel.parse("Linf 8/255") == ThreatModel("linf", 8 / 255)
        ('Linf 8/255', True)
    """

    norm: str | None
    eps: float | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the threat model that a text says, as ``str`` writes it: ``Linf 8/255``.

        Raises:
            UsageError: It says none.
        """
        if text == _NO_BALL:
            return cls(None, None)
        norm, _, eps = text.partition(" ")
        try:
            numerator, slash, denominator = eps.partition("/")
            radius = float(numerator) / (float(denominator) if slash else 1)
        except (ValueError, ZeroDivisionError):
            radius = -1
        if not norm or not 0 <= radius < float("inf"):
            raise UsageError(f"A threat model is a norm and a radius, such as Linf 8/255, or {_NO_BALL}; got {text!r}.")
        return cls(norm.lower(), radius)

    @classmethod
    def from_plain(cls, plain: dict[str, Any] | None) -> Self:
        """Return the threat model that a file says, as :meth:`to_plain` writes it."""
        return cls(None, None) if plain is None else cls(plain["norm"].lower(), plain["eps"])

    @property
    def bounded(self) -> bool:
        """Whether there is a ball."""
        return self.norm is not None and self.eps is not None

    @property
    def title(self) -> str | None:
        """The norm as tables and files write it: ``Linf``."""
        return None if self.norm is None else _TITLES.get(self.norm, self.norm)

    def to_plain(self) -> dict[str, Any] | None:
        """Return what a results file holds: ``{"norm": "Linf", "eps": 0.03}``; None for no ball of a norm."""
        return {"norm": self.title, "eps": self.eps} if self.bounded else None

    def holds(self, other: ThreatModel) -> bool:
        """Tell whether every example that another threat model allows is allowed here: a ball holds smaller ones."""
        if self.norm != other.norm or self.eps is None or other.eps is None:
            return self == other
        return self.eps >= other.eps

    def __str__(self) -> str:
        return _NO_BALL if self.eps is None or self.norm is None else f"{self.title} {tell_distance(self.eps)}"
