"""What networks see in images: saliency maps, and how features are distributed.

A module is imported when the first of its names is used, as in :mod:`lightning_adv.analysis`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_adv.analysis.features.saliency import SaliencyDistances as SaliencyDistances
    from lightning_adv.analysis.features.saliency import gini as gini
    from lightning_adv.analysis.features.saliency import grad_saliency as grad_saliency
    from lightning_adv.analysis.features.saliency import saliency_distances as saliency_distances
    from lightning_adv.analysis.features.saliency import saliency_pictures as saliency_pictures
    from lightning_adv.analysis.features.saliency import smooth_grad as smooth_grad

_OFFERED: dict[str, tuple[str, ...]] = {
    "saliency": (
        "SaliencyDistances", "gini", "grad_saliency", "saliency_distances", "saliency_pictures", "smooth_grad",
    ),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _OFFERED.items() for name in names}

__all__ = [*_MODULE_OF]


def __dir__() -> list[str]:
    """Return what is offered too, for completion and the API reference."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
