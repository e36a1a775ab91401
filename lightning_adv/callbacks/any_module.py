"""Any LightningModule that maps images to logits, as what an observer asks of the module that it observes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.attacks import Attack, held_still
from lightning_adv.attacks.checks import check_images, check_labels
from lightning_adv.attacks.forward import check_logits
from lightning_adv.callbacks.batch_parts import BatchChoice, BatchParts, Pixels
from lightning_adv.callbacks.observed import ObservedModule
from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.nn.normalize import NormalizedNetwork
from lightning_adv.regimes import Regime


class Parts(TypedDict, total=False):
    """What an observer is told of a LightningModule that is no regime, by keyword."""

    network: str | None
    batch: BatchChoice
    mean: list[float] | None
    std: list[float] | None
    evaluation_attack: Attack | None


class ModuleParts:
    """What a user says of a LightningModule that is no regime.

    Args:
        key: What errors begin with, such as ``local_response``.
        network: The name of the submodule that maps images to logits; None is the module itself.
        batch: Where a batch has its images and labels: :data:`~lightning_adv.callbacks.batch_parts.BatchChoice`.
        mean: The mean of each channel, by which the images of a batch are normalised; None where they lie in [0, 1].
        std: The standard deviation of each channel.
        evaluation_attack: The attack of observers that are not given one.

    Raises:
        UsageError: An argument is not what it must be.
    """

    def __init__(
        self,
        key: str,
        network: str | None = None,
        batch: BatchChoice = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        evaluation_attack: Attack | None = None,
    ) -> None:
        given = {"network": network, "batch": batch, "mean": mean, "std": std, "evaluation_attack": evaluation_attack}
        self.key = key
        self.given = [name for name, value in given.items() if value is not None]
        self.network = network
        self.parts = BatchParts(batch, f"{key}.batch")
        self.pixels = Pixels(mean, std, key)
        self.attack = None if evaluation_attack is None else Attack.from_config(evaluation_attack)

    def of(
        self, module: LightningModule, observer: str, needs: Sequence[str], seed: int | None = None
    ) -> ObservedModule:
        """Return a module as one that can be observed.

        Args:
            module: What the Trainer trains.
            observer: The name of the observer, for errors.
            needs: The attributes of :class:`~lightning_adv.callbacks.observed.ObservedModule` that it uses.
            seed: The seed of a run that is resumed; None is that of this run.

        Raises:
            UsageError: It cannot be observed.
        """
        if isinstance(module, Regime) and self.given:
            raise UsageError(
                f"{self.key}.{self.given[0]} is for a LightningModule that is no regime, and {type(module).__name__} "
                "says by itself what its network, batches and evaluation_attack are: leave it out."
            )
        if not self.given and all(hasattr(module, name) for name in needs):
            return cast(ObservedModule, module)
        attack = getattr(module, "evaluation_attack", None) if self.attack is None else self.attack
        if "evaluation_attack" in needs and not isinstance(attack, Attack):
            raise UsageError(
                f"{observer} attacks the network, and {type(module).__name__} is no regime, which would say how: give "
                f"{self.key}.evaluation_attack."
            )
        return cast(ObservedModule, ForeignModule(module, self, attack, seed))


class ForeignModule:
    """An :class:`~lightning_adv.callbacks.observed.ObservedModule` of any LightningModule.

    Args:
        module: What the Trainer trains.
        told: What the user says of it.
        attack: The attack of observers that are not given one; None where none needs it.
        seed: Of the images and their noise; None is that of the run.

    Raises:
        UsageError: The module has no such submodule.
    """

    domains: tuple[str, ...] = ()
    inference_domain: str | None = None

    def __init__(self, module: LightningModule, told: ModuleParts, attack: Attack | None, seed: int | None) -> None:
        network = find_network(module, told.network, f"{told.key}.network")
        normalize = told.pixels.normalize
        self.network = network if normalize is None else NormalizedNetwork(normalize.to(module.device), network)
        self.evaluation_attack = attack
        self.seed = seed
        self.num_classes: int | None = None
        self._module, self._told = module, told

    @property
    def class_name(self) -> str:
        """The name of the module's class."""
        return type(self._module).__name__

    @property
    def adversarial(self) -> bool:
        """Whether it is trained on adversarial images, as far as anybody can tell from outside."""
        callbacks = self._module.trainer.callbacks  # type: ignore[attr-defined]
        return any(getattr(callback, "makes_adversarial", False) for callback in callbacks)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._module.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its parameters."""
        return cast(torch.dtype, self._module.dtype)

    def check_batch(self, batch: Any, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return a batch as images (N, C, H, W) in [0, 1], in the network's precision, and labels (N,) int64.

        Raises:
            UsageError: It has no such parts, or the network does not map its images to logits of its labels.
        """
        x, y = self._told.parts(batch)
        x = self._told.pixels.of(x).to(self.dtype)
        y = y if y.is_floating_point() or y.is_complex() else y.long()
        check_has_forward(self._module, self._told.network, f"{self._told.key}.network")
        try:
            check_images(x, y)
            with self._module.trainer.precision_plugin.forward_context(), torch.compiler.set_stance("force_eager"):
                self.num_classes = check_classifier(self.network, x, y)
        except UsageError as error:
            raise error.under(self._told.key) from error
        return x, y

    def held_in_eval(self) -> list[nn.Module]:
        """Return the BatchNorms that normalise by their running statistics in training, as frozen ones do."""
        return [module for module in self.network.modules() if isinstance(module, _BatchNorm) and not module.training]


