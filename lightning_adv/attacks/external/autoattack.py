"""AutoAttack (Croce & Hein 2020), run by its authors' code: the package ``pyautoattack``."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor

from lightning_adv.attacks.balls import Ball, Norm, get_ball
from lightning_adv.attacks.base import Attack
from lightning_adv.attacks.checks import check_counts
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

_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
# The component of pyautoattack.AutoAttack that runs each attack, what is set in it, and the classes that it needs.
_COMPONENTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "apgd-ce": ("apgd", {"loss": "ce"}, 2),
    "apgd-dlr": ("apgd", {"loss": "dlr"}, 3),
    "apgd-t": ("apgd_targeted", {}, 4),
    "fab": ("fab", {"targeted": False}, 2),
    "fab-t": ("fab", {"targeted": True}, 2),
    "square": ("square", {}, 2),
}
_PASSES = {"apgd-ce": 100, "apgd-dlr": 100, "apgd-t": 900, "fab": 100, "fab-t": 900, "square": 5000}
_logger = logging.getLogger("lightning_adv")


class AutoAttack(Attack):
    """The ensemble of attacks without parameters (Croce & Hein 2020, section 6), through the package ``pyautoattack``.

    Each attack is run, at the settings of the package's standard version, on the samples that those before it have not
    broken. Broken samples come back as the first adversarial example found, all others clean: as by the package's own
    ``run_standard_evaluation`` with the same seed. What is left out are its checks of the network by tracing, which
    would take the debugger's place. Targeted attacks aim at the K - 1 other classes, at most 9 (5 for APGD-T in L1).

    The package is run in fp32, and its result brought into the ball in ``x``'s dtype. Its warning of zero gradients
    goes to the logger ``lightning_adv``, once.

    Args:
        eps: Radius of the ball, a number or a fraction.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        attacks: Any of ``"apgd-ce"``, ``"apgd-dlr"``, ``"apgd-t"``, ``"fab"``, ``"fab-t"`` and ``"square"``, in the
            order in which they run. ``"apgd-dlr"`` needs 3 classes and ``"apgd-t"`` 4.
        batch_size: Number of samples attacked at a time, 250 in the package.
        batchnorm: What BatchNorms normalise by: ``"eval"`` running statistics, ``"batch"`` those of the batch. In
            batch mode clean images fill up a batch that has shrunk, so that its statistics stay those of a batch.

    Raises:
        UsageError: An argument is out of its range.
    """

    norm: Ball
    eps: float

    def __init__(
        self,
        eps: Distance = "8/255",
        *,
        norm: Norm = "linf",
        attacks: Sequence[str] = ("apgd-ce", "apgd-t", "fab-t", "square"),
        batch_size: int = 250,
        batchnorm: BatchNormMode = "eval",
    ) -> None:
        self.norm = get_ball(norm)
        self.eps = parse_distance(eps, "eps", self.norm.max_eps)
        self.attacks = attacks
        self.variant = _variant(attacks)
        self.batch_size = batch_size
        self.batchnorm = batchnorm
        self._warned = False
        self._check()

    def _check(self) -> None:
        if self.norm.name not in _NORMS:
            raise UsageError(f"norm must be one of {', '.join(_NORMS)}, got {self.norm.name!r}.")
        if isinstance(self.attacks, str) or not self.attacks:
            raise UsageError(f"attacks must be a list of {', '.join(_COMPONENTS)}, got {self.attacks!r}.")
        for name in self.attacks:
            if name not in _COMPONENTS:
                allowed = f"attacks may hold {', '.join(_COMPONENTS)}"
                raise UsageError(f"{allowed}; got {name!r}.{did_you_mean(name, _COMPONENTS)}")
        check_counts(self, "batch_size")
        check_choices(self, AutoAttack)

    def check_available(self) -> None:
        """Check that the package is installed, at no cost.

        Raises:
            UsageError: It is not.
        """
        check_installed("pyautoattack", type(self).__name__, "lightning-adv[eval]")

    @property
    def black_box(self) -> bool:
        """Whether Square is all there is."""
        return list(self.attacks) == ["square"]

    @property
    def passes(self) -> int:
        """The steps of each attack's standard version together: 100 each, for each of 9 targets, and 5,000 queries."""
        return sum(_PASSES[name] for name in self.attacks)

    def stages(self) -> list[Attack]:
        """Return one AutoAttack for each of the attacks."""
        return [self._of([name]) for name in self.attacks]

    def part(self, stages: Sequence[Attack]) -> Attack | None:
        """Return the ensemble of some of the attacks."""
        if len(stages) == len(self.attacks):
            return self
        names = [name for stage in stages if isinstance(stage, AutoAttack) for name in stage.attacks]
        return self._of(names) if names else None

    def _of(self, names: Sequence[str]) -> Self:
        part = copy.copy(self)
        part.attacks, part.variant = names, _variant(names)
        return part

    def perturb(self, forward: Forward, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the adversarial examples; see :meth:`Attack.perturb`.

        Raises:
            UsageError: The package is not installed, or there are too few classes or pixels for one of the attacks.
        """
        self.check_available()
        seed = draw_seed(generator)
        given = x.to(forward.dtype)

        def filled(images: Tensor) -> Tensor:
            full = images
            if self.batchnorm == "batch" and len(images) < self.batch_size:
                full = torch.cat([images.to(given), given[len(images) : self.batch_size]])
            return forward(full)[: len(images)].float()

        with (
            own_random_state(seed),
            torch.no_grad(),
            single_precision(),
            _collected_warnings() as warnings,
            missing_gradient_told(filled, given),
        ):
            x_adv = self._run(filled, given, y, seed)
        if warnings and not self._warned:
            self._warned = True
            _logger.warning("AutoAttack (reported once): %s", warnings[0])
        return x_adv

    def _run(self, forward: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, seed: int) -> Tensor:
        logits = torch.cat([forward(images) for images in torch.split(x, self.batch_size)])
        num_classes = logits.shape[1]
        self.check_fits(tuple(x.shape[1:]), num_classes)
        library = self._library(forward, num_classes, x.device, seed)
        # Contiguous: the package takes views. In fp32, as it makes what it is given.
        x_adv, clean, robust = x.clone(), x.float().contiguous(), logits.argmax(1) == y
        for name in self.attacks:
            component, settings, _ = _COMPONENTS[name]
            attack = getattr(library, component)
            vars(attack).update(settings)
            for rows in torch.split(robust.nonzero().flatten(), self.batch_size):
                if not len(rows):
                    break
                found = inside_as_given(self.norm, x[rows], attack.perturb(clean[rows], y[rows]), self.eps)
                broken = forward(found).argmax(1) != y[rows]
                x_adv[rows[broken]] = found[broken]
                robust[rows[broken]] = False
        return x_adv

    def _library(self, forward: Callable[[Tensor], Tensor], num_classes: int, device: torch.device, seed: int) -> Any:
        import pyautoattack

        norm = _NORMS[self.norm.name]
        library = pyautoattack.AutoAttack(
            forward, norm=norm, eps=self.eps, seed=seed, device=device, version="standard"
        )
        for attack in (library.apgd_targeted, library.fab):
            attack.n_target_classes = min(attack.n_target_classes, num_classes - 1)
        return library

    def check_fits(self, shape: tuple[int, ...], num_classes: int) -> None:
        """Check the number of classes and the size of the images; see :meth:`Attack.check_fits`.

        Raises:
            UsageError: There are too few classes or pixels for one of the attacks.
        """
        for name in self.attacks:
            needed = _COMPONENTS[name][2]
            if num_classes < needed:
                raise UsageError(
                    f"attacks holds {name!r}, which needs at least {needed} classes, and the network has "
                    f"{num_classes}: leave it out."
                )
        if "square" in self.attacks and (len(shape) != 3 or (self.norm.name != "linf" and min(shape[1:]) < 5)):
            raise UsageError(
                "attacks holds 'square', which needs images (N, C, H, W), in l2 and l1 of at least 5 x 5 pixels, got "
                f"the shape {shape} of an image."
            )


def _variant(attacks: Sequence[str]) -> str:
    return attacks[0] if len(attacks) == 1 else ""


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Keep what the package logs to itself, and collect its warnings."""
    logger, warnings = logging.getLogger("auto-attack"), list[str]()

    def collect(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            warnings.append(record.getMessage())
        return False

    logger.addFilter(collect)
    try:
        yield warnings
    finally:
        logger.removeFilter(collect)
