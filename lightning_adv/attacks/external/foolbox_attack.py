"""Any attack of the package Foolbox (Rauber et al. 2020) by its name."""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_adv.attacks.balls import L1, L2, Ball, Linf, column
from lightning_adv.attacks.base import (
    Attack,
    BatchNormMode,
    attacking,
    check_images,
    check_labels,
    check_logits,
)
from lightning_adv.attacks.distance import Distance, parse_distance
from lightning_adv.attacks.external.adapters import (
    bring_inside,
    check_installed,
    draw_seed,
    missing_gradient_told,
    own_random_state,
    single_precision,
)
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

    def __init__(
        self,
        name: str = "LinfDeepFoolAttack",
        eps: Distance = "8/255",
        *,
        options: dict[str, Any] | None = None,
        batchnorm: BatchNormMode = "eval",
    ) -> None:
        self.name = name
        self.eps = parse_distance(eps, "eps")
        self.options = options
        self.batchnorm = batchnorm
        if batchnorm not in ("eval", "batch"):
            raise UsageError(f"batchnorm must be one of eval, batch, got {batchnorm!r}.")
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
    def norm(self) -> Ball | None:
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

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        domain: str | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the adversarial examples; see :meth:`Attack.__call__`.

        Raises:
            UsageError: Foolbox is not installed.
        """
        check_images(x, y)
        attack, norm = self._build(), self.norm
        seed = draw_seed(self._generator(generator))
        if not len(x):
            return x.detach().clone()
        with (
            attacking(model, batchnorm=self.batchnorm, domain=domain) as network,
            own_random_state(seed),
            single_precision(),
        ):
            x, y = x.detach().clone(), y.clone().long()

            def forward(images: Tensor) -> Tensor:
                return check_logits(network(images.to(x.dtype)), len(images)).float()

            with torch.no_grad():
                check_labels(y, forward(x).shape[1])
            with missing_gradient_told(forward, x):
                found = self._find(attack, forward, x.float(), y, None if norm is None else self.eps)
        kept = found.isfinite().flatten(1).all(1)
        if norm is None:
            found = found.clamp(0, 1).to(x.dtype)
            kept &= (found != x).flatten(1).sum(1) <= self.eps
        else:
            found = bring_inside(norm, x, found, self.eps)
        return torch.where(kept.view(column(x)), found, x)

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