def class_name(module: object) -> str:
    """Return the name of the class of what is trained, for an error."""
    return module.class_name if isinstance(module, ForeignModule) else type(module).__name__


def find_network(module: LightningModule, name: str | None, key: str) -> nn.Module:
    """Return a submodule by its dotted name, or the module itself.

    Raises:
        UsageError: There is none of that name.
    """
    if name is None:
        return module
    submodules: dict[str, nn.Module] = dict(module.named_modules())
    if not name or name not in submodules:
        hint = did_you_mean(name, submodules)
        children = ", ".join(child for child, _ in module.named_children())
        raise UsageError(
            f"{key} is {name!r}, and {type(module).__name__} has no such submodule.{hint} It has {children or 'none'}."
        )
    return submodules[name]


def check_has_forward(module: LightningModule, name: str | None, key: str) -> None:
    """Check that a module takes images by itself where no submodule is named.

    Raises:
        UsageError: It has no ``forward``.
    """
    if name is None and not is_overridden("forward", module, LightningModule):
        children = ", ".join(child for child, _ in module.named_children())
        raise UsageError(
            f"{key} must be the name of the submodule that takes images, since {type(module).__name__} has no forward "
            f"of its own. It has {children or 'none'}."
        )


@torch.no_grad()
def check_classifier(network: nn.Module, x: Tensor, y: Tensor) -> int:
    """Run images through a network, and check that what comes out is logits of their classes.

    Args:
        network: The network.
        x: Images (N, ...).
        y: Labels (N,).

    Returns:
        The number of classes.

    Raises:
        UsageError: It is something else. What softmax gives would pass for logits, and every loss would be another.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> check_classifier(network, torch.rand(2, 1, 2, 2), torch.tensor([0, 2]))
        3
    """
    with held_still(network) as still, torch.no_grad():
        logits = check_logits(still(x), len(x))
    check_labels(y, logits.shape[1])
    wide = logits.float()
    if len(x) > 1 and bool((wide >= 0).all()) and bool(((wide.sum(1) - 1).abs() < 1e-2).all()):
        raise UsageError(
            "the network gives probabilities, which sum to 1 for each image, and not logits: name by network: the "
            "submodule before the softmax."
        )
    return logits.shape[1]
