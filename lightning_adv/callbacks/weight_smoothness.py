"""How smooth the kernels become while a network trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer

from lightning_adv.analysis.weight_smoothness import smoothness_records, spatial_convolutions
from lightning_adv.analysis.weight_smoothness_figures import plot_kernels, plot_smoothness
from lightning_adv.callbacks.layer_selection import LayerSelection
from lightning_adv.callbacks.observed import NETWORK_AND_DOMAINS, ObservedModule
from lightning_adv.callbacks.observer import Observer, ObserverParts
from lightning_adv.core.keywords import Unpack
from lightning_adv.core.table import Record, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class WeightSmoothness(Observer):
    """Measures the quadratic sum of parameters, how smooth each kernel is, and how weight decay acts on it.

    "Dissecting Local Properties of Adversarial Examples" (ICLR 2022 submission, anonymous), section 4.4 and figure 5a.
    The table has the numbers of :func:`~lightning_adv.analysis.weight_smoothness.smoothness_records`; logged are

    * ``smoothness/quadratic_sum``: of all parameters, those of the regime's ``inference_domain`` where it has domains,
    * ``smoothness/relative_kernel_variance``, ``smoothness/relative_total_variation`` and
      ``smoothness/high_frequency_share``: means over the convolutions.

    Only weights are looked at: no image and no forward pass.

    Args:
        layers: Patterns of convolutions' names, as in ``layer1.**``. Those of 1×1 kernels have no shape, and are left
            out.
        every_n_epochs: Look at the end of every this many training epochs, after validation. This is the default,
            with 1, where neither is given.
        every_n_steps: Look after every this many optimizer steps instead.
        figures_every_n_looks: Draw at the first look and then at every this many, and at the end of training.
        **parts: ``name``, and where a LightningModule that is no regime has its network and images: ``network``,
            ``batch``, ``mean``, ``std`` and ``evaluation_attack``, as of :class:`~lightning_adv.callbacks.Observer`.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> WeightSmoothness(layers=["conv1", "layer1.**"], every_n_epochs=5).every_n_epochs
        5
    """

    analysis = "smoothness"
    needs = NETWORK_AND_DOMAINS

    def __init__(
        self,
        layers: str | Sequence[str] = "**",
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figures_every_n_looks: int = 10,
        **parts: Unpack[ObserverParts],
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps, figures_every_n_looks, **parts)
        self.layers = layers
        self._names: list[str] = []

    def prepare(self, trainer: Trainer, module: ObservedModule) -> None:
        """Find the convolutions.

        Raises:
            UsageError: There are none.
        """
        selection = LayerSelection(self.layers, f"{self.analysis}.layers")
        self._names = list(selection.among(spatial_convolutions(module.network)))

    def observe(self, trainer: Trainer, module: ObservedModule) -> list[Record]:
        """Measure the weights, which are the same on every process."""
        return smoothness_records(module.network, self._names, domains=module.domains, optimizer=trainer.optimizers[0])

    def draw(self, rows: Sequence[Row]) -> Mapping[str, Figure]:
        """Draw the curves of the whole network, and the heat map of its convolutions."""
        return {"curves": plot_smoothness(rows), "high_frequency_share": plot_kernels(rows)}
