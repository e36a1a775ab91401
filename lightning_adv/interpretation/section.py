"""The base class of sections: what is looked at in several networks, on the same images and adversarial examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from lightning_adv.interpretation.crafted import Crafted
from lightning_adv.interpretation.finding import Finding
from lightning_adv.interpretation.subject import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Section(ABC):
    """One subject of an interpretation: numbers as a table, and pictures.

    A subclass has a name and writes :meth:`find`; :meth:`check` and :meth:`draw` where it has something to check or to
    show. Its constructor's arguments are what ``init_args`` of a configuration give it. What its pictures need beyond
    the findings it may keep on itself in :meth:`find`.

    Whatever other sections there are, and in whatever order: its numbers are the same, since all that it draws at
    random comes from :meth:`Crafted.generator` under its own name, and since it leaves networks, images and examples as
    they are. :func:`lightning_adv.testing.check_section` checks that.

    Attributes:
        name: The section's name, an identifier: that of its table, of its pictures and of its part of the report.

    Example:
        >>> import torch
        >>> class Brightness(Section):
        ...     name = "brightness"
        ...
        ...     def find(self, subjects, crafted):
        ...         for subject in subjects:
        ...             for attack in crafted.attacks:
        ...                 moved = crafted.adversarial(attack, subject.name) - crafted.x
        ...                 yield Finding(subject.name, attack, "", "brighter", float(moved.mean()), count=len(moved))
        >>> crafted = Crafted([], {}, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]))
        >>> list(Brightness().find([], crafted))
        []
    """

    name: ClassVar[str]

    def check(self, subjects: Sequence[Subject], crafted: Crafted) -> None:  # noqa: B027 (overridden where needed)
        """Check that the section can be computed, before anything is. There is nothing to check by default.

        Args:
            subjects: The networks.
            crafted: The images, and the attacks. No example is to be crafted here.

        Raises:
            UsageError: It cannot: a network without such a layer, too few images, ...
        """

    @abstractmethod
    def find(self, subjects: Sequence[Subject], crafted: Crafted) -> Iterable[Finding]:
        """Compute the numbers.

        Args:
            subjects: The networks, in the order in which they are shown.
            crafted: The images and their adversarial examples.

        Returns:
            The rows of the section's table.
        """

    def draw(self, findings: Sequence[Finding], crafted: Crafted, subjects: Sequence[Subject]) -> Mapping[str, Figure]:
        """Draw the pictures, after :meth:`find` on the same object; none by default.

        Args:
            findings: What :meth:`find` returned.
            crafted: The images and their adversarial examples.
            subjects: The networks.

        Returns:
            Figures by name, of which ``NAME`` becomes the file ``figures/SECTION_NAME.png``.
        """
        return {}
