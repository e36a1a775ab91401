"""What observers that look at images share: whose images these are, and what an attack of a look may cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, get_args

from lightning.pytorch import Trainer

from lightning_adv.attacks import Attack
from lightning_adv.attacks.describe import attack_name
from lightning_adv.attacks.shorter import shortened
from lightning_adv.callbacks.fixed_images import FixedImages, Split, take_images
from lightning_adv.callbacks.observed import ObservedModule
from lightning_adv.callbacks.observer import Observer, ObserverParts
from lightning_adv.core.errors import UsageError
from lightning_adv.core.keywords import Unpack
from lightning_adv.core.table import Record
from lightning_adv.nn.weights.load import say

MAX_ATTACK_STEPS = 200
"""The steps of a look's attack that nobody chose for it; the papers' longest attack in training runs but one."""


class ImageParts(ObserverParts, total=False):
    """What every observer of images takes by keyword."""

    split: Split | None
    max_attack_steps: int | None


class ImageObserver(Observer):
    """An observer that looks at the same images each time, clean or attacked.

    A subclass takes the images in :meth:`prepare`, by :meth:`take_images`, and attacks them by :meth:`attack_of`, or
    by :meth:`attack_of` and a name where it was given several.

    **Test images are never for selection.** With ``split: test`` a checkpoint, an early stopping or a scheduler that
    monitors a number of this observer is refused.

    **The attack of a look has a price limit.** The regime's ``evaluation_attack`` may be meant for one evaluation at
    the end: PGD-2000 on a few hundred images after each epoch would cost more than many epochs. Where it takes more
    than ``max_attack_steps`` steps for an image, restarts included, a shorter attack of the same kind takes its place
    (:func:`~lightning_adv.attacks.shorter.shortened`): a warning names both, and the table has ``attack_steps`` (and
    ``attack_restarts``) in each look. An attack that cannot be shortened, such as AutoAttack, is an error before
    training. An attack that the observer is given itself runs as it is, unless ``max_attack_steps`` is given too.

    Args:
        every_n_epochs: Look at the end of every this many training epochs, after validation. This is the default,
            with 1, where neither is given.
        every_n_steps: Look after every this many optimizer steps instead.
        figures_every_n_looks: Draw at the first look and then at every this many, and at the end of training.
        split: Whose images it looks at: ``validation``, ``training`` or ``test``; None is ``validation``, unless the
            observer's class says otherwise.
        max_attack_steps: The most steps that the attack of a look takes for an image, all restarts together. None is
            200, and no limit for an attack that the observer is given itself.
        **parts: ``name``, and what it is told of a LightningModule that is no regime.

    Raises:
        UsageError: An argument is not what it must be.

    Example:
        >>> class Brightness(ImageObserver):
        ...     def prepare(self, trainer, module):
        ...         self.images = self.take_images(trainer, module, images=100)
        ...
        ...     def observe(self, trainer, module):
        ...         attack = self.attack_of(module)
        ...         for batch in self.images.batches:
        ...             x, y, noise = batch.to(module.device)
        ...             yield Record("", "", f"moved[{batch.index}]", (attack(module.network, x, y) - x).mean())
        >>> Brightness(split="test").split
        'test'
    """

    default_split: ClassVar[Split] = "validation"
    """Whose images it looks at unless it is told."""

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figures_every_n_looks: int = 10,
        *,
        split: Split | None = None,
        max_attack_steps: int | None = None,
        **parts: Unpack[ObserverParts],
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps, figures_every_n_looks, **parts)
        self.check_positive(max_attack_steps=max_attack_steps)
        if split is not None and split not in get_args(Split):
            raise UsageError(f"{self.analysis}.split must be one of {', '.join(get_args(Split))}, got {split!r}.")
        self.split: Split = self.default_split if split is None else split
        self.max_attack_steps = max_attack_steps
        self._attacks: dict[str, Attack] = {}
        self._steps: list[Record] = []

    # To use in a subclass -----------------------------------------------------------------------------------------

    def take_images(
        self,
        trainer: Trainer,
        module: ObservedModule,
        *,
        images: int | None = None,
        default: int = 256,
        batch_size: int = 64,
    ) -> FixedImages:
        """Take the images of the looks; see :func:`~lightning_adv.callbacks.take_images`.

        Observers of one class take the same ones, whatever their names are.
        """
        return take_images(
            trainer,
            module,
            observer=type(self).analysis,
            split=self.split,
            images=images,
            default=default,
            batch_size=batch_size,
            argument=self.analysis,
        )

    def attack_of(self, module: ObservedModule, name: str = "") -> Attack:
        """Return the attack of a look, as long as it may be.

        Args:
            module: What is observed.
            name: The attack's name among ``self.attacks``, where the observer has several; the empty string is
                ``self.attack``, or :meth:`default_attack` where that is None.
        """
        if name not in self._attacks:
            own: Attack | None = getattr(self, "attacks", {})[name] if name else getattr(self, "attack", None)
            attack = self.default_attack(module) if own is None else own
            self._attacks[name] = self._affordable(attack, name, given=own is not None)
        return self._attacks[name]

    def default_attack(self, module: ObservedModule) -> Attack:
        """Return the attack of an observer that is given none. Override it for another one."""
        return module.evaluation_attack

    # The ritual ---------------------------------------------------------------------------------------------------

    def get_ready(self, trainer: Trainer, module: ObservedModule) -> None:
        """Check that the test is not selected by, and what the attacks of a look cost.

        Raises:
            UsageError: The former, or an attack costs more than it may and cannot be shortened.
        """
        self._attacks, self._steps = {}, []
        if self.split == "test":
            self._check_unmonitored(trainer)
        if "evaluation_attack" in self.needs:
            for name in getattr(self, "attacks", None) or ("",):
                self.attack_of(module, name)

    def remarks(self) -> Iterable[Record]:
        """Return how long the attacks are that had to be shortened."""
        return self._steps

    def _affordable(self, attack: Attack, name: str, *, given: bool) -> Attack:
        """Return the attack, or a shorter one that is told of.

        Raises:
            UsageError: It costs more than it may, and there is no shorter one of its kind.
        """
        limit = self.max_attack_steps
        if limit is None:
            if given:
                return attack
            limit = MAX_ATTACK_STEPS
        short = shortened(attack, limit)
        key = f"{self.analysis}.max_attack_steps"
        if short is None:
            raise UsageError(
                f"{key} is {limit}, and {attack_name(attack)}, the attack of each look, takes up to {attack.passes:,} "
                f"passes for an image and cannot be shortened: give another one as {self.analysis}.attack, or {key} "
                "that many."
            )
        if short is not attack:
            say(
                f"{self.analysis}: each look attacks with {attack_name(short)} in the place of {attack_name(attack)}, "
                f"since {key} is {limit}; validation and test keep theirs. To look with another attack, give "
                f"{self.analysis}.attack.",
                warn=True,
            )
            prefix = f"{name}_" if name else ""
            counts: Mapping[str, int] = {"steps": short.passes // short.restarts, "restarts": short.restarts}
            changed: Iterable[str] = ("steps", "restarts") if attack.restarts > 1 else ("steps",)
            self._steps += [Record("", "", f"{prefix}attack_{each}", float(counts[each])) for each in changed]
        return short

    def _check_unmonitored(self, trainer: Trainer) -> None:
        """Check that nothing is chosen by what is found on test images.

        Raises:
            UsageError: Something is.
        """
        monitors = [getattr(each, "monitor", None) for each in (*trainer.callbacks, *trainer.lr_scheduler_configs)]  # type: ignore[attr-defined]
        mine = [each for each in monitors if isinstance(each, str) and each.startswith(f"{self.analysis}/")]
        if mine:
            raise UsageError(
                f"{self.analysis}.split is test, and something monitors {mine[0]}: nothing may be chosen by test "
                "images. Look at validation images, or monitor another number."
            )
