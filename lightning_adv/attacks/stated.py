"""What an attack says of itself, and others ask of it."""

from __future__ import annotations

import warnings
from typing import Any

from lightning_adv.attacks.balls import Ball, Norm, get_ball
from lightning_adv.attacks.distance import Distance, StepSize, parse_distance
from lightning_adv.attacks.hold import BatchNormMode
from lightning_adv.attacks.labels import LabelChoice
from lightning_adv.core.errors import UsageError
from lightning_adv.core.recipe import Recipe
from lightning_adv.core.threat_model import ThreatModel


class _Judges:
    """The name that ``selects_by_success`` had in version 0.1; a subclass or an instance may still set it.

    It is not a ``__getattr__``, which would hide the error of a property that raises an AttributeError.
    """

    def __get__(self, attack: Stated | None, owner: type) -> Any:
        if attack is None:
            return self
        _warn_of_judges()
        return attack.selects_by_success


class Stated(Recipe):
    """The attributes of an attack that evaluations, regimes and tables ask for, with their defaults.

    Attributes:
        norm: The norm of the ball around ``x``; None for an attack that stays in no ball of a norm.
        eps: The ball's radius; None for no bound.
        project: Whether the result stays in the ball.
        steps: Number of steps; None for an attack that has none.
        step_size: Length of a step.
        restarts: Number of runs of which the worst is kept.
        turn: Which of the runs of a larger attack the first of these is, from 0: by it a run takes its target.
        label: Which label is left, or approached.
        early_stop: Whether any iterate may be the result, and not the last alone.
        batchnorm: What BatchNorms normalise by: ``"eval"`` running statistics, ``"batch"`` those of the batch.
        variant: Which of the attacks that one class offers this is, for tables.
    """

    norm: Norm | None = None
    eps: Distance | None = None
    project: bool = True
    steps: int | None = None
    step_size: StepSize = None
    restarts: int = 1
    turn: int = 0
    label: LabelChoice = "true"
    early_stop: bool = False
    batchnorm: BatchNormMode = "eval"
    variant: str = ""

    judges = _Judges()

    @property
    def black_box(self) -> bool:
        """Whether the attack sees the network's outputs only, and no gradient."""
        return False

    @property
    def selects_by_success(self) -> bool:
        """Whether what comes back depends on where the attack itself saw the network fooled.

        Such an example lies just behind the decision boundary that the attack saw. So it must see the network that it
        is judged by, to the precision: by one that rounds otherwise, part of them are classified correctly again.
        """
        if self.says("judges"):  # as a subclass of version 0.1 says it
            _warn_of_judges()
            return bool(self.judges)
        return True

    @property
    def ball(self) -> Ball | None:
        """The ball of the attack's ``norm``, which may be the name of a norm; None where it says none.

        Raises:
            UsageError: ``norm`` is neither a :class:`~lightning_adv.attacks.Ball` nor the name of a norm.
        """
        norm, name = self.norm, type(self).__name__
        if norm is None or isinstance(norm, Ball):
            return norm
        if not isinstance(norm, str):
            raise UsageError(f"{name}.norm must be linf, l2, l1 or a Ball, got {norm!r}.")
        try:
            return get_ball(norm.lower())
        except UsageError as error:
            raise UsageError(f"{name}.{error}") from error

    @property
    def radius(self) -> float | None:
        """``eps`` as a number; None where there is none.

        Raises:
            UsageError: It is not a distance.
        """
        return None if self.eps is None else parse_distance(self.eps, f"{type(self).__name__}.eps")

    @property
    def threat_model(self) -> ThreatModel:
        """What an example of this attack may be; without ``eps`` for one that could be given one, as C&W.

        Raises:
            UsageError: It has an ``eps`` and no ``norm``, or a ``norm`` and no ``eps``, so that nobody knows what it
                stays in; or one of them cannot be read. An attack that stays in no ball of a norm says None for
                ``norm``.
        """
        name = type(self).__name__
        if self.eps is not None and not self.says("norm"):
            raise UsageError(
                f"{name} has eps {self.eps!r}, but says no norm: keep it in self.norm, as in self.norm = 'linf', or "
                "None if it stays in no ball of a norm."
            )
        ball, eps = self.ball, self.radius
        if ball is not None and not self.says("eps"):
            raise UsageError(
                f"{name} has norm {ball.name!r}, but says no eps: keep the radius in self.eps, so that the attack can "
                "be moved to another one."
            )
        return ThreatModel(None, None) if ball is None or not self.project else ThreatModel(ball.name, eps)

    def says(self, name: str) -> bool:
        """Tell whether an attribute is the attack's own, and not a default of :class:`Stated`.

        Example:
            >>> from lightning_adv.attacks import PGD
            >>> PGD().says("norm"), PGD().says("variant")
            (True, False)
        """
        own = (kind for kind in type(self).__mro__ if issubclass(kind, Stated) and kind is not Stated)
        return name in vars(self) or any(name in vars(kind) for kind in own)

    @property
    def reach(self) -> float | None:
        """How far the steps can lead away from where they start, in the ball's norm; None where nobody can say.

        An attack that has ``steps`` and a ``step_size`` goes as far as these multiply to. One whose ``step_size`` is
        something else says what it is here.
        """
        if not isinstance(self.steps, int) or not isinstance(self.step_size, int | float):
            return None
        return self.steps * float(self.step_size)

    @property
    def passes(self) -> int:
        """How often an image goes through the network at most, forward and backward: its price, up to a few passes.

        These are the ``steps`` of all ``restarts``. An attack whose price is something else says what it is here; one
        that has no ``steps`` and says nothing passes for cheap.
        """
        steps, restarts = (count if isinstance(count, int) else 1 for count in (self.steps, self.restarts))
        return max(1, steps) * max(1, restarts)


def _warn_of_judges() -> None:
    warnings.warn(
        "Attack.judges is Attack.selects_by_success now; the old name is taken until version 0.4.",
        DeprecationWarning,
        stacklevel=3,
    )
