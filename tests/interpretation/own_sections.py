"""Sections of a user's own."""

from __future__ import annotations

from lightning_adv.core.errors import UsageError
from lightning_adv.core.figures import new_figure
from lightning_adv.interpretation import Finding, Section, image_name


class Brightness(Section):
    """By how much examples are brighter than their images, times a factor."""

    name = "brightness"

    def __init__(self, factor: float = 1.0) -> None:
        if factor <= 0:
            raise UsageError(f"factor must be above 0, got {factor}.")
        self.factor = factor

    def find(self, subjects, crafted):
        for subject in subjects:
            for attack in crafted.attacks:
                for source in subjects:
                    moved = self.factor * (crafted.adversarial(attack, source.name) - crafted.x).mean()
                    yield Finding(
                        subject.name, image_name(attack, source.name, subject.name), "", "brighter", float(moved)
                    )

    def draw(self, findings, crafted, subjects):
        figure = new_figure(2, 2)
        figure.subplots().plot([row.value for row in findings])
        return {"line": figure} if self.factor == 1 else {"other line": figure}


class Stopped(Brightness):
    """Ends as Ctrl-C does."""

    def find(self, subjects, crafted):
        raise KeyboardInterrupt
