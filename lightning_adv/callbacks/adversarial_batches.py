"""An adversary for any LightningModule: its training step gets adversarial images in the place of the batch's."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lightning_adv.attacks import Attack, attack_by_loss
from lightning_adv.attacks.checks import trust
from lightning_adv.attacks.own_loss import check_climbs
from lightning_adv.callbacks.any_module import check_classifier, check_has_forward, find_network
from lightning_adv.callbacks.batch_parts import BatchChoice, BatchParts, Pixels
from lightning_adv.core.errors import UsageError
from lightning_adv.core.seeds import derive_seed, run_seed
from lightning_adv.nn.normalize import NormalizedNetwork
from lightning_adv.regimes import Regime
from lightning_adv.regimes.checks import check_precision

_KEY = "adversarial_batches"


class AdversarialBatches(Callback):
    """Replaces the images of each training batch by adversarial ones, before the module's own ``training_step``.

    The module stays as it is: what it trains on, logs and saves is up to it. The images are made by an attack on

    * ``loss``, if it is given: a function of the network's outputs and the batch's labels,
    * else the module's own ``adversarial_loss(self, batch)``, if it has that method: it returns the loss of a batch
      and must neither log nor update metrics, since it is called in each step of the attack,
    * else the network's logits, as a classifier's, by the attack's own loss.

    Both losses may give one number for each sample or one for the batch, such as a mean: the steps of an attack are the
    same (:func:`~lightning_adv.attacks.attack_by_loss`, which says what attacks can climb them).

    All promises of attacks hold: flags, gradients, buffers and random states stay as they are, the network is in eval
    mode during the attack, and its precision is the Trainer's. The noise depends on the seed, the epoch, the batch and
    the process alone, and a checkpoint keeps the seed: a resumed run draws the same. It works with DDP, accumulated
    gradients, mixed precision and manual optimization, where the backward pass of a loss belongs to the step that
    computed it: once the step has ended, the images are clean again, and PyTorch refuses a later one.

    A batch may be of any kind: its own tensor of images gets other numbers until the step has ended. So the tensor
    must stand in the batch itself, and ``uint8`` images that the module's ``training_step`` turns into floats are not
    images yet: do that in ``on_after_batch_transfer``. Validation and test are not attacked; observers and
    :class:`~lightning_adv.callbacks.EarlyWarning` tell how robust a classifier is.

    Args:
        attack: The attack.
        loss: A function of the network's outputs and the labels that gives (N,) or one number, such as
            ``torch.nn.functional.mse_loss``; in YAML also ``class_path: torch.nn.MSELoss``. Labels of as many
            floating-point numbers as there are outputs get the outputs' shape.
        network: The name of the submodule that maps images to outputs; None is the module itself.
        batch: Where a batch has its images and labels, such as ``[image, label]`` or ``[0, 1]``, or a function of a
            batch; None: it is a pair. Without labels, such as ``[image]``, where the loss needs none.
        mean: The mean of each channel by which the images are normalised; None where they lie in [0, 1].
        std: The standard deviation of each channel.

    Raises:
        UsageError: An argument is not what it must be.

    Example:
        >>> from lightning_adv.attacks import PGD
        >>> adversary = AdversarialBatches(PGD(eps="8/255"), loss=nn.functional.mse_loss, batch=["image", "height"])
        >>> trainer = Trainer(callbacks=[adversary], logger=False, enable_checkpointing=False, accelerator="cpu")
    """

    makes_adversarial: ClassVar[bool] = True

    def __init__(
        self,
        attack: Attack,
        loss: Callable[..., Any] | None = None,
        network: str | None = None,
        batch: BatchChoice = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        self.attack = Attack.from_config(attack)
        if loss is not None:
            if not callable(loss):
                raise UsageError(f"{_KEY}.loss must be a function of outputs and labels, got {loss!r}.")
            check_climbs(self.attack, f"{_KEY}.attack")
        self.loss = loss
        self.network = network
        self._parts = BatchParts(batch, f"{_KEY}.batch", labels=False)
        self._pixels = Pixels(mean, std, _KEY)
        self._seed: int | None = None
        self._checked = False
        self._replaced: tuple[Tensor, Tensor] | None = None

    # Lightning's hooks --------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the seed of another run, before that of a checkpoint comes (a Lightning hook)."""
        if stage == "fit":
            self._seed, self._checked = None, False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Settle the seed, and check what can be checked before there is a batch (a Lightning hook).

        Raises:
            UsageError: The module cannot be trained like this.
        """
        name = type(pl_module).__name__
        if isinstance(pl_module, Regime):
            raise UsageError(
                f"AdversarialBatches is for a LightningModule that is no regime, and {name} says by itself what it is "
                "trained on: give it an attack, or use MadryTraining."
            )
        if is_param_in_hook_signature(pl_module.training_step, "dataloader_iter", explicit=True):
            raise UsageError(
                f"AdversarialBatches replaces the images of a batch, and {name}.training_step(dataloader_iter) takes "
                "its batches by itself."
            )
        find_network(pl_module, self.network, f"{_KEY}.network")
        if self._own_loss(pl_module) is None:
            check_has_forward(pl_module, self.network, f"{_KEY}.network")
        else:
            check_climbs(self.attack, f"{_KEY}.attack")
        self.attack.check_available()
        self.attack.threat_model  # noqa: B018 - an attack that does not say what it stays in says so now
        check_precision(str(trainer.precision))
        if self._seed is None:  # processes that nobody seeded have a seed each
            self._seed = trainer.strategy.broadcast(run_seed())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Put adversarial images in the place of the batch's (a Lightning hook).

        Raises:
            UsageError: The batch has no such images or labels, or the network does not take them.
        """
        self._give_back()
        x, y = self._parts(batch)
        look = batch_idx == 0 or x.device.type == "cpu"  # on an accelerator, reading a value stops the queue
        clean = self._pixels.of(x, look=look)
        trust(clean, *(() if look or not isinstance(y, Tensor) else (y,)))
        seed = derive_seed(self._seed or 0, _KEY, trainer.current_epoch, batch_idx, trainer.global_rank)
        noise = torch.Generator(x.device).manual_seed(seed)
        with trainer.precision_plugin.forward_context():
            adversarial = self._attacked(pl_module, batch, x, clean, y, noise)
        self._replace(batch, x, self._pixels.back(adversarial, x, clean))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Give the batch its own images back, which a loader may hand out again (a Lightning hook)."""
        self._give_back()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do so where a batch had no end, since the module left the epoch (a Lightning hook)."""
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Do so where the step failed (a Lightning hook)."""
        self._give_back()

    def state_dict(self) -> dict[str, Any]:
        """Return the seed, for the checkpoint."""
        return {"seed": self._seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a checkpoint's seed."""
        self._seed = state_dict["seed"]

    # The attack ---------------------------------------------------------------------------------------------------

    def _own_loss(self, pl_module: LightningModule) -> Callable[[Any], Tensor] | None:
        """Return the module's own loss of a batch, where it is that which is climbed."""
        own = getattr(pl_module, "adversarial_loss", None)
        return own if self.loss is None and callable(own) else None

    def _attacked(
        self, pl_module: LightningModule, batch: Any, x: Tensor, clean: Tensor, y: Any, noise: torch.Generator
    ) -> Tensor:
        """Return adversarial pixels (N, C, H, W) of the batch's images ``x``, whose pixels are ``clean``."""
        network = find_network(pl_module, self.network, f"{_KEY}.network")
        if self._pixels.normalize is not None:
            network = NormalizedNetwork(self._pixels.normalize.to(x.device), network)
        if x.dtype != pl_module.dtype:  # its training_step makes the images those of its network
            network = nn.Sequential(_InPrecision(cast(torch.dtype, pl_module.dtype)), network)
        given, own = self.loss, self._own_loss(pl_module)
        if given is not None:

            def loss_of_outputs(images: Tensor) -> Tensor:
                value: Tensor = given(*_of_one_shape(network(images), y))
                return value

            told = f"{_KEY}.loss"
            return attack_by_loss(self.attack, network, clean, loss_of_outputs, generator=noise, told=told)
        if own is not None:

            def loss_of_batch(images: Tensor) -> Tensor:
                return own(_with_images(batch, x, self._pixels.back(images, x, clean)))

            told = f"{type(pl_module).__name__}.adversarial_loss"
            return attack_by_loss(self.attack, pl_module, clean, loss_of_batch, generator=noise, told=told)
        return self._attacked_classifier(network, clean, y, noise)

    def _attacked_classifier(self, network: nn.Module, clean: Tensor, y: Any, noise: torch.Generator) -> Tensor:
        if not isinstance(y, Tensor) or y.is_floating_point():
            told = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise UsageError(
                f"{_KEY}.batch must give integer labels beside the images, got {told}: without them, give {_KEY}.loss "
                "or the module a method adversarial_loss(self, batch)."
            )
        try:
            if not self._checked:
                check_classifier(network, clean, y)
                self._checked = True
            return self.attack(network, clean, y, generator=noise)
        except UsageError as error:
            raise error.under(_KEY) from error

    # The batch ----------------------------------------------------------------------------------------------------

    def _replace(self, batch: Any, x: Tensor, adversarial: Tensor) -> None:
        """Let the batch's own tensor of images have other numbers; those that it had are written to by nobody.

        Raises:
            UsageError: The batch has its images elsewhere.
        """
        self._replaced = (x, x.detach())
        with torch.no_grad():
            x.set_(adversarial.detach())  # type: ignore[call-overload]
        if self._parts(batch)[0].data_ptr() != x.data_ptr():
            raise UsageError(_NOT_IN_BATCH)

    def _give_back(self) -> None:
        if self._replaced is not None:
            x, kept = self._replaced
            self._replaced = None
            with torch.no_grad():
                x.set_(kept)  # type: ignore[call-overload]


