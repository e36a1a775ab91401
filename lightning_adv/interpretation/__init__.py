"""Inside networks: several looked at side by side, on the same images and adversarial examples, section by section.

``lightning-adv interpret`` is its command. A module is imported when the first of its names is used.
"""

from typing import TYPE_CHECKING, Any

from lightning_adv.core.offering import offer

if TYPE_CHECKING:
    from lightning_adv.interpretation.crafted import Crafted as Crafted
    from lightning_adv.interpretation.finding import Finding as Finding
    from lightning_adv.interpretation.finding import image_name as image_name
    from lightning_adv.interpretation.finding import mean_finding as mean_finding
    from lightning_adv.interpretation.finding import share_finding as share_finding
    from lightning_adv.interpretation.interpreting import SectionResult as SectionResult
    from lightning_adv.interpretation.interpreting import interpret as interpret
    from lightning_adv.interpretation.section import Section as Section
    from lightning_adv.interpretation.sections import FeatureSpace as FeatureSpace
    from lightning_adv.interpretation.sections import LocalProperties as LocalProperties
    from lightning_adv.interpretation.sections import Saliency as Saliency
    from lightning_adv.interpretation.sections import ShapeBias as ShapeBias
    from lightning_adv.interpretation.sections import ShapeTexture as ShapeTexture
    from lightning_adv.interpretation.subject import Subject as Subject

_OFFERED = {
    "crafted": ("Crafted",),
    "finding": ("Finding", "image_name", "mean_finding", "share_finding"),
    "interpreting": ("SectionResult", "interpret"),
    "section": ("Section",),
    "sections": ("FeatureSpace", "LocalProperties", "Saliency", "ShapeBias", "ShapeTexture"),
    "subject": ("Subject",),
}
"""By module, what it offers. A section is named by this package, as in lightning_adv.interpretation.MySection."""

__all__ = [name for names in _OFFERED.values() for name in names]
_get = offer(__name__, _OFFERED)


def __dir__() -> list[str]:
    """Return what is offered too, for completion and the API reference."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    return _get(name)
