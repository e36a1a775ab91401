"""What an evaluation runs: attacks × norms × radii, in the order in which they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

from lightning_adv.attacks import Attack
from lightning_adv.attacks.balls import get_ball
from lightning_adv.attacks.describe import attack_name, shortfall
from lightning_adv.attacks.distance import Distance, parse_distance
from lightning_adv.core.distances import tell_distance
from lightning_adv.core.errors import UsageError
from lightning_adv.core.threat_model import ThreatModel
from lightning_adv.evaluation.options import CommonCorruptions, StepsCurve
from lightning_adv.nn.weights.load import say


class Case(NamedTuple):
    """One attack under one threat model.

    Attributes:
        threat: The threat model.
        name: The attack's name, unique within the threat model.
        attack: The attack, at the threat model's norm and radius.
    """

    threat: ThreatModel
    name: str
    attack: Attack

    @property
    def key(self) -> str:
        """The case's name in files."""
        return f"{self.threat}: {self.name}"


BATCHES = 4
"""Batches in a chunk. What the attacks leave of them fills batches again: many small ones would take as long."""


@dataclass(frozen=True)
class Plan:
    """What an evaluation runs.

    Attributes:
        cases: The cases, by norm, then by increasing radius, then in the order of the attacks.
        left_out: Names of attacks that fit none of the norms, and their norms.
        unfit: Attacks, or parts of attacks, that cannot be run on the network or its images, each with the reason.
        curves: The attack of the accuracy over steps for each norm, if there is a curve.
        steps: The numbers of steps of the curve.
        curve_images: How many images the curve is of.
        corruptions: The common corruptions, if they are asked for.
        exhaustive: Whether every attack sees every sample that the network classifies correctly. Otherwise those that
            an attack has broken, at this radius or a smaller one, are left alone.
        seed: Seed of all noise.
    """

    cases: tuple[Case, ...]
    left_out: tuple[str, ...] = ()
    unfit: tuple[str, ...] = ()
    curves: tuple[Case, ...] = ()
    steps: tuple[int, ...] = ()
    curve_images: int = 0
    corruptions: CommonCorruptions | None = None
    exhaustive: bool = False
    seed: int = 0

    @property
    def threats(self) -> list[ThreatModel]:
        """The threat models, in order."""
        return list(dict.fromkeys(case.threat for case in self.cases))


def make_plan(
    attacks: Sequence[Attack],
    eps: Mapping[str, Sequence[Distance]],
    *,
    steps_curve: StepsCurve | None = None,
    corruptions: CommonCorruptions | None = None,
    exhaustive: bool = False,
    seed: int = 0,
) -> Plan:
    """Put attacks, norms and radii together.

    An attack is given at any radius: it is moved to each radius of the list, its step size in proportion. One that
    knows a single norm is run under that norm alone, and one without a ball once.

    Args:
        attacks: The attacks, in the order in which they run.
        eps: For each norm its radii, increasing; numbers or fractions such as ``"8/255"``.
        steps_curve: The accuracy over the number of steps; None for none.
        corruptions: The common corruptions; None for none.
        exhaustive: Attack also samples that another attack, or the same at a smaller radius, has broken.
        seed: Seed of all noise.

    Raises:
        UsageError: A norm or a radius is not allowed, radii do not increase, no attack fits, or a package that an
            attack needs is not installed.

    Example:
        >>> from lightning_adv.attacks import FGSM, PGD
        >>> plan = make_plan([FGSM(), PGD(steps=20)], {"linf": ["4/255", "8/255"]})
        >>> [case.key for case in plan.cases][1:3]
        ['Linf 4/255: PGD-20', 'Linf 8/255: FGSM']
    """
    if not attacks and corruptions is None:
        raise UsageError("attacks must hold at least one attack, got none.")
    if corruptions is not None:
        corruptions.check_available()
    for position, attack in enumerate(attacks):
        if not isinstance(attack, Attack):
            raise UsageError(
                f"attacks must hold instances of lightning_adv.attacks.Attack, got {attack!r} at index {position}."
            )
        attack.check_available()
        _warn(shortfall(attack, "attacks"))
        if not attack.says("norm") and not attack.says("eps"):
            _warn(
                f"attacks: {type(attack).__name__} says neither norm nor eps: it is run once, as it is, in no ball of "
                "a norm. Keep both in attributes to have it moved to each eps, or norm = None if that is meant."
            )
    threats = [*_threats(eps), ThreatModel(None, None)]
    cases = [case for threat in threats for case in _cases(attacks, threat)]
    unfit = [attack for attack in attacks if not any(fits(attack, threat) for threat in threats)]
    left_out = tuple(f"{attack_name(attack)} ({attack.threat_model.norm})" for attack in unfit)
    if attacks and not cases:
        raise UsageError(f"eps has {', '.join(eps) if eps else 'no norm'}, but no attack fits: {', '.join(left_out)}.")
    plan = Plan(tuple(cases), left_out=left_out, corruptions=corruptions, exhaustive=exhaustive, seed=seed)
    if steps_curve is None:
        return plan
    _warn(shortfall(steps_curve.attack, "steps_curve.attack", steps=max(steps_curve.steps)))
    largest = {threat.norm: threat for threat in threats}.values()  # the last of each norm
    curves = tuple(
        Case(threat, f"PGD over steps, {threat}", fit_attack(steps_curve.attack, threat))
        for threat in largest
        if fits(steps_curve.attack, threat)
    )
    if not curves:
        name = attack_name(steps_curve.attack)
        raise UsageError(
            f"steps_curve.attack fits none of the norms of eps: {name} ({steps_curve.attack.threat_model.norm})."
        )
    return replace(plan, curves=curves, steps=tuple(steps_curve.steps), curve_images=steps_curve.images)