class _InPrecision(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        return images.to(self.dtype)


_NOT_IN_BATCH = (
    f"{_KEY}.batch must give a tensor that stands in the batch itself, and not one that is computed from it: what is "
    "computed, its module's or data module's on_after_batch_transfer can do before."
)


def _with_images(batch: Any, x: Tensor, images: Tensor) -> Any:
    """Return a batch that has other images in the place of ``x``: in a collection wherever that stands, else by name.

    Raises:
        UsageError: It does not stand in the batch.
    """
    found: list[Tensor] = []

    def put(tensor: Tensor) -> Tensor:
        if tensor is not x:
            return tensor
        found.append(tensor)
        return images

    changed = apply_to_collection(batch, Tensor, put, allow_frozen=True)
    if not found:  # an object of a class of its own
        names = [name for name, value in getattr(batch, "__dict__", {}).items() if value is x]
        if not names:
            raise UsageError(_NOT_IN_BATCH)
        changed = copy(batch)
        vars(changed).update(dict.fromkeys(names, images))
    return changed


def _of_one_shape(outputs: Any, labels: Any) -> tuple[Any, Any]:
    """Return floating-point labels in the shape of as many outputs: of (N, 1) and (N,), a loss would take all pairs."""
    both = isinstance(outputs, Tensor) and isinstance(labels, Tensor)
    if both and labels.is_floating_point() and labels.shape != outputs.shape and labels.numel() == outputs.numel():
        labels = labels.view_as(outputs)
    return outputs, labels
