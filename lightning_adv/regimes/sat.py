"""Smooth adversarial training, SAT (Xie 2020, chapter 5): adversarial training of a network without kinks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal, cast

from torch import Tensor, nn

from lightning_adv.core.arguments import check_choices
from lightning_adv.core.errors import UsageError
from lightning_adv.nn.activations import find_kinks, smooth_backward
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.libraries import default_image_shape
from lightning_adv.nn.normalize import NormalizedNetwork
from lightning_adv.regimes.keywords import MadryKeywords, Unpack
from lightning_adv.regimes.madry import MadryTraining


class SmoothAdversarialTraining(MadryTraining):
    """Adversarial training with every ReLU replaced by a smooth activation (section 5.4).

    Args:
        backbone: What network to build. Its own ``activation`` stays free for this regime.
        activation: ``"softplus"``, ``"parametric_softplus"``, ``"silu"``, ``"gelu"``, ``"elu"``, ``"celu"`` or
            ``"smooth_relu"`` (section 5.4.1 and equation 5.4). None takes the network as it is, for those that have no
            ReLU to begin with (EfficientNet, section 5.5.2).
        activation_options: Arguments of the activation, such as ``{alpha: 10}``.
        smooth_gradient: None for SAT. ``"attack"``, ``"update"`` or ``"both"`` is the control experiment of table 5.1
            instead: ReLU forward everywhere, and the gradient of Parametric Softplus (equation 5.3) in the attack only,
            in the weight update only, or in both. ``activation`` is then left out; validation uses ReLU's gradient.
        **kwargs: The other arguments of :class:`~lightning_adv.regimes.madry.MadryTraining`.

    Raises:
        UsageError: An argument is out of its range, or a ReLU of the network cannot be replaced.

    Example:
        >>> regime = SmoothAdversarialTraining(Backbone("small_cnn", in_channels=1), num_classes=10)
        >>> regime.network.network.layer1[2]
        SiLU()
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        activation: str | None = "silu",
        activation_options: dict[str, Any] | None = None,
        smooth_gradient: Literal["attack", "update", "both"] | None = None,
        **kwargs: Unpack[MadryKeywords],
    ) -> None:
        self.smooth_gradient = smooth_gradient
        check_choices(self, SmoothAdversarialTraining)
        super().__init__(
            _with_activation(Backbone.from_config(backbone), activation, activation_options, smooth_gradient), **kwargs
        )

    def build_network(self, num_classes: int) -> nn.Module:
        """Return the backbone, which must be smooth if it was to be taken as it is.

        Raises:
            UsageError: It is not.
        """
        built = cast(NormalizedNetwork, super().build_network(num_classes))
        if self.backbone.activation is None:
            shape = default_image_shape(
                built.network, self.backbone.stem, self.backbone.in_channels, self.backbone.options
            )
            if found := find_kinks(built.network, shape):
                raise UsageError(
                    f"activation is null, but backbone.name {self.backbone.name!r} is not smooth, as in {found[0]}: "
                    "name the activation that replaces its ReLUs, or take another network."
                )
        return built

    def inner_maximisation(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the adversarial examples (N, C, H, W)."""
        with self._gradient_of("attack"):
            return super().inner_maximisation(x, y)

    def outer_minimisation(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
        """Return the objective."""
        with self._gradient_of("update"):
            return super().outer_minimisation(x, x_adv, y)

    def clean_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of the clean images alone."""
        with self._gradient_of("update"):
            return super().clean_loss(x, y)

    def _gradient_of(self, step: str) -> AbstractContextManager[None]:
        """The smooth gradient within one of the two steps of equation 5.1, where the experiment asks for it."""
        return smooth_backward(self.network) if self.smooth_gradient in (step, "both") else nullcontext()


def _with_activation(
    backbone: Backbone, activation: str | None, options: dict[str, Any] | None, smooth_gradient: str | None
) -> Backbone:
    if smooth_gradient is not None:
        if activation not in ("silu", None):
            raise UsageError(
                f"smooth_gradient={smooth_gradient!r} keeps ReLU going forward: leave activation {activation!r} out."
            )
        activation = "smooth_backward_relu"
    elif activation == "smooth_backward_relu":
        raise UsageError(
            "activation 'smooth_backward_relu' is ReLU until it is told where to be smooth: set smooth_gradient to "
            "attack, update or both instead."
        )
    if backbone.activation not in (None, activation):
        raise UsageError(
            f"backbone.activation is {backbone.activation!r} and activation is {activation!r}: leave one of them out."
        )
    if activation is None:
        return backbone
    return replace(backbone, activation=activation, activation_options={} if options is None else dict(options))
