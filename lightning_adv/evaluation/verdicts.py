"""What each attack does to each sample of a chunk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_adv.attacks import PGD, Attack
from lightning_adv.attacks.balls import get_ball
from lightning_adv.attacks.logits import logits_in_batches
from lightning_adv.core.errors import UsageError
from lightning_adv.core.seeds import derive_seed
from lightning_adv.core.threat_model import ThreatModel
from lightning_adv.evaluation.corruptions.errors import corruption_errors
from lightning_adv.evaluation.options import CommonCorruptions
from lightning_adv.evaluation.plan import Case, Plan

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
        corruptions: By corruption, the rows of :class:`~lightning_adv.evaluation.corruptions.errors.CorruptionError` at
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
        if case.key in chunk.cases and threat.holds(case.threat):
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
    batch_size: int | None = None,
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
        batch_size: How many samples to attack at a time; None attacks all. In a chunk of several batches, what is left
            of them fills batches again.
        known: What is known of this chunk already; cases in it are not run again.
        after_case: Called after each case, curve and corruption with all that is known, and the number of samples that
            it is about.

    Returns:
        What is known of the chunk.

    Raises:
        UsageError: The network gives NaN for a clean image, or what is known is of other samples or another plan.
        RuntimeError: An attack gives an example that is not allowed.

    Example:
        >>> import torch
        >>> from lightning_adv.attacks import FGSM
        >>> from lightning_adv.evaluation import make_plan
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> x, plan = torch.rand(3, 3, 2, 2), make_plan([FGSM()], {"linf": [0.1]})
        >>> chunk = evaluate_chunk(network, x, network(x).argmax(1), plan)
        >>> list(chunk.cases), len(chunk.cases["Linf 0.1: FGSM"].verdicts)
        (['Linf 0.1: FGSM'], 3)
    """
    chunk = known
    if chunk is None:
        numbers = range(first, first + len(y)) if index is None else index
        predicted = predict(network, x, batch_size).tolist()
        chunk = ChunkVerdicts(number, list(numbers), y.tolist(), predicted)
        if -1 in chunk.predicted:
            raise UsageError("The network's logits of clean images are not all numbers (NaN): it cannot be evaluated.")
    else:
        _check_known(chunk, y, index, plan)
    work = _Work(network, x, y, len(y) if batch_size is None else batch_size, plan.seed, number)
    for case in plan.cases:
        if case.key not in chunk.cases:
            skipped = broken_within(chunk, case.threat, () if plan.exhaustive else plan.cases)
            chunk.cases[case.key] = _run_case(work, case, chunk.correct, skipped)
        after_case(chunk, len(y))
    chunk.curve_images = min(max(plan.curve_images - first, 0), len(y)) if plan.curves else 0
    for case in plan.curves if chunk.curve_images else ():
        if case.key not in chunk.curves:
            chunk.curves[case.key] = _run_curve(work, case, plan.steps, chunk.curve_images)
        after_case(chunk, chunk.curve_images)
    if plan.corruptions is not None:
        for name in plan.corruptions.chosen:
            if name not in chunk.corruptions:
                chunk.corruptions[name] = _corrupt(work, name, plan.corruptions, chunk.index)
            after_case(chunk, len(y))
    return chunk


def _check_known(chunk: ChunkVerdicts, y: Tensor, index: Sequence[int] | None, plan: Plan) -> None:
    same = chunk.labels == y.tolist() and (index is None or chunk.index == list(index))
    for case in plan.cases:
        found = chunk.cases.get(case.key)
        same &= found is None or all(stage is None or stage < len(case.attack.stages()) for stage in found.stage)
    same &= all(len(curve) == len(plan.steps) for curve in chunk.curves.values())
    if not same:
        raise UsageError(f"known: what was written down of chunk {chunk.chunk} is of other samples or another plan.")


def predict(network: nn.Module, x: Tensor, batch_size: int | None = None) -> Tensor:
    """Return the predicted classes (N,) of images (N, C, H, W), on the CPU; -1 where a logit is no number."""
    logits = torch.cat(logits_in_batches(network, x, batch_size=batch_size)).float()
    return torch.where(logits.isnan().any(1), -1, logits.argmax(1)).cpu()


@dataclass(frozen=True)
class _Work:
    """What the cases of a chunk have in common."""

    network: nn.Module
    x: Tensor
    y: Tensor
    batch_size: int
    seed: int
    number: int

    def batches(self, chosen: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the chosen samples in batches, (n, C, H, W) and (n,)."""
        return [(self.x[part], self.y[part]) for part in torch.split(chosen.to(self.x.device), self.batch_size)]

    def generator(self, case: Case, stage: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, self.number, case.key, stage))

    def predict(self, images: Tensor) -> Tensor:
        return predict(self.network, images, self.batch_size)


def _run_case(work: _Work, case: Case, correct: Tensor, skipped: Tensor) -> CaseVerdicts:
    verdicts = [
        MISCLASSIFIED if not right else SKIPPED if skip else SURVIVED
        for right, skip in zip(correct.tolist(), skipped.tolist(), strict=True)
    ]
    found = CaseVerdicts(verdicts, [None] * len(correct), [None] * len(correct), [None] * len(correct))
    for position, stage in enumerate(case.attack.stages()):
        intact = found.where(SURVIVED).nonzero().flatten()
        if not len(intact):
            break
        generator = work.generator(case, position)
        start = time.perf_counter()
        parts = [stage(work.network, x, y, generator=generator) for x, y in work.batches(intact)]
        if work.x.device.type == "cuda":
            torch.cuda.synchronize(work.x.device)  # a kernel that still runs would be somebody else's time
        found.seconds += time.perf_counter() - start
        x_adv, chosen = torch.cat(parts), intact.to(work.x.device)
        distance = _distance(case, stage, work.x[chosen], x_adv)
        outcome = zip(intact.tolist(), work.y[chosen].tolist(), work.predict(x_adv).tolist(), distance, strict=True)
        for i, label, guess, far in outcome:
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


def _run_curve(work: _Work, case: Case, steps: Sequence[int], images: int) -> list[int]:
    attack = case.attack
    if not isinstance(attack, PGD):  # StepsCurve takes no other
        raise TypeError(f"{case.name} is no PGD.")
    generator, correct = work.generator(case, 0), [0] * len(steps)
    for x, y in work.batches(torch.arange(images)):
        iterates = attack.iterates(work.network, x, y, steps, generator=generator)
        for number, x_adv in enumerate(iterates):
            correct[number] += int((work.predict(x_adv) == y.cpu()).sum())
    return correct


def _corrupt(work: _Work, name: str, corruptions: CommonCorruptions, index: list[int]) -> list[list[Any]]:
    rows = corruption_errors(
        work.network,
        work.x,
        work.y,
        seed=work.seed,
        corruptions=[name],
        severities=corruptions.severities,
        index=index,
        family=corruptions.family,
        batch_size=work.batch_size,
    )
    return [list(row) for row in rows]
