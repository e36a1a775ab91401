"""What each attack does to each sample of a chunk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_adv.analysis.corruption_errors import corruption_errors
from lightning_adv.attacks import PGD, Attack, attacking
from lightning_adv.attacks.balls import get_ball
from lightning_adv.evaluation.options import CommonCorruptions
from lightning_adv.evaluation.plan import Case, Plan, ThreatModel
from lightning_adv.seeds import derive_seed

MISCLASSIFIED, BROKEN, SURVIVED, SKIPPED = "misclassified", "broken", "survived", "skipped"
"""A sample is misclassified as it is; broken by the attack; survives it; or was broken before, and is skipped."""


@dataclass
class CaseVerdicts:
    """What one case did to the N samples of a chunk. Lists have N entries.

    Attributes:
        verdicts: ``"broken"``, ``"survived"``, ``"skipped"`` or ``"misclassified"``.
        predicted: The class of the example that broke the sample, -1 where the network gave it NaN; None where none
            did.
        distance: Its distance from the clean image, in the norm of the threat model (no norm: largest pixel change).
        stage: Which of the attack's stages broke it, counted from 0.
        seconds: How long the attack took, without judging its examples.
    """

    verdicts: list[str]
    predicted: list[int | None]
    distance: list[float | None]
    stage: list[int | None]
    seconds: float = 0.0

    def where(self, verdict: str) -> Tensor:
        """Return which samples have a verdict: (N,) bool."""
        return torch.tensor([given == verdict for given in self.verdicts], dtype=torch.bool)


@dataclass
class ChunkVerdicts:
    """What an evaluation knows of one chunk; plain data, so that it can be written down as it grows.

    Attributes:
        chunk: The chunk's number.
        index: The samples' numbers in the data set.
        labels: Their labels.
        predicted: Their predicted classes, as they are.
        cases: By :attr:`Case.key`, what each case did.
        curves: By :attr:`Case.key`, for each number of steps how many of the chunk's images are classified correctly.
        curve_images: How many images the curves are of.
        corruptions: By corruption, the rows of :class:`~lightning_adv.analysis.corruption_errors.CorruptionError` at
            each severity.
    """

    chunk: int
    index: list[int]
    labels: list[int]
    predicted: list[int]
    cases: dict[str, CaseVerdicts] = field(default_factory=dict)
    curves: dict[str, list[int]] = field(default_factory=dict)
    curve_images: int = 0
    corruptions: dict[str, list[list[Any]]] = field(default_factory=dict)

    @property
    def correct(self) -> Tensor:
        """Which samples are classified correctly as they are: (N,) bool."""
        return torch.tensor(self.predicted) == torch.tensor(self.labels)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> ChunkVerdicts:
        """Build it again from what ``dataclasses.asdict`` gave."""
        cases = {key: CaseVerdicts(**case) for key, case in plain["cases"].items()}
        return cls(**{**plain, "cases": cases})


def broken_within(chunk: ChunkVerdicts, threat: ThreatModel, cases: Sequence[Case]) -> Tensor:
    """Return which samples of a chunk have an example within a threat model, by any of the cases run so far.

    A ball holds the smaller balls of its norm, and the examples in them.

    Returns:
        (N,) bool; False for samples that are misclassified as they are.
    """
    broken = torch.zeros(len(chunk.labels), dtype=torch.bool)
    for case in cases:
        if case.key in chunk.cases and _holds(threat, case.threat):
            broken |= chunk.cases[case.key].where(BROKEN)
    return broken


def evaluate_chunk(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    plan: Plan,
    *,
    number: int = 0,
    first: int = 0,
    index: Sequence[int] | None = None,
    domain: str | None = None,
    known: ChunkVerdicts | None = None,
    after_case: Callable[[ChunkVerdicts, int], None] = lambda chunk, samples: None,
) -> ChunkVerdicts:
    """Run all cases of a plan on one chunk of samples.

    The noise of an attack depends on the plan's seed, the chunk's number, the case, the stage and the samples that are
    attacked: not on which process runs it, nor on the device. It is drawn on the CPU.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K). It is left as it was.
        x: Images (N, C, H, W) in [0, 1].
        y: Labels (N,).
        plan: What to run.
        number: The chunk's number.
        first: The position of its first sample among all that are evaluated.
        index: The samples' numbers in the data set; None counts on from ``first``.
        domain: The BatchNorm domain to evaluate through; None leaves the active one.
        known: What is known of this chunk already; cases in it are not run again.
        after_case: Called after each case, curve and corruption with all that is known, and the number of samples that
            it is about.

    Returns:
        What is known of the chunk.

    Raises:
        ValueError: The network gives NaN for a clean image.
        RuntimeError: An attack gives an example that is not allowed.
    """
    chunk = known
    if chunk is None:
        numbers = range(first, first + len(y)) if index is None else index
        chunk = ChunkVerdicts(number, list(numbers), y.tolist(), predict(network, x, domain).tolist())
        if -1 in chunk.predicted:
            raise ValueError("The network's logits of clean images are not all numbers (NaN): it cannot be evaluated.")
    for case in plan.cases:
        if case.key not in chunk.cases:
            skipped = (
                torch.zeros_like(chunk.correct) if plan.exhaustive else broken_within(chunk, case.threat, plan.cases)
            )
            chunk.cases[case.key] = _run_case(network, x, y, case, chunk.correct, skipped, plan.seed, number, domain)
        after_case(chunk, len(y))
    chunk.curve_images = min(max(plan.curve_images - first, 0), len(y)) if plan.curves else 0
    for case in plan.curves if chunk.curve_images else ():
        if case.key not in chunk.curves:
            chunk.curves[case.key] = _run_curve(network, x, y, case, chunk.curve_images, plan, number, domain)
        after_case(chunk, chunk.curve_images)
    if plan.corruptions is not None:
        for name in plan.corruptions.chosen:
            if name not in chunk.corruptions:
                chunk.corruptions[name] = _corrupt(
                    network, x, y, name, plan.corruptions, plan.seed, chunk.index, domain
                )
            after_case(chunk, len(y))
    return chunk


@torch.no_grad()
def predict(network: nn.Module, x: Tensor, domain: str | None = None) -> Tensor:
    """Return the predicted classes (N,) of images (N, C, H, W), on the CPU; -1 where a logit is no number."""
    with attacking(network, domain=domain) as held_still, torch.no_grad():
        logits: Tensor = held_still(x).float()
    return torch.where(logits.isnan().any(1), -1, logits.argmax(1)).cpu()


def _holds(outer: ThreatModel, inner: ThreatModel) -> bool:
    if outer.norm != inner.norm or outer.eps is None or inner.eps is None:
        return outer == inner
    return outer.eps >= inner.eps


def _run_case(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    case: Case,
    correct: Tensor,
    skipped: Tensor,
    seed: int,
    number: int,
    domain: str | None,
) -> CaseVerdicts:
    verdicts = [
        MISCLASSIFIED if not right else SKIPPED if skip else SURVIVED
        for right, skip in zip(correct.tolist(), skipped.tolist(), strict=True)
    ]
    found = CaseVerdicts(verdicts, [None] * len(y), [None] * len(y), [None] * len(y))
    for position, stage in enumerate(case.attack.stages()):
        intact = found.where(SURVIVED).nonzero().flatten()
        if not len(intact):
            break
        chosen = intact.to(x.device)
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(derive_seed(seed, number, case.key, position))
        x_adv = stage(network, x[chosen], y[chosen], domain=domain, generator=generator)
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)  # a kernel that still runs would be somebody else's time
        found.seconds += time.perf_counter() - start
        classes = predict(network, x_adv, domain)
        distance = _distance(case, stage, x[chosen], x_adv)
        for i, label, guess, far in zip(intact.tolist(), y[chosen].tolist(), classes.tolist(), distance, strict=True):
            if guess != label:
                found.verdicts[i] = BROKEN
                found.predicted[i], found.distance[i], found.stage[i] = guess, far, position
    return found


def _distance(case: Case, attack: Attack, x: Tensor, x_adv: Tensor) -> list[float]:
    """Return how far examples are from the clean images, (N,), after a look at whether they are allowed.

    Raises:
        RuntimeError: An example leaves the ball or [0, 1]: the attack is faulty, and its verdicts would be wrong.
    """
    norm, eps = case.threat
    distance = get_ball("linf" if norm is None else norm).norm(x_adv.double() - x.double())
    # rounding of one addition in the images' precision, entry by entry, adds up over the entries in L1 and L2
    slack = 4 * torch.finfo(x.dtype).eps * get_ball("linf" if norm is None else norm).norm(torch.ones_like(x.double()))
    outside = (x_adv < 0).any() or (x_adv > 1).any() or x_adv.isnan().any()
    if outside or (eps is not None and (distance > eps + slack).any()):
        raise RuntimeError(
            f"{case.name} gave an example at a distance of {distance.max():.6g} with values from {x_adv.min():.6g} to "
            f"{x_adv.max():.6g}, which {case.threat} does not allow: {type(attack).__name__} is faulty."
        )
    return [float(value) for value in distance]


def _run_curve(
    network: nn.Module, x: Tensor, y: Tensor, case: Case, images: int, plan: Plan, number: int, domain: str | None
) -> list[int]:
    attack = case.attack
    if not isinstance(attack, PGD):  # StepsCurve takes no other
        raise TypeError(f"{case.name} is no PGD.")
    x, y = x[:images], y[:images]
    generator = torch.Generator().manual_seed(derive_seed(plan.seed, number, case.key, 0))
    iterates = attack.iterates(network, x, y, plan.steps, domain=domain, generator=generator)
    return [int((predict(network, x_adv, domain) == y.cpu()).sum()) for x_adv in iterates]


def _corrupt(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    name: str,
    corruptions: CommonCorruptions,
    seed: int,
    index: list[int],
    domain: str | None,
) -> list[list[Any]]:
    rows = corruption_errors(
        network,
        x,
        y,
        seed=seed,
        corruptions=[name],
        severities=corruptions.severities,
        index=index,
        family=corruptions.family,
        domain=domain,
    )
    return [list(row) for row in rows]
