"""What of a plan a network and its images allow: the rest is left out, and said."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from lightning_adv.attacks import Attack
from lightning_adv.attacks.describe import attack_name
from lightning_adv.attacks.forward import Forward, NoGradientError, check_gradient
from lightning_adv.attacks.hold import held_still
from lightning_adv.core.errors import UsageError, raised_in
from lightning_adv.evaluation.plan import Case, Plan


def leave_out_unfit(plan: Plan, network: nn.Module, x: Tensor, y: Tensor, *, num_classes: int) -> Plan:
    """Return a plan without the attacks, or the parts of attacks, that cannot be run on a network.

    These are attacks that need more classes or other images, and gradient attacks where the logits have no gradient to
    the images: black-box attacks are run all the same.

    Args:
        plan: What was asked for.
        network: Maps images (N, C, H, W) to logits (N, K). It is left as it was.
        x: At least one image (N, C, H, W), on the network's device; the first is attacked where it is to be found out
            whether an attack needs the gradient that there is not.
        y: Labels (N,).
        num_classes: Number of classes K.

    Returns:
        The plan; :attr:`Plan.unfit` says what was left out, and why.

    Raises:
        UsageError: Nothing is left to be run, or the network gives no logits.
    """
    probe = _Probe(network, x[:1], y[:1], num_classes)
    told: dict[str, None] = {}
    cases = [kept for case in plan.cases if (kept := _fitted(case, probe, told)) is not None]
    curves = [kept for case in plan.curves if (kept := _fitted(case, probe, told)) is not None]
    if plan.cases and not cases:
        raise UsageError(f"attacks: none can be run on this network: {'; '.join(told)}")
    return replace(plan, cases=tuple(cases), curves=tuple(curves), unfit=tuple(told))


class _Probe:
    """A network, and one image to try attacks on."""

    def __init__(self, network: nn.Module, x: Tensor, y: Tensor, num_classes: int) -> None:
        self._network, self._x, self._y = network, x, y
        self._num_classes = num_classes

    def obstacle(self, attack: Attack) -> str | None:
        """Return why an attack cannot be run; None if it can."""
        try:
            attack.check_fits(tuple(self._x.shape[1:]), self._num_classes)
        except UsageError as error:
            return str(error)
        if attack.black_box or self._has_gradient:
            return None
        generator = torch.Generator().manual_seed(0)
        try:
            attack(self._network, self._x, self._y, generator=generator)
        except NoGradientError as error:
            return str(error)
        except RuntimeError as error:
            # torch could not differentiate, in an attack of somebody else's: it has no class of its own for that
            if raised_in(error, "torch.autograd"):
                return str(NoGradientError())
            raise
        return None

    @cached_property
    def _has_gradient(self) -> bool:
        with held_still(self._network) as still:
            x = self._x.detach().clone()
            try:
                check_gradient(Forward(still, x.dtype), x)
            except NoGradientError:
                return False
        return True


def _fitted(case: Case, probe: _Probe, told: dict[str, None]) -> Case | None:
    """Return a case with what of its attack can be run; None where that is nothing. Why not is added to ``told``."""
    stages = case.attack.stages()
    obstacles = {id(stage): probe.obstacle(stage) for stage in dict.fromkeys(stages)}
    kept = [stage for stage in stages if obstacles[id(stage)] is None]
    if len(kept) == len(stages):
        return case
    part = case.attack.part(kept) if kept else None
    lost = stages if part is None else [stage for stage in stages if obstacles[id(stage)] is not None]
    for stage in lost:
        told[f"{attack_name(stage)}: {next(why for why in (obstacles[id(stage)], *obstacles.values()) if why)}"] = None
    if part is None:
        return None
    names = ", ".join(attack_name(stage).partition("(")[2].rstrip(")") or attack_name(stage) for stage in kept)
    return case._replace(name=f"{case.name} ({names})", attack=part)