def fits(attack: Attack, threat: ThreatModel) -> bool:
    """Return whether an attack can be run under a threat model."""
    norm = attack.threat_model.norm
    if threat.norm is None or norm is None:
        return threat.norm is None and norm is None
    return "norm" in attack.arguments() or norm == threat.norm


def fit_attack(attack: Attack, threat: ThreatModel) -> Attack:
    """Return an attack under a threat model: its norm, its radius, and its step size in proportion to the radius.

    An attack without a ball stays as it is.
    """
    if threat.norm is None:
        return attack
    arguments = attack.arguments()
    if threat.eps is not None:
        _scale_step(attack, arguments, threat.eps)
    arguments["eps"] = threat.eps
    if (
        "norm" in arguments and attack.threat_model.norm != threat.norm
    ):  # a ball of that norm may have settings of its own
        arguments["norm"] = threat.norm
    return type(attack)(**arguments)  # not by its class_path: an attack of a notebook's has none


def _scale_step(attack: Attack, arguments: dict[str, Any], eps: float) -> None:
    """Bring the step size among an attack's arguments to a radius; None and shares of the radius follow it anyway."""
    own, step_size = attack.radius, arguments.get("step_size")
    if own == 0:  # a step is in proportion to no such radius
        arguments.pop("step_size", None)
    elif own is not None and step_size is not None and not (isinstance(step_size, str) and "eps" in step_size):
        arguments["step_size"] = parse_distance(step_size, "step_size") * (eps / own)


def _threats(eps: Mapping[str, Sequence[Distance]]) -> list[ThreatModel]:
    threats = []
    for norm, radii in eps.items():
        ball = get_ball(norm)
        if isinstance(radii, str | float | int) or not radii:
            raise UsageError(f"eps.{norm} must be a list of radii such as [4/255, 8/255], got {radii!r}.")
        numbers = [parse_distance(value, f"eps.{norm}", ball.max_eps) for value in radii]
        if numbers[0] <= 0 or any(later <= earlier for earlier, later in pairwise(numbers)):
            raise UsageError(f"eps.{norm} must be increasing radii above 0, got {list(radii)}.")
        told = [tell_distance(number) for number in numbers]
        if len(set(told)) < len(told):  # cases are told apart by what is written of them
            raise UsageError(f"eps.{norm} must be radii that differ in the first six digits, got {list(radii)}.")
        threats += [ThreatModel(norm, number) for number in numbers]
    return threats


def _cases(attacks: Sequence[Attack], threat: ThreatModel) -> list[Case]:
    fitted = [fit_attack(attack, threat) for attack in attacks if fits(attack, threat)]
    names: Counter[str] = Counter()
    cases = []
    for attack in fitted:
        name = attack_name(attack)
        names[name] += 1
        cases.append(Case(threat, name if names[name] == 1 else f"{name} ({names[name]})", attack))
    return cases


def _warn(text: str | None) -> None:
    if text is not None:
        say(text, warn=True)
