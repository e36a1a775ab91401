"""Any attack of the package Foolbox (Rauber et al. 2020) by its name."""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_adv.attacks.balls import L1, L2, Ball, Linf, per_sample
from lightning_adv.attacks.base import Attack
from lightning_adv.attacks.distance import Distance, parse_distance
from lightning_adv.attacks.external.adapters import (
    check_installed,
    draw_seed,
    inside_as_given,
    missing_gradient_told,
    own_random_state,
    single_precision,
)
from lightning_adv.attacks.forward import Forward
from lightning_adv.attacks.hold import BatchNormMode
from lightning_adv.core.arguments import check_choices
from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean

_BALLS: dict[float, type[Ball]] = {1: L1, 2: L2, math.inf: Linf}

# The modules of foolbox.attacks whose attacks ask the network for its outputs only; Foolbox itself does not tell.
_BLACK_BOX = (
    "additive_noise", "binarization", "blended_noise", "blur", "boundary_attack", "contrast", "contrast_min",
    "dataset_attack", "gen_attack", "hop_skip_jump", "inversion", "pointwise", "saltandpepper", "spatial_attack",
)  # fmt: skip
_DISTANCES = ("l0", "l1", "l2", "linf")


class FoolboxAttack(Attack):
    """An untargeted attack of ``foolbox.attacks`` within ``eps``, in the distance that Foolbox gives it.

    What goes further than ``eps`` is shortened, as Foolbox clips it, so that an attack in search of the nearest
    adversarial example may return one that fails. In L0, where nothing can be shortened, an example that changes more
    than ``eps`` entries is returned clean; so is one that is not a number. Foolbox is run in fp32, and its result
    brought into the ball in ``x``'s dtype.

    Args:
        name: A class of ``foolbox.attacks``, such as ``"LinfDeepFoolAttack"``. Checked at once where Foolbox is
            installed, else by :meth:`check_available`.
        eps: Radius in the attack's distance, a number or a fraction.
        options: The arguments of that class. Where it takes a ``distance``, one of ``"l0"``, ``"l1"``, ``"l2"`` and
            ``"linf"``.
        batchnorm: What BatchNorms normalise by: ``"eval"`` running statistics, ``"batch"`` those of the batch.

    Raises:
        UsageError: An argument is out of its range, or Foolbox has no such attack.
    """

    eps: float

    def __init__(
        self,
        name: str = "LinfDeepFoolAttack",
        eps: Distance = "8/255",
        *,
        options: dict[str, Any] | None = None,
        batchnorm: BatchNormMode = "eval",
    ) -> None:
        self.name = self.variant = name
        self.eps = parse_distance(eps, "eps")
        self.options = options
        self.batchnorm = batchnorm
        check_choices(self, FoolboxAttack)
        # Without Foolbox the recipe can still be read, from a checkpoint say.
        if importlib.util.find_spec("foolbox") is not None:
            self.check_available()

    def check_available(self) -> None:
        """Check that Foolbox is installed and has this attack with these options.

        Raises:
            UsageError: It is not, or it has not.
        """
        self._build()

    @property
    def black_box(self) -> bool:
        """Whether the attack sees the network's outputs only, such as the boundary attack.

        Raises:
            UsageError: Foolbox is not installed.
        """
        return type(self._build()).__module__.rpartition(".")[2] in _BLACK_BOX

    @property
    def norm(self) -> Ball | None:  # type: ignore[override]  # only read
        """The ball of the attack's distance; None for L0.

        Raises:
            UsageError: Foolbox is not installed.
        """
        ball = _BALLS.get(self._build().distance.p)
        return None if ball is None else ball()

    @property
    def reach(self) -> float | None:
        """How far the steps of a gradient attack with an own step size can lead; None for others.

        Raises:
            UsageError: Foolbox is not installed.
        """
        attack = self._build()
        steps, absolute, share = (getattr(attack, name, None) for name in ("steps", "abs_stepsize", "rel_stepsize"))
        if absolute is None and share is not None:
            absolute = share * self.eps
        return None if absolute is None or not isinstance(steps, int) else float(steps * absolute)

    @property
    def passes(self) -> int:
        """The attack's own number of steps; 1 for one that has none.

        Raises:
            UsageError: Foolbox is not installed.
        """
        steps = getattr(self._build(), "steps", 1)
        return steps if isinstance(steps, int) else 1

    def perturb(self, forward: Forward, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the adversarial examples; see :meth:`Attack.perturb`.

        Raises:
            UsageError: Foolbox is not installed.
        """
        attack, norm = self._build(), self.norm
        seed = draw_seed(generator)
        if not len(x):
            return x
        given = x.to(forward.dtype)

        def single(images: Tensor) -> Tensor:
            return forward(images).float()

        with own_random_state(seed), single_precision():
            with torch.no_grad():
                single(given)  # labels are checked before Foolbox has them
            with missing_gradient_told(single, given):
                found = self._find(attack, single, x.float(), y, None if norm is None else self.eps)
        kept = found.isfinite().flatten(1).all(1)
        if norm is None:
            found = found.clamp(0, 1).to(given.dtype)
            kept &= (found != given).flatten(1).sum(1) <= self.eps
        else:
            found = inside_as_given(norm, given, found, self.eps)
        return torch.where(kept.view(per_sample(x)), found, given)

    def _find(
        self, attack: Any, forward: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, eps: float | None
    ) -> Tensor:
        import foolbox

        network = foolbox.PyTorchModel(_Network(forward), bounds=(0, 1), device=x.device)
        _, clipped, _ = attack(network, x, foolbox.criteria.Misclassification(y), epsilons=eps)
        found: Tensor = clipped
        return found.detach()

    def _build(self) -> Any:
        check_installed("foolbox", type(self).__name__, "foolbox>=3.3.4")
        import foolbox

        known: dict[str, Any] = {
            name: kind
            for name, kind in vars(foolbox.attacks).items()
            if inspect.isclass(kind) and issubclass(kind, foolbox.attacks.Attack) and not inspect.isabstract(kind)
        }
        if self.name not in known:
            hint = did_you_mean(self.name, known)
            raise UsageError(f"name must be a class of foolbox.attacks, got {self.name!r}.{hint}")
        options = {} if self.options is None else dict(self.options)
        if options.get("distance") in _DISTANCES:
            options["distance"] = getattr(foolbox.distances, options["distance"])
        try:
            attack = known[self.name](**options)
            attack.distance.clip_perturbation  # noqa: B018 - some ask for a distance only here
        except (TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"options must be those of Foolbox's {self.name}, with a distance of {', '.join(_DISTANCES)} where it "
                f"takes one, got {self.options!r}: {error}"
            ) from error
        return attack


class _Network(nn.Module):
    """A function as a module in eval mode, which does not own the network: Foolbox moves what it is given."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = forward
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K)."""
        return self.function(images)
